//! A run under a plan: it stops before the first effect that the plan does not contain, or whose target has
//! changed since.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Change;
use gpuhost_stdlib::core::op::Op;
use serde_json::Value;

use super::{Plan, Planned};

/// Lets through what is planned, once each.
pub struct Gate {
    left: Mutex<BTreeMap<String, Vec<Planned>>>,
}

impl Gate {
    /// A gate for `plan`.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut left: BTreeMap<String, Vec<Planned>> = BTreeMap::new();
        for e in plan.effects {
            left.entry(e.target.clone()).or_default().push(e);
        }
        Gate { left: Mutex::new(left) }
    }

    /// Lets an effect through, or says why not.
    ///
    /// # Errors
    /// `refused` when the plan does not contain it or its target changed since.
    pub fn pass(&self, op: &Op, changes: &[Change]) -> OpResult<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let of_target = left.entry(op.target.clone()).or_default();
        let name = op.name();
        let same = of_target.iter().position(|p| p.op == name && first_difference(&p.changes, changes).is_none());
        if let Some(i) = same {
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
            .hint("nothing more was done; look at a new plan: `gpuhost plan R`"))
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
    use gpuhost_stdlib::core::event::Effect;
    use serde_json::json;

    use super::*;

    fn plan(changes: Vec<Change>) -> Plan {
        let e = Planned {
            op: "proxmox.ensure_vm".to_owned(),
            target: "a".to_owned(),
            effect: Effect::Write,
            step: Vec::new(),
            changes,
        };
        Plan {
            gpuhost_plan: 1,
            recipe: String::new(),
            site: String::new(),
            bound_to: Value::Null,
            made: String::new(),
            effects: vec![e],
            seconds: 0.0,
            on_hardware: Default::default(),
            steps: Vec::new(),
            path: Vec::new(),
            needs: Vec::new(),
            snapshot: String::new(),
            assumed: Vec::new(),
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
}
