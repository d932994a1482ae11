//! Options and results of running commands.
use std::collections::BTreeMap;
use std::fmt;

use rhai::{Blob, Dynamic};

use crate::core::error::{OpError, OpResult};
use crate::core::options::OptionValue;
use crate::core::units::{Duration, Secret};
use crate::options;

use super::conn::Raw;

options! {
    /// How to reach a host.
    pub struct ConnectOptions {
        /// Login name; default: the site's for its nodes, else `User` of `~/.ssh/config`, else the site's.
        user: Option<String> = None,
        /// TCP port; default: `Port` of `~/.ssh/config`, else 22.
        port: Option<i64> = None,
        /// Private key: secret reference (`state:NAME`, `file:PATH`, `env:NAME`); default: the site's.
        key: Option<String> = None,
        /// Passphrase of the key, as a secret reference; default: asked for at a terminal.
        passphrase: Option<String> = None,
        /// File of the key's certificate; default: `KEY-cert.pub` beside a key file, if it is there.
        certificate: Option<String> = None,
        /// Also offer the keys of the running ssh agent.
        agent: bool = false,
        /// Password to log in with when no key is accepted: secret reference, or `ask` at a terminal.
        password: Option<String> = None,
        /// Hosts to go through, in order and parted by commas: node names, or `user@host:port`; user and key are those of the host, unless `~/.ssh/config` knows better.
        jump: Option<String> = None,
        /// Password of `sudo` on the host, as a secret reference; default: `sudo` must not ask.
        become_password: Option<String> = None,
        /// How long connecting may take.
        timeout: Duration = Duration::secs(20),
    }
}

#[allow(clippy::derivable_impls)] // `options!` fixes the derives.
impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            user: None,
            port: None,
            key: None,
            passphrase: None,
            certificate: None,
            agent: false,
            password: None,
            jump: None,
            become_password: None,
            timeout: Duration::secs(20),
        }
    }
}

/// What a command reads: a text, bytes, or a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Stdin(pub Vec<u8>);

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
impl From<&str> for Stdin {
    fn from(text: &str) -> Self {
        Stdin(text.as_bytes().to_vec())
    }
}
impl OptionValue for Stdin {
    const TYPE: &'static str = "string, blob or Secret";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let v = v.clone().flatten();
        if let Some(s) = v.clone().try_cast::<Secret>() {
            return Ok(Stdin(s.reveal().as_bytes().to_vec()));
        }
        if v.is_blob() {
            return Ok(Stdin(v.cast::<Blob>()));
        }
        String::read(&v).map(|t| Stdin(t.into_bytes()))
    }
}

options! {
    /// How a command runs.
    pub struct RunOptions {
        /// Its standard input: a text, a blob, or a secret.
        stdin: Stdin = Stdin::default(),
        /// Environment variables. Other users of the host may see them: secrets go into `secrets`.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Environment variables that travel on standard input only, for example `#{ TOKEN: secret("token") }`.
        secrets: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Working directory.
        cwd: Option<String> = None,
        /// Run as root (with `sudo` when the login user is another).
        r#become: bool = true,
        /// Ended on the host, with all its children, after this long.
        timeout: Duration = Duration::minutes(10),
        /// Exit codes that are no failure.
        ok_codes: Vec<i64> = vec![0],
        /// `run` and `script` survive a lost connection: they run under a unit of their own, and are found again instead of being run twice. `false`: plainly, as a child of sshd.
        reattach: bool = true,
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            stdin: Stdin::default(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            cwd: None,
            r#become: true,
            timeout: Duration::minutes(10),
            ok_codes: vec![0],
            reattach: true,
        }
    }
}

options! {
    /// Mode and owner of a file, and how it is written.
    pub struct FileOptions {
        /// Mode in octal, for example `"0600"`; default: kept, `0644` for a new file.
        mode: Option<String> = None,
        /// `user` or `user:group`; default: kept, `root:root` for a new file.
        owner: Option<String> = None,
        /// Write as root (with `sudo` when the login user is another).
        r#become: bool = true,
        /// Record the difference of texts that everybody on the host may read; those of others never are.
        diff: bool = true,
    }
}

#[allow(clippy::derivable_impls)] // `options!` fixes the derives.
impl Default for FileOptions {
    fn default() -> Self {
        FileOptions { mode: None, owner: None, r#become: true, diff: true }
    }
}

impl FileOptions {
    /// # Errors
    /// `invalid` for a mode that is not octal.
    pub(super) fn check(&self) -> OpResult<()> {
        match &self.mode {
            Some(m) if m.is_empty() || m.len() > 4 || !m.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
                Err(OpError::invalid(format!("option `mode`: `{m}` is no octal mode")).hint("for example `\"0644\"`"))
            }
            _ => Ok(()),
        }
    }

    /// How the commands for it run.
    pub(super) fn runs(&self) -> RunOptions {
        RunOptions { r#become: self.r#become, timeout: Duration::minutes(40), ..RunOptions::default() }
    }
}

/// What a command answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Standard output; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; 128 + n when signal n ended it.
    pub code: i64,
    /// How long it took.
    pub duration: Duration,
    /// Standard output as it came, when it is no UTF-8.
    pub raw: Option<Vec<u8>>,
}

impl Output {
    /// From what the channel brought.
    pub(super) fn of(raw: Raw, duration: Duration) -> Self {
        let (stdout, raw_out) = match String::from_utf8(raw.stdout) {
            Ok(text) => (text, None),
            Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), Some(e.into_bytes())),
        };
        let stderr =
            String::from_utf8(raw.stderr).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        Output { stdout, stderr, code: raw.code, duration, raw: raw_out }
    }

    /// As the channel brought it.
    pub(super) fn into_raw(self) -> Raw {
        let stdout = self.raw.unwrap_or_else(|| self.stdout.into_bytes());
        Raw { stdout, stderr: self.stderr.into_bytes(), code: self.code }
    }

    /// Standard output, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or(self.stdout.as_bytes())
    }

    /// Name of the signal that ended the command (`TERM`, `KILL` …), by the shell's rule 128 + n.
    #[must_use]
    pub fn signal(&self) -> Option<&'static str> {
        super::signals::name(self.code.checked_sub(128)?)
    }

    /// Standard output without the newline at its end.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    /// The last lines of standard error (or output), for error messages. Tools that mark their errors are quoted
    /// by those; a line that repeats is said once.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let mut lines: Vec<&str> = Vec::new();
        for l in text.lines().map(str::trim_end).filter(|l| !l.trim().is_empty()) {
            if !lines.contains(&l) {
                lines.push(l);
            }
        }
        let marked = |l: &&str| l.starts_with("E: ") || l.to_ascii_lowercase().starts_with("error:");
        if lines.iter().any(marked) {
            lines.retain(marked);
        }
        lines.iter().skip(lines.len().saturating_sub(4)).map(|l| (*l).to_owned()).collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_telling_ones() {
        let words = |stderr: &str| {
            let (stdout, stderr) = ("out\n".to_owned(), stderr.to_owned());
            Output { stdout, stderr, code: 1, ..Output::default() }.last_words().join("|")
        };
        assert_eq!(words("1\n2\n3\n\n4\n5\n"), "2|3|4|5");
        assert_eq!(words("Reading\nE: no x\nReading\nE: no x\n"), "E: no x");
        assert_eq!(words(" \n"), "out");
    }
}
