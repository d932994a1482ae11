//! `kubectl get` on a node: what the cluster's API says, as kubectl prints it.
use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::Call;
use crate::Client;
use crate::kube::api::auth::User;
use crate::kube::api::route::Query;
use crate::kube::api::{Request, handle};
use crate::kube::hooks;
use crate::kube::schema::Kind;

const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The cluster of this machine, and a server of it whose API answers; this machine before others.
pub(super) fn cluster(c: &Call, here: bool) -> Option<At> {
    let own = c.m.vmid;
    c.m.lab.with(|w| {
        let (id, k) = w.clusters.iter().find(|(_, k)| k.nodes.values().any(|n| n.vmid == own))?;
        let others = k.nodes.values().map(|n| n.vmid).filter(|v| !here && *v != own);
        std::iter::once(own).chain(others).find(|v| hooks::api_up(w, id, *v)).map(|v| (id.clone(), v))
    })
}

/// A cluster by its id, and the machine whose API server answers.
pub(super) type At = (String, u32);

/// One request of the administrator; the status and the body as it is.
pub(super) async fn fetch(c: &Call, at: &At, path: &str, query: &str, accept: &str) -> (u16, bytes::Bytes) {
    let admin = User { name: "system:admin".into(), groups: vec!["system:masters".into()], uid: String::new() };
    let req = Request {
        method: Method::GET,
        path: path.to_owned(),
        query: Query::parse(query),
        accept: accept.to_owned(),
        content_type: String::new(),
        agent: "kubectl".to_owned(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        upgrade: None,
        client: Client::Ours,
    };
    let answer = handle(&c.m.lab, &at.0, at.1, Some(admin), &req).await;
    let code = answer.status().as_u16();
    (code, answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default())
}

/// As [`fetch`], for JSON.
pub(super) async fn ask(c: &Call, at: &At, path: &str, query: &str, accept: &str) -> (u16, Value) {
    let (code, bytes) = fetch(c, at, path, query, accept).await;
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// What the server's refusal is to kubectl.
pub(super) fn refused(c: &mut Call, answer: &Value) -> i32 {
    let why = answer["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or("Unknown");
    let text = format!("Error from server ({why}): {}", answer["message"].as_str().unwrap_or_default());
    c.fail(1, &text)
}

/// The API server that kubectl would talk to here.
pub(super) fn server(c: &mut Call) -> Result<At, i32> {
    if !c.m.files.exists(KUBECONFIG) {
        let text = "The connection to the server localhost:8080 was refused - did you specify the right host or port?";
        return Err(c.fail(1, text));
    }
    if c.m.files.read(&c.who.clone(), KUBECONFIG).is_err() {
        let text = format!("error: error loading config file \"{KUBECONFIG}\": open {KUBECONFIG}: permission denied");
        return Err(c.fail(1, &text));
    }
    cluster(c, true).ok_or_else(|| {
        let text = "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?";
        c.fail(1, text)
    })
}

/// What the words of `kubectl get` ask for.
#[derive(Default)]
pub(super) struct Get {
    pub resources: String,
    pub names: Vec<String>,
    pub namespace: Option<String>,
    pub all: bool,
    pub output: String,
    pub selector: String,
    fields: String,
    headless: bool,
}

impl Get {
    /// `None` for a word that is not known here.
    pub fn read(words: &[String]) -> Option<Get> {
        let mut g = Get::default();
        let mut rest = words.iter();
        while let Some(w) = rest.next() {
            let (flag, inline) = match w.split_once('=') {
                Some((f, v)) if f.starts_with("--") => (f, Some(v.to_owned())),
                _ if w.len() > 2 && w.starts_with('-') && !w.starts_with("--") && "nol".contains(&w[1..2]) => {
                    (&w[..2], Some(w[2..].trim_start_matches('=').to_owned()))
                }
                _ => (w.as_str(), None),
            };
            let mut value = || inline.clone().or_else(|| rest.next().cloned());
            match flag {
                "-A" | "--all-namespaces" => g.all = true,
                "-n" | "--namespace" => g.namespace = value(),
                "-o" | "--output" => g.output = value()?,
                "-l" | "--selector" => g.selector = value()?,
                "--field-selector" => g.fields = value()?,
                "--no-headers" => g.headless = inline.is_none_or(|v| v == "true"),
                "--kubeconfig" | "--context" => drop(value()),
                f if f.starts_with('-') => return None,
                word if g.resources.is_empty() => match word.split_once('/') {
                    Some((kind, name)) => {
                        kind.clone_into(&mut g.resources);
                        g.names.push(name.to_owned());
                    }
                    None => word.clone_into(&mut g.resources),
                },
                word => g.names.push(word.split_once('/').map_or(word, |p| p.1).to_owned()),
            }
        }
        matches!(g.output.as_str(), "" | "wide" | "name" | "json" | "yaml").then_some(g)
    }
}

/// Runs `kubectl get`; `None` when the words ask for more than it does.
pub(super) async fn get(c: &mut Call, words: &[String]) -> Option<i32> {
    let g = Get::read(words)?;
    let at = match server(c) {
        Ok(at) => at,
        Err(code) => return Some(code),
    };
    if g.resources.is_empty() {
        return Some(c.fail(1, "error: You must specify the type of resource to get."));
    }
    let mut code = 0;
    let many = g.resources.contains(',');
    for (i, word) in g.resources.split(',').enumerate() {
        let Some(kind) = kind(c, &at.0, word) else {
            let text = format!("error: the server doesn't have a resource type \"{word}\"");
            return Some(c.fail(1, &text));
        };
        if i > 0 && many {
            c.line("");
        }
        code = code.max(one(c, &at, &g, &kind).await);
    }
    Some(code)
}

/// The kind of a word: plural, singular, short name, with or without its group.
pub(super) fn kind(c: &Call, id: &str, word: &str) -> Option<Arc<Kind>> {
    let word = word.to_lowercase();
    c.m.lab.with(|w| {
        let store = &w.clusters.get(id)?.store;
        let named = |k: &&Arc<Kind>| {
            let mut own = [&k.plural, &k.singular].into_iter().chain(&k.short);
            own.any(|n| *n == word || word == format!("{n}.{}", k.group))
        };
        store.kinds().find(named).cloned()
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

async fn one(c: &mut Call, at: &At, g: &Get, kind: &Kind) -> i32 {
    let namespace = g.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let within = (kind.namespaced && !g.all).then_some(namespace.as_str());
    let base = path_of(kind, within);
    let query = format!("labelSelector={}&fieldSelector={}", encoded(&g.selector), encoded(&g.fields));
    let whole = matches!(g.output.as_str(), "json" | "yaml");
    let accept = if whole { "application/json" } else { TABLE };
    let paths: Vec<String> =
        if g.names.is_empty() { vec![base] } else { g.names.iter().map(|n| format!("{base}/{n}")).collect() };
    let (mut code, mut answers) = (0, Vec::new());
    for path in &paths {
        match ask(c, at, path, &query, accept).await {
            (200, v) => answers.push(v),
            (_, v) => code = refused(c, &v),
        }
    }
    if whole {
        objects(c, g, answers);
    } else if !answers.is_empty() {
        table(c, g, kind, &answers, &namespace);
    }
    code
}

fn objects(c: &mut Call, g: &Get, answers: Vec<Value>) {
    for mut v in answers {
        if v["items"].is_array() {
            v = json!({ "apiVersion": "v1", "items": v["items"], "kind": "List", "metadata": { "resourceVersion": "" } });
        }
        let text = if g.output == "json" {
            serde_json::to_string_pretty(&v).unwrap_or_default()
        } else {
            serde_saphyr::to_string(&v).unwrap_or_default()
        };
        c.line(text.trim_end());
    }
}

fn cell(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Columns three blanks apart, the last one as it is.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
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

fn table(c: &mut Call, g: &Get, kind: &Kind, answers: &[Value], namespace: &str) {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let rows: Vec<Value> = answers.iter().flat_map(|a| list(&a["rows"])).collect();
    if rows.is_empty() {
        let wherein = if kind.namespaced && !g.all { format!(" in {namespace} namespace") } else { String::new() };
        c.complain(&format!("No resources found{wherein}."));
        return;
    }
    if g.output == "name" {
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        for r in &rows {
            c.line(&format!("{}{group}/{}", kind.singular, cell(&r["object"]["metadata"]["name"])));
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
        if spread {
            head.insert(0, "NAMESPACE".to_owned());
        }
        out.push(head);
    }
    for r in &rows {
        let cells = list(&r["cells"]);
        let mut row: Vec<String> = shown.iter().map(|i| cells.get(*i).map(cell).unwrap_or_default()).collect();
        if spread {
            row.insert(0, cell(&r["object"]["metadata"]["namespace"]));
        }
        out.push(row);
    }
    for l in columns(&out) {
        c.line(&l);
    }
}
