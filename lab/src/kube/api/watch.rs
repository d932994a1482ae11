//! Watches: what happened since a resourceVersion, then what happens, line by line.
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::read::{self, Form, namespace};
use super::route::Target;
use super::{Body, Call, Request, table};
use crate::Lab;
use crate::kube::schema::Kind;
use crate::kube::store::{Change, Failure, Fields, Labels, Op, meta};

/// Whether a request asks for a watch.
#[must_use]
pub fn wanted(req: &Request, t: &Target) -> bool {
    t.watch || matches!(req.query.get("watch"), Some("1" | "true" | "True"))
}

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
    headed: bool,
}

/// Serves a watch.
///
/// # Errors
/// 400 for bad selectors, 500 for a bad resourceVersion.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Response<Body>, Failure> {
    let q = &call.req.query;
    let labels = Labels::parse(q.text("labelSelector").unwrap_or_default())?;
    let fields = Fields::parse(q.text("fieldSelector").unwrap_or_default(), kind)?;
    let form = read::form(&call.req.accept)?;
    let from = match q.text("resourceVersion") {
        None | Some("0") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            Failure::new(
                500,
                "InternalError",
                format!("Internal error occurred: strconv.ParseUint: parsing \"{text}\": invalid syntax"),
            )
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
        seen: from.unwrap_or(version),
        headed: false,
    };
    let mut first = Vec::new();
    if from.is_none() {
        for o in items {
            watcher.line("ADDED", &o, &mut first);
        }
    }
    if watcher.bookmarks && q.flag("sendInitialEvents") {
        watcher.bookmark(version, true, &mut first);
    }
    let bell = read::store(call, &kind.resource(), |s| Ok(s.bell()))?;
    let limit = q.text("timeoutSeconds").and_then(|t| t.parse::<u64>().ok());
    let until = limit.map(|s| call.lab.clock().now_ms() + s * 1000);
    Ok(stream(watcher, first, bell, until))
}

fn stream(w: Watcher, first: Vec<u8>, bell: tokio::sync::watch::Receiver<u64>, until: Option<u64>) -> Response<Body> {
    let stop = w.lab.stop_token();
    let state = (w, first, bell, false);
    let lines = futures::stream::unfold(state, move |(mut w, mut out, mut bell, ended)| {
        let stop = stop.clone();
        async move {
            if ended {
                return None;
            }
            loop {
                let alive = w.more(&mut out);
                if !out.is_empty() || !alive {
                    let bytes = Bytes::from(std::mem::take(&mut out));
                    return Some((Ok::<_, Infallible>(Frame::data(bytes)), (w, out, bell, !alive)));
                }
                if until.is_some_and(|u| w.lab.clock().now_ms() >= u) {
                    return None;
                }
                // An idle watch holds no mark and no timer: the next write wakes it.
                tokio::select! {
                    r = bell.changed() => if r.is_err() { return None },
                    () = stop.cancelled() => return None,
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
        let (changes, version) = lab.with(|w| match w.clusters.get(&cluster) {
            None => (None, 0),
            Some(c) => {
                let list: Option<Vec<Change>> =
                    c.store.since(self.seen).map(|l| l.filter(|x| *x.resource == *resource).cloned().collect());
                (list, c.store.version())
            }
        });
        let Some(changes) = changes else {
            let status = Failure::expired(format!("too old resource version: {} ({version})", self.seen)).status();
            push(out, &json!({"type": "ERROR", "object": status}));
            return false;
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
        if self.bookmarks && !out.is_empty() {
            self.bookmark(self.seen, false, out);
        }
        true
    }

    fn line(&mut self, what: &str, o: &Arc<Value>, out: &mut Vec<u8>) {
        let object = match self.form {
            Form::Plain => (**o).clone(),
            Form::Partial => read::partial(o),
            Form::Table => {
                let first = !std::mem::replace(&mut self.headed, true);
                let rv = meta::text(o, "resourceVersion").to_owned();
                table::of(&self.kind, std::slice::from_ref(o), &rv, self.lab.clock().now_ms(), first)
            }
        };
        push(out, &json!({"type": what, "object": object}));
    }

    fn bookmark(&self, version: u64, initial: bool, out: &mut Vec<u8>) {
        let mut m = json!({"resourceVersion": version.to_string()});
        if initial {
            m["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": m});
        push(out, &json!({"type": "BOOKMARK", "object": object}));
    }
}

fn push(out: &mut Vec<u8>, line: &Value) {
    out.extend(line.to_string().into_bytes());
    out.push(b'\n');
}
