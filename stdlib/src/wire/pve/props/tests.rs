use super::*;

#[test]
fn prints_in_the_servers_order() {
    for (key, text, printed) in [
        ("scsi0", "local-zfs:vm-1-disk-0,size=10.5G,ssd=yes", "local-zfs:vm-1-disk-0,size=10752M,ssd=1"),
        (
            "net0",
            "model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0,tag=10",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=10",
        ),
        ("hostpci0", "pcie=1,mapping=gpu0", "mapping=gpu0,pcie=1"),
        ("ipconfig0", "ip=dhcp,gw=10.0.0.1", "gw=10.0.0.1,ip=dhcp"),
        ("agent", "enabled=1,freeze-fs-on-backup=0", "1,freeze-fs=0"),
    ] {
        assert_eq!(print(key, &parse(key, text).unwrap()), printed);
    }
}

#[test]
fn sizes_print_with_the_largest_unit() {
    for (n, text) in [(540_672, "528K"), (1 << 40, "1T"), (107_374_182_400, "100G"), (10, "10"), (0, "0")] {
        assert_eq!(print_disk_size(n), text);
    }
}

#[test]
fn new_disks_are_told_from_volumes() {
    assert_eq!(new_disk("local-zfs:32"), Some(("local-zfs", 32.0)));
    assert_eq!(new_disk("local:0.5"), Some(("local", 0.5)));
    assert_eq!(new_disk("local-zfs:vm-1-disk-0"), None);
    assert_eq!(new_disk("local:iso/x.iso"), None);
}

/// Verdicts and printed forms of the real server, where its recordings are at hand.
#[test]
fn agrees_with_the_recorded_server() {
    let dirs = ["/../../shared", "/../../../shared"].map(|d| format!("{}{d}", env!("CARGO_MANIFEST_DIR")));
    let mut texts = dirs.iter().map(|d| std::fs::read_to_string(format!("{d}/data/pve/config-strings.jsonl")));
    let Some(text) = texts.find_map(Result::ok) else {
        eprintln!("skipped: no recorded config strings beside the workspace");
        return;
    };
    let mut wrong = Vec::new();
    for line in text.lines() {
        let d: serde_json::Value = serde_json::from_str(line).unwrap();
        let (k, v) = (d["k"].as_str().unwrap(), d["v"].as_str().unwrap());
        let want = d["create"]["errors"][k].as_str();
        let got = check(k, v).err();
        if got.as_deref() != want {
            wrong.push(format!("{k}={v}: {got:?} instead of {want:?}"));
        }
        if let (Some(p), Some(f)) = (d["print"].as_str(), format_of(k)) {
            let printed = f.parse(v, "").map(|x| f.print(&x)).unwrap_or_else(|e| e);
            if printed != p {
                wrong.push(format!("{k}={v}: prints {printed} instead of {p}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
