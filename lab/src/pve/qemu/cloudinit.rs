//! Cloud-init: the generated drive, its pending changes, and the dumps.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::conf;
use crate::pve::params::{e, req, unescape};
use crate::pve::reply::{Reply, data, null};
use crate::pve::router::Call;
use crate::world::World;

fn relevant(key: &str) -> bool {
    let own = ["cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"];
    own.contains(&key) || matches!(props::numbered(key), ("ipconfig", Some(_)))
}

/// The config keys that decide what the drive holds.
fn inputs(c: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let keep = |k: &str| relevant(k) || k == "name" || matches!(props::numbered(k), ("net", Some(_)));
    c.iter().filter(|(k, _)| keep(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Writes the cloud-init drive anew.
pub fn generate(w: &mut World, vmid: u32) {
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.ci_drive = inputs(&vm.conf);
    }
}

/// Volumes that `cicustom` names.
#[must_use]
pub fn custom_files(c: &BTreeMap<String, String>) -> Vec<String> {
    c.get("cicustom").map(|v| props::read("cicustom", v).into_values().collect()).unwrap_or_default()
}

/// The drive carries other values than the config has; `None` is none at all.
pub fn carry(w: &mut World, vmid: u32, other: &BTreeMap<String, Option<String>>) {
    let Some(vm) = w.pve.vms.get_mut(&vmid) else { return };
    for (key, value) in other {
        match value {
            Some(v) => drop(vm.ci_drive.insert(key.clone(), v.clone())),
            None => drop(vm.ci_drive.remove(key)),
        }
    }
}

/// Handles `cloudinit` and `cloudinit/dump`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, vmid: u32, dump: bool) -> Reply {
    let who = c.who()?;
    let privs = if method == "PUT" { "VM.Config.Cloudinit" } else { "VM.Audit" };
    w.pve.need(who, &format!("/vms/{vmid}"), privs)?;
    let vm = super::vm(w, node, vmid)?;
    if dump {
        c.params.check(&[req(e("type", &["user", "network", "meta"]))])?;
        let inputs = inputs(&conf::wanted(vm));
        return data(match c.params.text("type").as_str() {
            "user" => user_data(&inputs),
            "network" => network(&inputs),
            _ => format!("instance-id: {}\n", instance_id(&inputs)),
        });
    }
    c.params.check(&[])?;
    if method == "PUT" {
        generate(w, vmid);
        super::boot::refresh_cloud_init(w, vmid);
        return null();
    }
    let drive = &vm.ci_drive;
    let now = conf::wanted(vm);
    let mut rows = Vec::new();
    // What is new on the drive has no value yet; addresses are listed only when they have changed.
    for (k, v) in now.iter().filter(|(k, _)| relevant(k)) {
        let mut row = json!({ "key": k });
        match drive.get(k) {
            Some(old) if old != v => {
                row["value"] = conf::typed(k, old);
                row["pending"] = conf::typed(k, v);
            }
            None if !drive.is_empty() => row["pending"] = conf::typed(k, v),
            _ if k.starts_with("ipconfig") => continue,
            _ => row["value"] = conf::typed(k, v),
        }
        rows.push(row);
    }
    for (k, _) in drive.iter().filter(|(k, _)| relevant(k) && !now.contains_key(*k)) {
        rows.push(json!({ "key": k, "delete": 1 }));
    }
    data(Value::Array(rows))
}

fn user_data(c: &BTreeMap<String, String>) -> String {
    let get = |k: &str| c.get(k).filter(|v| !v.is_empty());
    let name = get("name").cloned().unwrap_or_else(|| "VM".into());
    let host = name.split('.').next().unwrap_or(&name);
    let mut t = format!("#cloud-config\nhostname: {host}\nmanage_etc_hosts: true\n");
    if let Some(d) = get("searchdomain") {
        t.push_str(&format!("fqdn: {host}.{}\n", d.split([' ', ',']).next().unwrap_or(d)));
    } else if name.contains('.') {
        t.push_str(&format!("fqdn: {name}\n"));
    }
    if let Some(u) = get("ciuser") {
        t.push_str(&format!("user: {u}\n"));
    }
    if let Some(p) = get("cipassword") {
        t.push_str(&format!("password: {p}\n"));
    }
    if let Some(k) = get("sshkeys") {
        t.push_str("ssh_authorized_keys:\n");
        for line in unescape(k, false).lines().filter(|l| !l.trim().is_empty()) {
            t.push_str(&format!("  - {}\n", line.trim()));
        }
    }
    t.push_str("chpasswd:\n  expire: False\nusers:\n  - default\n");
    if c.get("ciupgrade").is_none_or(|v| v != "0") {
        t.push_str("package_upgrade: true\n");
    }
    t
}

fn netmask(prefix: u8) -> String {
    let bits = if prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(prefix.min(32))) };
    std::net::Ipv4Addr::from(bits).to_string()
}

fn network(c: &BTreeMap<String, String>) -> String {
    let mut t = "version: 1\nconfig:\n".to_owned();
    let mut nets: Vec<(u32, &String)> = c
        .iter()
        .filter_map(|(k, v)| match props::numbered(k) {
            ("net", Some(n)) => Some((n, v)),
            _ => None,
        })
        .collect();
    nets.sort();
    for (n, v) in nets {
        let mac = props::read("net0", v).get("macaddr").map(|m| m.to_ascii_lowercase()).unwrap_or_default();
        t.push_str(&format!("    - type: physical\n      name: eth{n}\n      mac_address: '{mac}'\n"));
        let Some(ip) = c.get(&format!("ipconfig{n}")).map(|v| props::read("ipconfig0", v)) else { continue };
        match ip.get("ip").map(|a| a.split_once('/').ok_or(a)) {
            Some(Ok((a, len))) => {
                let mask = netmask(len.parse().unwrap_or(24));
                t.push_str(&format!("      subnets:\n      - type: static\n        address: '{a}'\n"));
                t.push_str(&format!("        netmask: '{mask}'\n"));
                if let Some(gw) = ip.get("gw") {
                    t.push_str(&format!("        gateway: '{gw}'\n"));
                }
            }
            Some(Err(_)) => t.push_str("      subnets:\n      - type: dhcp4\n"),
            None => {}
        }
    }
    let split = |k: &str| {
        let v = c.get(k).cloned().unwrap_or_default();
        v.split([' ', ',', ';']).filter(|s| !s.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (dns, search) = (split("nameserver"), split("searchdomain"));
    if !dns.is_empty() || !search.is_empty() {
        t.push_str("    - type: nameserver\n      address:\n");
        for d in dns {
            t.push_str(&format!("      - '{d}'\n"));
        }
        t.push_str("      search:\n");
        for d in search {
            t.push_str(&format!("      - '{d}'\n"));
        }
    }
    t
}

/// Identity of the instance: SHA-1 over user and network data, so that a changed key or address runs
/// cloud-init again.
#[must_use]
pub fn instance_id(c: &BTreeMap<String, String>) -> String {
    let sum = Sha1::digest(format!("{}{}", user_data(c), network(c)));
    sum.iter().map(|b| format!("{b:02x}")).collect()
}
