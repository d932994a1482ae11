//! Mounting in a guest: disks, NFS shares of other guests, bind mounts, `/etc/fstab`.
use super::fs::Who;
use super::fs::tree::normalise;
use super::live::{Machine, attach, store_tree};
use super::state::{Backing, Mount};
use super::{hw, nfs};
use crate::Lab;
use crate::world::World;

/// A wish to mount something.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// What.
    pub source: String,
    /// Where.
    pub target: String,
    /// `auto` or a file system.
    pub fstype: String,
    /// Comma separated.
    pub options: String,
}

/// A line of `/etc/fstab`.
#[must_use]
pub fn fstab(m: &Machine) -> Vec<Wish> {
    let text = m.files.text("/etc/fstab");
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    let mut all = Vec::new();
    for line in lines {
        let p: Vec<&str> = line.split_whitespace().collect();
        if p.len() >= 3 {
            let target = if p[1] == "none" || p[1] == "swap" { p[1].to_owned() } else { normalise(p[1]) };
            all.push(Wish {
                source: p[0].into(),
                target,
                fstype: p[2].into(),
                options: p.get(3).unwrap_or(&"defaults").to_string(),
            });
        }
    }
    all
}

/// Mounts. The error is `mount`'s text.
///
/// # Errors
/// Why it cannot be mounted.
pub fn mount(lab: &Lab, w: &mut World, m: &Machine, wish: &Wish) -> Result<(), String> {
    let target = m.files.resolve(&wish.target, true).map_err(|e| e.to_string())?;
    if !m.files.stat(&Who::root(), &target, true).is_ok_and(|n| n.is_dir()) {
        return Err(format!("mount: {}: mount point does not exist.", wish.target));
    }
    let Some(g) = w.guests.get(&m.vmid).cloned() else { return Err("mount: the machine is off".into()) };
    let options = wish.options.split(',').filter(|o| {
        !matches!(*o, "" | "defaults" | "nofail" | "noauto" | "auto" | "_netdev" | "bind") && !o.starts_with("x-")
    });
    let mut options: Vec<String> = options.map(str::to_owned).collect();
    if !options.iter().any(|o| o == "ro" || o == "rw") {
        options.insert(0, "rw".into());
    }
    if !options.iter().any(|o| o == "noatime" || o == "relatime") {
        options.insert(1, "relatime".into());
    }
    let bind = wish.options.split(',').any(|o| o == "bind" || o == "rbind") || wish.fstype == "bind";
    let network = wish.fstype.starts_with("nfs") || (wish.fstype == "auto" && wish.source.contains(":/"));
    let (source, fstype, backing) = if bind {
        if !m.files.exists(&wish.source) {
            return Err(format!("mount: {}: special device {} does not exist.", wish.target, wish.source));
        }
        ("/dev/sda1".to_owned(), "ext4".to_owned(), Backing::Bind(normalise(&wish.source)))
    } else if wish.fstype == "tmpfs" {
        (wish.source.clone(), "tmpfs".to_owned(), Backing::Tmpfs)
    } else if network {
        let (source, backing) = share(lab, w, m, wish, &mut options)?;
        (source, "nfs4".to_owned(), backing)
    } else {
        disk(w, wish, &g)?
    };
    if g.mounts.iter().any(|o| o.target == target && o.source == source) {
        return Err(format!("mount: {}: {source} already mounted on {target}.", wish.target));
    }
    let mount = Mount { source, target, fstype, options: options.join(","), backing };
    if !attach(lab, w, m, &mount) {
        return Err(format!("mount: {}: can't read superblock on {}.", wish.target, wish.source));
    }
    if let Some(g) = w.guests.get_mut(&m.vmid) {
        if mount.fstype == "nfs4" {
            hw::load_module(g, "nfsv4");
        }
        g.mounts.push(mount);
    }
    Ok(())
}

fn disk(w: &World, wish: &Wish, g: &super::state::Guest) -> Result<(String, String, Backing), String> {
    let named = wish.source.starts_with("LABEL=") || wish.source.starts_with("UUID=");
    // No links are followed here: `/dev` is made from the world, which is held.
    let Some(b) = hw::find_block(w, g, &wish.source) else {
        return Err(if named {
            format!("mount: {}: can't find {}.", wish.target, wish.source)
        } else {
            format!("mount: {}: special device {} does not exist.", wish.target, wish.source)
        });
    };
    if b.fstype.is_empty() || b.volid == g.system {
        let text = if b.table || b.volid == g.system {
            "already mounted or mount point busy."
        } else {
            "wrong fs type, bad option, bad superblock on"
        };
        return Err(if text.ends_with("on") {
            format!(
                "mount: {}: {text} {}, missing codepage or helper program, or other error.\n       dmesg(1) may have more information after failed mount system call.",
                wish.target,
                b.path()
            )
        } else {
            format!("mount: {}: {} {text}", wish.target, b.path())
        });
    }
    if wish.fstype != "auto" && wish.fstype != b.fstype {
        return Err(format!(
            "mount: {}: wrong fs type, bad option, bad superblock on {}, missing codepage or helper program, or other error.",
            wish.target,
            b.path()
        ));
    }
    Ok((b.path(), b.fstype, Backing::Volume(b.volid)))
}

