//! Options of requests: what is allowed together, in the words of the API machinery.
use serde_json::{Value, json};

use super::Request;
use crate::kube::schema::rules::forbidden;
use crate::kube::store::delete::DeleteOptions;
use crate::kube::store::{Cause, Failure, Propagation};

/// How unknown and repeated fields are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// Dropped without a word.
    Ignore,
    /// Dropped with a warning.
    Warn,
    /// Refused.
    Strict,
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// Refuses what `causes` name.
fn check(kind: &str, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid_options(kind, causes)) }
}

/// `fieldValidation` of a request.
#[must_use]
pub fn fields(req: &Request) -> Fields {
    match req.query.text("fieldValidation") {
        Some("Ignore") => Fields::Ignore,
        Some("Strict") => Fields::Strict,
        _ => Fields::Warn,
    }
}

fn dry_run(values: &[&str], causes: &mut Vec<Cause>) -> bool {
    if values.iter().any(|v| *v != "All") {
        causes.push(Cause::unsupported("dryRun", &json!(values), &words(&["All"])));
    }
    !values.is_empty()
}

fn manager(req: &Request, causes: &mut Vec<Cause>) {
    let Some(m) = req.query.text("fieldManager") else { return };
    if m.len() > 128 {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: "fieldManager".into(),
            message: "Too long: may not be more than 128 bytes".into(),
        });
    }
    for (i, c) in m.char_indices().filter(|(_, c)| c.is_control() || c.is_whitespace() && *c != ' ') {
        let why = format!("invalid character U+{:04X} (at position {i})", c as u32);
        causes.push(Cause::invalid("fieldManager", &m.into(), &why));
    }
}

/// Options of a create, update or patch; says whether it is only tried.
///
/// # Errors
/// 422 with every cause.
pub fn write(req: &Request, kind: &'static str) -> Result<bool, Failure> {
    let mut causes = Vec::new();
    if kind == "PatchOptions" {
        let apply = req.content_type.starts_with("application/apply-patch");
        if apply && req.query.text("fieldManager").is_none() {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
        if !apply && req.query.get("force").is_some() {
            causes.push(forbidden("force", "may not be specified for non-apply patch"));
        }
    }
    manager(req, &mut causes);
    let dry: Vec<&str> = req.query.all("dryRun").filter(|v| !v.is_empty()).collect();
    let dry = dry_run(&dry, &mut causes);
    if let Some(v) = req.query.text("fieldValidation").filter(|v| !matches!(*v, "Ignore" | "Warn" | "Strict")) {
        causes.push(Cause::unsupported("fieldValidation", &v.into(), &words(&["", "Ignore", "Strict", "Warn"])));
    }
    check(kind, &causes)?;
    Ok(dry)
}

/// Whether a delete says what becomes of dependents.
#[must_use]
pub fn names_policy(req: &Request, body: &Value) -> bool {
    ["propagationPolicy", "orphanDependents"].iter().any(|f| !body[*f].is_null() || req.query.text(f).is_some())
}

/// A number of the query.
///
/// # Errors
/// 400 for a text that is none.
pub(super) fn number(req: &Request, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = req.query.text(name) else { return Ok(None) };
    let wrong = |e: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = if matches!(e.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
        Failure::bad_request(format!("strconv.ParseInt: parsing \"{text}\": {why}"))
    };
    text.parse().map(Some).map_err(wrong)
}

/// Options of a delete: the body, or else the query.
///
/// # Errors
/// 400 for numbers that are none, 422 with every cause.
pub fn delete(req: &Request, body: &Value) -> Result<DeleteOptions, Failure> {
    let q = &req.query;
    let asked = number(req, "gracePeriodSeconds")?;
    let mut causes = Vec::new();
    let policy = body["propagationPolicy"].as_str().or_else(|| q.text("propagationPolicy"));
    let orphan = body["orphanDependents"].as_bool().or_else(|| q.text("orphanDependents").map(|v| v == "true"));
    if policy.is_some() && orphan.is_some() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        causes.push(Cause::invalid("propagationPolicy", &policy.into(), why));
    }
    if let Some(p) = policy.filter(|p| !matches!(*p, "Foreground" | "Background" | "Orphan")) {
        let known = words(&["Foreground", "Background", "Orphan", "nil"]);
        causes.push(Cause::unsupported("propagationPolicy", &p.into(), &known));
    }
    let listed: Vec<&str> = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let listed: Vec<&str> =
        if listed.is_empty() { q.all("dryRun").filter(|v| !v.is_empty()).collect() } else { listed };
    let dry = dry_run(&listed, &mut causes);
    check("DeleteOptions", &causes)?;
    let grace = body["gracePeriodSeconds"].as_i64().or(asked);
    let want = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
    Ok(DeleteOptions {
        propagation: match (policy, orphan) {
            (Some("Foreground"), _) => Propagation::Foreground,
            (Some("Orphan"), _) | (None, Some(true)) => Propagation::Orphan,
            _ => Propagation::Background,
        },
        // A negative grace period counts as one second.
        grace: grace.map(|g| u64::try_from(g).unwrap_or(1)),
        uid: want("uid"),
        version: want("resourceVersion"),
        dry_run: dry,
    })
}

/// Options of a list.
///
/// # Errors
/// 400 for numbers that are none, 422 for options that do not go together.
pub fn list(req: &Request) -> Result<(), Failure> {
    let q = &req.query;
    for name in ["limit", "timeoutSeconds"] {
        number(req, name)?;
    }
    let (rv, going_on) = (q.text("resourceVersion"), q.text("continue").is_some());
    let mut causes = Vec::new();
    if let Some(m) = q.text("resourceVersionMatch") {
        let field = "resourceVersionMatch";
        if rv.is_none() {
            causes.push(forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if going_on {
            causes.push(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(m, "Exact" | "NotOlderThan") {
            causes.push(Cause::unsupported(field, &m.into(), &words(&["Exact", "NotOlderThan", ""])));
        }
        if m == "Exact" && rv == Some("0") {
            causes.push(forbidden(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
    }
    if q.get("sendInitialEvents").is_some() {
        causes.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    check("ListOptions", &causes)
}

/// Options of a watch.
///
/// # Errors
/// 400 for numbers that are none, 422 for options that do not go together.
pub fn watch(req: &Request) -> Result<(), Failure> {
    let q = &req.query;
    number(req, "timeoutSeconds")?;
    let field = "resourceVersionMatch";
    let (rule, initial) = (q.text(field), q.get("sendInitialEvents").is_some());
    let mut causes = Vec::new();
    if initial && rule != Some("NotOlderThan") {
        causes.push(forbidden(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if let Some(m) = rule {
        if !initial {
            causes.push(forbidden(
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if m != "NotOlderThan" {
            causes.push(Cause::unsupported(field, &m.into(), &words(&["NotOlderThan"])));
        }
        if q.text("continue").is_some() {
            causes.push(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    check("ListOptions", &causes)
}
