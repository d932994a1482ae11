//! The map of `host.ensure`, read into items.
use std::collections::BTreeMap;

use rhai::{Array, Dynamic, Map};

use crate::core::error::{OpError, OpResult};
use crate::core::options::{OptionValue, closest};
use crate::core::units::Secret;

use super::accounts::{Group, User};
use super::edit::{Edit, EditFile, Place};
use super::files::{Directory, File, Link};
use super::item::{Item, Phase};
use super::packages::{Packages, is_file_name, keyring_path, source_path};
use super::services::Service;
use super::specs::{
    DirectorySpec, EnsureOptions, FileSpec, FilesystemSpec, LineSpec, MountSpec, RepositorySpec, ServiceSpec,
    TimerSpec, UserSpec,
};
use super::storage::{Filesystem, KINDS, Mount};
use super::system::{Hostname, KernelModule, SwapOff, Sysctl, Timezone};

/// cloud-init writes /etc/hosts from this at every boot when it manages it (as on Proxmox).
const CLOUD_HOSTS: &str = "/etc/cloud/templates/hosts.debian.tmpl";

const HEADER: &str = "# Written by gpuhost. Lines of others are kept.";

/// The items of one call.
pub(super) struct Wanted {
    pub items: Vec<Box<dyn Item>>,
    mounts: Vec<String>,
}

impl Wanted {
    /// Reads the map.
    ///
    /// # Errors
    /// `invalid` naming the key at fault.
    pub(super) fn read(map: &Map) -> OpResult<Wanted> {
        let o = EnsureOptions::read(map)?;
        let mounts = o.mounts.keys().map(|k| k.trim_end_matches('/').to_owned()).collect();
        let mut w = Wanted { items: Vec::new(), mounts };
        if !o.packages.is_empty() {
            w.add(Packages { list: o.packages.clone() });
        }
        each(&o.repositories, "repositories", |n, v| w.repository(n, v))?;
        each(&o.files, "files", |p, v| w.file(p, v))?;
        w.directories(o.directories.as_ref().unwrap_or(&Dynamic::UNIT))?;
        for (path, target) in &o.links {
            let path = absolute("links", path)?;
            let phase = w.phase_of(&path);
            w.add(Link { path, target: target.clone(), phase });
        }
        w.groups(o.groups.as_ref().unwrap_or(&Dynamic::UNIT))?;
        each(&o.users, "users", |n, v| w.user(n, v))?;
        w.edits(&o)?;
        w.kernel(&o)?;
        each(&o.filesystems, "filesystems", |d, v| w.filesystem(d, v))?;
        w.identity(&o)?;
        for (name, text) in &o.units {
            w.unit(name, text)?;
        }
        each(&o.timers, "timers", |n, v| w.timer(n, v))?;
        each(&o.services, "services", |n, v| w.service(n, v))?;
        Ok(w)
    }

    fn add(&mut self, item: impl Item + 'static) {
        self.items.push(Box::new(item));
    }

    /// What lies below a mount of this map can only be made once that is mounted.
    fn phase_of(&self, path: &str) -> Phase {
        let below = |m: &String| path == m || path.starts_with(&format!("{m}/"));
        if self.mounts.iter().any(below) { Phase::BelowMounts } else { Phase::Files }
    }

    fn whole_file(&mut self, noun: &'static str, path: String, content: Vec<u8>, mode: &str, phase: Phase) {
        let (mode, owner) = (Some(mode.to_owned()), Some("root:root".to_owned()));
        self.add(File { path, content, mode, owner, phase, noun });
    }

    fn repository(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let spec = if v.is_string() {
            RepositorySpec { line: v.to_string(), key: None }
        } else {
            RepositorySpec::read(&as_map(v)?)?
        };
        if !is_file_name(name) {
            return Err(OpError::invalid("is no plain name"));
        }
        if let Some(key) = spec.key {
            self.whole_file("package key", keyring_path(name), key.into_bytes(), "0644", Phase::Repositories);
        }
        let text = format!("{}\n", spec.line.trim_end()).into_bytes();
        self.whole_file("package source", source_path(name), text, "0644", Phase::Repositories);
        Ok(())
    }

