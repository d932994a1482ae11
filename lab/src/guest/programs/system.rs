//! What the machine is: `uname`, `nproc`, `free`, `ps`, `lscpu`, `df`.
use futures::future::BoxFuture;

use super::{Call, Program, later, now};
use crate::guest::fs::virtuals::memory;
use crate::guest::hw::{KERNEL_VERSION, running_kernel};

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/uname", uname),
    now("/usr/bin/nproc", nproc),
    now("/usr/bin/free", free),
    later("/usr/bin/vmstat", vmstat),
    now("/usr/bin/ps", ps),
    now("/usr/bin/pidof", pidof),
    now("/usr/bin/pgrep", pgrep),
    now("/usr/bin/lscpu", lscpu),
    now("/usr/bin/df", df),
    now("/usr/bin/top", top),
    now("/usr/bin/vi", |c| c.unsimulated("")),
    now("/usr/bin/python3", |c| c.unsimulated("")),
    now("/usr/bin/perl", |c| c.unsimulated("")),
    now("/usr/bin/crontab", crontab),
];

fn uname(c: &mut Call) -> i32 {
    let host = c.guest(|g| g.hostname.clone()).unwrap_or_default();
    let kernel = c.guest(|g| running_kernel(g).to_owned()).unwrap_or_default();
    let flags = c.letters();
    let all = flags.contains('a') || c.has(&["--all"]);
    let mut out = Vec::new();
    for (f, long, v) in [
        ('s', "--kernel-name", "Linux"),
        ('n', "--nodename", host.as_str()),
        ('r', "--kernel-release", kernel.as_str()),
        ('v', "--kernel-version", KERNEL_VERSION),
        ('m', "--machine", "x86_64"),
    ] {
        if all || flags.contains(f) || c.has(&[long]) {
            out.push(v);
        }
    }
    if flags.contains('p') || flags.contains('i') {
        out.push("unknown");
    }
    if all || flags.contains('o') || c.has(&["--operating-system"]) {
        out.push("GNU/Linux");
    }
    let text = if out.is_empty() { "Linux".to_owned() } else { out.join(" ") };
    c.line(&text);
    0
}

fn nproc(c: &mut Call) -> i32 {
    let n = c.guest(|g| g.spec.cores).unwrap_or(1).max(1);
    c.line(&n.to_string());
    0
}

/// Kibibytes as `free -h` prints them: one decimal below ten.
fn scaled(kib: u64) -> String {
    let (mut v, mut unit) = (kib as f64, 0);
    while v >= 1024.0 && unit < 3 {
        v /= 1024.0;
        unit += 1;
    }
    match kib {
        0 => "0B".to_owned(),
        _ if v < 10.0 => format!("{v:.1}{}", ["Ki", "Mi", "Gi", "Ti"][unit]),
        _ => format!("{:.0}{}", v.floor(), ["Ki", "Mi", "Gi", "Ti"][unit]),
    }
}

/// `top -b`: the head and the processes, once; a live screen is not simulated.
fn top(c: &mut Call) -> i32 {
    let flags: String = c.args.iter().filter(|a| a.starts_with('-')).map(|a| &a[1..]).collect();
    if !flags.contains('b') {
        return c.unsimulated("without -b");
    }
    let Some((total, free, available, cache)) = c.guest(|g| memory(g)) else { return 1 };
    let all = processes(c);
    let mib = |k: u64| format!("{:.1}", k as f64 / 1024.0);
    super::sessions::uptime(c);
    c.line(&format!(
        "Tasks: {:>3} total,   1 running, {:>3} sleeping,   0 stopped,   0 zombie",
        all.len(),
        all.len() - 1
    ));
    c.line("%Cpu(s):  1.2 us,  0.6 sy,  0.0 ni, 98.1 id,  0.1 wa,  0.0 hi,  0.0 si,  0.0 st");
    c.line(&format!(
        "MiB Mem : {:>8} total, {:>8} free, {:>8} used, {:>8} buff/cache",
        mib(total),
        mib(free),
        mib(total - free - cache),
        mib(cache)
    ));
    c.line(&format!(
        "MiB Swap: {:>8} total, {:>8} free, {:>8} used. {:>8} avail Mem",
        "0.0",
        "0.0",
        "0.0",
        mib(available)
    ));
    c.line("\n    PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND");
    for (pid, user, cmd) in all {
        let name = cmd.split_whitespace().next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        c.line(&format!("{pid:>7} {user:<8}  20   0  168000  12000   8000 S   0.0   0.1   0:01.00 {name}"));
    }
    0
}

