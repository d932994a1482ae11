//! Reading journals back: of this and of older versions, with a torn last line, checked against their chain.
use std::path::{Path, PathBuf};

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Event;
use serde_json::Value;

use super::chain;

/// The newest journal version that this program reads.
pub const VERSION: u64 = 1;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Time of the run's clock, as written.
    pub ts: String,
    /// The line as data.
    pub raw: Value,
    /// The event; `None` when a newer version wrote one that this program does not know.
    pub event: Option<Event>,
}

/// What the chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Every line is as it was written.
    Whole,
    /// Lines without seals: written before journals were chained.
    Unsealed,
    /// The last line is incomplete: the process or the machine died while it wrote. The rest is whole.
    Torn {
        /// Bytes of the incomplete line.
        bytes: usize,
    },
    /// A line was changed, removed or added after it was written.
    Broken {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A journal that was read.
#[derive(Debug, Clone)]
pub struct Past {
    /// Its file.
    pub path: PathBuf,
    /// Its lines up to the first that cannot be read.
    pub lines: Vec<Line>,
    /// What its chain says.
    pub health: Health,
}

/// Reads a journal. A damaged one is read as far as it goes; that is never an error.
///
/// # Errors
/// When the file cannot be read, or a newer version wrote it.
pub fn read(path: &Path) -> OpResult<Past> {
    let bytes = std::fs::read(path).map_err(|e| {
        OpError::not_found(format!("cannot read the journal `{}`", path.display())).because(e.to_string())
    })?;
    let (lines, health) = parse(&bytes);
    if let Some(v) = lines.iter().filter_map(|l| l.raw["v"].as_u64()).find(|v| *v > VERSION) {
        return Err(OpError::invalid(format!("a newer gpuhost wrote `{}`", path.display()))
            .because(format!("journal version {v}; this program reads up to {VERSION}"))
            .hint("read it with the version that wrote it"));
    }
    Ok(Past { path: path.to_owned(), lines, health })
}

/// Lines and health of a journal's bytes.
#[must_use]
pub fn parse(bytes: &[u8]) -> (Vec<Line>, Health) {
    let mut lines = Vec::new();
    let mut seal: Option<String> = Some(chain::START.to_owned());
    let mut sealed = true;
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            return (lines, Health::Torn { bytes: rest.len() });
        };
        let (line, more) = (&rest[..end], &rest[end + 1..]);
        let number = lines.len() + 1;
        let broken = |why| Health::Broken { line: number, why };
        let Ok(text) = std::str::from_utf8(line) else {
            return (lines, if more.is_empty() { torn(line) } else { broken("it is no text") });
        };
        let (body, own) = chain::open(text);
        let Ok(raw) = serde_json::from_str::<Value>(&body) else {
            // A file system may pad what a power cut left with zeros.
            return (lines, if more.is_empty() { torn(line) } else { broken("it is no JSON") });
        };
        match (&seal, own) {
            (_, None) if number == 1 => (seal, sealed) = (None, false),
            (Some(before), Some(own)) if chain::seal(before, &body) == own => seal = Some(own.to_owned()),
            (None, None) => {}
            _ => return (lines, broken("its seal does not fit: a line was changed, removed or added")),
        }
        let event = serde_json::from_value(raw.clone()).ok();
        lines.push(Line { ts: raw["ts"].as_str().unwrap_or_default().to_owned(), raw, event });
        rest = more;
    }
    (lines, if sealed { Health::Whole } else { Health::Unsealed })
}

fn torn(line: &[u8]) -> Health {
    Health::Torn { bytes: line.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(n: usize) -> String {
        let mut seal = chain::START.to_owned();
        let mut out = String::new();
        for i in 0..n {
            let body = format!(r#"{{"v":1,"ts":"t","event":"step_started","path":["{i}"],"lab":true}}"#);
            seal = chain::seal(&seal, &body);
            out.push_str(&chain::sealed(&body, &seal));
            out.push('\n');
        }
        out
    }

    #[test]
    fn a_torn_tail_is_tolerated_at_every_byte() {
        let text = journal(4);
        for cut in 0..text.len() {
            let (lines, health) = parse(&text.as_bytes()[..cut]);
            let whole = text.as_bytes()[..cut].iter().filter(|b| **b == b'\n').count();
            assert_eq!(lines.len(), whole, "cut at {cut}");
            let at_end = cut == 0 || text.as_bytes()[cut - 1] == b'\n';
            assert_eq!(health == Health::Whole, at_end, "cut at {cut}: {health:?}");
        }
    }

    #[test]
    fn every_later_change_is_seen() {
        let text = journal(4);
        let all: Vec<&str> = text.lines().collect();
        let of = |v: &[&str]| parse(format!("{}\n", v.join("\n")).as_bytes()).1;
        assert_eq!(of(&all), Health::Whole);
        assert!(matches!(of(&[all[0], all[2], all[3]]), Health::Broken { line: 2, .. }), "removed");
        assert!(matches!(of(&[all[0], all[1], all[1], all[2]]), Health::Broken { line: 3, .. }), "repeated");
        let changed = all[1].replace("\"1\"", "\"7\"");
        assert!(matches!(of(&[all[0], &changed, all[2]]), Health::Broken { line: 2, .. }), "changed");
        assert!(matches!(of(&all[1..]), Health::Broken { line: 1, .. }), "the beginning is missing");
    }

    #[test]
    fn unknown_events_of_the_same_version_are_kept_as_data() {
        let (lines, health) = parse(b"{\"v\":1,\"ts\":\"t\",\"event\":\"something_new\"}\n");
        assert_eq!((lines.len(), health), (1, Health::Unsealed));
        assert!(lines[0].event.is_none());
    }
}
