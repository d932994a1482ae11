//! The script functions of `kubernetes`: thin calls into the cluster.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use std::collections::BTreeMap;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::{Value, json};

use super::{ApplyOptions, Cluster, ListOptions, LogOptions, ObjectOptions, parse_yaml};
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::units::{Duration, Secret};

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
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

fn strings(map: &Map) -> BTreeMap<String, String> {
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
            to_script(&cluster.get_object(&ctx, &kind, &o.namespace, &name).await?)
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
                Ok(Some(v)) => to_script(&v),
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
            cluster.list_objects(&ctx, &kind, &o).await?.iter().map(to_script).collect()
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

    /// Applies YAML text; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_text(ncc: NativeCallContext, cluster: &mut Cluster, yaml: &str) -> RhaiResultOf<Array> {
        apply_text_with(ncc, cluster, yaml, Map::new())
    }

    /// Applies YAML text with options; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_text_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        yaml: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, objects) = (cluster.clone(), parse_yaml(yaml));
        call(
            &ncc,
            |ctx| async move { shown(&cluster.apply_objects(&ctx, objects?, &ApplyOptions::read(&options)?).await?) },
        )
    }

    /// Applies an object given as a map; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply(#{ apiVersion: "v1", kind: "Namespace", metadata: #{ name: "shop" } });
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_map(ncc: NativeCallContext, cluster: &mut Cluster, object: Map) -> RhaiResultOf<Array> {
        apply_list_with(ncc, cluster, vec![object.into()], Map::new())
    }

    /// Applies an object given as a map, with options; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply(#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "a" } }, #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_map_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        object: Map,
        options: Map,
    ) -> RhaiResultOf<Array> {
        apply_list_with(ncc, cluster, vec![object.into()], options)
    }

    /// Applies objects given as maps; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply([#{ apiVersion: "v1", kind: "Namespace", metadata: #{ name: "shop" } }]);
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_list(ncc: NativeCallContext, cluster: &mut Cluster, objects: Array) -> RhaiResultOf<Array> {
        apply_list_with(ncc, cluster, objects, Map::new())
    }

    /// Applies objects given as maps, with options; returns what changed.
    ///
    /// # Example
    /// ```rhai
    /// cluster.apply([#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "a" } }], #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "apply", return_raw, pure)]
    pub fn apply_list_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        objects: Array,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        let objects: OpResult<Vec<Value>> = objects.iter().map(from_script).collect();
        call(
            &ncc,
            |ctx| async move { shown(&cluster.apply_objects(&ctx, objects?, &ApplyOptions::read(&options)?).await?) },
        )
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
            let o = ObjectOptions::read(&options)?;
            cluster.delete_object(&ctx, &kind, &o.namespace, &name).await
        })
    }

    /// Waits for `condition=Ready`, `phase=Running`, `exists` or `delete` of an object.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait("node", "k3s-cp1", "condition=Ready", 5.minutes);
    /// ```
    #[rhai_fn(global, name = "wait", return_raw, pure)]
    pub fn wait(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        goal: &str,
        limit: Duration,
    ) -> RhaiResultOf<()> {
        wait_in(ncc, cluster, kind, name, goal, limit, Map::new())
    }

    /// Waits for a goal (`condition=Ready`, `exists` …) of an object in a namespace.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait("deploy", "hub", "condition=Available", 5.minutes, #{ namespace: "jupyterhub" });
    /// ```
    #[rhai_fn(global, name = "wait", return_raw, pure)]
    pub fn wait_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        goal: &str,
        limit: Duration,
        options: Map,
    ) -> RhaiResultOf<()> {
        let (cluster, kind, name, goal) = (cluster.clone(), kind.to_owned(), name.to_owned(), goal.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            cluster.wait_object(&ctx, &kind, &o.namespace, &name, &goal, limit.0).await
        })
    }

    /// Waits until each named node is present and Ready; the error says what each lacks.
    ///
    /// # Example
    /// ```rhai
    /// cluster.wait_nodes(site().node_names(), 10.minutes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn wait_nodes(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        names: Array,
        limit: Duration,
    ) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        call(&ncc, |ctx| async move { cluster.wait_nodes(&ctx, &names, limit.0).await })
    }

    /// Events of an object, oldest first: `#{ type, reason, message }`.
    ///
    /// # Example
    /// ```rhai
    /// print(table(cluster.events("node", "k3s-cp1")));
    /// ```
    #[rhai_fn(global, name = "events", return_raw, pure)]
    pub fn events(ncc: NativeCallContext, cluster: &mut Cluster, kind: &str, name: &str) -> RhaiResultOf<Array> {
        events_in(ncc, cluster, kind, name, Map::new())
    }

    /// Events of a namespace's object, oldest first: `#{ type, reason, message }`.
    ///
    /// # Example
    /// ```rhai
    /// let news = cluster.events("pvc", "data", #{ namespace: "shop" });
    /// ```
    #[rhai_fn(global, name = "events", return_raw, pure)]
    pub fn events_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        kind: &str,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, kind, name) = (cluster.clone(), kind.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move {
            let o = ObjectOptions::read(&options)?;
            let list = cluster.events_of(&ctx, &kind, &o.namespace, &name).await?;
            list.iter().map(|(t, r, m)| to_script(&json!({"type": t, "reason": r, "message": m}))).collect()
        })
    }

    /// The log of a pod in namespace `default`.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.logs("web"));
    /// ```
    #[rhai_fn(global, name = "logs", return_raw, pure)]
    pub fn logs(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str) -> RhaiResultOf<String> {
        logs_with(ncc, cluster, pod, Map::new())
    }

    /// The log of a pod.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.logs("web", #{ namespace: "shop", tail: 20 }));
    /// ```
    #[rhai_fn(global, name = "logs", return_raw, pure)]
    pub fn logs_with(ncc: NativeCallContext, cluster: &mut Cluster, pod: &str, options: Map) -> RhaiResultOf<String> {
        let (cluster, pod) = (cluster.clone(), pod.to_owned());
        call(&ncc, |ctx| async move { cluster.pod_log(&ctx, &pod, &LogOptions::read(&options)?).await })
    }

    /// Why a pod does not run, or `()` when it does.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.explain_pending("shop", "web"));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn explain_pending(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        namespace: &str,
        pod: &str,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, namespace, pod) = (cluster.clone(), namespace.to_owned(), pod.to_owned());
        call(&ncc, |ctx| async move {
            Ok(cluster.explain_pod(&ctx, &namespace, &pod).await?.map_or(Dynamic::UNIT, Dynamic::from))
        })
    }

    /// GET through the API server's service proxy: `#{ status, body }`.
    ///
    /// # Example
    /// ```rhai
    /// require(cluster.http_get("cattle-system/rancher:80", "/ping").body == "pong", "Rancher is down");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn http_get(ncc: NativeCallContext, cluster: &mut Cluster, service: &str, path: &str) -> RhaiResultOf<Dynamic> {
        let (cluster, service, path) = (cluster.clone(), service.to_owned(), path.to_owned());
        call(&ncc, |ctx| async move {
            let (status, body) = cluster.http_through(&ctx, &service, &path).await?;
            to_script(&json!({"status": status, "body": body}))
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

    /// Ensures a namespace.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_namespace("shop");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_namespace(ncc: NativeCallContext, cluster: &mut Cluster, name: &str) -> RhaiResultOf<Array> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply_one(ncc, cluster, object)
    }

    /// Ensures labels on a node.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_label("k3s-gpu1", #{ "gpuhost/pool": "gpu" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_label(ncc: NativeCallContext, cluster: &mut Cluster, node: &str, labels: Map) -> RhaiResultOf<bool> {
        let (cluster, node, labels) = (cluster.clone(), node.to_owned(), strings(&labels));
        call(&ncc, |ctx| async move { cluster.ensure_labels(&ctx, "node", "", &node, &labels).await })
    }

    /// Ensures a taint `key=value:Effect` on a node.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_taint("k3s-gpu1", "nvidia.com/gpu=true:NoSchedule");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_taint(ncc: NativeCallContext, cluster: &mut Cluster, node: &str, taint: &str) -> RhaiResultOf<bool> {
        let (cluster, node, taint) = (cluster.clone(), node.to_owned(), taint.to_owned());
        call(&ncc, |ctx| async move { cluster.ensure_taint(&ctx, &node, &taint).await })
    }

    /// Ensures a Secret `namespace/name` with these texts.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_secret("shop/login", #{ token: secret("hub_token") });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_secret(ncc: NativeCallContext, cluster: &mut Cluster, name: &str, texts: Map) -> RhaiResultOf<Array> {
        use base64::Engine as _;
        let reveal =
            |v: &Dynamic| v.clone().try_cast::<Secret>().map_or_else(|| v.to_string(), |s| s.reveal().to_owned());
        let encode = |v: &Dynamic| base64::engine::general_purpose::STANDARD.encode(reveal(v));
        let data: BTreeMap<_, _> = texts.iter().map(|(k, v)| (k.to_string(), encode(v))).collect();
        let (ns, name) = name.split_once('/').unwrap_or(("default", name));
        let meta = json!({"name": name, "namespace": ns});
        apply_one(
            ncc,
            cluster,
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta, "data": data}),
        )
    }

    /// Ensures a ConfigMap `namespace/name` with these texts.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_config_map("shop/motd", #{ text: "hello" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_config_map(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        texts: Map,
    ) -> RhaiResultOf<Array> {
        let (ns, name) = name.split_once('/').unwrap_or(("default", name));
        let meta = json!({"name": name, "namespace": ns});
        apply_one(
            ncc,
            cluster,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": strings(&texts)}),
        )
    }
}

fn apply_one(ncc: NativeCallContext, cluster: &mut Cluster, object: Value) -> RhaiResultOf<Array> {
    let cluster = cluster.clone();
    call(&ncc, |ctx| async move {
        let o = ApplyOptions { namespace: String::new(), take_over: false };
        shown(&cluster.apply_objects(&ctx, vec![object], &o).await?)
    })
}
