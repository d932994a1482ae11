//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had.
use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref};
use super::super::text::{s, template_hash};

const REVISIONS: &str = "controllerrevisions.apps";

fn of<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    cx.c.store.owned(REVISIONS, ns, uid)
}

fn number(r: &Value) -> i64 {
    r["revision"].as_i64().unwrap_or(0)
}

/// The hash of a set's template: that of its newest revision with this template, else a new one.
#[must_use]
pub fn hash(cx: &Cx, set: &Value) -> String {
    let (prefix, wanted) = (format!("{}-", s(set, "/metadata/name")), &set["spec"]["template"]);
    let mine = of(cx, s(set, "/metadata/namespace"), s(set, "/metadata/uid")).into_iter();
    let same = mine.filter(|r| kept(r).as_ref() == Some(wanted)).max_by_key(|r| number(r));
    let known = same.and_then(|r| s(r, "/metadata/name").strip_prefix(&prefix)).map(str::to_owned);
    known.unwrap_or_else(|| template_hash(wanted))
}

/// The present template of `set` is its newest revision, under the name `name`; a label tells its hash.
pub fn ensure(cx: &mut Cx, set: &Value, ns: &str, name: &str, (label, hash): (&str, &str)) {
    let uid = s(set, "/metadata/uid").to_owned();
    let highest =
        of(cx, ns, &uid).into_iter().filter(|r| s(r, "/metadata/name") != name).map(number).max().unwrap_or(0);
    if let Some(have) = cx.get(REVISIONS, ns, name).map(number) {
        if have <= highest {
            cx.update(REVISIONS, ns, name, |r| r["revision"] = json!(highest + 1));
        }
        return;
    }
    let mut template = set["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
    labels[label] = json!(hash);
    let notes = set["metadata"]["annotations"].clone();
    cx.create(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": ns, "labels": labels, "annotations": notes, "ownerReferences": owner_ref(set)},
        "data": {"spec": {"template": template}}, "revision": highest + 1}));
    let limit = set["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    let mut old: Vec<(i64, String)> = of(cx, ns, &uid)
        .into_iter()
        .filter(|r| s(r, "/metadata/name") != name)
        .map(|r| (number(r), s(r, "/metadata/name").to_owned()))
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(10));
    old[..surplus].iter().for_each(|(_, r)| cx.delete(REVISIONS, ns, r));
}

/// The template of a revision.
#[must_use]
pub fn template(cx: &Cx, ns: &str, name: &str) -> Option<Value> {
    kept(cx.get(REVISIONS, ns, name)?)
}

/// The template that a revision keeps.
fn kept(r: &Value) -> Option<Value> {
    let mut t = r["data"]["spec"]["template"].clone();
    t.as_object_mut()?.shift_remove("$patch");
    Some(t)
}
