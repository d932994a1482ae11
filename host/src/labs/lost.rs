//! Claims that a commit takes out of a repository: Fleet uninstalls what its folder no longer has, with its data.
use std::collections::BTreeMap;

use gpuhost_lab::kube::objects::from_yaml;
use gpuhost_stdlib::kubernetes::parse_yaml;
use serde_json::Value;

/// Text files by path.
type Files = BTreeMap<String, String>;

fn word<'a>(o: &'a Value, at: &str) -> &'a str {
    o.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn claims(files: &Files) -> impl Iterator<Item = (&str, Value)> {
    let yaml = |p: &str| (p.ends_with(".yaml") || p.ends_with(".yml")) && !p.ends_with("/fleet.yaml");
    let texts = files.iter().filter(move |(p, _)| yaml(p));
    texts
        .flat_map(|(p, text)| from_yaml(text).into_iter().map(move |o| (p.as_str(), o)))
        .filter(|(_, o)| o["kind"] == "PersistentVolumeClaim")
}

/// The `fleet.yaml` that a file belongs to: the nearest one above it.
fn bundle<'a>(files: &'a Files, path: &str) -> Option<&'a String> {
    let mut dir = path;
    while let Some((up, _)) = dir.rsplit_once('/') {
        if let Some(found) = files.get(&format!("{up}/fleet.yaml")) {
            return Some(found);
        }
        dir = up;
    }
    None
}

/// Whether a `fleet.yaml` leaves in the cluster what is taken out of it.
fn keeps(text: &str) -> bool {
    parse_yaml(text).is_ok_and(|docs| docs.iter().any(|d| d["keepResources"] == true))
}

/// What is to be said of a commit that takes claims away which Fleet does not keep.
pub fn warnings(before: &Files, after: &Files) -> Vec<String> {
    let same =
        |a: &Value, b: &Value| ["/metadata/namespace", "/metadata/name"].iter().all(|at| word(a, at) == word(b, at));
    let stays = |path: &str, o: &Value| {
        // Fleet heeds it when the whole bundle goes, not when it takes one object out
        let kept = bundle(before, path).is_some_and(|t| keeps(t)) && bundle(after, path).is_none();
        kept || word(o, "/metadata/annotations/helm.sh~1resource-policy") == "keep"
            || claims(after).any(|(_, other)| same(o, &other))
    };
    let lost = claims(before).filter(|(path, o)| !stays(path, o));
    lost.map(|(path, o)| {
        format!(
            "warning: {path} had the claim {}: Fleet uninstalls it, and with it go its volume and its data, if the class \
             does not retain them. To keep it: annotation `helm.sh/resource-policy: keep` on the claim, committed before this",
            word(&o, "/metadata/name")
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_go_are_named() {
        let claim = |more: &str| {
            format!(
                "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  namespace: shop\n{more}spec: {{}}\n"
            )
        };
        let files =
            |all: &[(&str, &str)]| all.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect::<Files>();
        let plain = claim("");
        let before = files(&[("g/shop/fleet.yaml", "defaultNamespace: shop\n"), ("g/shop/pvc.yaml", &plain)]);
        let said = warnings(&before, &files(&[]));
        assert!(said.len() == 1 && said[0].contains("g/shop/pvc.yaml had the claim data"), "{said:?}");
        assert!(warnings(&before, &files(&[("g/other/all.yaml", &plain)])).is_empty(), "it only moved");
        let kept = files(&[("g/shop/fleet.yaml", "keepResources: true\n"), ("g/shop/pvc.yaml", &plain)]);
        assert!(warnings(&kept, &files(&[])).is_empty());
        let rest = files(&[("g/shop/fleet.yaml", "keepResources: true\n")]);
        assert_eq!(warnings(&kept, &rest).len(), 1, "only the claim goes: it is taken out of its release");
        let policy = claim("  annotations:\n    helm.sh/resource-policy: keep\n");
        assert!(warnings(&files(&[("g/shop/pvc.yaml", &policy)]), &files(&[])).is_empty());
    }
}
