//! `kubectl diff`: what an apply would change, by the server's own dry run. Grade: source.
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::apply::LAST;
use super::files::{Document, documents};
use super::items::{Item, kind_of, path_of};
use super::output::object;
use super::request::{At, Change, Form, refusal};
use super::unified::hunks;
use super::words::Words;
use crate::kube::schema::node::Node;
use crate::kube::store::threeway;
use crate::kube::text::sha256;

const OPTIONS: &str =
    "filename/f= recursive/R server-side force-conflicts field-manager= show-managed-fields selector/l=";

/// Exit code of an error: 1 says that something differs.
const FAILED: i32 = 2;

/// Runs it: 0 without a difference, 1 with one; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS).filter(|w| w.bare.is_empty() && w.value("selector").is_none())?;
    if w.value("filename").is_none() {
        return Some(c.fail(FAILED, "error: must specify one of -f and -k"));
    }
    let all = match documents(c, &w, true).await {
        Ok(all) => all?,
        Err(_) => return Some(FAILED),
    };
    let mut pairs = Vec::new();
    for d in &all {
        match compared(c, at, &w, d).await {
            Ok(pair) => pairs.push(pair),
            Err(text) => return Some(c.fail(FAILED, &text)),
        }
    }
    pairs.sort();
    // Folders of one run, as good as the random ones of the real client.
    let now = c.m.lab.clock().now_ms();
    let folder =
        |of: &str| format!("/tmp/{of}-{}", u32::from_str_radix(&sha256(&format!("{of}{now}"))[..8], 16).unwrap_or(1));
    let (live, merged) = (folder("LIVE"), folder("MERGED"));
    let stamp = crate::guest::programs::show_date("%Y-%m-%d %H:%M:%S", now / 1000, 0);
    let mut code = 0;
    for (name, before, after) in pairs {
        let text = hunks(&before, &after);
        if text.is_empty() {
            continue;
        }
        code = 1;
        let (a, b) = (format!("{live}/{name}"), format!("{merged}/{name}"));
        c.line(&format!("diff -u -N {a} {b}\n--- {a}\t{stamp}.000000000 +0000\n+++ {b}\t{stamp}.000000000 +0000"));
        c.print(&text);
    }
    Some(code)
}

/// The name of an object's file, what it is, and what it would be.
async fn compared(c: &mut Call, at: &At, w: &Words, d: &Document) -> Result<(String, String, String), String> {
    let meta = &d.object["metadata"];
    let kind = kind_of(c, at, &d.object).ok_or_else(|| d.unmapped())?;
    let ns = meta["namespace"].as_str().map_or_else(|| w.namespace(), str::to_owned);
    let item = Item::new(kind, &ns, meta["name"].as_str().unwrap_or_default());
    let mut wanted = d.object.clone();
    if let Some(ns) = &item.namespace {
        wanted["metadata"]["namespace"] = ns.clone().into();
    }
    // As kubectl notes it: what is not there is empty.
    if !w.on("server-side") && wanted["metadata"]["annotations"].is_null() {
        wanted["metadata"]["annotations"] = json!({});
    }
    let mut live = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) if v["code"] == 404 => Value::Null,
        Err(v) => return Err(refusal(&v, "")),
    };
    let mut merged = merged(c, at, w, &item, &wanted, &live).await.map_err(|v| refusal(&v, ""))?;
    for v in [&mut live, &mut merged] {
        if let Some(m) = v.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| !w.on("show-managed-fields")) {
            m.shift_remove("managedFields");
        }
    }
    if item.kind.kind == "Secret" {
        hide(&mut live, &mut merged);
    }
    let k = &item.kind;
    let group = if k.group.is_empty() { String::new() } else { format!("{}.", k.group) };
    let name =
        format!("{group}{}.{}.{}.{}", k.version, k.kind, item.namespace.as_deref().unwrap_or_default(), item.name);
    let text = |v: &Value| if v.is_null() { String::new() } else { object("yaml", v).unwrap_or_default() };
    Ok((name, text(&live), text(&merged)))
}

/// The object that the server would have.
async fn merged(c: &mut Call, at: &At, w: &Words, item: &Item, wanted: &Value, live: &Value) -> Result<Value, Value> {
    let manager =
        w.value("field-manager").unwrap_or(if w.on("server-side") { "kubectl" } else { "kubectl-client-side-apply" });
    let query = format!("dryRun=All&fieldManager={manager}&force={}", w.on("force-conflicts"));
    let own = item.path();
    if w.on("server-side") {
        return (Change { method: Method::PATCH, path: &own, query: &query, form: Form::Apply, body: wanted })
            .send(c, at)
            .await;
    }
    let query = format!("dryRun=All&fieldManager={manager}");
    if live.is_null() {
        let path = path_of(&item.kind, item.namespace.as_deref());
        return (Change { method: Method::POST, path: &path, query: &query, form: Form::Plain, body: wanted })
            .send(c, at)
            .await;
    }
    let text = live["metadata"]["annotations"][LAST].as_str().unwrap_or_default();
    let last: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let node = (!item.kind.custom).then(|| Node::of(&item.kind));
    let patch = threeway::patch(node, &last, wanted, live);
    if patch.is_empty() {
        return Ok(live.clone());
    }
    let form = if item.kind.custom { Form::Merge } else { Form::Strategic };
    let body = Value::Object(patch);
    (Change { method: Method::PATCH, path: &own, query: &query, form, body: &body }).send(c, at).await
}

/// Puts marks in the place of what a Secret holds.
fn hide(live: &mut Value, merged: &mut Value) {
    let keys: Vec<String> = [&*live, &*merged]
        .iter()
        .flat_map(|v| v["data"].as_object().into_iter().flatten().map(|(k, _)| k.clone()))
        .collect();
    for key in keys {
        let differ = live["data"][&key] != merged["data"][&key];
        for (v, when) in [(&mut *live, " (before)"), (&mut *merged, " (after)")] {
            if let Some(held) = v
                .get_mut("data")
                .and_then(|d| d.get_mut(&key))
                .filter(|h| !h.as_str().is_some_and(|t| t.starts_with("***")))
            {
                *held = json!(format!("***{}", if differ { when } else { "" }));
            }
        }
    }
}
