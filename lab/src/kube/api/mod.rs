//! The Kubernetes API over HTTPS: what kubectl, helm and client libraries talk to.
pub mod auth;
mod components;
mod counters;
pub mod csr;
pub mod decode;
pub mod discovery;
pub mod escalation;
pub(crate) mod events;
pub mod evict;
mod finish;
mod gnostic;
pub mod gojson;
pub mod health;
pub mod hpa;
pub mod jwt;
mod kubelet;
pub mod listen;
pub mod metrics;
pub mod openapi;
pub mod options;
pub mod patch;
pub mod proto;
pub mod proxy;
mod published;
pub mod rbac;
pub mod read;
pub mod resize;
pub mod review;
pub mod route;
pub mod scale;
pub mod stream;
pub mod sub;
pub mod table;
mod tokenkey;
mod typing;
pub mod watch;
mod words;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

pub use listen::{Servers, announce, listen, stop, withdraw};

use crate::fault::Fault;
use crate::kube::schema::Kind;
use crate::kube::state::Cluster;
use crate::kube::store::Failure;
use crate::kube::store::managers::Shown;
use crate::pve::trouble::Cut;
use crate::world::World;
use crate::{Client, Lab};
use auth::User;
use route::{Query, Route};
use watch::Lens;

use crate::kube::text::sorted;

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

/// The media type of a `Content-Type` header, without its parameters.
#[must_use]
pub fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
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
    /// The form that the client speaks, where objects are kept in another one.
    pub lens: Option<Lens>,
}

impl Call<'_> {
    /// The minor version of the cluster's Kubernetes.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.lab.with(|w| w.clusters.get(self.cluster).map_or(0, |c| super::k3s::node::minor(&c.version)))
    }
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
    let mut r = Response::new(whole(body.into()));
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(v) = http::HeaderValue::from_str(content_type) {
        r.headers_mut().insert(http::header::CONTENT_TYPE, v);
    }
    if content_type == "text/plain; charset=utf-8" {
        r.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    }
    r
}

/// A body that is there as a whole.
fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// JSON with a status.
#[must_use]
pub fn json(code: u16, body: &Value) -> Response<Body> {
    text(code, "application/json", line(body))
}

/// A value as JSON, with the end of a line.
fn line(body: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&Shown::of(body)).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn failed(f: &Failure) -> Response<Body> {
    let mut r = json(f.code, &f.status());
    let again = f.details.as_ref().and_then(|d| d["retryAfterSeconds"].as_u64()).filter(|s| *s > 0);
    if let Some(seconds) = again {
        r.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    f.warnings.iter().for_each(|w| warn(&mut r, w));
    r
}

/// Adds a warning for the client's user.
fn warn(r: &mut Response<Body>, text: &str) {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(v) = http::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        r.headers_mut().append(http::header::WARNING, v);
    }
}

/// A body as JSON or, with its keys in order, as YAML.
pub(crate) fn spoken(code: u16, body: &Value, yaml: bool) -> Response<Body> {
    let told = || serde_json::to_value(Shown::of(body)).ok().and_then(|v| serde_saphyr::to_string(&sorted(&v)).ok());
    match if yaml { told() } else { None } {
        Some(yaml) => text(code, "application/yaml", yaml),
        None => json(code, body),
    }
}

fn answered(a: &Answer, accept: &str) -> Response<Body> {
    let mut r = spoken(a.code, &a.body, read::yaml(accept));
    a.warnings.iter().for_each(|w| warn(&mut r, w));
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
        Err(f) => return finish::complete(lab, cluster, None, req, failed(&f)).await,
    };
    let call = Call { lab, cluster, vmid, user, req, lens: None };
    let r = routed(&call).await;
    finish::complete(lab, cluster, Some(&call.user), req, r).await
}

