//! Reading and deleting objects.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Cluster;
use super::diff::manager_of;
use super::kinds::Kind;
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
    /// How to delete.
    pub struct DeleteOptions {
        /// Namespace; `default` when left out. Kinds without namespaces ignore it.
        namespace: String = String::new(),
        /// Delete it although Fleet, Helm or K3s takes care of it.
        take_over: bool = false,
        /// How long its finalizers may take.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(5),
        /// What becomes of what it owns: `background` (goes afterwards), `foreground` (goes first) or `orphan` (stays).
        propagation: String = "background".to_owned(),
        /// How long it gets for its end; default: what it asks for itself. `0.seconds` takes a pod whose node is gone off the list.
        grace: Option<crate::core::units::Duration> = None,
    }
}

impl DeleteOptions {
    /// The server's own options.
    fn body(&self) -> OpResult<Value> {
        let policy = match self.propagation.as_str() {
            "background" => "Background",
            "foreground" => "Foreground",
            "orphan" => "Orphan",
            other => {
                return Err(OpError::invalid(format!("option `propagation`: there is no `{other}`"))
                    .hint("background, foreground or orphan"));
            }
        };
        let mut body = json!({"propagationPolicy": policy});
        if let Some(grace) = &self.grace {
            body["gracePeriodSeconds"] = grace.0.as_secs().into();
        }
        Ok(body)
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
        self.list_kind(ctx, &kind, o).await
    }

    /// Objects of a kind; none when the API server does not have it.
    pub(super) async fn list_kind(&self, ctx: &Ctx, kind: &Kind, o: &ListOptions) -> OpResult<Vec<Value>> {
        let (labels, fields) = (selector(&o.labels), selector(&o.fields));
        let mut out = Vec::new();
        let mut next = String::new();
        let mut restarts = 0;
        loop {
            let q =
                query(&[("labelSelector", &labels), ("fieldSelector", &fields), ("limit", "500"), ("continue", &next)]);
            let path = format!("{}{q}", collection(kind, &o.namespace));
            let reply = self.send(ctx, &Request::get(path)).await?;
            if reply.status == 404 {
                return Ok(Vec::new());
            }
            if reply.status == 410 && !next.is_empty() && restarts < 3 {
                // The server has forgotten the state this list began in: begin anew.
                restarts += 1;
                next.clear();
                out.clear();
                continue;
            }
            if !reply.ok() {
                return Err(reply.error(&kind.plural));
            }
            let mut list = reply.parsed(&kind.plural)?;
            if let Value::Array(items) = list["items"].take() {
                for mut object in items {
                    // lists carry neither on their items
                    object["apiVersion"] = kind.api_version().into();
                    object["kind"] = kind.kind.clone().into();
                    out.push(object);
                }
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

    /// Removes an object and waits until it is gone; an absent one is no change. What goes with it is listed.
    ///
    /// # Errors
    /// `denied` when declined or when somebody else takes care of it; `timeout` naming the finalizers that hold it.
    pub async fn delete_object(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str) -> OpResult<bool> {
        let o = DeleteOptions { namespace: ns.to_owned(), ..DeleteOptions::read(&rhai::Map::new())? };
        self.delete_with(ctx, kind, name, &o).await
    }

    /// As [`Cluster::delete_object`], with options.
    ///
    /// # Errors
    /// Like [`Cluster::delete_object`].
    pub async fn delete_with(&self, ctx: &Ctx, kind: &str, name: &str, o: &DeleteOptions) -> OpResult<bool> {
        let (ns, body) = (o.namespace.clone(), o.body()?);
        let op = Op::destroy("kubernetes", "delete", format!("{kind} {name}")).args(&(kind, &ns, name));
        let (kind, name) = (kind.to_owned(), name.to_owned());
        ctx.run_op(op, |s| async move {
            let ctx = s.ctx().clone();
            let Some(found) = self.find_object(&ctx, &kind, &ns, &name).await? else { return Ok(false) };
            if let Some(owner) = manager_of(&found).filter(|_| !o.take_over) {
                return Err(OpError::refused(format!("it belongs to {owner}"))
                    .on(describe(&found))
                    .hint("remove it where its owner keeps it, or pass `#{ take_over: true }`"));
            }
            let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            if found["kind"] == "Node" {
                self.keep_quorum(&ctx, &name).await?;
            }
            let mut changes = self.losses(&ctx, &found).await?;
            changes.push(Change::new(self.name(), describe(&found), Some("present".into()), None));
            s.act(uid.clone(), changes, async {
                self.delete_so(&ctx, &kind, &ns, &name, &body).await?;
                self.wait_gone(&s, &kind, &ns, &name, &uid, o.timeout.0).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Sends the delete, without consent or journal: for what the same op made.
    pub(crate) async fn delete_now(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str) -> OpResult<()> {
        self.delete_so(ctx, kind, ns, name, &json!({"propagationPolicy": "Background"})).await
    }

    async fn delete_so(&self, ctx: &Ctx, kind: &str, ns: &str, name: &str, options: &Value) -> OpResult<()> {
        let kind = self.kind(ctx, kind).await?;
        let reply = self.send(ctx, &Request::delete_so(item(&kind, ns, name), options)).await?;
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
        let target = super::watch::Target::one(kind, ns, name);
        self.wait_watching(s, &format!("removal of {kind} {name}"), target, limit, || async {
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
