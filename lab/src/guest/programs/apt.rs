//! `apt-get`, `apt`, `apt-cache`, `apt-mark`, `dpkg`, `dpkg-query`.
use futures::future::BoxFuture;

use super::{Call, Program, later, now};
use crate::guest::apt as pkg;

pub(super) const PROGRAMS: &[Program] = &[
    later("/usr/bin/apt-get", apt_get),
    later("/usr/bin/apt", apt_get),
    now("/usr/bin/apt-cache", apt_cache),
    now("/usr/bin/apt-mark", apt_mark),
    now("/usr/bin/apt-config", |c| c.unsimulated("")),
    now("/usr/bin/dpkg", dpkg),
    now("/usr/bin/dpkg-query", dpkg_query),
    now("/usr/sbin/dpkg-reconfigure", |_| 0),
    now("/usr/bin/debconf-set-selections", |_| 0),
    now("/usr/bin/needs-restarting", |_| 0),
];

const ROOT: &str = "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?";

fn apt_get(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut ops = c.operands(&["-o", "-t", "--target-release", "-c", "--option"]);
        if ops.is_empty() {
            return c.fail(1, "E: No operation given");
        }
        let verb = ops.remove(0);
        let quiet = c.args.iter().any(|a| {
            a.starts_with("-qq") || a == "-q" || a.starts_with("-yq") || a.starts_with("-qy") || a == "--quiet"
        });
        if matches!(verb.as_str(), "list" | "show" | "policy" | "search") {
            return query(c, &verb, &ops);
        }
        if !c.has(&["-s", "--dry-run", "--simulate"]) && !c.must_be_root(ROOT) {
            return 100;
        }
        let lab = c.m.lab.clone();
        let m = c.m.clone();
        match verb.as_str() {
            "update" => {
                pkg::update(&lab, &m, "apt-get").await;
                if !quiet {
                    c.print("Hit:1 http://deb.debian.org/debian bookworm InRelease\nGet:2 http://deb.debian.org/debian bookworm-updates InRelease [55.4 kB]\nReading package lists... Done\n");
                }
                0
            }
            "install" | "reinstall" => install(c, ops, quiet).await,
            "remove" | "purge" | "autoremove" | "autopurge" => remove(c, &verb, ops).await,
            "upgrade" | "dist-upgrade" | "full-upgrade" => {
                if let Some(code) = take_lock(c).await {
                    return code;
                }
                pkg::unlock(&m);
                pkg::upgrade(&lab, &m, "apt-get").await;
                c.print("Reading package lists... Done\nBuilding dependency tree... Done\nCalculating upgrade... Done\n0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n");
                0
            }
            "clean" | "autoclean" | "check" => 0,
            other => {
                let text = format!("E: Invalid operation {other}");
                c.fail(100, &text)
            }
        }
    })
}

/// Takes the dpkg lock, waiting as long as `DPkg::Lock::Timeout` says. An exit status when that fails.
async fn take_lock(c: &mut Call) -> Option<i32> {
    let timeout = c.args.iter().find_map(|a| a.split_once("DPkg::Lock::Timeout=").map(|p| p.1.to_owned()));
    let mut left: i64 = timeout.and_then(|t| t.parse().ok()).unwrap_or(if c.name == "apt" { 120 } else { 0 });
    let unlimited = left < 0;
    loop {
        let m = c.m.clone();
        match pkg::lock(&m, &c.name) {
            Ok(()) => return None,
            Err(holder) if left == 0 => {
                return Some(c.fail(100, &format!("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1412 ({holder})\nN: Be aware that removing the lock file is not a solution and may break your system.\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?")));
            }
            Err(_) => {
                c.pause(1000).await;
                if !unlimited {
                    left -= 1;
                }
            }
        }
    }
}

