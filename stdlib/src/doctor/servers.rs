//! What of the servers will break when nobody looks: certificates that end, etcd snapshots that are not saved.
use super::finding::{DEPLOY, Finding, line, on_machine};
use super::scene::Scene;
use super::upkeep::{ENDING_DAYS, Left};
use crate::core::error::OpResult;
use crate::site::RoleKind;

fn finding(id: &'static str, target: &str, cause: String, evidence: &str, fix: &str, next: &str) -> Finding {
    let (evidence, fix, next) = (line(evidence), fix.to_owned(), next.to_owned());
    Finding { id, area: "control-plane", target: target.to_owned(), cause, evidence, fix, next }
}

/// The cluster's CA ends: nothing renews it by itself, and nothing is trusted without it.
fn authority(s: &mut Scene, c: &Left) {
    let when = if c.days < 0 { "has ended".to_owned() } else { format!("ends in {} days", c.days) };
    let at = s.site.nodes_of(RoleKind::Server).find(|n| !s.down.contains(&n.name)).cloned();
    let command = "sudo k3s certificate rotate-ca --path=/var/lib/rancher/k3s/server/rotate-ca";
    let next = at.map_or_else(|| command.to_owned(), |n| on_machine(s.ctx.lab, &s.site, &n, command));
    let f = finding(
        "certificates-ending",
        &s.site.name,
        format!("the CA of the cluster {when}"),
        &format!("the {} is valid for {} days", c.name, c.days),
        "make a new one, signed by the old, in a folder of a server (K3s' documentation: certificate rotate-ca), hand it to the cluster, then restart K3s of every node",
        &next,
    );
    s.add(f);
}

/// Looks at the servers that run.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let up: Vec<String> =
        s.site.nodes_of(RoleKind::Server).map(|n| n.name.clone()).filter(|n| !s.down.contains(n)).collect();
    let rotate = "gpuhost run recipes/rotate-certificates.rhai";
    let fix =
        "rotate them: every K3s restarts, one after the other; K3s also renews them at any start in their last months";
    let mut ending = cluster.certificates(&s.ctx).await?;
    ending.retain(|c| c.days < ENDING_DAYS);
    ending.sort_by_key(|c| c.server.is_none());
    for c in ending {
        if c.server.is_none() && c.name.ends_with("CA") {
            authority(s, &c);
            continue;
        }
        let whose = c.server.as_deref().filter(|n| up.iter().any(|u| u == n));
        // the kubeconfig's own is told with its server's
        if whose.is_none() && s.found.iter().any(|f| f.id == "certificates-ending") {
            continue;
        }
        let target = whose.unwrap_or(&s.site.name).to_owned();
        let when = if c.days < 0 { "have ended".to_owned() } else { format!("end in {} days", c.days) };
        let f = finding(
            "certificates-ending",
            &target,
            format!("the certificates of {target} {when}"),
            &format!("the {} is valid for {} days", c.name, c.days),
            fix,
            rotate,
        );
        s.add(f);
    }
    for late in cluster.late_snapshots(&s.ctx).await?.into_iter().filter(|l| up.contains(&l.node)) {
        let f = match late.off {
            true => finding(
                "snapshots-off",
                &late.node,
                format!("{} saves no etcd snapshots", late.node),
                &late.text,
                "deploy writes /etc/rancher/k3s/config.yaml again",
                DEPLOY,
            ),
            false => finding(
                "snapshots-late",
                &late.node,
                format!("the etcd snapshots of {} are older than their schedule", late.node),
                &late.text,
                "save one now, and look at its disk and its journal (`journalctl -u k3s | grep -i snapshot`)",
                "gpuhost run recipes/backup.rhai",
            ),
        };
        s.add(f);
    }
    Ok(())
}
