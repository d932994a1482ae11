//! The journal of a run: one JSON line per event, on disk before an effect happens.
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Event;

use super::Sink;

/// A journal file.
pub struct Journal {
    file: File,
    path: PathBuf,
    synced: bool,
}

impl Journal {
    /// Starts the journal of a run: `<state_dir>/runs/<time>-<id>.ndjson`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(state_dir: &Path, wall_ms: u64, id: &str) -> OpResult<Self> {
        let dir = state_dir.join("runs");
        crate::statedir::private_dir(&dir)?;
        let path = dir.join(format!("{}-{id}.ndjson", crate::when::stamp(wall_ms)));
        let mut o = std::fs::OpenOptions::new();
        o.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut o, 0o600);
        let file = o.open(&path).map_err(|e| failed(&path, &e))?;
        Ok(Journal { file, path, synced: true })
    }

    /// Leaves the disk to itself: a lab's world lives in memory, so its journal need not survive a power cut.
    /// It still survives the end of the process, however that comes.
    #[must_use]
    pub fn of_lab(mut self, lab: bool) -> Self {
        self.synced = !lab;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn failed(path: &Path, e: &std::io::Error) -> OpError {
    OpError::failed(format!("cannot write the journal `{}`", path.display()))
        .because(e.to_string())
        .hint("nothing is changed without a journal: free space, or pass another `--state-dir`")
}

impl Sink for Journal {
    fn take(&mut self, _ts_ms: u64, event: &Event, line: &str) -> OpResult<()> {
        // Waits repeat every few seconds and mean nothing after the run.
        if matches!(event, Event::Waiting { .. }) {
            return Ok(());
        }
        // One write per line: a crash leaves at most the last line incomplete.
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        let synced =
            if self.synced && event.is_durable() { written.and_then(|()| self.file.sync_data()) } else { written };
        synced.map_err(|e| failed(&self.path, &e))
    }
}

#[cfg(test)]
mod tests {
    use gpuhost_stdlib::core::event::Recorder;

    use super::super::Fan;
    use super::super::redact::Redactor;
    use super::*;

    #[test]
    fn lines_carry_version_time_and_lab() {
        let dir = std::env::temp_dir().join(format!("gpuhost-journal-{}", std::process::id()));
        let j = Journal::create(&dir, 0, "abc").unwrap();
        let path = j.path().to_owned();
        let fan = Fan::new(Redactor::default(), true);
        fan.add(Box::new(j));
        fan.record(1500, &Event::StepStarted { path: vec!["one".to_owned()] }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let v: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(v["v"], 1);
        assert_eq!(v["event"], "step_started");
        assert_eq!(v["ts"], "1970-01-01T00:00:01.500Z");
        assert_eq!(v["lab"], true);
        std::fs::remove_dir_all(&dir).ok();
    }
}
