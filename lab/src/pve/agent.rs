//! The QEMU guest agent's endpoints.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use gpuhost_stdlib::wire::pve::props::Ty;
use serde_json::{Value, json};

use super::params::{b, n, opt, range, req, short, t};
use super::qemu::{self, status};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use crate::world::World;
use crate::{Lab, guest};

/// How long the server tries to reach an agent.
const REACH: Duration = Duration::from_secs(3);
/// How long it takes until a broken worker is noticed.
const BROKEN: Duration = Duration::from_secs(5);
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
    let (node, id, verb) = match path[..] {
        ["nodes", node, "qemu", id, "agent", verb] => (node, id, verb.to_owned()),
        // The older form names the command in a parameter.
        ["nodes", node, "qemu", id, "agent"] if c.method == "POST" => (node, id, c.params.get("command")?),
        _ => return None,
    };
    Some((node.to_owned(), Target { vmid: id.parse().ok()?, verb }))
}

/// The verbs and their methods.
const VERBS: &[(&str, &str)] = &[
    ("POST", "exec"),
    ("POST", "file-write"),
    ("POST", "fsfreeze-freeze"),
    ("POST", "fsfreeze-status"),
    ("POST", "fsfreeze-thaw"),
    ("POST", "fstrim"),
    ("POST", "ping"),
    ("POST", "set-user-password"),
    ("POST", "shutdown"),
    ("GET", "exec-status"),
    ("GET", "file-read"),
    ("GET", "get-fsinfo"),
    ("GET", "get-host-name"),
    ("GET", "get-memory-block-info"),
    ("GET", "get-memory-blocks"),
    ("GET", "get-osinfo"),
    ("GET", "get-time"),
    ("GET", "get-timezone"),
    ("GET", "get-users"),
    ("GET", "get-vcpus"),
    ("GET", "info"),
    ("GET", "network-get-interfaces"),
];

fn privilege(pve8: bool, verb: &str) -> &'static str {
    match verb {
        _ if pve8 => "VM.Monitor",
        "exec" | "exec-status" | "set-user-password" => "VM.GuestAgent.Unrestricted",
        "file-read" => "VM.GuestAgent.FileRead|VM.GuestAgent.Unrestricted",
        "file-write" => "VM.GuestAgent.FileWrite|VM.GuestAgent.Unrestricted",
        "fstrim" | "fsfreeze-freeze" | "fsfreeze-thaw" | "fsfreeze-status" => {
            "VM.GuestAgent.FileSystemMgmt|VM.GuestAgent.Unrestricted"
        }
        "shutdown" => "VM.PowerMgmt|VM.GuestAgent.Unrestricted",
        _ => "VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted",
    }
}

/// Whether the sender may ask the agent.
fn allowed(w: &World, c: &Call, t: &Target) -> Result<(), ApiError> {
    w.pve.need(c.who()?, &format!("/vms/{}", t.vmid), privilege(w.pve.is_8(), &t.verb))
}

/// Checks state and reachability of the agent. The flag says whether reaching it takes time.
fn ready(w: &World, node: &str, t: &Target) -> Result<(), (ApiError, bool)> {
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
    if !VERBS.contains(&(c.method.as_str(), t.verb.as_str())) {
        return None;
    }
    let checked = lab.with(|w| allowed(w, c, &t).and_then(|()| parameters(c, &t.verb, w.pve.is_8())));
    if let Err(e) = checked {
        return Some(Err(e));
    }
    if let Err((e, slow)) = lab.with(|w| ready(w, &node, &t)) {
        if slow {
            lab.clock().sleep(REACH).await;
        }
        return Some(Err(e));
    }
    Some(match t.verb.as_str() {
        "exec" => exec(lab, c, t.vmid).await,
        "set-user-password" => set_password(lab, c, t.vmid).await,
        "exec-status" => exec_status(lab, c, t.vmid),
        "file-read" => read(lab, c, t.vmid).await,
        "file-write" => write(lab, c, t.vmid).await,
        "shutdown" => {
            lab.with(|w| guest::request_shutdown(lab, w, t.vmid));
            data(json!({ "result": {} }))
        }
        _ => lab.with(|w| answer(w, c, &t)),
    })
}

