//! `kubectl rollout history`, `undo`, `pause` and `resume`. Grade: source (rollback.go, history.go of kubectl).
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::items::{Item, encoded};
use super::output::{Dry, said};
use super::request::{At, Change, Form, JSON, ask, refused};
use super::words::Words;

const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CAUSE: &str = "kubernetes.io/change-cause";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

/// Annotations of a ReplicaSet that are not its Deployment's.
const KEPT: [&str; 6] = [
    APPLIED,
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// A state that a workload was in: its number, and the ReplicaSet or ControllerRevision that has kept it.
struct Past {
    number: i64,
    kept: Value,
}

/// What an object was, the oldest first.
async fn past(c: &Call, at: &At, item: &Item, object: &Value) -> Vec<Past> {
    let plural = if item.kind.kind == "Deployment" { "replicasets" } else { "controllerrevisions" };
    let ns = item.namespace.as_deref().unwrap_or_default();
    let labels = object["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    let query = format!("labelSelector={}", encoded(&pairs.join(",")));
    let (_, list) = ask(c, at, &format!("/apis/apps/v1/namespaces/{ns}/{plural}"), &query, JSON).await;
    let own = |o: &&Value| o["metadata"]["ownerReferences"][0]["uid"] == object["metadata"]["uid"];
    let number = |o: &Value| {
        let noted = o["metadata"]["annotations"][REVISION].as_str().and_then(|r| r.parse().ok());
        noted.or_else(|| o["revision"].as_i64())
    };
    let of = |o: &Value| Some(Past { number: number(o)?, kept: o.clone() });
    let mut out: Vec<Past> = list["items"].as_array().into_iter().flatten().filter(own).filter_map(of).collect();
    out.sort_by_key(|p| p.number);
    out
}

/// The state with this number; 0 is the one before the last.
fn chosen(all: Vec<Past>, number: i64, item: &Item) -> Result<Past, String> {
    if number > 0 {
        let found = all.into_iter().find(|p| p.number == number);
        return found.ok_or_else(|| format!("error: unable to find specified revision {number} in history"));
    }
    let none = match item.kind.kind.as_str() {
        "Deployment" => format!("error: no rollout history found for deployment \"{}\"", item.name),
        _ => "error: no last revision to roll back to".to_owned(),
    };
    all.into_iter().rev().nth(1).ok_or(none)
}

/// Why a kind has no former states.
pub(super) fn unsupported(what: &str, item: &Item) -> String {
    let (group, kind) = (&item.kind.group, &item.kind.kind);
    format!("error: error retrieving {what} for \"{kind}\", no visitor method exists for {{{group} {kind}}}")
}

/// What is said before an object is rolled back that the client has applied.
pub(super) async fn remark(c: &mut Call, at: &At, item: &Item) {
    let noted = item.read(c, at).await.is_ok_and(|o| o["metadata"]["annotations"][APPLIED].is_string());
    if noted {
        let what = format!("resource {}/{} was previously managed with 'kubectl apply'", item.kind.plural, item.name);
        c.complain(&format!("Warning: {what}. Rolling back will not update the {APPLIED} annotation, which may cause unexpected behavior on future 'kubectl apply' operations. Consider using 'kubectl apply' with your previous configuration file instead."));
    }
}

/// `rollout history`; `None` for the details of one revision.
pub(super) async fn history(c: &mut Call, at: &At, w: &Words, item: &Item) -> Option<i32> {
    if w.value("revision").is_some_and(|r| r != "0") || w.value("output").is_some() {
        return None;
    }
    let object = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    c.line(&format!("{} ", item.shown()));
    let all = past(c, at, item, &object).await;
    if all.is_empty() {
        c.line("No rollout history found.");
        return Some(0);
    }
    let width = "REVISION".len();
    c.line(&format!("{:width$}  CHANGE-CAUSE", "REVISION"));
    for p in &all {
        let why = p.kept["metadata"]["annotations"][CAUSE].as_str().filter(|t| !t.is_empty()).unwrap_or("<none>");
        c.line(&format!("{:<width$}  {why}", p.number));
    }
    c.line("");
    Some(0)
}

/// A template without the mark of its ReplicaSet.
fn unmarked(template: &Value) -> Value {
    let mut t = template.clone();
    if let Some(labels) = t["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(HASH);
    }
    t
}

/// `rollout undo`.
pub(super) async fn undo(c: &mut Call, at: &At, w: &Words, item: &Item) -> Option<i32> {
    let dry = Dry::of(w).filter(|d| *d != Dry::Client)?;
    let number: i64 = w.value("to-revision").map_or(Some(0), |r| r.parse().ok())?;
    let object = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    remark(c, at, item).await;
    let target = match chosen(past(c, at, item, &object).await, number, item) {
        Ok(p) => p,
        Err(why) => return Some(c.fail(1, &why)),
    };
    let skipped = format!("skipped rollback (current template already matches revision {number})");
    let (form, body) = if item.kind.kind == "Deployment" {
        if object["spec"]["paused"] == true {
            let why = "error: you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again";
            return Some(c.fail(1, why));
        }
        let template = unmarked(&target.kept["spec"]["template"]);
        if template == unmarked(&object["spec"]["template"]) {
            said(c, w, item, &skipped, dry, &object);
            return Some(0);
        }
        let notes = |o: &Value, own: bool| {
            let all = o["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            all.into_iter().filter(move |(k, _)| KEPT.contains(&k.as_str()) == own)
        };
        let notes: serde_json::Map<String, Value> = notes(&object, true).chain(notes(&target.kept, false)).collect();
        let change = |path: &str, value: Value| json!({"op": "replace", "path": path, "value": value});
        let both = json!([change("/spec/template", template), change("/metadata/annotations", notes.into())]);
        (Form::Operations, both)
    } else {
        let wanted = &target.kept["data"]["spec"]["template"];
        let mut same = wanted.clone();
        if let Some(m) = same.as_object_mut() {
            m.shift_remove("$patch");
        }
        if same == object["spec"]["template"] {
            said(c, w, item, &skipped, dry, &object);
            return Some(0);
        }
        (Form::Strategic, target.kept["data"].clone())
    };
    Some(patch(c, at, w, item, (form, &body), "rolled back").await)
}

/// `rollout pause` and `resume`.
pub(super) async fn pause(c: &mut Call, at: &At, w: &Words, item: &Item, on: bool) -> i32 {
    let kind = &item.kind;
    if kind.kind != "Deployment" {
        let what = if on { "pausing" } else { "resuming" };
        return c.fail(1, &format!("error: {} \"{}\" {what} is not supported", kind.resource(), item.name));
    }
    let object = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return refused(c, &v),
    };
    let paused = object["spec"]["paused"] == true;
    if paused == on {
        let what = if on { "already paused" } else { "not paused" };
        return c.fail(1, &format!("error: {} \"{}\" is {what}", kind.resource(), item.name));
    }
    let body = json!({"spec": {"paused": if on { json!(true) } else { Value::Null }}});
    patch(c, at, w, item, (Form::Strategic, &body), if on { "paused" } else { "resumed" }).await
}

async fn patch(c: &mut Call, at: &At, w: &Words, item: &Item, (form, body): (Form, &Value), done: &str) -> i32 {
    let Some(dry) = Dry::of(w) else { return c.fail(1, "error: invalid dry-run value") };
    let (path, query) = (item.path(), format!("fieldManager=kubectl-rollout{}", dry.query()));
    match (Change { method: Method::PATCH, path: &path, query: &query, form, body }).send(c, at).await {
        Ok(after) => {
            said(c, w, item, done, dry, &after);
            0
        }
        Err(v) => refused(c, &v),
    }
}
