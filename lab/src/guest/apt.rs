//! Debian packages in a guest: the catalogue, and installing with its lock and its time.
use std::time::Duration;

use super::fs::Who;
use super::fs::image::{PACKAGES, program_file};
use super::fs::tree::parent;
use super::live::Machine;
use super::state::Guest;
use super::{accounts, programs, units};
use crate::Lab;
use crate::world::World;

/// A package that can be installed: name, version, what it needs, programs it brings that are not simulated.
pub struct Package {
    /// Name.
    pub name: &'static str,
    /// Version in Debian 12.
    pub version: &'static str,
    /// Packages it needs.
    pub needs: &'static [&'static str],
    /// Programs it brings beside those of the lab's table.
    pub brings: &'static [&'static str],
}

const fn p(
    name: &'static str,
    version: &'static str,
    needs: &'static [&'static str],
    brings: &'static [&'static str],
) -> Package {
    Package { name, version, needs, brings }
}

/// What the archive has beside the packages of the image.
pub const CATALOGUE: &[Package] = &[
    p("apparmor", "3.0.8-3", &[], &["apparmor_parser", "aa-status"]),
    p("apt-transport-https", "2.6.1", &[], &[]),
    p("apt-utils", "2.6.1", &[], &[]),
    p("auditd", "1:3.0.9-1", &[], &["auditctl", "ausearch"]),
    p("bc", "1.07.1-3+b1", &[], &["bc", "dc"]),
    p("bind9-dnsutils", "1:9.18.41-1~deb12u1", &[], &["dig", "nslookup", "host"]),
    p("dnsutils", "1:9.18.41-1~deb12u1", &["bind9-dnsutils"], &[]),
    p("bridge-utils", "1.7.1-1", &[], &["brctl"]),
    p("build-essential", "12.9", &["gcc", "make"], &[]),
    p("chrony", "4.3-2+deb12u1", &[], &["chronyc"]),
    p("conntrack", "1:1.4.7-1+b2", &[], &["conntrack"]),
    p("cryptsetup", "2:2.6.1-4~deb12u2", &[], &["cryptsetup"]),
    p("dkms", "3.0.10-8+deb12u1", &["gcc", "make"], &["dkms"]),
    p("docker.io", "20.10.24+dfsg1-1+deb12u1", &[], &["docker", "dockerd"]),
    p("ethtool", "1:6.1-1", &[], &["ethtool"]),
    p("fail2ban", "1.0.2-2", &[], &["fail2ban-client"]),
    p("fio", "3.33-3", &[], &["fio"]),
    p("gcc", "4:12.2.0-3", &[], &["gcc", "cc"]),
    p("gdisk", "1.0.9-2.1", &[], &["sgdisk", "gdisk"]),
    p("git", "1:2.39.5-0+deb12u2", &[], &["git"]),
    p("gnupg", "2.2.40-1.1+deb12u1", &[], &["gpg"]),
    p("hdparm", "9.65+ds-1", &[], &["hdparm"]),
    p("htop", "3.2.2-2", &[], &["htop"]),
    p("iftop", "1.0~pre4-9", &[], &["iftop"]),
    p("iotop", "0.6-42-ga14256a-0.1+b2", &[], &["iotop"]),
    p("iperf3", "3.12-1+deb12u1", &[], &["iperf3"]),
    p("ipset", "7.17-1", &[], &["ipset"]),
    p("iptables", "1.8.9-2", &[], &["iptables", "ip6tables", "iptables-save", "iptables-restore"]),
    p("ipvsadm", "1:1.31-1+b1", &[], &["ipvsadm"]),
    p("jq", "1.6-2.1+deb12u1", &[], &["jq"]),
    p("libnfsidmap1", "1:2.6.2-4+deb12u1", &[], &[]),
    p("linux-headers-amd64", "6.1.148-1", &[], &[]),
    p("linux-headers-6.1.0-39-cloud-amd64", "6.1.148-1", &[], &[]),
    p("linux-headers-cloud-amd64", "6.1.148-1", &[], &[]),
    p("lsb-release", "12.0-1", &[], &["lsb_release"]),
    p("lsof", "4.95.0-1", &[], &["lsof"]),
    p("lsscsi", "0.32-1", &[], &["lsscsi"]),
    p("lvm2", "2.03.16-2", &[], &["pvcreate", "vgcreate", "lvcreate", "pvs", "vgs", "lvs"]),
    p("make", "4.3-4.1", &[], &["make"]),
    p("mdadm", "4.2-5", &[], &["mdadm"]),
    p("mtr-tiny", "0.95-1", &[], &["mtr"]),
    p("multipath-tools", "0.9.4-3+deb12u1", &[], &["multipath"]),
    p("nano", "7.2-1+deb12u1", &[], &["nano"]),
    p("ncdu", "1.18-0.2", &[], &["ncdu"]),
    p("needrestart", "3.6-4+deb12u3", &[], &["needrestart"]),
    p("net-tools", "2.10-0.1+deb12u2", &[], &["ifconfig", "netstat", "route", "arp"]),
    p("netcat-openbsd", "1.219-1", &[], &["nc"]),
    p("nfs-common", "1:2.6.2-4+deb12u1", &["rpcbind", "libnfsidmap1"], &["nfsstat"]),
    p("nfs-kernel-server", "1:2.6.2-4+deb12u1", &["nfs-common"], &["rpc.nfsd", "rpc.mountd"]),
    p("nftables", "1.0.6-2+deb12u2", &[], &["nft"]),
    p("nmap", "7.93+dfsg1-1", &[], &["nmap"]),
    p("numactl", "2.0.16-1", &[], &["numactl"]),
    p("nvme-cli", "2.4+really2.3-3", &[], &["nvme"]),
    p("open-iscsi", "2.1.8-1", &[], &["iscsiadm"]),
    p("parted", "3.5-3", &[], &["parted"]),
    p("pipx", "1.1.0-1", &[], &["pipx"]),
    p("prometheus-node-exporter", "1.5.0-1+b6", &[], &["prometheus-node-exporter"]),
    p("psmisc", "23.6-1", &[], &["killall", "pstree", "fuser"]),
    p("pv", "1.6.20-1", &[], &["pv"]),
    p("python3-pip", "23.0.1+dfsg-1", &[], &["pip3", "pip"]),
    p("python3-kubernetes", "22.6.0-2", &[], &[]),
    p("qemu-guest-agent", "1:7.2+dfsg-7+deb12u16", &[], &["qemu-ga"]),
    p("rpcbind", "1.2.6-6+b1", &[], &["rpcinfo"]),
    p("rsync", "3.2.7-1+deb12u3", &[], &["rsync"]),
    p("rsyslog", "8.2302.0-1+deb12u1", &[], &["rsyslogd"]),
    p("smartmontools", "7.3-1+b1", &[], &["smartctl"]),
    p("socat", "1.7.4.4-2", &[], &["socat"]),
    p("sshpass", "1.09-1+b1", &[], &["sshpass"]),
    p("software-properties-common", "0.99.30-4.1~deb12u1", &[], &["add-apt-repository"]),
    p("strace", "6.1-0.1", &[], &["strace"]),
    p("stress-ng", "0.15.06-2", &[], &["stress-ng"]),
    p("sysstat", "12.6.1-1", &[], &["iostat", "sar", "mpstat"]),
    p("tcpdump", "4.99.3-1", &[], &["tcpdump"]),
    p("telnet", "0.17+2.4-2+deb12u1", &[], &["telnet"]),
    p("tmux", "3.3a-3", &[], &["tmux"]),
    p("nvidia-driver", "535.247.01-1~deb12u1", &["nvidia-kernel-dkms", "nvidia-driver-libs"], &[]),
    p("nvidia-driver-libs", "535.247.01-1~deb12u1", &[], &[]),
    p("nvidia-kernel-dkms", "535.247.01-1~deb12u1", &["dkms"], &[]),
    p("traceroute", "1:2.1.2-1", &[], &["traceroute"]),
    p("tree", "2.1.0-1", &[], &["tree"]),
    p("ufw", "0.36.2-1", &["iptables"], &["ufw"]),
    p("unzip", "6.0-28", &[], &["unzip"]),
    p("vim", "2:9.0.1378-2+deb12u2", &[], &["vim"]),
    p("wireguard", "1.0.20210914-1", &["wireguard-tools"], &[]),
    p("wireguard-tools", "1.0.20210914-1+b1", &[], &["wg", "wg-quick"]),
    p("xfsprogs", "6.1.0-1", &[], &["xfs_repair"]),
    p("zip", "3.0-13", &[], &["zip"]),
    p("zfsutils-linux", "2.1.11-1+deb12u1", &[], &["zpool", "zfs"]),
    p("zstd", "1.5.4+dfsg2-5", &[], &["zstd"]),
];

