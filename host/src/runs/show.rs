//! `gpuhost runs` and `gpuhost runs show`: for people and as JSON.
use std::path::Path;

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::{Class, Status};
use serde_json::{Value, json};

use super::shelf;
use super::tale::{self, Doubt, Tale};
use crate::exit::Exit;
use crate::progress::words;
use crate::record::read::{self, Health};
use crate::screen::Screen;

fn row(path: &Path) -> Value {
    let id = shelf::id(path);
    match read::read(path) {
        Err(e) => json!({ "id": id, "state": "unreadable", "why": e.to_string() }),
        Ok(past) => {
            let t = Tale::of(&past);
            json!({
                "id": id, "state": t.word(), "started": t.header["wall"], "recipe": t.recipe, "site": t.site,
                "lab": t.lab, "changed": t.changed, "in_doubt": t.doubts.len(), "journal": path,
            })
        }
    }
}

/// Lists runs, the latest last.
pub fn list(state_dir: &Path, screen: &Screen, as_json: bool) -> Exit {
    let rows: Vec<Value> = shelf::all(state_dir).iter().map(|p| row(p)).collect();
    if as_json {
        for r in &rows {
            screen.out(&r.to_string());
        }
        return Exit::Done;
    }
    if rows.is_empty() {
        screen.out(&format!("no runs below {}", state_dir.display()));
        return Exit::Done;
    }
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    for r in &rows {
        let lab = if r["lab"] == true { "[LAB] " } else { "" };
        let doubt = match r["in_doubt"].as_u64() {
            Some(n) if n > 0 => format!("  {n} in doubt"),
            _ => String::new(),
        };
        let started = text(&r["started"]);
        screen.out(&format!(
            "{}  {}  {:<11}  {:>4} changed  {lab}{} on {}{doubt}",
            text(&r["id"]),
            started.get(..19).unwrap_or(&started),
            text(&r["state"]),
            r["changed"].as_u64().unwrap_or(0),
            text(&r["recipe"]),
            text(&r["site"]),
        ));
    }
    Exit::Done
}

fn advice(d: &Doubt) -> &'static str {
    match d.class {
        Class::Repeatable => "doing it again is harmless: the next run compares first",
        Class::Adoptable => "the next run finds it by its marker and continues",
        Class::Ask => "the next run asks before it repeats this",
    }
}

/// Shows one run.
///
/// # Errors
/// When there is no such run.
pub fn one(state_dir: &Path, screen: &Screen, id: Option<&str>, as_json: bool) -> OpResult<Exit> {
    let path = shelf::pick(state_dir, id)?;
    let past = read::read(&path)?;
    let t = Tale::of(&past);
    if as_json {
        let mut v = serde_json::to_value(&t).unwrap_or_default();
        v["id"] = json!(shelf::id(&path));
        v["journal"] = json!(path);
        v["health"] = json!(tale::health(&past.health));
        screen.out(&v.to_string());
        return Ok(Exit::Done);
    }
    let p = screen.paint_out();
    let lab = if t.lab { format!("{} ", p.yellow("[LAB]")) } else { String::new() };
    screen.out(&format!("{lab}{} on {}: {}", p.bold(&t.recipe), p.bold(&t.site), t.word()));
    let fact = |name: &str, v: &Value| match v.as_str() {
        Some(s) if !s.is_empty() => screen.out(&format!("  {name:<9}{s}")),
        _ => {}
    };
    fact("started", &t.header["wall"]);
    fact("gpuhost", &t.header["gpuhost"]);
    let by = &t.header["by"];
    if let (Some(u), Some(h), Some(pid)) = (by["user"].as_str(), by["host"].as_str(), by["process"].as_str()) {
        screen.out(&format!("  by       {u}@{h}, process {}", pid.split('/').next().unwrap_or(pid)));
    }
    for s in t.header["set"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        screen.out(&format!("  --set    {s}"));
    }
    screen.out(&format!("  journal  {}", path.display()));
    if past.health != Health::Whole {
        screen.out(&format!("  chain    {}", tale::health(&past.health)));
    }
    screen.out(&format!("  {} ops, {}, {} repeated tries", t.ops, words::count(t.changed), t.retries));
    let mut step: &[String] = &[];
    for d in &t.deeds {
        if d.step != step {
            step = &d.step;
            screen.out(&p.blue(&step.join(" / ")));
        }
        let mark = d.status.map_or_else(|| p.yellow("open"), |s| words::mark(s, p));
        let what = if d.changes.is_empty() { String::new() } else { format!(": {}", words::changes(&d.changes)) };
        screen.out(&format!("  {mark} {} {}{what} {}", d.op, d.target, p.dim(&crate::when::span(d.ms))));
        if let Some(e) = d.error.as_ref().filter(|_| d.status == Some(Status::Failed)) {
            screen.out(&format!("      {e}"));
            for c in &e.causes {
                screen.out(&format!("      because: {c}"));
            }
        }
    }
    if !t.doubts.is_empty() {
        screen.out(&p.yellow("in doubt: the journal has no outcome for"));
        for d in &t.doubts {
            let by = d.accepted.as_ref().map(|a| format!(", taken as {a}")).unwrap_or_default();
            screen.out(&format!("  {} {} since {}{by}: {}", d.op, d.target, d.since, advice(d)));
        }
    }
    Ok(Exit::Done)
}

/// Checks the chain of one journal, or of all.
///
/// # Errors
/// When there is no such run.
pub fn verify(state_dir: &Path, screen: &Screen, id: Option<&str>) -> OpResult<Exit> {
    let list = match id {
        Some(_) => vec![shelf::pick(state_dir, id)?],
        None => shelf::all(state_dir),
    };
    let mut bad = 0;
    for path in &list {
        let (sound, text) = match read::read(path) {
            Ok(past) => (!matches!(past.health, Health::Broken { .. }), tale::health(&past.health)),
            Err(e) => (false, e.to_string()),
        };
        bad += usize::from(!sound);
        screen.out(&format!("{}  {text}", shelf::id(path)));
    }
    screen.out(&format!("{} of {} journals are sound", list.len() - bad, list.len()));
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}
