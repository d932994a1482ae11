//! `gpuhost plan` and `gpuhost drift`.
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gpuhost_stdlib::core::error::{OpError, OpResult};

use super::gate::Gate;
use super::rehearse::{Rehearsal, Source};
use super::{Plan, show};
use crate::args::Common;
use crate::check;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::screen::Screen;
use crate::sources;

/// Arguments of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Recipe: a file, the name of one in `recipes/` or `scripts/`, or of one in this program.
    pub recipe: String,
    #[command(flatten)]
    world: WorldArgs,
    /// A value for `param("NAME", …)` of the recipe; a list is written `a,b`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Write the plan to a file that `gpuhost run R --plan PLAN` reads.
    #[arg(long, value_name = "PLAN")]
    pub out: Option<PathBuf>,
}

/// Arguments of `drift`.
#[derive(Debug, Clone, Args)]
pub struct DriftArgs {
    #[command(flatten)]
    world: WorldArgs,
}

/// Which world is compared with.
#[derive(Debug, Clone, Args)]
struct WorldArgs {
    /// Site file (default: `site.toml` next to the recipe that you name, in this folder or in `recipes/`).
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// Rehearse in a copy of the site's lab as it is now (default: in a snapshot of the site, taken now).
    #[arg(long, conflicts_with = "against")]
    lab: bool,
    /// Rehearse in a saved world: of `gpuhost snapshot`, or `world.json` of a lab's folder.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The plan as JSON.
    #[arg(long)]
    json: bool,
    /// Common options.
    #[command(flatten)]
    common: Common,
}

/// Runs `gpuhost plan`.
#[must_use]
pub fn command(args: &PlanArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    done(screen, make(&args.recipe, &args.world, &args.set, args.out.as_ref(), false, rt, screen))
}

/// Runs `gpuhost drift`.
#[must_use]
pub fn drift(args: &DriftArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    done(screen, make("deploy", &args.world, &[], None, true, rt, screen))
}

fn done(screen: &Screen, r: OpResult<Exit>) -> Exit {
    r.unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}

fn make(
    recipe: &str,
    world: &WorldArgs,
    set: &[String],
    out: Option<&PathBuf>,
    drift: bool,
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
) -> OpResult<Exit> {
    let recipe = sources::recipe(recipe)?;
    let embedded = world.lab || world.against.is_some();
    let site_text = sources::site(world.site.as_deref(), Some(&recipe), embedded)?.ok_or_else(|| {
        OpError::usage("a plan needs a site file").hint("pass one (`--site FILE`), or write one: `gpuhost init`")
    })?;
    let loaded = sources::load_site(&site_text);
    let checked = check::command::recipe(&recipe);
    let mut findings = checked.findings.clone();
    findings.extend(check::command::wrong_params(&checked, &recipe.name, set));
    let site = match loaded {
        Ok((site, _)) if findings.iter().all(|f| f.warning) => site,
        Ok(_) => {
            crate::findings::show(screen, &findings, world.json);
            return Ok(Exit::Usage);
        }
        Err(list) => {
            crate::findings::show(screen, &list, world.json);
            return Ok(Exit::Usage);
        }
    };
    let state_dir = crate::statedir::resolve(world.common.state_dir.as_deref())?;
    let source = match &world.against {
        Some(path) => Source::File(path.clone()),
        None if world.lab => Source::Lab,
        None => Source::Site(Box::new(crate::snapshot::command::far(&site, &site_text.text, &state_dir)?)),
    };
    let rehearsal =
        Rehearsal { rt, screen, recipe, files: checked.files, site, site_text, set: set.to_vec(), state_dir, source };
    let done = rehearsal.run()?;
    if world.json {
        screen.out(&serde_json::to_string(&done.plan).unwrap_or_default());
    } else {
        show::print(screen, &done.plan, drift);
    }
    if let Some(e) = &done.error {
        show_error(screen, e, None);
        return Ok(Exit::Failed);
    }
    if let Some(path) = out {
        done.plan.save(path)?;
    }
    Ok(if done.plan.effects.is_empty() { Exit::Done } else { Exit::Pending })
}

/// Why a plan is not for this run; `None` when it is.
fn other(plan: &Plan, recipe: &str, now: &serde_json::Value) -> Option<String> {
    let then = &plan.bound_to;
    if plan.recipe != recipe && then["files"] != now["files"] {
        return Some(format!("it is a plan of {}", plan.typed()));
    }
    let names = [("files", "the recipe"), ("site_sha256", "the site file"), ("site_uuid", "the site")];
    if let Some((_, what)) = names.iter().find(|(k, _)| then[k] != now[k]) {
        return Some(format!("{what} changed since it was made"));
    }
    let given = |v: &serde_json::Value| {
        let list = v.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        let words: Vec<String> = list.map(|s| format!("--set {}", crate::lead::word(s))).collect();
        if words.is_empty() { "no `--set`".to_owned() } else { format!("`{}`", words.join(" ")) }
    };
    (then["set"] != now["set"])
        .then(|| format!("it was made with {}, this run has {}", given(&then["set"]), given(&now["set"])))
}

/// The gate for `run --plan`: only for the recipe, site and parameters that the plan was made of; a plan of the lab is
/// none of the real site, nor the other way round.
///
/// # Errors
/// When the plan cannot be read, or is of something else.
pub fn gate(path: Option<&PathBuf>, recipe: &str, header: &serde_json::Value) -> OpResult<Option<Gate>> {
    let Some(path) = path else { return Ok(None) };
    let plan = Plan::load(path)?;
    let now = super::bound(header);
    if plan.bound_to["lab"] == false && now["lab"] == true {
        let typed = plan.typed();
        return Err(OpError::refused(format!("the plan `{}` was made of the real site", path.display()))
            .because("what the real site would change says nothing of the lab's world")
            .hint(format!(
                "run it on the site: without `--lab`; or plan in the lab: `gpuhost plan {typed} --lab --out PLAN`"
            )));
    }
    if plan.bound_to["lab"] == true && now["lab"] == false {
        return Err(OpError::refused(format!("the plan `{}` was made in the lab", path.display()))
            .because("what the lab would change says nothing of the real site")
            .hint(format!("add `--lab`; or plan on the real site: `gpuhost plan {} --out PLAN`", plan.typed())));
    }
    if let Some(why) = other(&plan, recipe, &now) {
        let typed = crate::embed::typed(recipe);
        return Err(OpError::refused(format!("the plan `{}` is of something else", path.display()))
            .because(why)
            .hint(format!("make a new one: `gpuhost plan {typed} --out PLAN`")));
    }
    Ok(Some(Gate::new(plan)))
}
