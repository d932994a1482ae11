//! LimitRanges: what they add to new pods, and the refusal of pods and claims that leave them. Grade: source (the
//! limitranger plugin).
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::index::{Requests, total};
use super::{Failure, Store, meta};
use crate::kube::schema::Kind;
use crate::kube::schema::defaults::told;
use crate::kube::text::{arr, milli, s, shown};

const LIMITS: &str = "limitranges";
const NOTE: &str = "kubernetes.io/limit-ranger";

/// Gives a new pod's containers what they do not say themselves, and notes it.
pub(super) fn fill(store: &Store, ns: &str, pod: &mut Value) {
    for range in store.all(LIMITS, ns) {
        let rules: Vec<&Value> = arr(range, "/spec/limits").iter().filter(|l| l["type"] == "Container").collect();
        let mut said = Vec::new();
        for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
            for c in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                defaults(&rules, c, word, &mut said);
            }
        }
        if !said.is_empty() {
            pod["metadata"]["annotations"][NOTE] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
        }
    }
}

fn defaults(rules: &[&Value], c: &mut Value, word: &str, said: &mut Vec<String>) {
    let name = s(c, "/name").to_owned();
    let mut add = |part: &str, from: &str| -> Vec<String> {
        let mut set = Vec::new();
        for (k, v) in rules.iter().flat_map(|r| r[from].as_object().into_iter().flatten()) {
            if c["resources"][part][k].is_null() {
                if !c["resources"].is_object() {
                    c["resources"] = json!({});
                }
                c["resources"][part][k] = v.clone();
                set.push(k.clone());
            }
        }
        set.sort();
        set
    };
    let limits = add("limits", "default");
    for (set, part) in [(add("requests", "defaultRequest"), "request"), (limits, "limit")] {
        if !set.is_empty() {
            said.push(format!("{} {part} for {word} {name}", set.join(", ")));
        }
    }
}

/// One thing that is bounded: its sort, and what it requests and is limited to.
struct Bounded<'a> {
    sort: &'a str,
    requests: BTreeMap<String, Value>,
    limits: BTreeMap<String, Value>,
}

impl Bounded<'_> {
    /// A container, or a claim.
    fn of<'a>(sort: &'a str, v: &Value) -> Bounded<'a> {
        let part = |name: &str| {
            v["resources"][name].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        Bounded { sort, requests: part("requests"), limits: part("limits") }
    }

    /// All containers of a pod together.
    fn pod(pod: &Value) -> Bounded<'static> {
        let sum = |name: &'static str| {
            let of = |c: &Value| -> Requests {
                c["resources"][name].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), milli(v))).collect()
            };
            let like = |k: &str| {
                let all = ["/spec/containers", "/spec/initContainers"].iter().flat_map(|p| arr(pod, p));
                all.map(|c| c["resources"][name][k].clone()).find(|v| !v.is_null()).unwrap_or_default()
            };
            total(pod, &of).into_iter().map(|(k, v)| (k.clone(), told(v, &like(&k)).into())).collect()
        };
        Bounded { sort: "Pod", requests: sum("requests"), limits: sum("limits") }
    }

    fn check(&self, rule: &Value, out: &mut Vec<String>) {
        let each = |f: &str| rule[f].as_object().cloned().unwrap_or_default();
        out.extend(each("min").iter().filter_map(|(k, v)| self.least(k, v)));
        out.extend(each("max").iter().filter_map(|(k, v)| self.most(k, v)));
        out.extend(each("maxLimitRequestRatio").iter().filter_map(|(k, v)| self.ratio(k, v)));
    }

    fn least(&self, k: &str, bound: &Value) -> Option<String> {
        let start = format!("minimum {k} usage per {} is {}", self.sort, shown(bound));
        let Some(request) = self.requests.get(k) else { return Some(format!("{start}.  No request is specified")) };
        if milli(request) < milli(bound) {
            return Some(format!("{start}, but request is {}", shown(request)));
        }
        let limit = self.limits.get(k).filter(|l| milli(l) < milli(bound))?;
        Some(format!("{start}, but limit is {}", shown(limit)))
    }

    fn most(&self, k: &str, bound: &Value) -> Option<String> {
        let start = format!("maximum {k} usage per {} is {}", self.sort, shown(bound));
        let (request, limit) = (self.requests.get(k), self.limits.get(k));
        let over = |v: Option<&Value>| v.filter(|v| milli(v) > milli(bound)).map(shown);
        if self.sort == "PersistentVolumeClaim" {
            return match request {
                None => Some(format!("{start}.  No request is specified")),
                _ => over(request).map(|v| format!("{start}, but request is {v}")),
            };
        }
        match (limit, over(limit)) {
            (None, _) => Some(format!("{start}.  No limit is specified")),
            (_, Some(v)) => Some(format!("{start}, but limit is {v}")),
            _ => over(request).map(|v| format!("{start}, but request is {v}")),
        }
    }

    fn ratio(&self, k: &str, bound: &Value) -> Option<String> {
        let start = format!("{k} max limit to request ratio per {} is {}", self.sort, shown(bound));
        let some = |m: &BTreeMap<String, Value>| m.get(k).map(milli).filter(|v| *v != 0);
        let Some(request) = some(&self.requests) else {
            return Some(format!("{start}, but no request is specified or request is 0"));
        };
        let Some(limit) = some(&self.limits) else {
            return Some(format!("{start}, but no limit is specified or limit is 0"));
        };
        let ratio = limit as f64 / request as f64;
        (ratio * 1000.0 > milli(bound) as f64).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
    }
}

/// Refuses a pod or a claim that leaves the LimitRanges of its namespace.
///
/// # Errors
/// 403 in the words of the plugin.
pub(super) fn check(store: &Store, kind: &Kind, ns: &str, obj: &Value) -> Result<(), Failure> {
    let bounded: Vec<Bounded<'_>> = match kind.resource().as_str() {
        "pods" => {
            let containers = ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|p| arr(obj, p));
            containers.map(|c| Bounded::of("Container", c)).chain([Bounded::pod(obj)]).collect()
        }
        "persistentvolumeclaims" => vec![Bounded::of("PersistentVolumeClaim", &obj["spec"])],
        _ => return Ok(()),
    };
    for range in store.all(LIMITS, ns) {
        let mut broken = Vec::new();
        for rule in arr(range, "/spec/limits") {
            bounded.iter().filter(|b| rule["type"] == b.sort).for_each(|b| b.check(rule, &mut broken));
        }
        let mut seen = Vec::new();
        broken.retain(|b| {
            !seen.contains(b) && {
                seen.push(b.clone());
                true
            }
        });
        let why = match broken.as_slice() {
            [] => continue,
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(Failure::forbidden(kind, meta::name(obj), &why));
    }
    Ok(())
}
