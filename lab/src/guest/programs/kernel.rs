//! Kernel matters: `sysctl`, `modprobe`, `lsmod`, swap, `dmesg`, boot loader updates.
use super::{Call, Program, now};
use crate::guest::fs::virtuals::set_sysctl;
use crate::guest::fs::{Files, Who};
use crate::guest::hw::{self, MODULES, load_module, sysctls};
use crate::guest::live::Machine;
use crate::guest::state::Guest;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/sbin/sysctl", sysctl),
    now("/usr/sbin/modprobe", modprobe),
    now("/usr/sbin/rmmod", rmmod),
    now("/usr/sbin/lsmod", lsmod),
    // it looks only: everybody has it
    now("/usr/bin/lsmod", lsmod),
    now("/usr/sbin/modinfo", modinfo),
    now("/usr/sbin/depmod", |_| 0),
    now("/usr/sbin/swapon", swapon),
    now("/usr/sbin/swapoff", swapoff),
    now("/usr/sbin/mkswap", mkswap),
    now("/usr/bin/fallocate", fallocate),
    now("/usr/bin/dmesg", dmesg),
    now("/usr/sbin/update-initramfs", |_| 0),
    now("/usr/sbin/update-grub", update_grub),
    now("/usr/bin/udevadm", |_| 0),
    now("/usr/bin/update-alternatives", |_| 0),
    now("/usr/sbin/update-ca-certificates", |_| 0),
];

/// Files with kernel parameters in the order systemd reads them.
fn sysctl_files(f: &Files) -> Vec<String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for d in ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"] {
        for (n, _) in f.list(&Who::root(), d).unwrap_or_default() {
            if n.ends_with(".conf") && !found.iter().any(|(x, _)| *x == n) {
                found.push((n.clone(), format!("{d}/{n}")));
            }
        }
    }
    found.sort();
    let mut all: Vec<String> = found.into_iter().map(|(_, p)| p).collect();
    all.push("/etc/sysctl.conf".to_owned());
    all
}

fn pairs(text: &str) -> Vec<(String, String, bool)> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';']));
    let pair = |l: &str| {
        l.split_once('=').map(|(k, v)| {
            (k.trim().trim_start_matches('-').replace('/', "."), v.trim().to_owned(), k.trim().starts_with('-'))
        })
    };
    lines.filter_map(pair).collect()
}

/// Applies the files at boot; unknown keys are passed over as systemd does.
pub(crate) fn apply_sysctl_files(m: &Machine, g: &mut Guest) {
    for path in sysctl_files(&m.files) {
        for (k, v, _) in pairs(&m.files.text(&path)) {
            let _ = set_sysctl(g, &k, &v);
        }
    }
}

fn missing(key: &str) -> String {
    format!("sysctl: cannot stat /proc/sys/{}: No such file or directory", key.replace('.', "/"))
}

fn write(c: &mut Call, key: &str, value: &str, ignore: bool, quiet: bool) -> i32 {
    if c.who.uid != 0 {
        let text = format!("sysctl: permission denied on key \"{key}\"");
        return c.fail(255, &text);
    }
    match c.guest(|g| set_sysctl(g, key, value)) {
        Some(Ok(())) => {
            if !quiet {
                c.line(&format!("{key} = {value}"));
            }
            0
        }
        Some(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            if ignore {
                return 0;
            }
            c.fail(255, &missing(key))
        }
        Some(Err(e)) => {
            let text = format!("sysctl: setting key \"{key}\": {e}");
            c.fail(255, &text)
        }
        None => 1,
    }
}

