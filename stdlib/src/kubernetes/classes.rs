//! Storage classes and quotas as objects with the fields people set.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ApplyOptions, Cluster};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::options;

options! {
    /// A storage class.
    pub struct ClassOptions {
        /// Provisioner, for example `nfs.csi.k8s.io`.
        provisioner: String,
        /// Parameters of the provisioner.
        parameters: BTreeMap<String, String> = BTreeMap::new(),
        /// What happens to a volume whose claim goes: `Retain` or `Delete`.
        reclaim: String = "Retain".to_owned(),
        /// When a volume is made: `Immediate` or `WaitForFirstConsumer`.
        binding: String = "Immediate".to_owned(),
        /// Mount options.
        mount_options: Vec<String> = Vec::new(),
        /// Whether claims may grow.
        expand: bool = true,
        /// Make it the default class; the others are no longer.
        default_class: bool = false,
    }
}

/// Annotation of the default class.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

fn one_of(option: &str, value: &str, allowed: &[&str]) -> OpResult<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let e = OpError::invalid(format!("option `{option}`: `{value}` is not one of {}", allowed.join(", ")));
    Err(match crate::core::options::closest(value, allowed.iter().copied()) {
        Some(k) => e.hint(format!("did you mean `{k}`?")),
        None => e.hint(format!("write `{option}: \"{}\"`", allowed[0])),
    })
}

/// The object of a class.
#[must_use]
pub fn class_object(name: &str, o: &ClassOptions) -> Value {
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {DEFAULT: o.default_class.to_string()}},
        "provisioner": o.provisioner, "reclaimPolicy": o.reclaim, "volumeBindingMode": o.binding,
        "allowVolumeExpansion": o.expand,
    });
    if !o.parameters.is_empty() {
        class["parameters"] = json!(o.parameters);
    }
    if !o.mount_options.is_empty() {
        class["mountOptions"] = json!(o.mount_options);
    }
    class
}

impl Cluster {
    /// Ensures a storage class; with `default_class` no other class is the default.
    ///
    /// # Errors
    /// `conflict` when a field that never changes differs: what it is and how to replace the class.
    pub async fn ensure_storage_class(&self, ctx: &Ctx, name: &str, o: &ClassOptions) -> OpResult<Vec<Change>> {
        one_of("reclaim", &o.reclaim, &["Retain", "Delete"])?;
        one_of("binding", &o.binding, &["Immediate", "WaitForFirstConsumer"])?;
        let class = class_object(name, o);
        if let Some(live) = self.find_object(ctx, "storageclass", "", name).await? {
            let fixed = ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"];
            if let Some(key) = fixed.iter().find(|k| class[**k] != live[**k]) {
                return Err(OpError::conflict(format!("`{key}` of a storage class never changes"))
                    .on(format!("StorageClass {name}"))
                    .because(format!("it is {}, wanted is {}", live[*key], class[*key]))
                    .hint(format!("volumes keep working without their class: `cluster.delete(\"storageclass\", \"{name}\")`, then run again")));
            }
        }
        let mut objects = vec![class];
        if o.default_class {
            for other in self.list_in(ctx, "storageclass", "").await? {
                let other_name = other["metadata"]["name"].as_str().unwrap_or_default();
                if other_name != name && other["metadata"]["annotations"][DEFAULT] == "true" {
                    objects.push(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                        "provisioner": other["provisioner"],
                        "metadata": {"name": other_name, "annotations": {DEFAULT: "false"}}}));
                }
            }
        }
        let apply = ApplyOptions { namespace: String::new(), take_over: objects.len() > 1 };
        self.apply_objects(ctx, objects, &apply).await
    }
}

/// A quota `namespace/name` with these hard limits.
///
/// # Errors
/// `invalid` without a namespace.
pub fn quota_object(name: &str, limits: &BTreeMap<String, String>) -> OpResult<Value> {
    let (ns, name) = name.split_once('/').ok_or_else(|| {
        OpError::invalid(format!("`{name}` has no namespace"))
            .hint("write `namespace/name`, for example `research/gpus`")
    })?;
    Ok(
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "namespace": ns}, "spec": {"hard": limits}}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_quotas_are_valid_objects() {
        let mut m = rhai::Map::new();
        m.insert("provisioner".into(), "nfs.csi.k8s.io".into());
        let o = ClassOptions::read(&m).unwrap();
        let class = class_object("a", &o);
        assert!(super::super::validate::check_object(&class).is_empty());
        assert_eq!(class["reclaimPolicy"], "Retain");
        let limits = BTreeMap::from([("requests.nvidia.com/gpu".to_owned(), "4".to_owned())]);
        assert!(super::super::validate::check_object(&quota_object("a/b", &limits).unwrap()).is_empty());
        assert!(quota_object("b", &limits).is_err());
        assert!(one_of("reclaim", "retain", &["Retain", "Delete"]).unwrap_err().hint.unwrap().contains("Retain"));
    }
}
