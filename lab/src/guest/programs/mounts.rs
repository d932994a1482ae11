//! `mount`, `umount`, `mountpoint`, `findmnt`.
use futures::future::BoxFuture;
use serde_json::json;

use super::{Call, Program, later, now, of};
use crate::guest::fs::virtuals::mounts_table;
use crate::guest::mounts::{Wish, fstab, mount as mount_it, mount_all, unmount};

pub(super) const PROGRAMS: &[Program] = &[
    later("/usr/bin/mount", mount),
    now("/usr/bin/umount", umount),
    now("/usr/bin/mountpoint", mountpoint),
    now("/usr/bin/findmnt", findmnt),
    of("nfs-common", later("/usr/sbin/mount.nfs", mount_nfs)),
    of("nfs-common", later("/usr/sbin/mount.nfs4", mount_nfs)),
    of("nfs-common", now("/usr/sbin/umount.nfs", umount)),
];

fn table(c: &Call) -> Vec<(String, String, String, String)> {
    let text = c.guest(|g| mounts_table(g)).unwrap_or_default();
    text.lines()
        .filter_map(|l| {
            let p: Vec<&str> = l.split_whitespace().collect();
            Some((p.first()?.to_string(), p.get(1)?.to_string(), p.get(2)?.to_string(), p.get(3)?.to_string()))
        })
        .collect()
}

fn mount_nfs(c: &mut Call) -> BoxFuture<'_, i32> {
    c.args.extend(["-t".to_owned(), "nfs4".to_owned()]);
    mount(c)
}

fn mount(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut options: Vec<String> = Vec::new();
        let mut args = c.args.clone().into_iter();
        let (mut fstype, mut ops, mut all) = ("auto".to_owned(), Vec::new(), false);
        while let Some(a) = args.next() {
            match a.as_str() {
                "-o" | "--options" => options.extend(args.next()),
                "-t" | "--types" => fstype = args.next().unwrap_or_default(),
                "-a" | "--all" => all = true,
                "-r" | "--read-only" => options.push("ro".into()),
                "-w" | "--rw" => options.push("rw".into()),
                "-B" | "--bind" => options.push("bind".into()),
                "-L" => ops.push(format!("LABEL={}", args.next().unwrap_or_default())),
                "-U" => ops.push(format!("UUID={}", args.next().unwrap_or_default())),
                "-l" | "-v" | "-n" | "-s" | "-f" | "--verbose" => {}
                "-m" | "--mkdir" => options.push("X-mount.mkdir".into()),
                a if a.starts_with("-o") => options.push(a[2..].to_owned()),
                a if a.starts_with("-t") => fstype = a[2..].to_owned(),
                a if a.starts_with("--") || a.starts_with('-') => return c.unsimulated(a),
                _ => ops.push(a),
            }
        }
        if ops.is_empty() && !all {
            for (s, t, f, o) in table(c) {
                if fstype == "auto" || fstype.split(',').any(|x| x == f) {
                    c.line(&format!("{s} on {t} type {f} ({o})"));
                }
            }
            return 0;
        }
        if !c.must_be_root("mount: only root can do that.") {
            return 1;
        }
        let (lab, m) = (c.m.lab.clone(), c.m.clone());
        if all {
            let errors = lab.with(|w| mount_all(&lab, w, &m));
            for e in &errors {
                c.complain(e);
            }
            // 64: some succeeded, 32: all failed; nofail entries do not count.
            let wishes = fstab(&m);
            let hard =
                errors.iter().any(|e| !wishes.iter().any(|w| w.options.contains("nofail") && e.contains(&w.target)));
            return if hard { 32 } else { 0 };
        }
        let options = options.join(",");
        if options.split(',').any(|o| o == "remount") {
            return remount(c, ops.last().map_or("", String::as_str), &options);
        }
        let wish = if let [source, target] = &ops[..] {
            let source = if source.starts_with('/') || source.contains('=') || source.contains(':') || fstype == "tmpfs"
            {
                source.clone()
            } else {
                c.path(source)
            };
            Wish { source, target: c.path(target), fstype, options }
        } else {
            let what = ops[0].clone();
            let path = c.path(&what);
            match fstab(&m).into_iter().find(|w| w.target == path || w.source == what) {
                Some(w) => w,
                None => {
                    let text = format!("mount: {what}: can't find in /etc/fstab.");
                    return c.fail(1, &text);
                }
            }
        };
        if wish.options.contains("X-mount.mkdir") {
            let _ = m.files.mkdir(&crate::guest::fs::Who::root(), &wish.target, true, 0o755);
        }
        c.pause(if wish.fstype.starts_with("nfs") { 150 } else { 30 }).await;
        match lab.with(|w| mount_it(&lab, w, &m, &wish)) {
            Ok(()) => 0,
            Err(e) => {
                if e.contains("timed out") {
                    // A server that does not answer takes its time to fail.
                    c.pause(if wish.options.contains("timeo") { 10_000 } else { 120_000 }).await;
                }
                c.fail(32, &e)
            }
        }
    })
}

