//! Creating and changing objects: the rules that hold for every writer.
use std::sync::Arc;

use serde_json::Value;

use super::changes::{is_bound, same, spec_changed};
use super::{Failure, Store, admission, admitted, charges, managers, meta};
use crate::kube::api::auth::User;
use crate::kube::api::escalation;
use crate::kube::dynamic::{self, Attributes};
use crate::kube::schema::{Kind, defaults, prepare, resized, validate};

/// How an API client writes.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Field manager; empty: the control plane itself.
    pub manager: String,
    /// Who manages which fields is in the object already.
    pub quiet: bool,
    /// Subresource written to (`status`), or empty.
    pub subresource: String,
    /// Answer as if, change nothing.
    pub dry_run: bool,
    /// Check the object as for any client; controllers of the lab are not checked.
    pub check: bool,
    /// Whether the object is the outcome of a patch, which has no preconditions.
    pub patch: bool,
    /// Who asks; nobody: a controller of the lab, whom no policy judges.
    pub user: Option<User>,
    /// The form that the client speaks, if it is not the one that is kept.
    pub spoken: Option<managers::Spoken>,
}

/// What an update came to.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as it is (or would be) now.
    pub object: Arc<Value>,
    /// Whether it was created by this write.
    pub created: bool,
    /// Whether anything changed.
    pub changed: bool,
    /// What policies have to say to the client.
    pub warnings: Vec<String>,
}

