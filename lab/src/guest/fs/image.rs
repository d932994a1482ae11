//! What a Debian cloud image carries: its directories, files, users, programs and packages.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::tree::{Node, Nodes, parent};
use crate::guest::programs;

/// Programs that the shell library brings and Debian has.
pub const SHELL_PROGRAMS: &[&str] = &[
    "arch",
    "awk",
    "b2sum",
    "base32",
    "base64",
    "basename",
    "basenc",
    "bunzip2",
    "bzcat",
    "bzip2",
    "cat",
    "chmod",
    "cksum",
    "cmp",
    "column",
    "comm",
    "cp",
    "cut",
    "dd",
    "diff",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "envsubst",
    "expand",
    "expr",
    "factor",
    "false",
    "fgrep",
    "file",
    "find",
    "flock",
    "fmt",
    "fold",
    "getconf",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostid",
    "iconv",
    "join",
    "less",
    "link",
    "ln",
    "locale",
    "mawk",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "nawk",
    "nice",
    "nl",
    "nohup",
    "numfmt",
    "od",
    "paste",
    "pkill",
    "pr",
    "printenv",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "rev",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shuf",
    "sort",
    "split",
    "strings",
    "sum",
    "tac",
    "tail",
    "tar",
    "test",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "unexpand",
    "uniq",
    "unlink",
    "uuidgen",
    "watch",
    "wc",
    "which",
    "xargs",
    "xxd",
    "yes",
    "bash",
    "sh",
    "[",
];

/// Shell built-ins that stay.
pub const SHELL_BUILTINS: &[&str] = &[
    ".",
    ":",
    "[",
    "alias",
    "bg",
    "bind",
    "break",
    "caller",
    "cd",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "dirs",
    "disown",
    "enable",
    "eval",
    "exit",
    "export",
    "fc",
    "fg",
    "hash",
    "help",
    "history",
    "jobs",
    "kill",
    "local",
    "mapfile",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "return",
    "set",
    "shift",
    "shopt",
    "source",
    "times",
    "trap",
    "type",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "wait",
];

/// Packages of the image and their versions.
pub const PACKAGES: &[(&str, &str)] = &[
    ("adduser", "3.134"),
    ("apt", "2.6.1"),
    ("base-files", "12.4+deb12u12"),
    ("bash", "5.2.15-2+b9"),
    ("bash-completion", "1:2.11-6"),
    ("bsdextrautils", "2.38.1-5+deb12u3"),
    ("bsdutils", "1:2.38.1-5+deb12u3"),
    ("bzip2", "1.0.8-5+b1"),
    ("ca-certificates", "20230311+deb12u1"),
    ("cloud-guest-utils", "0.33-1"),
    ("cloud-init", "22.4.2-1+deb12u3"),
    ("cloud-utils", "0.33-1"),
    ("coreutils", "9.1-1"),
    ("cron", "3.0pl1-162"),
    ("curl", "7.88.1-10+deb12u14"),
    ("dash", "0.5.12-2"),
    ("dbus", "1.14.10-1~deb12u1"),
    ("debconf", "1.5.82"),
    ("diffutils", "1:3.8-4"),
    ("dpkg", "1.21.22"),
    ("e2fsprogs", "1.47.0-2+b2"),
    ("fdisk", "2.38.1-5+deb12u3"),
    ("file", "1:5.44-3"),
    ("findutils", "4.9.0-4"),
    ("gpgv", "2.2.40-1.1+deb12u1"),
    ("grep", "3.8-5"),
    ("grub-efi-amd64", "2.06-13+deb12u1"),
    ("grub2-common", "2.06-13+deb12u1"),
    ("gzip", "1.12-1"),
    ("hostname", "3.23+nmu1"),
    ("ifupdown", "0.8.41"),
    ("init", "1.65.2"),
    ("initramfs-tools", "0.142+deb12u3"),
    ("iproute2", "6.1.0-3"),
    ("iputils-ping", "3:20221126-1+deb12u1"),
    ("isc-dhcp-client", "4.4.3-P1-2"),
    ("kmod", "30+20221128-1"),
    ("less", "590-2.1~deb12u2"),
    ("libc-bin", "2.36-9+deb12u13"),
    ("libc6", "2.36-9+deb12u13"),
    ("linux-image-cloud-amd64", "6.1.148-1"),
    ("locales", "2.36-9+deb12u13"),
    ("login", "1:4.13+dfsg1-1+deb12u1"),
    ("mawk", "1.3.4.20200120-3.1"),
    ("mount", "2.38.1-5+deb12u3"),
    ("netplan.io", "0.106-2+deb12u1"),
    ("openssh-client", "1:9.2p1-2+deb12u7"),
    ("openssh-server", "1:9.2p1-2+deb12u7"),
    ("openssl", "3.0.17-1~deb12u2"),
    ("parted", "3.5-3"),
    ("passwd", "1:4.13+dfsg1-1+deb12u1"),
    ("pciutils", "1:3.9.0-4"),
    ("perl-base", "5.36.0-7+deb12u3"),
    ("procps", "2:4.0.2-3"),
    ("python3", "3.11.2-1+b1"),
    ("screen", "4.9.0-4"),
    ("sed", "4.9-1"),
    ("sudo", "1.9.13p3-1+deb12u2"),
    ("systemd", "252.39-1~deb12u1"),
    ("systemd-resolved", "252.39-1~deb12u1"),
    ("systemd-sysv", "252.39-1~deb12u1"),
    ("systemd-timesyncd", "252.39-1~deb12u1"),
    ("sysvinit-utils", "3.06-4"),
    ("tar", "1.34+dfsg-1.2+deb12u1"),
    ("udev", "252.39-1~deb12u1"),
    ("unattended-upgrades", "2.9.1+nmu3"),
    ("util-linux", "2.38.1-5+deb12u3"),
    ("uuid-runtime", "2.38.1-5+deb12u3"),
    ("vim-tiny", "2:9.0.1378-2+deb12u2"),
    ("wget", "1.21.3-1+deb12u1"),
    ("xz-utils", "5.4.1-1"),
];

