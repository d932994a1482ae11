//! The world that a site's lab starts with: the lab's own hardware under the site's names.
use std::collections::BTreeSet;

use gpuhost_lab::lan::Lan;
use gpuhost_lab::spec::{Download, NodeSpec, Spec, StorageSpec};
use gpuhost_lab::world::World;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::{RoleKind, Site};

/// Address of a file server that the site file names only by name.
const ELSEWHERE: &str = "198.51.100.9";

/// A fresh world for `site`.
///
/// # Errors
/// When keys cannot be made.
pub fn born(site: &Site) -> OpResult<World> {
    born_of(&spec(site)?, site)
}

/// A fresh world of this hardware for `site`.
///
/// # Errors
/// When keys cannot be made.
pub fn born_of(spec: &Spec, site: &Site) -> OpResult<World> {
    let fail = |e: String| OpError::failed("the lab's world cannot be made").because(e);
    let mut w = World::new(spec).map_err(fail)?;
    surround(&mut w, site);
    if let Some((url, branch)) = repository(site) {
        let files = crate::embed::all().iter().filter(|(p, _)| p.starts_with("recipes/gitops/"));
        let files: std::collections::BTreeMap<_, _> = files.map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        w.remotes.insert(url, gpuhost_lab::git::Remote::with(&branch, files));
    }
    Ok(w)
}

/// What the site file takes for granted on its network is there in the lab: the API's name leads to the servers, and
/// somebody else's file server exports. Nobody has rehearsed that, and the run says so.
pub fn surround(w: &mut World, site: &Site) {
    w.lan = Lan::default();
    let is_ip = |t: &str| t.parse::<std::net::Ipv4Addr>().is_ok();
    let text =
        |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let address = text(&site.k3s, "address");
    if !address.is_empty() && !is_ip(&address) {
        let servers = site.nodes.iter().filter(|n| n.kind == RoleKind::Server).map(|n| n.ip.clone());
        w.not_rehearsed.insert(format!("the DNS record of {address}: here it leads to the servers"));
        w.lan.names.insert(address, servers.collect());
    }
    let server = text(&site.storage, "nfs_server");
    if server.is_empty() || site.nodes.iter().any(|n| n.ip == server || n.name == server) {
        return;
    }
    w.not_rehearsed.insert(format!("the file server {server}: here it takes every mount, and keeps nothing"));
    let ip = if is_ip(&server) { server.clone() } else { ELSEWHERE.to_owned() };
    if ip != server {
        w.lan.names.insert(server, vec![ip.clone()]);
    }
    w.lan.shares.insert(ip, vec![text(&site.storage, "nfs_path")]);
}

/// The world in the folder, or a fresh one.
///
/// # Errors
/// When it cannot be read or made.
pub fn of(folder: &super::folder::Folder, site: &Site) -> OpResult<World> {
    let Some(mut w) = folder.load()? else { return born(site) };
    surround(&mut w, site);
    Ok(w)
}

/// Address and branch of the repository that the site's Fleet follows.
#[must_use]
pub fn repository(site: &Site) -> Option<(String, String)> {
    let fleet = site.platform.get("fleet")?;
    let text = |k: &str| fleet.get(k).and_then(toml::Value::as_str).map(str::to_owned);
    Some((text("repo")?, text("branch").unwrap_or_else(|| "main".to_owned())))
}

/// `host:port` of the site's hypervisor.
///
/// # Errors
/// `invalid` when the URL has no host.
pub fn api_addr(site: &Site) -> OpResult<String> {
    let url = &site.proxmox.url;
    let rest = url.split_once("://").map_or(url.as_str(), |(_, r)| r);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Err(OpError::invalid(format!("`{url}` has no host")).hint("proxmox.url = \"https://10.0.0.2:8006\""));
    }
    Ok(if host.contains(':') { host.to_owned() } else { format!("{host}:443") })
}

/// The lab's hardware with the addresses and names that the site file uses. Devices stay the lab's own:
/// a wrong GPU in the site file must be able to fail.
///
/// # Errors
/// When the embedded spec or the site's URL cannot be read.
pub fn spec(site: &Site) -> OpResult<Spec> {
    let mut spec = Spec::homelab().map_err(|e| OpError::failed("the lab's spec cannot be read").because(e))?;
    spec.api_addr = api_addr(site)?;
    if !site.proxmox.token_id.is_empty() {
        spec.token_id.clone_from(&site.proxmox.token_id);
    }
    nodes(&mut spec, site);
    storages(&mut spec, site);
    image(&mut spec, site);
    Ok(spec)
}

fn nodes(spec: &mut Spec, site: &Site) {
    let main = &site.proxmox.pve_node;
    if !spec.nodes.iter().any(|n| n.name == *main)
        && let Some(first) = spec.nodes.first_mut()
    {
        let old = std::mem::replace(&mut first.name, main.clone());
        for vm in spec.foreign_vms.iter_mut().filter(|v| v.node == old) {
            vm.node.clone_from(main);
        }
    }
    let used = site.nodes.iter().map(|n| &n.pve_node).chain(site.template.pve_node.iter());
    for name in used.collect::<BTreeSet<_>>() {
        if !spec.nodes.iter().any(|n| n.name == *name) {
            spec.nodes.push(NodeSpec {
                name: name.clone(),
                cpus: 64,
                memory_gib: 512,
                bridges: Vec::new(),
                iommu: true,
                pci: Vec::new(),
            });
        }
    }
    for n in &mut spec.nodes {
        if !n.bridges.contains(&site.network.bridge) {
            n.bridges.push(site.network.bridge.clone());
        }
    }
}

fn storages(spec: &mut Spec, site: &Site) {
    let shapes = site.nodes.iter().map(|n| &n.shape);
    let disks = shapes.flat_map(|s| [&s.disk_storage, &s.scratch_storage, &s.data_storage]).flatten();
    let mut disks: BTreeSet<&String> = disks.collect();
    disks.insert(&site.proxmox.storage);
    for id in disks {
        add_storage(spec, id, "zfspool", "images,rootdir");
    }
    add_storage(spec, &site.proxmox.image_storage, "dir", "iso,vztmpl,import,backup,snippets");
}

fn add_storage(spec: &mut Spec, id: &str, kind: &str, content: &str) {
    if !spec.storages.iter().any(|s| s.id == id) {
        spec.storages.push(StorageSpec {
            id: id.to_owned(),
            kind: kind.to_owned(),
            content: content.to_owned(),
            size_gib: 16 << 10,
            shared: false,
        });
    }
}

/// The site's cloud image can be downloaded; a checksum that the lab does not know is the site file's own word.
fn image(spec: &mut Spec, site: &Site) {
    let Some(url) = &site.template.image_url else { return };
    if !spec.downloads.iter().any(|d| d.url == *url) {
        let (what, nothing) = ("os:debian-12".to_owned(), String::new);
        spec.downloads.push(Download { url: url.clone(), size: 350 << 20, sha256: nothing(), sha512: nothing(), what });
    }
    for d in spec.downloads.iter_mut().filter(|d| d.url == *url) {
        for (known, said) in
            [(&mut d.sha256, &site.template.image_sha256), (&mut d.sha512, &site.template.image_sha512)]
        {
            if known.is_empty() {
                *known = said.clone().unwrap_or_default();
            }
        }
    }
}
