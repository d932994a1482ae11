//! `gpuhost unlock`: explains who holds the lock, and takes it away if that is agreed to.
use std::sync::Arc;

use clap::Args;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::proxmox::{Lock, LockNote, Proxmox};
use gpuhost_stdlib::site::Site;

use super::take::leased;
use super::verdict::{self, Verdict};
use crate::args::Common;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::labs;
use crate::runs::machine;
use crate::screen::Screen;
use crate::session::{Far, Session};
use crate::sources;

/// Arguments of `unlock`.
#[derive(Debug, Clone, Args)]
pub struct UnlockArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`).
    #[arg(long, value_name = "FILE")]
    pub site: Option<std::path::PathBuf>,
    /// The lock of the simulated homelab.
    #[arg(long)]
    pub lab: bool,
    /// Agree to take the lock away; on a real site by its name: `--yes=SITE`.
    #[arg(long, value_name = "SITE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub yes: Option<String>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs `gpuhost unlock`.
#[must_use]
pub fn command(args: &UnlockArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    run(args, rt, screen).unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}

fn run(args: &UnlockArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let Some((site, text)) = sources::open_site(args.site.as_deref(), None, args.lab, screen, false)? else {
        return Ok(Exit::Usage);
    };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let stop = crate::signals::Stop::default();
    let (far, world) = match labs::join::control_of(&text.text) {
        Some(addr) => (labs::join::address(&addr, &site, &stop)?, None),
        None if args.lab => labs::open(rt, &state_dir, &site, &stop)?,
        None => (Far::real(Some(&site), &state_dir)?, None),
    };
    let session = Session::bare(rt, screen, &site, far, args.yes.clone(), stop);
    let ctx = Ctx::new(session.run.clone());
    let mark = ctx.clock.busy();
    let done = rt.block_on(unlock(&ctx, screen, &site));
    drop(mark);
    if let Some(w) = world {
        w.close()?;
    }
    done
}

async fn unlock(ctx: &Ctx, screen: &Screen, site: &Arc<Site>) -> OpResult<Exit> {
    let pve = Proxmox::connect_site(ctx).await?;
    let now = pve.hypervisor_time(ctx, site).await?;
    let all = pve.lock_generations(ctx, site).await?;
    let Some(top) = all.last() else {
        screen.out(&format!("nobody holds the lock of {}", site.name));
        return Ok(Exit::Done);
    };
    for line in explain(site, top, now) {
        screen.out(&line);
    }
    let tasks = pve.running_tasks(ctx).await?;
    screen.out(&match tasks.len() {
        0 => "no task runs on the hypervisor".to_owned(),
        1 => "1 task runs on the hypervisor; it goes on whatever you decide:".to_owned(),
        n => format!("{n} tasks run on the hypervisor; they go on whatever you decide:"),
    });
    for t in &tasks {
        screen.out(&format!("  {t}"));
    }
    let question = format!("take the lock of {} away? A run that still works stops before its next effect", site.name);
    if !ctx.consent.confirm(&question, true)? {
        return Err(OpError::refused("the lock stays"));
    }
    let next = top.generation + 1;
    let me = LockNote {
        site: site.uuid.clone(),
        holder: format!("{}@{}", machine::user(), machine::host()),
        process: machine::process(),
        boot: machine::boot(),
        run: "unlock".to_owned(),
        since: now,
        ..LockNote::default()
    };
    // Made before the old one goes: its holder can neither renew nor be overlooked.
    if !pve.make_lock(ctx, site, next, &leased(&me, now)).await? {
        return Err(OpError::conflict("somebody else takes the lock right now").hint("look again: `gpuhost unlock`"));
    }
    for l in &all {
        pve.drop_lock(ctx, site, l.generation).await?;
    }
    pve.drop_lock(ctx, site, next).await?;
    screen.out(&format!("the lock of {} is free", site.name));
    Ok(Exit::Done)
}

fn explain(site: &Site, top: &Lock, now: u64) -> Vec<String> {
    let pool = gpuhost_stdlib::proxmox::lock_pool(site, top.generation);
    let Some(n) = &top.note else {
        return vec![format!(
            "pool `{pool}` stands in the place of the lock of {}; its comment names no holder",
            site.name
        )];
    };
    let mut out = vec![format!("the lock of {} is held by {}", site.name, verdict::describe(n))];
    out.push(match (verdict::here(n, now), n.boot == machine::boot()) {
        (Verdict::Alive, _) => "its process runs on this machine: stop that run rather than take its lock".to_owned(),
        (Verdict::Dead, true) => "its process is gone: the next run takes the lock over by itself".to_owned(),
        (Verdict::Dead, false) => {
            let s = now.saturating_sub(n.until);
            format!("its lease ended {s} s ago: the next run takes the lock over by itself")
        }
        (Verdict::Unknown, _) => {
            let s = n.until.saturating_sub(now);
            format!("it is on another machine; its lease has {s} s left, after that the next run takes over by itself")
        }
    });
    out
}