async fn install(c: &mut Call, names: Vec<String>, quiet: bool) -> i32 {
    let dry = c.has(&["-s", "--dry-run", "--simulate"]);
    if names.iter().any(|n| n.ends_with(".deb")) {
        return c.unsimulated("install FILE.deb");
    }
    if dry {
        let order =
            c.guest(|g| pkg::resolve(g, &names).map(|o| o.iter().map(|x| (x.name, x.version)).collect::<Vec<_>>()));
        return match order {
            Some(Ok(o)) => {
                for (n, v) in o {
                    c.line(&format!("Inst {n} ({v} Debian:12.12/stable [amd64])"));
                }
                0
            }
            Some(Err(n)) => c.fail(100, &format!("E: Unable to locate package {n}")),
            None => 1,
        };
    }
    if let Some(code) = take_lock(c).await {
        return code;
    }
    let (lab, m) = (c.m.lab.clone(), c.m.clone());
    let held = c.guest(|g| names.iter().find(|n| g.facts.held.contains(*n)).cloned()).flatten();
    let result = match held {
        Some(h)
            if !c.has(&["--allow-change-held-packages"])
                && c.guest(|g| pkg::installed(g, &h).is_none()).unwrap_or(true) =>
        {
            Err(format!("E: Held packages were changed and -y was used without --allow-change-held-packages. ({h})"))
        }
        _ => {
            let _ = c.flush().await;
            pkg::install_locked(&lab, &m, &names).await
        }
    };
    pkg::unlock(&m);
    match result {
        Ok(order) => {
            if !quiet {
                c.print("Reading package lists... Done\nBuilding dependency tree... Done\nReading state information... Done\n");
                for n in names.iter().filter(|n| !order.iter().any(|o| o.name == n.as_str())) {
                    let v = c.guest(|g| pkg::installed(g, n)).flatten().unwrap_or_default();
                    c.line(&format!("{n} is already the newest version ({v})."));
                }
            }
            for x in &order {
                c.line(&format!("Setting up {} ({}) ...", x.name, x.version));
            }
            if !quiet {
                c.line(&format!("0 upgraded, {} newly installed, 0 to remove and 0 not upgraded.", order.len()));
            }
            0
        }
        Err(e) => c.fail(100, &format!("Reading package lists...\n{e}")),
    }
}

async fn remove(c: &mut Call, verb: &str, names: Vec<String>) -> i32 {
    if let Some(code) = take_lock(c).await {
        return code;
    }
    c.pause(1500).await;
    let m = c.m.clone();
    for n in &names {
        if pkg::candidate(n).is_none() {
            pkg::unlock(&m);
            return c.fail(100, &format!("E: Unable to locate package {n}"));
        }
        if pkg::remove(&m.lab, &m, n) {
            c.line(&format!("Removing {n} ..."));
        } else {
            c.line(&format!("Package '{n}' is not installed, so not removed"));
        }
    }
    pkg::unlock(&m);
    if names.is_empty() && verb.starts_with("auto") {
        c.line("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.");
    }
    0
}

fn query(c: &mut Call, verb: &str, names: &[String]) -> i32 {
    match verb {
        "policy" => policy(c, names),
        "list" => {
            c.line("Listing...");
            let all = c.guest(|g| pkg::all_installed(g)).unwrap_or_default();
            for (n, v) in all.iter().filter(|(n, _)| names.is_empty() || names.contains(n)) {
                if !c.has(&["--upgradable"]) {
                    c.line(&format!("{n}/stable,now {v} amd64 [installed]"));
                }
            }
            0
        }
        _ => show(c, names),
    }
}

fn show(c: &mut Call, names: &[String]) -> i32 {
    let mut code = 0;
    for n in names {
        match pkg::candidate(n) {
            Some(v) => c.line(&format!("Package: {n}\nVersion: {v}\nArchitecture: amd64\n")),
            None => code = c.fail(100, "E: No packages found"),
        }
    }
    code
}

fn policy(c: &mut Call, names: &[String]) -> i32 {
    if names.is_empty() {
        c.line("Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n 500 http://deb.debian.org/debian bookworm/main amd64 Packages\n     release v=12.12,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64\n     origin deb.debian.org\nPinned packages:");
        return 0;
    }
    for n in names {
        if let Some(v) = pkg::candidate(n) {
            let have = c.guest(|g| pkg::installed(g, n)).flatten().unwrap_or_else(|| "(none)".into());
            c.line(&format!("{n}:\n  Installed: {have}\n  Candidate: {v}\n  Version table:\n     {v} 500\n        500 http://deb.debian.org/debian bookworm/main amd64 Packages"));
        }
    }
    0
}

fn apt_cache(c: &mut Call) -> i32 {
    let mut ops = c.operands(&[]);
    if ops.is_empty() {
        return 0;
    }
    match ops.remove(0).as_str() {
        "policy" => policy(c, &ops),
        "show" | "search" | "madison" => show(c, &ops),
        other => {
            let o = other.to_owned();
            c.unsimulated(&o)
        }
    }
}

