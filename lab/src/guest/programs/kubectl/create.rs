//! `kubectl create KIND` and `kubectl run`: objects that are made of the command's words.
use http::Method;
use serde_json::{Map, Value, json};

use super::super::Call;
use super::account;
use super::apply::{self, Way};
use super::items::{Item, kind_of, named, path_of};
use super::output::{Dry, said, speaks};
use super::request::{At, Change, Form, refusal, refused};
use super::words::Words;
use crate::kube::text::b64;

const OPTIONS: &str =
    "from-literal= from-file= image= replicas= from= restart= env= labels/l= port= command dry-run output/o=";

/// Runs `create`; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let made_of_files = words.iter().any(|w| w == "-f" || w.starts_with("--filename") || w.starts_with("-f"));
    if made_of_files {
        return apply::run(c, at, words, Way::Create).await;
    }
    let (what, rest) = words.split_first()?;
    if what == "token" {
        return account::token(c, at, rest).await;
    }
    let (what, rest) =
        if what == "secret" { ("secret", rest.strip_prefix(&["generic".to_owned()])?) } else { (what.as_str(), rest) };
    let w = Words::read(rest, OPTIONS)?;
    let Some(name) = w.bare.first().cloned() else {
        let long = match what {
            "ns" => "namespace",
            "cm" => "configmap",
            "sa" => "serviceaccount",
            "deploy" => "deployment",
            "secret" => "secret generic",
            other => other,
        };
        let text =
            format!("error: exactly one NAME is required, got 0\nSee 'kubectl create {long} -h' for help and examples");
        return Some(c.fail(1, &text));
    };
    let object = match what {
        "namespace" | "ns" => json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        "serviceaccount" | "sa" => json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
        "configmap" | "cm" => {
            let data = match data(c, &w) {
                Ok(data) => data,
                Err(code) => return Some(code),
            };
            json!({"apiVersion": "v1", "data": data, "kind": "ConfigMap", "metadata": {"name": name}})
        }
        "secret" => {
            let data = match data(c, &w) {
                Ok(data) => data,
                Err(code) => return Some(code),
            };
            let coded: Map<String, Value> =
                data.iter().map(|(k, v)| (k.clone(), b64(v.as_str().unwrap_or_default().as_bytes()).into())).collect();
            json!({"apiVersion": "v1", "data": coded, "kind": "Secret", "metadata": {"name": name}})
        }
        "deployment" | "deploy" => deployment(&w, &name)?,
        "job" => match job(c, at, &w, &name).await? {
            Ok(job) => job,
            Err(code) => return Some(code),
        },
        _ => return None,
    };
    post(c, at, &w, object, "kubectl-create", "created").await
}

/// What `--from-literal` and `--from-file` say.
fn data(c: &mut Call, w: &Words) -> Result<Map<String, Value>, i32> {
    let mut out = Map::new();
    for pair in w.all("from-literal") {
        let Some((k, v)) = pair.split_once('=') else {
            let text = format!("error: invalid literal source {pair}, expected key=value");
            return Err(c.fail(1, &text));
        };
        out.insert(k.to_owned(), v.into());
    }
    for word in w.all("from-file") {
        let (key, file) = word.split_once('=').unwrap_or((word.rsplit('/').next().unwrap_or(word), word));
        let (who, path) = (c.who.clone(), c.path(file));
        let Ok(bytes) = c.m.files.read(&who, &path) else {
            let text = format!("error: error reading {file}: no such file or directory");
            return Err(c.fail(1, &text));
        };
        out.insert(key.to_owned(), String::from_utf8_lossy(&bytes).into_owned().into());
    }
    Ok(out)
}

fn deployment(w: &Words, name: &str) -> Option<Value> {
    let image = w.value("image")?;
    let replicas: u32 = w.value("replicas").map_or(Some(1), |r| r.parse().ok())?;
    let last = image.rsplit('/').next().unwrap_or(image);
    let of = last.split([':', '@']).next().unwrap_or(last);
    let mut container = json!({"image": image, "name": of});
    if !w.rest.is_empty() {
        container["command"] = json!(w.rest);
    }
    Some(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"app": name}, "name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}}))
}

/// A Job of an image, or of a CronJob's template.
async fn job(c: &mut Call, at: &At, w: &Words, name: &str) -> Option<Result<Value, i32>> {
    let job = |spec: Value, notes: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "annotations": notes}, "spec": spec});
    if let Some(image) = w.value("image") {
        let mut container = json!({"image": image, "name": name});
        if !w.rest.is_empty() {
            container["command"] = json!(w.rest);
        }
        let spec = json!({"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}});
        return Some(Ok(job(spec, Value::Null)));
    }
    let cron = w.value("from")?.strip_prefix("cronjob/")?;
    let path = format!("/apis/batch/v1/namespaces/{}/cronjobs/{cron}", w.namespace());
    match super::request::ask(c, at, &path, "", super::request::JSON).await {
        (200, v) => {
            let mut made =
                job(v["spec"]["jobTemplate"]["spec"].clone(), json!({"cronjob.kubernetes.io/instantiate": "manual"}));
            made["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": cron,
                "uid": v["metadata"]["uid"], "controller": true}]);
            Some(Ok(made))
        }
        (_, v) => Some(Err(refused(c, &v))),
    }
}

