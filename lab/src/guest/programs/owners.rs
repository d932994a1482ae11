//! Which package a file is from: `dpkg -S` and `dpkg -L`.
use std::collections::BTreeSet;

use super::{Call, table};
use crate::guest::apt as pkg;
use crate::guest::fs::tree::parent;
use crate::guest::units;

/// Programs of the image, by their package.
const IMAGE: &[(&str, &str)] = &[
    ("adduser", "adduser deluser addgroup"),
    ("apt", "apt apt-get apt-cache apt-mark apt-config"),
    ("bash", "bash"),
    ("bsdextrautils", "column hexdump"),
    ("bsdutils", "logger renice wall"),
    ("bzip2", "bunzip2 bzcat bzip2"),
    ("ca-certificates", "update-ca-certificates"),
    ("cloud-guest-utils", "growpart"),
    ("cloud-init", "cloud-init"),
    (
        "coreutils",
        "[ arch b2sum base32 base64 basename basenc cat chgrp chmod chown cksum comm cp cut date dd df dir dirname du echo \
         env expand expr factor false fmt fold groups head hostid id install join link ln logname ls md5sum mkdir mkfifo \
         mktemp mv nice nl nohup nproc numfmt od paste pr printenv printf pwd readlink realpath rm rmdir seq sha1sum \
         sha224sum sha256sum sha384sum sha512sum shuf sleep sort split stat stdbuf sum sync tac tail tee test timeout touch \
         tr true truncate tsort tty uname unexpand uniq unlink users wc who whoami yes",
    ),
    ("cron", "crontab"),
    ("curl", "curl"),
    ("dash", "sh"),
    ("debconf", "debconf-set-selections dpkg-reconfigure"),
    ("diffutils", "cmp diff"),
    ("dpkg", "dpkg dpkg-query update-alternatives"),
    ("e2fsprogs", "chattr e2fsck e2label lsattr mke2fs mkfs.ext4 resize2fs tune2fs"),
    ("fdisk", "fdisk sfdisk"),
    ("file", "file"),
    ("findutils", "find xargs"),
    ("grep", "egrep fgrep grep"),
    ("grub2-common", "update-grub"),
    ("gzip", "gunzip gzip"),
    ("hostname", "hostname"),
    ("initramfs-tools", "update-initramfs"),
    ("iproute2", "ip ss"),
    ("iputils-ping", "ping"),
    ("kmod", "depmod lsmod modinfo modprobe rmmod"),
    ("less", "less"),
    ("libc-bin", "getconf getent iconv locale"),
    ("locales", "locale-gen update-locale"),
    ("mawk", "awk mawk nawk"),
    ("mount", "mount swapoff swapon umount"),
    ("netplan.io", "netplan"),
    ("openssh-client", "scp ssh ssh-keygen ssh-keyscan"),
    ("openssh-server", "sshd"),
    ("openssl", "openssl"),
    ("parted", "parted partprobe"),
    ("passwd", "chsh gpasswd groupadd groupdel passwd useradd userdel usermod"),
    ("pciutils", "lspci"),
    ("perl-base", "perl"),
    ("procps", "free pgrep pkill ps sysctl top uptime vmstat w watch"),
    ("python3", "python3"),
    ("sed", "sed"),
    ("sudo", "sudo"),
    (
        "systemd",
        "hostnamectl journalctl localectl loginctl networkctl systemctl systemd-analyze systemd-detect-virt systemd-run \
         timedatectl",
    ),
    ("systemd-resolved", "resolvectl"),
    ("systemd-sysv", "halt poweroff reboot shutdown"),
    ("sysvinit-utils", "pidof"),
    ("tar", "tar"),
    ("udev", "udevadm"),
    (
        "util-linux",
        "blkid blockdev dmesg fallocate findmnt flock fsck fstrim ionice last lsblk lscpu mkfs mkswap more mountpoint rev \
         runuser setsid su wipefs",
    ),
    ("uuid-runtime", "uuidgen"),
    ("vim-tiny", "vi"),
    ("wget", "wget"),
];

