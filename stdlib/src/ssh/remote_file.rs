//! One file of a host: what is there, and how it is replaced at once with mode, owner and extended attributes kept.
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;

use super::options::FileOptions;
use super::quote::quote;
use super::textdiff;

/// Contents up to this size are fetched with the look when they differ, for the diff.
const SHOWN: usize = 65_536;

/// What a file of a host shall be.
pub(super) struct Wanted<'a> {
    pub path: &'a str,
    /// SHA-256 in hex.
    pub digest: String,
    pub len: u64,
    pub options: &'a FileOptions,
    /// The content, when it is small text that may be shown.
    pub text: Option<&'a str>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Absent,
    File {
        mode: String,
        /// `user:group`.
        names: String,
        /// `uid:gid`.
        ids: String,
        digest: String,
        /// The content, when it was asked for and small.
        text: Option<String>,
    },
}

/// What is to be done.
pub(super) struct Plan {
    pub change: Change,
    /// The content differs, too.
    pub content: bool,
    /// Mode and owner for the new file.
    pub mode: String,
    pub owner: Option<String>,
    /// The difference of two texts.
    pub diff: Option<String>,
}

/// Shell text that prints the state of `path`; the content too if it is small and not `digest`.
pub(super) fn look(path: &str, digest: &str) -> String {
    format!(
        "f={q}\nif [ -f \"$f\" ]; then stat -L -c '%a %U:%G %u:%g %s' \"$f\" || exit 1\n\
         s=$(sha256sum <\"$f\") || exit 1\nprintf '%s\\n' \"${{s%% *}}\"\n\
         [ \"${{s%% *}}\" = {d} ] || [ \"$(stat -L -c %s \"$f\")\" -gt {SHOWN} ] || base64 <\"$f\"\n\
         elif [ -e \"$f\" ]; then echo other; else echo absent; fi",
        q = quote(path),
        d = quote(digest),
    )
}

/// Reads what [`look`] printed.
pub(super) fn parse(path: &str, out: &str) -> OpResult<Found> {
    use base64::Engine as _;
    let mut lines = out.lines();
    let unreadable = || OpError::failed(format!("cannot tell the state of {path}")).last_seen(out.trim().to_owned());
    match lines.next().map(str::trim) {
        Some("absent") => Ok(Found::Absent),
        Some("other") => Err(OpError::conflict(format!("{path} is there, but is no file"))
            .hint("remove it by hand, or choose another path")),
        Some(stat) => {
            let words: Vec<&str> = stat.split_whitespace().collect();
            let (&[mode, names, ids, _], Some(digest)) = (words.as_slice(), lines.next()) else {
                return Err(unreadable());
            };
            let packed: String = lines.collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed.as_bytes()).ok();
            let text = bytes.filter(|_| !packed.is_empty()).and_then(|b| String::from_utf8(b).ok());
            Ok(Found::File {
                mode: mode.to_owned(),
                names: names.to_owned(),
                ids: ids.to_owned(),
                digest: digest.trim().to_owned(),
                text,
            })
        }
        None => Err(unreadable()),
    }
}

/// SHA-256 in hex.
pub(crate) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

fn shown(digest: &str, mode: &str, owner: &str) -> serde_json::Value {
    let short: String = digest.chars().take(12).collect();
    json!(format!("sha256:{short} {mode} {owner}"))
}

/// Whether the mode lets everybody read: what everybody may read is no secret.
fn public(mode: &str) -> bool {
    u32::from_str_radix(mode, 8).is_ok_and(|m| m & 0o004 != 0)
}

