//! What is wrong with nodes and servers, as verify says it. No I/O apart from reading the objects.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Cluster;
use super::nodes::node_row;
use super::wait::{condition, is_true, node_trouble};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;

/// A lease this much older than the newest one is stale.
const STALE_SECONDS: i64 = 60;

/// Seconds since 1970 of `2026-11-23T03:04:05.678Z`.
#[must_use]
pub fn epoch_seconds(text: &str) -> Option<i64> {
    Some(crate::core::stamp::millis(text)?.div_euclid(1000))
}

fn by_name(list: &[Value]) -> BTreeMap<&str, &Value> {
    list.iter().filter_map(|o| Some((o["metadata"]["name"].as_str()?, o))).collect()
}

/// What is wrong with the named nodes: absent, not Ready, under pressure, cordoned, silent, of another version, at another
/// address than `addresses` says.
#[must_use]
pub fn node_problems(
    nodes: &[Value],
    leases: &[Value],
    names: &[String],
    version: &str,
    addresses: &BTreeMap<String, String>,
) -> Vec<String> {
    let (nodes, leases) = (by_name(nodes), by_name(leases));
    let renewed = |n: &str| leases.get(n).and_then(|l| epoch_seconds(l["spec"]["renewTime"].as_str()?));
    // the newest lease stands for the servers' time: no clock of ours is compared with theirs
    let newest = leases.keys().filter_map(|n| renewed(n)).max();
    let mut out = Vec::new();
    for name in names {
        let Some(node) = nodes.get(name.as_str()) else {
            out.push(format!("{name} is not in the cluster"));
            continue;
        };
        if let Some(t) = node_trouble(node) {
            out.push(format!("{name}: {t}"));
            continue;
        }
        for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
            if let Some((_, why)) = condition(node, pressure).filter(|(s, _)| s == "True") {
                out.push(format!("{name}: {pressure} ({why})"));
            }
        }
        if node["spec"]["unschedulable"] == true {
            out.push(format!("{name} is cordoned"));
        }
        if let (Some(newest), Some(mine)) = (newest, renewed(name))
            && newest - mine > STALE_SECONDS
        {
            out.push(format!("{name}: its lease is {} s older than the newest", newest - mine));
        }
        let runs = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
        if !version.is_empty() && runs != version {
            out.push(format!("{name} runs {runs}, the site file says {version}"));
        }
        let row = node_row(node);
        let at = row["address"].as_str().unwrap_or_default();
        if let Some(declared) = addresses.get(name).filter(|d| !at.is_empty() && at != d.as_str()) {
            out.push(format!("{name} has the address {at}, the site file says {declared}"));
        }
    }
    let declared: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let strangers: Vec<_> = nodes.keys().filter(|n| !declared.contains(*n)).map(|n| (*n).to_owned()).collect();
    if !strangers.is_empty() {
        out.push(format!("the cluster has nodes that the site file has not: {}", strangers.join(", ")));
    }
    out
}