/// Metadata a client cannot change.
const FIXED: &[&str] = &["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// 409: the name is taken, maybe by an object that is still going.
fn name_taken(kind: &Kind, name: &str, by: Option<&Value>) -> Failure {
    let f = Failure::already_exists(kind, name);
    let message =
        if by.is_some_and(meta::deleting) { format!("object is being deleted: {}", f.message) } else { f.message };
    Failure { message, ..f }
}

impl Store {
    /// Creates an object, as a controller.
    ///
    /// # Errors
    /// When its kind is unknown, it exists, its namespace is missing or ends, or it is invalid.
    pub fn create(&mut self, now_ms: u64, obj: Value) -> Result<Value, Failure> {
        self.at(now_ms);
        let kind = self.kind_of_object(&obj)?;
        self.create_as(&kind, obj, &WriteOptions::default()).map(|w| (*w.object).clone())
    }

    /// Creates the object unless one of that name is there; true when it was created.
    pub fn create_if_absent(&mut self, now_ms: u64, obj: Value) -> bool {
        self.create(now_ms, obj).is_ok()
    }

    fn kind_of_object(&self, obj: &Value) -> Result<Arc<Kind>, Failure> {
        let (av, k) = (obj["apiVersion"].as_str().unwrap_or_default(), obj["kind"].as_str().unwrap_or_default());
        self.kind_of(av, k)
            .ok_or_else(|| Failure::new(404, "NotFound", format!("no matches for kind \"{k}\" in version \"{av}\"")))
    }

    /// Creates an object on behalf of `o.manager`.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_as(&mut self, kind: &Kind, mut obj: Value, o: &WriteOptions) -> Result<Written, Failure> {
        obj["apiVersion"] = kind.kept_version().into();
        obj["kind"] = kind.kind.as_str().into();
        if o.check {
            self.accepts(kind)?;
        }
        self.call(kind, &mut obj, o)?;
        let ns = if kind.namespaced { meta::namespace(&obj).to_owned() } else { String::new() };
        let name = meta::name(&obj).to_owned();
        self.admit(kind, &ns, &name)?;
        let uid = self.uuid();
        let stamp = meta::time(self.now_ms);
        let generation = kind.generations();
        meta::edit(&mut obj, |m| {
            for f in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
                m.shift_remove(f);
            }
            m.insert("uid".into(), uid.into());
            m.insert("creationTimestamp".into(), stamp.into());
            if generation {
                m.insert("generation".into(), 1.into());
            }
            if !kind.namespaced {
                m.shift_remove("namespace");
            }
            m.retain(|_, v| !v.is_null());
        });
        if o.check {
            prepare::unasked(kind, &mut obj);
        }
        let bare = admission::untold(kind, &obj);
        defaults::apply(self, kind, &mut obj, None);
        self.as_stored(kind, &mut obj);
        if !o.quiet {
            self.noted(kind, None, &mut obj, o, &bare);
        }
        let refused = admitted::fill(self, kind, &ns, &mut obj);
        let unfit = prepare::created(self, kind, &mut obj);
        if o.check {
            refused.and(unfit)?;
            prepare::admitted(kind, &mut obj);
        }
        admission::fill(self, kind, &mut obj);
        self.mutate(kind, (&ns, &name), &mut obj, None, o)?;
        let user = o.user.as_ref();
        let attributes = |user| Attributes {
            kind,
            operation: "CREATE",
            namespace: &ns,
            name: &name,
            subresource: "",
            object: None,
            old: None,
            user,
            dry_run: o.dry_run,
        };
        if let Some(user) = user {
            dynamic::mutating(self, &Attributes { object: Some(&obj), ..attributes(user) })?;
            escalation::check(self, user, kind, &obj, None)?;
        }
        // Controllers are trusted to write what is valid.
        if o.check {
            admission::one_default(self, kind, &obj)?;
            validate::create(kind, &obj)?;
        }
        let exists = self.get(&kind.resource(), &ns, &name).is_some();
        if exists && !o.check {
            return Err(Failure::already_exists(kind, &name));
        }
        admission::creation(self, kind, &ns, &obj, user.map(|u| u.name.as_str()))?;
        let warnings = match user {
            Some(user) => dynamic::validating(self, &Attributes { object: Some(&obj), ..attributes(user) })?,
            None => Vec::new(),
        };
        let taken = charges::charge(self, kind, &ns, &obj, None)?;
        if exists {
            return Err(name_taken(kind, &name, self.get(&kind.resource(), &ns, &name)));
        }
        if o.dry_run {
            return Ok(Written { object: Arc::new(obj), created: true, changed: true, warnings });
        }
        charges::note(self, &ns, taken);
        let object = self.commit(kind, &ns, &name, Some(obj));
        self.after_create(kind, &name);
        Ok(Written { object, created: true, changed: true, warnings })
    }

    /// A custom kind whose definition goes takes nothing new.
    fn accepts(&self, kind: &Kind) -> Result<(), Failure> {
        let crd = if kind.custom { self.get(super::CRDS, "", &kind.resource()) } else { None };
        if !crd.is_some_and(meta::deleting) {
            return Ok(());
        }
        let mut f = Failure::not_allowed();
        f.message = "create not allowed while custom resource definition is terminating".to_owned();
        f.details = Some(serde_json::json!({"group": kind.group, "kind": kind.plural}));
        Err(f)
    }

    /// Notes who manages what of an object before admission and strategies add to it: that is nobody's.
    fn noted(&self, kind: &Kind, old: Option<&Value>, new: &mut Value, o: &WriteOptions, bare: &[&str]) {
        let kept: Vec<(&str, &str, Option<Value>)> = bare
            .iter()
            .map(|pointer| {
                let (place, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
                let part = new.pointer_mut(place).and_then(Value::as_object_mut);
                (place, field, part.and_then(|m| m.shift_remove(field)))
            })
            .collect();
        match o.manager.as_str() {
            "" => managers::record(kind, old, new, &self.writer(), self.now_ms),
            _ => managers::track(kind, old, new, o, self.now_ms),
        }
        for (place, field, v) in kept {
            if let (Some(v), Some(part)) = (v, new.pointer_mut(place)) {
                part[field] = v;
            }
        }
    }

    /// Whether something may be created in `ns`.
    fn admit(&self, kind: &Kind, ns: &str, name: &str) -> Result<(), Failure> {
        if !kind.namespaced {
            return Ok(());
        }
        let namespaces = self.kind_for("namespaces").unwrap_or_default();
        match self.get("namespaces", "", ns) {
            None => Err(Failure::not_found(&namespaces, ns)),
            Some(n) if meta::deleting(n) && !matches!(kind.kind.as_str(), "Event") => {
                let why = format!("unable to create new content in namespace {ns} because it is being terminated");
                let mut refused = Failure::forbidden(kind, name, &why);
                if let Some(details) = &mut refused.details {
                    details["causes"] = serde_json::json!([{"reason": "NamespaceTerminating",
                        "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
                }
                Err(refused)
            }
            Some(_) => Ok(()),
        }
    }

    /// What the control plane itself adds at once.
    fn after_create(&mut self, kind: &Kind, name: &str) {
        if kind.group.is_empty() && kind.kind == "Namespace" {
            let now = self.now_ms;
            let _ = self.create(
                now,
                serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {"name": "default", "namespace": name}}),
            );
        }
    }

    /// Replaces an object with `new` (its main part, or its status when `o.subresource` is `status`).
    ///
    /// # Errors
    /// 404 when it is missing, 409 for a stale version or another uid, 422 when it is invalid.
    pub fn replace_as(
        &mut self,
        kind: &Kind,
        ns: &str,
        name: &str,
        mut new: Value,
        o: &WriteOptions,
    ) -> Result<Written, Failure> {
        let resource = kind.resource();
        let old = self.arc(&resource, ns, name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        let asked = meta::text(&new, "resourceVersion").to_owned();
        if !asked.is_empty() && asked.parse::<u64>().is_err() {
            return Err(Failure::unforeseen(format!("strconv.ParseUint: parsing {asked:?}: invalid syntax")));
        }
        if !asked.is_empty() && asked != meta::text(&old, "resourceVersion") {
            return Err(Failure::modified(kind, name));
        }
        let uid = meta::uid(&new).to_owned();
        if !uid.is_empty() && uid != meta::uid(&old) {
            return Err(if o.patch {
                // looked at by the generic rules and by those of the kind
                let cause = super::Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
                Failure::invalid(kind, name, &[cause.clone(), cause])
            } else {
                Failure::other_uid(kind, ns, name, &uid, meta::uid(&old))
            });
        }
        if o.check {
            validate::ends(kind, &old, &new)?;
        }
        new["apiVersion"] = kind.kept_version().into();
        new["kind"] = kind.kind.as_str().into();
        self.keep(kind, &old, &mut new, &o.subresource);
        defaults::apply(self, kind, &mut new, Some(&old));
        self.as_stored(kind, &mut new);
        if !o.quiet {
            self.noted(kind, Some(&old), &mut new, o, &[]);
        }
        let unfit = prepare::updated(self, kind, &old, &mut new, &o.subresource);
        if o.check {
            unfit?;
        }
        self.mutate(kind, (ns, name), &mut new, Some(&old), o)?;
        let attributes = |user, object| Attributes {
            kind,
            operation: "UPDATE",
            namespace: ns,
            name,
            subresource: &o.subresource,
            object: Some(object),
            old: Some(&old),
            user,
            dry_run: o.dry_run,
        };
        if let Some(user) = &o.user {
            dynamic::mutating(self, &attributes(user, &new))?;
            escalation::check(self, user, kind, &new, Some(&old))?;
        }
        match o.subresource.as_str() {
            _ if !o.check => {}
            "resize" => resized::check(kind, &old, &new)?,
            "status" => validate::status(kind, &old, &new)?,
            "finalize" => validate::finalize(kind, &old, &new)?,
            "ephemeralcontainers" => validate::ephemeral(kind, &old, &new)?,
            _ => validate::update(kind, &old, &new)?,
        }
        if o.check {
            admission::growth(self, kind, &old, &new)?;
            admission::one_default(self, kind, &new)?;
        }
        let taken = if o.check { charges::grown(self, kind, &o.subresource, &old, &new)? } else { Vec::new() };
        let warnings = match &o.user {
            Some(user) => dynamic::validating(self, &attributes(user, &new))?,
            None => Vec::new(),
        };
        charges::note(self, ns, if o.dry_run { Vec::new() } else { taken });
        // of a Deployment its annotations count, too
        let noted = o.check && o.subresource.is_empty() && kind.kind == "Deployment" && !kind.custom;
        let noted = noted && old["metadata"]["annotations"] != new["metadata"]["annotations"];
        Ok(Written { warnings, ..self.store_update(kind, ns, name, &old, new, (o.dry_run, noted)) })
    }

    /// Takes what this writer may not write from the old object.
    fn keep(&self, kind: &Kind, old: &Value, new: &mut Value, subresource: &str) {
        if subresource == "status" {
            let status = new.get("status").cloned();
            let own = new["metadata"].clone();
            let labels = own.get("labels").filter(|_| kind.kind != "Deployment").cloned();
            *new = old.clone();
            match status {
                Some(s) => new["status"] = s,
                None => drop(new.as_object_mut().and_then(|o| o.shift_remove("status"))),
            }
            let free: &[&str] =
                if keeps_metadata(kind) { &[] } else { &["annotations", "finalizers", "ownerReferences"] };
            for f in free.iter().filter(|f| !(kind.kind == "Pod" && **f == "ownerReferences")) {
                put(new, f, own.get(*f).cloned());
            }
            if !free.is_empty() && kind.kind != "Deployment" {
                put(new, "labels", labels);
            }
            if let Some(m) = own.get("managedFields") {
                new["metadata"]["managedFields"] = m.clone();
            }
        } else if subresource == "approval" {
            let asked = new["status"].get("conditions").cloned().unwrap_or_default();
            let managed = new["metadata"].get("managedFields").cloned();
            *new = old.clone();
            new["status"]["conditions"] = asked;
            if let Some(m) = managed {
                new["metadata"]["managedFields"] = m;
            }
        } else if subresource == "resize" {
            let managed = new["metadata"].get("managedFields").cloned();
            *new = resized::taken(old, new);
            if let Some(m) = managed {
                new["metadata"]["managedFields"] = m;
            }
        } else if subresource == "ephemeralcontainers" {
            let asked = new["spec"].get("ephemeralContainers").cloned().unwrap_or_default();
            let managed = new["metadata"].get("managedFields").cloned();
            *new = old.clone();
            new["spec"]["ephemeralContainers"] = asked;
            if let Some(m) = managed {
                new["metadata"]["managedFields"] = m;
            }
        } else if kind.kind == "Pod" && kind.group.is_empty() {
            match old.get("status") {
                Some(s) => new["status"] = s.clone(),
                None => drop(new.as_object_mut().and_then(|o| o.shift_remove("status"))),
            }
        } else if kind.status && !(kind.kind == "Node" && subresource == "*") {
            match old.get("status") {
                Some(s) => new["status"] = s.clone(),
                None => drop(new.as_object_mut().and_then(|o| o.shift_remove("status"))),
            }
        }
        let fixed: Vec<(&str, Option<Value>)> = FIXED.iter().map(|f| (*f, old["metadata"].get(*f).cloned())).collect();
        let (name, ns) = (old["metadata"]["name"].clone(), old["metadata"].get("namespace").cloned());
        meta::edit(new, |m| {
            for (f, v) in fixed {
                match v {
                    Some(v) => drop(m.insert(f.into(), v)),
                    None => drop(m.shift_remove(f)),
                }
            }
            m.insert("name".into(), name);
            if let Some(ns) = ns {
                m.insert("namespace".into(), ns);
            }
            m.shift_remove("selfLink");
            m.retain(|_, v| !v.is_null());
        });
    }

    /// Stores a changed object: no-op detection, generation, end of deletion.
    pub(super) fn store_update(
        &mut self,
        kind: &Kind,
        ns: &str,
        name: &str,
        old: &Arc<Value>,
        mut new: Value,
        (dry_run, counts): (bool, bool),
    ) -> Written {
        meta::edit(&mut new, |m| m.insert("resourceVersion".into(), old["metadata"]["resourceVersion"].clone()));
        if same(old, &new) {
            return Written { object: old.clone(), created: false, changed: false, warnings: Vec::new() };
        }
        let changed = counts || spec_changed(old, &new) && !is_bound(kind, old, &new);
        if (kind.generations() || kind.kind == "CSIDriver") && changed {
            let g = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
            meta::edit(&mut new, |m| m.insert("generation".into(), g.into()));
        }
        if dry_run {
            return Written { object: Arc::new(new), created: false, changed: true, warnings: Vec::new() };
        }
        if kind.group.is_empty() && kind.kind == "Namespace" && meta::deleting(&new) {
            let free = new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
            let object = self.commit(kind, ns, name, Some(new));
            if free && meta::finalizers(&object).is_empty() {
                // Somebody has taken the control plane's own hold off: it goes, whatever is left in it.
                self.commit(kind, ns, name, None);
            }
            return Written { object, created: false, changed: true, warnings: Vec::new() };
        }
        if meta::deleting(&new)
            && meta::finalizers(&new).is_empty()
            && !meta::finalizers(old).is_empty()
            && !self.graceful(kind, &new)
        {
            let object = self.commit(kind, ns, name, Some(new));
            self.finish(kind, ns, name, &object);
            return Written { object, created: false, changed: true, warnings: Vec::new() };
        }
        let object = self.commit(kind, ns, name, Some(new));
        Written { object, created: false, changed: true, warnings: Vec::new() }
    }

    /// Changes an object in place, as a controller; true when something changed. Versions and
    /// generation follow by themselves; writing metadata that is fixed has no effect.
    ///
    /// # Errors
    /// 404 when it is missing.
    pub fn patch_with(
        &mut self,
        resource: &str,
        ns: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Result<bool, Failure> {
        self.patch_by(Some(self.writer()), resource, ns, name, f)
    }

    /// As [`Store::patch_with`] for what the API server writes without noting who did (the node of a bound pod).
    ///
    /// # Errors
    /// 404 when it is missing.
    pub fn patch_unnoted(
        &mut self,
        resource: &str,
        ns: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Result<bool, Failure> {
        self.patch_by(None, resource, ns, name, f)
    }

    fn patch_by(
        &mut self,
        manager: Option<Arc<str>>,
        resource: &str,
        ns: &str,
        name: &str,
        f: impl FnOnce(&mut Value),
    ) -> Result<bool, Failure> {
        let kind = self.kind_for(resource).ok_or_else(Failure::no_resource)?;
        let old = self.arc(resource, ns, name).cloned().ok_or_else(|| Failure::not_found(&kind, name))?;
        let mut new = (*old).clone();
        f(&mut new);
        for field in FIXED {
            let v = old["metadata"].get(*field).cloned();
            meta::edit(&mut new, |m| match v {
                Some(v) => drop(m.insert((*field).into(), v)),
                None => drop(m.shift_remove(*field)),
            });
        }
        if let Some(manager) = manager {
            managers::record(&kind, Some(&old), &mut new, &manager, self.now_ms);
        }
        Ok(self.store_update(&kind, ns, name, &old, new, (false, false)).changed)
    }

    /// Replaces an object, as a controller (a resourceVersion in it must be current).
    ///
    /// # Errors
    /// As [`Store::replace_as`].
    pub fn update(&mut self, now_ms: u64, obj: Value) -> Result<Value, Failure> {
        self.at(now_ms);
        let kind = self.kind_of_object(&obj)?;
        let (ns, name) = (meta::namespace(&obj).to_owned(), meta::name(&obj).to_owned());
        self.replace_as(&kind, &ns, &name, obj, &WriteOptions::default()).map(|w| (*w.object).clone())
    }

    /// Writes `status`; true when it differs from what was there.
    ///
    /// # Errors
    /// 404 when the object is missing.
    pub fn update_status(&mut self, resource: &str, ns: &str, name: &str, status: Value) -> Result<bool, Failure> {
        self.patch_with(resource, ns, name, |o| o["status"] = status)
    }

    /// Sets a condition in `status.conditions` by its type; `lastTransitionTime` moves only when the
    /// condition's status does.
    ///
    /// # Errors
    /// 404 when the object is missing.
    pub fn condition(
        &mut self,
        resource: &str,
        ns: &str,
        name: &str,
        cond: (&str, &str, &str, &str),
    ) -> Result<bool, Failure> {
        let now = meta::time(self.now_ms);
        self.patch_with(resource, ns, name, |o| set_condition(&mut o["status"], &now, cond))
    }
}

/// Sets a condition (type, status, reason, message) in a status object.
pub fn set_condition(status: &mut Value, now: &str, (kind, value, reason, message): (&str, &str, &str, &str)) {
    if !status["conditions"].is_array() {
        status["conditions"] = Value::Array(Vec::new());
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    let i = list.iter().position(|c| c["type"] == kind).unwrap_or_else(|| {
        list.push(serde_json::json!({"type": kind}));
        list.len() - 1
    });
    let c = &mut list[i];
    if c["status"] != value {
        c["lastTransitionTime"] = now.into();
    }
    c["status"] = value.into();
    for (field, text) in [("reason", reason), ("message", message)] {
        if text.is_empty() {
            drop(c.as_object_mut().and_then(|c| c.shift_remove(field)));
        } else {
            c[field] = text.into();
        }
    }
}

/// Kinds of which a write to the status leaves the metadata alone, beside the custom ones.
const APART: &[&str] = &[
    "CustomResourceDefinition",
    "DeviceTaintRule",
    "ResourceClaim",
    "ServiceCIDR",
    "ValidatingAdmissionPolicy",
    "VolumeAttachment",
];

fn keeps_metadata(kind: &Kind) -> bool {
    kind.custom || APART.contains(&kind.kind.as_str())
}

/// Sets a field of metadata, or takes it away.
fn put(obj: &mut Value, field: &str, v: Option<Value>) {
    meta::edit(obj, |m| match v {
        Some(v) => drop(m.insert(field.into(), v)),
        None => drop(m.shift_remove(field)),
    });
}
