//! What is looked up often, kept beside the objects: who owns what, events by their object, what waits to end, which
//! pods wait for a node, and what the placed ones request.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::meta;
use crate::kube::text::{arr, milli, s};

/// Place of an object: resource (`pods`) and its key in there (`namespace/name`).
pub type Place = (Arc<str>, String);

/// Requests by resource, in thousandths.
pub type Requests = BTreeMap<String, i64>;

/// The index; rebuilt when a world is loaded.
#[derive(Debug, Clone, Default)]
pub struct Index {
    owned: HashMap<String, BTreeSet<Place>>,
    events: HashMap<String, BTreeSet<String>>,
    /// Objects that wait for their dependents.
    pub(super) foreground: BTreeSet<Place>,
    /// Namespaces that are being deleted.
    ending: BTreeSet<String>,
    /// Keys of pods without a node that have not ended.
    unplaced: BTreeSet<String>,
    /// Keys of placed pods that keep others away from where they are.
    minding: BTreeSet<String>,
    requested: BTreeMap<String, Requests>,
    /// How many placed pods there are of each priority.
    priorities: BTreeMap<i64, usize>,
    /// Addresses of pods, with the keys of those that have them.
    addresses: BTreeMap<String, String>,
}

/// What a pod requests (limits stand in where there is no request), with itself as one of `pods`.
#[must_use]
pub fn requests(pod: &Value) -> Requests {
    let mut sum = total(pod, &asked);
    sum.insert("pods".to_owned(), 1000);
    for (k, v) in pod["spec"]["overhead"].as_object().into_iter().flatten() {
        *sum.entry(k.clone()).or_default() += milli(v);
    }
    sum
}

/// What `of` says of the containers of a pod, as the pod as a whole has it.
#[must_use]
pub fn total(pod: &Value, of: &dyn Fn(&Value) -> Requests) -> Requests {
    let add = |to: &mut Requests, more: &Requests| {
        for (k, v) in more {
            *to.entry(k.clone()).or_default() += v;
        }
    };
    let mut sum = Requests::new();
    for c in arr(pod, "/spec/containers") {
        add(&mut sum, &of(c));
    }
    // Sidecars run beside all that start after them; other init containers run alone, one after the other.
    let (mut beside, mut most) = (Requests::new(), Requests::new());
    for c in arr(pod, "/spec/initContainers") {
        let mut own = of(c);
        if s(c, "/restartPolicy") == "Always" {
            add(&mut beside, &own);
            add(&mut sum, &own);
            own.clone_from(&beside);
        } else {
            add(&mut own, &beside);
        }
        raise(&mut most, own);
    }
    raise(&mut sum, most);
    // What the pod asks for as a whole stands for all its containers.
    sum.extend(of(&pod["spec"]));
    sum
}

/// The larger one of each resource.
fn raise(to: &mut Requests, other: Requests) {
    for (k, v) in other {
        let have = to.entry(k).or_insert(v);
        *have = v.max(*have);
    }
}

/// What a container, or a pod as a whole, requests.
fn asked(c: &Value) -> Requests {
    let mut own = Requests::new();
    for part in ["limits", "requests"] {
        for (k, v) in c["resources"][part].as_object().into_iter().flatten() {
            own.insert(k.clone(), milli(v));
        }
    }
    own
}

/// Whether a placed pod keeps others away: by required anti-affinity, or by a port of its host.
fn minds(pod: &Value) -> bool {
    let apart = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let port = |c: &Value| arr(c, "/ports").iter().any(|p| p["hostPort"].as_u64().is_some_and(|n| n > 0));
    placed(pod).is_some() && (!arr(pod, apart).is_empty() || arr(pod, "/spec/containers").iter().any(port))
}

