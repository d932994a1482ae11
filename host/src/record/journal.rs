//! The journal of a run: one sealed JSON line per event, on disk before an effect happens.
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Event;

use super::{Sink, chain};

/// A journal file.
pub struct Journal {
    file: File,
    path: PathBuf,
    synced: bool,
    /// Bytes of whole lines.
    len: u64,
    seal: String,
    /// What every op was last said to wait for, without numbers.
    waits: HashMap<u64, String>,
}

/// Folder of the journals.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

impl Journal {
    /// Starts the journal of a run: `<state_dir>/runs/<time>-<id>.ndjson`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(state_dir: &Path, wall_ms: u64, id: &str) -> OpResult<Self> {
        let dir = folder(state_dir);
        crate::statedir::private_dir(&dir)?;
        let path = dir.join(format!("{}-{id}.ndjson", crate::when::stamp(wall_ms)));
        let mut o = std::fs::OpenOptions::new();
        o.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut o, 0o600);
        let file = o.open(&path).map_err(|e| failed(&path, &e))?;
        Ok(Journal { file, path, synced: true, len: 0, seal: chain::START.to_owned(), waits: HashMap::new() })
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

    /// Whether an event is worth a line: of the waits of an op those that differ in more than numbers.
    fn is_news(&mut self, event: &Event) -> bool {
        match event {
            Event::Waiting { id, reason, .. } => {
                let words: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
                self.waits.insert(*id, words.clone()).is_none_or(|old| old != words)
            }
            Event::OpFinished { id, .. } => {
                self.waits.remove(id);
                true
            }
            _ => true,
        }
    }
}

fn failed(path: &Path, e: &std::io::Error) -> OpError {
    OpError::failed(format!("cannot write the journal `{}`", path.display()))
        .because(e.to_string())
        .hint("nothing is changed without a journal: free space, or pass another `--state-dir`")
}

impl Sink for Journal {
    fn take(&mut self, _ts_ms: u64, event: &Event, line: &str) -> OpResult<()> {
        if !self.is_news(event) {
            return Ok(());
        }
        let seal = chain::seal(&self.seal, line);
        // One write per line: a crash leaves at most the last line incomplete.
        let text = format!("{}\n", chain::sealed(line, &seal));
        if let Err(e) = self.file.write_all(text.as_bytes()) {
            // A full disk takes half a line: the next one must not be written behind it.
            self.file.set_len(self.len).ok();
            return Err(failed(&self.path, &e));
        }
        self.len += text.len() as u64;
        self.seal = seal;
        if self.synced && event.is_durable() {
            self.file.sync_data().map_err(|e| failed(&self.path, &e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gpuhost_stdlib::core::event::Recorder;

    use super::super::Fan;
    use super::super::read::{Health, read};
    use super::super::redact::Redactor;
    use super::*;

    #[test]
    fn lines_carry_version_time_and_lab_and_are_chained() {
        let dir = tempfile::tempdir().unwrap();
        let j = Journal::create(dir.path(), 0, "abc").unwrap();
        let path = j.path().to_owned();
        let fan = Fan::new(Redactor::default(), true);
        fan.add(Box::new(j));
        fan.record(1500, &Event::StepStarted { path: vec!["one".to_owned()] }).unwrap();
        for reason in ["clone: 1.00%", "clone: 20.50%", "agent: silent"] {
            fan.record(1600, &Event::Waiting { id: 1, target: "a".to_owned(), reason: reason.to_owned() }).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let v: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(v["v"], 1);
        assert_eq!(v["event"], "step_started");
        assert_eq!(v["ts"], "1970-01-01T00:00:01.500Z");
        assert_eq!(v["lab"], true);
        assert_eq!(text.lines().count(), 3, "progress of one wait is one line:\n{text}");
        assert_eq!(read(&path).unwrap().health, Health::Whole);
    }
}