fn remount(c: &mut Call, target: &str, options: &str) -> i32 {
    let path = c.path(target);
    let wanted: Vec<String> = options.split(',').filter(|o| *o != "remount").map(str::to_owned).collect();
    let done = c.guest(|g| {
        g.mounts.iter_mut().find(|m| m.target == path).map(|m| {
            let mut list: Vec<String> = m
                .options
                .split(',')
                .filter(|o| !(matches!(*o, "ro" | "rw") && wanted.iter().any(|w| w == "ro" || w == "rw")))
                .map(str::to_owned)
                .collect();
            list.extend(wanted.clone());
            m.options = list.join(",");
        })
    });
    if path == "/" || done.flatten().is_some() {
        return 0;
    }
    let text = format!("mount: {target}: mount point not mounted or bad option.");
    c.fail(32, &text)
}

fn umount(c: &mut Call) -> i32 {
    if !c.must_be_root("umount: only root can do that.") {
        return 32;
    }
    let m = c.m.clone();
    let mut code = 0;
    for t in c.operands(&["-t"]) {
        let target = if t.contains(':') { t.clone() } else { c.path(&t) };
        if let Err(e) = c.world(|w| unmount(w, &m, &target)) {
            let e = e.replace(&format!("umount: {target}:"), &format!("umount: {t}:"));
            if !c.has(&["-q", "--quiet"]) {
                c.complain(&e);
            }
            code = 32;
        }
    }
    code
}

fn mountpoint(c: &mut Call) -> i32 {
    let quiet = c.has(&["-q", "--quiet"]);
    let Some(p) = c.operands(&[]).first().cloned() else { return c.fail(1, "mountpoint: bad usage") };
    let path = c.path(&p);
    let path = c.m.files.resolve(&path, true).unwrap_or(path);
    let there = table(c).iter().any(|m| m.1 == path);
    if !quiet {
        let exists = c.m.files.exists(&path);
        if there {
            c.line(&format!("{p} is a mountpoint"));
        } else if exists {
            c.line(&format!("{p} is not a mountpoint"));
        } else {
            c.complain(&format!("mountpoint: {p}: No such file or directory"));
        }
    }
    if there { 0 } else { 32 }
}

fn findmnt(c: &mut Call) -> i32 {
    let flags = c.letters();
    let columns = c
        .args
        .iter()
        .position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('o'))
        .and_then(|i| c.args.get(i + 1).cloned());
    let columns = columns.or_else(|| c.value(&["--output"])).unwrap_or_else(|| "TARGET,SOURCE,FSTYPE,OPTIONS".into());
    let columns: Vec<String> = columns.split(',').map(str::to_uppercase).collect();
    let mut skip = vec!["-o", "--output", "-t", "--types", "-S", "--source", "-T", "--target", "-M", "--mountpoint"];
    let joined: Vec<String> = c
        .args
        .iter()
        .filter(|a| {
            a.starts_with('-')
                && !a.starts_with("--")
                && (a.ends_with('o') || a.ends_with('T') || a.ends_with('M') || a.ends_with('S'))
        })
        .cloned()
        .collect();
    skip.extend(joined.iter().map(String::as_str));
    let after = |letter: char| {
        c.args
            .iter()
            .position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with(letter))
            .and_then(|i| c.args.get(i + 1).cloned())
    };
    let ops = c.operands(&skip);
    let mut list = table(c);
    let source = after('S').or_else(|| c.value(&["--source"]));
    let point = after('M').or_else(|| c.value(&["--mountpoint"]));
    let inside = after('T').or_else(|| c.value(&["--target"]));
    if let Some(t) = c.value(&["-t", "--types"]) {
        list.retain(|m| t.split(',').any(|x| x == m.2));
    }
    if let Some(s) = source {
        let real = c.m.files.resolve(&s, true).unwrap_or_default();
        list.retain(|m| m.0 == s || m.0 == real);
    }
    if let Some(p) = point {
        let p = c.path(&p);
        list.retain(|m| m.1 == p);
    }
    if let Some(p) = inside {
        let p = c.path(&p);
        let best = list.iter().filter(|m| crate::guest::fs::tree::is_below(&p, &m.1)).map(|m| m.1.len()).max();
        list.retain(|m| crate::guest::fs::tree::is_below(&p, &m.1) && Some(m.1.len()) == best);
    }
    for o in &ops {
        let path = if o.contains(':') { o.clone() } else { c.path(o) };
        let real = c.m.files.resolve(&path, true).unwrap_or_default();
        list.retain(|m| m.1 == path || m.0 == *o || m.0 == real);
    }
    if list.is_empty() {
        return 1;
    }
    let cell = |m: &(String, String, String, String), k: &str| match k {
        "TARGET" => m.1.clone(),
        "SOURCE" => m.0.clone(),
        "FSTYPE" => m.2.clone(),
        "OPTIONS" | "VFS-OPTIONS" | "FS-OPTIONS" => m.3.clone(),
        _ => String::new(),
    };
    if flags.contains('J') || c.has(&["--json"]) {
        let rows: Vec<_> = list
            .iter()
            .map(|m| columns.iter().map(|k| (k.to_lowercase(), json!(cell(m, k)))).collect::<serde_json::Map<_, _>>())
            .collect();
        c.line(&json!({"filesystems": rows}).to_string());
        return 0;
    }
    if !flags.contains('n') && !c.has(&["--noheadings"]) {
        c.line(&columns.join(" "));
    }
    for m in &list {
        let row: Vec<String> = columns.iter().map(|k| cell(m, k)).collect();
        c.line(&row.join(" "));
    }
    0
}
