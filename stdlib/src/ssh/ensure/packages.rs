//! Wanted packages (dpkg with apt, rpm with dnf).
use crate::core::error::OpResult;
use crate::ssh::quote::{quote, words};

use super::files::unreadable;
use super::item::{Changed, Diff, Item, Part, Phase, text};

/// All packages of one call: installed by one command.
pub(super) struct Packages {
    /// `name` or `name=version`.
    pub list: Vec<String>,
}

fn split(entry: &str) -> (&str, Option<&str>) {
    match entry.split_once('=') {
        Some((n, v)) => (n, Some(v)),
        None => (entry, None),
    }
}

impl Item for Packages {
    fn what(&self) -> String {
        match self.list.as_slice() {
            [one] => format!("package {one}"),
            many => format!("packages {}", many.join(", ")),
        }
    }
    fn phase(&self) -> Phase {
        Phase::Packages
    }
    fn look(&self) -> String {
        let names = words(self.list.iter().map(|e| split(e).0));
        format!(
            "for n in {names}; do\n\
             if command -v dpkg-query >/dev/null 2>&1; then\n\
             s=$(dpkg-query -W -f='${{db:Status-Status}} ${{Version}}' \"$n\" 2>/dev/null) || s=absent\n\
             else s=$(rpm -q --qf 'installed %{{VERSION}}-%{{RELEASE}}' \"$n\" 2>/dev/null) || s=absent; fi\n\
             echo \"$n ${{s:-absent}}\"\ndone"
        )
    }
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>> {
        let mut parts = Vec::new();
        let mut wanted = Vec::new();
        for entry in &self.list {
            let (name, version) = split(entry);
            let state = found
                .lines()
                .filter_map(|l| l.split_once(' '))
                .find(|(n, _)| *n == name)
                .map(|(_, s)| s.trim())
                .ok_or_else(|| unreadable(&format!("package {name}"), found))?;
            let have = state.strip_prefix("installed ");
            if have.is_some_and(|h| version.is_none_or(|v| v == h)) {
                continue;
            }
            let before = have.or(Some(state).filter(|s| *s != "absent" && !s.starts_with("not-installed")));
            parts.push(Part::new(
                format!("package {name}"),
                before.and_then(text),
                text(version.unwrap_or("installed")),
            ));
            wanted.push(entry.as_str());
        }
        if parts.is_empty() {
            return Ok(None);
        }
        // New package sources are only seen after an update.
        let fresh = changed.iter().any(|p| p.starts_with("/etc/apt/") || p.starts_with("/etc/yum.repos.d/"));
        Ok(Some(Diff { parts, act: install(&wanted, fresh), path: None }))
    }
}

fn install(list: &[&str], update_first: bool) -> String {
    let apt = "apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold";
    let names = words(list);
    let dnf = words(list.iter().map(|e| e.replacen('=', "-", 1)));
    let first = if update_first { format!("{apt} update && ") } else { String::new() };
    // A fresh image has no package lists, old ones name files that are gone: update and try once more.
    format!(
        "if command -v apt-get >/dev/null 2>&1; then\n\
         {first}{{ {apt} install {names} || {{ {apt} update && {apt} install {names}; }}; }}\n\
         else dnf -y install {dnf}; fi"
    )
}

/// Prints who holds the package manager's lock, or `free`.
pub(super) const LOCK_HOLDER: &str = "h=free\n\
    for f in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock; do\n\
    [ -e \"$f\" ] && [ -r /proc/locks ] || continue\n\
    i=$(stat -c %i \"$f\" 2>/dev/null) || continue\n\
    p=$(grep \":$i \" /proc/locks 2>/dev/null | head -n 1 | tr -s ' ' | cut -d' ' -f5)\n\
    [ -n \"$p\" ] && h=\"$(cat \"/proc/$p/comm\" 2>/dev/null) (pid $p)\"\ndone\necho \"$h\"";

/// Who held the lock, when that is why a package command failed.
pub(super) fn lock_holder(stderr: &str) -> Option<String> {
    let line = stderr.lines().rev().find(|l| l.contains("Could not get lock") || l.contains("Unable to lock"))?;
    match line.split_once("held by process ") {
        Some((_, who)) => Some(format!("process {}", who.trim_end_matches('.'))),
        None => Some("another package manager".to_owned()),
    }
}

/// A package source.
pub(super) fn source_path(name: &str) -> String {
    format!("/etc/apt/sources.list.d/{name}.list")
}

/// Where the key of a package source goes.
pub(super) fn keyring_path(name: &str) -> String {
    format!("/etc/apt/keyrings/{name}.asc")
}

/// Makes `name` safe as a file name.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && quote(name) == name && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let p = Packages { list: vec!["curl".into(), "nfs-common".into(), "k=1.2".into(), "half".into()] };
        let found = "curl installed 7.88\nnfs-common absent\nk installed 1.1\nhalf config-files 3\n";
        let d = p.diff(found, &Changed::new()).unwrap().unwrap();
        assert_eq!(d.parts.len(), 3);
        assert!(d.act.contains("install nfs-common k=1.2 half ||"), "{}", d.act);
        assert!(d.act.contains("dnf -y install nfs-common k-1.2 half"), "{}", d.act);
        let all = "curl installed 1\nnfs-common installed 2\nk installed 1.2\nhalf installed 3";
        assert_eq!(p.diff(all, &Changed::new()).unwrap(), None);
    }

    #[test]
    fn the_holder_of_the_lock_is_named() {
        let e = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\n\
                 E: Unable to acquire the dpkg frontend lock";
        assert_eq!(lock_holder(e).as_deref(), Some("process 812 (unattended-upgr)"));
        assert_eq!(lock_holder("E: Unable to locate package x"), None);
    }
}