/// When the image was built: 2025-09-06.
const BUILT: u64 = 1_757_116_800;

const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n\
VERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n\
SUPPORT_URL=\"https://www.debian.org/support\"\nBUG_REPORT_URL=\"https://bugs.debian.org/\"\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
bin:x:2:2:bin:/bin:/usr/sbin/nologin\nsys:x:3:3:sys:/dev:/usr/sbin/nologin\nsync:x:4:65534:sync:/bin:/bin/sync\n\
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\nsystemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin\n\
systemd-timesync:x:997:997:systemd Time Synchronization:/:/usr/sbin/nologin\nmessagebus:x:100:107::/nonexistent:/usr/sbin/nologin\n\
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n";

const GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nmail:x:8:\n\
kmem:x:15:\ndialout:x:20:\nfax:x:21:\ncdrom:x:24:\nfloppy:x:25:\ntape:x:26:\nsudo:x:27:\naudio:x:29:\ndip:x:30:\n\
www-data:x:33:\nbackup:x:34:\nshadow:x:42:\nutmp:x:43:\nvideo:x:44:\nplugdev:x:46:\nstaff:x:50:\nusers:x:100:\n\
netdev:x:106:\nmessagebus:x:107:\nsystemd-network:x:998:\nsystemd-timesync:x:997:\nnogroup:x:65534:\n";

const SSHD_CONFIG: &str = "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin without-password\nPasswordAuthentication no\n\
KbdInteractiveAuthentication no\nUsePAM yes\nX11Forwarding yes\nPrintMotd no\nAcceptEnv LANG LC_*\nSubsystem\tsftp\t/usr/lib/openssh/sftp-server\n";

/// The nodes of an image; `None` for an operating system the lab does not have.
#[must_use]
pub fn nodes(os: &str) -> Option<Arc<Nodes>> {
    static CACHE: Mutex<BTreeMap<String, Arc<Nodes>>> = Mutex::new(BTreeMap::new());
    if !os.starts_with("debian") {
        return None;
    }
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    Some(cache.entry(os.to_owned()).or_insert_with(|| Arc::new(debian())).clone())
}

