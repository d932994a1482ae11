//! Fleet: its controllers, the repositories that it follows, and every bundle that is not applied.
use serde_json::Value;

use super::finding::{DEPLOY, Finding, describe, line, script};
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::helm::fleet_release;
use crate::kubernetes::{Cluster, condition, epoch_seconds};

pub(super) const NS: &str = "fleet-local";

pub(super) fn finding(
    id: &'static str,
    target: &str,
    cause: String,
    evidence: &str,
    fix: &str,
    next: String,
) -> Finding {
    Finding { id, area: "fleet", target: target.to_owned(), cause, evidence: line(evidence), fix: fix.to_owned(), next }
}

pub(super) fn text<'a>(v: &'a Value, path: &str) -> &'a str {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Looks at Fleet, when the site uses it.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    if !s.site.platform.contains_key("fleet") {
        return Ok(());
    }
    for (ns, name, id, what) in [
        ("cattle-fleet-system", "gitjob", "fleet-controller-down", "nothing polls Git"),
        ("cattle-fleet-system", "fleet-controller", "fleet-controller-down", "bundles are not looked at"),
        ("cattle-fleet-local-system", "fleet-agent", "fleet-agent-down", "bundles are not applied to this cluster"),
    ] {
        if let Some(seen) = stopped(s, &cluster, ns, name).await? {
            let next = script("scale", &[("namespace", ns), ("name", name), ("replicas", "1")]);
            s.add(finding(id, name, format!("{name} of Fleet does not run: {what}"), &seen, "start it", next));
        }
    }
    if s.found.iter().any(|f| f.area == "fleet") {
        return Ok(());
    }
    let repos = cluster.list_if_known(&s.ctx, "gitrepos.fleet.cattle.io", "").await?;
    let name = s.site.name.clone();
    let Some(repo) = repos.iter().find(|r| text(r, "/metadata/name") == name && text(r, "/metadata/namespace") == NS)
    else {
        s.add(finding(
            "repo-missing",
            &name,
            "Fleet follows no repository of this site".into(),
            "no GitRepo in fleet-local",
            "deploy makes it",
            DEPLOY.into(),
        ));
        return Ok(());
    };
    if let Some(f) = repo_trouble(s, &cluster, repo).await? {
        s.add(f);
        return Ok(());
    }
    for f in cluster.fleet_unsaid(&s.ctx, repo).await? {
        s.add(f);
    }
    let collides: Vec<String> =
        s.found.iter().filter(|f| f.id == "release-collides").map(|f| f.target.clone()).collect();
    for b in cluster.list_in(&s.ctx, "bundles.fleet.cattle.io", NS).await? {
        // who fights over a release is named already
        if collides.contains(&fleet_release(&b["spec"], text(&b, "/metadata/name")).1) {
            continue;
        }
        // an agent that moves away from a broken node is explained there
        let follows = !s.down.is_empty();
        let moves = |f: &Finding| follows && matches!(f.id, "bundle-not-ready" | "bundle-waits");
        let Some(mut f) = bundle_trouble(&b).filter(|f| !moves(f)) else { continue };
        if f.id == "bundle-modified"
            && let Some(seen) = cluster.overwritten(&s.ctx, &f.target).await?
        {
            f.id = "fleet-release-upgraded";
            f.cause = format!(
                "somebody upgraded the release of bundle {} with helm: what Fleet had made is gone or changed",
                f.target
            );
            f.evidence = line(&format!("{seen}; {}", f.evidence));
            f.fix = "Fleet brings its own revision back when asked to; what is to stay belongs into Git".to_owned();
        }
        s.add(f);
    }
    Ok(())
}

async fn stopped(s: &Scene, cluster: &Cluster, ns: &str, name: &str) -> OpResult<Option<String>> {
    let Some(d) = cluster.find_object(&s.ctx, "deployment", ns, name).await? else { return Ok(None) };
    let have = d["status"]["availableReplicas"].as_i64().unwrap_or(0);
    let want = d["spec"]["replicas"].as_i64().unwrap_or(1);
    // its node is explained already
    let moves = want > 0 && !s.down.is_empty();
    Ok((have == 0 && !moves).then(|| format!("deployment {ns}/{name}: {have} of {want} available")))
}

