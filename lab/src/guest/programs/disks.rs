//! Disks: `lsblk`, `blkid`, `wipefs`, `mkfs.ext4`, `mkfs.xfs`.
use serde_json::{Map, Value, json};

use super::{Call, Program, now, of};
use crate::guest::hw::{Block, blocks, find_block};
use crate::volume::Content;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/lsblk", lsblk),
    now("/usr/sbin/blkid", blkid),
    now("/usr/sbin/wipefs", wipefs),
    now("/usr/sbin/mkfs.ext4", mkfs),
    now("/usr/sbin/mkfs", mkfs),
    now("/usr/sbin/mke2fs", mkfs),
    of("xfsprogs", now("/usr/sbin/mkfs.xfs", mkfs)),
    now("/usr/sbin/blockdev", blockdev),
    now("/usr/sbin/e2label", label),
    now("/usr/sbin/e2fsck", |c| c.unsimulated("")),
    now("/usr/sbin/fsck", |c| c.unsimulated("")),
    now("/usr/sbin/fdisk", |c| c.unsimulated("")),
    now("/usr/sbin/sfdisk", |c| c.unsimulated("")),
    now("/usr/sbin/parted", |c| c.unsimulated("")),
    now("/usr/sbin/partprobe", |_| 0),
    now("/usr/sbin/fstrim", |_| 0),
];

pub(super) fn device(c: &Call, name: &str) -> Option<Block> {
    let path = c.path(name);
    let real = c.m.files.resolve(&path, true).unwrap_or(path);
    let vmid = c.m.vmid;
    c.world(|w| {
        let g = w.guests.get(&vmid)?;
        find_block(w, g, &real)
    })
}

pub(super) fn all(c: &Call) -> Vec<Block> {
    let vmid = c.m.vmid;
    c.world(|w| w.guests.get(&vmid).map(|g| blocks(w, g)).unwrap_or_default())
}

fn human(b: u64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let (mut v, mut i) = (b as f64, 0);
    while v >= 1024.0 && i < 4 {
        v /= 1024.0;
        i += 1;
    }
    let t = format!("{v:.1}");
    format!("{}{}", t.strip_suffix(".0").unwrap_or(&t), units[i])
}

fn cell(b: &Block, column: &str, bytes: bool) -> Value {
    let text = |s: &str| if s.is_empty() { Value::Null } else { json!(s) };
    match column {
        "name" | "kname" => json!(b.name),
        "path" => json!(b.path()),
        "maj:min" => {
            let disk = u32::from(b.name.as_bytes().get(2).copied().unwrap_or(b'a') - b'a') * 16;
            json!(format!("8:{}", disk + b.name.get(3..).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0)))
        }
        "rm" | "ro" | "rota" => {
            if column == "rota" {
                json!(true)
            } else {
                json!(false)
            }
        }
        "size" if bytes => json!(b.size),
        "size" => json!(human(b.size)),
        "fssize" if b.mounted.is_empty() => Value::Null,
        "fssize" if bytes => json!(b.fs_size),
        "fssize" => json!(human(b.fs_size)),
        "type" => json!(if b.disk.is_empty() { "disk" } else { "part" }),
        "mountpoint" => b.mounted.first().map_or(Value::Null, |m| json!(m)),
        "mountpoints" => {
            if b.mounted.is_empty() {
                json!([null])
            } else {
                json!(b.mounted)
            }
        }
        "fstype" => text(&b.fstype),
        "label" => text(&b.label),
        "uuid" => text(&b.uuid),
        "serial" => {
            if b.disk.is_empty() {
                text(&b.serial)
            } else {
                Value::Null
            }
        }
        "model" => {
            if b.disk.is_empty() {
                json!("QEMU HARDDISK")
            } else {
                Value::Null
            }
        }
        "vendor" => {
            if b.disk.is_empty() {
                json!("QEMU    ")
            } else {
                Value::Null
            }
        }
        "pkname" => text(&b.disk),
        "pttype" => {
            if b.table || !b.disk.is_empty() {
                json!("gpt")
            } else {
                Value::Null
            }
        }
        "tran" => Value::Null,
        "fsver" => {
            if b.fstype == "ext4" {
                json!("1.0")
            } else {
                Value::Null
            }
        }
        "hotplug" => json!(false),
        _ => Value::Null,
    }
}

