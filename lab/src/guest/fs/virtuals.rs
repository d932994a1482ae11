//! `/proc`, `/sys` and `/dev` of a guest, made from its state when they are read.
use std::io::{Error, ErrorKind, Result};

use super::tree::{Node, Nodes, Tree, parent};
use crate::Lab;
use crate::guest::hw::{self, KERNEL_VERSION, blocks, running_kernel, sysctls};
use crate::guest::state::{Guest, Stage};
use crate::world::World;

/// Files that no tree holds.
pub trait Virtual: Send + Sync {
    /// The node at a path below `/proc`, `/sys` or `/dev`.
    fn node(&self, path: &str) -> Option<Node>;
    /// Entries of such a directory.
    fn list(&self, path: &str) -> Vec<(String, Node)>;
    /// Writes such a file.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn write(&self, path: &str, bytes: &[u8]) -> Result<()>;
}

/// The virtual files of one guest.
pub struct GuestVirtual {
    lab: Lab,
    vmid: u32,
}

impl GuestVirtual {
    /// For guest `vmid`.
    #[must_use]
    pub fn new(lab: Lab, vmid: u32) -> GuestVirtual {
        GuestVirtual { lab, vmid }
    }

    fn tree(&self) -> Tree {
        Tree::new(self.lab.with(|w| w.guests.get(&self.vmid).map(|g| render(w, g)).unwrap_or_default()))
    }
}

const CHARS: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "kmsg"];

fn fast(path: &str) -> Option<Node> {
    match path {
        "/proc" | "/sys" => Some(Node::dir(0o555)),
        "/dev" => Some(Node::dir(0o755)),
        "/dev/zero" | "/dev/full" => Some(Node::file(vec![0; 1 << 16], 0o020_666)),
        "/dev/random" | "/dev/urandom" => {
            let bytes: Vec<u8> = (0..256).flat_map(|_| rand::random::<[u8; 16]>()).collect();
            Some(Node::file(bytes, 0o020_666))
        }
        "/proc/sys/kernel/random/uuid" => Some(Node::file(format!("{}\n", uuid::Uuid::new_v4()), 0o444)),
        p => p.strip_prefix("/dev/").filter(|n| CHARS.contains(n)).map(|_| Node::file("", 0o020_666)),
    }
}

impl Virtual for GuestVirtual {
    fn node(&self, path: &str) -> Option<Node> {
        fast(path).or_else(|| self.tree().get(path))
    }

    fn list(&self, path: &str) -> Vec<(String, Node)> {
        self.tree().list(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let Some(key) = path.strip_prefix("/proc/sys/") else { return Ok(()) };
        let value = String::from_utf8_lossy(bytes).trim().replace(' ', "\t");
        self.lab.with(|w| match w.guests.get_mut(&self.vmid) {
            Some(g) => set_sysctl(g, &key.replace('/', "."), &value),
            None => Err(Error::other("Input/output error")),
        })
    }
}

/// Sets a kernel parameter.
///
/// # Errors
/// When there is none of that name or its value cannot be that.
pub fn set_sysctl(g: &mut Guest, key: &str, value: &str) -> Result<()> {
    let Some((_, old)) = sysctls(g).into_iter().find(|(k, _)| k == key) else {
        return Err(Error::new(ErrorKind::NotFound, "No such file or directory"));
    };
    if key.starts_with("kernel.random") || key == "kernel.osrelease" || key == "kernel.ostype" {
        return Err(Error::new(ErrorKind::PermissionDenied, "Permission denied"));
    }
    let number = |s: &str| s.split_whitespace().all(|p| p.parse::<i64>().is_ok());
    if number(&old) && !number(value) {
        return Err(Error::new(ErrorKind::InvalidInput, "Invalid argument"));
    }
    if key == "kernel.hostname" {
        value.clone_into(&mut g.hostname);
    }
    if key == "net.ipv4.ip_forward" || key == "net.ipv4.conf.all.forwarding" {
        for k in ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.default.forwarding"] {
            g.sysctl.insert(k.to_owned(), value.to_owned());
        }
    }
    g.sysctl.insert(key.to_owned(), value.to_owned());
    Ok(())
}

/// Builds the nodes below `/proc`, `/sys` and `/dev`.
struct Builder {
    nodes: Nodes,
}

impl Builder {
    fn node(&mut self, path: &str, node: Node) {
        let mut dir = parent(path);
        while dir != "/" && !self.nodes.contains_key(dir) {
            self.nodes.insert(dir.to_owned(), Node::dir(0o555));
            dir = parent(dir);
        }
        self.nodes.insert(path.to_owned(), node);
    }
    fn file(&mut self, path: &str, text: impl Into<String>) {
        let text: String = text.into();
        self.node(path, Node::file(text, 0o444));
    }
    fn line(&mut self, path: &str, text: &str) {
        self.file(path, format!("{text}\n"));
    }
}

