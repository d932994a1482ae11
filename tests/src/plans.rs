//! Plans against a site that is reached over the network, held against the runs after them.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Ran;
use crate::served::Desk;

/// A served lab that is planned for as a site is.
pub struct Plans {
    /// The lab and its bench.
    pub desk: Desk,
    site: String,
    _dir: tempfile::TempDir,
}

impl Plans {
    /// Serves the empty lab of the site that this text describes.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn of(site: &str) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("tempdir: {e}"));
        let path = dir.path().join("site.toml");
        std::fs::write(&path, site).unwrap_or_else(|e| panic!("{e}"));
        let site = path.display().to_string();
        Plans { desk: Desk::new(&site, &[]), site, _dir: dir }
    }

    /// The same lab, changed while it was stopped.
    #[must_use]
    pub fn changed(self, change: impl FnOnce(&mut Value)) -> Self {
        let desk = self.desk.again(&self.site, &[], |saved| change(&mut saved["world"]));
        Plans { desk, ..self }
    }

    /// Runs a recipe with events; nobody is asked.
    #[must_use]
    pub fn run(&self, recipe: &str, more: &[&str]) -> Ran {
        self.desk.run(recipe, more)
    }

    /// Plays a text, which has to end well.
    pub fn script(&self, text: &str) {
        let _ = self.run(&self.desk.recipe("change", text), &[]).expect(0);
    }

    /// Plans a recipe, with this exit code; the plan and its file.
    ///
    /// # Panics
    /// When there is no plan.
    #[must_use]
    pub fn plan(&self, recipe: &str, code: i32) -> (Value, String) {
        let (site, file) = (self.desk.site(), self.desk.b.path("plan.json").display().to_string());
        let ran = self.desk.b.run(&["plan", recipe, "--site", &site, "--json", "--out", &file]).expect(code);
        let last = ran.stdout.lines().last().unwrap_or_default();
        (serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}")), file)
    }

    /// Plans, runs under the plan, compares; gives the plan.
    ///
    /// # Panics
    /// When the run's effects are others.
    #[must_use]
    pub fn equal(&self, recipe: &str, what: &str) -> Value {
        let (plan, file) = self.plan(recipe, 10);
        let ran = self.run(recipe, &["--plan", &file]).expect(0);
        let done: Vec<Value> = ran.events().into_iter().filter(|e| e["event"] == "intent").collect();
        let planned = plan["effects"].as_array().cloned().unwrap_or_default();
        assert_eq!(by_target(&planned), by_target(&done), "{what}");
        plan
    }
}

/// What a plan changes, as `target: what`.
#[must_use]
pub fn seen(plan: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let effects = plan["effects"].as_array().into_iter().flatten();
    effects
        .flat_map(|e| {
            let changes = e["changes"].as_array().into_iter().flatten();
            changes.map(move |c| format!("{}: {}", text(&e["target"]), text(&c["what"])))
        })
        .collect()
}

/// Effects per target: op and what changes, without values that name a secret by its hash.
#[must_use]
pub fn by_target(effects: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let plain = |v: &Value| if v.to_string().contains("sha256:") { json!("hash") } else { v.clone() };
    for e in effects {
        let list = e["changes"].as_array().into_iter().flatten();
        let changes: Vec<Value> =
            list.map(|c| json!([c["target"], c["what"], plain(&c["before"]), plain(&c["after"])])).collect();
        let target = e["target"].as_str().unwrap_or_default().to_owned();
        out.entry(target).or_default().push(json!([e["op"], changes]));
    }
    out
}
