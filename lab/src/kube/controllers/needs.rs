//! What a pod needs on its node before its containers start: objects it refers to, the runtime of its class.
use serde_json::Value;

use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::images;

/// Secrets and ConfigMaps that volumes need.
pub(super) fn references(cx: &Cx, pod: &Value) -> Result<(), (&'static str, String)> {
    let ns = s(pod, "/metadata/namespace");
    for v in arr(pod, "/spec/volumes") {
        for (field, key, resource, word) in
            [("secret", "secretName", "secrets", "secret"), ("configMap", "name", "configmaps", "configmap")]
        {
            let r = &v[field];
            let name = r[key].as_str().unwrap_or("");
            if r.is_object() && r["optional"] != true && cx.get(resource, ns, name).is_none() {
                let text =
                    format!("MountVolume.SetUp failed for volume \"{}\" : {word} \"{name}\" not found", s(v, "/name"));
                return Err(("FailedMount", text));
            }
        }
    }
    Ok(())
}

/// ConfigMaps and Secrets that a container's environment needs.
///
/// # Errors
/// The kubelet's words for what is missing.
pub(super) fn configuration(cx: &Cx, pod: &Value, c: &Value) -> Result<(), String> {
    let ns = s(pod, "/metadata/namespace");
    rootless(pod, c)?;
    let has = |r: &Value, resource: &str, word: &str, kind: &str| {
        if !r.is_object() || r["optional"] == true {
            return Ok(());
        }
        let (name, key) = (s(r, "/name"), s(r, "/key"));
        match cx.get(resource, ns, name) {
            None => Err(format!("{word} \"{name}\" not found")),
            Some(o) if !key.is_empty() && o["data"][key].is_null() && o["binaryData"][key].is_null() => {
                Err(format!("couldn't find key {key} in {kind} {ns}/{name}"))
            }
            Some(_) => Ok(()),
        }
    };
    for e in arr(c, "/envFrom") {
        has(&e["configMapRef"], "configmaps", "configmap", "ConfigMap")?;
        has(&e["secretRef"], "secrets", "secret", "Secret")?;
    }
    for e in arr(c, "/env") {
        has(&e["valueFrom"]["configMapKeyRef"], "configmaps", "configmap", "ConfigMap")?;
        has(&e["valueFrom"]["secretKeyRef"], "secrets", "secret", "Secret")?;
    }
    Ok(())
}

/// A container that must not run as root does not, as far as its image is known.
fn rootless(pod: &Value, c: &Value) -> Result<(), String> {
    let (own, all) = (&c["securityContext"], &pod["spec"]["securityContext"]);
    if own["runAsNonRoot"].as_bool().or(all["runAsNonRoot"].as_bool()) != Some(true) {
        return Ok(());
    }
    let m = &pod["metadata"];
    let who =
        format!("(pod: \"{}_{}({})\", container: {})", s(m, "/name"), s(m, "/namespace"), s(m, "/uid"), s(c, "/name"));
    match own["runAsUser"].as_u64().or(all["runAsUser"].as_u64()) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {who}")),
        None if images::of_root(s(c, "/image")) => {
            Err(format!("container has runAsNonRoot and image will run as root {who}"))
        }
        _ => Ok(()),
    }
}

/// Whether the node's container runtime has the handler of the pod's RuntimeClass.
pub(super) fn runtime(cx: &Cx, pod: &Value, node: &str) -> Result<(), String> {
    let class = s(pod, "/spec/runtimeClassName");
    if class.is_empty() {
        return Ok(());
    }
    let Some(rc) = cx.get("runtimeclasses.node.k8s.io", "", class) else {
        return Err(format!("failed to get sandbox runtime: RuntimeClass \"{class}\" not found"));
    };
    let handler = s(rc, "/handler");
    let known = handler == "runc" || cx.c.nodes.get(node).is_some_and(|n| n.runtimes.iter().any(|r| r == handler));
    if known {
        return Ok(());
    }
    Err(format!(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \"{handler}\" is configured"
    ))
}
