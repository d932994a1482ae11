//! Named faults: changes of the world as incidents make them. What the fault looks like follows from the simulation;
//! nothing here writes a symptom. Every fault says where its real symptoms were seen.
mod cluster;
mod fleet;
mod gpu;
mod host;
mod join;
mod node;
mod operator;
mod platform;
mod storage;
mod targets;
mod tools;
mod upkeep;
mod workloads;

use crate::Lab;
use crate::world::World;

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A node of the hypervisor.
    PveNode,
    /// A PCI resource mapping.
    Mapping,
    /// Any machine of the site.
    Machine,
    /// A machine of the site that is a Kubernetes node.
    Node,
    /// A machine that has cards passed through.
    GpuNode,
    /// A K3s server.
    Server,
    /// A machine that is a Kubernetes node and no server.
    Agent,
    /// The NFS server.
    Nfs,
    /// This Helm release.
    Release(&'static str),
    /// A storage class.
    Class,
    /// A storage class with a provisioner of the site's own.
    ScratchClass,
    /// A Fleet repository.
    Repo,
    /// The whole cluster.
    Cluster,
}

impl On {
    /// The word in lists.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            On::PveNode => "PVE-NODE",
            On::Mapping => "MAPPING",
            On::Machine => "MACHINE",
            On::Node => "NODE",
            On::GpuNode => "GPU-NODE",
            On::Server => "SERVER",
            On::Agent => "AGENT",
            On::Nfs => "NFS-SERVER",
            On::Release(name) => name,
            On::Class => "CLASS",
            On::ScratchClass => "SCRATCH-CLASS",
            On::Repo => "REPO",
            On::Cluster => "CLUSTER",
        }
    }
}

/// Changes the world; the error says why it cannot be done to this target.
pub type Change = fn(&Lab, &mut World, &str) -> Result<(), String>;

/// A named fault.
pub struct Fault {
    /// Name.
    pub name: &'static str,
    /// Kind of target.
    pub on: On,
    /// What has happened.
    pub what: &'static str,
    /// Where its symptoms come from: a recording, a document, an issue thread.
    pub source: &'static str,
    /// Makes it happen.
    pub make: Change,
    /// What only hands can do about it (firmware, slots, another owner's machine); `None`: the printed fix is enough.
    pub hands: Option<Change>,
}

/// All faults.
pub fn catalogue() -> impl Iterator<Item = &'static Fault> {
    [
        host::FAULTS,
        node::FAULTS,
        join::FAULTS,
        upkeep::FAULTS,
        cluster::FAULTS,
        gpu::FAULTS,
        operator::FAULTS,
        storage::FAULTS,
        fleet::FAULTS,
        platform::FAULTS,
        workloads::FAULTS,
    ]
    .into_iter()
    .flatten()
}

/// `name@target` in parts.
///
/// # Errors
/// When there is no such fault, or no target.
pub fn find(text: &str) -> Result<(&'static Fault, String), String> {
    let (name, target) = text.split_once('@').unwrap_or((text, ""));
    let Some(fault) = catalogue().find(|f| f.name == name) else {
        return Err(format!("there is no fault `{name}`"));
    };
    if target.is_empty() && fault.on != On::Cluster {
        return Err(format!("fault `{name}` needs a target: {name}@{}", fault.on.word()));
    }
    Ok((fault, target.to_owned()))
}

/// Makes `name@target` happen.
///
/// # Errors
/// Why it cannot be done.
pub fn make(lab: &Lab, text: &str) -> Result<&'static Fault, String> {
    let (fault, target) = find(text)?;
    lab.with(|w| {
        targets::check(fault, w, &target)?;
        (fault.make)(lab, w, &target)
    })?;
    Ok(fault)
}

/// Does by hand what no program can: the firmware switch, the card back in its slot.
///
/// # Errors
/// When no hands are needed, or it cannot be done.
pub fn by_hand(lab: &Lab, text: &str) -> Result<(), String> {
    let (fault, target) = find(text)?;
    let Some(hands) = fault.hands else { return Err(format!("`{}` needs no hands: its fix is a command", fault.name)) };
    lab.with(|w| hands(lab, w, &target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names_and_sources() {
        let all: Vec<_> = catalogue().collect();
        assert!(all.len() >= 40, "{}", all.len());
        for f in &all {
            assert!(f.source.len() > 10 && f.what.len() > 10, "{}", f.name);
            assert_eq!(all.iter().filter(|g| g.name == f.name).count(), 1, "{}", f.name);
            assert!(f.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{}", f.name);
        }
        assert!(find("vm-off@x").is_ok() && find("vm-off").is_err() && find("no-such@x").is_err());
    }
}