fn free(c: &mut Call) -> i32 {
    let Some((m, swap)) = c.guest(|g| (memory(g), g.swaps.iter().map(|s| s.1).sum::<u64>())) else { return 1 };
    let (total, free, available, cache) = m;
    let used = total - free - cache;
    let human = c.has(&["-h", "--human"]);
    let unit = |k: u64| {
        if human {
            scaled(k)
        } else if c.has(&["-b", "--bytes"]) {
            (k * 1024).to_string()
        } else if c.has(&["-m", "--mebi"]) {
            (k / 1024).to_string()
        } else if c.has(&["-g", "--gibi"]) {
            (k >> 20).to_string()
        } else {
            k.to_string()
        }
    };
    let text = format!(
        "               total        used        free      shared  buff/cache   available\nMem:    {:>12}{:>12}{:>12}{:>12}{:>12}{:>12}\nSwap:   {:>12}{:>12}{:>12}\n",
        unit(total),
        unit(used),
        unit(free),
        unit(600),
        unit(cache),
        unit(available),
        unit(swap),
        unit(0),
        unit(swap)
    );
    c.print(&text);
    0
}

/// `vmstat [PAUSE [COUNT]]`: memory as `free` has it, and the idle processor of `top`.
fn vmstat(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if let Some(other) = c.args.iter().find(|a| a.starts_with('-') && !matches!(a.as_str(), "-n" | "-w")).cloned() {
            return c.unsimulated(&other);
        }
        let numbers: Vec<u64> = c.operands(&[]).iter().filter_map(|n| n.parse().ok()).collect();
        let (pause, count) = match numbers[..] {
            [] => (1, 1),
            [pause] => (pause, u64::MAX),
            [pause, count, ..] => (pause, count),
        };
        c.line("procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----");
        c.line(" r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st");
        for i in 0..count {
            match (i, count) {
                (0, _) => {}
                (_, u64::MAX) => c.next_look(pause.max(1) * 1000).await,
                _ => c.pause(pause.max(1) * 1000).await,
            }
            let Some((_, free, _, cache)) = c.guest(|g| memory(g)) else { return 1 };
            c.line(&format!(
                " 0  0      0 {free:>6} {:>6} {:>6}    0    0     0     0    0    0  1  1 98  0  0",
                cache / 10,
                cache - cache / 10
            ));
            if c.flush().await.is_err() {
                return 141;
            }
        }
        0
    })
}

/// Processes that a running machine has: pid, user, command.
fn processes(c: &Call) -> Vec<(u32, &'static str, String)> {
    let mut all = vec![
        (1, "root", "/sbin/init".to_owned()),
        (2, "root", "[kthreadd]".to_owned()),
        (311, "root", "/lib/systemd/systemd-journald".to_owned()),
        (362, "root", "/lib/systemd/systemd-udevd".to_owned()),
    ];
    let services = c.guest(|g| g.services.clone()).unwrap_or_default();
    for (name, s) in services.iter().filter(|(_, s)| s.state == "active" && s.pid > 0) {
        let exec = crate::guest::units::load(&c.m.files, name)
            .map(|u| u.get("Service.ExecStart").to_owned())
            .unwrap_or_default();
        all.push((s.pid, "root", if exec.is_empty() { name.clone() } else { exec }));
    }
    all
}

fn ps(c: &mut Call) -> i32 {
    let all = processes(c);
    let want = c.value(&["-C"]).or_else(|| c.value(&["-p"]));
    let format = c.value(&["-o", "--format", "-eo", "-o="]);
    let headless =
        c.has(&["--no-headers", "h"]) || format.as_ref().is_some_and(|f| f.split(',').all(|p| p.ends_with('=')));
    let mut hits = 0;
    let bsd = c.args.first().is_some_and(|a| matches!(a.as_str(), "aux" | "-aux" | "auxw" | "auxww"));
    let full = c.args.iter().any(|a| matches!(a.as_str(), "-ef" | "-eF" | "-elf" | "-f"));
    if bsd || full {
        c.line(if bsd {
            "USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND"
        } else {
            "UID          PID    PPID  C STIME TTY          TIME CMD"
        });
        let booted = crate::guest::journal::stamp(c.guest(|g| g.booted_ms).unwrap_or_default());
        let clock = booted.split(' ').nth(2).map_or("00:00", |t| &t[..5]).to_owned();
        for (pid, user, cmd) in all {
            c.line(&if bsd {
                format!("{user:<8} {pid:>7}  0.0  0.1 168000 12000 ?        Ss   {clock}   0:01 {cmd}")
            } else {
                format!("{user:<8} {pid:>7} {:>7}  0 {clock} ?        00:00:01 {cmd}", u32::from(pid > 2))
            });
        }
        return 0;
    }
    if !headless {
        c.line(if format.is_some() { "    PID COMMAND" } else { "    PID TTY          TIME CMD" });
    }
    for (pid, _, cmd) in all {
        let name = cmd.split_whitespace().next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        if want.as_ref().is_some_and(|w| *w != name && *w != pid.to_string()) {
            continue;
        }
        hits += 1;
        c.line(&match format.as_deref().map(|f| f.replace('=', "")) {
            Some(f) if f == "pid" => pid.to_string(),
            Some(f) if f == "comm" => name,
            Some(f) if f == "args" || f == "cmd" || f == "command" => cmd,
            _ => format!("{pid:>7} ?        00:00:01 {cmd}"),
        });
    }
    i32::from(hits == 0)
}