/// A cell, with what only the mounted file system knows.
fn shown(c: &Call, b: &Block, column: &str, bytes: bool) -> Value {
    if !matches!(column, "fsavail" | "fsuse%" | "fsused") {
        return cell(b, column, bytes);
    }
    let Some(r) = b.mounted.first().and_then(|m| super::system::row_of(c, m)) else { return Value::Null };
    let size = |n: u64| if bytes { json!(n) } else { json!(human(n)) };
    match column {
        "fsavail" => size(r.size.saturating_sub(r.used)),
        "fsused" => size(r.used),
        _ => json!(format!("{}%", if r.size == 0 { 0 } else { (r.used * 100).div_ceil(r.size) })),
    }
}

fn lsblk(c: &mut Call) -> i32 {
    let flags = c.letters();
    let bytes = flags.contains('b') || c.has(&["--bytes"]);
    let json_out = flags.contains('J') || c.has(&["--json"]);
    let only_disks = flags.contains('d') || c.has(&["--nodeps"]);
    let raw = flags.contains('r') || c.has(&["--raw"]);
    let pairs = flags.contains('P') || c.has(&["--pairs"]);
    let headless = flags.contains('n') || c.has(&["--noheadings"]);
    let mut columns: Vec<String> =
        vec!["name", "maj:min", "rm", "size", "ro", "type", "mountpoints"].into_iter().map(str::to_owned).collect();
    if flags.contains('f') || c.has(&["--fs"]) {
        let with_use = ["name", "fstype", "fsver", "label", "uuid", "fsavail", "fsuse%", "mountpoints"];
        columns = with_use.map(str::to_owned).to_vec();
    }
    let given = c
        .args
        .iter()
        .position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('o'))
        .and_then(|i| c.args.get(i + 1).cloned());
    let given = given
        .or_else(|| c.args.iter().find_map(|a| a.strip_prefix("--output=")).map(str::to_owned))
        .or_else(|| c.value(&["--output"]));
    if let Some(o) = &given {
        columns = o.trim_start_matches('+').split(',').map(str::to_lowercase).collect();
    }
    let mut skip = vec!["-o", "--output", "-e", "-I", "-x", "--exclude"];
    let joined: Vec<String> =
        c.args.iter().filter(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('o')).cloned().collect();
    skip.extend(joined.iter().map(String::as_str));
    let names = c.operands(&skip);
    let list = all(c);
    let mut roots: Vec<Block> = list.iter().filter(|b| b.disk.is_empty()).cloned().collect();
    if !names.is_empty() {
        roots.clear();
        for n in &names {
            match device(c, n) {
                Some(b) => roots.push(b),
                None => {
                    let text = format!("lsblk: {n}: not a block device");
                    return c.fail(32, &text);
                }
            }
        }
    }
    if json_out {
        let row =
            |b: &Block| columns.iter().map(|k| (k.clone(), shown(c, b, k, bytes))).collect::<Map<String, Value>>();
        let devices: Vec<Value> = roots
            .iter()
            .map(|b| {
                let mut r = row(b);
                let parts: Vec<Value> =
                    list.iter().filter(|p| p.disk == b.name).map(|p| Value::Object(row(p))).collect();
                if !only_disks && !parts.is_empty() {
                    r.insert("children".into(), json!(parts));
                }
                Value::Object(r)
            })
            .collect();
        let text = serde_json::to_string_pretty(&json!({"blockdevices": devices})).unwrap_or_default();
        c.line(&text);
        return 0;
    }
    let plain = |v: Value| match v {
        Value::String(s) => s,
        Value::Bool(b) => u8::from(b).to_string(),
        Value::Number(n) => n.to_string(),
        Value::Array(a) => a.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let mut table: Vec<Vec<String>> = Vec::new();
    if !headless && !pairs {
        table.push(columns.iter().map(|k| k.to_uppercase()).collect());
    }
    for b in &roots {
        table.push(columns.iter().map(|k| plain(shown(c, b, k, bytes))).collect());
        if only_disks {
            continue;
        }
        let parts: Vec<&Block> = list.iter().filter(|p| p.disk == b.name).collect();
        for (i, p) in parts.iter().enumerate() {
            let mut row: Vec<String> = columns.iter().map(|k| plain(shown(c, p, k, bytes))).collect();
            if columns[0] == "name" && !raw && !pairs && !flags.contains('l') {
                row[0] = format!("{}{}", if i + 1 == parts.len() { "└─" } else { "├─" }, row[0]);
            }
            table.push(row);
        }
    }
    let widths: Vec<usize> =
        (0..columns.len()).map(|i| table.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    for r in table {
        let line = if pairs {
            columns.iter().zip(&r).map(|(k, v)| format!("{}=\"{v}\"", k.to_uppercase())).collect::<Vec<_>>().join(" ")
        } else if raw {
            r.join(" ")
        } else {
            r.iter()
                .zip(&widths)
                .map(|(v, w)| format!("{v}{}", " ".repeat(w - v.chars().count())))
                .collect::<Vec<_>>()
                .join(" ")
        };
        c.line(line.trim_end());
    }
    0
}

fn blkid(c: &mut Call) -> i32 {
    let names = c.operands(&["-o", "-s", "-L", "-U", "-t", "--output", "--match-tag"]);
    let output = c.value(&["-o", "--output"]).unwrap_or_default();
    let tag = c.value(&["-s", "--match-tag"]);
    if let Some(l) = c.value(&["-L", "--label"]) {
        return found(c, &format!("LABEL={l}"));
    }
    if let Some(u) = c.value(&["-U", "--uuid"]) {
        return found(c, &format!("UUID={u}"));
    }
    if c.who.uid != 0 && !names.is_empty() {
        return 2;
    }
    let mut list = Vec::new();
    for n in &names {
        match device(c, n) {
            Some(b) => list.push(b),
            None => return 2,
        }
    }
    if names.is_empty() {
        list = all(c);
        if let Some(t) = c.value(&["-t"]) {
            let vmid = c.m.vmid;
            let hit = c.world(|w| w.guests.get(&vmid).and_then(|g| find_block(w, g, &t)));
            list.retain(|b| hit.as_ref().is_some_and(|h| h.name == b.name));
        }
    }
    let mut code = 2;
    for b in list {
        let mut tags: Vec<(&str, String)> = Vec::new();
        if !b.label.is_empty() {
            tags.push(("LABEL", b.label.clone()));
        }
        if !b.uuid.is_empty() {
            tags.push(("UUID", b.uuid.clone()));
        }
        if !b.fstype.is_empty() {
            if b.fstype == "ext4" {
                tags.push(("BLOCK_SIZE", "4096".into()));
            }
            tags.push(("TYPE", b.fstype.clone()));
        }
        if b.table {
            tags.push(("PTTYPE", "gpt".into()));
        }
        if tags.is_empty() {
            continue;
        }
        tags.retain(|(k, _)| tag.as_ref().is_none_or(|t| t == k));
        if tags.is_empty() {
            continue;
        }
        code = 0;
        match output.as_str() {
            "value" => {
                for (_, v) in tags {
                    c.line(&v);
                }
            }
            "export" => {
                c.line(&format!("DEVNAME={}", b.path()));
                for (k, v) in tags {
                    c.line(&format!("{k}={v}"));
                }
            }
            "device" => c.line(&b.path()),
            _ => {
                let t: Vec<String> = tags.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
                c.line(&format!("{}: {}", b.path(), t.join(" ")));
            }
        }
    }
    code
}

fn found(c: &mut Call, what: &str) -> i32 {
    let vmid = c.m.vmid;
    match c.world(|w| w.guests.get(&vmid).and_then(|g| find_block(w, g, what))) {
        Some(b) => {
            c.line(&b.path());
            0
        }
        None => 2,
    }
}

fn wipefs(c: &mut Call) -> i32 {
    let Some(name) = c.operands(&["-t", "-o", "--types", "--output"]).first().cloned() else {
        return c.fail(1, "wipefs: no device specified");
    };
    let Some(b) = device(c, &name) else {
        let text = format!("wipefs: error: {name}: probing initialization failed: No such file or directory");
        return c.fail(1, &text);
    };
    if c.who.uid != 0 {
        let text = format!("wipefs: error: {name}: probing initialization failed: Permission denied");
        return c.fail(1, &text);
    }
    let flags = c.letters();
    let erase = (flags.contains('a') || c.has(&["--all"])) && !flags.contains('n') && !c.has(&["--no-act"]);
    if erase {
        if b.volid == c.guest(|g| g.system.clone()).unwrap_or_default()
            || (!b.mounted.is_empty() && !flags.contains('f'))
        {
            let text = format!("wipefs: error: {}: probing initialization failed: Device or resource busy", b.path());
            return c.fail(1, &text);
        }
        c.world(|w| {
            if let Some(v) = w.volumes.get_mut(&b.volid) {
                v.content = Content::Blank;
            }
        });
        return 0;
    }
    let mut rows = Vec::new();
    if b.table {
        rows.push(("0x200", "gpt", String::new(), String::new()));
    }
    if !b.fstype.is_empty() {
        rows.push((
            if b.fstype == "ext4" { "0x438" } else { "0x0" },
            b.fstype.as_str(),
            b.uuid.clone(),
            b.label.clone(),
        ));
    }
    if c.has(&["-J", "--json"]) {
        let list: Vec<Value> = rows
            .iter()
            .map(|r| json!({"device": b.name, "offset": r.0, "type": r.1, "uuid": r.2, "label": r.3}))
            .collect();
        c.line(&json!({"signatures": list}).to_string());
        return 0;
    }
    if !rows.is_empty() {
        if !flags.contains('i') && !c.has(&["--noheadings"]) && !c.has(&["-p", "--parsable"]) {
            c.line("DEVICE OFFSET TYPE UUID                                 LABEL");
        }
        for r in rows {
            c.line(&format!("{:<6} {:<6} {:<4} {:<36} {}", b.name, r.0, r.1, r.2, r.3));
        }
    }
    0
}

fn mkfs(c: &mut Call) -> i32 {
    let name = c.name.clone();
    let fs = match name.as_str() {
        "mkfs.xfs" => "xfs".to_owned(),
        "mkfs.ext4" => "ext4".to_owned(),
        _ => c.value(&["-t", "--type"]).unwrap_or_else(|| "ext2".into()),
    };
    if fs != "ext4" && fs != "xfs" {
        return c.unsimulated(&format!("-t {fs}"));
    }
    let ops = c.operands(&[
        "-L", "-U", "-m", "-E", "-O", "-T", "-t", "-b", "-i", "-N", "-d", "-l", "-n", "-s", "-J", "-I", "--type",
    ]);
    let Some(dev) = ops.first().cloned() else { return c.fail(1, &format!("Usage: {name} [options] device")) };
    let Some(b) = device(c, &dev) else {
        let text = if fs == "xfs" {
            format!("{dev}: No such file or directory")
        } else {
            format!("mke2fs 1.47.0 (5-Feb-2023)\nThe file {dev} does not exist and no size was specified.")
        };
        return c.fail(1, &text);
    };
    if c.who.uid != 0 {
        let text =
            format!("mke2fs 1.47.0 (5-Feb-2023)\n{dev}: Permission denied while determining whether device is in use");
        return c.fail(1, &text);
    }
    let force = c.has(if fs == "xfs" { &["-f"][..] } else { &["-F"][..] });
    let system = c.guest(|g| g.system.clone()).unwrap_or_default();
    if b.volid == system || !b.mounted.is_empty() {
        let text = if fs == "xfs" {
            format!("mkfs.xfs: {} contains a mounted filesystem", b.path())
        } else {
            format!(
                "mke2fs 1.47.0 (5-Feb-2023)\n{} is {}; will not make a filesystem here!",
                b.path(),
                if b.mounted.is_empty() { "apparently in use by the system" } else { "mounted" }
            )
        };
        return c.fail(1, &text);
    }
    if (!b.fstype.is_empty() || b.table) && !force {
        let what = if b.table {
            "a gpt partition table".to_owned()
        } else {
            format!(
                "a {} file system{}",
                b.fstype,
                if b.label.is_empty() { String::new() } else { format!(" labelled '{}'", b.label) }
            )
        };
        let text = if fs == "xfs" {
            format!(
                "mkfs.xfs: {} appears to contain an existing filesystem ({}).\nmkfs.xfs: Use the -f option to force overwrite.",
                b.path(),
                b.fstype
            )
        } else {
            format!("mke2fs 1.47.0 (5-Feb-2023)\n{} contains {what}\nProceed anyway? (y,N) ", b.path())
        };
        return c.fail(1, &text);
    }
    let label = c.value(&["-L"]).unwrap_or_default();
    let limit = if fs == "xfs" { 12 } else { 16 };
    if label.len() > limit {
        if fs == "xfs" {
            return c.fail(1, "mkfs.xfs: invalid -L label: too long");
        }
        c.complain(&format!("Warning: label too long; will be truncated to '{}'", &label[..limit]));
    }
    let label: String = label.chars().take(limit).collect();
    let uuid = c.world(|w| {
        let uuid = w.uuid();
        if let Some(v) = w.volumes.get_mut(&b.volid) {
            v.content = Content::Filesystem { fs: fs.clone(), label, uuid: uuid.clone(), files: Default::default() };
            v.reach = crate::volume::Reach::default();
            if fs == "ext4"
                && let Content::Filesystem { files, .. } = &mut v.content
            {
                files.insert("lost+found/".into(), String::new());
            }
        }
        uuid
    });
    if !c.has(&["-q"]) {
        let text = if fs == "xfs" {
            format!("meta-data={} isize=512 agcount=4\n", b.path())
        } else {
            format!(
                "Creating filesystem with {} 4k blocks and {} inodes\nFilesystem UUID: {uuid}\nWriting superblocks and filesystem accounting information: done\n",
                b.size / 4096,
                b.size / 16_384
            )
        };
        c.print(&text);
    }
    0
}

fn blockdev(c: &mut Call) -> i32 {
    let Some(b) = c.operands(&[]).first().cloned().and_then(|n| device(c, &n)) else {
        return c.fail(1, "blockdev: cannot open device: No such file or directory");
    };
    match c.args.first().map(String::as_str) {
        Some("--getsize64") => c.line(&b.size.to_string()),
        Some("--getsz") => c.line(&(b.size / 512).to_string()),
        Some("--rereadpt" | "--flushbufs") => {}
        _ => return c.unsimulated("(option)"),
    }
    0
}

fn label(c: &mut Call) -> i32 {
    let ops = c.operands(&[]);
    let Some(b) = ops.first().and_then(|n| device(c, n)) else {
        return c.fail(1, "e2label: No such file or directory");
    };
    match ops.get(1).cloned() {
        None => c.line(&b.label),
        Some(new) => c.world(|w| {
            if let Some(Content::Filesystem { label, .. }) = w.volumes.get_mut(&b.volid).map(|v| &mut v.content) {
                *label = new;
            }
        }),
    }
    0
}
