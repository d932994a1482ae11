//! Tells where the kubeconfig is, after a run that made it or changed it.
use std::path::{Path, PathBuf};

/// The kubeconfig of a state directory, as it was when the run began.
pub struct Kubeconfig {
    path: PathBuf,
    before: Option<Vec<u8>>,
}

impl Kubeconfig {
    /// Looks at it.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        let path = state_dir.join("kubeconfig");
        let before = std::fs::read(&path).ok();
        Kubeconfig { path, before }
    }

    /// What to type for kubectl, if the file is new or another one now. Nobody but the lab itself answers at a lab's
    /// addresses: there, `serve` is what opens it.
    #[must_use]
    pub fn line(&self, lab: bool, site: Option<&Path>) -> Option<String> {
        let now = std::fs::read(&self.path).ok()?;
        if self.before.as_ref() == Some(&now) {
            return None;
        }
        let word = |p: &Path| crate::lead::word(&p.display().to_string());
        Some(if lab {
            let site = site.map(|s| format!(" --site {}", word(s))).unwrap_or_default();
            format!("kubectl: `gpuhost lab serve{site}` opens this cluster to it")
        } else {
            format!("kubectl: export KUBECONFIG={}", word(&self.path))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_told_when_it_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let k = Kubeconfig::of(dir.path());
        assert_eq!(k.line(false, None), None, "there is none");
        std::fs::write(dir.path().join("kubeconfig"), "a").unwrap();
        let told = k.line(false, None).unwrap();
        assert!(told.starts_with("kubectl: export KUBECONFIG=/") && told.ends_with("/kubeconfig"), "{told}");
        let lab = k.line(true, Some(Path::new("s.toml"))).unwrap();
        assert_eq!(lab, "kubectl: `gpuhost lab serve --site s.toml` opens this cluster to it");
        assert_eq!(Kubeconfig::of(dir.path()).line(false, None), None, "told before");
    }
}
