//! `systemctl`.
use futures::future::BoxFuture;

use super::{Call, Program, later, now};
use crate::guest::fs::Who;
use crate::guest::journal;
use crate::guest::units::{self, Started, Unit, enable, enabled, full, load, state};
use crate::kube::UnitState;

pub(super) const PROGRAMS: &[Program] = &[
    later("/usr/bin/systemctl", systemctl),
    now("/usr/bin/systemd-analyze", |c| c.unsimulated("")),
    now("/usr/bin/systemd-detect-virt", virt),
];

fn virt(c: &mut Call) -> i32 {
    if !c.has(&["-q", "--quiet"]) {
        c.line("kvm");
    }
    0
}

fn systemctl(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut ops =
            c.operands(&["-p", "--property", "-n", "--lines", "-t", "--type", "-o", "--output", "--state", "-P"]);
        let verb = if ops.is_empty() { "list-units".to_owned() } else { ops.remove(0) };
        let change = [
            "start",
            "stop",
            "restart",
            "reload",
            "reload-or-restart",
            "try-restart",
            "enable",
            "disable",
            "mask",
            "unmask",
            "daemon-reload",
            "reset-failed",
            "reenable",
            "kill",
            "set-default",
            "isolate",
            "daemon-reexec",
            "try-reload-or-restart",
        ];
        if change.contains(&verb.as_str()) && c.who.uid != 0 {
            if ops.is_empty() {
                let what = if verb.starts_with("daemon-") { "reload daemon" } else { verb.as_str() };
                let text = format!("Failed to {what}: Interactive authentication required.");
                return c.fail(1, &text);
            }
            let text = format!(
                "Failed to {verb} {}: Interactive authentication required.\nSee system logs and 'systemctl status {}' for details.",
                ops.join(" "),
                ops.join(" ")
            );
            return c.fail(4, &text);
        }
        match verb.as_str() {
            "daemon-reload" | "daemon-reexec" | "reset-failed" | "set-default" => 0,
            "start" | "restart" | "reload-or-restart" | "try-restart" | "reload" | "try-reload-or-restart" => {
                start_all(c, &verb, ops).await
            }
            "stop" | "kill" => stop_all(c, ops).await,
            "enable" | "reenable" => enable_all(c, ops).await,
            "disable" => disable_all(c, ops).await,
            "mask" | "unmask" => mask(c, &verb, &ops),
            "is-active" | "is-failed" | "is-enabled" => ask(c, &verb, &ops),
            "status" => status(c, &ops),
            "show" => show(c, &ops),
            "cat" => cat(c, &ops),
            "list-units" | "list-unit-files" | "list-timers" => list(c, &verb, &ops),
            "is-system-running" => running(c).await,
            "poweroff" | "halt" => super::power::down(c, false),
            "reboot" => super::power::down(c, true),
            "get-default" => {
                c.line("multi-user.target");
                0
            }
            other if OTHERS.split_whitespace().any(|v| v == other) => c.unsimulated(&verb.clone()),
            other => {
                let text = format!("Unknown command verb {other}.");
                c.fail(1, &text)
            }
        }
    })
}

/// Verbs of the real one that are not simulated.
const OTHERS: &str = "edit list-dependencies list-sockets list-automounts list-paths list-jobs list-machines help \
    show-environment set-environment unset-environment import-environment set-property isolate clean freeze thaw \
    preset preset-all revert add-wants add-requires link cancel log-level log-target service-log-level service-watchdogs \
    rescue emergency kexec suspend hibernate hybrid-sleep switch-root bind mount-image default exit soft-reboot";

async fn running(c: &mut Call) -> i32 {
    let failed = c.guest(|g| g.services.values().any(|s| s.state == "failed")).unwrap_or_default();
    if c.has(&["--wait"]) {
        while c.guest(|g| g.cloud_init == crate::guest::state::CloudStatus::Running) == Some(true) {
            c.pause(1000).await;
        }
    }
    let starting = c.guest(|g| g.cloud_init == crate::guest::state::CloudStatus::Running) == Some(true);
    c.line(if starting {
        "starting"
    } else if failed {
        "degraded"
    } else {
        "running"
    });
    i32::from(starting || failed)
}

