//! systemd in a guest: unit files, what is enabled, what runs.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::clock::BusyGuard;
use gpuhost_stdlib::wire::calendar;

use super::fs::tree::{Kind, base};
use super::fs::{Files, Who};
use super::live::Machine;
use super::shell::Job;
use super::state::{Guest, Service};
use super::{journal, k3s, nfs};
use crate::Lab;
use crate::grades::missing;
use crate::kube::UnitState;
use crate::world::World;

/// Unit files of the image.
pub const IMAGE_UNITS: &[(&str, &str)] = &[
    (
        "/usr/lib/systemd/system/ssh.service",
        "[Unit]\nDescription=OpenBSD Secure Shell server\n[Service]\nType=notify\nExecStart=/usr/sbin/sshd -D\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
    ),
    (
        "/usr/lib/systemd/system/cron.service",
        "[Unit]\nDescription=Regular background program processing daemon\n[Service]\nExecStart=/usr/sbin/cron -f\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "/usr/lib/systemd/system/unattended-upgrades.service",
        "[Unit]\nDescription=Unattended Upgrades Shutdown\n[Service]\nExecStart=/usr/share/unattended-upgrades/unattended-upgrade-shutdown\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "/usr/lib/systemd/system/systemd-timesyncd.service",
        "[Unit]\nDescription=Network Time Synchronization\n[Service]\nType=notify\nExecStart=/lib/systemd/systemd-timesyncd\n[Install]\nWantedBy=sysinit.target\n",
    ),
    (
        "/usr/lib/systemd/system/systemd-networkd.service",
        "[Unit]\nDescription=Network Configuration\n[Service]\nType=notify\nExecStart=/lib/systemd/systemd-networkd\n[Install]\nWantedBy=multi-user.target\n",
    ),
    (
        "/usr/lib/systemd/system/systemd-resolved.service",
        "[Unit]\nDescription=Network Name Resolution\n[Service]\nType=notify\nExecStart=/lib/systemd/systemd-resolved\n[Install]\nWantedBy=sysinit.target\n",
    ),
    (
        "/usr/lib/systemd/system/systemd-modules-load.service",
        "[Unit]\nDescription=Load Kernel Modules\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/lib/systemd/systemd-modules-load\n",
    ),
    (
        "/usr/lib/systemd/system/systemd-sysctl.service",
        "[Unit]\nDescription=Apply Kernel Variables\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/lib/systemd/systemd-sysctl\n",
    ),
    (
        "/usr/lib/systemd/system/cloud-final.service",
        "[Unit]\nDescription=Execute cloud user/final scripts\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/cloud-init modules --mode=final\n",
    ),
    (
        "/usr/lib/systemd/system/apt-daily.timer",
        "[Unit]\nDescription=Daily apt download activities\n[Timer]\nOnCalendar=*-*-* 6,18:00\n[Install]\nWantedBy=timers.target\n",
    ),
    (
        "/usr/lib/systemd/system/apt-daily-upgrade.timer",
        "[Unit]\nDescription=Daily apt upgrade and clean activities\n[Timer]\nOnCalendar=*-*-* 6:00\n[Install]\nWantedBy=timers.target\n",
    ),
    (
        "/usr/lib/systemd/system/apt-daily.service",
        "[Unit]\nDescription=Daily apt download activities\n[Service]\nType=oneshot\nExecStart=/usr/lib/apt/apt.systemd.daily update\n",
    ),
    (
        "/usr/lib/systemd/system/apt-daily-upgrade.service",
        "[Unit]\nDescription=Daily apt upgrade and clean activities\n[Service]\nType=oneshot\nExecStart=/usr/lib/apt/apt.systemd.daily install\n",
    ),
    (
        "/usr/lib/systemd/system/fstrim.timer",
        "[Unit]\nDescription=Discard unused blocks once a week\n[Timer]\nOnCalendar=weekly\n[Install]\nWantedBy=timers.target\n",
    ),
];