/// Checks the parameters of a verb.
fn parameters(c: &Call, verb: &str, old: bool) -> Result<(), ApiError> {
    let p = &c.params;
    match verb {
        "exec" => p.check(&[req(t("command")), short("input-data", 65_536)]),
        "exec-status" => p.check(&[req(opt("pid", Ty::Int))]),
        "file-read" if old => p.check(&[req(t("file"))]),
        "file-read" => p.check(&[req(t("file")), b("decode"), range("count", 1, 16 << 20), n("offset")]),
        "file-write" => p.check(&[req(t("file")), req(short("content", WRITE_LIMIT)), b("encode")]),
        "set-user-password" => p.check(&[req(t("username")), req(short("password", 1024)), b("crypted")]),
        _ => p.check(&[]),
    }
}

/// Sets the password of a user inside, as root.
async fn set_password(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    let line = format!("{}:{}\n", c.params.text("username"), c.params.text("password"));
    let mut argv = vec!["chpasswd".to_owned()];
    if c.params.flag("crypted") {
        argv.push("-e".into());
    }
    let r = guest::agent_exec(lab, vmid, argv, line.into_bytes()).await;
    if r.code == 0 {
        return data(json!({ "result": {} }));
    }
    let why = String::from_utf8_lossy(&r.err);
    Err(ApiError::fail(format!("Agent error: child process has failed to set user password: {}", why.trim())))
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
            "kernel-release": w.guests.get(&vmid).map(guest::hw::running_kernel),
            "kernel-version": guest::hw::KERNEL_VERSION,
        }),
        "info" => {
            let names = [
                "guest-exec",
                "guest-ping",
                "guest-info",
                "guest-network-get-interfaces",
                "guest-get-osinfo",
                "guest-get-host-name",
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
        "get-timezone" => json!({ "zone": "UTC", "offset": 0 }),
        "get-users" => json!([]),
        "get-memory-block-info" => json!({ "size": 128 << 20 }),
        "get-memory-blocks" => {
            let blocks = w.guests.get(&vmid).map_or(1, |g| g.spec.memory_mib / 128);
            json!(
                (0..blocks)
                    .map(|i| json!({ "phys-index": i, "online": true, "can-offline": true }))
                    .collect::<Vec<_>>()
            )
        }
        "get-fsinfo" => json!([{ "name": "sda1", "mountpoint": "/", "type": "ext4", "disk": [],
            "total-bytes": w.guests.get(&vmid).and_then(|g| g.spec.disks.first()).map_or(0, |d| d.size), "used-bytes": 2_600_u64 << 20 }]),
        "fsfreeze-status" => json!("thawed"),
        "fsfreeze-freeze" | "fsfreeze-thaw" => json!(1),
        "ping" | "fstrim" => json!({}),
        _ => return Err(c.unknown()),
    };
    data(json!({ "result": result }))
}

async fn exec(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    let argv = c.params.list("command");
    let program = argv.first().cloned().unwrap_or_default();
    // Programs of the usual folders are known by their names.
    let name = match program.rsplit_once('/') {
        Some(("/bin" | "/usr/bin" | "/sbin" | "/usr/sbin" | "/usr/local/bin", name)) => name.to_owned(),
        _ => program,
    };
    let found = guest::agent_exec(lab, vmid, vec!["command".into(), "-v".into(), name], Vec::new()).await;
    if found.code != 0 {
        // The agent's error has quotes that no status line can carry: the server's worker dies of them.
        lab.clock().sleep(BROKEN).await;
        return Err(ApiError::broken(596, "Broken pipe"));
    }
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
    let path = c.params.text("file");
    let bytes =
        guest::agent_file_read(lab, vmid, &path).await.map_err(|e| ApiError::fail(format!("Agent error: {e}")))?;
    let number = |k: &str| c.params.int(k).and_then(|n| usize::try_from(n).ok());
    let from = number("offset").unwrap_or(0).min(bytes.len());
    let to = (from + number("count").unwrap_or(READ_LIMIT)).min(bytes.len());
    let shown = &bytes[from..to];
    let text = if c.params.get("decode").is_some_and(|d| d == "0") {
        base64::engine::general_purpose::STANDARD.encode(shown)
    } else {
        String::from_utf8_lossy(shown).into_owned()
    };
    let mut v = json!({ "content": text, "bytes-read": shown.len() });
    if to < bytes.len() {
        v["truncated"] = json!(1);
    }
    data(v)
}

async fn write(lab: &Lab, c: &Call, vmid: u32) -> Reply {
    let (path, content) = (c.params.text("file"), c.params.text("content"));
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