/// `run NAME --image=IMAGE`: a pod.
pub(super) async fn pod(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS)?;
    let Some(name) = w.bare.first().cloned() else {
        return Some(c.fail(1, "error: NAME is required for run"));
    };
    let Some(image) = w.value("image") else {
        return Some(c.fail(1, "error: required flag(s) \"image\" not set"));
    };
    let mut container = json!({"image": image, "name": name, "resources": {}});
    let args: Vec<&String> = w.bare.iter().skip(1).chain(&w.rest).collect();
    if !args.is_empty() {
        container[if w.on("command") { "command" } else { "args" }] = json!(args);
    }
    let env: Vec<Value> =
        w.all("env").filter_map(|e| e.split_once('=')).map(|(k, v)| json!({"name": k, "value": v})).collect();
    if !env.is_empty() {
        container["env"] = env.into();
    }
    if let Some(port) = w.value("port") {
        container["ports"] = json!([{"containerPort": port.parse::<u16>().ok()?}]);
    }
    let labels: Map<String, Value> = match w.value("labels") {
        Some(text) => {
            text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.into())).collect()
        }
        None => Map::from_iter([("run".to_owned(), name.clone().into())]),
    };
    let restart = w.value("restart").unwrap_or("Always");
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels, "name": name},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": restart}});
    post(c, at, &w, object, "kubectl-run", "created").await
}

/// `expose TYPE NAME --port=PORT`: a Service for what a workload's selector picks.
pub(super) async fn expose(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "port= target-port= name= type= protocol= dry-run output/o=")?;
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let [item] = &items[..] else { return None };
    let object = match item.read(c, at).await {
        Ok(v) => v,
        Err(v) => return Some(refused(c, &v)),
    };
    let selector = match item.kind.kind.as_str() {
        "Pod" => object["metadata"]["labels"].clone(),
        "Service" => object["spec"]["selector"].clone(),
        _ => object["spec"]["selector"]["matchLabels"].clone(),
    };
    if !selector.is_object() {
        let text = format!("error: cannot expose a {}", item.kind.kind);
        return Some(c.fail(1, &text));
    }
    let own = object.pointer("/spec/template/spec/containers/0/ports/0/containerPort").and_then(Value::as_u64);
    let Some(port) = w.value("port").and_then(|p| p.parse::<u64>().ok()).or(own) else {
        let text = "error: couldn't find port via --port flag or introspection";
        return Some(c.fail(1, text));
    };
    let target =
        w.value("target-port").map_or_else(|| json!(port), |t| t.parse::<u64>().map_or_else(|_| t.into(), Value::from));
    let name = w.value("name").unwrap_or(&item.name);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": object["metadata"]["labels"]},
        "spec": {"ports": [{"port": port, "protocol": w.value("protocol").unwrap_or("TCP"), "targetPort": target}], "selector": selector}});
    if let Some(sort) = w.value("type") {
        service["spec"]["type"] = sort.into();
    }
    post(c, at, &w, service, "kubectl-expose", "exposed").await
}

async fn post(c: &mut Call, at: &At, w: &Words, mut object: Value, manager: &str, done: &str) -> Option<i32> {
    let dry = Dry::of(w)?;
    if !speaks(w) {
        return None;
    }
    if let Some(m) = object["metadata"].as_object_mut() {
        m.retain(|_, v| !v.is_null());
    }
    let kind = kind_of(c, at, &object)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let item = Item::new(kind, &w.namespace(), &name);
    // A namespace that was not asked for is not in what a dry run prints.
    if let Some(ns) = item.namespace.clone().filter(|_| dry != Dry::Client || w.value("namespace").is_some()) {
        object["metadata"]["namespace"] = ns.into();
    }
    if dry == Dry::Client {
        said(c, w, &item, done, dry, &object);
        return Some(0);
    }
    let query = format!("fieldManager={manager}{}", dry.query());
    let path = path_of(&item.kind, item.namespace.as_deref());
    let sent = Change { method: Method::POST, path: &path, query: &query, form: Form::Plain, body: &object };
    Some(match sent.send(c, at).await {
        Ok(after) => {
            said(c, w, &item, done, dry, &after);
            0
        }
        // `create` has words of its own for what the server refuses, but not of namespaces; `run` has none.
        Err(v) if manager == "kubectl-create" && item.kind.kind != "Namespace" => {
            let what = item.kind.kind.to_lowercase();
            let text = v["message"].as_str().unwrap_or_default().to_owned();
            if v["reason"] == "Invalid" {
                let text = refusal(&v, "");
                c.fail(1, &text)
            } else {
                c.fail(1, &format!("error: failed to create {what}: {text}"))
            }
        }
        Err(v) => {
            let text = refusal(&v, "");
            c.fail(1, &text)
        }
    })
}
