//! Programs about the machine's name, time zone and locale: `hostname`, `hostnamectl`, `timedatectl`, `localectl`.
use super::{Call, Program, now};
use crate::guest::hw::running_kernel;
use crate::guest::journal;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/hostname", hostname),
    now("/usr/bin/hostnamectl", hostnamectl),
    now("/usr/bin/timedatectl", timedatectl),
    now("/usr/bin/localectl", localectl),
    now("/usr/sbin/locale-gen", |_| 0),
    now("/usr/sbin/update-locale", |_| 0),
];

fn hostname(c: &mut Call) -> i32 {
    let (name, net) = c.guest(|g| (g.hostname.clone(), g.net.clone())).unwrap_or_default();
    if let Some(new) = c.operands(&["-F"]).first().cloned() {
        if !c.must_be_root("hostname: you must be root to change the host name") {
            return 1;
        }
        c.guest(|g| g.hostname = new);
        return 0;
    }
    let text = match c.args.first().map(String::as_str) {
        Some("-f" | "--fqdn" | "--long") => fqdn(c, &name),
        Some("-s" | "--short") => name.split('.').next().unwrap_or_default().to_owned(),
        Some("-d" | "--domain") => fqdn(c, &name).split_once('.').map(|p| p.1.to_owned()).unwrap_or_default(),
        Some("-I" | "--all-ip-addresses" | "-i") => format!("{} ", net.map(|n| n.ip).unwrap_or_default()),
        None => name,
        Some(o) => {
            let o = o.to_owned();
            return c.unsimulated(&o);
        }
    };
    c.line(&text);
    0
}

fn fqdn(c: &Call, name: &str) -> String {
    let hosts = c.m.files.text("/etc/hosts");
    let line = hosts.lines().find(|l| l.split_whitespace().skip(1).any(|n| n == name));
    line.and_then(|l| l.split_whitespace().nth(1)).unwrap_or(name).to_owned()
}

fn hostnamectl(c: &mut Call) -> i32 {
    let ops = c.operands(&[]);
    let g = c.guest(|g| g.clone());
    let Some(g) = g else { return 1 };
    match ops.first().map(String::as_str) {
        Some("set-hostname" | "hostname") if ops.len() > 1 => {
            if !c.must_be_root("Could not set static hostname: Interactive authentication required.") {
                return 1;
            }
            let name = ops[1].clone();
            c.m.files.place_file("/etc/hostname", format!("{name}\n").as_bytes(), 0o644);
            c.guest(|g| g.hostname = name);
            0
        }
        Some("hostname") => {
            c.line(&g.hostname);
            0
        }
        None | Some("status") => {
            if c.has(&["--static", "--transient"]) {
                let name = c.m.files.text("/etc/hostname");
                c.print(&name);
                return 0;
            }
            let id = c.m.files.text("/etc/machine-id");
            c.print(&format!(
                " Static hostname: {}\n       Icon name: computer-vm\n         Chassis: vm\n      Machine ID: {}\n         Boot ID: {}\n  Virtualization: kvm\nOperating System: Debian GNU/Linux 12 (bookworm)\n          Kernel: Linux {}\n    Architecture: x86-64\n",
                c.m.files.text("/etc/hostname").trim(),
                id.trim(),
                g.boot_id.replace('-', ""),
                running_kernel(&g)
            ));
            0
        }
        Some(o) => {
            let o = o.to_owned();
            c.unsimulated(&o)
        }
    }
}

fn timedatectl(c: &mut Call) -> i32 {
    let ops = c.operands(&["-p", "--property"]);
    let zone = c.m.files.text("/etc/timezone").trim().to_owned();
    let now = c.m.lab.clock().now_ms();
    let ntp = c
        .guest(|g| {
            ["systemd-timesyncd.service", "chrony.service"]
                .iter()
                .any(|u| g.services.get(*u).is_some_and(|s| s.state == "active"))
        })
        .unwrap_or_default();
    let yes = |b: bool| if b { "yes" } else { "no" };
    match ops.first().map(String::as_str) {
        Some("set-timezone") => {
            if !c.must_be_root("Failed to set time zone: Interactive authentication required.") {
                return 1;
            }
            let Some(z) = ops.get(1).cloned() else { return c.fail(1, "Too few arguments.") };
            if z.split('/').count() > 3 || z.contains("..") || z.is_empty() {
                return c.fail(1, &format!("Failed to set time zone: Invalid or not installed time zone '{z}'"));
            }
            c.m.files.place_file("/etc/timezone", format!("{z}\n").as_bytes(), 0o644);
            let root = crate::guest::fs::Who::root();
            let _ = c.m.files.remove(&root, "/etc/localtime", false);
            let _ = c.m.files.symlink(&root, &format!("/usr/share/zoneinfo/{z}"), "/etc/localtime");
            0
        }
        Some("set-ntp") => {
            let on = ops.get(1).is_some_and(|v| matches!(v.as_str(), "true" | "1" | "yes" | "on"));
            let at = now;
            c.guest(|g| {
                let s = g.services.entry("systemd-timesyncd.service".into()).or_default();
                s.state = if on { "active" } else { "inactive" }.into();
                s.since_ms = at;
            });
            0
        }
        Some("show") => {
            let all = format!("Timezone={zone}\nLocalRTC=no\nCanNTP=yes\nNTP={n}\nNTPSynchronized={n}\n", n = yes(ntp));
            let want = c.value(&["-p", "--property"]);
            for l in all.lines().filter(|l| want.as_ref().is_none_or(|w| l.starts_with(&format!("{w}=")))) {
                let text = if c.has(&["--value"]) { l.split_once('=').map_or(l, |p| p.1) } else { l };
                c.line(text);
            }
            0
        }
        None | Some("status") => {
            let t = journal::long(now);
            c.print(&format!("               Local time: {t}\n           Universal time: {t}\n                 RTC time: {}\n                Time zone: {zone} (UTC, +0000)\nSystem clock synchronized: {n}\n              NTP service: {}\n          RTC in local TZ: no\n", &t[..t.len() - 4], if ntp { "active" } else { "inactive" }, n = yes(ntp)));
            0
        }
        Some(o) => {
            let o = o.to_owned();
            c.unsimulated(&o)
        }
    }
}

fn localectl(c: &mut Call) -> i32 {
    let ops = c.operands(&[]);
    match ops.first().map(String::as_str) {
        Some("set-locale") => {
            let text: String = ops[1..].iter().map(|l| format!("{l}\n")).collect();
            c.m.files.place_file("/etc/default/locale", text.as_bytes(), 0o644);
            0
        }
        None | Some("status") => {
            let lang = c.m.files.text("/etc/default/locale");
            c.print(&format!("System Locale: {}\n    VC Keymap: (unset)\n   X11 Layout: (unset)\n", lang.trim()));
            0
        }
        Some(o) => {
            let o = o.to_owned();
            c.unsimulated(&o)
        }
    }
}
