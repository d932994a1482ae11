//! What objects take of ResourceQuotas, the refusal of what would be more, and the note in their status of what was
//! taken. Grade: source (the resourcequota plugin and the evaluators of pkg/quota).
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::index::{Requests, requests, total};
use super::{Failure, Store, meta};
use crate::kube::schema::Kind;
use crate::kube::schema::defaults::{quality, told};
use crate::kube::text::{arr, expression, milli, s};

const QUOTAS: &str = "resourcequotas";

/// Resources whose objects are counted under their plain names, too.
const PLAIN: &[&str] =
    &["services", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"];

/// What an object takes, in thousandths, by the keys of quotas.
#[must_use]
pub fn usage(resource: &str, o: &Value) -> Requests {
    let mut out = BTreeMap::from([(format!("count/{resource}"), 1000)]);
    if PLAIN.contains(&resource) {
        out.insert(resource.to_owned(), 1000);
    }
    match resource {
        "pods" if !matches!(s(o, "/status/phase"), "Succeeded" | "Failed") => pod(o, &mut out),
        "services" => service(o, &mut out),
        "persistentvolumeclaims" => claim(o, &mut out),
        _ => {}
    }
    out
}

fn pod(o: &Value, out: &mut Requests) {
    out.insert("pods".to_owned(), 1000);
    computed(&requests(o), &total(o, &part("limits")), out);
}

/// One part of what a container, or a pod as a whole, says of resources.
fn part(name: &'static str) -> impl Fn(&Value) -> Requests {
    move |c| c["resources"][name].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), milli(v))).collect()
}

/// Requests and limits by the keys of quotas.
fn computed(requests: &Requests, limits: &Requests, out: &mut Requests) {
    for (k, v) in requests.iter().filter(|(k, _)| *k != "pods") {
        let plain = matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") || k.starts_with("hugepages-");
        if plain {
            out.insert(k.clone(), *v);
        }
        if plain || k.contains('/') {
            out.insert(format!("requests.{k}"), *v);
        }
    }
    for k in ["cpu", "memory", "ephemeral-storage"] {
        out.extend(limits.get(k).map(|v| (format!("limits.{k}"), *v)));
    }
}

fn service(o: &Value, out: &mut Requests) {
    let ports = arr(o, "/spec/ports");
    let all = 1000 * ports.len() as i64;
    match s(o, "/spec/type") {
        "NodePort" => drop(out.insert("services.nodeports".into(), all)),
        "LoadBalancer" => {
            let given = ports.iter().filter(|p| p["nodePort"].as_i64().unwrap_or(0) != 0).count() as i64;
            let own = o["spec"]["allocateLoadBalancerNodePorts"] == false;
            out.insert("services.loadbalancers".into(), 1000);
            out.insert("services.nodeports".into(), if own { 1000 * given } else { all });
        }
        _ => {}
    }
}

fn claim(o: &Value, out: &mut Requests) {
    let size = milli(&o["spec"]["resources"]["requests"]["storage"]);
    let class = s(o, "/spec/storageClassName");
    out.insert("requests.storage".into(), size);
    if !class.is_empty() {
        out.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
        out.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), 1000);
    }
}

