//! Checks of single values, each with the server's message.
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) fn is_number(v: &str) -> bool {
    v.parse::<f64>().is_ok_and(f64::is_finite) && !v.contains(['e', 'E', 'n', 'i'])
}

/// Splits a volume id `storage:volume`.
#[must_use]
pub fn volume_id(v: &str) -> Option<(&str, &str)> {
    let (store, vol) = v.split_once(':')?;
    (storage_id(store).is_ok() && !vol.is_empty()).then_some((store, vol))
}

pub(super) fn storage_id(v: &str) -> Result<(), String> {
    let b = v.as_bytes();
    let ok = b.len() > 1
        && b[0].is_ascii_alphabetic()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c));
    if ok { Ok(()) } else { Err(format!("storage ID '{v}' contains illegal characters\n")) }
}

pub(super) fn volid(v: &str) -> Result<(), String> {
    volume_id(v).map(|_| ()).ok_or_else(|| format!("unable to parse volume ID '{v}'\n"))
}

pub(super) fn volid_or_path(v: &str) -> Result<(), String> {
    if v == "none" || v == "cdrom" || v.starts_with('/') { Ok(()) } else { volid(v) }
}

/// Bytes of a disk size such as `32G`, `10.5G`, `528K`.
#[must_use]
pub fn disk_size(v: &str) -> Option<u64> {
    let (num, k) = match v.as_bytes().last()? {
        b'K' => (&v[..v.len() - 1], 1u64 << 10),
        b'M' => (&v[..v.len() - 1], 1 << 20),
        b'G' => (&v[..v.len() - 1], 1 << 30),
        b'T' => (&v[..v.len() - 1], 1 << 40),
        _ => (v, 1),
    };
    let (whole, frac) = num.split_once('.').unwrap_or((num, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(frac) {
        return None;
    }
    Some((num.parse::<f64>().ok()? * k as f64) as u64)
}

/// Prints a size with the largest unit that divides it.
#[must_use]
pub fn print_disk_size(mut n: u64) -> String {
    for unit in ["", "K", "M", "G"] {
        if n == 0 || !n.is_multiple_of(1024) {
            return format!("{n}{unit}");
        }
        n /= 1024;
    }
    format!("{n}T")
}

pub(super) fn size(v: &str) -> Result<(), String> {
    disk_size(v).map(|_| ()).ok_or_else(|| format!("value does not look like a valid disk size: {v}\n"))
}

pub(super) fn urlencoded(v: &str) -> Result<(), String> {
    let ok = v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-%_.!~*'()".contains(&b));
    if ok { Ok(()) } else { Err(format!("invalid urlencoded string: {v}\n")) }
}

pub(super) fn config_id(v: &str) -> Result<(), String> {
    let b = v.as_bytes();
    let ok = b.len() > 1
        && b[0].is_ascii_alphabetic()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c == b'-');
    if ok { Ok(()) } else { Err(format!("invalid configuration ID '{v}'\n")) }
}

/// Whether `v` is a MAC address that a network card may have.
#[must_use]
pub fn is_unicast_mac(v: &str) -> bool {
    let parts: Vec<&str> = v.split(':').collect();
    parts.len() == 6
        && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|b| b & 1 == 0)
}

pub(super) fn mac(v: &str) -> Result<(), String> {
    if is_unicast_mac(v) { Ok(()) } else { Err("value does not look like a valid unicast MAC address\n".to_owned()) }
}

pub(super) fn bridge(v: &str) -> Result<(), String> {
    let ok = !v.is_empty() && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    if ok { Ok(()) } else { Err(format!("invalid bridge ID '{v}'\n")) }
}

fn cidr<T: std::str::FromStr>(v: &str, most: u8) -> bool {
    v.split_once('/')
        .is_some_and(|(ip, len)| ip.parse::<T>().is_ok() && len.parse::<u8>().is_ok_and(|n| (8..=most).contains(&n)))
}