fn unit(c: &mut Call, verb: &str, name: &str) -> Result<Unit, i32> {
    match load(&c.m.files, name) {
        Some(u) => Ok(u),
        None => {
            let n = full(name);
            let text = match verb {
                "enable" | "disable" | "reenable" => format!("Failed to {verb} unit: Unit file {n} does not exist."),
                "stop" => format!("Failed to stop {n}: Unit {n} not loaded."),
                _ => format!(
                    "Failed to {} {n}: Unit {n} not found.",
                    if verb == "reload-or-restart" { "reload-or-restart" } else { verb }
                ),
            };
            Err(c.fail(if matches!(verb, "enable" | "disable" | "reenable") { 1 } else { 5 }, &text))
        }
    }
}

fn active(c: &Call, name: &str) -> String {
    c.world(|w| state(w, c.m.vmid, name).0)
}

async fn start_all(c: &mut Call, verb: &str, names: Vec<String>) -> i32 {
    let mut code = 0;
    for n in names {
        let u = match unit(c, verb, &n) {
            Ok(u) => u,
            Err(e) => {
                if c.world(|w| state(w, c.m.vmid, &full(&n)).0 == "active")
                    && load(&c.m.files, &n).is_none()
                    && verb != "reload"
                    && c.guest(|g| !g.services.contains_key(&full(&n))) == Some(true)
                {
                    continue;
                }
                code = e;
                continue;
            }
        };
        let now = active(c, &u.name);
        if verb == "start" && now == "active" {
            continue;
        }
        if verb.starts_with("try-") && now != "active" {
            continue;
        }
        // A unit of the administrator's own does what it says, and no more.
        let deaf = u.path.starts_with("/etc/systemd/system") && u.get("Service.ExecReload").is_empty();
        if verb.contains("reload") && now == "active" && !deaf {
            if u.name == "nfs-server.service" {
                let m = c.m.clone();
                c.world(|w| crate::guest::nfs::server_started(w, &m));
            }
            c.pause(100).await;
            continue;
        }
        if verb == "reload" {
            let text = format!("Failed to reload {0}: Job type reload is not applicable for unit {0}.", u.name);
            code = c.fail(1, &text);
            continue;
        }
        if now != "inactive" {
            let (lab, m) = (c.m.lab.clone(), c.m.clone());
            c.world(|w| units::stop(&lab, w, &m, &u.name));
            c.pause(800).await;
        }
        if let Err(text) = start_one(c, &u).await {
            code = c.fail(1, &text);
        }
    }
    code
}

async fn start_one(c: &mut Call, u: &Unit) -> Result<(), String> {
    let (lab, m) = (c.m.lab.clone(), c.m.clone());
    let started = lab.with(|w| units::start(&lab, w, &m, u))?;
    let no_block = c.has(&["--no-block"]);
    match started {
        Started::Done => c.pause(200).await,
        Started::K3s { wait } if wait && !no_block => loop {
            c.pause(1000).await;
            match lab.with(|w| crate::kube::k3s_unit(w, m.vmid)) {
                UnitState::Active => break,
                UnitState::Failed(_) => return Err(units::failed(u)),
                UnitState::Activating => {}
            }
        },
        Started::K3s { .. } => c.pause(200).await,
        Started::Run(lines) if no_block => {
            let (u, mark) = (u.clone(), lab.clock().busy_guard());
            lab.rt().spawn(async move {
                let _ = units::run_lines(&m, &u, &lines).await;
                drop(mark);
            });
        }
        Started::Run(lines) => units::run_lines(&m, u, &lines).await?,
    }
    Ok(())
}

async fn stop_all(c: &mut Call, names: Vec<String>) -> i32 {
    let mut code = 0;
    for n in names {
        let name = match load(&c.m.files, &n) {
            Some(u) => u.name,
            None if c.guest(|g| g.services.contains_key(&full(&n))) == Some(true) => full(&n),
            None => {
                let f = full(&n);
                code = c.fail(5, &format!("Failed to stop {f}: Unit {f} not loaded."));
                continue;
            }
        };
        let (lab, m) = (c.m.lab.clone(), c.m.clone());
        c.world(|w| units::stop(&lab, w, &m, &name));
        c.pause(500).await;
    }
    code
}

