//! Whether the holder of a lock lives. No I/O but a look at this machine's processes.
use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::proxmox::LockNote;

use crate::runs::machine;
use crate::when;

/// What is known about a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It lives: its process was seen, or it has just renewed.
    Alive,
    /// It is dead: its process is gone, or its lease has passed.
    Dead,
    /// It runs (or not) on another machine, and its lease has not passed.
    Unknown,
}

/// Slack between the clocks of two reads, in seconds.
const SLACK_S: u64 = 5;

/// What the note, the hypervisor's time and this machine's processes say.
#[must_use]
pub fn of(note: &LockNote, hypervisor_now: u64, boot: &str, runs: impl Fn(&str) -> Option<bool>) -> Verdict {
    if note.boot == boot {
        match runs(&note.process) {
            Some(true) => return Verdict::Alive,
            Some(false) => return Verdict::Dead,
            None => {}
        }
    }
    if hypervisor_now > note.until + SLACK_S { Verdict::Dead } else { Verdict::Unknown }
}

/// As [`of`], on this machine.
#[must_use]
pub fn here(note: &LockNote, hypervisor_now: u64) -> Verdict {
    of(note, hypervisor_now, &machine::boot(), machine::runs)
}

/// `alice@laptop (process 4711, run 3fa2…) since 2026-11-23 03:30:00 UTC`.
#[must_use]
pub fn describe(note: &LockNote) -> String {
    let pid = note.process.split('/').next().unwrap_or_default();
    let since = when::iso(note.since * 1000);
    let since = since.get(..19).unwrap_or(&since).replace('T', " ");
    format!("{} (process {pid}, run {}) since {since} UTC", note.holder, note.run)
}

/// The refusal of a second run.
#[must_use]
pub fn refused(site: &str, note: &LockNote, left: u64) -> OpError {
    OpError::refused(format!("another run has the lock of {site}: {}", describe(note)))
        .on(format!("lock of {site}"))
        .because(format!("its lease has {left} s left and is renewed while the run lives"))
        .hint("wait for it to end; `gpuhost unlock` explains the lock and can take it away")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> LockNote {
        LockNote { boot: "b".to_owned(), process: "7/1".to_owned(), until: 1000, ..LockNote::default() }
    }

    #[test]
    fn a_holder_of_this_boot_is_judged_by_its_process_others_by_their_lease() {
        assert_eq!(of(&note(), 1, "b", |_| Some(true)), Verdict::Alive);
        assert_eq!(of(&note(), 9999, "b", |_| Some(true)), Verdict::Alive, "suspended, but it exists");
        assert_eq!(of(&note(), 1, "b", |_| Some(false)), Verdict::Dead);
        assert_eq!(of(&note(), 1, "other", |_| Some(false)), Verdict::Unknown);
        assert_eq!(of(&note(), 1004, "other", |_| None), Verdict::Unknown, "slack");
        assert_eq!(of(&note(), 1006, "other", |_| None), Verdict::Dead);
        assert_eq!(of(&note(), 1006, "b", |_| None), Verdict::Dead, "no process table: by the lease");
    }
}
