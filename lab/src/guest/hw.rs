//! The hardware a guest sees: block devices with their contents, cards, kernel parameters.
use super::state::{Backing, Guest};
use crate::volume::{Content, Reach};
use crate::world::World;

/// A partition or whole disk.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// `sda`, `sda1`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Serial number as udev shows it.
    pub serial: String,
    /// Volume id.
    pub volid: String,
    /// The disk a partition is on; empty for a disk.
    pub disk: String,
    /// File system, empty when there is none.
    pub fstype: String,
    /// Label.
    pub label: String,
    /// UUID of the file system.
    pub uuid: String,
    /// Where it is mounted.
    pub mounted: Vec<String>,
    /// Whether it carries a partition table.
    pub table: bool,
    /// Where a partition begins, in bytes.
    pub start: u64,
    /// Size of the file system, which may be less than that of its device.
    pub fs_size: u64,
}

impl Block {
    /// `/dev/sda1`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Names below `/dev/disk/by-id`.
    #[must_use]
    pub fn by_id(&self) -> String {
        let part = self.name.strip_prefix(self.disk.as_str()).filter(|_| !self.disk.is_empty());
        let part = part.map(|n| format!("-part{n}")).unwrap_or_default();
        format!("scsi-0QEMU_QEMU_HARDDISK_{}{part}", self.serial)
    }
}

/// The block devices of a guest, disks followed by their partitions.
#[must_use]
pub fn blocks(w: &World, g: &Guest) -> Vec<Block> {
    let mut out = Vec::new();
    for (i, d) in g.spec.disks.iter().enumerate() {
        let name = format!("sd{}", char::from(b'a' + (i % 26) as u8));
        let serial = if d.serial.is_empty() { format!("drive-{}", d.slot) } else { d.serial.clone() };
        let volume = w.volumes.get(&d.volid);
        let size = volume.map_or(d.size, |v| v.size.max(d.size));
        let reach = volume.map(|v| v.reach).unwrap_or_default();
        let mut disk = Block { name: name.clone(), size, serial, volid: d.volid.clone(), ..Block::default() };
        let mut parts = Vec::new();
        if d.volid == g.system {
            disk.table = true;
            parts = system_parts(&disk, reach);
        } else {
            match volume.map(|v| &v.content) {
                Some(Content::Filesystem { fs, label, uuid, .. }) => {
                    disk.fstype.clone_from(fs);
                    disk.label.clone_from(label);
                    disk.uuid.clone_from(uuid);
                    disk.fs_size = reach.fs.unwrap_or(disk.size);
                }
                Some(Content::System { .. } | Content::CloudImage { .. }) => {
                    disk.table = true;
                    parts = system_parts(&disk, reach);
                }
                _ => {}
            }
        }
        disk.mounted = mounts_of(g, &d.volid);
        out.push(disk);
        out.append(&mut parts);
    }
    out
}

fn mounts_of(g: &Guest, volid: &str) -> Vec<String> {
    let of = |b: &Backing| matches!(b, Backing::Volume(v) if v == volid);
    g.mounts.iter().filter(|m| of(&m.backing)).map(|m| m.target.clone()).collect()
}

const MIB: u64 = 1 << 20;

/// Where the root partition of a Debian cloud image begins: behind the two small ones.
const ROOT_AT: u64 = 128 * MIB;

/// The three partitions of a Debian cloud image; the first is grown with the disk when the system boots.
fn system_parts(disk: &Block, reach: Reach) -> Vec<Block> {
    let root_size = |end: Option<u64>| end.unwrap_or(disk.size).saturating_sub(ROOT_AT);
    let id = disk.volid.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let part = |n: u32, (start, size): (u64, u64), fs: &str, uuid: String, at: &[&str]| Block {
        start,
        fs_size: size,
        name: format!("{}{n}", disk.name),
        size,
        serial: disk.serial.clone(),
        volid: disk.volid.clone(),
        disk: disk.name.clone(),
        fstype: fs.to_owned(),
        uuid,
        mounted: at.iter().map(|s| (*s).to_owned()).collect(),
        ..Block::default()
    };
    let root = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        id as u32,
        (id >> 32) as u16,
        (id >> 48) & 0xfff,
        id & 0xfff,
        id >> 16
    );
    let mut first = part(1, (ROOT_AT, root_size(reach.partition)), "ext4", root, &["/"]);
    first.fs_size = root_size(reach.fs);
    let efi = format!("{:04X}-{:04X}", id as u16, (id >> 16) as u16);
    vec![
        first,
        part(14, (MIB, 3 * MIB), "", String::new(), &[]),
        part(15, (4 * MIB, 124 * MIB), "vfat", efi, &["/boot/efi"]),
    ]
}

