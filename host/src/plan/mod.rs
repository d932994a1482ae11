//! Plans: a recipe rehearsed in a likeness of the site or a copy of its lab, what it would change, and runs that do no
//! more than that.
pub mod command;
pub mod gate;
mod needs;
pub mod path;
pub mod rehearse;
pub mod show;

use std::path::Path;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Change, Effect};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::labs::calibrate::Expected;

/// Version of the file.
const VERSION: u32 = 1;

/// One planned effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// `module.verb`.
    pub op: String,
    /// What it is done to.
    pub target: String,
    /// Effect.
    pub effect: Effect,
    /// Steps it is in.
    pub step: Vec<String>,
    /// What changes.
    pub changes: Vec<Change>,
}

/// What a recipe would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the file.
    pub gpuhost_plan: u32,
    /// Recipe.
    pub recipe: String,
    /// Name of the site.
    pub site: String,
    /// What has to be the same when it is run: digests of recipe files and site file, site UUID, `--set`, lab or not.
    pub bound_to: Value,
    /// When it was made, on this machine's clock.
    pub made: String,
    /// Effects in the order of the rehearsal.
    pub effects: Vec<Planned>,
    /// How long the rehearsal took, in seconds of the lab's clock.
    pub seconds: f64,
    /// The same for every step: name and seconds.
    pub steps: Vec<(String, f64)>,
    /// What it may take on hardware.
    #[serde(default)]
    pub on_hardware: Expected,
    /// What determines how long it takes: step, target and seconds, in order.
    #[serde(default)]
    pub path: Vec<(String, String, f64)>,
    /// Length of that path in seconds: no run can be shorter with the same ops.
    #[serde(default)]
    pub critical: f64,
    /// How many ops are under way at the same time, on average.
    #[serde(default)]
    pub overlap: f64,
    /// What the run must be allowed to do: module, effect and targets.
    #[serde(default)]
    pub needs: Vec<String>,
    /// When the snapshot was taken that it was rehearsed in; empty for a lab's own world.
    #[serde(default)]
    pub snapshot: String,
    /// What the rehearsal warned of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<String>,
    /// What the rehearsal could not know.
    pub assumed: Vec<String>,
    /// Where the rehearsal failed: the plan goes up to there; empty for a whole one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incomplete: String,
}

impl Plan {
    /// Number of changes.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.effects.iter().map(|e| e.changes.len()).sum()
    }

    /// Its recipe, as one types it.
    #[must_use]
    pub fn typed(&self) -> &str {
        crate::embed::typed(&self.recipe)
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// When it cannot be read, or another version wrote it.
    pub fn load(path: &Path) -> OpResult<Self> {
        let bad = |why: String| {
            OpError::invalid(format!("cannot read the plan `{}`", path.display()))
                .because(why)
                .hint("make one: `gpuhost plan R --out PLAN`")
        };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let plan: Plan = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if plan.gpuhost_plan != VERSION {
            return Err(bad(format!("it has version {}, this program reads {VERSION}", plan.gpuhost_plan)));
        }
        Ok(plan)
    }

    /// Writes a plan file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> OpResult<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        crate::statedir::write_private(path, text.as_bytes())
            .map_err(|e| OpError::failed(format!("cannot write the plan `{}`", path.display())).because(e.to_string()))
    }
}

/// What a plan is bound to, out of a journal's header.
#[must_use]
pub fn bound(header: &Value) -> Value {
    let mut out = serde_json::Map::new();
    for key in ["files", "site_sha256", "site_uuid", "set", "lab"] {
        out.insert(key.to_owned(), header[key].clone());
    }
    Value::Object(out)
}