/// Units a package brings: package, unit, description, executable, started on installation, alias.
const PACKAGE_UNITS: &[(&str, &str, &str, &str, bool, &str)] = &[
    ("qemu-guest-agent", "qemu-guest-agent.service", "QEMU Guest Agent", "/usr/sbin/qemu-ga", false, ""),
    (
        "nfs-kernel-server",
        "nfs-server.service",
        "NFS server and services",
        "/usr/sbin/rpc.nfsd",
        true,
        "nfs-kernel-server.service",
    ),
    ("nfs-kernel-server", "nfs-mountd.service", "NFS Mount Daemon", "/usr/sbin/rpc.mountd", true, ""),
    ("nfs-common", "rpc-statd.service", "NFS status monitor for NFSv2/3 locking.", "/sbin/rpc.statd", false, ""),
    ("rpcbind", "rpcbind.service", "RPC bind portmap service", "/sbin/rpcbind", true, ""),
    ("rpcbind", "rpcbind.socket", "RPCbind Server Activation Socket", "", true, ""),
    ("open-iscsi", "iscsid.service", "iSCSI initiator daemon (iscsid)", "/sbin/iscsid", false, ""),
    ("open-iscsi", "open-iscsi.service", "Login to default iSCSI targets", "/sbin/iscsiadm", true, "iscsi.service"),
    ("chrony", "chrony.service", "chrony, an NTP client/server", "/usr/sbin/chronyd", true, "chronyd.service"),
    (
        "multipath-tools",
        "multipathd.service",
        "Device-Mapper Multipath Device Controller",
        "/sbin/multipathd",
        true,
        "",
    ),
    ("auditd", "auditd.service", "Security Auditing Service", "/sbin/auditd", true, ""),
    ("fail2ban", "fail2ban.service", "Fail2Ban Service", "/usr/bin/fail2ban-server", true, ""),
    ("nftables", "nftables.service", "nftables", "/usr/sbin/nft", false, ""),
    ("ufw", "ufw.service", "Uncomplicated firewall", "/usr/sbin/ufw", true, ""),
    (
        "prometheus-node-exporter",
        "prometheus-node-exporter.service",
        "Prometheus exporter for machine metrics",
        "/usr/bin/prometheus-node-exporter",
        true,
        "",
    ),
    ("rsyslog", "rsyslog.service", "System Logging Service", "/usr/sbin/rsyslogd", true, ""),
    (
        "smartmontools",
        "smartmontools.service",
        "Self Monitoring and Reporting Technology (SMART) Daemon",
        "/usr/sbin/smartd",
        true,
        "",
    ),
];

/// Units without a file that always run.
const ALWAYS: &[&str] = &[
    "dbus.service",
    "systemd-journald.service",
    "systemd-logind.service",
    "systemd-udevd.service",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-init-local.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
];

/// A unit as its files describe it.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// Name with its suffix.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Sections and keys with all values in order.
    pub keys: BTreeMap<String, Vec<String>>,
}

impl Unit {
    /// The last value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.keys.get(key).and_then(|v| v.last()).map_or("", String::as_str)
    }

    /// All values of a key, words split.
    #[must_use]
    pub fn words(&self, key: &str) -> Vec<String> {
        self.keys.get(key).into_iter().flatten().flat_map(|v| v.split_whitespace()).map(str::to_owned).collect()
    }

    /// Whether it is a one-time job.
    #[must_use]
    pub fn oneshot(&self) -> bool {
        self.get("Service.Type") == "oneshot"
    }
}

/// Where unit files are, first wins.
const DIRS: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// A unit name with its suffix.
#[must_use]
pub fn full(name: &str) -> String {
    let known = [".service", ".timer", ".socket", ".target", ".mount", ".path", ".slice"];
    if known.iter().any(|s| name.ends_with(s)) { name.to_owned() } else { format!("{name}.service") }
}

/// Reads a unit; `None` when there is no file.
#[must_use]
pub fn load(f: &Files, name: &str) -> Option<Unit> {
    let name = full(name);
    let path = DIRS.iter().map(|d| format!("{d}/{name}")).find(|p| f.exists(p))?;
    let real = f.resolve(&path, true).ok()?;
    let mut unit = Unit { name: base(&real).to_owned(), path: real.clone(), ..Unit::default() };
    if real == "/dev/null" {
        unit.name = name;
        return Some(unit);
    }
    let mut texts = vec![f.text(&real)];
    for d in DIRS.iter().rev() {
        let dir = format!("{d}/{name}.d");
        for (file, _) in f.list(&Who::root(), &dir).unwrap_or_default() {
            if file.ends_with(".conf") {
                texts.push(f.text(&format!("{dir}/{file}")));
            }
        }
    }
    for t in texts {
        parse(&t, &mut unit.keys);
    }
    Some(unit)
}

