//! Taking nodes out: drain, etcd, node object, K3s on the machine.
use std::time::Duration;

use serde_json::json;

use super::node::checked;
use super::options::RemoveOptions;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::kubernetes::rest::Request;
use crate::kubernetes::{Cluster, is_true};
use crate::ssh::Host;

/// Stops K3s with its pods and removes what it keeps, but nothing below mount points.
const UNINSTALL: &str = "systemctl disable --now k3s k3s-agent 2>/dev/null\n\
    for p in $(ps -e -o pid= -o args= | grep '/containerd-shim' | grep -v grep | awk '{print $1}'); do kill -9 \"$p\" 2>/dev/null; done\n\
    for m in $(awk '$2 ~ \"^/(run/k3s|var/lib/rancher/k3s|var/lib/kubelet)\" {print $2}' /proc/self/mounts | sort -r); do umount \"$m\" 2>/dev/null; done\n\
    rm -f /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service\nsystemctl daemon-reload\n\
    rm -rf --one-file-system /etc/rancher/k3s /run/k3s /run/flannel /var/lib/rancher/k3s /var/lib/kubelet\n\
    rm -f /usr/local/bin/k3s /etc/rancher/node/password\n\
    for l in kubectl crictl ctr; do [ -L /usr/local/bin/$l ] && rm -f /usr/local/bin/$l; done\ntrue\n";

/// Refuses to take K3s off a voter that the others need. The only server, and one whose cluster does not answer, may go.
async fn keeps_quorum(ctx: &Ctx, host: &Host) -> OpResult<()> {
    let out = host.look_raw(ctx, "[ -d /var/lib/rancher/k3s/server/db/etcd ] && systemctl -q is-active k3s").await?;
    if out.code != 0 {
        return Ok(());
    }
    let Ok(cluster) = super::connect::connect(ctx, std::slice::from_ref(host)).await else { return Ok(()) };
    let others = cluster.list_labelled(ctx, "node", "", ("node-role.kubernetes.io/etcd", "true")).await?;
    if others.iter().all(|n| n["metadata"]["name"] == host.name()) {
        return Ok(());
    }
    cluster.may_lose(ctx, host.name()).await.map_err(|e| {
        e.hint("bring the others back first; to end the whole cluster, take the servers out one by one with `cluster.remove_node(host)`, the last one with this")
    })
}

/// Removes K3s from a machine; nothing to do is no change.
///
/// # Errors
/// `denied` when it would cost the quorum or is declined; `failed` with what the machine said.
pub async fn uninstall(ctx: &Ctx, host: &Host) -> OpResult<bool> {
    let op = Op::destroy("k3s", "uninstall", host.name());
    ctx.run_op(op, |s| async move {
        let out = host.look_raw(s.ctx(), "[ -e /usr/local/bin/k3s ] || [ -e /etc/rancher/k3s ] || exit 3").await?;
        if out.code == 3 {
            return Ok(false);
        }
        keeps_quorum(s.ctx(), host).await?;
        let change = Change::new(host.name(), "K3s with its data", Some("present".into()), None);
        s.act(format!("k3s on {}", host.name()), vec![change], async {
            checked(s.ctx(), host, UNINSTALL, b"", "K3s cannot be removed").await?;
            super::birth::forget_after(&s, host).await
        })
        .await?;
        Ok(true)
    })
    .await
}

impl Cluster {
    /// Drains a node, takes it out of etcd if it is a server, deletes its node object, removes K3s from it.
    /// With `lost` the machine is gone: nothing is drained, nothing is done on it.
    ///
    /// # Errors
    /// `denied` when it would cost the quorum or is declined.
    pub async fn remove_node(&self, ctx: &Ctx, host: &Host, o: &RemoveOptions) -> OpResult<()> {
        let (name, limit) = (host.name().to_owned(), o.timeout.0);
        if host.node().is_some_and(|n| !n.in_cluster()) {
            return Err(OpError::refused("it is no cluster node: it serves storage").on(name).hint(
                "`gpuhost run recipes/cleanup.rhai` removes the site's machines, and keeps data unless told otherwise",
            ));
        }
        if let Some(node) = self.find_object(ctx, "node", "", &name).await? {
            let server = node["metadata"]["labels"].get("node-role.kubernetes.io/etcd").is_some();
            if server {
                self.may_lose(ctx, &name).await?;
            }
            if !o.lost {
                self.drain_node(ctx, &name, limit).await?;
            }
            if server {
                let op = Op::destroy("k3s", "leave_etcd", &name);
                ctx.run_op(op, |s| async move { self.leave_etcd(&s, host.name(), limit).await }).await?;
            }
            self.delete_object(ctx, "node", "", &name).await?;
        }
        self.drop_password(ctx, &name).await?;
        if o.lost {
            return Ok(());
        }
        uninstall(ctx, host).await.map(drop)
    }

    /// Whether the cluster keeps its quorum without this server.
    async fn may_lose(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let nodes = self.list_labelled(ctx, "node", "", ("node-role.kubernetes.io/etcd", "true")).await?;
        let rest: Vec<_> = nodes.iter().filter(|n| n["metadata"]["name"] != name).collect();
        let good = rest.iter().filter(|n| is_true(n, "Ready") && is_true(n, "EtcdIsVoter")).count();
        if rest.is_empty() {
            return Err(OpError::refused("it is the only server: without it there is no cluster").on(name));
        }
        if good <= rest.len() / 2 {
            return Err(OpError::refused(format!("only {good} of the other {} servers vote", rest.len()))
                .on(name)
                .hint("bring them back first; removing this one would end the cluster's quorum"));
        }
        Ok(())
    }

    pub(super) async fn leave_etcd(&self, s: &OpScope, name: &str, limit: Duration) -> OpResult<()> {
        let change = Change::new(name, "etcd member", Some("present".into()), None);
        let patch = json!({"metadata": {"annotations": {"etcd.k3s.cattle.io/remove": "true"}}});
        let request = Request::merge(format!("/api/v1/nodes/{name}"), &patch);
        s.act(format!("etcd member {name}"), vec![change], async {
            self.demand(s.ctx(), name, &request).await?;
            s.wait_for(&format!("{name} leaving etcd"), Duration::from_secs(3), limit, || async {
                let node = self.find_object(s.ctx(), "node", "", name).await?;
                let gone = node
                    .is_none_or(|n| !n["metadata"]["annotations"]["etcd.k3s.cattle.io/removed-node-name"].is_null());
                Ok(if gone { Look::Ready(()) } else { Look::Pending("still a member".to_owned()) })
            })
            .await
        })
        .await
    }
}
