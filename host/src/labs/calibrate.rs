//! How long a recipe may take on hardware. Durations of the lab are estimates until real runs of the same recipe on the
//! same site have measured a step.
use std::io::BufRead;
use std::path::Path;

use gpuhost_stdlib::core::event::{Event, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::read;
use crate::runs::shelf;

/// From how much of the lab's duration up to how much of it a step may take, while nothing has measured it.
const GUESS: (f64, f64) = (0.5, 3.0);
/// Real runs that are looked at, newest first.
const RUNS: usize = 20;

/// A range of seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How long it may take.
    #[serde(flatten)]
    pub range: Range,
    /// Real runs that measured it; 0: the range is a guess around the lab's duration.
    pub measured: usize,
}

/// What a recipe may take on hardware.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    /// All steps together.
    #[serde(flatten)]
    pub range: Range,
    /// Steps that real runs have measured.
    pub calibrated: usize,
    /// Outermost steps, in their order.
    pub steps: Vec<Step>,
}

/// The real runs that say how long steps take.
pub struct Source<'a> {
    /// Where journals are.
    pub state_dir: &'a Path,
    /// File name of the recipe.
    pub recipe: &'a str,
    /// UUID of the site.
    pub site: &'a str,
}

/// A step that a real run has gone through: name, whether it changed something, seconds.
type Measured = (String, bool, f64);

fn file_name(recipe: &str) -> &str {
    recipe.rsplit('/').next().unwrap_or(recipe)
}

fn outermost(name: &str) -> bool {
    !name.contains(" / ")
}

impl Source<'_> {
    /// Whether a journal's first line is that of a real run of the recipe on the site.
    fn fits(&self, first: &Value) -> bool {
        first["lab"] == false
            && first["header"]["site_uuid"] == self.site
            && first["recipe"].as_str().is_some_and(|r| file_name(r) == file_name(self.recipe))
    }

    /// Steps of the real runs, newest run first.
    fn measured(&self) -> Vec<Measured> {
        let first_line = |p: &Path| {
            let mut line = String::new();
            std::io::BufReader::new(std::fs::File::open(p).ok()?).read_line(&mut line).ok()?;
            serde_json::from_str::<Value>(&line).ok()
        };
        let newest = shelf::all(self.state_dir).into_iter().rev();
        let fitting = newest.filter(|p| first_line(p).is_some_and(|l| self.fits(&l))).take(RUNS);
        let mut out = Vec::new();
        for past in fitting.filter_map(|p| read::read(&p).ok()) {
            out.extend(past.lines.into_iter().filter_map(|l| match l.event? {
                Event::StepFinished { path, status: Status::Ok, changed, ms } => match &path[..] {
                    [name] => Some((name.clone(), changed > 0, ms as f64 / 1000.0)),
                    _ => None,
                },
                _ => None,
            }));
        }
        out
    }

    /// What the steps of a lab run (`steps` of its `run_finished`) may take on hardware.
    #[must_use]
    pub fn expect(&self, steps: &Value) -> Expected {
        let measured = self.measured();
        let steps: Vec<Step> = steps
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| {
                let name = s["name"].as_str().filter(|n| outermost(n))?;
                let changes = s["changed"].as_u64().is_some_and(|n| n > 0);
                let same: Vec<f64> = measured.iter().filter(|m| m.0 == name && m.1 == changes).map(|m| m.2).collect();
                let lab = s["seconds"].as_f64().unwrap_or(0.0);
                let range = match &same[..] {
                    [] => Range { low: lab * GUESS.0, high: lab * GUESS.1 },
                    some => Range {
                        low: some.iter().copied().fold(f64::INFINITY, f64::min),
                        high: some.iter().copied().fold(0.0, f64::max),
                    },
                };
                Some(Step { name: name.to_owned(), range, measured: same.len() })
            })
            .collect();
        Expected {
            range: Range {
                // The sum of no floats is -0.0.
                low: steps.iter().map(|s| s.range.low).sum::<f64>() + 0.0,
                high: steps.iter().map(|s| s.range.high).sum::<f64>() + 0.0,
            },
            calibrated: steps.iter().filter(|s| s.measured > 0).count(),
            steps,
        }
    }
}

impl Range {
    /// `9m 10s to 55m`.
    #[must_use]
    pub fn words(&self) -> String {
        let span = |s: f64| crate::when::span((s.max(0.0) * 1000.0) as u64);
        let (low, high) = (span(self.low), span(self.high));
        if low == high { low } else { format!("{low} to {high}") }
    }
}

impl Expected {
    /// `9m 10s to 55m (0 of 9 steps calibrated by real runs)`.
    #[must_use]
    pub fn words(&self) -> String {
        let n = self.steps.len();
        let steps = if n == 1 { "step" } else { "steps" };
        format!("{} ({} of {n} {steps} calibrated by real runs)", self.range.words(), self.calibrated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn journal(dir: &Path, name: &str, lab: bool, site: &str, steps: &[(&str, u64, u64)]) {
        let mut text = String::new();
        let mut line = |mut v: Value| {
            v["v"] = json!(1);
            v["ts"] = json!("t");
            v["lab"] = json!(lab);
            text.push_str(&format!("{v}\n"));
        };
        line(
            json!({"event": "run_started", "recipe": "recipes/deploy.rhai", "site": "s", "header": {"site_uuid": site}}),
        );
        for (name, changed, ms) in steps {
            line(json!({"event": "step_finished", "path": [name], "status": "ok", "changed": changed, "ms": ms}));
        }
        std::fs::create_dir_all(dir.join("runs")).unwrap();
        std::fs::write(dir.join("runs").join(name), text).unwrap();
    }

    #[test]
    fn steps_are_guesses_until_real_runs_of_this_site_measure_them() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source { state_dir: dir.path(), recipe: "deploy.rhai", site: "u" };
        let steps = json!([
            {"name": "a", "changed": 3, "seconds": 100.0}, {"name": "a / b", "changed": 3, "seconds": 90.0},
            {"name": "c", "changed": 0, "seconds": 10.0},
        ]);
        let before = source.expect(&steps);
        assert_eq!(before.words(), "55s to 5m 30s (0 of 2 steps calibrated by real runs)");
        journal(dir.path(), "1-a.ndjson", false, "u", &[("a", 2, 70_000), ("c", 4, 9000)]);
        journal(dir.path(), "2-b.ndjson", false, "u", &[("a", 9, 80_000)]);
        // A lab's run, another site's run and a run that changed nothing say nothing about this step.
        journal(dir.path(), "3-c.ndjson", true, "u", &[("a", 2, 1000)]);
        journal(dir.path(), "4-d.ndjson", false, "other", &[("a", 2, 1000)]);
        journal(dir.path(), "5-e.ndjson", false, "u", &[("a", 0, 1000)]);
        let after = source.expect(&steps);
        assert_eq!(after.calibrated, 1);
        assert_eq!(after.steps[0], Step { name: "a".into(), range: Range { low: 70.0, high: 80.0 }, measured: 2 });
        assert_eq!(after.steps[1].range, Range { low: 5.0, high: 30.0 });
    }
}