/// A package of the archive.
#[must_use]
pub fn find(name: &str) -> Option<&'static Package> {
    CATALOGUE.iter().find(|x| x.name == name)
}

/// Whether some package brings a program of this name.
#[must_use]
pub fn brings(program: &str) -> bool {
    CATALOGUE.iter().any(|x| x.brings.contains(&program))
}

/// The version the archive offers.
#[must_use]
pub fn candidate(name: &str) -> Option<&'static str> {
    find(name).map(|x| x.version).or_else(|| PACKAGES.iter().find(|x| x.0 == name).map(|x| x.1))
}

/// The installed version.
#[must_use]
pub fn installed(g: &Guest, name: &str) -> Option<String> {
    if let Some(v) = g.facts.packages.get(name) {
        return Some(v.clone());
    }
    PACKAGES.iter().find(|x| x.0 == name && !g.facts.removed.contains(name)).map(|x| x.1.to_owned())
}

/// Everything installed with versions.
#[must_use]
pub fn all_installed(g: &Guest) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        PACKAGES.iter().filter(|x| !g.facts.removed.contains(x.0)).map(|x| (x.0.to_owned(), x.1.to_owned())).collect();
    all.extend(g.facts.packages.iter().map(|(k, v)| (k.clone(), v.clone())));
    all.sort();
    all
}

