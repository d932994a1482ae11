//! Wanted files, directories and links.

use crate::core::error::{OpError, OpResult};
use crate::ssh::digest;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::program::put;

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

/// Neither file nor link at a path.
pub(super) struct Absent {
    pub path: String,
    pub phase: Phase,
}

/// What is at a path: the answer to `Probe::Path`, `Digest` and `Text`.
pub(super) struct Seen<'a> {
    /// `file`, `dir`, `other`, `absent`: what is there, through links.
    pub kind: &'a str,
    /// Whether the path itself is a link.
    pub link: bool,
    /// Mode in octal.
    pub mode: &'a str,
    names: &'a str,
    /// Numbers of user and group.
    pub ids: &'a str,
    /// Digest or text.
    pub more: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// `failed` when it is none.
    pub(super) fn read(what: &str, found: &'a str) -> OpResult<Self> {
        let mut words = found.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let link = kind.starts_with("link-");
        let kind = kind.trim_start_matches("link-");
        let stat = (words.next(), words.next(), words.next());
        match (kind, stat) {
            ("absent", _) => Ok(Seen { kind, link, mode: "", names: "", ids: "", more: None }),
            ("file" | "dir" | "other", (Some(mode), Some(names), Some(ids))) => {
                Ok(Seen { kind, link, mode, names, ids, more: words.next() })
            }
            _ => Err(unreadable(what, found)),
        }
    }

    fn has_mode(&self, wanted: Option<&str>) -> bool {
        let octal = |s: &str| u32::from_str_radix(s, 8).ok();
        wanted.is_none_or(|w| octal(w) == octal(self.mode))
    }

    fn has_owner(&self, wanted: Option<&str>) -> bool {
        let Some(w) = wanted else { return true };
        let w = w.trim_end_matches(':');
        let user = |s: &'a str| s.split(':').next().unwrap_or_default();
        if w.contains(':') { w == self.names || w == self.ids } else { w == user(self.names) || w == user(self.ids) }
    }

    /// Shell text that gives the wanted rights; `None` when they are right.
    fn rights(&self, quoted: &str, mode: Option<&str>, owner: Option<&str>) -> Option<String> {
        let mut act = Vec::new();
        let right_owner = self.has_owner(owner);
        if let Some(o) = owner.filter(|_| !right_owner) {
            act.push(format!("chown {} {quoted}", quote(o)));
        }
        // A change of the owner takes the set-user-id bits away.
        if let Some(m) = mode.filter(|_| !right_owner || !self.has_mode(mode)) {
            act.push(format!("chmod {} {quoted}", quote(m)));
        }
        (!act.is_empty()).then(|| act.join(" && "))
    }
}

fn shown(digest: &str, mode: &str, owner: &str) -> String {
    let short: String = digest.chars().take(12).collect();
    format!("sha256:{short} {mode} {owner}")
}

pub(super) fn unreadable(what: &str, found: &str) -> OpError {
    OpError::failed(format!("cannot tell the state of {what}")).last_seen(found.trim().to_owned())
}

impl File {
    /// What differs; `with_content` makes the act that writes, given mode and owner.
    pub(super) fn differs(&self, found: &str, with_content: impl Fn(&str, &str) -> String) -> OpResult<Option<Diff>> {
        let seen = Seen::read(&self.what(), found)?;
        let wanted = digest(&self.content);
        let (mode, owner) = (self.mode.as_deref(), self.owner.as_deref());
        let new = |mode: &str, owner: &str| text(shown(&wanted, mode, owner));
        if seen.kind == "dir" || seen.kind == "other" {
            return Err(OpError::conflict(format!("{} is there, but is no file", self.path)));
        }
        if seen.kind == "absent" || seen.link {
            // A link is replaced, not followed: what it points to belongs to somebody else.
            let before = if seen.link { text("a link") } else { None };
            let m = mode.unwrap_or("0644");
            let part = Part::new(self.what(), before, new(m, owner.unwrap_or("root:root")));
            return Ok(Some(Diff::one(part, with_content(m, owner.unwrap_or_default())).at(&self.path)));
        }
        let Some(sum) = seen.more else { return Err(unreadable(&self.what(), found)) };
        let before = text(shown(sum, seen.mode, seen.names));
        let after = new(mode.unwrap_or(seen.mode), owner.unwrap_or(seen.names));
        if sum != wanted {
            let act = with_content(mode.unwrap_or(seen.mode), owner.unwrap_or(seen.ids));
            return Ok(Some(Diff::one(Part::new(self.what(), before, after), act).at(&self.path)));
        }
        let act = seen.rights(&quote(&self.path), mode, owner);
        Ok(act.map(|a| Diff::one(Part::new(self.what(), before, after), a)))
    }
}

