//! local-path provisioners: which deployment serves a class, what its configuration allows.
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, s};
use super::pods;
use crate::guest;
use crate::kube::container::voldata::{self, Place};

/// The running deployment that serves `provisioner`, with the name of its ConfigMap.
fn server(cx: &Cx, provisioner: &str) -> Option<(String, String)> {
    for d in cx.list("deployments.apps") {
        let c = &d["spec"]["template"]["spec"]["containers"][0];
        if !s(c, "/image").contains("local-path-provisioner") {
            continue;
        }
        let words: Vec<&str> = arr(c, "/command").iter().chain(arr(c, "/args")).filter_map(Value::as_str).collect();
        let named = words
            .iter()
            .position(|w| *w == "--provisioner-name" || *w == "--provisioner")
            .and_then(|i| words.get(i + 1));
        if named.copied().unwrap_or("rancher.io/local-path") != provisioner {
            continue;
        }
        let ns = s(d, "/metadata/namespace").to_owned();
        let up = cx.c.store.select("pods", &ns, &d["spec"]["selector"]).into_iter().any(pods::is_ready);
        let map = arr(d, "/spec/template/spec/volumes").iter().find_map(|v| v["configMap"]["name"].as_str());
        return up.then(|| (ns, map.unwrap_or("local-path-config").to_owned()));
    }
    None
}

/// The path that `mountpoint -q PATH` of the setup script asks for.
fn guarded(setup: &str) -> Option<String> {
    let after = setup.split("mountpoint -q ").nth(1)?;
    Some(after.split([';', ' ', '\n']).next()?.trim_matches('"').to_owned())
}

/// Runs the provisioner's teardown for a volume's directory; false while nobody serves the class.
pub fn tear_down(cx: &mut Cx, provisioner: &str, place: &Place) -> bool {
    let Some((ns, map)) = server(cx, provisioner) else { return false };
    let script = cx.get("configmaps", &ns, &map).map(|m| s(m, "/data/teardown").to_owned()).unwrap_or_default();
    if script.contains("rm -rf") {
        voldata::remove(cx, place);
    }
    true
}

/// Makes a directory on the node; `None` when nobody serves the class.
///
/// # Errors
/// The provisioner's words.
pub fn provision(cx: &mut Cx, claim: &Value, class: &Value, node: &str) -> Result<Option<Value>, String> {
    let Some((ns, map)) = server(cx, s(class, "/provisioner")) else { return Ok(None) };
    if claim["spec"]["selector"].is_object() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    let one = |m: &Value| m == "ReadWriteOnce" || m == "ReadWriteOncePod";
    if !arr(claim, "/spec/accessModes").iter().all(one) {
        return Err("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes".to_owned());
    }
    let Some(config) = cx.get("configmaps", &ns, &map).cloned() else {
        return Err(format!("configmap {ns}/{map} not found"));
    };
    let parsed: Value = serde_json::from_str(s(&config, "/data/config.json")).map_err(|e| e.to_string())?;
    let entries = arr(&parsed, "/nodePathMap");
    let entry = entries
        .iter()
        .find(|e| s(e, "/node") == node)
        .or_else(|| entries.iter().find(|e| s(e, "/node") == "DEFAULT_PATH_FOR_NON_LISTED_NODES"))
        .ok_or_else(|| {
            format!("config doesn't contain node {node}, and no DEFAULT_PATH_FOR_NON_LISTED_NODES available")
        })?;
    let wanted = s(class, "/parameters/nodePath");
    let paths: Vec<&str> = arr(entry, "/paths").iter().filter_map(Value::as_str).collect();
    let path = if wanted.is_empty() { paths.first().copied() } else { paths.iter().copied().find(|p| *p == wanted) };
    let path = path.ok_or_else(|| format!("config doesn't contain path {wanted} on node {node}"))?;
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    if let Some(point) = guarded(s(&config, "/data/setup"))
        && !guest::mountpoint(cx.w, vmid, &point)
    {
        return Err(format!("failed to create volume pvc-{}: {point} is not mounted", s(claim, "/metadata/uid")));
    }
    let (claim_ns, name) = key(claim);
    let dir = format!("{path}/pvc-{}_{claim_ns}_{name}", s(claim, "/metadata/uid"));
    guest::put_dir(cx.lab, vmid, &dir, 0o777, "");
    Ok(Some(json!({
        "local": {"path": dir},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
    })))
}
