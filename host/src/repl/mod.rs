//! The interactive session: the same language, one piece at a time.
pub mod complete;
pub mod eval;
pub mod input;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio_util::sync::CancellationToken;

use crate::args::ReplArgs;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::labs;
use crate::reference::Reference;
use crate::screen::Screen;
use crate::session::Far;
use crate::sources;
use eval::{Evaluator, Outcome, Setting};
use input::Help;

/// Runs `gpuhost repl`.
#[must_use]
pub fn command(args: &ReplArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    screen.leads(crate::lead::Lead::new(args.site.as_deref(), args.lab));
    match open(args, rt, screen) {
        Ok(exit) => exit,
        Err(e) => {
            show_error(screen, &e, None);
            match Exit::of(&e) {
                Exit::Failed => Exit::Usage,
                other => other,
            }
        }
    }
}

/// Ctrl-C while a script runs: cancels what runs now.
#[derive(Clone, Default)]
struct Interrupt(Arc<Mutex<CancellationToken>>);

impl Interrupt {
    fn watch(rt: &tokio::runtime::Handle) -> Self {
        let me = Interrupt::default();
        let own = me.clone();
        rt.spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                own.0.lock().unwrap_or_else(PoisonError::into_inner).cancel();
            }
        });
        me
    }

    fn fresh(&self) -> CancellationToken {
        let t = CancellationToken::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = t.clone();
        t
    }
}

fn open(args: &ReplArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let text = sources::site(args.site.as_deref(), None, args.lab)?;
    let site = match text.as_ref().map(sources::load_site) {
        None => None,
        Some(Ok((site, _))) => Some(site),
        Some(Err(findings)) => {
            crate::findings::show(screen, &findings, false);
            return Ok(Exit::Usage);
        }
    };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let params = crate::session::params(&args.set)?;
    let interrupt = Interrupt::watch(rt);
    let lost = crate::signals::Stop::default();
    let control = text.as_ref().and_then(|t| labs::join::control_of(&t.text));
    let (far, world) = match (&site, control) {
        (Some(s), Some(addr)) => (labs::join::address(&addr, s, &lost)?, None),
        (Some(s), None) if args.lab => labs::open(rt, &state_dir, s, &lost)?,
        (None, _) if args.lab => return Err(OpError::invalid("the lab needs a site file")),
        _ => (Far::real(site.as_deref(), &state_dir)?, None),
    };
    let mut evaluator = Evaluator::new(Setting {
        rt: rt.clone(),
        screen: screen.clone(),
        far,
        held: world.is_some(),
        site,
        params,
        yes: args.yes.clone(),
        verbose: args.common.verbose,
        state_dir: state_dir.clone(),
    })?;
    greet(screen, &evaluator);
    let done = talk(screen, &mut evaluator, &interrupt, &state_dir);
    if let Some(w) = world {
        w.close()?;
    }
    done
}

fn greet(screen: &Screen, e: &Evaluator) {
    let on = e.site_name().map_or_else(String::new, |n| format!(" on {n}"));
    let lab = if e.is_lab() { "[LAB] " } else { "" };
    screen.err(&format!(
        "{lab}gpuhost {}{on}. `help()` explains, Tab completes, Ctrl-D leaves.",
        env!("CARGO_PKG_VERSION")
    ));
}

fn talk(
    screen: &Screen,
    evaluator: &mut Evaluator,
    interrupt: &Interrupt,
    state_dir: &std::path::Path,
) -> OpResult<Exit> {
    let fail = |e: ReadlineError| OpError::failed("the terminal cannot be read").because(e.to_string());
    let config = Config::builder()
        .history_ignore_space(true)
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .build();
    let mut editor: Editor<Help, DefaultHistory> = Editor::with_config(config).map_err(fail)?;
    editor.set_helper(Some(Help::new(Reference::builtin())));
    let history = state_dir.join("repl_history");
    editor.load_history(&history).ok();
    // Lines from a file or pipe are a script: its exit code tells whether they worked.
    let mut exit = Exit::Done;
    let typed = std::io::stdin().is_terminal();
    let prompt = if evaluator.is_lab() { "lab> " } else { "gpuhost> " };
    loop {
        if let Some(h) = editor.helper_mut() {
            h.variables = evaluator.variables();
        }
        match editor.readline(prompt) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) if matches!(line.trim(), ":quit" | ":q" | "quit" | "exit") => break,
            Ok(line) => match evaluator.eval(&line, interrupt.fresh()) {
                Outcome::Nothing => {}
                Outcome::Text(text) => screen.out(&text),
                Outcome::Error(text) => {
                    screen.err(text.trim_end());
                    exit = if typed { Exit::Done } else { Exit::Failed };
                }
            },
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(fail(e)),
        }
    }
    editor.save_history(&history).ok();
    Ok(exit)
}
