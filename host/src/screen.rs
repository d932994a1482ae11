//! The one place that writes to the terminal: results to stdout, progress and errors to stderr.
use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::MultiProgress;

use crate::lead::Lead;
use crate::render::fold::fold;

/// Whether this output may carry colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    /// For errors.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.with("31;1", text)
    }
    /// For what is done.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    /// For warnings and the lab's mark.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
    /// For places and frames.
    #[must_use]
    pub fn blue(self, text: &str) -> String {
        self.with("34;1", text)
    }
    /// For what matters.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    /// For what matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Prose for stdout: folded to the width of the terminal, if it is one.
#[must_use]
pub fn fitting(text: &str) -> String {
    match console::Term::stdout().size_checked() {
        Some((_, columns)) => fold(text, columns.into()),
        None => text.to_owned(),
    }
}

/// Why stdout took something no longer: one stream, whoever writes.
static LOST: OnceLock<String> = OnceLock::new();

/// The terminal, shared by everything that prints or asks.
pub struct Screen {
    bars: Option<MultiProgress>,
    gate: Mutex<()>,
    paint: Paint,
    paint_out: Paint,
    lead: OnceLock<Lead>,
}

impl Screen {
    /// A screen for this process; `live` allows a moving progress tree when stderr is a terminal.
    #[must_use]
    pub fn new(live: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let err_tty = std::io::stderr().is_terminal();
        Screen {
            bars: (live && err_tty && std::env::var_os("TERM").is_none_or(|t| t != "dumb")).then(MultiProgress::new),
            gate: Mutex::new(()),
            paint: Paint(colour && err_tty),
            paint_out: Paint(colour && std::io::stdout().is_terminal()),
            lead: OnceLock::new(),
        }
    }

    /// Colours for stderr.
    #[must_use]
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Colours for stdout.
    #[must_use]
    pub fn paint_out(&self) -> Paint {
        self.paint_out
    }

    /// The bars, when progress moves.
    #[must_use]
    pub fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.bars {
            Some(b) => b.suspend(work),
            None => work(),
        }
    }

    /// A line (or several) on stdout. A closed pipe is not an error of ours; what else is lost is told at the end.
    pub fn out(&self, text: &str) {
        self.quietly(|| {
            let mut o = std::io::stdout().lock();
            let written = writeln!(o, "{text}").and_then(|()| o.flush());
            if let Err(e) = written
                && e.kind() != ErrorKind::BrokenPipe
            {
                LOST.set(e.to_string()).ok();
            }
        });
    }

    /// Why something that was printed did not arrive, if so.
    #[must_use]
    pub fn lost() -> Option<&'static str> {
        LOST.get().map(String::as_str)
    }

    /// Where the commands lead that are named from now on. Only the first call has an effect.
    pub fn leads(&self, lead: Lead) {
        self.lead.set(lead).ok();
    }

    /// The commands in `text` lead to where this run is.
    #[must_use]
    pub fn led(&self, text: &str) -> String {
        self.lead.get().map_or_else(|| text.to_owned(), |l| l.show(text))
    }

    /// Prose on stdout: folded on a terminal.
    pub fn prose(&self, text: &str) {
        self.out(&fitting(text));
    }

    /// A line (or several) on stderr; folded on a terminal.
    pub fn err(&self, text: &str) {
        let text = self.led(text);
        let text = match console::Term::stderr().size_checked() {
            Some((_, columns)) => fold(&text, columns.into()),
            None => text,
        };
        self.quietly(|| {
            let mut o = std::io::stderr().lock();
            writeln!(o, "{text}").and_then(|()| o.flush()).ok();
        });
    }

    /// Whether somebody can be asked.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks and reads one line; `None` at the end of input.
    #[must_use]
    pub fn ask(&self, prompt: &str) -> Option<String> {
        self.quietly(|| {
            let mut o = std::io::stderr().lock();
            write!(o, "{prompt} ").and_then(|()| o.flush()).ok();
            drop(o);
            let mut line = String::new();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(n) if n > 0 => Some(line.trim().to_owned()),
                _ => None,
            }
        })
    }

    /// As [`Screen::ask`], but what is typed is not shown.
    #[must_use]
    pub fn ask_hidden(&self, prompt: &str) -> Option<String> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let input = std::io::stdin();
        let shown = tcgetattr(&input).ok()?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(&input, SetArg::TCSADRAIN, &hidden).ok()?;
        let answer = self.quietly(|| {
            let mut o = std::io::stderr().lock();
            write!(o, "{prompt} ").and_then(|()| o.flush()).ok();
            drop(o);
            let mut line = String::new();
            match input.lock().read_line(&mut line) {
                Ok(n) if n > 0 => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
                _ => None,
            }
        });
        tcsetattr(&input, SetArg::TCSADRAIN, &shown).ok();
        answer
    }
}
