//! Pods: events, why one does not run, and running one to its end.
use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use super::logs::LogOptions;
use super::objects::ListOptions;
use super::rest::{Request, collection, escape};
use super::wait::{EVERY, condition, seen, waits_on};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Look, OpScope};

/// How a pod ended.
#[derive(Debug, Clone)]
pub struct PodEnd {
    /// `Succeeded` or `Failed`.
    pub phase: String,
    /// Its log.
    pub log: String,
    /// Node it ran on.
    pub node: String,
}

/// Why a pod does not run, from the pod alone; `None` when it is Ready or Succeeded.
#[must_use]
pub fn pod_trouble(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let phase = status["phase"].as_str().unwrap_or("Pending");
    if phase == "Succeeded" || (phase == "Running" && super::wait::is_true(pod, "Ready")) {
        return None;
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    for c in lists.iter().flat_map(|l| status[l].as_array().into_iter().flatten()) {
        let name = c["name"].as_str().unwrap_or("?");
        let text = |v: &Value| match (v["reason"].as_str(), v["message"].as_str()) {
            (Some(r), Some(m)) => format!("{r}: {m}"),
            (Some(r), None) => r.to_owned(),
            (None, m) => m.unwrap_or_default().to_owned(),
        };
        let waiting = &c["state"]["waiting"];
        if !waiting.is_null() && waiting["reason"] != "PodInitializing" && waiting["reason"] != "ContainerCreating" {
            return Some(format!("container {name}: {}", text(waiting)));
        }
        let ended = &c["state"]["terminated"];
        if !ended.is_null() && ended["exitCode"] != 0 {
            return Some(format!("container {name} ended with {}: {}", ended["exitCode"], text(ended)));
        }
    }
    if let Some((s, why)) = condition(pod, "PodScheduled").filter(|(s, _)| s != "True") {
        return Some(if why.is_empty() { format!("PodScheduled is {s}") } else { why });
    }
    Some(match status["message"].as_str() {
        Some(m) => format!("phase {phase}: {m}"),
        None => format!("phase {phase}"),
    })
}

impl Cluster {
    /// Events of an object, oldest first, as `(type, reason, message)`.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn events_of(
        &self,
        ctx: &Ctx,
        kind: &str,
        ns: &str,
        name: &str,
    ) -> OpResult<Vec<(String, String, String)>> {
        let kind = self.kind(ctx, kind).await?;
        let fields = [
            ("involvedObject.name".to_owned(), name.to_owned()),
            ("involvedObject.kind".to_owned(), kind.kind.clone()),
        ];
        let ns = if kind.namespaced && ns.is_empty() { "default" } else { ns };
        let o = ListOptions { namespace: ns.to_owned(), labels: Default::default(), fields: fields.into() };
        let mut list = self.list_objects(ctx, "event", &o).await?;
        let stamp = |e: &Value| {
            let t = ["lastTimestamp", "eventTime", "firstTimestamp"].iter().find_map(|k| e[k].as_str());
            t.unwrap_or_default().to_owned()
        };
        list.sort_by_key(stamp);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(list.iter().map(|e| (text(&e["type"]), text(&e["reason"]), text(&e["message"]))).collect())
    }

    /// The newest warning about an object.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn last_warning(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str) -> OpResult<Option<String>> {
        let events = self.events_of(ctx, kind, ns, name).await?;
        Ok(events
            .into_iter()
            .rev()
            .find(|(t, ..)| t == "Warning")
            .map(|(_, reason, message)| format!("{reason}: {message}")))
    }

    /// Why a pod does not run: its containers, the scheduler, its newest warning.
    ///
    /// # Errors
    /// `not_found`, `unreachable`.
    pub async fn explain_pod(&self, ctx: &Ctx, ns: &str, name: &str) -> OpResult<Option<String>> {
        let pod = self.get_object(ctx, "pod", ns, name).await?;
        let Some(trouble) = pod_trouble(&pod) else { return Ok(None) };
        Ok(Some(match self.last_warning(ctx, "pod", ns, name).await? {
            Some(w) if !trouble.contains(&w) => format!("{trouble}; {w}"),
            _ => trouble,
        }))
    }

    /// Creates a pod (a JSON object), waits until it ended, reads its log. The caller removes its namespace.
    ///
    /// # Errors
    /// `timeout` with why it does not run.
    pub(crate) async fn run_to_end(&self, s: &OpScope, pod: &Value, limit: Duration) -> OpResult<PodEnd> {
        let ctx = s.ctx();
        let (ns, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let kind = self.kind(ctx, "pod").await?;
        self.demand(ctx, &format!("pod {name}"), &Request::post(collection(&kind, &ns), pod)).await?;
        let what = format!("end of pod {name}");
        let ended = s
            .wait_for(&what, EVERY, limit, || async {
                let live = match self.get_object(ctx, "pod", &ns, &name).await {
                    Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
                    other => other?,
                };
                match live["status"]["phase"].as_str() {
                    Some("Succeeded" | "Failed") => Ok(Look::Ready(live)),
                    _ => {
                        let why = self.explain_pod(ctx, &ns, &name).await?;
                        Ok(Look::Pending(why.unwrap_or_else(|| "running".to_owned())))
                    }
                }
            })
            .await?;
        let o = LogOptions { namespace: ns, container: String::new(), tail: 200 };
        let log = self.pod_log(ctx, &name, &o).await.unwrap_or_default();
        Ok(PodEnd { phase: text(&ended["status"]["phase"]), log, node: text(&ended["spec"]["nodeName"]) })
    }

    /// GET through the API server's service proxy: `(status, body)`. `service` is `namespace/name:port`.
    ///
    /// # Errors
    /// `invalid` for another form; `unreachable` when the service has no endpoint.
    pub async fn http_through(&self, ctx: &Ctx, service: &str, path: &str) -> OpResult<(u16, String)> {
        let bad = || {
            OpError::invalid(format!("`{service}` is not a service"))
                .hint("write `namespace/name:port`, for example `cattle-system/rancher:80`")
        };
        let (ns, name) = service.split_once('/').ok_or_else(bad)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let full = format!("/api/v1/namespaces/{}/services/{name}/proxy{slash}{path}", escape(ns));
        let reply = self.send(ctx, &Request::get(full)).await?;
        if reply.status == 503 {
            let e = reply.error(service);
            return Err(OpError::unreachable("the service has no ready endpoint")
                .on(service)
                .because(e.causes.first().cloned().unwrap_or_default()));
        }
        Ok((reply.status, reply.text()))
    }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trouble_names_the_first_broken_thing() {
        let p = json!({"status":{"phase":"Pending","containerStatuses":[{"name":"a","state":{"waiting":{"reason":"ImagePullBackOff","message":"no"}}}]}});
        assert_eq!(pod_trouble(&p).unwrap(), "container a: ImagePullBackOff: no");
        let p = json!({"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/7 nodes"}]}});
        assert_eq!(pod_trouble(&p).unwrap(), "Unschedulable: 0/7 nodes");
        let p = json!({"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}});
        assert_eq!(pod_trouble(&p), None);
    }
}
