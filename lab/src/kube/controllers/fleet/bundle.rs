//! What a repository's folders ask for: one bundle per `fleet.yaml`, its manifests or its chart. No state.
use serde_json::{Value, json};

use gpuhost_stdlib::wire::fleet::dropped;

use crate::git::Files;
use crate::kube::objects::parse_yaml;

/// A bundle as its folder describes it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Name of the Bundle object.
    pub name: String,
    /// Folder in the repository.
    pub path: String,
    /// `fleet.yaml`.
    pub fleet: Value,
    /// Objects of its manifests.
    pub objects: Vec<Value>,
    /// Why its folder cannot be read.
    pub error: Option<String>,
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(f, _)| f)
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path == folder || path.strip_prefix(folder).is_some_and(|r| r.starts_with('/'))
}

/// `homelab` and `recipes/gitops/namespaces` as Fleet names the bundle.
#[must_use]
pub fn name_of(repo: &str, folder: &str) -> String {
    let slug: String = format!("{repo}-{folder}")
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mut out = String::new();
    for c in slug.trim_matches('-').chars() {
        if c != '-' || !out.ends_with('-') {
            out.push(c);
        }
    }
    out
}

/// The bundles of a path: every folder with a `fleet.yaml`, else the path as one bundle.
#[must_use]
pub fn read(repo: &str, path: &str, files: &Files) -> Vec<Bundle> {
    let root = path.trim_matches('/');
    let mut folders: Vec<&str> = files
        .keys()
        .filter(|p| is_below(p, root) && (p.ends_with("/fleet.yaml") || *p == "fleet.yaml"))
        .map(|p| folder_of(p))
        .collect();
    folders.sort_unstable();
    if folders.is_empty() {
        folders.push(root);
    }
    folders.iter().map(|folder| one(repo, folder, &folders, files)).collect()
}

fn one(repo: &str, folder: &str, all: &[&str], files: &Files) -> Bundle {
    let at = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let fleet = files.get(&at("fleet.yaml")).map_or(json!({}), |t| parse_yaml(t));
    let own = |p: &str| {
        is_below(p, folder)
            && !all.iter().any(|other| *other != folder && is_below(other, folder) && is_below(p, other))
    };
    let mut objects = Vec::new();
    let mut error = None;
    for (p, text) in files.iter().filter(|(p, _)| own(p)) {
        let yaml = p.ends_with(".yaml") || p.ends_with(".yml");
        if !yaml || p.ends_with("/fleet.yaml") || p.as_str() == "fleet.yaml" || p.ends_with("values.yaml") {
            continue;
        }
        match serde_saphyr::from_multiple::<Value>(text) {
            Err(e) => error = Some(format!("{p}: error converting YAML to JSON: {e}")),
            Ok(docs) => {
                for o in docs.into_iter().filter(|d| !d.is_null()) {
                    if o["kind"].as_str().is_none_or(str::is_empty) {
                        error = Some(format!("{p}: Object 'Kind' is missing in '{o}'"));
                    } else {
                        objects.push(o);
                    }
                }
            }
        }
    }
    if let Some(n) = fleet["name"].as_str() {
        return Bundle { name: n.to_owned(), path: folder.to_owned(), fleet, objects, error };
    }
    Bundle { name: name_of(repo, folder), path: folder.to_owned(), fleet, objects, error }
}

/// A customization of a target with the keys that Fleet knows: every other one is lost without a word.
#[must_use]
pub fn known_target(given: &Value) -> Value {
    let mut out = given.clone();
    for path in dropped(&json!({"targetCustomizations": [given]})) {
        let key =
            path.trim_start_matches("targetCustomizations[0].").split(['.', '[']).next().unwrap_or_default().to_owned();
        if path == format!("targetCustomizations[0].{key}") {
            out.as_object_mut().map(|m| m.shift_remove(&key));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_a_fleet_yaml_are_bundles() {
        let files: Files = [
            ("recipes/gitops/a/fleet.yaml", "defaultNamespace: x\n"),
            ("recipes/gitops/a/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"),
            ("recipes/gitops/b/fleet.yaml", "name: other\n"),
            ("recipes/gitops/README.md", "text"),
            ("elsewhere/x.yaml", "kind: Pod\n"),
        ]
        .map(|(p, t)| (p.to_owned(), t.to_owned()))
        .into();
        let all = read("lab", "recipes/gitops", &files);
        let names: Vec<&str> = all.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["lab-recipes-gitops-a", "other"]);
        assert_eq!((all[0].objects.len(), all[1].objects.len()), (1, 0));
    }
}
