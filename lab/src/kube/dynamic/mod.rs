//! Admission that the cluster's users configure: admission policies and webhooks. Grade: source (the policy and webhook
//! plugins of k8s.io/apiserver).
mod matching;
mod mutations;
mod policies;
mod rules;
mod webhooks;

use serde_json::{Value, json};

pub use rules::{address, check};

use crate::kube::api::auth::User;
use crate::kube::api::rbac;
use crate::kube::schema::Kind;
use crate::kube::schema::cel::{self, Scope};
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::s;

const GROUP: &str = "admissionregistration.k8s.io";

/// A request on its way in.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The kind of its object.
    pub kind: &'a Kind,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'static str,
    /// Namespace; empty for what has none.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// The object as it is to be; none when it is deleted.
    pub object: Option<&'a Value>,
    /// The object as it is; none when it is new.
    pub old: Option<&'a Value>,
    /// Who asks.
    pub user: &'a User,
    /// Whether it is to change nothing.
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// What configures admission is not subject to it.
    fn exempt(&self) -> bool {
        self.kind.group == GROUP
    }

    /// What expressions call `request`.
    fn request(&self) -> Value {
        let k = self.kind;
        let kind = json!({"group": k.group, "version": k.version, "kind": k.kind});
        let resource = json!({"group": k.group, "version": k.version, "resource": k.plural});
        let mut who = json!({"username": self.user.name, "groups": self.user.groups});
        if !self.user.uid.is_empty() {
            who["uid"] = json!(self.user.uid);
        }
        let mut out = json!({"kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": self.name, "operation": self.operation, "userInfo": who, "dryRun": self.dry_run});
        for (k, v) in [("namespace", self.namespace), ("subResource", self.subresource)] {
            if !v.is_empty() {
                out[k] = json!(v);
            }
        }
        out
    }

    /// The names that expressions know.
    fn scope(&self, store: &Store, params: Option<&Value>) -> Scope {
        let own = |v: Option<&Value>| v.cloned().unwrap_or_default();
        let place = if self.kind.namespaced { store.get("namespaces", "", self.namespace) } else { None };
        let mut rules = rbac::rules(store, self.user, self.namespace);
        if self.user.groups.iter().any(|g| g == "system:masters") {
            rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        let resource = json!({"rules": rules, "group": self.kind.group, "resource": self.kind.plural,
            "subresource": self.subresource, "namespace": self.namespace, "name": self.name});
        let authorizer = json!({cel::AUTHORIZER: {"rules": rules}, "requestResource": {cel::AUTHORIZER: resource}});
        let names = [
            ("authorizer", authorizer),
            ("object", own(self.object)),
            ("oldObject", own(self.old)),
            ("request", self.request()),
            ("params", own(params)),
            ("namespaceObject", own(place)),
        ];
        Scope::of(names.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// The name in refusals: an object whose name is to be made is named by its beginning.
    fn shown(&self) -> &str {
        let begins = || self.object.map_or("", |o| meta::text(o, "generateName"));
        if self.name.is_empty() { begins() } else { self.name }
    }
}

/// The object as the cluster's policies change it; none when they leave it.
///
/// # Errors
/// 403 when one that has to work fails.
pub fn mutated(store: &Store, a: &Attributes<'_>) -> Result<Option<Value>, Failure> {
    if a.exempt() { Ok(None) } else { mutations::apply(store, a) }
}

/// Asks the webhooks that may change an object.
///
/// # Errors
/// 500 when one that has to answer cannot be reached.
pub fn mutating(store: &Store, a: &Attributes<'_>) -> Result<(), Failure> {
    if a.exempt() { Ok(()) } else { webhooks::call(store, "mutatingwebhookconfigurations", a) }
}

/// Asks policies, then webhooks; with what the client is to be warned of.
///
/// # Errors
/// What a policy refuses with, 500 when a webhook that has to answer cannot be reached.
pub fn validating(store: &Store, a: &Attributes<'_>) -> Result<Vec<String>, Failure> {
    if a.exempt() {
        return Ok(Vec::new());
    }
    let warnings = policies::judge(store, a)?;
    webhooks::call(store, "validatingwebhookconfigurations", a)?;
    Ok(warnings)
}

/// What the server fills into the configuration of admission.
pub fn defaults(kind: &Kind, obj: &mut Value) {
    let mut set = |at: &mut Value, k: &str, v: Value| {
        if at.is_object() && at[k].is_null() {
            at[k] = v;
        }
    };
    let matches = |at: &mut Value, set: &mut dyn FnMut(&mut Value, &str, Value)| {
        set(at, "matchPolicy", "Equivalent".into());
        set(at, "namespaceSelector", json!({}));
        set(at, "objectSelector", json!({}));
        for list in ["resourceRules", "excludeResourceRules", "rules"] {
            for r in at.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                set(r, "scope", "*".into());
            }
        }
    };
    match kind.kind.as_str() {
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" if obj["spec"].is_object() => {
            set(&mut obj["spec"], "failurePolicy", "Fail".into());
            matches(&mut obj["spec"]["matchConstraints"], &mut set);
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding"
            if obj["spec"]["matchResources"].is_object() =>
        {
            matches(&mut obj["spec"]["matchResources"], &mut set);
        }
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            for hook in obj.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
                set(hook, "failurePolicy", "Fail".into());
                set(hook, "timeoutSeconds", 10.into());
                matches(hook, &mut set);
                if kind.kind.starts_with("Mutating") {
                    set(hook, "reinvocationPolicy", "Never".into());
                }
                if !s(hook, "/clientConfig/service/name").is_empty() {
                    set(&mut hook["clientConfig"]["service"], "port", 443.into());
                }
            }
        }
        _ => {}
    }
    drop_nulls(obj);
}

/// Takes away places that were only looked at.
fn drop_nulls(obj: &mut Value) {
    let Some(m) = obj.as_object_mut() else { return };
    m.retain(|_, v| !v.is_null());
    if let Some(spec) = m.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|_, v| !v.is_null());
    }
}
