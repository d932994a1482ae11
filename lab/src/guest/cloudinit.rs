//! cloud-init in a guest: reads the drive or the seed, makes users and keys, later installs packages and runs commands.
use base64::Engine as _;
use serde_json::Value;

use super::fs::Who;
use super::live::Machine;
use super::state::{CloudStatus, Guest, NetConf};
use super::{accounts, hostkeys, iso};
use crate::Lab;
use crate::grades::missing;
use crate::volume::Content;
use crate::world::World;

/// What a datasource says, in one form for the drive and the seed.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// Identity of the instance.
    pub instance_id: String,
    /// Host name.
    pub hostname: String,
    /// The user-data.
    pub user: Value,
    /// Network, when it is given.
    pub net: Option<NetConf>,
    /// Why the user-data could not be used.
    pub problem: Option<String>,
}

/// Keys of the user-data that the lab acts on.
const KNOWN: &[&str] = &[
    "hostname",
    "fqdn",
    "manage_etc_hosts",
    "preserve_hostname",
    "prefer_fqdn_over_hostname",
    "user",
    "users",
    "groups",
    "password",
    "ssh_authorized_keys",
    "chpasswd",
    "ssh_pwauth",
    "disable_root",
    "package_update",
    "package_upgrade",
    "packages",
    "package_reboot_if_required",
    "write_files",
    "runcmd",
    "bootcmd",
    "timezone",
    "locale",
    "growpart",
    "resize_rootfs",
    "ssh_deletekeys",
    "ssh_genkeytypes",
    "ssh",
    "power_state",
    "final_message",
    "apt",
    "apt_update",
    "apt_upgrade",
    "ntp",
    "output",
    "datasource_list",
    "datasource",
    "no_ssh_fingerprints",
];

/// Reads the datasource of a guest, if it has one.
#[must_use]
pub fn data(w: &World, g: &Guest) -> Option<Data> {
    let drive = g.spec.cloud_init.as_ref();
    let seed = g.spec.seed_iso.as_ref().and_then(|v| seed(w, v));
    let mut data = match (seed, drive) {
        (Some(s), _) => s,
        (None, Some(_)) => Data::default(),
        (None, None) => return None,
    };
    let Some(c) = drive else { return Some(data) };
    if data.net.is_none()
        && let Some(ip) = &c.ip
    {
        data.net = Some(NetConf {
            ip: ip.clone(),
            prefix: c.prefix,
            gateway: c.gateway.clone(),
            dns: c.dns.clone(),
            domain: c.domain.clone(),
        });
    }
    if data.user.is_null() && data.problem.is_none() {
        data.instance_id.clone_from(&c.instance_id);
        data.hostname.clone_from(&c.hostname);
        data.user = serde_json::json!({
            "hostname": c.hostname, "manage_etc_hosts": true, "ssh_authorized_keys": c.keys,
            "users": ["default"], "packages": c.packages, "package_upgrade": c.upgrade,
        });
        if let Some(d) = &c.domain {
            data.user["fqdn"] = Value::String(format!("{}.{d}", c.hostname));
        }
        if !c.user.is_empty() {
            data.user["user"] = Value::String(c.user.clone());
        }
    }
    Some(data)
}

fn seed(w: &World, volid: &str) -> Option<Data> {
    let Content::Bytes(b64) = &w.volumes.get(volid)?.content else { return None };
    let bytes = base64::engine::general_purpose::STANDARD.decode(b64).ok()?;
    let iso = iso::read(&bytes)?;
    if !iso.label.eq_ignore_ascii_case("cidata") {
        return None;
    }
    let file =
        |names: &[&str]| names.iter().find_map(|n| iso.files.get(*n)).map(|b| String::from_utf8_lossy(b).into_owned());
    let yaml = |t: &str| serde_saphyr::from_str::<Value>(t).map_err(|e| e.to_string());
    // ISO level 1 allows `USER_DAT` only; the long forms come with Rock Ridge, Joliet or relaxed names.
    let user = file(&["user-data", "user_data", "user_dat", "userdata"])?;
    let meta = file(&["meta-data", "meta_data", "meta_dat", "metadata"])?;
    let net = file(&["network-config", "network_config", "network-", "network_"]);
    let meta = yaml(&meta).unwrap_or_default();
    let mut data = Data {
        instance_id: meta["instance-id"].as_str().unwrap_or("iid-datasource-nocloud").to_owned(),
        hostname: meta["local-hostname"].as_str().unwrap_or_default().to_owned(),
        net: net.and_then(|t| yaml(&t).ok()).and_then(|v| network(&v)),
        ..Data::default()
    };
    if !user.starts_with("#cloud-config") {
        data.problem = Some("user-data does not begin with `#cloud-config`: it is ignored".to_owned());
        return Some(data);
    }
    match yaml(&user) {
        Ok(v) => data.user = v,
        Err(e) => data.problem = Some(format!("failed loading yaml blob: {e}")),
    }
    Some(data)
}

