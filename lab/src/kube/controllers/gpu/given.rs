//! The cards that a container sees: those that the device plugin gave it, or all of the node's where NVIDIA's runtime
//! is asked for no device in particular.
use serde_json::Value;

use super::{GPU, NS, POLICY};
use crate::kube::cx::Cx;
use crate::kube::state::PodStage;
use crate::kube::text::{arr, s};

/// Operands whose containers see every card of their node.
const OPERANDS: [&str; 6] = [
    "nvidia-driver-daemonset",
    "nvidia-device-plugin-daemonset",
    "gpu-feature-discovery",
    "nvidia-dcgm-exporter",
    "nvidia-mig-manager",
    "nvidia-operator-validator",
];

/// Cards in a container, as places on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The machine.
    pub vmid: u32,
    /// Places of the cards.
    pub cards: Vec<usize>,
}

/// How many GPUs and instances a container asks for.
pub(super) fn asked(c: &Value) -> usize {
    let r = &c["resources"];
    let both = [&r["limits"], &r["requests"]];
    let mut names: Vec<&String> = both.iter().flat_map(|v| v.as_object().into_iter().flatten()).map(|x| x.0).collect();
    names.sort_unstable();
    names.dedup();
    let amount = |name: &str| {
        let v = both.iter().map(|v| &v[name]).find(|v| !v.is_null())?;
        let n = v.as_str().map_or_else(|| v.as_u64(), |t| t.parse().ok());
        n.and_then(|n| usize::try_from(n).ok())
    };
    names.into_iter().filter(|n| is_gpu(n)).filter_map(|n| amount(n)).sum()
}

/// Whether a resource is a GPU or an instance of one.
pub fn is_gpu(resource: &str) -> bool {
    resource == GPU || resource.starts_with("nvidia.com/mig-")
}

/// The cards that container `c` of `pod` sees; `None` when the driver is not put into it.
pub fn given(cx: &mut Cx, pod: &Value, c: &Value) -> Option<Given> {
    let node = s(pod, "/spec/nodeName");
    let rt = cx.c.nodes.get(node)?;
    let (vmid, toolkit) = (rt.vmid, rt.toolkit);
    let count = cx.w.cards_of(vmid).len();
    if count == 0 || cx.w.guests.get(&vmid)?.facts.nvidia_driver.is_none() {
        return None;
    }
    let all = Given { vmid, cards: (0..count).collect() };
    if s(pod, "/metadata/namespace") == NS && OPERANDS.contains(&s(pod, "/metadata/labels/app")) {
        return Some(all);
    }
    let class = s(pod, "/spec/runtimeClassName").starts_with("nvidia");
    // Since operator 25.10 the device plugin's answer is enough: containerd puts its devices in by CDI.
    let cdi = toolkit && cx.list(POLICY).first().is_some_and(|p| p["spec"]["cdi"]["enabled"] != false);
    match asked(c) {
        0 if class && wants(c) => Some(all),
        n if n > 0 && (class || cdi) => Some(Given { vmid, cards: allotted(cx, pod, c, n.min(count), count) }),
        _ => None,
    }
}

/// Whether a container without devices of its own asks the runtime for them: by its variable, or by its image's.
fn wants(c: &Value) -> bool {
    let own = arr(c, "/env").iter().find(|e| e["name"] == "NVIDIA_VISIBLE_DEVICES");
    match own {
        Some(e) => !matches!(s(e, "/value"), "" | "void" | "none"),
        None => ["cuda", "nvidia", "pytorch", "tensorflow"].iter().any(|w| s(c, "/image").contains(w)),
    }
}

/// The cards that the device plugin gave a container: those that fewest others hold, the first first.
fn allotted(cx: &mut Cx, pod: &Value, c: &Value, n: usize, count: usize) -> Vec<usize> {
    let (uid, name, node) = (s(pod, "/metadata/uid"), s(c, "/name"), s(pod, "/spec/nodeName"));
    if let Some(own) = cx.c.pods.get(uid).and_then(|rt| rt.gpus.get(name)) {
        return own.clone();
    }
    let mut held = vec![0u32; count];
    let live = cx.c.pods.iter().filter(|(_, rt)| rt.node == node && rt.stage != PodStage::Done);
    for i in live.flat_map(|(_, rt)| rt.gpus.values().flatten()) {
        if let Some(h) = held.get_mut(*i) {
            *h += 1;
        }
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|i| held[*i]);
    let mut own: Vec<usize> = order.into_iter().take(n).collect();
    own.sort_unstable();
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.gpus.insert(name.to_owned(), own.clone());
    }
    own
}
