//! Release Secrets as Helm writes them, one per revision.
use gpuhost_stdlib::wire::release::{decode, encode};
use serde_json::{Value, json};

use super::super::charts::Chart;
use super::super::cx::{Cx, key};
use super::super::objects;
use super::super::text::{b64, s};

/// Revisions that Helm keeps.
const HISTORY: usize = 10;

fn secrets(cx: &Cx, ns: &str, name: &str) -> Vec<Value> {
    let list = cx.c.store.list("secrets", ns, &format!("owner=helm,name={name}"));
    let mut out: Vec<Value> = list.into_iter().cloned().collect();
    out.sort_by_key(number);
    out
}

fn number(secret: &Value) -> u64 {
    s(secret, "/metadata/labels/version").parse().unwrap_or(0)
}

/// The newest deployed revision of a release.
#[must_use]
pub fn current(cx: &Cx, ns: &str, name: &str) -> Option<Value> {
    secrets(cx, ns, name).into_iter().rfind(|o| s(o, "/metadata/labels/status") == "deployed")
}

/// Number of the newest revision, whatever became of it; 0 when there is none.
#[must_use]
pub fn newest(cx: &Cx, ns: &str, name: &str) -> u64 {
    secrets(cx, ns, name).last().map_or(0, number)
}

/// Objects of the newest deployed revision's manifest.
#[must_use]
pub fn objects(cx: &Cx, ns: &str, name: &str) -> Vec<Value> {
    let body = current(cx, ns, name).and_then(|o| decode(o["data"]["release"].as_str()?));
    body.map(|b| objects::from_yaml(b["manifest"].as_str().unwrap_or_default())).unwrap_or_default()
}

/// Sets the status of a revision: in its label, and in the release inside, which is what Helm shows.
fn mark(cx: &mut Cx, secret: &Value, status: &str) {
    let Some(mut body) = decode(secret["data"]["release"].as_str().unwrap_or_default()) else { return };
    body["info"]["status"] = json!(status);
    let data = encode(&body).unwrap_or_default();
    let stamp = (cx.now() / 1000).to_string();
    let (n, k) = key(secret);
    cx.update("secrets", &n, &k, |o| {
        o["metadata"]["labels"]["status"] = json!(status);
        o["metadata"]["labels"]["modifiedAt"] = json!(stamp);
        o["data"]["release"] = json!(data);
    });
}

/// Hooks as Helm keeps them with a revision.
fn hooks(c: &Chart) -> Value {
    let words = |o: &Value, note: &str| -> Vec<String> {
        let text = o["metadata"]["annotations"][note].as_str().unwrap_or_default();
        text.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect()
    };
    let weight = |o: &Value| s(o, "/metadata/annotations/helm.sh~1hook-weight").parse::<i64>().unwrap_or(0);
    c.hooks
        .iter()
        .map(|h| {
            let mut out = json!({"name": h.object["metadata"]["name"], "kind": h.object["kind"], "path": h.path,
                "manifest": h.text, "events": h.events, "last_run": {"started_at": "", "completed_at": "", "phase": ""},
                "weight": weight(&h.object)});
            let policies = words(&h.object, "helm.sh/hook-delete-policy");
            if !policies.is_empty() {
                out["delete_policies"] = json!(policies);
            }
            out
        })
        .collect()
}

fn manifest(c: &Chart) -> String {
    if !c.manifest.is_empty() {
        return c.manifest.clone();
    }
    let doc = |o: &Value| {
        let file = s(o, "/kind").to_lowercase();
        format!(
            "---\n# Source: {}/templates/{file}.yaml\n{}\n",
            c.name,
            serde_saphyr::to_string(o).unwrap_or_default().trim_end()
        )
    };
    c.objects.iter().map(doc).collect()
}

/// Writes a new revision; the one before is superseded.
pub fn record(cx: &mut Cx, ns: &str, name: &str, c: &Chart, values: &Value) {
    let old = secrets(cx, ns, name);
    let first = old.first().and_then(|o| decode(o["data"]["release"].as_str()?));
    let stamp = cx.stamp();
    let first = first.map_or_else(|| json!(stamp), |b| b["info"]["first_deployed"].clone());
    for o in old.iter().filter(|o| s(o, "/metadata/labels/status") == "deployed") {
        mark(cx, o, "superseded");
    }
    let version = old.last().map_or(0, number) + 1;
    let file = |(name, text): &(String, String)| json!({"name": name, "data": b64(text.as_bytes())});
    let templates: Vec<Value> = c.templates.iter().map(file).collect();
    let mut body = json!({
        "name": name, "namespace": ns, "version": version,
        "info": {"first_deployed": first, "last_deployed": stamp, "deleted": "", "status": "deployed",
            "description": if version == 1 { "Install complete" } else { "Upgrade complete" }},
        "chart": {"metadata": {"name": c.name, "version": c.version, "appVersion": c.version, "apiVersion": "v2"},
            "lock": null, "templates": templates, "values": c.values, "schema": null, "files": []},
        "manifest": manifest(c), "hooks": hooks(c),
    });
    if c.metadata.is_object() {
        body["chart"]["metadata"] = c.metadata.clone();
    }
    if c.schema.is_object() {
        body["chart"]["schema"] = json!(b64(c.schema.to_string().as_bytes()));
    }
    if !c.kube.is_empty() {
        body["chart"]["metadata"]["kubeVersion"] = json!(c.kube);
    }
    if !c.notes.is_empty() {
        body["info"]["notes"] = json!(c.notes);
    }
    if values.as_object().is_some_and(|v| !v.is_empty()) {
        body["config"] = values.clone();
    }
    let data = encode(&body).unwrap_or_default();
    cx.create(json!({"apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {"name": format!("sh.helm.release.v1.{name}.v{version}"), "namespace": ns,
            "labels": {"name": name, "owner": "helm", "status": "deployed", "version": version.to_string(), "modifiedAt": (cx.now() / 1000).to_string()}},
        "data": {"release": data}}));
    for o in old.iter().rev().skip(HISTORY - 1) {
        let (n, k) = key(o);
        cx.delete("secrets", &n, &k);
    }
}

/// All revisions of a release go.
pub fn forget(cx: &mut Cx, ns: &str, name: &str) {
    for o in secrets(cx, ns, name) {
        let (n, k) = key(&o);
        cx.delete("secrets", &n, &k);
    }
}
