//! The map of `host.ensure`, read into items.
mod edits;
mod values;

use std::collections::BTreeMap;

use rhai::{Dynamic, Map};

use crate::core::error::{OpError, OpResult};
use crate::core::options::{OptionValue, closest};
use crate::core::units::Size;
use crate::wire::calendar;

use super::accounts::{Group, User, is_account};
use super::commands::Command;
use super::files::{Absent, Directory, File, Link};
use super::firewall::{self, Firewall, NoFirewall};
use super::growth::{Grown, RootGrown};
use super::item::{Item, Phase};
use super::mounts::Mount;
use super::ntp::Ntp;
use super::packages::{Lists, Packages, is_package};
use super::services::{Service, is_unit_name};
use super::sources::{self, is_file_name};
use super::specs::{
    CommandSpec, DirectorySpec, EnsureOptions, FileSpec, FilesystemSpec, FirewallSpec, MountSpec, RepositorySpec,
    ServiceSpec, SwapSpec, TimerSpec, UserSpec,
};
use super::storage::{Filesystem, KINDS};
use super::swap::{SwapFile, SwapOff};
use super::system::{Hostname, KernelModule, Sysctl, Timezone};
pub(super) use values::{absolute, bytes, check_mode, check_owner, mount_point};
use values::{as_map, each, inside, strings, wrong};

pub(super) const HEADER: &str = "# Written by gpuhost. Lines of others are kept.";

