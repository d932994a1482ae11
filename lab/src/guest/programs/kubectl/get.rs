//! `kubectl get`: tables, and whole objects.
use serde_json::{Value, json};

use super::super::Call;
use super::items::{encoded, must_know, path_of, typed};
use super::request::{At, JSON, ask, fetch, refused};
use super::words::Words;
use super::{jsonpath, output};
use crate::kube::api::table::find;
use crate::kube::schema::Kind;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What the words of `kubectl get` and `describe` ask for.
pub(super) struct Get {
    /// Words of kinds, each with the names that are meant; none: all of them.
    pub wanted: Vec<(String, Vec<String>)>,
    pub namespace: String,
    pub all: bool,
    pub output: String,
    pub selector: String,
    fields: String,
    headless: bool,
    labels: bool,
    lenient: bool,
    /// Path of the field that rows are sorted by.
    sorted_by: Option<String>,
}

impl Get {
    /// `None` for a word that is not known here.
    pub fn read(words: &[String]) -> Option<Get> {
        let w = Words::read(
            words,
            "all-namespaces/A output/o= selector/l= field-selector= no-headers show-labels ignore-not-found sort-by=",
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
            lenient: w.on("ignore-not-found"),
            sorted_by: w.value("sort-by").map(str::to_owned),
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
        (known || made).then_some(g)
    }
}

/// Runs `kubectl get`; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    if let Some(path) =
        Words::read(words, "raw=").filter(|w| w.bare.is_empty()).and_then(|w| w.value("raw").map(str::to_owned))
    {
        return Some(raw(c, at, &path).await);
    }
    let g = Get::read(words)?;
    if g.wanted.is_empty() {
        return Some(c.fail(1, NOTHING));
    }
    if let Some(template) = g.output.strip_prefix("jsonpath=") {
        jsonpath::template(template, &Value::Null)?;
    }
    let whole = matches!(g.output.as_str(), "json" | "yaml") || g.output.contains('=');
    let (mut code, mut found) = (0, Vec::new());
    for (word, names) in &g.wanted {
        let kind = match must_know(c, at, word) {
            Ok(kind) => kind,
            Err(code) => return Some(code),
        };
        let answers = one(c, at, &g, &kind, names, whole, &mut code).await;
        found.push((kind, answers));
    }
    if let Some(spec) = g.output.strip_prefix("custom-columns=") {
        let all: Vec<Value> = found.into_iter().flat_map(|f| f.1).flat_map(items).collect();
        if all.is_empty() && code != 0 {
            return Some(code);
        }
        return Some(columns_of(c, &g, spec, all).unwrap_or(code));
    }
    if whole {
        objects(c, &g, found.into_iter().flat_map(|f| f.1).collect());
        return Some(code);
    }
    let rows = |answers: &[Value]| answers.iter().any(|a| a["rows"].as_array().is_some_and(|r| !r.is_empty()));
    let spread = found.iter().any(|f| f.0.namespaced) && !g.all;
    let many = found.len() > 1;
    found.retain(|f| rows(&f.1));
    if found.is_empty() && code == 0 && !g.lenient && g.output != "name" {
        let wherein = if spread { format!(" in {} namespace", g.namespace) } else { String::new() };
        c.complain(&format!("No resources found{wherein}."));
    }
    for (i, (kind, answers)) in found.iter().enumerate() {
        if i > 0 && g.output != "name" {
            c.line("");
        }
        table(c, &g, kind, answers, many);
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
            (200, v) => answers.push(v),
            (404, _) if g.lenient => {}
            (_, v) => *code = refused(c, &v),
        }
    }
    answers
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

/// Sorts by the field that `--sort-by` names, which every value has below `at`.
fn sort(all: &mut [Value], g: &Get, at: &str) {
    let Some(path) = &g.sorted_by else { return };
    let path = path.trim_start_matches('{').trim_end_matches('}');
    let key = |v: &Value| -> Value {
        let found = find(v.pointer(at).unwrap_or(v), path);
        found.first().map_or(Value::Null, |x| (*x).clone())
    };
    all.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            _ => cell(&a).cmp(&cell(&b)),
        }
    });
}

