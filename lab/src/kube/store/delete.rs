//! Deleting: preconditions, finalizers, grace of pods, ends of namespaces, owners and dependents.
use std::sync::Arc;

use serde_json::{Value, json};

use super::write::set_condition;
use super::{Failure, Store, meta};
use crate::kube::schema::Kind;

/// What happens to dependents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go after the owner.
    #[default]
    Background,
    /// They go before the owner.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// What happens to dependents.
    pub propagation: Propagation,
    /// Seconds a pod gets; `None`: its own.
    pub grace: Option<u64>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must have this resourceVersion.
    pub version: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What became of the object.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// It is gone; its last state.
    Gone(Arc<Value>),
    /// It waits for finalizers or its grace period.
    Marked(Arc<Value>),
}

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
pub(super) const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

impl Store {
    /// Deletes an object, as a controller: dependents go too, finalizers are honoured.
    ///
    /// # Errors
    /// 404 when it is missing.
    pub fn delete(&mut self, now_ms: u64, resource: &str, ns: &str, name: &str) -> Result<Deleted, Failure> {
        self.at(now_ms);
        let kind = self.kind_for(resource).ok_or_else(Failure::no_resource)?;
        self.delete_as(&kind, ns, name, &DeleteOptions::default())
    }

    /// Removes an object at once, finalizers or not, and its dependents (a kubelet that has ended a pod).
    pub fn remove(&mut self, now_ms: u64, resource: &str, ns: &str, name: &str) -> bool {
        self.at(now_ms);
        let Some(kind) = self.kind_for(resource) else { return false };
        let Some(old) = self.arc(resource, ns, name).cloned() else { return false };
        self.finish(&kind, ns, name, &old);
        true
    }

