//! What is on a virtual disk, image or ISO.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Contents of one volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Size in bytes.
    pub size: u64,
    /// What is on it.
    pub content: Content,
    /// How far what is on it reaches, when it was grown.
    #[serde(default, skip_serializing_if = "Reach::is_whole")]
    pub reach: Reach,
}

/// Where partition and file system of a grown disk end, as sizes of the disk they were made for; `None` is its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The root partition of a system disk.
    pub partition: Option<u64>,
    /// The file system.
    pub fs: Option<u64>,
}

impl Reach {
    /// Whether all of the disk is in use.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Reach::default()
    }
}

/// What a volume holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Content {
    /// Zeroes.
    Blank,
    /// A bootable cloud image that has never booted (`os` names it, for example `debian-12`).
    CloudImage {
        /// Operating system.
        os: String,
    },
    /// A system disk that has booted: the guest's root file system is kept here while it is off.
    System {
        /// Operating system.
        os: String,
        /// Serialised root file system (`None` while the guest that owns it runs).
        root: Option<serde_json::Value>,
        /// `instance-id` cloud-init saw last.
        instance_id: String,
        /// Free-form facts that survive a reboot (installed packages, units, users …), owned by `guest`.
        facts: serde_json::Value,
    },
    /// A file system made by mkfs.
    Filesystem {
        /// ext4, xfs …
        fs: String,
        /// Label, may be empty.
        label: String,
        /// UUID.
        uuid: String,
        /// Files by path below the mount point (text), with directories as keys that end in `/`.
        files: BTreeMap<String, String>,
    },
    /// An ISO or other data by its bytes (base64), for example a NoCloud seed.
    Bytes(String),
    /// The cloud-init drive that the hypervisor writes.
    CloudInit,
    /// EFI variables or TPM state.
    Firmware,
    /// A backup of a VM.
    Backup {
        /// Its config.
        conf: BTreeMap<String, String>,
        /// Its disks by key, with the format they had.
        disks: BTreeMap<String, (Volume, String)>,
    },
    /// The memory of a VM.
    Memory,
}

impl Volume {
    /// An empty volume of `size` bytes.
    #[must_use]
    pub fn blank(size: u64) -> Self {
        Volume::new(size, Content::Blank)
    }

    /// A volume with something on it, to its end.
    #[must_use]
    pub fn new(size: u64, content: Content) -> Self {
        Volume { size, content, reach: Reach::default() }
    }

    /// Size of the file system on it.
    #[must_use]
    pub fn fs_size(&self) -> u64 {
        self.reach.fs.unwrap_or(self.size)
    }

    /// Leaves this much room behind the last partition, and within that behind the file system, not in use.
    pub fn leave(&mut self, behind: u64, within: u64) {
        let partition = self.size.saturating_sub(behind);
        self.reach = match self.content {
            Content::System { .. } if behind + within > 0 => {
                Reach { partition: Some(partition), fs: Some(partition.saturating_sub(within)) }
            }
            Content::Filesystem { .. } if within > 0 => {
                Reach { partition: None, fs: Some(self.size.saturating_sub(within)) }
            }
            _ => Reach::default(),
        };
    }

    /// The same with more room, which nothing on it uses yet.
    #[must_use]
    pub fn grown(mut self, size: u64) -> Self {
        let had = Some(self.size);
        match self.content {
            Content::Filesystem { .. } => self.reach.fs = self.reach.fs.or(had),
            Content::System { .. } => {
                self.reach.fs = self.reach.fs.or(had);
                self.reach.partition = self.reach.partition.or(had);
            }
            _ => {}
        }
        self.size = size;
        self
    }
}
