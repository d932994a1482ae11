//! The keys of `host.ensure` and of the maps inside it.
use std::collections::BTreeMap;

use rhai::{Dynamic, Map};

use crate::core::units::{Duration, Size};
use crate::options;

options! {
    /// The wanted state of a host.
    pub struct EnsureOptions {
        /// Packages that are installed: `["nfs-common", "chrony=4.3-2"]`.
        packages: Vec<String> = Vec::new(),
        /// Package lists (`apt-get update`) are not older than this, for example `1.hours`.
        package_lists: Option<Duration> = None,
        /// Package sources by name: a `deb …` line, or `#{ line, key }` (dnf: `#{ baseurl, key }`) with its signing key.
        repositories: Map = Map::new(),
        /// Files by path: the text, or `#{ content, mode, owner }`; `()` for no file.
        files: Map = Map::new(),
        /// Lines of files, by path: texts, `#{ line, replaces }` (beginning of the old line) or `#{ remove }` (beginning).
        lines: Map = Map::new(),
        /// Directories: a list of paths, or a map of path to `#{ mode, owner }`.
        directories: Option<Dynamic> = None,
        /// Symbolic links: path to target; `()` for no link.
        links: Map = Map::new(),
        /// Users by name: `#{ uid, groups, shell, home, system, sudo, authorized_keys }`.
        users: Map = Map::new(),
        /// Groups: a list of names, or a map of name to number.
        groups: Option<Dynamic> = None,
        /// Public keys that may log in, by user: a list of lines.
        authorized_keys: Map = Map::new(),
        /// Kernel settings, now and at boot (`/etc/sysctl.d/90-gpuhost.conf`).
        sysctl: BTreeMap<String, String> = BTreeMap::new(),
        /// Kernel modules that are loaded, now and at boot.
        modules: Vec<String> = Vec::new(),
        /// `"off"`, the size of `/swapfile`, or `#{ path, size }`; now and at boot.
        swap: Option<Dynamic> = None,
        /// Services by name: `"running"`, `"stopped"`, or `#{ state, enabled, restart_on }`.
        services: Map = Map::new(),
        /// systemd units by file name: their text.
        units: BTreeMap<String, String> = BTreeMap::new(),
        /// Programs that systemd runs by the clock, by name: `#{ on_calendar, command, user }`.
        timers: Map = Map::new(),
        /// Mounts by path: `#{ device, label, fs, options }`, also in fstab.
        mounts: Map = Map::new(),
        /// File systems by device (`/dev/disk/by-id/…`): `#{ fs, label }`; made on blank devices only, and grown to their device's end.
        filesystems: Map = Map::new(),
        /// Whether the root partition and its file system reach to the end of their disk.
        grow_root: bool = false,
        /// The host's name.
        hostname: Option<String> = None,
        /// Names and addresses in /etc/hosts: address to name or names, or name to address.
        hosts_entries: Map = Map::new(),
        /// Time zone, for example `"Europe/Berlin"`.
        timezone: Option<String> = None,
        /// Time servers, for chrony or systemd-timesyncd.
        ntp: Vec<String> = Vec::new(),
        /// Limits of login sessions: domain (`"*"`) to `#{ nofile: 1048576 }`.
        limits: Map = Map::new(),
        /// What may come in: `#{ allow, allow_from, interfaces }`, or `"off"`. The port of SSH always may.
        firewall: Option<Dynamic> = None,
        /// Commands that run while something is missing, by name: `#{ command, creates }` or `#{ command, unless }`.
        commands: Map = Map::new(),
    }
}

options! {
    /// A file.
    pub struct FileSpec {
        /// Text, secret or blob.
        content: Dynamic,
        /// Mode in octal.
        mode: Option<String> = None,
        /// `user` or `user:group`.
        owner: Option<String> = None,
    }
}

options! {
    /// A directory.
    pub struct DirectorySpec {
        /// Mode in octal.
        mode: Option<String> = None,
        /// `user` or `user:group`.
        owner: Option<String> = None,
    }
}

options! {
    /// A line.
    pub struct LineSpec {
        /// The line.
        line: Option<String> = None,
        /// Beginning of the line it takes the place of.
        replaces: Option<String> = None,
        /// Beginning of lines that go, instead of a line.
        remove: Option<String> = None,
    }
}

options! {
    /// A package source.
    pub struct RepositorySpec {
        /// The `deb …` line, for apt.
        line: Option<String> = None,
        /// Where the packages lie, for dnf.
        baseurl: Option<String> = None,
        /// The signing key (text or blob), which signs this source only.
        key: Option<Dynamic> = None,
    }
}

options! {
    /// A user.
    pub struct UserSpec {
        /// Number.
        uid: Option<i64> = None,
        /// Groups the user is in; others are kept.
        groups: Vec<String> = Vec::new(),
        /// Login shell.
        shell: Option<String> = None,
        /// Home directory, when the user is made.
        home: Option<String> = None,
        /// A system user without home directory.
        system: bool = false,
        /// May become root without a password.
        sudo: bool = false,
        /// Public keys that may log in.
        authorized_keys: Vec<String> = Vec::new(),
    }
}

options! {
    /// A service.
    pub struct ServiceSpec {
        /// `"running"` or `"stopped"`.
        state: String = "running".to_owned(),
        /// Whether it starts at boot; default: as it runs now.
        enabled: Option<bool> = None,
        /// Paths of files whose change restarts it.
        restart_on: Vec<String> = Vec::new(),
    }
}

options! {
    /// A timer.
    pub struct TimerSpec {
        /// When, as systemd writes it: `daily`, `Mon *-*-* 03:00`, `*:0/15`.
        on_calendar: String,
        /// The shell program.
        command: String,
        /// Who runs it.
        user: String = "root".to_owned(),
        /// Catch up after the host was off.
        persistent: bool = true,
    }
}

options! {
    /// A mount.
    pub struct MountSpec {
        /// Device or network path.
        device: Option<String> = None,
        /// Label of the file system, instead of a device.
        label: Option<String> = None,
        /// Kind of file system.
        fs: String = "ext4".to_owned(),
        /// Mount options.
        options: String = "defaults,nofail,x-systemd.device-timeout=30".to_owned(),
    }
}

options! {
    /// A file system.
    pub struct FilesystemSpec {
        /// `ext4` or `xfs`.
        fs: String = "ext4".to_owned(),
        /// Label.
        label: Option<String> = None,
    }
}

options! {
    /// A swap file.
    pub struct SwapSpec {
        /// Its path.
        path: String = "/swapfile".to_owned(),
        /// Its size.
        size: Size,
    }
}

options! {
    /// What may come in from the network.
    pub struct FirewallSpec {
        /// Ports: `6443/tcp`, `30000-32767/tcp`, `8472/udp from 10.0.0.0/16`.
        allow: Vec<String> = Vec::new(),
        /// Networks that may reach everything.
        allow_from: Vec<String> = Vec::new(),
        /// Interfaces on which everything may come in, for example those of pods.
        interfaces: Vec<String> = Vec::new(),
    }
}

options! {
    /// A guarded command.
    pub struct CommandSpec {
        /// The shell command.
        command: String,
        /// It runs while there is nothing at this path.
        creates: Option<String> = None,
        /// It runs while this command fails, which changes nothing.
        unless: Option<String> = None,
    }
}
