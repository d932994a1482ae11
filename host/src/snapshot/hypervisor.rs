//! The hypervisor's part of a snapshot: nodes, storages, pools, mapping, machines.
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_lab::Lab;
use gpuhost_lab::pve::space;
use gpuhost_lab::seed::{self, SeenVm};
use gpuhost_lab::spec::{NodeSpec, PciSpec, Spec, StorageSpec};
use gpuhost_lab::world::World;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::proxmox::birth::{self, Birth};
use gpuhost_stdlib::proxmox::request;
use gpuhost_stdlib::proxmox::{Proxmox, lock_pool};
use gpuhost_stdlib::site::Site;
use serde_json::Value;

use super::{Notes, Swap};

/// What was read.
#[derive(Debug, Default)]
pub struct Seen {
    version: String,
    nodes: Vec<NodeSpec>,
    storages: Vec<StorageSpec>,
    vms: Vec<SeenVm>,
    templates: BTreeSet<u32>,
    pools: BTreeMap<String, String>,
    mapping: Option<(String, Option<Value>)>,
    images: Option<BTreeSet<String>>,
}

/// As a query string has it.
pub fn percent(text: &str) -> String {
    text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

fn text(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        Value::Bool(b) => u8::from(*b).to_string(),
        other => other.to_string(),
    }
}

