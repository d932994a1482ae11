//! `gpuhost snapshot`.
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde_json::{Value, json};

use super::{Camera, Notes};
use crate::args::Common;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::labs;
use crate::labs::folder;
use crate::plan::rehearse::Stage;
use crate::screen::Screen;
use crate::session::Far;
use crate::sources;

/// Arguments of `snapshot`.
#[derive(Debug, Clone, Args)]
pub struct SnapshotArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// World file to write (default: NAME.world.json).
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// What was read, as JSON.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs `gpuhost snapshot`.
#[must_use]
pub fn command(args: &SnapshotArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    run(args, rt, screen).unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}

/// The far side of a site that is reached over the network.
///
/// # Errors
/// When a lab that it names is gone.
pub fn far(site: &Site, text: &str, state_dir: &std::path::Path) -> OpResult<Far> {
    let stop = crate::signals::Stop::default();
    match labs::join::control_of(text) {
        Some(addr) => labs::join::address(&addr, site, &stop),
        None => Far::real(Some(site), state_dir),
    }
}

fn run(args: &SnapshotArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let Some((site, text)) = sources::open_site(args.site.as_deref(), None, false, screen, args.json)? else {
        return Ok(Exit::Usage);
    };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let far = far(&site, &text.text, &state_dir)?;
    let stage = Stage::new(&state_dir)?;
    let camera = Camera { rt, screen, site: &site, site_text: &text, state_dir: &state_dir };
    let notes = camera.take(far, stage.dir())?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.world.json", site.name)));
    write(&stage, &site, &notes, &out)?;
    if args.json {
        let shown = json!({"event": "snapshot", "file": out.display().to_string(), "taken": notes.taken,
            "read": notes.read, "unread": notes.unread, "assumed": notes.assumed});
        screen.out(&shown.to_string());
    } else {
        show(screen, &notes);
        screen.out(&format!(
            "the likeness of {} is in {}; a plan against it: `gpuhost plan deploy --against {}`",
            site.name,
            out.display(),
            out.display()
        ));
    }
    Ok(Exit::Done)
}

fn write(stage: &Stage, site: &Site, notes: &Notes, out: &std::path::Path) -> OpResult<()> {
    let fail = |e: String| OpError::failed(format!("cannot write the world `{}`", out.display())).because(e);
    let path = folder::of(stage.dir(), site).join("world.json");
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let mut world: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
    world["snapshot"] = json!(notes);
    crate::statedir::write_private(out, world.to_string().as_bytes()).map_err(|e| fail(e.to_string()))
}

fn show(screen: &Screen, notes: &Notes) {
    for t in &notes.read {
        screen.out(&format!("read: {t}"));
    }
    for t in &notes.unread {
        screen.out(&format!("not read: {t}"));
    }
    for t in &notes.assumed {
        screen.out(&format!("assumed: {t}"));
    }
}
