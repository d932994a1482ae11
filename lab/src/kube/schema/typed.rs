//! Bodies as the API server's decoder reads them: wrong types are refused in Go's words, fields that nobody
//! declared are named and dropped, and what a Go struct always writes is filled in.
use serde_json::{Map, Value, json};

use super::Kind;
use super::defaults::canonical;
use super::gotime;
use super::node::{Field, Node};
use crate::kube::text::shown;

/// Fields that the kind does not declare; they have been dropped from `obj`.
///
/// # Errors
/// The decoder's text for a value of the wrong type.
pub fn read(kind: &Kind, obj: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    if kind.custom {
        let schema = Node::of(kind);
        if let Some(m) = obj.get_mut("metadata").filter(|m| !m.is_null()) {
            let mut place = Place { type_name: "ObjectMeta", stack: vec!["metadata".into()], unknown: &mut unknown };
            place.walk(schema.down("metadata"), "metadata", m)?;
        }
        prune(schema, "", obj, &mut unknown);
        return Ok(unknown);
    }
    let mut place = Place { type_name: &kind.kind, stack: Vec::new(), unknown: &mut unknown };
    place.walk(Node::of(kind), "", obj)?;
    Ok(unknown)
}

/// Drops what the schema of a custom kind does not declare.
pub fn declared(kind: &Kind, obj: &mut Value) {
    prune(Node::of(kind), "", obj, &mut Vec::new());
}

/// A place in a body of a built-in kind.
struct Place<'a> {
    /// Go struct that declares the field.
    type_name: &'a str,
    /// Field names from the root, without indexes.
    stack: Vec<String>,
    unknown: &'a mut Vec<String>,
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The Go type of a place.
fn go_type(node: Node<'_>) -> String {
    if let Some(name) = node.type_name() {
        let mut parts = name.rsplit('.');
        let (kind, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        return format!("{version}.{kind}");
    }
    match (node.kind(), node.format()) {
        (Some("array"), _) => format!("[]{}", go_type(node.items())),
        (Some("integer"), f) => f.unwrap_or("int64").to_owned(),
        (Some("number"), _) => "float64".to_owned(),
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("string"), Some("byte")) => "[]uint8".to_owned(),
        (Some("string"), _) => "string".to_owned(),
        _ => match node.field("*") {
            Field::Entry(n) => format!("map[string]{}", go_type(n)),
            _ => "interface {}".to_owned(),
        },
    }
}

