//! Who is or was logged in at a terminal of a machine, since it booted.
use std::sync::{Arc, Mutex, PoisonError};

use super::live::Machine;

/// One login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User.
    pub user: String,
    /// Number of its terminal below `/dev/pts`.
    pub terminal: usize,
    /// When it began.
    pub since_ms: u64,
    /// When it ended, if it has.
    pub until_ms: Option<u64>,
}

/// The logins of one boot, oldest first.
#[derive(Debug, Default)]
pub struct Logins(Mutex<Vec<Login>>);

impl Logins {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Login>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Login> {
        self.with(|l| l.clone())
    }

    /// Those that are still there.
    #[must_use]
    pub fn present(&self) -> Vec<Login> {
        self.all().into_iter().filter(|l| l.until_ms.is_none()).collect()
    }
}

/// A seat at a terminal; the login ends with it.
pub struct Seat {
    m: Arc<Machine>,
    at: usize,
}

impl Seat {
    /// A user sits down.
    #[must_use]
    pub fn take(m: &Arc<Machine>, user: &str) -> Seat {
        let since_ms = m.lab.clock().now_ms();
        let at = m.logins.with(|all| {
            let free = |n: &usize| !all.iter().any(|l| l.until_ms.is_none() && l.terminal == *n);
            let terminal = (0..).find(free).unwrap_or_default();
            all.push(Login { user: user.to_owned(), terminal, since_ms, until_ms: None });
            all.len() - 1
        });
        Seat { m: m.clone(), at }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = self.m.lab.clock().now_ms();
        self.m.logins.with(|all| {
            if let Some(l) = all.get_mut(self.at) {
                l.until_ms = Some(now);
            }
        });
    }
}