    fn file(&mut self, path: &str, v: &Dynamic) -> OpResult<()> {
        let path = absolute("files", path)?;
        let spec = if v.is_map() {
            FileSpec::read(&as_map(v)?)?
        } else {
            FileSpec { content: v.clone(), mode: None, owner: None }
        };
        let content = bytes(&spec.content)?;
        check_mode(spec.mode.as_deref())?;
        let phase = self.phase_of(&path);
        self.add(File { path, content, mode: spec.mode, owner: spec.owner, phase, noun: "file" });
        Ok(())
    }

    fn directories(&mut self, v: &Dynamic) -> OpResult<()> {
        let mut add = |path: &str, spec: DirectorySpec| -> OpResult<()> {
            let path = absolute("directories", path)?;
            check_mode(spec.mode.as_deref()).map_err(|e| inside(e, "directories", &path))?;
            let phase = match self.phase_of(&path) {
                Phase::Files => Phase::Directories,
                other => other,
            };
            self.add(Directory { path, mode: spec.mode, owner: spec.owner, phase });
            Ok(())
        };
        if v.is_unit() {
            return Ok(());
        }
        if v.is_array() {
            for p in strings("directories", v)? {
                add(&p, DirectorySpec { mode: None, owner: None })?;
            }
            return Ok(());
        }
        let map =
            Map::read(v).map_err(|_| wrong("directories", "a list of paths or a map of path to `#{ mode, owner }`"))?;
        for (p, v) in &map {
            let spec = as_map(v).and_then(|m| DirectorySpec::read(&m)).map_err(|e| inside(e, "directories", p))?;
            add(p, spec)?;
        }
        Ok(())
    }

    fn groups(&mut self, v: &Dynamic) -> OpResult<()> {
        if v.is_unit() {
            return Ok(());
        }
        if v.is_array() {
            for name in strings("groups", v)? {
                self.add(Group { name, gid: None });
            }
            return Ok(());
        }
        let map = Map::read(v).map_err(|_| wrong("groups", "a list of names or a map of name to number"))?;
        for (name, v) in &map {
            let gid = if v.is_unit() {
                None
            } else {
                Some(v.as_int().map_err(|_| inside(OpError::invalid("expected a whole number"), "groups", name))?)
            };
            self.add(Group { name: name.to_string(), gid });
        }
        Ok(())
    }

    fn user(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let s = UserSpec::read(&as_map(v)?)?;
        if s.sudo {
            if !is_file_name(name) {
                return Err(OpError::invalid("is no plain user name"));
            }
            let text = format!("{name} ALL=(ALL) NOPASSWD:ALL\n").into_bytes();
            self.whole_file("sudo rule", format!("/etc/sudoers.d/90-gpuhost-{name}"), text, "0440", Phase::Files);
        }
        self.keys(name, &s.authorized_keys);
        self.add(User {
            name: name.to_owned(),
            uid: s.uid,
            groups: s.groups,
            shell: s.shell,
            home: s.home,
            system: s.system,
        });
        Ok(())
    }

    fn keys(&mut self, user: &str, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        let edits = keys.iter().map(|k| Edit::Line { line: k.trim().to_owned(), replaces: None }).collect();
        let place = Place::Keys(user.to_owned());
        self.add(EditFile { place, edits, header: None, phase: Phase::Files, only_existing: false });
    }

