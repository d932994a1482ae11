//! Waiting for objects and nodes, with what was last seen.
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use super::rollout::{Rollout, rollout};
use super::watch::Target;
use crate::core::ctx::Ctx;
use crate::core::error::{Kind as ErrorKind, OpError, OpResult};
use crate::core::op::{Look, Op, OpScope};

/// How often waits look.
pub(crate) const EVERY: Duration = Duration::from_secs(3);

/// A condition of an object: `(status, "reason: message")`.
#[must_use]
pub fn condition(object: &Value, name: &str) -> Option<(String, String)> {
    let list = object["status"]["conditions"].as_array()?;
    let c = list.iter().find(|c| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(name)))?;
    let (reason, message) = (c["reason"].as_str().unwrap_or_default(), c["message"].as_str().unwrap_or_default());
    let why = match (reason.is_empty(), message.is_empty()) {
        (false, false) => format!("{reason}: {message}"),
        _ => format!("{reason}{message}"),
    };
    Some((c["status"].as_str().unwrap_or("Unknown").to_owned(), why))
}

/// Whether a condition is `True`.
#[must_use]
pub fn is_true(object: &Value, name: &str) -> bool {
    condition(object, name).is_some_and(|(s, _)| s == "True")
}

/// What to wait for: `condition=Ready`, `condition=X=False`, `phase=Running`, `rollout`, `delete`, `exists`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// A condition has this status.
    Condition(String, String),
    /// `status.phase`.
    Phase(String),
    /// Every replica of a workload is of the newest template and available.
    Rollout,
    /// It is gone.
    Deleted,
    /// It is there.
    Exists,
}

impl Until {
    /// Reads the text form.
    ///
    /// # Errors
    /// `invalid` with the forms there are.
    pub fn parse(text: &str) -> OpResult<Self> {
        let parts: Vec<_> = text.split('=').collect();
        match parts.as_slice() {
            ["condition", name] => Ok(Until::Condition((*name).to_owned(), "True".to_owned())),
            ["condition", name, status] => Ok(Until::Condition((*name).to_owned(), (*status).to_owned())),
            ["phase", phase] => Ok(Until::Phase((*phase).to_owned())),
            ["rollout"] => Ok(Until::Rollout),
            ["delete"] => Ok(Until::Deleted),
            ["exists"] => Ok(Until::Exists),
            _ => Err(OpError::invalid(format!("cannot wait for `{text}`")).hint(
                "forms: `condition=Ready`, `condition=Failed=False`, `phase=Running`, `rollout`, `exists`, `delete`",
            )),
        }
    }

    /// Looks at the object.
    ///
    /// # Errors
    /// What is still missing.
    pub fn look(&self, object: Option<&Value>) -> Result<(), String> {
        match (self, object) {
            (Until::Deleted, None) | (Until::Exists, Some(_)) => Ok(()),
            (Until::Deleted, Some(o)) => Err(format!("still there, finalizers {}", o["metadata"]["finalizers"])),
            (_, None) => Err("it does not exist".to_owned()),
            (Until::Rollout, Some(o)) => match rollout(o) {
                Rollout::Done => Ok(()),
                Rollout::Pending(text) | Rollout::Stuck(text) => Err(text),
            },
            (Until::Phase(p), Some(o)) => match o["status"]["phase"].as_str() {
                Some(x) if x == p => Ok(()),
                x => Err(format!("phase {}", x.unwrap_or("unknown"))),
            },
            (Until::Condition(name, status), Some(o)) => match condition(o, name) {
                Some((s, _)) if s == *status => Ok(()),
                Some((s, why)) => Err(format!("{name} is {s} ({why})")),
                None => Err(format!("no condition {name} yet")),
            },
        }
    }
}

/// Why a node is not ready; `None` when it is.
#[must_use]
pub fn node_trouble(node: &Value) -> Option<String> {
    match condition(node, "Ready") {
        Some((s, _)) if s == "True" => None,
        Some((s, why)) => Some(format!("Ready is {s} ({why})")),
        None => Some("has not reported yet".to_owned()),
    }
}

impl Cluster {
    /// Waits for an object.
    ///
    /// # Errors
    /// `timeout` with the last seen state.
    pub async fn wait_object(
        &self,
        ctx: &Ctx,
        kind: &str,
        ns: &str,
        name: &str,
        until: &str,
        limit: Duration,
    ) -> OpResult<()> {
        let goal = Until::parse(until)?;
        let op = Op::read("kubernetes", "wait", format!("{kind} {name}")).args(&(ns, until));
        let what = format!("`{until}` of {kind} {name}");
        ctx.run_op(op, |s| async move {
            let target = Target::one(kind, ns, name);
            self.wait_watching(&s, &what, target, limit, || async {
                let found = match self.find_object(s.ctx(), kind, ns, name).await {
                    Err(e) if waits_on(&e) || e.is(ErrorKind::NotFound) => return Ok(Look::Pending(seen(&e))),
                    other => other?,
                };
                let Err(seen) = goal.look(found.as_ref()) else { return Ok(Look::Ready(())) };
                let pod = self.pod_behind(s.ctx(), ns, found.as_ref()).await;
                if let Some(Rollout::Stuck(why)) = found.as_ref().filter(|_| goal == Until::Rollout).map(rollout) {
                    let mut e = OpError::failed(format!("the rollout of {kind} {name} does not go on")).because(why);
                    e.causes.extend(pod);
                    return Err(e.hint(format!("`kubectl -n {ns} describe {kind} {name}`; apply what works, or go back with `kubectl rollout undo`")));
                }
                Ok(Look::Pending(match pod {
                    Some(pod) => format!("{seen}; {pod}"),
                    None => seen,
                }))
            })
            .await
        })
        .await
    }

