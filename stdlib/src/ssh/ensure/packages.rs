//! Wanted packages (dpkg with apt, rpm with dnf, apk) and the age of package lists.
use std::time::Duration;

use crate::core::error::OpResult;
use crate::core::units::show_duration;
use crate::ssh::quote::words;

use super::files::unreadable;
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

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

/// Names that package managers take as they are: no options, no patterns, no `name-` that would remove.
pub(super) fn is_package(entry: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"+-.:~=_^".contains(&b);
    let (name, version) = split(entry);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && entry.bytes().all(ok) && !name.ends_with('-') && version != Some("")
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
    fn probe(&self) -> Probe {
        Probe::Packages(self.list.iter().map(|e| split(e).0.to_owned()).collect())
    }
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>> {
        if found.trim() == "none" {
            return Err(unreadable(&self.what(), "neither dpkg, rpm nor apk is there"));
        }
        let mut parts = Vec::new();
        let mut wanted = Vec::new();
        for entry in &self.list {
            let (name, version) = split(entry);
            // rpm names a version in several forms, and a kernel may be there in several versions.
            let lines: Vec<Vec<&str>> = found.lines().map(|l| l.split_whitespace().collect()).collect();
            let of_name = || lines.iter().filter(|l| l.first() == Some(&name));
            let fits = |l: &&Vec<&str>| l.get(1) == Some(&"installed") && l.get(2).copied() == version;
            let line = of_name().find(fits).or_else(|| of_name().next());
            let (state, have) = match line.map(Vec::as_slice) {
                Some([_, state, have, ..]) => (*state, Some(*have)),
                Some([_, state]) => (*state, None),
                _ => ("absent", None),
            };
            let installed = state == "installed";
            if installed && version.is_none_or(|v| have == Some(v) || have == Some("any")) {
                continue;
            }
            // What is removed but for its settings still has a line, without or with a version.
            let before =
                if installed { have } else { Some(state).filter(|s| !matches!(*s, "absent" | "not-installed")) };
            let what = format!("package {name}");
            parts.push(Part::new(what, before.and_then(text), text(version.unwrap_or("installed"))));
            wanted.push(entry.as_str());
        }
        if parts.is_empty() {
            return Ok(None);
        }
        // New package sources are only seen after an update.
        let fresh = changed.iter().any(|p| p.starts_with("/etc/apt/"));
        Ok(Some(Diff::of(parts, install(&wanted, fresh))))
    }
}

const APT: &str = "apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold";

/// Ends the step with the code of "busy" and the holder's name when somebody else has the package manager.
/// The lock files' inodes are looked for in the kernel's list of locks: no process but one `stat`.
const NOT_BUSY: &str = "i=$(stat -c %i /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock 2>/dev/null)\n\
    if [ -n \"$i\" ] && [ -r /proc/locks ]; then\n\
    i=\" $(echo $i) \"\n\
    while read -r a a a a p n a; do\n\
    case $i in *\" ${n##*:} \"*)\n\
    c=; [ ! -r \"/proc/$p/comm\" ] || read -r c <\"/proc/$p/comm\"\n\
    echo \"gpuhost: the package manager is held by ${c:-somebody} (pid $p)\" >&2; return 75;; esac\n\
    done </proc/locks; fi";

fn install(list: &[&str], update_first: bool) -> String {
    let names = words(list);
    let dnf = words(list.iter().map(|e| e.replacen('=', "-", 1)));
    let first = if update_first { format!("{APT} update && ") } else { String::new() };
    // A fresh image has no package lists, old ones name files that are gone: update and try once more.
    format!(
        "if command -v apt-get >/dev/null 2>&1; then\n{NOT_BUSY}\n\
         {first}{{ {APT} install {names} || {{ {APT} update && {APT} install {names}; }}; }}\n\
         elif command -v dnf >/dev/null 2>&1; then dnf -y install {dnf}\n\
         else apk add {names}; fi"
    )
}

/// Package lists that are not older than this.
pub(super) struct Lists {
    pub age: Duration,
}

/// Touched by every update, ours included; the folder itself when nothing was ever updated.
const STAMP: &str = "/var/lib/apt/periodic/update-success-stamp";

