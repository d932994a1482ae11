//! What other parts of the lab may ask of a guest, or change in it, while they hold the world.
use std::collections::BTreeMap;

use super::fs::Who;
use super::fs::virtuals;
use super::live::Machine;
use super::state::{Guest, Stage};
use super::{accounts, nfs};
use crate::Lab;
use crate::spec::PciSpec;
use crate::world::World;

fn up(w: &World, vmid: u32) -> Option<&Guest> {
    w.guests.get(&vmid).filter(|g| g.stage >= Stage::Up)
}

/// Host name of a running guest.
#[must_use]
pub fn hostname(w: &World, vmid: u32) -> Option<String> {
    up(w, vmid).map(|g| g.hostname.clone())
}

/// IPv4 address of a running guest.
#[must_use]
pub fn ip(w: &World, vmid: u32) -> Option<String> {
    up(w, vmid).and_then(|g| g.net.as_ref()).map(|n| n.ip.clone())
}

/// The address a guest has or is about to have.
pub(crate) fn address(w: &World, vmid: u32) -> Option<String> {
    w.guests.get(&vmid)?.net.as_ref().map(|n| n.ip.clone())
}

/// The running guest that has this address.
#[must_use]
pub fn by_ip(w: &World, ip: &str) -> Option<u32> {
    w.guests.keys().copied().find(|id| is_up(w, *id) && self::ip(w, *id).as_deref() == Some(ip))
}

/// Whether the guest runs and has a network.
#[must_use]
pub fn is_up(w: &World, vmid: u32) -> bool {
    up(w, vmid).is_some_and(|g| g.stage == Stage::Up)
}

/// Address of a name as a guest resolves it: literal, `/etc/hosts`, another guest's host name.
pub(crate) fn name_to_ip(w: &World, m: &Machine, name: &str) -> Option<String> {
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(name.to_owned());
    }
    let hosts = m.files.text("/etc/hosts");
    let hit = hosts
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default())
        .find(|l| l.split_whitespace().skip(1).any(|n| n == name));
    if let Some(ip) = hit.and_then(|l| l.split_whitespace().next()) {
        return Some(ip.to_owned());
    }
    if let Some(ip) = w.lan.names.get(name).and_then(|a| a.first()) {
        return Some(ip.clone());
    }
    let domain = w.guests.get(&m.vmid).and_then(|g| g.net.as_ref()).and_then(|n| n.domain.clone()).unwrap_or_default();
    let short = name.strip_suffix(&format!(".{domain}")).unwrap_or(name);
    w.guests.keys().copied().find(|id| hostname(w, *id).as_deref() == Some(short)).and_then(|id| ip(w, id))
}

/// Whether a file or directory exists in a running guest.
#[must_use]
pub fn has_file(lab: &Lab, w: &World, vmid: u32, path: &str) -> bool {
    if ["/proc/", "/sys/", "/dev/"].iter().any(|d| path.starts_with(d)) {
        return up(w, vmid).is_some_and(|g| virtuals::render(w, g).contains_key(path));
    }
    lab.guests().get(vmid).is_some_and(|m| m.files.exists(path))
}

/// Text of a file in a running guest; `None` when there is none.
#[must_use]
pub fn file_text(lab: &Lab, vmid: u32, path: &str) -> Option<String> {
    let m = lab.guests().get(vmid)?;
    m.files.read(&Who::root(), path).ok().map(|b| String::from_utf8_lossy(&b).into_owned())
}

/// Names in a directory of a running guest.
#[must_use]
pub fn file_names(lab: &Lab, vmid: u32, dir: &str) -> Vec<String> {
    let Some(m) = lab.guests().get(vmid) else { return Vec::new() };
    m.files.list(&Who::root(), dir).unwrap_or_default().into_iter().map(|(n, _)| n).collect()
}

/// Texts of the files below a directory of a running guest by their path below it; names of directories end in `/`.
#[must_use]
pub fn texts_below(lab: &Lab, vmid: u32, dir: &str) -> BTreeMap<String, String> {
    let (mut out, mut open) = (BTreeMap::new(), vec![String::new()]);
    let Some(m) = lab.guests().get(vmid) else { return out };
    while let Some(sub) = open.pop() {
        for (name, node) in m.files.list(&Who::root(), &format!("{dir}/{sub}")).unwrap_or_default() {
            let path = format!("{sub}{name}");
            if node.is_dir() {
                open.push(format!("{path}/"));
                out.insert(format!("{path}/"), String::new());
            } else if let Some(text) = file_text(lab, vmid, &format!("{dir}/{path}")) {
                out.insert(path, text);
            }
        }
    }
    out
}

/// Moves a file or directory of a running guest; the directories on the way are made.
pub fn move_file(lab: &Lab, vmid: u32, from: &str, to: &str) {
    if let Some(m) = lab.guests().get(vmid) {
        let _ = m.files.mkdir(&Who::root(), super::fs::tree::parent(to), true, 0o755);
        let _ = m.files.rename(&Who::root(), from, to);
    }
}