/// What Go calls the sort of a value.
pub fn word(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Place<'_> {
    fn wrong(&self, node: Node<'_>, shown: &str) -> String {
        let into = if self.stack.is_empty() {
            format!("Go value of type {}", go_type(node))
        } else {
            format!("Go struct field {}.{} of type {}", self.type_name, self.stack.join("."), go_type(node))
        };
        format!("json: cannot unmarshal {shown} into {into}")
    }

    fn walk(&mut self, node: Node<'_>, path: &str, v: &mut Value) -> Result<(), String> {
        if node.type_name().is_some_and(|n| n.ends_with("runtime.RawExtension")) {
            return Ok(());
        }
        // Values of any kind, and schemas that may also be a list or a truth value.
        if node.type_name().is_some_and(|n| n.ends_with("v1.JSON") || n.contains("JSONSchemaPropsOr")) {
            return Ok(());
        }
        if node.quantity() {
            let text = shown(v);
            return if (v.is_string() || v.is_number()) && canonical(&text).is_some() {
                Ok(())
            } else {
                Err(QUANTITY.into())
            };
        }
        if node.int_or_string() && (v.is_i64() || v.is_string())
            || node.open() && !v.is_object() && node.kind().is_none()
        {
            return Ok(());
        }
        match (node.kind(), &mut *v) {
            (Some("array"), Value::Array(list)) => self.list(node, path, list),
            (Some("string"), Value::String(text)) if node.type_name().is_some_and(|n| n.ends_with("MicroTime")) => {
                gotime::read(text, true)
            }
            (Some("string"), Value::String(text)) => scalar(node.format(), text),
            (Some("boolean"), Value::Bool(_)) => Ok(()),
            (Some("integer"), Value::Number(n)) => {
                let fits = n.as_i64().is_some_and(|n| node.format() != Some("int32") || i32::try_from(n).is_ok());
                if fits { Ok(()) } else { Err(self.wrong(node, &format!("number {n}"))) }
            }
            (Some("number"), Value::Number(_)) => Ok(()),
            (None | Some("object"), Value::Object(map)) => self.fields(node, path, map),
            (None, _) => Ok(()),
            _ => Err(self.wrong(node, word(v))),
        }
    }

    fn list(&mut self, node: Node<'_>, path: &str, list: &mut [Value]) -> Result<(), String> {
        for (i, v) in list.iter_mut().enumerate().filter(|(_, v)| !v.is_null()) {
            self.walk(node.items(), &format!("{path}[{i}]"), v)?;
        }
        Ok(())
    }

    fn fields(&mut self, node: Node<'_>, path: &str, map: &mut Map<String, Value>) -> Result<(), String> {
        if node.open() {
            return Ok(());
        }
        let own = node.type_name().map_or(self.type_name, short).to_owned();
        let keys: Vec<String> = map.keys().cloned().collect();
        for k in keys {
            let sub = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
            match node.field(&k) {
                Field::Unknown => {
                    self.unknown.push(sub);
                    map.shift_remove(&k);
                }
                // an entry of a map stays, with the value that Go gives to what is not told
                Field::Entry(n) if map[&k].is_null() && n.quantity() => drop(map.insert(k, "0".into())),
                Field::Entry(n)
                    if map[&k].is_null() && n.kind() == Some("string") && n.format() != Some("date-time") =>
                {
                    map.insert(k, "".into());
                }
                Field::Known(_) | Field::Entry(_) if map.get(&k).is_some_and(Value::is_null) => {
                    map.shift_remove(&k);
                }
                Field::Known(n) => {
                    let mut stack = self.stack.clone();
                    stack.push(k.clone());
                    let mut down = Place { type_name: &own, stack, unknown: self.unknown };
                    map.get_mut(&k).map_or(Ok(()), |v| down.walk(n, &sub, v))?;
                }
                Field::Entry(n) => map.get_mut(&k).map_or(Ok(()), |v| self.walk(n, &sub, v))?,
            }
        }
        Ok(())
    }
}

const QUANTITY: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn scalar(format: Option<&str>, text: &str) -> Result<(), String> {
    match format {
        Some("byte") => base64_text(text),
        Some("date-time") => gotime::read(text, false),
        _ => Ok(()),
    }
}

fn base64_text(text: &str) -> Result<(), String> {
    let data: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let letters = data.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')));
    let padding = letters.filter(|i| data[*i] == b'=' && data[*i..].iter().all(|b| *b == b'=') && data.len() - i <= 2);
    let bad = match (letters, padding) {
        (Some(i), None) => Some(i),
        _ if !data.len().is_multiple_of(4) => Some(data.len() / 4 * 4),
        _ => None,
    };
    bad.map_or(Ok(()), |i| Err(format!("illegal base64 data at input byte {i}")))
}

/// Drops what a structural schema does not declare, and nulls it does not allow.
fn prune(node: Node<'_>, path: &str, v: &mut Value, unknown: &mut Vec<String>) {
    match v {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            for k in keys {
                if path.is_empty() && matches!(k.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let sub = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
                match node.field(&k) {
                    Field::Unknown => {
                        unknown.push(sub);
                        map.shift_remove(&k);
                    }
                    Field::Known(n) if map[&k].is_null() && n.schema().is_some() && n.word("nullable") != true => {
                        map.shift_remove(&k);
                    }
                    Field::Known(n) | Field::Entry(n) => {
                        if let Some(v) = map.get_mut(&k) {
                            prune(n, &sub, v, unknown);
                        }
                    }
                }
            }
        }
        Value::Array(list) => {
            for (i, v) in list.iter_mut().enumerate() {
                prune(node.items(), &format!("{path}[{i}]"), v, unknown);
            }
        }
        _ => {}
    }
}

