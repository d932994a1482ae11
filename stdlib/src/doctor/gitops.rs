//! What Fleet does not say by itself: a repository whose bundles are gone, customizations of targets that were lost on the
//! way, releases that are a bundle and a HelmChart at once.
use serde_json::Value;

use super::finding::{DEPLOY, Finding, describe, script};
use super::fleet::{NS, finding, text};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::helm::fleet_release;
use crate::kubernetes::Cluster;

/// Names of the customizations of a bundle that change nothing: what they were to change was no key that Fleet knows.
#[must_use]
pub fn empty_customizations(bundle: &Value) -> Vec<String> {
    const WHERE: &[&str] = &["clusterGroup", "clusterGroupSelector", "clusterName", "clusterSelector", "name"];
    let list = |p: &str| bundle.pointer(p).and_then(Value::as_array).cloned().unwrap_or_default();
    let plain = list("/spec/targetRestrictions");
    let all = list("/spec/targets");
    let own = all.iter().filter(|t| !plain.contains(t));
    let empty = own.filter(|t| t.as_object().is_some_and(|m| m.keys().all(|k| WHERE.contains(&k.as_str()))));
    empty.map(|t| if text(t, "/name").is_empty() { t.to_string() } else { text(t, "/name").to_owned() }).collect()
}

/// A repository that was read and has no bundle left.
fn without_bundles(repo: &Value, bundles: &[Value]) -> Option<Finding> {
    let name = text(repo, "/metadata/name");
    let commit = text(repo, "/status/commit");
    let any = bundles.iter().any(|b| b["metadata"]["labels"]["fleet.cattle.io/repo-name"] == name);
    // bundles come when the job that reads the repository has ended
    if commit.is_empty() || any || text(repo, "/status/gitJobStatus") != "Current" {
        return None;
    }
    Some(finding(
        "bundle-deleted",
        name,
        format!("no bundle of repository {name} is left: somebody deleted them, and with them what they had made"),
        &format!("commit {commit} was read, and there is no Bundle of it"),
        "a forced sync makes them anew; data of deleted claims do not come back with them",
        script("fleet-correct-drift", &[("repo", name)]),
    ))
}

/// Everything of this sort that can be seen.
#[must_use]
pub fn unsaid(repo: &Value, bundles: &[Value], charts: &[Value]) -> Vec<Finding> {
    let mut out: Vec<Finding> = without_bundles(repo, bundles).into_iter().collect();
    for b in bundles {
        let name = text(b, "/metadata/name");
        let (ns, release) = fleet_release(&b["spec"], name);
        let collides = charts.iter().any(|c| {
            let at = text(c, "/spec/targetNamespace");
            text(c, "/metadata/name") == release && (at == ns || at.is_empty())
        });
        if collides {
            out.push(finding(
                "release-collides",
                &release,
                format!("release {release} in {ns} is a HelmChart and bundle {name} of Fleet: each undoes the other"),
                &format!("HelmChart {release}; bundle {name} upgrades the release of that name to its own objects"),
                "take the folder out of Git, or give it another name (`name:` or `helm.releaseName:` of fleet.yaml); when Fleet has seen that, deploy brings the chart back",
                DEPLOY.into(),
            ));
        }
        let lost = empty_customizations(b);
        if !lost.is_empty() {
            out.push(finding(
                "bundle-customization-lost",
                name,
                format!("a target customization of bundle {name} changes nothing: Fleet dropped what it does not know"),
                &format!("targetCustomizations {}: only names and selectors are left", lost.join(", ")),
                "there is no `patches` in a customization: use `helm.values`, `yaml.overlays` or `kustomize.dir`; `cluster.check_bundles(\"FOLDER\")` names the key",
                describe("bundles.fleet.cattle.io", NS, name),
            ));
        }
    }
    out
}

impl Cluster {
    /// What Fleet does not say by itself of a repository of `fleet-local`.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn fleet_unsaid(&self, ctx: &Ctx, repo: &Value) -> OpResult<Vec<Finding>> {
        let bundles = self.list_if_known(ctx, "bundles.fleet.cattle.io", NS).await?;
        let charts = self.list_if_known(ctx, "helmcharts.helm.cattle.io", "").await?;
        Ok(unsaid(repo, &bundles, &charts))
    }

    /// Whether somebody wrote a revision over that which Fleet has applied of a bundle: the newest, and Fleet's.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub(super) async fn overwritten(&self, ctx: &Ctx, bundle: &str) -> OpResult<Option<String>> {
        let all = self.list_if_known(ctx, "bundledeployments.fleet.cattle.io", "").await?;
        let Some(d) = all.iter().find(|d| d["metadata"]["labels"]["fleet.cattle.io/bundle-name"] == bundle) else {
            return Ok(None);
        };
        let Some((place, own)) = text(d, "/status/release").rsplit_once(':') else { return Ok(None) };
        let Some((ns, release)) = place.split_once('/') else { return Ok(None) };
        let own: i64 = own.parse().unwrap_or(0);
        let newest = self.release_revisions(ctx, ns, release).await?.into_iter().map(|r| r.number).max().unwrap_or(0);
        Ok((newest > own && own > 0)
            .then(|| format!("release {ns}/{release} is at revision {newest}, Fleet's is {own}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_fleet_keeps_to_itself_is_seen() {
        let repo = json!({"metadata": {"name": "homelab"}, "status": {"commit": "abc", "gitJobStatus": "Current"}});
        let reads = json!({"metadata": {"name": "homelab"}, "status": {"commit": "abc", "gitJobStatus": "InProgress"}});
        assert!(unsaid(&reads, &[], &[]).is_empty());
        assert_eq!(unsaid(&repo, &[], &[])[0].id, "bundle-deleted");
        let target = json!({"name": "local", "clusterName": "local"});
        let bundle = |customization: Value| {
            json!({"metadata": {"name": "rancher", "labels": {"fleet.cattle.io/repo-name": "homelab"}},
                "spec": {"defaultNamespace": "cattle-system", "targets": [customization, target], "targetRestrictions": [target]}})
        };
        let lost = bundle(json!({"name": "gpu", "clusterSelector": {}}));
        let kept = bundle(json!({"name": "gpu", "helm": {"values": {"a": 1}}}));
        assert_eq!(unsaid(&repo, &[lost], &[])[0].id, "bundle-customization-lost");
        assert!(unsaid(&repo, std::slice::from_ref(&kept), &[]).is_empty());
        let chart = |ns: &str| json!({"metadata": {"name": "rancher"}, "spec": {"targetNamespace": ns}});
        assert_eq!(unsaid(&repo, std::slice::from_ref(&kept), &[chart("cattle-system")])[0].id, "release-collides");
        assert!(unsaid(&repo, &[kept], &[chart("elsewhere")]).is_empty());
    }
}
