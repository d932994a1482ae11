//! Images of containers: pulled, refused, and tried again. Grade: source (pkg/kubelet/images of kubernetes).
use serde_json::Value;

use super::super::cx::{Cx, key};
use super::super::state::Due;
use super::super::text::{arr, s};
use super::containers::{held, later, life, pause, start};
use super::{images, registry, status};
use crate::kube::k3s::node::minor;

/// Says that a container's image is being pulled, if it has to be; whether it comes over the line.
pub(super) fn pulling(cx: &mut Cx, pod: &Value, c: &Value, node: &str) -> bool {
    let image = s(c, "/image");
    let absent = !cx.node_rt(node).images.contains(image);
    if absent || s(c, "/imagePullPolicy") == "Always" {
        cx.container_event(pod, s(c, "/name"), true, "Pulling", &format!("Pulling image \"{image}\""));
    }
    absent
}

/// The events of an image that is there, after `ms` of pulling it.
pub(super) fn pulled(cx: &mut Cx, pod: &Value, c: &Value, node: &str, ms: u64) {
    let image = s(c, "/image").to_owned();
    let fresh = cx.node_rt(node).images.insert(image.clone());
    let text = if fresh || s(c, "/imagePullPolicy") == "Always" {
        // what is there already is only asked for
        let ms = if fresh { ms } else { 0 };
        let took = if ms >= 1000 { format!("{}s", ms as f64 / 1000.0) } else { format!("{}ms", ms.max(412)) };
        let size = images::mib(&image) * 1_048_576;
        format!("Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes.")
    } else {
        // since 1.35 the kubelet looks whether the pod may use what another one has pulled
        let may = if minor(&cx.c.version) >= 35 { " and can be accessed by the pod" } else { "" };
        format!("Container image \"{image}\" already present on machine{may}")
    };
    cx.container_event(pod, s(c, "/name"), true, "Pulled", &text);
}

/// Why an image cannot be pulled now.
fn not_pulled(cx: &Cx, image: &str) -> Option<String> {
    registry::refused(&cx.w.pushed, image).or_else(|| images::limited(image).filter(|_| cx.w.pulls_limited))
}

/// Why a container's image cannot be had: waiting reason, message, and the events before `Error: reason`.
fn unavailable(cx: &mut Cx, c: &Value, node: &str) -> Option<(&'static str, String, &'static str, String)> {
    let image = s(c, "/image");
    if s(c, "/imagePullPolicy") == "Never" && !cx.node_rt(node).images.contains(image) {
        let text = format!("Container image \"{image}\" is not present with pull policy of Never");
        return Some(("ErrImageNeverPull", text.clone(), "ErrImageNeverPull", text));
    }
    if let Some(why) = registry::unreadable(image) {
        return Some(("InvalidImageName", why.clone(), "InspectFailed", why));
    }
    if s(c, "/imagePullPolicy") != "Always" && cx.node_rt(node).images.contains(image) {
        return None;
    }
    let why = not_pulled(cx, image)?;
    let text = format!("Failed to pull image \"{image}\": {why}");
    Some(("ErrImagePull", why, "Failed", text))
}

/// Whether a container's image can be had; says so if not, and tries again later.
pub(super) fn has_image(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, node: &str) -> bool {
    let (name, image) = (s(c, "/name"), s(c, "/image"));
    let Some((reason, message, event, text)) = unavailable(cx, c, node) else { return true };
    if let Some(l) = life(cx, uid, name) {
        l.run += 1;
        l.pulls += 1;
        image.clone_into(&mut l.image);
    }
    if reason == "ErrImagePull" && registry::stranger(&cx.w.pushed, image) {
        let text = format!("The lab's registries do not have \"{image}\": if yours do, `gpuhost lab push {image}`");
        cx.event(pod, true, "UnknownToLab", &text, "gpuhost-lab");
    }
    if reason == "ErrImagePull" {
        cx.container_event(pod, name, true, "Pulling", &format!("Pulling image \"{image}\""));
    }
    cx.container_event(pod, name, false, event, &text);
    cx.container_event(pod, name, false, "Failed", &format!("Error: {reason}"));
    let (ns, pod_name) = key(pod);
    status::edit(cx, &ns, &pod_name, |e| e.wait(name, reason, &message));
    later(cx, uid, name, Due::BackOff, 2000);
    false
}

pub(super) fn backs_off(cx: &mut Cx, uid: &str, pod: &Value, c: &Value) {
    let (name, image) = (s(c, "/name"), s(c, "/image"));
    let pulls = life(cx, uid, name).map_or(1, |l| l.pulls);
    let pulls_it = s(c, "/imagePullPolicy") != "Never" && registry::unreadable(image).is_none();
    if let Some(why) = not_pulled(cx, image).filter(|_| pulls_it) {
        let (ns, pod_name) = key(pod);
        let text = format!("Back-off pulling image \"{image}\"");
        cx.container_event(pod, name, true, "BackOff", &text);
        cx.container_event(pod, name, false, "Failed", "Error: ImagePullBackOff");
        let message = format!("{text}: ErrImagePull: {why}");
        status::edit(cx, &ns, &pod_name, |e| e.wait(name, "ImagePullBackOff", &message));
    }
    later(cx, uid, name, Due::Pull, pause(pulls + 1).max(10_000));
}

/// Pulls the image of one container that waits for it.
pub(super) fn pull(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, node: &str) {
    if has_image(cx, uid, pod, c, node) {
        pulled(cx, pod, c, node, images::mib(s(c, "/image")) * 25 + 800);
        start(cx, uid, pod, std::slice::from_ref(c), node);
    }
}

/// Containers of a pod whose image has changed begin anew.
pub(super) fn changed(cx: &mut Cx, uid: &str, pod: &Value) {
    let Some((_, node)) = held(cx, uid) else { return };
    let Some(rt) = cx.c.pods.get(uid) else { return };
    let other =
        |c: &&Value| rt.lives.get(s(c, "/name")).is_some_and(|l| !l.image.is_empty() && l.image != s(c, "/image"));
    let list: Vec<Value> = arr(pod, "/spec/containers").iter().filter(other).cloned().collect();
    for c in list {
        let name = s(&c, "/name");
        if let Some(l) = life(cx, uid, name) {
            s(&c, "/image").clone_into(&mut l.image);
            l.pulls = 0;
        }
        if status::of(pod, name).is_some_and(|st| st["state"]["running"].is_object()) {
            let text = format!("Container {name} definition changed, will be restarted");
            cx.container_event(pod, name, true, "Killing", &text);
            cx.lab.kube().containers.end(uid, name);
            let (ns, pod_name) = key(pod);
            status::edit(cx, &ns, &pod_name, |e| e.end(name, 0));
        }
        pull(cx, uid, pod, &c, &node);
    }
}
