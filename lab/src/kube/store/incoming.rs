//! What is done to an object on its way in, before anybody judges it.
use serde_json::Value;

use super::{Cause, Failure, Store, WriteOptions, meta};
use crate::kube::dynamic::{self, Attributes};
use crate::kube::schema::{Kind, defaults, typed};

/// Most characters of a generated name's beginning that are kept.
const GENERATED: usize = 58;

impl Store {
    /// Gives a name to a new object that has only the beginning of one; what has neither is told by its validation.
    pub(super) fn call(&mut self, kind: &Kind, obj: &mut Value, o: &WriteOptions) -> Result<(), Failure> {
        if !meta::name(obj).is_empty() {
            return Ok(());
        }
        let prefix = meta::text(obj, "generateName").to_owned();
        if !prefix.is_empty() {
            let start: String = prefix.chars().take(GENERATED).collect();
            let name = format!("{start}{}", self.suffix(5));
            meta::edit(obj, |m| m.insert("name".into(), name.into()));
        } else if !o.check {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Failure::invalid(kind, "", &[cause]));
        }
        Ok(())
    }

    /// Lets the cluster's policies change an object; `old` is what it was.
    pub(super) fn mutate(
        &mut self,
        kind: &Kind,
        (namespace, name): (&str, &str),
        new: &mut Value,
        old: Option<&Value>,
        o: &WriteOptions,
    ) -> Result<(), Failure> {
        let Some(user) = &o.user else { return Ok(()) };
        let a = Attributes {
            kind,
            operation: if old.is_some() { "UPDATE" } else { "CREATE" },
            namespace,
            name,
            subresource: &o.subresource,
            object: Some(new),
            old,
            user,
            dry_run: o.dry_run,
        };
        if let Some(changed) = dynamic::mutated(self, &a)? {
            *new = changed;
            defaults::apply(self, kind, new, old);
        }
        Ok(())
    }

    /// Drops what the version that a custom object is kept in does not declare.
    pub(super) fn as_stored(&self, kind: &Kind, obj: &mut Value) {
        if kind.custom && kind.several && kind.version != kind.stored {
            let stored = self.kind_at(&kind.group, &kind.stored, &kind.plural);
            stored.iter().for_each(|k| typed::declared(k, obj));
        }
    }
}
