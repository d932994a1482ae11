//! Errors that have no run around them.
use gpuhost_stdlib::core::error::OpError;

use crate::render;
use crate::screen::Screen;
use crate::sources;

/// Shows an error that has no run around it.
pub fn show_error(screen: &Screen, e: &OpError, rerun: Option<&str>) {
    let cx = render::Context { rerun, paint: screen.paint(), text_of: &sources::by_name };
    screen.err(render::error(e, &cx).trim_end());
}
