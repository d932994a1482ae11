//! The hardware a lab starts with.
use serde::{Deserialize, Serialize};

/// The spec that the program carries: one host with eight cards and somebody else's VM.
const HOMELAB: &str = include_str!("../specs/homelab.toml");

impl Spec {
    /// The embedded homelab.
    ///
    /// # Errors
    /// Never in a tested build; the embedded text is parsed like any other.
    pub fn homelab() -> Result<Spec, String> {
        Spec::parse(HOMELAB)
    }

    /// Reads a spec from TOML.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &str) -> Result<Spec, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }
}

/// The lab's hardware and what is on it before anyone deploys. Not taken from the site file in use:
/// otherwise a wrong mapping could never fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Label of the world.
    pub name: String,
    /// Seed of everything random.
    pub seed: u64,
    /// `/version` answers this, for example `9.1` or `8.4`.
    pub pve_version: String,
    /// Host and port clients use for the API (route key), for example `10.0.0.2:8006`.
    pub api_addr: String,
    /// Hypervisor nodes.
    pub nodes: Vec<NodeSpec>,
    /// Storages.
    pub storages: Vec<StorageSpec>,
    /// API token `user@realm!id` that the operator has been given.
    pub token_id: String,
    /// Its secret; made when empty.
    #[serde(default)]
    pub token_secret: String,
    /// Password of root@pam; made when empty.
    #[serde(default)]
    pub root_password: String,
    /// URLs the hypervisor and guests can download, and what is there.
    #[serde(default)]
    pub downloads: Vec<Download>,
    /// VMs that belong to somebody else.
    #[serde(default)]
    pub foreign_vms: Vec<ForeignVm>,
}

/// One hypervisor node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name.
    pub name: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// Bridges.
    pub bridges: Vec<String>,
    /// Whether the IOMMU is on.
    pub iommu: bool,
    /// PCI devices.
    #[serde(default)]
    pub pci: Vec<PciSpec>,
}

/// One PCI device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PciSpec {
    /// `0000:41:00.0`.
    pub address: String,
    /// `0x10de`.
    pub vendor: String,
    /// `0x20f1`.
    pub device: String,
    /// `0x030200`.
    pub class: String,
    /// Vendor text.
    pub vendor_name: String,
    /// Device text.
    pub device_name: String,
    /// `0x10de`.
    #[serde(default)]
    pub subsystem_vendor: String,
    /// `0x145f`.
    #[serde(default)]
    pub subsystem_device: String,
    /// IOMMU group.
    pub iommu_group: i64,
}

/// One storage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageSpec {
    /// Id.
    pub id: String,
    /// `dir`, `lvmthin`, `zfspool`, `nfs`.
    pub kind: String,
    /// Content types, comma separated as Proxmox has them.
    pub content: String,
    /// Size in GiB.
    pub size_gib: u64,
    /// Whether all nodes see the same volumes.
    #[serde(default)]
    pub shared: bool,
}

/// Something to download.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Download {
    /// URL.
    pub url: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the (imagined) content; empty when nobody has said it.
    #[serde(default)]
    pub sha256: String,
    /// SHA-512 of it; empty when nobody has said it.
    #[serde(default)]
    pub sha512: String,
    /// `os:debian-12` for a cloud image, otherwise free.
    pub what: String,
}

/// A VM of somebody else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForeignVm {
    /// Id.
    pub vmid: u32,
    /// Name.
    pub name: String,
    /// Hypervisor node.
    pub node: String,
    /// Storage of its disk.
    pub storage: String,
    /// Size of its disk in GiB.
    pub disk_gib: u64,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Whether it runs.
    #[serde(default)]
    pub running: bool,
}
