//! `pods/log`: what a container wrote, and what it goes on to write.
use std::convert::Infallible;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{Target, container};
use crate::Lab;
use crate::kube::api::options::number;
use crate::kube::api::{Body, Call, text};
use crate::kube::controllers::status::every;
use crate::kube::schema::Kind;
use crate::kube::schema::rules::{LEAST, forbidden};
use crate::kube::state::Log;
use crate::kube::store::{Cause, Failure, meta};
use crate::kube::text::s;

/// How a client wants to see a log.
#[derive(Debug, Clone, Default)]
struct Options {
    previous: bool,
    stamps: bool,
    since_ms: u64,
    tail: Option<usize>,
    limit: Option<usize>,
}

fn options(call: &Call<'_>, pod: &str) -> Result<Options, Failure> {
    let q = &call.req.query;
    let (tail, limit) = (number(call.req, "tailLines")?, number(call.req, "limitBytes")?);
    let (seconds, time) = (number(call.req, "sinceSeconds")?, q.text("sinceTime"));
    let moment = time.map(|t| {
        meta::parse_time(t).ok_or_else(|| {
            Failure::bad_request(format!(
                "parsing time \"{t}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{t}\" as \"2006\""
            ))
        })
    });
    let moment = moment.transpose()?;
    let mut causes = Vec::new();
    let mut least = |field: &'static str, n: Option<i64>, least: i64, why: &str| {
        causes.extend(n.filter(|n| *n < least).map(|n| Cause::invalid(field, &n.into(), why)));
    };
    least("tailLines", tail, 0, LEAST);
    least("limitBytes", limit, 1, "must be greater than 0");
    if time.is_none() {
        least("sinceSeconds", seconds, 1, "must be greater than 0");
    } else if seconds.is_some() {
        causes.push(forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !causes.is_empty() {
        let kind = Kind { kind: "PodLogOptions".into(), ..Kind::default() };
        return Err(Failure::invalid(&kind, pod, &causes));
    }
    let back = |s: i64| call.lab.clock().now_ms().saturating_sub(u64::try_from(s).unwrap_or(0) * 1000);
    let small = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
    Ok(Options {
        previous: q.flag("previous"),
        stamps: q.flag("timestamps"),
        since_ms: seconds.map(back).or(moment).unwrap_or(0),
        tail: small(tail),
        limit: small(limit),
    })
}

/// Writes lines as the client wants them.
fn shown(lines: &[(u64, String)], o: &Options) -> String {
    let mut out = String::new();
    for (at, line) in lines.iter().filter(|l| l.0 >= o.since_ms) {
        if o.stamps {
            let whole = meta::time(*at);
            out += &format!("{}.{:09}Z ", whole.trim_end_matches('Z'), at % 1000 * 1_000_000);
        }
        out += line;
        out.push('\n');
    }
    out
}

/// Serves a log.
///
/// # Errors
/// 404 for a missing pod, 400 with the kubelet's words, 422 for options that are not valid.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Response<Body>, Failure> {
    if call.req.method != "GET" {
        return Err(Failure::not_allowed());
    }
    let o = options(call, t.name.as_deref().unwrap_or_default())?;
    let (pod, name) = container(call, kind, t)?;
    let (pod_name, uid) = (s(&pod, "/metadata/name").to_owned(), s(&pod, "/metadata/uid").to_owned());
    let log = call.lab.with(|w| {
        let rt = w.clusters.get(call.cluster)?.pods.get(&uid)?;
        Some(rt.log.get(&name).cloned().unwrap_or_default())
    });
    let waiting = |why: &str| {
        Failure::bad_request(format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {why}"))
    };
    let status = every(&pod).find(|c| s(c, "/name") == name).cloned().unwrap_or_default();
    let began = status["state"]["running"].is_object()
        || status["state"]["terminated"].is_object()
        || status["lastState"]["terminated"].is_object();
    let log = match log {
        Some(log) if began || !log.lines.is_empty() => log,
        _ if s(&pod, "/spec/nodeName").is_empty() => {
            // nobody has been asked for it
            return Ok(super::super::text(204, "text/plain", Vec::new()));
        }
        _ => {
            return Err(waiting(match status["state"]["waiting"]["reason"].as_str() {
                Some("ErrImagePull") => "image can't be pulled",
                Some("ImagePullBackOff") => "trying and failing to pull image",
                reason => reason.unwrap_or("ContainerCreating"),
            }));
        }
    };
    if o.previous {
        if !status["lastState"]["terminated"].is_object() {
            let why = format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found");
            return Err(Failure::bad_request(why));
        }
        let lines = if log.previous.is_empty() { &log.lines } else { &log.previous };
        return Ok(text(200, "text/plain", cut(shown(tail(lines, &o), &o), &o)));
    }
    if call.req.query.flag("follow") {
        return Ok(follow(call, uid, name, &o));
    }
    Ok(text(200, "text/plain", cut(shown(tail(&log.lines, &o), &o), &o)))
}

fn tail<'a>(lines: &'a [(u64, String)], o: &Options) -> &'a [(u64, String)] {
    let from = o.tail.map_or(0, |n| lines.len().saturating_sub(n));
    &lines[from..]
}

