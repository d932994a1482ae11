//! Short forms for making Kubernetes objects: workloads, services, YAML documents.
use serde::Deserialize;
use serde_json::{Value, json};

/// A container of a workload.
#[derive(Debug, Clone)]
pub struct Container(Value);

impl Container {
    /// A container by name and image.
    #[must_use]
    pub fn new(name: &str, image: &str) -> Self {
        Container(json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent"}))
    }

    /// Its command.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.0["command"] = json!(words);
        self
    }

    /// Its arguments.
    #[must_use]
    pub fn args(mut self, words: &[&str]) -> Self {
        self.0["args"] = json!(words);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        if !self.0["env"].is_array() {
            self.0["env"] = json!([]);
        }
        if let Some(list) = self.0["env"].as_array_mut() {
            list.push(json!({"name": name, "value": value}));
        }
        self
    }

    /// Any other field.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        if !value.is_null() {
            self.0[field] = value;
        }
        self
    }
}

/// A Deployment, DaemonSet, StatefulSet or Job in the making.
#[derive(Debug, Clone)]
pub struct Workload {
    kind: &'static str,
    ns: String,
    name: String,
    replicas: i64,
    labels: Value,
    pod: Value,
    extra: Value,
}

impl Workload {
    fn new(kind: &'static str, ns: &str, name: &str) -> Self {
        Workload {
            kind,
            ns: ns.to_owned(),
            name: name.to_owned(),
            replicas: 1,
            labels: json!({}),
            pod: json!({"containers": [], "serviceAccountName": name}),
            extra: json!({}),
        }
    }

    /// A Deployment with one replica.
    #[must_use]
    pub fn deployment(ns: &str, name: &str) -> Self {
        Self::new("Deployment", ns, name)
    }

    /// A DaemonSet.
    #[must_use]
    pub fn daemonset(ns: &str, name: &str) -> Self {
        Self::new("DaemonSet", ns, name)
    }

    /// A StatefulSet with one replica.
    #[must_use]
    pub fn statefulset(ns: &str, name: &str) -> Self {
        Self::new("StatefulSet", ns, name)
    }

    /// A label of the pods; all of them together select the pods.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels[key] = json!(value);
        self
    }

    /// Number of replicas.
    #[must_use]
    pub fn replicas(mut self, n: i64) -> Self {
        self.replicas = n;
        self
    }

    /// Adds a container.
    #[must_use]
    pub fn container(mut self, c: Container) -> Self {
        if let Some(list) = self.pod["containers"].as_array_mut() {
            list.push(c.0);
        }
        self
    }

    /// Adds an init container.
    #[must_use]
    pub fn init(mut self, c: Container) -> Self {
        if !self.pod["initContainers"].is_array() {
            self.pod["initContainers"] = json!([]);
        }
        if let Some(list) = self.pod["initContainers"].as_array_mut() {
            list.push(c.0);
        }
        self
    }

    /// A field of the pod's spec; null is left out.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        if !value.is_null() {
            self.pod[field] = value;
        }
        self
    }

    /// A field of the workload's own spec (`updateStrategy`, `volumeClaimTemplates` …).
    #[must_use]
    pub fn extra(mut self, field: &str, value: Value) -> Self {
        if !value.is_null() {
            self.extra[field] = value;
        }
        self
    }

    /// The workload with its ServiceAccount.
    #[must_use]
    pub fn objects(self) -> Vec<Value> {
        let sa = self.pod["serviceAccountName"].as_str().unwrap_or("default").to_owned();
        let mut out = Vec::new();
        if sa != "default" {
            out.push(
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": sa, "namespace": self.ns}}),
            );
        }
        out.push(self.object());
        out
    }

    /// The workload alone.
    #[must_use]
    pub fn object(self) -> Value {
        let mut spec = json!({
            "selector": {"matchLabels": self.labels},
            "template": {"metadata": {"labels": self.labels}, "spec": self.pod},
        });
        if self.kind != "DaemonSet" {
            spec["replicas"] = json!(self.replicas);
        }
        if self.kind == "StatefulSet" {
            spec["serviceName"] = json!(self.name);
        }
        for (k, v) in self.extra.as_object().into_iter().flatten() {
            spec[k] = v.clone();
        }
        json!({"apiVersion": "apps/v1", "kind": self.kind,
            "metadata": {"name": self.name, "namespace": self.ns, "labels": self.labels}, "spec": spec})
    }
}

/// A ClusterIP Service.
#[must_use]
pub fn service(ns: &str, name: &str, selector: &Value, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|(n, p)| json!({"name": n, "port": p, "protocol": "TCP", "targetPort": p})).collect();
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns, "labels": selector},
        "spec": {"selector": selector, "type": "ClusterIP", "ports": ports}})
}

/// A CustomResourceDefinition that takes any fields.
#[must_use]
pub fn open_crd(group: &str, versions: &[&str], kind: &str, plural: &str, namespaced: bool) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(i, v)| {
            json!({"name": v, "served": true, "storage": i + 1 == versions.len(), "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
        })
        .collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" }, "versions": list,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()}}})
}

/// The objects of a YAML text with any number of documents; lists are unpacked.
#[must_use]
pub fn from_yaml(text: &str) -> Vec<Value> {
    let docs: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_default();
    let mut out = Vec::new();
    for d in docs {
        match d["items"].as_array() {
            Some(items) if d["kind"].as_str().is_some_and(|k| k.ends_with("List")) => out.extend(items.iter().cloned()),
            _ if d["kind"].is_string() => out.push(d),
            _ => {}
        }
    }
    out
}

/// A map of values as YAML text, for release Secrets and chart values.
#[must_use]
pub fn parse_yaml(text: &str) -> Value {
    Value::deserialize(serde_json::Value::Null)
        .ok()
        .filter(|_| text.trim().is_empty())
        .unwrap_or_else(|| serde_saphyr::from_str(text).unwrap_or(Value::Null))
}