fn has_ended(pod: &Value) -> bool {
    matches!(s(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// The node whose capacity a pod uses.
fn placed(pod: &Value) -> Option<&str> {
    Some(s(pod, "/spec/nodeName")).filter(|n| !n.is_empty() && !has_ended(pod))
}

fn waits(pod: &Value) -> bool {
    s(pod, "/spec/nodeName").is_empty() && !has_ended(pod) && !meta::deleting(pod)
}

fn set<T: Ord>(of: &mut BTreeSet<T>, item: T, is_in: bool) {
    if is_in {
        of.insert(item);
    } else {
        of.remove(&item);
    }
}

impl Index {
    /// Notes that the object at `key` was `before` and is `now`.
    pub(super) fn note(&mut self, resource: &str, key: &str, before: Option<&Value>, now: Option<&Value>) {
        let owners = |v: Option<&Value>| -> Vec<String> {
            let list = v.map_or(&[][..], |o| arr(o, "/metadata/ownerReferences"));
            list.iter().map(|r| s(r, "/uid").to_owned()).filter(|u| !u.is_empty()).collect()
        };
        let (had, has) = (owners(before), owners(now));
        let place: Place = (resource.into(), key.to_owned());
        for uid in had.iter().filter(|u| !has.contains(u)) {
            if let Some(all) = self.owned.get_mut(uid) {
                all.remove(&place);
                if all.is_empty() {
                    self.owned.remove(uid);
                }
            }
        }
        for uid in has.into_iter().filter(|u| !had.contains(u)) {
            self.owned.entry(uid).or_default().insert(place.clone());
        }
        let held = now.is_some_and(|o| meta::deleting(o) && meta::finalizers(o).contains(&super::delete::FOREGROUND));
        set(&mut self.foreground, place, held);
        match resource {
            "events" => self.event(key, before, now),
            "namespaces" => {
                set(&mut self.ending, key.trim_start_matches('/').to_owned(), now.is_some_and(meta::deleting))
            }
            "pods" => self.pod(key, before, now),
            _ => {}
        }
    }

    fn event(&mut self, key: &str, before: Option<&Value>, now: Option<&Value>) {
        let about = |v: &Value| s(v, "/involvedObject/uid").to_owned();
        match (before.map(about), now.map(about)) {
            (None, Some(uid)) => drop(self.events.entry(uid).or_default().insert(key.to_owned())),
            (Some(uid), None) => {
                if let Some(all) = self.events.get_mut(&uid) {
                    all.remove(key);
                    if all.is_empty() {
                        self.events.remove(&uid);
                    }
                }
            }
            _ => {}
        }
    }

    fn pod(&mut self, key: &str, before: Option<&Value>, now: Option<&Value>) {
        set(&mut self.unplaced, key.to_owned(), now.is_some_and(waits));
        set(&mut self.minding, key.to_owned(), now.is_some_and(minds));
        let address = |v: &Value| {
            let own = v["spec"]["hostNetwork"] != true && !has_ended(v);
            Some(s(v, "/status/podIP").to_owned()).filter(|ip| own && !ip.is_empty())
        };
        let (had, has) = (before.and_then(address), now.and_then(address));
        if had != has {
            if let Some(ip) = had.filter(|ip| self.addresses.get(ip).is_some_and(|k| k == key)) {
                self.addresses.remove(&ip);
            }
            if let Some(ip) = has {
                self.addresses.insert(ip, key.to_owned());
            }
        }
        let (was, is) = (before.and_then(placed), now.and_then(placed));
        if was == is {
            return;
        }
        for (node, pod, sign) in [(was, before, -1), (is, now, 1)] {
            let (Some(node), Some(pod)) = (node, pod) else { continue };
            let sum = self.requested.entry(node.to_owned()).or_default();
            for (k, v) in requests(pod) {
                *sum.entry(k).or_default() += sign * v;
            }
            let priority = pod["spec"]["priority"].as_i64().unwrap_or(0);
            let count = self.priorities.entry(priority).or_default();
            *count = if sign > 0 { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.priorities.remove(&priority);
            }
        }
    }

    /// The lowest priority that a placed pod has.
    #[must_use]
    pub fn least_priority(&self) -> i64 {
        self.priorities.keys().next().copied().unwrap_or(i64::MAX)
    }

    /// Objects that name `uid` as an owner, by resource and key.
    pub(super) fn owned(&self, uid: &str) -> impl Iterator<Item = &Place> {
        self.owned.get(uid).into_iter().flatten()
    }

    /// Keys of the objects of one resource that name `uid` as an owner.
    pub(super) fn owned_in<'a>(&'a self, resource: &'a str, uid: &str) -> impl Iterator<Item = &'a String> {
        let all = self.owned.get(uid).map(|all| all.range((Arc::from(resource), String::new())..));
        all.into_iter().flatten().take_while(move |(r, _)| **r == *resource).map(|(_, key)| key)
    }

    /// Keys of events about the object with this uid.
    pub(super) fn events(&self, uid: &str) -> impl Iterator<Item = &String> {
        self.events.get(uid).into_iter().flatten()
    }

    /// Namespaces that are being deleted.
    pub fn ending(&self) -> impl Iterator<Item = &String> {
        self.ending.iter()
    }

    /// Whether a namespace is being deleted.
    #[must_use]
    pub fn is_ending(&self, ns: &str) -> bool {
        self.ending.contains(ns)
    }

    /// Keys of pods that wait for a node.
    pub fn unplaced(&self) -> impl Iterator<Item = &String> {
        self.unplaced.iter()
    }

    /// Keys of placed pods that keep others away from where they are.
    pub(super) fn minding(&self) -> impl Iterator<Item = &String> {
        self.minding.iter()
    }

    /// Whether a pod has this address.
    #[must_use]
    pub fn is_taken(&self, address: &str) -> bool {
        self.addresses.contains_key(address)
    }

    /// What placed pods request, by node.
    #[must_use]
    pub fn requested(&self) -> &BTreeMap<String, Requests> {
        &self.requested
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use serde_json::json;

    fn store() -> Store {
        let mut s = Store::new(1, 0);
        s.create(0, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})).unwrap();
        s
    }

    fn pod(name: &str, node: &str, owner: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a",
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}]},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}})
    }

    /// What a scan of all objects finds.
    fn scanned(s: &Store, uid: &str) -> Vec<String> {
        let mine = |o: &&Value| arr(o, "/metadata/ownerReferences").iter().any(|r| r["uid"] == uid);
        s.list("pods", "", "").into_iter().filter(mine).map(|o| meta::name(o).to_owned()).collect()
    }

    #[test]
    fn the_index_agrees_with_a_scan_through_every_change_and_a_reload() {
        let mut s = store();
        for (i, owner) in ["o1", "o2", "o1"].iter().enumerate() {
            s.create(0, pod(&format!("p{i}"), if i == 2 { "n1" } else { "" }, owner)).unwrap();
        }
        assert_eq!(s.index().unplaced().count(), 2);
        assert_eq!(s.index().requested()["n1"]["cpu"], 500);
        s.patch_with("pods", "a", "p0", |o| o["spec"]["nodeName"] = json!("n1")).unwrap();
        s.patch_with("pods", "a", "p1", |o| o["metadata"]["ownerReferences"][0]["uid"] = json!("o1")).unwrap();
        for s in [&s, &serde_json::from_value(serde_json::to_value(&s).unwrap()).unwrap()] {
            assert_eq!(s.index().requested()["n1"]["pods"], 2000);
            for uid in ["o1", "o2"] {
                let found: Vec<String> = s.dependents(uid).into_iter().map(|d| d.2).collect();
                assert_eq!(found, scanned(s, uid), "{uid}");
            }
        }
        s.patch_with("pods", "a", "p2", |o| o["status"]["phase"] = json!("Succeeded")).unwrap();
        assert_eq!(s.index().requested()["n1"]["pods"], 1000);
        s.remove(0, "pods", "a", "p0");
        assert_eq!((s.index().requested()["n1"]["pods"], s.dependents("o1").len()), (0, 2));
        let about = s.get("pods", "a", "p1").cloned().unwrap();
        for _ in 0..2 {
            s.event(&about, "kubelet", "Normal", "Pulled", "x");
        }
        let events = s.list("events", "a", "");
        assert_eq!((events.len(), &events[0]["count"]), (1, &json!(2)));
    }
}
