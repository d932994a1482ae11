//! What a node's machine should look like, as Proxmox config. Pure.
use std::collections::{BTreeMap, BTreeSet};

use crate::site::{Node, RoleKind, Site};
use crate::wire::pve::props;

use super::request::percent;

/// A disk beside the system disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDisk {
    /// Slot for a new one.
    pub slot: String,
    /// Storage for a new one.
    pub storage: String,
    /// Size in GiB.
    pub gib: u64,
    /// Serial by which it is known, wherever it is attached.
    pub serial: String,
    /// Options of a new one.
    pub options: String,
    /// What it is, for people.
    pub what: String,
    /// Whether it holds data of the user.
    pub data: bool,
}

/// The wanted machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Plain keys.
    pub keys: BTreeMap<String, String>,
    /// Size of the system disk in MiB.
    pub system_mib: u64,
    /// Options of the system disk.
    pub system_options: BTreeMap<String, String>,
    /// Further disks.
    pub disks: Vec<WantedDisk>,
    /// PCI mapping of the GPUs.
    pub mapping: Option<String>,
    /// How many.
    pub gpus: u32,
    /// PCI devices in the order of their slots: the GPUs, then what the recipe adds.
    pub pci: Vec<String>,
    /// Storage of what has none of its own.
    pub storage: String,
    /// Storage of a TPM.
    pub tpm: Option<String>,
    /// Notes for people.
    pub notes: Option<String>,
    /// Keys that came from `config`.
    pub free_keys: BTreeSet<String>,
}

/// Drive string of a new disk.
#[must_use]
pub fn new_disk(w: &WantedDisk) -> String {
    format!("{}:{},{},serial={}", w.storage, w.gib, w.options, w.serial)
}

/// The agent as templates of ours have it.
pub const AGENT: &str = "enabled=1,fstrim_cloned_disks=1";

/// PCI mapping of a node's GPUs.
#[must_use]
pub fn mapping_of(site: &Site, node: &Node) -> Option<String> {
    node.shape.gpu_mapping.clone().or_else(|| site.gpu.get("mapping")?.as_str().map(str::to_owned))
}

/// `virtio=MAC,bridge=…[,tag=…]`.
#[must_use]
pub fn nic(site: &Site, mac: &str) -> String {
    let text = |t: &str| Some(t.to_owned());
    let tag = site.network.vlan.map(|v| v.to_string());
    props::compose(
        "net0",
        [("model", text("virtio")), ("macaddr", text(mac)), ("bridge", text(&site.network.bridge)), ("tag", tag)],
    )
}

fn tag(word: &str) -> String {
    let low = word.to_ascii_lowercase();
    low.chars().map(|c| if c.is_ascii_alphanumeric() || "+._-".contains(c) { c } else { '-' }).collect()
}

/// Cloud-init's keys as Proxmox stores them.
#[must_use]
pub fn ssh_keys(keys: &[String]) -> String {
    percent(&keys.iter().map(|k| k.trim()).filter(|k| !k.is_empty()).collect::<Vec<_>>().join("\n"))
}

/// What `node` should be; `keys` may log in to it.
#[must_use]
pub fn wanted(site: &Site, node: &Node, keys: &[String]) -> Wanted {
    let shape = &node.shape;
    let net = &site.network;
    let gpus = shape.gpu_count();
    let mut want: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |k: &str, v: String| {
        want.insert(k.to_owned(), v);
    };
    set("name", node.name.clone());
    set("cores", shape.cores_or_default().to_string());
    set("cpu", shape.cpu.clone().unwrap_or_else(|| "host".to_owned()));
    set("memory", shape.memory_or_default().as_mib().to_string());
    set("agent", AGENT.to_owned());
    set("onboot", i32::from(shape.onboot.unwrap_or(true)).to_string());
    set("net0", nic(site, &node.mac));
    let address = format!("{}/{}", node.ip, site.prefix_len());
    set("ipconfig0", props::compose("ipconfig0", [("ip", Some(address)), ("gw", Some(net.gateway.clone()))]));
    if !net.dns.is_empty() {
        set("nameserver", net.dns.join(" "));
    }
    if let Some(d) = &net.domain {
        set("searchdomain", d.clone());
    }
    set("ciuser", site.ssh.user.clone());
    set("sshkeys", ssh_keys(keys));
    // The same file gives the same machine: no upgrade at first boot.
    set("ciupgrade", "0".to_owned());
    set("tags", format!("gpuhost;{}", tag(&node.role)));
    // The device must not be created without the memory being pinned: no balloon beside passthrough.
    if gpus > 0 {
        set("balloon", "0".to_owned());
        set("machine", "q35".to_owned());
    }
    if matches!(node.kind, RoleKind::Server | RoleKind::Storage) {
        set("protection", "1".to_owned());
    }
    let mut free_keys = BTreeSet::new();
    for (k, v) in shape.config.iter().flatten() {
        let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        // TOML's booleans are Proxmox's digits.
        want.insert(k.clone(), v.as_bool().map_or(text, |b| i32::from(b).to_string()));
        free_keys.insert(k.clone());
    }
    let mapping = (gpus > 0).then(|| mapping_of(site, node)).flatten();
    let card =
        mapping.clone().map(|m| props::compose("hostpci0", [("mapping", Some(m)), ("pcie", Some("1".to_owned()))]));
    Wanted {
        keys: want,
        system_mib: shape.disk_or_default().as_mib(),
        system_options: system_options(node),
        disks: disks(site, node),
        pci: card.into_iter().cycle().take(gpus as usize).collect(),
        mapping,
        gpus,
        storage: shape.disk_storage.clone().unwrap_or_else(|| site.proxmox.storage.clone()),
        tpm: None,
        notes: None,
        free_keys,
    }
}

fn system_options(node: &Node) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    if let Some(c) = &node.shape.cache {
        out.insert("cache".to_owned(), c.clone());
    }
    if let Some(b) = node.shape.backup {
        out.insert("backup".to_owned(), i32::from(b).to_string());
    }
    out
}

fn disks(site: &Site, node: &Node) -> Vec<WantedDisk> {
    let shape = &node.shape;
    let storage = |own: &Option<String>| own.clone().unwrap_or_else(|| site.proxmox.storage.clone());
    let cache = shape.cache.as_ref().map(|c| format!("cache={c},")).unwrap_or_default();
    let common = |backup: u8| format!("{cache}backup={backup},discard=on,iothread=1,ssd=1");
    let mut out = Vec::new();
    if let Some(size) = shape.scratch {
        out.push(WantedDisk {
            slot: "scsi1".to_owned(),
            storage: storage(&shape.scratch_storage),
            gib: size.as_gib_ceil(),
            serial: node.scratch_serial(),
            options: common(0),
            what: "scratch disk".to_owned(),
            data: false,
        });
    }
    if let Some(size) = shape.data {
        out.push(WantedDisk {
            slot: "scsi2".to_owned(),
            storage: storage(&shape.data_storage),
            gib: size.as_gib_ceil(),
            serial: node.data_serial(),
            options: common(1),
            what: "data disk".to_owned(),
            data: true,
        });
    }
    out
}