async fn routed(call: &Call<'_>) -> Response<Body> {
    let Call { lab, cluster, vmid, req, .. } = *call;
    if req.body.len() > finish::LIMIT {
        let why = format!("Request entity too large: limit is {}", finish::LIMIT);
        return failed(&Failure::new(413, "RequestEntityTooLarge", why));
    }
    let route = route::parse(&req.path);
    let known = lab.with(|w| {
        area(&route, req.method.as_str()).iter().for_each(|k| w.meets(k));
        w.clusters.contains_key(cluster)
    });
    if !known {
        return failed(&Failure::new(503, "ServiceUnavailable", "apiserver not ready"));
    }
    match route {
        Route::Health(kind, check) => health::probe(call, kind, &check),
        _ if rbac::path_refused(call, &route).is_some() => {
            rbac::path_refused(call, &route).map_or_else(no_page, |f| failed(&f))
        }
        _ if !lab.with(|w| crate::kube::hooks::api_up(w, cluster, vmid)) => {
            failed(&Failure::new(500, "InternalError", "etcdserver: request timed out"))
        }
        // these are routes for GET alone; the lists of groups answer whatever they are asked with
        Route::Version | Route::Discovery(_) if req.method != Method::GET && !discovery::answers_all(&req.path) => {
            failed(&Failure::not_allowed())
        }
        Route::Version => json(200, &health::version(call)),
        Route::Discovery(ref path) if !discovery::speaks(req) => failed(&read::unspoken(path)),
        Route::Unknown if req.path == "/metrics" && may_see(call, "/metrics") => counters::page(call),
        Route::OpenApi(path) => openapi::serve(call, &path),
        Route::Discovery(path) => discovery::serve(call, &path),
        Route::Object(target) => {
            let fault = struck(call, &target);
            match trouble(call, fault.as_ref()).await {
                Some(answer) => answer,
                None => {
                    let mut r = object(call, &target).await;
                    let found = r.status() != StatusCode::FORBIDDEN && r.status() != StatusCode::UNAUTHORIZED;
                    if let Some(w) = deprecated(call, &target).filter(|_| found) {
                        warn(&mut r, &w);
                    }
                    if fault == Some(Fault::DropMid) { cut() } else { r }
                }
            }
        }
        Route::Unknown => jwt::pages(call).unwrap_or_else(no_page),
    }
}

/// A path that nobody serves.
fn no_page() -> Response<Body> {
    text(404, "text/plain; charset=utf-8", "404 page not found\n")
}

/// A resource that nobody serves: groups of the server's own say so in their form, all others are no paths at all.
fn unserved(group: &str) -> Response<Body> {
    let own = group == metrics::GROUP || crate::kube::schema::kinds::builtin().iter().any(|k| k.group == group);
    if own { failed(&Failure::no_resource()) } else { no_page() }
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

/// What is said about kinds on their way out.
fn deprecated(call: &Call<'_>, t: &route::Target) -> Option<String> {
    match (t.group.as_str(), t.version.as_str(), t.plural.as_str()) {
        ("", "v1", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned())
        }
        ("", "v1", "componentstatuses") if call.req.method == Method::GET => {
            Some("v1 ComponentStatus is deprecated in v1.19+".to_owned())
        }
        _ => call
            .lab
            .with(|w| w.clusters.get(call.cluster)?.store.kind_at(&t.group, &t.version, &t.plural)?.outdated.clone()),
    }
}

/// How a kind is kept, and the lens that shows it as it was asked for.
fn kept_as(call: &Call<'_>, shown: &Arc<Kind>) -> (Arc<Kind>, Option<Lens>) {
    let (group, version, show): (&str, &str, fn(&Kind, &mut Value)) = if hpa::old(shown) {
        ("autoscaling", "v2", |_, o| hpa::lower(o))
    } else if events::fresh(shown) {
        ("", "v1", |_, o| events::lower(o))
    } else if shown.several {
        return (shown.clone(), Some(Lens { kind: (**shown).clone(), show: in_version }));
    } else {
        return (shown.clone(), None);
    };
    match call.lab.with(|w| w.clusters.get(call.cluster)?.store.kind_at(group, version, &shown.plural)) {
        Some(kept) => (kept, Some(Lens { kind: (**shown).clone(), show })),
        None => (shown.clone(), None),
    }
}

/// Objects of a custom kind are the same in all its versions, but for the name of the version.
fn in_version(shown: &Kind, o: &mut Value) {
    for item in o.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        in_version(shown, item);
    }
    if o["kind"] == shown.kind.as_str() {
        o["apiVersion"] = shown.api_version().into();
        // a version shows what it declares
        crate::kube::schema::typed::declared(shown, o);
    }
}

