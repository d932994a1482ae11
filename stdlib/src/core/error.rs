//! The one error of the script API: what failed, on which target, why, and what to type next.
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of failure this is. Recipes branch on it (`err.kind == "timeout"`), so the list is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The thing asked for is not there.
    NotFound,
    /// Something else holds the name, the lock or the state.
    Conflict,
    /// The other side, or the user, refused.
    Denied,
    /// The other side did not answer.
    Unreachable,
    /// It did not happen in time.
    Timeout,
    /// The other side tried and failed.
    Failed,
    /// The request is wrong.
    Invalid,
}

impl Kind {
    /// The word that scripts see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Denied => "denied",
            Kind::Unreachable => "unreachable",
            Kind::Timeout => "timeout",
            Kind::Failed => "failed",
            Kind::Invalid => "invalid",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a run stops with an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Ctrl-C (exit 130).
    Interrupted,
    /// Refused by permission, lock, ownership or the user (exit 4).
    Refused,
    /// A proof failed (exit 3).
    Proof,
    /// The recipe was called wrongly (exit 2).
    Usage,
}

/// Where in a recipe something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// File name as given to the engine; empty when unknown.
    pub file: String,
    /// Line, from 1; 0 when unknown.
    pub line: usize,
    /// Column, from 1; 0 when unknown.
    pub column: usize,
}

/// The one error of the script API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpError {
    /// Closed kind.
    pub kind: Kind,
    /// `module.verb`, for example `proxmox.ensure_vm`; filled by the pipeline.
    pub op: String,
    /// What it was done to, for example a node name.
    pub target: String,
    /// One sentence, lower case, no full stop. Never repeats a cause.
    pub message: String,
    /// Outermost first: what the other side said.
    pub causes: Vec<String>,
    /// The next thing to type or look at.
    pub hint: Option<String>,
    /// The last state seen before giving up.
    pub last: Option<String>,
    /// Steps that were open, outermost first.
    pub steps: Vec<String>,
    /// Failures of the sibling threads of a fan-out.
    pub others: Vec<OpError>,
    /// Recipe position; filled at the script boundary.
    pub place: Option<Place>,
    /// Set when the run ends with an exit code of its own.
    pub stop: Option<Stop>,
}

/// Result of everything inside stdlib.
pub type OpResult<T> = Result<T, OpError>;

impl OpError {
    /// A new error; the pipeline adds op, target, steps and place.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        OpError {
            kind,
            op: String::new(),
            target: String::new(),
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            last: None,
            steps: Vec::new(),
            others: Vec::new(),
            place: None,
            stop: None,
        }
    }
    /// `not_found`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    /// `conflict`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    /// `denied`.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }
    /// `unreachable`.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }
    /// `timeout`.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Kind::Timeout, message)
    }
    /// `failed`.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }
    /// `invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    /// The run was interrupted.
    #[must_use]
    pub fn interrupted() -> Self {
        let mut e = Self::new(Kind::Failed, "interrupted");
        e.stop = Some(Stop::Interrupted);
        e
    }
    /// Refused (exit 4): ownership, lock, permission, declined.
    pub fn refused(message: impl Into<String>) -> Self {
        let mut e = Self::new(Kind::Denied, message);
        e.stop = Some(Stop::Refused);
        e
    }
    /// The recipe was called wrongly (exit 2).
    pub fn usage(message: impl Into<String>) -> Self {
        let mut e = Self::invalid(message);
        e.stop = Some(Stop::Usage);
        e
    }
    /// Names the target unless one is set already.
    #[must_use]
    pub fn on(mut self, target: impl Into<String>) -> Self {
        if self.target.is_empty() {
            self.target = target.into();
        }
        self
    }
    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }
    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds the last seen state.
    #[must_use]
    pub fn last_seen(mut self, last: impl Into<String>) -> Self {
        self.last = Some(last.into());
        self
    }
    /// Whether this is a failure of kind `kind`.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.target.is_empty() {
            write!(f, "{}", self.message)
        } else {
            write!(f, "{}: {}", self.target, self.message)
        }
    }
}

impl std::error::Error for OpError {}