/// What Go always writes of an item of a list: (kind, list, fields).
fn items(kind: &str) -> Vec<(&'static str, Value)> {
    match kind {
        "Pod" => {
            let probed = json!({"lastProbeTime": null, "lastTransitionTime": null});
            let status =
                json!({"state": {}, "lastState": {}, "ready": false, "restartCount": 0, "image": "", "imageID": ""});
            vec![
                ("/status/conditions", probed),
                ("/status/containerStatuses", status.clone()),
                ("/status/initContainerStatuses", status.clone()),
                ("/status/ephemeralContainerStatuses", status),
            ]
        }
        "PersistentVolumeClaim" => {
            vec![("/status/conditions", json!({"lastProbeTime": null, "lastTransitionTime": null}))]
        }
        "Deployment" => vec![("/status/conditions", json!({"lastUpdateTime": null, "lastTransitionTime": null}))],
        "Job" => vec![("/status/conditions", json!({"lastProbeTime": null, "lastTransitionTime": null}))],
        "Node" => vec![("/status/conditions", json!({"lastHeartbeatTime": null, "lastTransitionTime": null}))],
        "Namespace" | "ReplicationController" => vec![("/status/conditions", json!({"lastTransitionTime": null}))],
        "Service" => {
            vec![("/status/conditions", json!({"lastTransitionTime": null, "reason": "", "message": ""}))]
        }
        _ => Vec::new(),
    }
}

/// What Go always writes of the state of a container.
fn state(v: &mut Value) {
    for (sort, fields) in [
        ("running", json!({"startedAt": null})),
        ("terminated", json!({"exitCode": 0, "startedAt": null, "finishedAt": null})),
    ] {
        if let Some(at) = v.get_mut(sort).filter(|v| v.is_object()) {
            fill(at, &fields);
        }
    }
}

/// What a Go struct of the kind always writes, set or not.
fn always(kind: &str) -> Value {
    match kind {
        "Namespace" => json!({"spec": {}, "status": {}}),
        "Event" => json!({"source": {}, "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
            "reportingComponent": "", "reportingInstance": ""}),
        "Node" => json!({"spec": {}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
            "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "", "architecture": ""}}}),
        "DaemonSet" => json!({"spec": {"updateStrategy": {}}, "status": {"currentNumberScheduled": 0,
            "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}}),
        "StatefulSet" => {
            json!({"spec": {"updateStrategy": {}, "serviceName": ""}, "status": {"replicas": 0, "availableReplicas": 0}})
        }
        "ReplicaSet" | "ReplicationController" => json!({"status": {"replicas": 0}}),
        "Deployment" => json!({"spec": {"strategy": {}}, "status": {}}),
        "CronJob" => json!({"spec": {"schedule": "", "jobTemplate": {"metadata": {}, "spec": {"template": {
            "metadata": {}, "spec": {}}}}}, "status": {}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "", "nodeName": "", "source": {}}, "status": {"attached": false}})
        }
        "CSINode" => json!({"spec": {"drivers": null}}),
        "CSIDriver" | "Lease" => json!({"spec": {}}),
        "ServiceCIDR" => json!({"status": {}}),
        "PriorityClass" => json!({"value": 0}),
        "ValidatingAdmissionPolicy" => json!({"status": {}}),
        "EndpointSlice" => json!({"endpoints": null, "ports": null}),
        "Role" | "ClusterRole" => json!({"rules": null}),
        "Pod" | "Job" | "PersistentVolume" => json!({"status": {}}),
        "ResourceQuota" => json!({"spec": {}, "status": {}}),
        "LimitRange" => json!({"spec": {"limits": null}}),
        "ResourceClaim" => json!({"spec": {"devices": {}}, "status": {}}),
        "ResourceClaimTemplate" => json!({"spec": {"metadata": {}, "spec": {"devices": {}}}}),
        "CertificateSigningRequest" => json!({"status": {}}),
        "APIService" => json!({"spec": {"groupPriorityMinimum": 0, "versionPriority": 0}, "status": {}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": ""}, "status": {}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": ""}, "matchingPrecedence": 0},
            "status": {}}),
        "DeviceClass" => json!({"spec": {}}),
        "ResourceSlice" => json!({"spec": {"driver": "", "pool": {"name": "", "generation": 0,
            "resourceSliceCount": 0}}}),
        "PersistentVolumeClaim" => json!({"spec": {"resources": {}}, "status": {}}),
        "Service" | "Ingress" => json!({"status": {"loadBalancer": {}}}),
        "PodDisruptionBudget" => json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0,
            "expectedPods": 0}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0}, "status": {"desiredReplicas": 0, "currentMetrics": null}})
        }
        _ => Value::Null,
    }
}

