//! A run under a plan: it stops before the first effect that the plan does not contain, or whose target has
//! changed since. But only at a safe point: never while a node is out of service for the run's own work.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Change, Effect};
use gpuhost_stdlib::core::op::Op;
use serde_json::Value;

use super::{Plan, Planned};

/// Ops that take a node out of service.
const TAKES_OUT: [&str; 2] = ["k3s.hold_node", "kubernetes.cordon"];
/// Ops that give it back.
const GIVES_BACK: [&str; 2] = ["k3s.release_node", "kubernetes.uncordon"];
/// What else has to be done before a node that is out of service may be left: never half upgraded.
const FINISHES: [&str; 2] = ["k3s.upgrade", "k3s.restart_agent"];
/// Ops whose changes name what is drawn anew at every place that it comes to (pods): their target is compared.
const BY_TARGET: [&str; 1] = ["kubernetes.drain"];

#[derive(Default)]
struct Inner {
    recipe: String,
    left: BTreeMap<String, Vec<Planned>>,
    /// Nodes that the run has taken out of service.
    out: BTreeSet<String>,
    /// Why it stops as soon as none is.
    late: Option<OpError>,
}

/// Lets through what is planned, once each.
pub struct Gate(Mutex<Inner>);

impl Gate {
    /// A gate for `plan`.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut inner = Inner { recipe: plan.typed().to_owned(), ..Inner::default() };
        for e in plan.effects {
            inner.left.entry(e.target.clone()).or_default().push(e);
        }
        Gate(Mutex::new(inner))
    }

    /// Lets an effect through, or says why not.
    ///
    /// # Errors
    /// `refused` when the plan does not contain it or its target changed since.
    pub fn pass(&self, op: &Op, changes: &[Change]) -> OpResult<()> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = op.name();
        let is_out = inner.out.contains(&op.target);
        if let Some(e) = inner.late.as_ref().filter(|_| !is_out) {
            return Err(e.clone());
        }
        if let Err(e) = inner.take(&name, op, changes) {
            let finishes = FINISHES.contains(&name.as_str()) || GIVES_BACK.contains(&name.as_str());
            if !(is_out && finishes && op.effect != Effect::Destroy) {
                return Err(e);
            }
            inner.late.get_or_insert(e);
        }
        if TAKES_OUT.contains(&name.as_str()) {
            inner.out.insert(op.target.clone());
        } else if GIVES_BACK.contains(&name.as_str()) {
            inner.out.remove(&op.target);
        }
        Ok(())
    }
}

impl Inner {
    /// Takes an effect off the plan.
    fn take(&mut self, name: &str, op: &Op, changes: &[Change]) -> OpResult<()> {
        let of_target = self.left.entry(op.target.clone()).or_default();
        let fits = |p: &Planned| BY_TARGET.contains(&name) || first_difference(&p.changes, changes).is_none();
        if let Some(i) = of_target.iter().position(|p| p.op == name && fits(p)) {
            of_target.remove(i);
            return Ok(());
        }
        let why = match of_target.iter().find(|p| p.op == name) {
            Some(p) => {
                first_difference(&p.changes, changes).unwrap_or_else(|| "it was planned with other changes".to_owned())
            }
            None => "the plan does not contain it".to_owned(),
        };
        Err(OpError::refused(format!("{name} on {} is not in the plan", op.target))
            .on(op.target.clone())
            .because(why)
            .hint(format!(
                "nothing more was done; make a new plan and look at it: `gpuhost plan {} --out PLAN`",
                self.recipe
            )))
    }
}

/// A value whose text depends on a secret or on content is named by its hash; the plan saw another secret.
fn is_same(planned: Option<&Value>, found: Option<&Value>) -> bool {
    let hashed = |v: Option<&Value>| v.is_some_and(|v| v.to_string().contains("sha256:"));
    planned == found || (hashed(planned) && hashed(found))
}

fn shown(v: Option<&Value>) -> String {
    v.map_or_else(|| "absent".to_owned(), crate::progress::words::value)
}