    /// Everything that edits files which others write too; one item per file.
    fn edits(&mut self, o: &EnsureOptions) -> OpResult<()> {
        let mut by_path: BTreeMap<String, Vec<Edit>> = BTreeMap::new();
        each(&o.lines, "lines", |path, v| {
            let path = absolute("lines", path)?;
            let list = if v.is_array() { Array::read(v).map_err(OpError::invalid)? } else { vec![v.clone()] };
            for entry in list {
                let spec = if entry.is_string() {
                    LineSpec { line: entry.to_string(), replaces: None }
                } else {
                    LineSpec::read(&as_map(&entry)?)?
                };
                if spec.line.contains('\n') {
                    return Err(OpError::invalid("a line cannot hold a line break"));
                }
                by_path.entry(path.clone()).or_default().push(Edit::Line { line: spec.line, replaces: spec.replaces });
            }
            Ok(())
        })?;
        each(&o.mounts, "mounts", |path, v| {
            let at = absolute("mounts", path)?;
            let line = fstab_line(&at, &MountSpec::read(&as_map(v)?)?)?;
            by_path.entry("/etc/fstab".to_owned()).or_default().push(Edit::Mount { at, line });
            Ok(())
        })?;
        if o.swap.is_some() {
            by_path.entry("/etc/fstab".to_owned()).or_default().push(Edit::NoSwap);
        }
        for (ip, names) in host_names(&o.hosts_entries)? {
            let edit = Edit::Names { ip, names };
            by_path.entry(CLOUD_HOSTS.to_owned()).or_default().push(edit.clone());
            by_path.entry("/etc/hosts".to_owned()).or_default().push(edit);
        }
        each(&o.limits, "limits", |domain, v| {
            for (item, value) in &as_map(v)? {
                let start = format!("{domain} - {item} ");
                let edit = Edit::Line { line: format!("{start}{value}"), replaces: Some(start) };
                by_path.entry("/etc/security/limits.d/90-gpuhost.conf".to_owned()).or_default().push(edit);
            }
            Ok(())
        })?;
        for m in &o.modules {
            let edit = Edit::Line { line: m.clone(), replaces: None };
            by_path.entry("/etc/modules-load.d/gpuhost.conf".to_owned()).or_default().push(edit);
        }
        for (key, value) in &o.sysctl {
            let edit = Edit::Setting { key: key.clone(), value: value.clone() };
            by_path.entry("/etc/sysctl.d/90-gpuhost.conf".to_owned()).or_default().push(edit);
        }
        for (path, edits) in by_path {
            let header = path.contains("gpuhost").then_some(HEADER);
            let phase = self.phase_of(&path);
            let only_existing = path == CLOUD_HOSTS;
            self.add(EditFile { place: Place::Path(path), edits, header, phase, only_existing });
        }
        each(&o.authorized_keys, "authorized_keys", |user, v| {
            let keys =
                if v.is_string() { vec![v.to_string()] } else { Vec::<String>::read(v).map_err(OpError::invalid)? };
            self.keys(user, &keys);
            Ok(())
        })?;
        for path in o.mounts.keys() {
            self.add(Mount { path: absolute("mounts", path)? });
        }
        Ok(())
    }

    fn kernel(&mut self, o: &EnsureOptions) -> OpResult<()> {
        for name in &o.modules {
            self.add(KernelModule { name: name.clone() });
        }
        for (key, value) in &o.sysctl {
            self.add(Sysctl { key: key.clone(), value: value.clone() });
        }
        match o.swap.as_deref() {
            None => {}
            Some("off") => self.add(SwapOff),
            Some(other) => return Err(wrong("swap", "`\"off\"`").because(format!("found `{other}`"))),
        }
        Ok(())
    }

