//! Hooks of a chart: Helm makes those of a moment one after the other by their weight, waits for each, and gives the
//! release up when one fails. Grade: source (pkg/action/hooks.go and pkg/kube of Helm).
use serde_json::{Value, json};

use super::super::charts::Chart;
use super::super::cx::{Cx, is_true, key, resource_of};
use super::super::text::{arr, s};

/// How far the hooks of a moment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All of them have ended well.
    Done,
    /// One of them runs.
    Wait,
    /// One of them failed, in Helm's words.
    Failed(String),
}

/// The hooks of a moment, by weight, then by kind and name.
fn due<'a>(c: &'a Chart, event: &str) -> Vec<&'a Value> {
    let weight = |o: &Value| s(o, "/metadata/annotations/helm.sh~1hook-weight").parse::<i64>().unwrap_or_default();
    let mut all: Vec<&Value> =
        c.hooks.iter().filter(|h| h.events.iter().any(|e| e == event)).map(|h| &h.object).collect();
    all.sort_by_key(|o| (weight(o), s(o, "/kind").to_owned(), s(o, "/metadata/name").to_owned()));
    all
}

/// What an object that is waited for has come to.
fn outcome(o: &Value) -> Step {
    let name = s(o, "/metadata/name");
    match s(o, "/kind") {
        "Job" if is_true(o, "Complete") => Step::Done,
        "Job" => match arr(o, "/status/conditions").iter().find(|c| c["type"] == "Failed" && c["status"] == "True") {
            Some(c) => Step::Failed(format!("job {name} failed: {}", s(c, "/reason"))),
            None => Step::Wait,
        },
        "Pod" => match s(o, "/status/phase") {
            "Succeeded" => Step::Done,
            "Failed" => Step::Failed(format!("pod {name} failed")),
            _ => Step::Wait,
        },
        _ => Step::Done,
    }
}

/// Whether Helm deletes a hook when it has come to `what`.
fn goes(o: &Value, what: &str) -> bool {
    s(o, "/metadata/annotations/helm.sh~1hook-delete-policy").split(',').any(|p| p.trim() == what)
}

/// Makes the hooks of a moment as far as it can. `place` is where the run that asks keeps how far it is.
pub fn step(cx: &mut Cx, ns: &str, c: &Chart, event: &str, place: &str) -> Step {
    let all: Vec<Value> = due(c, event).into_iter().cloned().collect();
    let mark = format!("{place}/{event}");
    loop {
        let n = cx.c.apps.get(&mark).and_then(|m| m["at"].as_u64()).unwrap_or(0);
        let Some(mut o) = usize::try_from(n).ok().and_then(|i| all.get(i)).cloned() else { return Step::Done };
        if o["metadata"]["namespace"].is_null() && cx.namespaced(&o) {
            o["metadata"]["namespace"] = json!(ns);
        }
        let (at, name) = key(&o);
        let resource = resource_of(&o);
        let made = cx.c.apps.get(&mark).is_some_and(|m| m["made"] == true);
        if !made {
            // one of an earlier run goes first
            if cx.get(&resource, &at, &name).is_some() {
                cx.delete(&resource, &at, &name);
                if cx.get(&resource, &at, &name).is_some() {
                    return Step::Wait;
                }
            }
            let object = o.clone();
            cx.writing("helm", |cx| cx.create(object));
            cx.c.apps.insert(mark.clone(), json!({"at": n, "made": true}));
        }
        let live = cx.get(&resource, &at, &name).cloned().unwrap_or_default();
        match outcome(if live.is_null() { &o } else { &live }) {
            Step::Done => {
                if goes(&o, "hook-succeeded") {
                    cx.delete(&resource, &at, &name);
                }
                cx.c.apps.insert(mark.clone(), json!({"at": n + 1, "made": false}));
            }
            Step::Wait => return Step::Wait,
            Step::Failed(why) => {
                if goes(&o, "hook-failed") {
                    cx.delete(&resource, &at, &name);
                }
                return Step::Failed(failure(event, &why));
            }
        }
    }
}

/// Forgets how far a run was.
pub fn forget(cx: &mut Cx, place: &str) {
    let own = format!("{place}/");
    cx.c.apps.retain(|k, _| !k.starts_with(&own));
}

/// Helm's words for a hook that failed.
fn failure(event: &str, why: &str) -> String {
    let (verb, what) = match event {
        "pre-upgrade" | "post-upgrade" => ("UPGRADE", format!("{event} hooks failed")),
        _ => ("INSTALLATION", format!("failed {event}")),
    };
    format!("Error: {verb} FAILED: {what}: 1 error occurred:\n\t* {why}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_go_by_weight_and_end_as_their_objects_do() {
        let hook = |name: &str, weight: &str| crate::kube::charts::Hook {
            path: String::new(),
            text: String::new(),
            events: vec!["pre-install".to_owned()],
            object: json!({"kind": "Job", "metadata": {"name": name, "annotations": {"helm.sh/hook-weight": weight}}}),
        };
        let c = Chart { hooks: vec![hook("b", "1"), hook("a", "-5"), hook("c", "1")], ..Chart::default() };
        let names: Vec<&str> = due(&c, "pre-install").iter().map(|o| s(o, "/metadata/name")).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(due(&c, "post-install").is_empty());
        let failed = json!({"kind": "Job", "metadata": {"name": "a"}, "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}});
        assert_eq!(outcome(&failed), Step::Failed("job a failed: BackoffLimitExceeded".to_owned()));
        assert_eq!(outcome(&json!({"kind": "ConfigMap"})), Step::Done);
        assert!(failure("pre-upgrade", "x").starts_with("Error: UPGRADE FAILED: pre-upgrade hooks failed: 1 error"));
    }
}
