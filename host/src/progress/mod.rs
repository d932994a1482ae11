//! What a person sees while a recipe runs: a moving tree on a terminal, plain lines otherwise.
pub mod plain;
pub mod tree;
pub mod words;

use std::sync::Arc;

use crate::record::Sink;
use crate::screen::Screen;

/// The progress view that fits this screen.
#[must_use]
pub fn view(screen: &Arc<Screen>, lab: bool, verbose: bool) -> Box<dyn Sink> {
    let lines = plain::Plain::new(screen.clone(), lab, verbose);
    match screen.bars() {
        Some(bars) => Box::new(tree::Tree::new(lines, bars.clone(), screen.paint())),
        None => Box::new(lines),
    }
}
