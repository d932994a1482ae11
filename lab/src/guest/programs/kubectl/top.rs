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
    let w = Words::read(words, "all-namespaces/A selector/l= no-headers sort-by= containers sum")?;
    if w.value("sort-by").is_some_and(|by| !matches!(by, "cpu" | "memory")) {
        return Some(c.fail(1, "error: --sort-by accepts only cpu or memory"));
    }
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

/// Thousandths of bytes in MiB.
fn mebi(thousandths: i64) -> i64 {
    thousandths / 1000 / 1024 / 1024
}

fn mebibytes(v: &Value) -> i64 {
    mebi(milli(v))
}

async fn nodes(c: &mut Call, at: &At, w: &Words) -> Option<i32> {
    let found = match items(c, at, "/apis/metrics.k8s.io/v1beta1/nodes", w).await {
        Ok(found) => sorted(found, w, |o, what| milli(&o["usage"][what])),
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
        Ok(found) => sorted(found, w, |o, what| of_all(o, what, milli)),
        Err(code) => return Some(code),
    };
    if found.is_empty() {
        let wherein = if all { String::new() } else { format!(" in {} namespace", w.namespace()) };
        c.complain(&format!("No resources found{wherein}."));
        return Some(0);
    }
    let (each, sums) = (w.on("containers"), w.on("sum"));
    let mut titles = if each { vec!["POD", "NAME"] } else { vec!["NAME"] };
    titles.extend(["CPU(cores)", "MEMORY(bytes)"]);
    if all {
        titles.insert(0, "NAMESPACE");
    }
    let mut rows = head(w, &titles);
    let mut total = (0, 0);
    for o in found {
        let text = |f: &str| o["metadata"][f].as_str().unwrap_or_default().to_owned();
        let mut row = |name: Vec<String>, cores: i64, memory: i64| {
            total = (total.0 + cores, total.1 + memory);
            let space = all.then(|| text("namespace"));
            let amounts = [format!("{cores}m"), format!("{}Mi", mebi(memory))];
            rows.push(space.into_iter().chain(name).chain(amounts).collect());
        };
        if !each {
            row(vec![text("name")], of_all(&o, "cpu", cpu), of_all(&o, "memory", milli));
            continue;
        }
        let mut containers = o["containers"].as_array().cloned().unwrap_or_default();
        containers.sort_by_key(|x| x["name"].as_str().unwrap_or_default().to_owned());
        for x in sorted(containers, w, |x, what| milli(&x["usage"][what])) {
            let name = x["name"].as_str().unwrap_or_default().to_owned();
            row(vec![text("name"), name], cpu(&x["usage"]["cpu"]), milli(&x["usage"]["memory"]));
        }
    }
    if sums {
        let blank = || std::iter::repeat_n(String::new(), titles.len() - 2);
        rows.push(blank().chain(["________".to_owned(), "________".to_owned()]).collect());
        rows.push(blank().chain([format!("{}m", total.0), format!("{}Mi", mebi(total.1))]).collect());
    }
    print(c, &rows);
    Some(0)
}

/// What the containers of a pod use together.
fn of_all(pod: &Value, what: &str, amount: fn(&Value) -> i64) -> i64 {
    pod["containers"].as_array().into_iter().flatten().map(|x| amount(&x["usage"][what])).sum()
}

/// The heaviest first, where the words ask for that.
fn sorted(mut found: Vec<Value>, w: &Words, amount: impl Fn(&Value, &str) -> i64) -> Vec<Value> {
    if let Some(by) = w.value("sort-by").map(str::to_owned) {
        found.sort_by_key(|o| std::cmp::Reverse(amount(o, &by)));
    }
    found
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
