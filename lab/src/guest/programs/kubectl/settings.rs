//! `kubectl set env`, `set resources` and `autoscale`. Grade: source.
use http::Method;
use serde_json::{Map, Value, json};

use super::super::Call;
use super::change::{Made, patch_each};
use super::items::{Item, kind_of, named, path_of};
use super::output::{Dry, said, speaks};
use super::request::{At, Change, Form, refused};
use super::words::Words;

const OPTIONS: &str =
    "selector/l= all all-namespaces/A output/o= dry-run containers/c= list limits= requests= overwrite";

/// The containers of an object that are meant, by name.
pub(super) fn meant(object: &Value, item: &Item, w: &Words) -> Vec<Value> {
    let at = if item.kind.kind == "Pod" { "/spec/containers" } else { "/spec/template/spec/containers" };
    let all = object.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
    let only = w.value("containers").filter(|c| *c != "*");
    all.into_iter().filter(|c| only.is_none_or(|o| c["name"] == o)).collect()
}

/// Containers as a patch of their object.
pub(super) fn body(item: &Item, containers: Vec<Value>) -> Value {
    let spec = json!({"containers": containers});
    if item.kind.kind == "Pod" { json!({"spec": spec}) } else { json!({"spec": {"template": {"spec": spec}}}) }
}

/// `set env TYPE/NAME NAME=VALUE… NAME-… [--list]`.
pub(super) async fn env(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS).filter(speaks)?;
    let is_change = |t: &String| t.contains('=') || t.ends_with('-');
    let split = w.bare.iter().position(is_change).unwrap_or(w.bare.len());
    let (objects, changes) = w.bare.split_at(split);
    let make = |c: &mut Call, item: &Item, object: &Value| {
        let containers = meant(object, item, &w);
        if containers.is_empty() {
            let why = "the object is not a pod or does not have a pod template";
            let text = format!("error: {}/{} {why}: *v1.{}", item.kind.plural, item.name, item.kind.kind);
            return Err(c.fail(1, &text));
        }
        if w.on("list") {
            list(c, item, &containers);
        }
        if changes.is_empty() || w.on("list") {
            return Ok(None);
        }
        let all = containers.iter().map(|x| json!({"name": x["name"], "env": variables(x, changes)})).collect();
        Ok(Some(Made { body: body(item, all), done: "env updated" }))
    };
    Some(patch_each(c, at, &w, objects, "kubectl-set", make).await)
}

/// What a patch says of a container's variables.
fn variables(container: &Value, changes: &[String]) -> Vec<Value> {
    let there = |name: &str| container["env"].as_array().into_iter().flatten().any(|e| e["name"] == name);
    let mut out = Vec::new();
    for change in changes {
        match change.split_once('=') {
            Some((name, value)) => out.push(json!({"name": name, "value": value, "valueFrom": null})),
            None => {
                let name = change.trim_end_matches('-');
                if there(name) {
                    out.push(json!({"name": name, "$patch": "delete"}));
                }
            }
        }
    }
    out
}

fn list(c: &mut Call, item: &Item, containers: &[Value]) {
    for x in containers {
        c.line(&format!("# {} {}, container {}", item.kind.kind, item.name, x["name"].as_str().unwrap_or_default()));
        for e in x["env"].as_array().into_iter().flatten() {
            let name = e["name"].as_str().unwrap_or_default();
            match from(&e["valueFrom"]) {
                Some(source) => c.line(&format!("# {name} from {source}")),
                None => c.line(&format!("{name}={}", e["value"].as_str().unwrap_or_default())),
            }
        }
    }
}

/// Where a variable is from, in words.
fn from(source: &Value) -> Option<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (kind, s) = source.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "configMapKeyRef" => format!("configmap {}, key {}", text(&s["name"]), text(&s["key"])),
        "secretKeyRef" => format!("secret {}, key {}", text(&s["name"]), text(&s["key"])),
        "fieldRef" => format!("field path {}", text(&s["fieldPath"])),
        _ => format!("resource field {}", text(&s["resource"])),
    })
}

