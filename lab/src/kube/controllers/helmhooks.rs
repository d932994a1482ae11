//! Hooks of a chart: Helm makes those of a moment one after the other by their weight, waits for each, and gives the
//! release up when one fails. Grade: source (pkg/action/hooks.go and pkg/kube of Helm).
use serde_json::{Value, json};

use super::super::charts::{Chart, Hook};
use super::super::cx::{Cx, is_true, key, resource_of};
use super::super::text::{arr, s};
use super::helmapply;

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

/// The hooks of a moment, by weight, then by name.
fn due<'a>(c: &'a Chart, event: &str) -> Vec<&'a Hook> {
    let weight = |o: &Value| s(o, "/metadata/annotations/helm.sh~1hook-weight").parse::<i64>().unwrap_or_default();
    let mut all: Vec<&Hook> = c.hooks.iter().filter(|h| h.events.iter().any(|e| e == event)).collect();
    all.sort_by_key(|h| (weight(&h.object), s(&h.object, "/metadata/name").to_owned()));
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

/// Whether Helm deletes a hook when it has come to `what`; a definition it never deletes.
fn goes(o: &Value, what: &str) -> bool {
    let policy = match s(o, "/metadata/annotations/helm.sh~1hook-delete-policy") {
        "" => "before-hook-creation",
        p => p,
    };
    s(o, "/kind") != "CustomResourceDefinition" && policy.split(',').any(|p| p.trim() == what)
}

/// Deletes a hook's object if it goes when it has come to `what`.
fn clear(cx: &mut Cx, o: &Value, what: &str) {
    if goes(o, what) {
        let (at, name) = key(o);
        cx.delete(&resource_of(o), &at, &name);
    }
}

/// Makes the hooks of a moment as far as it can. `place` is where the run that asks keeps how far it is.
pub fn step(cx: &mut Cx, ns: &str, c: &Chart, event: &str, place: &str) -> Step {
    let mut all: Vec<Hook> = due(c, event).into_iter().cloned().collect();
    for o in all.iter_mut().map(|h| &mut h.object) {
        if o["metadata"]["namespace"].is_null() && cx.namespaced(o) {
            o["metadata"]["namespace"] = json!(ns);
        }
    }
    let mark = format!("{place}/{event}");
    loop {
        let n = cx.c.apps.get(&mark).and_then(|m| m["at"].as_u64()).unwrap_or(0);
        let i = usize::try_from(n).unwrap_or(usize::MAX);
        let Some(hook) = all.get(i) else {
            if cx.c.apps.get(&mark).is_some_and(|m| m["cleared"] != true) {
                all.iter().for_each(|h| clear(cx, &h.object, "hook-succeeded"));
                cx.c.apps.insert(mark, json!({"at": n, "cleared": true}));
            }
            return Step::Done;
        };
        let o = &hook.object;
        if cx.c.apps.get(&mark).is_none_or(|m| m["made"] != true) {
            match make(cx, o) {
                Ok(true) => {}
                Ok(false) => return Step::Wait,
                Err(e) => {
                    let why = format!("warning: Hook {event} {} failed: {}", hook.path, one_error(&e));
                    return Step::Failed(failure(event, &why));
                }
            }
            cx.c.apps.insert(mark.clone(), json!({"at": n, "made": true}));
        }
        let (at, name) = key(o);
        // one that somebody deletes is no longer waited for
        match cx.get(&resource_of(o), &at, &name).map_or(Step::Done, outcome) {
            Step::Done => drop(cx.c.apps.insert(mark.clone(), json!({"at": n + 1, "made": false}))),
            Step::Wait => return Step::Wait,
            Step::Failed(why) => {
                clear(cx, o, "hook-failed");
                all[..i].iter().for_each(|h| clear(cx, &h.object, "hook-succeeded"));
                return Step::Failed(failure(event, &one_error(&why)));
            }
        }
    }
}

/// Makes a hook's object; one of an earlier run goes first, if its policy says so. Says whether it is made.
fn make(cx: &mut Cx, o: &Value) -> Result<bool, String> {
    let (at, name) = key(o);
    let resource = resource_of(o);
    clear(cx, o, "before-hook-creation");
    match cx.get(&resource, &at, &name).is_some() {
        true if goes(o, "before-hook-creation") => Ok(false),
        true => Err(format!("{resource} \"{name}\" already exists")),
        false => helmapply::write(cx, "helm", None, o).map(|()| true),
    }
}

/// Forgets how far a run was.
pub fn forget(cx: &mut Cx, place: &str) {
    let own = format!("{place}/");
    cx.c.apps.retain(|k, _| !k.starts_with(&own));
}

/// How Helm lists what went wrong.
fn one_error(why: &str) -> String {
    format!("1 error occurred:\n\t* {why}\n\n")
}

/// Helm's words for a release whose hook failed.
fn failure(event: &str, why: &str) -> String {
    let (verb, what) = match event {
        "pre-upgrade" | "post-upgrade" => ("UPGRADE", format!("{event} hooks failed")),
        _ => ("INSTALLATION", format!("failed {event}")),
    };
    format!("Error: {verb} FAILED: {what}: {why}")
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
        let names: Vec<&str> = due(&c, "pre-install").iter().map(|h| s(&h.object, "/metadata/name")).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(due(&c, "post-install").is_empty());
        let failed = json!({"kind": "Job", "metadata": {"name": "a"}, "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}});
        assert_eq!(outcome(&failed), Step::Failed("job a failed: BackoffLimitExceeded".to_owned()));
        assert_eq!(outcome(&json!({"kind": "ConfigMap"})), Step::Done);
        let kept = json!({"metadata": {"annotations": {"helm.sh/hook-delete-policy": "hook-succeeded, hook-failed"}}});
        assert!(goes(&kept, "hook-failed") && !goes(&kept, "before-hook-creation"));
        assert!(goes(&failed, "before-hook-creation") && !goes(&failed, "hook-succeeded"));
        assert!(
            failure("pre-upgrade", &one_error("x"))
                .starts_with("Error: UPGRADE FAILED: pre-upgrade hooks failed: 1 error")
        );
    }
}
