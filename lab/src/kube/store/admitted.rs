//! Admission that adds to new pods what they do not say themselves: limits, their account, priority, how long they stay
//! on ill nodes, what their runtime class asks for. Grade: source (plugin/pkg/admission).
use serde_json::{Value, json};

use super::admission::is_pod;
use super::{Failure, Store, meta, ranges};
use crate::kube::schema::{Kind, prepare};
use crate::kube::text::{arr, hash_name, s};

const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";

/// Fills in what a new pod does not say.
///
/// # Errors
/// 403 in the words of the plugin, for what a pod may not say or names and is not there.
pub(super) fn fill(store: &Store, kind: &Kind, ns: &str, obj: &mut Value) -> Result<(), Failure> {
    if !is_pod(kind) {
        return Ok(());
    }
    ranges::fill(store, ns, obj);
    let account = account(store, ns, obj);
    let priority = priority(store, obj);
    prepare::tolerances(obj);
    let class = runtime(store, obj);
    let why = [account, priority, class].into_iter().find_map(Result::err);
    why.map_or(Ok(()), |why| Err(Failure::forbidden(kind, meta::name(obj), &why)))
}

/// The account that a pod runs as, with its token and what it pulls images with.
fn account(store: &Store, ns: &str, pod: &mut Value) -> Result<(), String> {
    if s(pod, "/spec/serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = "default".into();
        pod["spec"]["serviceAccount"] = "default".into();
    }
    let name = s(pod, "/spec/serviceAccountName");
    let Some(account) = store.get("serviceaccounts", ns, name) else {
        return Err(format!("error looking up service account {ns}/{name}: serviceaccount \"{name}\" not found"));
    };
    let secrets = &account["imagePullSecrets"];
    if arr(pod, "/spec/imagePullSecrets").is_empty() && secrets.as_array().is_some_and(|a| !a.is_empty()) {
        pod["spec"]["imagePullSecrets"] = secrets.clone();
    }
    token(store, ns, pod);
    Ok(())
}

/// The number that a pod's class, or the common one, stands for.
fn priority(store: &Store, pod: &mut Value) -> Result<(), String> {
    let named = s(pod, "/spec/priorityClassName").to_owned();
    let class = if named.is_empty() {
        let common = store.all(PRIORITIES, "").filter(|c| c["globalDefault"] == true);
        common.min_by_key(|c| c["value"].as_i64()).map(AsRef::as_ref)
    } else {
        store.get(PRIORITIES, "", &named)
    };
    let value = match (class, named.as_str()) {
        (Some(c), _) => c["value"].as_i64().unwrap_or(0),
        // of K3s before it has made its classes
        (None, "system-node-critical") => 2_000_001_000,
        (None, "system-cluster-critical") => 2_000_000_000,
        (None, "") => 0,
        (None, _) => return Err(format!("no PriorityClass with name {named} was found")),
    };
    let policy = class.map_or("PreemptLowerPriority", |c| s(c, "/preemptionPolicy")).to_owned();
    let name = class.map(|c| meta::name(c).to_owned()).filter(|_| named.is_empty());
    let computed = "priority admission controller computed";
    let spec = &mut pod["spec"];
    if let Some(name) = name {
        spec["priorityClassName"] = name.into();
    }
    if let Some(said) = spec["priority"].as_i64().filter(|p| *p != value) {
        return Err(format!(
            "the integer value of priority ({said}) must not be provided in pod spec; {computed} {value} from the given PriorityClass name"
        ));
    }
    spec["priority"] = value.into();
    if let Some(said) = spec["preemptionPolicy"].as_str().filter(|p| *p != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; {computed} {policy} from the given PriorityClass name"
        ));
    }
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

/// What a pod's runtime class costs, and where it runs.
fn runtime(store: &Store, pod: &mut Value) -> Result<(), String> {
    let name = s(pod, "/spec/runtimeClassName");
    let cost = pod["spec"]["overhead"].clone();
    let asks = cost.as_object().is_some_and(|m| !m.is_empty());
    if name.is_empty() {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return if asks { Err(why.into()) } else { Ok(()) };
    }
    let Some(class) = store.get("runtimeclasses.node.k8s.io", "", name) else {
        return Err(format!("pod rejected: RuntimeClass \"{name}\" not found"));
    };
    let fixed = &class["overhead"]["podFixed"];
    if fixed.is_object() {
        if asks && cost != *fixed {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        pod["spec"]["overhead"] = fixed.clone();
    } else if asks {
        return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
    }
    for (k, v) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let have = &pod["spec"]["nodeSelector"][k];
        if !have.is_null() && have != v {
            return Err(format!(
                "pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{k}] = {}; pod.spec.nodeSelector[{k}] = {}",
                s(v, ""),
                s(have, "")
            ));
        }
        pod["spec"]["nodeSelector"][k] = v.clone();
    }
    let borne = arr(&pod["spec"], "/tolerations");
    let more: Vec<Value> =
        arr(class, "/scheduling/tolerations").iter().filter(|t| !borne.contains(t)).cloned().collect();
    if let Some(all) = pod["spec"]["tolerations"].as_array_mut() {
        all.extend(more);
    }
    Ok(())
}

/// Where the token of a pod's service account is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Gives a pod the volume with the token of its service account, unless somebody does not want it.
fn token(store: &Store, ns: &str, pod: &mut Value) {
    let account = store.get("serviceaccounts", ns, s(pod, "/spec/serviceAccountName"));
    let wanted = pod["spec"]["automountServiceAccountToken"].as_bool();
    let told = wanted.or_else(|| account?["automountServiceAccountToken"].as_bool());
    if account.is_none() || told == Some(false) {
        return;
    }
    let name = format!("kube-api-access-{}", hash_name(meta::uid(pod), 5));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for c in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if arr(c, "/volumeMounts").iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            match c["volumeMounts"].as_array_mut() {
                Some(all) => all.push(mount),
                None => c["volumeMounts"] = json!([mount]),
            }
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    let own = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [own]}}]}});
    match pod["spec"]["volumes"].as_array_mut() {
        Some(all) => all.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
}
