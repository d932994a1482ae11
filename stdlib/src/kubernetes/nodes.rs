//! Nodes: labels, taints, cordon and drain, and one row per node for tables.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Cluster;
use super::rest::{Request, item};
use super::wait::condition;
use crate::core::ctx::Ctx;
use crate::core::error::{Kind as ErrorKind, OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::site::split_taint;

/// What a label may look like.
const LABEL_RULE: &str = "a key is `name` or `domain/name`, for example `gpuhost/pool`; names and values have letters, digits, \
                          `-`, `_` and `.`, at most 63, and begin and end with a letter or digit";

/// A taint as `key=value:Effect` or `key:Effect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads the text form.
    ///
    /// # Errors
    /// `invalid` with the form.
    pub fn parse(text: &str) -> OpResult<Self> {
        let bad = || OpError::invalid(format!("`{text}` is not a taint")).hint("write `key=value:NoSchedule`");
        let (key, value, effect) = split_taint(text).filter(|t| text.len() > t.2.len() + 1).ok_or_else(bad)?;
        Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }

    fn json(&self) -> Value {
        let mut v = json!({"key": self.key, "effect": self.effect});
        if !self.value.is_empty() {
            v["value"] = self.value.clone().into();
        }
        v
    }
}

/// Labels that differ from the node's, as changes.
#[must_use]
pub fn label_changes(node: &Value, labels: &BTreeMap<String, String>) -> Vec<Change> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    labels
        .iter()
        .filter(|(k, v)| node["metadata"]["labels"][k.as_str()].as_str() != Some(v))
        .map(|(k, v)| {
            let before = node["metadata"]["labels"].get(k).cloned();
            Change::new(name, format!("label {k}"), before, Some(v.clone().into()))
        })
        .collect()
}

/// Taints that the node lacks, as changes.
#[must_use]
pub fn taint_changes(node: &Value, taints: &[Taint]) -> Vec<Change> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let has = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let find = |t: &Taint| has.iter().find(|h| h["key"] == t.key.as_str() && h["effect"] == t.effect.as_str());
    taints
        .iter()
        .filter_map(|t| {
            let before = find(t);
            if before.is_some_and(|b| b["value"].as_str().unwrap_or_default() == t.value) {
                return None;
            }
            let shown = |v: &Value| Value::from(v["value"].as_str().unwrap_or_default());
            Some(Change::new(
                name,
                format!("taint {}:{}", t.key, t.effect),
                before.map(shown),
                Some(t.value.clone().into()),
            ))
        })
        .collect()
}

/// One row per node: name, roles, status, version, address, gpus.
#[must_use]
pub fn node_row(node: &Value) -> Value {
    let meta = &node["metadata"];
    let roles: Vec<_> = meta["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let mut status = match condition(node, "Ready") {
        Some((s, _)) if s == "True" => "Ready".to_owned(),
        Some((_, why)) => format!("NotReady ({why})"),
        None => "NotReady".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(", cordoned");
    }
    let address = node["status"]["addresses"].as_array().into_iter().flatten().find(|a| a["type"] == "InternalIP");
    json!({
        "name": meta["name"],
        "status": status,
        "roles": if roles.is_empty() { "agent".to_owned() } else { roles.join(",") },
        "version": node["status"]["nodeInfo"]["kubeletVersion"],
        "address": address.map(|a| a["address"].clone()),
        "gpus": quantity(&node["status"]["allocatable"]["nvidia.com/gpu"]),
    })
}

/// A whole quantity (`"2"` or `2`); 0 when absent.
#[must_use]
pub fn quantity(v: &Value) -> i64 {
    v.as_i64().or_else(|| v.as_str().and_then(|s| s.parse().ok())).unwrap_or(0)
}

