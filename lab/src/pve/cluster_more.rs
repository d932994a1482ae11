//! Lists of the cluster that nothing of the lab acts on: notifications, job kinds; and orders for many machines at once.
use serde_json::{Value, json};

use super::params::{Params, b, n, node as node_param, opt, range, req, t};
use super::qemu;
use super::reply::{Reply, data};
use super::router::{Call, subdirs};
use super::task::{self, Job};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

const NOTIFY: &str = "Mapping.Modify|Mapping.Audit|Mapping.Use";

/// Handles `/cluster/notifications…`: what a fresh installation has.
///
/// # Errors
/// The server's refusal.
pub fn notifications(w: &World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let place = "/mapping/notifications";
    let need = || w.pve.need(c.who()?, place, NOTIFY);
    let root =
        json!({ "name": "mail-to-root", "origin": "builtin", "comment": "Send mails to root@pam's email address" });
    match (method, path) {
        ("GET", []) => {
            data(subdirs("name", &["endpoints", "matcher-field-values", "matcher-fields", "matchers", "targets"]))
        }
        ("GET", ["endpoints"]) => data(subdirs("name", &["gotify", "sendmail", "smtp", "webhook"])),
        ("GET", ["endpoints", "sendmail"]) => {
            need()?;
            let mut v = root;
            v["mailto-user"] = json!(["root@pam"]);
            data(json!([v]))
        }
        ("GET", ["endpoints", "gotify" | "smtp" | "webhook"]) => {
            need()?;
            data(json!([]))
        }
        ("GET", ["targets"]) => {
            need()?;
            let mut v = root;
            v["type"] = json!("sendmail");
            data(json!([v]))
        }
        ("GET", ["matchers"]) => {
            need()?;
            data(json!([{ "name": "default-matcher", "mode": "all", "origin": "builtin", "target": ["mail-to-root"],
                "comment": "Route all notifications to mail-to-root" }]))
        }
        ("GET", ["matcher-fields"]) => {
            need()?;
            data(subdirs("name", &["type", "hostname", "job-id"]))
        }
        ("GET", ["matcher-field-values"]) => {
            need()?;
            let kinds = ["fencing", "package-updates", "replication", "system-mail", "vzdump"];
            data(kinds.map(|k| json!({ "field": "type", "value": k })).to_vec())
        }
        _ => Err(c.unknown()),
    }
}

/// Handles `/cluster/jobs…`.
///
/// # Errors
/// The server's refusal.
pub fn jobs(w: &World, c: &Call, method: &str, path: &[&str]) -> Reply {
    match (method, path) {
        ("GET", []) => data(subdirs("subdir", &["realm-sync", "schedule-analyze"])),
        ("GET", ["realm-sync"]) => {
            w.pve.need(c.who()?, "/", "Sys.Audit")?;
            data(json!([]))
        }
        _ => Err(c.unknown()),
    }
}

/// Handles `/cluster/bulk-action…` of 9.x: each machine gets its own task on its own node.
///
/// # Errors
/// The server's refusal.
pub fn bulk(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let workers = [range("max-workers", 1, 64), range("maxworkers", 1, 64), t("vms")];
    let more: &[Prop] = match path {
        ["guest", "start"] => &[opt("timeout", Ty::Int)],
        ["guest", "shutdown"] => &[n("timeout"), b("force-stop")],
        ["guest", "suspend"] => &[b("to-disk"), t("statestorage")],
        ["guest", "migrate"] => &[req(node_param("target")), b("online"), b("with-local-disks")],
        [] if method == "GET" => return data(subdirs("name", &["guest"])),
        ["guest"] if method == "GET" => return data(subdirs("name", &["migrate", "shutdown", "start", "suspend"])),
        _ => return Err(c.unknown()),
    };
    let ["guest", verb] = path else { return Err(c.unknown()) };
    if method != "POST" {
        return Err(c.unknown());
    }
    c.params.check(&[&workers[..], more].concat())?;
    let who = c.who()?.clone();
    let listed = c.params.list("vms");
    let named = |id: &u32| listed.is_empty() || listed.contains(&id.to_string());
    let chosen = w.pve.vms.iter().filter(|(id, v)| named(id) && !v.conf.contains_key("template"));
    let mine: Vec<(u32, String, bool)> = chosen.map(|(id, v)| (*id, v.node.clone(), v.run.is_some())).collect();
    let right = if *verb == "migrate" { "VM.Migrate" } else { "VM.PowerMgmt" };
    for (id, ..) in &mine {
        w.pve.need(&who, &format!("/vms/{id}"), right)?;
    }
    let first = w.pve.nodes.keys().next().cloned().unwrap_or_default();
    let upid = task::start(w, &first, &format!("bulk{verb}"), "", &who, Job::Over);
    let timeout = c.params.int("timeout").and_then(|n| u64::try_from(n).ok()).unwrap_or(180);
    for (vmid, node, running) in mine {
        let job = match *verb {
            "start" if !running => ("qmstart", Job::Start { vmid }),
            "shutdown" if running => {
                let force = c.params.get("force-stop").is_none_or(|f| f == "1");
                ("qmshutdown", Job::Shutdown { vmid, timeout, force })
            }
            "suspend" if running && c.params.flag("to-disk") => {
                ("qmsuspend", Job::Hibernate { vmid, storage: c.params.get("statestorage") })
            }
            "suspend" if running => ("qmpause", Job::Pause { vmid, on: true }),
            "migrate" if c.params.text("target") != node => {
                let mut one = Call { params: Params::default(), ..c.clone() };
                for k in ["target", "online", "with-local-disks"] {
                    one.params.0.extend(c.params.get(k).map(|v| (k.to_owned(), Value::from(v))));
                }
                if let Err(e) = qemu::migrate::request(w, &one, &node, vmid) {
                    task::log(w, &upid, format!("VM {vmid}: {}", e.message));
                }
                continue;
            }
            _ => continue,
        };
        task::log(w, &upid, format!("{verb} VM {vmid}"));
        task::start(w, &node, job.0, &vmid.to_string(), &who, job.1);
    }
    data(upid)
}
