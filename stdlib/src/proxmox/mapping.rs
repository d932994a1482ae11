//! PCI resource mappings: the only way to pass a GPU through with an API token.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::options;
use crate::site::Node;

use super::request;
use super::types::Proxmox;
use super::wanted::{Wanted, mapping_of};

options! {
    /// Which cards a mapping shares.
    pub struct MappingOptions {
        /// `vendor:device` as `lspci -nn` prints it.
        device: String,
        /// How many cards there must be at least.
        count: i64 = 1,
        /// Hypervisor nodes to look on; default: those of the site's GPU nodes.
        node: Option<String> = None,
    }
}

/// One card of a hypervisor node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Hypervisor node.
    pub node: String,
    /// `0000:01:00.0`.
    pub path: String,
    /// `10de:20f1`.
    pub id: String,
    /// `10de:145f`, when known.
    pub subsystem: Option<String>,
    /// IOMMU group; `None` when the IOMMU is off.
    pub group: Option<i64>,
}

fn hex4(v: &Value) -> Option<String> {
    let t = v.as_str()?.trim_start_matches("0x").to_ascii_lowercase();
    (!t.is_empty()).then_some(t)
}

/// Cards with this `vendor:device` in an answer of `/hardware/pci`.
#[must_use]
pub fn cards(node: &str, pci: &Value, device: &str) -> Vec<Card> {
    let all = pci.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out: Vec<Card> = all
        .iter()
        .filter_map(|d| {
            let id = format!("{}:{}", hex4(&d["vendor"])?, hex4(&d["device"])?);
            (id == device.to_ascii_lowercase()).then(|| Card {
                node: node.to_owned(),
                path: d["id"].as_str().unwrap_or_default().to_owned(),
                id,
                subsystem: hex4(&d["subsystem_vendor"])
                    .zip(hex4(&d["subsystem_device"]))
                    .map(|(a, b)| format!("{a}:{b}")),
                group: d["iommugroup"].as_i64().filter(|g| *g >= 0),
            })
        })
        .collect();
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

/// `node=pve1,path=0000:41:00.0,id=10de:20f1,iommugroup=0`.
#[must_use]
pub fn entry(c: &Card) -> String {
    let group = c.group.map(|g| format!(",iommugroup={g}")).unwrap_or_default();
    let sub = c.subsystem.as_ref().map(|s| format!(",subsystem-id={s}")).unwrap_or_default();
    format!("node={},path={},id={}{group}{sub}", c.node, c.path, c.id)
}

fn parts(entry: &str) -> BTreeMap<String, String> {
    entry
        .split(',')
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
        .collect()
}

/// The card that an entry names: node and path.
fn place(entry: &str) -> Option<(String, String)> {
    let p = parts(entry);
    let path = p.get("path")?.split(';').next()?.to_owned();
    // `0000:01:00` means all functions; compare without the function.
    Some((p.get("node")?.clone(), path.trim_end_matches(".0").to_owned()))
}

/// The entries of a mapping with the missing cards added; what is there stays.
#[must_use]
pub fn merged(have: &[String], cards: &[Card]) -> Vec<String> {
    let known: Vec<_> = have.iter().filter_map(|e| place(e)).collect();
    let mut out = have.to_vec();
    for c in cards {
        let at = (c.node.clone(), c.path.trim_end_matches(".0").to_owned());
        if !known.contains(&at) {
            out.push(entry(c));
        }
    }
    out
}

fn entries(mapping: &Value) -> Vec<String> {
    let list = mapping["map"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Comment that says whose mapping it is.
fn description(site: &crate::site::Site) -> String {
    format!("gpuhost site {} {}", site.name, site.uuid)
}

impl Proxmox {
    /// The cards of `device` on the nodes that matter.
    async fn find_cards(&self, ctx: &Ctx, o: &MappingOptions) -> OpResult<Vec<Card>> {
        let mut nodes: Vec<String> = match (&o.node, &ctx.site) {
            (Some(n), _) => vec![n.clone()],
            (None, Some(site)) => {
                site.nodes.iter().filter(|n| n.shape.gpu_count() > 0).map(|n| n.pve_node.clone()).collect()
            }
            (None, None) => Vec::new(),
        };
        if nodes.is_empty() {
            nodes.push(self.section().pve_node.clone());
        }
        nodes.sort();
        nodes.dedup();
        let mut out = Vec::new();
        for n in nodes {
            let pci = self.send(ctx, &request::list_pci(&n)).await?;
            out.extend(cards(&n, &pci, &o.device));
        }
        Ok(out)
    }

    /// Makes a PCI mapping share the cards of a device; adds what is missing, takes nothing away.
    ///
    /// # Errors
    /// `not_found` when there are fewer cards than wanted; `failed` when the IOMMU is off.
    pub async fn ensure_pci_mapping(&self, ctx: &Ctx, name: &str, o: &MappingOptions) -> OpResult<i64> {
        let identity = (&o.device, o.count, &o.node);
        ctx.run_op(Op::write("proxmox", "ensure_pci_mapping", name).args(&identity), |s| async move {
            let found = self.find_cards(ctx, o).await?;
            check_cards(&found, o)?;
            let have = self.find(ctx, &request::mapping(name)).await?;
            let old = have.as_ref().map(entries).unwrap_or_default();
            let new = merged(&old, &found);
            self.refuse_bad_entries(ctx, name, &old, &found)?;
            if have.is_some() && new == old {
                return Ok(found.len() as i64);
            }
            let shown = |list: &[String]| Some(Value::from(format!("{} cards", list.len())));
            let before = have.as_ref().and_then(|_| shown(&old));
            let change = Change::new(name, "pci mapping", before, shown(&new));
            s.act(format!("mapping {name}"), vec![change], async {
                let r = match &have {
                    None => request::create_mapping(name, &description(&*ctx.site()?), &new),
                    Some(v) => request::put_mapping(name, &new, v["digest"].as_str()),
                };
                let made = async || {
                    let now = self.find(ctx, &request::mapping(name)).await?;
                    Ok(now.is_some_and(|m| entries(&m) == new))
                };
                self.put_through(&s, "the mapping", &r, made).await
            })
            .await?;
            Ok(found.len() as i64)
        })
        .await
    }

    /// Cards are promised before a machine is made: the mapping exists, holds enough of them on its node
    /// for all machines of the site there, and none of them is gone.
    pub(super) async fn refuse_missing_cards(&self, ctx: &Ctx, node: &Node, want: &Wanted) -> OpResult<()> {
        let (Some(name), 1..) = (&want.mapping, want.gpus) else { return Ok(()) };
        let site = ctx.site()?;
        let make = format!(
            "make it first: `pve.ensure_pci_mapping(\"{name}\", #{{ device: site().gpu.device, count: site().gpu_count() }})`"
        );
        let Some(found) = self.find(ctx, &request::mapping(name)).await? else {
            return Err(OpError::not_found(format!("there is no PCI mapping `{name}`")).hint(make));
        };
        let checks = self.send(ctx, &request::check_mappings(&node.pve_node)).await?;
        let checks = checks.as_array().map(Vec::as_slice).unwrap_or_default().iter().find(|m| m["id"] == name.as_str());
        let checks = checks.and_then(|m| m["checks"].as_array()).map(Vec::as_slice).unwrap_or_default();
        let bad: Vec<&str> = checks
            .iter()
            .filter(|c| c["severity"] == "error")
            .filter_map(|c| c["message"].as_str())
            .map(str::trim)
            .collect();
        if !bad.is_empty() {
            let mut e =
                OpError::failed(format!("PCI mapping `{name}` holds cards that {} does not have", node.pve_node));
            e.causes = bad.into_iter().map(str::to_owned).collect();
            return Err(
                e.hint("the card moved, is gone, or is another model: compare the mapping with `pve.list_pci(node)`")
            );
        }
        let have = entries(&found).iter().filter(|e| place(e).is_some_and(|p| p.0 == node.pve_node)).count();
        let mine = |n: &&Node| n.pve_node == node.pve_node && mapping_of(&site, n).as_ref() == Some(name);
        let promised: u32 = site.nodes.iter().filter(mine).map(|n| n.shape.gpu_count()).sum();
        if (have as u64) < u64::from(promised.max(want.gpus)) {
            return Err(OpError::conflict(format!(
                "PCI mapping `{name}` has {have} cards on {}, the site's machines there want {promised}",
                node.pve_node
            ))
            .hint("no card is promised twice: add cards to the mapping, or lower `gpus` in the site file"));
        }
        Ok(())
    }

    /// An entry whose card is gone makes machines fail at their start: say so now.
    fn refuse_bad_entries(&self, ctx: &Ctx, name: &str, have: &[String], found: &[Card]) -> OpResult<()> {
        let is = |e: &String| {
            place(e)
                .is_some_and(|p| found.iter().any(|c| (c.node.clone(), c.path.trim_end_matches(".0").to_owned()) == p))
        };
        let nodes: Vec<&str> = found.iter().map(|c| c.node.as_str()).collect();
        let on_ours = |e: &&String| place(e).is_some_and(|p| nodes.contains(&p.0.as_str()));
        let gone: Vec<&String> = have.iter().filter(on_ours).filter(|e| !is(e)).collect();
        if !gone.is_empty() {
            let list: Vec<&str> = gone.iter().map(|e| e.as_str()).collect();
            ctx.message(
                "warn",
                format!("mapping {name} holds cards that are not of this device or not there: {}", list.join(" | ")),
            );
        }
        Ok(())
    }

    /// Removes a PCI mapping that this site made; one that was there before stays.
    ///
    /// # Errors
    /// `denied` when the user declines.
    pub async fn remove_pci_mapping(&self, ctx: &Ctx, name: &str) -> OpResult<bool> {
        let site = ctx.site()?;
        ctx.run_op(Op::destroy("proxmox", "remove_pci_mapping", name), |s| async move {
            let Some(found) = self.find(ctx, &request::mapping(name)).await? else { return Ok(false) };
            if !found["description"].as_str().unwrap_or_default().contains(&site.uuid) {
                ctx.message("info", format!("mapping {name} stays: it was not made by this site"));
                return Ok(false);
            }
            let user = self.mapping_user(ctx, name).await?;
            if let Some(user) = user {
                ctx.message("info", format!("mapping {name} stays: {user} uses it"));
                return Ok(false);
            }
            let change =
                Change::new(name, "pci mapping", Some(format!("{} cards", entries(&found).len()).into()), None);
            s.act(format!("mapping {name}"), vec![change], async {
                let r = request::delete(format!("/cluster/mapping/pci/{name}"));
                let gone = async || Ok(self.find(ctx, &request::mapping(name)).await?.is_none());
                self.put_through(&s, "the mapping", &r, gone).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// A VM whose config names the mapping.
    async fn mapping_user(&self, ctx: &Ctx, name: &str) -> OpResult<Option<String>> {
        let named = format!("mapping={name}");
        for row in self.rows(ctx).await? {
            let Ok(Some(config)) = self.config(ctx, &row.at).await else { continue };
            let uses = config
                .iter()
                .any(|(k, v)| k.starts_with("hostpci") && v.as_str().is_some_and(|t| t.split(',').any(|p| p == named)));
            if uses {
                return Ok(Some(format!("VM {} `{}`", row.at.vmid, row.name)));
            }
        }
        Ok(None)
    }
}

/// Enough cards, and each behind an IOMMU.
fn check_cards(found: &[Card], o: &MappingOptions) -> OpResult<()> {
    let count = usize::try_from(o.count).unwrap_or(0);
    if found.len() < count {
        return Err(OpError::not_found(format!(
            "{count} cards `{}` are wanted, the hypervisor has {}",
            o.device,
            found.len()
        ))
        .hint("compare `gpu.device` in the site file with `lspci -nn | grep -i nvidia` on the hypervisor"));
    }
    let dark: Vec<&str> = found.iter().filter(|c| c.group.is_none()).map(|c| c.path.as_str()).collect();
    if !dark.is_empty() {
        return Err(OpError::failed(format!("the IOMMU is off for {}", dark.join(", ")))
            .hint("switch it on in the firmware (VT-d, AMD-Vi) and on the kernel command line (`intel_iommu=on iommu=pt`), then reboot the hypervisor"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pci() -> Value {
        let d = |id: &str, dev: &str, g: i64| {
            json!({"id": id, "vendor": "0x10de", "device": dev, "iommugroup": g,
            "subsystem_vendor": "0x10de", "subsystem_device": "0x145f"})
        };
        json!([d("0000:02:00.0", "0x20f1", 3), d("0000:01:00.0", "0x20F1", 2), d("0000:03:00.0", "0x1aef", 4)])
    }

    #[test]
    fn cards_are_found_by_vendor_and_device() {
        let c = cards("pve1", &pci(), "10DE:20f1");
        assert_eq!(c.len(), 2);
        assert_eq!(entry(&c[0]), "node=pve1,path=0000:01:00.0,id=10de:20f1,iommugroup=2,subsystem-id=10de:145f");
    }

    #[test]
    fn entries_are_added_and_never_taken_away() {
        let c = cards("pve1", &pci(), "10de:20f1");
        let old = vec![
            "id=10de:20f1,node=pve1,path=0000:01:00".to_owned(),
            "node=pve2,path=0000:01:00.0,id=10de:20f1".to_owned(),
        ];
        let new = merged(&old, &c);
        assert_eq!(new.len(), 3);
        assert_eq!(new[..2], old[..]);
        assert_eq!(merged(&new, &c), new);
    }

    #[test]
    fn too_few_cards_and_a_dark_iommu_are_refused() {
        let o = |count| MappingOptions { device: "10de:20f1".to_owned(), count, node: None };
        let mut c = cards("pve1", &pci(), "10de:20f1");
        assert!(check_cards(&c, &o(2)).is_ok());
        assert!(check_cards(&c, &o(3)).is_err());
        c[0].group = None;
        assert!(check_cards(&c, &o(2)).unwrap_err().message.contains("0000:01:00.0"));
    }
}
