//! `kubectl label`, `annotate`, `taint`, `cordon`, `uncordon`, `scale`, `patch` and `set image`.
use http::Method;
use serde_json::{Map, Value, json};

use super::super::Call;
use super::items::{Item, named};
use super::output::{Dry, said, speaks};
use super::request::{At, Change, Form, refused};
use super::settings;
use super::words::Words;

const SELECT: &str = "selector/l= all all-namespaces/A output/o= dry-run overwrite";

/// A patch, and how kubectl tells of it.
pub(super) struct Patch<'a> {
    pub form: Form,
    pub body: &'a Value,
    /// What it says when something changed, and when nothing did.
    pub done: [&'a str; 2],
    /// The name that the fields are written under.
    pub by: &'a str,
}

/// Sends a patch and says what became of it; nothing changed is `same`.
pub(super) async fn patched(c: &mut Call, at: &At, w: &Words, item: &Item, p: Patch<'_>) -> i32 {
    let Some(dry) = Dry::of(w) else { return c.fail(1, "error: invalid dry-run value") };
    let before = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return refused(c, &v),
    };
    if dry == Dry::Client {
        said(c, w, item, p.done[0], dry, &before);
        return 0;
    }
    let path = item.path();
    let query = format!("fieldManager={}{}", p.by, dry.query());
    match (Change { method: Method::PATCH, path: &path, query: &query, form: p.form, body: p.body }).send(c, at).await {
        Ok(after) => {
            let same = after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"] && dry == Dry::No;
            said(c, w, item, p.done[usize::from(same)], dry, &after);
            0
        }
        Err(v) => refused(c, &v),
    }
}

/// A patch of one object, and the word for what it does.
pub(super) struct Made {
    pub body: Value,
    pub done: &'static str,
}

/// Reads the objects that words name, one after another, and patches each as `make` says (`None` leaves it alone). What
/// cannot be read, or made, ends the command; what the server refuses does not.
pub(super) async fn patch_each(
    c: &mut Call,
    at: &At,
    w: &Words,
    objects: &[String],
    by: &str,
    make: impl Fn(&mut Call, &Item, &Value) -> Result<Option<Made>, i32>,
) -> i32 {
    let items = match named(c, at, w, objects).await {
        Ok(items) => items,
        Err(code) => return code,
    };
    let mut code = 0;
    for item in items {
        let object = match item.read(c, at).await {
            Ok(v) => v,
            Err(v) => return refused(c, &v),
        };
        match make(c, &item, &object) {
            Ok(None) => {}
            Ok(Some(m)) => {
                let p = Patch { form: natural(&item), body: &m.body, done: [m.done; 2], by };
                code = code.max(patched(c, at, w, &item, p).await);
            }
            Err(code) => return code,
        }
    }
    code
}

/// Patch of a custom kind: it has no strategic one.
pub(super) fn natural(item: &Item) -> Form {
    if item.kind.custom { Form::Merge } else { Form::Strategic }
}

/// `label` and `annotate`.
pub(super) async fn marks(c: &mut Call, at: &At, words: &[String], field: &str) -> Option<i32> {
    let w = Words::read(words, SELECT)?;
    if !speaks(&w) {
        return None;
    }
    let is_change = |t: &&String| t.contains('=') || t.ends_with('-');
    let at_change = w.bare.iter().position(|t| is_change(&t)).unwrap_or(w.bare.len());
    let (objects, changes) = w.bare.split_at(at_change);
    let one = field.trim_end_matches('s');
    if changes.is_empty() {
        let text = format!("error: at least one {one} update is required");
        return Some(c.fail(1, &text));
    }
    let items = match named(c, at, &w, objects).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let mut code = 0;
    for item in items {
        code = code.max(mark(c, at, &w, &item, field, changes).await);
    }
    Some(code)
}

async fn mark(c: &mut Call, at: &At, w: &Words, item: &Item, field: &str, changes: &[String]) -> i32 {
    let have = match item.read(c, at).await {
        Ok(v) => v["metadata"][field].clone(),
        Err(v) => return refused(c, &v),
    };
    let (mut patch, mut removed) = (Map::new(), 0);
    for change in changes {
        match change.split_once('=') {
            Some((k, v)) => {
                let old = have[k].as_str();
                if old.is_some_and(|o| o != v) && !w.on("overwrite") {
                    let has = format!("'{k}' already has a value ({})", old.unwrap_or_default());
                    let text = match field {
                        "labels" => format!("error: {has}, and --overwrite is false"),
                        _ => {
                            format!("error: --overwrite is false but found the following declared annotation(s): {has}")
                        }
                    };
                    return c.fail(1, &text);
                }
                patch.insert(k.to_owned(), v.into());
            }
            None => {
                let key = change.trim_end_matches('-');
                if have[key].is_null() && field == "labels" {
                    c.line(&format!("label \"{key}\" not found."));
                }
                removed += 1;
                patch.insert(key.to_owned(), Value::Null);
            }
        }
    }
    let done = match field {
        "labels" if removed == changes.len() => ["unlabeled", "not labeled"],
        "labels" => ["labeled", "not labeled"],
        _ => ["annotated", "annotated"],
    };
    let by = if field == "labels" { "kubectl-label" } else { "kubectl-annotate" };
    patched(c, at, w, item, Patch { form: Form::Merge, body: &json!({"metadata": {field: patch}}), done, by }).await
}

