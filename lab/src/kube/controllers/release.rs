//! Release Secrets as Helm writes them: `base64(gzip(json))`, one per revision.
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::super::charts::Chart;
use super::super::cx::{Cx, key};
use super::super::text::{b64, s};

fn secrets(cx: &Cx, ns: &str, name: &str) -> Vec<Value> {
    let list = cx.c.store.list("secrets", ns, &format!("owner=helm,name={name}"));
    list.into_iter().cloned().collect()
}

/// The newest deployed revision of a release.
#[must_use]
pub fn current(cx: &Cx, ns: &str, name: &str) -> Option<Value> {
    secrets(cx, ns, name).into_iter().find(|o| s(o, "/metadata/labels/status") == "deployed")
}

/// Writes a new revision; the one before is superseded.
pub fn record(cx: &mut Cx, ns: &str, name: &str, c: &Chart, values: &Value) {
    let old = secrets(cx, ns, name);
    let last = old.iter().filter_map(|o| s(o, "/metadata/labels/version").parse::<u64>().ok()).max().unwrap_or(0);
    for o in old.iter().filter(|o| s(o, "/metadata/labels/status") == "deployed") {
        let (n, k) = key(o);
        cx.update("secrets", &n, &k, |o| o["metadata"]["labels"]["status"] = json!("superseded"));
    }
    let version = last + 1;
    let stamp = cx.stamp();
    let manifest: Vec<String> =
        c.objects.iter().map(|o| format!("---\n{}\n", serde_saphyr::to_string(o).unwrap_or_default())).collect();
    let mut body = json!({
        "name": name, "namespace": ns, "version": version,
        "info": {"first_deployed": stamp, "last_deployed": stamp, "deleted": "", "status": "deployed",
            "description": if version == 1 { "Install complete" } else { "Upgrade complete" }},
        "chart": {"metadata": {"name": c.name, "version": c.version, "appVersion": c.version, "apiVersion": "v2"}, "templates": [], "values": {}},
        "manifest": manifest.concat(), "hooks": [],
    });
    if values.as_object().is_some_and(|v| !v.is_empty()) {
        body["config"] = values.clone();
    }
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    let packed = gz.write_all(body.to_string().as_bytes()).and_then(|()| gz.finish()).unwrap_or_default();
    let data = b64(b64(&packed).as_bytes());
    cx.create(json!({"apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {"name": format!("sh.helm.release.v1.{name}.v{version}"), "namespace": ns,
            "labels": {"name": name, "owner": "helm", "status": "deployed", "version": version.to_string(), "modifiedAt": (cx.now() / 1000).to_string()}},
        "data": {"release": data}}));
}

/// All revisions of a release go.
pub fn forget(cx: &mut Cx, name: &str) {
    for o in secrets(cx, "", name) {
        let (n, k) = key(&o);
        cx.delete("secrets", &n, &k);
    }
}
