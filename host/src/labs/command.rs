//! `gpuhost lab status|reset|serve`.
use std::path::Path;
use std::sync::Arc;

use gpuhost_lab::world::World;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde_json::json;

use super::folder::{Folder, Locked};
use super::start::{self, Start};
use crate::cli::{LabArgs, LabCommand, ServeArgs, StatusArgs};
use crate::exit::Exit;
use crate::run::show_error;
use crate::screen::Screen;
use crate::sources::{self, Text};

/// Runs `gpuhost lab …`.
#[must_use]
pub fn command(args: &LabArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    let done = match &args.command {
        LabCommand::Status(a) => status(a, screen),
        LabCommand::Reset(a) => reset(rt, screen, a.site.as_deref(), a.common.state_dir.as_deref(), a.start),
        LabCommand::Serve(a) => serve(a, rt, screen),
        LabCommand::Fault(a) => with_site(screen, a.site.as_deref(), a.common.state_dir.as_deref(), |site, dir| {
            super::orders::fault(a, rt, screen, site, dir)
        }),
        LabCommand::Commit(a) => with_site(screen, a.site.as_deref(), a.common.state_dir.as_deref(), |site, dir| {
            super::orders::commit(a, rt, screen, site, dir)
        }),
    };
    match done {
        Ok(exit) => exit,
        Err(e) => {
            show_error(screen, &e, None);
            Exit::of(&e)
        }
    }
}

fn site(screen: &Screen, flag: Option<&Path>) -> OpResult<Option<(Arc<Site>, Text)>> {
    let text = sources::site(flag, None, true)?.ok_or_else(|| OpError::not_found("no site file"))?;
    match sources::load_site(&text) {
        Ok((site, _)) => Ok(Some((site, text))),
        Err(findings) => {
            crate::findings::show(screen, &findings, false);
            Ok(None)
        }
    }
}

fn with_site(
    screen: &Screen,
    flag: Option<&Path>,
    state: Option<&Path>,
    work: impl FnOnce(&Arc<Site>, &Path) -> OpResult<()>,
) -> OpResult<Exit> {
    let Some((site, _)) = site(screen, flag)? else { return Ok(Exit::Usage) };
    work(&site, &crate::statedir::resolve(state)?)?;
    Ok(Exit::Done)
}

/// Clusters of which a server runs.
fn alive(w: &World) -> usize {
    w.clusters.values().filter(|c| c.members.keys().any(|v| w.guests.contains_key(v))).count()
}

fn summary(w: &World) -> serde_json::Value {
    json!({
        "time": crate::when::iso(w.now_ms), "vms": w.pve.vms.len(), "running": w.guests.len(),
        "clusters": alive(w), "pending_events": w.queue.len(),
        "hypervisor": gpuhost_lab::pve::world_diff_view(w), "in_clusters": super::view::clusters(w),
    })
}

fn status(args: &StatusArgs, screen: &Screen) -> OpResult<Exit> {
    let Some((site, _)) = site(screen, args.site.as_deref())? else { return Ok(Exit::Usage) };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let (folder, held) = match Folder::lock(&state_dir, &site)? {
        Locked::Mine(f) => (f, false),
        Locked::Elsewhere(f) => (f, true),
    };
    let served = held && folder.dir().join(super::join::SERVING).exists();
    let word = match (held, served) {
        (_, true) => "served",
        (true, false) => "in use",
        _ => "at rest",
    };
    let world = folder.load()?;
    if args.json {
        let out = json!({
            "lab": true, "site": site.name, "state": word, "folder": folder.dir(), "world": world.as_ref().map(summary),
        });
        screen.out(&out.to_string());
        return Ok(Exit::Done);
    }
    screen.out(&format!("[LAB] {}: {word}", site.name));
    screen.out(&format!("  folder   {}", folder.dir().display()));
    let Some(w) = world else {
        screen.out("  world    none yet; the first run with `--lab` makes one");
        return Ok(Exit::Done);
    };
    let saved = if held { " (as last saved)" } else { "" };
    screen.out(&format!("  time     {}{saved}", crate::when::iso(w.now_ms)));
    screen.out(&format!("  clusters {}", alive(&w)));
    for (id, vm) in &w.pve.vms {
        let name = vm.conf.get("name").map_or("", String::as_str);
        let state = if vm.run.is_some() { "running" } else { "stopped" };
        screen.out(&format!("  vm {id:<6} {name:<28} {state}"));
    }
    Ok(Exit::Done)
}

fn mine(state_dir: &Path, site: &Site) -> OpResult<Folder> {
    match Folder::lock(state_dir, site)? {
        Locked::Mine(f) => Ok(f),
        Locked::Elsewhere(f) => Err(f.busy()),
    }
}

fn reset(
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    site_file: Option<&Path>,
    state: Option<&Path>,
    from: Start,
) -> OpResult<Exit> {
    let Some((site, text)) = site(screen, site_file)? else { return Ok(Exit::Usage) };
    let state_dir = crate::statedir::resolve(state)?;
    let folder = mine(&state_dir, &site)?;
    start::Filling { rt, screen, site: &site, state_dir: &state_dir, start: from }.fill(
        folder,
        &super::world::born(&site)?,
        &text.text,
    )?;
    screen.out(&format!("[LAB] {} starts over: {}", site.name, format!("{from:?}").to_lowercase()));
    Ok(Exit::Done)
}

fn serve(args: &ServeArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let Some((site, text)) = site(screen, args.site.as_deref())? else { return Ok(Exit::Usage) };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    super::serve::pace(args.speed.as_deref())?;
    let folder = mine(&state_dir, &site)?;
    let folder = match args.start {
        Some(from) => start::Filling { rt, screen, site: &site, state_dir: &state_dir, start: from }.fill(
            folder,
            &super::world::born(&site)?,
            &text.text,
        )?,
        None => folder,
    };
    super::serve::run(args, rt, screen, folder, &site, &text)
}
