//! Nodes that are not Ready, not in the cluster, cordoned or of another version; and a control plane without quorum.
use serde_json::Value;

use super::finding::{DEPLOY, Finding, line, on_machine, script};
use super::nft;
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::gpu::DROP_IN;
use crate::k3s::journal::explain as explain_journal;
use crate::k3s::{connect, version_numbers};
use crate::kubernetes::{condition, is_true, node_trouble};
use crate::site::{Node, RoleKind};

/// Takes the switch out of the boot loader's configuration and boots anew.
const MEMORY_CGROUP: &str =
    "sudo sed -i s/cgroup_disable=memory//g /etc/default/grub && sudo update-grub && sudo systemctl reboot";

/// What a machine says of its K3s.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// `active`, `failed`, `inactive`.
    pub state: String,
    /// Its newest lines.
    pub journal: String,
}

fn unit_name(node: &Node) -> &'static str {
    if node.kind == RoleKind::Server { "k3s" } else { "k3s-agent" }
}

async fn unit(s: &Scene, node: &Node) -> Unit {
    let u = unit_name(node);
    let text =
        s.ask(node, &format!("systemctl is-active {u}; journalctl -u {u} -n 40 --no-pager -o cat 2>/dev/null")).await;
    let (state, journal) = text.split_once('\n').unwrap_or((text.as_str(), ""));
    let mut journal = journal.to_owned();
    if journal.contains("containerd exited") {
        // its own words are in a file of its own
        let said = s.ask(node, "tail -n 3 /var/lib/rancher/k3s/agent/containerd/containerd.log").await;
        journal.push_str(&said);
    }
    Unit { state: state.trim().to_owned(), journal }
}

fn finding(id: &'static str, node: &str, cause: String, evidence: String, fix: &str, next: String) -> Finding {
    Finding { id, area: "node", target: node.to_owned(), cause, evidence: line(&evidence), fix: fix.to_owned(), next }
}

/// `(part of the cause that the journal's table gives, id)`.
const JOINS: &[(&str, &str)] = &[
    ("belongs to another cluster", "token-of-another-cluster"),
    ("made with another token", "token-wrong"),
    ("did not accept the token", "token-wrong"),
    ("must be equal on all servers", "server-settings-differ"),
    ("still joining etcd", "learner-waits"),
    ("joined before with another password", "node-password"),
    ("does not have the address", "certificate-address"),
    ("no default route", "no-default-route"),
    ("no memory cgroup", "no-memory-cgroup"),
    ("containerd refuses a file", "toolkit-drop-in"),
    ("holds port 6443", "port-taken"),
    ("still has a member", "member-left-behind"),
    ("protect-kernel-defaults", "kernel-settings"),
    ("did not answer in time", "port-6443-blocked"),
];

/// The command for what keeps a machine from joining.
fn next_of(s: &Scene, node: &Node, id: &str) -> String {
    let name = &node.name;
    let there = |command: &str| on_machine(s.ctx.lab, &s.site, node, command);
    match id {
        "member-left-behind" => script("forget-etcd-member", &[("node", name)]),
        "no-memory-cgroup" => there(MEMORY_CGROUP),
        "node-password" => script("forget-node-password", &[("node", name)]),
        "no-default-route" => script("reboot-node", &[("node", name)]),
        "toolkit-drop-in" => there(&format!("sudo rm -f {DROP_IN}; sudo systemctl restart {}", unit_name(node))),
        "port-taken" => {
            there("sudo ss -ltnp sport = :6443; sudo systemctl disable --now haproxy; sudo systemctl restart k3s")
        }
        _ => DEPLOY.into(),
    }
}

/// Why K3s of a machine is of no use, from its unit and its journal.
#[must_use]
pub fn explain(s: &Scene, node: &Node, u: &Unit, seen: &str) -> Finding {
    let name = &node.name;
    if u.journal.contains("flag provided but not defined") || u.journal.contains("failed to load config file") {
        let bad = u
            .journal
            .lines()
            .rev()
            .find(|l| l.contains("not defined") || l.contains("config file"))
            .unwrap_or_default();
        let cause = format!("K3s on {name} refuses its configuration file");
        return finding(
            "k3s-config-broken",
            name,
            cause,
            bad.to_owned(),
            "deploy writes /etc/rancher/k3s/config.yaml again",
            DEPLOY.into(),
        );
    }
    if let Some(l) = u.journal.lines().rev().find(|l| l.contains("401 Unauthorized")) {
        let cause = format!("{name} cannot join: the cluster does not accept its token");
        return finding(
            "token-wrong",
            name,
            cause,
            l.to_owned(),
            "deploy writes the cluster's token again",
            DEPLOY.into(),
        );
    }
    if let Some(e) =
        explain_journal(&u.journal).filter(|e| e.fatal || u.state != "active" || !e.line.contains("refused"))
    {
        let id = JOINS.iter().find(|(part, _)| e.cause.contains(part)).map_or("k3s-failed", |(_, id)| *id);
        return finding(id, name, format!("{} cannot join: {}", name, e.cause), e.line, e.hint, next_of(s, node, id));
    }
    if seen.contains("cni plugin not initialized") && u.state == "active" {
        return finding(
            "network-plugin-missing",
            name,
            format!("{name} has no network for its pods: its network plugin is not configured"),
            seen.to_owned(),
            "K3s writes /var/lib/rancher/k3s/agent/etc/cni/net.d at its start",
            script("restart-agent", &[("node", name)]),
        );
    }
    if u.state == "active" {
        let cause = format!("{name} is not Ready");
        return finding(
            "node-not-ready",
            name,
            cause,
            seen.to_owned(),
            "look at the newest lines of its journal",
            on_machine(s.ctx.lab, &s.site, node, &format!("sudo journalctl -u {} -n 50", unit_name(node))),
        );
    }
    if u.state.is_empty() {
        let cause = format!("{name} runs, but nobody can log in to it");
        return finding(
            "ssh-unreachable",
            name,
            cause,
            seen.to_owned(),
            "look at its console in the hypervisor",
            DEPLOY.into(),
        );
    }
    let cause = format!("K3s does not run on {name}");
    let evidence = format!("{}.service is {}; {seen}", unit_name(node), u.state);
    finding(
        "kubelet-stopped",
        name,
        cause,
        evidence,
        "start it; deploy does it, too",
        script("restart-agent", &[("node", name)]),
    )
}

