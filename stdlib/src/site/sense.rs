//! What a site file may say in each place, but not together: addresses in use, networks that overlap, disks that are missing.
use std::net::Ipv4Addr;

use super::load::at;
use super::source::{Finding, Source};
use super::types::{RoleKind, Site};

/// Adds what contradicts itself.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    taken(src, site, out);
    overlaps(src, site, out);
    storage(src, site, out);
    digests(src, site, out);
    platform(src, site, out);
    classes(src, site, out);
    detours(src, site, out);
    super::marks::check(src, site, out);
    super::fits::check(src, site, out);
    super::sane::check(src, site, out);
    super::settings::check(src, site, out);
    sharing(src, site, out);
    if let Some(device) = site.gpu.get("device").and_then(toml::Value::as_str) {
        let id = |s: &str| s.len() == 4 && s.bytes().all(|b| b.is_ascii_hexdigit());
        if !device.split_once(':').is_some_and(|(vendor, device)| id(vendor) && id(device)) {
            let hint = "for example `10de:20f1`; `lspci -nn` on the hypervisor shows it in brackets".to_owned();
            out.push(src.value("gpu.device", format!("`{device}` is not of the form `vendor:device`"), Some(hint)));
        }
    }
}

/// How cards are cut and shared: values that exist, and that go together.
fn sharing(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let number = |key: &str| site.gpu.get(key).and_then(toml::Value::as_integer).unwrap_or(1);
    if let Err(e) = crate::gpu::Sharing::of(number("time_slicing"), number("mps")) {
        out.push(src.value("gpu", e.message.replace("options ", "keys "), e.hint));
    }
    if let Some(v) = site.gpu.get("mig_strategy").and_then(toml::Value::as_str)
        && !["single", "mixed", "none"].contains(&v)
    {
        let hint = Some("single, mixed or none".to_owned());
        out.push(src.value("gpu.mig_strategy", format!("`{v}` is no MIG strategy"), hint));
    }
    for node in &site.nodes {
        let Some(config) = &node.shape.mig else { continue };
        let text = match crate::gpu::check_config(config) {
            Err(e) => Some((e.message, e.hint)),
            Ok(()) if config != "all-disabled" && number("mps") > 1 => {
                Some((format!("node `{}`: MPS does not share cards that MIG cuts", node.name), None))
            }
            Ok(()) => None,
        };
        if let Some((text, hint)) = text {
            out.push(src.value("nodes", text, hint));
        }
    }
}

/// Checksums and fingerprints that cannot be any: a slip is told here, not taken for an attack later.
fn digests(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let hex = |s: &str, digits: usize| s.len() == digits && s.bytes().all(|b| b.is_ascii_hexdigit());
    let t = &site.template;
    for (key, value, name, digits) in [
        ("template.image_sha256", &t.image_sha256, "SHA-256", 64),
        ("template.image_sha512", &t.image_sha512, "SHA-512", 128),
    ] {
        if let Some(v) = value.as_deref().filter(|v| !hex(v, digits)) {
            let hint = "the publisher's SHA256SUMS or SHA512SUMS beside the image has it".to_owned();
            out.push(src.value(key, format!("`{v}` is no {name}: that has {digits} hexadecimal digits"), Some(hint)));
        }
    }
    if let Some(f) = site.proxmox.fingerprint.as_deref().filter(|f| !hex(&f.replace(':', ""), 64)) {
        let hint = "32 pairs of hexadecimal digits: `pvenode cert info` on the hypervisor shows them".to_owned();
        out.push(src.value("proxmox.fingerprint", format!("`{f}` is no SHA-256 fingerprint"), Some(hint)));
    }
}

