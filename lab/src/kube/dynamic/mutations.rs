//! What MutatingAdmissionPolicies make of an object on its way in. Grade: source (the mutating policy plugin of
//! k8s.io/apiserver).
use serde_json::{Value, json};

use super::policies::{broken, met, params};
use super::{Attributes, GROUP, matching};
use crate::kube::schema::cel::{self, Scope, Trouble};
use crate::kube::schema::node::{Field, Node};
use crate::kube::store::{Failure, Store, merged, meta, patch};
use crate::kube::text::{arr, s};

/// The object as every policy that is bound leaves it; none when nothing changes.
///
/// # Errors
/// 403 for a policy that fails and has to work.
pub(super) fn apply(store: &Store, a: &Attributes<'_>) -> Result<Option<Value>, Failure> {
    let bindings = matching::named(store, &format!("mutatingadmissionpolicybindings.{GROUP}"));
    let Some(given) = a.object.filter(|_| !bindings.is_empty()) else { return Ok(None) };
    let mut now = given.clone();
    for policy in matching::named(store, &format!("mutatingadmissionpolicies.{GROUP}")) {
        for binding in bindings.iter().filter(|b| s(b, "/spec/policyName") == meta::name(policy)) {
            let before = now.clone();
            let a = Attributes { object: Some(&before), ..*a };
            let wanted = [&policy["spec"]["matchConstraints"], &binding["spec"]["matchResources"]];
            if !wanted.iter().all(|m| matching::resources(store, m, &a)) {
                continue;
            }
            match mutated(store, policy, binding, &a, &mut now) {
                Ok(()) => {}
                Err(_) if policy["spec"]["failurePolicy"] == "Ignore" => now = before,
                Err(why) => return Err(refusal(policy, binding, &why, &a)),
            }
        }
    }
    Ok((now != *given).then_some(now))
}

fn refusal(policy: &Value, binding: &Value, why: &str, a: &Attributes<'_>) -> Failure {
    let (policy, binding) = (meta::name(policy), meta::name(binding));
    let mut f = Failure::forbidden(a.kind, a.shown(), why);
    f.message = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
    f.reason = "Invalid";
    if let Some(details) = &mut f.details {
        details["causes"] = json!([{"message": f.message}]);
    }
    f
}

fn mutated(store: &Store, policy: &Value, binding: &Value, a: &Attributes<'_>, now: &mut Value) -> Result<(), String> {
    let spec = &policy["spec"];
    for given in params(store, policy, binding, a)? {
        if !met(&spec["matchConditions"], &a.scope(store, given))? {
            continue;
        }
        for m in arr(spec, "/mutations") {
            let before = now.clone();
            let mut scope = Attributes { object: Some(&before), ..*a }.scope(store, given);
            for v in arr(spec, "/variables") {
                scope.declare(s(v, "/name"), s(v, "/expression"));
            }
            one(m, &scope, a, now)?;
        }
    }
    Ok(())
}

/// One mutation.
fn one(m: &Value, scope: &Scope, a: &Attributes<'_>, now: &mut Value) -> Result<(), String> {
    let patches = m["patchType"] == "JSONPatch";
    let expression = s(m, if patches { "/jsonPatch/expression" } else { "/applyConfiguration/expression" });
    let found = match cel::evaluate(expression, scope) {
        Ok(v) => v,
        Err(Trouble::Failed(why)) => return Err(broken(expression, &why)),
        Err(Trouble::Unknown) => return Ok(()),
    };
    if !patches {
        if let Some(field) = undeclared(Node::of(a.kind), &found, "") {
            let why = "error applying patch: failed to convert patch object to typed object";
            return Err(format!("{why}: {field}: field not declared in schema"));
        }
        *now = merged(a.kind, now, &found);
        return Ok(());
    }
    let mut next = now.clone();
    for op in arr(&found, "") {
        let mut op = op.clone();
        let there = next.pointer(s(&op, "/path")).is_some();
        match s(&op, "/op") {
            // one that does not hold ends the patch, and nothing is changed
            "test" if next.pointer(s(&op, "/path")) != op.get("value") => return Ok(()),
            "test" => continue,
            "remove" if !there => continue,
            "replace" if !there => op["op"] = json!("add"),
            _ => {}
        }
        patch::json(&mut next, &json!([op])).map_err(|f| format!("JSON Patch: {}", f.message))?;
    }
    *now = next;
    Ok(())
}

/// The first field that the kind does not have.
fn undeclared(node: Node<'_>, v: &Value, path: &str) -> Option<String> {
    v.as_object()?.iter().find_map(|(k, v)| match node.field(k) {
        Field::Unknown => Some(format!("{path}.{k}")),
        Field::Known(sub) | Field::Entry(sub) => undeclared(sub, v, &format!("{path}.{k}")),
    })
}
