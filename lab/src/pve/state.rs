//! What the world keeps about the hypervisor: nodes, storages, volumes' files, VMs, pools, users, tasks.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::task::Job;
use crate::spec::{Download, NodeSpec};
use crate::tls::Pair;

/// One row of settings, as answers show it.
pub type Row = BTreeMap<String, Value>;

/// The hypervisor cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pve {
    /// Label of the cluster.
    pub name: String,
    /// `9.1` or `8.4`.
    pub version: String,
    /// Host and port the API is announced under.
    pub api_addr: String,
    /// CA and server certificate.
    pub ca: Pair,
    /// Server certificate.
    pub leaf: Pair,
    /// Key of tickets and CSRF tokens.
    pub ticket_key: String,
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeSpec>,
    /// Storages by id.
    pub storages: BTreeMap<String, Storage>,
    /// What can be downloaded.
    pub downloads: Vec<Download>,
    /// Facts of every volume by volume id; the contents are in the world.
    pub files: BTreeMap<String, File>,
    /// VMs by id.
    pub vms: BTreeMap<u32, Vm>,
    /// Pools by id.
    pub pools: BTreeMap<String, Pool>,
    /// PCI resource mappings by id.
    pub mappings: BTreeMap<String, Mapping>,
    /// Users, roles, ACLs.
    pub access: Access,
    /// Datacenter options.
    pub options: BTreeMap<String, Value>,
    /// Settings that come as rows, by table (`ha/resources`, `backup`) and id.
    #[serde(default)]
    pub tables: BTreeMap<String, BTreeMap<String, Row>>,
    /// Settings that are one row each, by what they belong to (`firewall/cluster`, `dns/pve1`).
    #[serde(default)]
    pub settings: BTreeMap<String, Row>,
    /// Firewall rules in order, by what they belong to (`cluster`, `vm/100`, `group/web`).
    #[serde(default)]
    pub rules: BTreeMap<String, Vec<Row>>,
    /// Interfaces of each node, by name.
    #[serde(default)]
    pub interfaces: BTreeMap<String, BTreeMap<String, Row>>,
    /// Changes of the interfaces that wait to be applied.
    #[serde(default)]
    pub interfaces_new: BTreeMap<String, BTreeMap<String, Row>>,
    /// Nodes that do not answer.
    #[serde(default)]
    pub offline: BTreeSet<String>,
    /// Tasks by UPID.
    pub tasks: BTreeMap<String, Task>,
    /// Order of the tasks' births.
    pub task_order: Vec<String>,
    /// Tasks that run.
    #[serde(default)]
    pub active: BTreeSet<String>,
    /// Last process id.
    pub last_pid: u32,
    /// When the hypervisor booted.
    pub booted_ms: u64,
    /// When the lock of a storage is free again.
    pub storage_free_ms: BTreeMap<String, u64>,
    /// How long one allocation holds the lock of a storage; default 400 ms.
    #[serde(default)]
    pub alloc_ms: BTreeMap<String, u64>,
}

/// One storage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Storage {
    /// `dir`, `zfspool`, `lvmthin`, `nfs`.
    pub kind: String,
    /// Content types, comma separated.
    pub content: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether all nodes see the same volumes.
    pub shared: bool,
    /// Whether it is switched off.
    #[serde(default)]
    pub disabled: bool,
    /// Other settings as they were put.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
}

impl Storage {
    /// Whether volumes are files below a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self.kind.as_str(), "dir" | "nfs" | "cifs" | "cephfs" | "btrfs")
    }
    /// Whether it may hold `what`.
    #[must_use]
    pub fn allows(&self, what: &str) -> bool {
        self.content.split(',').any(|c| c == what)
    }
}

/// Facts of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct File {
    /// Node it is on; empty on shared storages.
    pub node: String,
    /// Owner; 0 for images and ISOs.
    pub vmid: u32,
    /// `raw`, `qcow2`, `iso`.
    pub format: String,
    /// `images`, `iso`, `import`, `vztmpl`, `snippets`.
    pub content: String,
    /// Bytes it takes.
    pub used: u64,
    /// Seconds since 1970.
    pub ctime: u64,
    /// Base volume of a linked clone.
    #[serde(default)]
    pub base: Option<String>,
    /// Notes.
    #[serde(default)]
    pub notes: Option<String>,
    /// Whether it may not be removed.
    #[serde(default)]
    pub protected: bool,
}