impl Item for Lists {
    fn what(&self) -> String {
        "package lists".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Lists
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!(
            "if command -v apt-get >/dev/null 2>&1; then f={STAMP}; else f=/var/cache/dnf/gpuhost.stamp; fi\n\
             if [ -e \"$f\" ]; then echo \"$(($(date +%s) - $(stat -c %Y \"$f\")))\"; else echo never; fi"
        ))
    }
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>> {
        let age = match found.trim() {
            "never" => None,
            n => Some(n.parse::<i64>().map_err(|_| unreadable(&self.what(), found))?),
        };
        let sources = changed.iter().any(|p| p.starts_with("/etc/apt/") || p.starts_with("/etc/yum.repos.d/"));
        if !sources && age.is_some_and(|a| a < i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX)) {
            return Ok(None);
        }
        let before =
            age.map(|a| show_duration(Duration::from_secs(a.unsigned_abs()))).and_then(|a| text(format!("{a} old")));
        let act = format!(
            "if command -v apt-get >/dev/null 2>&1; then\n{NOT_BUSY}\n\
             {APT} update && mkdir -p /var/lib/apt/periodic && touch {STAMP}\n\
             elif command -v dnf >/dev/null 2>&1; then dnf -q makecache && touch /var/cache/dnf/gpuhost.stamp\n\
             else apk update && mkdir -p /var/cache/dnf && touch /var/cache/dnf/gpuhost.stamp; fi"
        );
        Ok(Some(Diff::one(Part::new(self.what(), before, text("updated")), act)))
    }
}

/// Who held the lock, when that is why a package command failed.
pub(super) fn lock_holder(stderr: &str) -> Option<String> {
    if let Some(who) = stderr.lines().rev().find_map(|l| l.strip_prefix("gpuhost: the package manager is held by ")) {
        return Some(who.to_owned());
    }
    let line = stderr.lines().rev().find(|l| l.contains("Could not get lock") || l.contains("Unable to lock"))?;
    match line.split_once("held by process ") {
        Some((_, who)) => Some(format!("process {}", who.trim_end_matches('.'))),
        None => Some("another package manager".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        let p = Packages { list: vec!["curl".into(), "nfs-common".into(), "k=1.2".into(), "half".into()] };
        let found = "curl installed 7.88\ncurl:amd64 installed 7.88\nk installed 1.1\nhalf config-files 3\n";
        let d = p.diff(found, &Changed::new()).unwrap().unwrap();
        assert_eq!(d.parts.len(), 3);
        assert_eq!(d.parts[2].before, text("config-files"));
        assert!(d.act.contains("install nfs-common k=1.2 half ||"), "{}", d.act);
        assert!(d.act.contains("dnf -y install nfs-common k-1.2 half"), "{}", d.act);
        let all = "curl installed 1\nnfs-common installed 2\nk installed 1.2\nhalf installed 3";
        assert_eq!(p.diff(all, &Changed::new()).unwrap(), None);
        assert!(p.diff("none\n", &Changed::new()).is_err());
        let rpm = "curl installed 8.0-1.fc40\ncurl installed 8.0\nnfs-common installed 2-1\nk installed 1.1-3\nk installed 1.1\n\
                   k installed 1.2-1\nk installed 1.2\nhalf installed 1\n";
        assert_eq!(p.diff(rpm, &Changed::new()).unwrap(), None, "1.2 is 1.2-1, and beside 1.1");
    }

    #[test]
    fn names_are_neither_options_nor_patterns_nor_removals() {
        for good in ["g++", "libc6:i386", "chrony=4.3-2+deb12u1", "linux-headers-6.1.0-25-cloud-amd64"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "-y", "vim-", "a b", "x*", "$(id)", "a/stable", "../x.deb", "a=", "vim-=1"] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn lists_have_an_age() {
        let l = Lists { age: Duration::from_secs(3600) };
        assert_eq!(l.diff("120\n", &Changed::new()).unwrap(), None);
        assert!(l.diff("3600\n", &Changed::new()).unwrap().is_some());
        assert!(l.diff("never\n", &Changed::new()).unwrap().is_some());
        let new = Changed::from(["/etc/apt/sources.list.d/x.list".to_owned()]);
        assert!(l.diff("120\n", &new).unwrap().is_some());
    }

    #[test]
    fn the_holder_of_the_lock_is_named() {
        let e = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\n\
                 E: Unable to acquire the dpkg frontend lock";
        assert_eq!(lock_holder(e).as_deref(), Some("process 812 (unattended-upgr)"));
        assert_eq!(lock_holder("E: Unable to locate package x"), None);
        let ours = "gpuhost: the package manager is held by apt-get (pid 7)\n";
        assert_eq!(lock_holder(ours).as_deref(), Some("apt-get (pid 7)"));
    }
}
