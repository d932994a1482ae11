//! Edits of files that others write too: the text is fetched, changed here, and put back whole.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::files::{Seen, unreadable};
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::program::put;

/// Where the file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Path(String),
    /// `authorized_keys` of a user, wherever the home directory is.
    Keys(String),
}

/// One edit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Edit {
    /// The line is there; it takes the place of the first line that begins with `replaces`.
    Line { line: String, replaces: Option<String> },
    /// `key = value`.
    Setting { key: String, value: String },
    /// The mount point's line in fstab.
    Mount { at: String, line: String },
    /// No line begins like this.
    NoLine { begins: String },
    /// No swap line is active in fstab.
    NoSwap,
    /// The line of a swap file in fstab.
    Swap { path: String },
    /// Names of an address in /etc/hosts.
    Names { ip: String, names: Vec<String> },
}

/// A file with its edits.
pub(super) struct EditFile {
    pub place: Place,
    pub edits: Vec<Edit>,
    pub header: Option<&'static str>,
    pub phase: Phase,
    /// A file that is not there stays so.
    pub only_existing: bool,
}

fn line_index(lines: &[String], hit: impl Fn(&str) -> bool) -> Option<usize> {
    lines.iter().position(|l| hit(l))
}

fn setting(line: &str) -> Option<(&str, &str)> {
    let l = line.trim();
    if l.starts_with(['#', ';']) {
        return None;
    }
    l.split_once('=').map(|(k, v)| (k.trim().trim_start_matches('-'), v.trim()))
}

fn mount_point(line: &str) -> Option<&str> {
    let l = line.trim();
    if l.starts_with('#') { None } else { l.split_whitespace().nth(1) }
}

impl Edit {
    /// Changes `lines`; tells what differed.
    fn apply(&self, lines: &mut Vec<String>, place: &str) -> Option<Part> {
        match self {
            Edit::Line { line, replaces } => {
                let old = replaces.as_deref().and_then(|r| line_index(lines, |l| l.starts_with(r) && l != line));
                if let Some(i) = old {
                    let before = std::mem::replace(&mut lines[i], line.clone());
                    // Later lines of the same beginning would win over ours in many formats.
                    let r = replaces.as_deref().unwrap_or_default();
                    let mut n = 0;
                    lines.retain(|l| {
                        let again = l.starts_with(r);
                        n += usize::from(again);
                        !again || n == 1
                    });
                    return Some(Part::new(format!("line in {place}"), text(before), text(line.clone())));
                }
                if lines.contains(line) {
                    return None;
                }
                lines.push(line.clone());
                Some(Part::new(format!("line in {place}"), None, text(line.clone())))
            }
            Edit::Setting { key, value } => {
                let new = format!("{key} = {value}");
                let part = |before: Option<&str>| {
                    Part::new(format!("{key} in {place}"), before.and_then(text), text(value.clone()))
                };
                match line_index(lines, |l| setting(l).is_some_and(|(k, _)| k == key)) {
                    Some(i) => {
                        let before = setting(&lines[i]).map(|(_, v)| v.to_owned()).unwrap_or_default();
                        if before == *value {
                            return None;
                        }
                        lines[i] = new;
                        Some(part(Some(&before)))
                    }
                    None => {
                        lines.push(new);
                        Some(part(None))
                    }
                }
            }
            Edit::Mount { at, line } => {
                let what = format!("{at} in {place}");
                let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
                match line_index(lines, |l| mount_point(l) == Some(at)) {
                    Some(i) if same(&lines[i], line) => None,
                    Some(i) => {
                        let before = std::mem::replace(&mut lines[i], line.clone());
                        Some(Part::new(what, text(before), text(line.clone())))
                    }
                    None => {
                        lines.push(line.clone());
                        Some(Part::new(what, None, text(line.clone())))
                    }
                }
            }
            Edit::NoLine { begins } => {
                let (gone, kept): (Vec<String>, Vec<String>) =
                    std::mem::take(lines).into_iter().partition(|l| l.starts_with(begins));
                *lines = kept;
                (!gone.is_empty()).then(|| Part::new(format!("line in {place}"), text(gone.join("\n")), text("absent")))
            }
            Edit::Swap { path } => {
                let line = format!("{path} none swap sw 0 0");
                let there = |l: &str| {
                    let mut words = l.split_whitespace();
                    words.next() == Some(path.as_str()) && words.nth(1) == Some("swap")
                };
                if lines.iter().any(|l| there(l)) {
                    return None;
                }
                lines.push(line.clone());
                Some(Part::new(format!("swap in {place}"), None, text(line)))
            }
            Edit::NoSwap => {
                let mut found = Vec::new();
                for l in lines.iter_mut() {
                    if !l.trim_start().starts_with('#') && l.split_whitespace().nth(2) == Some("swap") {
                        found.push(l.clone());
                        *l = format!("# gpuhost: swap is off: {l}");
                    }
                }
                (!found.is_empty()).then(|| Part::new(format!("swap in {place}"), text(found.join("\n")), text("off")))
            }
            Edit::Names { ip, names } => names_edit(lines, ip, names, place),
        }
    }
}

