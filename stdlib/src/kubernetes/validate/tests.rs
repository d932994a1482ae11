use serde_json::json;

use super::*;

fn deployment(spec: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})
}

fn pod(spec: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

fn said(object: &serde_json::Value) -> Vec<(String, Option<String>)> {
    check_object(object).into_iter().map(|f| (f.to_string(), f.hint)).collect()
}

#[test]
fn a_good_object_has_no_faults() {
    let good = deployment(json!({
        "replicas": 2, "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
            "containers": [{"name": "a", "image": "nginx", "resources": {"limits": {"cpu": 1, "memory": "2Gi", "nvidia.com/gpu": "1"}},
                "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"operator": "Exists"}]}},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    }));
    assert_eq!(said(&good), []);
}

#[test]
fn a_misspelt_field_has_its_path_and_a_suggestion() {
    let bad = deployment(
        json!({"replica": 2, "selector": {}, "template": {"spec": {"containers": [{"name": "a", "imagee": "x"}]}}}),
    );
    assert_eq!(
        said(&bad),
        [
            ("spec.replica: there is no such field".to_owned(), Some("did you mean `replicas`?".to_owned())),
            (
                "spec.template.spec.containers[0].imagee: there is no such field".to_owned(),
                Some("did you mean `image`?".to_owned())
            ),
        ]
    );
}

#[test]
fn a_field_on_the_wrong_level_is_sent_home() {
    let bad = deployment(json!({"selector": {}, "template": {}, "containers": []}));
    let faults = said(&bad);
    assert!(faults[0].1.as_deref().unwrap().contains("spec.template.spec"), "{faults:?}");
}

#[test]
fn types_quantities_and_missing_fields() {
    let faults = said(&pod(json!({"containers": [{"image": 5, "resources": {"limits": {"memory": "2 GiB"}}}]})));
    let text = format!("{faults:?}");
    for part in ["containers[0].image: expected a text", "`2 GiB` is not a quantity", "`name` is missing"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let label = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": true}}});
    assert!(said(&label)[0].1.as_deref().unwrap().contains("\"true\""));
}

#[test]
fn duplicate_names_in_lists_are_found() {
    let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let faults = said(&pod(json!({"containers": [{"name": "c", "env": env}]})));
    assert_eq!(faults[0].0, "spec.containers[0].env[1]: a second entry named `A`");
}

#[test]
fn unknown_values_of_a_recipe_fit_everywhere() {
    let any = json!({ANYTHING: true});
    assert_eq!(said(&deployment(any.clone())), []);
    assert_eq!(said(&json!({"apiVersion": "v1", "kind": any, "metadata": any})), []);
}

#[test]
fn identity_comes_first() {
    assert_eq!(said(&json!({"apiversion": "v1", "kind": "Pod", "metadata": {"name": "a"}})).len(), 1);
    assert!(said(&json!({"apiVersion": "v1", "kind": "Pod"}))[0].0.contains("metadata.name"));
    // a kind of somebody's CRD is not known here
    assert_eq!(said(&json!({"apiVersion": "x.example/v1", "kind": "X", "metadata": {"name": "a"}, "what": 1})), []);
}
