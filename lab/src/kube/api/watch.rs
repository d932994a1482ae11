//! Watches: what happened since a resourceVersion, then what happens, line by line.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gpuhost_stdlib::core::clock::Clock;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::read::{self, Form, namespace};
use super::route::Target;
use super::{Body, Call, Request, options, table};
use crate::Lab;
use crate::kube::schema::Kind;
use crate::kube::store::managers::Shown;
use crate::kube::store::{Change, Failure, Fields, Labels, Op, meta};

/// Whether a request asks for a watch: of one object only in the old form of paths.
#[must_use]
pub fn wanted(req: &Request, t: &Target) -> bool {
    t.watch || t.name.is_none() && req.query.flag("watch")
}

/// How objects of a kind are shown in another group or version than the one that they are kept in.
pub use crate::kube::store::managers::Spoken as Lens;

struct Watcher {
    lab: Lab,
    cluster: String,
    kind: Kind,
    ns: String,
    name: Option<String>,
    labels: Labels,
    fields: Fields,
    form: Form,
    bookmarks: bool,
    seen: u64,
    shape: table::Shape,
    lens: Option<Lens>,
}

/// Serves a watch.
///
/// # Errors
/// 400 for bad selectors, 422 for bad options, 500 for a bad resourceVersion.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target, lens: Option<Lens>) -> Result<Response<Body>, Failure> {
    let q = &call.req.query;
    let form = read::form(call.req)?;
    if read::yaml(&call.req.accept) {
        let why = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        return Err(Failure::new(406, "NotAcceptable", why));
    }
    let (labels, fields) = read::selectors(call, kind)?;
    options::watch(call.req)?;
    let initial = q.get("sendInitialEvents").map(|_| q.flag("sendInitialEvents"));
    let from = match q.text("resourceVersion") {
        None | Some("0") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
            Failure::unforeseen(format!("resourceVersion: Invalid value: \"{text}\": {why}"))
        })?),
    };
    let (items, version, _) = read::selected(call, kind, t)?;
    let mut watcher = Watcher {
        lab: call.lab.clone(),
        cluster: call.cluster.to_owned(),
        kind: kind.clone(),
        ns: namespace(kind, t).to_owned(),
        name: t.name.clone(),
        labels,
        fields,
        form,
        bookmarks: q.flag("allowWatchBookmarks"),
        seen: from.filter(|_| initial != Some(true)).unwrap_or(version),
        shape: table::Shape::of(call),
        lens,
    };
    let mut first = Vec::new();
    if initial.unwrap_or(from.is_none()) {
        for o in items {
            watcher.line("ADDED", &o, &mut first);
        }
    }
    if watcher.bookmarks && initial == Some(true) {
        watcher.bookmark(version, true, &mut first);
    }
    let bell = read::store(call, &kind.resource(), |s| Ok(s.bell()))?;
    let limit = q.text("timeoutSeconds").and_then(|t| t.parse::<u64>().ok()).filter(|s| *s > 0);
    Ok(stream(watcher, first, bell, limit.map(Duration::from_secs)))
}

/// Resolves when the watch has to end, by the client's real clock. It holds no mark: an idle watch stops
/// nobody's time.
async fn ended(limit: Option<Duration>) {
    match limit {
        None => std::future::pending().await,
        Some(d) => Clock::Real.sleep(d).await,
    }
}

/// How long before its end a watch says where it is; a shorter one does not.
const EARLY: Duration = Duration::from_secs(2);

