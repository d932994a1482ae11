//! Start, stop, reboot: only machines of our own.
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::wire::pve::marker::{Ownership, Verdict};

use super::ensure_vm::CONFIG;
use super::inventory::{Machine, not_ours};
use super::request::{self, Request};
use super::types::Vm;

/// How long a guest has to power off before the plug is pulled.
pub(super) const SHUTDOWN: u64 = 120;
const START: Duration = Duration::from_secs(1200);

impl Vm {
    /// The machine as Proxmox has it now.
    ///
    /// # Errors
    /// `not_found`, `denied`.
    pub(super) async fn read(&self, ctx: &Ctx) -> OpResult<Machine> {
        self.pve.machine(ctx, self.vmid(), self.pve_node()).await
    }

    /// Whose the machine is.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn verdict(&self, ctx: &Ctx) -> OpResult<Verdict> {
        let site = ctx.site()?;
        let m = self.read(ctx).await?;
        let node = self.node.as_ref();
        Ok(m.judge(&site, node.map(|n| n.name.as_str()), node.map(|n| n.pve_node.as_str())))
    }

    /// The machine, if it is ours.
    pub(super) async fn own(&self, ctx: &Ctx, what: &str) -> OpResult<Machine> {
        let v = self.verdict(ctx).await?;
        if v.ownership != Ownership::Own {
            return Err(not_ours(&v, what));
        }
        self.read(ctx).await
    }

    /// `status/current`.
    ///
    /// # Errors
    /// What the request met.
    pub async fn status(&self, ctx: &Ctx) -> OpResult<Value> {
        Ok(self.pve.send(ctx, &request::status(&self.at)).await?)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// What the request met.
    pub async fn is_running(&self, ctx: &Ctx) -> OpResult<bool> {
        Ok(self.status(ctx).await?["status"] == "running")
    }

    async fn power(&self, ctx: &Ctx, verb: &'static str, on: bool, r: Request) -> OpResult<()> {
        let op = Op::write("proxmox", verb, self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, verb).await?;
            let running = self.is_running(ctx).await?;
            if running == on {
                return Ok(());
            }
            let word = |b: bool| Some(Value::from(if b { "running" } else { "stopped" }));
            let change = Change::new(self.name(), "power", word(running), word(on));
            s.act(format!("vm {}", m.at.vmid), vec![change], async { self.pve.change(&s, verb, &r, START).await }).await
        })
        .await
    }

    /// Starts it; nothing when it runs.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours.
    pub async fn start(&self, ctx: &Ctx) -> OpResult<()> {
        self.power(ctx, "start", true, request::start(&self.at, None)).await
    }

    /// Pulls the plug; nothing when it is off.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours.
    pub async fn stop(&self, ctx: &Ctx) -> OpResult<()> {
        self.power(ctx, "stop", false, request::stop(&self.at)).await
    }

    /// Asks the guest to power off; `timeout` when it does not.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` when the guest does not power off.
    pub async fn shutdown(&self, ctx: &Ctx) -> OpResult<()> {
        self.power(ctx, "shutdown", false, request::shutdown(&self.at, SHUTDOWN)).await
    }

    /// Reboots the guest, which applies pending changes.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours.
    pub async fn reboot(&self, ctx: &Ctx) -> OpResult<()> {
        let op = Op::run("proxmox", "reboot", self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "reboot it").await?;
            let change = Change::new(self.name(), "power", Some("running".into()), Some("rebooted".into()));
            s.act(format!("vm {}", m.at.vmid), vec![change], async {
                self.pve.change_once(&s, "the reboot", &request::reboot(&self.at, 300), START).await
            })
            .await
        })
        .await
    }

    /// Presses the reset button of a running machine: nothing is shut down, changes that wait stay waiting.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` when it does not run.
    pub async fn reset(&self, ctx: &Ctx) -> OpResult<()> {
        let op = Op::run("proxmox", "reset", self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "reset it").await?;
            let change = Change::new(self.name(), "power", Some("running".into()), Some("reset".into()));
            s.act(format!("vm {}", m.at.vmid), vec![change], async {
                self.pve.change_once(&s, "the reset", &request::reset(&self.at), CONFIG).await
            })
            .await
        })
        .await
    }

    /// Pauses a running machine, its memory stays; nothing when it is paused.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `conflict` when it does not run.
    pub async fn suspend(&self, ctx: &Ctx) -> OpResult<()> {
        self.pause(ctx, "suspend", true).await
    }

    /// Ends a pause; nothing when the machine runs.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `conflict` when it does not run.
    pub async fn resume(&self, ctx: &Ctx) -> OpResult<()> {
        self.pause(ctx, "resume", false).await
    }

    async fn pause(&self, ctx: &Ctx, verb: &'static str, on: bool) -> OpResult<()> {
        let op = Op::write("proxmox", verb, self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, verb).await?;
            let status = self.status(ctx).await?;
            if status["status"] != "running" {
                return Err(OpError::conflict(format!("{} does not run", self.name())).hint("start it: `vm.start()`"));
            }
            if (status["qmpstatus"] == "paused") == on {
                return Ok(());
            }
            let word = |b: bool| Some(Value::from(if b { "paused" } else { "running" }));
            let change = Change::new(self.name(), "power", word(!on), word(on));
            let r = if on { request::suspend(&self.at) } else { request::resume(&self.at) };
            s.act(format!("vm {}", m.at.vmid), vec![change], async { self.pve.change(&s, verb, &r, CONFIG).await })
                .await
        })
        .await
    }

    /// Brings it down for removal: asks, then pulls the plug.
    pub(super) async fn bring_down(&self, s: &OpScope) -> OpResult<()> {
        let ctx = s.ctx();
        if !self.is_running(ctx).await? {
            return Ok(());
        }
        let limit = Duration::from_secs(SHUTDOWN + 60);
        let asked = self.pve.change(s, "shutdown", &request::shutdown(&self.at, SHUTDOWN), limit).await;
        if asked.is_ok() && !self.is_running(ctx).await? {
            return Ok(());
        }
        if let Err(e) = asked {
            ctx.check_cancelled()?;
            s.waiting(format!("the guest does not power off ({}): pulling the plug", e.message));
        }
        match self.pve.change(s, "stop", &request::stop(&self.at), CONFIG).await {
            Err(_) if !self.is_running(ctx).await.unwrap_or(true) => Ok(()),
            other => other,
        }
    }
}
