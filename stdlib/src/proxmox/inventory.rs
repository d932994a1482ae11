//! What is there: VMs, nodes, storages, and whose they are. Invisible is not absent.
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::site::{Node, Site};
use crate::wire::pve::marker::{self, Expected, Marker, Ownership, Seen, Verdict};

use super::error::{ApiResult, Fault};
use super::request::{self, At};
use super::template::places;
use super::types::{Proxmox, Vm};

/// One VM of `/cluster/resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it is.
    pub at: At,
    /// Name; a placeholder in its first seconds.
    pub name: String,
    /// Pool.
    pub pool: Option<String>,
    /// `running`, `stopped`, `unknown`.
    pub status: String,
    /// Whether it is a template.
    pub template: bool,
    /// Tags.
    pub tags: Vec<String>,
}

fn text(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Whether a Proxmox answer's `0|1` (number or text) is on.
pub(super) fn is_on(v: &Value) -> bool {
    match v {
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_i64() == Some(1),
        Value::String(s) => s == "1",
        _ => false,
    }
}

impl Row {
    fn read(v: &Value) -> Option<Row> {
        if v["type"] != "qemu" {
            return None;
        }
        let vmid = u32::try_from(v["vmid"].as_u64().or_else(|| v["vmid"].as_str()?.parse().ok())?).ok()?;
        Some(Row {
            at: At::new(v["node"].as_str()?, vmid),
            name: text(&v["name"]),
            pool: v["pool"].as_str().filter(|p| !p.is_empty()).map(str::to_owned),
            status: text(&v["status"]),
            template: is_on(&v["template"]),
            tags: text(&v["tags"]).split([';', ',', ' ']).filter(|t| !t.is_empty()).map(str::to_owned).collect(),
        })
    }
}

/// A VM with its config, as read just now.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where it is.
    pub at: At,
    /// Its pool.
    pub pool: Option<String>,
    /// Config with pending changes applied.
    pub config: Map<String, Value>,
}

impl Machine {
    /// A config value as text; numbers too.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        self.config.get(key).filter(|v| !v.is_null()).map(text)
    }
    /// VM name.
    #[must_use]
    pub fn name(&self) -> String {
        self.get("name").unwrap_or_else(|| format!("VM {}", self.at.vmid))
    }
    /// SMBIOS uuid.
    #[must_use]
    pub fn smbios(&self) -> Option<String> {
        let all = self.get("smbios1")?;
        all.split(',').find_map(|p| p.strip_prefix("uuid=")).map(str::to_owned)
    }
    /// Config lock, such as `clone`.
    #[must_use]
    pub fn lock(&self) -> Option<String> {
        self.get("lock")
    }
    /// Digest that guards changes.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.get("digest")
    }
    /// Whether it is a template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.config.get("template").is_some_and(is_on)
    }
    /// The marker in its notes.
    #[must_use]
    pub fn marker(&self) -> Option<Marker> {
        Marker::find(&self.get("description").unwrap_or_default()).ok().flatten()
    }
    /// Whose it is.
    #[must_use]
    pub fn judge(&self, site: &Site, node: Option<&str>, pve_node: Option<&str>) -> Verdict {
        let (name, description, smbios) = (self.name(), self.get("description").unwrap_or_default(), self.smbios());
        marker::judge(
            Expected { site: &site.uuid, pool: &site.pool(), node, pve_node },
            Seen {
                vmid: self.at.vmid,
                name: &name,
                pve_node: &self.at.node,
                pool: self.pool.as_deref(),
                description: &description,
                smbios: smbios.as_deref(),
            },
        )
    }
}

/// What stands at a VM id.
#[derive(Debug, Clone)]
pub enum Place {
    /// Nothing, and Proxmox says that the id is free.
    Free,
    /// Something that this token cannot see.
    Hidden,
    /// This VM.
    Taken(Box<Machine>),
}

/// The error for a VM that is not ours to change.
pub(super) fn not_ours(v: &Verdict, what: &str) -> OpError {
    OpError::refused(format!("refused to {what}: {}", v.why)).hint(v.hint.clone())
}

impl Proxmox {
    /// All VMs that the token sees.
    ///
    /// # Errors
    /// What the request met.
    pub async fn rows(&self, ctx: &Ctx) -> ApiResult<Vec<Row>> {
        let answer = self.send_list(ctx, &request::list_vms()).await?;
        let mut rows: Vec<Row> = answer.iter().filter_map(Row::read).collect();
        rows.sort_by_key(|r| r.at.vmid);
        Ok(rows)
    }

    /// Config of a VM; `None` when there is none at that place.
    ///
    /// # Errors
    /// What the request met.
    pub async fn config(&self, ctx: &Ctx, at: &At) -> ApiResult<Option<Map<String, Value>>> {
        Ok(self.find(ctx, &request::config(at)).await?.and_then(|v| match v {
            Value::Object(m) => Some(m),
            _ => None,
        }))
    }

