//! The file: journal, recipes, site file, parameters and seed of one run.
use std::collections::BTreeMap;
use std::path::Path;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::header::sha256;
use crate::record::read::{self, Past};
use crate::runs::tale::Tale;
use crate::sources;

/// Version of the file.
const VERSION: u32 = 1;

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// Version of the file.
    pub gpuhost_bug: u32,
    /// Program that made it.
    pub by: String,
    /// Recipe of the run.
    pub recipe: String,
    /// Texts of the recipe's files, by name.
    pub files: BTreeMap<String, String>,
    /// The site file, its secrets taken out.
    pub site: String,
    /// `--set`.
    pub set: Vec<String>,
    /// Whether it was a run on the lab.
    pub lab: bool,
    /// The lab's seed.
    pub seed: Option<u64>,
    /// What went wrong by intention, as rules of `--faults`.
    pub faults: Vec<String>,
    /// The journal's lines; secrets never get there.
    pub journal: Vec<Value>,
    /// What is not as it was when the run began.
    pub notes: Vec<String>,
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
}

impl Bundle {
    /// Puts a journal and what it was made of together. `site` stands in for a site file that is not where the run
    /// found it.
    ///
    /// # Errors
    /// When the journal names no recipe, or its files are gone.
    pub fn of(past: &Past, site: Option<&Path>) -> OpResult<Self> {
        let first = past.lines.first().map(|l| l.raw.clone()).unwrap_or_default();
        let header = &first["header"];
        let recipe = first["recipe"].as_str().unwrap_or_default().to_owned();
        let mut out = Bundle {
            gpuhost_bug: VERSION,
            by: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.clone(),
            files: BTreeMap::new(),
            site: String::new(),
            set: texts(&header["set"]).iter().map(|s| veil_pair(s)).collect(),
            lab: first["lab"].as_bool().unwrap_or(false),
            seed: header["seed"].as_u64(),
            faults: Tale::of(past).end.map(|e| texts(&e["faults"])).unwrap_or_default(),
            journal: past.lines.iter().map(|l| l.raw.clone()).collect(),
            notes: Vec::new(),
        };
        for (name, digest) in header["files"].as_object().into_iter().flatten() {
            let gone = || {
                OpError::not_found(format!("`{name}` of the run is not there any more"))
                    .hint("go to the folder that the run was started in")
            };
            let text = sources::by_name(name).ok_or_else(gone)?;
            if sha256(&text) != digest.as_str().unwrap_or_default() {
                out.notes.push(format!("`{name}` has changed since the run"));
            }
            out.files.insert(name.clone(), text);
        }
        if !out.files.contains_key(&recipe) {
            return Err(OpError::invalid("the journal does not say what its recipe was made of")
                .hint("an older version wrote it; the journal itself is all there is"));
        }
        let named = header["site_file"].as_str().map(str::to_owned);
        let from = site.map(|p| p.display().to_string()).or(named);
        let text = from.as_deref().and_then(sources::by_name).ok_or_else(|| {
            OpError::not_found("the site file of the run is not there any more").hint("pass it: `--site FILE`")
        })?;
        if header["site_sha256"] != sha256(&text) {
            out.notes.push("the site file is not that of the run".to_owned());
        }
        out.site = veil(&text);
        Ok(out)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or another version wrote it.
    pub fn load(path: &Path) -> OpResult<Self> {
        let bad = |why: String| {
            OpError::invalid(format!("cannot read the bundle `{}`", path.display()))
                .because(why)
                .hint("make one: `gpuhost bug RUN --out FILE`")
        };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let out: Bundle = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if out.gpuhost_bug != VERSION {
            return Err(bad(format!("it has version {}, this program reads {VERSION}", out.gpuhost_bug)));
        }
        Ok(out)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> OpResult<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        crate::statedir::write_private(path, text.as_bytes()).map_err(|e| {
            OpError::failed(format!("cannot write the bundle `{}`", path.display())).because(e.to_string())
        })
    }

    /// The journal as it is read from disk.
    ///
    /// # Errors
    /// When it cannot be written below `dir`.
    pub fn past(&self, dir: &Path) -> OpResult<Past> {
        let path = dir.join("original.ndjson");
        let text: String = self.journal.iter().map(|l| format!("{l}\n")).collect();
        crate::statedir::write_private(&path, text.as_bytes())
            .map_err(|e| OpError::failed("cannot unpack the journal").because(e.to_string()))?;
        read::read(&path)
    }
}

/// Words in the names of keys whose values are secret unless they say where the secret is.
const SECRET: [&str; 5] = ["token", "password", "secret", "passphrase", "private_key"];

/// Beginnings of values that only say where a secret is.
const REFERENCES: [&str; 6] = ["env:", "file:", "state:", "age:", "sops:", "keyring:"];

fn is_secret(key: &str, value: &str) -> bool {
    let key = key.to_lowercase();
    let named = SECRET.iter().any(|w| key.contains(w)) && !key.ends_with("_id");
    named && !value.is_empty() && !REFERENCES.iter().any(|r| value.starts_with(r))
}

fn veil_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((k, v)) if is_secret(k, v) => format!("{k}=***"),
        _ => pair.to_owned(),
    }
}

/// The site file without values that are secrets themselves; the way to a served lab goes too.
fn veil(text: &str) -> String {
    let Ok(mut t) = text.parse::<toml::Table>() else { return String::new() };
    t.remove("connect");
    t.remove("lab");
    walk(&mut t);
    toml::to_string(&t).unwrap_or_default()
}

fn walk(t: &mut toml::Table) {
    for (key, v) in t.iter_mut() {
        match v {
            toml::Value::String(s) if is_secret(key, s) => "***".clone_into(s),
            toml::Value::Table(inner) => walk(inner),
            toml::Value::Array(list) => list.iter_mut().filter_map(toml::Value::as_table_mut).for_each(walk),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_references_stay() {
        let out = veil(
            "[proxmox]\ntoken_id = \"a@pve!b\"\ntoken = \"env:T\"\n[platform.x]\npassword = \"hunter2\"\n[connect]\n\"a:1\" = \"b:2\"\n",
        );
        assert!(out.contains("env:T") && out.contains("a@pve!b"), "{out}");
        assert!(!out.contains("hunter2") && !out.contains("connect"), "{out}");
        assert_eq!(veil_pair("hub_token=abc"), "hub_token=***");
        assert_eq!(veil_pair("node=a"), "node=a");
    }
}