/// The first static IPv4 address in a network configuration of version 1 or 2.
fn network(v: &Value) -> Option<NetConf> {
    let v = v.get("network").unwrap_or(v);
    let texts =
        |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let mut net = NetConf::default();
    let address = if v["version"] == 2 {
        let nic = v["ethernets"].as_object()?.values().next()?;
        net.gateway = nic["gateway4"].as_str().or(nic["routes"][0]["via"].as_str()).map(str::to_owned);
        net.dns = texts(&nic["nameservers"]["addresses"]);
        net.domain = nic["nameservers"]["search"][0].as_str().map(str::to_owned);
        nic["addresses"][0].as_str()?.to_owned()
    } else {
        let all = v["config"].as_array()?;
        let subnet = all
            .iter()
            .flat_map(|c| c["subnets"].as_array().into_iter().flatten())
            .find(|s| s["address"].is_string())?;
        net.gateway = subnet["gateway"].as_str().map(str::to_owned);
        net.dns = all.iter().filter(|c| c["type"] == "nameserver").flat_map(|c| texts(&c["address"])).collect();
        subnet["address"].as_str()?.to_owned()
    };
    let (ip, prefix) = address.split_once('/').unwrap_or((&address, "24"));
    ip.parse::<std::net::Ipv4Addr>().ok()?;
    net.ip = ip.to_owned();
    net.prefix = prefix.parse().unwrap_or(24);
    Some(net)
}

/// The address the lab's DHCP server gives a machine.
#[must_use]
pub fn dhcp(w: &World, g: &Guest) -> NetConf {
    let other = w.guests.values().filter_map(|o| o.net.as_ref()).find(|n| n.gateway.is_some());
    let gateway =
        g.spec.cloud_init.as_ref().and_then(|c| c.gateway.clone()).or_else(|| other.and_then(|n| n.gateway.clone()));
    let gateway = gateway.unwrap_or_else(|| "10.0.0.1".to_owned());
    let net = gateway.rsplit_once('.').map_or("10.0.0", |p| p.0).to_owned();
    let taken =
        |ip: &str| w.guests.values().any(|o| o.spec.vmid != g.spec.vmid && o.net.as_ref().is_some_and(|n| n.ip == ip));
    let last = (150..250).map(|i| 150 + (i - 150 + g.spec.vmid % 100) % 100).find(|i| !taken(&format!("{net}.{i}")));
    NetConf {
        ip: format!("{net}.{}", last.unwrap_or(250)),
        prefix: 24,
        dns: vec![gateway.clone()],
        gateway: Some(gateway),
        domain: None,
    }
}

/// cloud-init's early stages. True when this instance is new to the disk.
pub fn init(lab: &Lab, w: &mut World, vmid: u32, m: &Machine) -> bool {
    let Some(g) = w.guests.get(&vmid).cloned() else { return false };
    let Some(data) = data(w, &g) else {
        hostkeys::ensure(w, m, false);
        return false;
    };
    if data.instance_id == g.instance_id && g.facts.cloud_init != CloudStatus::NotRun {
        hostkeys::ensure(w, m, false);
        if let (Some(net), Some(g)) = (data.net, w.guests.get_mut(&vmid)) {
            g.facts.net = Some(net);
        }
        return false;
    }
    log(lab, m, &format!("Cloud-init v. 22.4.2 running 'init' for instance {}", data.instance_id));
    let keep = data.user["ssh_deletekeys"] == false;
    hostkeys::ensure(w, m, !keep);
    let name = data.user["hostname"].as_str().filter(|s| !s.is_empty()).unwrap_or(&data.hostname);
    let fqdn = data.user["fqdn"].as_str().map(str::to_owned);
    let short =
        fqdn.as_deref().filter(|_| name.is_empty()).unwrap_or(name).split('.').next().unwrap_or_default().to_owned();
    if !short.is_empty() {
        m.files.place_file("/etc/hostname", format!("{short}\n").as_bytes(), 0o644);
        let full = fqdn.map(|f| format!("{f} ")).unwrap_or_default();
        let hosts = format!("127.0.1.1 {full}{short}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        if data.user["manage_etc_hosts"] == true || data.user["manage_etc_hosts"] == "localhost" {
            m.files.place_file("/etc/hosts", hosts.as_bytes(), 0o644);
        }
    }
    users(m, &data.user);
    write_files(m, &data.user, false);
    if let Some(tz) = data.user["timezone"].as_str() {
        m.files.place_file("/etc/timezone", format!("{tz}\n").as_bytes(), 0o644);
    }
    for key in data.user.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| !KNOWN.contains(&k.as_str())) {
        w.not_rehearsed.insert(missing(&format!("cloud-init key `{key}`"), "guest/cloudinit"));
    }
    let net = data.net.clone().unwrap_or_else(|| dhcp(w, &g));
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.instance_id.clone_from(&data.instance_id);
        g.facts.net = Some(net);
        g.facts.cloud_init = CloudStatus::Running;
        g.cloud_init = CloudStatus::Running;
    }
    true
}

