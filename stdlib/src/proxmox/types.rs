//! Handles that scripts hold. Cheap clones over an `Arc`; no secret prints.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::site::{Node, ProxmoxSection};

use super::auth::Auth;
use super::request::At;
use super::tls::Shown;

/// A connection to the API of a Proxmox VE cluster.
#[derive(Clone)]
pub struct Proxmox {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// What the site file says.
    pub section: ProxmoxSection,
    pub host: String,
    pub port: u16,
    pub http: reqwest::Client,
    pub auth: Auth,
    pub shown: Shown,
    /// Clones running per storage.
    pub clones: Arc<Queue>,
    /// Tasks that this run was told of.
    pub claimed: Mutex<HashSet<String>>,
    /// Ids that this run gave away.
    pub ids: Mutex<HashSet<u32>>,
    /// `version` of `/version`, once asked.
    pub version: Mutex<Option<String>>,
}

/// Clones running per storage, for all connections of a run: Proxmox's own locks give up after seconds.
#[derive(Default)]
pub(super) struct Queue(pub Mutex<HashMap<String, usize>>);

/// A virtual machine of the cluster.
#[derive(Clone)]
pub struct Vm {
    pub(super) pve: Proxmox,
    pub(super) at: At,
    pub(super) name: String,
    /// The site's node, when the VM is one.
    pub(super) node: Option<Arc<Node>>,
    /// `template`, `data`, or empty.
    pub(super) kind: String,
}

/// A template to clone machines from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Where it is.
    pub at: At,
    /// Its name.
    pub name: String,
    /// Where more of them are, by hypervisor node: local storage cannot be cloned to another node.
    pub copies: BTreeMap<String, At>,
}

impl Template {
    /// A template in one place.
    pub fn new(at: At, name: impl Into<String>) -> Self {
        Template { at, name: name.into(), copies: BTreeMap::new() }
    }
    /// The one to clone for a machine on `node`.
    #[must_use]
    pub fn on(&self, node: &str) -> &At {
        self.copies.get(node).unwrap_or(&self.at)
    }
}

/// What a check found; `require()` ends the run when something is wrong.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was checked, for the heading.
    pub title: String,
    /// What is in order.
    pub passed: Vec<String>,
    /// What deserves a look but does not stop a deploy.
    pub warnings: Vec<String>,
    /// What is wrong, each with what to do.
    pub problems: Vec<Problem>,
    /// Commands that put it right, to be run as root on the hypervisor.
    pub commands: Vec<String>,
    /// Whether what is wrong is that somebody may not: the token, or the SSH key.
    pub rights: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was found.
    pub text: String,
    /// What to do.
    pub hint: String,
}

impl Report {
    /// An empty report about `title`.
    pub fn new(title: impl Into<String>) -> Self {
        Report { title: title.into(), ..Report::default() }
    }
    /// Notes something in order.
    pub fn pass(&mut self, text: impl Into<String>) {
        self.passed.push(text.into());
    }
    /// Notes something to look at.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
    /// Notes something wrong.
    pub fn fail(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { text: text.into(), hint: hint.into() });
    }
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.problems.len() {
            0 => "ok".to_owned(),
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        write!(f, "{}: {verdict}", self.title)?;
        for p in &self.passed {
            write!(f, "\n  ok    {p}")?;
        }
        for w in &self.warnings {
            write!(f, "\n  warn  {w}")?;
        }
        for p in &self.problems {
            write!(f, "\n  wrong {}\n        {}", p.text, p.hint)?;
        }
        if !self.commands.is_empty() {
            write!(f, "\nas root on the hypervisor:")?;
            for c in &self.commands {
                write!(f, "\n  {c}")?;
            }
        }
        Ok(())
    }
}

impl Proxmox {
    /// The URL of the site file.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.section.url
    }
    /// The site file's section.
    #[must_use]
    pub fn section(&self) -> &ProxmoxSection {
        &self.inner.section
    }
    /// A handle for a VM.
    pub(super) fn vm(&self, at: At, name: &str) -> Vm {
        Vm { pve: self.clone(), at, name: name.to_owned(), node: None, kind: String::new() }
    }
}

impl fmt::Debug for Proxmox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxmox({})", self.url())
    }
}

impl Vm {
    /// VM id.
    #[must_use]
    pub fn vmid(&self) -> u32 {
        self.at.vmid
    }
    /// VM name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Hypervisor node.
    #[must_use]
    pub fn pve_node(&self) -> &str {
        &self.at.node
    }
    /// The site's node, when the VM is one.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }
    /// Ties the VM to a node of the site.
    #[must_use]
    pub(super) fn of_node(mut self, node: Option<Arc<Node>>) -> Self {
        self.node = node;
        self
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vm({} {} on {})", self.at.vmid, self.name, self.at.node)
    }
}
