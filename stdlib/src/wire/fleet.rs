//! The keys of `fleet.yaml`. Fleet drops every other key without a word.
use serde_json::Value;

/// Keys that the file and its customizations of targets both have.
const COMMON: &[&str] = &[
    "allowedTargetNamespaceSelector",
    "correctDrift",
    "createNamespace",
    "defaultNamespace",
    "deleteCRDResources",
    "deleteNamespace",
    "diff",
    "downstreamResources",
    "forceSyncGeneration",
    "helm",
    "ignore",
    "keepResources",
    "kustomize",
    "namespace",
    "namespaceAnnotations",
    "namespaceLabels",
    "overwrites",
    "serviceAccount",
    "yaml",
];

const FILE: &[&str] = &[
    "dependsOn",
    "helmOpOptions",
    "imageScans",
    "labels",
    "name",
    "overrideTargets",
    "paused",
    "rolloutStrategy",
    "targetCustomizationMode",
    "targetCustomizations",
    "targetRestrictions",
    "targets",
];

const TARGET: &[&str] =
    &["clusterGroup", "clusterGroupSelector", "clusterName", "clusterSelector", "doNotDeploy", "name"];

/// Parts with keys of their own.
const PARTS: &[(&str, &[&str])] = &[
    (
        "helm",
        &[
            "atomic",
            "chart",
            "disableDNS",
            "disableDependencyUpdate",
            "disablePreProcess",
            "force",
            "maxHistory",
            "releaseName",
            "repo",
            "skipSchemaValidation",
            "takeOwnership",
            "templateValues",
            "timeoutSeconds",
            "values",
            "valuesFiles",
            "valuesFrom",
            "version",
            "waitForJobs",
        ],
    ),
    ("kustomize", &["dir"]),
    ("yaml", &["overlays"]),
    ("diff", &["comparePatches"]),
    ("correctDrift", &["enabled", "force", "keepFailHistory"]),
];

/// Paths of the keys of a `fleet.yaml` that Fleet drops.
#[must_use]
pub fn dropped(fleet: &Value) -> Vec<String> {
    let mut out = Vec::new();
    level(fleet, "", FILE, &mut out);
    for list in ["targetCustomizations", "targets"] {
        for (i, t) in fleet[list].as_array().into_iter().flatten().enumerate() {
            level(t, &format!("{list}[{i}]."), TARGET, &mut out);
        }
    }
    out
}

fn level(v: &Value, at: &str, own: &[&str], out: &mut Vec<String>) {
    let known = |k: &str| COMMON.contains(&k) || own.contains(&k);
    out.extend(v.as_object().into_iter().flatten().filter(|(k, _)| !known(k)).map(|(k, _)| format!("{at}{k}")));
    for (part, keys) in PARTS {
        let inside = v[*part].as_object().into_iter().flatten();
        out.extend(inside.filter(|(k, _)| !keys.contains(&k.as_str())).map(|(k, _)| format!("{at}{part}.{k}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_fleet_drops_are_named() {
        let good = json!({"defaultNamespace": "a", "keepResources": true, "labels": {"any": "thing"},
            "helm": {"chart": "x", "values": {"any": 1}}, "dependsOn": [{"name": "b"}],
            "targetCustomizations": [{"name": "gpu", "clusterSelector": {"matchLabels": {"a": "b"}}, "helm": {"values": {}}}]});
        assert_eq!(dropped(&good), Vec::<String>::new());
        let bad = json!({"defaultNamspace": "a", "helm": {"valueFiles": []}, "targetCustomizations": [
            {"name": "gpu", "patches": [{"patch": "x"}], "kustomize": {"patches": []}}]});
        assert_eq!(
            dropped(&bad),
            [
                "defaultNamspace",
                "helm.valueFiles",
                "targetCustomizations[0].patches",
                "targetCustomizations[0].kustomize.patches"
            ]
        );
    }
}