/// Where packets to port 6443 are dropped: on the machine that cannot join, or on a server.
async fn firewall(s: &Scene, node: &Node, f: Finding) -> Finding {
    let servers = s.site.nodes_of(RoleKind::Server).filter(|n| n.name != node.name);
    for at in std::iter::once(node).chain(servers) {
        // it sends to the servers, and they receive
        let hook = if at.name == node.name { "output" } else { "input" };
        let Some(rule) = nft::dropping(&s.ask(at, nft::LIST).await, hook, 6443) else { continue };
        let cause = match at.name == node.name {
            true => format!("a firewall on {} drops what it sends to port 6443 of the servers", at.name),
            false => format!("a firewall on {} drops what {} sends to its port 6443", at.name, node.name),
        };
        let fix = "the nodes need TCP 6443 of every server: take the rule out, and out of the file it came from";
        let next = on_machine(s.ctx.lab, &s.site, at, &rule.open(6443));
        return finding(f.id, &at.name, cause, rule.shown(), fix, next);
    }
    f
}

/// As [`explain`]; what the journal cannot tell is looked up.
async fn explained(s: &Scene, node: &Node, seen: &str) -> Finding {
    let u = unit(s, node).await;
    let f = explain(s, node, &u, seen);
    if f.id == "port-6443-blocked" { firewall(s, node, f).await } else { f }
}

/// Connects to the cluster; without it, says why no server answers.
///
/// # Errors
/// Never; what keeps the cluster away is a finding.
pub async fn reach(s: &mut Scene) -> OpResult<()> {
    let servers: Vec<Node> = s.site.nodes_of(RoleKind::Server).cloned().collect();
    let up: Vec<_> = servers.iter().filter(|n| !s.down.contains(&n.name)).cloned().collect();
    let hosts: Vec<_> = up.iter().map(|n| s.host(n)).collect();
    let failed = if hosts.is_empty() {
        None
    } else {
        match connect(&s.ctx, &hosts).await {
            Ok(c) => {
                s.cluster = Some(c);
                return Ok(());
            }
            Err(e) => Some(e),
        }
    };
    // Their control plane may be all right: it cannot be seen.
    if servers.iter().any(|n| s.refused.contains(&n.name)) {
        return Ok(());
    }
    let mut dead: Vec<String> = servers.iter().filter(|n| s.down.contains(&n.name)).map(|n| n.name.clone()).collect();
    let mut own = Vec::new();
    for n in &up {
        let u = unit(s, n).await;
        if u.state != "active" && u.state != "activating" {
            dead.push(n.name.clone());
            own.push(explain(s, n, &u, "the API does not answer"));
        }
    }
    let alive = servers.len() - dead.len();
    if alive * 2 <= servers.len() && servers.len() > 1 {
        let cause = format!("etcd has no quorum: {alive} of {} servers run", servers.len());
        let fix = "bring back one of the servers; deploy starts machines and K3s";
        let f = Finding {
            id: "quorum-lost",
            area: "control-plane",
            target: s.site.name.clone(),
            cause,
            evidence: format!("not running: {}", dead.join(", ")),
            fix: fix.to_owned(),
            next: DEPLOY.into(),
        };
        // the machines are how the quorum was lost, not causes beside it
        s.found.retain(|o| !(dead.contains(&o.target) && o.id == "vm-off"));
        s.add(f);
    } else {
        for f in own {
            s.add(f);
        }
        if s.found.is_empty() {
            let e = failed.map(|e| e.to_string()).unwrap_or_default();
            s.add(Finding {
                id: "api-unreachable",
                area: "control-plane",
                target: s.site.name.clone(),
                cause: "no API server answers".into(),
                evidence: line(&e),
                fix: "look at a server's K3s".into(),
                next: DEPLOY.into(),
            });
        }
    }
    Ok(())
}

