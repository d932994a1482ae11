//! What a real kube-apiserver 1.36.2 (without controllers) answered to the requests in `real/*.jsonl`, asked of the lab
//! again. `real/record.py` wrote the answers and says what a row holds.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bed::{Answer, Bed};

/// Rows that the lab answers in another way on purpose: file, row (its `do`, or the start of it), and why.
const DIFFERENT: &[(&str, &str, &str)] = &[
    (
        "core-config",
        "POST /api/v1/namespaces/t/serviceaccounts/a/token?timeout=1s",
        "a request for a token is not kept, and nobody manages it",
    ),
    ("core-cluster", "GET /api/v1/namespaces/a", "the namespace controller has taken its own hold off already"),
    (
        "core-services",
        "POST /api/v1/namespaces/t/services?timeout=1s",
        "1.36 takes names that begin with a digit, and warns of old fields; versions before it do not",
    ),
];

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/real");
    let only = std::env::var("GPUHOST_REAL").ok();
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .filter(|p| only.as_ref().is_none_or(|o| p.file_stem().unwrap() == o.as_str()))
        .collect();
    all.sort();
    all
}

async fn ask(bed: &Bed, row: &Value) -> Answer {
    let text = |f: &str| row[f].as_str();
    let (method, path) = text("do").unwrap().split_once(' ').unwrap();
    let kind = text("type").unwrap_or(match (method, row["body"].is_null()) {
        (_, true) => "",
        ("PATCH", _) => "application/merge-patch+json",
        _ => "application/json",
    });
    let body = match &row["body"] {
        Value::Null => Vec::new(),
        Value::String(s) => s.clone().into_bytes(),
        v => v.to_string().into_bytes(),
    };
    let mut headers = vec![("accept", text("accept").unwrap_or("application/json"))];
    headers.extend(text("agent").map(|a| ("user-agent", a)));
    headers.extend(text("as").map(|u| ("impersonate-user", u)));
    bed.send(method, path, kind, body, &headers).await
}

/// One JSON document, a list of them (a watch), or text.
fn document(a: &Answer) -> Value {
    if !a.body.is_null() {
        return a.body.clone();
    }
    let lines: Result<Vec<Value>, _> = a.text.lines().map(serde_json::from_str).collect();
    lines.map_or_else(|_| Value::from(a.text.clone()), Value::from)
}

/// Whether `have` is `want` with something in the place of every `*`.
fn fits(want: &str, have: &str) -> bool {
    let mut parts = want.split('*');
    let Some(mut rest) = have.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn differs(want: &Value, have: &Value, path: &str, out: &mut Vec<String>) {
    match (want, have) {
        (Value::String(w), Value::Number(_)) if w == "*" => {}
        (Value::String(w), Value::String(h)) if fits(w, h) => {}
        (Value::Object(w), Value::Object(h)) => {
            for (k, v) in w {
                match h.get(k) {
                    Some(x) => differs(v, x, &format!("{path}.{k}"), out),
                    None => out.push(format!("{path}.{k} is missing, recorded {v}")),
                }
            }
            let more = h.iter().filter(|(k, _)| !w.contains_key(*k));
            out.extend(more.map(|(k, v)| format!("{path}.{k} is too much: {v}")));
        }
        (Value::Array(w), Value::Array(h)) if w.len() == h.len() => {
            for (i, (w, h)) in w.iter().zip(h).enumerate() {
                differs(w, h, &format!("{path}[{i}]"), out);
            }
        }
        _ if want == have => {}
        _ => out.push(format!("{path} is      {have}\n      recorded {want}")),
    }
}

fn compared(row: &Value, a: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    if row["code"] != a.code {
        out.push(format!("code is {}, recorded {}", a.code, row["code"]));
    }
    let warnings = match &row["warnings"] {
        Value::Null => Value::from(Vec::<Value>::new()),
        w => w.clone(),
    };
    differs(&warnings, &Value::from(a.warnings.clone()), "warnings", &mut out);
    differs(&row["answer"], &document(a), "", &mut out);
    out
}

#[tokio::test]
async fn the_lab_answers_as_the_real_api_server_did() {
    let (mut wrong, mut other, mut rows) = (Vec::new(), BTreeSet::new(), 0);
    let files = files();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let bed = Bed::still().await;
        bed.version("v1.36.2+k3s1");
        for (n, line) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
            let row: Value = serde_json::from_str(line).unwrap();
            let answer = ask(&bed, &row).await;
            if row["setup"] == true {
                continue;
            }
            let found = compared(&row, &answer);
            let what = row["do"].as_str().unwrap();
            let known = DIFFERENT.iter().position(|d| d.0 == name && what.starts_with(d.1));
            match known {
                Some(k) if !found.is_empty() => drop(other.insert(k)),
                None if !found.is_empty() => {
                    let body = row["body"].to_string();
                    let body: String = body.chars().take(300).collect();
                    wrong.push(format!("{name}:{} {what} {body}\n    {}", n + 1, found.join("\n    ")));
                }
                _ => {}
            }
            rows += 1;
        }
    }
    eprintln!("{rows} rows of {} files, {} answered otherwise", files.len(), wrong.len());
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    let whole = std::env::var_os("GPUHOST_REAL").is_none();
    let gone: Vec<_> = DIFFERENT.iter().enumerate().filter(|(k, _)| !other.contains(k)).map(|(_, d)| d).collect();
    assert!(!whole || gone.is_empty(), "listed as different, and are not: {gone:?}");
}
