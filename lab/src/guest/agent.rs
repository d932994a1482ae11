//! The QEMU guest agent of a guest, as the hypervisor talks to it.
use std::sync::Arc;

use serde_json::{Value, json};

use super::cloudinit;
use super::fs::Who;
use super::live::Machine;
use super::shell::{self, Job, Stdin};
use super::state::Stage;
use crate::Lab;
use crate::world::World;

/// How a command that the agent ran ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentResult {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: Vec<u8>,
}

/// Whether the agent answers: port configured, package installed, service started.
#[must_use]
pub fn agent_ready(w: &World, vmid: u32) -> bool {
    w.guests.get(&vmid).is_some_and(|g| {
        g.spec.agent
            && g.stage >= Stage::Up
            && g.services.get("qemu-guest-agent.service").is_some_and(|s| s.state == "active")
    })
}

/// `guest-network-get-interfaces` in the shape of the agent's answer (the list itself).
#[must_use]
pub fn agent_interfaces(w: &World, vmid: u32) -> Value {
    let Some(g) = w.guests.get(&vmid) else { return json!([]) };
    let stats = json!({"rx-bytes": 1_204_417, "rx-packets": 9120, "rx-errs": 0, "rx-dropped": 0,
        "tx-bytes": 310_256, "tx-packets": 2210, "tx-errs": 0, "tx-dropped": 0});
    let mut list = vec![json!({"name": "lo", "hardware-address": "00:00:00:00:00:00", "statistics": stats,
        "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8},
                         {"ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128}]})];
    for (i, nic) in g.spec.nics.iter().enumerate() {
        let mut addresses = Vec::new();
        if let Some(n) = g.net.as_ref().filter(|_| i == 0) {
            addresses.push(json!({"ip-address": n.ip, "ip-address-type": "ipv4", "prefix": n.prefix}));
        }
        list.push(json!({"name": format!("eth{i}"), "hardware-address": nic.mac.to_lowercase(),
            "statistics": stats, "ip-addresses": addresses}));
    }
    Value::Array(list)
}

/// Runs a command as root.
pub async fn agent_exec(lab: &Lab, vmid: u32, argv: Vec<String>, stdin: Vec<u8>) -> AgentResult {
    let Some(m) = machine(lab, vmid) else {
        return AgentResult { code: 255, err: b"the guest is not running\n".to_vec(), ..Default::default() };
    };
    let script = argv.iter().map(|a| cloudinit::quote(a)).collect::<Vec<_>>().join(" ");
    let mut job = Job::root(&script);
    job.cwd = Some("/".to_owned());
    job.stdin = Stdin::Bytes(stdin);
    let ended = shell::run_to_end(m, job).await;
    AgentResult { code: ended.code, out: ended.out, err: ended.err }
}

fn machine(lab: &Lab, vmid: u32) -> Option<Arc<Machine>> {
    lab.guests().get(vmid).filter(|m| !m.stop.is_cancelled())
}

fn reason(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::NotFound => "No such file or directory",
        std::io::ErrorKind::PermissionDenied => "Permission denied",
        std::io::ErrorKind::IsADirectory => "Is a directory",
        _ => "Input/output error",
    }
}

/// Reads a file as root.
///
/// # Errors
/// The agent's text when the file cannot be read.
pub async fn agent_file_read(lab: &Lab, vmid: u32, path: &str) -> Result<Vec<u8>, String> {
    let failed = |why: &str| format!("failed to open file '{path}' (mode: 'r'): {why}");
    let m = machine(lab, vmid).ok_or_else(|| failed("No such file or directory"))?;
    m.files.read(&Who::root(), path).map(|b| b.as_ref().clone()).map_err(|e| failed(reason(&e)))
}

/// Writes a file as root.
///
/// # Errors
/// The agent's text when the file cannot be written.
pub async fn agent_file_write(lab: &Lab, vmid: u32, path: &str, bytes: &[u8]) -> Result<(), String> {
    let failed = |why: &str| format!("failed to open file '{path}' (mode: 'w'): {why}");
    let m = machine(lab, vmid).ok_or_else(|| failed("No such file or directory"))?;
    m.files.write(&Who::root(), path, bytes, false, 0o644).map_err(|e| failed(reason(&e)))
}
