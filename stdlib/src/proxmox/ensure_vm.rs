//! `ensure_vm`: ownership first, then clone or compare, then start.
use std::time::Duration;

use rhai::Dynamic;
use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::site::{Node, Site};
use crate::wire::pve::marker::{self, Marker, Ownership};
use crate::wire::pve::props;

use super::cloudinit::{self, Seed, Stage};
use super::diff::{Diff, diff, waiting_changes};
use super::inventory::{Machine, Place, not_ours};
use super::lint;
use super::login;
use super::request::{self, At};
use super::shape::EnsureVm;
use super::types::{Proxmox, Template, Vm};
use super::wanted::{Wanted, WantedDisk, new_disk, wanted};

pub(super) const CONFIG: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(1200);

/// What the steps of one `ensure_vm` share.
pub(super) struct Job<'a> {
    pub pve: &'a Proxmox,
    pub s: &'a OpScope,
    pub site: &'a Site,
    pub node: &'a Node,
    pub want: &'a Wanted,
    pub restart: bool,
    /// Whether the cloud-init drive of a running machine may be rewritten without a restart.
    pub regenerate: bool,
    /// Whether the machine is being made: its whole making is one effect.
    pub making: bool,
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
        let keys = login::wanted_keys(ctx, &site)?;
        let mut want = wanted(&site, node, &keys);
        o.add_to(&mut want, &site, node).map_err(|e| e.on(&node.name))?;
        lint::check(&site, node, &want).map_err(|e| e.on(&node.name))?;
        self.refuse_raw_pci(&want).map_err(|e| e.on(&node.name))?;
        let identity = (&want.keys, want.system_mib, &want.pci);
        let op = Op::write("proxmox", "ensure_vm", &node.name).class(Class::Adoptable).args(&identity);
        ctx.run_op(op, |s| async move {
            let job = Job {
                pve: self,
                s: &s,
                site: &site,
                node,
                want: &want,
                restart: o.restart,
                regenerate: o.regenerate,
                making: false,
            };
            if let Some(custom) = want.keys.get("cicustom") {
                self.check_custom(ctx, &node.pve_node, custom).await?;
            }
            let m = match self.settled_place(&s, node.vmid, &node.pve_node).await? {
                Place::Free => {
                    let template = self.template_of(ctx, &site, &o.template).await?;
                    self.refuse_missing_cards(ctx, node, &want).await?;
                    job.create(&template).await?
                }
                Place::Hidden => return Err(not_ours(&marker::hidden(node.vmid), "touch it")),
                Place::Taken(m) => {
                    let m = job.own(*m)?;
                    job.unlocked(m).await?;
                    job.settle().await?
                }
            };
            if o.start {
                job.start(&m.at).await?;
            }
            Ok(self.handle(ctx, &m))
        })
        .await
    }

    /// What of the machine of `node` is not as declared, without changing it; empty for one that is absent.
    ///
    /// # Errors
    /// `invalid` for a shape that Proxmox would refuse; `unreachable`, `denied`.
    pub async fn vm_differences(&self, ctx: &Ctx, node: &Node) -> OpResult<Vec<String>> {
        let site = ctx.site()?;
        let want = wanted(&site, node, &login::wanted_keys(ctx, &site)?);
        ctx.run_op(Op::read("proxmox", "check_vm", &node.name), |s| async move {
            let Place::Taken(m) = self.settled_place(&s, node.vmid, &node.pve_node).await? else {
                return Ok(Vec::new());
            };
            let found = m.get("description").unwrap_or_default();
            match diff(&node.name, &want, &found, &m) {
                Ok(d) => Ok(d.changes.into_iter().map(|c| c.what).collect()),
                Err(e) => Ok(vec![e.message]),
            }
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
        Ok(Template::new(m.at.clone(), m.name()))
    }

    /// Only root@pam may name a card by its address, and an API token is never root.
    fn refuse_raw_pci(&self, want: &Wanted) -> OpResult<()> {
        let raw = want.pci.iter().find(|p| props::read("hostpci0", p).contains_key("host"));
        match raw.filter(|_| !self.inner.auth.is_root()) {
            None => Ok(()),
            Some(p) => Err(OpError::denied(format!("only root@pam may pass through a raw address (`{p}`): an API token is never root"))
                .hint("use a mapping (`pve.ensure_pci_mapping(name, ..)` and `pci: [#{ mapping: name }]`), or log in with `user = \"root@pam\"` and `password` under [proxmox]")),
        }
    }
}

impl Job<'_> {
    pub(super) fn ctx(&self) -> &Ctx {
        self.s.ctx()
    }

    pub(super) fn own(&self, m: Machine) -> OpResult<Machine> {
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
        self.pve.wait_unlocked(self.s, "the machine's lock", &m.at).await?;
        self.read().await
    }

    /// The description with a complete marker; the user's own text stays unless the recipe has notes.
    fn description(&self, m: &Machine) -> String {
        let found = m.get("description").unwrap_or_default();
        let Some(k) = m.marker() else { return found };
        let complete = Marker { smbios: k.smbios.clone().or_else(|| m.smbios()), ..k.clone() };
        match &self.want.notes {
            Some(notes) => complete.put_into(notes),
            None if complete != k => complete.put_into(&found),
            None => found,
        }
    }

    pub(super) fn diff(&self, m: &Machine) -> OpResult<Diff> {
        diff(&self.node.name, self.want, &self.description(m), m)
    }

    /// Brings an existing machine to its wanted shape; somebody else's change meanwhile is compared anew.
    pub(super) async fn settle(&self) -> OpResult<Machine> {
        for left in (0..3).rev() {
            match self.converge(self.read().await?).await {
                Err(e) if left > 0 && is_stale(&e) => self.s.waiting("it was changed meanwhile: comparing again"),
                other => return other,
            }
        }
        Err(OpError::conflict("it keeps being changed by somebody else"))
    }

    async fn converge(&self, m: Machine) -> OpResult<Machine> {
        let d = self.diff(&m)?;
        if let Some(text) = overridden(self.want.keys.get("cicustom").cloned().or_else(|| m.get("cicustom"))) {
            self.ctx().message("warn", format!("{}: {text}", self.node.name));
        }
        let running = self.is_running(&m.at).await?;
        if d.is_empty() {
            return if running { self.waiting(m, &d, None).await } else { Ok(m) };
        }
        if running && !self.restart {
            self.refuse_move(&m)?;
        }
        if running && !d.restart.is_empty() && !self.restart {
            let what: Vec<String> = d.changes.iter().filter(|c| d.restart.contains(&c.what)).map(show).collect();
            return Err(OpError::conflict(format!("changing {} needs a restart", d.restart.join(", ")))
                .because(what.join("; "))
                .hint(format!(
                    "`gpuhost run scripts/reshape-vm.rhai --set node={}` drains this one machine, stops and starts it; in a recipe: `pve.ensure_vm(node, #{{ restart: true }})`",
                    self.node.name
                )));
        }
        if self.making {
            self.apply(&m, &d).await?;
            return self.read().await;
        }
        if running
            && d.set.contains_key("sshkeys")
            && let Some(stranger) = self.pve.stranger(self.ctx(), self.site, &m).await?
        {
            return Err(login::told(self.ctx(), self.site, &self.node.name, true, &stranger)?);
        }
        let old = if d.boot.is_empty() { None } else { self.seed(&m.at).await };
        let marker = m.marker().map(|k| k.line()).unwrap_or_default();
        self.s.act(marker, d.changes.clone(), self.apply(&m, &d)).await?;
        let m = self.read().await?;
        if running {
            return self.waiting(m, &d, old).await;
        }
        if !d.boot.is_empty() {
            let new = self.seed(&m.at).await;
            self.show_seed(old.as_ref(), new.as_ref());
            self.tell_seed(&d, None, Stage::Off, old.as_ref(), new.as_ref());
        }
        Ok(m)
    }

    /// A running machine keeps its address: whatever else is asked of it would wait at one where nobody answers.
    fn refuse_move(&self, m: &Machine) -> OpResult<()> {
        let address = |text: &str| props::read("ipconfig0", text).get("ip").cloned().unwrap_or_default();
        let (old, new) = (address(&m.get("ipconfig0").unwrap_or_default()), address(&self.want.keys["ipconfig0"]));
        let bare = |cidr: &str| cidr.split('/').next().unwrap_or_default().to_owned();
        if old.is_empty() || bare(&old) == bare(&new) {
            return Ok(());
        }
        let name = &self.node.name;
        Err(OpError::conflict(format!("it runs at {old}, the site file says {new}: a running machine is not moved"))
            .hint(format!(
                "set its `ip` back to {} in the site file; to move a cluster node, then take it out (`gpuhost run recipes/remove-node.rhai \
                 --set name={name}`), and with the new address add it (`gpuhost run recipes/add-node.rhai --set name={name}`)",
                bare(&old)
            )))
    }

    /// All keys are as wanted; what of it does the running machine not have yet, and may it be restarted for it?
    async fn waiting(&self, m: Machine, d: &Diff, old: Option<Seed>) -> OpResult<Machine> {
        let late = self.late(&m).await?;
        let news = !d.boot.is_empty() || late.as_ref().is_some_and(|l| !l.is_empty());
        let new = if news { self.seed(&m.at).await } else { None };
        self.show_seed(old.as_ref(), new.as_ref());
        // What Proxmox itself says that it could not do on the running machine.
        let waits = waiting_changes(&self.pve.send(self.ctx(), &request::pending(&m.at)).await?);
        let stale = late.as_ref().is_none_or(|l| !l.is_empty());
        let restart = self.restart && (!waits.is_empty() || !d.restart.is_empty() || (news && stale));
        let stage = match (restart, stale && !self.regenerate) {
            (true, _) => Stage::Restarted,
            (false, true) => Stage::Late,
            (false, false) => Stage::Written,
        };
        self.tell_seed(d, late.as_deref(), stage, old.as_ref(), new.as_ref());
        if restart {
            // The start writes the drive: until then it says what waits.
            let active = |k: &String| Change::new(&self.node.name, k, Some("pending".into()), Some("active".into()));
            let waiting = waits.iter().filter(|k| !d.restart.contains(*k)).map(active);
            let late = late.unwrap_or_default();
            let changes: Vec<Change> = waiting.chain(cloudinit::changes(&self.node.name, &late)).collect();
            let marker = m.marker().map(|k| k.line()).unwrap_or_default();
            if changes.is_empty() {
                // They are on record with the write that needs it.
                self.reboot(&m.at).await?;
            } else {
                self.s.act(marker, changes, self.reboot(&m.at)).await?;
            }
            return self.read().await;
        }
        if let (true, true, Some(late)) = (self.regenerate, stale, &late) {
            self.regenerate(&m, late).await?;
        }
        if !waits.is_empty() {
            self.ctx().message("warn", format!("{}: {} wait for a restart", self.node.name, waits.join(", ")));
        }
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
            let set = new.iter().map(|w| (w.slot.clone(), json!(new_disk(w)))).collect();
            self.pve.change(self.s, "new disks", &request::post_config(at, set, None), CONFIG).await?;
        }
        if !d.make.is_empty() {
            self.pve.change(self.s, "new volumes", &request::post_config(at, d.make.clone(), None), CONFIG).await?;
        }
        for (slot, mib) in &d.grow {
            self.pve.change(self.s, "growing a disk", &request::resize(at, slot, *mib), CONFIG).await?;
        }
        Ok(())
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

/// What files of one's own for cloud-init take out of our hands.
fn overridden(cicustom: Option<String>) -> Option<String> {
    let custom = props::read("cicustom", &cicustom?);
    let lost: Vec<&str> = [("user", "the user and the keys of [ssh]"), ("network", "address and gateway")]
        .iter()
        .filter(|(k, _)| custom.contains_key(*k))
        .map(|(_, what)| *what)
        .collect();
    (!lost.is_empty())
        .then(|| format!("`cicustom` replaces {}: additions belong into its `vendor=` part", lost.join(", ")))
}

fn show(c: &Change) -> String {
    let side = |v: &Option<Value>| match v {
        None => "nothing".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
    };
    format!("{}: {} -> {}", c.what, side(&c.before), side(&c.after))
}

/// Whether somebody else changed the VM between our look and our write.
fn is_stale(e: &OpError) -> bool {
    e.is(Kind::Conflict) && e.causes.iter().any(|c| c.contains("checksum mismatch") || c.contains("detected modified"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_of_ones_own_is_pointed_out() {
        let told = |t: &str| overridden(Some(t.to_owned()));
        assert_eq!(told("vendor=local:snippets/a.yml"), None);
        assert!(told("user=local:snippets/a.yml,vendor=local:snippets/b.yml").unwrap().contains("keys of [ssh]"));
        assert!(told("network=local:snippets/a.yml").unwrap().contains("address"));
        assert_eq!(overridden(None), None);
    }
}
