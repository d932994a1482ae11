//! The Kubernetes API over HTTPS: what kubectl, helm and client libraries talk to.
pub mod auth;
mod counters;
pub mod csr;
pub mod decode;
pub mod discovery;
pub mod evict;
pub mod gojson;
pub mod health;
pub mod hpa;
pub mod jwt;
pub mod listen;
pub mod metrics;
pub mod openapi;
pub mod options;
pub mod patch;
pub mod proto;
pub mod proxy;
pub mod rbac;
pub mod read;
pub mod resize;
pub mod review;
pub mod route;
pub mod scale;
pub mod stream;
pub mod sub;
pub mod table;
pub mod watch;
pub mod write;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

pub use listen::{Servers, announce, listen, stop, withdraw};

use crate::fault::Fault;
use crate::kube::state::Cluster;
use crate::kube::store::Failure;
use crate::pve::trouble::Cut;
use crate::{Client, Lab};
use auth::User;
use route::{Query, Route};

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A request whose body has been read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path without its query.
    pub path: String,
    /// Query.
    pub query: Query,
    /// `Accept`.
    pub accept: String,
    /// `Content-Type` without parameters.
    pub content_type: String,
    /// `User-Agent`.
    pub agent: String,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
    /// The connection, for a client that wants to speak something else on it.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// Whose clock the client lives by.
    pub client: Client,
}

/// Where a request is served and for whom.
#[derive(Clone)]
pub struct Call<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// Cluster.
    pub cluster: &'a str,
    /// Guest whose API server this is.
    pub vmid: u32,
    /// Who asks.
    pub user: User,
    /// What is asked.
    pub req: &'a Request,
}

/// An answer before it becomes bytes.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Body.
    pub body: Value,
    /// Warnings for the client's user.
    pub warnings: Vec<String>,
}

impl Answer {
    /// 200.
    #[must_use]
    pub fn ok(body: Value) -> Answer {
        Answer { code: 200, body, warnings: Vec::new() }
    }
}

/// Text with a status and content type.
#[must_use]
pub fn text(code: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut r = Response::new(Full::new(body.into()).boxed_unsync());
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(v) = http::HeaderValue::from_str(content_type) {
        r.headers_mut().insert(http::header::CONTENT_TYPE, v);
    }
    r
}

/// JSON with a status.
#[must_use]
pub fn json(code: u16, body: &Value) -> Response<Body> {
    text(code, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

fn failed(f: &Failure) -> Response<Body> {
    json(f.code, &f.status())
}

fn answered(a: &Answer, accept: &str) -> Response<Body> {
    let yaml = if read::yaml(accept) { serde_saphyr::to_string(&a.body).ok() } else { None };
    let mut r = match yaml {
        Some(yaml) => text(a.code, "application/yaml", yaml),
        None => json(a.code, &a.body),
    };
    for w in &a.warnings {
        let quoted = w.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(v) = http::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            r.headers_mut().append(http::header::WARNING, v);
        }
    }
    r
}

/// Serves one request. `cert` is who the client certificate names.
pub async fn handle(lab: &Lab, cluster: &str, vmid: u32, cert: Option<User>, req: &Request) -> Response<Body> {
    let mark = lab.enter(req.client);
    let out = serve(lab, cluster, vmid, cert, req).await;
    drop(mark);
    out
}

async fn serve(lab: &Lab, cluster: &str, vmid: u32, cert: Option<User>, req: &Request) -> Response<Body> {
    if let Some(r) = health::anonymous(lab, cluster, req) {
        return r;
    }
    let user = match auth::who(lab, cluster, cert, req) {
        Ok(u) => u,
        Err(f) => return failed(&f),
    };
    let call = Call { lab, cluster, vmid, user, req };
    let route = route::parse(&req.path);
    let known = lab.with(|w| {
        area(&route, req.method.as_str()).iter().for_each(|k| w.meets(k));
        w.clusters.contains_key(cluster)
    });
    if !known {
        return failed(&Failure::new(503, "ServiceUnavailable", "apiserver not ready"));
    }
    match route {
        Route::Health(kind, check) => health::probe(&call, kind, &check),
        _ if !lab.with(|w| crate::kube::hooks::api_up(w, cluster, vmid)) => {
            failed(&Failure::new(500, "InternalError", "etcdserver: request timed out"))
        }
        Route::Version => json(200, &health::version(&call)),
        Route::Unknown if req.path == "/metrics" && may_see(&call, "/metrics") => counters::page(&call),
        Route::OpenApi(path) => openapi::serve(&call, &path),
        Route::Discovery(path) => discovery::serve(&call, &path),
        Route::Object(target) => {
            let fault = struck(&call, &target);
            match trouble(&call, fault.as_ref()).await {
                Some(answer) => answer,
                None => {
                    let answer = object(&call, &target).await;
                    if fault == Some(Fault::DropMid) { cut() } else { answer }
                }
            }
        }
        Route::Unknown => {
            jwt::pages(&call).unwrap_or_else(|| text(404, "text/plain; charset=utf-8", "404 page not found\n"))
        }
    }
}

/// The behaviours that a request meets, for their grades.
fn area(route: &Route, method: &str) -> &'static [&'static str] {
    match route {
        Route::OpenApi(_) => &["kube/api/openapi", "kube/schema"],
        Route::Object(t) if t.group == metrics::GROUP => &["kube/api/metrics"],
        Route::Object(t) if matches!(t.sub.as_deref(), Some("exec" | "attach" | "log" | "portforward")) => {
            &["kube/api/stream", "kube/container"]
        }
        Route::Object(_) if method != "GET" => &["kube/api/", "kube/store", "kube/schema", "kube/api/rbac"],
        _ => &["kube/api/", "kube/api/rbac"],
    }
}

