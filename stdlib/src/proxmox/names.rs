//! Names of the site file that this Proxmox does not have: told before rights are judged, or `pveum` lines would grant
//! rights on what does not exist.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::options::closest;
use crate::site::Site;

use super::check_site::{demand, pve_nodes};
use super::error::Fault;
use super::permissions::effective;
use super::request::{self, Request};
use super::template::places;
use super::types::{Proxmox, Report};

/// What became of the names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Paths of rights on what does not exist: no right on them is asked for.
    pub wrong: BTreeSet<String>,
    /// Paths on which the token has no right, so that nothing is seen there: what may be wrong instead.
    pub unsure: BTreeMap<String, String>,
}

/// What to write instead of a name.
pub(super) fn choose(key: &str, name: &str, known: &[String]) -> String {
    let likely = closest(name, known.iter().map(String::as_str)).map(|k| format!("did you mean `{k}`? "));
    format!("{}set `{key}` in the site file to one of: {}", likely.unwrap_or_default(), known.join(", "))
}

/// The key of the site file that names a storage.
fn key_of(site: &Site, storage: &str) -> &'static str {
    let of = |pick: fn(&crate::site::Shape) -> &Option<String>| {
        site.nodes.iter().any(|n| pick(&n.shape).as_deref() == Some(storage))
    };
    match storage {
        s if s == site.proxmox.storage => "proxmox.storage",
        s if s == site.proxmox.image_storage => "proxmox.image_storage",
        _ if of(|s| &s.disk_storage) => "disk_storage",
        _ if of(|s| &s.data_storage) => "data_storage",
        _ => "scratch_storage",
    }
}

/// Storages that the site wants on a node.
pub(super) fn storages(site: &Site, node: &str) -> BTreeSet<String> {
    let all = site.nodes.iter().map(|n| n.vmid).collect();
    let mut out: BTreeSet<String> =
        demand(site, &all).into_keys().filter(|(n, _)| n == node).map(|(_, storage)| storage).collect();
    if !site.template.existing && places(site).iter().any(|(_, at)| at.node == node) {
        out.insert(site.proxmox.image_storage.clone());
    }
    out
}

pub(super) fn texts(list: &[Value], key: &str) -> Vec<String> {
    list.iter().filter_map(|v| v[key].as_str().map(str::to_owned)).collect()
}

/// One name of the site file.
struct Name<'a> {
    what: &'a str,
    key: &'a str,
    name: &'a str,
    /// Where a right on it would be granted.
    path: String,
}

impl Names {
    /// Judges one name that is not in the list of those that the token sees.
    fn judge(&mut self, r: &mut Report, n: &Name<'_>, seen: &[String], may: bool) {
        let Name { what, key, name, path } = n;
        if may {
            r.fail(format!("{what} `{name}` does not exist"), choose(key, name, seen));
            self.wrong.insert(path.clone());
            return;
        }
        let sees = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
        let text =
            format!("if `{name}` is no {what} at all, correct `{key}` in the site file first: the token sees {sees}");
        self.unsure.insert(path.clone(), text);
    }
}

impl Proxmox {
    /// Names in a list; a token that may not ask sees none.
    async fn seen(&self, ctx: &Ctx, list: &Request, key: &str) -> OpResult<Vec<String>> {
        match self.send_list(ctx, list).await {
            Err(e) if matches!(e.fault, Fault::Denied { .. }) => Ok(Vec::new()),
            other => Ok(texts(&other?, key)),
        }
    }

    /// Looks for nodes, storages and the bridge of the site file, as far as the token sees them.
    pub(super) async fn check_names(&self, ctx: &Ctx, site: &Site, rights: &Value, r: &mut Report) -> OpResult<Names> {
        let mut out = Names::default();
        // Everybody sees the nodes, and nobody else's storages.
        let nodes = self.send_list(ctx, &request::get("/nodes")).await?;
        let known = texts(&nodes, "node");
        let holds = |path: &str, any: &[&str]| {
            let have = effective(rights, path);
            any.iter().any(|p| have.contains(*p))
        };
        for node in pve_nodes(site) {
            let Some(found) = nodes.iter().find(|n| n["node"] == node.as_str()) else {
                let name =
                    Name { what: "hypervisor node", key: "pve_node", name: &node, path: format!("/nodes/{node}") };
                out.judge(r, &name, &known, true);
                continue;
            };
            if found["status"] != "online" {
                continue;
            }
            let seen = self.seen(ctx, &request::get(format!("/nodes/{node}/storage")), "storage").await?;
            for name in storages(site, &node).into_iter().filter(|s| !seen.contains(s)) {
                let path = format!("/storage/{name}");
                let may = holds(&path, &["Datastore.Audit", "Datastore.AllocateSpace"]);
                let name = Name { what: &format!("storage of {node}"), key: key_of(site, &name), name: &name, path };
                out.judge(r, &name, &seen, may);
            }
            let bridge = &site.network.bridge;
            let list = request::get(format!("/nodes/{node}/network")).query("type", "any_bridge");
            let seen = self.seen(ctx, &list, "iface").await?;
            if !seen.contains(bridge) {
                let path = format!("/sdn/zones/localnetwork/{bridge}");
                let may = holds(&path, &["SDN.Use", "SDN.Audit"]);
                let name = Name { what: &format!("bridge of {node}"), key: "network.bridge", name: bridge, path };
                out.judge(r, &name, &seen, may);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_write_instead_is_named() {
        let known = ["local".to_owned(), "local-zfs".to_owned()];
        assert_eq!(
            choose("proxmox.storage", "local-zsf", &known),
            "did you mean `local-zfs`? set `proxmox.storage` in the site file to one of: local, local-zfs"
        );
        assert!(choose("x", "tank", &known).starts_with("set `x`"));
    }

    #[test]
    fn a_name_that_cannot_be_seen_is_not_said_to_be_wrong() {
        let (mut r, mut n) = (Report::new("t"), Names::default());
        let seen = ["local".to_owned()];
        let name = Name { what: "storage of pve1", key: "proxmox.storage", name: "tank", path: "/storage/tank".into() };
        n.judge(&mut r, &name, &seen, false);
        assert!(r.is_ok() && n.wrong.is_empty() && n.unsure["/storage/tank"].contains("the token sees local"));
        n.judge(&mut r, &name, &seen, true);
        assert_eq!((r.problems[0].text.as_str(), n.wrong.len()), ("storage of pve1 `tank` does not exist", 1));
    }
}
