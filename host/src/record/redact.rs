//! Keeps secrets out of everything that is written or shown.
use std::sync::{Arc, OnceLock, PoisonError, Weak};

use gpuhost_stdlib::core::ctx::Run;

/// Replaces known secrets by `***`. It learns them from the run.
#[derive(Clone, Default)]
pub struct Redactor {
    run: Arc<OnceLock<Weak<Run>>>,
}

/// What a secret looks like inside base64 text, whichever byte of a group of three it begins at (Kubernetes
/// Secrets, `user:token` headers): only the digits that no neighbour changes.
fn in_base64(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    if secret.len() < 12 {
        return Vec::new();
    }
    let mut out: Vec<String> = (0..3)
        .map(|shift| {
            let bytes = [&vec![0u8; shift][..], secret.as_bytes()].concat();
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes);
            let first = (shift * 8).div_ceil(6);
            let last = bytes.len() * 8 / 6;
            text.get(first..last).unwrap_or_default().to_owned()
        })
        .collect();
    out.retain(|t| t.len() >= 12);
    out
}

impl Redactor {
    /// Names the run whose secrets count. Only the first call has an effect.
    pub fn attach(&self, run: &Arc<Run>) {
        self.run.set(Arc::downgrade(run)).ok();
    }

    fn secrets(&self) -> Vec<String> {
        let Some(run) = self.run.get().and_then(Weak::upgrade) else { return Vec::new() };
        let hidden = run.redact.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given = run.secrets.iter().filter(|(k, _)| !k.ends_with("_ca")).map(|(_, v)| v.clone());
        let mut all: Vec<String> = hidden.into_iter().chain(given).filter(|s| s.trim().len() >= 6).collect();
        // A longer secret may contain a shorter one.
        all.sort_by_key(|s| std::cmp::Reverse(s.len()));
        all.dedup();
        all
    }

    /// `text` without secrets; also finds them escaped for JSON and their single lines.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for s in self.secrets() {
            let s = s.trim();
            if out.contains(s) {
                out = out.replace(s, "***");
            }
            for coded in in_base64(s).iter().filter(|c| out.contains(*c)).collect::<Vec<_>>() {
                out = out.replace(coded, "***");
            }
            if !s.contains(['\n', '"', '\\']) {
                continue;
            }
            let quoted = serde_json::to_string(s).unwrap_or_default();
            let inner = quoted.trim_matches('"');
            if !inner.is_empty() && out.contains(inner) {
                out = out.replace(inner, "***");
            }
            for line in s.lines().filter(|l| l.len() >= 16 && !l.starts_with("-----")) {
                if out.contains(line) {
                    out = out.replace(line, "***");
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_secret_is_found_inside_base64_at_every_offset() {
        let secret = "correct horse battery";
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "yz", "\n"] {
                let text = base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}{after}"));
                let hit = in_base64(secret).iter().any(|c| text.contains(c.as_str()));
                assert!(hit, "{before:?} {after:?}: {text}");
            }
        }
    }
}