/// The default user of the image, or the name the user-data gives it.
fn default_user(user: &Value) -> String {
    user["user"].as_str().or(user["user"]["name"].as_str()).unwrap_or("debian").to_owned()
}

fn users(m: &Machine, user: &Value) {
    let lines = |v: &Value| match v {
        Value::String(s) => s.lines().map(str::to_owned).collect(),
        v => v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>(),
    };
    let top = lines(&user["ssh_authorized_keys"]);
    let list = user["users"].as_array().cloned().unwrap_or_else(|| vec![Value::String("default".into())]);
    let mut sudoers = String::from("# Created by cloud-init v. 22.4.2\n");
    for (i, u) in list.iter().enumerate() {
        let (name, mut keys, sudo, groups, shell) = if u == "default" {
            let groups = "adm,audio,cdrom,dialout,dip,floppy,netdev,plugdev,sudo,video".to_owned();
            (default_user(user), Vec::new(), vec!["ALL=(ALL) NOPASSWD:ALL".to_owned()], groups, "/bin/bash".to_owned())
        } else {
            let Some(name) = u["name"].as_str().or(u.as_str()) else { continue };
            let groups = u["groups"].as_str().map_or_else(|| lines(&u["groups"]).join(","), |s| s.replace(' ', ""));
            (
                name.to_owned(),
                lines(&u["ssh_authorized_keys"]),
                lines(&u["sudo"]),
                groups,
                u["shell"].as_str().unwrap_or("/bin/sh").to_owned(),
            )
        };
        if name == "root" {
            accounts::authorize(m, "root", &keys);
            continue;
        }
        if i == 0 {
            keys.extend(top.iter().cloned());
        }
        accounts::add_user(
            m,
            &accounts::NewUser { name: name.clone(), groups, shell, home: true, ..Default::default() },
        );
        accounts::authorize(m, &name, &keys);
        for rule in sudo {
            sudoers += &format!("\n# User rules for {name}\n{name} {rule}\n");
        }
    }
    m.files.place_file("/etc/sudoers.d/90-cloud-init-users", sudoers.as_bytes(), 0o440);
    if user["disable_root"] != false && !top.is_empty() {
        let name = default_user(user);
        let prefix = format!(
            "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as the user \\\"{name}\\\" rather than the user \\\"root\\\".';echo;sleep 10;exit 142\" "
        );
        let text: String = top.iter().map(|k| format!("{prefix}{k}\n")).collect();
        m.files.place_file("/root/.ssh/authorized_keys", text.as_bytes(), 0o600);
    }
}

fn write_files(m: &Machine, user: &Value, deferred: bool) {
    for f in user["write_files"].as_array().into_iter().flatten() {
        let Some(path) = f["path"].as_str() else { continue };
        if f["defer"].as_bool().unwrap_or(false) != deferred {
            continue;
        }
        let text = f["content"].as_str().unwrap_or_default();
        let bytes = match f["encoding"].as_str() {
            Some("b64" | "base64") => {
                base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', ' '], "")).unwrap_or_default()
            }
            _ => text.as_bytes().to_vec(),
        };
        let mode = f["permissions"]
            .as_str()
            .and_then(|p| u32::from_str_radix(p.trim_start_matches("0o"), 8).ok())
            .unwrap_or(0o644);
        if f["append"] == true && m.files.exists(path) {
            let _ = m.files.write(&Who::root(), path, &bytes, true, mode);
        } else {
            m.files.place_file(path, &bytes, mode);
        }
        if let Some(owner) = f["owner"].as_str() {
            accounts::chown(m, path, owner);
        }
    }
}

