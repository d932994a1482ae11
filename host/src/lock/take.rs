//! Taking the lock: test-and-set on the hypervisor, with the recovery of dead holders.
use std::time::Duration;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::proxmox::{Lock, LockNote, Proxmox};
use gpuhost_stdlib::site::{Node, Site};
use gpuhost_stdlib::ssh::Host;

use super::verdict::{self, Verdict};
use super::{BEAT_S, LEASE_S};

/// How often a lock of unknown standing is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Lists the units of commands that a run started.
const UNITS: &str = "systemctl list-units --plain --no-legend --type=service --state=running 'gpuhost-*'";
/// How long a machine may take to answer that.
const UNITS_LIMIT: Duration = Duration::from_secs(10);

/// A taken lock.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Generation.
    pub generation: u64,
    /// Our note.
    pub note: LockNote,
    /// End of the lease on the run's clock, in milliseconds.
    pub until_ms: u64,
}

/// A note of ours whose lease begins at the hypervisor's `now`.
#[must_use]
pub fn leased(note: &LockNote, now: u64) -> LockNote {
    LockNote { until: now + LEASE_S, ..note.clone() }
}

/// Takes the lock, waiting until a holder of unknown standing shows whether it lives.
///
/// # Errors
/// `refused` with the holder when another run has it.
pub async fn take(ctx: &Ctx, pve: &Proxmox, site: &Site, me: &LockNote) -> OpResult<Taken> {
    let mut watched: Option<Lock> = None;
    loop {
        ctx.check_effect()?;
        let asked_ms = ctx.clock.now_ms().await;
        let now = pve.hypervisor_time(ctx, site).await?;
        let all = pve.lock_generations(ctx, site).await?;
        let until_ms = asked_ms + LEASE_S * 1000;
        let mine = LockNote { since: now, ..leased(me, now) };
        let Some(top) = all.last() else {
            if pve.make_lock(ctx, site, 1, &mine).await? && is_top(ctx, pve, site, 1).await? {
                return Ok(Taken { generation: 1, note: mine, until_ms });
            }
            hidden(ctx, pve, site, &mine).await?;
            continue;
        };
        let note = readable(site, top)?;
        match verdict::here(note, now) {
            Verdict::Alive => return Err(verdict::refused(&site.name, note, note.until.saturating_sub(now))),
            Verdict::Unknown => {
                let renewed = watched.as_ref().is_some_and(|w| w != top);
                if renewed {
                    return Err(verdict::refused(&site.name, note, note.until.saturating_sub(now)));
                }
                if watched.is_none() {
                    let text = format!(
                        "the lock of {} is held by {}; waiting up to {BEAT_S} s for a sign of life",
                        site.name,
                        verdict::describe(note)
                    );
                    ctx.message("info", text);
                }
                watched = Some(top.clone());
                ctx.clock.sleep(LOOK).await;
            }
            Verdict::Dead => {
                say_recovery(ctx, pve, site, note).await;
                let next = top.generation + 1;
                if !pve.make_lock(ctx, site, next, &mine).await? {
                    continue;
                }
                if is_top(ctx, pve, site, next).await? {
                    for old in &all {
                        pve.drop_lock(ctx, site, old.generation).await?;
                    }
                    return Ok(Taken { generation: next, note: mine, until_ms });
                }
            }
        }
    }
}

/// Whether no higher generation exists; gives ours back otherwise.
async fn is_top(ctx: &Ctx, pve: &Proxmox, site: &Site, mine: u64) -> OpResult<bool> {
    let all = pve.lock_generations(ctx, site).await?;
    if all.last().is_some_and(|l| l.generation == mine) {
        return Ok(true);
    }
    if all.iter().all(|l| l.generation != mine) {
        // Made, but not to be seen: the token may make pools and may not read them.
        pve.drop_lock(ctx, site, mine).await?;
        return Err(OpError::refused(format!("the token cannot see the lock of {} that it made", site.name))
            .hint("grant Pool.Audit and Pool.Allocate on /pool; `pve.check_permissions()` prints the lines"));
    }
    pve.drop_lock(ctx, site, mine).await?;
    Ok(false)
}

/// Generation 1 exists although no list shows one: somebody was faster, or the token does not see it.
async fn hidden(ctx: &Ctx, pve: &Proxmox, site: &Site, me: &LockNote) -> OpResult<()> {
    if !pve.lock_generations(ctx, site).await?.is_empty() {
        return Ok(());
    }
    if pve.make_lock(ctx, site, 1, me).await? {
        // The other one has given it back meanwhile: begin anew.
        return pve.drop_lock(ctx, site, 1).await;
    }
    if pve.lock_generations(ctx, site).await?.is_empty() {
        return Err(OpError::refused(format!(
            "the lock of {} exists, but the token cannot see who holds it",
            site.name
        ))
        .hint("grant Pool.Audit and Pool.Allocate on /pool; `pve.check_permissions()` prints the lines"));
    }
    Ok(())
}

fn readable<'a>(site: &Site, lock: &'a Lock) -> OpResult<&'a LockNote> {
    let pool = gpuhost_stdlib::proxmox::lock_pool(site, lock.generation);
    let Some(note) = &lock.note else {
        return Err(OpError::refused(format!(
            "pool `{pool}` stands in the lock's place, and its comment names no holder"
        ))
        .hint("look at it in Proxmox; remove it there, or with `gpuhost unlock`, if nobody needs it"));
    };
    if note.site != site.uuid {
        return Err(OpError::refused(format!("the lock `{pool}` is held for another site of the name {}", site.name))
            .because(format!("it is for {}, this site is {}", note.site, site.uuid))
            .hint("give one of the two sites another name"));
    }
    Ok(note)
}

/// What is told before a dead holder's lock is taken over: who it was, and what it left running.
async fn say_recovery(ctx: &Ctx, pve: &Proxmox, site: &Site, note: &LockNote) {
    ctx.message("warn", format!("the lock of {} was left by {}; taking it over", site.name, verdict::describe(note)));
    match pve.running_tasks(ctx).await {
        Ok(tasks) => {
            for t in tasks {
                ctx.message("warn", format!("still running on the hypervisor: {t}"));
            }
        }
        Err(e) => ctx.message("warn", format!("running tasks cannot be listed: {e}")),
    }
    let looks = site.nodes.iter().map(|n| units(ctx, site, n)).collect();
    for (node, found) in site.nodes.iter().zip(ctx.clock.join_all(looks).await) {
        for unit in found {
            ctx.message("warn", format!("still running on {}: {unit}", node.name));
        }
    }
}

/// Units of commands that a run has left running on a machine of the site; none when it does not answer soon.
async fn units(ctx: &Ctx, site: &Site, node: &Node) -> Vec<String> {
    let host = Host::for_node(site, node);
    let look = ctx.looking(host.exec_raw(ctx, UNITS, b""));
    let Some(Ok(out)) = ctx.clock.within(UNITS_LIMIT, look).await else { return Vec::new() };
    out.stdout.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}
