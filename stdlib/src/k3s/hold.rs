//! Taking a node out of service for a moment and giving it back, in a way that an interrupted run finds again.
use std::time::Duration;

use serde_json::{Value, json};

use super::config::Part;
use super::start::wait_unit;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::kubernetes::rest::Request;
use crate::kubernetes::{Cluster, Target, condition, is_true, node_trouble, seen, take_back, waits_on};
use crate::ssh::Host;

/// Annotation of a node that gpuhost cordoned for its own work: it is uncordoned when the work is done.
const HELD: &str = "gpuhost/held";

/// How a node is looked after while its K3s is down.
#[derive(Debug, Clone, Copy)]
pub struct Care {
    /// Evict its pods first.
    pub drain: bool,
    /// How long that may take.
    pub drain_limit: Duration,
    /// How long K3s may take to be back.
    pub limit: Duration,
}

/// Whether a server is Ready and votes in etcd.
fn votes(node: &Value) -> bool {
    is_true(node, "Ready") && is_true(node, "EtcdIsVoter")
}

/// The server that is missing for a quorum without `name`.
fn too_few_without<'a>(servers: &'a [Value], name: &str) -> Option<&'a Value> {
    let own = servers.iter().find(|n| n["metadata"]["name"] == name)?;
    let others: Vec<&Value> = servers.iter().filter(|n| n["metadata"]["name"] != name).collect();
    let good = others.iter().filter(|n| votes(n)).count();
    if !votes(own) || good > servers.len() / 2 {
        return None;
    }
    others.into_iter().find(|n| !votes(n))
}

fn costs_quorum(name: &str, other: &Value) -> OpError {
    let called = other["metadata"]["name"].as_str().unwrap_or("?");
    OpError::refused(format!("taking it down now would cost the quorum: `{called}` does not vote"))
        .on(name)
        .because(node_trouble(other).or_else(|| condition(other, "EtcdIsVoter").map(|c| c.1)).unwrap_or_default())
        .hint(format!("bring `{called}` back first: `systemctl status k3s` on it"))
}

impl Cluster {
    /// Refuses to take a server down while another one does not vote.
    ///
    /// # Errors
    /// `denied` naming the server that is not well.
    pub async fn spare_quorum(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let nodes = self.list_labelled(ctx, "node", "", ("node-role.kubernetes.io/etcd", "true")).await?;
        match nodes.iter().find(|n| n["metadata"]["name"] != name && !votes(n)) {
            Some(n) => Err(costs_quorum(name, n)),
            None => Ok(()),
        }
    }

    /// Refuses to take a server out of service when the others that vote would be too few for a quorum. Nothing for
    /// other nodes, for a cluster of one server, and for a server that does not vote itself.
    ///
    /// # Errors
    /// `denied` naming the server that is not well.
    pub async fn keep_quorum(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let nodes = self.list_labelled(ctx, "node", "", ("node-role.kubernetes.io/etcd", "true")).await?;
        match too_few_without(&nodes, name) {
            Some(n) => Err(costs_quorum(name, n)),
            None => Ok(()),
        }
    }

    /// Cordons a node for our own work, and drains it where asked; an operator's own cordon is left alone.
    ///
    /// # Errors
    /// `denied` when the drain is declined; `timeout` naming the pods that stay.
    pub async fn hold_node(&self, ctx: &Ctx, name: &str, care: Care) -> OpResult<()> {
        let node = self.get_object(ctx, "node", "", name).await?;
        let ours = !node["metadata"]["annotations"][HELD].is_null();
        if node["spec"]["unschedulable"] != true && !ours {
            let patch = json!({"metadata": {"annotations": {HELD: "true"}}, "spec": {"unschedulable": true}});
            self.mark(
                ctx,
                name,
                "hold_node",
                patch,
                Change::new(name, "unschedulable", Some(false.into()), Some(true.into())),
            )
            .await?;
        }
        if !care.drain {
            return Ok(());
        }
        let drained = self.drain_node(ctx, name, care.drain_limit).await;
        take_back(ctx, name, &drained, self.release_node(ctx, name)).await;
        drained
    }

