//! `ensure_vm`: ownership first, then clone or compare, then start.
use std::time::Duration;

use rhai::Dynamic;
use serde_json::{Map, Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Look, Op, OpScope};
use crate::options;
use crate::site::{Node, Site};
use crate::wire::pve::marker::{self, Marker, Ownership};

use super::diff::{Diff, diff, waiting_changes};
use super::error::Fault;
use super::inventory::{Machine, Place, not_ours};
use super::request::{self, At};
use super::types::{Proxmox, Template, Vm};
use super::wanted::{Wanted, WantedDisk, wanted};

options! {
    /// How to make a node's machine exist.
    pub struct EnsureVm {
        /// Template to clone from: what `ensure_template` returned, or a VM id; default: the site's template.
        template: Dynamic = Dynamic::UNIT,
        /// Restart a running machine when a change needs it; otherwise such a change is refused.
        restart: bool = false,
        /// Start the machine when it does not run.
        start: bool = true,
    }
}

pub(super) const CONFIG: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(1200);
const LOCKED: Duration = Duration::from_secs(3600);

/// What the steps of one `ensure_vm` share.
pub(super) struct Job<'a> {
    pub pve: &'a Proxmox,
    pub s: &'a OpScope,
    pub site: &'a Site,
    pub node: &'a Node,
    pub want: &'a Wanted,
    pub restart: bool,
}

impl Proxmox {
    /// Makes the machine of `node` exist with its shape, and run.
    ///
    /// # Errors
    /// `denied` (exit 4) when what stands there is not the site's own; `conflict` when a change needs a
    /// restart that was not allowed; whatever Proxmox refuses.
    pub async fn ensure_vm(&self, ctx: &Ctx, node: &Node, o: &EnsureVm) -> OpResult<Vm> {
        let site = ctx.site()?;
        self.ensure_pool(ctx).await?;
        let mut keys = vec![crate::ssh::keys::public_key(ctx, &site)?];
        keys.extend(site.ssh.authorized_keys.iter().cloned());
        let want = wanted(&site, node, &keys);
        let identity = (&want.keys, want.system_mib, want.gpus);
        let op = Op::write("proxmox", "ensure_vm", &node.name).class(Class::Adoptable).args(&identity);
        ctx.run_op(op, |s| async move {
            let job = Job { pve: self, s: &s, site: &site, node, want: &want, restart: o.restart };
            let m = match self.place(ctx, node.vmid, &node.pve_node).await? {
                Place::Free => {
                    let template = self.template_of(ctx, &site, &o.template).await?;
                    job.create(&template).await?
                }
                Place::Hidden => return Err(not_ours(&marker::hidden(node.vmid), "touch it")),
                Place::Taken(m) => {
                    let m = job.own(*m)?;
                    let m = job.unlocked(m).await?;
                    job.converge(m).await?
                }
            };
            if o.start {
                job.start(&m.at).await?;
            }
            Ok(self.handle(ctx, &m))
        })
        .await
    }

    async fn template_of(&self, ctx: &Ctx, site: &Site, given: &Dynamic) -> OpResult<Template> {
        let given = given.clone().flatten();
        if let Some(t) = given.clone().try_cast::<Template>() {
            return Ok(t);
        }
        let vmid = match given.as_int() {
            Ok(n) => u32::try_from(n).map_err(|_| OpError::invalid(format!("`{n}` is not a VM id")))?,
            Err(_) if given.is_unit() => site.template.vmid,
            Err(t) => {
                return Err(OpError::invalid(format!("option `template`: expected a template or a VM id, found {t}")));
            }
        };
        let near = site.template.pve_node.clone().unwrap_or_else(|| site.proxmox.pve_node.clone());
        let m = self
            .machine(ctx, vmid, &near)
            .await
            .map_err(|e| e.hint("make the template first: `pve.ensure_template(site().template)`"))?;
        if !m.is_template() {
            return Err(OpError::invalid(format!("VM {vmid} `{}` is not a template", m.name()))
                .hint("convert it with `qm template`, or name another one in the site file"));
        }
        Ok(Template { at: m.at.clone(), name: m.name() })
    }