/// All virtual nodes of a guest.
#[must_use]
pub fn render(w: &World, g: &Guest) -> Nodes {
    let mut b = Builder { nodes: Nodes::new() };
    for d in ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mapper"] {
        b.node(d, Node::dir(if d == "/dev/shm" { 0o1777 } else { 0o755 }));
    }
    dev(&mut b, w, g);
    proc(&mut b, w, g);
    sys(&mut b, w, g);
    b.nodes
}

fn dev(b: &mut Builder, w: &World, g: &Guest) {
    for c in CHARS {
        b.node(&format!("/dev/{c}"), Node::file("", 0o020_666));
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        b.node(&format!("/dev/{name}"), Node::link(to));
    }
    for d in blocks(w, g) {
        b.node(&d.path(), Node { gid: 6, ..Node::file("", 0o060_660) });
        let to = format!("../../{}", d.name);
        b.node(&format!("/dev/disk/by-id/{}", d.by_id()), Node::link(&to));
        if !d.label.is_empty() {
            b.node(&format!("/dev/disk/by-label/{}", d.label), Node::link(&to));
        }
        if !d.uuid.is_empty() {
            b.node(&format!("/dev/disk/by-uuid/{}", d.uuid), Node::link(&to));
        }
    }
    if g.facts.nvidia_driver.is_some() {
        let cards = g.spec.pci.iter().filter(|p| p.vendor.ends_with("10de")).count();
        for i in 0..cards {
            b.node(&format!("/dev/nvidia{i}"), Node::file("", 0o020_666));
        }
        for n in ["nvidiactl", "nvidia-uvm"] {
            b.node(&format!("/dev/{n}"), Node::file("", 0o020_666));
        }
    }
}

/// `/proc/mounts`.
#[must_use]
pub fn mounts_table(g: &Guest) -> String {
    let mut t = String::from(
        "sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n\
         udev /dev devtmpfs rw,nosuid,relatime 0 0\ntmpfs /run tmpfs rw,nosuid,nodev,noexec,relatime 0 0\n\
         /dev/sda1 / ext4 rw,relatime,discard,errors=remount-ro 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0\n\
         /dev/sda15 /boot/efi vfat rw,relatime,fmask=0077,dmask=0077 0 0\n",
    );
    for m in &g.mounts {
        t += &format!("{} {} {} {} 0 0\n", m.source, m.target, m.fstype, m.options);
    }
    t
}

/// Memory numbers in KiB: total, free, available, buffers and cache.
#[must_use]
pub fn memory(g: &Guest) -> (u64, u64, u64, u64) {
    let total = g.spec.memory_mib * 1024 * 98 / 100;
    let used = (300 * 1024).min(total / 2);
    let cache = 400 * 1024.min(total / 8192);
    (total, total.saturating_sub(used + cache), total.saturating_sub(used), cache)
}

/// `/proc/cpuinfo`.
#[must_use]
pub fn cpuinfo(g: &Guest) -> String {
    (0..g.spec.cores.max(1))
        .map(|i| {
            format!(
                "processor\t: {i}\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7543 32-Core Processor\n\
                 cpu MHz\t\t: 2794.748\ncache size\t: 512 KB\ncpu cores\t: {}\nflags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep sse sse2 ht syscall nx lm svm sse4_1 sse4_2 aes avx avx2 hypervisor\n\n",
                g.spec.cores
            )
        })
        .collect()
}