fn sysctl(c: &mut Call) -> i32 {
    let quiet = c.has(&["-q", "--quiet"]);
    let ignore = c.has(&["-e", "--ignore"]);
    let flags = c.letters();
    let ops = c.operands(&[]);
    let mut code = 0;
    if c.has(&["--system"]) || flags.contains('p') || c.args.iter().any(|a| a.starts_with("--load")) {
        let files = if c.has(&["--system"]) {
            sysctl_files(&c.m.files)
        } else if ops.is_empty() {
            vec!["/etc/sysctl.conf".to_owned()]
        } else {
            ops
        };
        for f in files {
            if c.has(&["--system"]) && !quiet {
                c.line(&format!("* Applying {f} ..."));
            }
            let path = c.path(&f);
            let Ok(bytes) = c.m.files.read(&c.who, &path) else {
                let text = format!("sysctl: cannot open \"{f}\": No such file or directory");
                code = c.fail(255, &text);
                continue;
            };
            for (k, v, soft) in pairs(&String::from_utf8_lossy(&bytes)) {
                let r = write(c, &k, &v, ignore || soft, quiet);
                code = if r == 0 { code } else { r };
            }
        }
        return code;
    }
    let all = c.guest(|g| sysctls(g)).unwrap_or_default();
    if flags.contains('a') || c.has(&["--all"]) {
        for (k, v) in all {
            c.line(&format!("{k} = {v}"));
        }
        return 0;
    }
    for op in ops {
        if let Some((k, v)) = op.split_once('=') {
            let r = write(c, &k.trim().replace('/', "."), v.trim(), ignore, quiet);
            code = if r == 0 { code } else { r };
            continue;
        }
        let key = op.replace('/', ".");
        match all.iter().find(|(k, _)| *k == key) {
            Some((k, v)) => {
                c.line(&if flags.contains('n') || c.has(&["--values"]) { v.clone() } else { format!("{k} = {v}") })
            }
            None if ignore => {}
            None => code = c.fail(255, &missing(&key)),
        }
    }
    code
}

fn modprobe(c: &mut Call) -> i32 {
    let names = c.operands(&["-d", "-S", "-C"]);
    let all = c.has(&["-a", "--all"]);
    if c.has(&["-r", "--remove"]) {
        return rmmod(c);
    }
    let names: Vec<String> = if all { names } else { names.into_iter().take(1).collect() };
    for n in names {
        let known = MODULES.iter().any(|(m, _)| *m == n.replace('-', "_"))
            || c.guest(|g| g.modules.contains(&n.replace('-', "_"))) == Some(true);
        if !known {
            if c.has(&["-q", "--quiet"]) {
                return 1;
            }
            let text = format!("modprobe: FATAL: Module {n} not found in directory /lib/modules/{}", hw::KERNEL);
            return c.fail(1, &text);
        }
        if c.has(&["-n", "--dry-run", "--show"]) {
            continue;
        }
        if !c.must_be_root(&format!("modprobe: ERROR: could not insert '{n}': Operation not permitted")) {
            return 1;
        }
        c.guest(|g| load_module(g, &n));
    }
    0
}

fn rmmod(c: &mut Call) -> i32 {
    if !c.must_be_root("rmmod: ERROR: missing permission") {
        return 1;
    }
    for n in c.operands(&[]) {
        let n = n.replace('-', "_");
        if c.guest(|g| g.modules.remove(&n)) != Some(true) {
            let text = format!("rmmod: ERROR: Module {n} is not currently loaded");
            return c.fail(1, &text);
        }
    }
    0
}

fn lsmod(c: &mut Call) -> i32 {
    let modules = c.guest(|g| g.modules.clone()).unwrap_or_default();
    c.line("Module                  Size  Used by");
    for m in modules {
        c.line(&format!("{m:<20}   16384  0"));
    }
    0
}

fn modinfo(c: &mut Call) -> i32 {
    let ops = c.operands(&["-F"]);
    for n in ops {
        let name = n.replace('-', "_");
        if name == "nvidia"
            && let Some(v) = c.guest(|g| g.facts.nvidia_driver.clone()).flatten()
        {
            c.line(&if c.has(&["-F"]) { v } else { format!("version:        {v}") });
            continue;
        }
        if !MODULES.iter().any(|(m, _)| *m == name) {
            let text = format!("modinfo: ERROR: Module {n} not found.");
            return c.fail(1, &text);
        }
        c.line(&format!("filename:       /lib/modules/{}/kernel/{name}.ko", hw::KERNEL));
    }
    0
}