fn apt_mark(c: &mut Call) -> i32 {
    let mut ops = c.operands(&[]);
    let verb = if ops.is_empty() { String::new() } else { ops.remove(0) };
    match verb.as_str() {
        "hold" | "unhold" => {
            if !c.must_be_root(ROOT) {
                return 100;
            }
            for n in ops {
                if pkg::candidate(&n).is_none() {
                    return c.fail(100, &format!("E: Unable to locate package {n}"));
                }
                let hold = verb == "hold";
                let changed = c.guest(|g| if hold { g.facts.held.insert(n.clone()) } else { g.facts.held.remove(&n) });
                c.line(&match (hold, changed) {
                    (true, Some(true)) => format!("{n} set on hold."),
                    (true, _) => format!("{n} was already set on hold."),
                    (false, Some(true)) => format!("Canceled hold on {n}."),
                    (false, _) => format!("{n} was already not on hold."),
                });
            }
            0
        }
        "showhold" => {
            let all = c.guest(|g| g.facts.held.clone()).unwrap_or_default();
            for n in all.iter().filter(|n| ops.is_empty() || ops.contains(n)) {
                c.line(n);
            }
            0
        }
        "auto" | "manual" | "showmanual" | "showauto" => 0,
        _ => c.fail(100, &format!("E: Invalid operation {verb}")),
    }
}

fn dpkg(c: &mut Call) -> i32 {
    let ops = c.operands(&[]);
    if c.has(&["--print-architecture"]) {
        c.line("amd64");
        return 0;
    }
    if c.has(&["--configure"]) || c.has(&["--print-foreign-architectures"]) {
        return 0;
    }
    if c.has(&["-s", "--status"]) {
        let mut code = 0;
        for n in &ops {
            match c.guest(|g| pkg::installed(g, n)).flatten() {
                Some(v) => c.line(&format!("Package: {n}\nStatus: install ok installed\nPriority: optional\nSection: admin\nArchitecture: amd64\nVersion: {v}\n")),
                None => code = c.fail(1, &format!("dpkg-query: package '{n}' is not installed and no information is available\nUse dpkg --info (= dpkg-deb --info) to examine archive files.")),
            }
        }
        return code;
    }
    if c.has(&["-l", "--list"]) {
        return list(c, &ops);
    }
    if c.has(&["-L", "--listfiles"]) {
        return super::owners::list(c, &ops);
    }
    if c.has(&["-S", "--search"]) {
        return super::owners::search(c, &ops);
    }
    if c.has(&["--compare-versions"]) {
        return compare(c, &ops);
    }
    c.unsimulated(&c.args.join(" "))
}

/// Debian's order of two versions.
fn order(a: &str, b: &str) -> std::cmp::Ordering {
    let epoch = |v: &str| v.split_once(':').map_or((0, v.to_owned()), |(e, r)| (e.parse().unwrap_or(0), r.to_owned()));
    let parts = |v: &str| {
        let mut out: Vec<(String, u64)> = Vec::new();
        let mut it = v.chars().peekable();
        while it.peek().is_some() {
            let mut text = String::new();
            while let Some(ch) = it.next_if(|c| !c.is_ascii_digit()) {
                // `~` sorts before everything, letters before other signs.
                text.push(if ch == '~' {
                    '\u{1}'
                } else if ch.is_ascii_alphabetic() {
                    ch
                } else {
                    char::from(ch as u8 | 0x80)
                });
            }
            let mut number = String::new();
            while let Some(ch) = it.next_if(char::is_ascii_digit) {
                number.push(ch);
            }
            out.push((if text.is_empty() { "\u{2}".into() } else { text + "\u{2}" }, number.parse().unwrap_or(0)));
        }
        out.push(("\u{2}".into(), 0));
        out
    };
    let ((ea, a), (eb, b)) = (epoch(a), epoch(b));
    ea.cmp(&eb).then_with(|| parts(&a).cmp(&parts(&b)))
}