fn share(
    lab: &Lab,
    w: &World,
    m: &Machine,
    wish: &Wish,
    options: &mut Vec<String>,
) -> Result<(String, Backing), String> {
    if !m.files.exists("/usr/sbin/mount.nfs") {
        return Err(format!(
            "mount: {}: bad option; for several filesystems (e.g. nfs, cifs) you might need a /sbin/mount.<type> helper program.",
            wish.target
        ));
    }
    let (host, path) = wish
        .source
        .split_once(':')
        .ok_or_else(|| format!("mount.nfs4: remote share not in 'host:dir' format: {}", wish.source))?;
    let ip = super::query::name_to_ip(w, m, host)
        .ok_or_else(|| format!("mount.nfs4: Failed to resolve server {host}: Name or service not known"))?;
    let fail = |why: &str| format!("mount.nfs4: mounting {}:{path} failed, reason given by server: {why}", host);
    // A file server that is none of the machines: what is on it stays with each mount.
    match w.lan.exports(&ip, path) {
        Some(true) => {
            options.extend(["vers=4.2".to_owned(), "proto=tcp".to_owned(), format!("addr={ip}")]);
            return Ok((wish.source.clone(), Backing::Tmpfs));
        }
        Some(false) => return Err(fail("No such file or directory")),
        None => {}
    }
    let Some(server) = super::query::by_ip(w, &ip) else {
        return Err(format!("mount.nfs4: Connection timed out for {}:{path} on {}", host, wish.target));
    };
    let own = super::query::ip(w, m.vmid).unwrap_or_default();
    let export = nfs::allowed(w, server, path, &own).map_err(|why| match why.as_str() {
        "Connection refused" | "Connection timed out" => {
            format!("mount.nfs4: {why} for {}:{path} on {}", host, wish.target)
        }
        "access denied by server" => format!("mount.nfs4: access denied by server while mounting {}:{path}", host),
        why => fail(why),
    })?;
    if lab.guests().get(server).and_then(|s| s.files.place(path)).is_none() {
        return Err(fail("No such file or directory"));
    }
    if export.options.split(',').any(|o| o == "ro") {
        options.retain(|o| o != "rw");
        options.insert(0, "ro".into());
    }
    for o in ["vers=4.2", "rsize=1048576", "wsize=1048576", "proto=tcp"] {
        let key = o.split('=').next().unwrap_or(o);
        if !options.iter().any(|x| x.starts_with(key) || (key == "vers" && x.starts_with("nfsvers"))) {
            options.push(o.into());
        }
    }
    options.push(format!("addr={ip}"));
    Ok((wish.source.clone(), Backing::Nfs { server, path: normalise(path) }))
}

/// Unmounts what is at `target` (a path or a source). The error is `umount`'s text.
///
/// # Errors
/// When nothing is mounted there.
pub fn unmount(w: &mut World, m: &Machine, target: &str) -> Result<(), String> {
    let device = target.starts_with("/dev/");
    let path = if device { target.to_owned() } else { m.files.resolve(target, true).unwrap_or_default() };
    let path = match w.guests.get(&m.vmid).filter(|_| device).and_then(|g| hw::find_block(w, g, target)) {
        Some(b) => b.path(),
        None => path,
    };
    let Some(g) = w.guests.get_mut(&m.vmid) else { return Err("umount: the machine is off".into()) };
    let Some(i) = g.mounts.iter().rposition(|o| o.target == path || o.source == target || o.source == path) else {
        return Err(if !device && m.files.exists(target) {
            format!("umount: {target}: not mounted.")
        } else {
            format!("umount: {target}: no mount point specified.")
        });
    };
    let mount = g.mounts.remove(i);
    if let Some(p) = m.files.unmount(&mount.target)
        && let Backing::Volume(volid) = &mount.backing
    {
        store_tree(w, volid, &p.tree);
    }
    Ok(())
}

/// Mounts what `/etc/fstab` wants at boot; what fails is told.
pub fn mount_all(lab: &Lab, w: &mut World, m: &Machine) -> Vec<String> {
    let mut errors = Vec::new();
    for wish in fstab(m) {
        let skip = wish.target == "/"
            || wish.target == "/boot/efi"
            || wish.options.split(',').any(|o| o == "noauto")
            || wish.source.starts_with("PARTUUID=");
        if wish.fstype == "swap" || skip {
            continue;
        }
        let there = w.guests.get(&m.vmid).is_some_and(|g| g.mounts.iter().any(|o| o.target == wish.target));
        if there {
            continue;
        }
        if let Err(e) = mount(lab, w, m, &wish) {
            errors.push(e);
        }
    }
    errors
}