fn cut(mut text: String, o: &Options) -> String {
    if let Some(n) = o.limit.filter(|n| *n < text.len()) {
        let end = (0..=n).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Where a follower is.
struct Follower {
    lab: Lab,
    cluster: String,
    uid: String,
    container: String,
    o: Options,
    seen: usize,
    last: Option<(u64, String)>,
}

impl Follower {
    /// What is new; `None` when the container has ended and all is told.
    fn more(&mut self) -> Option<String> {
        let (lab, cluster) = (self.lab.clone(), self.cluster.clone());
        let (log, over) = lab.with(|w| {
            let c = w.clusters.get(&cluster)?;
            let rt = c.pods.get(&self.uid)?;
            let pod = c.store.get("pods", &rt.ns, &rt.name);
            let over = pod.is_none_or(|p| {
                let ended = every(p).find(|c| s(c, "/name") == self.container);
                matches!(s(p, "/status/phase"), "Succeeded" | "Failed")
                    || ended.is_some_and(|c| {
                        c["state"]["terminated"].is_object() || s(c, "/state/waiting/reason") == "CrashLoopBackOff"
                    })
            });
            Some((rt.log.get(&self.container).cloned().unwrap_or_default(), over))
        })?;
        let text = self.fresh(&log, over);
        if text.is_empty() && over { None } else { Some(text) }
    }

    fn fresh(&mut self, log: &Log, over: bool) -> String {
        // The log was turned over or shortened: look for where we were.
        let at = self.seen.min(log.lines.len());
        let known = self.last.is_none() || at > 0 && log.lines.get(at - 1) == self.last.as_ref();
        let from =
            if known { at } else { log.lines.iter().rposition(|l| Some(l) == self.last.as_ref()).map_or(0, |i| i + 1) };
        let upto = if log.open && !over { log.lines.len().saturating_sub(1) } else { log.lines.len() };
        let lines = log.lines.get(from..upto).unwrap_or_default();
        self.seen = from + lines.len();
        if let Some(l) = lines.last() {
            self.last = Some(l.clone());
        }
        shown(lines, &self.o)
    }
}

fn follow(call: &Call<'_>, uid: String, container: String, o: &Options) -> Response<Body> {
    let lines = call.lab.with(|w| {
        let rt = w.clusters.get(call.cluster).and_then(|c| c.pods.get(&uid));
        rt.and_then(|rt| rt.log.get(&container)).map_or(0, |l| l.lines.len())
    });
    let seen = o.tail.map_or(0, |n| lines.saturating_sub(n));
    let bell = call.lab.kube().log_bell();
    let stop = call.lab.stop_token();
    let f = Follower {
        lab: call.lab.clone(),
        cluster: call.cluster.to_owned(),
        uid,
        container,
        o: o.clone(),
        seen,
        last: None,
    };
    let changes = call.lab.with(|w| w.clusters.get(call.cluster).map(|c| c.store.bell()));
    let parts = futures::stream::unfold((f, bell, changes), move |(mut f, mut bell, mut changes)| {
        let stop = stop.clone();
        async move {
            loop {
                let text = f.more()?;
                if !text.is_empty() {
                    return Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), (f, bell, changes)));
                }
                let stored = async {
                    match &mut changes {
                        Some(b) => b.changed().await.is_ok(),
                        None => false,
                    }
                };
                tokio::select! {
                    r = bell.changed() => if r.is_err() { return None },
                    more = stored => if !more { return None },
                    () = stop.cancelled() => return None,
                }
            }
        }
    });
    let mut r = Response::new(StreamBody::new(parts).boxed_unsync());
    r.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    r
}
