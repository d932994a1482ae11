//! The wanted state of a host: one look for the whole map, at most one act for what differs.
mod accounts;
mod commands;
mod edit;
mod files;
mod firewall;
mod growth;
mod item;
mod mounts;
mod ntp;
mod packages;
mod program;
mod questions;
mod services;
mod sources;
mod specs;
mod storage;
mod swap;
mod system;
mod wanted;

#[cfg(test)]
mod survival;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps;

use std::sync::Arc;
use std::time::Duration;

use rhai::Map;

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::core::units::Duration as Span;

use super::host::Host;
use super::options::{Output, RunOptions};
use super::wait::{CLOUD_INIT, cloud_init};
use item::{Item, Phase};
use program::Step;
use questions::{Found, Questions};
use wanted::Wanted;

pub use growth::{Unused, survey, unused};
pub(super) use specs::EnsureOptions;

const EVERY: Duration = Duration::from_secs(5);
/// First boots install packages; unattended upgrades hold the lock for minutes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Package downloads over slow lines.
const LONGEST_ACT: Span = Span::minutes(40);
/// Digests of very large files on slow disks.
const LONGEST_LOOK: Span = Span::minutes(10);

/// How often a dropped connection is taken up again in one act.
const RECONNECTS: usize = 5;

impl Host {
    /// Brings the host into the wanted state (keys of `EnsureOptions`); returns what differed.
    ///
    /// # Errors
    /// `invalid` for unknown keys; `conflict` for what must not be changed; `failed` naming what was done
    /// and what was not.
    pub async fn ensure(&self, ctx: &Ctx, wanted: &Map) -> OpResult<Vec<Change>> {
        let wanted = Wanted::read(wanted, self.port()).map_err(|e| e.on(self.name()))?;
        let whats: Vec<String> = wanted.items.iter().map(|i| i.what()).collect();
        let op = Op::write("ssh", "ensure", self.name()).args(&whats);
        ctx.run_op(op, |s| async move { self.reach(&s, &wanted.items).await }).await
    }

    async fn reach(&self, s: &Arc<OpScope>, items: &[Box<dyn Item>]) -> OpResult<Vec<Change>> {
        let ctx = s.ctx();
        let mut found = self.look(ctx, items).await?;
        let mut steps = program::plan(items, &found.states)?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        if found.cloud_init.contains("running") || found.cloud_init.contains("not ") {
            // Its packages and files are about to come: look again afterwards.
            self.wait_cloud_init(s).await?;
            found = self.look(ctx, items).await?;
            steps = program::plan(items, &found.states)?;
        }
        let changes = self.changes(&steps);
        let marker = format!("ensure {}", self.name());
        s.act(marker, changes.clone(), self.carry_out(s, items, steps)).await?;
        Ok(changes)
    }

    fn changes(&self, steps: &[Step]) -> Vec<Change> {
        let parts = steps.iter().flat_map(|s| s.diff.parts.iter().cloned());
        parts.map(|p| Change::new(self.name(), p.what, p.before, p.after)).collect()
    }

    /// Runs one of the two programs, the one that looks a second time when the connection is lost. They travel on standard
    /// input: file contents are nobody's business in a list of processes, and there is no limit to their length.
    async fn run_program(&self, ctx: &Ctx, program: &str, limit: Span, looks: bool) -> OpResult<Output> {
        let options = RunOptions { timeout: limit, ..RunOptions::default() };
        let input = program::as_input(program);
        if looks {
            self.exec_look(ctx, "sh -s", &input, &options).await
        } else {
            self.exec_with(ctx, "sh -s", &input, &options).await
        }
    }

    async fn look(&self, ctx: &Ctx, items: &[Box<dyn Item>]) -> OpResult<Found> {
        let questions = Questions::of(items.iter().map(AsRef::as_ref));
        let out = self.run_program(ctx, &questions.program(), LONGEST_LOOK, true).await?;
        questions.read(&out.stdout).map_err(|mut e| {
            e.causes.extend(out.last_words().into_iter().filter(|l| !l.starts_with('@')));
            e
        })
    }

    async fn wait_cloud_init(&self, s: &Arc<OpScope>) -> OpResult<()> {
        let ctx = s.ctx();
        s.wait_for("the first boot", EVERY, PATIENCE, || async {
            cloud_init(self.look_raw(ctx, CLOUD_INIT).await?.text())
        })
        .await
    }

