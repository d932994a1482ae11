//! Values of a site file that read well and cannot be meant: a disk over the system, a class that no API server takes, one
//! host name for two programs.
use super::source::{Finding, Source};
use super::types::{RoleKind, Site};
use crate::core::paths::is_systems;

/// Folders that are the system's or for everybody: what is mounted lies below them.
const SHARED: &[&str] = &["/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/var/log"];
/// Folders below which nothing is, either.
const BELOW: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/kubelet",
    "/var/lib/rancher",
];

/// Adds what cannot be meant.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    paths(src, site, out);
    names(src, site, out);
    hosts(src, site, out);
    versions(src, site, out);
    pods(src, site, out);
    address(src, site, out);
}

fn text<'a>(table: &'a toml::Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(toml::Value::as_str)
}

/// Why a folder cannot be what a data or scratch disk is mounted at.
fn no_place(path: &str) -> Option<String> {
    let plain = path.starts_with('/')
        && !path.contains("//")
        && path.split('/').all(|p| !matches!(p, "." | ".."))
        && !path.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'$`\\".contains(c));
    if !plain {
        return Some(format!("`{path}` is no plain absolute path"));
    }
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let below = |p: &&&str| path == **p || path.strip_prefix(**p).is_some_and(|r| r.starts_with('/'));
    let system = is_systems(path) || SHARED.contains(&path) || BELOW.iter().any(|p| below(&p));
    system.then(|| format!("`{path}` belongs to the system: a disk mounted there would hide it"))
}

fn paths(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let existing = site.storage.contains_key("nfs_server");
    for (key, example) in [("nfs_path", "/srv/nfs/k8s"), ("scratch_path", "/mnt/scratch")] {
        let Some(path) = text(&site.storage, key) else { continue };
        let why = match key {
            // somebody else's server exports what it likes
            "nfs_path" if existing && path.starts_with('/') => None,
            _ => no_place(path),
        };
        if let Some(why) = why {
            out.push(src.value(&format!("storage.{key}"), why, Some(format!("for example `{example}`"))));
        }
    }
}

/// A name that the API server takes (RFC 1123 subdomain).
fn subdomain(name: &str) -> bool {
    let label = |l: &str| {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !l.is_empty() && l.bytes().all(ok) && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn names(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    for key in ["nfs_class", "scratch_class"] {
        if let Some(name) = text(&site.storage, key).filter(|n| !subdomain(n)) {
            let hint = "lower-case letters, digits, `-` and `.`".to_owned();
            let what = format!("`{name}` is no name of a storage class");
            out.push(src.value(&format!("storage.{key}"), what, Some(hint)));
        }
    }
    if let Some(name) = text(&site.storage, "nfs_class").filter(|n| Some(*n) == text(&site.storage, "scratch_class")) {
        let what = format!("`{name}` cannot be the class of the share and of scratch disks");
        out.push(src.value("storage.scratch_class", what, Some("two names".to_owned())));
    }
}

fn hosts(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (section, table) in site.platform.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_table()?))) {
        let key = format!("platform.{section}.hostname");
        if let Some(host) = text(table, "hostname") {
            if !subdomain(host) {
                out.push(src.value(&key, format!("`{host}` is no host name"), None));
            }
            if let Some((_, other)) = seen.iter().find(|(h, _)| *h == host) {
                let hint = Some("each program needs a name of its own: the ingress tells them apart by it".to_owned());
                out.push(src.value(&key, format!("[platform.{other}] has the host name `{host}`, too"), hint));
            }
            seen.push((host, section));
        }
        if table.get("replicas").and_then(toml::Value::as_integer) == Some(0) {
            let what = "no replica at all: it would never be ready".to_owned();
            out.push(src.value(&format!("platform.{section}.replicas"), what, Some("at least 1".to_owned())));
        }
    }
    let repo = site.platform.get("fleet").and_then(|f| f.get("repo")).and_then(toml::Value::as_str);
    if let Some(repo) = repo.filter(|r| !is_repository(r)) {
        let hint = "for example `https://git.lab.example/homelab/gitops.git`, or `git@host:path`".to_owned();
        out.push(src.value("platform.fleet.repo", format!("`{repo}` is no address of a Git repository"), Some(hint)));
    }
}

fn is_repository(text: &str) -> bool {
    let url = ["https://", "http://", "ssh://", "git://"].iter().find_map(|s| text.strip_prefix(s));
    let path =
        |rest: &str, sep: char| rest.split_once(sep).is_some_and(|(host, path)| !host.is_empty() && !path.is_empty());
    !text.contains(char::is_whitespace)
        && url.map_or_else(|| text.contains('@') && path(text, ':'), |rest| path(rest, '/'))
}

/// Chart versions are numbers: the same file gives the same cluster.
fn versions(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let charts = site.platform.iter().filter_map(|(k, v)| Some((format!("platform.{k}.version"), v.get("version")?)));
    let more =
        [("gpu.operator", site.gpu.get("operator")), ("storage.csi_driver_nfs", site.storage.get("csi_driver_nfs"))];
    let more = more.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?)));
    for (key, value) in charts.chain(more) {
        let Some(v) = value.as_str() else { continue };
        let core = v.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<&str> = core.split('.').collect();
        let number = |n: &&str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() != 3 || !numbers.iter().all(number) {
            let hint = "a version such as `1.20.2`: the same file then gives the same cluster".to_owned();
            out.push(src.value(&key, format!("`{v}` is no version of a chart"), Some(hint)));
        }
    }
}

/// Every node takes a /24 of the pods' network.
fn pods(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let cidr = text(&site.k3s, "cluster_cidr").unwrap_or("10.42.0.0/16");
    // two families: the first one is the one that counts nodes
    let first = cidr.split(',').next().unwrap_or(cidr);
    let Some((_, len)) = super::parse_cidr(first) else {
        let hint = "for example `10.42.0.0/16`".to_owned();
        out.push(src.value("k3s.cluster_cidr", format!("`{cidr}` is not a network"), Some(hint)));
        return;
    };
    let (has, needs) = (if len > 24 { 0 } else { 1_u64 << (24 - len) }, site.cluster_nodes().count() as u64);
    if has < needs {
        let hint = "every node takes a /24 of it: a /16 has room for 256".to_owned();
        out.push(src.value("k3s.cluster_cidr", format!("`{cidr}` has room for {has} nodes of {needs}"), Some(hint)));
    }
}

/// Agents and kubectl cannot go to a machine that is no server.
fn address(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let Some(address) = text(&site.k3s, "address") else { return };
    if let Some(n) = site.nodes.iter().find(|n| n.ip == address && n.kind != RoleKind::Server) {
        let hint = "a server's address, a free one with `vip = true`, or a load balancer's".to_owned();
        let what = format!("`{address}` is the address of {}, which is no server: no API answers there", n.name);
        out.push(src.value("k3s.address", what, Some(hint)));
    }
}
