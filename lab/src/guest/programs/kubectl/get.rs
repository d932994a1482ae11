//! `kubectl get`: tables, and whole objects.
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Call;
use super::items::{encoded, must_know, path_of};
use super::request::{At, JSON, ask, fetch, refused};
use super::words::Words;
use super::{jsonpath, output, table};
use crate::kube::schema::Kind;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What the words of `kubectl get` and `describe` ask for.
#[derive(Clone)]
pub(super) struct Get {
    /// Words of kinds, each with the names that are meant; none: all of them.
    pub wanted: Vec<(String, Vec<String>)>,
    pub namespace: String,
    pub all: bool,
    pub output: String,
    pub selector: String,
    fields: String,
    pub headless: bool,
    pub labels: bool,
    /// Labels with a column of their own.
    pub columns: Vec<String>,
    lenient: bool,
    /// Path of the field that rows are sorted by.
    pub sorted_by: Option<String>,
    /// Whether what changes is shown as it changes.
    watch: bool,
    /// Whether objects are shown with who wrote what.
    managers: bool,
}

impl Get {
    /// `None` for a word that is not known here.
    pub fn read(words: &[String]) -> Option<Get> {
        let w = Words::read(
            words,
            "all-namespaces/A output/o= selector/l= field-selector= no-headers show-labels label-columns/L= ignore-not-found sort-by= watch/w show-managed-fields",
        )?;
        let text = |name: &str| w.value(name).unwrap_or_default().to_owned();
        let mut g = Get {
            wanted: Vec::new(),
            namespace: w.namespace(),
            all: w.on("all-namespaces"),
            output: text("output"),
            selector: text("selector"),
            fields: text("field-selector"),
            headless: w.on("no-headers"),
            labels: w.on("show-labels"),
            columns: w.all("label-columns").flat_map(|l| l.split(',')).map(str::to_owned).collect(),
            lenient: w.on("ignore-not-found"),
            sorted_by: w.value("sort-by").map(str::to_owned),
            watch: w.on("watch"),
            managers: w.on("show-managed-fields"),
        };
        for word in &w.bare {
            match (word.split_once('/'), &mut g.wanted[..]) {
                (Some((kind, name)), [.., last]) if last.0 == kind => last.1.push(name.to_owned()),
                (Some((kind, name)), _) => g.wanted.push((kind.to_owned(), vec![name.to_owned()])),
                (None, []) => g.wanted.extend(word.split(',').map(|k| (k.to_owned(), Vec::new()))),
                (None, all) => all.iter_mut().for_each(|k| k.1.push(word.clone())),
            }
        }
        let known = matches!(g.output.as_str(), "" | "wide" | "name" | "json" | "yaml");
        let made = g.output.starts_with("jsonpath=") || g.output.starts_with("custom-columns=");
        (known || made || g.unprintable()).then_some(g)
    }
}

/// The forms that the real one prints objects in.
const FORMS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,name,template,templatefile,wide,yaml";

impl Get {
    /// Whether nobody prints objects in that form.
    fn unprintable(&self) -> bool {
        let form = self.output.split('=').next().unwrap_or_default();
        !form.is_empty() && !FORMS.split(',').any(|f| f == form)
    }
}

/// The kinds that a word means, and whether it is a word for several of them (`all`).
fn kinds(c: &mut Call, at: &At, word: &str) -> Result<(Vec<Arc<Kind>>, bool), i32> {
    let of_category: Vec<Arc<Kind>> = c.m.lab.with(|w| {
        let store = w.clusters.get(&at.0).map(|k| &k.store);
        let all = store.into_iter().flat_map(|s| s.kinds());
        all.filter(|k| k.categories.iter().any(|x| x == word)).cloned().collect()
    });
    match must_kind(c, at, word, of_category.is_empty()) {
        Some(kind) => Ok((vec![kind?], false)),
        None => Ok((of_category, true)),
    }
}

/// The kind of a word; `None` when it may be something else and is no kind.
fn must_kind(c: &mut Call, at: &At, word: &str, must: bool) -> Option<Result<Arc<Kind>, i32>> {
    if must { Some(must_know(c, at, word)) } else { super::items::kind(c, &at.0, word).map(Ok) }
}

/// Runs `kubectl get`; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    if let Some(path) =
        Words::read(words, "raw=").filter(|w| w.bare.is_empty()).and_then(|w| w.value("raw").map(str::to_owned))
    {
        return Some(raw(c, at, &path).await);
    }
    let g = Get::read(words).filter(|g| !g.watch || g.wanted.len() == 1 && !g.output.contains('='))?;
    if g.wanted.is_empty() {
        return Some(c.fail(1, NOTHING));
    }
    if let Some(template) = g.output.strip_prefix("jsonpath=") {
        jsonpath::template(template, &Value::Null)?;
    }
    let whole = matches!(g.output.as_str(), "json" | "yaml") || g.output.contains('=') || g.unprintable();
    let (mut code, mut found, mut several) = (0, Vec::new(), false);
    for (word, names) in &g.wanted {
        let (of_word, category) = match kinds(c, at, word) {
            Ok(of_word) => of_word,
            Err(code) => return Some(code),
        };
        several |= category;
        for kind in of_word {
            let answers = one(c, at, &g, &kind, names, whole, &mut code).await;
            found.push((kind, answers));
        }
    }
    if g.unprintable() {
        let text = format!(
            "error: unable to match a printer suitable for the output format \"{}\", allowed formats are: {FORMS}",
            g.output
        );
        return Some(if code == 0 { c.fail(1, &text) } else { code });
    }
    if let Some(spec) = g.output.strip_prefix("custom-columns=") {
        let all: Vec<Value> = found.into_iter().flat_map(|f| f.1).flat_map(items).collect();
        if all.is_empty() && code != 0 {
            return Some(code);
        }
        return Some(table::custom(c, &g, spec, all).unwrap_or(code));
    }
    if whole {
        objects(c, &g, found.into_iter().flat_map(|f| f.1).collect());
        return Some(code);
    }
    let rows = |answers: &[Value]| answers.iter().any(|a| a["rows"].as_array().is_some_and(|r| !r.is_empty()));
    let spread = found.iter().any(|f| f.0.namespaced) && !g.all;
    let many = several || found.len() > 1;
    found.retain(|f| rows(&f.1));
    if found.is_empty() && code == 0 && !g.lenient && g.output != "name" {
        let wherein = if spread { format!(" in {} namespace", g.namespace) } else { String::new() };
        c.complain(&format!("No resources found{wherein}."));
    }
    for (i, (kind, answers)) in found.iter().enumerate() {
        if i > 0 && g.output != "name" {
            c.line("");
        }
        table::print(c, &g, kind, answers, many);
    }
    if let [(word, names)] = &g.wanted[..]
        && g.watch
        && code == 0
    {
        let kind = must_know(c, at, word).ok()?;
        follow(c, at, &g, &kind, names).await;
    }
    Some(code)
}

