//! The objects that a command is about: named by words, selected, or read from files.
use std::sync::Arc;

use serde_json::Value;

use super::super::Call;
use super::request::{At, JSON, ask, refused};
use super::words::Words;
use crate::kube::schema::Kind;

/// An object by its kind and name.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Its kind.
    pub kind: Arc<Kind>,
    /// Its namespace, for kinds that live in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Item {
    pub fn new(kind: Arc<Kind>, namespace: &str, name: &str) -> Item {
        let namespace = kind.namespaced.then(|| namespace.to_owned());
        Item { kind, namespace, name: name.to_owned() }
    }

    /// Where it is on the server.
    pub fn path(&self) -> String {
        format!("{}/{}", path_of(&self.kind, self.namespace.as_deref()), self.name)
    }

    /// `deployment.apps`
    pub fn typed(&self) -> String {
        typed(&self.kind)
    }

    /// `deployment.apps/web`
    pub fn shown(&self) -> String {
        format!("{}/{}", self.typed(), self.name)
    }

    /// The object itself.
    pub async fn read(&self, c: &Call, at: &At) -> Result<Value, Value> {
        match ask(c, at, &self.path(), "", JSON).await {
            (200, v) => Ok(v),
            (_, v) => Err(v),
        }
    }
}

/// A kind as kubectl writes it before names.
pub(super) fn typed(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    format!("{}{group}", kind.singular)
}

/// The kind of a word: plural, singular, short name, with or without its group.
pub(super) fn kind(c: &Call, id: &str, word: &str) -> Option<Arc<Kind>> {
    let word = word.to_lowercase();
    c.m.lab.with(|w| {
        let store = &w.clusters.get(id)?.store;
        let named = |k: &&Arc<Kind>| {
            let mut own = [&k.plural, &k.singular].into_iter().chain(&k.short);
            own.any(|n| {
                *n == word || word == format!("{n}.{}", k.group) || word == format!("{n}.{}.{}", k.version, k.group)
            })
        };
        store.kinds().find(named).cloned()
    })
}

/// As [`kind`]; says so when there is none.
pub(super) fn must_know(c: &mut Call, at: &At, word: &str) -> Result<Arc<Kind>, i32> {
    kind(c, &at.0, word).ok_or_else(|| {
        let text = format!("error: the server doesn't have a resource type \"{word}\"");
        c.fail(1, &text)
    })
}

/// The kind of an object that was read.
pub(super) fn kind_of(c: &Call, at: &At, object: &Value) -> Option<Arc<Kind>> {
    c.m.lab.with(|w| {
        let store = &w.clusters.get(&at.0)?.store;
        store
            .kinds()
            .find(|k| object["kind"] == k.kind.as_str() && object["apiVersion"] == k.api_version().as_str())
            .cloned()
    })
}

pub(super) fn path_of(kind: &Kind, namespace: Option<&str>) -> String {
    let root =
        if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/{}", kind.group, kind.version) };
    match namespace {
        Some(ns) => format!("{root}/namespaces/{ns}/{}", kind.plural),
        None => format!("{root}/{}", kind.plural),
    }
}

pub(super) fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('=', "%3D").replace(',', "%2C").replace('&', "%26").replace(' ', "%20")
}

const NOTHING: &str = "error: You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'";

/// The objects that words name: `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE NAME…`, or `TYPE` with `-l` or `--all`.
pub(super) async fn named(c: &mut Call, at: &At, w: &Words, words: &[String]) -> Result<Vec<Item>, i32> {
    let ns = w.namespace();
    let Some(first) = words.first() else {
        return Err(c.fail(1, NOTHING));
    };
    let mut out = Vec::new();
    if first.contains('/') {
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                let text = "error: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'";
                return Err(c.fail(1, text));
            };
            out.push(Item::new(must_know(c, at, kind)?, &ns, name));
        }
        return Ok(out);
    }
    for word in first.split(',') {
        let kind = must_know(c, at, word)?;
        if words.len() > 1 {
            out.extend(words[1..].iter().map(|n| Item::new(kind.clone(), &ns, n)));
            continue;
        }
        if w.value("selector").is_none() && !w.on("all") {
            return Err(c.fail(1, "error: resource(s) were provided, but no name was specified"));
        }
        let within = (kind.namespaced && !w.on("all-namespaces")).then_some(ns.as_str());
        let query = format!("labelSelector={}", encoded(w.value("selector").unwrap_or_default()));
        match ask(c, at, &path_of(&kind, within), &query, JSON).await {
            (200, list) => out.extend(list["items"].as_array().into_iter().flatten().map(|o| {
                let meta = &o["metadata"];
                let text = |f: &str| meta[f].as_str().unwrap_or_default();
                Item::new(kind.clone(), text("namespace"), text("name"))
            })),
            (_, v) => return Err(refused(c, &v)),
        }
    }
    Ok(out)
}
