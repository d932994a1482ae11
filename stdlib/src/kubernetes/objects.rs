//! Reading and deleting objects.
use std::collections::BTreeMap;

use serde_json::Value;

use super::Cluster;
use super::rest::{Request, collection, item, query};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op};
use crate::options;

options! {
    /// Where an object is.
    pub struct ObjectOptions {
        /// Namespace; `default` when left out. Kinds without namespaces ignore it.
        namespace: String = String::new(),
    }
}

options! {
    /// Which objects to list.
    pub struct ListOptions {
        /// Namespace; all namespaces when left out.
        namespace: String = String::new(),
        /// Only objects with these labels.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Only objects with these fields, for example `#{ "spec.nodeName": "k3s-gpu1" }`.
        fields: BTreeMap<String, String> = BTreeMap::new(),
    }
}

/// `a=b,c=d`.
fn selector(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// `Deployment ns/name`.
#[must_use]
pub fn describe(object: &Value) -> String {
    let (kind, name) =
        (object["kind"].as_str().unwrap_or("object"), object["metadata"]["name"].as_str().unwrap_or("?"));
    match object["metadata"]["namespace"].as_str() {
        Some(ns) => format!("{kind} {ns}/{name}"),
        None => format!("{kind} {name}"),
    }
}

impl Cluster {
    /// An object, or `None`.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn find_object(&self, ctx: &Ctx, kind: &str, namespace: &str, name: &str) -> OpResult<Option<Value>> {
        let kind = self.kind(ctx, kind).await?;
        let path = item(&kind, namespace, name);
        let reply = self.send(ctx, &Request::get(path)).await?;
        match reply.status {
            404 => Ok(None),
            _ if reply.ok() => Ok(Some(reply.json())),
            _ => Err(reply.error(&format!("{} {name}", kind.kind))),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_object(&self, ctx: &Ctx, kind: &str, namespace: &str, name: &str) -> OpResult<Value> {
        let found = self.find_object(ctx, kind, namespace, name).await?;
        found.ok_or_else(|| {
            let at = if namespace.is_empty() { String::new() } else { format!(" in namespace `{namespace}`") };
            OpError::not_found(format!("there is no {kind} `{name}`{at}")).on(self.name())
        })
    }

    /// Objects of a kind.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `not_found` for an unknown kind.
    pub async fn list_objects(&self, ctx: &Ctx, kind: &str, o: &ListOptions) -> OpResult<Vec<Value>> {
        let kind = self.kind(ctx, kind).await?;
        let (labels, fields) = (selector(&o.labels), selector(&o.fields));
        let mut out = Vec::new();
        let mut next = String::new();
        loop {
            let q =
                query(&[("labelSelector", &labels), ("fieldSelector", &fields), ("limit", "500"), ("continue", &next)]);
            let path = format!("{}{q}", collection(&kind, &o.namespace));
            let list = self.demand(ctx, &kind.plural, &Request::get(path)).await?;
            for mut object in list["items"].as_array().cloned().unwrap_or_default() {
                // lists carry neither on their items
                object["apiVersion"] = kind.api_version().into();
                object["kind"] = kind.kind.clone().into();
                out.push(object);
            }
            next = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if next.is_empty() {
                return Ok(out);
            }
        }
    }

    /// Objects of a kind in one namespace (empty: all).
    ///
    /// # Errors
    /// Like [`Cluster::list_objects`].
    pub async fn list_in(&self, ctx: &Ctx, kind: &str, namespace: &str) -> OpResult<Vec<Value>> {
        let o = ListOptions { namespace: namespace.to_owned(), labels: BTreeMap::new(), fields: BTreeMap::new() };
        self.list_objects(ctx, kind, &o).await
    }

    /// Objects of a kind with one label.
    ///
    /// # Errors
    /// Like [`Cluster::list_objects`].
    pub async fn list_labelled(&self, ctx: &Ctx, kind: &str, ns: &str, label: (&str, &str)) -> OpResult<Vec<Value>> {
        let labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
        let o = ListOptions { namespace: ns.to_owned(), labels, fields: BTreeMap::new() };
        self.list_objects(ctx, kind, &o).await
    }

    /// Like [`Cluster::list_in`], but a kind that the cluster does not have has no objects.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn list_if_known(&self, ctx: &Ctx, kind: &str, namespace: &str) -> OpResult<Vec<Value>> {
        match self.list_in(ctx, kind, namespace).await {
            Err(e) if e.is(crate::core::error::Kind::NotFound) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Removes an object and waits until it is gone; an absent one is no change.
    ///
    /// # Errors
    /// `denied` when declined; `timeout` naming the finalizers that hold it.
    pub async fn delete_object(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str) -> OpResult<bool> {
        let op = Op::destroy("kubernetes", "delete", format!("{kind} {name}")).args(&(kind, ns, name));
        let (kind, ns, name) = (kind.to_owned(), ns.to_owned(), name.to_owned());
        ctx.run_op(op, |s| async move {
            let ctx = s.ctx().clone();
            let Some(found) = self.find_object(&ctx, &kind, &ns, &name).await? else { return Ok(false) };
            let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let change = Change::new(self.name(), describe(&found), Some("present".into()), None);
            s.act(uid.clone(), vec![change], async {
                self.delete_now(&ctx, &kind, &ns, &name).await?;
                self.wait_gone(&s, &kind, &ns, &name, &uid, std::time::Duration::from_secs(300)).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Sends the delete, without consent or journal: for what the same op made.
    pub(crate) async fn delete_now(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str) -> OpResult<()> {
        let kind = self.kind(ctx, kind).await?;
        let path = format!("{}?propagationPolicy=Background", item(&kind, ns, name));
        let reply = self.send(ctx, &Request::delete(path)).await?;
        if reply.ok() || reply.status == 404 { Ok(()) } else { Err(reply.error(&format!("{} {name}", kind.kind))) }
    }

    async fn wait_gone(
        &self,
        s: &crate::core::op::OpScope,
        kind: &str,
        ns: &str,
        name: &str,
        uid: &str,
        limit: std::time::Duration,
    ) -> OpResult<()> {
        s.wait_for(&format!("removal of {kind} {name}"), std::time::Duration::from_secs(2), limit, || async {
            let Some(o) = self.find_object(s.ctx(), kind, ns, name).await? else { return Ok(Look::Ready(())) };
            if o["metadata"]["uid"].as_str() != Some(uid) {
                return Ok(Look::Ready(()));
            }
            let finalizers = o["metadata"]["finalizers"].to_string();
            Ok(Look::Pending(format!("still there, held by finalizers {finalizers}")))
        })
        .await
    }
}
