//! A plan for people: changes by target, removals and restarts by themselves, how long it takes, what is assumed.
use gpuhost_stdlib::core::event::Effect;

use super::{Plan, Planned};
use crate::progress::words;
use crate::screen::Screen;

/// How many changes of one effect are printed.
const SHOWN: usize = 12;

fn is_restart(e: &Planned) -> bool {
    let verb = e.op.rsplit('.').next().unwrap_or_default();
    verb.contains("reboot") || verb.contains("restart") || e.changes.iter().any(|c| c.what.contains("restart"))
}

fn seconds(s: f64) -> String {
    crate::when::span((s.max(0.0) * 1000.0) as u64)
}

/// Targets in the order of the steps that begin with them, by name within a step: not in the order in which work that
/// runs side by side happened to end, which differs from one plan to the next.
fn targets<'a>(list: &[&'a Planned]) -> Vec<&'a str> {
    let mut steps: Vec<Option<&String>> = Vec::new();
    let mut found: Vec<(usize, (&str, u64), &str)> = Vec::new();
    for e in list {
        let step = steps.iter().position(|s| *s == e.step.first()).unwrap_or_else(|| {
            steps.push(e.step.first());
            steps.len() - 1
        });
        if !found.iter().any(|(_, _, t)| *t == e.target) {
            let stem = e.target.trim_end_matches(|c: char| c.is_ascii_digit());
            found.push((step, (stem, e.target[stem.len()..].parse().unwrap_or(0)), &e.target));
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, t)| t).collect()
}

fn block(screen: &Screen, title: &str, list: &[&Planned]) {
    if list.is_empty() {
        return;
    }
    let p = screen.paint_out();
    screen.prose(&p.bold(title));
    for t in targets(list) {
        screen.prose(&format!("  {}", p.blue(t)));
        for e in list.iter().filter(|e| e.target == t) {
            let step = if e.step.is_empty() { String::new() } else { p.dim(&format!("  ({})", e.step.join(" / "))) };
            screen.prose(&format!("    {}{step}", e.op));
            for c in e.changes.iter().take(SHOWN) {
                screen.prose(&format!("      {}", words::change(c)));
            }
            if e.changes.len() > SHOWN {
                screen.prose(&p.dim(&format!("      and {} more", e.changes.len() - SHOWN)));
            }
        }
    }
}

fn list(screen: &Screen, title: &str, items: &[String]) {
    screen.prose(title);
    for item in items {
        screen.prose(&format!("  - {item}"));
    }
}

/// Prints a plan. `drift`: the words of a comparison instead of an intention.
pub fn print(screen: &Screen, plan: &Plan, drift: bool) {
    let p = screen.paint_out();
    if !plan.incomplete.is_empty() {
        let head = if drift { "drift unknown" } else { "the plan is incomplete" };
        screen.prose(&format!("{}: {}", p.red(head), plan.incomplete));
    }
    let mut rest = Vec::new();
    let (mut gone, mut restarts) = (Vec::new(), Vec::new());
    for e in &plan.effects {
        match e.effect {
            Effect::Destroy => gone.push(e),
            _ if is_restart(e) => restarts.push(e),
            _ => rest.push(e),
        }
    }
    block(screen, if drift { "differs from the recipe:" } else { "changes:" }, &rest);
    block(screen, "restarts:", &restarts);
    block(screen, "removals:", &gone);
    let n = plan.changes();
    if !plan.incomplete.is_empty() {
        let what = if drift { "differences" } else { "changes" };
        screen.prose(&format!("{n} {what} up to there"));
    } else if n == 0 {
        let text = if drift { "no drift" } else { "no changes" };
        screen.prose(&format!("{text}: {} is as {} wants it", plan.site, plan.recipe));
    } else {
        let what = if drift { "differences" } else { "changes" };
        screen.prose(&format!(
            "{n} {what} in {} effects; expected to take {}",
            plan.effects.len(),
            plan.on_hardware.words()
        ));
        for s in plan.on_hardware.steps.iter().filter(|s| s.range.high >= 1.0) {
            screen.prose(&p.dim(&format!("  {:>18}  {}", s.range.words(), s.name)));
        }
        if !plan.path.is_empty() {
            screen.prose(&format!(
                "critical path (what determines how long it takes, in the lab's time): {} of {}; {:.1} ops at the same time on average",
                seconds(plan.critical),
                seconds(plan.seconds),
                plan.overlap
            ));
            for (step, target, s) in &plan.path {
                screen.prose(&p.dim(&format!("  {:>8}  {target}  ({step})", seconds(*s))));
            }
        }
        list(screen, "the run needs:", &plan.needs);
    }
    if !plan.snapshot.is_empty() {
        screen.prose(&p.dim(&format!("rehearsed in a likeness of the site as read at {}", plan.snapshot)));
    }
    if !plan.warned.is_empty() {
        list(screen, "warnings:", &plan.warned);
    }
    if !plan.assumed.is_empty() {
        list(screen, "assumed, because it could not be read or the lab stands in for it:", &plan.assumed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(step: &str, target: &str) -> Planned {
        Planned {
            op: "ssh.ensure".to_owned(),
            target: target.to_owned(),
            effect: Effect::Write,
            step: vec![step.to_owned()],
            changes: Vec::new(),
        }
    }

    #[test]
    fn targets_stand_in_the_same_order_whoever_was_first() {
        let a = [planned("vms", "cp10"), planned("vms", "cp2"), planned("os", "cp2"), planned("os", "a1")];
        let b = [planned("vms", "cp2"), planned("vms", "cp10"), planned("os", "a1"), planned("os", "cp2")];
        let order = |l: &[Planned]| targets(&l.iter().collect::<Vec<_>>()).join(" ");
        assert_eq!(order(&a), "cp2 cp10 a1");
        assert_eq!(order(&a), order(&b));
    }
}
