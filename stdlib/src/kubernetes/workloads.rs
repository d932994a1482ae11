//! What is wrong with workloads before it hurts: budgets that no drain gets past, variables that are declared twice.
use serde_json::Value;

use super::{Cluster, describe};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;

/// Kinds whose pods carry what somebody wrote.
const KINDS: &[&str] = &["deployment", "statefulset", "daemonset"];

/// A budget that lets none of its pods go, however healthy they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocking {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What it says and what it comes to.
    pub seen: String,
    /// Whether one more pod would let one go.
    pub scales: bool,
}

/// Whether a budget blocks every eviction for good; one whose pods are merely not ready yet does not.
#[must_use]
pub fn blocking(budget: &Value) -> Option<Blocking> {
    let (spec, status) = (&budget["spec"], &budget["status"]);
    let n = |k: &str| status[k].as_i64().unwrap_or(0);
    if n("expectedPods") < 1 || n("desiredHealthy") < n("expectedPods") {
        return None;
    }
    let rule = ["minAvailable", "maxUnavailable"].into_iter().find(|k| !spec[*k].is_null())?;
    let value = spec[rule].as_str().map_or_else(|| spec[rule].to_string(), str::to_owned);
    let text = |k: &str| budget["metadata"][k].as_str().unwrap_or_default().to_owned();
    Some(Blocking {
        namespace: text("namespace"),
        name: text("name"),
        seen: format!("{rule} {value} of {} pods, disruptionsAllowed {}", n("expectedPods"), n("disruptionsAllowed")),
        scales: rule == "minAvailable" && spec[rule].is_i64(),
    })
}

/// Variables that a container of a workload declares twice: `(container, name)`.
#[must_use]
pub fn repeated(workload: &Value) -> Vec<(String, String)> {
    let pod = &workload["spec"]["template"]["spec"];
    let lists = ["initContainers", "containers"].into_iter().filter_map(|l| pod[l].as_array());
    let mut out = Vec::new();
    for c in lists.flatten() {
        let names: Vec<&str> = c["env"].as_array().into_iter().flatten().filter_map(|e| e["name"].as_str()).collect();
        let twice = names.iter().enumerate().filter(|(i, n)| names[..*i].contains(n));
        for (_, name) in twice {
            let found = (c["name"].as_str().unwrap_or_default().to_owned(), (*name).to_owned());
            if !out.contains(&found) {
                out.push(found);
            }
        }
    }
    out
}

impl Cluster {
    /// Budgets that no drain gets past.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn blocking_budgets(&self, ctx: &Ctx) -> OpResult<Vec<Blocking>> {
        Ok(self.list_in(ctx, "pdb", "").await?.iter().filter_map(blocking).collect())
    }

    /// Workloads that declare a variable twice, each with its container and the name.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn repeated_variables(&self, ctx: &Ctx) -> OpResult<Vec<(Value, String, String)>> {
        let mut out = Vec::new();
        for kind in KINDS {
            for o in self.list_in(ctx, kind, "").await? {
                out.extend(repeated(&o).into_iter().map(|(c, n)| (o.clone(), c, n)));
            }
        }
        Ok(out)
    }

    /// What is wrong with the workloads, in words.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn check_workloads(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let budgets = self.blocking_budgets(ctx).await?;
        let mut out: Vec<String> = budgets
            .iter()
            .map(|b| format!("budget {}/{} lets no pod go ({}): a drain waits for ever", b.namespace, b.name, b.seen))
            .collect();
        for (o, container, name) in self.repeated_variables(ctx).await? {
            out.push(format!("{}: container {container} declares {name} twice", describe(&o)));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_blocks_only_when_no_pod_can_ever_go() {
        let budget = |spec: Value, desired: i64, expected: i64| {
            json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec,
                "status": {"desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": 0}})
        };
        let found = blocking(&budget(json!({"minAvailable": 1}), 1, 1)).unwrap();
        assert_eq!((found.seen.as_str(), found.scales), ("minAvailable 1 of 1 pods, disruptionsAllowed 0", true));
        assert!(!blocking(&budget(json!({"maxUnavailable": 0}), 3, 3)).unwrap().scales);
        assert!(!blocking(&budget(json!({"minAvailable": "100%"}), 3, 3)).unwrap().scales);
        // pods that are not ready come back
        assert_eq!(blocking(&budget(json!({"minAvailable": 1}), 1, 2)), None);
        assert_eq!(blocking(&budget(json!({"minAvailable": 1}), 1, 0)), None);
    }

    #[test]
    fn a_variable_that_is_declared_twice_is_named_once() {
        let o = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "A"}, {"name": "B"}, {"name": "A"}, {"name": "A"}]}, {"name": "d"}]}}}});
        assert_eq!(repeated(&o), [("c".to_owned(), "A".to_owned())]);
    }
}