/// Whether objects of a resource are what a key of a quota is about.
fn concerns(resource: &str, key: &str) -> bool {
    if key == format!("count/{resource}") || PLAIN.contains(&resource) && key == resource {
        return true;
    }
    match resource {
        "pods" => {
            let bare = key.strip_prefix("requests.").or_else(|| key.strip_prefix("limits.")).unwrap_or(key);
            key == "pods"
                || matches!(bare, "cpu" | "memory" | "ephemeral-storage")
                || bare.starts_with("hugepages-")
                || key.starts_with("requests.") && bare.contains('/') && !bare.contains("storageclass.storage.k8s.io/")
        }
        "services" => matches!(key, "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => key == "requests.storage" || key.contains(".storageclass.storage.k8s.io/"),
        _ => false,
    }
}

/// Resources whose objects a key of a quota is about.
#[must_use]
pub fn counted(key: &str) -> Vec<&str> {
    if let Some(resource) = key.strip_prefix("count/") {
        return vec![resource];
    }
    let of = |r: &&&str| concerns(r, key);
    PLAIN.iter().chain(&["pods"]).filter(of).copied().collect()
}

/// Whether an object is within the scopes of a quota.
#[must_use]
pub fn within(quota: &Value, resource: &str, o: &Value) -> bool {
    let plain =
        arr(quota, "/spec/scopes").iter().all(|scope| fits(scope.as_str().unwrap_or_default(), None, resource, o));
    plain
        && arr(quota, "/spec/scopeSelector/matchExpressions")
            .iter()
            .all(|e| fits(s(e, "/scopeName"), Some(e), resource, o))
}

fn fits(scope: &str, e: Option<&Value>, resource: &str, o: &Value) -> bool {
    let named = |name: Option<&str>| match e.filter(|e| e["operator"] != "Exists") {
        None => name.is_some(),
        Some(e) => expression(e, |_| name),
    };
    let text = |p: &str| Some(s(o, p)).filter(|t| !t.is_empty());
    let ends = o["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|n| n >= 0);
    match (resource, scope) {
        ("persistentvolumeclaims", "VolumeAttributesClass") => named(text("/spec/volumeAttributesClassName")),
        ("pods", "Terminating") => ends,
        ("pods", "NotTerminating") => !ends,
        ("pods", "BestEffort") => quality(o) == "BestEffort",
        ("pods", "NotBestEffort") => quality(o) != "BestEffort",
        ("pods", "PriorityClass") => named(text("/spec/priorityClassName")),
        ("pods", "CrossNamespacePodAffinity") => crosses(&o["spec"]["affinity"]),
        _ => false,
    }
}

/// Whether a pod wants to be near pods of other namespaces, or away from them.
fn crosses(affinity: &Value) -> bool {
    let far = |t: &Value| !arr(t, "/namespaces").is_empty() || t["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().any(|k| {
        arr(&affinity[*k], "/requiredDuringSchedulingIgnoredDuringExecution").iter().any(far)
            || arr(&affinity[*k], "/preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|t| far(&t["podAffinityTerm"]))
    })
}

/// What every container has to say where a quota counts it.
const TOLD: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What containers of a pod do not say and a quota has to know, in words.
fn silent(pod: &Value, keys: &[&String]) -> Option<String> {
    if part("requests")(&pod["spec"]).len() + part("limits")(&pod["spec"]).len() > 0 {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for c in ["/spec/containers", "/spec/initContainers"].iter().flat_map(|p| arr(pod, p)) {
        let mut says = Requests::new();
        computed(&part("requests")(c), &part("limits")(c), &mut says);
        for key in keys.iter().filter(|k| TOLD.contains(&k.as_str()) && !says.contains_key(**k)) {
            missing.entry(key.as_str()).or_default().insert(s(c, "/name"));
        }
    }
    let each = |(k, names): (&&str, &BTreeSet<&str>)| {
        format!("{k} for: {}", names.iter().copied().collect::<Vec<_>>().join(","))
    };
    (!missing.is_empty()).then(|| format!("must specify {}", missing.iter().map(each).collect::<Vec<_>>().join("; ")))
}

/// What a change of an object takes: only those of pods' sizes and scopes, of services and of claims do.
///
/// # Errors
/// As [`charge`].
pub(super) fn grown(store: &Store, kind: &Kind, sub: &str, old: &Value, new: &Value) -> Result<Charges, Failure> {
    let ends = |o: &Value| fits("Terminating", None, "pods", o);
    match (kind.resource().as_str(), sub) {
        ("pods", "resize") | ("services" | "persistentvolumeclaims", "") => {}
        ("pods", "") if ends(old) != ends(new) => {}
        _ => return Ok(Charges::new()),
    }
    charge(store, kind, meta::namespace(old), new, Some(old))
}

/// What is to be noted in quotas when a write has come to pass: their names and what is used then.
pub type Charges = Vec<(String, Value)>;

/// What a new object, or a change of one, takes of the quotas of its namespace.
///
/// # Errors
/// 403 in the words of the plugin, where that is more than is left.
pub fn charge(store: &Store, kind: &Kind, ns: &str, o: &Value, old: Option<&Value>) -> Result<Charges, Failure> {
    if !kind.namespaced {
        return Ok(Charges::new());
    }
    let resource = kind.resource();
    let refuse = |why: String| Failure::forbidden(kind, meta::name(o), &why);
    // whether all can be counted comes before whether there is enough
    let mut concerned = Vec::new();
    for q in store.all(QUOTAS, ns) {
        let hard = q["status"]["hard"].as_object().into_iter().flatten();
        let keys: Vec<&String> = hard.map(|(k, _)| k).filter(|k| concerns(&resource, k)).collect();
        if keys.is_empty() || !within(q, &resource, o) {
            continue;
        }
        let name = meta::name(q);
        if let Some(why) = silent(o, &keys).filter(|_| resource == "pods") {
            return Err(refuse(format!("failed quota: {name}: {why}")));
        }
        let mut unknown: Vec<&str> =
            keys.iter().filter(|k| q["status"]["used"][k.as_str()].is_null()).map(|k| k.as_str()).collect();
        if !unknown.is_empty() {
            unknown.sort_unstable();
            return Err(refuse(format!("status unknown for quota: {name}, resources: {}", unknown.join(","))));
        }
        concerned.push((q, keys));
    }
    let mut out = Charges::new();
    for (q, keys) in concerned {
        let mut more = usage(&resource, o);
        if let Some(old) = old.filter(|old| within(q, &resource, old)) {
            let had = usage(&resource, old);
            more.iter_mut().for_each(|(k, v)| *v = (*v - had.get(k).copied().unwrap_or(0)).max(0));
        }
        more.retain(|k, v| *v > 0 && keys.contains(&k));
        if let Some(why) = exceeded(q, &more) {
            return Err(refuse(format!("exceeded quota: {}, {why}", meta::name(q))));
        }
        if !more.is_empty() {
            let mut used = q["status"]["used"].clone();
            more.iter().for_each(|(k, v)| used[k] = told(milli(&used[k]) + v, &q["status"]["hard"][k]).into());
            out.push((meta::name(q).to_owned(), used));
        }
    }
    Ok(out)
}

/// What would be more than a quota leaves, in words.
fn exceeded(q: &Value, more: &Requests) -> Option<String> {
    let (hard, used) = (&q["status"]["hard"], &q["status"]["used"]);
    let over: Vec<&String> =
        more.iter().filter(|(k, v)| milli(&used[*k]) + **v > milli(&hard[*k])).map(|(k, _)| k).collect();
    let list =
        |of: &dyn Fn(&String) -> String| over.iter().map(|k| format!("{k}={}", of(k))).collect::<Vec<_>>().join(",");
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    (!over.is_empty()).then(|| {
        format!(
            "requested: {}, used: {}, limited: {}",
            list(&|k| told(more[k], &hard[k])),
            list(&|k| text(&used[k])),
            list(&|k| text(&hard[k]))
        )
    })
}

/// Notes in quotas what was taken.
pub(super) fn note(store: &mut Store, ns: &str, charges: Charges) {
    for (name, used) in charges {
        let _ = store.patch_with(QUOTAS, ns, &name, |q| q["status"]["used"] = used);
    }
}