    /// Whether an id is free, whoever sees it.
    ///
    /// # Errors
    /// What the request met.
    pub async fn is_free(&self, ctx: &Ctx, vmid: u32) -> ApiResult<bool> {
        match self.send(ctx, &request::is_free(vmid)).await {
            Ok(_) => Ok(true),
            Err(e) if e.is(&Fault::Exists) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// A free id from `from` on that no other thread of this run is about to use: Proxmox reserves nothing.
    pub(super) async fn reserve_id(&self, ctx: &Ctx, from: u32) -> ApiResult<u32> {
        for vmid in from.. {
            let mine = self.inner.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(vmid);
            if mine && self.is_free(ctx, vmid).await? {
                return Ok(vmid);
            }
        }
        Ok(from)
    }

    /// Absence is believed only while every hypervisor node answers: a VM may be on one that does not.
    ///
    /// # Errors
    /// `unreachable` naming the node in doubt.
    pub(super) async fn nobody_in_doubt(&self, ctx: &Ctx, vmid: u32) -> OpResult<()> {
        let all = self.send_list(ctx, &request::get("/nodes")).await?;
        let Some(silent) = all.iter().find(|n| n["status"] != "online") else { return Ok(()) };
        let (name, status) = (text(&silent["node"]), text(&silent["status"]));
        Err(OpError::unreachable(format!(
            "hypervisor node `{name}` is {status}: whether VM {vmid} is there cannot be seen"
        ))
        .hint(format!(
            "bring {name} back, or take it out of the cluster (`pvecm delnode {name}`), then run this again"
        )))
    }

    /// What stands at `vmid`. `near` is the hypervisor node to look at first when lists do not show it.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn place(&self, ctx: &Ctx, vmid: u32, near: &str) -> OpResult<Place> {
        let row = self.rows(ctx).await?.into_iter().find(|r| r.at.vmid == vmid);
        let (at, pool) = match row {
            Some(r) => (r.at, r.pool),
            None if self.is_free(ctx, vmid).await? => return Ok(Place::Free),
            None => (At::new(near, vmid), None),
        };
        let config = match self.config(ctx, &at).await {
            Ok(c) => c,
            Err(e) if matches!(e.fault, Fault::Denied { .. }) => return Ok(Place::Hidden),
            Err(e) => return Err(e.into()),
        };
        let Some(config) = config else {
            // Lists lag behind: a VM just removed, or one that this token does not see.
            return Ok(if self.is_free(ctx, vmid).await? { Place::Free } else { Place::Hidden });
        };
        let pool = match pool {
            Some(p) => Some(p),
            None => self.pool_of(ctx, vmid).await?,
        };
        Ok(Place::Taken(Box::new(Machine { at, pool, config })))
    }

    /// The site's pool, when `vmid` is in it: lists lag behind pool membership.
    async fn pool_of(&self, ctx: &Ctx, vmid: u32) -> OpResult<Option<String>> {
        let Some(site) = ctx.site.clone() else { return Ok(None) };
        let found = self.pool_members(ctx, &site.pool()).await?;
        Ok(found.filter(|m| m.contains(&vmid)).map(|_| site.pool()))
    }

    /// The VM at `vmid`.
    ///
    /// # Errors
    /// `not_found`; `denied` when it cannot be seen.
    pub async fn machine(&self, ctx: &Ctx, vmid: u32, near: &str) -> OpResult<Machine> {
        match self.place(ctx, vmid, near).await? {
            Place::Taken(m) => Ok(*m),
            Place::Free => Err(OpError::not_found(format!("there is no VM {vmid}"))),
            Place::Hidden => {
                let v = marker::hidden(vmid);
                Err(OpError::denied(v.why).hint(v.hint))
            }
        }
    }

    /// A VM by name or id that the token sees.
    ///
    /// # Errors
    /// `conflict` when several VMs have the name; `denied` when the VM is hidden.
    pub async fn find_vm(&self, ctx: &Ctx, id: &rhai::Dynamic) -> OpResult<Option<Vm>> {
        let id = id.clone().flatten();
        ctx.run_op(Op::read("proxmox", "find_vm", id.to_string()), |_| async {
            let near = self.section().pve_node.clone();
            let (at, name) = match id.as_int() {
                Ok(n) => {
                    let vmid = u32::try_from(n).map_err(|_| OpError::invalid(format!("`{n}` is not a VM id")))?;
                    (At::new(near, vmid), None)
                }
                Err(_) => match self.named(ctx, &id.to_string()).await? {
                    Some(at) => (at, Some(id.to_string())),
                    None => return Ok(None),
                },
            };
            let vmid = at.vmid;
            match self.place(ctx, vmid, &at.node).await? {
                Place::Taken(m) if name.is_some_and(|n| m.name() != n) => Ok(None),
                Place::Taken(m) => Ok(Some(self.handle(ctx, &m))),
                Place::Free => Ok(None),
                Place::Hidden => {
                    let v = marker::hidden(vmid);
                    Err(OpError::denied(v.why).hint(v.hint))
                }
            }
        })
        .await
    }

    /// Where a VM of this name is, or would be. Lists show a new VM's name only after up to ten seconds: what the
    /// site declares is looked for at its id.
    async fn named(&self, ctx: &Ctx, name: &str) -> OpResult<Option<At>> {
        let rows = self.rows(ctx).await?;
        let found: Vec<&Row> = rows.iter().filter(|r| r.name == name).collect();
        match found[..] {
            [one] => Ok(Some(one.at.clone())),
            [] => {
                let Some(site) = ctx.site.as_deref() else { return Ok(None) };
                let node = site.nodes.iter().find(|n| n.name == name).map(|n| At::new(&n.pve_node, n.vmid));
                Ok(node.or_else(|| places(site).into_iter().find(|p| p.0 == name).map(|p| p.1)))
            }
            _ => {
                let ids: Vec<String> = found.iter().map(|r| r.at.vmid.to_string()).collect();
                Err(OpError::conflict(format!("several VMs are called `{name}`: {}", ids.join(", ")))
                    .hint("give the id instead of the name"))
            }
        }
    }

    /// Every VM that this site made and may change: nodes, template, keepers of data disks.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn owned(&self, ctx: &Ctx) -> OpResult<Vec<(Machine, Marker)>> {
        self.owned_but(ctx, &|_| false).await
    }

