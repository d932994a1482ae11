//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had.
use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref};
use super::super::text::{arr, s};

const REVISIONS: &str = "controllerrevisions.apps";

fn of<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    let owned = |r: &&Value| arr(r, "/metadata/ownerReferences").iter().any(|o| s(o, "/uid") == uid);
    cx.list_in(REVISIONS, ns).into_iter().filter(owned).collect()
}

/// The present template of `set` is its newest revision, under the name `name`; a label tells its hash.
pub fn ensure(cx: &mut Cx, set: &Value, ns: &str, name: &str, (label, hash): (&str, &str)) {
    let uid = s(set, "/metadata/uid").to_owned();
    let number = |r: &Value| r["revision"].as_i64().unwrap_or(0);
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
    let mut t = cx.get(REVISIONS, ns, name)?["data"]["spec"]["template"].clone();
    t.as_object_mut()?.shift_remove("$patch");
    Some(t)
}