impl Item for File {
    fn what(&self) -> String {
        format!("{} {}", self.noun, self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn probe(&self) -> Probe {
        Probe::Digest(self.path.clone())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        self.differs(found, |mode, owner| put(&quote(&self.path), &self.content, mode, owner))
    }
}

impl Item for Directory {
    fn what(&self) -> String {
        format!("directory {}", self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn probe(&self) -> Probe {
        Probe::Path(self.path.clone())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let q = quote(&self.path);
        let (mode, owner) = (self.mode.as_deref(), self.owner.as_deref());
        let seen = Seen::read(&self.what(), found)?;
        match seen.kind {
            "absent" if !seen.link => {
                let mut act = format!("mkdir -p {q}");
                // What the mask gives needs no further process.
                if let Some(m) = mode.filter(|m| u32::from_str_radix(m, 8) != Ok(0o755)) {
                    act.push_str(&format!(" && chmod {} {q}", quote(m)));
                }
                if let Some(o) = owner {
                    let again = if mode.is_some_and(|m| m.len() == 4 && !m.starts_with('0')) { mode } else { None };
                    act.push_str(&format!(" && chown {} {q}", quote(o)));
                    // A change of the owner may take the set-group-id bit away.
                    act.push_str(&again.map_or(String::new(), |m| format!(" && chmod {} {q}", quote(m))));
                }
                let after = text(format!("{} {}", mode.unwrap_or("0755"), owner.unwrap_or("root:root")));
                Ok(Some(Diff::one(Part::new(self.what(), None, after), act)))
            }
            "dir" => {
                let before = text(format!("{} {}", seen.mode, seen.names));
                let after = text(format!("{} {}", mode.unwrap_or(seen.mode), owner.unwrap_or(seen.names)));
                let act = seen.rights(&q, mode, owner);
                Ok(act.map(|a| Diff::one(Part::new(self.what(), before, after), a)))
            }
            _ => Err(OpError::conflict(format!("{} is there, but is no directory", self.path))),
        }
    }
}

impl Item for Link {
    fn what(&self) -> String {
        format!("link {}", self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn probe(&self) -> Probe {
        let p = quote(&self.path);
        Probe::Shell(format!(
            "if [ -h {p} ]; then printf 'to %s\\n' \"$(readlink {p})\"; elif [ -e {p} ]; then echo other; else echo absent; fi"
        ))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let before = match found.strip_suffix('\n').unwrap_or(found).strip_prefix("to ") {
            // The shell drops line ends at the end of a target.
            Some(t) if t == self.target.trim_end_matches('\n') => return Ok(None),
            Some(t) => text(t),
            None if found.trim() == "absent" => None,
            None => return Err(OpError::conflict(format!("{} is there, but is no link", self.path))),
        };
        let parent = self.path.rsplit_once('/').map_or("/", |(d, _)| if d.is_empty() { "/" } else { d });
        let act = format!(
            "{{ [ -d {0} ] || mkdir -p {0}; }} && ln -sfn -- {1} {2}",
            quote(parent),
            quote(&self.target),
            quote(&self.path)
        );
        Ok(Some(Diff::one(Part::new(self.what(), before, text(self.target.clone())), act).at(&self.path)))
    }
}

impl Item for Absent {
    fn what(&self) -> String {
        format!("file {}", self.path)
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn probe(&self) -> Probe {
        Probe::Path(self.path.clone())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let seen = Seen::read(&self.what(), found)?;
        let before = match (seen.kind, seen.link) {
            ("absent", false) => return Ok(None),
            (_, true) => text("a link"),
            ("file", _) => text(format!("{} {}", seen.mode, seen.names)),
            _ => {
                return Err(OpError::conflict(format!(
                    "{} is a directory or a device, which is not removed",
                    self.path
                )));
            }
        };
        let act = format!("rm -f {}", quote(&self.path));
        Ok(Some(Diff::one(Part::new(self.what(), before, text("absent")), act).at(&self.path)))
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
        let none = Changed::new();
        let found = format!("file 644 root:root 0:0 {}", digest(b"hello\n"));
        assert_eq!(file(Some("0644"), Some("root")).diff(&found, &none).unwrap(), None);
        assert_eq!(file(None, Some("0:0")).diff(&found, &none).unwrap(), None);
        let d = file(Some("0600"), Some("nobody")).diff(&found, &none).unwrap().unwrap();
        assert_eq!(d.act, "chown nobody /etc/x && chmod 0600 /etc/x");
        assert_eq!(d.path, None);
        let d = file(None, None).diff(&found.replace("file", "link-file"), &none).unwrap().unwrap();
        assert_eq!(d.act, "put /etc/x 0644 '' 'hello\n'");
    }

    #[test]
    fn content_never_shows_in_changes() {
        let d = file(None, None).diff("absent", &Changed::new()).unwrap().unwrap();
        assert_eq!(d.parts[0].before, None);
        assert!(!format!("{:?}", d.parts).contains("hello"));
        assert_eq!(d.path.as_deref(), Some("/etc/x"));
        let e = file(None, None).diff("dir 755 root:root 0:0", &Changed::new()).unwrap_err();
        assert_eq!(e.message, "/etc/x is there, but is no file");
    }

    #[test]
    fn links_compare_their_target() {
        let l = Link { path: "/a/b".into(), target: "/c".into(), phase: Phase::Files };
        assert_eq!(l.diff("to /c\n", &Changed::new()).unwrap(), None);
        assert!(l.diff("to /d\n", &Changed::new()).unwrap().unwrap().act.ends_with("ln -sfn -- /c /a/b"));
    }

    #[test]
    fn only_files_and_links_are_removed() {
        let a = Absent { path: "/a".into(), phase: Phase::Files };
        assert_eq!(a.diff("absent", &Changed::new()).unwrap(), None);
        assert_eq!(a.diff("link-absent", &Changed::new()).unwrap().unwrap().act, "rm -f /a");
        assert!(a.diff("dir 755 root:root 0:0", &Changed::new()).is_err());
    }
}
