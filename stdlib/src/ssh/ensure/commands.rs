//! Commands that run when something is missing: for what no other key can say.
use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::files::Seen;
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};
use super::specs::CommandSpec;

/// What tells that a command has nothing left to do.
enum Guard {
    Creates(String),
    Unless(String),
}

/// A guarded command.
pub(super) struct Command {
    name: String,
    command: String,
    guard: Guard,
}

impl Command {
    /// Reads the map of one command.
    ///
    /// # Errors
    /// `invalid` unless there is exactly one guard.
    pub(super) fn new(name: &str, spec: CommandSpec) -> OpResult<Self> {
        if spec.command.contains('\0') || spec.unless.as_ref().is_some_and(|u| u.contains('\0')) {
            return Err(OpError::invalid("a command cannot hold a NUL"));
        }
        let guard = match (spec.creates, spec.unless) {
            (Some(path), None) => Guard::Creates(super::wanted::absolute("creates", &path)?),
            (None, Some(check)) => Guard::Unless(check),
            _ => {
                return Err(OpError::invalid("give either `creates` or `unless`")
                    .hint("a command that is to run every time is `host.run`"));
            }
        };
        Ok(Command { name: name.to_owned(), command: spec.command, guard })
    }
}

impl Item for Command {
    fn what(&self) -> String {
        format!("command {}", self.name)
    }
    fn phase(&self) -> Phase {
        Phase::Commands
    }
    fn probe(&self) -> Probe {
        match &self.guard {
            Guard::Creates(path) => Probe::Path(path.clone()),
            Guard::Unless(check) => Probe::Shell(format!(
                "if sh -c {} >/dev/null 2>&1 </dev/null; then echo yes; else echo no; fi",
                quote(check)
            )),
        }
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let (done, before, after) = match &self.guard {
            Guard::Creates(path) => {
                (Seen::read(&self.what(), found)?.kind != "absent", format!("no {path}"), "run".to_owned())
            }
            Guard::Unless(check) => (found.trim() == "yes", format!("`{check}` fails"), "run".to_owned()),
        };
        let act = format!("sh -c {}", quote(&self.command));
        Ok((!done).then(|| Diff::one(Part::new(self.what(), text(before), text(after)), act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_while_its_guard_is_missing() {
        let spec = |creates: Option<&str>, unless: Option<&str>| CommandSpec {
            command: "touch /x 'y'".into(),
            creates: creates.map(str::to_owned),
            unless: unless.map(str::to_owned),
        };
        let c = Command::new("x", spec(Some("/x"), None)).unwrap();
        assert_eq!(c.diff("file 644 root:root 0:0", &Changed::new()).unwrap(), None);
        assert_eq!(c.diff("absent", &Changed::new()).unwrap().unwrap().act, "sh -c 'touch /x '\\''y'\\'''");
        let c = Command::new("x", spec(None, Some("[ -e /x ]"))).unwrap();
        assert_eq!(c.diff("yes\n", &Changed::new()).unwrap(), None);
        assert!(c.diff("no\n", &Changed::new()).unwrap().is_some());
        assert!(Command::new("x", spec(None, None)).is_err());
    }
}