const OURS: &str = "# gpuhost";

fn names_edit(lines: &mut Vec<String>, ip: &str, names: &[String], place: &str) -> Option<Part> {
    let new = format!("{ip} {} {OURS}", names.join(" "));
    let of_ip = |l: &str| !l.trim_start().starts_with('#') && l.split_whitespace().next() == Some(ip);
    let plain = |l: &str| l.split('#').next().unwrap_or_default().to_owned();
    let known = lines.iter().filter(|l| of_ip(l)).any(|l| {
        let body = plain(l);
        let have: Vec<&str> = body.split_whitespace().skip(1).collect();
        names.iter().all(|n| have.contains(&n.as_str()))
    });
    if known {
        return None;
    }
    let what = format!("{ip} in {place}");
    match line_index(lines, |l| of_ip(l) && l.trim_end().ends_with(OURS)) {
        Some(i) => {
            let before = plain(&std::mem::replace(&mut lines[i], new));
            Some(Part::new(what, text(before.trim()), text(format!("{ip} {}", names.join(" ")))))
        }
        None => {
            lines.push(new);
            Some(Part::new(what, None, text(format!("{ip} {}", names.join(" ")))))
        }
    }
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Place::Path(p) => p.clone(),
            Place::Keys(u) => format!("authorized_keys of {u}"),
        }
    }
    /// Shell text that sets `p` (and `d`, its directory below the home).
    fn shell(&self) -> String {
        match self {
            Place::Path(p) => format!("p={}", quote(p)),
            Place::Keys(u) => format!(
                "p=$(getent passwd {} | cut -d: -f6); [ -n \"$p\" ] || p={}; d=$p/.ssh; p=$p/.ssh/authorized_keys",
                quote(u),
                quote(&if u == "root" { "/root".to_owned() } else { format!("/home/{u}") })
            ),
        }
    }
}

impl EditFile {
    fn edited(&self, old: Option<&str>) -> (String, Vec<Part>) {
        let place = self.place.shown();
        let mut lines: Vec<String> = match (old, self.header) {
            // Not `lines()`: a carriage return at the end of a line is somebody's.
            (Some(t), _) => t.strip_suffix('\n').unwrap_or(t).split('\n').map(str::to_owned).collect(),
            (None, Some(h)) => vec![h.to_owned()],
            (None, None) => Vec::new(),
        };
        let parts: Vec<Part> = self.edits.iter().filter_map(|e| e.apply(&mut lines, &place)).collect();
        (lines.join("\n") + "\n", parts)
    }

    fn content(&self, found: &str, seen: &Seen<'_>) -> OpResult<String> {
        let bytes = STANDARD
            .decode(seen.more.unwrap_or_default())
            .map_err(|e| unreadable(&self.what(), found).because(e.to_string()))?;
        String::from_utf8(bytes).map_err(|_| OpError::conflict(format!("{} is no UTF-8 text", self.place.shown())))
    }

    fn act(&self, new: &str, mode: &str, owner: &str) -> String {
        let mut act = self.place.shell();
        let mut path = "\"$p\"".to_owned();
        match &self.place {
            Place::Keys(u) => {
                // The user owns the directory: a link there could lead us anywhere.
                let u = quote(u);
                act.push_str(&format!(
                    "\nif [ -h \"$d\" ] || [ -h \"$p\" ]; then echo \"$d or $p is a link\"; return 1; fi\n\
                     [ -d \"$d\" ] || {{ mkdir -p \"$d\" && chmod 0700 \"$d\" && chown {u}: \"$d\"; }} || return 1\n"
                ));
            }
            Place::Path(p) => {
                act.clear();
                path = quote(p);
            }
        }
        act.push_str(&put(&path, new.as_bytes(), mode, owner));
        act
    }
}

