//! `kubectl top`.
use serde_json::Value;

use super::super::Call;
use super::items::encoded;
use super::request::{At, JSON, ask, refused};
use super::table::columns;
use super::words::Words;
use crate::kube::text::milli;

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let (what, words) = words.split_first()?;
    let w = Words::read(words, "all-namespaces/A selector/l= no-headers")?;
    match what.as_str() {
        "node" | "nodes" | "no" => nodes(c, at, &w).await,
        "pod" | "pods" | "po" => pods(c, at, &w).await,
        _ => None,
    }
}

async fn items(c: &mut Call, at: &At, path: &str, w: &Words) -> Result<Vec<Value>, i32> {
    let query = format!("labelSelector={}", encoded(w.value("selector").unwrap_or_default()));
    let name = w.bare.first();
    match ask(c, at, path, &query, JSON).await {
        (200, v) => {
            let all = v["items"].as_array().cloned().unwrap_or_default();
            Ok(all.into_iter().filter(|o| name.is_none_or(|n| o["metadata"]["name"] == n.as_str())).collect())
        }
        (404 | 503, _) => Err(c.fail(1, "error: Metrics API not available")),
        (_, v) => Err(refused(c, &v)),
    }
}

fn cpu(v: &Value) -> i64 {
    milli(v)
}

fn mebibytes(v: &Value) -> i64 {
    milli(v) / 1000 / 1024 / 1024
}

async fn nodes(c: &mut Call, at: &At, w: &Words) -> Option<i32> {
    let found = match items(c, at, "/apis/metrics.k8s.io/v1beta1/nodes", w).await {
        Ok(found) => found,
        Err(code) => return Some(code),
    };
    let (_, all) = ask(c, at, "/api/v1/nodes", "", JSON).await;
    let room = |name: &Value, what: &str| -> Value {
        let all = all["items"].as_array().into_iter().flatten();
        all.filter(|n| n["metadata"]["name"] == *name)
            .map(|n| n["status"]["allocatable"][what].clone())
            .next()
            .unwrap_or_default()
    };
    let mut rows = head(w, &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
    for o in found {
        let (name, used) = (&o["metadata"]["name"], &o["usage"]);
        let share = |part: i64, whole: i64| format!("{}%", part * 100 / whole.max(1));
        let (cores, memory) = (room(name, "cpu"), room(name, "memory"));
        rows.push(vec![
            name.as_str().unwrap_or_default().to_owned(),
            format!("{}m", cpu(&used["cpu"])),
            share(cpu(&used["cpu"]), cpu(&cores)),
            format!("{}Mi", mebibytes(&used["memory"])),
            share(mebibytes(&used["memory"]), mebibytes(&memory)),
        ]);
    }
    print(c, &rows);
    Some(0)
}

async fn pods(c: &mut Call, at: &At, w: &Words) -> Option<i32> {
    let all = w.on("all-namespaces");
    let path = if all {
        "/apis/metrics.k8s.io/v1beta1/pods".to_owned()
    } else {
        format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", w.namespace())
    };
    let found = match items(c, at, &path, w).await {
        Ok(found) => found,
        Err(code) => return Some(code),
    };
    if found.is_empty() {
        let wherein = if all { String::new() } else { format!(" in {} namespace", w.namespace()) };
        c.complain(&format!("No resources found{wherein}."));
        return Some(0);
    }
    let titles: &[&str] = if all {
        &["NAMESPACE", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    } else {
        &["NAME", "CPU(cores)", "MEMORY(bytes)"]
    };
    let mut rows = head(w, titles);
    for o in found {
        let text = |f: &str| o["metadata"][f].as_str().unwrap_or_default().to_owned();
        let sum = |f: fn(&Value) -> i64, what: &str| -> i64 {
            o["containers"].as_array().into_iter().flatten().map(|x| f(&x["usage"][what])).sum()
        };
        let mut row = vec![text("name"), format!("{}m", sum(cpu, "cpu")), format!("{}Mi", sum(mebibytes, "memory"))];
        if all {
            row.insert(0, text("namespace"));
        }
        rows.push(row);
    }
    print(c, &rows);
    Some(0)
}

fn head(w: &Words, titles: &[&str]) -> Vec<Vec<String>> {
    if w.on("no-headers") { Vec::new() } else { vec![titles.iter().map(|t| (*t).to_owned()).collect()] }
}

/// Kubectl ends every cell with blanks here, the last one too.
fn print(c: &mut Call, rows: &[Vec<String>]) {
    let wide: Vec<Vec<String>> = rows.iter().map(|r| r.iter().cloned().chain([String::new()]).collect()).collect();
    for l in columns(&wide) {
        c.line(&l);
    }
}
