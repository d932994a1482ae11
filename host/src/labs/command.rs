//! `gpuhost lab status|grades|reset|serve`.
use std::path::Path;
use std::sync::Arc;

use gpuhost_lab::grades::BEHAVIOURS;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::site::Site;
use serde_json::json;

use super::folder::{Folder, Locked};
use super::start;
use crate::args::{GradesArgs, LabArgs, LabCommand, ServeArgs, Start, StatusArgs};
use crate::errors::show_error;
use crate::exit::Exit;
use crate::screen::Screen;
use crate::sources::{self, Text};

/// Runs `gpuhost lab …`.
#[must_use]
pub fn command(args: &LabArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    let done = match &args.command {
        LabCommand::Status(a) => status(a, screen),
        LabCommand::Grades(a) => grades(a, screen),
        LabCommand::Reset(a) => reset(rt, screen, a.site.as_deref(), a.common.state_dir.as_deref(), a.start),
        LabCommand::Serve(a) => serve(a, rt, screen),
        LabCommand::Fault(a) => with_site(screen, a.site.as_deref(), a.common.state_dir.as_deref(), |site, dir| {
            super::orders::fault(a, rt, screen, site, dir)
        }),
        LabCommand::Commit(a) => with_site(screen, a.site.as_deref(), a.common.state_dir.as_deref(), |site, dir| {
            super::orders::commit(a, rt, screen, site, dir)
        }),
        LabCommand::Push(a) => with_site(screen, a.site.as_deref(), a.common.state_dir.as_deref(), |site, dir| {
            super::orders::push(a, rt, screen, site, dir)
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
    sources::open_site(flag, None, true, screen, false)
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
    // A served lab says what it is now; what is saved may be older.
    let live = if served { super::orders::look(&folder).ok() } else { None };
    let saved = if held && live.is_none() { " (as last saved)" } else { "" };
    let world = match live {
        Some(v) => Some(v),
        None => folder.load()?.as_ref().map(super::view::look),
    };
    if args.json {
        let out = json!({
            "lab": true, "site": site.name, "state": word, "folder": folder.dir(), "world": world,
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
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    screen.out(&format!("  time     {}{saved}", text(&w["time"])));
    screen.out(&format!("  clusters {}", w["clusters"]));
    for m in w["machines"].as_array().into_iter().flatten() {
        screen.out(&format!("  vm {:<6} {:<28} {}", text(&m["vmid"]), text(&m["name"]), text(&m["state"])));
    }
    Ok(Exit::Done)
}

fn grades(args: &GradesArgs, screen: &Screen) -> OpResult<Exit> {
    let met = match args.met {
        false => None,
        true => {
            let Some((site, _)) = site(screen, args.of.site.as_deref())? else { return Ok(Exit::Usage) };
            let state_dir = crate::statedir::resolve(args.of.common.state_dir.as_deref())?;
            let saved = |f: &Folder| f.load().map(|w| w.map(|w| w.met).unwrap_or_default());
            Some(match Folder::lock(&state_dir, &site)? {
                Locked::Mine(f) => saved(&f)?,
                // A served lab says what it has met by now; what is saved may be older.
                Locked::Elsewhere(f) if f.dir().join(super::join::SERVING).exists() => super::orders::met(&f)?,
                Locked::Elsewhere(f) => {
                    screen.err("[LAB] the lab is in use: this is what it had met when it was last saved");
                    saved(&f)?
                }
            })
        }
    };
    let rows = BEHAVIOURS.iter().filter(|b| met.as_ref().is_none_or(|m| m.contains(b.key)));
    for b in rows {
        if args.of.json {
            screen.out(&json!(b).to_string());
        } else {
            screen.out(&format!("{:<9} {:<64} {}", b.grade.word(), b.what, b.from));
        }
    }
    Ok(Exit::Done)
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
    let folder = Folder::lock_mine(&state_dir, &site)?;
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
    let folder = Folder::lock_mine(&state_dir, &site)?;
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
