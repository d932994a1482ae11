//! What a recipe may add to a node's machine: more cards, disks, PCI devices, any option of Proxmox's own.
use std::collections::BTreeMap;

use rhai::{Array, Dynamic, Map};

use crate::core::error::{OpError, OpResult};
use crate::core::options::OptionValue;
use crate::core::units::Size;
use crate::options;
use crate::site::{Node, Site, derived_mac};
use crate::wire::pve::props;

use super::wanted::{Wanted, WantedDisk};

options! {
    /// How to make a node's machine exist.
    pub struct EnsureVm {
        /// Template to clone from: what `ensure_template` returned, or a VM id; default: the site's template.
        template: Dynamic = Dynamic::UNIT,
        /// Restart a running machine when a change needs it (new cloud-init data too); otherwise such a change is refused, and cloud-init data waits.
        restart: bool = false,
        /// Rewrite the cloud-init drive of a running machine whose data changed, so that a reboot inside the guest takes it over; `restart: true` brings it in at once.
        regenerate: bool = false,
        /// Start the machine when it does not run.
        start: bool = true,
        /// More VM options by Proxmox's own names, for example `#{ numa: 1, startup: "order=2" }`; over the site file's `config`.
        config: BTreeMap<String, String> = BTreeMap::new(),
        /// More network cards: maps with `bridge`, `vlan`, `mac`, `model`, `queues`, `mtu`, `rate`, `firewall`, `ip`, `gateway`.
        networks: Array = Array::new(),
        /// More disks: maps with `name`, `size`, `storage`, `cache`, `backup`.
        disks: Array = Array::new(),
        /// More PCI devices: maps with `mapping` (or `address`, root@pam only), `pcie`, `rombar`, `x_vga`, `mdev`.
        pci: Array = Array::new(),
        /// Give the machine a TPM 2.0 of its own.
        tpm: bool = false,
        /// More tags; those of others stay.
        tags: Vec<String> = Vec::new(),
        /// Notes for people, above the ownership marker.
        notes: Option<String> = None,
    }
}

options! {
    /// One more network card.
    pub struct NetworkOptions {
        /// Bridge; default: the site's.
        bridge: Option<String> = None,
        /// VLAN tag.
        vlan: Option<i64> = None,
        /// MAC address; default: derived from the site's UUID and the VM id.
        mac: Option<String> = None,
        /// Model.
        model: String = "virtio".to_owned(),
        /// Packet queues.
        queues: Option<i64> = None,
        /// MTU; 1 takes the bridge's.
        mtu: Option<i64> = None,
        /// Limit in MB/s.
        rate: Option<i64> = None,
        /// Whether Proxmox's firewall filters it.
        firewall: bool = false,
        /// Address with prefix length, or `dhcp`; without one the card stays unconfigured.
        ip: Option<String> = None,
        /// Gateway.
        gateway: Option<String> = None,
    }
}

options! {
    /// One more disk.
    pub struct DiskOptions {
        /// Name that its serial is made of (`gh-<name>-<vmid>`): the disk is known by it in the guest.
        name: String,
        /// Size.
        size: Size,
        /// Storage; default: the site's.
        storage: Option<String> = None,
        /// Cache mode.
        cache: Option<String> = None,
        /// Whether vzdump backs it up.
        backup: bool = true,
    }
}

options! {
    /// One more PCI device.
    pub struct PciOptions {
        /// PCI resource mapping.
        mapping: Option<String> = None,
        /// Address such as `0000:41:00.0`; only root@pam with a password may set one.
        address: Option<String> = None,
        /// As a PCI Express device (machine q35).
        pcie: bool = true,
        /// Whether the guest sees the option ROM.
        rombar: bool = true,
        /// Primary graphics card of the guest.
        x_vga: bool = false,
        /// Mediated device type.
        mdev: Option<String> = None,
    }
}

