//! A limit of real time for the programs of others that tests wait for: one that hangs is killed, so that the test says where.
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one program may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Kills a child process that is not done in time.
pub struct Watch {
    done: Sender<()>,
    dog: JoinHandle<bool>,
}

impl Watch {
    /// Watches `child` from now on.
    #[must_use]
    pub fn over(child: &Child, limit: Duration) -> Self {
        let pid = child.id().to_string();
        let (done, rx) = mpsc::channel();
        let dog = std::thread::spawn(move || {
            let late = rx.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            late && Command::new("kill").args(["-9", &pid]).status().is_ok()
        });
        Watch { done, dog }
    }

    /// The child is done: whether it had to be killed.
    #[must_use]
    pub fn killed(self) -> bool {
        drop(self.done);
        self.dog.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_too_long_is_killed() {
        let begin = |seconds: &str| Command::new("sleep").arg(seconds).spawn().unwrap_or_else(|e| panic!("{e}"));
        let mut long = begin("1000");
        let watch = Watch::over(&long, Duration::from_millis(20));
        assert!(!long.wait().is_ok_and(|s| s.success()));
        assert!(watch.killed());
        let mut short = begin("0");
        let watch = Watch::over(&short, PATIENCE);
        assert!(short.wait().is_ok_and(|s| s.success()));
        assert!(!watch.killed());
    }
}
