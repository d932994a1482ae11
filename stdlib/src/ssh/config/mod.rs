//! The user's SSH configuration (`~/.ssh/config`, `/etc/ssh/ssh_config`). A lab run never reads it.
mod parse;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};

use super::home::HomeDir;
use parse::Entry;

/// All lines of the configuration, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Config {
    entries: Vec<Entry>,
    /// What the files say that is not supported, with its place.
    notes: Vec<String>,
}

/// What the configuration says of one host; the first value of a keyword counts.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Found {
    pub host_name: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_files: Vec<PathBuf>,
    pub certificate_files: Vec<PathBuf>,
    /// Only the identities that are named here, not those of an agent.
    pub identities_only: bool,
    /// `none`, or the socket of an agent.
    pub identity_agent: Option<String>,
    /// Hops in order; empty for `none`.
    pub proxy_jump: Option<Vec<String>>,
    /// Where a `ProxyCommand` stands, which is not supported.
    pub proxy_command: Option<String>,
    /// Files instead of `~/.ssh/known_hosts`.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// Keys of unknown hosts are taken and kept (`StrictHostKeyChecking accept-new`, `no`, `off`).
    pub new_keys: bool,
    pub host_key_alias: Option<String>,
    pub connect_timeout: Option<u64>,
}

impl Config {
    /// The configuration of the user who runs this; empty in the lab. Read once in a run.
    pub(super) fn of(ctx: &Ctx) -> Arc<Config> {
        super::shared(ctx, "ssh config", || {
            let Some(home) = HomeDir::of(ctx) else { return Config::default() };
            let mut all = Config::default();
            for (path, base) in
                [(home.join(".ssh/config"), home.join(".ssh")), (home.system("ssh_config"), home.system(""))]
            {
                if let Ok(text) = std::fs::read_to_string(&path) {
                    all.add(&text, &path, &base, &home);
                }
            }
            for note in &all.notes {
                ctx.message("warn", format!("ssh configuration: {note}"));
            }
            all
        })
    }

    fn add(&mut self, text: &str, path: &Path, base: &Path, home: &HomeDir) {
        let mut reader = parse::Reader { base, home, entries: &mut self.entries, notes: &mut self.notes, depth: 0 };
        reader.file(text, path, &Arc::new(Vec::new()));
    }

    /// What it says of the host that the recipe calls by one of `names`.
    ///
    /// # Errors
    /// `invalid` for a value that cannot be read.
    pub(super) fn find(&self, names: &[&str], home: Option<&HomeDir>) -> OpResult<Found> {
        let mut f = Found::default();
        let mut seen: Vec<&str> = Vec::new();
        for e in self.entries.iter().filter(|e| e.applies(names)) {
            let first = !seen.contains(&e.key.as_str());
            seen.push(&e.key);
            f.take(e, first)?;
        }
        let name = names.first().copied().unwrap_or_default();
        f.host_name = f.host_name.map(|h| h.replace("%h", name).replace("%%", "%"));
        f.expand(name, home);
        Ok(f)
    }
}

impl Found {
    fn take(&mut self, e: &Entry, first: bool) -> OpResult<()> {
        let word = e.args.first().map(String::as_str).unwrap_or_default();
        let bad = |what: &str| {
            OpError::invalid(format!("{} is not {what}", e.shown())).hint("correct the line, then run again")
        };
        match e.key.as_str() {
            "identityfile" if word != "none" => self.identity_files.push(PathBuf::from(word)),
            "certificatefile" => self.certificate_files.push(PathBuf::from(word)),
            _ if !first => {}
            "hostname" => self.host_name = Some(word.to_owned()),
            "user" => self.user = Some(word.to_owned()),
            "port" => {
                self.port = Some(word.parse().ok().filter(|p| *p > 0).ok_or_else(|| bad("a TCP port"))?);
            }
            "identitiesonly" => self.identities_only = word.eq_ignore_ascii_case("yes"),
            "identityagent" => self.identity_agent = Some(word.to_owned()),
            "proxyjump" => {
                let hops = e.args.join(",");
                let none = hops.eq_ignore_ascii_case("none");
                let list = hops.split(',').map(str::trim).filter(|h| !h.is_empty() && !none);
                self.proxy_jump = Some(list.map(str::to_owned).collect());
            }
            "proxycommand" if !word.eq_ignore_ascii_case("none") => self.proxy_command = Some(e.place.clone()),
            "userknownhostsfile" => {
                let files = e.args.iter().filter(|a| *a != "none" && *a != "/dev/null");
                self.known_hosts = Some(files.map(PathBuf::from).collect());
            }
            "stricthostkeychecking" => match word.to_ascii_lowercase().as_str() {
                "yes" | "ask" | "true" => {}
                "accept-new" | "no" | "off" | "false" => self.new_keys = true,
                _ => return Err(bad("`yes`, `ask`, `accept-new` or `no`")),
            },
            "hostkeyalias" => self.host_key_alias = Some(word.to_owned()),
            "connecttimeout" => {
                self.connect_timeout = Some(word.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad("seconds"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// `~` and the `%` tokens of paths.
    fn expand(&mut self, name: &str, home: Option<&HomeDir>) {
        let dir = home.map(|h| h.dir().display().to_string()).unwrap_or_default();
        let host = self.host_name.clone().unwrap_or_else(|| name.to_owned());
        let (user, port) = (self.user.clone().unwrap_or_default(), self.port.unwrap_or(22).to_string());
        let local = std::env::var("USER").unwrap_or_default();
        let path = |text: &str| -> PathBuf {
            let mut out = String::new();
            let text = text.strip_prefix("~/").map_or_else(|| text.to_owned(), |rest| format!("{dir}/{rest}"));
            let mut chars = text.chars();
            while let Some(c) = chars.next() {
                match (c, c == '%') {
                    (_, false) => out.push(c),
                    _ => match chars.next() {
                        Some('d') => out.push_str(&dir),
                        Some('h') => out.push_str(&host),
                        Some('n') => out.push_str(name),
                        Some('p') => out.push_str(&port),
                        Some('r') => out.push_str(&user),
                        Some('u') => out.push_str(&local),
                        Some('%') => out.push('%'),
                        Some(other) => out.extend(['%', other]),
                        None => out.push('%'),
                    },
                }
            }
            PathBuf::from(out)
        };
        let all = |list: &[PathBuf]| list.iter().map(|p| path(&p.to_string_lossy())).collect::<Vec<_>>();
        self.identity_files = all(&self.identity_files);
        self.certificate_files = all(&self.certificate_files);
        self.known_hosts = self.known_hosts.as_deref().map(all);
        self.identity_agent = self.identity_agent.as_deref().map(|a| path(a).display().to_string());
    }
}
