//! The QEMU guest agent's endpoints.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gpuhost_stdlib::wire::pve::props::Ty;
use serde_json::{Value, json};

use super::params::{Params, b, n, opt, req, t};
use super::qemu::{self, status};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use crate::world::World;
use crate::{Lab, guest};

/// How long the server tries to reach an agent.
const REACH: Duration = Duration::from_secs(3);
/// Largest file that `file-read` returns.
const READ_LIMIT: usize = 16 << 20;
/// Largest content that `file-write` takes.
const WRITE_LIMIT: usize = 60 << 10;

/// The finished command of `agent/exec`.
#[derive(Debug, Clone, Default)]
pub struct AgentExec {
    code: i32,
    out: String,
    err: String,
}

/// Commands of `agent/exec` by (VM id, pid); `None` while they run.
pub type Execs = Mutex<BTreeMap<(u32, u64), Option<AgentExec>>>;

fn execs(lab: &Lab) -> MutexGuard<'_, BTreeMap<(u32, u64), Option<AgentExec>>> {
    lab.pve().execs.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Target {
    vmid: u32,
    verb: String,
}

fn target(c: &Call) -> Option<(String, Target)> {
    let path: Vec<&str> = c.path.iter().map(String::as_str).collect();
    let ["nodes", node, "qemu", id, "agent", verb] = path[..] else { return None };
    Some((node.to_owned(), Target { vmid: id.parse().ok()?, verb: verb.to_owned() }))
}

fn privilege(pve8: bool, verb: &str) -> &'static str {
    match verb {
        _ if pve8 => "VM.Monitor",
        "exec" | "exec-status" => "VM.GuestAgent.Unrestricted",
        "file-read" => "VM.GuestAgent.FileRead|VM.GuestAgent.Unrestricted",
        "file-write" => "VM.GuestAgent.FileWrite|VM.GuestAgent.Unrestricted",
        _ => "VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted",
    }
}

/// Checks rights, state and reachability of the agent. The flag says whether reaching it takes time.
fn ready(w: &World, c: &Call, node: &str, t: &Target) -> Result<(), (ApiError, bool)> {
    let who = c.who().map_err(|e| (e, false))?;
    let privs = privilege(w.pve.is_8(), &t.verb);
    w.pve.need(who, &format!("/vms/{}", t.vmid), privs).map_err(|e| (e, false))?;
    let node = if node == "localhost" { w.pve.nodes.keys().next().map_or("", String::as_str) } else { node };
    let vm = qemu::vm(w, node, t.vmid).map_err(|e| (e, false))?;
    let fail = |text: String| (ApiError::fail(text), false);
    match (status::agent_enabled(&vm.conf), &vm.run) {
        (None, _) => Err(fail("No QEMU guest agent configured".into())),
        (_, None) => Err(fail(format!("VM {} is not running", t.vmid))),
        (Some(false), _) => Err(fail("QEMU guest agent is not running".into())),
        _ if guest::agent_ready(w, t.vmid) => Ok(()),
        _ => Err((ApiError::fail("QEMU guest agent is not running"), true)),
    }
}

/// Answers the agent's endpoints, which wait for the guest or for a timeout; `None` for other requests.
pub async fn maybe_async(lab: &Lab, c: &Call) -> Option<Reply> {
    let (node, t) = target(c)?;
    let known = matches!(
        (c.method.as_str(), t.verb.as_str()),
        ("POST", "ping" | "exec" | "file-write" | "fstrim")
            | ("GET", "network-get-interfaces" | "exec-status" | "file-read" | "get-osinfo" | "get-host-name" | "info")
            | ("GET", "get-fsinfo" | "get-time" | "get-vcpus")
    );
    if !known {
        return None;
    }
    if let Err((e, slow)) = lab.with(|w| ready(w, c, &node, &t)) {
        if slow {
            lab.clock().sleep(REACH).await;
        }
        return Some(Err(e));
    }
    Some(match t.verb.as_str() {
        "exec" => exec(lab, c, t.vmid),
        "exec-status" => exec_status(lab, c, t.vmid),
        "file-read" => read(lab, c, t.vmid).await,
        "file-write" => write(lab, c, t.vmid).await,
        _ => lab.with(|w| answer(w, c, &t)),
    })
}

/// Agent verbs that are not there.
///
/// # Errors
/// `501`.
pub fn sync(_lab: &Lab, _w: &mut World, c: &Call, _node: &str, _vmid: u32, _verb: &str) -> Reply {
    Err(c.unknown())
}