async fn object(call: &Call<'_>, target: &route::Target) -> Response<Body> {
    let told = |r: Result<Answer, Failure>| match r {
        Ok(a) => answered(&a, &call.req.accept),
        Err(f) => failed(&f),
    };
    if target.group == metrics::GROUP {
        return told(metrics::serve(call, target));
    }
    let found = |w: &mut World| {
        let c = w.clusters.get(call.cluster)?;
        c.store.kind_at(&target.group, &target.version, &target.plural).filter(|k| c.serves(k))
    };
    let Some(shown) = call.lab.with(found) else {
        // whether somebody may comes before whether it is there
        let asked = Kind { group: target.group.clone(), plural: target.plural.clone(), ..Kind::default() };
        return rbac::demand(call, &asked, target).map_or_else(|f| failed(&f), |()| unserved(&target.group));
    };
    if let Err(f) = rbac::demand(call, &shown, target) {
        return failed(&f);
    }
    let reads = matches!(call.req.method.as_str(), "GET" | "HEAD");
    match (shown.namespaced, target.namespace.is_empty()) {
        (false, false) => return unserved(&target.group),
        (true, true) if target.name.is_some() || shown.kind == "Binding" => return unserved(&target.group),
        // all namespaces together are only read
        (true, true) if !reads && shown.custom => return no_page(),
        (true, true) if !reads => return failed(&Failure::not_allowed()),
        _ => {}
    }
    // only what is behind a proxy knows HEAD
    if call.req.method == Method::HEAD && target.sub.as_deref() != Some("proxy") {
        return failed(&Failure::not_allowed());
    }
    if shown.create_only && target.name.is_some() {
        return unserved(&target.group);
    }
    if shown.create_only {
        let binding = shown.kind == "Binding" && call.req.method == Method::POST && target.name.is_none();
        let reviewed = || review::create(call, &shown, target);
        return told(if binding { sub::bind(call, target) } else { reviewed() });
    }
    if shown.read_only {
        return told(components::serve(call, &shown, target));
    }
    let (kind, lens) = kept_as(call, &shown);
    let other = lens.clone().filter(|l| l.kind.api_version() != kind.api_version());
    let call = &Call { lens: other, ..call.clone() };
    let raised = if events::fresh(&shown) {
        events::raised(call.req)
    } else {
        let old = hpa::old(&shown) && call.req.method == Method::PATCH;
        Ok(old.then(|| decode::rewritten(call.req, hpa::raise_patch)).flatten())
    };
    match raised {
        Ok(None) => kept(call, &kind, target, lens).await,
        Ok(Some(req)) => kept(&Call { req: &req, ..call.clone() }, &kind, target, lens).await,
        Err(f) => failed(&f),
    }
}

/// Serves what is kept as `kind`.
async fn kept(call: &Call<'_>, kind: &Kind, target: &route::Target, lens: Option<Lens>) -> Response<Body> {
    if target.sub.as_deref() == Some("proxy") {
        return proxy::serve(call, kind, target).await;
    }
    if call.req.method == Method::GET && target.sub.is_none() && watch::wanted(call.req, target) {
        return watch::serve(call, kind, target, lens).unwrap_or_else(|f| failed(&f));
    }
    if kind.group.is_empty() && kind.plural == "pods" && target.name.is_some() {
        let streamed = match target.sub.as_deref() {
            Some("log") => Some(stream::log::serve(call, kind, target)),
            Some("exec") => Some(stream::exec::serve(call, kind, target, false)),
            Some("attach") => Some(stream::exec::serve(call, kind, target, true)),
            Some("portforward") => Some(stream::forward::serve(call, kind, target)),
            _ => None,
        };
        if let Some(r) = streamed {
            return r.unwrap_or_else(|f| failed(&f));
        }
    }
    match once(call, kind, target) {
        Ok(mut a) => {
            if let Some(lens) = &lens {
                (lens.show)(&lens.kind, &mut a.body);
            }
            answered(&a, &call.req.accept)
        }
        Err(f) => failed(&f),
    }
}

/// A request with one answer.
fn once(call: &Call<'_>, kind: &Kind, target: &route::Target) -> Result<Answer, Failure> {
    let form = if target.sub.is_some() { read::form(call.req) } else { read::offered(call, kind) }?;
    let mut a = match (call.req.method.as_str(), target.name.is_some(), target.sub.is_some()) {
        ("GET", true, false) => return read::get(call, kind, target),
        ("GET", false, _) => return read::list(call, kind, target),
        (_, _, true) => sub::serve(call, kind, target),
        ("POST", false, _) => write::create(call, kind, target),
        ("PUT", true, _) => write::replace(call, kind, target),
        ("PATCH", true, _) => patch::patch(call, kind, target),
        ("DELETE", true, _) => write::delete(call, kind, target),
        ("DELETE", false, _) => write::delete_collection(call, kind, target),
        _ => Err(Failure::not_allowed()),
    }?;
    if target.sub.is_none() {
        read::shaped(call, kind, form, &mut a.body)?;
    }
    Ok(a)
}
