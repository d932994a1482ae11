//! Whether what runs of the operator is what was asked for: its policy, its operands, their pods.
use serde_json::Value;

use super::operator::NAMESPACE;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::Cluster;

/// Operands and the parts of the policy that name their images.
const PARTS: &[(&str, &str)] = &[
    ("nvidia-driver-daemonset", "driver"),
    ("nvidia-container-toolkit-daemonset", "toolkit"),
    ("nvidia-device-plugin-daemonset", "devicePlugin"),
    ("gpu-feature-discovery", "gfd"),
    ("nvidia-dcgm-exporter", "dcgmExporter"),
    ("nvidia-mig-manager", "migManager"),
    ("nvidia-operator-validator", "validator"),
];

/// Version of the chart that a policy comes from, where helm has noted it.
pub(super) fn chart_of(policy: &Value) -> Option<&str> {
    policy["metadata"]["labels"]["helm.sh/chart"].as_str()?.strip_prefix("gpu-operator-")
}

/// What of the operator is not yet that of chart `version`, and which operand's pods are still being replaced.
pub(super) async fn pending(
    ctx: &Ctx,
    cluster: &Cluster,
    policy: Option<&Value>,
    version: &str,
) -> OpResult<Option<String>> {
    let sets = cluster.list_in(ctx, "daemonset", NAMESPACE).await?;
    let old = policy.and_then(|p| of_before(p, &sets, version));
    Ok(old.or_else(|| sets.iter().find_map(replacing)))
}

/// What is still of another version: the policy, or an operand that the operator has not changed yet.
fn of_before(policy: &Value, sets: &[Value], version: &str) -> Option<String> {
    if let Some(chart) = chart_of(policy).filter(|c| *c != version) {
        return Some(format!("is still that of version {chart}"));
    }
    PARTS.iter().find_map(|(operand, part)| {
        let want = policy["spec"][part]["version"].as_str().filter(|v| !v.is_empty())?;
        let set = sets.iter().find(|s| s["metadata"]["name"] == *operand)?;
        let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?;
        (!image.contains(want)).then(|| format!("is ready, but {operand} has still image {image}, {want} is wanted"))
    })
}

/// An operand whose pods are still being replaced; drivers are replaced one node after another, when they may.
fn replacing(set: &Value) -> Option<String> {
    if set["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return None;
    }
    let n = |k: &str| set["status"][k].as_i64().unwrap_or(0);
    let want = n("desiredNumberScheduled");
    let old = set["metadata"]["generation"].as_i64().is_some_and(|g| n("observedGeneration") < g);
    let name = set["metadata"]["name"].as_str().unwrap_or_default();
    (old || n("updatedNumberScheduled") < want || n("numberAvailable") < want)
        .then(|| format!("is ready, but {} of {want} pods of {name} are new", n("updatedNumberScheduled")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_operator_of_another_version_is_not_there_yet() {
        let policy = json!({"metadata": {"labels": {"helm.sh/chart": "gpu-operator-v26.7.0"}},
            "spec": {"toolkit": {"version": "v1.20.0"}, "driver": {"version": "595.91.07"}}});
        let set = |image: &str| {
            json!({"metadata": {"name": "nvidia-container-toolkit-daemonset"},
                "spec": {"template": {"spec": {"containers": [{"image": image}]}}}})
        };
        let said = of_before(&policy, &[], "v26.3.3").unwrap();
        assert!(said.contains("v26.7.0"), "{said}");
        let said = of_before(&policy, &[set("nvcr.io/nvidia/k8s/container-toolkit:v1.19.1")], "v26.7.0").unwrap();
        assert!(said.contains("container-toolkit-daemonset") && said.contains("v1.20.0"), "{said}");
        assert!(of_before(&policy, &[set("nvcr.io/nvidia/k8s/container-toolkit:v1.20.0")], "v26.7.0").is_none());
        // a policy that nobody's helm has made says nothing of versions
        assert!(of_before(&json!({"spec": {}}), &[], "v26.7.0").is_none());
    }

    #[test]
    fn pods_of_before_are_waited_for() {
        let set = |updated: u32| {
            json!({"metadata": {"name": "x", "generation": 2}, "status": {"observedGeneration": 2,
                "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": 2}})
        };
        assert!(replacing(&set(1)).unwrap().contains("1 of 2 pods of x") && replacing(&set(2)).is_none());
    }
}