fn fill(v: &mut Value, wanted: &Value) {
    let Value::Object(w) = wanted else { return };
    if v.is_null() {
        *v = json!({});
    }
    let Value::Object(m) = v else { return };
    for (k, x) in w {
        match m.get_mut(k) {
            Some(have) => fill(have, x),
            None => drop(m.insert(k.clone(), x.clone())),
        }
    }
}

/// Truth values that Go leaves out when they are false: plain ones with `omitempty`, where pointers would stay.
const LEAN: &[&str] = &[
    "globalDefault",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
];

fn is_lean(node: Node<'_>, field: &str) -> bool {
    let pointer = field == "readOnly" && node.type_name().is_some_and(|t| short(t) == "CSIVolumeSource");
    LEAN.contains(&field) && !pointer
}

/// Leaves out empty lists and maps and false ones of [`LEAN`], as what is read back from the store: those that are always written are null.
fn lean(node: Node<'_>, v: &mut Value) {
    match v {
        Value::Object(m) if !node.open() => {
            let needed = node.required();
            let keys: Vec<String> = m.keys().cloned().collect();
            for k in keys {
                let sub = node.down(&k);
                let Some(v) = m.get_mut(&k) else { continue };
                lean(sub, v);
                let map = sub.kind() == Some("object") && matches!(sub.field("*"), Field::Entry(_)) && !sub.open();
                // an empty list of managers is an order to forget them
                let empty = k != "managedFields"
                    && match v {
                        Value::Array(a) => a.is_empty() && sub.kind() == Some("array"),
                        Value::Object(m) => m.is_empty() && map,
                        Value::Bool(b) => !*b && is_lean(node, &k),
                        _ => false,
                    };
                if empty && needed.contains(&k.as_str()) {
                    *v = Value::Null;
                } else if empty {
                    m.shift_remove(&k);
                }
            }
        }
        Value::Array(a) => a.iter_mut().for_each(|v| lean(node.items(), v)),
        _ => {}
    }
}

/// An object of the kind that nobody has told anything: what a new one is compared with.
#[must_use]
pub fn blank(kind: &Kind) -> Value {
    match always(&kind.kind) {
        v @ Value::Object(_) if !kind.custom => v,
        _ => json!({}),
    }
}

/// Fills in what is always written.
pub fn complete(kind: &Kind, obj: &mut Value) {
    if kind.custom {
        return;
    }
    lean(Node::of(kind), obj);
    fill(obj, &always(&kind.kind));
    for p in ["/spec/dataSource", "/spec/dataSourceRef"].iter().filter(|_| kind.kind == "PersistentVolumeClaim") {
        obj.pointer_mut(p).into_iter().for_each(|r| fill(r, &json!({"apiGroup": null})));
    }
    for (list, fields) in items(&kind.kind) {
        for item in obj.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            fill(item, &fields);
            for part in ["state", "lastState"] {
                item.get_mut(part).into_iter().for_each(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::kinds::builtin;

    fn kind(name: &str) -> Kind {
        (**builtin().iter().find(|k| k.kind == name).unwrap()).clone()
    }

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let mut o = json!({"metadata": {"name": "a", "colour": 1}, "spec": {"contaners": [], "containers": [{"name": "c", "imge": "x"}]}});
        let found = read(&kind("Pod"), &mut o).unwrap();
        assert_eq!(found, ["metadata.colour", "spec.contaners", "spec.containers[0].imge"]);
        assert_eq!(o, json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}));
    }

    #[test]
    fn wrong_types_read_as_in_go() {
        for (k, o, want) in [
            (
                "Deployment",
                json!({"spec": {"replicas": "x"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": 1}}),
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                "Pod",
                json!({"metadata": {"labels": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                "Pod",
                json!({"spec": {"containers": {}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            ("Secret", json!({"data": {"k": "%%%"}}), "illegal base64 data at input byte 0"),
            ("Pod", json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}), QUANTITY),
        ] {
            assert_eq!(read(&kind(k), &mut o.clone()).unwrap_err(), want, "{o}");
        }
    }

    #[test]
    fn every_lab_definition_of_a_time_is_null_until_set() {
        let mut o = json!({"status": {"conditions": [{"type": "Ready"}]}});
        complete(&kind("Pod"), &mut o);
        assert_eq!(
            o["status"]["conditions"][0],
            json!({"type": "Ready", "lastProbeTime": null, "lastTransitionTime": null})
        );
    }
}
