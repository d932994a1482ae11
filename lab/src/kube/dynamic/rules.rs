//! What makes a policy, its binding or a webhook invalid.
use serde_json::Value;

use crate::kube::schema::cel;
use crate::kube::schema::rules::{duplicate, one_of, words};
use crate::kube::schema::{Kind, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// Names that expressions know.
const KNOWN: &[&str] = &["object", "oldObject", "request", "namespaceObject", "authorizer"];
const BOTH: &str = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";

/// Checks the configuration of admission.
pub fn check(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    match kind.kind.as_str() {
        "ValidatingAdmissionPolicy" => policy(spec, out),
        "ValidatingAdmissionPolicyBinding" => binding(spec, out),
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            let hooks = arr(obj, "/webhooks");
            for (i, hook) in hooks.iter().enumerate() {
                let at = format!("webhooks[{i}]");
                webhook(hook, &at, out);
                if hooks[..i].iter().any(|h| h["name"] == hook["name"]) && !s(hook, "/name").is_empty() {
                    out.push(duplicate(format!("{at}.name"), &hook["name"]));
                }
            }
        }
        _ => {}
    }
}

fn policy(spec: &Value, out: &mut Vec<Cause>) {
    one_of("spec.failurePolicy".into(), &spec["failurePolicy"], &["Fail", "Ignore"], out);
    let params = spec["paramKind"].is_object();
    if params {
        for f in ["apiVersion", "kind"].into_iter().filter(|f| s(&spec["paramKind"], &format!("/{f}")).is_empty()) {
            out.push(Cause::required(format!("spec.paramKind.{f}"), ""));
        }
    }
    if spec["matchConstraints"].is_object() {
        matches(&spec["matchConstraints"], "spec.matchConstraints", out);
        if arr(spec, "/matchConstraints/resourceRules").is_empty() {
            out.push(Cause::required("spec.matchConstraints.resourceRules", ""));
        }
    } else {
        out.push(Cause::required("spec.matchConstraints", ""));
    }
    conditions(&spec["matchConditions"], "spec.matchConditions", params, out);
    let mut known: Vec<&str> = KNOWN.to_vec();
    known.extend(params.then_some("params"));
    for (i, v) in arr(spec, "/variables").iter().enumerate() {
        let at = format!("spec.variables[{i}]");
        if s(v, "/name").trim().is_empty() {
            out.push(Cause::required(format!("{at}.name"), "name is not specified"));
        }
        expression(v, "expression", &at, &known, None, out);
        if i == 0 {
            known.push("variables");
        }
    }
    if arr(spec, "/validations").is_empty() && arr(spec, "/auditAnnotations").is_empty() {
        for f in ["validations", "auditAnnotations"] {
            let why = "validations or auditAnnotations must contain at least one item";
            out.push(Cause::required(format!("spec.{f}"), why));
        }
    }
    for (i, v) in arr(spec, "/validations").iter().enumerate() {
        let at = format!("spec.validations[{i}]");
        expression(v, "expression", &at, &known, Some("bool"), out);
        if !s(v, "/messageExpression").is_empty() {
            if s(v, "/messageExpression").trim().is_empty() {
                let why = "must be non-empty if specified";
                out.push(Cause::invalid(format!("{at}.messageExpression"), &v["messageExpression"], why));
            } else {
                let known: Vec<&str> = known.iter().copied().filter(|k| *k != "authorizer").collect();
                expression(v, "messageExpression", &at, &known, Some("string"), out);
            }
        }
        let message = s(v, "/message");
        if !message.is_empty() && message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            out.push(Cause::invalid(format!("{at}.message"), &v["message"], why));
        } else if message.trim().contains('\n') {
            let why = "message must not contain line breaks";
            out.push(Cause::invalid(format!("{at}.message"), &v["message"], why));
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        one_of(format!("{at}.reason"), &v["reason"], &reasons, out);
    }
}

