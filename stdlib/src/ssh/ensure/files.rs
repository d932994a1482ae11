//! Wanted files, directories and links.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, text};

/// A whole file.
pub(super) struct File {
    pub path: String,
    pub content: Vec<u8>,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub phase: Phase,
    /// Word in front of the path in messages.
    pub noun: &'static str,
}

/// A directory.
pub(super) struct Directory {
    pub path: String,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub phase: Phase,
}

/// A symbolic link.
pub(super) struct Link {
    pub path: String,
    pub target: String,
    pub phase: Phase,
}

/// Mode and owner as `stat -c '%a %U:%G %u:%g'` prints them.
pub(super) struct Stat<'a> {
    pub mode: &'a str,
    pub names: &'a str,
    pub ids: &'a str,
}

pub(super) const STAT: &str = "stat -c '%a %U:%G %u:%g'";

impl<'a> Stat<'a> {
    pub(super) fn parse(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        Some(Stat { mode: words.next()?, names: words.next()?, ids: words.next()? })
    }

    pub(super) fn has_mode(&self, wanted: Option<&str>) -> bool {
        let octal = |s: &str| u32::from_str_radix(s, 8).ok();
        wanted.is_none_or(|w| octal(w) == octal(self.mode))
    }

    pub(super) fn has_owner(&self, wanted: Option<&str>) -> bool {
        let Some(w) = wanted else { return true };
        let w = w.trim_end_matches(':');
        let user = |s: &'a str| s.split(':').next().unwrap_or_default();
        if w.contains(':') { w == self.names || w == self.ids } else { w == user(self.names) || w == user(self.ids) }
    }
}

/// `sha256:1a2b3c4d` of a content, short: contents may be secret and never enter journals.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

fn shown(digest: &str, mode: &str, owner: &str) -> String {
    let short: String = digest.chars().take(12).collect();
    format!("sha256:{short} {mode} {owner}")
}

/// Shell text that makes `content` the content of the file that the shell word `path` names.
pub(super) fn put(path: &str, content: &[u8], mode: &str, owner: &str) -> String {
    let source = match std::str::from_utf8(content) {
        Ok(t) if !t.contains('\0') => format!("printf %s {}", quote(t)),
        _ => format!("printf %s {} | base64 -d", STANDARD.encode(content)),
    };
    format!("{source} | put {path} {} {}", quote(mode), quote(owner))
}

#[allow(dead_code)] // as `WholeFile`
impl File {
    /// As the act of `diff` when the content differs, but with the content on standard input.
    pub(super) fn put_from_stdin(&self, found: &str) -> String {
        let stat = Stat::parse(&mut found.split_whitespace()).filter(|_| found.trim() != "absent");
        let kept = stat.map_or(("0644", "root:root"), |s| (s.mode, s.ids));
        let (mode, owner) = (self.mode.as_deref().unwrap_or(kept.0), self.owner.as_deref().unwrap_or(kept.1));
        format!("put {} {} {}", quote(&self.path), quote(mode), quote(owner))
    }
}

