//! Lines, `Host` blocks and `Include` of an SSH configuration file.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ssh::home::HomeDir;
use crate::ssh::pattern;

/// OpenSSH's own limit of includes in includes.
const DEEPEST: usize = 16;

/// When a line counts: all of these lists have to match. An empty list never does.
type Conditions = Arc<Vec<Vec<String>>>;

/// One keyword with its arguments.
#[derive(Debug)]
pub(super) struct Entry {
    conditions: Conditions,
    /// Lower case.
    pub key: String,
    pub args: Vec<String>,
    /// `file:line`.
    pub place: String,
}

impl Entry {
    pub(super) fn applies(&self, names: &[&str]) -> bool {
        self.conditions.iter().all(|list| pattern::list(list.iter().map(String::as_str), names))
    }

    pub(super) fn shown(&self) -> String {
        format!("`{} {}` ({})", self.key, self.args.join(" "), self.place)
    }
}

/// Reads files into entries.
pub(super) struct Reader<'a> {
    /// Where relative includes start.
    pub base: &'a Path,
    pub home: &'a HomeDir,
    pub entries: &'a mut Vec<Entry>,
    pub notes: &'a mut Vec<String>,
    pub depth: usize,
}

impl Reader<'_> {
    /// Reads one file; everything in it counts under `outer` only.
    pub(super) fn file(&mut self, text: &str, path: &Path, outer: &Conditions) {
        let mut now = outer.clone();
        for (n, raw) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), n + 1);
            let Some((key, args)) = words(raw) else { continue };
            match key.as_str() {
                "host" => now = also(outer, args),
                "match" if args.len() == 1 && args[0].eq_ignore_ascii_case("all") => now = outer.clone(),
                "match" => {
                    self.notes
                        .push(format!("{place}: `Match {}` is not supported, its block is skipped", args.join(" ")));
                    now = also(outer, Vec::new());
                }
                "include" => {
                    for a in args {
                        self.include(&a, &now, &place);
                    }
                }
                _ => self.entries.push(Entry { conditions: now.clone(), key, args, place }),
            }
        }
    }

    fn include(&mut self, pattern: &str, now: &Conditions, place: &str) {
        if self.depth >= DEEPEST {
            self.notes.push(format!("{place}: too many includes in includes"));
            return;
        }
        let path = match pattern.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => self.base.join(pattern),
        };
        for file in glob(&path) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            self.depth += 1;
            self.file(&text, &file, now);
            self.depth -= 1;
        }
    }
}

fn also(outer: &Conditions, list: Vec<String>) -> Conditions {
    let mut all = outer.as_ref().clone();
    all.push(list);
    Arc::new(all)
}

/// Keyword and arguments of a line: `Key value`, `Key=value`, `"quoted words"`, `# comment`.
pub(super) fn words(raw: &str) -> Option<(String, Vec<String>)> {
    let line = raw.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let mut args = Vec::new();
    let (mut word, mut quoted, mut open) = (String::new(), false, false);
    for c in rest.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                open = true;
            }
            c if c.is_whitespace() && !quoted => {
                if open || !word.is_empty() {
                    args.push(std::mem::take(&mut word));
                }
                open = false;
            }
            '#' if !quoted && !open && word.is_empty() => break,
            c => word.push(c),
        }
    }
    if open || !word.is_empty() {
        args.push(word);
    }
    Some((key.to_ascii_lowercase(), args))
}

/// The files that a path with `*` and `?` in any part names, sorted.
fn glob(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy().into_owned();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|f| f.push(part));
            continue;
        }
        let mut next = Vec::new();
        for dir in &found {
            let Ok(list) = std::fs::read_dir(dir) else { continue };
            let names = list.flatten().map(|e| e.file_name());
            let hits = names.filter(|n| {
                let n = n.to_string_lossy();
                pattern::wildcard(&text, &n) && (text.starts_with('.') || !n.starts_with('.'))
            });
            next.extend(hits.map(|n| dir.join(n)));
        }
        next.sort();
        found = next;
    }
    found
}
