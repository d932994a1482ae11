//! What controllers work with: one cluster, the world around it, and short forms of reading and writing objects.
use serde_json::{Value, json};

use super::KubeEvent;
use super::state::{Cluster, NodeRt};
use super::store::delete::DeleteOptions;
use super::text::{self, s};
use crate::Lab;
use crate::world::{Event, World};

/// One cluster, taken out of the world for as long as controllers work on it.
pub struct Cx<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The world without this cluster.
    pub w: &'a mut World,
    /// The cluster.
    pub c: &'a mut Cluster,
}

/// Works on cluster `id` and lets its controllers settle afterwards.
pub fn with_cluster<T>(lab: &Lab, w: &mut World, id: &str, f: impl FnOnce(&mut Cx) -> T) -> Option<T> {
    work(lab, w, id, true, f)
}

/// As [`with_cluster`] for steps of pods and writes of clients: only what they change decides who looks again.
pub fn with_pods<T>(lab: &Lab, w: &mut World, id: &str, f: impl FnOnce(&mut Cx) -> T) -> Option<T> {
    work(lab, w, id, false, f)
}

fn work<T>(lab: &Lab, w: &mut World, id: &str, wide: bool, f: impl FnOnce(&mut Cx) -> T) -> Option<T> {
    let mut c = w.clusters.remove(id)?;
    c.store.at(w.now_ms);
    let mut cx = Cx { lab, w, c: &mut c };
    let out = f(&mut cx);
    super::controllers::settle(&mut cx, wide);
    w.clusters.insert(id.to_owned(), c);
    Some(out)
}

/// `deployments.apps` of an object's apiVersion and kind.
#[must_use]
pub fn resource_of(obj: &Value) -> String {
    let (api, kind) = (s(obj, "/apiVersion"), s(obj, "/kind"));
    let group = api.split_once('/').map_or("", |(g, _)| g);
    let k = kind.to_lowercase();
    let plural = if k == "endpoints" {
        k
    } else if k.ends_with("ss") || k.ends_with('x') || k.ends_with("ch") {
        format!("{k}es")
    } else if k.ends_with('y') && !k.ends_with("ey") {
        format!("{}ies", &k[..k.len() - 1])
    } else if k.ends_with('s') && k != "nvidiadrivers" {
        format!("{k}es")
    } else {
        format!("{k}s")
    };
    if group.is_empty() { plural } else { format!("{plural}.{group}") }
}

