//! The script functions of `kubernetes` that make objects be as declared.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use std::collections::BTreeMap;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::{Value, json};

use super::classes::{ClassOptions, quota_object};
use super::script::{from_script, shown, strings};
use super::{ApplyOptions, Cluster, ManifestOptions, parse_yaml};
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::OpResult;
use crate::core::units::Secret;

/// The functions.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

#[export_module]
mod api {
    use super::*;

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
    /// Every object is checked first: an unknown or mistyped field is an error with its path, and nothing is sent.
    /// With `prune: "name"` these objects are a set: what an earlier call applied as that set and this one does not
    /// is removed (never claims, volumes, namespaces or definitions). With `dry_run: true` the server says what would
    /// change, as the same list of `#{ target, what, before, after }`, and nothing happens.
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
            |ctx| async move { shown(&cluster.apply_set(&ctx, objects?, &ManifestOptions::read(&options)?).await?) },
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
            |ctx| async move { shown(&cluster.apply_set(&ctx, objects?, &ManifestOptions::read(&options)?).await?) },
        )
    }

    /// Applies a manifest file, or all manifests of a folder; returns what changed.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.apply_file("manifests/shop.yaml");
    /// ```
    #[rhai_fn(global, name = "apply_file", return_raw, pure)]
    pub fn apply_file(ncc: NativeCallContext, cluster: &mut Cluster, path: &str) -> RhaiResultOf<Array> {
        apply_file_with(ncc, cluster, path, Map::new())
    }

    /// Applies a manifest file or folder with options; returns what changed.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.apply_file("manifests", #{ namespace: "shop", prune: "shop" });
    /// ```
    #[rhai_fn(global, name = "apply_file", return_raw, pure)]
    pub fn apply_file_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        path: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, path) = (cluster.clone(), path.to_owned());
        call(
            &ncc,
            |ctx| async move { shown(&cluster.apply_path(&ctx, &path, &ManifestOptions::read(&options)?).await?) },
        )
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

    /// Ensures a storage class; what volumes hold is kept unless `reclaim` says otherwise.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_storage_class("archive", #{ provisioner: "nfs.csi.k8s.io", parameters: #{ server: "10.0.0.31", share: "/srv/nfs/k8s" } });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_storage_class(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            shown(&cluster.ensure_storage_class(&ctx, &name, &ClassOptions::read(&options)?).await?)
        })
    }

    /// Ensures a quota `namespace/name` with these limits.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_quota("default/gpus", #{ "requests.nvidia.com/gpu": "4" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_quota(ncc: NativeCallContext, cluster: &mut Cluster, name: &str, limits: Map) -> RhaiResultOf<Array> {
        let quota = quota_object(name, &strings(&limits)).map_err(|e| e.into_rhai(&ncc))?;
        apply_one(ncc, cluster, quota)
    }
}

fn apply_one(ncc: NativeCallContext, cluster: &mut Cluster, object: Value) -> RhaiResultOf<Array> {
    let cluster = cluster.clone();
    call(&ncc, |ctx| async move {
        let o = ApplyOptions { namespace: String::new(), take_over: false };
        shown(&cluster.apply_objects(&ctx, vec![object], &o).await?)
    })
}