async fn enable_all(c: &mut Call, names: Vec<String>) -> i32 {
    let mut code = 0;
    for n in &names {
        match unit(c, "enable", n) {
            Ok(u) if u.path == "/dev/null" => {
                let text = format!("Failed to enable unit: Unit file {} is masked.", u.name);
                code = c.fail(1, &text);
            }
            Ok(u) => {
                for (link, target) in enable(&c.m.files, &u) {
                    c.complain(&format!("Created symlink {link} → {target}."));
                }
                if !u.keys.keys().any(|k| k.starts_with("Install.")) {
                    c.complain("The unit files have no installation config (WantedBy=, RequiredBy=, Also=,\nAlias= settings in the [Install] section, and DefaultInstance= for template\nunits). This means they are not meant to be enabled or disabled using systemctl.");
                }
            }
            Err(e) => code = e,
        }
    }
    if code == 0 && c.has(&["--now"]) {
        return start_all(c, "start", names).await;
    }
    code
}

async fn disable_all(c: &mut Call, names: Vec<String>) -> i32 {
    let mut code = 0;
    for n in &names {
        match unit(c, "disable", n) {
            Ok(u) => {
                for link in units::disable(&c.m.files, &u.name) {
                    c.complain(&format!("Removed \"{link}\"."));
                }
            }
            Err(e) => code = e,
        }
    }
    if c.has(&["--now"]) {
        stop_all(c, names).await;
    }
    code
}

fn mask(c: &mut Call, verb: &str, names: &[String]) -> i32 {
    let root = Who::root();
    for n in names {
        let path = format!("/etc/systemd/system/{}", full(n));
        if verb == "mask" {
            if c.m
                .files
                .stat(&root, &path, false)
                .is_ok_and(|n| matches!(n.kind, crate::guest::fs::tree::Kind::File(_)))
            {
                let text = format!("Failed to mask unit: File {path} already exists.");
                return c.fail(1, &text);
            }
            let _ = c.m.files.remove(&root, &path, false);
            let _ = c.m.files.symlink(&root, "/dev/null", &path);
            c.complain(&format!("Created symlink {path} → /dev/null."));
            if c.has(&["--now"]) {
                let (lab, m, name) = (c.m.lab.clone(), c.m.clone(), full(n));
                c.world(|w| units::stop(&lab, w, &m, &name));
            }
        } else if c.m.files.resolve(&path, true).is_ok_and(|p| p == "/dev/null")
            && c.m.files.remove(&root, &path, false).is_ok()
        {
            c.complain(&format!("Removed \"{path}\"."));
        }
    }
    0
}

fn ask(c: &mut Call, verb: &str, names: &[String]) -> i32 {
    let quiet = c.has(&["-q", "--quiet"]);
    let mut code = if verb == "is-active" { 3 } else { 1 };
    for n in names {
        let (text, yes, no) = if verb == "is-enabled" {
            let e = enabled(&c.m.files, n);
            if e.is_empty() {
                if !quiet {
                    let text = format!("Failed to get unit file state for {}: No such file or directory", full(n));
                    c.complain(&text);
                }
                continue;
            }
            (e.to_owned(), matches!(e, "enabled" | "static"), 1)
        } else {
            let name = load(&c.m.files, n).map_or_else(|| full(n), |u| u.name);
            let s = active(c, &name);
            let yes = if verb == "is-failed" { s == "failed" } else { s == "active" };
            (s, yes, 3)
        };
        if !quiet {
            c.line(&text);
        }
        if yes {
            code = 0;
        } else if code != 0 {
            code = no;
        }
    }
    code
}