/// `[connect]` leads from one `host:port` to another.
fn detours(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let place = |t: &str| {
        t.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    for (from, to) in &site.connect {
        for end in [from, to].into_iter().filter(|end| !place(end)) {
            let hint = "for example `\"10.0.0.11:22\" = \"127.0.0.1:2211\"`".to_owned();
            let text = format!("`{end}` is not of the form `host:port`");
            out.push(src.value(&format!("connect.{from}"), text, Some(hint)));
        }
    }
}

/// Charts that come with another one, or do not install without it.
fn platform(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let has = |name: &str| site.platform.contains_key(name);
    if has("fleet") && !has("rancher") {
        let hint = "add a `[platform.rancher]` section, or take `[platform.fleet]` out".to_owned();
        out.push(src.value(
            "platform.fleet",
            "Fleet comes with Rancher, which the site does not ask for".to_owned(),
            Some(hint),
        ));
    }
    if has("rancher") && !has("cert_manager") {
        let hint =
            "add a `[platform.cert_manager]` section; fine when something else installs cert-manager before".to_owned();
        let text = "Rancher's chart makes a cert-manager Issuer, which the site does not ask for".to_owned();
        let mut f = src.value("platform.rancher", text, Some(hint));
        f.warning = true;
        out.push(f);
    }
}

/// K3s makes its own class the default one again at every start.
fn classes(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let off = site.k3s.get("disable").and_then(toml::Value::as_array).into_iter().flatten();
    if !site.storage.contains_key("nfs_class") || off.into_iter().any(|c| c.as_str() == Some("local-storage")) {
        return;
    }
    let hint = "add \"local-storage\" to `disable`: claims that name no class then always get the NFS one".to_owned();
    let text =
        "there will be two default storage classes: K3s makes `local-path` a default one at every start".to_owned();
    let mut f = src.value("k3s.disable", text, Some(hint));
    f.warning = true;
    out.push(f);
}

/// The host part of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, r)| r);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

/// Nodes whose address is somebody else's.
fn taken(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let Some((net, len)) = super::parse_cidr(&site.network.cidr) else { return };
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    let (first, last) = (u32::from(net) & mask, u32::from(net) | !mask);
    for (i, n) in site.nodes.iter().enumerate() {
        let Ok(ip) = n.ip.parse::<Ipv4Addr>() else { continue };
        let (what, whose) = if n.ip == site.network.gateway {
            ("is the gateway's".to_owned(), "network.gateway")
        } else if n.ip == host_of(&site.proxmox.url) {
            ("is the hypervisor's".to_owned(), "proxmox.url")
        } else if len < 31 && [first, last].contains(&u32::from(ip)) {
            (format!("is no machine's in {}", site.network.cidr), "network.cidr")
        } else {
            continue;
        };
        let hint = format!("choose another one; see `{whose}`");
        out.push(src.value(&format!("nodes.{i}.ip"), format!("address `{}` {what}", n.ip), Some(hint)));
    }
    let address = site.k3s.get("address").and_then(toml::Value::as_str).unwrap_or_default();
    let vip = site.k3s.get("vip").and_then(toml::Value::as_bool).unwrap_or(false);
    if vip && let Some(n) = site.nodes.iter().find(|n| n.ip == address) {
        let hint = "a virtual IP is a free address of the subnet, or leave `vip` out".to_owned();
        out.push(src.value(
            "k3s.address",
            format!("the virtual IP `{address}` is the address of {}", n.name),
            Some(hint),
        ));
    }
    let held = site.nodes.iter().any(|n| n.ip == address);
    if address.parse::<Ipv4Addr>().is_ok() && !vip && !held {
        let hint = "a server's address, or `vip = true`; fine when a load balancer of yours has it".to_owned();
        let mut f = src.value("k3s.address", format!("no server has the address `{address}`"), Some(hint));
        f.warning = true;
        out.push(f);
    }
}

/// Networks of nodes, pods and services that share addresses.
fn overlaps(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let k3s = |key: &str, default: &str| site.k3s.get(key).and_then(toml::Value::as_str).unwrap_or(default).to_owned();
    let nets = [
        ("network.cidr", site.network.cidr.clone()),
        ("k3s.cluster_cidr", k3s("cluster_cidr", "10.42.0.0/16")),
        ("k3s.service_cidr", k3s("service_cidr", "10.43.0.0/16")),
    ];
    for (i, (key, cidr)) in nets.iter().enumerate() {
        for (other, theirs) in &nets[..i] {
            let (Some((a, la)), Some((b, lb))) = (super::parse_cidr(cidr), super::parse_cidr(theirs)) else { continue };
            let mask = u32::MAX.checked_shl(32 - u32::from(la.min(lb))).unwrap_or(0);
            if u32::from(a) & mask != u32::from(b) & mask {
                continue;
            }
            // The key that is written in the file; a default stands nowhere.
            let place = if at(src, key).is_some() { key } else { other };
            let (own, own_key, of, of_key) =
                if place == key { (cidr, key, theirs, other) } else { (theirs, other, cidr, key) };
            let hint = format!("nodes, pods and services each need a network of their own: change `{own_key}`");
            out.push(src.value(own_key, format!("`{own}` overlaps `{of_key}` {of}"), Some(hint)));
        }
    }
}

/// Somebody has to serve the share, and has to have a disk for it.
fn storage(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    if site.storage.is_empty() || site.storage.contains_key("nfs_server") {
        return;
    }
    let mut machines = site.nodes.iter().filter(|n| n.kind == RoleKind::Storage).peekable();
    if machines.peek().is_none() {
        let hint = "declare one, or name an existing server: `nfs_server = \"10.0.0.9\"`".to_owned();
        let text = "nobody serves `nfs_path`: no node has a role of kind `storage`";
        out.push(src.value("storage", text, Some(hint)));
    }
    for n in machines.filter(|n| n.shape.data.is_none()) {
        let hint = "for example `data = \"2 TiB\"`: the disk that `nfs_path` is on".to_owned();
        let f = src.value(
            &format!("roles.{}", n.role),
            format!("{} is of kind `storage` but has no `data` disk", n.name),
            Some(hint),
        );
        if !out.contains(&f) {
            out.push(f);
        }
    }
}