/// Whether the caller may read a path that is no resource.
fn may_see(call: &Call<'_>, path: &str) -> bool {
    let rule = |c: &Cluster| rbac::allowed_path(&c.store, &call.user, "get", path);
    call.user.admin() || call.lab.with(|w| w.clusters.get(call.cluster).is_some_and(rule))
}

/// What goes wrong with a request for objects, if anything does.
fn struck(call: &Call<'_>, t: &route::Target) -> Option<Fault> {
    let op = format!("kube.{}", call.req.method.as_str().to_lowercase());
    let target = [t.plural.as_str(), &t.namespace, t.name.as_deref().unwrap_or_default()].join("/");
    call.lab.faults().strike(&op, &target)
}

/// The connection ends here without an answer.
fn cut() -> Response<Body> {
    let mut r = failed(&Failure::new(500, "InternalError", "the connection was cut by a fault"));
    r.extensions_mut().insert(Cut);
    r
}

/// What a fault does before a request is carried out.
async fn trouble(call: &Call<'_>, fault: Option<&Fault>) -> Option<Response<Body>> {
    match fault? {
        Fault::Http(code) => {
            let reason = match code {
                429 => "TooManyRequests",
                503 => "ServiceUnavailable",
                504 => "Timeout",
                409 => "Conflict",
                _ => "InternalError",
            };
            Some(failed(&Failure::new(*code, reason, "refused by a fault")))
        }
        Fault::Slow(ms) => {
            call.lab.clock().sleep(std::time::Duration::from_millis(*ms)).await;
            None
        }
        Fault::Timeout => {
            call.lab.clock().sleep(crate::pve::trouble::SILENCE).await;
            Some(failed(&Failure::new(504, "Timeout", "etcdserver: request timed out")))
        }
        Fault::Reset => Some(cut()),
        _ => None,
    }
}

async fn object(call: &Call<'_>, target: &route::Target) -> Response<Body> {
    if target.group == metrics::GROUP {
        return match metrics::serve(call, target) {
            Ok(a) => answered(&a, &call.req.accept),
            Err(f) => failed(&f),
        };
    }
    let Some(kind) =
        call.lab.with(|w| w.clusters.get(call.cluster)?.store.kind_at(&target.group, &target.version, &target.plural))
    else {
        return failed(&Failure::no_resource());
    };
    let old = hpa::old(&kind);
    let newer = |c: &Cluster| c.store.kind_at("autoscaling", "v2", &target.plural);
    let kind = match call.lab.with(|w| w.clusters.get(call.cluster).filter(|_| old).and_then(newer)) {
        Some(k) => k,
        None => kind,
    };
    if let Err(f) = rbac::demand(call, &kind, target) {
        return failed(&f);
    }
    if kind.create_only {
        return match review::create(call, &kind, target) {
            Ok(a) => answered(&a, &call.req.accept),
            Err(f) => failed(&f),
        };
    }
    if target.sub.as_deref() == Some("proxy") {
        return proxy::serve(call, &kind, target).await;
    }
    let watching = target.watch || matches!(call.req.query.get("watch"), Some("1" | "true" | "True"));
    if call.req.method == Method::GET && target.sub.is_none() && watching {
        return watch::serve(call, &kind, target).unwrap_or_else(|f| failed(&f));
    }
    if kind.group.is_empty() && kind.plural == "pods" && target.name.is_some() {
        let streamed = match target.sub.as_deref() {
            Some("log") => Some(stream::log::serve(call, &kind, target)),
            Some("exec") => Some(stream::exec::serve(call, &kind, target, false)),
            Some("attach") => Some(stream::exec::serve(call, &kind, target, true)),
            Some("portforward") => Some(stream::forward::serve(call, &kind, target)),
            _ => None,
        };
        if let Some(r) = streamed {
            return r.unwrap_or_else(|f| failed(&f));
        }
    }
    let out = match (call.req.method.as_str(), target.name.is_some(), target.sub.is_some()) {
        ("GET" | "HEAD", true, false) => read::get(call, &kind, target),
        ("GET" | "HEAD", false, _) => read::list(call, &kind, target),
        (_, _, true) => sub::serve(call, &kind, target),
        ("POST", false, _) => write::create(call, &kind, target),
        ("PUT", true, _) => write::replace(call, &kind, target),
        ("PATCH", true, _) => patch::patch(call, &kind, target),
        ("DELETE", true, _) => write::delete(call, &kind, target),
        ("DELETE", false, _) => write::delete_collection(call, &kind, target),
        _ => Err(Failure::not_allowed()),
    };
    match out {
        Ok(mut a) => {
            if old {
                hpa::lower(&mut a.body);
            }
            answered(&a, &call.req.accept)
        }
        Err(f) => failed(&f),
    }
}
