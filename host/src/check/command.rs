//! `gpuhost check`: recipe and site file, before anything is touched.
use std::sync::Arc;

use gpuhost_stdlib::site::Finding;
use serde_json::json;

use super::{Checked, Checker};
use crate::args::CheckArgs;
use crate::exit::Exit;
use crate::findings;
use crate::screen::Screen;
use crate::sources::{self, Text};

/// Checks a recipe; on a thread with the stack that deep recipes need.
#[must_use]
pub fn recipe(text: &Text) -> Checked {
    let text = text.clone();
    let thread =
        std::thread::Builder::new().stack_size(crate::engine::SCRIPT_STACK).spawn(move || Checker::new().check(&text));
    thread.ok().and_then(|t| t.join().ok()).unwrap_or_default()
}

/// `--set` names that no `param` of the recipe reads, and parameters that it needs and is not given.
#[must_use]
pub fn wrong_params(checked: &Checked, recipe: &str, given: &[String]) -> Vec<Finding> {
    let known: Vec<&str> = checked.params.iter().map(|p| p.name.as_str()).collect();
    let names = given.iter().filter_map(|g| g.split_once('=').map(|(n, _)| n));
    let is_given =
        |name: &str| given.iter().any(|g| g.split_once('=').is_some_and(|(n, v)| n == name && !v.is_empty()));
    let missing = checked.params.iter().filter(|p| p.needed && !is_given(&p.name)).map(|p| Finding {
        file: recipe.to_owned(),
        line: p.line,
        column: 1,
        message: format!("the parameter `{}` is not given", p.name),
        hint: Some(format!("--set {}=VALUE; `gpuhost run {recipe} --help` says what it is for", p.name)),
        warning: false,
    });
    let unknown = names.filter(|n| !known.contains(n)).map(|n| Finding {
        file: recipe.to_owned(),
        line: 1,
        column: 1,
        message: format!("the recipe has no parameter `{n}`"),
        hint: Some(match gpuhost_stdlib::core::options::closest(n, known.iter().copied()) {
            Some(k) => format!("did you mean `--set {k}=…`?"),
            None if known.is_empty() => "it has none at all".to_owned(),
            None => format!("its parameters: {}", known.join(", ")),
        }),
        warning: false,
    });
    unknown.chain(missing).collect()
}

/// Runs `gpuhost check`.
#[must_use]
pub fn command(args: &CheckArgs, screen: &Arc<Screen>) -> Exit {
    let found = sources::recipe(&args.recipe).and_then(|r| {
        let lab = args.lab || r.is_embedded();
        sources::site(args.site.as_deref(), Some(&r), lab).map(|s| (r, s))
    });
    let (text, site) = match found {
        Ok(x) => x,
        Err(e) => {
            crate::errors::show_error(screen, &e, None);
            return Exit::Usage;
        }
    };
    let mut list = match site.as_ref().map(sources::load_site) {
        None => Vec::new(),
        Some(Ok((_, warnings))) => warnings,
        Some(Err(findings)) => findings,
    };
    let checked = recipe(&text);
    list.extend(checked.findings.iter().cloned());
    findings::show(screen, &list, args.json);
    let errors = list.iter().filter(|f| !f.warning).count();
    if args.json {
        screen.out(&json!({"event": "check_finished", "findings": errors, "files": checked.files}).to_string());
    } else if errors == 0 {
        let with = site.map(|s| format!(" with {}", s.name)).unwrap_or_default();
        screen.out(&format!("{}{with}: no findings", text.name));
    } else {
        let noun = if errors == 1 { "finding" } else { "findings" };
        screen.err(&format!("{errors} {noun}"));
    }
    if errors == 0 { Exit::Done } else { Exit::Usage }
}
