//! What a server is and has: `kubectl api-resources`, `api-versions`, `cluster-info`. Grade: source.
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::Call;
use super::request::{At, JSON, ask};
use super::table::columns;
use super::words::Words;

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// `api-versions`.
pub(super) async fn versions(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    Words::read(words, "").filter(|w| w.bare.is_empty())?;
    let (_, core) = ask(c, at, "/api", "", JSON).await;
    let (_, groups) = ask(c, at, "/apis", "", JSON).await;
    let mut all: BTreeSet<String> =
        core["versions"].as_array().into_iter().flatten().map(|v| text(v).to_owned()).collect();
    for g in groups["groups"].as_array().into_iter().flatten() {
        all.extend(g["versions"].as_array().into_iter().flatten().map(|v| text(&v["groupVersion"]).to_owned()));
    }
    for v in all {
        c.line(&v);
    }
    Some(0)
}

/// A resource as a group's list tells it.
struct Resource {
    group: String,
    version: String,
    told: Value,
}

impl Resource {
    fn list(&self, field: &str) -> Vec<&str> {
        self.told[field].as_array().into_iter().flatten().map(text).collect()
    }

    fn name(&self) -> &str {
        text(&self.told["name"])
    }
}

/// The resources of all groups, each in its group's preferred version if it is there, else in the first that has it.
async fn resources(c: &Call, at: &At) -> Vec<Resource> {
    let (_, groups) = ask(c, at, "/apis", "", JSON).await;
    let mut places = vec![(String::new(), "v1".to_owned())];
    for g in groups["groups"].as_array().into_iter().flatten() {
        let version = |v: &Value| (text(&g["name"]).to_owned(), text(&v["groupVersion"]).to_owned());
        let first = version(&g["preferredVersion"]);
        let others = g["versions"].as_array().into_iter().flatten().map(version).filter(|v| *v != first);
        places.extend(std::iter::once(first.clone()).chain(others));
    }
    let mut out: Vec<Resource> = Vec::new();
    for (group, version) in places {
        let path = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        let (_, list) = ask(c, at, &path, "", JSON).await;
        for told in list["resources"].as_array().into_iter().flatten().filter(|r| !text(&r["name"]).contains('/')) {
            if !out.iter().any(|r| r.group == group && r.told["name"] == told["name"]) {
                out.push(Resource { group: group.clone(), version: version.clone(), told: told.clone() });
            }
        }
    }
    out
}

/// `api-resources`; `None` when the words ask for more than it does.
pub(super) async fn kinds(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    const OPTIONS: &str = "api-group= namespaced verbs= categories= output/o= no-headers sort-by= cached";
    let w = Words::read(words, OPTIONS).filter(|w| w.bare.is_empty())?;
    let form = w.value("output").unwrap_or_default();
    if !matches!(form, "" | "wide" | "name") {
        return None;
    }
    let wants = |field: &str, r: &Resource, have: &str| {
        w.value(field).is_none_or(|all| all.split(',').all(|v| r.list(have).contains(&v)))
    };
    let mut all = resources(c, at).await;
    all.retain(|r| {
        w.value("api-group").is_none_or(|g| g == r.group)
            && w.value("namespaced").is_none_or(|n| r.told["namespaced"].as_bool() == Some(n == "true"))
            && wants("verbs", r, "verbs")
            && wants("categories", r, "categories")
            && !r.list("verbs").is_empty()
    });
    match w.value("sort-by") {
        None => all.sort_by(|a, b| (&a.group, a.name()).cmp(&(&b.group, b.name()))),
        Some("name") => all.sort_by(|a, b| a.name().cmp(b.name())),
        Some("kind") => all.sort_by(|a, b| text(&a.told["kind"]).cmp(text(&b.told["kind"]))),
        Some(_) => return None,
    }
    if form == "name" {
        for r in &all {
            let group = if r.group.is_empty() { String::new() } else { format!(".{}", r.group) };
            c.line(&format!("{}{group}", r.name()));
        }
        return Some(0);
    }
    let wide = form == "wide";
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !w.on("no-headers") {
        let more: &[&str] = if wide { &["VERBS", "CATEGORIES"] } else { &[] };
        let heads = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        rows.push(heads.iter().chain(more).map(|h| (*h).to_owned()).collect());
    }
    for r in &all {
        let spread = r.told["namespaced"].as_bool().unwrap_or_default();
        let mut row = vec![
            r.name().to_owned(),
            r.list("shortNames").join(","),
            r.version.clone(),
            spread.to_string(),
            text(&r.told["kind"]).to_owned(),
        ];
        if wide {
            row.extend([r.list("verbs").join(","), r.list("categories").join(",")]);
        }
        rows.push(row);
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    Some(0)
}

/// `cluster-info`.
pub(super) async fn cluster(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    Words::read(words, "").filter(|w| w.bare.is_empty())?;
    let server = "https://127.0.0.1:6443";
    let (_, found) = ask(
        c,
        at,
        "/api/v1/namespaces/kube-system/services",
        "labelSelector=kubernetes.io/cluster-service%3Dtrue",
        JSON,
    )
    .await;
    let mut said = format!("Kubernetes control plane is running at {server}\n");
    for s in found["items"].as_array().into_iter().flatten() {
        let name = text(&s["metadata"]["name"]);
        let shown = s["metadata"]["labels"]["kubernetes.io/name"].as_str().unwrap_or(name);
        let port = s["spec"]["ports"][0]["name"].as_str().filter(|p| !p.is_empty()).map(|p| format!(":{p}"));
        said += &format!(
            "{shown} is running at {server}/api/v1/namespaces/kube-system/services/{name}{}/proxy\n",
            port.unwrap_or_default()
        );
    }
    c.print(&said);
    c.line("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.");
    Some(0)
}