async fn repo_trouble(s: &Scene, cluster: &Cluster, repo: &Value) -> OpResult<Option<Finding>> {
    let name = text(repo, "/metadata/name");
    let url = text(repo, "/spec/repo");
    if repo["spec"]["paused"] == true {
        return Ok(Some(finding(
            "repo-paused",
            name,
            "the repository is paused: no commit is applied".into(),
            "spec.paused is true",
            "deploy sets it to what the recipe says",
            DEPLOY.into(),
        )));
    }
    for kind in ["GitPolling", "Stalled", "Accepted"] {
        let bad = if kind == "Stalled" { "True" } else { "False" };
        let Some((_, why)) = condition(repo, kind).filter(|(st, _)| st == bad) else { continue };
        let declared = s.site.platform.get("fleet").and_then(|f| f.get("repo")).and_then(toml::Value::as_str);
        return Ok(Some(if declared.is_some_and(|d| d != url) {
            finding(
                "repo-wrong-address",
                name,
                format!("the GitRepo follows {url}, the site file says {}", declared.unwrap_or_default()),
                &why,
                "deploy corrects it",
                DEPLOY.into(),
            )
        } else {
            finding(
                "repo-unreachable",
                name,
                format!("Fleet cannot read {url}"),
                &why,
                "is the Git server up, and does the address exist? Fleet tries again by itself",
                format!("git ls-remote {url}"),
            )
        }));
    }
    let mut unsaid = cluster.fleet_unsaid(&s.ctx, repo).await?.into_iter();
    if let Some(f) = unsaid.find(|f| f.id == "bundle-deleted") {
        return Ok(Some(f));
    }
    if repo["status"]["desiredReadyClusters"].as_i64() == Some(0) {
        let fix = "targets of a GitRepo in fleet-local must match cluster `local` (leave them out); deploy sets what the recipe says";
        return Ok(Some(finding(
            "repo-matches-nothing",
            name,
            "the repository's targets match no cluster: nothing is ever deployed".into(),
            &repo["spec"]["targets"].to_string(),
            fix,
            DEPLOY.into(),
        )));
    }
    // a gitjob that moves away from a broken node is explained there
    if s.down.is_empty() { stale(s, cluster, repo).await } else { Ok(None) }
}

/// Seconds since the last poll when that is longer than three intervals.
#[must_use]
pub fn overdue(repo: &Value, now: Option<i64>) -> Option<i64> {
    let since = now? - epoch_seconds(text(repo, "/status/lastPollingTriggered"))?;
    (since > 3 * seconds(text(repo, "/spec/pollingInterval")).max(20)).then_some(since)
}

/// A poll that is overdue, by the servers' own clock.
async fn stale(s: &Scene, cluster: &Cluster, repo: &Value) -> OpResult<Option<Finding>> {
    let leases = cluster.list_in(&s.ctx, "lease", "kube-node-lease").await?;
    let now = leases.iter().filter_map(|l| epoch_seconds(text(l, "/spec/renewTime"))).max();
    let Some(since) = overdue(repo, now) else { return Ok(None) };
    let cause = format!("Fleet has not polled for {since} s: gitjob hangs");
    let next = script("restart-pods", &[("namespace", "cattle-fleet-system"), ("app", "gitjob")]);
    let evidence = format!("lastPollingTriggered {}", text(repo, "/status/lastPollingTriggered"));
    Ok(Some(finding("gitjob-hangs", text(repo, "/metadata/name"), cause, &evidence, "restart gitjob", next)))
}

/// `60s`, `5m`, `1h` in seconds; Fleet's own 15 s otherwise.
fn seconds(text: &str) -> i64 {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n: i64 = text[..split].parse().unwrap_or(0);
    let unit = match &text[split..] {
        "h" | "h0m0s" => 3600,
        "m" | "m0s" => 60,
        _ => 1,
    };
    if n == 0 { 15 } else { n * unit }
}

/// Whether the API server refused a change of what cannot be changed.
fn is_immutable(message: &str) -> bool {
    message.contains("immutable") || message.contains("Forbidden: updates to statefulset spec")
}

