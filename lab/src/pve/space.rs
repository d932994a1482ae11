//! Volumes and the room they take: names, allocation under the storage's lock, freeing.
use super::state::File;
use crate::volume::{Content, Volume};
use crate::world::World;

/// How long a volume allocation holds the storage's lock, unless the world says otherwise.
const ALLOC_MS: u64 = 400;
/// How long a task waits for the storage's lock.
const LOCK_WAIT_MS: u64 = 10_000;

/// A volume to make.
pub struct New<'a> {
    /// Hypervisor node.
    pub node: &'a str,
    /// Storage.
    pub storage: &'a str,
    /// Owner; 0 for images and ISOs.
    pub vmid: u32,
    /// Name within the storage (`vm-100-disk-0`, `100/vm-100-disk-0.qcow2`, `iso/x.iso`).
    pub name: String,
    /// `raw`, `qcow2`, `iso`.
    pub format: &'a str,
    /// `images`, `iso`, `import`, `vztmpl`.
    pub kind: &'a str,
    /// Base volume of a linked clone.
    pub base: Option<String>,
    /// Contents.
    pub volume: Volume,
}

/// The directory or data set below which a storage's volumes are.
#[must_use]
pub fn path_of(w: &World, storage: &str) -> String {
    match w.pve.storages.get(storage) {
        Some(s) if s.kind == "nfs" => format!("/mnt/pve/{storage}"),
        Some(s) if s.kind == "zfspool" => "rpool/data".to_owned(),
        Some(s) => s.extra.get("path").cloned().unwrap_or_else(|| match storage {
            "local" => "/var/lib/vz".to_owned(),
            other => format!("/mnt/{other}"),
        }),
        None => format!("/mnt/{storage}"),
    }
}

/// Bytes that a volume with `content` really holds.
#[must_use]
pub fn real_bytes(v: &Volume) -> u64 {
    let n = match &v.content {
        Content::Blank => 1 << 20,
        Content::CloudImage { .. } => 1200 << 20,
        Content::System { .. } => 2600 << 20,
        Content::Filesystem { files, .. } => (64 << 20) + files.values().map(|f| f.len() as u64).sum::<u64>(),
        Content::Bytes(b) => b.len() as u64 * 3 / 4,
        Content::CloudInit | Content::Firmware | Content::Memory => v.size,
        Content::Backup { disks, .. } => disks.values().map(|(v, _)| real_bytes(v)).sum::<u64>() / 2,
    };
    n.min(v.size.max(1))
}

/// Total and used bytes of a storage on a node.
#[must_use]
pub fn usage(w: &World, storage: &str, node: &str) -> (u64, u64) {
    let Some(s) = w.pve.storages.get(storage) else { return (0, 0) };
    let prefix = format!("{storage}:");
    let mine = w.pve.files.range(prefix.clone()..).take_while(|(id, _)| id.starts_with(&prefix));
    let used = mine.filter(|(_, f)| s.shared || f.node == node).map(|(_, f)| f.used).sum::<u64>();
    (s.size, used.min(s.size))
}

/// The bytes that a new volume takes from its storage: all of it where volumes are reserved.
fn takes(w: &World, storage: &str, volume: &Volume, base: bool) -> u64 {
    match w.pve.storages.get(storage).map(|s| s.kind.as_str()) {
        _ if base => 8 << 20,
        Some("zfspool" | "lvm") => volume.size,
        _ => real_bytes(volume),
    }
}

/// Waits for the lock of a storage: how many milliseconds the allocation takes from now.
///
/// # Errors
/// The lock could not be had within ten seconds.
pub fn storage_lock(w: &mut World, storage: &str) -> Result<u64, String> {
    let hold = w.pve.alloc_ms.get(storage).copied().unwrap_or(ALLOC_MS);
    let free = w.pve.storage_free_ms.get(storage).copied().unwrap_or(0).max(w.now_ms);
    let shared = w.pve.storages.get(storage).is_some_and(|s| s.shared);
    if free - w.now_ms > LOCK_WAIT_MS {
        return Err(if shared {
            format!("cfs-lock 'storage-{storage}' error: got lock request timeout")
        } else {
            format!("can't lock file '/var/lock/pve-manager/pve-storage-{storage}' - got timeout")
        });
    }
    w.pve.storage_free_ms.insert(storage.to_owned(), free + hold);
    Ok(free + hold - w.now_ms)
}

/// Checks that a storage exists, is on and may hold `kind`.
///
/// # Errors
/// The server's message.
pub fn usable(w: &World, storage: &str, kind: &str) -> Result<(), String> {
    let s = w.pve.storages.get(storage).ok_or_else(|| format!("storage '{storage}' does not exist"))?;
    if s.disabled {
        return Err(format!("storage '{storage}' is disabled"));
    }
    if s.allows(kind) {
        return Ok(());
    }
    Err(match kind {
        "images" => format!("storage '{storage}' does not support content-type 'images'"),
        k => format!("storage '{storage}' does not support '{k}' content"),
    })
}

