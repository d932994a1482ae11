//! Which privilege changing which option takes.
use gpuhost_stdlib::wire::pve::props;

use super::conf;
use crate::pve::acl::Who;
use crate::pve::reply::ApiError;
use crate::world::World;

/// Requires what setting (`value`) or deleting (`None`) the option takes.
///
/// # Errors
/// `403`, or `500 only root can set …`.
pub fn option(
    w: &World,
    who: &Who,
    vmid: u32,
    pool: Option<&str>,
    key: &str,
    value: Option<&str>,
) -> Result<(), ApiError> {
    let need = |p: &str| w.pve.need_vm(who, vmid, pool, p);
    let root_only = |what: &str| {
        if who.is_root() { Ok(()) } else { Err(ApiError::fail(format!("only root can set '{what}' config"))) }
    };
    let (base, n) = props::numbered(key);
    match (base, n) {
        _ if props::is_drive(key) => drive(w, who, vmid, pool, key, value),
        ("unused", Some(_)) => need("VM.Config.Disk"),
        ("net", Some(_)) => {
            need("VM.Config.Network")?;
            match value {
                Some(v) => bridge(w, who, v),
                None => Ok(()),
            }
        }
        ("ipconfig", Some(_)) => need("VM.Config.Network"),
        ("hostpci", Some(_)) => {
            let p = value.map(|v| props::read(key, v)).unwrap_or_default();
            match (value, p.get("mapping")) {
                (None, _) => need("VM.Config.HWType"),
                (_, Some(m)) => {
                    need("VM.Config.HWType")?;
                    w.pve.need(who, &format!("/mapping/pci/{m}"), "Mapping.Use")
                }
                _ if who.is_root() => Ok(()),
                _ => Err(ApiError::fail(format!("only root can set '{key}' config for non-mapped devices"))),
            }
        }
        ("serial", Some(_)) if value.is_none_or(|v| v == "socket") => need("VM.Config.HWType"),
        ("usb", Some(_)) if value.is_none_or(|v| v.contains("spice") || v.contains("mapping=")) => {
            need("VM.Config.HWType")
        }
        ("serial" | "parallel" | "usb", Some(_)) | ("args" | "lock" | "hookscript", None) => root_only(key),
        ("numa", _) | ("cores" | "sockets" | "cpu" | "cpulimit" | "cpuunits" | "vcpus" | "affinity", None) => {
            need("VM.Config.CPU")
        }
        ("memory" | "balloon" | "shares" | "hugepages" | "keephugepages", None) => need("VM.Config.Memory"),
        (
            "cicustom" | "cipassword" | "citype" | "ciupgrade" | "ciuser" | "nameserver" | "searchdomain" | "sshkeys",
            None,
        ) => need("VM.Config.Cloudinit|VM.Config.Network"),
        ("boot" | "bootdisk" | "vmstatestorage", None) => need("VM.Config.Disk"),
        (
            "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "tablet" | "vga" | "watchdog" | "arch" | "ivshmem"
            | "rng" | "audio" | "smbios" | "virtiofs",
            _,
        ) => need("VM.Config.HWType"),
        ("freeze", None) => need("VM.PowerMgmt"),
        _ => need("VM.Config.Options"),
    }
}

fn bridge(w: &World, who: &Who, value: &str) -> Result<(), ApiError> {
    let p = props::read("net0", value);
    let Some(bridge) = p.get("bridge") else { return Ok(()) };
    let path = match p.get("tag") {
        Some(tag) => format!("/sdn/zones/localnetwork/{bridge}/{tag}"),
        None => format!("/sdn/zones/localnetwork/{bridge}"),
    };
    w.pve.need(who, &path, "SDN.Use")
}

/// Requires SDN.Use for every bridge of a config that is cloned.
///
/// # Errors
/// `403`.
pub fn bridges(w: &World, who: &Who, conf: &std::collections::BTreeMap<String, String>) -> Result<(), ApiError> {
    let mut nets = conf.iter().filter(|(k, _)| matches!(props::numbered(k), ("net", Some(_))));
    nets.try_for_each(|(_, v)| bridge(w, who, v))
}

fn drive(w: &World, who: &Who, vmid: u32, pool: Option<&str>, key: &str, value: Option<&str>) -> Result<(), ApiError> {
    let need = |p: &str| w.pve.need_vm(who, vmid, pool, p);
    let Some(value) = value else { return need("VM.Config.Disk") };
    let p = props::read(key, value);
    let file = p.get("file").cloned().unwrap_or_default();
    if conf::is_cloudinit(&p) {
        need("VM.Config.CDROM|VM.Config.Cloudinit")?;
    } else if conf::is_cdrom(&p) {
        need("VM.Config.CDROM")?;
    } else {
        need("VM.Config.Disk")?;
    }
    if file.starts_with('/') {
        return if who.is_root() {
            Ok(())
        } else {
            Err(ApiError::fail("Only root can pass arbitrary filesystem paths."))
        };
    }
    let Some((storage, name)) = props::volume_id(&file) else { return Ok(()) };
    if !w.pve.storages.contains_key(storage) {
        return Err(ApiError::fail(format!("storage '{storage}' does not exist")));
    }
    let path = format!("/storage/{storage}");
    if props::new_disk(&file).is_some() || name == "cloudinit" {
        w.pve.need(who, &path, "Datastore.AllocateSpace")?;
    } else {
        volume(w, who, vmid, &file)?;
    }
    match p.get("import-from") {
        Some(from) if from.starts_with('/') && !who.is_root() => {
            Err(ApiError::fail("Only root can pass arbitrary filesystem paths."))
        }
        Some(from) => volume(w, who, vmid, from),
        None => Ok(()),
    }
}

/// Access to an existing volume: images of other VMs need rights on those, the rest on the storage.
fn volume(w: &World, who: &Who, vmid: u32, volid: &str) -> Result<(), ApiError> {
    let storage = volid.split(':').next().unwrap_or_default();
    let path = format!("/storage/{storage}");
    let owner = w.pve.files.get(volid).filter(|f| f.content == "images").map(|f| f.vmid);
    match owner {
        Some(o) if o != 0 && o != vmid => w
            .pve
            .need(who, &format!("/vms/{o}"), "VM.Config.Disk")
            .or_else(|_| w.pve.need(who, &path, "Datastore.Allocate")),
        _ => w.pve.need(who, &path, "Datastore.AllocateSpace|Datastore.Audit"),
    }
}