/// Keys that have an owner of their own: what to use instead.
pub(super) fn owner_of(key: &str) -> Option<&'static str> {
    let (base, _) = props::numbered(key);
    Some(match base {
        "name" | "vmid" | "ipconfig" => "the node in the site file",
        "net" => "`network` in the site file and the option `networks`",
        "scsi" | "ide" | "sata" | "virtio" | "efidisk" | "unused" => "the node's shape and the option `disks`",
        "tpmstate" => "the option `tpm`",
        "hostpci" => "`gpus` in the site file and the option `pci`",
        "description" => "the option `notes`",
        "tags" => "the option `tags`",
        "sshkeys" | "ciuser" => "`ssh` in the site file",
        "nameserver" | "searchdomain" => "`network` in the site file",
        "cipassword" => "keys: passwords cannot be compared",
        "digest" | "delete" | "revert" | "lock" | "template" | "parent" => "Proxmox itself",
        _ => return None,
    })
}

/// Takes over VM options by Proxmox's own names.
///
/// # Errors
/// `invalid` for a key that something else decides.
pub fn take_config<'a>(want: &mut Wanted, config: impl Iterator<Item = (&'a str, String)>) -> OpResult<()> {
    for (key, value) in config {
        if let Some(owner) = owner_of(key) {
            return Err(OpError::invalid(format!("`{key}` is not set by `config`: it is decided by {owner}")));
        }
        want.keys.insert(key.to_owned(), value);
        want.free_keys.insert(key.to_owned());
    }
    Ok(())
}

fn maps(list: &Array, option: &str) -> OpResult<Vec<Map>> {
    let read = |v| Map::read(v).map_err(|e| OpError::invalid(format!("option `{option}`: {e}")));
    list.iter().map(read).collect()
}

impl EnsureVm {
    /// Adds what the recipe wants to what the site file wants.
    ///
    /// # Errors
    /// `invalid` naming the option at fault.
    pub fn add_to(&self, want: &mut Wanted, site: &Site, node: &Node) -> OpResult<()> {
        take_config(want, self.config.iter().map(|(k, v)| (k.as_str(), v.clone())))?;
        for (i, m) in maps(&self.networks, "networks")?.iter().enumerate() {
            let (card, ip) = network(&NetworkOptions::read(m)?, site, node, i + 1);
            want.keys.insert(format!("net{}", i + 1), card);
            if let Some(ip) = ip {
                want.keys.insert(format!("ipconfig{}", i + 1), ip);
            }
        }
        for (i, m) in maps(&self.disks, "disks")?.iter().enumerate() {
            want.disks.push(disk(&DiskOptions::read(m)?, site, node, i));
        }
        for m in maps(&self.pci, "pci")? {
            want.pci.push(pci(&PciOptions::read(&m)?)?);
            want.keys.insert("machine".to_owned(), "q35".to_owned());
        }
        if self.tpm {
            want.tpm = Some(site.proxmox.storage.clone());
        }
        if let (false, Some(tags)) = (self.tags.is_empty(), want.keys.get_mut("tags")) {
            *tags = format!("{tags};{}", self.tags.join(";"));
        }
        want.notes.clone_from(&self.notes);
        Ok(())
    }
}

fn network(o: &NetworkOptions, site: &Site, node: &Node, i: usize) -> (String, Option<String>) {
    let mac = o.mac.clone().unwrap_or_else(|| derived_mac(&format!("{}/{i}", site.uuid), node.vmid));
    let number = |n: Option<i64>| n.map(|n| n.to_string());
    let card = props::compose(
        "net1",
        [
            ("model", Some(o.model.clone())),
            ("macaddr", Some(mac)),
            ("bridge", Some(o.bridge.clone().unwrap_or_else(|| site.network.bridge.clone()))),
            ("tag", number(o.vlan)),
            ("queues", number(o.queues)),
            ("mtu", number(o.mtu)),
            ("rate", number(o.rate)),
            ("firewall", o.firewall.then(|| "1".to_owned())),
        ],
    );
    let ip = o.ip.as_ref().map(|ip| props::compose("ipconfig1", [("ip", Some(ip.clone())), ("gw", o.gateway.clone())]));
    (card, ip)
}

