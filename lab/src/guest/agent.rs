//! The QEMU guest agent of a guest, as the hypervisor talks to it.
use serde_json::{Value, json};

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
pub async fn agent_exec(_lab: &Lab, _vmid: u32, argv: Vec<String>, _stdin: Vec<u8>) -> AgentResult {
    let name = argv.first().cloned().unwrap_or_default();
    AgentResult { code: 96, err: format!("{name}: not simulated by the lab\n").into_bytes(), ..Default::default() }
}

/// Reads a file as root.
///
/// # Errors
/// The agent's text when the file cannot be read.
pub async fn agent_file_read(_lab: &Lab, _vmid: u32, path: &str) -> Result<Vec<u8>, String> {
    Err(format!("failed to open file '{path}' (mode: 'r'): No such file or directory"))
}

/// Writes a file as root.
///
/// # Errors
/// The agent's text when the file cannot be written.
pub async fn agent_file_write(_lab: &Lab, _vmid: u32, path: &str, _bytes: &[u8]) -> Result<(), String> {
    Err(format!("failed to open file '{path}' (mode: 'w'): No such file or directory"))
}
