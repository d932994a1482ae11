//! What a guest is started with: disks, cards, cloud-init data.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;

use super::{cloudinit, conf, status};
use crate::guest::state::{BootSpec, CloudInit, DiskSpec, NicSpec};
use crate::pve::params::unescape;
use crate::pve::state::Vm;
use crate::spec::PciSpec;
use crate::world::World;

/// The hardware of a VM as its guest sees it.
///
/// # Errors
/// The message the start task ends with.
pub fn spec(w: &World, vmid: u32, cards: &[PciSpec]) -> Result<BootSpec, String> {
    let vm = w.pve.vms.get(&vmid).ok_or("config vanished")?;
    let c = &vm.conf;
    let name = c.get("name").cloned().unwrap_or_else(|| format!("VM{vmid}"));
    let smbios = props::read("smbios1", c.get("smbios1").map(String::as_str).unwrap_or_default());
    let drives = conf::drives(c);
    let has_ci = drives.iter().any(|(_, p)| conf::is_cloudinit(p));
    Ok(BootSpec {
        vmid,
        name: name.clone(),
        uuid: smbios.get("uuid").cloned().unwrap_or_default(),
        pve_node: vm.node.clone(),
        cores: conf::cpus(c),
        memory_mib: conf::memory_mib(c),
        disks: disks(w, c),
        nics: nics(c),
        pci: cards.to_vec(),
        cloud_init: has_ci.then(|| cloud_init(&vm.ci_drive, &name)),
        seed_iso: seed(w, &drives),
        agent: status::agent_enabled(c) == Some(true),
    })
}

/// A running guest sees disks that were plugged in or pulled out.
pub fn refresh_disks(w: &mut World, vmid: u32) {
    let Some(vm) = w.pve.vms.get(&vmid).filter(|v| v.run.is_some()) else { return };
    let now = disks(w, &vm.conf);
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.spec.disks = now;
    }
}

/// A running guest finds a drive that was written anew at its next boot.
pub fn refresh_cloud_init(w: &mut World, vmid: u32) {
    let Some(vm) = w.pve.vms.get(&vmid).filter(|v| v.run.is_some()) else { return };
    let name = vm.conf.get("name").cloned().unwrap_or_else(|| format!("VM{vmid}"));
    let data = cloud_init(&vm.ci_drive, &name);
    if let Some(there) = w.guests.get_mut(&vmid).and_then(|g| g.spec.cloud_init.as_mut()) {
        *there = data;
    }
}

/// Disks in boot order, then by key.
fn disks(w: &World, c: &BTreeMap<String, String>) -> Vec<DiskSpec> {
    let boot = c.get("boot").map(|b| props::read("boot", b)).unwrap_or_default();
    let order: Vec<&str> = boot.get("order").map(|o| o.split(';').collect()).unwrap_or_default();
    let mut found: Vec<(usize, u32, DiskSpec)> = Vec::new();
    for (key, p) in conf::drives(c) {
        if conf::is_cdrom(&p) || conf::is_cloudinit(&p) || key == "efidisk0" || key == "tpmstate0" {
            continue;
        }
        let Some(volid) = conf::volume(&p) else { continue };
        let place = order.iter().position(|d| *d == key).unwrap_or(usize::MAX);
        let disk = DiskSpec {
            slot: key.clone(),
            volid: volid.to_owned(),
            size: w.volumes.get(volid).map_or(0, |v| v.size),
            serial: p.get("serial").map(|s| unescape(s, false)).unwrap_or_default(),
        };
        found.push((place, props::numbered(&key).1.unwrap_or(0), disk));
    }
    found.sort_by(|a, b| (a.0, a.1, &a.2.slot).cmp(&(b.0, b.1, &b.2.slot)));
    found.into_iter().map(|f| f.2).collect()
}

fn nics(c: &BTreeMap<String, String>) -> Vec<NicSpec> {
    let mut all: Vec<(u32, NicSpec)> = c
        .iter()
        .filter_map(|(k, v)| match props::numbered(k) {
            ("net", Some(n)) => {
                let p = props::read(k, v);
                let get = |key: &str| p.get(key).cloned().unwrap_or_default();
                let vlan = p.get("tag").and_then(|t| t.parse().ok());
                Some((n, NicSpec { mac: get("macaddr"), bridge: get("bridge"), vlan }))
            }
            _ => None,
        })
        .collect();
    all.sort_by_key(|n| n.0);
    all.into_iter().map(|n| n.1).collect()
}

/// An attached ISO that is not the hypervisor's own cloud-init drive.
fn seed(w: &World, drives: &[(String, props::Props)]) -> Option<String> {
    let isos = drives.iter().filter(|(_, p)| conf::is_cdrom(p) && !conf::is_cloudinit(p));
    isos.filter_map(|(_, p)| conf::volume(p)).find(|v| w.volumes.contains_key(*v)).map(str::to_owned)
}

/// The data on the generated cloud-init drive.
fn cloud_init(c: &BTreeMap<String, String>, name: &str) -> CloudInit {
    let get = |k: &str| c.get(k).cloned().unwrap_or_default();
    let ip = props::read("ipconfig0", &get("ipconfig0"));
    let cidr = ip.get("ip").and_then(|a| a.split_once('/'));
    let split = |t: &str| t.split([' ', ',', ';']).filter(|s| !s.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let keys = unescape(&get("sshkeys"), false);
    CloudInit {
        user: get("ciuser"),
        keys: keys.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        ip: cidr.map(|(a, _)| a.to_owned()),
        prefix: cidr.and_then(|(_, n)| n.parse().ok()).unwrap_or(24),
        gateway: ip.get("gw").cloned(),
        dns: split(&get("nameserver")),
        domain: c.get("searchdomain").and_then(|d| d.split([' ', ',']).next()).map(str::to_owned),
        hostname: name.split('.').next().unwrap_or(name).to_owned(),
        instance_id: cloudinit::instance_id(c),
        packages: Vec::new(),
        upgrade: c.get("ciupgrade").is_none_or(|v| v != "0"),
    }
}

/// Checks that the bridges of a VM are there.
///
/// # Errors
/// The line that the start's log shows.
pub fn bridges(w: &World, vm: &Vm) -> Result<(), String> {
    let have = w.pve.nodes.get(&vm.node).map(|n| n.bridges.clone()).unwrap_or_default();
    match nics(&vm.conf).iter().find(|n| !n.bridge.is_empty() && !have.contains(&n.bridge)) {
        Some(n) => Err(format!("bridge '{}' does not exist", n.bridge)),
        None => Ok(()),
    }
}