    /// The same without those whose ids are known already; their configs are not read.
    async fn owned_but(&self, ctx: &Ctx, known: &(dyn Fn(u32) -> bool + Sync)) -> OpResult<Vec<(Machine, Marker)>> {
        let site = ctx.site()?;
        let mut out = Vec::new();
        for row in self.rows(ctx).await?.into_iter().filter(|r| !known(r.at.vmid)) {
            // A VM outside of the pool is at most `moved`; that saves a request for each foreign VM.
            if row.pool.as_deref() != Some(&site.pool()) {
                continue;
            }
            let Some(config) = self.config(ctx, &row.at).await? else { continue };
            let m = Machine { at: row.at, pool: row.pool, config };
            let v = m.judge(&site, None, None);
            if let (Ownership::Own, Some(marker)) = (v.ownership, v.marker) {
                out.push((m, marker));
            }
        }
        Ok(out)
    }

    /// Machines of this site that its file does not name: their names and ids.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn strays(&self, ctx: &Ctx) -> OpResult<Vec<(String, u32)>> {
        let site = ctx.site()?;
        let owned = self.owned_but(ctx, &|vmid| site.nodes.iter().any(|n| n.vmid == vmid)).await?;
        Ok(owned.iter().filter(|(_, k)| k.kind.is_none()).map(|(m, _)| (m.name(), m.at.vmid)).collect())
    }

    /// The same in words, with what removes them.
    pub(super) async fn left_over(&self, ctx: &Ctx, site: &Site) -> OpResult<Option<String>> {
        let all = self.strays(ctx).await?;
        let names: Vec<String> = all.iter().map(|(name, vmid)| format!("{name} (VM {vmid})")).collect();
        Ok(all.first().map(|(first, _)| {
            format!(
                "machines of {} that the site file does not name: {}; to remove one: gpuhost run recipes/remove-node.rhai \
                 --set name={first}",
                site.name,
                names.join(", ")
            )
        }))
    }

    /// A handle for a VM that was read, tied to its node of the site when it is one.
    pub(super) fn handle(&self, ctx: &Ctx, m: &Machine) -> Vm {
        let marker = m.marker().filter(|k| ctx.site.as_ref().is_some_and(|s| s.uuid == k.site));
        let kind = marker.and_then(|k| k.kind).unwrap_or_default();
        let node = ctx.site.as_ref().and_then(|s| node_at(s, m.at.vmid)).filter(|_| kind.is_empty());
        let mut vm = self.vm(m.at.clone(), &m.name()).of_node(node);
        vm.kind = kind;
        vm
    }

    /// A handle from a list, without reading the config.
    pub(crate) fn handle_of_row(&self, ctx: &Ctx, row: &Row) -> Vm {
        let node = ctx.site.as_ref().and_then(|s| node_at(s, row.at.vmid)).filter(|n| n.name == row.name);
        self.vm(row.at.clone(), &row.name).of_node(node)
    }
}

fn node_at(site: &Site, vmid: u32) -> Option<Arc<Node>> {
    site.nodes.iter().find(|n| n.vmid == vmid).map(|n| Arc::new(n.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_containers_are_not_vms() {
        assert!(Row::read(&json!({"type": "lxc", "vmid": 1, "node": "p"})).is_none());
        let r = Row::read(&json!({"vmid": 201, "status": "unknown", "id": "qemu/201", "type": "qemu",
            "pool": "gpuhost-homelab", "node": "pve1", "tags": "control-plane;gpuhost;k3s"}))
        .unwrap();
        assert_eq!((r.at.vmid, r.pool.as_deref(), r.tags.len(), r.template), (201, Some("gpuhost-homelab"), 3, false));
    }

    #[test]
    fn the_smbios_uuid_is_found_among_its_neighbours() {
        let Value::Object(config) = json!({"smbios1": "base64=1,uuid=b67d,family=x", "cores": 4}) else { panic!() };
        let m = Machine { at: At::new("p", 1), pool: None, config };
        assert_eq!(m.smbios().as_deref(), Some("b67d"));
        assert_eq!(m.get("cores").as_deref(), Some("4"));
    }
}