/// Files of a package that are there.
fn files(c: &Call, package: &str) -> BTreeSet<String> {
    let mut names: Vec<&str> =
        IMAGE.iter().filter(|(p, _)| *p == package).flat_map(|(_, list)| list.split_whitespace()).collect();
    names.extend(pkg::find(package).map(|p| p.brings).unwrap_or_default());
    let of_table = table().into_iter().filter(|p| p.package == package).map(|p| p.path.to_owned());
    let places = names.iter().flat_map(|n| ["/usr/bin", "/usr/sbin"].map(|d| format!("{d}/{n}")));
    let units = units::files_of(package).into_iter();
    of_table.chain(places).chain(units).filter(|p| c.m.files.exists(p)).collect()
}

fn installed(c: &Call) -> Vec<String> {
    c.guest(|g| pkg::all_installed(g)).unwrap_or_default().into_iter().map(|(n, _)| n).collect()
}

/// `dpkg -L`: the files of packages with the folders that lead to them.
pub(super) fn list(c: &mut Call, packages: &[String]) -> i32 {
    let (all, mut code) = (installed(c), 0);
    for (i, p) in packages.iter().enumerate() {
        if !all.contains(p) {
            let text = format!(
                "dpkg-query: package '{p}' is not installed\nUse dpkg --contents (= dpkg-deb --contents) to list archive files contents."
            );
            code = c.fail(1, &text);
            continue;
        }
        if i > 0 {
            c.line("");
        }
        let mut shown = BTreeSet::from(["/.".to_owned()]);
        for f in files(c, p) {
            let mut at = parent(&f).to_owned();
            while at != "/" {
                shown.insert(at.clone());
                at = parent(&at).to_owned();
            }
            shown.insert(f);
        }
        for f in shown {
            c.line(&f);
        }
    }
    code
}

/// `dpkg -S`: the packages of a path, or of every path that holds a word.
pub(super) fn search(c: &mut Call, patterns: &[String]) -> i32 {
    let all = installed(c);
    let mut code = 0;
    for pattern in patterns {
        // Debian's folders are those below /usr; what a package ships is named there or where it was before.
        let real = c.m.files.resolve(pattern, false).unwrap_or_else(|_| pattern.clone());
        let hit = |f: &String| if pattern.starts_with('/') { *f == real } else { f.contains(pattern.as_str()) };
        let mut found: Vec<String> = Vec::new();
        for p in &all {
            found.extend(files(c, p).into_iter().filter(hit).map(|f| format!("{p}: {f}")));
        }
        if found.is_empty() {
            let text = format!("dpkg-query: no path found matching pattern {pattern}");
            code = c.fail(1, &text);
        }
        for l in found {
            c.line(&l);
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fs::image::{PACKAGES, SHELL_PROGRAMS};
    use crate::guest::fs::tree::base;

    fn of_program(path: &str) -> Option<&'static str> {
        let name = base(path);
        IMAGE.iter().find(|(_, list)| list.split_whitespace().any(|n| n == name)).map(|(p, _)| *p)
    }

    #[test]
    fn every_program_of_the_image_is_from_a_package_of_the_image() {
        let own = table().into_iter().filter(|p| p.package.is_empty()).map(|p| p.path.to_owned());
        for path in own.chain(SHELL_PROGRAMS.iter().map(|n| format!("/usr/bin/{n}"))) {
            // Debian's netbase, clients of NFS and this lab's own stand-ins have none.
            let Some(package) = of_program(&path) else { continue };
            assert!(PACKAGES.iter().any(|(p, _)| *p == package), "{path}: {package} is not in the image");
        }
        for (package, list) in IMAGE {
            assert!(PACKAGES.iter().any(|(p, _)| p == package), "{package}");
            assert!(!list.is_empty());
        }
    }
}
