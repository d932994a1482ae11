//! Workloads of the platform that were scaled to nothing by hand, and those that are not ready for no cause found so far.
use super::finding::{Finding, describe, line, script};
use super::scene::Scene;
use crate::core::error::{Kind, OpResult};
use crate::kubernetes::{Cluster, Short};

/// What the absence of a workload means: name, id, meaning.
const MEANS: &[(&str, &str, &str)] = &[
    ("traefik", "ingress-down", "no host name of the cluster is served"),
    ("coredns", "dns-down", "no pod resolves a name"),
    ("metrics-server", "metrics-down", "no usage is measured, nothing scales by it"),
    ("gpu-operator", "operator-down", "a GPU node that comes or restarts is not made ready"),
];

/// Looks at what releases and K3s brought. Runs last: what another finding explains is none of its own.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let explained = !s.found.is_empty() || !s.down.is_empty();
    for w in cluster.short_workloads(&s.ctx).await? {
        let named = s.found.iter().any(|f| f.target == w.name || f.target.ends_with(&format!("/{}", w.name)));
        if named || w.wants > 0 && explained {
            continue;
        }
        let f = finding(s, &cluster, &w).await?;
        s.add(f);
    }
    Ok(())
}

/// Pods that wait for images which a registry does not give away for now: what is missing for that has one cause.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn pulls(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let mut waiting = Vec::new();
    for e in cluster.list_in(&s.ctx, "event", "").await? {
        let said = e["message"].as_str().unwrap_or_default();
        if e["type"] == "Warning" && (said.contains("toomanyrequests") || said.contains("429 Too Many Requests")) {
            let text = |p: &str| e.pointer(p).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            waiting.push((text("/involvedObject/namespace"), text("/involvedObject/name"), said.to_owned()));
        }
    }
    let mut still = Vec::new();
    for (ns, pod, said) in waiting {
        // an event outlives what it tells of, and its pod
        match cluster.explain_pod(&s.ctx, &ns, &pod).await {
            Ok(Some(_)) => still.push((ns, pod, said)),
            Ok(None) => {}
            Err(e) if e.is(Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    s.found.retain(|f| !still.iter().any(|(ns, _, _)| waits_for_image(f, ns)));
    let Some((ns, pod, said)) = still.pop() else { return Ok(()) };
    let host = if said.contains("docker") { "docker.io" } else { "registry" };
    s.add(Finding {
        id: "pull-rate-limited",
        area: "workload",
        target: host.to_owned(),
        cause: format!("{host} lets nobody pull without a login for now: pods that need an image do not start"),
        evidence: line(&format!("pod {ns}/{pod}: {said}")),
        fix: "wait (Docker Hub counts six hours), log in or name a mirror in registries.yaml, or share images between nodes (embedded_registry of [k3s])".to_owned(),
        next: describe("pod", &ns, &pod),
    });
    Ok(())
}

/// Whether a workload does not run for want of an image, where pods of a namespace wait for theirs.
fn waits_for_image(f: &Finding, ns: &str) -> bool {
    let seen = f.evidence.to_lowercase();
    let pulls = ["pull", "toomanyrequests", "429 too many requests"].iter().any(|w| seen.contains(w));
    // somebody wants none of it: that is no matter of images
    let none = seen.contains("scaled to 0") || seen.contains(" of 0 ");
    f.id.ends_with("-down") && (pulls || !none && seen.contains(&format!(" {ns}/")))
}

async fn finding(s: &Scene, cluster: &Cluster, w: &Short) -> OpResult<Finding> {
    let at = format!("{}/{}", w.namespace, w.name);
    let known = MEANS.iter().find(|m| m.0 == w.name);
    let (id, means) = known.map_or(("workload-down", ""), |m| (m.1, m.2));
    let means = if means.is_empty() { format!("a part of {} is missing", w.owner) } else { means.to_owned() };
    let (seen, fix, next) = if w.wants == 0 {
        let set = [("namespace", w.namespace.as_str()), ("name", &w.name), ("replicas", "1")];
        (w.to_string(), "start it", script("scale", &set))
    } else {
        let why = why(s, cluster, w).await?.unwrap_or_else(|| w.to_string());
        (why, "look at its pods", describe(&w.kind.to_lowercase(), &w.namespace, &w.name))
    };
    let cause = format!("{} does not run: {means}", w.name);
    Ok(Finding { id, area: "workload", target: at, cause, evidence: line(&seen), fix: fix.to_owned(), next })
}

/// The first broken pod of a workload.
async fn why(s: &Scene, cluster: &Cluster, w: &Short) -> OpResult<Option<String>> {
    for p in cluster.list_in(&s.ctx, "pod", &w.namespace).await? {
        let name = p["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with(&format!("{}-", w.name)) {
            continue;
        }
        if let Some(why) = cluster.explain_pod(&s.ctx, &w.namespace, name).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_registry_explains_what_waits_for_images_and_no_more() {
        let f = |id: &'static str, evidence: &str| Finding {
            id,
            area: "platform",
            target: "x".to_owned(),
            cause: String::new(),
            evidence: evidence.to_owned(),
            fix: String::new(),
            next: String::new(),
        };
        let hub = |id, evidence| waits_for_image(&f(id, evidence), "jupyterhub");
        assert!(hub("rancher-down", "container rancher: ImagePullBackOff"));
        assert!(hub("hub-down", "deployment jupyterhub/hub has no pod that is ready"));
        assert!(!hub("hub-down", "deployment jupyterhub/hub is scaled to 0"));
        assert!(!hub("fleet-agent-down", "deployment cattle-fleet-local-system/fleet-agent: 0 of 1 available"));
        assert!(!hub("spawn-image", "Failed to pull image"));
    }
}
