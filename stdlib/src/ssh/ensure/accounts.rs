//! Wanted groups and users.
use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// Names that tools take as they are: no options, no patterns.
pub(super) fn is_account(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.trim_end_matches('$').bytes().all(ok)
}

/// A group.
pub(super) struct Group {
    pub name: String,
    pub gid: Option<i64>,
}

impl Item for Group {
    fn what(&self) -> String {
        format!("group {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Groups
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!("getent group {} | cut -d: -f3", quote(&self.name)))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let have = found.trim();
        if have.is_empty() {
            let gid = self.gid.map_or(String::new(), |g| format!("-g {g} "));
            let after = self.gid.map_or_else(|| "present".to_owned(), |g| format!("gid {g}"));
            let name = quote(&self.name);
            let act = format!(
                "if command -v groupadd >/dev/null 2>&1; then groupadd {gid}{name}; else addgroup {gid}{name}; fi"
            );
            return Ok(Some(Diff::one(Part::new(self.what(), None, text(after)), act)));
        }
        match self.gid {
            Some(g) if have != g.to_string() => {
                Err(OpError::conflict(format!("group `{}` has gid {have}, wanted is {g}", self.name))
                    .hint("files keep the old number: change it by hand, or take the number out of the map"))
            }
            _ => Ok(None),
        }
    }
}

/// A user.
pub(super) struct User {
    pub name: String,
    pub uid: Option<i64>,
    pub groups: Vec<String>,
    pub shell: Option<String>,
    pub home: Option<String>,
    pub system: bool,
}

impl Item for User {
    fn what(&self) -> String {
        format!("user {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Users
    }
    fn probe(&self) -> Probe {
        let n = quote(&self.name);
        Probe::Shell(format!("getent passwd {n} || echo absent; id -nG {n} 2>/dev/null"))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let mut lines = found.lines();
        let entry = lines.next().unwrap_or_default().trim();
        if entry == "absent" {
            return Ok(Some(Diff::one(Part::new(self.what(), None, text("present")), self.make())));
        }
        self.complete(entry, lines.next().unwrap_or_default())
    }
}

impl User {
    /// Shell text that makes the user; small systems have `adduser` only, with options of its own.
    fn make(&self) -> String {
        let n = quote(&self.name);
        let mut act = "useradd".to_owned();
        act.push_str(if self.system { " -r" } else { " -m" });
        if let Some(u) = self.uid {
            act.push_str(&format!(" -u {u}"));
        }
        if let Some(s) = &self.shell {
            act.push_str(&format!(" -s {}", quote(s)));
        }
        if let Some(h) = &self.home {
            act.push_str(&format!(" -d {}", quote(h)));
        }
        if !self.groups.is_empty() {
            act.push_str(&format!(" -G {}", quote(&self.groups.join(","))));
        }
        let mut small = format!("adduser -D{}", if self.system { " -S -H" } else { "" });
        if let Some(u) = self.uid {
            small.push_str(&format!(" -u {u}"));
        }
        if let Some(s) = &self.shell {
            small.push_str(&format!(" -s {}", quote(s)));
        }
        if let Some(h) = &self.home {
            small.push_str(&format!(" -h {}", quote(h)));
        }
        small.push_str(&format!(" {n}"));
        for g in &self.groups {
            small.push_str(&format!(" && addgroup {n} {}", quote(g)));
        }
        format!("if command -v useradd >/dev/null 2>&1; then {act} {n}; else {small}; fi")
    }

    fn complete(&self, entry: &str, groups: &str) -> OpResult<Option<Diff>> {
        let n = quote(&self.name);
        let fields: Vec<&str> = entry.split(':').collect();
        let field = |i: usize| fields.get(i).copied().unwrap_or_default();
        if let Some(u) = self.uid.filter(|u| field(2) != u.to_string()) {
            return Err(OpError::conflict(format!("user `{}` has uid {}, wanted is {u}", self.name, field(2)))
                .hint("files keep the old number: change it by hand, or take the number out of the map"));
        }
        let mut parts = Vec::new();
        let mut act = Vec::new();
        if let Some(s) = self.shell.as_deref().filter(|s| *s != field(6)) {
            parts.push(Part::new(format!("shell of {}", self.name), text(field(6)), text(s)));
            act.push(format!("usermod -s {} {n}", quote(s)));
        }
        let member: Vec<&str> = groups.split_whitespace().collect();
        let missing: Vec<&str> = self.groups.iter().map(String::as_str).filter(|g| !member.contains(g)).collect();
        if !missing.is_empty() {
            parts.push(Part::new(format!("groups of {}", self.name), text(member.join(" ")), text(missing.join(" "))));
            act.push(format!("usermod -aG {} {n}", quote(&missing.join(","))));
        }
        Ok((!parts.is_empty()).then(|| Diff::of(parts, act.join(" && "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_made_or_completed() {
        let u = User {
            name: "ada".into(),
            uid: Some(1500),
            groups: vec!["sudo".into(), "video".into()],
            shell: Some("/bin/bash".into()),
            home: None,
            system: false,
        };
        let d = u.diff("absent\n", &Changed::new()).unwrap().unwrap();
        assert!(
            d.act.contains("; then useradd -m -u 1500 -s /bin/bash -G sudo,video ada; else adduser -D "),
            "{}",
            d.act
        );
        let found = "ada:x:1500:1500::/home/ada:/bin/sh\nada sudo\n";
        let d = u.diff(found, &Changed::new()).unwrap().unwrap();
        assert_eq!(d.act, "usermod -s /bin/bash ada && usermod -aG video ada");
        let e = u.diff("ada:x:7:7::/home/ada:/bin/bash\nada sudo video", &Changed::new()).unwrap_err();
        assert_eq!(e.message, "user `ada` has uid 7, wanted is 1500");
    }
}