impl Cluster {
    /// Gives a node labels and taints it lacks; others stay.
    ///
    /// # Errors
    /// `not_found`, or the server's refusal.
    pub async fn ensure_node_meta(
        &self,
        s: &OpScope,
        name: &str,
        labels: &BTreeMap<String, String>,
        taints: &[Taint],
    ) -> OpResult<()> {
        if labels.is_empty() && taints.is_empty() {
            return Ok(());
        }
        let node = self.get_object(s.ctx(), "node", "", name).await?;
        let mut changes = label_changes(&node, labels);
        let tainted = taint_changes(&node, taints);
        if changes.is_empty() && tainted.is_empty() {
            return Ok(());
        }
        let mut patch = json!({"metadata": {"labels": labels}});
        if !tainted.is_empty() {
            let mut list = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            list.retain(|h| !taints.iter().any(|t| h["key"] == t.key.as_str() && h["effect"] == t.effect.as_str()));
            list.extend(taints.iter().map(Taint::json));
            patch["spec"] = json!({"taints": list});
            // the list is replaced as a whole: not over someone else's newer one
            patch["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"].clone();
        }
        changes.extend(tainted);
        let kind = self.kind(s.ctx(), "node").await?;
        let request = Request::merge(item(&kind, "", name), &patch);
        s.act(format!("node {name}"), changes, self.demand(s.ctx(), name, &request)).await.map(drop)
    }

    /// Ensures labels on any object.
    ///
    /// # Errors
    /// `not_found`, or the server's refusal.
    pub async fn ensure_labels(
        &self,
        ctx: &Ctx,
        kind: &str,
        ns: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> OpResult<bool> {
        let op = Op::write("kubernetes", "ensure_label", format!("{kind} {name}")).args(labels);
        ctx.run_op(op, |s| async move {
            let object = self.get_object(s.ctx(), kind, ns, name).await?;
            let changes = label_changes(&object, labels);
            if changes.is_empty() {
                return Ok(false);
            }
            let k = self.kind(s.ctx(), kind).await?;
            let request = Request::merge(item(&k, ns, name), &json!({"metadata": {"labels": labels}}));
            let set = s.act(format!("{kind} {name}"), changes, self.demand(s.ctx(), name, &request)).await;
            set.map_err(|e| if e.is(ErrorKind::Invalid) { e.hint(LABEL_RULE) } else { e })?;
            Ok(true)
        })
        .await
    }

    /// Ensures a taint on a node.
    ///
    /// # Errors
    /// `not_found`, or the server's refusal.
    pub async fn ensure_taint(&self, ctx: &Ctx, node: &str, taint: &str) -> OpResult<bool> {
        let taint = Taint::parse(taint)?;
        let op = Op::write("kubernetes", "ensure_taint", node);
        ctx.run_op(op, |s| async move {
            self.ensure_node_meta(&s, node, &BTreeMap::new(), &[taint]).await?;
            Ok(!s.changes().is_empty())
        })
        .await
    }

    /// Makes a node schedulable or not.
    ///
    /// # Errors
    /// `not_found`, or the server's refusal.
    pub async fn set_cordon(&self, ctx: &Ctx, node: &str, cordoned: bool) -> OpResult<bool> {
        let op = Op::write("kubernetes", if cordoned { "cordon" } else { "uncordon" }, node);
        ctx.run_op(op, |s| async move {
            let live = self.get_object(s.ctx(), "node", "", node).await?;
            let now = live["spec"]["unschedulable"] == true;
            if now == cordoned {
                return Ok(false);
            }
            let changes = vec![Change::new(node, "unschedulable", Some(now.into()), Some(cordoned.into()))];
            let kind = self.kind(s.ctx(), "node").await?;
            let request = Request::merge(item(&kind, "", node), &json!({"spec": {"unschedulable": cordoned}}));
            s.act(format!("node {node}"), changes, self.demand(s.ctx(), node, &request)).await?;
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_compare() {
        let node =
            json!({"metadata":{"name":"n","labels":{"a":"1"}},"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}});
        let want = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(label_changes(&node, &want).len(), 1);
        let same = Taint::parse("k:NoSchedule").unwrap();
        let other = Taint::parse("k=v:NoSchedule").unwrap();
        assert!(taint_changes(&node, &[same]).is_empty());
        assert_eq!(taint_changes(&node, &[other]).len(), 1);
        assert!(Taint::parse("k=v").is_err());
    }

    #[test]
    fn rows_read() {
        let n = json!({"metadata":{"name":"n","labels":{"node-role.kubernetes.io/etcd":"true"}},"status":{"conditions":[{"type":"Ready","status":"True"}],"allocatable":{"nvidia.com/gpu":"2"},"addresses":[{"type":"InternalIP","address":"10.0.0.1"}],"nodeInfo":{"kubeletVersion":"v1"}}});
        let r = node_row(&n);
        assert_eq!(
            (r["status"].as_str(), r["roles"].as_str(), r["gpus"].as_i64()),
            (Some("Ready"), Some("etcd"), Some(2))
        );
    }
}
