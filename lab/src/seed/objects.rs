//! Objects of the cluster, as they were read.
use serde_json::Value;

use crate::Lab;
use crate::kube::cx::with_cluster;
use crate::world::World;

/// Parts of an object that belong to the world that it lives in.
const OWN: [&str; 5] = ["uid", "resourceVersion", "creationTimestamp", "ownerReferences", "generation"];

/// Fields below `spec` that an API server draws by itself.
const DRAWN: [&str; 6] = ["clusterIP", "clusterIPs", "healthCheckNodePort", "podCIDR", "podCIDRs", "providerID"];

/// Makes an object of the cluster be as it was read; says whether it could.
pub fn put_object(lab: &Lab, w: &mut World, cluster: &str, resource: &str, seen: &Value) -> bool {
    let text = |k: &str| seen["metadata"][k].as_str().unwrap_or_default().to_owned();
    let (ns, name) = (text("namespace"), text("name"));
    let done = with_cluster(lab, w, cluster, |cx| {
        if cx.get(resource, &ns, &name).is_some() {
            return cx.update(resource, &ns, &name, |own| adopt(own, seen));
        }
        let mut new = seen.clone();
        if let Some(meta) = new["metadata"].as_object_mut() {
            meta.retain(|k, _| !OWN.contains(&k.as_str()));
        }
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            spec.retain(|k, _| !DRAWN.contains(&k.as_str()));
        }
        cx.create(new)
    });
    done.unwrap_or(false)
}

/// What was read, with the identity and the status that the world has given.
fn adopt(own: &mut Value, seen: &Value) {
    let mut new = seen.clone();
    for key in OWN {
        match own["metadata"].get(key) {
            Some(v) => new["metadata"][key] = v.clone(),
            None => drop(new["metadata"].as_object_mut().and_then(|m| m.remove(key))),
        }
    }
    for key in DRAWN {
        if let Some(v) = own["spec"].get(key) {
            new["spec"][key] = v.clone();
        }
    }
    match own.get("status") {
        Some(v) => new["status"] = v.clone(),
        None => drop(new.as_object_mut().and_then(|m| m.remove("status"))),
    }
    *own = new;
}

/// Takes an object out of the cluster, whatever holds it.
pub fn remove_object(lab: &Lab, w: &mut World, cluster: &str, resource: &str, ns: &str, name: &str) {
    with_cluster(lab, w, cluster, |cx| {
        cx.delete(resource, ns, name);
        cx.remove(resource, ns, name);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identity_and_status_stay_the_worlds() {
        let mut own = json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "1"}},
            "spec": {"clusterIP": "10.43.0.9", "n": 1}, "status": {"ok": true}});
        let seen = json!({"metadata": {"name": "a", "uid": "9", "generation": 4, "labels": {"x": "2"}},
            "spec": {"clusterIP": "10.43.0.77", "n": 2}, "status": {"ok": false}});
        adopt(&mut own, &seen);
        assert_eq!(
            own,
            json!({"metadata": {"name": "a", "uid": "1", "labels": {"x": "2"}},
            "spec": {"clusterIP": "10.43.0.9", "n": 2}, "status": {"ok": true}})
        );
    }
}
