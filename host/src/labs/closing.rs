//! The end of a lab run: what was not rehearsed, and on what the rest stands.
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_lab::Lab;
use gpuhost_lab::grades::{self, Behaviour, Grade};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::honest;

/// What a lab says of itself at the end of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Said {
    /// What it stood in for.
    pub stood_in: BTreeSet<String>,
    /// Keys of the behaviours that were met.
    pub met: BTreeSet<String>,
}

impl Said {
    /// By a lab of this process.
    #[must_use]
    pub fn by(lab: &Lab) -> Self {
        lab.with(|w| Said { stood_in: w.not_rehearsed.clone(), met: w.met.clone() })
    }
}

/// What a run could not show.
pub struct Closing {
    /// What was not rehearsed, with the check that does it on hardware or the recipe's line.
    pub not_rehearsed: Vec<String>,
    met: Vec<&'static Behaviour>,
}

impl Closing {
    /// Of a run that did `ops` and wanted at its own lines what the lab does not simulate (`blind`).
    #[must_use]
    pub fn of(ops: &BTreeSet<String>, blind: &BTreeMap<String, BTreeSet<String>>, said: &Said) -> Self {
        let mut list = honest::list(ops);
        for (what, places) in blind {
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            let from =
                if places.is_empty() { String::new() } else { format!(": rehearsal blind from {}", places.join(", ")) };
            list.push(format!("{what}{from}"));
        }
        list.extend(said.stood_in.iter().filter(|t| !blind.contains_key(*t)).cloned());
        let met = grades::BEHAVIOURS.iter().filter(|b| said.met.contains(b.key)).collect();
        Closing { not_rehearsed: list, met }
    }

    /// Names of the behaviours that were met, by grade.
    #[must_use]
    pub fn grades(&self) -> Value {
        let of = |g: Grade| self.met.iter().filter(|b| b.grade == g).map(|b| b.what).collect::<Vec<_>>();
        Grade::ALL.iter().map(|g| (g.word().to_owned(), json!(of(*g)))).collect::<serde_json::Map<_, _>>().into()
    }

    /// `41 simulated behaviours: 18 recorded, 9 source, …`; nothing when none was met.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let n = self.met.len();
        let count = |g: &Grade| self.met.iter().filter(|b| b.grade == *g).count();
        let parts: Vec<String> = Grade::ALL
            .iter()
            .map(|g| (count(g), g.word()))
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{n} {word}"))
            .collect();
        (n > 0).then(|| format!("stands on {n} simulated behaviours: {} (`gpuhost lab grades`)", parts.join(", ")))
    }
}

/// The grades as a Markdown page.
#[must_use]
pub fn page(generated: &str) -> String {
    use std::fmt::Write as _;
    let mut out = format!(
        "# What the lab's behaviours rest on\n\n{generated}\n\n`recorded`: compared with what a real system answered. \
         `source`: follows the source of the real program. `docs`: follows documentation and reports of users. \
         `estimate`: likely, and compared with nothing. That the lab agrees with itself proves nothing about hardware.\n\n\
         | behaviour | grade | from | code |\n|---|---|---|---|\n"
    );
    for b in grades::BEHAVIOURS {
        writeln!(out, "| {} | {} | {} | `lab/src/{}` |", b.what, b.grade.word(), b.from, b.key).ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_recipe_wanted_bears_its_line_and_is_named_once() {
        let blind = BTreeMap::from([("program `x`".to_owned(), BTreeSet::from(["deploy.rhai:41".to_owned()]))]);
        let said = Said {
            stood_in: BTreeSet::from(["program `x`".to_owned(), "the image y".to_owned()]),
            met: BTreeSet::from(["pve/".to_owned(), "card".to_owned()]),
        };
        let c = Closing::of(&BTreeSet::new(), &blind, &said);
        assert_eq!(c.not_rehearsed, ["program `x`: rehearsal blind from deploy.rhai:41", "the image y"]);
        let line = c.summary().unwrap();
        assert_eq!(line, "stands on 2 simulated behaviours: 1 recorded, 1 estimate (`gpuhost lab grades`)");
        assert_eq!(c.grades()["estimate"], json!(["graphics cards"]));
    }
}