fn parse(text: &str, keys: &mut BTreeMap<String, Vec<String>>) {
    let joined = text.replace("\\\n", " ");
    let mut section = String::new();
    for line in joined.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';'])) {
        if let Some(s) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            s.clone_into(&mut section);
        } else if let Some((k, v)) = line.split_once('=') {
            let list = keys.entry(format!("{section}.{}", k.trim())).or_default();
            if v.trim().is_empty() {
                list.clear();
            } else {
                list.push(v.trim().to_owned());
            }
        }
    }
}

/// `enabled`, `disabled`, `static`, `masked` or `` when there is no such unit.
#[must_use]
pub fn enabled(f: &Files, name: &str) -> &'static str {
    let Some(u) = load(f, name) else { return if ALWAYS.contains(&full(name).as_str()) { "static" } else { "" } };
    if u.path == "/dev/null" {
        return "masked";
    }
    let wanted = f.list(&Who::root(), DIRS[0]).unwrap_or_default();
    let dirs = wanted.iter().filter(|(n, _)| n.ends_with(".wants") || n.ends_with(".requires"));
    if dirs.into_iter().any(|(d, _)| f.stat(&Who::root(), &format!("{}/{d}/{}", DIRS[0], u.name), false).is_ok()) {
        return "enabled";
    }
    if u.keys.keys().any(|k| k.starts_with("Install.")) { "disabled" } else { "static" }
}

/// Makes the links that `enable` makes; they are returned as `link → target`.
pub fn enable(f: &Files, u: &Unit) -> Vec<(String, String)> {
    let root = Who::root();
    let mut made = Vec::new();
    for (key, suffix) in [("Install.WantedBy", "wants"), ("Install.RequiredBy", "requires")] {
        for target in u.words(key) {
            let dir = format!("{}/{target}.{suffix}", DIRS[0]);
            let link = format!("{dir}/{}", u.name);
            let _ = f.mkdir(&root, &dir, true, 0o755);
            if f.symlink(&root, &u.path, &link).is_ok() {
                made.push((link, u.path.clone()));
            }
        }
    }
    for alias in u.words("Install.Alias") {
        let link = format!("{}/{alias}", DIRS[0]);
        if f.symlink(&root, &u.path, &link).is_ok() {
            made.push((link, u.path.clone()));
        }
    }
    made
}

/// Removes the links again; they are returned.
pub fn disable(f: &Files, name: &str) -> Vec<String> {
    let root = Who::root();
    let mut gone = Vec::new();
    for (dir, _) in f.list(&root, DIRS[0]).unwrap_or_default() {
        let link = format!("{}/{dir}/{name}", DIRS[0]);
        if (dir.ends_with(".wants") || dir.ends_with(".requires")) && f.remove(&root, &link, false).is_ok() {
            gone.push(link);
        }
    }
    gone
}

/// State and sub-state of a unit.
#[must_use]
pub fn state(w: &World, vmid: u32, name: &str) -> (String, String) {
    let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let Some(g) = w.guests.get(&vmid) else { return text("inactive", "dead") };
    let Some(s) = g.services.get(name) else {
        return if ALWAYS.contains(&name) {
            text("active", if name.ends_with(".target") { "active" } else { "running" })
        } else {
            text("inactive", "dead")
        };
    };
    if k3s::is_unit(name) && s.state != "inactive" {
        return match crate::kube::k3s_unit(w, vmid) {
            UnitState::Active => text("active", "running"),
            UnitState::Activating => text("activating", "start"),
            UnitState::Failed(_) => text("activating", "auto-restart"),
        };
    }
    let sub = match s.state.as_str() {
        "active" if name.ends_with(".timer") => "waiting",
        "active" if s.pid == 0 => "exited",
        "active" => "running",
        "failed" => "failed",
        "activating" => "start",
        _ => "dead",
    };
    (s.state.clone(), sub.to_owned())
}

