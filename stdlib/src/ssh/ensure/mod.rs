//! The wanted state of a host: one look for the whole map, at most one act for what differs.
mod accounts;
mod edit;
mod files;
mod item;
mod packages;
mod program;
mod services;
mod specs;
mod storage;
mod system;
mod wanted;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use rhai::Map;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::core::units::Duration as Span;

use super::host::Host;
use super::options::{FileOptions, Output, RunOptions};
use super::wait::{CLOUD_INIT, cloud_init};
use item::{Item, Phase};
use program::{Found, Step};
use wanted::Wanted;

pub(super) use specs::EnsureOptions;

const EVERY: Duration = Duration::from_secs(5);
/// First boots install packages; unattended upgrades hold the lock for minutes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Package downloads over slow lines.
const LONGEST_ACT: Span = Span::minutes(40);

impl Host {
    /// Brings the host into the wanted state (keys of `EnsureOptions`); returns what differed.
    ///
    /// # Errors
    /// `invalid` for unknown keys; `conflict` for what must not be changed; `failed` naming what was done
    /// and what was not.
    pub async fn ensure(&self, ctx: &Ctx, wanted: &Map) -> OpResult<Vec<Change>> {
        let wanted = Wanted::read(wanted).map_err(|e| e.on(self.name()))?;
        let whats: Vec<String> = wanted.items.iter().map(|i| i.what()).collect();
        let op = Op::write("ssh", "ensure", self.name()).args(&whats);
        ctx.run_op(op, |s| async move { self.reach(&s, &wanted).await }).await
    }

    async fn reach(&self, s: &Arc<OpScope>, wanted: &Wanted) -> OpResult<Vec<Change>> {
        let ctx = s.ctx();
        let mut found = self.look(ctx, wanted).await?;
        let mut steps = program::plan(&wanted.items, &found)?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        if found.cloud_init.contains("running") || found.cloud_init.contains("not ") {
            // Its packages and files are about to come: look again afterwards.
            self.wait_cloud_init(s).await?;
            found = self.look(ctx, wanted).await?;
            steps = program::plan(&wanted.items, &found)?;
        }
        let changes = self.changes(&steps);
        let marker = format!("ensure {}", self.name());
        s.act(marker, changes.clone(), self.carry_out(s, wanted, &steps, &found)).await?;
        Ok(changes)
    }

    fn changes(&self, steps: &[Step]) -> Vec<Change> {
        let parts = steps.iter().flat_map(|s| s.diff.parts.iter().cloned());
        parts.map(|p| Change::new(self.name(), p.what, p.before, p.after)).collect()
    }

    async fn look(&self, ctx: &Ctx, wanted: &Wanted) -> OpResult<Found> {
        let out = self.exec_raw(ctx, &program::compare(&wanted.items), b"").await?;
        program::parse_compare(&out.stdout, wanted.items.len()).map_err(|mut e| {
            e.causes.extend(out.last_words().into_iter().filter(|l| !l.starts_with('@')));
            e
        })
    }

    async fn wait_cloud_init(&self, s: &Arc<OpScope>) -> OpResult<()> {
        let ctx = s.ctx();
        s.wait_for("the first boot", EVERY, PATIENCE, || async {
            cloud_init(self.exec_raw(ctx, CLOUD_INIT, b"").await?.text())
        })
        .await
    }

    async fn wait_lock(&self, s: &Arc<OpScope>, known: &str) -> OpResult<()> {
        let ctx = s.ctx();
        if known == "free" {
            return Ok(());
        }
        s.wait_for("the package manager", EVERY, PATIENCE, || async {
            let out = self.exec_raw(ctx, packages::LOCK_HOLDER, b"").await?;
            Ok(match out.text() {
                "free" => Look::Ready(()),
                holder => Look::Pending(format!("{holder} holds its lock")),
            })
        })
        .await
    }

