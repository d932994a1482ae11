//! What a machine is inside, in one round trip: the same program asks the real machine and its likeness.
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::ssh::{self, Host, Unused, words};

/// Folders and files that recipes and K3s keep their settings in.
const ROOTS: [&str; 33] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/fstab",
    "/etc/timezone",
    "/etc/exports",
    "/etc/exports.d",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/modules-load.d",
    "/etc/modprobe.d",
    "/etc/systemd/system",
    "/etc/systemd/timesyncd.conf.d",
    "/etc/chrony",
    "/etc/rancher",
    "/etc/apt/sources.list.d",
    "/etc/apt/keyrings",
    "/etc/apt/apt.conf.d",
    "/etc/security/limits.d",
    "/etc/sudoers.d",
    "/etc/ssh/sshd_config.d",
    "/etc/logrotate.d",
    "/etc/nftables.conf",
    "/etc/nftables.d",
    "/etc/cron.d",
    "/etc/default",
    "/etc/nfs.conf.d",
    "/etc/idmapd.conf",
    "/etc/udev/rules.d",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/root/.ssh/authorized_keys",
    "/var/lib/rancher/k3s/server/manifests",
];

/// Parts of paths whose content stays where it is: keys, passwords, and what K3s writes by itself.
const KEPT_OUT: [&str; 7] =
    ["k3s.yaml", "/node/password", "ssh_host_", ".key", "id_rsa", "id_ed25519", "/usr/local/bin/k3s"];

/// One file: mode with owner, and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// `644 root:root`.
    pub rights: String,
    /// SHA-256.
    pub sum: String,
}

/// One look into a machine.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    /// Installed packages with versions.
    pub packages: BTreeMap<String, String>,
    /// Held packages.
    pub held: BTreeSet<String>,
    /// Loaded kernel modules.
    pub modules: BTreeSet<String>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Active swap: device or file, and size in KiB.
    pub swaps: Vec<(String, u64)>,
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// File system and label by disk serial or name.
    pub disks: BTreeMap<String, (String, String)>,
    /// Disks that are not in use to their ends.
    pub unused: Vec<Unused>,
    /// What the NFS server exports.
    pub exports: String,
    /// Target of `/etc/localtime`.
    pub zone: String,
    /// Host name.
    pub hostname: String,
    /// Units: active, enabled.
    pub units: BTreeMap<String, (String, String)>,
    /// Settings files.
    pub files: BTreeMap<String, FileSeen>,
    /// Version of K3s; empty when there is none.
    pub k3s: String,
}