/// What is left to do after [`start`].
pub enum Started {
    /// It runs.
    Done,
    /// K3s says when it is ready.
    K3s {
        /// Whether `systemctl start` waits for it (`Type=notify`).
        wait: bool,
    },
    /// These command lines are to be run, and their status decides.
    Run(Vec<String>),
}

/// Starts a unit.
///
/// # Errors
/// Why it cannot be started.
pub fn start(lab: &Lab, w: &mut World, m: &Machine, u: &Unit) -> Result<Started, String> {
    let now = w.now_ms;
    if u.path == "/dev/null" {
        return Err(format!("Failed to start {}: Unit {} is masked.", u.name, u.name));
    }
    let calendars = u.keys.get("Timer.OnCalendar").into_iter().flatten().filter(|c| !c.is_empty());
    if let Some(bad) = calendars.clone().find(|c| !calendar::is_expression(c)) {
        log(w, m.vmid, &u.name, &format!("{}: Failed to parse calendar specification, ignoring: {bad}", u.path));
        if calendars.count() == 1 && !u.keys.keys().any(|k| k.starts_with("Timer.On") && k != "Timer.OnCalendar") {
            log(w, m.vmid, &u.name, &format!("{}: Timer unit lacks value setting. Refusing.", u.name));
            let (unit, see) = (&u.name, "See system logs and 'systemctl status");
            return Err(format!(
                "Failed to start {unit}: Unit {unit} has a bad unit file setting.\n{see} {unit}' for details."
            ));
        }
    }
    for file in u.keys.get("Service.EnvironmentFile").into_iter().flatten() {
        if !file.starts_with('-') && !m.files.exists(file) {
            set(w, m, &u.name, "failed", 1);
            return Err(failed(u));
        }
    }
    let exec: Vec<String> = u.keys.get("Service.ExecStart").cloned().unwrap_or_default();
    if let Some(g) = w.guests.get_mut(&m.vmid) {
        journal::add(g, now, &u.name, &format!("Starting {} - {}...", u.name, u.get("Unit.Description")));
    }
    if k3s::is_unit(&u.name) || k3s::runs_k3s(&exec) {
        let process = k3s::process(m, u).map_err(|e| {
            set(w, m, &u.name, "failed", 203);
            crate::kube::k3s_refused(w, m.vmid, &e);
            log(w, m.vmid, &u.name, &e);
            failed(u)
        })?;
        let was = state(w, m.vmid, &u.name).0;
        if was == "active" {
            return Ok(Started::Done);
        }
        set(w, m, &u.name, "active", 0);
        crate::kube::k3s_start(lab, w, m.vmid, process).map_err(|e| {
            set(w, m, &u.name, "failed", 1);
            log(w, m.vmid, &u.name, &e);
            failed(u)
        })?;
        return Ok(Started::K3s { wait: u.get("Service.Type") == "notify" });
    }
    if u.oneshot() && !u.path.starts_with("/usr/lib/systemd") {
        let pre = u.keys.get("Service.ExecStartPre").cloned().unwrap_or_default();
        return Ok(Started::Run(pre.into_iter().chain(exec).collect()));
    }
    if let Some(first) = exec.first().filter(|_| !u.path.starts_with("/usr/lib/systemd")) {
        let program = first
            .trim_start_matches(['-', '@', '+', '!', ':'])
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        let node = m.files.stat(&Who::root(), &program, true);
        if !node.is_ok_and(|n| n.mode & 0o111 != 0 && matches!(n.kind, Kind::File(_))) {
            set(w, m, &u.name, "failed", 203);
            log(
                w,
                m.vmid,
                &u.name,
                &format!("{}: Failed to locate executable {program}: No such file or directory", u.name),
            );
            return Err(failed(u));
        }
        w.not_rehearsed.insert(missing(&format!("main process of unit `{}`", u.name), "guest/"));
    }
    set(w, m, &u.name, "active", 0);
    if u.oneshot() || exec.is_empty() {
        with(w, m.vmid, |g| g.services.entry(u.name.clone()).or_default().pid = 0);
    }
    if u.name == "nfs-server.service" {
        nfs::server_started(w, m);
    }
    log(w, m.vmid, &u.name, &format!("Started {} - {}.", u.name, u.get("Unit.Description")));
    Ok(Started::Done)
}

