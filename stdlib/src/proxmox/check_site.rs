//! `check_site`: what a deploy would stumble over, found before anything is made.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::{Op, OpScope};
use crate::core::units::Size;
use crate::site::Site;
use crate::wire::pve::marker::Ownership;

use super::diff::slot_of;
use super::inventory::{Machine, Place, is_on};
use super::login;
use super::names::{choose, storages, texts};
use super::request;
use super::template::places;
use super::types::{Proxmox, Report};
use super::wanted::mapping_of;

/// A byte count that may be text.
fn bytes(v: &Value) -> u64 {
    v.as_u64().or_else(|| v.as_str()?.parse().ok()).unwrap_or_default()
}

/// GiB that full deployment of the site writes to each storage of each node: (node, storage) -> GiB.
#[must_use]
pub fn demand(site: &Site, missing: &BTreeSet<u32>) -> BTreeMap<(String, String), u64> {
    let mut out = BTreeMap::new();
    let mut add = |node: &str, storage: Option<&String>, size: Option<Size>| {
        let storage = storage.unwrap_or(&site.proxmox.storage);
        *out.entry((node.to_owned(), storage.clone())).or_default() += size.map_or(0, Size::as_gib_ceil);
    };
    for n in site.nodes.iter().filter(|n| missing.contains(&n.vmid)) {
        let s = &n.shape;
        add(&n.pve_node, s.disk_storage.as_ref(), Some(s.disk_or_default()));
        if s.scratch.is_some() {
            add(&n.pve_node, s.scratch_storage.as_ref(), s.scratch);
        }
        if s.data.is_some() {
            add(&n.pve_node, s.data_storage.as_ref(), s.data);
        }
    }
    out
}

pub(super) fn pve_nodes(site: &Site) -> BTreeSet<String> {
    let mut out: BTreeSet<String> = site.nodes.iter().map(|n| n.pve_node.clone()).collect();
    out.insert(site.proxmox.pve_node.clone());
    out.extend(site.template.pve_node.clone());
    out.extend(places(site).into_iter().map(|(_, at)| at.node));
    out
}