    fn filesystem(&mut self, device: &str, v: &Dynamic) -> OpResult<()> {
        let s = FilesystemSpec::read(&as_map(v)?)?;
        if !device.starts_with("/dev/disk/by-id/") || device.contains("..") {
            return Err(OpError::invalid("is no device by id").hint(
                "names such as /dev/sdb change between boots: use /dev/disk/by-id/…, for a site's node \
                 `site().data_device(name)`",
            ));
        }
        if !KINDS.contains(&s.fs.as_str()) {
            return Err(OpError::invalid(format!("option `fs`: expected {}, found `{}`", KINDS.join(" or "), s.fs)));
        }
        let longest = if s.fs == "xfs" { 12 } else { 16 };
        if s.label.as_ref().is_some_and(|l| l.len() > longest || l.is_empty() || l.starts_with('-')) {
            return Err(OpError::invalid(format!("option `label`: a label of {} has 1 to {longest} bytes", s.fs)));
        }
        self.add(Filesystem { device: device.to_owned(), fs: s.fs, label: s.label });
        Ok(())
    }

    fn identity(&mut self, o: &EnsureOptions) -> OpResult<()> {
        if let Some(h) = &o.hostname {
            let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if h.is_empty() || !h.chars().all(ok) {
                return Err(wrong("hostname", "letters, digits and `-`").because(format!("found `{h}`")));
            }
            self.add(Hostname(h.clone()));
        }
        if let Some(z) = &o.timezone {
            self.add(Timezone(z.clone()));
        }
        if !o.ntp.is_empty() {
            let path = "/etc/systemd/timesyncd.conf.d/gpuhost.conf".to_owned();
            let text = format!("{HEADER}\n[Time]\nNTP={}\n", o.ntp.join(" "));
            self.whole_file("file", path.clone(), text.into_bytes(), "0644", Phase::Files);
            let name = "systemd-timesyncd".to_owned();
            self.add(Service { name, running: true, enabled: Some(true), restart_on: vec![path] });
        }
        Ok(())
    }

    fn unit(&mut self, name: &str, text: &str) -> OpResult<()> {
        let known = ["service", "timer", "socket", "mount", "path", "target", "slice"];
        let kind = name.rsplit_once('.').map_or("", |(_, k)| k);
        if !is_file_name(name) || !known.contains(&kind) {
            return Err(inside(OpError::invalid("is no unit file name such as `backup.service`"), "units", name));
        }
        let path = format!("/etc/systemd/system/{name}");
        self.whole_file("unit", path, text.as_bytes().to_vec(), "0644", Phase::Files);
        Ok(())
    }

    fn timer(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let s = TimerSpec::read(&as_map(v)?)?;
        if !is_file_name(name) || name.contains('.') {
            return Err(OpError::invalid("is no plain name"));
        }
        if [&s.on_calendar, &s.user].iter().any(|t| t.contains('\n') || t.is_empty()) {
            return Err(OpError::invalid("`on_calendar` and `user` are one line each"));
        }
        // A program file: systemd has quoting rules of its own for command lines.
        let program = format!("/usr/local/lib/gpuhost/{name}");
        let text = format!("#!/bin/sh\n{}\n", s.command.trim_end());
        self.whole_file("program", program.clone(), text.into_bytes(), "0755", Phase::Files);
        let about = format!("[Unit]\nDescription={name} (gpuhost)\n");
        self.unit(
            &format!("{name}.service"),
            &format!("{about}[Service]\nType=oneshot\nUser={}\nExecStart={program}\n", s.user),
        )?;
        let timer = format!(
            "{about}[Timer]\nOnCalendar={}\nPersistent={}\n[Install]\nWantedBy=timers.target\n",
            s.on_calendar, s.persistent
        );
        let unit = format!("{name}.timer");
        self.unit(&unit, &timer)?;
        let restart_on = vec![format!("/etc/systemd/system/{unit}")];
        self.add(Service { name: unit, running: true, enabled: Some(true), restart_on });
        Ok(())
    }