/// What systemctl prints when a job fails.
#[must_use]
pub fn failed(u: &Unit) -> String {
    format!(
        "Job for {n} failed because the control process exited with error code.\nSee \"systemctl status {n}\" and \"journalctl -xeu {n}\" for details.",
        n = u.name
    )
}

fn with<T>(w: &mut World, vmid: u32, f: impl FnOnce(&mut Guest) -> T) -> Option<T> {
    w.guests.get_mut(&vmid).map(f)
}

/// Writes a line to the journal of a guest.
pub fn log(w: &mut World, vmid: u32, unit: &str, text: &str) {
    let now = w.now_ms;
    with(w, vmid, |g| journal::add(g, now, unit, text));
}

/// Sets the state of a unit.
pub fn set(w: &mut World, m: &Machine, name: &str, state: &str, status: i32) {
    let (now, pid) = (w.now_ms, m.next_pid());
    with(w, m.vmid, |g| {
        let pid = if state == "active" && !name.ends_with(".timer") && !name.ends_with(".socket") { pid } else { 0 };
        g.services.insert(name.to_owned(), Service { state: state.to_owned(), since_ms: now, pid, status });
    });
}

/// Stops a unit.
pub fn stop(lab: &Lab, w: &mut World, m: &Machine, name: &str) {
    if k3s::is_unit(name) && state(w, m.vmid, name).0 != "inactive" {
        crate::kube::k3s_stop(lab, w, m.vmid);
    }
    if name == "nfs-server.service" {
        with(w, m.vmid, |g| g.exports.clear());
    }
    if with(w, m.vmid, |g| g.services.contains_key(name)) == Some(true) || ALWAYS.contains(&name) {
        set(w, m, name, "inactive", 0);
        log(w, m.vmid, name, &format!("Stopped {name}."));
    }
}

/// Starts everything that is enabled, at boot.
pub fn boot(lab: &Lab, w: &mut World, m: &std::sync::Arc<Machine>) {
    let mut names: Vec<String> = Vec::new();
    for (dir, _) in m.files.list(&Who::root(), DIRS[0]).unwrap_or_default() {
        if dir.ends_with(".wants") {
            names.extend(
                m.files
                    .list(&Who::root(), &format!("{}/{dir}", DIRS[0]))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(n, _)| n),
            );
        }
    }
    let agent = with(w, m.vmid, |g| g.spec.agent).unwrap_or_default();
    if agent && m.files.exists("/usr/lib/systemd/system/qemu-guest-agent.service") {
        names.push("qemu-guest-agent.service".to_owned());
    }
    names.sort();
    names.dedup();
    for n in names {
        let Some(u) = load(&m.files, &n) else { continue };
        match start(lab, w, m, &u) {
            Ok(Started::Run(lines)) => {
                let (m, u) = (m.clone(), u.clone());
                let mark = lab.clock().busy_guard();
                lab.rt().spawn(async move {
                    let _ = run_lines(&m, &u, &lines).await;
                    drop(mark);
                });
            }
            Ok(_) => {}
            Err(e) => log(w, m.vmid, &n, &e),
        }
    }
}

/// Runs the command lines of a one-time unit and sets its state.
///
/// # Errors
/// What systemctl prints when it failed.
pub async fn run_lines(m: &std::sync::Arc<Machine>, u: &Unit, lines: &[String]) -> Result<(), String> {
    for line in lines {
        let may_fail = line.starts_with('-');
        let text = line.trim_start_matches(['-', '@', '+', '!', ':']).to_owned();
        let mut job = Job::root(&text);
        for e in u.keys.get("Service.Environment").into_iter().flatten() {
            for pair in e.split_whitespace() {
                if let Some((k, v)) = pair.trim_matches('"').split_once('=') {
                    job.env.insert(k.to_owned(), v.trim_matches('"').to_owned());
                }
            }
        }
        let ended = super::shell::run_to_end(m.clone(), job).await;
        m.lab.with(|w| {
            for l in String::from_utf8_lossy(&[ended.out, ended.err].concat()).lines() {
                log(w, m.vmid, &u.name, l);
            }
            if ended.code != 0 && !may_fail {
                set(w, m, &u.name, "failed", ended.code);
            }
        });
        if ended.code != 0 && !may_fail {
            return Err(failed(u));
        }
    }
    m.lab.with(|w| {
        let stays = matches!(u.get("Service.RemainAfterExit"), "yes" | "true" | "1");
        set(w, m, &u.name, if stays { "active" } else { "inactive" }, 0);
        with(w, m.vmid, |g| g.services.entry(u.name.clone()).or_default().pid = 0);
    });
    Ok(())
}

