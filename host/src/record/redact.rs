//! Keeps secrets out of everything that is written or shown.
use std::sync::{Arc, OnceLock, PoisonError, Weak};

use gpuhost_stdlib::core::ctx::Run;

/// Replaces known secrets by `***`. It learns them from the run.
#[derive(Clone, Default)]
pub struct Redactor {
    run: Arc<OnceLock<Weak<Run>>>,
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
