//! The table of ops in doubt as recipes: what brings each op about, and what the run after a kill within it must do.
pub mod bed;
mod cluster;
mod machines;

/// The world that a row begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// The bare hypervisor.
    Bare,
    /// Two machines, nothing in them.
    Machines,
    /// The same, and one of the machines is no node of the site any more.
    Less,
    /// A whole deployed cluster.
    Cluster,
}

/// What the run after the kill does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Done again where it differs: the world is that of a run that nobody killed.
    Converges,
    /// Found and continued: the same, and the hypervisor did nothing twice.
    Continues,
    /// Refused with when it was to happen and what is known; with `--yes` it goes on.
    Asks,
    /// Refused with these words; this recipe is the answer, and then it goes on.
    Refuses(&'static str, &'static str),
}

/// One op of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `module.verb`.
    pub op: &'static str,
    /// Effect, where one name has two ops.
    pub effect: &'static str,
    /// The world it begins with.
    pub start: Start,
    /// What happens to the lab before, as `gpuhost lab fault` says it.
    pub fault: &'static str,
    /// What is made ready.
    pub before: &'static str,
    /// What brings the op about.
    pub text: &'static str,
    /// What the next run does.
    pub then: Then,
    /// Whether a run after that one has nothing left to do.
    pub settles: bool,
    /// What is printed of both worlds and must be the same.
    pub shows: &'static str,
}

impl Row {
    const fn new(start: Start, op: &'static str, text: &'static str, then: Then) -> Row {
        Row { op, effect: "", start, fault: "", before: "", text, then, settles: true, shows: "" }
    }
    const fn before(mut self, text: &'static str) -> Row {
        self.before = text;
        self
    }
    const fn fault(mut self, text: &'static str) -> Row {
        self.fault = text;
        self
    }
    const fn effect(mut self, word: &'static str) -> Row {
        self.effect = word;
        self
    }
    /// It does something every time.
    const fn always(mut self) -> Row {
        self.settles = false;
        self
    }
    const fn shows(mut self, text: &'static str) -> Row {
        self.shows = text;
        self
    }
}

/// All rows, cheap worlds first.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut out = [machines::ROWS, cluster::ROWS].concat();
    out.sort_by_key(|r| r.start);
    out
}
