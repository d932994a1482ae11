//! Releases that Helm does not bring to what their HelmChart objects say.
use std::collections::BTreeMap;

use super::finding::{DEPLOY, Finding, line};
use super::scene::Scene;
use crate::core::error::OpResult;

/// Looks at every release of a HelmChart; one whose workloads or values are explained already is no finding of its own.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    for t in cluster.release_problems(&s.ctx, &BTreeMap::new()).await? {
        if s.found.iter().any(|f| f.target == t.release) || !t.failing && !s.down.is_empty() {
            continue;
        }
        let (id, cause, fix) = if t.failing {
            let cause = format!("Helm does not bring the release {} to what its HelmChart says", t.release);
            ("release-fails", cause, "correct its chart version or values in the site file or the recipe, then deploy")
        } else {
            let cause = format!("the release {} is not what its HelmChart says", t.release);
            ("release-differs", cause, "deploy installs it again")
        };
        s.add(Finding {
            id,
            area: "platform",
            target: t.release,
            cause,
            evidence: line(&t.text),
            fix: fix.to_owned(),
            next: DEPLOY.to_owned(),
        });
    }
    Ok(())
}