/// What a program's file holds: the kernel finds the lab's implementation through its first line.
#[must_use]
pub fn program_file(name: &str) -> Node {
    Node::file(format!("#!/usr/lib/lab/program {name}\n"), 0o755)
}

fn debian() -> Nodes {
    let mut n = Nodes::new();
    n.insert("/".into(), Node::dir(0o755));
    for (path, mode) in DIRS {
        dirs(&mut n, path);
        n.insert((*path).to_owned(), Node::dir(*mode));
    }
    for (path, to) in LINKS {
        n.insert((*path).to_owned(), Node::link(to));
    }
    for (path, text, mode) in files() {
        dirs(&mut n, parent(path));
        n.insert(path.to_owned(), Node::file(text, mode));
    }
    if let Some(shadow) = n.get_mut("/etc/shadow") {
        shadow.gid = 42;
    }
    for name in SHELL_PROGRAMS {
        let stub = format!("#!/bin/sh\n# bashkit builtin: {name}\nexec {name} \"$@\"\n");
        n.insert(format!("/usr/bin/{name}"), Node::file(stub, 0o755));
    }
    // At no terminal both print all there is.
    n.insert("/usr/bin/more".to_owned(), Node::file("#!/bin/sh\nexec less \"$@\"\n".to_owned(), 0o755));
    for p in programs::table().iter().filter(|p| p.package.is_empty()) {
        dirs(&mut n, parent(p.path));
        n.insert(p.path.to_owned(), program_file(p.name()));
    }
    for node in n.values_mut() {
        node.mtime = BUILT;
    }
    n
}

fn dirs(n: &mut Nodes, path: &str) {
    let mut at = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        at = format!("{at}/{part}");
        n.entry(at.clone()).or_insert_with(|| Node::dir(0o755));
    }
}