fn log(lab: &Lab, m: &Machine, text: &str) {
    let line = format!("{} {text}\n", super::journal::stamp(lab.clock().now_ms()));
    let _ = m.files.write(&Who::root(), "/var/log/cloud-init-output.log", line.as_bytes(), true, 0o640);
}

/// cloud-init's final stage: packages, late files, commands, as a task of its own. Its busy mark is taken before
/// the task starts, so that no time passes until then.
pub fn start_final(lab: &Lab, vmid: u32, boot: u64) {
    let mark = lab.clock().busy_guard();
    lab.rt().spawn(finish(lab.clone(), vmid, boot, mark));
}

async fn finish(lab: Lab, vmid: u32, boot: u64, mark: gpuhost_stdlib::core::clock::BusyGuard) {
    let Some(m) = lab.guests().get(vmid).filter(|m| m.boot == boot) else { return };
    tokio::select! {
        () = run_final(&lab, &m) => {}
        () = m.stop.cancelled() => {}
    }
    drop(mark);
}

async fn run_final(lab: &Lab, m: &std::sync::Arc<Machine>) {
    let Some((data, pause)) = lab.with(|w| {
        let g = w.guests.get(&m.vmid)?.clone();
        data(w, &g).map(|d| (d, w.between(3000, 6000)))
    }) else {
        return;
    };
    lab.clock().sleep(std::time::Duration::from_millis(pause)).await;
    let mut problems: Vec<String> = data.problem.into_iter().collect();
    let u = &data.user;
    let names: Vec<String> = u["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p.as_str().or(p[0].as_str()).map(str::to_owned))
        .collect();
    if u["package_update"] == true || u["package_upgrade"] == true || !names.is_empty() {
        super::apt::update(lab, m, "cloud-init").await;
    }
    if u["package_upgrade"] == true {
        super::apt::upgrade(lab, m, "cloud-init").await;
    }
    if !names.is_empty()
        && let Err(e) = super::apt::install(lab, m, &names, "cloud-init").await
    {
        problems.push(format!("Failed to install the following packages: {}: {e}", names.join(", ")));
    }
    write_files(m, u, true);
    for (key, failed) in [("bootcmd", "bootcmd"), ("runcmd", "scripts_user")] {
        if let Err(e) = commands(m, &u[key]).await {
            problems.push(format!("('{failed}', {e})"));
        }
    }
    log(lab, m, &format!("Cloud-init v. 22.4.2 finished at {}.", super::journal::stamp(lab.clock().now_ms())));
    let status = if problems.is_empty() { CloudStatus::Done } else { CloudStatus::Error(problems) };
    lab.with(|w| {
        if let Some(g) = w.guests.get_mut(&m.vmid).filter(|g| g.boot == m.boot) {
            g.cloud_init = status.clone();
            g.facts.cloud_init = status;
        }
        match u["power_state"]["mode"].as_str() {
            Some("poweroff" | "halt") => super::boot::go_down(lab, w, m.vmid, false),
            Some("reboot") => super::boot::go_down(lab, w, m.vmid, true),
            _ => {}
        }
    });
}

async fn commands(m: &std::sync::Arc<Machine>, list: &Value) -> Result<(), String> {
    let list = list.as_array().cloned().unwrap_or_default();
    if list.is_empty() {
        return Ok(());
    }
    let script: String = list.iter().map(|c| format!("{}\n", command_line(c))).collect();
    let job = super::shell::Job::root(&script);
    let out = super::shell::run_to_end(m.clone(), job).await;
    let text = [out.out, out.err].concat();
    let _ = m.files.write(&Who::root(), "/var/log/cloud-init-output.log", &text, true, 0o640);
    // The script's status is that of its last command, as with cloud-init's own.
    if out.code == 0 { Ok(()) } else { Err(format!("ProcessExecutionError: exit code {}", out.code)) }
}

fn command_line(c: &Value) -> String {
    match c {
        Value::String(s) => s.clone(),
        v => v
            .as_array()
            .into_iter()
            .flatten()
            .map(|a| quote(a.as_str().unwrap_or(&a.to_string())))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// A word in single quotes.
#[must_use]
pub fn quote(s: &str) -> String {
    format!("'{}'", s.replace('\'', "'\\''"))
}
