//! Packages of hypervisor nodes: versions, updates, repositories.
use serde_json::{Value, json};

use super::params::{b, n, opt, pat, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::sections;
use super::task::{self, Job};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

/// Packages that the version list shows, with their versions on 9 and 8.
const PACKAGES: &[(&str, &str, &str, &str)] = &[
    ("proxmox-ve", "9.1.0", "8.4.0", "Proxmox Virtual Environment"),
    ("pve-manager", "9.1.9", "8.4.14", "Proxmox Virtual Environment Management Tools"),
    ("qemu-server", "9.1.4", "8.4.4", "Qemu Server Tools"),
    ("pve-qemu-kvm", "10.1.2-5", "9.2.0-7", "Full virtualization on x86 hardware"),
    ("pve-container", "6.0.18", "5.3.3", "Proxmox VE Container management tool"),
    ("pve-cluster", "9.0.7", "8.1.2", "Cluster Infrastructure for Proxmox Virtual Environment"),
    ("pve-ha-manager", "5.0.8", "4.0.7", "Proxmox VE HA Manager"),
    ("pve-firewall", "6.0.4", "5.1.2", "Proxmox VE Firewall"),
    ("libpve-storage-perl", "9.1.0", "8.3.7", "Proxmox VE storage management library"),
    ("libpve-access-control", "9.0.5", "8.2.2", "Proxmox VE access control library"),
    ("pve-edk2-firmware", "4.2025.05-2", "4.2025.02-4~bpo12+1", "edk2 based firmware modules for virtual machines"),
    ("zfsutils-linux", "2.3.4-pve1", "2.2.8-pve1", "command-line tools to manage OpenZFS filesystems"),
];
/// Repositories that the interface offers: handle, name.
const STANDARD: &[(&str, &str)] =
    &[("enterprise", "Enterprise"), ("no-subscription", "No-Subscription"), ("test", "Test")];
const CHANGE: &[Prop] = &[short("digest", 80)];

/// Handles `/nodes/{node}/apt…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let place = format!("/nodes/{node}");
    let need = |w: &World, p: &str| w.pve.need(&who, &place, p);
    match (method, path) {
        ("GET", []) => data(subdirs("id", &["changelog", "repositories", "update", "versions"])),
        ("GET", ["versions"]) => {
            need(w, "Sys.Audit")?;
            data(versions(w))
        }
        ("GET", ["update"]) => {
            need(w, "Sys.Modify")?;
            data(json!([]))
        }
        ("POST", ["update"]) => {
            need(w, "Sys.Modify")?;
            c.params.check(&[b("notify"), b("quiet")])?;
            let upid = task::start(w, node, "aptupdate", "", &who, Job::Over);
            task::log(w, &upid, "starting apt-get update");
            for uri in repositories(w, node).iter().filter(|r| r.enabled).map(|r| r.uri) {
                task::log(w, &upid, format!("Hit: {uri} {} InRelease", suite(w)));
            }
            data(upid)
        }
        ("GET", ["changelog"]) => {
            need(w, "Sys.Modify")?;
            let name = |v: &str| v.len() > 1 && v.bytes().all(|c| c.is_ascii_alphanumeric() || b"-+.:".contains(&c));
            c.params.check(&[req(pat("name", name)), t("version")])?;
            let name = c.params.text("name");
            let known = PACKAGES.iter().find(|p| p.0 == name);
            let known = known.ok_or_else(|| ApiError::fail(format!("package '{name}' not found")))?;
            let version = if w.pve.is_8() { known.2 } else { known.1 };
            data(format!("{name} ({version}) {}; urgency=medium\n", suite(w)))
        }
        ("GET", ["repositories"]) => {
            need(w, "Sys.Audit")?;
            data(listing(w, node))
        }
        ("POST", ["repositories"]) => {
            need(w, "Sys.Modify")?;
            c.params.check(&[CHANGE, &[req(t("path")), req(n("index")), b("enabled")]].concat())?;
            switch(w, c, node)
        }
        ("PUT", ["repositories"]) => {
            need(w, "Sys.Modify")?;
            c.params.check(&[CHANGE, &[req(opt("handle", Ty::Str))]].concat())?;
            add(w, c, node)
        }
        _ => Err(c.unknown()),
    }
}

fn suite(w: &World) -> &'static str {
    if w.pve.is_8() { "bookworm" } else { "trixie" }
}

fn versions(w: &World) -> Vec<Value> {
    let row = |(name, nine, eight, title): &(&str, &str, &str, &str)| {
        let version = if w.pve.is_8() { eight } else { nine };
        let mut v = json!({
            "Package": name, "Title": title, "Version": version, "OldVersion": version, "CurrentState": "Installed",
            "Arch": "amd64", "Origin": "Proxmox", "Priority": "optional", "Section": "admin", "Description": title,
        });
        match *name {
            "proxmox-ve" => v["RunningKernel"] = json!("6.17.2-1-pve"),
            "pve-manager" => v["ManagerVersion"] = json!(format!("{}/9f3bdf24ad0b6a8c", w.pve.version)),
            _ => {}
        }
        v
    };
    PACKAGES.iter().map(row).collect()
}

/// One repository of a file.
struct Repository {
    path: &'static str,
    index: usize,
    uri: &'static str,
    suites: Vec<String>,
    components: &'static [&'static str],
    handle: &'static str,
    enabled: bool,
}