/// The items of one call.
pub(super) struct Wanted {
    pub items: Vec<Box<dyn Item>>,
    mounts: Vec<String>,
    /// Public keys by user, from two keys of the map.
    keys: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// Reads the map for a host that is reached at the port `ssh`.
    ///
    /// # Errors
    /// `invalid` naming the key at fault.
    pub(super) fn read(map: &Map, ssh: u16) -> OpResult<Wanted> {
        let o = EnsureOptions::read(map)?;
        let mounts = o.mounts.keys().map(|k| k.trim_end_matches('/').to_owned()).collect();
        let mut w = Wanted { items: Vec::new(), mounts, keys: BTreeMap::new() };
        w.packages(&o)?;
        each(&o.repositories, "repositories", |n, v| w.repository(n, v))?;
        each(&o.files, "files", |p, v| w.file(p, v))?;
        w.directories(o.directories.as_ref().unwrap_or(&Dynamic::UNIT))?;
        each(&o.links, "links", |p, v| w.link(p, v))?;
        w.groups(o.groups.as_ref().unwrap_or(&Dynamic::UNIT))?;
        each(&o.users, "users", |n, v| w.user(n, v))?;
        w.edits(&o)?;
        w.kernel(&o)?;
        each(&o.filesystems, "filesystems", |d, v| w.filesystem(d, v))?;
        each(&o.mounts, "mounts", |p, v| w.mount(p, v))?;
        w.identity(&o)?;
        for (name, text) in &o.units {
            w.unit(name, text)?;
        }
        each(&o.timers, "timers", |n, v| w.timer(n, v))?;
        w.firewall(o.firewall.as_ref(), ssh)?;
        each(&o.services, "services", |n, v| w.service(n, v))?;
        each(&o.commands, "commands", |n, v| {
            w.add(Command::new(n, CommandSpec::read(&as_map(v)?)?)?);
            Ok(())
        })?;
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

    fn packages(&mut self, o: &EnsureOptions) -> OpResult<()> {
        let mut list = o.packages.clone();
        if o.firewall.as_ref().is_some_and(|f| !f.is_string()) && !list.iter().any(|p| p == "nftables") {
            list.push("nftables".to_owned());
        }
        if let Some(bad) = list.iter().find(|p| !is_package(p)) {
            return Err(inside(OpError::invalid("is no package name or `name=version`"), "packages", bad));
        }
        if let Some(age) = o.package_lists {
            self.add(Lists { age: age.0 });
        }
        if !list.is_empty() {
            self.add(Packages { list });
        }
        Ok(())
    }

    fn repository(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let spec = if v.is_string() {
            RepositorySpec { line: Some(v.to_string()), baseurl: None, key: None }
        } else {
            RepositorySpec::read(&as_map(v)?)?
        };
        for f in sources::files(name, &spec, sources::key(spec.key.as_ref())?)? {
            self.whole_file(f.noun, f.path, f.content, "0644", Phase::Repositories);
        }
        Ok(())
    }

    fn file(&mut self, path: &str, v: &Dynamic) -> OpResult<()> {
        let path = absolute("files", path)?;
        let phase = self.phase_of(&path);
        if v.is_unit() {
            self.add(Absent { path, phase });
            return Ok(());
        }
        let spec = if v.is_map() {
            FileSpec::read(&as_map(v)?)?
        } else {
            FileSpec { content: v.clone(), mode: None, owner: None }
        };
        let content = bytes(&spec.content)?;
        check_mode(spec.mode.as_deref())?;
        check_owner(spec.owner.as_deref())?;
        self.add(File { path, content, mode: spec.mode, owner: spec.owner, phase, noun: "file" });
        Ok(())
    }

    fn link(&mut self, path: &str, v: &Dynamic) -> OpResult<()> {
        let path = absolute("links", path)?;
        let phase = self.phase_of(&path);
        if v.is_unit() {
            self.add(Absent { path, phase });
            return Ok(());
        }
        let target = String::read(v).map_err(OpError::invalid)?;
        if target.is_empty() || target.contains('\0') {
            return Err(OpError::invalid("a link needs a target"));
        }
        self.add(Link { path, target, phase });
        Ok(())
    }

    fn directories(&mut self, v: &Dynamic) -> OpResult<()> {
        let mut add = |path: &str, spec: DirectorySpec| -> OpResult<()> {
            let path = absolute("directories", path)?;
            let right = check_mode(spec.mode.as_deref()).and_then(|()| check_owner(spec.owner.as_deref()));
            right.map_err(|e| inside(e, "directories", &path))?;
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
                self.group(&name, None)?;
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
            self.group(name, gid)?;
        }
        Ok(())
    }

    fn group(&mut self, name: &str, gid: Option<i64>) -> OpResult<()> {
        if !is_account(name) {
            return Err(inside(OpError::invalid("is no plain group name"), "groups", name));
        }
        self.add(Group { name: name.to_owned(), gid });
        Ok(())
    }

    fn user(&mut self, name: &str, v: &Dynamic) -> OpResult<()> {
        let s = UserSpec::read(&as_map(v)?)?;
        if !is_account(name) {
            return Err(OpError::invalid("is no plain user name"));
        }
        if let Some(bad) = s.groups.iter().find(|g| !is_account(g)) {
            return Err(OpError::invalid(format!("option `groups`: `{bad}` is no plain group name")));
        }
        if s.sudo {
            // sudo skips files with a dot in their names.
            let text = format!("{name} ALL=(ALL) NOPASSWD:ALL\n").into_bytes();
            self.whole_file(
                "sudo rule",
                format!("/etc/sudoers.d/90-gpuhost-{}", name.replace('.', "_")),
                text,
                "0440",
                Phase::Files,
            );
        }
        self.keys(name, &s.authorized_keys)?;
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

    fn kernel(&mut self, o: &EnsureOptions) -> OpResult<()> {
        for name in &o.modules {
            if !is_account(name) {
                return Err(inside(OpError::invalid("is no module name"), "modules", name));
            }
            self.add(KernelModule { name: name.clone() });
        }
        for (key, value) in &o.sysctl {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
            if key.starts_with(['-', '.', '/']) || !key.bytes().all(plain) || value.contains('\n') {
                return Err(inside(OpError::invalid("is no kernel setting"), "sysctl", key));
            }
            self.add(Sysctl { key: key.clone(), value: value.clone() });
        }
        match swap(o.swap.as_ref())? {
            None => {}
            Some(None) => self.add(SwapOff),
            Some(Some(s)) => self.add(SwapFile { path: s.path, size: s.size }),
        }
        if o.grow_root {
            self.add(RootGrown);
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
        self.add(Grown { device: device.to_owned() });
        Ok(())
    }

    fn identity(&mut self, o: &EnsureOptions) -> OpResult<()> {
        if let Some(h) = &o.hostname {
            let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if h.is_empty() || h.len() > 64 || h.starts_with('-') || !h.chars().all(ok) {
                return Err(wrong("hostname", "letters, digits and `-`").because(format!("found `{h}`")));
            }
            self.add(Hostname(h.clone()));
        }
        if let Some(z) = &o.timezone {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
            if z.is_empty() || z.starts_with(['/', '-']) || !z.bytes().all(plain) {
                return Err(wrong("timezone", "a name such as `Europe/Berlin`").because(format!("found `{z}`")));
            }
            self.add(Timezone(z.clone()));
        }
        if let Some(bad) = o.ntp.iter().find(|s| s.is_empty() || s.contains(char::is_whitespace)) {
            return Err(inside(OpError::invalid("is no server"), "ntp", bad));
        }
        if !o.ntp.is_empty() {
            self.add(Ntp { servers: o.ntp.clone() });
        }
        Ok(())
    }

    fn mount(&mut self, path: &str, v: &Dynamic) -> OpResult<()> {
        let path = mount_point(path)?;
        self.add(Mount { path, spec: MountSpec::read(&as_map(v)?)? });
        Ok(())
    }

    fn firewall(&mut self, v: Option<&Dynamic>, ssh: u16) -> OpResult<()> {
        let Some(v) = v else { return Ok(()) };
        let (name, restart_on) = (firewall::UNIT.to_owned(), Vec::new());
        if v.is_string() {
            if v.to_string() != "off" {
                return Err(wrong("firewall", "a map such as `#{ allow: [\"6443/tcp\"] }`, or `\"off\"`"));
            }
            self.add(Service { name, running: false, enabled: Some(false), restart_on });
            self.add(NoFirewall);
            return Ok(());
        }
        let spec = FirewallSpec::read(&as_map(v)?).map_err(|e| inside(e, "firewall", "rules"))?;
        let rules = Firewall::new(&spec, ssh).map_err(|e| inside(e, "firewall", "rules"))?;
        self.whole_file("file", firewall::RULES.to_owned(), rules.text().into_bytes(), "0600", Phase::Files);
        self.unit(firewall::UNIT, &firewall::unit())?;
        self.add(rules);
        // The rules are loaded by now; the unit is for the next boot.
        self.add(Service { name, running: true, enabled: Some(true), restart_on });
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
        if s.on_calendar.contains('\n') || s.on_calendar.is_empty() || !is_account(&s.user) {
            return Err(OpError::invalid("`on_calendar` is one line, `user` a plain name"));
        }
        if !calendar::is_expression(&s.on_calendar) {
            let likely = closest(&s.on_calendar, calendar::words().iter().copied());
            let likely = likely.map(|w| format!("did you mean `{w}`? ")).unwrap_or_default();
            return Err(OpError::invalid(format!(
                "`on_calendar`: `{}` is no calendar expression of systemd",
                s.on_calendar
            ))
            .hint(format!("{likely}write for example `daily`, `Mon..Fri 03:30` or `*-*-* 6,18:00`")));
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
        if !is_unit_name(name) {
            return Err(OpError::invalid("is no unit name"));
        }
        let enabled = s.enabled.or(Some(running));
        self.add(Service { name: name.to_owned(), running, enabled, restart_on: s.restart_on });
        Ok(())
    }
}

/// `None` when nothing is said, `Some(None)` for no swap.
fn swap(v: Option<&Dynamic>) -> OpResult<Option<Option<SwapSpec>>> {
    let Some(v) = v else { return Ok(None) };
    if v.is_string() && v.to_string() == "off" {
        return Ok(Some(None));
    }
    let spec = match Size::read(v) {
        Ok(size) => SwapSpec { path: "/swapfile".to_owned(), size },
        Err(_) if v.is_map() => SwapSpec::read(&as_map(v)?).map_err(|e| inside(e, "swap", "file"))?,
        Err(found) => return Err(wrong("swap", "`\"off\"`, a size or `#{ path, size }`").because(found)),
    };
    if spec.size.0 < 1 << 20 || spec.size.0 % (1 << 20) != 0 || spec.path.contains(char::is_whitespace) {
        return Err(wrong("swap", "whole mebibytes, and a path without blanks"));
    }
    Ok(Some(Some(SwapSpec { path: absolute("swap", &spec.path)?, ..spec })))
}