    /// Sends a config change and waits for its task, if it is one.
    pub(super) async fn change(&self, s: &OpScope, what: &str, r: &request::Request, limit: Duration) -> OpResult<()> {
        let answer = self.send(s.ctx(), r).await?;
        if let Some(upid) = answer.as_str() {
            s.accepted(upid)?;
            self.wait_task(s, what, upid, limit).await?;
        }
        Ok(())
    }
}

impl Job<'_> {
    pub(super) fn ctx(&self) -> &Ctx {
        self.s.ctx()
    }

    fn own(&self, m: Machine) -> OpResult<Machine> {
        let v = m.judge(self.site, Some(&self.node.name), Some(&self.node.pve_node));
        if v.ownership == Ownership::Own { Ok(m) } else { Err(not_ours(&v, "change it")) }
    }

    /// The machine as it is now; an error when it is gone or no longer ours.
    pub(super) async fn read(&self) -> OpResult<Machine> {
        let m = self.pve.machine(self.ctx(), self.node.vmid, &self.node.pve_node).await?;
        self.own(m)
    }

    /// Waits until no task holds the machine's lock: an earlier run's clone may still be going on.
    pub(super) async fn unlocked(&self, m: Machine) -> OpResult<Machine> {
        if m.lock().is_none() {
            return Ok(m);
        }
        self.s
            .wait_for("the machine's lock", Duration::from_secs(3), LOCKED, || async {
                let m = self.read().await?;
                Ok(match m.lock() {
                    None => Look::Ready(m),
                    Some(l) => Look::Pending(format!("locked ({l})")),
                })
            })
            .await
    }

    /// The description with a complete marker.
    fn description(&self, m: &Machine) -> String {
        let found = m.get("description").unwrap_or_default();
        match m.marker() {
            Some(k) if k.smbios.is_none() => Marker { smbios: m.smbios(), ..k }.put_into(&found),
            _ => found,
        }
    }

    pub(super) fn diff(&self, m: &Machine) -> OpResult<Diff> {
        diff(&self.node.name, self.want, &self.description(m), m)
    }

    /// Brings an existing machine to its wanted shape.
    async fn converge(&self, m: Machine) -> OpResult<Machine> {
        let d = self.diff(&m)?;
        let running = self.is_running(&m.at).await?;
        if d.is_empty() {
            return self.pending(m, running).await;
        }
        if running && !d.restart.is_empty() && !self.restart {
            let what: Vec<String> = d.changes.iter().filter(|c| d.restart.contains(&c.what)).map(show).collect();
            return Err(OpError::conflict(format!("changing {} needs a restart", d.restart.join(", ")))
                .because(what.join("; "))
                .hint("allow it: `pve.ensure_vm(node, #{ restart: true })`; drain a Kubernetes node before"));
        }
        let marker = m.marker().map(|k| k.line()).unwrap_or_default();
        self.s.act(marker, d.changes.clone(), self.apply(&m, &d)).await?;
        if running && !d.boot.is_empty() {
            self.ctx().message(
                "warn",
                format!(
                    "{}: {} changed: cloud-init runs again at the next boot, host keys may change",
                    self.node.name,
                    d.boot.join(", ")
                ),
            );
        }
        if running && !d.restart.is_empty() {
            self.reboot(&m.at).await?;
        }
        self.read().await
    }

    /// All keys are as wanted; is a running machine still on older ones?
    async fn pending(&self, m: Machine, running: bool) -> OpResult<Machine> {
        if !running {
            return Ok(m);
        }
        let waits = waiting_changes(&self.pve.send(self.ctx(), &request::pending(&m.at)).await?);
        if waits.is_empty() {
            return Ok(m);
        }
        if !self.restart {
            let text = format!("{}: {} wait for a restart", self.node.name, waits.join(", "));
            self.ctx().message("warn", text);
            return Ok(m);
        }
        let changes =
            waits.iter().map(|k| Change::new(&self.node.name, k, Some("pending".into()), Some("active".into())));
        let marker = m.marker().map(|k| k.line()).unwrap_or_default();
        self.s.act(marker, changes.collect(), self.reboot(&m.at)).await?;
        Ok(m)
    }

    /// Writes a difference: keys, then disks, then sizes. Guarded by the digest of what was compared.
    pub(super) async fn apply(&self, m: &Machine, d: &Diff) -> OpResult<()> {
        let at = &m.at;
        if !d.set.is_empty() || !d.delete.is_empty() {
            let r = request::put_config(at, d.set.clone(), &d.delete, m.digest().as_deref());
            self.pve.change(self.s, "the configuration", &r, CONFIG).await?;
        }
        let (kept, new): (Vec<&WantedDisk>, Vec<&WantedDisk>) = self.split_kept(&d.disks).await?;
        for disk in kept {
            self.adopt_data(at, disk).await?;
        }
        if !new.is_empty() {
            let set: Map<String, Value> = new.iter().map(|w| (w.slot.to_owned(), json!(new_disk(w)))).collect();
            self.change_unlocked("new disks", &request::post_config(at, set, None)).await?;
        }
        for (slot, mib) in &d.grow {
            self.change_unlocked("growing a disk", &request::resize(at, slot, *mib)).await?;
        }
        Ok(())
    }

    /// Sends a change and tries again when Proxmox could not get one of its own locks: nothing was done then.
    async fn change_unlocked(&self, what: &str, r: &request::Request) -> OpResult<()> {
        let mut wait = 3;
        loop {
            let e = match self.pve.send(self.ctx(), r).await {
                Ok(Value::String(upid)) => {
                    self.s.accepted(&upid)?;
                    match self.pve.try_task(self.s, what, &upid, CONFIG).await? {
                        Ok(()) => return Ok(()),
                        Err(t) if t.fault == Fault::LockTimeout && wait < 60 => t.error,
                        Err(t) => return Err(t.error),
                    }
                }
                Ok(_) => return Ok(()),
                Err(e) if e.is(&Fault::LockTimeout) && wait < 60 => e.into(),
                Err(e) => return Err(e.into()),
            };
            self.s.waiting(format!("{what}: {}", e.causes.first().cloned().unwrap_or(e.message)));
            self.s.sleep(Duration::from_secs(wait)).await?;
            wait *= 2;
        }
    }

    pub(super) async fn is_running(&self, at: &At) -> OpResult<bool> {
        Ok(self.pve.send(self.ctx(), &request::status(at)).await?["status"] == "running")
    }

    async fn reboot(&self, at: &At) -> OpResult<()> {
        let r = request::reboot(at, 300);
        self.pve.change(self.s, "the restart", &r, START).await
    }

    /// Starts the machine unless it runs.
    async fn start(&self, at: &At) -> OpResult<()> {
        if self.is_running(at).await? {
            return Ok(());
        }
        let change = Change::new(&self.node.name, "power", Some("stopped".into()), Some("running".into()));
        self.s
            .act(format!("vm {}", at.vmid), vec![change], async {
                let started = self.pve.change(self.s, "the start", &request::start(at, None), START).await;
                match started {
                    Err(e) if e.is(Kind::Failed) && self.is_running(at).await.unwrap_or(false) => Ok(()),
                    other => other,
                }
            })
            .await
    }
}

fn show(c: &Change) -> String {
    let side = |v: &Option<Value>| match v {
        None => "nothing".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
    };
    format!("{}: {} -> {}", c.what, side(&c.before), side(&c.after))
}

/// Drive string of a new disk.
fn new_disk(w: &WantedDisk) -> String {
    format!("{}:{},{},serial={}", w.storage, w.gib, w.options, w.serial)
}
