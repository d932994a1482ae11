//! What ValidatingAdmissionPolicies and their bindings have to say about a request.
use serde_json::{Value, json};

use super::{Attributes, GROUP, matching};
use crate::kube::schema::cel::{self, Scope, Trouble};
use crate::kube::store::{Failure, Labels, Store, meta};
use crate::kube::text::{arr, s};

/// Longest text that a messageExpression may come to.
const MESSAGE: usize = 5 * 1024;

/// A refusal: its reason and its text.
struct Denied {
    reason: String,
    message: String,
}

impl Denied {
    fn of(message: impl Into<String>) -> Denied {
        Denied { reason: "Invalid".to_owned(), message: message.into() }
    }
}

/// Asks every policy that is bound; with what the client is to be warned of.
///
/// # Errors
/// The first refusal.
pub(super) fn judge(store: &Store, a: &Attributes<'_>) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    let bindings = matching::named(store, &format!("validatingadmissionpolicybindings.{GROUP}"));
    if bindings.is_empty() {
        return Ok(warnings);
    }
    let mut first: Option<Failure> = None;
    for policy in matching::named(store, &format!("validatingadmissionpolicies.{GROUP}")) {
        if !matching::resources(store, &policy["spec"]["matchConstraints"], a) {
            continue;
        }
        let own = bindings.iter().filter(|b| s(b, "/spec/policyName") == meta::name(policy));
        for binding in own.filter(|b| matching::resources(store, &b["spec"]["matchResources"], a)) {
            let denials = match params(store, policy, binding, a) {
                Ok(all) => all.into_iter().flat_map(|p| evaluated(store, policy, p, a)).collect(),
                Err(_) if policy["spec"]["failurePolicy"] == "Ignore" => Vec::new(),
                Err(why) => {
                    let d = Denied::of(format!("failed to configure binding: {why}"));
                    first.get_or_insert_with(|| refusal(policy, binding, &d, a));
                    continue;
                }
            };
            for d in denials {
                for action in arr(binding, "/spec/validationActions").iter().filter_map(Value::as_str) {
                    match action {
                        "Deny" => {
                            first.get_or_insert_with(|| refusal(policy, binding, &d, a));
                        }
                        "Warn" => warnings.push(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            meta::name(policy),
                            meta::name(binding),
                            d.message
                        )),
                        _ => {}
                    }
                }
            }
        }
    }
    first.map_or(Ok(warnings), Err)
}

/// A refusal in the words of the plugin.
fn refusal(policy: &Value, binding: &Value, d: &Denied, a: &Attributes<'_>) -> Failure {
    let (policy, binding) = (meta::name(policy), meta::name(binding));
    let why = format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}", d.message);
    let mut f = Failure::forbidden(a.kind, a.shown(), &why);
    (f.code, f.reason) = match d.reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    if let Some(details) = &mut f.details {
        details["causes"] = json!([{"message": why}]);
    }
    f
}

/// The parameters that a binding names, each for one evaluation; one that is nothing where a policy takes none.
pub(super) fn params<'a>(
    store: &'a Store,
    policy: &Value,
    binding: &Value,
    a: &Attributes<'_>,
) -> Result<Vec<Option<&'a Value>>, String> {
    let (of, by) = (&policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
    if !of.is_object() || !by.is_object() {
        return Ok(vec![None]);
    }
    let (version, sort) = (s(of, "/apiVersion"), s(of, "/kind"));
    let Some(kind) = store.kind_of(version, sort) else {
        // as Go prints the pointer's struct
        return Err(format!("paramKind kind `&ParamKind{{APIVersion:{version},Kind:{sort},}}` not known"));
    };
    let place = match (kind.namespaced, s(by, "/namespace")) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "") if a.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (true, "") => a.namespace,
        (true, ns) => ns,
    };
    let resource = kind.resource();
    let found: Vec<Option<&Value>> = match s(by, "/name") {
        "" => {
            let sel = Labels::from_spec(&by["selector"]);
            store.all(&resource, place).filter(|o| sel.matches(o)).map(|o| Some(o.as_ref())).collect()
        }
        name => store.get(&resource, place, name).into_iter().map(Some).collect(),
    };
    if found.is_empty() && by["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

/// What a policy has against a request.
fn evaluated(store: &Store, policy: &Value, params: Option<&Value>, a: &Attributes<'_>) -> Vec<Denied> {
    let spec = &policy["spec"];
    let scope = a.scope(store, params);
    let fails = spec["failurePolicy"] != "Ignore";
    match met(&spec["matchConditions"], &scope) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return if fails { vec![Denied::of(why)] } else { Vec::new() },
    }
    let mut scope = scope;
    for v in arr(spec, "/variables") {
        scope.declare(s(v, "/name"), s(v, "/expression"));
    }
    arr(spec, "/validations").iter().filter_map(|v| validation(v, &scope, fails)).collect()
}

/// Whether every condition is met; those that come to nothing matter only when none is false.
///
/// # Errors
/// What the conditions that failed say.
pub(super) fn met(conditions: &Value, scope: &Scope) -> Result<bool, String> {
    let mut failed = Vec::new();
    for c in arr(conditions, "") {
        let expression = s(c, "/expression");
        match cel::evaluate(expression, scope) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(Trouble::Failed(why)) => failed.push(broken(expression, &why)),
            _ => {}
        }
    }
    match failed.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

pub(super) fn broken(expression: &str, why: &str) -> String {
    format!("expression '{expression}' resulted in error: {why}")
}

fn validation(v: &Value, scope: &Scope, fails: bool) -> Option<Denied> {
    let expression = s(v, "/expression");
    match cel::evaluate(expression, scope) {
        Ok(Value::Bool(true)) | Err(Trouble::Unknown) => return None,
        Err(Trouble::Failed(why)) => return fails.then(|| Denied::of(broken(expression, &why))),
        Ok(_) => {}
    }
    let own = cel::evaluate(s(v, "/messageExpression"), scope).ok();
    let own = own.as_ref().and_then(Value::as_str).map(str::trim);
    let own = own.filter(|m| !m.is_empty() && m.len() <= MESSAGE && !m.contains('\n')).map(str::to_owned);
    let told = Some(s(v, "/message").trim()).filter(|m| !m.is_empty()).map(str::to_owned);
    let message = own.or(told).unwrap_or_else(|| format!("failed expression: {}", expression.trim()));
    let reason = Some(s(v, "/reason")).filter(|r| !r.is_empty()).unwrap_or("Invalid").to_owned();
    Some(Denied { reason, message })
}