    /// Acts until all is done. What was done counts, also when the rest was not.
    async fn carry_out(&self, s: &Arc<OpScope>, items: &[Box<dyn Item>], mut steps: Vec<Step>) -> OpResult<()> {
        let ctx = s.ctx();
        s.waiting(working_on(&steps));
        let started = ctx.clock.now_ms().await;
        let mut done: Vec<Step> = Vec::new();
        let mut reconnects = 0;
        loop {
            let program = program::act(items, &steps);
            let out = match self.run_program(ctx, &program, LONGEST_ACT, false).await {
                Ok(out) => out,
                Err(e) if e.is(Kind::Unreachable) && reconnects < RECONNECTS => {
                    // Everything here may be done again: what the old program still does ends with its step.
                    reconnects += 1;
                    s.waiting(format!("the connection: {}", e.message));
                    s.sleep(EVERY).await?;
                    let found = self.look(ctx, items).await.and_then(|f| program::plan(items, &f.states));
                    let left = found.map_err(|e| self.broke_off(s, &done, e))?;
                    let before = std::mem::replace(&mut steps, left);
                    done.extend(before.into_iter().filter(|b| !steps.iter().any(|n| n.what == b.what)));
                    if steps.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
                Err(e) => return Err(self.broke_off(s, &done, e)),
            };
            let acted = program::read_act(items, &steps, &out.stdout)?;
            if let Some(left) = acted.left {
                return left.first().map_or(Ok(()), |step| Err(self.broke_off(s, &done, did_not_stay(step))));
            }
            // Somebody took the package lock between our look and our act.
            let busy = acted.code == Some(program::BUSY) || packages::lock_holder(&out.stderr).is_some();
            let holder = if busy { packages::lock_holder(&out.stderr) } else { None };
            let waited = Duration::from_millis(ctx.clock.now_ms().await.saturating_sub(started));
            let rest = steps.split_off(acted.done);
            done.append(&mut steps);
            match holder {
                Some(who) if of_packages(rest.first()) && waited < PATIENCE => {
                    s.waiting(format!("the package manager: {who} holds its lock"));
                    s.sleep(EVERY).await?;
                    steps = rest;
                }
                _ => return Err(self.broke_off(s, &done, stopped(&done, &rest, acted.code, &out))),
            }
        }
    }

    /// The changes that stay although the rest failed are counted and reported.
    fn broke_off(&self, s: &Arc<OpScope>, done: &[Step], e: OpError) -> OpError {
        s.keep(self.changes(done));
        e
    }
}

fn of_packages(step: Option<&Step>) -> bool {
    step.is_some_and(|s| matches!(s.phase, Phase::Packages | Phase::Lists))
}

/// The error of a change that the second look did not find.
fn did_not_stay(step: &Step) -> OpError {
    let part = step.diff.parts.first();
    let show = |v: Option<&serde_json::Value>| v.map_or_else(|| "absent".to_owned(), |v| v.to_string());
    let now = part.map(|p| show(p.before.as_ref())).unwrap_or_default();
    let want = part.map(|p| show(p.after.as_ref())).unwrap_or_default();
    let what = part.map_or(step.what.as_str(), |p| p.what.as_str());
    OpError::failed(format!("{what} did not stay as it was set"))
        .because(format!("it is {now}, wanted is {want}"))
        .hint("something else on the host manages it")
}

/// What takes the time, in a few words.
fn working_on(steps: &[Step]) -> String {
    match (steps.iter().find(|s| s.phase == Phase::Packages), steps) {
        (Some(p), _) => format!("installing {}", p.what.trim_start_matches("packages ").trim_start_matches("package ")),
        (None, [one]) => one.what.clone(),
        (None, many) => format!("{} differences, first {}", many.len(), many.first().map_or("", |s| s.what.as_str())),
    }
}

/// The error of an act that stopped on the way.
fn stopped(done: &[Step], rest: &[Step], code: Option<i64>, out: &Output) -> OpError {
    let names = |list: &[Step]| list.iter().map(|s| s.what.clone()).collect::<Vec<_>>().join(", ");
    let at = rest.first().map_or("the last step", |s| s.what.as_str());
    let mut e = match code {
        Some(c) => OpError::failed(format!("could not bring about {at} (exit code {c})")),
        None => OpError::failed(format!("the host stopped working on {at} (exit code {})", out.code)),
    };
    let said = Output { stderr: program::last_step(&out.stderr).to_owned(), ..out.clone() };
    e.causes = said.last_words().into_iter().filter(|l| !l.starts_with('@')).collect();
    let count = |n: usize| if n == 1 { "1 step".to_owned() } else { format!("{n} steps") };
    let mut last = if done.is_empty() {
        "nothing was done".to_owned()
    } else {
        format!("{} done: {}", count(done.len()), names(done))
    };
    if let Some(untried) = rest.get(1..).filter(|r| !r.is_empty()) {
        last.push_str(&format!("; {} not tried: {}", count(untried.len()), names(untried)));
    }
    e.last_seen(last).hint("mend it and run the recipe again: what is done stays done")
}
