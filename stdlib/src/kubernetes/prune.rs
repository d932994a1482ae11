//! Sets: what one recipe applies carries a label; what no longer is among it goes.
use std::collections::BTreeSet;

use serde_json::Value;

use super::diff::other_owner;
use super::objects::describe;
use super::{Cluster, ListOptions};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;

/// Label that names the set an object was applied with.
pub const SET: &str = "gpuhost/set";

/// Kinds whose objects hold data, or take data with them: never pruned.
const DATA: &[&str] = &["PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"];

/// The set's label value: site and name.
///
/// # Errors
/// `invalid` for a name that is no label value.
pub fn set_id(ctx: &Ctx, name: &str) -> OpResult<String> {
    let site = ctx.site.as_ref().map_or("nosite", |s| s.name.as_str());
    let id = format!("{site}.{name}");
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || id.len() > 63 || !id.chars().all(fits) || !id.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(OpError::invalid(format!("option `prune`: `{name}` cannot name a set"))
            .hint("letters, digits, `-`, `_` and `.`: for example the recipe's name"));
    }
    Ok(id)
}

/// Which objects of a set are not among the wanted ones: `(to delete, kept for their data)`.
#[must_use]
pub fn leftovers<'a>(set: &'a [Value], wanted: &[Value]) -> (Vec<&'a Value>, Vec<&'a Value>) {
    let id = |o: &Value| {
        let group = o["apiVersion"].as_str().and_then(|a| a.split_once('/')).map_or("", |(g, _)| g).to_owned();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (group, text(&o["kind"]), text(&o["metadata"]["namespace"]), text(&o["metadata"]["name"]))
    };
    let keep: BTreeSet<_> = wanted.iter().map(id).collect();
    let gone = set.iter().filter(|o| !keep.contains(&id(o)));
    // what another controller took over, or made, is not ours to remove
    let gone = gone.filter(|o| other_owner(o).is_none() && o["metadata"]["deletionTimestamp"].is_null());
    gone.partition(|o| !DATA.contains(&o["kind"].as_str().unwrap_or_default()))
}

impl Cluster {
    /// Removes what was applied with this set before and is not among `wanted`; objects with data stay.
    ///
    /// # Errors
    /// `denied` when declined.
    pub async fn prune(&self, ctx: &Ctx, id: &str, wanted: &[Value]) -> OpResult<Vec<Change>> {
        let op = Op::destroy("kubernetes", "prune", id);
        ctx.run_op(op, |s| async move {
            let (gone, changes) = self.leaving(s.ctx(), id, wanted).await?;
            if gone.is_empty() {
                return Ok(Vec::new());
            }
            s.act(format!("set {id}"), changes, async {
                for o in &gone {
                    let meta = &o["metadata"];
                    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                    let group = o["apiVersion"].as_str().and_then(|a| a.split_once('/')).map_or("", |(g, _)| g);
                    let kind = text(&o["kind"]);
                    let name = if group.is_empty() { kind } else { format!("{kind}.{group}") };
                    self.delete_now(s.ctx(), &name, &text(&meta["namespace"]), &text(&meta["name"])).await?;
                }
                Ok(())
            })
            .await?;
            Ok(s.changes())
        })
        .await
    }

    /// What would be pruned, and what goes along with it; warns of what is kept for its data.
    pub(super) async fn leaving(&self, ctx: &Ctx, id: &str, wanted: &[Value]) -> OpResult<(Vec<Value>, Vec<Change>)> {
        let set = self.members_of(ctx, id).await?;
        let (gone, kept) = leftovers(&set, wanted);
        for o in kept {
            ctx.message("warn", format!("{} left the set `{id}` and is kept: it holds data", describe(o)));
        }
        let mut changes = Vec::new();
        for o in &gone {
            changes.extend(self.losses(ctx, o).await?);
        }
        changes.extend(gone.iter().map(|o| Change::new(self.name(), describe(o), Some("present".into()), None)));
        Ok((gone.into_iter().cloned().collect(), changes))
    }

    /// Every object that carries the set's label.
    async fn members_of(&self, ctx: &Ctx, id: &str) -> OpResult<Vec<Value>> {
        self.discover(ctx).await?;
        let labels = [(SET.to_owned(), id.to_owned())].into();
        let o = ListOptions { namespace: String::new(), labels, fields: Default::default() };
        let mut out = Vec::new();
        for kind in self.known_kinds() {
            if !kind.listed || matches!(kind.kind.as_str(), "Event" | "Endpoints" | "EndpointSlice" | "Lease") {
                continue;
            }
            out.extend(self.list_kind(ctx, &kind, &o).await?);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_longer_applied_goes_and_data_stays() {
        let o = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "x"}});
        let mut helm = o("Service", "h");
        helm["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
        helm["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "r"});
        let set = [o("ConfigMap", "a"), o("ConfigMap", "b"), o("PersistentVolumeClaim", "c"), helm];
        let (gone, kept) = leftovers(&set, &[o("ConfigMap", "a")]);
        assert_eq!(gone.iter().map(|o| describe(o)).collect::<Vec<_>>(), ["ConfigMap x/b"]);
        assert_eq!(kept.len(), 1);
        // the same name of another kind is another object
        let (gone, _) = leftovers(&set, &[o("Secret", "a"), o("ConfigMap", "b")]);
        assert_eq!(gone.iter().map(|o| describe(o)).collect::<Vec<_>>(), ["ConfigMap x/a"]);
    }
}