fn pidof(c: &mut Call) -> i32 {
    let names = c.operands(&[]);
    let pids: Vec<String> = processes(c)
        .into_iter()
        .filter(|(_, _, cmd)| {
            names
                .iter()
                .any(|n| cmd.split_whitespace().next().is_some_and(|p| p.rsplit('/').next() == Some(n.as_str())))
        })
        .map(|p| p.0.to_string())
        .collect();
    if pids.is_empty() {
        return 1;
    }
    c.line(&pids.join(" "));
    0
}

/// `pgrep` with a part of a name, or with `-f` of the command line; K3s calls its process `k3s-server` or `k3s-agent`.
fn pgrep(c: &mut Call) -> i32 {
    const KNOWN: [&str; 8] = ["-a", "-l", "-f", "-x", "-c", "-o", "-n", "-af"];
    let [want] = &c.operands(&[])[..] else {
        return c.fail(2, "pgrep: no matching criteria specified\nTry `pgrep --help' for more information.");
    };
    if let Some(odd) = c.args.iter().find(|a| a.starts_with('-') && !KNOWN.contains(&a.as_str())) {
        return c.unsimulated(&odd.clone());
    }
    let (want, full) = (want.clone(), c.has(&["-f", "-af"]));
    let hits: Vec<(u32, String, String)> = processes(c)
        .into_iter()
        .map(|(pid, _, cmd)| {
            let mut words = cmd.split_whitespace();
            let mut name = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
            if let (true, Some(role)) = (name == "k3s", words.next()) {
                name = format!("k3s-{role}");
            }
            (pid, name.trim_matches(['[', ']']).to_owned(), cmd)
        })
        .filter(|(_, name, cmd)| match c.has(&["-x"]) {
            true => *name == want,
            false => if full { cmd } else { name }.contains(&want),
        })
        .collect();
    if c.has(&["-c"]) {
        c.line(&hits.len().to_string());
    } else {
        let one = hits.len().saturating_sub(1);
        let few = if c.has(&["-n"]) { &hits[one.min(hits.len())..] } else { &hits[..] };
        let few = if c.has(&["-o"]) { &few[..few.len().min(1)] } else { few };
        for (pid, name, cmd) in few {
            c.line(&match (c.has(&["-a", "-af"]), c.has(&["-l"])) {
                (true, _) => format!("{pid} {cmd}"),
                (_, true) => format!("{pid} {name}"),
                _ => pid.to_string(),
            });
        }
    }
    i32::from(hits.is_empty())
}

fn lscpu(c: &mut Call) -> i32 {
    let n = c.guest(|g| g.spec.cores).unwrap_or(1);
    c.print(&format!("Architecture:            x86_64\n  CPU op-mode(s):        32-bit, 64-bit\nCPU(s):                  {n}\n  On-line CPU(s) list:   0-{}\nVendor ID:               AuthenticAMD\n  Model name:            AMD EPYC 7543 32-Core Processor\n    Thread(s) per core:  1\n    Core(s) per socket:  {n}\n    Socket(s):           1\nVirtualization features: \n  Hypervisor vendor:     KVM\n  Virtualization type:   full\n", n.saturating_sub(1)));
    0
}

/// A mounted file system.
pub(super) struct Row {
    source: String,
    pub fstype: String,
    pub size: u64,
    pub used: u64,
    pub inodes: u64,
    pub target: String,
}

