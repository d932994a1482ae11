//! The command: what has to be known and sound before anything runs.
use std::sync::Arc;

use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::site::Finding;
use serde_json::{Value, json};

use super::job::{Job, Place, Show, job};
use crate::args::RunArgs;
use crate::check;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::header;
use crate::labs;
use crate::lead::Lead;
use crate::screen::Screen;
use crate::session::Far;
use crate::signals::Stop as Interrupt;
use crate::sources;

/// Runs `gpuhost run`.
#[must_use]
pub fn command(args: &RunArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    screen.leads(Lead::of(args));
    match prepare(args, rt, screen) {
        Ok(job) => job.go().0,
        Err(Stop::Error(e, exit)) => {
            show_error(screen, &e, None);
            if args.json {
                screen.out(&early_end(&e, exit, args.lab).to_string());
            }
            exit
        }
        Err(Stop::Findings(list)) => {
            crate::findings::show(screen, &list, args.json);
            if args.json {
                let e = OpError::invalid("findings before anything ran");
                screen.out(&early_end(&e, Exit::Usage, args.lab).to_string());
            }
            Exit::Usage
        }
    }
}

/// Why nothing was run.
pub enum Stop {
    /// Something is missing or refused.
    Error(Box<OpError>, Exit),
    /// Mistakes in recipe or site file.
    Findings(Vec<Finding>),
}

impl From<OpError> for Stop {
    fn from(e: OpError) -> Self {
        let exit = match Exit::of(&e) {
            Exit::Failed => Exit::Usage,
            other => other,
        };
        Stop::Error(Box::new(e), exit)
    }
}
/// The last JSON line of a run that did not begin.
fn early_end(e: &OpError, exit: Exit, lab: bool) -> Value {
    json!({
        "v": 1, "event": "run_finished", "status": exit.status(), "exit": exit.code(), "lab": lab,
        "changed": 0, "steps": [], "seconds": 0.0, "site_seconds": 0.0, "error": e,
    })
}

fn prepare(args: &RunArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Result<Job, Stop> {
    let recipe = sources::recipe(&args.recipe)?;
    let site_text = sources::site(args.site.as_deref(), Some(&recipe), args.lab)?;
    let site = match &site_text {
        None => None,
        Some(t) => Some(sources::load_site(t).map_err(Stop::Findings)?.0),
    };
    // Nothing is touched before the recipe is known to be sound.
    let checked = check::command::recipe(&recipe);
    let mut findings = checked.findings.clone();
    findings.extend(check::command::wrong_params(&checked, &recipe.name, &args.set));
    if findings.iter().any(|f| !f.warning) {
        return Err(Stop::Findings(findings));
    }
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let stop = Interrupt::default();
    crate::signals::watch_run(rt, screen.clone(), stop.clone());
    let control = site_text.as_ref().and_then(|t| labs::join::control_of(&t.text));
    let (far, world) = match (&site, control) {
        (Some(s), Some(addr)) => (labs::join::address(&addr, s, &stop)?, None),
        (Some(s), None) if args.lab => labs::open(rt, &state_dir, s, &stop)?,
        (None, _) if args.lab => {
            let e = OpError::invalid("the lab needs a site file");
            return Err(e.hint("pass one: `--site recipes/site.toml`").into());
        }
        _ => (Far::real(site.as_deref(), &state_dir)?, None),
    };
    labs::faults::set(args.faults.as_deref(), world.as_ref(), site.as_deref())?;
    let show = if args.json { Show::Json } else { Show::Progress };
    let header = header::of(args, &checked.files, site_text.as_ref());
    let mut whole = header.clone();
    whole["site_uuid"] = json!(site.as_ref().map(|s| s.uuid.clone()));
    whole["set"] = json!(args.set);
    whole["lab"] = json!(far.lab);
    let gate = crate::plan::command::gate(args.plan.as_ref(), &recipe.name, &whole)?;
    if recipe.is_embedded() && !args.json {
        let tag = if far.lab { format!("{} ", screen.paint().yellow("[LAB]")) } else { String::new() };
        screen.err(&format!("{tag}this program's own {} runs", recipe.typed()));
    }
    job(args, rt, screen, recipe, Place { site, far, world, state_dir, stop, header, gate }, show)
}