impl Proxmox {
    /// Checks hypervisor nodes, storages, bridge, ids and mappings against the site file.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn check_site(&self, ctx: &Ctx) -> OpResult<Report> {
        let site = ctx.site()?;
        ctx.run_op(Op::read("proxmox", "check_site", &site.name), |s| async move {
            let mut r = Report::new(format!("site {} on {}", site.name, self.url()));
            let up = self.check_nodes(ctx, &site, &mut r).await?;
            let missing = self.check_ids(&s, &site, &mut r).await?;
            for node in &up {
                self.check_storages(ctx, &site, node, &missing, &mut r).await?;
                self.check_bridge(ctx, &site, node, &mut r).await?;
                self.check_mapping(ctx, &site, node, &mut r).await?;
            }
            Ok(r)
        })
        .await
    }

    async fn check_nodes(&self, ctx: &Ctx, site: &Site, r: &mut Report) -> OpResult<Vec<String>> {
        let all = self.send_list(ctx, &request::get("/nodes")).await?;
        let names = texts(&all, "node");
        let mut up = Vec::new();
        for want in pve_nodes(site) {
            match all.iter().find(|n| n["node"] == want.as_str()) {
                None => r.fail(format!("hypervisor node `{want}` does not exist"), choose("pve_node", &want, &names)),
                Some(n) if n["status"] == "online" => {
                    r.pass(format!("hypervisor node {want} is online"));
                    up.push(want);
                }
                Some(n) => r.fail(
                    format!("hypervisor node `{want}` is {}", n["status"].as_str().unwrap_or("unknown")),
                    "bring it back, or take its machines out of the site file",
                ),
            }
        }
        Ok(up)
    }

    /// Ids must be free or ours. Returns those that are free.
    async fn check_ids(&self, s: &OpScope, site: &Site, r: &mut Report) -> OpResult<BTreeSet<u32>> {
        let mut free = BTreeSet::new();
        let mut own = Vec::new();
        for n in &site.nodes {
            match self.settled_place(s, n.vmid, &n.pve_node).await? {
                Place::Free => {
                    free.insert(n.vmid);
                }
                Place::Hidden => {
                    let v = crate::wire::pve::marker::hidden(n.vmid);
                    r.fail(format!("{}: {}", n.name, v.why), v.hint);
                }
                Place::Taken(m) => {
                    let v = m.judge(site, Some(&n.name), Some(&n.pve_node));
                    if v.ownership == Ownership::Own {
                        own.push((n.name.clone(), *m));
                    } else {
                        r.fail(format!("{}: {} ({})", n.name, v.why, v.ownership), v.hint);
                    }
                }
            }
        }
        r.pass(format!("{} machine ids are free, {} are this site's", free.len(), own.len()));
        self.check_key(s, site, &own, r).await?;
        for text in [elsewhere(site, &own), self.left_over(s.ctx(), site).await?].into_iter().flatten() {
            s.ctx().message("warn", &text);
            r.warn(text);
        }
        self.check_template(s, site, r).await?;
        Ok(free)
    }

    /// Machines that run have to know the site's SSH key: the login of one that does not is tried, the others are counted.
    async fn check_key(&self, s: &OpScope, site: &Site, own: &[(String, Machine)], r: &mut Report) -> OpResult<()> {
        for (i, (name, m)) in own.iter().enumerate() {
            let Some(stranger) = self.stranger(s.ctx(), site, m).await? else { continue };
            let same = |o: &&(String, Machine)| o.1.get("sshkeys") == m.get("sshkeys");
            let more = own[i + 1..].iter().filter(same).count();
            let who = if more == 0 { name.clone() } else { format!("{name} and {more} more machines") };
            let e = login::told(s.ctx(), site, &who, more == 0, &stranger)?;
            r.fail(format!("{}: {}", e.message, e.causes.join("; ")), e.hint.unwrap_or_default());
            r.rights = true;
            return Ok(());
        }
        Ok(())
    }

    async fn check_template(&self, s: &OpScope, site: &Site, r: &mut Report) -> OpResult<()> {
        let t = &site.template;
        let near = t.pve_node.as_deref().unwrap_or(&site.proxmox.pve_node);
        match (self.settled_place(s, t.vmid, near).await?, t.existing) {
            (Place::Free, true) => r.fail(
                format!("the existing template {} is not there", t.vmid),
                "correct `template.vmid`, or leave `existing` out to have it made",
            ),
            (Place::Free, false) => {
                if t.image_url.is_none() {
                    r.fail("the template has to be made, but no image is named", "set `image_url` under [template]");
                } else {
                    r.pass(format!("template id {} is free", t.vmid));
                }
            }
            (Place::Hidden, _) => {
                let v = crate::wire::pve::marker::hidden(t.vmid);
                r.fail(format!("template: {}", v.why), v.hint);
            }
            (Place::Taken(m), true) if m.is_template() => r.pass(format!("template {} `{}`", t.vmid, m.name())),
            (Place::Taken(m), true) => r.fail(
                format!("VM {} `{}` is not a template", t.vmid, m.name()),
                format!("convert it: `qm template {}`", t.vmid),
            ),
            (Place::Taken(m), false) => {
                let v = m.judge(site, Some(&t.name), None);
                if v.ownership == Ownership::Own {
                    r.pass(format!("template {} is this site's", t.vmid));
                } else {
                    r.fail(
                        format!("template: {} ({})", v.why, v.ownership),
                        "give the template another vmid, or set `existing = true` to use that one",
                    );
                }
            }
        }
        Ok(())
    }

    async fn check_storages(
        &self,
        ctx: &Ctx,
        site: &Site,
        node: &str,
        missing: &BTreeSet<u32>,
        r: &mut Report,
    ) -> OpResult<()> {
        let list = self.send_list(ctx, &request::get(format!("/nodes/{node}/storage"))).await?;
        let need = demand(site, missing);
        let mut wanted: BTreeMap<String, (Vec<&str>, u64)> = BTreeMap::new();
        for ((n, storage), gib) in &need {
            if n == node {
                wanted.entry(storage.clone()).or_default().0.push("images");
                wanted.entry(storage.clone()).or_default().1 += gib;
            }
        }
        // Those of machines that exist have to be there, too.
        for storage in storages(site, node) {
            wanted.entry(storage).or_default();
        }
        if !site.template.existing && places(site).iter().any(|(_, at)| at.node == node) {
            wanted.entry(site.proxmox.image_storage.clone()).or_default().0.extend(["import", "iso"]);
        }
        for (storage, (contents, gib)) in wanted {
            judge_storage(&list, node, &storage, &contents, gib, r);
        }
        Ok(())
    }

    async fn check_bridge(&self, ctx: &Ctx, site: &Site, node: &str, r: &mut Report) -> OpResult<()> {
        let bridge = &site.network.bridge;
        let list = request::get(format!("/nodes/{node}/network")).query("type", "any_bridge");
        let list = self.send_list(ctx, &list).await?;
        let names = texts(&list, "iface");
        if names.contains(bridge) {
            r.pass(format!("{node} has bridge {bridge}"));
        } else {
            r.fail(format!("{node} has no bridge `{bridge}`"), choose("network.bridge", bridge, &names));
        }
        Ok(())
    }

    /// A mapping that exists already must not point at cards that are gone.
    async fn check_mapping(&self, ctx: &Ctx, site: &Site, node: &str, r: &mut Report) -> OpResult<()> {
        let on_node = site.nodes.iter().filter(|n| n.pve_node == node && n.shape.gpu_count() > 0);
        let names: BTreeSet<String> = on_node.filter_map(|n| mapping_of(site, n)).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.judge_promises(ctx, node, r).await?;
        let all = self.send(ctx, &request::check_mappings(node)).await?;
        for m in all.as_array().map(Vec::as_slice).unwrap_or_default() {
            let id = m["id"].as_str().unwrap_or_default();
            if !names.contains(id) {
                continue;
            }
            let checks = m["checks"].as_array().cloned().unwrap_or_default();
            for c in checks {
                let text = c["message"].as_str().unwrap_or_default().trim().to_owned();
                if c["severity"] == "error" {
                    let hint =
                        "compare the mapping with `pve.list_pci(node)`: the card moved, is gone, or is another model";
                    r.fail(format!("mapping {id} on {node}: {text}"), hint);
                } else {
                    r.warn(format!("mapping {id} on {node}: {text}"));
                }
            }
        }
        Ok(())
    }
}