/// An expression has to be there, and to compile.
fn expression(v: &Value, field: &str, at: &str, known: &[&str], want: Option<&str>, out: &mut Vec<Cause>) {
    let text = s(v, &format!("/{field}"));
    let at = format!("{at}.{field}");
    if text.trim().is_empty() {
        out.push(Cause::required(at, "expression is not specified"));
    } else if let Some(why) = cel::wrong(text, known, want) {
        out.push(Cause::invalid(at, &text.into(), &why));
    }
}

fn conditions(list: &Value, at: &str, params: bool, out: &mut Vec<Cause>) {
    let list = arr(list, "");
    for (i, c) in list.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let mut known: Vec<&str> = KNOWN.iter().copied().filter(|k| *k != "namespaceObject").collect();
        known.extend(params.then_some("params"));
        if s(c, "/expression").trim().is_empty() {
            out.push(Cause::required(format!("{at}.expression"), ""));
        } else if let Some(why) = cel::wrong(s(c, "/expression"), &known, Some("bool")) {
            out.push(Cause::invalid(format!("{at}.expression"), &c["expression"], &why));
        }
        match s(c, "/name") {
            "" => out.push(Cause::required(format!("{at}.name"), "")),
            name => {
                out.extend(names::key(name).iter().map(|w| Cause::invalid(format!("{at}.name"), &name.into(), w)));
                if list[..i].iter().any(|o| o["name"] == c["name"]) {
                    out.push(duplicate(format!("{at}.name"), &c["name"]));
                }
            }
        }
    }
}

fn matches(m: &Value, at: &str, out: &mut Vec<Cause>) {
    one_of(format!("{at}.matchPolicy"), &m["matchPolicy"], &["Equivalent", "Exact"], out);
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, r) in arr(m, &format!("/{list}")).iter().enumerate() {
            rule(r, &format!("{at}.{list}[{i}]"), out);
        }
    }
}

fn rule(r: &Value, at: &str, out: &mut Vec<Cause>) {
    let lone = |f: &str, what: &str, out: &mut Vec<Cause>| {
        let list = arr(r, &format!("/{f}"));
        if list.is_empty() {
            out.push(Cause::required(format!("{at}.{f}"), ""));
        }
        if list.len() > 1 && list.iter().any(|x| x == "*") {
            let why = format!("if '*' is present, must not specify other {what}");
            out.push(Cause::invalid(format!("{at}.{f}"), &r[f], &why));
        }
    };
    lone("operations", "operations", out);
    for (i, o) in arr(r, "/operations").iter().enumerate() {
        one_of(format!("{at}.operations[{i}]"), o, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], out);
    }
    lone("apiGroups", "API groups", out);
    lone("apiVersions", "API versions", out);
    let resources = arr(r, "/resources");
    if resources.is_empty() {
        out.push(Cause::required(format!("{at}.resources"), ""));
    }
    if resources.iter().any(|x| x == "*")
        && resources.iter().any(|x| x != "*" && !x.as_str().unwrap_or("/").contains('/'))
    {
        let why = "if '*' is present, must not specify other resources without subresources";
        out.push(Cause::invalid(format!("{at}.resources"), &r["resources"], why));
    }
    one_of(format!("{at}.scope"), &r["scope"], &["*", "Cluster", "Namespaced"], out);
}