/// The file system that a path is on.
pub(super) fn row_of(c: &Call, path: &str) -> Option<Row> {
    let at = c.m.files.resolve(path, true).unwrap_or_else(|_| path.to_owned());
    let below = |r: &Row| crate::guest::fs::tree::is_below(&at, &r.target);
    rows(c).into_iter().filter(below).max_by_key(|r| r.target.len())
}

/// What the image itself takes of the system disk.
pub(crate) const SYSTEM_BYTES: u64 = 1_288_490_188;

fn rows(c: &Call) -> Vec<Row> {
    let files = c.m.files.clone();
    let vmid = c.m.vmid;
    let mut out = Vec::new();
    let (mounts, disks, memory) = c.world(|w| {
        let g = w.guests.get(&vmid).cloned();
        let blocks = g.as_ref().map(|g| crate::guest::hw::blocks(w, g)).unwrap_or_default();
        let mem = g.as_ref().map_or(0, |g| g.spec.memory_mib << 20);
        let sizes: Vec<(String, u64)> = w.volumes.iter().map(|(k, v)| (k.clone(), v.fs_size())).collect();
        (g.map(|g| g.mounts).unwrap_or_default(), (blocks, sizes), mem)
    });
    let root_size = disks.0.iter().find(|b| b.mounted.iter().any(|m| m == "/")).map_or(0, |b| b.fs_size);
    let (bytes, nodes) = files.root().usage("/");
    let large: u64 = c.guest(|g| g.facts.large.values().sum()).unwrap_or_default();
    out.push(Row {
        source: "udev".into(),
        fstype: "devtmpfs".into(),
        size: memory / 2,
        used: 0,
        inodes: 400,
        target: "/dev".into(),
    });
    out.push(Row {
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        size: memory / 10,
        used: 700_000,
        inodes: 600,
        target: "/run".into(),
    });
    out.push(Row {
        source: "/dev/sda1".into(),
        fstype: "ext4".into(),
        size: root_size,
        used: SYSTEM_BYTES + bytes + large,
        inodes: 32_000 + nodes,
        target: "/".into(),
    });
    out.push(Row {
        source: "/dev/sda15".into(),
        fstype: "vfat".into(),
        size: 124 << 20,
        used: 12 << 20,
        inodes: 0,
        target: "/boot/efi".into(),
    });
    for m in mounts {
        let size = match &m.backing {
            crate::guest::state::Backing::Volume(v) => disks.1.iter().find(|(k, _)| k == v).map_or(0, |x| x.1),
            crate::guest::state::Backing::Nfs { server, path } => nfs_size(c, *server, path),
            crate::guest::state::Backing::Bind(_) => root_size,
            crate::guest::state::Backing::Tmpfs => memory / 2,
        };
        let used = files.mounts().iter().find(|p| p.target == m.target).map_or((0, 0), |p| p.tree.usage("/"));
        out.push(Row {
            source: m.source,
            fstype: m.fstype,
            size: size / 100 * 98,
            used: used.0 + (28 << 20),
            inodes: used.1 + 10,
            target: m.target,
        });
    }
    out
}

fn nfs_size(c: &Call, server: u32, path: &str) -> u64 {
    c.world(|w| {
        let g = w.guests.get(&server)?;
        let at = g
            .mounts
            .iter()
            .filter(|m| crate::guest::fs::tree::is_below(path, &m.target))
            .max_by_key(|m| m.target.len());
        match at.map(|m| &m.backing) {
            Some(crate::guest::state::Backing::Volume(v)) => w.volumes.get(v).map(|v| v.fs_size()),
            _ => w.volumes.get(&g.system).map(|v| v.fs_size()),
        }
    })
    .unwrap_or_default()
}