fn stream(
    w: Watcher,
    first: Vec<u8>,
    bell: tokio::sync::watch::Receiver<u64>,
    limit: Option<Duration>,
) -> Response<Body> {
    let stop = w.lab.stop_token();
    let end = Box::pin(ended(limit));
    let state = (w, first, bell, end, false);
    let lines = futures::stream::unfold(state, move |(mut w, mut out, mut bell, mut end, over)| {
        let stop = stop.clone();
        async move {
            if over {
                return None;
            }
            loop {
                let alive = w.more(&mut out);
                if !out.is_empty() || !alive {
                    let bytes = Bytes::from(std::mem::take(&mut out));
                    return Some((Ok::<_, Infallible>(Frame::data(bytes)), (w, out, bell, end, !alive)));
                }
                tokio::select! { biased;
                    () = stop.cancelled() => return None,
                    r = bell.changed() => if r.is_err() { return None },
                    () = &mut end => {
                        if !w.bookmarks || limit.is_none_or(|l| l <= EARLY) {
                            return None;
                        }
                        let seen = w.seen;
                        w.bookmark(seen, false, &mut out);
                        let bytes = Bytes::from(std::mem::take(&mut out));
                        return Some((Ok(Frame::data(bytes)), (w, out, bell, end, true)));
                    }
                }
            }
        }
    });
    let mut r = Response::new(StreamBody::new(lines).boxed_unsync());
    r.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    r
}

impl Watcher {
    fn selects(&self, o: &Value) -> bool {
        (self.ns.is_empty() || meta::namespace(o) == self.ns)
            && self.name.as_deref().is_none_or(|n| meta::name(o) == n)
            && self.labels.matches(o)
            && self.fields.matches(o)
    }

    /// Appends what happened since the last look; false when the watch has to end.
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let (lab, cluster, resource) = (self.lab.clone(), self.cluster.clone(), self.kind.resource());
        let looked = lab.with(|w| {
            let Some(c) = w.clusters.get(&cluster) else { return Err(self.seen) };
            let list: Vec<Change> = c.store.watched(&resource, self.seen)?.cloned().collect();
            Ok((list, c.store.version()))
        });
        let (changes, version) = match looked {
            Ok(seen) => seen,
            Err(oldest) => {
                let status = Failure::expired(format!("too old resource version: {} ({oldest})", self.seen)).status();
                push(out, "ERROR", &status);
                return false;
            }
        };
        self.seen = version.max(self.seen);
        for c in changes {
            let now = self.selects(&c.object);
            let before = c.before.as_ref().is_some_and(|b| self.selects(b));
            match (c.op, before, now) {
                (Op::Added, _, true) | (Op::Modified, false, true) => self.line("ADDED", &c.object, out),
                (Op::Modified, true, true) => self.line("MODIFIED", &c.object, out),
                (Op::Modified, true, false) | (Op::Deleted, _, true) => self.line("DELETED", &c.object, out),
                _ => {}
            }
        }
        true
    }

    fn line(&mut self, what: &str, o: &Arc<Value>, out: &mut Vec<u8>) {
        match self.form {
            Form::Plain => match &self.lens {
                Some(lens) => {
                    let mut shown = (**o).clone();
                    (lens.show)(&lens.kind, &mut shown);
                    push(out, what, &shown);
                }
                None => push(out, what, o),
            },
            Form::Partial | Form::PartialList => push(out, what, &read::partial(o)),
            Form::Table => {
                let rv = meta::text(o, "resourceVersion").to_owned();
                let table = table::of(&self.kind, std::slice::from_ref(o), &rv, self.lab.clock().now_ms(), &self.shape);
                self.shape.headed = false;
                push(out, what, &table);
            }
        }
    }

    fn bookmark(&self, version: u64, initial: bool, out: &mut Vec<u8>) {
        let mut m = json!({"resourceVersion": version.to_string()});
        if initial {
            m["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = self.lens.as_ref().map_or(&self.kind, |l| &l.kind);
        let (kind, version) = match self.form {
            Form::Plain => (shown.kind.clone(), shown.api_version()),
            Form::Partial | Form::PartialList => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Form::Table => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let object = json!({"kind": kind, "apiVersion": version, "metadata": m});
        push(out, "BOOKMARK", &object);
    }
}

/// One line of a watch; the object is written as it is, not copied first.
fn push(out: &mut Vec<u8>, what: &str, object: &Value) {
    out.extend(format!("{{\"type\":\"{what}\",\"object\":").into_bytes());
    let _ = serde_json::to_writer(&mut *out, &Shown::of(object));
    out.extend(b"}\n");
}