impl Wanted<'_> {
    /// What to do, if anything.
    pub(super) fn plan(&self, host: &str, found: &Found) -> Option<Plan> {
        let o = self.options;
        let what = format!("file {}", self.path);
        match found {
            Found::Absent => {
                let mode = o.mode.clone().unwrap_or_else(|| "0644".to_owned());
                let owner = o.owner.clone().or_else(|| o.r#become.then(|| "root:root".to_owned()));
                let after = shown(&self.digest, &mode, owner.as_deref().unwrap_or("(the login user)"));
                let diff = self.text.filter(|_| o.diff && public(&mode)).map(|t| textdiff::unified("", t));
                Some(Plan { change: Change::new(host, what, None, Some(after)), content: true, mode, owner, diff })
            }
            Found::File { mode, names, ids, digest, text } => {
                let octal = |s: &str| u32::from_str_radix(s, 8).ok();
                let content = *digest != self.digest;
                let same_mode = o.mode.as_deref().is_none_or(|m| octal(m) == octal(mode));
                let same_owner = o.owner.as_deref().is_none_or(|w| is_owner(w, names) || is_owner(w, ids));
                if !content && same_mode && same_owner {
                    return None;
                }
                let new_mode = o.mode.clone().unwrap_or_else(|| mode.clone());
                let after = shown(&self.digest, &new_mode, o.owner.as_deref().unwrap_or(names));
                let change = Change::new(host, what, Some(shown(digest, mode, names)), Some(after));
                let diff = match (text, self.text) {
                    (Some(old), Some(new)) if content && o.diff && public(mode) && public(&new_mode) => {
                        Some(textdiff::unified(old, new))
                    }
                    _ => None,
                };
                let owner = o.owner.clone().or_else(|| o.r#become.then(|| ids.clone()));
                Some(Plan { change, content, mode: new_mode, owner, diff })
            }
        }
    }
}

fn is_owner(wanted: &str, there: &str) -> bool {
    let wanted = wanted.trim_end_matches(':');
    wanted == there || (!wanted.contains(':') && there.split(':').next() == Some(wanted))
}

/// A name beside `path` for a file that is not complete yet.
pub(super) fn beside(path: &str) -> String {
    let dir = path.rfind('/').map_or("", |i| &path[..i]);
    format!("{dir}/.gpuhost.{}", uuid::Uuid::new_v4().simple())
}

impl Plan {
    /// Shell text that replaces the file by standard input (or by the complete file `t`, when `given`).
    pub(super) fn act(&self, path: &str, digest: &str, given: Option<&str>) -> String {
        let temp = given.map_or_else(|| beside(path), str::to_owned);
        let mut out = format!("f={}\nt={}\n", quote(path), quote(&temp));
        // A link stays a link: what it leads to is replaced.
        out.push_str("[ -L \"$f\" ] && f=$(readlink -f \"$f\")\n");
        if !self.content {
            out.push_str(&self.rights("$f"));
            return out;
        }
        out.push_str("trap 'rm -f \"$t\"' EXIT\nset -e\numask 077\n");
        if given.is_none() {
            out.push_str("d=${t%/*}; [ -d \"${d:-/}\" ] || ( umask 022; mkdir -p \"$d\" )\n: >\"$t\"\n");
        }
        // Extended attributes and ACLs of the old file; not every file system has them.
        out.push_str(
            "[ ! -f \"$f\" ] || cp --attributes-only --preserve=xattr,context \"$f\" \"$t\" 2>/dev/null || \
             cp --attributes-only --preserve=xattr \"$f\" \"$t\" 2>/dev/null || :\n",
        );
        if given.is_none() {
            out.push_str("cat >\"$t\"\n");
        }
        out.push_str(&format!(
            "s=$(sha256sum <\"$t\")\nif [ \"${{s%% *}}\" != {digest} ]; then echo 'the content was cut off on its way' >&2; \
             exit 1; fi\n"
        ));
        out.push_str(&self.rights("$t"));
        out.push_str("mv -f \"$t\" \"$f\"\n");
        out
    }

    /// Owner first: a change of owner takes set-uid bits away.
    fn rights(&self, word: &str) -> String {
        let owner = self.owner.as_ref().map(|o| format!("chown {} \"{word}\" && ", quote(o))).unwrap_or_default();
        format!("{owner}chmod {} \"{word}\"\n", quote(&self.mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(mode: &str, content: &str) -> Found {
        Found::File {
            mode: mode.into(),
            names: "root:root".into(),
            ids: "0:0".into(),
            digest: digest(content.as_bytes()),
            text: Some(content.into()),
        }
    }

    fn plan(found: &Found, content: &str, options: &FileOptions) -> Option<Plan> {
        let digest = digest(content.as_bytes());
        Wanted { path: "/f", digest, len: content.len() as u64, options, text: Some(content) }.plan("h", found)
    }

    #[test]
    fn only_differences_are_acted_on() {
        let o = FileOptions::default();
        assert!(plan(&there("644", "a"), "a", &o).is_none());
        let owned = FileOptions { owner: Some("root".into()), mode: Some("0644".into()), ..FileOptions::default() };
        assert!(plan(&there("644", "a"), "a", &owned).is_none());
        let p = plan(&there("644", "a"), "a", &FileOptions { mode: Some("0600".into()), ..o.clone() }).unwrap();
        assert!(!p.content && p.act("/f", "", None).ends_with("chown 0:0 \"$f\" && chmod 0600 \"$f\"\n"));
        assert_eq!(plan(&Found::Absent, "a", &o).unwrap().owner.as_deref(), Some("root:root"));
    }

    #[test]
    fn only_what_everybody_may_read_is_shown() {
        let o = FileOptions::default();
        assert!(plan(&there("644", "a\n"), "b\n", &o).unwrap().diff.unwrap().contains("+b"));
        assert_eq!(plan(&there("600", "a\n"), "b\n", &o).unwrap().diff, None);
        let private = FileOptions { mode: Some("0640".into()), ..o };
        assert_eq!(plan(&there("644", "a\n"), "b\n", &private).unwrap().diff, None);
        assert_eq!(plan(&Found::Absent, "b\n", &private).unwrap().diff, None);
    }

    #[test]
    fn answers_are_read() {
        let found = parse("/f", "644 root:root 0:0 2\nabc\nYQo=\n").unwrap();
        assert!(matches!(found, Found::File { text: Some(t), digest, .. } if t == "a\n" && digest == "abc"));
        assert_eq!(parse("/f", "absent\n").unwrap(), Found::Absent);
        assert!(parse("/f", "other\n").is_err() && parse("/f", "").is_err());
        assert_eq!(&beside("/a/b")[..12], "/a/.gpuhost.");
        assert!(beside("/b").starts_with("/.gpuhost."));
    }
}