    /// Why the first broken pod of a workload does not run.
    async fn pod_behind(&self, ctx: &Ctx, ns: &str, workload: Option<&Value>) -> Option<String> {
        let labels = workload?["spec"]["selector"]["matchLabels"].as_object()?;
        let labels = labels.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        let o = super::ListOptions { namespace: ns.to_owned(), labels, fields: BTreeMap::new() };
        let pods = self.list_objects(ctx, "pod", &o).await.ok()?;
        let (pod, why) = pods.iter().find_map(|p| Some((p, super::pod_trouble(p)?)))?;
        let name = pod["metadata"]["name"].as_str().unwrap_or("?");
        let on = pod["spec"]["nodeName"].as_str().map_or_else(String::new, |n| format!(" on {n}"));
        Some(format!("pod {name}{on}: {why}"))
    }

    /// Waits until every named node is present and Ready.
    ///
    /// # Errors
    /// `timeout` naming each node that is not, with what was last seen of it.
    pub async fn wait_nodes(&self, ctx: &Ctx, names: &[String], limit: Duration) -> OpResult<()> {
        let op = Op::read("kubernetes", "wait_nodes", self.name()).args(&names);
        ctx.run_op(op, |s| async move { self.wait_nodes_in(&s, names, limit).await }).await
    }

    pub(crate) async fn wait_nodes_in(&self, s: &OpScope, names: &[String], limit: Duration) -> OpResult<()> {
        let what = match names {
            [one] => format!("node {one} Ready"),
            _ => format!("{} nodes Ready", names.len()),
        };
        self.wait_watching(s, &what, Target::all("node", ""), limit, || async {
            let nodes = match self.list_in(s.ctx(), "node", "").await {
                Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
                other => other?,
            };
            let by_name: BTreeMap<_, _> =
                nodes.iter().filter_map(|n| Some((n["metadata"]["name"].as_str()?, n))).collect();
            let waiting: Vec<_> = names
                .iter()
                .filter_map(|n| match by_name.get(n.as_str()) {
                    None => Some(format!("{n} has not joined")),
                    Some(node) => node_trouble(node).map(|t| format!("{n}: {t}")),
                })
                .collect();
            Ok(if waiting.is_empty() { Look::Ready(()) } else { Look::Pending(waiting.join("; ")) })
        })
        .await
    }
}

/// Whether a wait goes on after this error: the server may come back.
#[must_use]
pub fn waits_on(e: &OpError) -> bool {
    e.is(ErrorKind::Unreachable) || (e.is(ErrorKind::Failed) && e.stop.is_none())
}

/// An error in one line.
#[must_use]
pub fn seen(e: &OpError) -> String {
    match e.causes.first() {
        Some(c) => format!("{}: {c}", e.message),
        None => e.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_read_and_look() {
        let pod = json!({"status":{"phase":"Pending","conditions":[{"type":"Ready","status":"False","reason":"ContainersNotReady","message":"x"}]}});
        let ready = Until::parse("condition=Ready").unwrap();
        assert_eq!(ready.look(Some(&pod)), Err("Ready is False (ContainersNotReady: x)".to_owned()));
        assert_eq!(ready.look(None), Err("it does not exist".to_owned()));
        assert_eq!(Until::parse("phase=Pending").unwrap().look(Some(&pod)), Ok(()));
        assert_eq!(Until::parse("delete").unwrap().look(None), Ok(()));
        let old = json!({"kind": "Deployment", "metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
        assert!(Until::parse("rollout").unwrap().look(Some(&old)).unwrap_err().contains("not looked at"));
        assert!(Until::parse("Ready").unwrap_err().hint.unwrap().contains("condition=Ready"));
    }

    #[test]
    fn unready_nodes_say_why() {
        let n = json!({"status":{"conditions":[{"type":"Ready","status":"Unknown","message":"Kubelet stopped posting node status."}]}});
        assert_eq!(node_trouble(&n).unwrap(), "Ready is Unknown (Kubelet stopped posting node status.)");
        assert_eq!(node_trouble(&json!({})).unwrap(), "has not reported yet");
    }
}
