//! What the world keeps about guests: hardware they booted with, boot stage, facts, mounts, services.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::spec::PciSpec;

/// The hardware and cloud-init data a machine is started with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BootSpec {
    /// VM id.
    pub vmid: u32,
    /// Name of the VM on the hypervisor.
    pub name: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Hypervisor node.
    pub pve_node: String,
    /// Virtual CPUs.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks in boot order (no CD-ROMs, no firmware).
    pub disks: Vec<DiskSpec>,
    /// Network interfaces.
    pub nics: Vec<NicSpec>,
    /// Cards passed through.
    pub pci: Vec<PciSpec>,
    /// The cloud-init drive, if there is one.
    pub cloud_init: Option<CloudInit>,
    /// Volume id of an attached NoCloud seed ISO.
    pub seed_iso: Option<String>,
    /// Whether the VM has the agent's serial port (`agent=1`).
    pub agent: bool,
}

/// One disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DiskSpec {
    /// `scsi0`.
    pub slot: String,
    /// Volume id.
    pub volid: String,
    /// Size in bytes.
    pub size: u64,
    /// Serial number, may be empty.
    pub serial: String,
}

/// One network interface.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NicSpec {
    /// MAC address.
    pub mac: String,
    /// Bridge on the hypervisor.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<u16>,
}

/// What the hypervisor's cloud-init drive says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CloudInit {
    /// User to make; empty means the image's default (`debian`).
    pub user: String,
    /// Public keys, one line each.
    pub keys: Vec<String>,
    /// IPv4 address; `None` means DHCP.
    pub ip: Option<String>,
    /// Prefix length.
    pub prefix: u8,
    /// Gateway.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domain.
    pub domain: Option<String>,
    /// Host name.
    pub hostname: String,
    /// Identity of the instance; another one makes cloud-init run again.
    pub instance_id: String,
    /// Packages to install.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether packages are upgraded on first boot.
    #[serde(default)]
    pub upgrade: bool,
}

/// How far a machine has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Firmware, boot loader, kernel.
    Firmware,
    /// Nothing bootable was found; it sits in the firmware for ever.
    NoBoot,
    /// cloud-init's early stages: host name, network, users, keys.
    Init,
    /// sshd and services run; cloud-init may still install packages.
    Up,
    /// Shutting down.
    Stopping,
}

/// What cloud-init says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloudStatus {
    /// Not started in this boot.
    #[default]
    NotRun,
    /// At work.
    Running,
    /// Finished.
    Done,
    /// Finished with errors.
    Error(Vec<String>),
}

/// Facts that live on the system disk beside its files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Installed packages and versions, without those of the image.
    pub packages: BTreeMap<String, String>,
    /// Large files on the system disk, whose bytes the lab does not keep: folder and size.
    pub large: BTreeMap<String, u64>,
    /// Packages of the image that were removed.
    pub removed: BTreeSet<String>,
    /// Packages that `apt-mark hold` holds.
    pub held: BTreeSet<String>,
    /// When `apt-get update` last ran; 0 never.
    pub apt_updated_ms: u64,
    /// Result of the last per-instance cloud-init run.
    pub cloud_init: CloudStatus,
    /// NVIDIA driver on this disk.
    pub nvidia_driver: Option<String>,
    /// Kernel of this boot when it is an older one than the newest installed.
    pub kernel: Option<String>,
    /// Network as cloud-init rendered it.
    pub net: Option<NetConf>,
}

/// The rendered network of the first interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConf {
    /// IPv4 address.
    pub ip: String,
    /// Prefix length.
    pub prefix: u8,
    /// Gateway.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domain.
    pub domain: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `/dev/sdb` or `10.0.0.31:/srv/nfs/k8s`.
    pub source: String,
    /// Mount point.
    pub target: String,
    /// `ext4`, `nfs4`, `tmpfs`.
    pub fstype: String,
    /// Options as `findmnt` shows them.
    pub options: String,
    /// What serves it.
    pub backing: Backing,
}

/// What serves a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// A volume of the hypervisor.
    Volume(String),
    /// A directory of another guest.
    Nfs {
        /// VM id of the server.
        server: u32,
        /// Path on the server.
        path: String,
    },
    /// Another directory of this guest (bind mount).
    Bind(String),
    /// Memory.
    Tmpfs,
}

/// State of a systemd unit in this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `active`, `inactive`, `failed`, `activating`.
    pub state: String,
    /// When it got there.
    pub since_ms: u64,
    /// Main process; 0 when none.
    pub pid: u32,
    /// Exit status of the main process.
    pub status: i32,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// When.
    pub at_ms: u64,
    /// Unit.
    pub unit: String,
    /// Text.
    pub text: String,
}

/// A guest that is powered on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Guest {
    /// What it was started with.
    pub spec: BootSpec,
    /// Counts boots, so that events of an earlier boot are ignored.
    pub boot: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When the kernel started.
    pub booted_ms: u64,
    /// How far it is.
    pub stage: Stage,
    /// Volume id of the system disk; empty when there is none.
    pub system: String,
    /// Operating system of the system disk.
    pub os: String,
    /// `instance-id` cloud-init saw last.
    pub instance_id: String,
    /// Host name.
    pub hostname: String,
    /// Address of the first interface.
    pub net: Option<NetConf>,
    /// What lives on the system disk beside the files.
    pub facts: Facts,
    /// cloud-init in this boot.
    pub cloud_init: CloudStatus,
    /// Mounts beside the root file system.
    pub mounts: Vec<Mount>,
    /// Loaded kernel modules.
    pub modules: BTreeSet<String>,
    /// Kernel parameters that were set.
    pub sysctl: BTreeMap<String, String>,
    /// Active swap: device or file and size in KiB.
    pub swaps: Vec<(String, u64)>,
    /// Units of this boot.
    pub services: BTreeMap<String, Service>,
    /// Journal of this boot.
    pub journal: Vec<JournalLine>,
    /// Who holds the dpkg lock, as apt names it.
    pub dpkg_lock: Option<String>,
    /// What the kernel exports over NFS, as `exportfs -v` would tell.
    pub exports: Vec<Export>,
    /// Packet filter tables of this boot: `family name` and what they hold.
    #[serde(default)]
    pub nft: BTreeMap<String, String>,
    /// Last process id given out.
    #[serde(default)]
    pub last_pid: u32,
    /// What the boot loader's configuration gave to the kernel; empty: what the image has.
    #[serde(default)]
    pub cmdline: String,
}

/// One export of an NFS server to one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Path.
    pub path: String,
    /// Address, network or `*`.
    pub client: String,
    /// Options, comma separated, with the defaults filled in.
    pub options: String,
}
