//! What administrators do with the `k3s` binary: snapshots, cluster reset, tokens, certificates.
use serde_json::{Value, json};

use super::{Call, k3s_check};
use crate::guest::k3s::by_hand;
use crate::kube::k3s::{certificates, files, reset, snapshot};

pub(super) fn say(c: &mut Call, level: &str, text: &str) {
    let now = c.world(|w| w.now_ms);
    let line = format!("time=\"{}\" level={level} msg={text:?}", crate::kube::text::stamp(now));
    c.complain(&line);
}

pub(super) fn fatal(c: &mut Call, text: &str) -> i32 {
    say(c, "fatal", text);
    1
}

/// `k3s etcd-snapshot …`.
pub(super) async fn etcd_snapshot(c: &mut Call) -> i32 {
    let verb = c.args.get(1).filter(|a| !a.starts_with('-')).cloned().unwrap_or_else(|| "save".to_owned());
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    match verb.as_str() {
        "save" => {
            c.pause(2500).await;
            let name = c.value(&["--name"]).unwrap_or_default();
            match lab.with(|w| snapshot::save(&lab, w, vmid, &name)) {
                Ok(name) => {
                    say(c, "info", &format!("Snapshot {name} saved."));
                    0
                }
                Err(e) => fatal(c, &e),
            }
        }
        "ls" | "list" | "l" => {
            let rows = snapshot::list(&lab, vmid);
            let at = |name: &str| format!("file://{}/{name}", files::SNAPSHOTS);
            if c.value(&["-o", "--output"]).as_deref() == Some("json") {
                let items: Vec<Value> = rows
                    .iter()
                    .map(|r| {
                        json!({"kind": "ETCDSnapshotFile", "apiVersion": "k3s.cattle.io/v1", "metadata": {"name": r.name},
                            "spec": {"snapshotName": r.name, "nodeName": c.guest(|g| g.hostname.clone()), "location": at(&r.name)},
                            "status": {"size": r.size.to_string(), "creationTime": r.created, "readyToUse": true}})
                    })
                    .collect();
                c.line(
                    &json!({"kind": "ETCDSnapshotFileList", "apiVersion": "k3s.cattle.io/v1", "items": items})
                        .to_string(),
                );
                return 0;
            }
            c.line("Name Location Size Created");
            for r in rows {
                c.line(&format!("{} {} {} {}", r.name, at(&r.name), r.size, r.created));
            }
            0
        }
        "delete" => {
            let names = c.args.iter().skip(2).filter(|a| !a.starts_with('-')).cloned().collect::<Vec<_>>();
            for name in names {
                if lab.with(|w| snapshot::delete(&lab, w, vmid, &name)) {
                    say(c, "info", &format!("Snapshot {name} deleted."));
                } else {
                    say(c, "warning", &format!("Snapshot {name} not found."));
                }
            }
            0
        }
        "prune" => {
            let keep: usize = c
                .value(&["--snapshot-retention", "--etcd-snapshot-retention"])
                .and_then(|n| n.parse().ok())
                .unwrap_or(5);
            let name = c.value(&["--name"]).unwrap_or_else(|| "on-demand".to_owned());
            let mut mine: Vec<_> =
                snapshot::list(&lab, vmid).into_iter().filter(|r| r.name.starts_with(&name)).collect();
            mine.sort_by(|a, b| b.created.cmp(&a.created));
            for r in mine.iter().skip(keep) {
                lab.with(|w| snapshot::delete(&lab, w, vmid, &r.name));
                say(c, "info", &format!("Snapshot {} deleted.", r.name));
            }
            0
        }
        other => c.fail(1, &format!("No help topic for '{other}'")),
    }
}

/// `k3s server …` in the foreground: only the reset of a cluster ends by itself.
pub(super) async fn server(c: &mut Call) -> i32 {
    if !c.must_be_root("must run as root unless --disable-agent is specified") {
        return 1;
    }
    let words: Vec<String> = c.args.iter().skip(1).cloned().collect();
    let config = match by_hand(&c.m, &words) {
        Ok(v) => v,
        Err(e) => return fatal(c, &e),
    };
    if !crate::kube::k3s::config::on(&config, "cluster-reset") {
        return c.unsimulated("server (in the foreground, without --cluster-reset)");
    }
    say(c, "info", "Starting temporary etcd to reconcile with datastore");
    c.pause(12_000).await;
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    match lab.with(|w| reset::reset(&lab, w, vmid, &config)) {
        Ok(()) => {
            say(c, "info", reset::DONE);
            0
        }
        Err(e) => fatal(c, &e),
    }
}

fn detected(server: bool, doing: &str) -> String {
    match server {
        true => format!("Server detected, {doing} agent and server certificates"),
        false => format!("Agent detected, {doing} agent certificates"),
    }
}

/// `k3s certificate …`.
pub(super) async fn certificate(c: &mut Call) -> i32 {
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    match c.args.get(1).map(String::as_str) {
        Some("rotate") => {
            let server = certificates::is_server(&lab, vmid);
            say(c, "info", &detected(server, "rotating"));
            c.pause(400).await;
            let (services, backup) = c.world(|w| certificates::rotate(&lab, w, vmid));
            if server {
                say(c, "info", "Rotating dynamic listener certificate");
            }
            for service in services {
                say(c, "info", &format!("Rotating certificates for {service}"));
            }
            let done = format!(
                "Successfully backed up certificates to {backup}, please restart k3s server or agent to rotate certificates"
            );
            say(c, "info", &done);
            0
        }
        Some("check") => {
            say(c, "info", &detected(certificates::is_server(&lab, vmid), "checking"));
            let (seen, now, version) = c.world(|w| {
                let version = w.k3s.get(&vmid).map(|p| p.start.version.clone()).unwrap_or_default();
                (certificates::seen(&lab, w, vmid), w.now_ms / 1000, version)
            });
            k3s_check::certificates(c, &seen, now, certificates::window(&version))
        }
        other => {
            let what = format!("certificate {}", other.unwrap_or_default());
            c.unsimulated(&what)
        }
    }
}

/// `k3s secrets-encrypt status`: what this server was started with.
pub(super) fn secrets_encrypt(c: &mut Call) -> i32 {
    let vmid = c.m.vmid;
    let verb = c.args.get(1).cloned().unwrap_or_default();
    if verb != "status" {
        return c.unsimulated(&format!("secrets-encrypt {verb}"));
    }
    if !c.must_be_root("must run as root") {
        return 1;
    }
    let started = c.world(|w| {
        let p =
            w.k3s.get(&vmid).filter(|_| matches!(crate::kube::k3s_unit(w, vmid), crate::kube::UnitState::Active))?;
        let server = p.start.role == crate::kube::Role::Server;
        server.then(|| crate::kube::k3s::config::on(&p.start.config, "secrets-encryption"))
    });
    match started {
        None => fatal(
            c,
            "Get \"https://127.0.0.1:6443/v1-k3s/encrypt/status\": dial tcp 127.0.0.1:6443: connect: connection refused",
        ),
        Some(false) => {
            c.line("Encryption Status: Disabled, no configuration file found");
            0
        }
        Some(true) => {
            c.line("Encryption Status: Enabled\nCurrent Rotation Stage: start\nServer Encryption Hashes: All hashes match\n");
            c.line("Active  Key Type  Name\n------  --------  ----\n *      AES-CBC   aescbckey");
            0
        }
    }
}