fn df(c: &mut Call) -> i32 {
    let paths = c.operands(&["-t", "--type", "-x", "--exclude-type", "-B", "--block-size"]);
    let output = c.args.iter().find_map(|a| a.strip_prefix("--output=")).map(str::to_owned);
    let flags = c.letters();
    let block = c.value(&["-B", "--block-size"]).and_then(|b| {
        super::kernel::bytes_of(b.trim_start_matches('=')).or_else(|| super::kernel::bytes_of(&format!("1{b}")))
    });
    let block = if flags.contains('k') {
        1024
    } else if flags.contains('m') {
        1 << 20
    } else {
        block.unwrap_or(1024)
    }
    .max(1);
    let human = flags.contains('h') || c.has(&["--human-readable"]);
    let size = |b: u64| {
        if !human {
            return b.div_ceil(block).to_string();
        }
        let units = ["", "K", "M", "G", "T"];
        let (mut v, mut i) = (b as f64, 0);
        while v >= 1024.0 && i < 4 {
            v /= 1024.0;
            i += 1;
        }
        if v >= 10.0 || i == 0 { format!("{v:.0}{}", units[i]) } else { format!("{v:.1}{}", units[i]) }
    };
    let all = rows(c);
    let mut chosen: Vec<&Row> = Vec::new();
    let mut code = 0;
    for p in &paths {
        let at = c.path(p);
        if !c.m.files.exists(&at) {
            let text = format!("df: {p}: No such file or directory");
            code = c.fail(1, &text);
            continue;
        }
        let at = c.m.files.resolve(&at, true).unwrap_or(at);
        let best = all
            .iter()
            .filter(|r| crate::guest::fs::tree::is_below(&at, &r.target) || r.source == at)
            .max_by_key(|r| r.target.len());
        chosen.extend(best);
    }
    if paths.is_empty() {
        chosen = all.iter().collect();
    }
    let only = c.value(&["-t", "--type"]);
    let not = c.value(&["-x", "--exclude-type"]);
    chosen.retain(|r| only.as_ref().is_none_or(|t| *t == r.fstype) && not.as_ref().is_none_or(|t| *t != r.fstype));
    let percent = |a: u64, b: u64| if b == 0 { "-".to_owned() } else { format!("{}%", (a * 100).div_ceil(b)) };
    if let Some(columns) = output {
        let columns: Vec<&str> = columns.split(',').collect();
        let head: Vec<&str> = columns
            .iter()
            .map(|k| match *k {
                "source" => "Filesystem",
                "fstype" => "Type",
                "size" => "1K-blocks",
                "used" => "Used",
                "avail" => "Avail",
                "pcent" => "Use%",
                "target" => "Mounted on",
                "itotal" => "Inodes",
                "iused" => "IUsed",
                "iavail" => "IFree",
                "ipcent" => "IUse%",
                o => o,
            })
            .collect();
        c.line(&head.join(" "));
        for r in chosen {
            let row: Vec<String> = columns
                .iter()
                .map(|k| match *k {
                    "source" => r.source.clone(),
                    "fstype" => r.fstype.clone(),
                    "size" => size(r.size),
                    "used" => size(r.used),
                    "avail" => size(r.size.saturating_sub(r.used)),
                    "pcent" => percent(r.used, r.size),
                    "target" => r.target.clone(),
                    "itotal" => (r.size / 16_384).to_string(),
                    "iused" => r.inodes.to_string(),
                    "iavail" => (r.size / 16_384).saturating_sub(r.inodes).to_string(),
                    "ipcent" => percent(r.inodes, r.size / 16_384),
                    _ => "-".into(),
                })
                .collect();
            c.line(&row.join(" "));
        }
        return code;
    }
    let types = flags.contains('T') || c.has(&["--print-type"]);
    if flags.contains('i') || c.has(&["--inodes"]) {
        c.line("Filesystem      Inodes  IUsed   IFree IUse% Mounted on");
        for r in chosen {
            let total = r.size / 16_384;
            c.line(&format!(
                "{:<15} {total} {} {} {:>4} {}",
                r.source,
                r.inodes,
                total.saturating_sub(r.inodes),
                percent(r.inodes, total),
                r.target
            ));
        }
        return code;
    }
    c.line(&format!(
        "Filesystem     {}{:>9}     Used {} Use% Mounted on",
        if types { "Type     " } else { "" },
        if human {
            "Size"
        } else if flags.contains('P') {
            "1024-blocks"
        } else {
            "1K-blocks"
        },
        if human { "    Avail" } else { "Available" }
    ));
    for r in chosen {
        let kind = if types { format!("{:<8} ", r.fstype) } else { String::new() };
        c.line(&format!(
            "{:<14} {kind}{:>9} {:>8} {:>9} {:>4} {}",
            r.source,
            size(r.size),
            size(r.used),
            size(r.size.saturating_sub(r.used)),
            percent(r.used, r.size),
            r.target
        ));
    }
    code
}

fn crontab(c: &mut Call) -> i32 {
    if c.has(&["-l"]) {
        let path = format!("/var/spool/cron/crontabs/{}", c.who.name);
        if !c.m.files.exists(&path) {
            let text = format!("no crontab for {}", c.who.name);
            return c.fail(1, &text);
        }
        let text = c.m.files.text(&path);
        c.print(&text);
        return 0;
    }
    c.unsimulated("(editing)")
}