    async fn carry_out(&self, s: &Arc<OpScope>, wanted: &Wanted, steps: &[Step], found: &Found) -> OpResult<()> {
        let ctx = s.ctx();
        if steps.iter().any(|s| s.phase == Phase::Packages) {
            self.wait_lock(s, &found.lock).await?;
        }
        s.waiting(working_on(steps));
        let options = RunOptions { timeout: LONGEST_ACT, ..RunOptions::default() };
        let started = ctx.clock.now_ms().await;
        let mut first = 0;
        loop {
            let rest = &steps[first..];
            let out = self.exec_with(ctx, &program::act(rest), b"", &options).await?;
            let (done, code) = program::parse_act(&out.stdout);
            if done == rest.len() {
                break;
            }
            // Somebody took the package lock between our look and our act.
            let holder = rest.get(done).filter(|s| s.phase == Phase::Packages);
            let holder = holder.and_then(|_| packages::lock_holder(&out.stderr));
            let waited = ctx.clock.now_ms().await.saturating_sub(started);
            match holder {
                Some(who) if Duration::from_millis(waited) < PATIENCE => {
                    s.waiting(format!("the package manager: {who} holds its lock"));
                    s.sleep(EVERY).await?;
                    first += done;
                }
                _ => return Err(stopped(steps, first + done, code, &out)),
            }
        }
        self.prove(ctx, wanted).await
    }

    /// Looks again: what still differs did not stick.
    async fn prove(&self, ctx: &Ctx, wanted: &Wanted) -> OpResult<()> {
        let found = self.look(ctx, wanted).await?;
        let left = program::plan(&wanted.items, &found)?;
        let Some(step) = left.first() else { return Ok(()) };
        let part = step.diff.parts.first();
        let show = |v: Option<&serde_json::Value>| v.map_or_else(|| "absent".to_owned(), |v| v.to_string());
        let now = part.map(|p| show(p.before.as_ref())).unwrap_or_default();
        let want = part.map(|p| show(p.after.as_ref())).unwrap_or_default();
        let what = part.map_or(step.what.as_str(), |p| p.what.as_str());
        Err(OpError::failed(format!("{what} did not stay as it was set"))
            .because(format!("it is {now}, wanted is {want}"))
            .hint("something else on the host manages it"))
    }
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
fn stopped(steps: &[Step], done: usize, code: Option<i64>, out: &Output) -> OpError {
    let names = |list: &[Step]| list.iter().map(|s| s.what.clone()).collect::<Vec<_>>().join(", ");
    let at = steps.get(done).map_or("the last step", |s| s.what.as_str());
    let mut e = match code {
        Some(c) => OpError::failed(format!("could not bring about {at} (exit code {c})")),
        None => OpError::failed(format!("the host stopped working on {at} (exit code {})", out.code)),
    };
    e.causes = out.last_words().into_iter().filter(|l| !l.starts_with('@')).collect();
    let mut last = if done == 0 { "nothing was done".to_owned() } else { format!("done: {}", names(&steps[..done])) };
    if done + 1 < steps.len() {
        last.push_str(&format!("; not tried: {}", names(&steps[done + 1..])));
    }
    e.last_seen(last).hint("mend it and run the recipe again: what is done stays done")
}

/// One file whose content travels on standard input: any size, any bytes.
#[allow(dead_code)] // goes with the next change of this folder
pub(super) struct WholeFile(files::File);

#[allow(dead_code)] // as above
impl WholeFile {
    pub(super) fn new(path: &str, content: &[u8], o: &FileOptions) -> OpResult<Self> {
        wanted::absolute("path", path)?;
        wanted::check_mode(o.mode.as_deref())?;
        Ok(WholeFile(files::File {
            path: path.to_owned(),
            content: content.to_vec(),
            mode: o.mode.clone(),
            owner: o.owner.clone(),
            phase: Phase::Files,
            noun: "file",
        }))
    }

    pub(super) fn digest(&self) -> String {
        files::digest(&self.0.content)
    }

    pub(super) fn look(&self) -> String {
        self.0.look()
    }

    /// The change and the program that makes it from standard input.
    pub(super) fn differs(&self, host: &str, found: &str) -> OpResult<Option<(Change, String)>> {
        let Some(diff) = self.0.diff(found, &item::Changed::new())? else { return Ok(None) };
        let part = diff.parts.into_iter().next().unwrap_or_else(|| item::Part::new(self.0.what(), None, None));
        let change = Change::new(host, part.what, part.before, part.after);
        // `path` is only set when the content differs; else the act is a chmod or chown.
        let act = match (diff.path, self.0.put_from_stdin(found)) {
            (Some(_), put) => format!("{}{put}", program::PUT),
            (None, _) => diff.act,
        };
        Ok(Some((change, act)))
    }
}
