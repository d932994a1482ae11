//! Which request goes to which handler. An endpoint that is missing here is answered `501`.
//!
//! The order is the server's. `rest_handler` (`PVE/HTTPServer.pm` of proxmox/pve-manager) looks for the method
//! (`find_handler`), lays the parameters over those of the path and refuses contradictions, checks the rights that the
//! method declares (`check_api2_permissions`), forwards to another node or to the privileged daemon, and only then calls
//! `handle`, which validates the parameters (`src/PVE/RESTHandler.pm` of proxmox/pve-common). So missing rights are told
//! before wrong parameters, except where a method declares none and asks for rights in its own code, as creating a VM does
//! for its options.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::acl::Who;
use super::params::{Params, Upload};
use super::reply::{ApiError, Reply, data};
use super::{access, cluster, content, mapping, nodes, pools, qemu, storage, tasks};
use crate::Lab;
use crate::world::World;

/// A decoded request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Sender; nobody for a login.
    pub who: Option<Who>,
    /// Method.
    pub method: String,
    /// Path below `/api2/json`, split and decoded.
    pub path: Vec<String>,
    /// Parameters of body and query.
    pub params: Params,
    /// Uploaded file.
    pub file: Option<Upload>,
}

impl Call {
    /// The sender.
    ///
    /// # Errors
    /// `401` when there is none.
    pub fn who(&self) -> Result<&Who, ApiError> {
        self.who.as_ref().ok_or_else(|| ApiError::unauthorized("No ticket"))
    }

    /// The answer for an endpoint that is not there.
    #[must_use]
    pub fn unknown(&self) -> ApiError {
        ApiError::not_simulated(&self.method, &format!("/{}", self.path.join("/")))
    }
}

/// The placeholders of a path with what stands in their places.
fn placeholders(path: &[String]) -> Vec<(&'static str, &str)> {
    let p: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut out = Vec::new();
    let mut rest = &p[..];
    if let ["nodes", node, more @ ..] = rest {
        out.push(("node", *node));
        rest = more;
    }
    let pairs: &[(&[&str], &str)] = &[
        (&["qemu"], "vmid"),
        (&["storage"], "storage"),
        (&["tasks"], "upid"),
        (&["network"], "iface"),
        (&["pools"], "poolid"),
        (&["access", "users"], "userid"),
        (&["access", "roles"], "roleid"),
        (&["access", "groups"], "groupid"),
        (&["access", "domains"], "realm"),
        (&["cluster", "ha", "resources"], "sid"),
        (&["cluster", "ha", "groups"], "group"),
        (&["cluster", "ha", "rules"], "rule"),
        (&["cluster", "mapping", "dir"], "id"),
        (&["cluster", "mapping", "pci"], "id"),
        (&["cluster", "mapping", "usb"], "id"),
        (&["cluster", "metrics", "server"], "id"),
        (&["cluster", "backup"], "id"),
        (&["cluster", "sdn", "zones"], "zone"),
        (&["cluster", "sdn", "vnets"], "vnet"),
    ];
    for (prefix, name) in pairs {
        if let Some([value, more @ ..]) = rest.strip_prefix(*prefix) {
            out.push((name, *value));
            match more {
                ["snapshot", snap, ..] => out.push(("snapname", *snap)),
                ["token", token, ..] => out.push(("tokenid", *token)),
                _ => {}
            }
        }
    }
    out
}

/// A parameter that repeats the path is dropped; one that contradicts it is refused.
///
/// # Errors
/// `400` with every contradiction.
pub fn drop_repeated(path: &[String], params: &mut Params) -> Result<(), ApiError> {
    let mut bad = BTreeMap::new();
    for (name, value) in placeholders(path) {
        match params.get(name) {
            Some(v) if v == value => {
                params.0.remove(name);
            }
            Some(_) => {
                let why = "duplicate parameter (already defined in URI) with conflicting values!";
                bad.insert(name.to_owned(), why.to_owned());
            }
            None => {}
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(ApiError::params(bad)) }
}

/// A list of sub-directories.
#[must_use]
pub fn subdirs(key: &str, names: &[&str]) -> Value {
    Value::Array(names.iter().map(|n| json!({ key: n })).collect())
}

/// Handles one request.
///
/// # Errors
/// The server's refusal.
pub fn route(lab: &Lab, w: &mut World, c: &Call) -> Reply {
    let out = dispatch(lab, w, c);
    // A method without parameters takes none, which is found out before anything else but missing rights.
    let late = !matches!(&out, Err(e) if matches!(e.code, 401 | 403 | 501));
    if c.method == "GET" && late && !c.params.checked() {
        c.params.check(&[])?;
    }
    out
}

fn dispatch(lab: &Lab, w: &mut World, c: &Call) -> Reply {
    let path: Vec<&str> = c.path.iter().map(String::as_str).collect();
    let m = c.method.as_str();
    match (m, &path[..]) {
        ("GET", []) => data(subdirs("subdir", &["version", "cluster", "nodes", "storage", "access", "pools"])),
        ("GET", ["version"]) => version(w),
        (_, ["access", rest @ ..]) => access::route(w, c, m, rest),
        (_, ["cluster", "mapping", rest @ ..]) => mapping::route(w, c, m, rest),
        (_, ["cluster", rest @ ..]) => cluster::route(w, c, m, rest),
        (_, ["pools", rest @ ..]) => pools::route(w, c, m, rest),
        (_, ["storage", rest @ ..]) => storage::route(w, c, m, rest),
        ("GET", ["nodes"]) => nodes::list(w, c),
        (_, ["nodes", node, rest @ ..]) => {
            let node = node_name(w, node)?;
            match rest {
                ["qemu", more @ ..] => qemu::route(w, c, m, &node, more),
                ["storage", more @ ..] => content::route(w, c, m, &node, more),
                ["tasks", more @ ..] => tasks::route(w, c, m, &node, more),
                more => nodes::route(lab, w, c, m, &node, more),
            }
        }
        _ => Err(c.unknown()),
    }
}

fn node_name(w: &World, asked: &str) -> Result<String, ApiError> {
    if asked == "localhost" {
        return Ok(w.pve.nodes.keys().next().cloned().unwrap_or_default());
    }
    if w.pve.offline.contains(asked) {
        return Err(ApiError::broken(595, "No route to host"));
    }
    if w.pve.nodes.contains_key(asked) {
        return Ok(asked.to_owned());
    }
    let why = format!("{asked}: Temporary failure in name resolution");
    Err(ApiError::fail(format!("hostname lookup '{asked}' failed - failed to get address info for: {why}")))
}

/// `GET /version`.
///
/// # Errors
/// Never.
pub fn version(w: &World) -> Reply {
    let release = w.pve.version.clone();
    let minor = if release.split('.').count() > 2 { release.clone() } else { format!("{release}.9") };
    let short = release.split('.').take(2).collect::<Vec<_>>().join(".");
    data(json!({ "version": minor, "release": short, "repoid": "9f3bdf24ad0b6a8c" }))
}