fn disk(o: &DiskOptions, site: &Site, node: &Node, i: usize) -> WantedDisk {
    let cache = o.cache.as_ref().map(|c| format!("cache={c},")).unwrap_or_default();
    WantedDisk {
        slot: format!("scsi{}", i + 3),
        storage: o.storage.clone().unwrap_or_else(|| site.proxmox.storage.clone()),
        gib: o.size.as_gib_ceil(),
        serial: format!("gh-{}-{}", o.name, node.vmid),
        options: format!("{cache}backup={},discard=on,iothread=1,ssd=1", i32::from(o.backup)),
        what: format!("disk {}", o.name),
        data: false,
    }
}

fn pci(o: &PciOptions) -> OpResult<String> {
    if o.mapping.is_some() == o.address.is_some() {
        return Err(OpError::invalid("option `pci`: give either `mapping` or `address`"));
    }
    let on = |b: bool, v: &str| b.then(|| v.to_owned());
    Ok(props::compose(
        "hostpci0",
        [
            ("mapping", o.mapping.clone()),
            ("host", o.address.clone()),
            ("pcie", on(o.pcie, "1")),
            ("rombar", on(!o.rombar, "0")),
            ("x-vga", on(o.x_vga, "1")),
            ("mdev", o.mdev.clone()),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::wanted::wanted;

    fn site() -> Site {
        let text = include_str!("../../../recipes/site.toml");
        crate::site::load(std::path::Path::new("site.toml"), text).unwrap()
    }

    fn read(script: &str) -> OpResult<Wanted> {
        let mut engine = rhai::Engine::new();
        engine.register_fn("gib", |n: i64| Size::gib(n.unsigned_abs()));
        let map: Map = engine.eval(script).unwrap();
        let (site, o) = (site(), EnsureVm::read(&map)?);
        let node = site.nodes[0].clone();
        let mut want = wanted(&site, &node, &[]);
        o.add_to(&mut want, &site, &node)?;
        Ok(want)
    }

    #[test]
    fn a_recipe_adds_cards_disks_and_devices() {
        let w = read(
            r#"#{ config: #{ numa: 1, startup: "order=2" }, tpm: true, tags: ["red"], notes: "rack 4",
                networks: [#{ vlan: 20, mac: "BC:24:11:00:00:99", ip: "10.1.0.5/24" }],
                disks: [#{ name: "fast", size: gib(100), storage: "nvme", backup: false }],
                pci: [#{ mapping: "nic", rombar: false }] }"#,
        )
        .unwrap();
        assert_eq!(w.keys["net1"], "virtio=BC:24:11:00:00:99,bridge=vmbr0,tag=20");
        assert_eq!((w.keys["ipconfig1"].as_str(), w.keys["numa"].as_str()), ("ip=10.1.0.5/24", "1"));
        assert!(w.keys["tags"].ends_with(";red"), "{}", w.keys["tags"]);
        let d = w.disks.last().unwrap();
        assert_eq!((d.slot.as_str(), d.storage.as_str(), d.serial.as_str()), ("scsi3", "nvme", "gh-fast-201"));
        assert_eq!(w.pci, ["mapping=nic,pcie=1,rombar=0"]);
        assert_eq!((w.tpm.as_deref(), w.notes.as_deref()), (Some("local-zfs"), Some("rack 4")));
    }

    #[test]
    fn what_has_an_owner_is_not_set_by_config() {
        for (script, says) in [
            ("#{ config: #{ scsi1: \"x:1\" } }", "`disks`"),
            ("#{ config: #{ hostpci0: \"01:00\" } }", "`pci`"),
            ("#{ config: #{ description: \"x\" } }", "`notes`"),
            ("#{ pci: [#{ mapping: \"a\", address: \"01:00.0\" }] }", "either"),
            ("#{ networks: [#{ bridg: \"a\" }] }", "bridg"),
        ] {
            let e = read(script).unwrap_err();
            assert!(e.message.contains(says), "{script}: {}", e.message);
        }
    }
}
