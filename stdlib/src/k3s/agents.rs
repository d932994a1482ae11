//! Agents: joining, labels, taints, restart.
use serde_json::Value;

use super::config::{Identity, Part, agent_config, registries};
use super::node::{Wanted, checked, look};
use super::options::{AgentOptions, check_keys, check_step};
use super::start::{wait_unit, with_journal};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::kubernetes::{Cluster, Taint};
use crate::ssh::Host;

impl Cluster {
    /// Makes a host an agent of this cluster: joined, Ready, labelled.
    ///
    /// # Errors
    /// What keeps it from joining, with its journal's explanation.
    pub async fn ensure_agent(&self, ctx: &Ctx, host: &Host, o: &AgentOptions) -> OpResult<()> {
        let op = Op::write("k3s", "ensure_agent", host.name()).class(Class::Adoptable).args(&o.labels);
        ctx.run_op(op, |s| async move { self.ensure_agent_in(&s, host, o).await }).await
    }

    async fn ensure_agent_in(&self, s: &OpScope, host: &Host, o: &AgentOptions) -> OpResult<()> {
        let join = self.join().ok_or_else(|| {
            OpError::invalid("this cluster handle cannot take nodes in")
                .hint("get it from `k3s::ensure_servers` or `k3s::connect`")
        })?;
        check_keys(&o.config, &join.version, false)?;
        let found = look(s.ctx(), host, Part::Agent).await?;
        if found.member {
            return Err(OpError::refused("it is a K3s server, not an agent")
                .on(host.name())
                .hint("give its node a role of kind `server`, or remove K3s from it first"));
        }
        if !found.version.is_empty() {
            check_step(&found.version, &join.version).map_err(|e| e.on(host.name()))?;
        }
        let id = identity(host, o);
        let wanted = Wanted {
            part: Part::Agent,
            version: join.version.clone(),
            config: agent_config(&join, &id, &o.config),
            registries: registries(&join.registries),
            policies: Vec::new(),
            manifest: None,
            airgap: join.airgap.clone(),
        };
        if !found.registered {
            // a machine made anew under an old name: the cluster still knows the old one's password
            self.forget_node(s.ctx(), host.name()).await?;
        }
        let changes = wanted.changes(host.name(), &found);
        let limit = o.timeout.0;
        if !changes.is_empty() {
            s.act(format!("k3s-agent on {}", host.name()), changes, async {
                wanted.write(s, host, &found).await?;
                wait_unit(s, host, Part::Agent, limit).await
            })
            .await?;
        }
        if let Err(e) = self.wait_nodes_in(s, &[host.name().to_owned()], limit).await {
            return Err(if e.is(Kind::Timeout) { with_journal(s, host, Part::Agent, e).await } else { e });
        }
        let taints = id.taints.iter().map(|t| Taint::parse(t)).collect::<OpResult<Vec<_>>>()?;
        self.ensure_node_meta(s, host.name(), &id.labels, &taints).await
    }

    /// Restarts K3s on a node and waits until it is Ready again. Pods go on running.
    ///
    /// # Errors
    /// What keeps the unit from starting.
    pub async fn restart_agent(&self, ctx: &Ctx, host: &Host, why: &str, limit: std::time::Duration) -> OpResult<()> {
        let op = Op::write("k3s", "restart_agent", host.name());
        let why = why.to_owned();
        ctx.run_op(op, |s| async move {
            let change = Change::new(host.name(), "service k3s-agent", Some("running".into()), Some(Value::from(why)));
            s.act(format!("k3s-agent on {}", host.name()), vec![change], async {
                let script = "systemctl restart --no-block k3s-agent";
                checked(s.ctx(), host, script, b"", "`k3s-agent` cannot be restarted").await?;
                wait_unit(&s, host, Part::Agent, limit).await?;
                self.wait_nodes_in(&s, &[host.name().to_owned()], limit).await
            })
            .await
        })
        .await
    }
}

fn identity(host: &Host, o: &AgentOptions) -> Identity {
    let node = host.node();
    let shape = node.as_ref().map(|n| n.shape.clone()).unwrap_or_default();
    let mut labels = shape.labels.unwrap_or_default();
    labels.extend(o.labels.clone());
    let mut taints = shape.taints.unwrap_or_default();
    taints.extend(o.taints.clone());
    Identity { name: host.name().to_owned(), ip: host.address().to_owned(), labels, taints }
}
