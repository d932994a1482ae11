//! Workloads that work today and break tomorrow: budgets that no drain gets past, variables declared twice.
use serde_json::Value;

use super::finding::{Finding, describe as shown_as, line, script};
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::kubernetes::{Blocking, Cluster, describe};

fn finding(id: &'static str, target: String, cause: String, evidence: &str, fix: &str, next: String) -> Finding {
    Finding { id, area: "workload", target, cause, evidence: line(evidence), fix: fix.to_owned(), next }
}

/// Looks at the workloads of the cluster.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    for b in cluster.blocking_budgets(&s.ctx).await? {
        let at = format!("{}/{}", b.namespace, b.name);
        let cause = format!("the disruption budget {at} lets none of its pods go: no drain of their nodes ends");
        let (fix, next) = match scaled(s, &cluster, &b).await? {
            Some((name, n)) => {
                let set = [("namespace", b.namespace.as_str()), ("name", &name), ("replicas", &n.to_string())];
                ("one more pod, and one may go", script("scale", &set))
            }
            None => {
                ("let it say `maxUnavailable: 1`, or fewer in `minAvailable`", shown_as("pdb", &b.namespace, &b.name))
            }
        };
        s.add(finding("budget-blocks-drain", at, cause, &b.seen, fix, next));
    }
    for (o, container, name) in cluster.repeated_variables(&s.ctx).await? {
        let text = |k: &str| o["metadata"][k].as_str().unwrap_or_default().to_owned();
        let (ns, own, kind) = (text("namespace"), text("name"), o["kind"].as_str().unwrap_or_default().to_lowercase());
        let cause =
            format!("{} declares {name} twice: a patch by name changes one of the two or drops both", describe(&o));
        let seen = format!("container {container}: two entries named {name} in env");
        let next = shown_as(&kind, &ns, &own);
        s.add(finding(
            "env-twice",
            format!("{ns}/{own}"),
            cause,
            &seen,
            "take one of the two out where it is written",
            next,
        ));
    }
    Ok(())
}

/// The only Deployment behind a budget, with one replica more, when that helps.
async fn scaled(s: &Scene, cluster: &Cluster, b: &Blocking) -> OpResult<Option<(String, i64)>> {
    if !b.scales {
        return Ok(None);
    }
    let budget = cluster.get_object(&s.ctx, "pdb", &b.namespace, &b.name).await?;
    let Some(wanted) = budget["spec"]["selector"]["matchLabels"].as_object().filter(|m| !m.is_empty()).cloned() else {
        return Ok(None);
    };
    let all = cluster.list_in(&s.ctx, "deployment", &b.namespace).await?;
    let covers = |d: &&Value| {
        let labels = &d["spec"]["template"]["metadata"]["labels"];
        wanted.iter().all(|(k, v)| labels[k] == *v)
    };
    let mut covered = all.iter().filter(covers);
    let (Some(d), None) = (covered.next(), covered.next()) else { return Ok(None) };
    let name = d["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(Some((name, d["spec"]["replicas"].as_i64().unwrap_or(1) + 1)))
}