fn status(c: &mut Call, names: &[String]) -> i32 {
    let mut code = 0;
    for n in names {
        let Some(u) = load(&c.m.files, n) else {
            let text = format!("Unit {} could not be found.", full(n));
            code = c.fail(4, &text);
            continue;
        };
        let (a, sub) = c.world(|w| state(w, c.m.vmid, &u.name));
        let since = c.guest(|g| g.services.get(&u.name).map(|s| (s.since_ms, s.pid))).flatten().unwrap_or_default();
        let dot = if a == "active" {
            "●"
        } else if a == "failed" {
            "×"
        } else {
            "○"
        };
        c.line(&format!("{dot} {} - {}", u.name, u.get("Unit.Description")));
        c.line(&format!("     Loaded: loaded ({}; {}; preset: enabled)", u.path, enabled(&c.m.files, &u.name)));
        let when = if since.0 > 0 { format!(" since {}", journal::long(since.0)) } else { String::new() };
        c.line(&format!("     Active: {a} ({sub}){when}"));
        if since.1 > 0 && a == "active" {
            c.line(&format!("   Main PID: {}", since.1));
        }
        c.line("");
        let n: usize = c.value(&["-n", "--lines"]).and_then(|n| n.parse().ok()).unwrap_or(10);
        for l in super::journalctl::of_unit(c, &u.name, n) {
            c.line(&l);
        }
        code = if a == "active" || a == "activating" { code } else { 3 };
    }
    code
}

fn show(c: &mut Call, names: &[String]) -> i32 {
    let mut want: Vec<String> = Vec::new();
    let mut args = c.args.clone().into_iter();
    while let Some(a) = args.next() {
        let v = if a == "-p" || a == "--property" || a == "-P" {
            args.next()
        } else {
            a.strip_prefix("--property=").or_else(|| a.strip_prefix("-p").filter(|r| !r.is_empty())).map(str::to_owned)
        };
        want.extend(v.into_iter().flat_map(|v| v.split(',').map(str::to_owned).collect::<Vec<_>>()));
    }
    let value_only = c.has(&["--value", "-P"]);
    for (i, n) in names.iter().enumerate() {
        if i > 0 && !value_only {
            c.line("");
        }
        let u = load(&c.m.files, n);
        let name = u.as_ref().map_or_else(|| full(n), |u| u.name.clone());
        let (a, sub) = c.world(|w| state(w, c.m.vmid, &name));
        let s = c.guest(|g| g.services.get(&name).cloned()).flatten().unwrap_or_default();
        let loaded = match &u {
            Some(u) if u.path == "/dev/null" => "masked",
            Some(_) => "loaded",
            None => "not-found",
        };
        let stamp = if a == "active" && s.since_ms > 0 { journal::long(s.since_ms) } else { String::new() };
        let all = [
            ("Id", name.clone()),
            (
                "Type",
                u.as_ref()
                    .map(|u| u.get("Service.Type").to_owned())
                    .filter(|t| !t.is_empty())
                    .unwrap_or_else(|| "simple".into()),
            ),
            ("LoadState", loaded.into()),
            ("ActiveState", a.clone()),
            ("SubState", sub),
            ("UnitFileState", enabled(&c.m.files, &name).into()),
            ("MainPID", if a == "active" { s.pid } else { 0 }.to_string()),
            ("ExecMainStatus", s.status.to_string()),
            ("ExecMainStartTimestamp", stamp.clone()),
            ("ActiveEnterTimestamp", stamp),
            (
                "ActiveEnterTimestampMonotonic",
                (s.since_ms.saturating_sub(c.guest(|g| g.booted_ms).unwrap_or_default()) * 1000).to_string(),
            ),
            ("Result", if s.state == "failed" { "exit-code" } else { "success" }.into()),
            ("NRestarts", "0".into()),
            ("FragmentPath", u.as_ref().map(|u| u.path.clone()).unwrap_or_default()),
            ("NeedDaemonReload", "no".into()),
            ("Description", u.as_ref().map(|u| u.get("Unit.Description").to_owned()).unwrap_or_default()),
        ];
        for (k, v) in all.iter().filter(|(k, _)| want.is_empty() || want.iter().any(|w| w == k)) {
            c.line(&if value_only { v.clone() } else { format!("{k}={v}") });
        }
    }
    0
}

fn cat(c: &mut Call, names: &[String]) -> i32 {
    for n in names {
        let Some(u) = load(&c.m.files, n) else {
            let text = format!("No files found for {}.", full(n));
            return c.fail(1, &text);
        };
        let text = c.m.files.text(&u.path);
        c.line(&format!("# {}", u.path));
        c.print(&text);
        let dir = format!("/etc/systemd/system/{}.d", u.name);
        for (f, _) in c.m.files.list(&Who::root(), &dir).unwrap_or_default() {
            let text = c.m.files.text(&format!("{dir}/{f}"));
            c.print(&format!("\n# {dir}/{f}\n{text}"));
        }
    }
    0
}