/// The repositories of a node in the order of their files.
fn repositories(w: &World, node: &str) -> Vec<Repository> {
    let suite = suite(w);
    let set = w.pve.settings.get(&format!("apt/{node}"));
    let on = |path: &str, index: usize, default: bool| {
        set.and_then(|r| r.get(&format!("{path}:{index}"))).map_or(default, |v| v == 1)
    };
    let added = |handle: &str| set.is_some_and(|r| r.contains_key(&format!("added:{handle}")));
    let old = w.pve.is_8();
    let pick = |eight: &'static str, nine: &'static str| if old { eight } else { nine };
    let debian = pick("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources");
    let proxmox = pick("/etc/apt/sources.list.d/pve-no-subscription.list", "/etc/apt/sources.list.d/proxmox.sources");
    let enterprise =
        pick("/etc/apt/sources.list.d/pve-enterprise.list", "/etc/apt/sources.list.d/pve-enterprise.sources");
    let main: &[&str] = &["main", "contrib", "non-free-firmware"];
    let pve = "http://download.proxmox.com/debian/pve";
    let list = [
        (
            debian,
            0,
            "http://deb.debian.org/debian",
            vec![suite.to_owned(), format!("{suite}-updates")],
            main,
            "",
            true,
            true,
        ),
        (
            debian,
            1,
            "http://security.debian.org/debian-security",
            vec![format!("{suite}-security")],
            main,
            "",
            true,
            true,
        ),
        (proxmox, 0, pve, vec![suite.to_owned()], &["pve-no-subscription"][..], "no-subscription", true, true),
        (proxmox, 1, pve, vec![suite.to_owned()], &["pve-test"][..], "test", true, added("test")),
        (
            enterprise,
            0,
            "https://enterprise.proxmox.com/debian/pve",
            vec![suite.to_owned()],
            &["pve-enterprise"][..],
            "enterprise",
            false,
            true,
        ),
    ];
    let there = list.into_iter().filter(|r| r.7);
    there
        .map(|(path, index, uri, suites, components, handle, default, _)| Repository {
            path,
            index,
            uri,
            suites,
            components,
            handle,
            enabled: on(path, index, default),
        })
        .collect()
}

fn digest(w: &World, node: &str) -> String {
    let state: Vec<(&str, usize, bool)> = repositories(w, node).iter().map(|r| (r.path, r.index, r.enabled)).collect();
    sections::digest(&state)
}

fn listing(w: &World, node: &str) -> Value {
    let all = repositories(w, node);
    let kind = if w.pve.is_8() { "list" } else { "sources" };
    let mut files: Vec<Value> = Vec::new();
    for r in &all {
        let row = json!({
            "Types": ["deb"], "URIs": [r.uri], "Suites": r.suites, "Components": r.components,
            "Enabled": i32::from(r.enabled), "FileType": kind,
        });
        match files.iter_mut().find(|f| f["path"] == r.path) {
            Some(f) => f["repositories"].as_array_mut().into_iter().for_each(|l| l.push(row.clone())),
            None => {
                let sum: Vec<u8> = sections::digest(&r.path).bytes().take(32).collect();
                files.push(json!({ "path": r.path, "file-type": kind, "digest": sum, "repositories": [row] }));
            }
        }
    }
    let standard = STANDARD.iter().map(|(handle, name)| {
        let mut v = json!({ "handle": handle, "name": name });
        if let Some(r) = all.iter().find(|r| r.handle == *handle) {
            v["status"] = json!(i32::from(r.enabled));
        }
        v
    });
    let origin = |r: &Repository| {
        json!({
            "path": r.path, "index": r.index.to_string(), "kind": "origin",
            "message": if r.handle.is_empty() { "Debian" } else { "Proxmox" },
        })
    };
    json!({
        "digest": digest(w, node), "errors": [], "files": files, "infos": all.iter().map(origin).collect::<Vec<_>>(),
        "standard-repos": standard.collect::<Vec<_>>(),
    })
}

/// Switches one repository on or off.
fn switch(w: &mut World, c: &Call, node: &str) -> Reply {
    sections::unchanged(&c.params, &digest(w, node))?;
    let (path, index) = (c.params.text("path"), c.params.int("index").unwrap_or(-1));
    let all = repositories(w, node);
    let of_file: Vec<&Repository> = all.iter().filter(|r| r.path == path).collect();
    if of_file.is_empty() {
        return Err(ApiError::fail(format!("invalid path - {path}")));
    }
    if !of_file.iter().any(|r| i64::try_from(r.index) == Ok(index)) {
        return Err(ApiError::fail(format!("invalid index - {index}")));
    }
    let on = i32::from(c.params.get("enabled").is_none_or(|v| v == "1"));
    w.pve.settings.entry(format!("apt/{node}")).or_default().insert(format!("{path}:{index}"), json!(on));
    null()
}

/// Adds a standard repository, or switches it on.
fn add(w: &mut World, c: &Call, node: &str) -> Reply {
    sections::unchanged(&c.params, &digest(w, node))?;
    let handle = c.params.text("handle");
    if !STANDARD.iter().any(|(h, _)| *h == handle) {
        return Err(ApiError::fail(format!("unknown repository handle '{handle}'")));
    }
    let there = repositories(w, node).into_iter().find(|r| r.handle == handle);
    let row = w.pve.settings.entry(format!("apt/{node}")).or_default();
    match there {
        Some(r) => row.insert(format!("{}:{}", r.path, r.index), json!(1)),
        None => row.insert(format!("added:{handle}"), json!(1)),
    };
    null()
}
