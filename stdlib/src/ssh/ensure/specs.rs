//! The keys of `host.ensure` and of the maps inside it.
use std::collections::BTreeMap;

use rhai::{Dynamic, Map};

use crate::options;

options! {
    /// The wanted state of a host.
    pub struct EnsureOptions {
        /// Packages that are installed: `["nfs-common", "chrony=4.3-2"]`.
        packages: Vec<String> = Vec::new(),
        /// Package sources by name: a `deb …` line, or `#{ line, key }` with the signing key's text.
        repositories: Map = Map::new(),
        /// Files by path: the text, or `#{ content, mode, owner }`.
        files: Map = Map::new(),
        /// Lines that files have, by path: a list of texts or `#{ line, replaces }` (beginning of the line to replace).
        lines: Map = Map::new(),
        /// Directories: a list of paths, or a map of path to `#{ mode, owner }`.
        directories: Option<Dynamic> = None,
        /// Symbolic links: path to target.
        links: BTreeMap<String, String> = BTreeMap::new(),
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
        /// `"off"`: no swap, now and at boot.
        swap: Option<String> = None,
        /// Services by name: `"running"`, `"stopped"`, or `#{ state, enabled, restart_on }`.
        services: Map = Map::new(),
        /// systemd units by file name: their text.
        units: BTreeMap<String, String> = BTreeMap::new(),
        /// Programs that systemd runs by the clock, by name: `#{ on_calendar, command, user }`.
        timers: Map = Map::new(),
        /// Mounts by path: `#{ device, label, fs, options }`, also in fstab.
        mounts: Map = Map::new(),
        /// File systems by device (`/dev/disk/by-id/…`): `#{ fs, label }`; made on blank devices only.
        filesystems: Map = Map::new(),
        /// The host's name.
        hostname: Option<String> = None,
        /// Names and addresses in /etc/hosts: address to name or names, or name to address.
        hosts_entries: Map = Map::new(),
        /// Time zone, for example `"Europe/Berlin"`.
        timezone: Option<String> = None,
        /// Time servers (systemd-timesyncd).
        ntp: Vec<String> = Vec::new(),
        /// Limits of login sessions: domain (`"*"`) to `#{ nofile: 1048576 }`.
        limits: Map = Map::new(),
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
        line: String,
        /// Beginning of the line it takes the place of.
        replaces: Option<String> = None,
    }
}

options! {
    /// A package source.
    pub struct RepositorySpec {
        /// The `deb …` line.
        line: String,
        /// Text of the signing key; goes to `/etc/apt/keyrings/NAME.asc`.
        key: Option<String> = None,
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