/// Makes a volume.
///
/// # Errors
/// Out of space, in the words of the storage.
pub fn create(w: &mut World, n: New<'_>) -> Result<String, String> {
    let volid = format!("{}:{}", n.storage, n.name);
    let (total, used) = usage(w, n.storage, n.node);
    let need = takes(w, n.storage, &n.volume, n.base.is_some());
    if used + need > total {
        return Err(full(w, n.storage, &n.name));
    }
    let shared = w.pve.storages.get(n.storage).is_some_and(|s| s.shared);
    let file = File {
        node: if shared { String::new() } else { n.node.to_owned() },
        vmid: n.vmid,
        format: n.format.to_owned(),
        content: n.kind.to_owned(),
        used: need,
        ctime: w.now_ms / 1000,
        base: n.base,
        notes: None,
        protected: false,
    };
    w.pve.files.insert(volid.clone(), file);
    w.volumes.insert(volid.clone(), n.volume);
    Ok(volid)
}

fn full(w: &World, storage: &str, name: &str) -> String {
    let path = path_of(w, storage);
    match w.pve.storages.get(storage).map(|s| s.kind.as_str()) {
        Some("zfspool") => format!("zfs error: cannot create '{path}/{name}': out of space"),
        Some("lvmthin" | "lvm") => {
            format!("lvcreate '{storage}/{name}' error:   Insufficient free space in volume group '{storage}'.")
        }
        _ => format!("copy failed: error while writing to '{path}/images/{name}': No space left on device"),
    }
}

/// Changes the size of a volume.
///
/// # Errors
/// Out of space.
pub fn grow(w: &mut World, volid: &str, size: u64) -> Result<(), String> {
    let (storage, name) = volid.split_once(':').ok_or("unable to parse volume ID")?;
    let Some(old) = w.volumes.get(volid).cloned() else {
        return Err(format!("volume '{volid}' does not exist"));
    };
    let node = w.pve.files.get(volid).map(|f| f.node.clone()).unwrap_or_default();
    let new = old.clone().grown(size);
    let base = w.pve.files.get(volid).is_some_and(|f| f.base.is_some());
    let (before, after) = (takes(w, storage, &old, base), takes(w, storage, &new, base));
    let (total, used) = usage(w, storage, &node);
    if used + after.saturating_sub(before) > total {
        let path = path_of(w, storage);
        return Err(format!(
            "zfs error: cannot set property for '{path}/{name}': size is greater than available space"
        ));
    }
    if let Some(f) = w.pve.files.get_mut(volid) {
        f.used = f.used + after - before.min(after);
    }
    if let Some(v) = w.volumes.get_mut(volid) {
        *v = new;
    }
    Ok(())
}

/// Frees a volume; missing ones are fine.
pub fn free(w: &mut World, volid: &str) {
    w.pve.files.remove(volid);
    w.volumes.remove(volid);
}

/// Linked clones of a volume.
#[must_use]
pub fn users_of_base(w: &World, volid: &str) -> bool {
    w.pve.files.values().any(|f| f.base.as_deref() == Some(volid))
}

/// The name of the next disk of a VM on a storage (`vm-100-disk-2`, `100/vm-100-disk-2.qcow2`).
#[must_use]
pub fn next_name(w: &World, storage: &str, vmid: u32, format: &str, prefix: &str) -> String {
    let dir = w.pve.storages.get(storage).is_some_and(super::state::Storage::is_dir);
    let mine = w.pve.files.keys().filter(|id| id.starts_with(&format!("{storage}:"))).cloned().collect::<Vec<_>>();
    let taken = |n: u32| {
        let stems = [format!("vm-{vmid}-disk-{n}"), format!("base-{vmid}-disk-{n}")];
        mine.iter().any(|id| {
            let last = id.rsplit([':', '/']).next().unwrap_or_default();
            let stem = last.split('.').next().unwrap_or_default();
            stems.iter().any(|s| s == stem)
        })
    };
    let n = (0..).find(|n| !taken(*n)).unwrap_or(0);
    let stem = format!("{prefix}-{vmid}-disk-{n}");
    if dir { format!("{vmid}/{stem}.{format}") } else { stem }
}

/// `1.0 GiB` as the server's logs print sizes.
#[must_use]
pub fn pretty(n: u64) -> String {
    let mut x = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if x < 1024.0 {
            return format!("{x:.1} {unit}");
        }
        x /= 1024.0;
    }
    format!("{x:.1} TiB")
}
