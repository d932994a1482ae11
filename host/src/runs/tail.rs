//! `gpuhost runs tail`: a journal as it grows, from any other terminal.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::Event;

use super::shelf;
use super::tale::{State, Tale};
use crate::exit::Exit;
use crate::progress::plain::Plain;
use crate::record::read::{self, Line};
use crate::screen::Screen;

const EVERY: Duration = Duration::from_millis(500);

fn show(plain: &Plain, screen: &Screen, line: &Line, raw: bool) {
    if raw {
        screen.out(&line.raw.to_string());
    } else if let Some(event) = &line.event {
        plain.show(event);
    }
}

/// Prints what the journal holds and what is added to it, until the run ends.
///
/// # Errors
/// When there is no such run.
pub async fn follow(state_dir: &Path, screen: &Arc<Screen>, id: Option<&str>, raw: bool) -> OpResult<Exit> {
    let path = shelf::pick(state_dir, id)?;
    let mut seen = 0;
    loop {
        let past = read::read(&path)?;
        let lab = past.lines.first().is_some_and(|l| l.raw["lab"] == true);
        let plain = Plain::new(screen.clone(), lab, true);
        for line in past.lines.iter().skip(seen) {
            show(&plain, screen, line, raw);
        }
        seen = past.lines.len();
        let ended = past.lines.iter().any(|l| matches!(l.event, Some(Event::RunFinished(_))));
        let t = Tale::of(&past);
        if ended || !matches!(t.state, State::Running) {
            if !raw {
                screen.err(&format!("{}: {}", shelf::id(&path), t.word()));
            }
            return Ok(Exit::Done);
        }
        Clock::Real.sleep(EVERY).await;
    }
}