fn swapon(c: &mut Call) -> i32 {
    let swaps = c.guest(|g| g.swaps.clone()).unwrap_or_default();
    if c.args.is_empty()
        || c.has(&["-s", "--summary", "--show", "--noheadings"])
        || c.args.iter().any(|a| a.starts_with("--show"))
    {
        if !swaps.is_empty() && !c.has(&["--noheadings"]) {
            c.line("NAME      TYPE SIZE USED PRIO");
        }
        for (n, k) in swaps {
            c.line(&if c.args.iter().any(|a| a == "--show=NAME") {
                n
            } else {
                format!("{n} file {}M   0B   -2", k / 1024)
            });
        }
        return 0;
    }
    if !c.must_be_root("swapon: cannot open: Permission denied") {
        return 1;
    }
    let mut files = c.operands(&[]);
    if c.has(&["-a", "--all"]) {
        files =
            crate::guest::mounts::fstab(&c.m).into_iter().filter(|s| s.fstype == "swap").map(|s| s.source).collect();
    }
    for f in files {
        let path = c.path(&f);
        let Ok(bytes) = c.m.files.read(&Who::root(), &path) else {
            let text = format!("swapon: cannot open {f}: No such file or directory");
            return c.fail(255, &text);
        };
        if !bytes.starts_with(b"SWAPSPACE2") {
            let text = format!("swapon: {f}: read swap header failed");
            return c.fail(255, &text);
        }
        let kib = String::from_utf8_lossy(&bytes).split_whitespace().nth(1).and_then(|k| k.parse().ok()).unwrap_or(0);
        c.guest(|g| {
            if !g.swaps.iter().any(|(n, _)| *n == path) {
                g.swaps.push((path, kib));
            }
        });
    }
    0
}

fn swapoff(c: &mut Call) -> i32 {
    if !c.must_be_root("swapoff: Not superuser.") {
        return 1;
    }
    let all = c.args.iter().any(|a| a.starts_with('-') && a.contains('a'));
    let ops: Vec<String> = c.operands(&[]).iter().map(|p| c.path(p)).collect();
    c.guest(|g| g.swaps.retain(|(n, _)| !all && !ops.contains(n)));
    0
}

/// Sparse files are not kept at their size: their size is written into them.
fn fallocate(c: &mut Call) -> i32 {
    let size = c.value(&["-l", "--length"]).and_then(|s| bytes_of(&s));
    let (Some(size), Some(f)) = (size, c.operands(&["-l", "--length", "-o", "--offset"]).first().cloned()) else {
        return c.fail(1, "fallocate: no length argument specified");
    };
    let path = c.path(&f);
    let text = format!("LABSIZE {}\n", size / 1024);
    match c.m.files.write(&c.who, &path, text.as_bytes(), false, 0o644) {
        Ok(()) => 0,
        Err(e) => {
            let text = format!("fallocate: cannot open {f}: {e}");
            c.fail(1, &text)
        }
    }
}

/// `4G`, `512M`, `1024` in bytes.
pub(super) fn bytes_of(s: &str) -> Option<u64> {
    let s = s.trim_end_matches("iB").trim_end_matches('B');
    let (number, unit) = match s.chars().last()? {
        'K' | 'k' => (&s[..s.len() - 1], 1u64 << 10),
        'M' | 'm' => (&s[..s.len() - 1], 1 << 20),
        'G' | 'g' => (&s[..s.len() - 1], 1 << 30),
        'T' | 't' => (&s[..s.len() - 1], 1 << 40),
        _ => (s, 1),
    };
    number.parse::<f64>().ok().map(|n| (n * unit as f64) as u64)
}

fn mkswap(c: &mut Call) -> i32 {
    let Some(f) = c.operands(&["-L", "-U"]).first().cloned() else {
        return c.fail(1, "mkswap: error: Nowhere to set up swap on?");
    };
    let path = c.path(&f);
    let Ok(bytes) = c.m.files.read(&c.who, &path) else {
        let text = format!("mkswap: cannot open {f}: No such file or directory");
        return c.fail(1, &text);
    };
    let old = String::from_utf8_lossy(&bytes).split_whitespace().nth(1).and_then(|k| k.parse::<u64>().ok());
    let kib = old
        .filter(|_| bytes.starts_with(b"LABSIZE") || bytes.starts_with(b"SWAPSPACE2"))
        .unwrap_or(bytes.len() as u64 / 1024);
    let _ = c.m.files.write(&c.who, &path, format!("SWAPSPACE2 {kib}\n").as_bytes(), false, 0o600);
    c.line(&format!("Setting up swapspace version 1, size = {} MiB", kib / 1024));
    0
}

const GRUB: &str = "/boot/grub/grub.cfg";