fn program(units: &BTreeSet<String>) -> String {
    format!(
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL\n\
         s() {{ echo; echo \"@@$1\"; shift; \"$@\" 2>/dev/null; }}\n\
         s packages dpkg-query -W '-f=${{db:Status-Status}} ${{Package}} ${{Version}}\\n'\n\
         s held apt-mark showhold\ns modules cat /proc/modules\ns sysctl sysctl -a\ns swaps cat /proc/swaps\n\
         s mounts cat /proc/mounts\ns disks lsblk -b -n -P -o NAME,TYPE,SIZE,SERIAL,FSTYPE,LABEL,MOUNTPOINT\n\
         s exports exportfs -s\ns zone readlink /etc/localtime\ns hostname cat /proc/sys/kernel/hostname\n\
         echo; echo @@units\nfor u in {}; do \
         echo \"$u $(systemctl is-active \"$u\" 2>/dev/null) $(systemctl is-enabled \"$u\" 2>/dev/null)\"; done\n\
         echo; echo @@files\nfor r in {}; do [ -e \"$r\" ] && find \"$r\" -type f 2>/dev/null; done | \
         while read -r f; do case \"$f\" in /usr/local/bin/k3s*) continue;; esac; \
         echo \"$(stat -c '%a %U:%G' \"$f\") $(sha256sum < \"$f\" | cut -c1-64) $f\"; done\n\
         echo; echo @@sizes\n{}\
         echo; echo @@k3s; [ -x /usr/local/bin/k3s ] && /usr/local/bin/k3s --version | head -n 1\n\
         echo; echo @@end\n",
        words(units),
        words(ROOTS),
        ssh::survey(),
    )
}

/// Looks into a machine.
///
/// # Errors
/// `unreachable`, `denied`; `failed` when the shell broke off.
pub async fn look(ctx: &Ctx, host: &Host, units: &BTreeSet<String>) -> OpResult<Probe> {
    let out = host.exec_raw(ctx, &program(units), b"").await?;
    if !out.stdout.ends_with("\n@@end\n") {
        let mut e = OpError::failed("the program that looks into the machine did not finish").on(host.name());
        e.causes = out.last_words();
        return Err(e);
    }
    Ok(parse(&out.stdout))
}

/// Contents of files as text; what is no text is left out.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn contents(ctx: &Ctx, host: &Host, paths: &[String]) -> OpResult<BTreeMap<String, String>> {
    use base64::Engine as _;
    if paths.is_empty() {
        return Ok(BTreeMap::new());
    }
    let script = format!("for f in {}; do echo \"@@$f\"; base64 -w0 < \"$f\"; echo; done\n", words(paths));
    let out = host.exec_raw(ctx, &script, b"").await?;
    let mut found = BTreeMap::new();
    let mut path = "";
    for line in out.stdout.lines() {
        if let Some(p) = line.strip_prefix("@@") {
            path = p;
        } else if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(line.trim())
            && let Ok(text) = String::from_utf8(bytes)
            && !path.is_empty()
        {
            found.entry(path.to_owned()).or_insert(text);
        }
    }
    Ok(found)
}

fn setting(line: &str, key: &str) -> String {
    let start = format!("{key}=\"");
    line.split_once(&start).and_then(|(_, r)| r.split('"').next()).unwrap_or_default().to_owned()
}

fn parse(text: &str) -> Probe {
    let mut p = Probe::default();
    let (mut section, mut sizes) = ("", String::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("@@") {
            section = name;
            continue;
        }
        let mut w = line.split_whitespace();
        match section {
            "packages" if w.next() == Some("installed") => {
                p.packages.insert(w.next().unwrap_or_default().to_owned(), w.next().unwrap_or_default().to_owned());
            }
            "held" => p.held.extend(w.next().map(str::to_owned)),
            "modules" => p.modules.extend(w.next().map(str::to_owned)),
            "sysctl" => {
                if let Some((k, v)) = line.split_once('=') {
                    p.sysctl.insert(k.trim().to_owned(), v.trim().to_owned());
                }
            }
            "swaps" if line.starts_with('/') => {
                let cells: Vec<&str> = line.split_whitespace().collect();
                let kib = cells.get(2).and_then(|n| n.parse().ok()).unwrap_or(0);
                p.swaps.push((cells[0].to_owned(), kib));
            }
            "mounts" => p.mounts.extend(w.nth(1).map(str::to_owned)),
            "disks" if setting(line, "TYPE") == "disk" => {
                let serial = setting(line, "SERIAL");
                let name = if serial.is_empty() { setting(line, "NAME") } else { serial };
                p.disks.insert(name, (setting(line, "FSTYPE"), setting(line, "LABEL")));
            }
            "exports" => p.exports += &format!("{}\n", line.trim()),
            "zone" if !line.is_empty() => line.trim().clone_into(&mut p.zone),
            "hostname" if !line.is_empty() => line.trim().clone_into(&mut p.hostname),
            "k3s" if !line.is_empty() => line.trim().clone_into(&mut p.k3s),
            "units" => {
                if let Some(name) = w.next() {
                    let (active, enabled) = (w.next().unwrap_or_default(), w.next().unwrap_or_default());
                    p.units.insert(name.to_owned(), (active.to_owned(), enabled.to_owned()));
                }
            }
            "files" => file(line, &mut p),
            "sizes" => sizes += &format!("{line}\n"),
            _ => {}
        }
    }
    p.unused = ssh::unused(&sizes);
    p
}

/// `644 root:root HASH /path`.
fn file(line: &str, p: &mut Probe) {
    let mut parts = line.splitn(4, ' ');
    let (Some(mode), Some(owner), Some(sum), Some(path)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    if !KEPT_OUT.iter().any(|k| path.contains(k)) {
        p.files.insert(path.to_owned(), FileSeen { rights: format!("{mode} {owner}"), sum: sum.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_section_by_section() {
        let p = parse(
            "\n@@packages\ninstalled curl 7.88\ndeinstall nano 1\n\n@@swaps\nFilename Type Size\n/swapfile file 1024 0 -2\n\
             \n@@disks\nNAME=\"sdb\" TYPE=\"disk\" SIZE=\"1\" SERIAL=\"data\" FSTYPE=\"ext4\" LABEL=\"nfs\" MOUNTPOINT=\"\"\n\
             \n@@units\nchrony active enabled\nk3s inactive \n\n@@files\n644 root:root abc /etc/hosts\n\
             600 root:root def /etc/rancher/k3s/k3s.yaml\n\n@@sizes\ndisk data\nfs ext4 2147483648 262144 4096\n\n@@end\n",
        );
        assert_eq!(p.packages.keys().collect::<Vec<_>>(), ["curl"]);
        assert_eq!(p.swaps, [("/swapfile".to_owned(), 1024)]);
        assert_eq!(p.disks["data"], ("ext4".to_owned(), "nfs".to_owned()));
        assert_eq!(p.unused, [Unused { disk: "data".to_owned(), behind: 0, within: 1 << 30 }]);
        assert_eq!(p.units["k3s"], ("inactive".to_owned(), String::new()));
        assert_eq!(p.files.keys().collect::<Vec<_>>(), ["/etc/hosts"], "keys are not even listed");
    }
}
