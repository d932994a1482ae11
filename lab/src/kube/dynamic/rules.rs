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
        "ValidatingAdmissionPolicy" => policy(obj, out),
        "MutatingAdmissionPolicy" => mutating(spec, out),
        "ValidatingAdmissionPolicyBinding" => {
            binding(spec, out);
            actions(spec, out);
        }
        "MutatingAdmissionPolicyBinding" => binding(spec, out),
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

/// What every policy has: its parameters, what it is about, variables. With the names that its expressions know.
fn common(spec: &Value, out: &mut Vec<Cause>) -> Vec<&'static str> {
    one_of("spec.failurePolicy".into(), &spec["failurePolicy"], &["Fail", "Ignore"], out);
    let params = spec["paramKind"].is_object();
    if params {
        param_kind(&spec["paramKind"], out);
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
        let name = s(v, "/name");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.trim().is_empty() {
            out.push(Cause::required(format!("{at}.name"), "name is not specified"));
        } else if !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            out.push(Cause::invalid(format!("{at}.name"), &name.into(), "must be a valid CEL identifier"));
        }
        expression(v, "expression", &at, &known, None, out);
        if i == 0 {
            known.push("variables");
        }
    }
    known
}

fn param_kind(of: &Value, out: &mut Vec<Cause>) {
    let (version, kind, at) = (s(of, "/apiVersion"), s(of, "/kind"), "spec.paramKind");
    if version.is_empty() {
        out.push(Cause::required(format!("{at}.apiVersion"), ""));
    } else if version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {version}");
        out.push(Cause::invalid(format!("{at}.apiVersion"), &version.into(), &why));
    }
    if kind.is_empty() {
        out.push(Cause::required(format!("{at}.kind"), ""));
        return;
    }
    let wrong = names::label_1035(&kind.to_lowercase());
    if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        out.push(Cause::invalid(format!("{at}.kind"), &kind.into(), &why));
    }
}

