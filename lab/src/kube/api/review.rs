//! Reviews: may somebody do something, and who am I.
use serde_json::{Value, json};

use super::auth::User;
use super::rbac::{self, Ask};
use super::read;
use super::route::Target;
use super::{Answer, Call, auth, decode};
use crate::kube::schema::Kind;
use crate::kube::store::{Cause, Failure};

/// Serves a POST to a review.
///
/// # Errors
/// 400 for a body that cannot be read, 501 for a review that is not simulated.
pub fn create(call: &Call<'_>, kind: &Kind, _t: &Target) -> Result<Answer, Failure> {
    if call.req.method != "POST" {
        return Err(Failure::not_allowed());
    }
    let mut body = decode::body(call.req)?;
    body["apiVersion"] = json!(kind.api_version());
    body["kind"] = json!(kind.kind);
    body["metadata"] = json!({"creationTimestamp": null});
    if kind.kind.ends_with("AccessReview") {
        asked(kind, &body["spec"])?;
    }
    body["status"] = match kind.kind.as_str() {
        "SelfSubjectAccessReview" | "LocalSubjectAccessReview" | "SubjectAccessReview" => access(call, &body["spec"])?,
        "SelfSubjectRulesReview" => {
            let ns = body["spec"]["namespace"].as_str().unwrap_or("default").to_owned();
            let rules = read::store(call, "roles", |s| Ok(rbac::rules(s, &call.user, &ns)))?;
            let (paths, mut rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(|r| r["nonResourceURLs"].is_array());
            if rules.is_empty() && call.user.admin() {
                rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            }
            json!({"resourceRules": rules, "nonResourceRules": paths, "incomplete": false})
        }
        "SelfSubjectReview" => json!({"userInfo": {"username": call.user.name, "groups": call.user.groups}}),
        "TokenReview" => token(call, &body["spec"]),
        other => {
            let why = format!("{other} is not simulated: add it to lab/src/kube/api/review.rs");
            return Err(Failure::new(501, "NotImplemented", why));
        }
    };
    Ok(Answer { code: 201, body, warnings: Vec::new() })
}

/// Refuses a review that asks for nothing, or for two things, or of nobody.
fn asked(kind: &Kind, spec: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    let (of, path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let field = "spec.resourceAttributes";
    // a pointer that is nil is shown as a text
    if !of && !path {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(Cause::invalid(field, &json!("null"), why));
    }
    if of && path {
        let why = "cannot be specified in combination with nonResourceAttributes";
        causes.push(Cause::invalid(field, &spec["nonResourceAttributes"], why));
    }
    let nobody = spec["user"].as_str().is_none_or(str::is_empty) && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if kind.kind != "SelfSubjectAccessReview" && nobody {
        causes.push(Cause::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, "", &causes)) }
}

/// Whose a token is.
fn token(call: &Call<'_>, spec: &Value) -> Value {
    let asked: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = if asked.is_empty() { auth::AUDIENCES.to_vec() } else { asked };
    match auth::of_token_for(call.lab, call.cluster, spec["token"].as_str().unwrap_or_default(), &asked) {
        Some((u, known)) => {
            let mut who = json!({"username": u.name, "groups": u.groups});
            if !u.uid.is_empty() {
                who["uid"] = json!(u.uid);
            }
            json!({"authenticated": true, "user": who, "audiences": known})
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
            User { name: name.to_owned(), groups, uid: String::new() }
        }
    };
    let path = spec["nonResourceAttributes"]["path"].as_str();
    if let Some(path) = path {
        let verb = spec["nonResourceAttributes"]["verb"].as_str().unwrap_or_default();
        let allowed = user.admin() || read::store(call, "roles", |s| Ok(rbac::allowed_path(s, &user, verb, path)))?;
        return Ok(json!({"allowed": allowed}));
    }
    let ask = Ask {
        verb: word("verb"),
        group: word("group"),
        resource: &resource,
        namespace: word("namespace"),
        name: word("name"),
    };
    let allowed = user.admin() || read::store(call, "roles", |s| Ok(rbac::allowed(s, &user, &ask)))?;
    Ok(json!({"allowed": allowed}))
}