const DIRS: &[(&str, u32)] = &[
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/dev", 0o755),
    ("/boot/efi", 0o700),
    ("/etc/apt/sources.list.d", 0o755),
    ("/etc/apt/keyrings", 0o755),
    ("/etc/cron.d", 0o755),
    ("/etc/modules-load.d", 0o755),
    ("/etc/modprobe.d", 0o755),
    ("/etc/security/limits.d", 0o755),
    ("/etc/sudoers.d", 0o750),
    ("/etc/sysctl.d", 0o755),
    ("/etc/systemd/system/multi-user.target.wants", 0o755),
    ("/etc/systemd/system/timers.target.wants", 0o755),
    ("/etc/ssh/sshd_config.d", 0o755),
    ("/etc/ssl/certs", 0o755),
    ("/etc/profile.d", 0o755),
    ("/home", 0o755),
    ("/lost+found", 0o700),
    ("/media", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/root", 0o700),
    ("/run/lock", 0o1777),
    ("/run/systemd/system", 0o755),
    ("/srv", 0o755),
    ("/tmp", 0o1777),
    ("/usr/bin", 0o755),
    ("/usr/lib/systemd/system", 0o755),
    ("/usr/local/bin", 0o755),
    ("/usr/local/sbin", 0o755),
    ("/usr/sbin", 0o755),
    ("/usr/share/keyrings", 0o755),
    ("/usr/share/zoneinfo/Etc", 0o755),
    ("/usr/share/zoneinfo/Europe", 0o755),
    ("/var/cache/apt/archives", 0o755),
    ("/var/lib/apt/lists", 0o755),
    ("/var/lib/cloud", 0o755),
    ("/var/lib/dpkg", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    ("/var/spool/cron/crontabs", 0o730),
];

const LINKS: &[(&str, &str)] = &[
    ("/bin", "usr/bin"),
    ("/sbin", "usr/sbin"),
    ("/lib", "usr/lib"),
    ("/etc/mtab", "../proc/self/mounts"),
    ("/etc/os-release", "../usr/lib/os-release"),
    ("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
    ("/etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service"),
    ("/etc/systemd/system/multi-user.target.wants/cron.service", "/lib/systemd/system/cron.service"),
    (
        "/etc/systemd/system/multi-user.target.wants/unattended-upgrades.service",
        "/lib/systemd/system/unattended-upgrades.service",
    ),
    (
        "/etc/systemd/system/multi-user.target.wants/systemd-timesyncd.service",
        "/lib/systemd/system/systemd-timesyncd.service",
    ),
    (
        "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/lib/systemd/system/systemd-networkd.service",
    ),
    (
        "/etc/systemd/system/multi-user.target.wants/systemd-resolved.service",
        "/lib/systemd/system/systemd-resolved.service",
    ),
];

fn files() -> Vec<(&'static str, String, u32)> {
    let mut all: Vec<(&str, String, u32)> = vec![
        ("/usr/lib/os-release", OS_RELEASE.into(), 0o644),
        ("/etc/debian_version", "12.12\n".into(), 0o644),
        ("/etc/passwd", PASSWD.into(), 0o644),
        ("/etc/group", GROUP.into(), 0o644),
        ("/etc/shadow", "root:*:20300:0:99999:7:::\n".into(), 0o640),
        ("/etc/hostname", "localhost\n".into(), 0o644),
        ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n".into(), 0o644),
        ("/etc/fstab", "# /etc/fstab: static file system information\nPARTUUID=5a1c3d20 / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\nPARTUUID=5a1c3d21 /boot/efi vfat defaults 0 0\n".into(), 0o644),
        ("/etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n".into(), 0o644),
        ("/etc/timezone", "Etc/UTC\n".into(), 0o644),
        ("/etc/machine-id", String::new(), 0o444),
        ("/etc/shells", "/bin/sh\n/bin/bash\n/usr/bin/bash\n".into(), 0o644),
        ("/etc/sudoers", "Defaults\tenv_reset\nDefaults\tsecure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nroot\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n".into(), 0o440),
        ("/etc/ssh/sshd_config", SSHD_CONFIG.into(), 0o644),
        ("/etc/apt/sources.list.d/debian.sources", "Types: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm bookworm-updates bookworm-backports\nComponents: main\n".into(), 0o644),
        ("/etc/modules", "# /etc/modules: kernel modules to load at boot time.\n".into(), 0o644),
        ("/etc/sysctl.conf", "#\n# /etc/sysctl.conf - Configuration file for setting system variables\n#\n".into(), 0o644),
        ("/etc/environment", String::new(), 0o644),
        ("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\nhosts: files resolve [!UNAVAIL=return] dns\n".into(), 0o644),
        ("/etc/locale.gen", "# en_US.UTF-8 UTF-8\n".into(), 0o644),
        ("/etc/default/locale", "LANG=C.UTF-8\n".into(), 0o644),
        ("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"\"\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"\n".into(), 0o644),
        ("/etc/security/limits.conf", "# /etc/security/limits.conf\n".into(), 0o644),
        ("/etc/skel/.bashrc", "# ~/.bashrc\n".into(), 0o644),
        ("/etc/skel/.profile", "# ~/.profile\n".into(), 0o644),
        ("/root/.bashrc", "# ~/.bashrc\n".into(), 0o644),
        ("/etc/systemd/timesyncd.conf", "[Time]\n#NTP=\n".into(), 0o644),
        ("/etc/cloud/cloud.cfg", "users:\n  - default\ndisable_root: true\npreserve_hostname: false\nssh_deletekeys: true\n".into(), 0o644),
        ("/boot/vmlinuz-6.1.0-39-cloud-amd64", "kernel\n".into(), 0o644),
        ("/usr/share/zoneinfo/Etc/UTC", "TZif2\n".into(), 0o644),
        ("/usr/share/zoneinfo/UTC", "TZif2\n".into(), 0o644),
        ("/usr/share/zoneinfo/Europe/Berlin", "TZif2\n".into(), 0o644),
        ("/usr/share/zoneinfo/Europe/London", "TZif2\n".into(), 0o644),
        ("/var/log/dpkg.log", String::new(), 0o644),
        ("/var/log/cloud-init.log", String::new(), 0o640),
        ("/var/log/cloud-init-output.log", String::new(), 0o640),
        ("/usr/lib/openssh/sftp-server", "\u{7f}ELF\n".into(), 0o755),
    ];
    for (unit, text) in crate::guest::units::IMAGE_UNITS {
        all.push((unit, (*text).to_owned(), 0o644));
    }
    all
}
