//! OpenAPI v3 and v2: the schemas of built-in and custom kinds, for validation and `kubectl explain`.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Response;
use serde_json::{Map, Value, json};

use super::finish::{self, hash, tagged};
use super::{Body, Call, gnostic, json as reply, line, no_page, published, text};
use crate::kube::schema::{Kind, builtin};

/// Serves `/openapi/v3` and the documents below it.
pub fn serve(call: &Call<'_>, path: &str) -> Response<Body> {
    let kinds: Vec<Arc<Kind>> = call.lab.with(|w| {
        w.clusters
            .get(call.cluster)
            .map(|c| c.store.kinds().filter(|k| c.serves(k)).cloned().collect())
            .unwrap_or_default()
    });
    let place = |k: &Kind| {
        if k.group.is_empty() { format!("api/{}", k.version) } else { format!("apis/{}/{}", k.group, k.version) }
    };
    let path = path.trim_end_matches('/');
    if path == "/openapi/v2" {
        return second(call, &kinds);
    }
    // what a group's document says follows from its kinds
    let tag = |mine: &[&Arc<Kind>]| hash(format!("{mine:?}").as_bytes());
    if path == "/openapi/v3" {
        let mut by: BTreeMap<String, Vec<&Arc<Kind>>> = BTreeMap::new();
        kinds.iter().for_each(|k| by.entry(place(k)).or_default().push(k));
        let entry = |(p, mine): (String, Vec<_>)| {
            let url = format!("/openapi/v3/{p}?hash={}", tag(&mine));
            (p, json!({"serverRelativeURL": url}))
        };
        let body = json!({"paths": by.into_iter().map(entry).collect::<Map<_, _>>()});
        return finish::document(call.req, "application/json", line(&body));
    }
    let Some(want) = path.strip_prefix("/openapi/v3/") else {
        return no_page();
    };
    let mine: Vec<&Arc<Kind>> = kinds.iter().filter(|k| place(k) == want).collect();
    if mine.is_empty() {
        return text(404, "text/plain; charset=utf-8", "");
    }
    let now = tag(&mine);
    let known = call.req.query.text("hash").map(|h| h == now);
    if known == Some(false) {
        let mut r = text(301, "text/plain; charset=utf-8", "");
        if let Ok(v) = http::HeaderValue::from_str(&format!("{path}?hash={now}")) {
            r.headers_mut().insert(http::header::LOCATION, v);
        }
        return r;
    }
    let mut r = tagged(call.req, reply(200, &document(&mine, want)), &now);
    if known == Some(true) {
        let kept = http::HeaderValue::from_static("public, immutable");
        r.headers_mut().insert(http::header::CACHE_CONTROL, kept);
    }
    r
}

/// OpenAPI v2, as JSON or protobuf: one document for everything.
fn second(call: &Call<'_>, kinds: &[Arc<Kind>]) -> Response<Body> {
    let accept = &call.req.accept;
    let speaks = |m: &str| accept.split(',').any(|p| p.split(';').next().unwrap_or_default().trim() == m);
    let protobuf = speaks(gnostic::ASKED);
    if !protobuf && !accept.is_empty() && !["application/json", "*/*", "application/*"].iter().any(|m| speaks(m)) {
        return text(406, "text/plain; charset=utf-8", "406 Not Acceptable\n");
    }
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for k in kinds.iter().filter(|k| !k.create_only) {
        let place =
            if k.group.is_empty() { format!("api/{}", k.version) } else { format!("apis/{}/{}", k.group, k.version) };
        let name = schema_of(k, V2, &mut definitions);
        let scope = if k.namespaced { "/namespaces/{namespace}" } else { "" };
        let schema = json!({"$ref": format!("{V2}{name}")});
        let query = |n: &str| json!({"name": n, "in": "query", "type": "string", "uniqueItems": true});
        let op = |action: &str| {
            json!({"consumes": ["*/*"], "produces": ["application/json", "application/yaml"], "schemes": ["https"],
                "parameters": [{"name": "body", "in": "body", "schema": schema}, query("dryRun"), query("fieldManager"),
                    query("fieldValidation")],
                "responses": {"200": {"description": "OK", "schema": schema}},
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(k)})
        };
        let get = json!({"produces": ["application/json", "application/yaml"], "schemes": ["https"],
            "responses": {"200": {"description": "OK", "schema": schema}}, "x-kubernetes-action": "get",
            "x-kubernetes-group-version-kind": gvk(k)});
        paths.insert(format!("/{place}{scope}/{}", k.plural), json!({"post": op("post")}));
        paths.insert(
            format!("/{place}{scope}/{}/{{name}}", k.plural),
            json!({"get": get, "patch": op("patch"), "put": op("put")}),
        );
    }
    let version = super::health::version(call)["gitVersion"].clone();
    let body = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "definitions": definitions});
    let (form, bytes) =
        if protobuf { (gnostic::TYPE, gnostic::encode(&body)) } else { ("application/json", line(&body)) };
    finish::document(call.req, form, bytes)
}