fn bundle_trouble(b: &Value) -> Option<Finding> {
    let name = text(b, "/metadata/name");
    let bad = b["status"]["summary"]["nonReadyResources"].as_array()?.first()?;
    let (state, message) = (text(bad, "/bundleState"), text(bad, "/message"));
    let shown = format!("{state}: {message}");
    let shows = describe("bundles.fleet.cattle.io", NS, name);
    let commit = "correct the folder in Git and push; the other bundles go on";
    Some(match state {
        "ErrApplied" if message.contains("invalid ownership metadata") => finding(
            "two-owners",
            name,
            format!("bundle {name} brings an object that another release owns"),
            &shown,
            "give the bundle another `releaseName` or take the object out of one of the two",
            shows,
        ),
        "ErrApplied" if message.contains("no matches for kind") => finding(
            "bundle-kind-unknown",
            name,
            format!("bundle {name} brings a kind that the cluster does not know"),
            &shown,
            "install its CRDs first (`dependsOn`), or take it out of Git",
            shows,
        ),
        "ErrApplied" if is_immutable(message) => finding(
            "bundle-immutable",
            name,
            format!(
                "bundle {name} changes a field that cannot be changed: it is stuck until the object is made anew or Git says what was"
            ),
            &shown,
            "put the old value back in Git; or copy the data, delete the object and let Fleet make it anew",
            shows,
        ),
        "ErrApplied" if message.contains(" is invalid: ") => finding(
            "bundle-invalid",
            name,
            format!("bundle {name} brings an object that the API server refuses"),
            &shown,
            "correct the value that it names in Git and push; `cluster.check_bundles(\"FOLDER\")` finds such before",
            shows,
        ),
        "ErrApplied" if message.contains("chart") || message.contains("INSTALLATION FAILED") => finding(
            "bundle-chart-missing",
            name,
            format!("the chart of bundle {name} cannot be had"),
            &shown,
            commit,
            shows,
        ),
        "ErrApplied" => {
            finding("bundle-not-applied", name, format!("bundle {name} cannot be applied"), &shown, commit, shows)
        }
        "Modified" => finding(
            "bundle-modified",
            name,
            format!("what bundle {name} owns was changed by hand"),
            &shown,
            "Fleet puts it back when asked to",
            script("fleet-correct-drift", &[("repo", text(b, "/metadata/labels/fleet.cattle.io~1repo-name"))]),
        ),
        "WaitApplied" | "Pending" | "OutOfSync" => finding(
            "bundle-waits",
            name,
            format!("bundle {name} is not applied yet"),
            &shown,
            "wait, or look at fleet-agent",
            shows,
        ),
        _ => finding(
            "bundle-not-ready",
            name,
            format!("bundle {name} is not ready"),
            &shown,
            "look at the workload that it names",
            shows,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bundles_are_explained_by_state_and_words() {
        let bundle = |state: &str, message: &str| json!({"metadata": {"name": "b"}, "status": {"summary": {"nonReadyResources": [{"bundleState": state, "message": message}]}}});
        let id = |state, message| bundle_trouble(&bundle(state, message)).map(|f| f.id);
        assert_eq!(id("ErrApplied", "… invalid ownership metadata; annotation"), Some("two-owners"));
        assert_eq!(id("ErrApplied", "no matches for kind \"X\""), Some("bundle-kind-unknown"));
        let pvc = "cannot patch \"d\" with kind PersistentVolumeClaim: PersistentVolumeClaim \"d\" is invalid: spec: Forbidden: spec is immutable after creation";
        assert_eq!(id("ErrApplied", pvc), Some("bundle-immutable"));
        let set =
            "StatefulSet.apps \"d\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than";
        assert_eq!(id("ErrApplied", set), Some("bundle-immutable"));
        assert_eq!(id("ErrApplied", "Service \"s\" is invalid: spec.type: Unsupported value"), Some("bundle-invalid"));
        assert_eq!(id("Modified", ""), Some("bundle-modified"));
        assert_eq!(bundle_trouble(&json!({"status": {"summary": {"ready": 1}}})), None);
        assert_eq!((seconds("60s"), seconds("5m"), seconds("")), (60, 300, 15));
    }
}
