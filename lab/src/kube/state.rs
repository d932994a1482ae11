//! What the world keeps about K3s: processes of guests and the clusters they formed.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::Kind;
use super::store::Store;
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
    /// It waits for something in the cluster and tries again when that changes.
    #[serde(default)]
    pub waiting: bool,
    /// When its leaf certificates were issued.
    #[serde(default)]
    pub certificates_ms: u64,
    /// When its next scheduled etcd snapshot is due; 0 when it saves none.
    #[serde(default)]
    pub snapshot_ms: u64,
    /// A packet filter keeps it off every server.
    #[serde(default)]
    pub cut_off: bool,
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

/// What the lab knows of a node beside its object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRt {
    /// Guest it lives in.
    pub vmid: u32,
    /// Runtime handlers K3s found at its last start.
    pub runtimes: Vec<String>,
    /// Images that have been pulled.
    pub images: BTreeSet<String>,
    /// NVIDIA driver that the driver container has loaded.
    pub driver: Option<String>,
    /// MIG configuration that the manager has acted on.
    pub mig: Option<String>,
    /// The toolkit is installed.
    pub toolkit: bool,
    /// The device plugin has registered.
    pub plugin: bool,
    /// The CUDA validation has passed.
    pub cuda: bool,
    /// CSI drivers that are registered.
    pub csi: BTreeSet<String>,
    /// The kubelet posts its status.
    pub posting: bool,
    /// K3s has configured its network plugin.
    pub network: bool,
    /// When the kubelet last found its disk short of space; 0 never.
    #[serde(default)]
    pub pressed_ms: u64,
}

/// How far a pod is on its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PodStage {
    /// Volumes, secrets, sandbox.
    Prepare,
    /// Image of container `i` (init containers first) is pulled.
    Pull(usize),
    /// Init container `i` runs.
    Init(usize),
    /// The containers run, not ready yet.
    Running,
    /// Ready.
    Ready,
    /// Ended for good.
    Done,
    /// Being stopped.
    Stopping,
}

/// What a kubelet probes a container for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// Whether it has started.
    Startup,
    /// Whether it can serve.
    Readiness,
    /// Whether it has to be started anew.
    Liveness,
}

/// What falls due for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Due {
    /// It has run for as long as it takes to be up, or to end.
    Step,
    /// Its pause is over: it starts again.
    Start,
    /// Its image could not be pulled: the kubelet backs off.
    BackOff,
    /// Its image is pulled again.
    Pull,
    /// It is probed.
    Probe(Probe),
    /// The time it had to end is over.
    Kill,
}

/// What the lab knows of a container beside its status.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// Counts starts and ends, so that what fell due for an earlier run is ignored.
    pub run: u64,
    /// When it started.
    pub since_ms: u64,
    /// Ends in a row that it is started again after.
    pub ends: u32,
    /// Pulls in a row that failed.
    pub pulls: u32,
    /// Failed probes in a row: for startup or liveness, for readiness.
    pub failures: (u32, u32),
    /// It waits for something outside.
    pub waits: bool,
    /// It has ended for good.
    pub done: bool,
    /// The image it was started or tried with.
    pub image: String,
}

/// What the lab knows of a pod beside its object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodRt {
    /// Namespace.
    pub ns: String,
    /// Name.
    pub name: String,
    /// Node.
    pub node: String,
    /// How far it is.
    pub stage: PodStage,
    /// Counts steps, so that events of an earlier step are ignored.
    pub step: u64,
    /// Something outside the pod has to happen first.
    pub blocked: bool,
    /// What it waits for.
    #[serde(default)]
    pub why: String,
    /// How often it was tried in vain.
    #[serde(default)]
    pub tries: u32,
    /// Its containers, by name.
    #[serde(default)]
    pub lives: BTreeMap<String, Life>,
    /// Logs by container.
    #[serde(default)]
    pub log: BTreeMap<String, Log>,
    /// Cards that its containers were given, as places on their machine.
    #[serde(default)]
    pub gpus: BTreeMap<String, Vec<usize>>,
}

/// What a container wrote: lines with the lab time of their end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Lines of this run.
    pub lines: Vec<(u64, String)>,
    /// Lines of the run before it.
    pub previous: Vec<(u64, String)>,
    /// The last line is not complete.
    pub open: bool,
}

/// Lines a container's log keeps.
const LINES: usize = 20_000;

impl Log {
    /// Adds text at `now_ms`.
    pub fn add(&mut self, now_ms: u64, text: &str) {
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n').unwrap_or(part);
            match self.lines.last_mut().filter(|_| self.open) {
                Some(last) => *last = (now_ms, format!("{}{line}", last.1)),
                None => self.lines.push((now_ms, line.to_owned())),
            }
            self.open = !part.ends_with('\n');
        }
        if self.lines.len() > LINES {
            self.lines.drain(..LINES / 10);
        }
    }

    /// Whether the last lines are `text`.
    #[must_use]
    pub fn ends_with(&self, text: &str) -> bool {
        let want: Vec<&str> = text.lines().collect();
        self.lines.len() >= want.len()
            && self.lines[self.lines.len() - want.len()..].iter().map(|l| l.1.as_str()).eq(want)
    }

    /// All lines of this run.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|l| format!("{}\n", l.1)).collect()
    }
}

/// Data of a persistent volume: text files by path, directories end in `/`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VolumeData {
    /// Files.
    pub files: BTreeMap<String, String>,
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
    /// Version of the first server.
    pub version: String,
    /// Configuration of the first server, for values that must be equal on all.
    pub config: Value,
    /// Whether the datastore is etcd (else SQLite on one server).
    pub etcd: bool,
    /// etcd members by guest.
    pub members: BTreeMap<u32, Member>,
    /// Guests that hold data of this cluster on their disk, with their node names.
    pub on_disk: BTreeMap<u32, String>,
    /// Guest that holds a virtual address, by address.
    pub vips: BTreeMap<String, u32>,
    /// Objects.
    pub store: Store,
    /// Nodes beside their objects.
    pub nodes: BTreeMap<String, NodeRt>,
    /// Pods beside their objects, by uid.
    pub pods: super::podmap::Pods,
    /// Data of persistent volumes by PV name.
    pub volumes: BTreeMap<String, VolumeData>,
    /// Service addresses given out so far.
    pub addresses: u32,
    /// Resource version up to which the controllers have seen all changes.
    pub seen: u64,
    /// State of applications in the cluster (JupyterHub, Rancher, Fleet).
    pub apps: BTreeMap<String, Value>,
}

impl Cluster {
    /// What the key of service account tokens follows from: other CAs, other keys.
    #[must_use]
    pub fn token_key(&self) -> &str {
        &self.ca.key
    }

    /// Whether servers of the cluster's version know a kind.
    #[must_use]
    pub fn serves(&self, kind: &Kind) -> bool {
        kind.since == 0 || kind.since <= super::k3s::node::minor(&self.version)
    }

    /// The token file's text: `K10<hash of the CA>::server:<password>`.
    #[must_use]
    pub fn full_token(&self) -> String {
        format!("K10{}::server:{}", self.id, self.token)
    }
}
