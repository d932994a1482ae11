//! What every kind of wanted thing answers: how to look, what differs, how to act.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::core::error::OpResult;

/// Order of acting. Looking has no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Package sources, before packages.
    Repositories,
    Packages,
    Groups,
    Users,
    Directories,
    Files,
    Modules,
    Sysctl,
    Swap,
    Filesystems,
    Mounts,
    /// Directories, files and links that live on something mounted above.
    BelowMounts,
    Identity,
    /// `systemctl daemon-reload`.
    Reload,
    Services,
}

/// One difference in words and values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub what: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Part {
    pub(super) fn new(what: impl Into<String>, before: Option<Value>, after: Option<Value>) -> Self {
        Part { what: what.into(), before, after }
    }
}

/// What differs and the shell text that mends it. The text fails (`exit` or last status) when it could not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Diff {
    pub parts: Vec<Part>,
    pub act: String,
    /// Path that changes, for services that depend on it.
    pub path: Option<String>,
}

impl Diff {
    pub(super) fn one(part: Part, act: impl Into<String>) -> Self {
        Diff { parts: vec![part], act: act.into(), path: None }
    }
    pub(super) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// Paths that earlier items change in the same act.
pub(super) type Changed = BTreeSet<String>;

/// One wanted thing.
pub(super) trait Item: Send + Sync {
    /// For messages: `package nfs-common`.
    fn what(&self) -> String;
    fn phase(&self) -> Phase;
    /// Shell text that prints the state found. Never changes anything, never fails the program.
    fn look(&self) -> String;
    /// Compares with what `look` printed.
    ///
    /// # Errors
    /// When the state found must not be changed by us.
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>>;
}

/// A JSON text value.
pub(super) fn text(s: impl Into<String>) -> Option<Value> {
    Some(Value::String(s.into()))
}
