//! `--json`: every event as one line on stdout.
use std::sync::Arc;

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::Event;

use super::Sink;
use crate::screen::Screen;

/// Writes events to stdout.
pub struct JsonLines(pub Arc<Screen>);

impl Sink for JsonLines {
    fn take(&mut self, _ts_ms: u64, _event: &Event, line: &str) -> OpResult<()> {
        self.0.out(line);
        Ok(())
    }
}
