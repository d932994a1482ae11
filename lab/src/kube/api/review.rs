//! Reviews: may somebody do something, and who am I.
use serde_json::{Map, Value, json};

use super::auth::User;
use super::rbac::{self, Ask};
use super::read;
use super::route::Target;
use super::{Answer, Call, auth, decode};
use crate::kube::schema::Kind;
use crate::kube::store::{Cause, Failure, meta};

/// Serves a POST to a review.
///
/// # Errors
/// 400 for a body that cannot be read, 422 for a review of nothing, 501 for one that is not simulated.
pub fn create(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    if call.req.method != "POST" || t.name.is_some() {
        return Err(Failure::not_allowed());
    }
    let (mut body, warnings) = decode::object(call, kind, t)?;
    let given = body["metadata"].clone();
    body["metadata"] = json!({});
    if kind.namespaced {
        body["metadata"]["namespace"] = json!(t.namespace);
    }
    if kind.kind != "SelfSubjectReview" {
        let o = decode::write_options(call, "CreateOptions", "")?;
        crate::kube::store::managed(kind, &mut body, &o, call.lab.clock().now_ms());
    }
    if kind.kind.ends_with("AccessReview") {
        asked(kind, &body["spec"], &given, &t.namespace)?;
    }
    body["status"] = match kind.kind.as_str() {
        "SelfSubjectAccessReview" | "LocalSubjectAccessReview" | "SubjectAccessReview" => access(call, &body["spec"])?,
        "SelfSubjectRulesReview" => {
            let found = rules(call, &body["spec"])?;
            body["spec"] = json!({});
            found
        }
        "SelfSubjectReview" => {
            body["metadata"]["creationTimestamp"] = json!(meta::time(call.lab.clock().now_ms()));
            json!({"userInfo": info(&call.user)})
        }
        "TokenReview" => {
            if body["spec"]["token"].as_str().is_none_or(str::is_empty) {
                let why = "token is required for TokenReview in authentication";
                return Err(Failure::bad_request(why));
            }
            token(call, &body["spec"])
        }
        other => {
            let why = format!("{other} is not simulated: add it to lab/src/kube/api/review.rs");
            return Err(Failure::new(501, "NotImplemented", why));
        }
    };
    Ok(Answer { code: 201, body, warnings })
}

fn info(user: &User) -> Value {
    let mut who = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        who["uid"] = json!(user.uid);
    }
    if let Some(extra) = user.extra() {
        who["extra"] = extra;
    }
    who
}

fn rules(call: &Call<'_>, spec: &Value) -> Result<Value, Failure> {
    let Some(ns) = spec["namespace"].as_str().filter(|n| !n.is_empty()) else {
        return Err(Failure::bad_request("no namespace on request"));
    };
    let rules = read::store(call, "roles", |s| Ok(rbac::rules(s, &call.user, ns)))?;
    let (paths, mut rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(|r| r["nonResourceURLs"].is_array());
    if rules.is_empty() && call.user.admin() {
        rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    }
    Ok(json!({"resourceRules": rules, "nonResourceRules": paths, "incomplete": false}))
}

/// Fields of a review as the server names them inside, where texts show them.
fn inside(v: &Value) -> Value {
    let of = |f: &str| v[f].as_str().unwrap_or_default();
    json!({"Path": of("path"), "Verb": of("verb")})
}

/// Refuses a review that asks for nothing, or for two things, or of nobody, or that has metadata.
fn asked(kind: &Kind, spec: &Value, given: &Value, ns: &str) -> Result<(), Failure> {
    let mut causes = Vec::new();
    let (of, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if of.is_object() && path.is_object() {
        let why = "cannot be specified in combination with resourceAttributes";
        causes.push(Cause::invalid("spec.nonResourceAttributes", &inside(path), why));
    }
    if !of.is_object() && !path.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(Cause::invalid("spec.resourceAttributes", &Value::Null, why));
    }
    for f in ["fieldSelector", "labelSelector"] {
        let (at, raw) = (format!("spec.resourceAttributes.{f}"), &of[f]["rawSelector"]);
        let named = of[f]["requirements"].as_array().is_some_and(|r| !r.is_empty());
        if raw.as_str().is_some_and(|r| !r.is_empty()) && named {
            let why = "may not specified at the same time as requirements";
            causes.push(Cause::invalid(format!("{at}.rawSelector"), raw, why));
        }
    }
    let nobody = spec["user"].as_str().is_none_or(str::is_empty) && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if kind.kind != "SelfSubjectAccessReview" && nobody {
        causes.push(Cause::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    let more = given.as_object().into_iter().flatten();
    let more: Map<String, Value> =
        more.filter(|(k, _)| *k != "managedFields" && *k != "namespace").map(|(k, v)| (k.clone(), v.clone())).collect();
    if !more.is_empty() {
        let why = if kind.namespaced { "must be empty except for namespace" } else { "must be empty" };
        causes.push(Cause::invalid("metadata", &more.into(), why));
    }
    if kind.namespaced && of.is_object() && of["namespace"].as_str().unwrap_or_default() != ns {
        let shown = of["namespace"].as_str().unwrap_or_default();
        causes.push(Cause::invalid(
            "spec.resourceAttributes.namespace",
            &shown.into(),
            "must match metadata.namespace",
        ));
    }
    if kind.namespaced && path.is_object() {
        let why = "disallowed on this kind of request";
        causes.push(Cause::invalid("spec.nonResourceAttributes", &inside(path), why));
    }
    // the review has lost its kind by then
    let nameless = Kind { group: kind.group.clone(), ..Kind::default() };
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(&nameless, "", &causes)) }
}

/// Whose a token is.
fn token(call: &Call<'_>, spec: &Value) -> Value {
    let asked: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = if asked.is_empty() { auth::AUDIENCES.to_vec() } else { asked };
    match auth::of_token_for(call.lab, call.cluster, spec["token"].as_str().unwrap_or_default(), &asked) {
        Some((u, known)) => {
            json!({"authenticated": true, "user": info(&u), "audiences": known})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

fn access(call: &Call<'_>, spec: &Value) -> Result<Value, Failure> {
    let a = &spec["resourceAttributes"];
    let word = |k: &str| a[k].as_str().unwrap_or_default();
    let resource = if word("subresource").is_empty() {
        word("resource").to_owned()
    } else {
        format!("{}/{}", word("resource"), word("subresource"))
    };
    let user = match spec["user"].as_str() {
        None => call.user.clone(),
        Some(name) => {
            let groups =
                spec["groups"].as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned)).collect();
            User { name: name.to_owned(), groups, ..User::default() }
        }
    };
    if user.admin() {
        return Ok(json!({"allowed": true}));
    }
    if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        let verb = spec["nonResourceAttributes"]["verb"].as_str().unwrap_or_default();
        return read::store(call, "roles", |s| {
            Ok(verdict(rbac::why_path(s, &user, verb, path), || rbac::unresolved(s, &user, "")))
        });
    }
    let ask = Ask {
        verb: word("verb"),
        group: word("group"),
        resource: &resource,
        namespace: word("namespace"),
        name: word("name"),
    };
    read::store(call, "roles", |s| Ok(verdict(rbac::why(s, &user, &ask), || rbac::unresolved(s, &user, ask.namespace))))
}

/// The verdict, with the binding that it follows from, or what stands in the way.
fn verdict(why: Option<String>, missing: impl FnOnce() -> Option<String>) -> Value {
    match why {
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => match missing() {
            Some(reason) => json!({"allowed": false, "reason": reason}),
            None => json!({"allowed": false}),
        },
    }
}