fn compare(c: &mut Call, ops: &[String]) -> i32 {
    let [a, op, b] = ops else {
        return c.fail(2, "dpkg: error: --compare-versions takes three arguments: <version> <relation> <version>");
    };
    let o = order(a, b);
    let yes = match op.as_str() {
        "lt" | "<<" => o.is_lt(),
        "le" | "<=" | "<" => o.is_le(),
        "eq" | "=" => o.is_eq(),
        "ne" => o.is_ne(),
        "ge" | ">=" | ">" => o.is_ge(),
        "gt" | ">>" => o.is_gt(),
        _ => return c.fail(2, &format!("dpkg: error: --compare-versions bad relation '{op}'")),
    };
    i32::from(!yes)
}

fn list(c: &mut Call, names: &[String]) -> i32 {
    let all = c.guest(|g| pkg::all_installed(g)).unwrap_or_default();
    let hit = |n: &str| names.is_empty() || names.iter().any(|p| glob(p, n));
    let rows: Vec<_> = all.into_iter().filter(|(n, _)| hit(n)).collect();
    if rows.is_empty() {
        let text = format!("dpkg-query: no packages found matching {}", names.join(" "));
        return c.fail(1, &text);
    }
    c.print("Desired=Unknown/Install/Remove/Purge/Hold\n| Status=Not/Inst/Conf-files/Unpacked/halF-conf/Half-inst/trig-aWait/Trig-pend\n|/ Err?=(none)/Reinst-required (Status,Err: uppercase=bad)\n||/ Name                          Version                        Architecture Description\n+++-=============================-==============================-============-===========\n");
    let held = c.guest(|g| g.facts.held.clone()).unwrap_or_default();
    for (n, v) in rows {
        c.line(&format!("{}i  {n:<30} {v:<30} amd64        {n}", if held.contains(&n) { 'h' } else { 'i' }));
    }
    0
}

fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((a, b)) => {
            name.len() >= a.len() + b.trim_end_matches('*').len()
                && name.starts_with(a)
                && name[a.len()..].contains(b.trim_end_matches('*'))
                && (b.ends_with('*') || name.ends_with(b))
        }
    }
}

fn dpkg_query(c: &mut Call) -> i32 {
    let ops = c.operands(&["-f", "--showformat"]);
    if c.has(&["-l", "--list"]) {
        return list(c, &ops);
    }
    if c.has(&["-s", "--status", "-L", "--listfiles", "-S", "--search"]) {
        return dpkg(c);
    }
    let format = c.value(&["-f", "--showformat", "-f="]).unwrap_or_else(|| "${Package}\\t${Version}\\n".into());
    let format = format.trim_start_matches('=').replace("\\n", "\n").replace("\\t", "\t");
    let (all, held) = c.guest(|g| (pkg::all_installed(g), g.facts.held.clone())).unwrap_or_default();
    let mut code = 0;
    let fill = |n: &str, v: &str, there: bool| {
        let want = if held.contains(n) { "hold" } else { "install" };
        let (status, abbrev) = if there {
            (format!("{want} ok installed"), format!("{}i ", &want[..1]))
        } else {
            ("unknown ok not-installed".to_owned(), "un ".to_owned())
        };
        format
            .replace("${Package}", n)
            .replace("${binary:Package}", n)
            .replace("${Version}", v)
            .replace("${Architecture}", "amd64")
            .replace("${Status}", &status)
            .replace("${db:Status-Abbrev}", &abbrev)
            .replace("${db:Status-Status}", if there { "installed" } else { "not-installed" })
            .replace("${db:Status-Want}", want)
    };
    if ops.is_empty() {
        for (n, v) in &all {
            let text = fill(n, v, true);
            c.print(&text);
        }
        return 0;
    }
    for p in &ops {
        let hits: Vec<_> = all.iter().filter(|(n, _)| glob(p.trim_end_matches(":amd64"), n)).collect();
        if hits.is_empty() {
            code = c.fail(1, &format!("dpkg-query: no packages found matching {p}"));
        }
        for (n, v) in hits {
            let text = fill(n, v, true);
            c.print(&text);
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn versions_are_ordered_as_debian_does() {
        for (a, b) in [("1.0", "1.1"), ("1.0~rc1", "1.0"), ("1.9", "1.10"), ("2", "1:1"), ("1.0-1", "1.0-1+b1")] {
            assert!(order(a, b).is_lt(), "{a} < {b}");
        }
        assert!(order("1.0", "1.0").is_eq());
    }
}