pub(super) fn ipv4_config(v: &str) -> Result<(), String> {
    let ok = matches!(v, "dhcp" | "manual") || cidr::<Ipv4Addr>(v, 32);
    if ok { Ok(()) } else { Err("value does not look like a valid ipv4 network configuration\n".to_owned()) }
}

pub(super) fn ipv6_config(v: &str) -> Result<(), String> {
    let ok = matches!(v, "auto" | "dhcp" | "manual") || cidr::<Ipv6Addr>(v, 128);
    if ok { Ok(()) } else { Err("value does not look like a valid ipv6 network configuration\n".to_owned()) }
}

pub(super) fn ipv4(v: &str) -> Result<(), String> {
    let ok = v.parse::<Ipv4Addr>().is_ok();
    if ok { Ok(()) } else { Err("value does not look like a valid IPv4 address\n".to_owned()) }
}

pub(super) fn ipv6(v: &str) -> Result<(), String> {
    let ok = v.parse::<Ipv6Addr>().is_ok();
    if ok { Ok(()) } else { Err("value does not look like a valid IPv6 address\n".to_owned()) }
}

pub(super) fn dns_name(v: &str) -> Result<(), String> {
    let label = |l: &str| {
        let b = l.as_bytes();
        !b.is_empty()
            && b.len() < 64
            && b[0].is_ascii_alphanumeric()
            && b[b.len() - 1].is_ascii_alphanumeric()
            && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    };
    let ok = v.split('.').all(label);
    if ok { Ok(()) } else { Err("value does not look like a valid DNS name\n".to_owned()) }
}

pub(super) fn tags(v: &str) -> Result<(), String> {
    let tag = |t: &str| {
        let b = t.as_bytes();
        (b[0].is_ascii_alphanumeric() || b[0] == b'_')
            && b.iter().all(|c| c.is_ascii_alphanumeric() || b"_-+.".contains(c))
    };
    let ok = v.split([',', ';', ' ']).filter(|t| !t.is_empty()).all(tag);
    if ok { Ok(()) } else { Err("invalid characters in tag\n".to_owned()) }
}

pub(super) fn hotplug(v: &str) -> Result<(), String> {
    if v == "0" || v == "1" {
        return Ok(());
    }
    for f in v.split([',', ';', ' ']).filter(|t| !t.is_empty()) {
        if !["network", "disk", "cpu", "memory", "usb", "cloudinit"].contains(&f) {
            return Err(format!("invalid hotplug feature '{f}'\n"));
        }
    }
    Ok(())
}

pub(super) fn startup(v: &str) -> Result<(), String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let ok = v.split(',').filter(|p| !p.trim().is_empty()).all(|p| match p.trim().split_once('=') {
        Some(("order" | "up" | "down", n)) => digits(n),
        Some(_) => false,
        None => digits(p.trim()),
    });
    if ok { Ok(()) } else { Err("unable to parse startup options\n".to_owned()) }
}

pub(super) fn cpuset(v: &str) -> Result<(), String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let ok = v.split(',').all(|p| match p.split_once('-') {
        Some((a, b)) => digits(a) && digits(b),
        None => digits(p),
    });
    if ok { Ok(()) } else { Err("unable to parse cpuset option\n".to_owned()) }
}

pub(super) fn boot_list(v: &str) -> Result<(), String> {
    for dev in v.split(';').filter(|d| !d.is_empty()) {
        let (base, n) = super::numbered(dev);
        let ok = n.is_some() && (super::is_drive(dev) || matches!(base, "net" | "hostpci" | "usb"));
        if !ok || matches!(base, "efidisk" | "tpmstate") {
            return Err(format!("invalid boot device '{dev}'\n"));
        }
    }
    Ok(())
}

pub(super) fn legacy_boot(v: &str) -> bool {
    (1..=4).contains(&v.len()) && v.bytes().all(|b| b"acdn".contains(&b))
}

