//! What a fault can be done to: a target on which it would change nothing is refused, with those that make sense.
use super::{Fault, On};
use crate::kube::state::Cluster;
use crate::kube::text::s;
use crate::world::World;

/// Names of what there is of a kind of target; `None` for the whole cluster.
fn names(on: On, w: &World) -> Option<Vec<String>> {
    let cluster = super::tools::living(w);
    let objects = |kind: &str, fits: fn(&serde_json::Value) -> bool| {
        let all = cluster.into_iter().flat_map(|c: &Cluster| c.store.all(kind, "")).filter(|o| fits(o));
        all.map(|o| s(o, "/metadata/name").to_owned()).collect::<Vec<_>>()
    };
    let machines = |fits: &dyn Fn(u32, &crate::pve::state::Vm) -> bool| {
        let all = w.pve.vms.iter().filter(|(id, v)| fits(**id, v));
        all.filter_map(|(_, v)| v.conf.get("name").cloned()).collect::<Vec<_>>()
    };
    Some(match on {
        On::Cluster => return None,
        On::PveNode => w.pve.nodes.keys().cloned().collect(),
        On::Mapping => w.pve.mappings.keys().cloned().collect(),
        On::Machine => machines(&|_, _| true),
        On::Node => cluster.into_iter().flat_map(|c| c.nodes.keys().cloned()).collect(),
        On::GpuNode => machines(&|_, v| v.conf.keys().any(|k| k.starts_with("hostpci"))),
        On::Server => cluster.into_iter().flat_map(|c| c.members.values().map(|m| m.node.clone())).collect(),
        On::Agent => cluster
            .into_iter()
            .flat_map(|c| {
                c.nodes.iter().filter(|(_, n)| !c.members.contains_key(&n.vmid)).map(|(name, _)| name.clone())
            })
            .collect(),
        On::Nfs => machines(&|id, _| w.guests.get(&id).is_some_and(|g| !g.exports.is_empty())),
        On::Release(name) => vec![name.to_owned()],
        On::Class => objects("storageclasses.storage.k8s.io", |_| true),
        On::ScratchClass => objects("storageclasses.storage.k8s.io", |o| {
            !matches!(s(o, "/provisioner"), "rancher.io/local-path" | "nfs.csi.k8s.io")
        }),
        On::Repo => objects("gitrepos.fleet.cattle.io", |_| true),
    })
}

/// Refuses a target that the fault cannot be done to.
///
/// # Errors
/// The targets that make sense.
pub fn check(fault: &Fault, w: &World, target: &str) -> Result<(), String> {
    let Some(mut names) = names(fault.on, w) else { return Ok(()) };
    if names.iter().any(|n| n == target) {
        return Ok(());
    }
    names.sort();
    names.dedup();
    let what = format!("`{}` does not happen to `{target}`", fault.name);
    if names.is_empty() {
        return Err(format!("{what}: the lab has no {} yet (`gpuhost lab reset --start deployed`)", fault.on.word()));
    }
    Err(format!("{what}; it happens to {}", names.join(", ")))
}
