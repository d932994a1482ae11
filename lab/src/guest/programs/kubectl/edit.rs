//! `kubectl edit`: the editor of the shell's environment on a file of the machine. Grade: source.
use http::Method;
use serde_json::Value;

use super::super::Call;
use super::change::natural;
use super::items::{Item, named};
use super::output::{Dry, object, said, speaks};
use super::request::{At, Change, refusal, refused};
use super::words::Words;
use crate::guest::shell::{Job, run_to_end};
use crate::kube::schema::node::Node;
use crate::kube::store::threeway;

const HEAD: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// Runs it; `None` for several objects at once.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "output/o= selector/l= save-config").filter(speaks)?;
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let [item] = &items[..] else { return None };
    let mut before = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    if let Some(m) = before["metadata"].as_object_mut() {
        m.shift_remove("managedFields");
    }
    let text = format!("{HEAD}{}\n", object("yaml", &before)?);
    let path = format!("/tmp/kubectl-edit-{}.yaml", c.m.lab.clock().now_ms() % 1_000_000_000);
    let after = match edited(c, &path, &text).await {
        Ok(after) => after,
        Err(code) => return Some(code),
    };
    let bare: String = after.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    if after == text || bare.trim().is_empty() {
        forget(c, &path);
        let why = if after == text { "no changes made" } else { "saved file was empty" };
        c.complain(&format!("Edit cancelled, {why}."));
        return Some(0);
    }
    let Ok(wanted) = serde_saphyr::from_str::<Value>(&bare) else {
        return Some(kept(c, &path, "error: the edited file had a syntax error"));
    };
    Some(save(c, at, &w, item, &before, &wanted, &path).await)
}

/// What the editor made of the file.
async fn edited(c: &mut Call, path: &str, text: &str) -> Result<String, i32> {
    let set = |name: &str| c.env.get(name).filter(|v| !v.is_empty()).cloned();
    let editor = set("KUBE_EDITOR").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    if c.m.files.write(&c.who.clone(), path, text.as_bytes(), false, 0o600).is_err() {
        return Err(c.fail(1, &format!("error: open {path}: permission denied")));
    }
    let job = Job {
        cwd: Some(c.cwd.clone()),
        depth: c.depth + 1,
        tty: c.tty,
        ..Job::of(c.who.clone(), &format!("{editor} {path}"))
    };
    let ended = run_to_end(c.m.clone(), job).await;
    c.print(&String::from_utf8_lossy(&ended.out));
    if !ended.err.is_empty() {
        c.complain(String::from_utf8_lossy(&ended.err).trim_end());
    }
    if ended.code != 0 {
        forget(c, path);
        return Err(c.fail(1, &format!("error: there was a problem with the editor \"{editor}\"")));
    }
    let read = c.m.files.read(&c.who.clone(), path).ok();
    Ok(read.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default())
}

fn forget(c: &mut Call, path: &str) {
    let _ = c.m.files.remove(&c.who.clone(), path, false);
}

/// The edit is not taken, and its file stays.
fn kept(c: &mut Call, path: &str, why: &str) -> i32 {
    c.complain(&format!("{why}\nA copy of your changes has been stored to \"{path}\""));
    c.fail(1, "error: Edit cancelled, no valid changes were saved.")
}

async fn save(c: &mut Call, at: &At, w: &Words, item: &Item, before: &Value, wanted: &Value, path: &str) -> i32 {
    if wanted["metadata"]["name"] != before["metadata"]["name"] || wanted["kind"] != before["kind"] {
        return kept(c, path, "error: At least one of apiVersion, kind and name was changed");
    }
    let node = (!item.kind.custom).then(|| Node::of(&item.kind));
    let patch = threeway::patch(node, before, wanted, before);
    if patch.is_empty() {
        forget(c, path);
        said(c, w, item, "skipped", Dry::No, before);
        return 0;
    }
    let (own, body) = (item.path(), Value::Object(patch));
    let sent = Change {
        method: Method::PATCH,
        path: &own,
        query: "fieldManager=kubectl-edit",
        form: natural(item),
        body: &body,
    };
    match sent.send(c, at).await {
        Ok(after) => {
            forget(c, path);
            said(c, w, item, "edited", Dry::No, &after);
            0
        }
        Err(v) => {
            let why = refusal(&v, "");
            kept(c, path, &why)
        }
    }
}