    /// Lets pods back on a node that [`Cluster::hold_node`] cordoned.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn release_node(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let node = self.get_object(ctx, "node", "", name).await?;
        if node["metadata"]["annotations"][HELD].is_null() {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {HELD: null}}, "spec": {"unschedulable": null}});
        self.mark(
            ctx,
            name,
            "release_node",
            patch,
            Change::new(name, "unschedulable", Some(true.into()), Some(false.into())),
        )
        .await
    }

    async fn mark(&self, ctx: &Ctx, name: &str, verb: &'static str, patch: Value, change: Change) -> OpResult<()> {
        let op = Op::write("k3s", verb, name);
        ctx.run_op(op, |s| async move {
            let request = Request::merge(format!("/api/v1/nodes/{name}"), &patch);
            s.act(format!("node {name}"), vec![change], self.demand(s.ctx(), name, &request)).await.map(drop)
        })
        .await
    }

    /// Waits until K3s runs again on a machine and its node is Ready; a server votes. `version` empty: any.
    ///
    /// # Errors
    /// What its journal says.
    pub async fn wait_back(
        &self,
        s: &OpScope,
        host: &Host,
        part: Part,
        version: &str,
        limit: Duration,
    ) -> OpResult<()> {
        wait_unit(s, host, part, limit).await?;
        let name = host.name();
        let back = self
            .wait_watching(s, &format!("{name} Ready again"), Target::one("node", "", name), limit, || async {
                let node = match self.find_object(s.ctx(), "node", "", name).await {
                    Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
                    other => other?,
                };
                let Some(node) = node else { return Ok(Look::Pending("its node has not registered".to_owned())) };
                let runs = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
                if !version.is_empty() && runs != version {
                    return Ok(Look::Pending(format!("its kubelet is still {runs}")));
                }
                if let Some(t) = node_trouble(&node) {
                    return Ok(Look::Pending(t));
                }
                let etcd = node["metadata"]["labels"].get("node-role.kubernetes.io/etcd").is_some();
                Ok(match condition(&node, "EtcdIsVoter").filter(|_| part == Part::Server && etcd) {
                    Some((s, why)) if s != "True" => Look::Pending(format!("it does not vote in etcd ({why})")),
                    _ => Look::Ready(()),
                })
            })
            .await;
        match back {
            Err(e) if e.is(crate::core::error::Kind::Timeout) => {
                Err(super::start::with_journal(s, host, part, e).await)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, ready: bool) -> Value {
        let yes = |b: bool| if b { "True" } else { "False" };
        json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": yes(ready)}, {"type": "EtcdIsVoter", "status": "True"}]}})
    }

    #[test]
    fn a_server_is_spared_when_the_others_are_too_few() {
        let of = |ready: &[bool]| -> Vec<Value> {
            ready.iter().enumerate().map(|(i, r)| server(&format!("s{i}"), *r)).collect()
        };
        let missing = |ready: &[bool], name: &str| {
            too_few_without(&of(ready), name).map(|n| n["metadata"]["name"].as_str().unwrap().to_owned())
        };
        assert_eq!(missing(&[true, true, true], "s0"), None);
        assert_eq!(missing(&[true, true, false], "s0").as_deref(), Some("s2"));
        // the one that is down already costs nothing more
        assert_eq!(missing(&[true, true, false], "s2"), None);
        assert_eq!(missing(&[true, true, true, true, false], "s0"), None);
        assert_eq!(missing(&[true, true, true, false, false], "s0").as_deref(), Some("s3"));
        // one or two servers have no quorum to spare; agents are no servers
        assert_eq!(
            (missing(&[true], "s0"), missing(&[true, true], "s0"), missing(&[true, false], "agent")),
            (None, None, None)
        );
    }
}
