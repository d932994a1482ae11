//! Errors of the API as Kubernetes words them: a code, a reason, a message and details.
use serde_json::{Map, Value, json};

use crate::kube::schema::Kind;

/// An error answer, ready to become a `Status` object.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP code.
    pub code: u16,
    /// Machine-readable reason (`NotFound`); empty for none.
    pub reason: &'static str,
    /// The message kubectl prints.
    pub message: String,
    /// `details` of the Status.
    pub details: Option<Value>,
    /// What the client is to be warned of all the same.
    pub warnings: Vec<String>,
}

/// One cause of an `Invalid` answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired` …
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// Text.
    pub message: String,
}

impl Cause {
    /// A required field is missing.
    pub fn required(field: impl Into<String>, extra: &str) -> Cause {
        let message = if extra.is_empty() { "Required value".to_owned() } else { format!("Required value: {extra}") };
        Cause { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A value breaks a rule; `value` is shown as JSON.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Cause {
        Cause {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {}: {why}", quoted(value)),
        }
    }

    /// A rule is broken by values that are not shown.
    pub fn plain(field: &str, why: &str) -> Cause {
        Cause { reason: "FieldValueInvalid", field: field.to_owned(), message: format!("Invalid value: {why}") }
    }

    /// A value that is not in its list of allowed ones.
    pub fn unsupported(field: impl Into<String>, value: &Value, allowed: &[String]) -> Cause {
        let list = allowed.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {value}: supported values: {list}");
        Cause { reason: "FieldValueNotSupported", field: field.into(), message }
    }
}

/// A value as Go shows it: text with its control characters by their bytes.
fn quoted(v: &Value) -> String {
    let text = v.to_string();
    if v.is_string() { text.replace("\\u00", "\\x") } else { text }
}

/// Causes as one text: each once, in brackets when there are several.
#[must_use]
pub fn aggregate(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for c in causes {
        let text = format!("{}: {}", c.field, c.message);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

fn details(name: &str, kind: &Kind, what: &str) -> Value {
    let mut d = Map::new();
    if !name.is_empty() {
        d.insert("name".into(), name.into());
    }
    if !kind.group.is_empty() {
        d.insert("group".into(), kind.group.as_str().into());
    }
    if !what.is_empty() {
        d.insert("kind".into(), what.into());
    }
    Value::Object(d)
}

/// `Deployment.apps`.
fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}

impl Failure {
    /// A failure without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, reason, message: message.into(), details: None, warnings: Vec::new() }
    }

    /// The same, with warnings.
    #[must_use]
    pub fn warning(self, warnings: &[String]) -> Failure {
        Failure { warnings: warnings.to_vec(), ..self }
    }

    /// 404 of an object.
    #[must_use]
    pub fn not_found(kind: &Kind, name: &str) -> Failure {
        Failure {
            details: Some(details(name, kind, &kind.plural)),
            ..Failure::new(404, "NotFound", format!("{} \"{name}\" not found", kind.resource()))
        }
    }

    /// 404 of a path or kind nobody serves.
    #[must_use]
    pub fn no_resource() -> Failure {
        Failure {
            details: Some(json!({})),
            ..Failure::new(404, "NotFound", "the server could not find the requested resource")
        }
    }

    /// 409 on create.
    #[must_use]
    pub fn already_exists(kind: &Kind, name: &str) -> Failure {
        Failure {
            details: Some(details(name, kind, &kind.plural)),
            ..Failure::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.resource()))
        }
    }

    /// 409 because the object changed meanwhile, or for the given reason.
    #[must_use]
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
        Failure { details: Some(details(name, kind, &kind.plural)), ..Failure::new(409, "Conflict", message) }
    }

    /// 409 for an object that has another uid (none when there is no such object), as the storage says it.
    #[must_use]
    pub fn other_uid(kind: &Kind, ns: &str, name: &str, asked: &str, have: &str) -> Failure {
        let prefix = match (kind.group.as_str(), kind.plural.as_str()) {
            (group, plural) if kind.custom || group.starts_with("api") => format!("{group}/{plural}"),
            ("", "services") => "services/specs".to_owned(),
            ("", "endpoints") => "services/endpoints".to_owned(),
            ("", "nodes") => "minions".to_owned(),
            ("", "replicationcontrollers") => "controllers".to_owned(),
            ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
            (_, plural) => plural.to_owned(),
        };
        let place = if ns.is_empty() { name.to_owned() } else { format!("{ns}/{name}") };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{prefix}/{place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {have}"
        );
        Failure::conflict(kind, name, &why)
    }

    /// 409 for a stale resourceVersion.
    #[must_use]
    pub fn modified(kind: &Kind, name: &str) -> Failure {
        Failure::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 on an object.
    #[must_use]
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Failure {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.resource())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", kind.resource())
        };
        Failure { details: Some(details(name, kind, &kind.plural)), ..Failure::new(403, "Forbidden", message) }
    }

    /// 422 with its causes.
    #[must_use]
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Failure {
        Failure::invalid_as(details(name, kind, &kind.kind), &qualified(&kind.kind, &kind.group), name, causes)
    }

    /// 422 of a patch whose result cannot be read.
    #[must_use]
    pub fn invalid_patch(shown: &str, why: &str) -> Failure {
        Failure::invalid_as(json!({}), "", "", &[Cause::invalid("patch", &shown.into(), why)])
    }

    /// 422 of a request's options.
    #[must_use]
    pub fn invalid_options(kind: &str, causes: &[Cause]) -> Failure {
        let d = json!({"group": "meta.k8s.io", "kind": kind});
        Failure::invalid_as(d, &qualified(kind, "meta.k8s.io"), "", causes)
    }

    /// 422 of an update that needs a resourceVersion.
    #[must_use]
    pub fn unversioned(kind: &Kind, name: &str) -> Failure {
        let cause = Cause::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
        Failure::invalid_as(details(name, kind, &kind.plural), &qualified(&kind.plural, &kind.group), name, &[cause])
    }

    fn invalid_as(mut d: Value, what: &str, name: &str, causes: &[Cause]) -> Failure {
        let list = aggregate(causes);
        let cs: Vec<Value> =
            causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field})).collect();
        d["causes"] = Value::Array(cs);
        Failure { details: Some(d), ..Failure::new(422, "Invalid", format!("{what} \"{name}\" is invalid: {list}")) }
    }

    /// A failure that the API machinery did not foresee: code 500, no reason.
    pub fn unforeseen(message: impl Into<String>) -> Failure {
        Failure::new(500, "", message)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    /// 405.
    #[must_use]
    pub fn not_allowed() -> Failure {
        Failure {
            details: Some(json!({})),
            ..Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        }
    }

    /// 410 of a watch or list from the past.
    pub fn expired(message: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    /// The `Status` object.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut s = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message});
        if !self.reason.is_empty() {
            s["reason"] = self.reason.into();
        }
        if let Some(d) = &self.details {
            s["details"] = d.clone();
        }
        s["code"] = self.code.into();
        s
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