const NOTHING: &str = "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.

error: Required resource not specified.
Use \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).
See 'kubectl get -h' for help and examples";

/// The objects of one kind, as the server answers.
async fn one(c: &mut Call, at: &At, g: &Get, kind: &Kind, names: &[String], whole: bool, code: &mut i32) -> Vec<Value> {
    let base = path_of(kind, (kind.namespaced && !g.all).then_some(g.namespace.as_str()));
    let whole_rows = if g.sorted_by.is_some() && !whole { "&includeObject=Object" } else { "" };
    let query = format!("labelSelector={}&fieldSelector={}{whole_rows}", encoded(&g.selector), encoded(&g.fields));
    let accept = if whole { JSON } else { TABLE };
    let paths: Vec<String> =
        if names.is_empty() { vec![base] } else { names.iter().map(|n| format!("{base}/{n}")).collect() };
    let mut answers = Vec::new();
    for path in &paths {
        match ask(c, at, path, &query, accept).await {
            (200, mut v) => {
                // The items of a list do not say what they are.
                for item in v.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
                    item["apiVersion"] = kind.api_version().into();
                    item["kind"] = kind.kind.as_str().into();
                }
                answers.push(v);
            }
            (404, _) if g.lenient => {}
            (_, v) => *code = refused(c, &v),
        }
    }
    answers
}

/// `-w`: prints the rows that change, until it is interrupted.
async fn follow(c: &mut Call, at: &At, g: &Get, kind: &Kind, names: &[String]) {
    let mut code = 0;
    let quiet = Get { headless: true, lenient: true, ..g.clone() };
    let mut last: Option<Vec<Vec<String>>> = None;
    loop {
        let answers = one(c, at, &quiet, kind, names, false, &mut code).await;
        let now = table::rows(&quiet, kind, &answers, false);
        // An age is no change.
        let same = |a: &[String], b: &[String]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x == y || is_age(x));
        let head = table::rows(g, kind, &answers, false).into_iter().take(usize::from(!g.headless));
        let fresh = now.iter().filter(|r| last.as_ref().is_some_and(|l| !l.iter().any(|o| same(o, r))));
        let shown: Vec<Vec<String>> = head.chain(now.iter().cloned()).collect();
        for l in table::like(&shown, fresh) {
            c.line(&l);
        }
        last = Some(now);
        if c.flush().await.is_err() {
            return;
        }
        c.next_look(1000).await;
    }
}

/// Whether a cell is an age (`3m12s`).
fn is_age(cell: &str) -> bool {
    cell.ends_with(['s', 'm', 'h', 'd']) && cell.chars().all(|ch| ch.is_ascii_digit() || "smhd".contains(ch))
}

/// `--raw PATH`: what the server answers.
async fn raw(c: &mut Call, at: &At, path: &str) -> i32 {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (code, body) = fetch(c, at, path, query, JSON).await;
    if code == 200 {
        c.bytes(&body);
        return 0;
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(v) if v["kind"] == "Status" => refused(c, &v),
        _ if code == 404 => c.fail(1, "Error from server (NotFound): the server could not find the requested resource"),
        _ => c.fail(1, &format!("Error from server (InternalError): {}", String::from_utf8_lossy(&body))),
    }
}

/// The objects of an answer.
fn items(answer: Value) -> Vec<Value> {
    match answer["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![answer],
    }
}

/// One object as it is; several as a list.
fn objects(c: &mut Call, g: &Get, mut answers: Vec<Value>) {
    let single = answers.len() == 1 && !answers[0]["items"].is_array();
    if answers.is_empty() {
        return;
    }
    let shown = if single {
        answers.remove(0)
    } else {
        let mut items: Vec<Value> = answers.into_iter().flat_map(items).collect();
        table::sort(&mut items, g, "");
        json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    let shown = if g.managers { shown } else { plain(shown) };
    let text = output::object(&g.output, &shown).unwrap_or_default();
    // What a template makes ends without a line of its own.
    if g.output.starts_with("jsonpath=") { c.print(&text) } else { c.line(&text) }
}

/// An object, or a list of them, without who wrote what.
fn plain(mut v: Value) -> Value {
    let drop = |o: &mut Value| {
        if let Some(m) = o.get_mut("metadata").and_then(Value::as_object_mut) {
            m.shift_remove("managedFields");
        }
    };
    drop(&mut v);
    v.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(drop);
    v
}
