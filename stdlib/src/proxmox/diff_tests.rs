//! Table tests of the comparison.
use std::path::Path;

use serde_json::json;

use super::super::request::At;
use super::super::wanted::{Wanted, wanted};
use super::*;
use crate::site;

const SITE: &str = include_str!("../../../recipes/site.toml");

fn want(node: &str) -> Wanted {
    let s = site::load(Path::new("recipes/site.toml"), SITE).unwrap();
    let n = s.node(node).unwrap();
    wanted(&s, &n, &["ssh-ed25519 AAAA+/= op@lab".to_owned()])
}

/// The machine as Proxmox prints it back after everything was written.
fn printed(w: &Wanted) -> Machine {
    let mut config: Map<String, Value> = w.keys.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    config.insert("cores".to_owned(), w.keys["cores"].parse::<i64>().unwrap().into());
    config.insert("onboot".to_owned(), 1.into());
    config.insert("ciupgrade".to_owned(), 0.into());
    config.insert("description".to_owned(), "mine".into());
    config.insert(
        "scsi0".to_owned(),
        format!("zfs:vm-1-disk-1,discard=on,iothread=1,size={}M,ssd=1", w.system_mib).into(),
    );
    config.insert("ide2".to_owned(), "zfs:vm-1-cloudinit,media=cdrom,size=4M".into());
    for d in &w.disks {
        let text = format!("zfs:vm-1-disk-{},{},serial={},size={}G", d.slot, d.options, d.serial, d.gib);
        config.insert(d.slot.to_owned(), text.into());
    }
    for i in 0..w.gpus {
        config.insert(format!("hostpci{i}"), "mapping=gpuhost-a100,pcie=1".into());
    }
    Machine { at: At::new("pve1", 211), pool: None, config }
}

fn set(m: &mut Machine, key: &str, v: Value) {
    m.config.insert(key.to_owned(), v);
}

#[test]
fn a_second_look_finds_nothing_to_do() {
    for node in ["k3s-cp1", "k3s-gpu1", "nfs1"] {
        let w = want(node);
        let d = diff(node, &w, "mine", &printed(&w)).unwrap();
        assert!(d.is_empty(), "{node}: {:?}", d.changes);
    }
}

#[test]
fn a_clone_without_a_cloud_init_drive_gets_one() {
    let w = want("k3s-cp1");
    let mut m = printed(&w);
    m.config.remove("ide2");
    let d = diff("k3s-cp1", &w, "mine", &m).unwrap();
    assert_eq!(d.make["ide2"], "local-zfs:cloudinit");
    set(&mut m, "ide2", "local:iso/x.iso,media=cdrom".into());
    assert!(diff("k3s-cp1", &w, "mine", &m).unwrap_err().message.contains("ide2"));
}

#[test]
fn proxmox_spellings_are_no_differences() {
    let w = want("k3s-gpu1");
    let mut m = printed(&w);
    let mac = w.keys["net0"].split(',').next().unwrap().trim_start_matches("virtio=").to_owned();
    set(&mut m, "net0", format!("bridge=vmbr0,firewall=1,virtio={}", mac.to_lowercase()).into());
    set(&mut m, "agent", "fstrim_cloned_disks=1,enabled=1".into());
    set(&mut m, "machine", "pc-q35-9.0".into());
    set(&mut m, "memory", "current=131072".into());
    set(&mut m, "tags", "gpu-worker;gpuhost;mine".into());
    set(&mut m, "cpu", "cputype=host".into());
    set(&mut m, "sshkeys", format!("{}%0A", w.keys["sshkeys"]).into());
    let d = diff("n", &w, "mine", &m).unwrap();
    assert!(d.is_empty(), "{:?}", d.changes);
}

#[test]
fn every_difference_is_found_and_its_cost_told() {
    let w = want("k3s-gpu1");
    let base = printed(&w);
    let table: Vec<(&str, Value, &str, bool)> = vec![
        ("cores", 8.into(), "cores", true),
        ("memory", "65536".into(), "memory", true),
        ("onboot", 0.into(), "onboot", false),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0".into(), "net0", false),
        ("net0", format!("{},tag=7", w.keys["net0"]).into(), "net0", false),
        ("hostpci1", Value::Null, "hostpci1", true),
        ("hostpci1", "mapping=other,pcie=1".into(), "hostpci1", true),
        ("hostpci2", "mapping=gpuhost-a100,pcie=1".into(), "hostpci2", true),
        ("scsi1", Value::Null, "scratch disk", false),
        ("ciuser", "root".into(), "ciuser", false),
    ];
    for (key, value, what, restart) in table {
        let mut m = base.clone();
        match value {
            Value::Null => {
                m.config.remove(key);
            }
            v => set(&mut m, key, v),
        }
        let d = diff("n", &w, "mine", &m).unwrap();
        let found: Vec<_> = d.changes.iter().map(|c| c.what.as_str()).collect();
        assert_eq!(found, [what], "{key}");
        assert_eq!(!d.restart.is_empty(), restart, "{key}");
    }
}

#[test]
fn disks_grow_but_never_shrink() {
    let w = want("k3s-cp1");
    let mut m = printed(&w);
    set(&mut m, "scsi0", "zfs:vm-1-disk-1,size=3G".into());
    assert_eq!(diff("n", &w, "mine", &m).unwrap().grow, [("scsi0".to_owned(), 102_400)]);
    set(&mut m, "scsi0", "zfs:vm-1-disk-1,size=200G".into());
    let e = diff("n", &w, "mine", &m).unwrap_err();
    assert!(e.message.contains("cannot shrink"), "{}", e.message);
}

#[test]
fn a_disk_is_known_by_its_serial_and_a_strange_one_is_not_taken() {
    let w = want("nfs1");
    let mut m = printed(&w);
    let data = m.config.remove("scsi2").unwrap();
    set(&mut m, "scsi5", data);
    assert!(diff("n", &w, "mine", &m).unwrap().is_empty());
    m.config.remove("scsi5");
    set(&mut m, "scsi2", "zfs:vm-1-disk-9,size=5G".into());
    assert!(diff("n", &w, "mine", &m).is_err());
}

#[test]
fn the_users_other_devices_stay() {
    let w = want("k3s-gpu1");
    let mut m = printed(&w);
    set(&mut m, "hostpci4", "mapping=nic,pcie=1".into());
    assert!(diff("n", &w, "mine", &m).unwrap().is_empty());
    let w = want("k3s-cp1");
    let mut m = printed(&w);
    set(&mut m, "hostpci0", "0000:05:00.0".into());
    assert!(diff("n", &w, "mine", &m).unwrap().is_empty());
}

#[test]
fn pending_changes_are_named() {
    let p = json!([{"key":"cores","value":4,"pending":8},{"key":"name","value":"a"},
        {"key":"hostpci1","value":"x","delete":1},{"key":"ciuser","value":"a","pending":"b"}]);
    assert_eq!(waiting_changes(&p), ["cores", "hostpci1"]);
}
