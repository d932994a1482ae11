//! Workloads of the platform that were scaled to nothing by hand, and those that are not ready for no cause found so far.
use super::finding::{Finding, describe, line, script};
use super::scene::Scene;
use crate::core::error::OpResult;
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