fn binding(spec: &Value, out: &mut Vec<Cause>) {
    match s(spec, "/policyName") {
        "" => out.push(Cause::required("spec.policyName", "")),
        name => out.extend(names::subdomain(name).iter().map(|w| Cause::invalid("spec.policyName", &name.into(), w))),
    }
    let by = &spec["paramRef"];
    if by.is_object() {
        let (name, sel) = (!s(by, "/name").is_empty(), by["selector"].is_object());
        match (name, sel) {
            (true, true) => {
                for f in ["name", "selector"] {
                    let why = "name and selector are mutually exclusive";
                    out.push(crate::kube::schema::rules::forbidden(&format!("spec.paramRef.{f}"), why));
                }
            }
            (false, false) => out.push(Cause::required("spec.paramRef", "one of name or selector must be specified")),
            _ => {}
        }
        match s(by, "/parameterNotFoundAction") {
            "" => out.push(Cause::required("spec.paramRef.parameterNotFoundAction", "")),
            _ => {
                let at = "spec.paramRef.parameterNotFoundAction";
                one_of(at.into(), &by["parameterNotFoundAction"], &["Deny", "Allow"], out);
            }
        }
    }
    // the real server spells it so
    matches(&spec["matchResources"], "spec.matchResouces", out);
    let actions = arr(spec, "/validationActions");
    for (i, a) in actions.iter().enumerate() {
        let at = format!("spec.validationActions[{i}]");
        one_of(at.clone(), a, &["Audit", "Deny", "Warn"], out);
        if actions[..i].contains(a) {
            out.push(duplicate(at, a));
        }
    }
    if ["Deny", "Warn"].iter().all(|w| actions.iter().any(|a| a == w)) {
        out.push(Cause::invalid("spec.validationActions", &spec["validationActions"], BOTH));
    }
    if actions.is_empty() {
        out.push(Cause::required("spec.validationActions", "at least one validation action is required"));
    }
}

fn webhook(hook: &Value, at: &str, out: &mut Vec<Cause>) {
    let name = s(hook, "/name");
    if name.is_empty() {
        out.push(Cause::required(format!("{at}.name"), ""));
    } else {
        let wrong = names::subdomain(name);
        if wrong.is_empty() && name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            out.push(Cause::invalid(format!("{at}.name"), &name.into(), why));
        }
        out.extend(wrong.iter().map(|w| Cause::invalid(format!("{at}.name"), &name.into(), w)));
    }
    for (i, r) in arr(hook, "/rules").iter().enumerate() {
        rule(r, &format!("{at}.rules[{i}]"), out);
    }
    one_of(format!("{at}.failurePolicy"), &hook["failurePolicy"], &["Fail", "Ignore"], out);
    one_of(format!("{at}.matchPolicy"), &hook["matchPolicy"], &["Equivalent", "Exact"], out);
    match s(hook, "/sideEffects") {
        "" => out.push(Cause::required(format!("{at}.sideEffects"), "must specify one of None, NoneOnDryRun")),
        _ => one_of(format!("{at}.sideEffects"), &hook["sideEffects"], &["None", "NoneOnDryRun"], out),
    }
    let seconds = &hook["timeoutSeconds"];
    if seconds.as_i64().is_some_and(|n| !(1..=30).contains(&n)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        out.push(Cause::invalid(format!("{at}.timeoutSeconds"), seconds, why));
    }
    one_of(format!("{at}.reinvocationPolicy"), &hook["reinvocationPolicy"], &["IfNeeded", "Never"], out);
    let client = &hook["clientConfig"];
    if client["url"].is_string() == client["service"].is_object() {
        out.push(Cause::required(format!("{at}.clientConfig"), "exactly one of url or service is required"));
    } else if client["service"].is_object() {
        for f in ["name", "namespace"].into_iter().filter(|f| s(client, &format!("/service/{f}")).is_empty()) {
            out.push(Cause::required(format!("{at}.clientConfig.service.{f}"), ""));
        }
    } else if !s(client, "/url").starts_with("https://") {
        let sort = s(client, "/url").split_once("://").map_or("", |u| u.0);
        let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
        out.push(Cause::invalid(format!("{at}.clientConfig.url"), &sort.into(), why));
    }
    conditions(&hook["matchConditions"], &format!("{at}.matchConditions"), false, out);
    versions(hook, at, out);
}

fn versions(hook: &Value, at: &str, out: &mut Vec<Cause>) {
    let (at, list) = (format!("{at}.admissionReviewVersions"), arr(hook, "/admissionReviewVersions"));
    let known = words(&["v1", "v1beta1"]);
    if list.is_empty() {
        out.push(Cause::required(at, &format!("must specify one of {}", known.join(", "))));
    } else if !list.iter().any(|v| known.iter().any(|k| v == k)) {
        let why = format!("must include at least one of {}", known.join(", "));
        out.push(Cause::invalid(at, &hook["admissionReviewVersions"], &why));
    }
}
