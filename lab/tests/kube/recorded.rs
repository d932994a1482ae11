//! The recorded answers of the real API machinery, replayed in order.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::bed::Bed;

fn shared(path: &str) -> Option<String> {
    let dirs = ["/../../shared", "/../../../shared"].map(|d| format!("{}{d}", env!("CARGO_MANIFEST_DIR")));
    let found = dirs.iter().find_map(|d| std::fs::read_to_string(format!("{d}/data/k8s/{path}")).ok());
    if found.is_none() {
        eprintln!("skipped: no `{path}` beside the workspace");
    }
    found
}

/// Rows whose answer is another one here, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("generateName", "the generated name is another"),
    ("create node", "a full API server counts no generations of nodes and leases"),
    ("label node by merge patch", "the same"),
    ("taint by strategic patch", "the same"),
    ("cordon", "the same"),
    ("uncordon", "the same"),
    ("node status capacity", "the same"),
    ("lease", "the same"),
    ("secrets notin", "between the recorded rows the type of Secret `a` was changed, which a full API server refuses"),
    ("secrets not exists", "the same"),
    ("list limit 1", "the same"),
    ("watch from 0 for a second", "the same"),
    ("watch on one name path", "the same"),
    ("pod spec ignored by status", "a full API server keeps the spec out of the status manager's fields"),
    ("second condition merges by type", "the same"),
    ("conditions both there", "the same"),
    (
        "json patch on a list",
        "between the recorded rows the selector was changed, which is immutable in a full API server",
    ),
    ("json patch copy and move", "the same"),
    ("create namespace", "a full API server counts no generations of namespaces"),
    ("secret with stringData", "a full API server notes `data`, which `stringData` has become"),
    ("secret read", "the same"),
    ("delete with options body", "a full API server answers with the pod that it has deleted"),
    ("custom resources as Table", "the recording was cut to the first cell"),
    ("bad label value", "a full API server looks at a node's labels once more"),
    ("delete with wrong rv precondition", "the resourceVersion that the text names is another"),
];

/// What a full API server adds to an object: core defaults and what it tracks of them.
fn defaulted(path: &str) -> bool {
    let managed = path.starts_with(".metadata.managedFields") || path.contains(".metadata.managedFields[");
    let parts =
        [".spec", ".status", ".finalizers", "kubernetes.io/metadata.name", "f:spec", "f:status", "f:type", "f:labels"];
    let core = [".apiVersion", ".columnDefinitions"];
    (managed && ["f:spec", "f:status", "f:type", "f:metadata.name"].iter().any(|p| path.contains(p)))
        || parts.iter().any(|p| path.contains(p))
        || core.contains(&path)
}

/// Whether it is only how often the template of a DaemonSet has changed, which a full API server notes on it.
fn is_count(v: &Value) -> bool {
    const NOTE: &str = "deprecated.daemonset.template.generation";
    let owned = serde_json::json!({".": {}, format!("f:{NOTE}"): {}});
    *v == owned || v["f:annotations"] == owned || v.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(NOTE))
}

/// Where `have` says something else than the recording `want`.
fn differs(want: &Value, have: &Value, path: &str, out: &mut Vec<String>) {
    match (want, have) {
        (Value::String(w), _) if w == "*" => {}
        (Value::Object(w), Value::Object(h)) => {
            for (k, v) in w {
                let sub = format!("{path}.{k}");
                match h.get(k) {
                    Some(x) => differs(v, x, &sub, out),
                    None if v.is_null() => {}
                    None => out.push(format!("{sub} is missing")),
                }
            }
            for k in h.keys().filter(|k| !w.contains_key(*k)) {
                let sub = format!("{path}.{k}");
                if !defaulted(&sub) && !is_count(&h[k]) {
                    out.push(format!("{sub} is too much"));
                }
            }
        }
        (Value::Array(w), Value::Array(h)) if w.len() == h.len() => {
            for (i, (w, h)) in w.iter().zip(h).enumerate() {
                differs(w, h, &format!("{path}[{i}]"), out);
            }
        }
        _ if want == have => {}
        _ => out.push(format!("{path} is {have}, recorded {want}")),
    }
}

#[tokio::test]
async fn recorded_answers_are_given_again() {
    let (Some(rows), Some(charts), Some(configs)) =
        (shared("recorded-rest.jsonl"), shared("crd-helmcharts.yaml"), shared("crd-helmchartconfigs.yaml"))
    else {
        return;
    };
    let bed = Bed::still().await;
    for crd in [charts, configs] {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let a = bed.send("POST", path, "application/yaml", crd.into_bytes(), &[]).await;
        assert_eq!(a.code, 201, "{}", a.text);
    }
    let (mut wrong, mut other) = (Vec::new(), BTreeSet::new());
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |f: &str| row[f].as_str().unwrap_or_default();
        let name = text("name");
        let body = match &row["body"] {
            Value::Null => Vec::new(),
            Value::String(s) => s.clone().into_bytes(),
            v => v.to_string().into_bytes(),
        };
        let accept = row["headers"]["Accept"].as_str().unwrap_or_default();
        let a = bed.send(text("method"), text("path"), text("content_type"), body, &[("accept", accept)]).await;
        let mut found = Vec::new();
        if u64::from(a.code) != row["status"].as_u64().unwrap() {
            found.push(format!("status is {}, recorded {}: {}", a.code, row["status"], a.text));
        }
        if row["warning_header"].is_boolean() && row["warning_header"] != !a.warnings.is_empty() {
            found.push(format!("warnings are {:?}", a.warnings));
        }
        let have = if a.body.is_null() {
            a.text.lines().next().map(|l| serde_json::from_str(l).unwrap()).unwrap_or_default()
        } else {
            a.body
        };
        if !row["answer"].is_string() {
            differs(&row["answer"], &have, "", &mut found);
        }
        match DIFFERENT.iter().find(|d| d.0 == name) {
            Some(_) if !found.is_empty() => drop(other.insert(name.to_owned())),
            Some(_) => wrong.push(format!("{name}: is listed as different and is not")),
            None if found.is_empty() => {}
            None => wrong.push(format!("{name}:\n    {}", found.join("\n    "))),
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(other.len(), DIFFERENT.len());
}
