//! Exit codes: what a calling script can rely on.
use gpuhost_stdlib::core::error::{OpError, Stop};
use gpuhost_stdlib::core::event::Status;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The recipe failed.
    Failed,
    /// Wrong call, or findings of `check`.
    Usage,
    /// A proof failed.
    Proof,
    /// Refused: permission, lock, ownership, declined.
    Refused,
    /// A plan has changes.
    Pending,
    /// Ctrl-C.
    Interrupted,
    /// A bug in gpuhost.
    Internal,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Proof => 3,
            Exit::Refused => 4,
            Exit::Pending => 10,
            Exit::Interrupted => 130,
            Exit::Internal => 255,
        }
    }

    /// What an uncaught error of a recipe means for the process.
    #[must_use]
    pub fn of(e: &OpError) -> Self {
        match e.stop {
            Some(Stop::Interrupted) => Exit::Interrupted,
            Some(Stop::Refused) => Exit::Refused,
            Some(Stop::Proof) => Exit::Proof,
            Some(Stop::Usage) => Exit::Usage,
            None => Exit::Failed,
        }
    }

    /// The word in `run_finished`.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Exit::Done | Exit::Pending => Status::Ok,
            Exit::Refused => Status::Refused,
            Exit::Interrupted => Status::Interrupted,
            Exit::Failed | Exit::Usage | Exit::Proof | Exit::Internal => Status::Failed,
        }
    }
}