/// What is to be installed for `names`, in order, or the first name that is unknown.
///
/// # Errors
/// The unknown name.
pub fn resolve(g: &Guest, names: &[String]) -> Result<Vec<&'static Package>, String> {
    let mut order = Vec::new();
    for n in names {
        let name = n.split('=').next().unwrap_or(n).trim_end_matches('+');
        let name = name.split('/').next().unwrap_or(name).trim_end_matches(":amd64");
        if installed(g, name).is_some() {
            continue;
        }
        if find(name).is_none() && PACKAGES.iter().all(|x| x.0 != name) {
            return Err(name.to_owned());
        }
        add(g, name, &mut order);
    }
    Ok(order)
}

fn add(g: &Guest, name: &str, order: &mut Vec<&'static Package>) {
    let Some(x) = find(name) else { return };
    if installed(g, name).is_some() || order.iter().any(|o| o.name == name) {
        return;
    }
    for n in x.needs {
        add(g, n, order);
    }
    order.push(x);
}

async fn wait(lab: &Lab, ms: u64) {
    lab.clock().sleep(Duration::from_millis(ms)).await;
}

/// Takes the dpkg lock for `holder`; the present holder is the error.
///
/// # Errors
/// When somebody else holds it.
pub fn lock(m: &Machine, holder: &str) -> Result<(), String> {
    m.lab.with(|w| match w.guests.get_mut(&m.vmid) {
        Some(g) if g.dpkg_lock.is_none() => {
            g.dpkg_lock = Some(holder.to_owned());
            Ok(())
        }
        Some(g) => Err(g.dpkg_lock.clone().unwrap_or_default()),
        None => Err("nobody".to_owned()),
    })
}

/// Gives the dpkg lock back.
pub fn unlock(m: &Machine) {
    m.lab.with(|w| {
        if let Some(g) = w.guests.get_mut(&m.vmid) {
            g.dpkg_lock = None;
        }
    });
}

/// Waits for the dpkg lock as `holder` would with a long timeout.
async fn wait_lock(lab: &Lab, m: &Machine, holder: &str) {
    for _ in 0..600 {
        if lock(m, holder).is_ok() {
            return;
        }
        wait(lab, 1000).await;
    }
}

/// `apt-get update`.
pub async fn update(lab: &Lab, m: &Machine, holder: &str) {
    let _ = holder;
    let ms = lab.with(|w| w.between(2500, 5000));
    wait(lab, ms).await;
    let now = lab.clock().now_ms();
    lab.with(|w| {
        if let Some(g) = w.guests.get_mut(&m.vmid) {
            g.facts.apt_updated_ms = now;
        }
    });
    m.files.place_file("/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease", b"Origin: Debian\n", 0o644);
}

/// `apt-get upgrade`: nothing newer is in the lab's archive, but looking takes time.
pub async fn upgrade(lab: &Lab, m: &Machine, holder: &str) {
    wait_lock(lab, m, holder).await;
    let ms = lab.with(|w| w.between(8000, 20_000));
    wait(lab, ms).await;
    unlock(m);
}

/// Installs packages with what they need.
///
/// # Errors
/// What apt says.
pub async fn install(lab: &Lab, m: &Machine, names: &[String], holder: &str) -> Result<Vec<&'static Package>, String> {
    wait_lock(lab, m, holder).await;
    let result = install_locked(lab, m, names).await;
    unlock(m);
    result
}

/// Installs packages while the lock is held.
///
/// # Errors
/// What apt says.
pub async fn install_locked(lab: &Lab, m: &Machine, names: &[String]) -> Result<Vec<&'static Package>, String> {
    let g = lab.with(|w| w.guests.get(&m.vmid).cloned()).ok_or("the machine is off")?;
    let fresh = g.facts.apt_updated_ms == 0;
    let order = match resolve(&g, names) {
        // Without package lists apt knows only what is installed.
        Ok(o) if fresh && !o.is_empty() => return Err(unknown(o[o.len() - 1].name)),
        Ok(o) => o,
        Err(name) => return Err(unknown(&name)),
    };
    let ms = lab.with(|w| w.between(1500, 3000) + order.len() as u64 * w.between(1500, 4000));
    wait(lab, if order.is_empty() { 400 } else { ms }).await;
    for x in &order {
        put(lab, m, x);
    }
    Ok(order)
}