/// Quantities of words (`cpu=1,memory=1Gi`).
fn quantities(text: &str) -> Option<Map<String, Value>> {
    text.split(',').map(|p| p.split_once('=').map(|(k, v)| (k.to_owned(), v.into()))).collect()
}

/// `set resources TYPE/NAME --limits=… --requests=…`.
pub(super) async fn resources(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS).filter(speaks)?;
    let mut wanted = Map::new();
    for field in ["limits", "requests"] {
        if let Some(text) = w.value(field) {
            wanted.insert(field.to_owned(), quantities(text)?.into());
        }
    }
    if wanted.is_empty() {
        let text = "error: you must specify an update to requests or limits (in the form of --requests/--limits)";
        return Some(c.fail(1, text));
    }
    let make = |c: &mut Call, item: &Item, object: &Value| {
        let containers = meant(object, item, &w);
        if containers.is_empty() {
            let name = w.value("containers").unwrap_or_default();
            return Err(c.fail(1, &format!("error: unable to find container named {name}")));
        }
        let all = containers.iter().map(|x| json!({"name": x["name"], "resources": wanted})).collect();
        Ok(Some(Made { body: body(item, all), done: "resource requirements updated" }))
    };
    Some(patch_each(c, at, &w, &w.bare, "kubectl-set", make).await)
}

/// `autoscale TYPE/NAME --max=N [--min=N] [--cpu=…] [--memory=…]`.
pub(super) async fn autoscale(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, "min= max= cpu-percent= cpu= memory= name= dry-run output/o= selector/l= all")
        .filter(speaks)?;
    let number = |name: &str| w.value(name).map_or(Some(-1), |n| n.parse::<i64>().ok());
    let (min, max) = (number("min")?, number("max")?);
    let dry = Dry::of(&w).filter(|d| *d != Dry::Client)?;
    if max < 1 {
        let text = format!("error: --max=MAXPODS is required and must be at least 1, max: {max}");
        return Some(c.fail(1, &text));
    }
    if max < min {
        let text = format!("error: --max=MAXPODS must be larger or equal to --min=MINPODS, max: {max}, min: {min}");
        return Some(c.fail(1, &text));
    }
    let mut metrics = Vec::new();
    let cpu = w.value("cpu").map(str::to_owned).or_else(|| w.value("cpu-percent").map(|p| format!("{p}%")));
    for (name, target) in [("cpu", cpu.as_deref()), ("memory", w.value("memory"))] {
        let Some(text) = target else { continue };
        let target = match text.strip_suffix('%') {
            Some(p) => json!({"type": "Utilization", "averageUtilization": p.parse::<i64>().ok()?}),
            None => json!({"type": "AverageValue", "averageValue": text}),
        };
        metrics.push(json!({"type": "Resource", "resource": {"name": name, "target": target}}));
    }
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let mut code = 0;
    for item in items {
        if let Err(v) = item.read(c, at).await {
            return Some(refused(c, &v));
        }
        if !item.kind.scale {
            let k = &item.kind;
            let text = format!(
                "error: cannot autoscale a {}: could not find scale subresource for {}/{}, Resource={} in discovery information",
                k.kind, k.group, k.version, k.plural
            );
            return Some(c.fail(1, &text));
        }
        let mut spec = json!({"maxReplicas": max, "scaleTargetRef": {"apiVersion": item.kind.api_version(),
            "kind": item.kind.kind, "name": item.name}});
        if min > 0 {
            spec["minReplicas"] = json!(min);
        }
        if !metrics.is_empty() {
            spec["metrics"] = json!(metrics);
        }
        let name = w.value("name").unwrap_or(&item.name);
        let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": item.namespace}, "spec": spec});
        let scaler = Item::new(kind_of(c, at, &object)?, &w.namespace(), name);
        let path = path_of(&scaler.kind, scaler.namespace.as_deref());
        let query = format!("fieldManager=kubectl-autoscale{}", dry.query());
        match (Change { method: Method::POST, path: &path, query: &query, form: Form::Plain, body: &object })
            .send(c, at)
            .await
        {
            Ok(after) => said(c, &w, &scaler, "autoscaled", dry, &after),
            Err(v) => code = refused(c, &v),
        }
    }
    Some(code)
}