/// Looks at every Kubernetes node of the site.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let objects = cluster.list_in(&s.ctx, "node", "").await?;
    let wanted = Scene::text(&s.site.k3s, "version").unwrap_or_default();
    let mut drifted: Vec<(String, String)> = Vec::new();
    for node in s.nodes().into_iter().filter(Node::in_cluster) {
        let object = objects.iter().find(|o| o["metadata"]["name"] == node.name.as_str());
        let Some(o) = object else {
            let f = explained(s, &node, "the cluster has no such node").await;
            s.lost(&node.name, f);
            continue;
        };
        if let Some(f) = trouble(s, &node, o).await {
            s.lost(&node.name, f);
            continue;
        }
        // what the GPU operator has cordoned is told with its cards
        let with_cards = node.shape.gpu_count() > 0;
        if o["spec"]["unschedulable"] == true && !(with_cards && crate::gpu::upgrading(o).is_some()) {
            let next = script("uncordon", &[("node", &node.name)]);
            let cause = format!("{} is cordoned: no new pod goes there", node.name);
            let f = finding(
                "cordoned",
                &node.name,
                cause,
                "spec.unschedulable is true".into(),
                "uncordon it when its maintenance is over",
                next,
            );
            s.add(f);
        }
        let runs = o["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
        if !wanted.is_empty() && runs != wanted {
            drifted.push((node.name.clone(), runs.to_owned()));
        }
        for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
            if let Some((_, why)) = condition(o, pressure).filter(|(st, _)| st == "True") {
                let cause = format!("{} is under {pressure}", node.name);
                let frees = match pressure {
                    "DiskPressure" => "df -h; sudo journalctl --vacuum-size=200M; sudo crictl rmi --prune",
                    _ => "free -h; ps aux --sort=-rss | head -n 15",
                };
                let next = on_machine(s.ctx.lab, &s.site, &node, frees);
                let f = finding("node-pressure", &node.name, cause, why, "free what it lacks", next);
                if pressure == "DiskPressure" {
                    // what ran there goes elsewhere
                    s.lost(&node.name, f);
                } else {
                    s.add(f);
                }
            }
        }
    }
    let (newer, older): (Vec<_>, Vec<_>) =
        drifted.into_iter().partition(|(_, runs)| version_numbers(runs) > version_numbers(&wanted));
    if let Some(f) = ahead(&s.site.name, &newer, &wanted) {
        s.add(f);
    }
    for (name, runs) in older {
        let cause = format!("{name} runs K3s {runs}, the site file says {wanted}");
        s.add(finding(
            "version-drift",
            &name,
            cause,
            format!("kubeletVersion {runs}"),
            "the upgrade brings it to the site file's version, node by node",
            "gpuhost run recipes/upgrade.rhai".into(),
        ));
    }
    Ok(())
}

/// Nodes that are newer than the site file says: K3s does not go back, so the file follows, once for all of them.
fn ahead(site: &str, newer: &[(String, String)], wanted: &str) -> Option<Finding> {
    let newest = newer.iter().map(|(_, runs)| runs).max_by_key(|v| version_numbers(v))?;
    let names: Vec<&str> = newer.iter().map(|(name, _)| name.as_str()).collect();
    let seen: Vec<String> = newer.iter().map(|(name, runs)| format!("{name} {runs}")).collect();
    let what = if names.len() == 1 { "runs" } else { "run" };
    Some(finding(
        "version-drift",
        site,
        format!("{} {what} a newer K3s than the site file says ({wanted})", names.join(", ")),
        format!("kubeletVersion: {}", seen.join(", ")),
        "K3s does not go back: the site file follows",
        format!("write `version = \"{newest}\"` into [k3s] of the site file"),
    ))
}

async fn trouble(s: &Scene, node: &Node, object: &Value) -> Option<Finding> {
    let seen = node_trouble(object);
    // a server whose K3s waits or crashes may look Ready for a while; its unit knows
    let server_out =
        node.kind == RoleKind::Server && condition(object, "EtcdIsVoter").is_some() && !is_true(object, "EtcdIsVoter");
    let seen = match (seen, server_out) {
        (Some(t), _) => t,
        (None, true) => "it does not vote in etcd".to_owned(),
        (None, false) => return None,
    };
    Some(explained(s, node, &seen).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_nodes_are_one_finding_and_the_file_follows_the_newest() {
        let at = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let f = ahead("homelab", &[at("a", "v1.35.7+k3s1"), at("b", "v1.35.10+k3s1")], "v1.34.9+k3s1").unwrap();
        assert!(f.cause.starts_with("a, b run a newer K3s"), "{}", f.cause);
        assert_eq!(f.next, "write `version = \"v1.35.10+k3s1\"` into [k3s] of the site file");
        assert!(ahead("homelab", &[], "v1.34.9+k3s1").is_none());
    }
}
