//! Logs of pods: read once, of one container or of all, or line by line while they are written.
use serde_json::Value;

use super::Cluster;
use super::rest::{Reply, Request, escape, query};
use super::watch::Lines;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::options::{Field, refuse_unknown};
use crate::core::units::Duration;
use crate::options;

options! {
    /// Which log to read.
    pub struct LogOptions {
        /// Namespace of the pod.
        namespace: String = String::new(),
        /// Container; needed only when the pod has several.
        container: String = String::new(),
        /// How many lines from the end.
        tail: i64 = 200,
    }
}

options! {
    /// Which part of a log to read, and how.
    pub struct LogRange {
        /// The log of the container's run before, as after a crash.
        previous: bool = false,
        /// Only what was written within this time.
        since: Option<Duration> = None,
        /// The time of each line before it.
        timestamps: bool = false,
        /// Every container of the pod, init containers first; each line begins with `[container]`.
        all_containers: bool = false,
        /// With a closure: how long to wait for what it looks for.
        timeout: Duration = Duration::minutes(10),
    }
}

/// What `logs` takes.
pub(super) const LOG_FIELDS: &[Field] = &{
    let (a, b) = (LogOptions::FIELDS, LogRange::FIELDS);
    [a[0], a[1], a[2], b[0], b[1], b[2], b[3], b[4]]
};

/// Reads both parts of a script's map.
///
/// # Errors
/// `invalid` naming the option at fault.
pub(super) fn log_options(map: &rhai::Map) -> OpResult<(LogOptions, LogRange)> {
    refuse_unknown(map, LOG_FIELDS)?;
    let part = |fields: &[Field]| -> rhai::Map {
        let own = map.iter().filter(|(k, _)| fields.iter().any(|f| f.name == k.as_str()));
        own.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let (o, part) = (LogOptions::read(&part(LogOptions::FIELDS))?, LogRange::read(&part(LogRange::FIELDS))?);
    if part.all_containers && !o.container.is_empty() {
        return Err(OpError::invalid("options `container` and `all_containers` exclude each other"));
    }
    Ok((o, part))
}

/// The path of a log.
fn path(pod: &str, o: &LogOptions, part: &LogRange, follow: bool) -> String {
    let since = part.since.as_ref().map(|d| d.0.as_secs().max(1).to_string()).unwrap_or_default();
    let yes = |b: bool| if b { "true" } else { "" };
    let q = query(&[
        ("container", &o.container),
        ("follow", yes(follow)),
        ("previous", yes(part.previous)),
        ("sinceSeconds", &since),
        ("tailLines", &o.tail.to_string()),
        ("timestamps", yes(part.timestamps)),
    ]);
    format!("/api/v1/namespaces/{}/pods/{}/log{q}", escape(room(o)), escape(pod))
}

/// The namespace that is meant.
fn room(o: &LogOptions) -> &str {
    if o.namespace.is_empty() { "default" } else { &o.namespace }
}

/// A refusal, with what to do about the usual ones.
fn refused(reply: &Reply, pod: &str, o: &LogOptions) -> OpError {
    let e = reply.error(&format!("log of pod {}/{pod}", room(o)));
    let said = e.causes.first().cloned().unwrap_or_default();
    if said.contains("container name must be specified") {
        return e.hint("choose one: `#{ container: \"NAME\" }`, or all of them: `#{ all_containers: true }`");
    }
    if said.contains("previous terminated container") {
        return e.hint("it runs for the first time: leave `previous` out");
    }
    if said.contains("is waiting to start") || said.contains("does not have a host assigned") {
        let call = format!("cluster.explain_pending(\"{}\", \"{pod}\")", room(o));
        return e.hint(format!("it has not written anything yet; why it does not run: `{call}`"));
    }
    e
}

/// Names of a pod's containers, in the order they start.
fn containers(pod: &Value) -> Vec<String> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let all = lists.iter().flat_map(|l| pod["spec"][l].as_array().into_iter().flatten());
    all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

/// A log while it is written.
pub(super) struct Followed {
    lines: Lines,
    end: u64,
    what: String,
    last: String,
}

impl Followed {
    /// The next line; `None` when the container has ended.
    ///
    /// # Errors
    /// `timeout` with the last line; `unreachable` when the connection broke.
    pub(super) async fn next(&mut self, ctx: &Ctx) -> OpResult<Option<String>> {
        use futures::AsyncBufReadExt;
        ctx.check_cancelled()?;
        let left = self.end.saturating_sub(ctx.clock.now_ms().await);
        let mut line = Vec::new();
        let read = tokio::select! { biased;
            n = self.lines.read_until(b'\n', &mut line) => n,
            () = ctx.clock.sleep(std::time::Duration::from_millis(left)) => {
                let e = OpError::timeout(format!("{} did not show what was waited for", self.what));
                return Err(if self.last.is_empty() { e.last_seen("no line") } else { e.last_seen(self.last.clone()) });
            }
        };
        match read {
            Ok(0) => Ok(None),
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                self.last.clone_from(&line);
                Ok(Some(line))
            }
            Err(e) => Err(OpError::unreachable("the connection broke").on(&self.what).because(e.to_string())),
        }
    }
}

