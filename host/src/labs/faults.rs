//! `--faults`: what goes wrong in a lab run, from a file of rules or a seed.
use gpuhost_lab::fault::Plan;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::options::closest;
use gpuhost_stdlib::site::Site;

use super::InProcess;

/// Reads `FILE` or `random:SEED`.
///
/// # Errors
/// `invalid` with the line that is wrong.
pub fn read(text: &str) -> OpResult<Plan> {
    if let Some(seed) = text.strip_prefix("random:") {
        return seed.parse().map(Plan::Random).map_err(|_| {
            OpError::invalid(format!("`{seed}` is no seed")).hint("write a whole number: `--faults random:7`")
        });
    }
    let rules = std::fs::read_to_string(text).map_err(|e| {
        OpError::not_found(format!("cannot read the faults `{text}`")).because(e.to_string()).hint("or `random:SEED`")
    })?;
    Plan::parse(&rules).map_err(|e| OpError::invalid(format!("`{text}`: {e}")))
}

/// Ops whose target is a machine, by their beginnings.
const OF_MACHINES: [&str; 2] = ["ssh.", "guest."];
/// How the target of a request about a node begins.
const OF_NODES: &str = "nodes//";

/// Machines that are there, and those that the site will have.
fn machines(world: &InProcess, site: Option<&Site>) -> Vec<String> {
    let there =
        world.lab().with(|w| w.pve.vms.values().filter_map(|v| v.conf.get("name").cloned()).collect::<Vec<_>>());
    let wanted = site.into_iter().flat_map(|s| s.nodes.iter().map(|n| n.name.clone()));
    let all: std::collections::BTreeSet<String> = wanted.chain(there).collect();
    all.into_iter().collect()
}

/// Finds a rule whose machine is misspelt.
///
/// # Errors
/// `invalid` naming the rule and the machine that was probably meant.
fn known_targets(plan: &Plan, machines: &[String]) -> OpResult<()> {
    let Plan::Rules(rules) = plan else { return Ok(()) };
    for (i, r) in rules.iter().enumerate() {
        let node = r.target.strip_prefix(OF_NODES);
        let name = node.unwrap_or(&r.target);
        if name.contains('*') || machines.iter().any(|m| m == name) {
            continue;
        }
        let machine = node.is_some() || OF_MACHINES.iter().any(|op| r.op.starts_with(op));
        // requests to the hypervisor are about pools and storages too
        let near = closest(name, machines.iter().map(String::as_str)).filter(|_| machine || r.op.starts_with("pve."));
        let hint = match near {
            Some(m) => format!("did you mean `{m}`?"),
            None if machine => format!("the machines are {}", machines.join(", ")),
            None => continue,
        };
        return Err(OpError::invalid(format!("rule {} (`{r}`): there is no machine `{name}`", i + 1)).hint(hint));
    }
    Ok(())
}

/// Lets `given` go wrong in the lab of this process.
///
/// # Errors
/// When it cannot be read or names a machine that there is not, or the lab is in another process.
pub fn set(given: Option<&str>, world: Option<&InProcess>, site: Option<&Site>) -> OpResult<()> {
    let Some(text) = given else { return Ok(()) };
    let plan = read(text)?;
    match world {
        Some(w) => {
            known_targets(&plan, &machines(w, site)).map_err(|e| e.on(text))?;
            w.lab().faults().set(Some(plan));
            Ok(())
        }
        None => Err(OpError::invalid("faults need a lab of the run's own; this one is served by another process")
            .hint("stop `gpuhost lab serve`, or pass another `--state-dir`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_machine_is_found_before_anything_runs() {
        let machines = ["k3s-cp1".to_owned(), "k3s-gpu1".to_owned()];
        let hint = |rule: &str| known_targets(&Plan::parse(rule).unwrap(), &machines).err().map(|e| e.hint.unwrap());
        for fine in
            ["ssh.exec@k3s-*: reset", "ssh.exec@k3s-cp1#2: reset", "pve.clone@lab-pool: lock", "kube.get@*: reset"]
        {
            assert_eq!(hint(fine), None, "{fine}");
        }
        for wrong in ["ssh.exec@k3s-gup1: reset", "pve.clone@k3s-gpu: lock", "kube.get@nodes//k3s-gpU1#1: reset"] {
            assert_eq!(hint(wrong).as_deref(), Some("did you mean `k3s-gpu1`?"), "{wrong}");
        }
        assert_eq!(hint("guest.boot@shelf: boot-never").as_deref(), Some("the machines are k3s-cp1, k3s-gpu1"));
    }
}