    fn service(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let s = if v.is_string() {
            ServiceSpec { state: v.to_string(), enabled: None, restart_on: Vec::new() }
        } else {
            ServiceSpec::read(&as_map(v)?)?
        };
        let running = match s.state.as_str() {
            "running" => true,
            "stopped" => false,
            other => {
                let e = OpError::invalid(format!("expected `running` or `stopped`, found `{other}`"));
                return Err(match closest(other, ["running", "stopped"]) {
                    Some(k) => e.hint(format!("did you mean `{k}`?")),
                    None => e,
                });
            }
        };
        let enabled = s.enabled.or(Some(running));
        self.add(Service { name: name.to_owned(), running, enabled, restart_on: s.restart_on });
        Ok(())
    }
}

/// Names by address; the map may be written either way round.
fn host_names(map: &Map) -> OpResult<BTreeMap<String, Vec<String>>> {
    let is_ip = |t: &str| t.parse::<std::net::IpAddr>().is_ok();
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    each(map, "hosts_entries", |key, v| {
        let values =
            if v.is_string() { vec![v.to_string()] } else { Vec::<String>::read(v).map_err(OpError::invalid)? };
        if is_ip(key) {
            out.entry(key.to_owned()).or_default().extend(values);
        } else if values.len() == 1 && is_ip(&values[0]) {
            out.entry(values[0].clone()).or_default().push(key.to_owned());
        } else {
            return Err(OpError::invalid("expected an address on one side"));
        }
        Ok(())
    })?;
    Ok(out)
}

fn fstab_line(at: &str, s: &MountSpec) -> OpResult<String> {
    let escape = |t: &str| t.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    let source = match (&s.device, &s.label) {
        (Some(d), None) => escape(d),
        (None, Some(l)) => format!("LABEL={}", escape(l)),
        _ => return Err(OpError::invalid("give either `device` or `label`")),
    };
    let pass = if s.fs.starts_with("ext") { 2 } else { 0 };
    Ok(format!("{source} {} {} {} 0 {pass}", escape(at), s.fs, s.options))
}

fn wrong(key: &str, expected: &str) -> OpError {
    OpError::invalid(format!("option `{key}`: expected {expected}"))
}

fn inside(mut e: OpError, key: &str, entry: &str) -> OpError {
    e.message = format!("option `{key}`, `{entry}`: {}", e.message);
    e
}

fn each(map: &Map, key: &str, mut f: impl FnMut(&str, &Dynamic) -> OpResult<()>) -> OpResult<()> {
    for (k, v) in map {
        let flat = v.clone().flatten();
        f(k, &flat).map_err(|e| {
            if e.message.starts_with("option `") && e.message.contains(&format!("`{k}`")) {
                e
            } else {
                inside(e, key, k)
            }
        })?;
    }
    Ok(())
}

fn as_map(v: &Dynamic) -> OpResult<Map> {
    if v.is_unit() {
        return Ok(Map::new());
    }
    Map::read(v).map_err(OpError::invalid)
}

fn strings(key: &str, v: &Dynamic) -> OpResult<Vec<String>> {
    Vec::<String>::read(v).map_err(|e| OpError::invalid(format!("option `{key}`: {e}")))
}

pub(super) fn absolute(key: &str, path: &str) -> OpResult<String> {
    if !path.starts_with('/') || path.contains('\n') || path.split('/').any(|p| p == "..") {
        return Err(inside(OpError::invalid("is no absolute path"), key, path));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

pub(super) fn check_mode(mode: Option<&str>) -> OpResult<()> {
    match mode {
        Some(m) if m.len() < 3 || m.len() > 4 || !m.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            Err(OpError::invalid(format!("option `mode`: expected octal digits such as `\"0644\"`, found `{m}`")))
        }
        _ => Ok(()),
    }
}

fn bytes(v: &Dynamic) -> OpResult<Vec<u8>> {
    let v = v.clone().flatten();
    if let Ok(blob) = v.clone().into_blob() {
        return Ok(blob);
    }
    if let Some(s) = v.clone().try_cast::<Secret>() {
        return Ok(s.reveal().as_bytes().to_vec());
    }
    v.into_string().map(String::into_bytes).map_err(|t| OpError::invalid(format!("expected a text, found a {t}")))
}