/// Names of the nodes that vote in etcd.
#[must_use]
pub fn voters(nodes: &[Value]) -> Vec<String> {
    let votes = nodes.iter().filter(|n| is_true(n, "EtcdIsVoter"));
    votes.filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// What is wrong with the named servers as etcd members.
#[must_use]
pub fn server_problems(nodes: &[Value], names: &[String]) -> Vec<String> {
    let nodes = by_name(nodes);
    let mut out = Vec::new();
    for name in names {
        let Some(node) = nodes.get(name.as_str()) else {
            out.push(format!("{name} is not in the cluster"));
            continue;
        };
        for role in ["control-plane", "etcd"] {
            if node["metadata"]["labels"][format!("node-role.kubernetes.io/{role}")] != "true" {
                out.push(format!("{name} has no role {role}"));
            }
        }
        match condition(node, "EtcdIsVoter") {
            Some((s, _)) if s == "True" => {}
            Some((_, why)) => out.push(format!("{name} does not vote in etcd ({why})")),
            None => out.push(format!("{name} reports no etcd membership")),
        }
    }
    out
}

impl Cluster {
    /// Problems of the nodes; empty when all is well.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn check_nodes(&self, ctx: &Ctx, names: &[String], version: &str) -> OpResult<Vec<String>> {
        let nodes = self.list_in(ctx, "node", "").await?;
        let leases = self.list_in(ctx, "lease", "kube-node-lease").await?;
        let site = ctx.site().ok();
        let declared = site.iter().flat_map(|s| s.cluster_nodes()).map(|n| (n.name.clone(), n.ip.clone())).collect();
        Ok(node_problems(&nodes, &leases, names, version, &declared))
    }

    /// Names of the nodes that vote in etcd, as the cluster has them.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn etcd_voters(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        Ok(voters(&self.list_in(ctx, "node", "").await?))
    }

    /// Problems of the servers: absent ones, roles, votes, and what each API server says of itself.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn check_servers(&self, ctx: &Ctx, names: &[String]) -> OpResult<Vec<String>> {
        let nodes = self.list_in(ctx, "node", "").await?;
        let mut out = server_problems(&nodes, names);
        let of_server = |address: &str| {
            nodes.iter().find(|n| node_row(n)["address"] == address).and_then(|n| n["metadata"]["name"].as_str())
        };
        for (host, text, ok) in self.ask_each(ctx, "/readyz?verbose").await {
            // a VIP or DNS name is one more way in, not a server
            let Some(name) = of_server(&host).filter(|_| !ok) else { continue };
            let line = text.lines().find(|l| l.starts_with("[-]")).or_else(|| text.lines().next()).unwrap_or_default();
            out.push(format!("the API server of {name} is not ready: {line}"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str) -> Value {
        json!({"metadata":{"name":name},"status":{"conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"kubeletVersion":"v1"}}})
    }

    #[test]
    fn times_read() {
        assert_eq!(epoch_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(epoch_seconds("2024-02-29T12:00:01.5Z"), Some(1_709_208_001));
        assert_eq!(epoch_seconds("nonsense"), None);
    }

    #[test]
    fn problems_are_named() {
        let lease = |n: &str, t: &str| json!({"metadata":{"name":n},"spec":{"renewTime":t}});
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let leases = [lease("a", "2026-11-23T03:04:05Z"), lease("b", "2026-11-23T03:00:05Z")];
        let none = BTreeMap::new();
        let p = node_problems(&[node("a"), node("b"), node("x")], &leases, &names, "v2", &none);
        assert!(p.iter().any(|l| l == "c is not in the cluster"), "{p:?}");
        assert!(p.iter().any(|l| l.contains("b: its lease is 240 s older")), "{p:?}");
        assert!(p.iter().any(|l| l == "a runs v1, the site file says v2"), "{p:?}");
        assert!(p.iter().any(|l| l.contains("x")), "{p:?}");
        let mut moved = node("a");
        moved["status"]["addresses"] = json!([{"type": "InternalIP", "address": "10.0.0.24"}]);
        let at = |ip: &str| BTreeMap::from([("a".to_owned(), ip.to_owned())]);
        let p = node_problems(std::slice::from_ref(&moved), &[], &names[..1], "v1", &at("10.0.0.25"));
        assert_eq!(p, ["a has the address 10.0.0.24, the site file says 10.0.0.25"]);
        assert_eq!(node_problems(&[moved], &[], &names[..1], "v1", &at("10.0.0.24")), Vec::<String>::new());
        let p = server_problems(&[node("a")], &names);
        assert!(p.iter().any(|l| l.contains("a reports no etcd membership")), "{p:?}");
        assert!(p.iter().any(|l| l == "b is not in the cluster"), "{p:?}");
    }

    #[test]
    fn only_nodes_that_vote_are_voters() {
        let member = |name: &str, votes: &str| json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "EtcdIsVoter", "status": votes}]}});
        assert_eq!(voters(&[member("a", "True"), member("b", "False"), node("c")]), ["a"]);
    }
}
