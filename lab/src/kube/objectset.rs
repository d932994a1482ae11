//! What Rancher's controllers (K3s' deploy controller, helm-controller, Fleet) note on the objects that they make: which set
//! an object is of, whose that is, and what it was made from. Grade: source (wrangler).
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use sha1::Digest;

use super::text::{b64, hex, s};

/// Annotation with the name of the set.
pub const ID: &str = "objectset.rio.cattle.io/id";
/// Label by which all objects of a set are found.
pub const HASH: &str = "objectset.rio.cattle.io/hash";
const APPLIED: &str = "objectset.rio.cattle.io/applied";
const OWNER: &str = "objectset.rio.cattle.io/owner-";

/// A set of objects: its name, and the object that they belong to.
#[derive(Debug, Clone, Default)]
pub struct Set {
    id: String,
    gvk: String,
    name: String,
    namespace: String,
}

impl Set {
    /// The set called `id`, without an owner.
    #[must_use]
    pub fn named(id: &str) -> Self {
        Set { id: id.to_owned(), ..Set::default() }
    }

    /// The set called `id` (perhaps empty) of an object.
    #[must_use]
    pub fn of(id: &str, owner: &Value) -> Self {
        Set {
            id: id.to_owned(),
            gvk: gvk(owner),
            name: s(owner, "/metadata/name").to_owned(),
            namespace: s(owner, "/metadata/namespace").to_owned(),
        }
    }

    /// What the label of its objects says.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&sha1::Sha1::digest(format!("{}{}{}{}", self.id, self.gvk, self.name, self.namespace)))
    }

    /// Marks an object as one of the set.
    pub fn mark(&self, o: &mut Value) {
        let meta = &mut o["metadata"];
        if !self.gvk.is_empty() {
            for (key, value) in [("gvk", &self.gvk), ("name", &self.name), ("namespace", &self.namespace)] {
                meta["annotations"][format!("{OWNER}{key}")] = value.as_str().into();
            }
        }
        meta["annotations"][ID] = self.id.as_str().into();
        meta["labels"][HASH] = self.hash().into();
        // of a Secret nothing is repeated where more people may read it
        if o["kind"] != "Secret"
            && let Some(text) = packed(o)
        {
            o["metadata"]["annotations"][APPLIED] = text.into();
        }
    }
}

/// `group/version, Kind=Kind` of an object.
#[must_use]
pub fn gvk(o: &Value) -> String {
    let api = s(o, "/apiVersion");
    // the core group has an empty name
    let slash = if api.contains('/') { "" } else { "/" };
    format!("{slash}{api}, Kind={}", s(o, "/kind"))
}

fn packed(o: &Value) -> Option<String> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(o.to_string().as_bytes()).ok()?;
    Some(b64(&gz.finish().ok()?).trim_end_matches('=').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_set_of_an_addon() {
        let addon = json!({"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
            "metadata": {"name": "coredns", "namespace": "kube-system"}});
        let set = Set::of("", &addon);
        // as every K3s shows it
        assert_eq!(set.hash(), "bce283298811743a0386ab510f2f67ef74240c57");
        let mut o = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns"}});
        set.mark(&mut o);
        let notes = &o["metadata"]["annotations"];
        assert_eq!(notes["objectset.rio.cattle.io/owner-gvk"], "k3s.cattle.io/v1, Kind=Addon");
        assert_eq!(notes[ID], "");
        assert!(notes[APPLIED].as_str().is_some_and(|t| t.starts_with("H4sIAAAAAAAA/")));
        assert_eq!(gvk(&o), "/v1, Kind=ConfigMap");
    }
}
