//! Differences inside the machines, carried over into their likenesses.
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_lab::Lab;
use gpuhost_lab::guest;
use gpuhost_lab::guest::state::DiskSpec;
use gpuhost_lab::volume::Content;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::proxmox::Proxmox;
use gpuhost_stdlib::site::{Node, Site};
use gpuhost_stdlib::ssh::{quote, words};

use super::guests::{Habits, Inside, host};
use super::probe::{self, Probe};
use super::{Notes, Swap};

/// Kernel parameters that count, are drawn, or are set as something else.
const OTHERS: [&str; 8] = [
    "kernel.random.",
    "kernel.ns_last_pid",
    "kernel.pty.nr",
    "kernel.hostname",
    "kernel.domainname",
    "fs.file-nr",
    "fs.inode",
    "fs.dentry",
];

/// Contents of files by node and path, in the world's words.
pub type Files = BTreeMap<String, BTreeMap<String, String>>;

/// Reads the files of the site whose likeness differs.
pub async fn fetch(ctx: &Ctx, site: &Site, theirs: &Inside, mine: &Inside, swap: &Swap, notes: &mut Notes) -> Files {
    let mut out = Files::new();
    let Ok(pve) = Proxmox::connect_site(ctx).await else { return out };
    for (name, p) in &theirs.0 {
        let own = mine.0.get(name);
        let differ = p.files.iter().filter(|(path, f)| own.and_then(|o| o.files.get(*path)) != Some(f));
        let paths: Vec<String> = differ.map(|(path, _)| path.clone()).collect();
        let got = async {
            let host = host(ctx, &pve, site, name).await?;
            probe::contents(ctx, &host, &paths).await
        };
        match got.await {
            Ok(found) => {
                let missing = paths.iter().filter(|p| !found.contains_key(*p)).count();
                if missing > 0 {
                    notes.unread.push(format!("{missing} files of {name} that are no text"));
                }
                out.insert(name.clone(), found.into_iter().map(|(k, v)| (k, swap.text(&v))).collect());
            }
            Err(e) => notes.unread.push(format!("files of {name}: {}", e.message)),
        }
    }
    let n: usize = out.values().map(BTreeMap::len).sum();
    notes.read.push(format!("the inside of {} machines, {n} files that differ from a fresh deploy", theirs.0.len()));
    notes.assumed.push(
        "inside machines: users, contents of disks and files outside of the usual settings folders are as a deploy \
         leaves them"
            .to_owned(),
    );
    out
}

/// Installs and removes what differs in packages beyond the image; says whether anything did.
///
/// # Errors
/// When a likeness does not answer.
pub async fn packages(ctx: &Ctx, site: &Site, theirs: &Inside, mine: &Inside, habits: &Habits) -> OpResult<bool> {
    let mut any = false;
    for (name, t) in &theirs.0 {
        let Some(m) = mine.0.get(name) else { continue };
        let differ = |a: &Probe, b: &Probe| -> Vec<String> {
            let names = a.packages.keys().filter(|n| !b.packages.contains_key(*n) && habits.packages.contains(*n));
            names.cloned().collect()
        };
        let (gone, new) = (differ(m, t), differ(t, m));
        let mut script = String::new();
        if !gone.is_empty() {
            script += &format!("apt-get remove -y {} >/dev/null 2>&1\n", words(&gone));
        }
        if !new.is_empty() {
            script += &format!("apt-get update >/dev/null 2>&1; apt-get install -y {} >/dev/null 2>&1\n", words(&new));
        }
        if !script.is_empty() {
            any = true;
            let pve = Proxmox::connect_site(ctx).await?;
            host(ctx, &pve, site, name).await?.exec_raw(ctx, &format!("{script}true\n"), b"").await?;
        }
    }
    Ok(any)
}

/// What is carried over.
pub struct Repair<'a> {
    /// Site.
    pub site: &'a Site,
    /// The world.
    pub lab: &'a Lab,
    /// What the site has.
    pub theirs: &'a Inside,
    /// What the world has.
    pub mine: &'a Inside,
    /// What is worth comparing.
    pub habits: &'a Habits,
}