/// `kind` as an owner reference of `owner`.
#[must_use]
pub fn owner_ref(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Namespace and name of an object.
#[must_use]
pub fn key(obj: &Value) -> (String, String) {
    (s(obj, "/metadata/namespace").to_owned(), s(obj, "/metadata/name").to_owned())
}

impl Cx<'_> {
    /// Lab time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.w.now_ms
    }

    /// Lab time as Kubernetes writes it.
    #[must_use]
    pub fn stamp(&self) -> String {
        text::stamp(self.w.now_ms)
    }

    /// Schedules an event of this cluster.
    pub fn later(&mut self, delay_ms: u64, event: KubeEvent) {
        self.w.schedule(delay_ms, Event::Kube(event));
    }

    fn look(&self, (resource, ns, name): (&str, &str, &str)) -> KubeEvent {
        let own = str::to_owned;
        KubeEvent::Look { cluster: self.c.id.clone(), resource: own(resource), ns: own(ns), name: own(name) }
    }

    /// Has the controllers look at an object (resource, namespace, name) again after a while.
    pub fn look_later(&mut self, delay_ms: u64, at: (&str, &str, &str)) {
        let look = self.look(at);
        self.later(delay_ms, look);
    }

    /// As [`Cx::look_later`], unless they will have looked by then.
    pub fn look_within(&mut self, delay_ms: u64, at: (&str, &str, &str)) {
        let look = self.look(at);
        if !self.w.is_pending_within(delay_ms, &Event::Kube(look.clone())) {
            self.later(delay_ms, look);
        }
    }

    /// Whether the controllers will look at an object again some time.
    #[must_use]
    pub fn will_look(&self, at: (&str, &str, &str)) -> bool {
        self.w.is_pending(&Event::Kube(self.look(at)))
    }

    /// An object, by resource (`pods`, `deployments.apps`).
    #[must_use]
    pub fn get(&self, resource: &str, ns: &str, name: &str) -> Option<&Value> {
        self.c.store.get(resource, ns, name)
    }

    /// All objects of a resource.
    #[must_use]
    pub fn list(&self, resource: &str) -> Vec<&Value> {
        self.c.store.list(resource, "", "")
    }

    /// All objects of a resource in a namespace.
    #[must_use]
    pub fn list_in(&self, resource: &str, ns: &str) -> Vec<&Value> {
        self.c.store.list(resource, ns, "")
    }

    /// Does something as another writer than K3s itself: what `f` writes is managed by `manager`.
    pub fn writing<T>(&mut self, manager: &str, f: impl FnOnce(&mut Cx) -> T) -> T {
        let was = self.c.store.write_as(manager);
        let out = f(self);
        self.c.store.write_as(was);
        out
    }

    /// Creates an object unless one of that name exists; says whether it did.
    pub fn create(&mut self, obj: Value) -> bool {
        let now = self.w.now_ms;
        match self.c.store.create(now, obj) {
            Ok(_) => true,
            Err(e) => {
                if e.reason != "AlreadyExists" {
                    tracing::warn!(message = %e.message, "a controller's object was refused");
                }
                false
            }
        }
    }

    /// Creates a pod for `owner` and says so in its events; a refusal becomes the owner's event.
    ///
    /// # Errors
    /// The API server's words.
    pub fn create_pod(&mut self, owner: &Value, pod: Value, controller: &str) -> Result<(), String> {
        let now = self.w.now_ms;
        let set = s(owner, "/kind") == "StatefulSet";
        let (about, name) =
            (format!("in StatefulSet {}", s(owner, "/metadata/name")), s(&pod, "/metadata/name").to_owned());
        match self.c.store.create(now, pod) {
            Ok(made) => {
                let text = match set {
                    true => format!("{} Pod {name} {about} successful", self.verb("create")),
                    false => format!("Created pod: {}", s(&made, "/metadata/name")),
                };
                self.event(owner, true, "SuccessfulCreate", &text, controller);
                Ok(())
            }
            Err(e) => {
                let text = match set {
                    true => format!("{} Pod {name} {about} failed error: {}", self.verb("create"), e.message),
                    false => format!("Error creating: {}", e.message),
                };
                self.event(owner, false, "FailedCreate", &text, controller);
                Err(e.message)
            }
        }
    }

    /// What the StatefulSet controller did, as its events write it.
    #[must_use]
    pub fn verb(&self, verb: &str) -> String {
        match super::k3s::node::minor(&self.c.version) {
            ..36 => verb.to_owned(),
            _ => verb[..1].to_uppercase() + &verb[1..],
        }
    }

    /// Deletes a pod of `owner` and says so in its events.
    pub fn delete_pod(&mut self, owner: &Value, name: &str, controller: &str) {
        let (ns, set) = key(owner);
        self.delete("pods", &ns, name);
        let text = match s(owner, "/kind") {
            "StatefulSet" => format!("{} Pod {name} in StatefulSet {set} successful", self.verb("delete")),
            _ => format!("Deleted pod: {name}"),
        };
        self.event(owner, true, "SuccessfulDelete", &text, controller);
    }

    /// Changes an object in place (any part of it); says whether there is one.
    pub fn update(&mut self, resource: &str, ns: &str, name: &str, f: impl FnOnce(&mut Value)) -> bool {
        self.c.store.patch_with(resource, ns, name, f).is_ok()
    }

    /// Creates `obj`, or sets its labels, annotations and everything beside metadata and status on the present one.
    pub fn ensure(&mut self, obj: Value) {
        let resource = resource_of(&obj);
        let (ns, name) = key(&obj);
        if self.get(&resource, &ns, &name).is_none() {
            self.create(obj);
            return;
        }
        let Some(mut new) = self.get(&resource, &ns, &name).cloned() else { return };
        overlay(&mut new, obj);
        let now = self.w.now_ms;
        // As a whole, so that defaults are filled in again.
        if let Err(e) = self.c.store.update(now, new) {
            tracing::warn!(message = %e.message, "a controller's object was refused");
        }
    }

    /// As [`Cx::update`], for what the API server writes without noting who did.
    pub fn update_unnoted(&mut self, resource: &str, ns: &str, name: &str, f: impl FnOnce(&mut Value)) -> bool {
        self.c.store.patch_unnoted(resource, ns, name, f).is_ok()
    }

    /// Deletes an object (finalizers are honoured).
    pub fn delete(&mut self, resource: &str, ns: &str, name: &str) {
        let now = self.w.now_ms;
        let _ = self.c.store.delete(now, resource, ns, name);
    }

    /// Removes an object at once (what a kubelet does when it has ended a pod).
    pub fn remove(&mut self, resource: &str, ns: &str, name: &str) {
        let now = self.w.now_ms;
        self.c.store.remove(now, resource, ns, name);
    }

    /// Deletes a pod that needs no more time: whoever lets it go last ends it.
    pub fn delete_at_once(&mut self, ns: &str, name: &str) {
        if let Some(kind) = self.c.store.kind_for("pods") {
            let at_once = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
            self.c.store.delete_as(&kind, ns, name, &at_once).ok();
        }
    }

    /// Records an Event about `obj`, counting repetitions.
    pub fn event(&mut self, obj: &Value, normal: bool, reason: &str, message: &str, component: &str) {
        let kind = if normal { "Normal" } else { "Warning" };
        self.c.store.event(obj, component, kind, reason, message);
    }

    /// Records an Event of the kubelet about a container of `pod`.
    pub fn container_event(&mut self, pod: &Value, name: &str, normal: bool, reason: &str, message: &str) {
        let kind = if normal { "Normal" } else { "Warning" };
        let is_in = |list: &str| text::arr(pod, &format!("/spec/{list}")).iter().any(|c| c["name"] == name);
        let list = ["initContainers", "ephemeralContainers"].into_iter().find(|l| is_in(l)).unwrap_or("containers");
        self.c.store.event_at(pod, &format!("spec.{list}{{{name}}}"), "kubelet", kind, reason, message);
    }

    /// Sets a condition in `status.conditions`; keeps the transition time if the status is the same.
    pub fn condition(&mut self, at: (&str, &str, &str), kind: &str, status: &str, reason: &str, message: &str) {
        let stamp = self.stamp();
        self.update(at.0, at.1, at.2, |o| set_condition(o, &stamp, kind, status, reason, message));
    }

    /// Runtime state of a node.
    pub fn node_rt(&mut self, node: &str) -> &mut NodeRt {
        self.c.nodes.entry(node.to_owned()).or_default()
    }
}