/// Writes a file of a running guest, with its parent directories; root owns it.
pub fn put_file(lab: &Lab, _w: &mut World, vmid: u32, path: &str, text: &str, mode: u32) {
    if let Some(m) = lab.guests().get(vmid) {
        m.files.place_file(path, text.as_bytes(), mode);
    }
}

/// Makes a directory of a running guest, with its parents; `owner` is `user[:group]` or empty.
pub fn put_dir(lab: &Lab, vmid: u32, path: &str, mode: u32, owner: &str) {
    if let Some(m) = lab.guests().get(vmid) {
        let _ = m.files.mkdir(&Who::root(), path, true, mode);
        if !owner.is_empty() {
            accounts::chown(&m, path, owner);
        }
    }
}

/// Removes a file or directory of a running guest.
pub fn remove_file(lab: &Lab, vmid: u32, path: &str) {
    if let Some(m) = lab.guests().get(vmid) {
        let _ = m.files.remove(&Who::root(), path, true);
    }
}

/// Whether something is mounted exactly at `path`.
#[must_use]
pub fn mountpoint(w: &World, vmid: u32, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    up(w, vmid).is_some_and(|g| g.mounts.iter().any(|m| m.target == path))
}

/// Whether a package is installed.
#[must_use]
pub fn has_package(w: &World, vmid: u32, name: &str) -> bool {
    up(w, vmid).is_some_and(|g| super::apt::installed(g, name).is_some())
}

/// NVIDIA cards that the guest sees.
#[must_use]
pub fn gpus(w: &World, vmid: u32) -> Vec<PciSpec> {
    let all = up(w, vmid).map(|g| g.spec.pci.clone()).unwrap_or_default();
    all.into_iter().filter(is_nvidia).collect()
}

/// Whether a device is one of NVIDIA's.
#[must_use]
pub fn is_nvidia(p: &PciSpec) -> bool {
    p.vendor.trim_start_matches("0x").eq_ignore_ascii_case("10de")
}

/// Where a driver that is installed in the guest has its tool, and where a driver container has it.
const DRIVER_TOOLS: [&str; 2] = ["/usr/bin/nvidia-smi", "/run/nvidia/driver/usr/bin/nvidia-smi"];

/// Loads an NVIDIA driver of this version, a container's unless the guest has its own, or takes it away.
pub fn set_nvidia_driver(lab: &Lab, w: &mut World, vmid: u32, version: Option<String>) {
    let own = own_driver(w, vmid);
    let [of_guest, of_container] = DRIVER_TOOLS;
    let tool = if own.is_some() { of_guest } else { of_container };
    let version = version.or(own);
    let Some(g) = w.guests.get_mut(&vmid) else { return };
    for module in ["nvidia", "nvidia_uvm", "nvidia_modeset"] {
        if version.is_some() {
            g.modules.insert(module.to_owned());
        } else {
            g.modules.remove(module);
        }
    }
    if let Some(m) = lab.guests().get(vmid) {
        for old in DRIVER_TOOLS {
            let _ = m.files.remove(&Who::root(), old, false);
        }
        if version.is_some() {
            let dir = tool.rsplit_once('/').map_or("/", |(dir, _)| dir);
            let _ = m.files.mkdir(&Who::root(), dir, true, 0o755);
            m.files.place_file(tool, b"#!/usr/lib/lab/program nvidia-smi\n", 0o755);
        }
    }
    g.facts.nvidia_driver = version;
}

/// The version of the driver that is installed in a guest as a package.
#[must_use]
pub fn own_driver(w: &World, vmid: u32) -> Option<String> {
    let installed = super::apt::installed(w.guests.get(&vmid)?, "nvidia-driver")?;
    Some(installed.split('-').next().unwrap_or_default().to_owned())
}

/// Whether the NFS server at `server_ip` lets `client_ip` mount `path`.
///
/// # Errors
/// What `mount.nfs4` prints when it does not.
pub fn nfs_allows(w: &World, server_ip: &str, path: &str, client_ip: &str) -> Result<(), String> {
    let refused = |why: &str| match why {
        "Connection refused" | "Connection timed out" => format!("mount.nfs: {why} for {server_ip}:{path}"),
        "access denied by server" => format!("mount.nfs: access denied by server while mounting {server_ip}:{path}"),
        why => format!("mount.nfs: mounting {server_ip}:{path} failed, reason given by server: {why}"),
    };
    match w.lan.exports(server_ip, path) {
        Some(true) => return Ok(()),
        Some(false) => return Err(refused("No such file or directory")),
        None => {}
    }
    let server = by_ip(w, server_ip).ok_or_else(|| refused("Connection timed out"))?;
    nfs::allowed(w, server, path, client_ip).map(|_| ()).map_err(|e| refused(&e))
}