impl Cluster {
    /// The log of a pod; empty text when it has not started.
    ///
    /// # Errors
    /// `not_found`, `unreachable`.
    pub async fn pod_log(&self, ctx: &Ctx, pod: &str, o: &LogOptions) -> OpResult<String> {
        self.pod_log_of(ctx, pod, o, &LogRange::read(&rhai::Map::new())?).await
    }

    /// Part of the log of a pod.
    ///
    /// # Errors
    /// `not_found`; `invalid` when there was no run before; `unreachable`.
    pub async fn pod_log_of(&self, ctx: &Ctx, pod: &str, o: &LogOptions, part: &LogRange) -> OpResult<String> {
        if part.all_containers {
            return self.all_logs_of(ctx, pod, o, part).await;
        }
        let reply = self.send(ctx, &Request::get(path(pod, o, part, false))).await?;
        if reply.ok() { Ok(reply.text()) } else { Err(refused(&reply, pod, o)) }
    }

    /// The logs of all containers that have one.
    async fn all_logs_of(&self, ctx: &Ctx, pod: &str, o: &LogOptions, part: &LogRange) -> OpResult<String> {
        let object = self.get_object(ctx, "pod", room(o), pod).await?;
        let mut out = String::new();
        for name in containers(&object) {
            let o = LogOptions { container: name.clone(), ..o.clone() };
            let reply = self.send(ctx, &Request::get(path(pod, &o, part, false))).await?;
            match reply.status {
                // it has not started, or had no run before: the others have something to say
                400 => {}
                _ if reply.ok() => reply.text().lines().for_each(|l| out.push_str(&format!("[{name}] {l}\n"))),
                _ => return Err(refused(&reply, pod, &o)),
            }
        }
        Ok(out)
    }

    /// Begins to follow the log of one container.
    ///
    /// # Errors
    /// Like [`Cluster::pod_log_of`]; `invalid` for all containers at once.
    pub(super) async fn follow_log(&self, ctx: &Ctx, pod: &str, o: &LogOptions, part: &LogRange) -> OpResult<Followed> {
        if part.all_containers || part.previous {
            let what = if part.previous { "previous" } else { "all_containers" };
            return Err(OpError::invalid(format!("option `{what}`: a closure follows one container that runs"))
                .hint("leave it out, or leave the closure out"));
        }
        let end = ctx.clock.now_ms().await + part.timeout.0.as_millis() as u64;
        let client = self.current_client(ctx).await?;
        let what = format!("log of pod {}/{pod}", room(o));
        let request = http::Request::get(path(pod, o, part, true)).body(Vec::new());
        let request = request.map_err(|e| OpError::invalid(e.to_string()).on(&what))?;
        match client.request_stream(request).await {
            Ok(lines) => Ok(Followed { lines: Box::pin(lines), end, what, last: String::new() }),
            Err(kube::Error::Api(said)) => {
                let body = serde_json::json!({"message": said.message}).to_string().into_bytes();
                Err(refused(&Reply { status: said.code, body }, pod, o))
            }
            Err(e) => Err(OpError::unreachable("the log cannot be followed").on(&what).because(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_become_the_servers_words() {
        let mut map = rhai::Map::new();
        map.insert("timestamps".into(), true.into());
        map.insert("container".into(), "app".into());
        let (o, part) = log_options(&map).unwrap();
        assert_eq!(
            path("web", &o, &part, true),
            "/api/v1/namespaces/default/pods/web/log?container=app&follow=true&tailLines=200&timestamps=true"
        );
        map.insert("all_containers".into(), true.into());
        assert!(log_options(&map).unwrap_err().message.contains("exclude each other"));
    }

    #[test]
    fn usual_refusals_say_what_to_do() {
        let o = LogOptions { namespace: "shop".to_owned(), container: String::new(), tail: 1 };
        let hint = |text: &str| {
            let body = json!({"message": text}).to_string().into_bytes();
            refused(&Reply { status: 400, body }, "web", &o).hint.unwrap_or_default()
        };
        assert!(
            hint("a container name must be specified for pod web, choose one of: [a b]").contains("all_containers")
        );
        assert!(hint("previous terminated container \"a\" in pod \"web\" not found").contains("leave `previous` out"));
        assert!(
            hint("container \"a\" in pod \"web\" is waiting to start: ContainerCreating").contains("\"shop\", \"web\"")
        );
        let pod = json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "first"}]}});
        assert_eq!(containers(&pod), ["first", "app"]);
    }
}
