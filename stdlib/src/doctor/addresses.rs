//! Nodes that are in the cluster at another address than the site file's.
use super::finding::{Finding, line};
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::kubernetes::node_row;

/// Looks at the address that every node has in the cluster; what is at the declared one is not this node.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let live = cluster.list_in(&s.ctx, "node", "").await?;
    for node in s.nodes().into_iter().filter(|n| n.in_cluster()) {
        let Some(row) = live.iter().find(|l| l["metadata"]["name"] == node.name.as_str()).map(node_row) else {
            continue;
        };
        let at = row["address"].as_str().unwrap_or_default();
        if at.is_empty() || at == node.ip {
            continue;
        }
        let f = Finding {
            id: "address-differs",
            area: "node",
            target: node.name.clone(),
            cause: format!("{} is in the cluster at {at}, the site file says {}", node.name, node.ip),
            evidence: line(&format!("InternalIP {at}")),
            fix: "a running machine is not moved: set its address back; or remove the node and add it with the new one"
                .to_owned(),
            next: format!("write `ip = \"{at}\"` for {} into the site file", node.name),
        };
        s.lost(&node.name, f);
    }
    Ok(())
}