fn unknown(name: &str) -> String {
    format!("E: Unable to locate package {name}")
}

/// Puts the files of a package in place and starts its services.
fn put(lab: &Lab, m: &Machine, x: &Package) {
    lab.with(|w| bring(lab, w, m, x));
}

/// The same, while the world is held.
pub fn bring(lab: &Lab, w: &mut World, m: &Machine, x: &Package) {
    let root = Who::root();
    for prog in programs::table().iter().filter(|t| t.package == x.name) {
        let _ = m.files.mkdir(&root, parent(prog.path), true, 0o755);
        m.files.place_file(prog.path, &file_bytes(prog.name()), 0o755);
    }
    for name in x.brings {
        let path = format!("/usr/sbin/{name}");
        let path = if x.name == "nfs-common" || x.name.starts_with("nfs") || x.name == "ufw" || x.name == "iptables" {
            path
        } else {
            format!("/usr/bin/{name}")
        };
        if !m.files.exists(&path) && !m.files.exists(&format!("/usr/sbin/{name}")) {
            m.files.place_file(&path, &file_bytes(name), 0o755);
        }
    }
    extras(m, x.name);
    let log = format!("{} install {}:amd64 <none> {}\n", super::journal::stamp(w.now_ms), x.name, x.version);
    let _ = m.files.write(&root, "/var/log/dpkg.log", log.as_bytes(), true, 0o644);
    if let Some(g) = w.guests.get_mut(&m.vmid) {
        g.facts.packages.insert(x.name.to_owned(), x.version.to_owned());
        g.facts.removed.remove(x.name);
    }
    units::package_installed(lab, w, m, x.name);
}

fn file_bytes(name: &str) -> Vec<u8> {
    match program_file(name).kind {
        super::fs::tree::Kind::File(b) => b.as_ref().clone(),
        _ => Vec::new(),
    }
}

/// Configuration files and users some packages bring.
fn extras(m: &Machine, name: &str) {
    let file = |path: &str, text: &str, mode: u32| {
        if !m.files.exists(path) {
            m.files.place_file(path, text.as_bytes(), mode);
        }
    };
    let user = |name: &str| {
        accounts::add_user(
            m,
            &accounts::NewUser {
                name: name.into(),
                system: true,
                shell: "/usr/sbin/nologin".into(),
                ..Default::default()
            },
        );
    };
    match name {
        "nfs-common" => {
            file("/etc/idmapd.conf", "[General]\nVerbosity = 0\n", 0o644);
            file("/etc/nfs.conf", "[general]\n[nfsd]\n# vers3=y\n", 0o644);
            let _ = m.files.mkdir(&Who::root(), "/etc/nfs.conf.d", true, 0o755);
            user("statd");
        }
        "nfs-kernel-server" => {
            file(
                "/etc/exports",
                "# /etc/exports: the access control list for filesystems which may be exported\n#\t\tto NFS clients.  See exports(5).\n",
                0o644,
            );
            let _ = m.files.mkdir(&Who::root(), "/etc/exports.d", true, 0o755);
        }
        "open-iscsi" => {
            file("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:8c5ab1d3f1\n", 0o600)
        }
        "chrony" => {
            file(
                "/etc/chrony/chrony.conf",
                "confdir /etc/chrony/conf.d\nsourcedir /etc/chrony/sources.d\npool 2.debian.pool.ntp.org iburst\n",
                0o644,
            );
            user("_chrony");
        }
        "multipath-tools" => file("/etc/multipath.conf", "defaults {\n}\n", 0o644),
        "nftables" => file("/etc/nftables.conf", "#!/usr/sbin/nft -f\nflush ruleset\n", 0o755),
        _ => {}
    }
}

/// Removes a package; false when it is not installed.
pub fn remove(lab: &Lab, m: &Machine, name: &str) -> bool {
    let had = lab.with(|w| w.guests.get(&m.vmid).is_some_and(|g| installed(g, name).is_some()));
    if !had {
        return false;
    }
    let root = Who::root();
    for prog in programs::table().iter().filter(|t| t.package == name) {
        let _ = m.files.remove(&root, prog.path, false);
    }
    for b in find(name).map(|x| x.brings).unwrap_or_default() {
        for dir in ["/usr/bin", "/usr/sbin"] {
            let _ = m.files.remove(&root, &format!("{dir}/{b}"), false);
        }
    }
    lab.with(|w| {
        units::package_removed(lab, w, m, name);
        if let Some(g) = w.guests.get_mut(&m.vmid)
            && g.facts.packages.remove(name).is_none()
        {
            g.facts.removed.insert(name.to_owned());
        }
    });
    true
}