/// Where planned and found changes differ first. One thing may change several times (lines of one file).
#[must_use]
pub fn first_difference(planned: &[Change], found: &[Change]) -> Option<String> {
    let thing = |a: &Change, b: &Change| a.target == b.target && a.what == b.what;
    let equal = |a: &Change, b: &Change| {
        thing(a, b) && is_same(a.before.as_ref(), b.before.as_ref()) && is_same(a.after.as_ref(), b.after.as_ref())
    };
    let mut left: Vec<&Change> = planned.iter().collect();
    let mut new: Vec<&Change> = Vec::new();
    for f in found {
        match left.iter().position(|p| equal(p, f)) {
            Some(i) => drop(left.remove(i)),
            None => new.push(f),
        }
    }
    let Some(f) = new.first() else {
        let gone = left.first()?;
        return Some(format!("`{}` of {} was to change and is as wanted already", gone.what, gone.target));
    };
    let Some(p) = left.iter().find(|p| thing(p, f)) else {
        return Some(format!("`{}` of {} would change, which the plan does not contain", f.what, f.target));
    };
    let (was, is, when) = if is_same(p.before.as_ref(), f.before.as_ref()) {
        (p.after.as_ref(), f.after.as_ref(), ("was to become", "would become"))
    } else {
        (p.before.as_ref(), f.before.as_ref(), ("was, when the plan was made,", "is"))
    };
    let (then, now) = when;
    Some(format!("`{}` of {} {then} {} and {now} {} now", f.what, f.target, shown(was), shown(is)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(changes: Vec<Change>) -> Plan {
        of(vec![planned("proxmox.ensure_vm", "a", changes)])
    }

    fn planned(op: &str, target: &str, changes: Vec<Change>) -> Planned {
        let (op, target) = (op.to_owned(), target.to_owned());
        Planned { op, target, effect: Effect::Write, step: Vec::new(), changes }
    }

    fn of(effects: Vec<Planned>) -> Plan {
        Plan {
            gpuhost_plan: 1,
            recipe: String::new(),
            site: String::new(),
            bound_to: Value::Null,
            made: String::new(),
            effects,
            seconds: 0.0,
            on_hardware: Default::default(),
            steps: Vec::new(),
            path: Vec::new(),
            critical: 0.0,
            overlap: 0.0,
            needs: Vec::new(),
            snapshot: String::new(),
            warned: Vec::new(),
            assumed: Vec::new(),
            incomplete: String::new(),
        }
    }

    fn cores(before: u64, after: u64) -> Change {
        Change::new("a", "cores", Some(json!(before)), Some(json!(after)))
    }

    #[test]
    fn only_what_is_planned_passes_and_only_once() {
        let op = Op::write("proxmox", "ensure_vm", "a");
        let gate = Gate::new(plan(vec![cores(2, 4)]));
        gate.pass(&op, &[cores(2, 4)]).unwrap();
        assert!(gate.pass(&op, &[cores(2, 4)]).unwrap_err().causes[0].contains("does not contain"));
        let says =
            |found: Vec<Change>| Gate::new(plan(vec![cores(2, 4)])).pass(&op, &found).unwrap_err().causes[0].clone();
        assert!(says(vec![cores(3, 4)]).contains("was, when the plan was made, 2 and is 3 now"));
        assert!(says(vec![cores(2, 8)]).contains("was to become 4"));
        assert!(says(vec![cores(2, 4), Change::new("a", "memory", None, None)]).contains("`memory`"));
        assert!(says(vec![]).contains("as wanted already"));
        let other = Op::write("proxmox", "ensure_vm", "b");
        assert!(Gate::new(plan(vec![cores(2, 4)])).pass(&other, &[cores(2, 4)]).is_err());
    }

    #[test]
    fn it_never_stops_between_taking_a_node_out_and_giving_it_back() {
        let op = |verb: &'static str, target: &str| Op::write("k3s", verb, target);
        let version = |before: &str| vec![Change::new("a", "k3s version", Some(json!(before)), Some(json!("3")))];
        let out = vec![Change::new("a", "unschedulable", Some(json!(false)), Some(json!(true)))];
        let pod = |name: &str| vec![Change::new("a", format!("pod {name}"), Some(json!("running")), None)];
        let gate = Gate::new(of(vec![
            planned("k3s.hold_node", "a", out.clone()),
            planned("kubernetes.drain", "a", pod("web-1")),
            planned("k3s.upgrade", "a", version("1")),
            planned("k3s.release_node", "a", vec![]),
            planned("k3s.hold_node", "b", vec![]),
        ]));
        gate.pass(&op("hold_node", "a"), &out).unwrap();
        gate.pass(&Op::destroy("kubernetes", "drain", "a"), &pod("web-2")).unwrap();
        // Changed since the plan: the node is brought to an end first, and nothing else of it is let through.
        gate.pass(&op("upgrade", "a"), &version("2")).unwrap();
        assert!(gate.pass(&Op::destroy("k3s", "uninstall", "a"), &[]).is_err());
        gate.pass(&op("release_node", "a"), &[]).unwrap();
        let e = gate.pass(&op("hold_node", "b"), &[]).unwrap_err();
        assert!(e.message.contains("k3s.upgrade on a") && e.causes[0].contains("is 2 now"), "{e:?}");
    }
}