/// A VM's config and state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Vm {
    /// Node it is on.
    pub node: String,
    /// When it was made.
    #[serde(default)]
    pub born_ms: u64,
    /// Config: what runs, or will run at the next start.
    pub conf: BTreeMap<String, String>,
    /// What the task that clones it has not written into its config yet; empty when it is complete.
    #[serde(default)]
    pub unwritten: BTreeMap<String, String>,
    /// Changes that wait for a restart.
    #[serde(default)]
    pub pending: BTreeMap<String, String>,
    /// Keys that go away at a restart.
    #[serde(default)]
    pub pending_delete: BTreeSet<String>,
    /// Snapshots by name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Set while it runs.
    #[serde(default)]
    pub run: Option<Running>,
    /// Cards reserved while it starts.
    #[serde(default)]
    pub starting: Vec<String>,
    /// The cloud-init keys that the last generated drive holds.
    #[serde(default)]
    pub ci_drive: BTreeMap<String, String>,
    /// What the cluster last heard of it, if it has changed since.
    #[serde(default)]
    pub heard: Option<Heard>,
}

/// A VM as the last ten-second report showed it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heard {
    /// When the report was made.
    pub at_ms: u64,
    /// Its figures; `None`: it was not there yet.
    pub row: Option<Value>,
}

/// A running VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// When it was started.
    pub since_ms: u64,
    /// Process id.
    pub pid: u32,
    /// Paused.
    #[serde(default)]
    pub paused: bool,
    /// Cards it holds.
    #[serde(default)]
    pub cards: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// Config at that time.
    pub conf: BTreeMap<String, String>,
    /// Contents of the disks.
    pub volumes: BTreeMap<String, crate::volume::Volume>,
    /// Seconds since 1970.
    pub time: u64,
    /// Description.
    pub description: String,
    /// The snapshot it was made after.
    #[serde(default)]
    pub parent: Option<String>,
    /// `prepare` or `delete` while it is incomplete.
    #[serde(default)]
    pub state: Option<String>,
    /// The volume with the memory, if it was kept.
    #[serde(default)]
    pub vmstate: Option<String>,
}

/// A pool.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Comment.
    pub comment: String,
    /// VM ids.
    pub vms: BTreeSet<u32>,
    /// Storage ids.
    #[serde(default)]
    pub storages: BTreeSet<String>,
}

/// A PCI resource mapping.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mapping {
    /// Description.
    pub description: Option<String>,
    /// Entries as property strings.
    pub map: Vec<String>,
    /// `mdev`, `live-migration-capable`.
    #[serde(default)]
    pub extra: BTreeMap<String, i64>,
}

/// Users, tokens, roles, ACLs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Access {
    /// Users by `name@realm`.
    pub users: BTreeMap<String, User>,
    /// Privileges of own roles by name.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// Members of groups.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Comments of groups.
    #[serde(default)]
    pub group_comments: BTreeMap<String, String>,
    /// Entries.
    pub acl: Vec<Acl>,
}

/// A user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct User {
    /// Password in the clear: this is a lab.
    pub password: String,
    /// Switched on.
    pub enable: bool,
    /// Comment, expiry and such as given.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
    /// Tokens by name.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
}

/// An API token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Token {
    /// Secret.
    pub secret: String,
    /// Whether it has only its own rights.
    pub privsep: bool,
    /// Expiry, seconds since 1970; 0 never.
    pub expire: u64,
    /// Comment.
    #[serde(default)]
    pub comment: Option<String>,
}

/// One ACL entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// `/vms/100`.
    pub path: String,
    /// `user`, `group`, `token`.
    pub kind: String,
    /// Who.
    pub who: String,
    /// Role.
    pub role: String,
    /// Whether it holds below the path.
    pub propagate: bool,
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Node.
    pub node: String,
    /// Type.
    pub kind: String,
    /// What it works on.
    pub id: String,
    /// User without token.
    pub user: String,
    /// Token name.
    pub token: Option<String>,
    /// Seconds since 1970.
    pub start: u64,
    /// When it ended.
    pub end: Option<u64>,
    /// How it ended.
    pub exit: Option<String>,
    /// Log lines.
    pub log: Vec<String>,
    /// What it does.
    pub job: Job,
    /// Next step of the job.
    pub step: u32,
    /// VM config locks it holds: (VM id, shared).
    #[serde(default)]
    pub locks: Vec<(u32, bool)>,
    /// When it began to wait for a lock.
    #[serde(default)]
    pub waiting_since: Option<u64>,
    /// Warnings so far.
    #[serde(default)]
    pub warnings: u32,
}

impl Task {
    /// Whether it still runs.
    #[must_use]
    pub fn running(&self) -> bool {
        self.exit.is_none()
    }
}
