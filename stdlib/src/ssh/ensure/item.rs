//! What every kind of wanted thing answers: how to look, what differs, how to act.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::core::error::OpResult;

/// Order of acting. Looking has no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Package sources, before packages.
    Repositories,
    /// Package lists, then packages.
    Lists,
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
    Firewall,
    Services,
    /// Commands of the recipe's own.
    Commands,
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

/// What differs and the shell text that mends it: the body of a function, which ends with `return` or its last
/// status, never with `exit`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Diff {
    pub parts: Vec<Part>,
    pub act: String,
    /// Path that changes, for services that depend on it.
    pub path: Option<String>,
    /// Unit that is restarted because of an earlier step: should the act die before, the next run knows.
    pub restarts: Option<String>,
}

impl Diff {
    pub(super) fn one(part: Part, act: impl Into<String>) -> Self {
        Diff::of(vec![part], act)
    }
    pub(super) fn of(parts: Vec<Part>, act: impl Into<String>) -> Self {
        Diff { parts, act: act.into(), path: None, restarts: None }
    }
    pub(super) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// Paths that earlier items change in the same act.
pub(super) type Changed = BTreeSet<String>;

/// What an item has to know of the host. Questions of one kind are answered by one program there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// What is at a path (`Seen`).
    Path(String),
    /// As `Path`, with the SHA-256 of a regular file.
    Digest(String),
    /// As `Path`, with the content of a regular file in base64.
    Text(String),
    /// A line `NAME STATUS VERSION` for each package that dpkg or rpm knows.
    Packages(Vec<String>),
    /// The value of a kernel setting; empty when there is none.
    Sysctl(String),
    /// `loaded` or nothing.
    Module(String),
    /// `ACTIVE ENABLED [reload] [restart]` of a systemd unit.
    Unit(String),
    /// What a shell text of its own prints. It changes nothing, never exits, ends with a status of 0 or not.
    Shell(String),
}

/// One wanted thing.
pub(super) trait Item: Send + Sync {
    /// For messages: `package nfs-common`.
    fn what(&self) -> String;
    fn phase(&self) -> Phase;
    /// The question whose answer `diff` compares with.
    fn probe(&self) -> Probe;
    /// Compares with what was found.
    ///
    /// # Errors
    /// When the state found must not be changed by us.
    fn diff(&self, found: &str, changed: &Changed) -> OpResult<Option<Diff>>;
}

/// A JSON text value.
pub(super) fn text(s: impl Into<String>) -> Option<Value> {
    Some(Value::String(s.into()))
}