impl Item for EditFile {
    fn what(&self) -> String {
        format!("lines of {}", self.place.shown())
    }
    fn phase(&self) -> Phase {
        self.phase
    }
    fn probe(&self) -> Probe {
        match &self.place {
            Place::Path(p) => Probe::Text(p.clone()),
            Place::Keys(_) => Probe::Shell(format!(
                "{}; if [ -f \"$p\" ]; then echo \"file $(stat -L -c '%a %U:%G %u:%g' \"$p\")\"; base64 \"$p\"; \
                 else echo absent; fi",
                self.place.shell()
            )),
        }
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        // The shell's own answer may have line ends in the base64 text.
        let joined;
        let found = match &self.place {
            Place::Path(_) => found,
            Place::Keys(_) => {
                let mut lines = found.trim().lines();
                let head = lines.next().unwrap_or_default().to_owned();
                joined = format!("{head} {}", lines.collect::<String>());
                joined.as_str()
            }
        };
        let seen = Seen::read(&self.what(), found)?;
        let (mode, owner, old) = match seen.kind {
            "absent" if self.only_existing => return Ok(None),
            "absent" => match &self.place {
                Place::Path(_) => ("0644".to_owned(), String::new(), None),
                Place::Keys(u) => ("0600".to_owned(), format!("{u}:"), None),
            },
            "file" => (seen.mode.to_owned(), seen.ids.to_owned(), Some(self.content(found, &seen)?)),
            _ => return Err(OpError::conflict(format!("{} is there, but is no file", self.place.shown()))),
        };
        let (new, parts) = self.edited(old.as_deref());
        if parts.is_empty() {
            return Ok(None);
        }
        let diff = Diff::of(parts, self.act(&new, &mode, &owner));
        Ok(Some(match &self.place {
            Place::Path(p) => diff.at(p),
            Place::Keys(_) => diff,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(old: Option<&str>, edits: Vec<Edit>) -> (String, usize) {
        let place = Place::Path("/x".into());
        let f = EditFile { place, edits, header: Some("# head"), phase: Phase::Files, only_existing: false };
        let (t, parts) = f.edited(old);
        // Applying twice changes nothing.
        let (again, none) = f.edited(Some(&t));
        assert_eq!((again.as_str(), none.len()), (t.as_str(), 0));
        (t, parts.len())
    }

    #[test]
    fn lines_are_added_or_replaced() {
        let add = Edit::Line { line: "b".into(), replaces: None };
        assert_eq!(run(Some("a\n"), vec![add.clone()]), ("a\nb\n".into(), 1));
        assert_eq!(run(Some("a\nb"), vec![add.clone()]), ("a\nb\n".into(), 0));
        assert_eq!(run(None, vec![add.clone()]), ("# head\nb\n".into(), 1));
        assert_eq!(run(Some("a\r\n\nc"), vec![add]), ("a\r\n\nc\nb\n".into(), 1));
        let gone = Edit::NoLine { begins: "Port".into() };
        assert_eq!(run(Some("Port 1\nX\nPort 2\n"), vec![gone]), ("X\n".into(), 1));
        let swap = Edit::Swap { path: "/swapfile".into() };
        assert_eq!(run(Some("/swapfile none swap sw,pri=1 0 0\n"), vec![swap.clone()]).1, 0);
        assert_eq!(run(Some(""), vec![swap]).1, 1);
        let root = Edit::Line { line: "PermitRootLogin no".into(), replaces: Some("PermitRootLogin".into()) };
        let old = "X\nPermitRootLogin yes\nY\nPermitRootLogin maybe\n";
        assert_eq!(run(Some(old), vec![root]), ("X\nPermitRootLogin no\nY\n".into(), 1));
    }

    #[test]
    fn settings_keep_their_neighbours() {
        let e = vec![
            Edit::Setting { key: "vm.swappiness".into(), value: "1".into() },
            Edit::Setting { key: "net.ipv4.ip_forward".into(), value: "1".into() },
        ];
        let old = "# c\nvm.swappiness=10\nkernel.panic = 10\n";
        assert_eq!(
            run(Some(old), e),
            ("# c\nvm.swappiness = 1\nkernel.panic = 10\nnet.ipv4.ip_forward = 1\n".into(), 2)
        );
    }

    #[test]
    fn fstab_and_swap() {
        let line = "LABEL=data /srv ext4 defaults,nofail 0 2".to_owned();
        let e = vec![Edit::Mount { at: "/srv".into(), line: line.clone() }, Edit::NoSwap];
        let old = "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/dev/sdb /srv xfs defaults 0 0\n";
        let (t, n) = run(Some(old), e);
        assert_eq!(n, 2);
        assert_eq!(t, format!("UUID=1 / ext4 defaults 0 1\n# gpuhost: swap is off: UUID=2 none swap sw 0 0\n{line}\n"));
    }

    #[test]
    fn host_names_do_not_touch_lines_of_others() {
        let e = vec![Edit::Names { ip: "10.0.0.1".into(), names: vec!["a".into(), "b".into()] }];
        let (t, _) = run(Some("10.0.0.1 other\n127.0.0.1 localhost\n"), e.clone());
        assert_eq!(t, "10.0.0.1 other\n127.0.0.1 localhost\n10.0.0.1 a b # gpuhost\n");
        assert_eq!(run(Some("10.0.0.1 b x a\n"), e).1, 0);
    }
}