/// Checks a policy that changes objects.
fn mutating(spec: &Value, out: &mut Vec<Cause>) {
    let known = common(spec, out);
    let mutations = arr(spec, "/mutations");
    if mutations.is_empty() {
        out.push(Cause::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (i, m) in mutations.iter().enumerate() {
        mutation(m, &format!("spec.mutations[{i}]"), &known, out);
    }
    match s(spec, "/reinvocationPolicy") {
        "" => out.push(Cause::required("spec.reinvocationPolicy", "")),
        _ => one_of("spec.reinvocationPolicy".into(), &spec["reinvocationPolicy"], &["IfNeeded", "Never"], out),
    }
}

fn mutation(m: &Value, at: &str, known: &[&str], out: &mut Vec<Cause>) {
    let sorts = [
        ("ApplyConfiguration", "applyConfiguration", "map", "Object"),
        ("JSONPatch", "jsonPatch", "list", "list(JSONPatch)"),
    ];
    let sort = s(m, "/patchType");
    if sort.is_empty() {
        out.push(Cause::required(format!("{at}.patchType"), ""));
        return;
    }
    let Some((_, own, plain, named)) = sorts.iter().find(|x| x.0 == sort) else {
        out.push(Cause::unsupported(format!("{at}.patchType"), &sort.into(), &words(&sorts.map(|x| x.0))));
        return;
    };
    for (_, other, ..) in sorts.iter().filter(|x| x.1 != *own && m[x.1].is_object()) {
        let (shown, why) = (format!("{{{other}}}"), format!("must not be specified when patchType is {sort}"));
        out.push(Cause::invalid(format!("{at}.{other}"), &shown.into(), &why));
    }
    if !m[*own].is_object() {
        let why = format!("must be specified when patchType is {sort}");
        out.push(Cause::required(format!("{at}.{own}"), &why));
        return;
    }
    let (text, at) = (s(&m[*own], "/expression"), format!("{at}.{own}.expression"));
    if text.trim().is_empty() {
        out.push(Cause::required(at, ""));
    } else if let Some(why) = cel::wrong(text, known, Some(plain)) {
        let why = why.replace(&format!("must evaluate to {plain}"), &format!("must evaluate to {named}"));
        out.push(Cause::invalid(at, &text.into(), &why));
    }
}

fn policy(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let known = common(spec, out);
    for (i, note) in arr(spec, "/auditAnnotations").iter().enumerate() {
        let at = format!("spec.auditAnnotations[{i}]");
        let key = format!("{}/{}", s(obj, "/metadata/name"), s(note, "/key"));
        let wrong = names::key(&key);
        out.extend(wrong.iter().map(|w| Cause::invalid(format!("{at}.key"), &key.as_str().into(), w)));
        let text = s(note, "/valueExpression");
        if text.trim().is_empty() {
            out.push(Cause::required(format!("{at}.valueExpression"), "valueExpression is not specified"));
        } else if let Some(why) = cel::wrong(text, &known, Some("string")) {
            let why = why.replace("must evaluate to string but", "must evaluate to one of [string null_type] but");
            out.push(Cause::invalid(format!("{at}.valueExpression"), &text.into(), &why));
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
            let why = "must be non-empty if specified";
            out.push(Cause::invalid(format!("{at}.message"), &v["message"], why));
        } else if message.trim().contains('\n') {
            let why = "must not contain line breaks";
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
    selectors(m, at, out);
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
    let texts: Vec<&str> = resources.iter().map(|x| x.as_str().unwrap_or_default()).collect();
    if texts.contains(&"*/*") && texts.len() > 1 {
        let why = "if '*/*' is present, must not specify other resources";
        out.push(Cause::invalid(format!("{at}.resources"), &r["resources"], why));
    }
    for (i, text) in texts.iter().enumerate() {
        let place = format!("{at}.resources[{i}]");
        if text.is_empty() {
            out.push(Cause::required(place, ""));
            continue;
        }
        let Some((of, sub)) = text.split_once('/').filter(|_| *text != "*/*") else { continue };
        let covers = [format!("{of}/*"), format!("*/{sub}")];
        if let Some(other) = covers.iter().find(|c| c.as_str() != *text && texts.contains(&c.as_str())) {
            let why = format!("if '{other}' is present, must not specify {text}");
            out.push(Cause::invalid(place, &(*text).into(), &why));
        }
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
}

fn actions(spec: &Value, out: &mut Vec<Cause>) {
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
    selectors(hook, at, out);
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
        let (port, at) = (&client["service"]["port"], format!("{at}.clientConfig.service"));
        if port.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
            let why = "port is not valid: must be between 1 and 65535, inclusive";
            out.push(Cause::invalid(format!("{at}.port"), port, why));
        }
        if let Some(path) = client["service"]["path"].as_str() {
            service_path(path, &format!("{at}.path"), out);
        }
    } else {
        address(s(client, "/url"), &format!("{at}.clientConfig.url"), out);
    }
    conditions(&hook["matchConditions"], &format!("{at}.matchConditions"), false, out);
    versions(hook, at, out);
}

/// The selectors of a webhook, or of what a policy is about.
fn selectors(of: &Value, at: &str, out: &mut Vec<Cause>) {
    let at = at.replace("matchResouces", "matchResources");
    for f in ["namespaceSelector", "objectSelector"].into_iter().filter(|f| of[*f].is_object()) {
        crate::kube::schema::validate::selector(&of[f], &format!("{at}.{f}"), out);
    }
}

/// Where a webhook is outside of the cluster.
pub fn address(url: &str, at: &str, out: &mut Vec<Cause>) {
    const FORM: &str = "desired format: https://host[/path]";
    let mut say = |v: &str, why: &str| out.push(Cause::invalid(at, &v.into(), why));
    let (sort, rest) = url.split_once("://").unwrap_or(("", ""));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = rest.split('/').next().unwrap_or_default();
    let (who, host) = place.rsplit_once('@').unwrap_or(("", place));
    if sort != "https" {
        say(sort, &format!("'https' is the only allowed URL scheme; {FORM}"));
    }
    if host.is_empty() {
        say("", &format!("host must be specified; {FORM}"));
    }
    for (v, what) in [
        (who, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !v.is_empty() {
            say(v, what);
        }
    }
}

/// The path of a webhook behind a service: names between slashes.
fn service_path(path: &str, at: &str, out: &mut Vec<Cause>) {
    let mut say = |why: &str| out.push(Cause::invalid(at, &path.into(), why));
    if path == "/" {
        return;
    }
    if !path.starts_with('/') {
        say("must start with a '/'");
    }
    let inner = path.strip_suffix('/').unwrap_or(path);
    for (i, step) in inner.split('/').skip(1).chain(inner.is_empty().then_some("")).enumerate() {
        if step.is_empty() {
            say(&format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in names::subdomain(step) {
            say(&format!("segment[{i}]: {why}"));
        }
    }
    if !path.contains('/') {
        say("segment[0] may not be empty");
    }
}

fn versions(hook: &Value, at: &str, out: &mut Vec<Cause>) {
    let (at, list) = (format!("{at}.admissionReviewVersions"), arr(hook, "/admissionReviewVersions"));
    let known = words(&["v1", "v1beta1"]);
    for (i, v) in list.iter().enumerate() {
        let wrong = names::label_1035(v.as_str().unwrap_or_default());
        if list[..i].contains(v) {
            out.push(Cause::invalid(format!("{at}[{i}]"), v, "duplicate version"));
        } else {
            out.extend(wrong.iter().map(|w| Cause::invalid(format!("{at}[{i}]"), v, w)));
        }
    }
    if list.is_empty() {
        out.push(Cause::required(at, &format!("must specify one of {}", known.join(", "))));
    } else if !list.iter().any(|v| known.iter().any(|k| v == k)) {
        let why = format!("must include at least one of {}", known.join(", "));
        out.push(Cause::invalid(at, &hook["admissionReviewVersions"], &why));
    }
}