/// Disks that are on another storage than the site file says.
fn elsewhere(site: &Site, own: &[(String, Machine)]) -> Option<String> {
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (name, m) in own {
        let Ok(node) = site.node(name) else { continue };
        let s = &node.shape;
        let disks = [
            (Some("scsi0".to_owned()), &s.disk_storage),
            (slot_of(m, &node.scratch_serial()), &s.scratch_storage),
            (slot_of(m, &node.data_serial()), &s.data_storage),
        ];
        for (slot, wanted) in disks {
            let wanted = wanted.as_ref().unwrap_or(&site.proxmox.storage);
            let on = slot.and_then(|slot: String| Some(m.get(&slot)?.split_once(':')?.0.to_owned()));
            if let Some(on) = on.filter(|on| on != wanted) {
                let names = found.entry((on, wanted.clone())).or_default();
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
    }
    let said = |((on, wanted), names): ((String, String), Vec<String>)| {
        format!("disks of {} are on storage {on}, the site file says {wanted}", names.join(", "))
    };
    let said: Vec<String> = found.into_iter().map(said).collect();
    (!said.is_empty()).then(|| {
        format!(
            "{}: they stay where they are; `pve.get_vm(name).move_disk(\"scsi0\", storage)` moves one",
            said.join("; ")
        )
    })
}

fn judge_storage(list: &[Value], node: &str, storage: &str, contents: &[&str], gib: u64, r: &mut Report) {
    let Some(s) = list.iter().find(|s| s["storage"] == storage) else {
        let names = texts(list, "storage");
        r.fail(format!("{node} has no storage `{storage}`"), choose("storage", storage, &names));
        return;
    };
    if !s["active"].is_null() && !is_on(&s["active"]) {
        r.fail(format!("storage {storage} on {node} is not active"), "look at it in Proxmox: is it mounted?");
        return;
    }
    let have: Vec<&str> = s["content"].as_str().unwrap_or_default().split(',').map(str::trim).collect();
    let lacks: BTreeSet<&str> = contents.iter().copied().filter(|c| !have.contains(c)).collect();
    if !lacks.is_empty() {
        let mut all = have.clone();
        all.extend(lacks.iter());
        let lacks: Vec<&str> = lacks.into_iter().collect();
        r.fail(
            format!("storage {storage} does not take content type {}", lacks.join(", ")),
            format!("allow it: `pvesm set {storage} --content {}`", all.join(",")),
        );
    }
    let avail = bytes(&s["avail"]) >> 30;
    let total = bytes(&s["total"]) >> 30;
    let thin = matches!(s["type"].as_str(), Some("zfspool" | "lvmthin" | "rbd" | "btrfs"))
        || s["type"].as_str().is_some_and(|t| matches!(t, "dir" | "nfs" | "cifs" | "cephfs"));
    if s["avail"].is_null() || gib <= avail {
        r.pass(format!("storage {storage} on {node}: {gib} GiB wanted, {avail} GiB free"));
    } else if thin && gib <= total {
        // Thin volumes take space as they are written.
        r.warn(format!("storage {storage} on {node}: {gib} GiB will be promised, {avail} GiB are free"));
    } else {
        r.fail(
            format!("storage {storage} on {node} has {avail} GiB free, the missing machines take {gib} GiB"),
            "make room, lower the sizes, or name another storage in the site file",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn site() -> Site {
        let text = include_str!("../../../recipes/site.toml");
        crate::site::load(std::path::Path::new("site.toml"), text).unwrap()
    }

    #[test]
    fn demand_counts_only_what_is_missing() {
        let s = site();
        let all: BTreeSet<u32> = s.nodes.iter().map(|n| n.vmid).collect();
        let key = ("pve1".to_owned(), "local-zfs".to_owned());
        assert_eq!(demand(&s, &all)[&key], 3 * 100 + 4 * (500 + 1024) + 100 + 2048);
        assert_eq!(demand(&s, &BTreeSet::from([201]))[&key], 100);
        assert!(demand(&s, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn storages_are_judged_by_presence_content_and_space() {
        let gib = 1u64 << 30;
        let list = vec![
            json!({"storage": "zfs", "type": "zfspool", "active": 1, "content": "images,rootdir", "avail": 10 * gib, "total": 100 * gib}),
            json!({"storage": "local", "type": "dir", "active": 1, "content": "iso,vztmpl", "avail": 10 * gib, "total": 20 * gib}),
        ];
        let judge = |storage: &str, contents: &[&str], gib: u64| {
            let mut r = Report::new("t");
            judge_storage(&list, "pve1", storage, contents, gib, &mut r);
            (r.problems.len(), r.warnings.len())
        };
        assert_eq!(judge("zfs", &["images"], 5), (0, 0));
        assert_eq!(judge("zfs", &["images"], 50), (0, 1));
        assert_eq!(judge("zfs", &["images"], 500), (1, 0));
        assert_eq!(judge("local", &["import", "iso"], 0), (1, 0));
        assert_eq!(judge("ghost", &["images"], 0), (1, 0));
    }
}
