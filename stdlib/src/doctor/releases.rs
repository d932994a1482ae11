//! Releases whose objects somebody deleted, and those that Helm does not bring to what their HelmChart objects say.
use std::collections::BTreeMap;

use super::finding::{DEPLOY, Finding, line, script};
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::helm::ReleaseTrouble;

/// The finding of deleted objects.
const GONE: &str = "release-objects-gone";

/// Looks at every release of a HelmChart. Deleted objects are told at once: what does not run without them is no cause of its
/// own. Gives what else is wrong, for [`diagnose`].
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn look(s: &mut Scene) -> OpResult<Vec<ReleaseTrouble>> {
    let Some(cluster) = s.cluster.clone() else { return Ok(Vec::new()) };
    let (gone, rest): (Vec<_>, Vec<_>) =
        cluster.release_problems(&s.ctx, &BTreeMap::new()).await?.into_iter().partition(|t| !t.lacking.is_empty());
    for t in gone {
        // told by the ladder of the GPUs
        if t.lacking.iter().all(|o| o.starts_with("ClusterPolicy ")) && s.found.iter().any(|f| f.area == "gpu") {
            continue;
        }
        let job = format!("helm-install-{}", t.release);
        let next = match t.ours {
            true => DEPLOY.to_owned(),
            // K3s' own: its controller makes a new job for one that is gone
            false => script("delete-object", &[("kind", "job"), ("namespace", "kube-system"), ("name", &job)]),
        };
        s.add(Finding {
            id: GONE,
            area: "platform",
            cause: format!("somebody deleted objects of the release {}: {}", t.release, t.lacking.join(", ")),
            target: t.release,
            evidence: line(&t.text),
            fix: "Helm makes them again when the release is installed again".to_owned(),
            next,
        });
    }
    Ok(rest)
}

/// Whether an object of a release is known to be deleted.
#[must_use]
pub fn is_gone(s: &Scene, object: &str) -> bool {
    s.found.iter().any(|f| f.id == GONE && f.cause.split([':', ',']).any(|o| o.trim() == object))
}

/// Tells what is wrong with releases; one whose workloads or values are explained already is no finding of its own.
pub fn diagnose(s: &mut Scene, troubles: Vec<ReleaseTrouble>) {
    for t in troubles {
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
}
