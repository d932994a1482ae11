//! What the faults have in common: finding things by name, and doing to them what people and hardware do.
use std::sync::Arc;

use serde_json::Value;

use crate::Lab;
use crate::guest::live::Machine;
use crate::guest::units;
use crate::kube::KubeEvent;
use crate::kube::cx::{Cx, key, with_cluster};
use crate::kube::k3s::membership;
use crate::kube::objects::parse_yaml;
use crate::kube::state::Cluster;
use crate::kube::text::s;
use crate::pve::acl::Who;
use crate::pve::task::{self, Job};
use crate::world::{Event, World};

/// The id of a machine by its name.
pub fn vmid(w: &World, name: &str) -> Result<u32, String> {
    let found = w.pve.vms.iter().find(|(_, v)| v.conf.get("name").is_some_and(|n| n == name)).map(|(id, _)| *id);
    found.ok_or_else(|| format!("the lab has no machine `{name}`"))
}

/// A running machine by its name.
pub fn machine(lab: &Lab, w: &World, name: &str) -> Result<Arc<Machine>, String> {
    let id = vmid(w, name)?;
    lab.guests().get(id).ok_or_else(|| format!("machine `{name}` does not run"))
}

/// The cluster that lives.
pub fn living(w: &World) -> Option<&Cluster> {
    let alive = w.clusters.values().filter(|c| membership::lives(w, c));
    alive.max_by_key(|c| c.members.len())
}

/// Works on the cluster that lives.
pub fn cluster<T>(lab: &Lab, w: &mut World, f: impl FnOnce(&mut Cx) -> Result<T, String>) -> Result<T, String> {
    let id = living(w).map(|c| c.id.clone());
    let id = id.ok_or("the lab has no cluster yet: start it with `gpuhost lab reset --start deployed`")?;
    with_cluster(lab, w, &id, f).ok_or("the cluster is gone")?
}

/// The machine loses power.
pub fn power_off(lab: &Lab, w: &mut World, name: &str) -> Result<u32, String> {
    let id = vmid(w, name)?;
    crate::guest::power_off(lab, w, id);
    crate::pve::guest_halted(lab, w, id);
    Ok(id)
}

/// Somebody starts the machine; whether it comes up is the hypervisor's business.
pub fn start(w: &mut World, id: u32) {
    let node = w.pve.vms.get(&id).map(|v| v.node.clone()).unwrap_or_default();
    let who = Who { user: "root@pam".to_owned(), token: None };
    task::start(w, &node, "qmstart", &id.to_string(), &who, Job::Start { vmid: id });
}

/// Names of running machines that hold cards of a hypervisor node.
pub fn holders(w: &World, node: &str) -> Vec<String> {
    let of_node = w.pve.vms.values().filter(|v| v.node == node && v.run.as_ref().is_some_and(|r| !r.cards.is_empty()));
    of_node.filter_map(|v| v.conf.get("name").cloned()).collect()
}

/// Stops a unit of a machine.
pub fn stop_unit(lab: &Lab, w: &mut World, name: &str, unit: &str) -> Result<(), String> {
    let m = machine(lab, w, name)?;
    units::stop(lab, w, &m, unit);
    Ok(())
}

/// Starts a unit of a machine; that it fails is for its journal to say.
pub fn start_unit(lab: &Lab, w: &mut World, name: &str, unit: &str) -> Result<(), String> {
    let m = machine(lab, w, name)?;
    let u = units::load(&m.files, unit).ok_or_else(|| format!("`{name}` has no unit {unit}"))?;
    let _ = units::start(lab, w, &m, &u);
    Ok(())
}

/// The K3s unit of a machine.
pub fn k3s_unit(lab: &Lab, w: &World, name: &str) -> Result<&'static str, String> {
    let m = machine(lab, w, name)?;
    Ok(if units::load(&m.files, "k3s-agent.service").is_some() { "k3s-agent.service" } else { "k3s.service" })
}

/// Restarts K3s on a machine.
pub fn restart_k3s(lab: &Lab, w: &mut World, name: &str) -> Result<(), String> {
    let unit = k3s_unit(lab, w, name)?;
    stop_unit(lab, w, name, unit)?;
    start_unit(lab, w, name, unit)
}

/// The start of K3s on a machine is over: it happened a while ago.
pub fn settle_start(lab: &Lab, w: &mut World, name: &str) -> Result<(), String> {
    let id = machine(lab, w, name)?.vmid;
    let mine = |e: &Event| matches!(e, Event::Kube(KubeEvent::Start { vmid, .. }) if *vmid == id);
    while let Some(key) = w.queue.iter().find(|(_, e)| mine(e)).map(|(k, _)| *k) {
        if let Some(Event::Kube(e)) = w.queue.remove(&key) {
            crate::kube::handle(lab, w, e);
        }
    }
    Ok(())
}

/// A file of a running machine, changed by `f`.
pub fn edit(lab: &Lab, w: &mut World, name: &str, path: &str, f: impl FnOnce(String) -> String) -> Result<(), String> {
    let m = machine(lab, w, name)?;
    let old = crate::guest::file_text(lab, m.vmid, path).ok_or_else(|| format!("`{name}` has no file {path}"))?;
    let new = f(old.clone());
    if new == old {
        return Err(format!("{path} of `{name}` has nothing to change"));
    }
    crate::guest::put_file(lab, w, m.vmid, path, &new, 0o600);
    Ok(())
}

/// The configuration of K3s on a machine, changed by `f`, and K3s restarted.
pub fn k3s_config(lab: &Lab, w: &mut World, name: &str, f: impl FnOnce(&mut Value)) -> Result<(), String> {
    edit(lab, w, name, "/etc/rancher/k3s/config.yaml", |text| {
        let mut v = parse_yaml(&text);
        f(&mut v);
        v.to_string()
    })?;
    restart_k3s(lab, w, name)
}

/// Deletes the pods of a GPU operand on a node, as the end of their container does.
pub fn restart_operand(cx: &mut Cx, node: &str, app: &str) {
    let there: Vec<(String, String)> = cx
        .list_in("pods", "gpu-operator")
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == node && s(p, "/metadata/labels/app") == app)
        .map(key)
        .collect();
    for (ns, name) in there {
        cx.delete("pods", &ns, &name);
    }
}

/// The driver pod of a node starts over.
pub fn restart_driver(lab: &Lab, w: &mut World, node: &str) -> Result<(), String> {
    cluster(lab, w, |cx| {
        restart_operand(cx, node, "nvidia-driver-daemonset");
        Ok(())
    })
}

/// The values of a release, changed by `f` where they are kept.
pub fn values(cx: &mut Cx, release: &str, f: impl FnOnce(&mut Value)) -> Result<(), String> {
    const CHARTS: &str = "helmcharts.helm.cattle.io";
    let chart = cx.get(CHARTS, "kube-system", release).cloned();
    let chart = chart.ok_or_else(|| format!("there is no HelmChart `{release}`"))?;
    let mut v = parse_yaml(s(&chart, "/spec/valuesContent"));
    f(&mut v);
    cx.update(CHARTS, "kube-system", release, |o| o["spec"]["valuesContent"] = v.to_string().into());
    Ok(())
}

/// Scales a deployment, as `kubectl scale` does.
pub fn scale(cx: &mut Cx, ns: &str, name: &str, n: i64) -> Result<(), String> {
    let there = cx.update("deployments.apps", ns, name, |o| o["spec"]["replicas"] = n.into());
    there.then_some(()).ok_or_else(|| format!("there is no deployment {ns}/{name}"))
}
