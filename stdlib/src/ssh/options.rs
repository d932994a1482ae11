//! Options and results of running commands.
use std::collections::BTreeMap;
use std::fmt;

use crate::core::units::Duration;
use crate::options;

options! {
    /// How to reach a host.
    pub struct ConnectOptions {
        /// Login name; default: the site's.
        user: Option<String> = None,
        /// TCP port.
        port: i64 = 22,
        /// Private key: secret reference (`state:NAME`, `file:PATH`, `env:NAME`); default: the site's.
        key: Option<String> = None,
        /// Also offer the keys of the running ssh agent.
        agent: bool = false,
        /// Host to go through (a node's name or an address), logged in to with the same user and key.
        jump: Option<String> = None,
        /// How long connecting may take.
        timeout: Duration = Duration::secs(20),
    }
}

options! {
    /// How a command runs.
    pub struct RunOptions {
        /// Text for its standard input.
        stdin: String = String::new(),
        /// Environment variables.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Working directory.
        cwd: Option<String> = None,
        /// Run as root (`sudo -n` when the login user is another).
        r#become: bool = true,
        /// Ended on the host after this long.
        timeout: Duration = Duration::minutes(10),
        /// Exit codes that are no failure.
        ok_codes: Vec<i64> = vec![0],
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            stdin: String::new(),
            env: BTreeMap::new(),
            cwd: None,
            r#become: true,
            timeout: Duration::minutes(10),
            ok_codes: vec![0],
        }
    }
}

options! {
    /// Mode and owner of a file.
    pub struct FileOptions {
        /// Mode in octal, for example `"0600"`; default: kept, `0644` for a new file.
        mode: Option<String> = None,
        /// `user` or `user:group`; default: kept, `root:root` for a new file.
        owner: Option<String> = None,
    }
}

#[allow(clippy::derivable_impls)] // `options!` fixes the derives.
impl Default for FileOptions {
    fn default() -> Self {
        FileOptions { mode: None, owner: None }
    }
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Standard output; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; 128 + n when signal n ended it.
    pub code: i64,
    /// How long it took.
    pub duration: Duration,
}

impl Output {
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
            Output { stdout, stderr, code: 1, duration: Duration::secs(0) }.last_words().join("|")
        };
        assert_eq!(words("1\n2\n3\n\n4\n5\n"), "2|3|4|5");
        assert_eq!(words("Reading\nE: no x\nReading\nE: no x\n"), "E: no x");
        assert_eq!(words(" \n"), "out");
    }
}
