//! What changes outside a pod when it becomes ready, ends or goes.
use serde_json::Value;

use super::super::cx::Cx;
use super::super::state::PodRt;
use super::super::text::s;
use super::{certificates, claims, fleet, gpu, helm, rancher};

/// The pod is ready.
pub fn ready(cx: &mut Cx, pod: &Value) {
    let node = s(pod, "/spec/nodeName").to_owned();
    let app = s(pod, "/metadata/labels/app").to_owned();
    if app == "csi-nfs-node" {
        cx.node_rt(&node).csi.insert("nfs.csi.k8s.io".to_owned());
    }
    match app.as_str() {
        "rancher" => rancher::started(cx),
        "gitjob" | "fleet-agent" => fleet::reconcile(cx),
        "gpu-operator" => gpu::reconcile(cx),
        "cert-manager" => certificates::reconcile(cx),
        _ => {}
    }
    let image = s(pod, "/spec/containers/0/image");
    if app == "csi-nfs-controller" || image.contains("local-path-provisioner") {
        claims::reconcile(cx);
    }
    gpu::ready(cx, pod, &node);
}

/// The pod has ended.
pub fn done(cx: &mut Cx, pod: &Value, code: i64) {
    helm::pod_done(cx, pod, code);
}

/// The pod's object is gone.
pub fn gone(cx: &mut Cx, uid: &str, rt: &PodRt) {
    cx.lab.kube().containers.end_pod(uid);
    let own = format!("emptydir/{uid}/");
    cx.c.volumes.retain(|k, _| !k.starts_with(&own));
    if rt.name.starts_with("csi-nfs-node-") {
        cx.node_rt(&rt.node).csi.clear();
    }
    gpu::gone(cx, rt);
}

/// The guest under a node is gone: its devices are.
pub fn node_down(cx: &mut Cx, node: &str) {
    gpu::node_down(cx, node);
}