/// Key, value, effect, and whether it goes.
type Taint = (String, String, String, bool);

/// A taint of the words.
fn taint_of(text: &str) -> Option<Taint> {
    let (text, gone) = text.strip_suffix('-').map_or((text, false), |t| (t, true));
    let (pair, effect) = text.split_once(':').map_or((text, ""), |(p, e)| (p, e));
    let (key, value) = pair.split_once('=').map_or((pair, ""), |(k, v)| (k, v));
    let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") || gone && effect.is_empty();
    known.then(|| (key.to_owned(), value.to_owned(), effect.to_owned(), gone))
}

/// `taint`.
pub(super) async fn taint(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, SELECT)?;
    let is_change = |t: &String| t.contains('=') || t.contains(':') || t.ends_with('-');
    let split = w.bare.iter().skip(1).position(is_change).map_or(w.bare.len(), |i| i + 1);
    let (objects, words) = w.bare.split_at(split);
    if words.is_empty() {
        return Some(c.fail(1, "error: at least one taint update is required"));
    }
    let mut changes = Vec::new();
    for word in words {
        let Some(change) = taint_of(word) else {
            let text = match word.split_once(':') {
                Some((_, effect)) => {
                    format!("error: invalid taint effect: {}, unsupported taint effect", effect.trim_end_matches('-'))
                }
                None => format!("error: invalid taint spec: {word}"),
            };
            return Some(c.fail(1, &format!("{text}\nSee 'kubectl taint -h' for help and examples")));
        };
        changes.push(change);
    }
    let make = |c: &mut Call, item: &Item, node: &Value| tainted(c, &w, item, node, &changes).map(Some);
    Some(patch_each(c, at, &w, objects, "kubectl-taint", make).await)
}

/// The taints that a node has afterwards.
fn tainted(c: &mut Call, w: &Words, item: &Item, node: &Value, changes: &[Taint]) -> Result<Made, i32> {
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let (mut there, mut added) = (false, false);
    for (key, value, effect, gone) in changes {
        let same = |t: &Value| t["key"] == key.as_str() && (effect.is_empty() || t["effect"] == effect.as_str());
        let known = taints.iter().any(same);
        if *gone && !known {
            let what = if effect.is_empty() { key.clone() } else { format!("{key}:{effect}") };
            return Err(c.fail(1, &format!("error: taint \"{what}\" not found")));
        }
        if !gone && known && !w.on("overwrite") {
            let has = format!("already has {key} taint(s) with same effect(s)");
            return Err(c.fail(1, &format!("error: node {} {has} and --overwrite is false", item.name)));
        }
        there |= known;
        taints.retain(|t| !same(t));
        if !gone {
            added = true;
            let mut t = json!({"effect": effect, "key": key});
            if !value.is_empty() {
                t["value"] = value.clone().into();
            }
            taints.push(t);
        }
    }
    let what = match (added, there) {
        (false, _) => "untainted",
        (true, true) => "modified",
        (true, false) => "tainted",
    };
    let list = if taints.is_empty() { Value::Null } else { taints.into() };
    Ok(Made { body: json!({"spec": {"taints": list}}), done: what })
}

/// The nodes that words name, with or without their kind.
pub(super) async fn nodes(c: &mut Call, at: &At, w: &Words) -> Result<Vec<Item>, i32> {
    let names = w.bare.iter().map(|n| n.rsplit('/').next().unwrap_or(n).to_owned());
    let words: Vec<String> = std::iter::once("nodes".to_owned()).chain(names).collect();
    named(c, at, w, &words).await
}

/// `cordon` and `uncordon`.
pub(super) async fn cordon(c: &mut Call, at: &At, words: &[String], on: bool) -> Option<i32> {
    let w = Words::read(words, SELECT)?;
    let items = match nodes(c, at, &w).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let mut code = 0;
    for item in items {
        code = code.max(cordon_one(c, at, &w, &item, on).await);
    }
    Some(code)
}