fn answer(w: &World, c: &Call, t: &Target) -> Reply {
    let vmid = t.vmid;
    let host = w.guests.get(&vmid).map(|g| g.hostname.clone()).unwrap_or_default();
    let result = match t.verb.as_str() {
        "network-get-interfaces" => guest::agent_interfaces(w, vmid),
        "get-host-name" => json!({ "host-name": host }),
        "get-osinfo" => json!({
            "id": "debian",
            "name": "Debian GNU/Linux",
            "pretty-name": "Debian GNU/Linux 12 (bookworm)",
            "version": "12 (bookworm)",
            "version-id": "12",
            "machine": "x86_64",
            "kernel-release": "6.1.0-40-cloud-amd64",
            "kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.153-1",
        }),
        "info" => {
            let names = [
                "guest-ping",
                "guest-info",
                "guest-network-get-interfaces",
                "guest-get-osinfo",
                "guest-get-host-name",
                "guest-exec",
                "guest-exec-status",
                "guest-file-open",
                "guest-file-read",
                "guest-file-write",
                "guest-shutdown",
            ];
            let row = |n: &&str| json!({ "name": n, "enabled": true, "success-response": true });
            json!({ "version": "7.2.22", "supported_commands": names.iter().map(row).collect::<Vec<Value>>() })
        }
        "get-time" => json!(w.now_ms * 1_000_000),
        "get-vcpus" => {
            let n = w.guests.get(&vmid).map_or(1, |g| g.spec.cores);
            json!((0..n).map(|i| json!({ "logical-id": i, "online": true, "can-offline": i > 0 })).collect::<Vec<_>>())
        }
        "ping" | "fstrim" => json!({}),
        _ => return Err(c.unknown()),
    };
    data(json!({ "result": result }))
}

fn command(p: &Params) -> Result<Vec<String>, ApiError> {
    p.check(&[req(t("command")), t("input-data")])?;
    Ok(p.list("command"))
}

fn exec(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    let argv = command(&c.params)?;
    let stdin = c.params.text("input-data").into_bytes();
    let pid = lab.with(|w| {
        w.pve.last_pid += 3;
        u64::from(w.pve.last_pid % 30_000 + 500)
    });
    execs(lab).insert((vmid, pid), None);
    // The command runs on: time must not jump while it works.
    let mark = lab.clock().busy_guard();
    let lab2 = lab.clone();
    lab.rt().spawn(async move {
        let r = guest::agent_exec(&lab2, vmid, argv, stdin).await;
        let done = AgentExec {
            code: r.code,
            out: String::from_utf8_lossy(&r.out).into_owned(),
            err: String::from_utf8_lossy(&r.err).into_owned(),
        };
        execs(&lab2).insert((vmid, pid), Some(done));
        drop(mark);
    });
    data(json!({ "pid": pid }))
}

fn exec_status(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    c.params.check(&[req(opt("pid", Ty::Int))])?;
    let key = (vmid, c.params.int("pid").map_or(0, i64::unsigned_abs));
    let mut all = execs(lab);
    match all.get(&key) {
        None => Err(ApiError::fail("Agent error: Invalid parameter 'pid'")),
        Some(None) => data(json!({ "exited": 0 })),
        Some(Some(_)) => {
            // A finished result can be read once.
            let r = all.remove(&key).flatten().unwrap_or_default();
            let mut v = json!({ "exited": 1, "exitcode": r.code });
            for (name, text, cut) in [("out-data", r.out, "out-truncated"), ("err-data", r.err, "err-truncated")] {
                if !text.is_empty() {
                    v[name] = json!(text);
                    v[cut] = json!(0);
                }
            }
            data(v)
        }
    }
}

async fn read(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    c.params.check(&[req(t("file")), b("decode"), n("count"), n("offset")])?;
    let path = c.params.text("file");
    let bytes =
        guest::agent_file_read(lab, vmid, &path).await.map_err(|e| ApiError::fail(format!("Agent error: {e}")))?;
    let shown = &bytes[..bytes.len().min(READ_LIMIT)];
    let text = String::from_utf8_lossy(shown).into_owned();
    data(json!({ "content": text, "bytes-read": shown.len() }))
}

async fn write(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    use base64::Engine;
    c.params.check(&[req(t("file")), req(t("content")), b("encode")])?;
    let (path, content) = (c.params.text("file"), c.params.text("content"));
    if content.len() > WRITE_LIMIT {
        return Err(ApiError::param("content", format!("value may only be {WRITE_LIMIT} characters long")));
    }
    let raw = c.params.get("encode").is_some_and(|e| e == "0");
    let bytes = if raw {
        base64::engine::general_purpose::STANDARD
            .decode(&content)
            .map_err(|e| ApiError::fail(format!("Agent error: content is not base64: {e}")))?
    } else {
        content.into_bytes()
    };
    guest::agent_file_write(lab, vmid, &path, &bytes).await.map_err(|e| ApiError::fail(format!("Agent error: {e}")))?;
    null()
}
