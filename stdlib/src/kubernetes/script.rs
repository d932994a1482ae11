//! The script functions of `kubernetes`: thin calls into the cluster.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use std::collections::BTreeMap;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::{Value, json};

use super::{Cluster, ListOptions, ObjectOptions};
use crate::core::ctx::{Ctx, RhaiResultOf, call};
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::units::Secret;

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

/// An object as scripts see it; what a Secret holds is hidden on the screen from then on.
fn seen_by_script(ctx: &Ctx, object: &Value) -> OpResult<Dynamic> {
    super::hidden::hide_secret(ctx, object);
    to_script(object)
}

/// JSON as a script value.
pub(crate) fn to_script(v: &Value) -> OpResult<Dynamic> {
    rhai::serde::to_dynamic(v)
        .map_err(|e| OpError::failed("an answer cannot be shown to the script").because(e.to_string()))
}

/// A script value as JSON.
pub(crate) fn from_script(v: &Dynamic) -> OpResult<Value> {
    rhai::serde::from_dynamic(v).map_err(|e| OpError::invalid("this value has no JSON form").because(e.to_string()))
}

/// Changes as a list for scripts.
pub(crate) fn shown(changes: &[Change]) -> OpResult<Array> {
    changes.iter().map(|c| to_script(&serde_json::to_value(c).unwrap_or_default())).collect()
}

/// Texts of a map.
pub(super) fn strings(map: &Map) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[export_module]
mod api {
    use super::*;

    /// Name of the cluster.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.name);
    /// ```
    #[rhai_fn(global, get = "name", pure)]
    pub fn name(cluster: &mut Cluster) -> String {
        cluster.name().to_owned()
    }

    /// The kubeconfig, as a secret.
    ///
    /// # Example
    /// ```rhai
    /// let config = cluster.kubeconfig;
    /// ```
    #[rhai_fn(global, get = "kubeconfig", pure)]
    pub fn kubeconfig(cluster: &mut Cluster) -> Secret {
        cluster.kubeconfig()
    }

    /// Shows the cluster without secrets.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster);
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn show(cluster: &mut Cluster) -> String {
        format!("{cluster:?}")
    }

    /// One object as a map; an error when it is absent.
    ///
    /// # Example
    /// ```rhai
    /// let node = cluster.get("node", "k3s-cp1");
    /// ```
    #[rhai_fn(global, name = "get", return_raw, pure)]
    pub fn get(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, name: &str) -> RhaiResultOf<Dynamic> {
        get_in(ncc, cluster, kind, name, Map::new())
    }

    /// One object of a namespace as a map; an error when it is absent.
    ///
    /// # Example
    /// ```rhai
    /// let hub = cluster.get("deploy", "hub", #{ namespace: "jupyterhub" });
    /// ```
    #[rhai_fn(global, name = "get", return_raw, pure)]
    pub fn get_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, kind, name) = (cluster.clone(), kind.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            seen_by_script(&ctx, &cluster.get_object(&ctx, &kind, &o.namespace, &name).await?)
        })
    }

    /// One object as a map, or `()` when it is absent.
    ///
    /// # Example
    /// ```rhai
    /// if cluster.find("storageclass", "nfs-client") == () { warn("no NFS class"); }
    /// ```
    #[rhai_fn(global, name = "find", return_raw, pure)]
    pub fn find(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, name: &str) -> RhaiResultOf<Dynamic> {
        find_in(ncc, cluster, kind, name, Map::new())
    }

    /// One object of a namespace as a map, or `()` when it is absent.
    ///
    /// # Example
    /// ```rhai
    /// let found = cluster.find("pod", "web", #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "find", return_raw, pure)]
    pub fn find_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, kind, name) = (cluster.clone(), kind.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            match cluster.find_object(&ctx, &kind, &o.namespace, &name).await {
                Ok(Some(v)) => seen_by_script(&ctx, &v),
                Ok(None) => Ok(Dynamic::UNIT),
                Err(e) if e.is(crate::core::error::Kind::NotFound) => Ok(Dynamic::UNIT),
                Err(e) => Err(e),
            }
        })
    }

    /// All objects of a kind, as maps.
    ///
    /// # Example
    /// ```rhai
    /// for class in cluster.list("storageclass") { print(class.metadata.name); }
    /// ```
    #[rhai_fn(global, name = "list", return_raw, pure)]
    pub fn list(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str) -> RhaiResultOf<Array> {
        list_with(ncc, cluster, kind, Map::new())
    }

    /// Objects of a kind by namespace, labels or fields, as maps.
    ///
    /// # Example
    /// ```rhai
    /// let pods = cluster.list("pod", #{ namespace: "gpu-operator", labels: #{ app: "nvidia-device-plugin-daemonset" } });
    /// ```
    #[rhai_fn(global, name = "list", return_raw, pure)]
    pub fn list_with(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, options: Map) -> RhaiResultOf<Array> {
        let (cluster, kind) = (cluster.clone(), kind.to_owned());
        call(&ncc, |ctx| async move {
            let o = ListOptions::read(&options)?;
            cluster.list_objects(&ctx, &kind, &o).await?.iter().map(|v| seen_by_script(&ctx, v)).collect()
        })
    }

    /// One row per node: name, status, roles, version, address, gpus.
    ///
    /// # Example
    /// ```rhai
    /// print(table(cluster.list_nodes()));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_nodes(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move {
            let nodes = cluster.list_in(&ctx, "node", "").await?;
            nodes.iter().map(|n| to_script(&super::super::node_row(n))).collect()
        })
    }

    /// Deletes an object and waits until it is gone; `false` when it was absent. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.delete("namespace", "shop");
    /// ```
    #[rhai_fn(global, name = "delete", return_raw, pure)]
    pub fn delete(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, name: &str) -> RhaiResultOf<bool> {
        delete_in(ncc, cluster, kind, name, Map::new())
    }

    /// Deletes an object of a namespace and waits until it is gone. Asks first.
    ///
    /// What goes with it is named in the question: claims of a namespace and what becomes of their data,
    /// objects of a definition. What Fleet, Helm or K3s takes care of is refused.
    ///
    /// # Example
    /// ```rhai
    /// cluster.delete("pod", "web", #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "delete", return_raw, pure)]
    pub fn delete_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<bool> {
        let (cluster, kind, name) = (cluster.clone(), kind.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move {
            cluster.delete_with(&ctx, &kind, &name, &super::super::DeleteOptions::read(&options)?).await
        })
    }

    /// GET on an API path, for example `/readyz?verbose`: the text.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.read_path("/version"));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn read_path(ncc: NativeCallContext, cluster: &mut Cluster, path: &str) -> RhaiResultOf<String> {
        let (cluster, path) = (cluster.clone(), path.to_owned());
        call(&ncc, |ctx| async move { Ok(cluster.send(&ctx, &super::super::rest::Request::get(path)).await?.text()) })
    }

    /// Asks every API server by itself: `#{ server, ok, text }` each.
    ///
    /// # Example
    /// ```rhai
    /// for answer in cluster.ask_servers("/livez") { require(answer.ok, answer.server); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ask_servers(ncc: NativeCallContext, cluster: &mut Cluster, path: &str) -> RhaiResultOf<Array> {
        let (cluster, path) = (cluster.clone(), path.to_owned());
        call(&ncc, |ctx| async move {
            let all = cluster.ask_each(&ctx, &path).await;
            all.iter().map(|(server, text, ok)| to_script(&json!({"server": server, "ok": ok, "text": text}))).collect()
        })
    }
}