/// `-o custom-columns=NAME:PATH,…`
fn columns_of(c: &mut Call, g: &Get, spec: &str, mut all: Vec<Value>) -> Option<i32> {
    let mut columns_of = Vec::new();
    for part in spec.split(',') {
        let Some((name, path)) = part.split_once(':') else {
            let text = format!("error: unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            return Some(c.fail(1, &text));
        };
        columns_of.push((name.to_owned(), path.to_owned()));
    }
    sort(&mut all, g, "");
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !g.headless {
        rows.push(columns_of.iter().map(|k| k.0.clone()).collect());
    }
    for v in &all {
        let value = |path: &str| {
            let found: Vec<String> = find(v, path).into_iter().map(shown).collect();
            if found.is_empty() { "<none>".to_owned() } else { found.join(",") }
        };
        rows.push(columns_of.iter().map(|k| value(&k.1)).collect());
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    None
}

/// A value as Go prints it in a column.
fn shown(v: &Value) -> String {
    if v.is_null() { "<nil>".to_owned() } else { crate::kube::api::gojson::printed(v) }
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
        sort(&mut items, g, "");
        json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    let text = output::object(&g.output, &shown).unwrap_or_default();
    // What a template makes ends without a line of its own.
    if g.output.starts_with("jsonpath=") { c.print(&text) } else { c.line(&text) }
}

fn cell(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Columns three blanks apart, the last one as it is.
pub(in super::super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |r: &Vec<String>| {
        let cells = r
            .iter()
            .enumerate()
            .map(|(i, t)| if i + 1 == r.len() { t.clone() } else { format!("{t:<width$}   ", width = widths[i]) });
        cells.collect::<String>()
    };
    rows.iter().map(line).collect()
}

/// A table; among tables of other kinds its names say their kind.
fn table(c: &mut Call, g: &Get, kind: &Kind, answers: &[Value], many: bool) {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let mut rows: Vec<Value> = answers.iter().flat_map(|a| list(&a["rows"])).collect();
    sort(&mut rows, g, "/object");
    if g.output == "name" {
        for r in &rows {
            c.line(&format!("{}/{}", typed(kind), cell(&r["object"]["metadata"]["name"])));
        }
        return;
    }
    let heads = list(&answers[0]["columnDefinitions"]);
    let shown: Vec<usize> =
        (0..heads.len()).filter(|i| g.output == "wide" || heads[*i]["priority"].as_i64() == Some(0)).collect();
    let spread = kind.namespaced && g.all;
    let mut out: Vec<Vec<String>> = Vec::new();
    if !g.headless {
        let mut head: Vec<String> = shown.iter().map(|i| cell(&heads[*i]["name"]).to_uppercase()).collect();
        if g.labels {
            head.push("LABELS".to_owned());
        }
        if spread {
            head.insert(0, "NAMESPACE".to_owned());
        }
        out.push(head);
    }
    for r in &rows {
        let cells = list(&r["cells"]);
        let mut row: Vec<String> = shown.iter().map(|i| cells.get(*i).map(cell).unwrap_or_default()).collect();
        if let Some(name) = row.first_mut().filter(|_| many) {
            *name = format!("{}/{name}", typed(kind));
        }
        if g.labels {
            let all = r["object"]["metadata"]["labels"].as_object();
            let mut pairs: Vec<String> = all.into_iter().flatten().map(|(k, v)| format!("{k}={}", cell(v))).collect();
            pairs.sort();
            row.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
        }
        if spread {
            row.insert(0, cell(&r["object"]["metadata"]["namespace"]));
        }
        out.push(row);
    }
    for l in columns(&out) {
        c.line(&l);
    }
}