/// `update-grub`: what `/etc/default/grub` says goes into the configuration that the next boot reads.
fn update_grub(c: &mut Call) -> i32 {
    if !c.must_be_root("grub-mkconfig: You must run this as root") {
        return 1;
    }
    let kernel = c.guest(|g| hw::running_kernel(g).to_owned()).unwrap_or_default();
    write_boot_arguments(&c.m, &kernel);
    c.complain(&format!("Generating grub configuration file ...\nFound linux image: /boot/vmlinuz-{kernel}\ndone"));
    0
}

/// Writes what the next boot reads, from `/etc/default/grub`.
pub fn write_boot_arguments(m: &Machine, kernel: &str) {
    let text = m.files.text("/etc/default/grub");
    let value = |key: &str| {
        let line = text.lines().rev().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let all = format!("{} {}", value("GRUB_CMDLINE_LINUX"), value("GRUB_CMDLINE_LINUX_DEFAULT"));
    let all = all.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("linux /boot/vmlinuz-{kernel} root=PARTUUID=5a1c3d20 ro {all}\n");
    m.files.place_file(GRUB, line.as_bytes(), 0o644);
}

/// What the boot loader gives to the kernel; empty when nobody has made its configuration anew.
#[must_use]
pub fn boot_arguments(m: &Machine) -> String {
    let text = m.files.text(GRUB);
    let line = text.lines().find(|l| l.trim_start().starts_with("linux "));
    line.and_then(|l| l.split_once(" ro ")).map(|(_, a)| a.trim().to_owned()).unwrap_or_default()
}

/// The kernel's own messages: milliseconds since it started, and the text.
fn messages(c: &Call) -> Vec<(u64, String)> {
    let Some(g) = c.guest(|g| g.clone()) else { return Vec::new() };
    let cmdline = c.m.files.text("/proc/cmdline").trim().to_owned();
    let mut all = vec![
        (
            0,
            format!("Linux version {} (debian-kernel@lists.debian.org) {}", hw::running_kernel(&g), hw::KERNEL_VERSION),
        ),
        (0, format!("Command line: {cmdline}")),
        (0, "Hypervisor detected: KVM".to_owned()),
    ];
    for p in &g.spec.pci {
        let (v, d) = (p.vendor.trim_start_matches("0x"), p.device.trim_start_matches("0x"));
        all.push((612, format!("pci {}: [{v}:{d}] type 00 class {}", p.address, p.class)));
    }
    if let Some(v) = &g.facts.nvidia_driver {
        all.push((61_204, format!("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  {v}")));
    }
    let logged = g.journal.iter().filter(|l| l.unit == "kernel");
    all.extend(logged.map(|l| (l.at_ms.saturating_sub(g.booted_ms), l.text.clone())));
    all.sort_by_key(|m| m.0);
    all
}

fn dmesg(c: &mut Call) -> i32 {
    if c.who.uid != 0 {
        return c.fail(1, "dmesg: read kernel buffer failed: Operation not permitted");
    }
    let flags = c.letters();
    if flags.contains(['w', 'W', 'C', 'c', 'D', 'E', 'n']) || c.has(&["--follow", "--clear", "--read-clear"]) {
        let text = c.args.join(" ");
        return c.unsimulated(&text);
    }
    let level = c.value(&["-l", "--level"]).unwrap_or_default();
    let bad_only = !level.is_empty() && !level.split(',').any(|l| matches!(l, "info" | "notice" | "debug"));
    let is_bad = |t: &str| ["error", "fail", "Xid", "BUG", "panic", "fallen off"].iter().any(|w| t.contains(w));
    let booted = c.guest(|g| g.booted_ms).unwrap_or_default();
    for (ms, text) in messages(c).into_iter().filter(|(_, t)| !bad_only || is_bad(t)) {
        let stamp = if flags.contains('t') || c.has(&["--notime"]) {
            String::new()
        } else if flags.contains('T') || c.has(&["--ctime"]) {
            super::date::show("[%a %b %e %T %Y] ", (booted + ms) / 1000, 0)
        } else {
            format!("[{:>5}.{:06}] ", ms / 1000, ms % 1000 * 1000)
        };
        c.line(&format!("{stamp}{text}"));
    }
    0
}