fn proc(b: &mut Builder, w: &World, g: &Guest) {
    b.file("/proc/cpuinfo", cpuinfo(g));
    let (total, free, available, cache) = memory(g);
    let swap: u64 = g.swaps.iter().map(|s| s.1).sum();
    b.file(
        "/proc/meminfo",
        format!("MemTotal:       {total:>9} kB\nMemFree:        {free:>9} kB\nMemAvailable:   {available:>9} kB\nBuffers:        {:>9} kB\nCached:         {cache:>9} kB\nSwapTotal:      {swap:>9} kB\nSwapFree:       {swap:>9} kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n", 20_000),
    );
    let swaps: String = g.swaps.iter().map(|(d, k)| format!("{d:<40}file\t\t{k}\t\t0\t\t-2\n")).collect();
    b.file("/proc/swaps", format!("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n{swaps}"));
    for p in ["/proc/mounts", "/proc/self/mounts", "/proc/1/mounts"] {
        b.file(p, mounts_table(g));
    }
    let modules: String = g.modules.iter().map(|m| format!("{m} 16384 0 - Live 0x0000000000000000\n")).collect();
    b.file("/proc/modules", modules);
    let up = w.now_ms.saturating_sub(g.booted_ms) as f64 / 1000.0;
    b.line("/proc/uptime", &format!("{up:.2} {:.2}", up * f64::from(g.spec.cores)));
    b.line("/proc/loadavg", "0.08 0.03 0.01 1/142 1204");
    let kernel = running_kernel(g);
    b.line("/proc/version", &format!("Linux version {kernel} (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) {KERNEL_VERSION}"));
    let arguments = match g.cmdline.as_str() {
        "" => "console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 consoleblank=0",
        own => own,
    };
    b.line("/proc/cmdline", &format!("BOOT_IMAGE=/boot/vmlinuz-{kernel} root=PARTUUID=5a1c3d20 ro {arguments}"));
    b.file(
        "/proc/filesystems",
        "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\toverlay\n\text4\n\tvfat\n\txfs\n",
    );
    let parts: String = blocks(w, g)
        .iter()
        .enumerate()
        .map(|(i, d)| format!("   8 {i:>7} {:>10} {}\n", d.size / 1024, d.name))
        .collect();
    b.file("/proc/partitions", format!("major minor  #blocks  name\n\n{parts}"));
    b.line("/proc/1/comm", "systemd");
    b.file("/proc/1/cmdline", "/sbin/init\0");
    b.file("/proc/self/status", "Name:\tbash\nState:\tR (running)\nPid:\t1204\nPPid:\t1203\n");
    b.line("/proc/self/cgroup", "0::/user.slice/user-1000.slice/session-1.scope");
    for fd in 0..3 {
        b.node(&format!("/proc/self/fd/{fd}"), Node::link("/dev/pts/0"));
    }
    if let Some(v) = g.facts.nvidia_driver.as_ref().filter(|_| g.stage >= Stage::Up) {
        b.line(
            "/proc/driver/nvidia/version",
            &format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {v}  Release Build"),
        );
    }
    for (k, v) in sysctls(g) {
        let path = format!("/proc/sys/{}", k.replace('.', "/"));
        b.node(&path, Node::file(format!("{v}\n"), if k.starts_with("kernel.random") { 0o444 } else { 0o644 }));
    }
}

fn sys(b: &mut Builder, w: &World, g: &Guest) {
    for d in blocks(w, g) {
        if !d.disk.is_empty() {
            let at = format!("/sys/block/{}/{}", d.disk, d.name);
            b.line(&format!("{at}/partition"), d.name.strip_prefix(d.disk.as_str()).unwrap_or_default());
            b.line(&format!("{at}/start"), &(d.start / 512).to_string());
            b.line(&format!("{at}/size"), &(d.size / 512).to_string());
            continue;
        }
        let at = format!("/sys/block/{}", d.name);
        b.line(&format!("{at}/size"), &(d.size / 512).to_string());
        b.line(&format!("{at}/ro"), "0");
        b.line(&format!("{at}/removable"), "0");
        b.line(&format!("{at}/device/model"), "QEMU HARDDISK   ");
        b.line(&format!("{at}/device/vendor"), "QEMU    ");
        b.line(&format!("{at}/queue/rotational"), "1");
    }
    for (i, nic) in g.spec.nics.iter().enumerate() {
        let at = format!("/sys/class/net/eth{i}");
        b.line(&format!("{at}/address"), &nic.mac.to_lowercase());
        b.line(&format!("{at}/operstate"), "up");
        b.line(&format!("{at}/mtu"), "1500");
    }
    b.line("/sys/class/net/lo/address", "00:00:00:00:00:00");
    for (k, v) in [
        ("product_uuid", g.spec.uuid.as_str()),
        ("product_name", "Standard PC (Q35 + ICH9, 2009)"),
        ("sys_vendor", "QEMU"),
        ("bios_vendor", "Proxmox distribution of EDK II"),
    ] {
        b.line(&format!("/sys/class/dmi/id/{k}"), v);
    }
    for m in &g.modules {
        b.line(&format!("/sys/module/{m}/initstate"), "live");
    }
    b.node("/sys/firmware/efi", Node::dir(0o755));
    b.line("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc");
    b.line("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
    for p in &g.spec.pci {
        let at = format!("/sys/bus/pci/devices/{}", p.address);
        for (k, v) in [("vendor", &p.vendor), ("device", &p.device), ("class", &p.class)] {
            b.line(&format!("{at}/{k}"), v);
        }
    }
    let _ = hw::AT_BOOT;
}