    /// Deletes on behalf of a client.
    ///
    /// # Errors
    /// 404 when it is missing, 409 when a precondition does not hold.
    pub fn delete_as(&mut self, kind: &Kind, ns: &str, name: &str, o: &DeleteOptions) -> Result<Deleted, Failure> {
        let old = self.arc(&kind.resource(), ns, name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        check(kind, name, &old, o)?;
        super::admission::deletion(kind, name)?;
        let namespace = kind.group.is_empty() && kind.kind == "Namespace";
        let grace = self.grace(kind, &old, o.grace);
        let mut holders: Vec<String> = meta::finalizers(&old).into_iter().map(str::to_owned).collect();
        let has = |h: &[String], f: &str| h.iter().any(|x| x == f);
        match o.propagation {
            Propagation::Foreground if !namespace && !has(&holders, FOREGROUND) => holders.push(FOREGROUND.into()),
            Propagation::Orphan if !namespace && !has(&holders, ORPHAN) => holders.push(ORPHAN.into()),
            _ => {}
        }
        let definition = kind.kind == "CustomResourceDefinition";
        if definition && !has(&holders, CLEANUP) && !meta::deleting(&old) {
            holders.push(CLEANUP.into());
        }
        let pod = kind.group.is_empty() && kind.kind == "Pod";
        if o.dry_run || holders.is_empty() && grace == 0 && !namespace {
            // what is shown of a pod says that it has ended, others are shown as they were
            let stays = !holders.is_empty() || namespace || grace > 0;
            let last = if pod || stays { Arc::new(self.marked(kind, &old, &holders, grace)) } else { old.clone() };
            if !o.dry_run {
                self.finish(kind, ns, name, &old);
            }
            return Ok(if stays { Deleted::Marked(last) } else { Deleted::Gone(last) });
        }
        let marked = self.mark(kind, ns, name, &old, &holders, grace);
        if has(&holders, FOREGROUND) {
            self.cascade(meta::uid(&marked));
            self.settle(ns);
        }
        if has(&holders, ORPHAN) {
            self.orphan(meta::uid(&marked));
            let _ = self.patch_with(&kind.resource(), ns, name, |o| {
                if let Some(a) = o["metadata"]["finalizers"].as_array_mut() {
                    a.retain(|f| f != ORPHAN);
                }
            });
        }
        if namespace {
            self.empty_namespace(name);
            self.settle(name);
        }
        if definition {
            self.empty_definition(name);
        }
        Ok(Deleted::Marked(marked))
    }

    fn mark(
        &mut self,
        kind: &Kind,
        ns: &str,
        name: &str,
        old: &Arc<Value>,
        holders: &[String],
        grace: u64,
    ) -> Arc<Value> {
        // Asking again changes nothing unless it leaves a pod less time.
        let had = old["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
        if meta::deleting(old)
            && (grace >= had || !self.graceful(kind, old))
            && meta::finalizers(old).len() == holders.len()
        {
            return old.clone();
        }
        let new = self.marked(kind, old, holders, grace);
        self.commit(kind, ns, name, Some(new))
    }

    /// An object that is to end.
    fn marked(&self, kind: &Kind, old: &Value, holders: &[String], grace: u64) -> Value {
        let mut new = old.clone();
        let at = self.now_ms + grace * 1000;
        meta::edit(&mut new, |m| {
            m.insert("deletionTimestamp".into(), meta::time(at).into());
            m.insert("deletionGracePeriodSeconds".into(), grace.into());
            if !holders.is_empty() {
                m.insert("finalizers".into(), json!(holders));
            }
            if let Some(g) = m.get("generation").and_then(Value::as_u64).filter(|_| !meta::deleting(old)) {
                m.insert("generation".into(), (g + 1).into());
            }
        });
        if kind.group.is_empty() && kind.kind == "Namespace" {
            meta::edit(&mut new, |m| m.shift_remove("deletionGracePeriodSeconds"));
            new["status"]["phase"] = "Terminating".into();
        }
        if kind.kind == "CustomResourceDefinition" {
            meta::edit(&mut new, |m| m.shift_remove("deletionGracePeriodSeconds"));
            let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
            let now = meta::time(self.now_ms);
            set_condition(&mut new["status"], &now, ("Terminating", "True", "InstanceDeletionPending", why));
        }
        new
    }

    /// Whether the object is a pod a kubelet still has to end.
    pub(super) fn graceful(&self, kind: &Kind, obj: &Value) -> bool {
        kind.group.is_empty()
            && kind.kind == "Pod"
            && obj["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty())
            && obj["metadata"]["deletionGracePeriodSeconds"].as_u64() != Some(0)
    }

    fn grace(&self, kind: &Kind, obj: &Value, asked: Option<u64>) -> u64 {
        if !(kind.group.is_empty() && kind.kind == "Pod") {
            return 0;
        }
        let ended = matches!(obj["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let unplaced = obj["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
        if ended || unplaced {
            return 0;
        }
        asked.unwrap_or_else(|| obj["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
    }

    /// Removes the object and does what its end entails.
    pub(super) fn finish(&mut self, kind: &Kind, ns: &str, name: &str, old: &Arc<Value>) {
        self.commit(kind, ns, name, None);
        if kind.kind == "CustomResourceDefinition" {
            self.drop_custom_objects(old);
        }
        if kind.custom {
            self.end_definition(&kind.resource());
        }
        self.cascade(meta::uid(old));
        self.settle(ns);
    }

    /// Deletes all objects of a definition that goes.
    fn empty_definition(&mut self, name: &str) {
        let now = meta::time(self.now_ms);
        let _ = self.patch_with(super::CRDS, "", name, |o| {
            let why = "CustomResource deletion is in progress";
            set_condition(&mut o["status"], &now, ("Terminating", "True", "InstanceDeletionInProgress", why));
        });
        let doomed: Vec<(String, String)> =
            self.all(name, "").map(|o| (meta::namespace(o).to_owned(), meta::name(o).to_owned())).collect();
        if let Some(kind) = self.kind_for(name) {
            for (ns, object) in doomed {
                let _ = self.delete_as(&kind, &ns, &object, &DeleteOptions::default());
            }
        }
        self.end_definition(name);
    }

    /// Ends a definition that only waited for its objects.
    fn end_definition(&mut self, name: &str) {
        let waits = self.get(super::CRDS, "", name).is_some_and(meta::deleting);
        if !waits || self.all(name, "").next().is_some() {
            return;
        }
        let left = |o: &Value| meta::finalizers(o).into_iter().filter(|f| *f != CLEANUP).map(str::to_owned).collect();
        let Some((kind, old)) = self.kind_for(super::CRDS).zip(self.arc(super::CRDS, "", name).cloned()) else {
            return;
        };
        let left: Vec<String> = left(&old);
        if left.is_empty() {
            self.finish(&kind, "", name, &old);
        } else {
            let _ = self.patch_with(super::CRDS, "", name, |o| o["metadata"]["finalizers"] = json!(left));
        }
    }

    fn drop_custom_objects(&mut self, crd: &Value) {
        let resource = meta::name(crd).to_owned();
        let doomed: Vec<(String, String)> =
            self.all(&resource, "").map(|o| (meta::namespace(o).to_owned(), meta::name(o).to_owned())).collect();
        let kinds = crate::kube::schema::kinds::of_crd(crd);
        let Some(kind) = kinds.first() else { return };
        for (ns, name) in &doomed {
            self.commit(kind, ns, name, None);
        }
        let spaces: std::collections::BTreeSet<String> = doomed.into_iter().map(|d| d.0).collect();
        spaces.iter().for_each(|ns| self.end_if_bare(ns));
    }

    /// Objects that name `uid` as an owner: (resource, namespace, name).
    #[must_use]
    pub fn dependents(&self, uid: &str) -> Vec<(String, String, String)> {
        let split = |(resource, key): &super::index::Place| {
            let (ns, name) = key.split_once('/')?;
            Some((resource.to_string(), ns.to_owned(), name.to_owned()))
        };
        self.index.owned(uid).filter_map(split).collect()
    }

    /// Deletes dependents of `uid`, or takes the reference out where another owner lives.
    fn cascade(&mut self, uid: &str) {
        for (resource, ns, name) in self.dependents(uid) {
            let Some(o) = self.get(&resource, &ns, &name) else { continue };
            let others = o["metadata"]["ownerReferences"].as_array().is_some_and(|a| a.iter().any(|r| r["uid"] != uid));
            if others {
                self.drop_owner(&resource, &ns, &name, uid);
            } else if !meta::deleting(o) {
                let Some(kind) = self.kind_for(&resource) else { continue };
                let _ = self.delete_as(&kind, &ns, &name, &DeleteOptions::default());
            }
        }
    }

    fn orphan(&mut self, uid: &str) {
        for (resource, ns, name) in self.dependents(uid) {
            self.drop_owner(&resource, &ns, &name, uid);
        }
    }

    fn drop_owner(&mut self, resource: &str, ns: &str, name: &str, uid: &str) {
        let _ = self.patch_with(resource, ns, name, |o| {
            meta::edit(o, |m| {
                let Some(owners) = m.get_mut("ownerReferences").and_then(Value::as_array_mut) else { return };
                owners.retain(|r| r["uid"] != uid);
                if owners.is_empty() {
                    m.shift_remove("ownerReferences");
                }
            });
        });
    }

    /// Deletes everything in a namespace.
    fn empty_namespace(&mut self, ns: &str) {
        let prefix = format!("{ns}/");
        let mut doomed = Vec::new();
        for (resource, map) in &self.objects {
            for (k, _) in map.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix)) {
                doomed.push((resource.clone(), k[prefix.len()..].to_owned()));
            }
        }
        for (resource, name) in doomed {
            let Some(kind) = self.kind_for(&resource) else { continue };
            if self.get(&resource, ns, &name).is_some_and(|o| !meta::deleting(o)) {
                let _ = self.delete_as(&kind, ns, &name, &DeleteOptions::default());
            }
        }
    }

    /// Ends a namespace that only waited to be empty.
    fn end_if_bare(&mut self, ns: &str) {
        if !self.index.is_ending(ns) || !self.is_bare(ns) {
            return;
        }
        let Some((o, kind)) = self.get("namespaces", "", ns).zip(self.kind_for("namespaces")) else { return };
        let held = o["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
        let others: Vec<Value> = held.iter().filter(|f| *f != "kubernetes").cloned().collect();
        if others.is_empty() && meta::finalizers(o).is_empty() {
            self.commit(&kind, "", ns, None);
        } else if others.len() < held.len() && !others.is_empty() {
            let _ = self.patch_unnoted("namespaces", "", ns, |o| o["spec"]["finalizers"] = others.into());
        }
    }

    /// Ends what only waited for others: the namespace when it is empty, foreground owners without dependents.
    fn settle(&mut self, ns: &str) {
        self.end_if_bare(ns);
        let held = self.index.foreground.iter();
        let waiting: Vec<(String, Arc<Value>)> =
            held.filter_map(|(r, k)| Some((r.to_string(), self.objects.get(&**r)?.get(k)?.clone()))).collect();
        for (resource, o) in waiting {
            if !self.dependents(meta::uid(&o)).is_empty() {
                continue;
            }
            let Some(kind) = self.kind_for(&resource) else { continue };
            let (ns, name) = (meta::namespace(&o).to_owned(), meta::name(&o).to_owned());
            if meta::finalizers(&o).len() == 1 && !self.graceful(&kind, &o) {
                self.finish(&kind, &ns, &name, &o);
            } else {
                let _ = self.patch_with(&resource, &ns, &name, |o| {
                    if let Some(a) = o["metadata"]["finalizers"].as_array_mut() {
                        a.retain(|f| f != FOREGROUND);
                    }
                });
            }
        }
    }

    /// Whether nothing is left in a namespace; events do not hold it.
    #[must_use]
    pub fn is_bare(&self, ns: &str) -> bool {
        let prefix = format!("{ns}/");
        let mut held = self.objects.iter().filter(|(resource, _)| *resource != "events");
        held.all(|(_, map)| map.range(prefix.clone()..).next().is_none_or(|(k, _)| !k.starts_with(&prefix)))
    }

    /// What is left in a namespace: (resource, name).
    #[must_use]
    pub fn remains(&self, ns: &str) -> Vec<(String, String)> {
        let prefix = format!("{ns}/");
        let mut out = Vec::new();
        for (resource, map) in &self.objects {
            for (k, _) in map.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix)) {
                // The namespace itself has an empty namespace; events do not hold it.
                if resource != "events" {
                    out.push((resource.clone(), k[prefix.len()..].to_owned()));
                }
            }
        }
        out
    }
}

fn check(kind: &Kind, name: &str, old: &Value, o: &DeleteOptions) -> Result<(), Failure> {
    // the kind stands where the resource should, as in the real server
    let by_kind = Kind { plural: kind.kind.clone(), group: kind.group.clone(), ..Kind::default() };
    let fail = |what: &str, asked: &str, have: &str| {
        if matches!(kind.kind.as_str(), "Namespace" | "CustomResourceDefinition") && !kind.custom {
            let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {have}");
            return Err(Failure::conflict(kind, name, &why));
        }
        let then = if what == "UID" { "deleted and then recreated" } else { "modified" };
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({have}). The object might have been {then}"
        );
        Err(Failure::conflict(&by_kind, name, &why))
    };
    if let Some(uid) = o.uid.as_deref().filter(|u| *u != meta::uid(old)) {
        return fail("UID", uid, meta::uid(old));
    }
    if let Some(v) = o.version.as_deref().filter(|v| *v != meta::text(old, "resourceVersion")) {
        return fail("ResourceVersion", v, meta::text(old, "resourceVersion"));
    }
    Ok(())
}