/// Where references of the two forms point to.
const V3: &str = "#/components/schemas/";
const V2: &str = "#/definitions/";

fn gvk(k: &Kind) -> Value {
    json!({"group": k.group, "version": k.version, "kind": k.kind})
}

/// Adds the schema of a kind with all it refers to; gives its name.
fn schema_of(k: &Kind, prefix: &str, out: &mut Map<String, Value>) -> String {
    let name = if k.type_name.is_empty() {
        format!("{}.{}.{}", k.group.split('.').rev().collect::<Vec<_>>().join("."), k.version, k.kind)
    } else {
        k.type_name.clone()
    };
    let mut seen = BTreeSet::new();
    if let Some(schema) = &k.schema {
        let mut schema = (**schema).clone();
        published::with_what_all_have(&mut schema);
        let mut names = Vec::new();
        out.insert(name.clone(), rewrite(&schema, prefix, &mut names));
        names.iter().for_each(|n| collect(n, prefix, out, &mut seen));
    } else {
        collect(&name, prefix, out, &mut seen);
    }
    if let Some(s) = out.get_mut(&name) {
        s["x-kubernetes-group-version-kind"] = json!([gvk(k)]);
    }
    name
}

fn document(kinds: &[&Arc<Kind>], place: &str) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for k in kinds.iter().filter(|k| !k.create_only) {
        let name = schema_of(k, V3, &mut schemas);
        let reference = json!({"$ref": format!("{V3}{name}")});
        let scope = if k.namespaced { "/namespaces/{namespace}" } else { "" };
        let body = json!({"content": {"application/json": {"schema": reference}}});
        let query = |names: &[&str]| -> Vec<Value> {
            names
                .iter()
                .map(|n| json!({"name": n, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
                .collect()
        };
        let params = query(&["dryRun", "fieldManager", "fieldValidation"]);
        let op = |action: &str| {
            json!({"parameters": params, "requestBody": body, "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(k)})
        };
        paths.insert(format!("/{place}{scope}/{}", k.plural), json!({"post": op("post")}));
        paths.insert(format!("/{place}{scope}/{}/{{name}}", k.plural), json!({"patch": op("patch"), "put": op("put")}));
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "lab"}, "paths": paths, "components": {"schemas": schemas}})
}

/// A built-in type and every type it refers to.
fn collect(name: &str, prefix: &str, out: &mut Map<String, Value>, seen: &mut BTreeSet<String>) {
    if !seen.insert(name.to_owned()) || out.contains_key(name) {
        return;
    }
    let Some(def) = builtin::definition(name) else { return };
    let mut names = Vec::new();
    let def = rewrite(def, prefix, &mut names);
    out.insert(name.to_owned(), published::of(name, def));
    for n in names {
        collect(&n, prefix, out, seen);
    }
}

/// Points references at this document's schemas and notes them.
fn rewrite(v: &Value, prefix: &str, names: &mut Vec<String>) -> Value {
    match v {
        Value::Object(m) => m
            .iter()
            .map(|(k, x)| match (k.as_str(), x.as_str()) {
                ("$ref", Some(r)) => {
                    let name = r.rsplit('/').next().unwrap_or_default().to_owned();
                    names.push(name.clone());
                    (k.clone(), json!(format!("{prefix}{name}")))
                }
                _ => (k.clone(), rewrite(x, prefix, names)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(a) => a.iter().map(|x| rewrite(x, prefix, names)).collect(),
        other => other.clone(),
    }
}