/// Names of the units that `list-…` looks at: with a file or a state, in order.
fn names(c: &Call, verb: &str, patterns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = c.guest(|g| g.services.keys().cloned().collect()).unwrap_or_default();
    for d in ["/etc/systemd/system", "/usr/lib/systemd/system"] {
        names.extend(
            c.m.files
                .list(&Who::root(), d)
                .unwrap_or_default()
                .into_iter()
                .map(|(n, _)| n)
                .filter(|n| n.ends_with(".service") || n.ends_with(".timer") || n.ends_with(".socket")),
        );
    }
    names.sort();
    names.dedup();
    let kind = if verb == "list-timers" { Some("timer".to_owned()) } else { c.value(&["-t", "--type"]) };
    let fits = |n: &String, p: &String| *n == full(p) || (p.contains('*') && n.contains(p.trim_matches('*')));
    names.retain(|n| kind.as_ref().is_none_or(|k| n.ends_with(&format!(".{k}"))));
    names.retain(|n| patterns.is_empty() || patterns.iter().any(|p| fits(n, p)));
    names
}

/// What stands below a list of units.
const LEGEND: &str = "LOAD   = Reflects whether the unit definition was properly loaded.\n\
    ACTIVE = The high-level unit activation state, i.e. generalization of SUB.\n\
    SUB    = The low-level unit activation state, values depend on unit type.";

fn list(c: &mut Call, verb: &str, patterns: &[String]) -> i32 {
    let want = c.value(&["--state"]).or_else(|| c.has(&["--failed"]).then(|| "failed".to_owned()));
    let every = c.has(&["-a", "--all"]) || !patterns.is_empty();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for n in names(c, verb, patterns) {
        let loaded = load(&c.m.files, &n);
        if verb == "list-unit-files" {
            let e = enabled(&c.m.files, &n);
            if loaded.is_some() && want.as_ref().is_none_or(|w| *w == e) {
                rows.push(vec![n, e.to_owned(), "enabled".to_owned()]);
            }
            continue;
        }
        let (a, sub) = c.world(|w| state(w, c.m.vmid, &n));
        if !(every || a != "inactive") || want.as_ref().is_some_and(|w| *w != a && *w != sub) {
            continue;
        }
        if verb == "list-timers" {
            // When timers are due is not simulated.
            let service = n.replace(".timer", ".service");
            rows.push(["-", "-", "-", "-"].map(str::to_owned).into_iter().chain([n, service]).collect());
            continue;
        }
        let d = loaded.as_ref().map(|u| u.get("Unit.Description").to_owned()).unwrap_or_default();
        let dot = if c.has(&["--plain"]) {
            ""
        } else if a == "failed" {
            "● "
        } else {
            "  "
        };
        let word = if loaded.is_some() { "loaded" } else { "not-found" };
        rows.push(vec![format!("{dot}{n}"), word.to_owned(), a, sub, d]);
    }
    let plain = c.has(&["--no-legend", "--legend=false", "-q", "--quiet"]);
    let count = rows.len();
    let head: &[&str] = match verb {
        "list-unit-files" => &["UNIT FILE", "STATE", "PRESET"],
        "list-timers" => &["NEXT", "LEFT", "LAST", "PASSED", "UNIT", "ACTIVATES"],
        _ => &["  UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"],
    };
    if !plain {
        rows.insert(0, head.iter().map(|h| (*h).to_owned()).collect());
    }
    let widths: Vec<usize> =
        (0..head.len()).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    for r in &rows {
        let line: String = r.iter().zip(&widths).map(|(t, w)| format!("{t:<w$} ")).collect();
        c.line(line.trim_end());
    }
    let s = if count == 1 { "" } else { "s" };
    match verb {
        _ if plain => {}
        "list-unit-files" => c.line(&format!("\n{count} unit file{s} listed.")),
        "list-timers" => c.line(&format!("\n{count} timer{s} listed.")),
        _ if count == 0 => c.line("\n0 loaded units listed."),
        _ => c.line(&format!("\n{LEGEND}\n{count} loaded unit{s} listed.")),
    }
    0
}