fn rows(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Reads the hypervisor.
///
/// # Errors
/// When it does not answer, or shows no machines.
pub async fn read(ctx: &Ctx, site: &Site, notes: &mut Notes) -> OpResult<Seen> {
    let pve = Proxmox::connect_site(ctx).await?;
    let mut seen = Seen { version: pve.version(ctx).await?, ..Seen::default() };
    let nodes = pve.send(ctx, &request::get("/nodes")).await?;
    for n in rows(&nodes) {
        let name = text(&n["node"]);
        if n["status"] == "online" {
            node(ctx, &pve, &name, n, &mut seen, notes).await;
        } else {
            notes.unread.push(format!("hypervisor node {name}: it is {}", text(&n["status"])));
        }
    }
    machines(ctx, &pve, site, &mut seen, notes).await?;
    match pve.send(ctx, &request::get("/pools")).await {
        Ok(list) => seen.pools = rows(&list).iter().map(|p| (text(&p["poolid"]), text(&p["comment"]))).collect(),
        Err(e) => notes.unread.push(format!("pools: {}", e.text)),
    }
    if let Some(id) = site.gpu.get("mapping").and_then(toml::Value::as_str) {
        match pve.find(ctx, &request::mapping(id)).await {
            Ok(found) => seen.mapping = Some((id.to_owned(), found)),
            Err(e) => notes.unread.push(format!("mapping {id}: {}", e.text)),
        }
    }
    images(ctx, &pve, site, &mut seen, notes).await;
    notes.read.push(format!(
        "{} hypervisor nodes, {} storages, {} machines and templates, {} pools",
        seen.nodes.len(),
        seen.storages.len(),
        seen.vms.len(),
        seen.pools.len()
    ));
    notes.assumed.push("what the token may do on the hypervisor: as in the lab".to_owned());
    Ok(seen)
}

async fn machines(ctx: &Ctx, pve: &Proxmox, site: &Site, seen: &mut Seen, notes: &mut Notes) -> OpResult<()> {
    for row in pve.rows(ctx).await? {
        let Some(conf) = pve.config(ctx, &row.at).await? else { continue };
        let mut vm = SeenVm {
            vmid: row.at.vmid,
            node: row.at.node.clone(),
            conf: conf.iter().filter(|(k, _)| *k != "digest").map(|(k, v)| (k.clone(), text(v))).collect(),
            running: row.status == "running",
            pool: row.pool.clone(),
            ..SeenVm::default()
        };
        if row.template {
            seen.templates.insert(vm.vmid);
        }
        if site.nodes.iter().any(|n| n.vmid == vm.vmid) {
            pending(ctx, pve, &row.at, &mut vm, notes).await;
            if vm.running {
                cloud_init(ctx, pve, &row.at, &mut vm, notes).await;
            }
        }
        seen.vms.push(vm);
    }
    Ok(())
}

async fn node(ctx: &Ctx, pve: &Proxmox, name: &str, row: &Value, seen: &mut Seen, notes: &mut Notes) {
    let mut spec = NodeSpec {
        name: name.to_owned(),
        cpus: u32::try_from(row["maxcpu"].as_u64().unwrap_or(1)).unwrap_or(1),
        memory_gib: row["maxmem"].as_u64().unwrap_or(0) >> 30,
        bridges: Vec::new(),
        iommu: false,
        pci: Vec::new(),
    };
    match pve.send(ctx, &request::list_pci(name)).await {
        Ok(list) => spec.pci = rows(&list).iter().map(card).collect(),
        Err(e) => notes.unread.push(format!("PCI devices of {name}: {}", e.text)),
    }
    spec.iommu = spec.pci.iter().any(|p| p.iommu_group >= 0);
    match pve.send(ctx, &request::get(format!("/nodes/{name}/network"))).await {
        Ok(list) => {
            let bridges = rows(&list).iter().filter(|i| text(&i["type"]).to_lowercase().contains("bridge"));
            spec.bridges = bridges.map(|i| text(&i["iface"])).collect();
        }
        Err(e) => notes.unread.push(format!("networks of {name}: {}", e.text)),
    }
    match pve.send(ctx, &request::get(format!("/nodes/{name}/storage"))).await {
        Ok(list) => rows(&list).iter().for_each(|s| storage(s, name, seen, notes)),
        Err(e) => notes.unread.push(format!("storages of {name}: {}", e.text)),
    }
    seen.nodes.push(spec);
}

fn storage(s: &Value, node: &str, seen: &mut Seen, notes: &mut Notes) {
    let id = text(&s["storage"]);
    if s["active"].as_u64() == Some(0) {
        notes.unread.push(format!("storage {id} on {node}: it is not active"));
    }
    if seen.storages.iter().any(|o| o.id == id) {
        return;
    }
    seen.storages.push(StorageSpec {
        id,
        kind: text(&s["type"]),
        content: text(&s["content"]),
        size_gib: s["total"].as_u64().unwrap_or(0) >> 30,
        shared: s["shared"].as_u64() == Some(1),
    });
}

fn card(v: &Value) -> PciSpec {
    PciSpec {
        address: text(&v["id"]),
        vendor: text(&v["vendor"]),
        device: text(&v["device"]),
        class: text(&v["class"]),
        vendor_name: text(&v["vendor_name"]),
        device_name: text(&v["device_name"]),
        subsystem_vendor: text(&v["subsystem_vendor"]),
        subsystem_device: text(&v["subsystem_device"]),
        iommu_group: v["iommugroup"].as_i64().unwrap_or(-1),
    }
}

/// Changes that wait for the machine's next start.
async fn pending(ctx: &Ctx, pve: &Proxmox, at: &request::At, vm: &mut SeenVm, notes: &mut Notes) {
    let list = match pve.send(ctx, &request::pending(at)).await {
        Ok(l) => l,
        Err(e) => return notes.unread.push(format!("pending changes of VM {}: {}", vm.vmid, e.text)),
    };
    for row in rows(&list) {
        let key = text(&row["key"]);
        if row["delete"].as_u64().is_some_and(|d| d > 0) {
            vm.conf.insert(key.clone(), text(&row["value"]));
            vm.pending_delete.insert(key);
        } else if !row["pending"].is_null() {
            match &row["value"] {
                Value::Null => drop(vm.conf.remove(&key)),
                now => drop(vm.conf.insert(key.clone(), text(now))),
            }
            vm.pending.insert(key, text(&row["pending"]));
        }
    }
}

/// What the cloud-init drive of a running machine carries that the config does not say any more.
async fn cloud_init(ctx: &Ctx, pve: &Proxmox, at: &request::At, vm: &mut SeenVm, notes: &mut Notes) {
    match pve.send(ctx, &request::cloud_init(at)).await {
        Ok(list) => {
            for row in
                rows(&list).iter().filter(|r| !r["pending"].is_null() || r["delete"].as_u64().is_some_and(|d| d > 0))
            {
                let value = if row["value"].is_null() { None } else { Some(text(&row["value"])) };
                vm.drive.insert(text(&row["key"]), value);
            }
        }
        Err(e) => notes.unread.push(format!("cloud-init data of VM {}: {}", vm.vmid, e.text)),
    }
}

async fn images(ctx: &Ctx, pve: &Proxmox, site: &Site, seen: &mut Seen, notes: &mut Notes) {
    let (node, storage) = (&site.proxmox.pve_node, &site.proxmox.image_storage);
    let mut all = BTreeSet::new();
    for kind in ["import", "iso"] {
        match pve.send(ctx, &request::storage_content(node, storage, kind)).await {
            Ok(list) => all.extend(rows(&list).iter().map(|v| text(&v["volid"]))),
            Err(e) => return notes.unread.push(format!("images on {storage}: {}", e.text)),
        }
    }
    seen.images = Some(all);
}

impl Seen {
    /// Whether a machine of the site exists.
    pub fn machines(&self, site: &Site) -> bool {
        self.vms.iter().any(|v| site.nodes.iter().any(|n| n.vmid == v.vmid))
    }

    /// Whether the site's template exists.
    pub fn has_template(&self, site: &Site) -> bool {
        self.templates.contains(&site.template.vmid)
    }

    /// Names of the site's nodes whose machines run.
    pub fn running(&self, site: &Site) -> Vec<String> {
        let on = |vmid: u32| self.vms.iter().any(|v| v.vmid == vmid && v.running);
        site.nodes.iter().filter(|n| on(n.vmid)).map(|n| n.name.clone()).collect()
    }

    /// The hardware as a lab's spec.
    ///
    /// # Errors
    /// As [`crate::labs::world::spec`].
    pub fn spec(&self, site: &Site) -> OpResult<Spec> {
        let mut spec = crate::labs::world::spec(site)?;
        spec.pve_version.clone_from(&self.version);
        spec.nodes.clone_from(&self.nodes);
        spec.storages.clone_from(&self.storages);
        spec.foreign_vms.clear();
        Ok(spec)
    }
}

/// A pool's comment as the site has it. The cluster whose birth it notes has the world's own CA and token here.
fn likeness(ours: &str, theirs: &str) -> String {
    match (Birth::parse(ours), Birth::parse(theirs)) {
        (Some(own), Some(read)) => birth::with(theirs, Some(&Birth { ca: own.ca, token: own.token, ..read })),
        _ => theirs.to_owned(),
    }
}

/// Makes the world's hypervisor be as it was read.
pub fn place(lab: &Lab, w: &mut World, site: &Site, seen: &Seen, swap: &Swap, notes: &mut Notes) {
    let locks = lock_pool(site, 0).trim_end_matches('0').to_owned();
    w.pve.pools.retain(|name, _| seen.pools.contains_key(name));
    for (name, comment) in seen.pools.iter().filter(|(n, _)| !n.starts_with(&locks)) {
        let pool = w.pve.pools.entry(name.clone()).or_default();
        pool.comment = likeness(&pool.comment, &swap.text(comment));
    }
    if seen.pools.keys().any(|p| p.starts_with(&locks)) {
        notes.assumed.push("nobody holds the site's lock any more when the run begins".to_owned());
    }
    let gone: Vec<u32> = w.pve.vms.keys().filter(|id| !seen.vms.iter().any(|v| v.vmid == **id)).copied().collect();
    for vmid in gone {
        seed::remove_machine(lab, w, vmid);
    }
    for vm in &seen.vms {
        let mut vm = vm.clone();
        let drive = vm.drive.values_mut().flatten();
        for value in vm.conf.values_mut().chain(vm.pending.values_mut()).chain(drive) {
            *value = swap.text(value);
        }
        seed::machine(lab, w, &vm);
    }
    match &seen.mapping {
        Some((id, None)) => drop(w.pve.mappings.remove(id)),
        Some((id, Some(found))) => {
            let m = w.pve.mappings.entry(id.clone()).or_default();
            m.map = rows(&found["map"]).iter().map(text).collect();
            m.description = found["description"].as_str().map(str::to_owned);
        }
        None => {}
    }
    if let Some(images) = &seen.images {
        keep_images(w, &site.proxmox.image_storage, images, notes);
    }
}

fn keep_images(w: &mut World, storage: &str, images: &BTreeSet<String>, notes: &mut Notes) {
    let here = format!("{storage}:");
    let mine = w.pve.files.iter().filter(|(id, f)| {
        id.starts_with(&here) && matches!(f.content.as_str(), "import" | "iso") && !images.contains(*id)
    });
    let extra: Vec<String> = mine.map(|(id, _)| id.clone()).collect();
    for id in extra {
        space::free(w, &id);
    }
    if images.iter().any(|id| !w.pve.files.contains_key(id)) {
        notes.assumed.push(format!("images on {storage} that a deploy does not leave there are not in the world"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_birth_of_the_likeness_is_its_own_and_what_was_chosen_is_the_sites() {
        let ours = "gpuhost site s u cluster=ca=aaaa;token=bbbb;pods=10.42.0.0/16;services=10.43.0.0/16;cis=on";
        let theirs = "gpuhost site s u cluster=ca=cccc;token=dddd;pods=10.99.0.0/16;services=10.43.0.0/16;cis=off kept";
        let both = likeness(ours, theirs);
        let word = "cluster=ca=aaaa;token=bbbb;pods=10.99.0.0/16;services=10.43.0.0/16;cis=off";
        assert!(both.contains(word) && both.ends_with(" kept"), "{both}");
        // Where one of the two notes nothing, the site's words count: also those of a cluster that is lost.
        assert_eq!(likeness("", theirs), theirs);
        assert_eq!(likeness(ours, "gpuhost site s u"), "gpuhost site s u");
    }
}
