//! Parts of a site file that are each right and do not fit each other: a chart and the Kubernetes it shall run on, taints and
//! what has to run somewhere, disks and the section that says where they are mounted.
use super::load::at;
use super::source::{Finding, Source};
use super::types::{Node, RoleKind, Site};
use crate::wire::charts::{rancher_for, rancher_refuses};

/// Adds what does not fit.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    charts(src, site, out);
    room(src, site, out);
    scratch(src, site, out);
}

/// A chart that refuses the cluster's Kubernetes. A warning: a release that stands already is left as it is.
fn charts(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let k3s = site.k3s.get("version").and_then(toml::Value::as_str).unwrap_or_default();
    let rancher = site.platform.get("rancher").and_then(|r| r.get("version")).and_then(toml::Value::as_str);
    let Some((rancher, minor)) = rancher.zip(k3s.split('.').nth(1).and_then(|m| m.parse::<u32>().ok())) else { return };
    if rancher_refuses(rancher).is_none_or(|m| minor < m) {
        return;
    }
    let hint = match rancher_for(minor) {
        Some(v) => format!("Rancher {v} takes Kubernetes 1.{minor}; upgrade its chart before the cluster"),
        None => format!("no release of Rancher is known that takes Kubernetes 1.{minor}"),
    };
    let text = format!("the chart of Rancher {rancher} refuses Kubernetes 1.{minor} (`version` of [k3s])");
    let mut f = src.value("platform.rancher.version", text, Some(hint));
    f.warning = true;
    out.push(f);
}

/// Whether a node keeps pods out that tolerate nothing.
fn keeps_out<'a>(taints: impl IntoIterator<Item = &'a String>) -> bool {
    taints.into_iter().any(|t| t.ends_with(":NoSchedule") || t.ends_with(":NoExecute"))
}

/// Charts are installed by jobs that tolerate no taint, and so do most of their pods: some node has to take them.
fn room(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let agents = site.nodes_of(RoleKind::Agent).next().is_some();
    let own: Option<Vec<String>> = site
        .k3s
        .get("taints")
        .and_then(toml::Value::as_array)
        .map(|list| list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect());
    // servers keep pods out by default as soon as there are agents to take them
    let servers_closed = own.map_or(agents, |t| keeps_out(&t));
    let closed = |n: &Node| {
        let tainted = keeps_out(n.shape.taints.iter().flatten());
        tainted || n.kind == RoleKind::Server && servers_closed
    };
    let charts = !site.storage.is_empty() || site.gpu_count() > 0 || !site.platform.is_empty();
    if !charts || site.cluster_nodes().any(|n| !closed(n)) {
        return;
    }
    let tainted = site.nodes.iter().enumerate().find(|(_, n)| n.kind != RoleKind::Storage && n.shape.taints.is_some());
    let path = tainted.map_or("k3s.taints".to_owned(), |(i, n)| {
        let own = format!("nodes.{i}.taints");
        if at(src, &own).is_some() { own } else { format!("roles.{}.taints", n.role) }
    });
    let hint = "leave one node without taints; or open the servers: `taints = []` in [k3s]".to_owned();
    let text = "no node takes a pod that tolerates no taint: no chart can be installed, its job would wait for ever";
    out.push(src.value(&path, text, Some(hint)));
}

/// A scratch disk is mounted where `[storage]` says.
fn scratch(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let Some(node) = site.nodes.iter().find(|n| n.shape.scratch.is_some()) else { return };
    if !site.storage.is_empty() {
        return;
    }
    let text =
        format!("{} has a scratch disk, and there is no [storage] section to say where it is mounted", node.name);
    let hint = "add the section, or take `scratch` out".to_owned();
    let own = site.nodes.iter().position(|n| n.name == node.name).map(|i| format!("nodes.{i}.scratch"));
    let path = own.filter(|p| at(src, p).is_some()).unwrap_or_else(|| format!("roles.{}.scratch", node.role));
    out.push(src.value(&path, text, Some(hint)));
}