/// Sets a condition in an object's `status.conditions`.
pub fn set_condition(o: &mut Value, stamp: &str, kind: &str, status: &str, reason: &str, message: &str) {
    if !o["status"].is_object() {
        o["status"] = json!({});
    }
    if !o["status"]["conditions"].is_array() {
        o["status"]["conditions"] = json!([]);
    }
    let mut fresh = json!({"type": kind, "status": status, "lastTransitionTime": stamp});
    if !reason.is_empty() {
        fresh["reason"] = json!(reason);
    }
    if !message.is_empty() {
        fresh["message"] = json!(message);
    }
    let Some(list) = o["status"]["conditions"].as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(c) => {
            if c["status"] == status {
                fresh["lastTransitionTime"] = c["lastTransitionTime"].clone();
            }
            *c = fresh;
        }
        None => list.push(fresh),
    }
}

/// Whether a condition of an object has status True.
#[must_use]
pub fn is_true(o: &Value, kind: &str) -> bool {
    text::arr(o, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Labels and annotations are merged, everything beside metadata and status is replaced.
fn overlay(old: &mut Value, new: Value) {
    for part in ["labels", "annotations"] {
        for (k, v) in new["metadata"][part].as_object().into_iter().flatten() {
            old["metadata"][part][k] = v.clone();
        }
    }
    if let Value::Object(map) = new {
        for (k, v) in map {
            if !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind") {
                old[&k] = v;
            }
        }
    }
}

impl Cx<'_> {
    /// Whether objects of this kind live in namespaces.
    #[must_use]
    pub fn namespaced(&self, obj: &Value) -> bool {
        self.c.store.kind_of(s(obj, "/apiVersion"), s(obj, "/kind")).is_none_or(|k| k.namespaced)
    }
}
