//! Field selectors.
use serde_json::Value;

use super::failure::Failure;
use crate::kube::schema::Kind;

/// A parsed field selector: (path, equal?, value).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(String, bool, String)>);

/// Fields one may select by, beyond name and namespace, per resource.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("jobs.batch", &["status.successful"]),
    ("resourceslices.resource.k8s.io", &["spec.nodeName", "spec.driver"]),
    ("certificatesigningrequests.certificates.k8s.io", &["spec.signerName"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("replicasets.apps", &["status.replicas"]),
];

impl Fields {
    /// Parses `metadata.name=x,status.phase!=Running`.
    ///
    /// # Errors
    /// 400 for bad syntax or a field that `kind` does not offer.
    pub fn parse(text: &str, kind: &Kind) -> Result<Fields, Failure> {
        let mut out = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, equal, value) = if let Some((k, v)) = part.split_once("!=") {
                (k, false, v)
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (k, true, v)
            } else {
                return Err(Failure::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            if value.ends_with('\\') && !value.ends_with("\\\\") {
                return Err(Failure::bad_request("invalid field selector: invalid escape sequence: \\"));
            }
            let own = SELECTABLE.iter().find(|(r, _)| *r == kind.resource());
            let known = match key {
                "metadata.name" => true,
                "metadata.namespace" => kind.namespaced || own.is_none() && !kind.custom,
                _ => own.is_some_and(|o| o.1.contains(&key)) || kind.selectable.iter().any(|f| f == key),
            };
            if !known {
                return Err(Failure::bad_request(if kind.resource() == "jobs.batch" {
                    format!("field label {key:?} not supported for Job")
                } else if kind.group == "resource.k8s.io" && own.is_some() {
                    format!("field label not supported for {}, Kind={}: {key}", kind.api_version(), kind.kind)
                } else if kind.custom || own.is_some() {
                    format!("field label not supported: {key}")
                } else {
                    format!("\"{key}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                }));
            }
            out.push((key.to_owned(), equal, value.to_owned()));
        }
        Ok(Fields(out))
    }

    /// Whether `obj` satisfies it.
    #[must_use]
    pub fn matches(&self, obj: &Value) -> bool {
        self.0.iter().all(|(path, equal, want)| {
            let at = |path: &str| obj.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null);
            let sent = at("source.component").as_str().unwrap_or_default();
            let v = match path.as_str() {
                "source" if !sent.is_empty() => at("source.component"),
                "source" => at("reportingComponent"),
                other => at(other),
            };
            let have = match v {
                Value::String(s) => s.clone(),
                Value::Null if matches!(path.as_str(), "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (have == *want) == *equal
        })
    }

    /// The name it asks for, when it asks for one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find(|(p, e, _)| *e && p == "metadata.name").map(|(_, _, v)| v.as_str())
    }
}