impl Item for File {
    fn what(&self) -> String {
        format!("{} {}", self.noun, self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn look(&self) -> String {
        let p = quote(&self.path);
        format!(
            "if [ -f {p} ]; then {STAT} {p}; sha256sum <{p}; elif [ -e {p} ]; then echo other; else echo absent; fi"
        )
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let mut words = found.split_whitespace();
        let wanted = digest(&self.content);
        let (mode, owner) = (self.mode.as_deref(), self.owner.as_deref());
        let new = |mode: &str, owner: &str| text(shown(&wanted, mode, owner));
        let q = quote(&self.path);
        if found.trim() == "absent" {
            let (mode, owner) = (mode.unwrap_or("0644"), owner.unwrap_or("root:root"));
            let act = put(&q, &self.content, mode, owner);
            return Ok(Some(Diff::one(Part::new(self.what(), None, new(mode, owner)), act).at(&self.path)));
        }
        if found.trim() == "other" {
            return Err(OpError::conflict(format!("{} is there, but is no file", self.path)));
        }
        let (Some(stat), Some(sum)) = (Stat::parse(&mut words), words.next()) else {
            return Err(unreadable(&self.what(), found));
        };
        let before = text(shown(sum, stat.mode, stat.names));
        let after = new(mode.unwrap_or(stat.mode), owner.unwrap_or(stat.names));
        if sum != wanted {
            let act = put(&q, &self.content, mode.unwrap_or(stat.mode), owner.unwrap_or(stat.ids));
            return Ok(Some(Diff::one(Part::new(self.what(), before, after), act).at(&self.path)));
        }
        let act = rights(&q, &stat, mode, owner);
        Ok(act.map(|a| Diff::one(Part::new(self.what(), before, after), a)))
    }
}

fn rights(quoted: &str, stat: &Stat<'_>, mode: Option<&str>, owner: Option<&str>) -> Option<String> {
    let mut act = Vec::new();
    if let Some(o) = owner.filter(|_| !stat.has_owner(owner)) {
        act.push(format!("chown {} {quoted}", quote(o)));
    }
    if let Some(m) = mode.filter(|_| !stat.has_mode(mode)) {
        act.push(format!("chmod {} {quoted}", quote(m)));
    }
    (!act.is_empty()).then(|| act.join(" && "))
}

pub(super) fn unreadable(what: &str, found: &str) -> OpError {
    OpError::failed(format!("cannot tell the state of {what}")).last_seen(found.trim().to_owned())
}

impl Item for Directory {
    fn what(&self) -> String {
        format!("directory {}", self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn look(&self) -> String {
        let p = quote(&self.path);
        format!("if [ -d {p} ]; then {STAT} {p}; elif [ -e {p} ]; then echo other; else echo absent; fi")
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let q = quote(&self.path);
        let (mode, owner) = (self.mode.as_deref(), self.owner.as_deref());
        if found.trim() == "absent" {
            let (mode, owner) = (mode.unwrap_or("0755"), owner.unwrap_or("root:root"));
            let act = format!("mkdir -p {q} && chmod {} {q} && chown {} {q}", quote(mode), quote(owner));
            return Ok(Some(Diff::one(Part::new(self.what(), None, text(format!("{mode} {owner}"))), act)));
        }
        if found.trim() == "other" {
            return Err(OpError::conflict(format!("{} is there, but is no directory", self.path)));
        }
        let stat = Stat::parse(&mut found.split_whitespace()).ok_or_else(|| unreadable(&self.what(), found))?;
        let before = text(format!("{} {}", stat.mode, stat.names));
        let after = text(format!("{} {}", mode.unwrap_or(stat.mode), owner.unwrap_or(stat.names)));
        Ok(rights(&q, &stat, mode, owner).map(|a| Diff::one(Part::new(self.what(), before, after), a)))
    }
}

impl Item for Link {
    fn what(&self) -> String {
        format!("link {}", self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn look(&self) -> String {
        let p = quote(&self.path);
        format!(
            "if t=$(readlink {p} 2>/dev/null); then printf 'to %s' \"$t\"; elif [ -e {p} ]; then echo other; \
             else echo absent; fi"
        )
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let before = match found.strip_prefix("to ") {
            Some(t) if t == self.target => return Ok(None),
            Some(t) => text(t),
            None if found.trim() == "absent" => None,
            None => return Err(OpError::conflict(format!("{} is there, but is no link", self.path))),
        };
        let parent = self.path.rsplit_once('/').map_or("/", |(d, _)| if d.is_empty() { "/" } else { d });
        let act = format!("mkdir -p {} && ln -sfn {} {}", quote(parent), quote(&self.target), quote(&self.path));
        Ok(Some(Diff::one(Part::new(self.what(), before, text(self.target.clone())), act).at(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: Option<&str>, owner: Option<&str>) -> File {
        File {
            path: "/etc/x".into(),
            content: b"hello\n".to_vec(),
            mode: mode.map(str::to_owned),
            owner: owner.map(str::to_owned),
            phase: Phase::Files,
            noun: "file",
        }
    }

    #[test]
    fn a_file_that_is_right_needs_nothing() {
        let found = format!("644 root:root 0:0\n{}  -", digest(b"hello\n"));
        assert_eq!(file(Some("0644"), Some("root")).diff(&found, &Changed::new()).unwrap(), None);
        assert_eq!(file(None, Some("0:0")).diff(&found, &Changed::new()).unwrap(), None);
        let d = file(Some("0600"), Some("nobody")).diff(&found, &Changed::new()).unwrap().unwrap();
        assert_eq!(d.act, "chown nobody /etc/x && chmod 0600 /etc/x");
        assert_eq!(d.path, None);
    }

    #[test]
    fn content_never_shows_in_changes() {
        let d = file(None, None).diff("absent", &Changed::new()).unwrap().unwrap();
        assert_eq!(d.parts[0].before, None);
        assert!(!format!("{:?}", d.parts).contains("hello"));
        assert_eq!(d.path.as_deref(), Some("/etc/x"));
        let e = file(None, None).diff("other", &Changed::new()).unwrap_err();
        assert_eq!(e.message, "/etc/x is there, but is no file");
    }

    #[test]
    fn links_compare_their_target() {
        let l = Link { path: "/a/b".into(), target: "/c".into(), phase: Phase::Files };
        assert_eq!(l.diff("to /c", &Changed::new()).unwrap(), None);
        assert_eq!(l.diff("to /d", &Changed::new()).unwrap().unwrap().act, "mkdir -p /a && ln -sfn /c /a/b");
    }
}