/// `[DDDD:]BB:DD[.F]`, several separated by `;`.
pub(super) fn pci_hosts(v: &str) -> bool {
    let hex = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    v.split(';').all(|h| {
        let (path, func) = h.split_once('.').map_or((h, None), |(p, f)| (p, Some(f)));
        let parts: Vec<&str> = path.split(':').collect();
        let (bus, dev) = match parts[..] {
            [d, b, s] if d.len() >= 4 && hex(d) => (b, s),
            [b, s] => (b, s),
            _ => return false,
        };
        bus.len() == 2 && dev.len() == 2 && hex(bus) && hex(dev) && func.is_none_or(|f| f.len() == 1 && hex(f))
    })
}

pub(super) fn pci_id(v: &str) -> bool {
    v.strip_prefix("0x").is_some_and(|h| h.len() == 4 && h.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub(super) fn number_ranges(v: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    v.split(';').all(|p| match p.split_once('-') {
        Some((a, b)) => digits(a) && digits(b),
        None => digits(p),
    })
}

pub(super) fn wwn(v: &str) -> bool {
    v.strip_prefix("0x").is_some_and(|h| h.len() >= 16 && h.bytes().take(16).all(|b| b.is_ascii_hexdigit()))
}

/// `pc`, `q35`, `pc-q35-9.0+pve1`, `virt` …
pub(super) fn machine_type(v: &str) -> bool {
    let version = |t: &str| {
        let t = t.strip_suffix(".pxe").unwrap_or(t);
        let (ver, pve) = t.split_once("+pve").map_or((t, None), |(a, b)| (a, Some(b)));
        let nums: Vec<&str> = ver.split('.').collect();
        nums.len() > 1
            && nums.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            && pve.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    };
    if matches!(v, "pc" | "q35" | "virt") {
        return true;
    }
    ["pc-i440fx-", "pc-q35-", "virt-", "pc-"].iter().any(|p| v.strip_prefix(p).is_some_and(version))
}

pub(super) fn usb_host(v: &str) -> bool {
    if v.eq_ignore_ascii_case("spice") {
        return true;
    }
    let hex4 = |t: &str| {
        let t = t.strip_prefix("0x").unwrap_or(t);
        t.len() == 4 && t.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if let Some((a, b)) = v.split_once(':') {
        return hex4(a) && hex4(b);
    }
    v.split_once('-').is_some_and(|(a, b)| {
        a.bytes().all(|c| c.is_ascii_digit()) && !a.is_empty() && b.bytes().all(|c| c.is_ascii_digit() || c == b'.')
    })
}

const CPU_MODELS: &str = "486 athlon Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS \
    Cascadelake-Server Cascadelake-Server-noTSX Cascadelake-Server-v2 Conroe Cooperlake Cooperlake-v2 core2duo \
    coreduo EPYC EPYC-Genoa EPYC-IBPB EPYC-Milan EPYC-Milan-v2 EPYC-Rome EPYC-Rome-v2 EPYC-Turin EPYC-v3 \
    GraniteRapids Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS host Icelake-Client Icelake-Client-noTSX \
    Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 IvyBridge IvyBridge-IBRS KnightsMill kvm32 kvm64 max \
    Nehalem Nehalem-IBRS Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn pentium pentium2 pentium3 \
    phenom qemu32 qemu64 SandyBridge SandyBridge-IBRS SapphireRapids SapphireRapids-v2 SierraForest Skylake-Client \
    Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS \
    Westmere Westmere-IBRS x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4";

/// Names of the built-in processors.
pub fn cpu_models() -> impl Iterator<Item = &'static str> {
    CPU_MODELS.split_ascii_whitespace()
}

/// The whole `cpu` string: the model must exist before anything else is looked at.
pub(super) fn cpu(v: &str) -> Result<(), String> {
    let first = v.split(',').next().unwrap_or_default();
    let model = first.strip_prefix("cputype=").unwrap_or(first);
    if let Some(custom) = model.strip_prefix("custom-") {
        return Err(format!("Custom cputype '{custom}' not found\n"));
    }
    if model.contains('=') || cpu_models().any(|m| m == model) {
        return Ok(());
    }
    Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"))
}
