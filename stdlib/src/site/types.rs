//! The site file as typed values. Sections that are options of one function stay tables
//! (`k3s`, `storage`, `gpu`, `platform`): their keys are checked against that function's options.
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::core::units::Size;

/// A loaded, validated site file.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where it was read from.
    pub path: PathBuf,
    /// Label; may be the same on two hypervisors.
    pub name: String,
    /// Identity: objects belong to this, never to the name.
    pub uuid: String,
    /// How to reach the hypervisor.
    pub proxmox: ProxmoxSection,
    /// Addresses.
    pub network: Network,
    /// The VM template.
    pub template: Template,
    /// How to log in to nodes.
    pub ssh: SshSection,
    /// Roles by name.
    pub roles: BTreeMap<String, Role>,
    /// Nodes in file order.
    pub nodes: Vec<Node>,
    /// Options of `k3s::ensure_servers`.
    pub k3s: toml::Table,
    /// NFS and scratch classes.
    pub storage: toml::Table,
    /// GPU mapping and operator.
    pub gpu: toml::Table,
    /// Platform charts.
    pub platform: toml::Table,
    /// `"host:port" = "host:port"`: where connections really go.
    pub connect: BTreeMap<String, String>,
    /// Extra grants.
    pub permissions: toml::Table,
    /// Control endpoint of a served lab whose clock this site shares (`host:port`).
    pub lab_control: Option<String>,
}

/// How to reach the hypervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxmoxSection {
    /// `https://host:8006`.
    pub url: String,
    /// `user@realm!tokenid`; empty when a user logs in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token_id: String,
    /// Secret reference (`env:NAME`, `file:PATH`, `state:NAME`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// `user@realm` that logs in with a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Secret reference of the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// SHA-256 of the server's certificate, `AA:BB:…`.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// CA file (PEM).
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Default hypervisor node.
    pub pve_node: String,
    /// Storage of VM disks.
    pub storage: String,
    /// Storage of images and ISOs.
    pub image_storage: String,
}

/// Addresses of the site.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Bridge of the hypervisor.
    pub bridge: String,
    /// VLAN tag.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Node subnet, for example `10.0.0.0/24`.
    pub cidr: String,
    /// Default gateway.
    pub gateway: String,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domain.
    #[serde(default)]
    pub domain: Option<String>,
}

/// The VM template: made from a cloud image, or an existing one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Name of the template VM.
    pub name: String,
    /// Its id.
    pub vmid: u32,
    /// Hypervisor node it lives on; default: the site's.
    #[serde(default)]
    pub pve_node: Option<String>,
    /// Use the template as it is; nothing below applies.
    #[serde(default)]
    pub existing: bool,
    /// Cloud image.
    #[serde(default)]
    pub image_url: Option<String>,
    /// Its SHA-256.
    #[serde(default)]
    pub image_sha256: Option<String>,
    /// Its SHA-512, which goes before.
    #[serde(default)]
    pub image_sha512: Option<String>,
    /// Packages built into the template.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Ids of its copies on other hypervisor nodes, by node; local storage cannot be cloned across nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vmids: BTreeMap<String, u32>,
}

impl ProxmoxSection {
    /// Who we are there: the token's id, or the user.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.user.as_deref().unwrap_or(&self.token_id)
    }
}

/// How to log in to nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshSection {
    /// User that cloud-init makes.
    pub user: String,
    /// Private key: secret reference; generated once if `state:…` and absent.
    pub key: String,
    /// More public keys to authorize.
    #[serde(default)]
    pub authorized_keys: Vec<String>,
}

/// What a role's machines do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleKind {
    /// K3s server (control plane and etcd).
    Server,
    /// K3s agent.
    Agent,
    /// NFS server, not in the cluster.
    Storage,
}

/// Kind and shape of a role's machines; every key may be overridden per node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    /// What they do.
    pub kind: RoleKind,
    /// The shape.
    #[serde(flatten)]
    pub shape: Shape,
}

/// The shape of a machine. Absent means: the role's, then the built-in default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// vCPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// System disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// Scratch disk (local, fast, not backed up).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Size>,
    /// Data disk (kept by cleanup).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Size>,
    /// GPUs passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// PCI mapping of the GPUs; default: `gpu.mapping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_mapping: Option<String>,
    /// MIG configuration of its cards; without it they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<String>,
    /// Storage of the system disk; default: `proxmox.storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_storage: Option<String>,
    /// Storage of the scratch disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_storage: Option<String>,
    /// Storage of the data disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_storage: Option<String>,
    /// Cache mode of the disks (`none`, `writethrough`, `writeback`, `unsafe`, `directsync`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Whether `vzdump` backs the system disk up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// CPU type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Full clone (default) or linked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_clone: Option<bool>,
    /// Start with the hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboot: Option<bool>,
    /// Node labels in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Node taints in Kubernetes (`key=value:Effect`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<String>>,
    /// Extra packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<String>>,
    /// More of the wanted host state: a map for `host.ensure`, as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<toml::Table>,
    /// More VM options by Proxmox's own names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<toml::Table>,
}

/// One machine of the site, with its role's shape filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name: VM name, host name, Kubernetes node name.
    pub name: String,
    /// Role name.
    pub role: String,
    /// Role kind.
    pub kind: RoleKind,
    /// Hypervisor node.
    pub pve_node: String,
    /// VM id.
    pub vmid: u32,
    /// IPv4 address without prefix length.
    pub ip: String,
    /// MAC address; generated from site UUID and vmid when the file has none.
    pub mac: String,
    /// Shape: node over role.
    pub shape: Shape,
    /// Line in the site file.
    pub line: usize,
}
