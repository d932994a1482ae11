//! What every answer has: the headers of the API server's filters, indented JSON for people, large answers packed; the
//! hashes of documents that clients keep. Grade: source (the
//! filters of k8s.io/apiserver).
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;
use sha2::Digest as _;

use super::auth::User;
use super::{Body, Request, text, whole};
use crate::Lab;
use crate::kube::store::meta;
use crate::kube::text::{hex, sha256};

/// Most bytes of a body.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// Whether JSON is indented: on demand, or for programs that people read the answers of.
fn pretty(req: &Request) -> bool {
    match req.query.text("pretty") {
        Some(v) => matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| req.agent.starts_with(p)),
    }
}

/// The number of an audit event: the client's own, or a new one.
fn audit_id(req: &Request) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let given = req.headers.iter().find(|(k, v)| k == "audit-id" && !v.is_empty()).map(|(_, v)| v.clone());
    given.unwrap_or_else(|| {
        let hash = sha256(&format!("{}{}", req.path, COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut bytes = [0u8; 16];
        bytes.iter_mut().zip(hash.bytes()).for_each(|(b, h)| *b = h);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    })
}

/// The FlowSchema that a user's requests fall under.
fn flow_of(user: &User) -> &'static str {
    let is = |g: &str| user.groups.iter().any(|x| x == g);
    match user.name.as_str() {
        _ if is("system:masters") => "exempt",
        _ if is("system:nodes") => "system-nodes",
        "system:kube-controller-manager" => "kube-controller-manager",
        "system:kube-scheduler" => "kube-scheduler",
        _ if is("system:serviceaccounts:kube-system") => "kube-system-service-accounts",
        _ if is("system:serviceaccounts") => "service-accounts",
        _ => "global-default",
    }
}

/// Uids of the FlowSchema and of the priority level of a user's requests.
fn flow(lab: &Lab, cluster: &str, user: &User) -> Option<(String, String)> {
    lab.with(|w| {
        let store = &w.clusters.get(cluster)?.store;
        let schema = store.get("flowschemas.flowcontrol.apiserver.k8s.io", "", flow_of(user))?;
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str()?;
        let level = store.get("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", "", level)?;
        Some((meta::uid(schema).to_owned(), meta::uid(level).to_owned()))
    })
}

/// Completes an answer to `user`, if somebody was known.
pub async fn complete(
    lab: &Lab,
    cluster: &str,
    user: Option<&User>,
    req: &Request,
    mut r: Response<Body>,
) -> Response<Body> {
    if r.status() == StatusCode::SWITCHING_PROTOCOLS {
        return r;
    }
    let mut put = |name: &'static str, value: &str| {
        if let Ok(v) = HeaderValue::from_str(value) {
            r.headers_mut().insert(name, v);
        }
    };
    put("audit-id", &audit_id(req));
    if let Some((schema, level)) = user.and_then(|u| flow(lab, cluster, u)) {
        put("x-kubernetes-pf-flowschema-uid", &schema);
        put("x-kubernetes-pf-prioritylevel-uid", &level);
    }
    if req.method == http::Method::HEAD {
        *r.body_mut() = whole(bytes::Bytes::new());
    }
    // whoever answers may have said better
    let careful = HeaderValue::from_static("no-cache, private");
    r.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(careful);
    let kind = r.headers().get(http::header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or_default();
    let json = kind == "application/json";
    let packs = json || kind.starts_with("application/json;") || kind == "application/yaml";
    // a watch has no end to wait for
    let Some(size) = r.body().size_hint().exact() else { return r };
    let packs = packs && size > PACKED && takes_gzip(req);
    if !(packs || json && pretty(req)) {
        return r;
    }
    let (mut head, body) = r.into_parts();
    let mut bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if json && pretty(req) {
        let shown = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| serde_json::to_vec_pretty(&v).ok());
        bytes = shown.map_or(bytes, Into::into);
    }
    if let Some(packed) = packs.then(|| gzip(&bytes)).flatten() {
        head.headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        head.headers.append(http::header::VARY, HeaderValue::from_static("Accept-Encoding"));
        bytes = packed.into();
    }
    Response::from_parts(head, whole(bytes))
}

/// Answers from this size on are packed for clients that can unpack them.
const PACKED: u64 = 128 * 1024;

fn takes_gzip(req: &Request) -> bool {
    let asked = req.headers.iter().filter(|(k, _)| k == "accept-encoding").flat_map(|(_, v)| v.split(','));
    asked.map(|e| e.split(';').next().unwrap_or_default().trim()).any(|e| e == "gzip")
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    z.write_all(bytes).ok()?;
    z.finish().ok()
}

/// The hash by which clients know a document again.
pub(super) fn hash(document: &[u8]) -> String {
    hex(&sha2::Sha512::digest(document)).to_uppercase()
}

/// A document with its own hash.
pub(super) fn document(req: &Request, content_type: &str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let body = body.into();
    let hash = hash(&body);
    tagged(req, text(200, content_type, body), &hash)
}

/// An answer with the hash of its document; 304 for a client that has it already.
pub(super) fn tagged(req: &Request, mut r: Response<Body>, hash: &str) -> Response<Body> {
    let tag = format!("\"{hash}\"");
    let has = req.headers.iter().any(|(k, v)| k == "if-none-match" && v.split(',').any(|t| t.trim() == tag));
    if has {
        *r.status_mut() = StatusCode::NOT_MODIFIED;
        *r.body_mut() = whole(bytes::Bytes::new());
        r.headers_mut().remove(http::header::CONTENT_TYPE);
    }
    if let Ok(v) = HeaderValue::from_str(&tag) {
        r.headers_mut().insert(http::header::ETAG, v);
    }
    r
}
