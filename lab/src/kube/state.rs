//! What the world keeps about K3s: processes of guests and the clusters they formed.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tls::Pair;

/// Which K3s a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// `k3s server`: control plane and etcd.
    Server,
    /// `k3s agent`.
    Agent,
}

/// What a guest started: the binary's version and its merged configuration file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct K3sProcess {
    /// Server or agent.
    pub role: Role,
    /// `v1.34.9+k3s1`.
    pub version: String,
    /// `/etc/rancher/k3s/config.yaml` with its drop-ins and flags merged.
    pub config: Value,
}

/// What systemd says of the unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    /// Started, not ready yet.
    Activating,
    /// Ready.
    Active,
    /// Ended with an error; the text is its last fatal line.
    Failed(String),
}

/// The K3s process of one guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// How it was started.
    pub start: K3sProcess,
    /// Unit state; `None` while stopped.
    pub unit: Option<UnitState>,
    /// Journal lines since the guest booted.
    pub journal: Vec<String>,
    /// Cluster it belongs to once it has joined.
    pub cluster: Option<String>,
    /// Name of its node.
    pub node: String,
    /// Counts starts, so that events of an earlier start are ignored.
    pub generation: u64,
    /// Container runtimes that were found when it started.
    pub runtimes: Vec<String>,
}

/// An etcd member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Guest it lives in.
    pub vmid: u32,
    /// Node name.
    pub node: String,
    /// Address of the guest.
    pub ip: String,
    /// Still a learner.
    pub learner: bool,
}

/// A cluster; it came to be because a server started with `cluster-init`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// SHA-256 of the CA, in hexadecimal: the identity of the cluster.
    pub id: String,
    /// CA of the API server's certificate.
    pub ca: Pair,
    /// CA of client certificates.
    pub client_ca: Pair,
    /// Password part of the server token.
    pub token: String,
    /// Password part of the agent token, when it differs.
    pub agent_token: Option<String>,
    /// Configuration of the first server, for values that must be equal on all.
    pub config: Value,
    /// etcd members by guest.
    pub members: BTreeMap<u32, Member>,
    /// Guest whose node holds a virtual address, by address.
    pub vips: BTreeMap<String, u32>,
}

impl Cluster {
    /// The token file's text: `K10<hash of the CA>::server:<password>`.
    #[must_use]
    pub fn full_token(&self) -> String {
        format!("K10{}::server:{}", self.id, self.token)
    }
}
