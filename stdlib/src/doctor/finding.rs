//! A finding of the doctor: one cause on one target, what shows it, what mends it, and the next thing to type.
use serde_json::{Value, json};

use crate::site::{Node, Site};

/// One cause on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Word for the cause, the same in every run.
    pub id: &'static str,
    /// `machine`, `node`, `control-plane`, `storage`, `gpu`, `fleet`, `hub`, `platform`, `workload`.
    pub area: &'static str,
    /// What is broken: a node, a release, a class, a repository.
    pub target: String,
    /// What is wrong.
    pub cause: String,
    /// What was seen.
    pub evidence: String,
    /// What mends it.
    pub fix: String,
    /// The next thing to type.
    pub next: String,
}

impl Finding {
    /// As JSON for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id, "area": self.area, "target": self.target, "node": self.target, "cause": self.cause,
            "evidence": self.evidence, "fix": self.fix, "next": self.next,
        })
    }
}

/// The command that brings everything back to what the site file says.
pub const DEPLOY: &str = "gpuhost run recipes/deploy.rhai";

/// `gpuhost run scripts/NAME.rhai --set a=b`.
#[must_use]
pub fn script(name: &str, set: &[(&str, &str)]) -> String {
    let sets: String = set.iter().map(|(k, v)| format!(" --set {k}={v}")).collect();
    format!("gpuhost run scripts/{name}.rhai{sets}")
}

/// The command that shows an object of the cluster: its state, its events, its pods.
#[must_use]
pub fn describe(kind: &str, namespace: &str, name: &str) -> String {
    script("describe", &[("kind", kind), ("namespace", namespace), ("name", name)])
}

/// A command for one machine, as one types it. A lab's machine has its address only inside the lab.
#[must_use]
pub fn on_machine(lab: bool, site: &Site, node: &Node, command: &str) -> String {
    let quoted = crate::ssh::quote(command);
    if lab {
        return script("run-command", &[("node", &node.name), ("command", &quoted)]);
    }
    format!("ssh {}@{} {quoted}", site.ssh.user, node.ip)
}

/// One line of a text that may be long.
#[must_use]
pub fn line(text: &str) -> String {
    let one = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if one.chars().count() <= 300 { one } else { format!("{}…", one.chars().take(299).collect::<String>()) }
}