/// Lets a node take pods, or no more.
pub(super) async fn cordon_one(c: &mut Call, at: &At, w: &Words, item: &Item, on: bool) -> i32 {
    let body = json!({"spec": {"unschedulable": if on { json!(true) } else { Value::Null }}});
    let words = if on { ["cordoned", "already cordoned"] } else { ["uncordoned", "already uncordoned"] };
    patched(c, at, w, item, Patch { form: Form::Strategic, body: &body, done: words, by: "kubectl" }).await
}

/// `scale`.
pub(super) async fn scale(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "selector/l= all all-namespaces/A output/o= dry-run replicas=")?;
    let Some(count) = w.value("replicas").and_then(|r| r.parse::<u32>().ok()) else {
        let text = match w.value("replicas") {
            None => "error: required flag(s) \"replicas\" not set".to_owned(),
            Some(r) => format!(
                "error: invalid argument \"{r}\" for \"--replicas\" flag: strconv.ParseInt: parsing \"{r}\": invalid syntax\nSee 'kubectl scale --help' for usage."
            ),
        };
        return Some(c.fail(1, &text));
    };
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let dry = Dry::of(&w)?;
    let mut code = 0;
    for item in items {
        let (path, body) = (format!("{}/scale", item.path()), json!({"spec": {"replicas": count}}));
        let query = format!("fieldManager=kubectl-scale{}", dry.query());
        let sent = Change { method: Method::PATCH, path: &path, query: &query, form: Form::Merge, body: &body };
        match if dry == Dry::Client { item.read(c, at).await } else { sent.send(c, at).await } {
            Ok(after) => said(c, &w, &item, "scaled", dry, &after),
            Err(v) => code = refused(c, &v),
        }
    }
    Some(code)
}

/// `patch`.
pub(super) async fn patch(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "patch/p= type= output/o= dry-run subresource=")?;
    if !speaks(&w) || w.value("subresource").is_some() {
        return None;
    }
    let Some(text) = w.value("patch") else {
        return Some(c.fail(1, "error: must specify --patch or --patch-file containing the contents of the patch"));
    };
    let read = serde_json::from_str(text).ok().or_else(|| serde_saphyr::from_str::<Value>(text).ok());
    let Some(body) = read else {
        let text = format!("error: unable to parse \"{text}\": yaml: did not find expected node content");
        return Some(c.fail(1, &text));
    };
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let form = match w.value("type") {
        None | Some("strategic") => Form::Strategic,
        Some("merge") => Form::Merge,
        Some("json") => Form::Operations,
        Some(other) => {
            let text = format!("error: --type must be one of [json merge strategic], not \"{other}\"");
            return Some(c.fail(1, &text));
        }
    };
    let mut code = 0;
    for item in items {
        code = code.max(
            patched(
                c,
                at,
                &w,
                &item,
                Patch { form, body: &body, done: ["patched", "patched (no change)"], by: "kubectl-patch" },
            )
            .await,
        );
    }
    Some(code)
}

/// `set image TYPE/NAME CONTAINER=IMAGE…`.
pub(super) async fn set(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let (what, words) = words.split_first()?;
    match what.as_str() {
        "image" => {}
        "env" => return settings::env(c, at, words).await,
        "resources" => return settings::resources(c, at, words).await,
        _ => return None,
    }
    let w = Words::read(words, SELECT)?;
    let split = w.bare.iter().position(|t| t.contains('=')).unwrap_or(w.bare.len());
    let (objects, images) = w.bare.split_at(split);
    if images.is_empty() {
        return Some(c.fail(1, "error: at least one image update is required"));
    }
    let make = |c: &mut Call, item: &Item, object: &Value| {
        let there = settings::meant(object, item, &w);
        let mut list = Vec::new();
        for (name, image) in images.iter().filter_map(|i| i.split_once('=')) {
            let meant: Vec<&Value> = there.iter().filter(|x| name == "*" || x["name"] == name).collect();
            if meant.is_empty() {
                return Err(c.fail(1, &format!("error: unable to find container named \"{name}\"")));
            }
            list.extend(meant.iter().map(|x| json!({"name": x["name"], "image": image})));
        }
        Ok(Some(Made { body: settings::body(item, list), done: "image updated" }))
    };
    Some(patch_each(c, at, &w, objects, "kubectl-set", make).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read() {
        let t = |text: &str| taint_of(text);
        let own = |k: &str, v: &str, e: &str, gone| Some((k.to_owned(), v.to_owned(), e.to_owned(), gone));
        assert_eq!(t("a=b:NoSchedule"), own("a", "b", "NoSchedule", false));
        assert_eq!(t("nvidia.com/gpu:NoExecute-"), own("nvidia.com/gpu", "", "NoExecute", true));
        assert_eq!(t("a-"), own("a", "", "", true));
        assert_eq!(t("a=b"), None);
        assert_eq!(t("a=b:Never"), None);
    }
}