impl Repair<'_> {
    /// Carries everything over.
    ///
    /// # Errors
    /// When a likeness does not answer.
    pub async fn all(&self, ctx: &Ctx, files: &Files, notes: &mut Notes) -> OpResult<()> {
        if self.mine.0.is_empty() {
            return Ok(());
        }
        let pve = Proxmox::connect_site(ctx).await?;
        for node in &self.site.nodes {
            let (Some(t), Some(m)) = (self.theirs.0.get(&node.name), self.mine.0.get(&node.name)) else { continue };
            self.state(node, t, m);
            let changed = self.files(node, t, m, files.get(&node.name));
            if t.k3s != m.k3s && !t.k3s.is_empty() {
                let text = format!("K3s on {} is `{}` and `{}` in the world", node.name, t.k3s, m.k3s);
                notes.assumed.push(text);
            }
            let script = commands(t, m, &changed);
            if !script.is_empty() {
                let out = host(ctx, &pve, self.site, &node.name).await?.exec_raw(ctx, &script, b"").await?;
                for line in out.stdout.lines().filter_map(|l| l.strip_prefix("failed: ")) {
                    notes.unread.push(format!("{}: the world could not follow `{line}`", node.name));
                }
            }
        }
        Ok(())
    }

    /// What is no file: versions of packages, modules, kernel parameters, swap, blank disks, ends of file systems.
    fn state(&self, node: &Node, t: &Probe, m: &Probe) {
        self.lab.with(|w| {
            let Some(g) = w.guests.get_mut(&node.vmid) else { return };
            for (name, version) in &t.packages {
                if m.packages.get(name).is_some_and(|own| own != version) {
                    g.facts.packages.insert(name.clone(), version.clone());
                }
            }
            g.facts.held.clone_from(&t.held);
            for name in &self.habits.modules {
                if t.modules.contains(name) {
                    g.modules.insert(name.clone());
                } else {
                    g.modules.remove(name);
                }
            }
            for (key, v) in &t.sysctl {
                let own = m.sysctl.get(key);
                let known = own.is_some() || self.habits.sysctl.contains(key);
                if own != Some(v) && known && !OTHERS.iter().any(|c| key.starts_with(c)) {
                    g.sysctl.insert(key.clone(), v.clone());
                }
            }
            g.swaps.clone_from(&t.swaps);
            if !t.hostname.is_empty() {
                g.hostname.clone_from(&t.hostname);
            }
            let blank: Vec<String> = g
                .spec
                .disks
                .iter()
                .filter(|d| t.disks.get(&d.serial).is_some_and(|f| f.0.is_empty()))
                .filter(|d| m.disks.get(&d.serial).is_some_and(|f| !f.0.is_empty()))
                .map(|d| d.volid.clone())
                .collect();
            g.mounts.retain(|mount| t.mounts.contains(&mount.target));
            let named = |d: &DiskSpec| match d.serial.as_str() {
                _ if d.volid == g.system => String::new(),
                "" => format!("drive-{}", d.slot),
                serial => serial.to_owned(),
            };
            let disks: Vec<(String, String)> = g.spec.disks.iter().map(|d| (d.volid.clone(), named(d))).collect();
            for id in blank {
                if let Some(v) = w.volumes.get_mut(&id) {
                    v.content = Content::Blank;
                }
            }
            for (id, serial) in disks {
                let room = t.unused.iter().find(|u| u.disk == serial);
                if let Some(v) = w.volumes.get_mut(&id) {
                    v.leave(room.map_or(0, |u| u.behind), room.map_or(0, |u| u.within));
                }
            }
        });
    }

    /// Files; gives the paths that changed.
    fn files(&self, node: &Node, t: &Probe, m: &Probe, files: Option<&BTreeMap<String, String>>) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        self.lab.with(|w| {
            for (path, text) in files.into_iter().flatten() {
                let mode = t.files.get(path).and_then(|f| f.rights.split(' ').next());
                let mode = mode.and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o644);
                let same = guest::file_text(self.lab, node.vmid, path).as_ref() == Some(text);
                let rights = m.files.get(path).map(|f| &f.rights) == t.files.get(path).map(|f| &f.rights);
                if !(same && rights) {
                    guest::put_file(self.lab, w, node.vmid, path, text, mode);
                    changed.insert(path.clone());
                }
            }
            for path in m.files.keys().filter(|p| !t.files.contains_key(*p)) {
                guest::remove_file(self.lab, node.vmid, path);
                changed.insert(path.clone());
            }
        });
        changed
    }
}

/// What only programs of the machine can do.
fn commands(t: &Probe, m: &Probe, changed: &BTreeSet<String>) -> String {
    let mut out: Vec<String> = Vec::new();
    for path in changed {
        let owner = t.files.get(path).and_then(|f| f.rights.split(' ').nth(1)).unwrap_or("root:root");
        if owner != "root:root" {
            out.push(format!("chown {owner} {}", quote(path)));
        }
    }
    if !t.zone.is_empty() && t.zone != m.zone {
        out.push(format!("ln -sfn {} /etc/localtime", quote(&t.zone)));
    }
    if changed.iter().any(|p| p.starts_with("/etc/systemd/system/")) {
        out.push("systemctl daemon-reload".to_owned());
    }
    if t.exports != m.exports {
        out.push("exportfs -ra".to_owned());
    }
    for target in t.mounts.difference(&m.mounts) {
        if changed.contains("/etc/fstab") {
            out.push(format!("mount {}", quote(target)));
        }
    }
    for (unit, (active, enabled)) in &t.units {
        let Some((was_active, was_enabled)) = m.units.get(unit) else { continue };
        let verb = |on: bool, yes: &str, no: &str| if on { yes.to_owned() } else { no.to_owned() };
        if enabled != was_enabled && matches!(enabled.as_str(), "enabled" | "disabled") {
            out.push(words(["systemctl", &verb(enabled == "enabled", "enable", "disable"), unit]));
        }
        let (on, was) = (active == "active", was_active == "active");
        if on != was {
            out.push(words(["systemctl", &verb(on, "start", "stop"), unit]));
        }
    }
    out.iter().map(|c| format!("{c} >/dev/null 2>&1 || echo \"failed: {}\"\n", c.replace('"', "'"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_done() {
        let mut t = Probe::default();
        let mut m = Probe::default();
        let units = |p: &mut Probe, a: &str, e: &str| p.units.insert("chrony".to_owned(), (a.to_owned(), e.to_owned()));
        units(&mut t, "active", "enabled");
        units(&mut m, "active", "enabled");
        assert_eq!(commands(&t, &m, &BTreeSet::new()), "");
        units(&mut t, "inactive", "disabled");
        let script = commands(&t, &m, &BTreeSet::new());
        assert!(script.contains("systemctl disable chrony") && script.contains("systemctl stop chrony"), "{script}");
    }
}