/// A transient service that `systemd-run` starts: it runs in the background. Its end comes with the busy mark that
/// it worked under, so that no time passes until whoever waits for it goes on.
pub fn transient(
    m: &std::sync::Arc<Machine>,
    name: &str,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stay: bool,
) -> tokio::sync::oneshot::Receiver<(i32, BusyGuard)> {
    let (end, ended_at) = tokio::sync::oneshot::channel();
    let (m, name) = (m.clone(), name.to_owned());
    m.lab.with(|w| set(w, &m, &name, "active", 0));
    let mark = m.lab.clock().busy_guard();
    let rt = m.lab.rt().clone();
    rt.spawn(async move {
        let script = argv.iter().map(|a| super::cloudinit::quote(a)).collect::<Vec<_>>().join(" ");
        let mut job = Job::root(&script);
        job.env = env;
        let ended = super::shell::run_to_end(m.clone(), job).await;
        m.lab.with(|w| {
            for l in String::from_utf8_lossy(&[ended.out, ended.err].concat()).lines() {
                log(w, m.vmid, &name, l);
            }
            let state = match (ended.code, stay) {
                (0, true) => "active",
                (0, false) => "inactive",
                _ => "failed",
            };
            set(w, &m, &name, state, ended.code);
            with(w, m.vmid, |g| g.services.entry(name.clone()).or_default().pid = 0);
        });
        let _ = end.send((ended.code, mark));
    });
    ended_at
}

/// Paths of the unit files that a package brings.
pub(crate) fn files_of(package: &str) -> Vec<String> {
    PACKAGE_UNITS.iter().filter(|u| u.0 == package).map(|u| format!("/usr/lib/systemd/system/{}", u.1)).collect()
}

/// Puts the unit files of a package in place and starts what Debian starts.
pub fn package_installed(lab: &Lab, w: &mut World, m: &Machine, package: &str) {
    for (_, unit, description, exec, starts, alias) in PACKAGE_UNITS.iter().filter(|u| u.0 == package) {
        let exec = if exec.is_empty() { String::new() } else { format!("[Service]\nExecStart={exec}\n") };
        // The agent is started by its device at boot, not by its package: it has no [Install] section.
        let install = if package == "qemu-guest-agent" || unit.starts_with("rpc-statd") {
            ""
        } else {
            "[Install]\nWantedBy=multi-user.target\n"
        };
        let path = format!("/usr/lib/systemd/system/{unit}");
        m.files.place_file(&path, format!("[Unit]\nDescription={description}\n{exec}{install}").as_bytes(), 0o644);
        if !alias.is_empty() {
            let _ = m.files.symlink(&Who::root(), &path, &format!("/usr/lib/systemd/system/{alias}"));
        }
        if let Some(u) = load(&m.files, unit).filter(|_| *starts) {
            enable(&m.files, &u);
            let _ = start(lab, w, m, &u);
        }
    }
    if package == "chrony" {
        stop(lab, w, m, "systemd-timesyncd.service");
        disable(&m.files, "systemd-timesyncd.service");
    }
}

/// Stops the units of a package and takes their files away.
pub fn package_removed(lab: &Lab, w: &mut World, m: &Machine, package: &str) {
    for (_, unit, _, _, _, alias) in PACKAGE_UNITS.iter().filter(|u| u.0 == package) {
        stop(lab, w, m, unit);
        disable(&m.files, unit);
        for name in [*unit, *alias] {
            if !name.is_empty() {
                let _ = m.files.remove(&Who::root(), &format!("/usr/lib/systemd/system/{name}"), false);
            }
        }
    }
}