/// The device that `path` names: `/dev/sdb`, a link below `/dev/disk`, `LABEL=x`, `UUID=x`.
#[must_use]
pub fn find_block(w: &World, g: &Guest, path: &str) -> Option<Block> {
    let all = blocks(w, g);
    let by = |pick: &dyn Fn(&Block) -> bool| all.iter().find(|b| pick(b)).cloned();
    let named = |s: &str, x: &str| !x.is_empty() && s == x;
    if let Some(label) = path.strip_prefix("LABEL=").or_else(|| path.strip_prefix("/dev/disk/by-label/")) {
        return by(&|b| named(label.trim_matches('"'), &b.label));
    }
    if let Some(uuid) = path.strip_prefix("UUID=").or_else(|| path.strip_prefix("/dev/disk/by-uuid/")) {
        return by(&|b| named(uuid.trim_matches('"'), &b.uuid));
    }
    if let Some(id) = path.strip_prefix("/dev/disk/by-id/") {
        return by(&|b| b.by_id() == id);
    }
    let name = path.strip_prefix("/dev/")?;
    by(&|b| b.name == name)
}

/// Kernel parameters and their values at boot.
const SYSCTL: &[(&str, &str)] = &[
    ("fs.aio-max-nr", "65536"),
    ("fs.file-max", "9223372036854775807"),
    ("fs.inotify.max_queued_events", "16384"),
    ("fs.inotify.max_user_instances", "128"),
    ("fs.inotify.max_user_watches", "122880"),
    ("fs.nr_open", "1048576"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_symlinks", "1"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.keys.maxbytes", "20000"),
    ("kernel.keys.maxkeys", "200"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.ostype", "Linux"),
    ("kernel.panic", "0"),
    ("kernel.panic_on_oops", "0"),
    ("kernel.pid_max", "4194304"),
    ("kernel.threads-max", "127190"),
    ("kernel.unprivileged_userns_clone", "1"),
    ("net.core.default_qdisc", "fq_codel"),
    ("net.core.netdev_max_backlog", "1000"),
    ("net.core.rmem_max", "212992"),
    ("net.core.somaxconn", "4096"),
    ("net.core.wmem_max", "212992"),
    ("net.ipv4.conf.all.arp_announce", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.all.forwarding", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.forwarding", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.ip_local_port_range", "32768\t60999"),
    ("net.ipv4.ip_nonlocal_bind", "0"),
    ("net.ipv4.neigh.default.gc_thresh1", "128"),
    ("net.ipv4.neigh.default.gc_thresh2", "512"),
    ("net.ipv4.neigh.default.gc_thresh3", "1024"),
    ("net.ipv4.tcp_congestion_control", "cubic"),
    ("net.ipv4.tcp_keepalive_time", "7200"),
    ("net.ipv4.tcp_rmem", "4096\t131072\t6291456"),
    ("net.ipv4.tcp_wmem", "4096\t16384\t4194304"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.forwarding", "0"),
    ("vm.dirty_background_ratio", "10"),
    ("vm.dirty_ratio", "20"),
    ("vm.max_map_count", "65530"),
    ("vm.min_free_kbytes", "67584"),
    ("vm.nr_hugepages", "0"),
    ("vm.overcommit_memory", "0"),
    ("vm.overcommit_ratio", "50"),
    ("vm.panic_on_oom", "0"),
    ("vm.swappiness", "60"),
];

const BRIDGE: &[&str] = &[
    "net.bridge.bridge-nf-call-arptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
];
const CONNTRACK: &[(&str, &str)] = &[("net.netfilter.nf_conntrack_max", "262144")];

/// All kernel parameters with their present values.
#[must_use]
pub fn sysctls(g: &Guest) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = SYSCTL.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.push(("kernel.hostname".into(), g.hostname.clone()));
    all.push(("kernel.osrelease".into(), running_kernel(g).to_owned()));
    all.push(("kernel.random.boot_id".into(), g.boot_id.clone()));
    if g.modules.contains("br_netfilter") {
        all.extend(BRIDGE.iter().map(|k| ((*k).to_owned(), "1".to_owned())));
    }
    if g.modules.contains("nf_conntrack") {
        all.extend(CONNTRACK.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    }
    for (k, v) in &mut all {
        if let Some(set) = g.sysctl.get(k) {
            v.clone_from(set);
        }
    }
    all.sort();
    all
}

/// Version of the running kernel.
pub const KERNEL: &str = "6.1.0-39-cloud-amd64";

/// Its build, as `uname -v` says it.
pub const KERNEL_VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.148-1 (2025-08-26)";

/// Version of the kernel that a guest runs.
#[must_use]
pub fn running_kernel(g: &Guest) -> &str {
    g.facts.kernel.as_deref().unwrap_or(KERNEL)
}

/// Modules that Debian's kernel has, with what each needs.
pub const MODULES: &[(&str, &[&str])] = &[
    ("br_netfilter", &["bridge"]),
    ("bridge", &["stp", "llc"]),
    ("stp", &["llc"]),
    ("llc", &[]),
    ("overlay", &[]),
    ("nf_conntrack", &["nf_defrag_ipv4", "nf_defrag_ipv6"]),
    ("nf_defrag_ipv4", &[]),
    ("nf_defrag_ipv6", &[]),
    ("nf_nat", &["nf_conntrack"]),
    ("ip_vs", &["nf_conntrack"]),
    ("ip_vs_rr", &["ip_vs"]),
    ("ip_vs_wrr", &["ip_vs"]),
    ("ip_vs_sh", &["ip_vs"]),
    ("ip_tables", &["x_tables"]),
    ("ip6_tables", &["x_tables"]),
    ("iptable_nat", &["ip_tables", "nf_nat"]),
    ("iptable_filter", &["ip_tables"]),
    ("x_tables", &[]),
    ("nf_tables", &["nfnetlink"]),
    ("nfnetlink", &[]),
    ("vxlan", &["udp_tunnel", "ip6_udp_tunnel"]),
    ("udp_tunnel", &[]),
    ("ip6_udp_tunnel", &[]),
    ("wireguard", &["udp_tunnel", "ip6_udp_tunnel"]),
    ("iscsi_tcp", &["libiscsi"]),
    ("libiscsi", &[]),
    ("nfs", &["sunrpc"]),
    ("nfsv4", &["nfs", "sunrpc"]),
    ("nfsd", &["sunrpc"]),
    ("sunrpc", &[]),
    ("dm_crypt", &["dm_mod"]),
    ("dm_mod", &[]),
    ("dm_thin_pool", &["dm_mod"]),
    ("dm_snapshot", &["dm_mod"]),
    ("rbd", &["libceph"]),
    ("libceph", &[]),
    ("zram", &[]),
    ("loop", &[]),
    ("fuse", &[]),
    ("tun", &[]),
    ("veth", &[]),
    ("xfs", &[]),
    ("btrfs", &[]),
    ("softdog", &[]),
    ("tcp_bbr", &[]),
    ("ipmi_si", &[]),
    ("vfio", &[]),
    ("vfio_pci", &["vfio"]),
    ("nouveau", &["drm"]),
    ("drm", &[]),
    ("virtio_net", &[]),
    ("virtio_scsi", &[]),
    ("virtio_blk", &[]),
    ("virtio_balloon", &[]),
    ("virtio_rng", &[]),
    ("ext4", &[]),
    ("vfat", &[]),
    ("nls_ascii", &[]),
    ("configfs", &[]),
    ("efi_pstore", &[]),
    ("qemu_fw_cfg", &[]),
];

/// Modules loaded at boot.
pub const AT_BOOT: &[&str] = &[
    "ext4",
    "vfat",
    "virtio_net",
    "virtio_scsi",
    "virtio_balloon",
    "virtio_rng",
    "configfs",
    "efi_pstore",
    "fuse",
    "drm",
    "qemu_fw_cfg",
    "dm_mod",
    "loop",
];

/// Loads a module with what it needs; false when the kernel has none of that name.
pub fn load_module(g: &mut Guest, name: &str) -> bool {
    let name = name.replace('-', "_");
    let Some((_, needs)) = MODULES.iter().find(|(m, _)| *m == name) else {
        return g.modules.contains(&name);
    };
    for n in *needs {
        load_module(g, n);
    }
    g.modules.insert(name);
    true
}
