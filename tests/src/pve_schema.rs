//! Traffic of the Proxmox API against the official schemas, where those lie beside the checkout.
//! Shared by the tests of this crate and (by path) by those of the lab.
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder with the data, if it is there.
#[must_use]
pub fn data_dir() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().skip(1).take(3).map(|d| d.join("shared/data/pve")).find(|d| d.is_dir())
}

/// The methods of a release: all of them, or only those of the mission.
#[must_use]
pub fn schema(release: &str, mission: bool) -> Option<Vec<Value>> {
    let which = if mission { "-mission" } else { "" };
    let release = if release.starts_with('8') { "8.4" } else { "9.1" };
    let bytes = std::fs::read(data_dir()?.join(format!("api-schema-{release}{which}.json.gz"))).ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where the real server does not keep to its own schema, each with the reason.
const KNOWN: &[(&str, &str)] = &[
    ("GET /cluster/nextid", "answers a text, its schema says a number [recorded]"),
    (".value", "`pending` lists values with the types of the config, its schema says text [recorded]"),
    (".pending", "the same for the pending value [recorded]"),
    (".info.privsep", "a new token's `privsep` is a text, its schema says a flag [recorded]"),
    ("GET /nodes/{node}/qemu/{vmid}/status/current.clipboard", "null when the display has none [recorded]"),
    ("GET /cluster/tasks[].saved", "a text, not in the schema [recorded]"),
    ("GET /cluster/mapping/pci[].description", "left out when a mapping has none [source]"),
    ("POST /nodes/{node}/vzdump", "answers `OK` without a task when no guest is on the node [source]"),
];

/// Requests that the schema refuses but that clients send and the server takes.
const SENT: &[(&str, &str)] = &[("filename", "the file part of an upload is not a parameter of the form [recorded]")];

/// The verdicts on a record.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What does not fit.
    pub bad: BTreeSet<String>,
    /// Exchanges looked at.
    pub seen: usize,
    /// Methods seen, as `GET /path/{id}`.
    pub methods: BTreeSet<String>,
}

/// Holds every line of a record against the schema of its release.
#[must_use]
pub fn judge(text: &str) -> Option<Verdict> {
    let mut verdict = Verdict::default();
    let mut schemas: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let Ok(x) = serde_json::from_str::<Value>(line) else { continue };
        let release = x["release"].as_str().unwrap_or("9.1").to_owned();
        if !schemas.contains_key(&release) {
            schemas.insert(release.clone(), schema(&release, false)?);
        }
        verdict.exchange(&schemas[&release], &x);
    }
    Some(verdict)
}

fn matches(template: &str, segments: &[&str]) -> bool {
    let parts: Vec<&str> = template.split('/').filter(|p| !p.is_empty()).collect();
    // A volume's name may hold slashes.
    if let Some(i) = parts.iter().position(|p| *p == "{volume}") {
        return segments.len() > i && parts[..i].iter().zip(segments).all(|(p, s)| p.starts_with('{') || p == s);
    }
    parts.len() == segments.len() && parts.iter().zip(segments).all(|(p, s)| p.starts_with('{') || p == s)
}

/// The method that a request is for; a literal part wins over a placeholder.
#[must_use]
pub fn find<'a>(schema: &'a [Value], method: &str, segments: &[&str]) -> Option<&'a Value> {
    let fits = |e: &&Value| e["m"] == method && matches(e["p"].as_str().unwrap_or_default(), segments);
    schema.iter().filter(fits).min_by_key(|e| e["p"].as_str().unwrap_or_default().matches('{').count())
}

impl Verdict {
    fn exchange(&mut self, schema: &[Value], x: &Value) {
        let method = x["method"].as_str().unwrap_or_default();
        let segments: Vec<&str> = x["segments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let code = x["code"].as_u64().unwrap_or(0);
        let ours = x["ours"] == true;
        self.seen += 1;
        // The root of the tree is not in the schema.
        if segments.is_empty() {
            return;
        }
        let Some(e) = find(schema, method, &segments) else {
            if ours || code == 200 {
                self.bad.insert(format!("{method} {}: no such method", x["path"]));
            }
            return;
        };
        let name = format!("{method} {}", e["p"].as_str().unwrap_or_default());
        if code != 501 {
            self.methods.insert(name.clone());
        }
        if ours || code == 200 {
            request(e, &x["params"], &name, &mut self.bad);
        }
        if code == 200 {
            answer(&e["ret"], &x["data"], &name, &mut self.bad);
        }
    }

    /// How many methods of the mission were seen, of how many, and which were not.
    #[must_use]
    pub fn coverage(&self, release: &str) -> (usize, usize, Vec<String>) {
        let all = schema(release, true).unwrap_or_default();
        let name =
            |e: &Value| format!("{} {}", e["m"].as_str().unwrap_or_default(), e["p"].as_str().unwrap_or_default());
        let missing: Vec<String> = all.iter().map(name).filter(|n| !self.methods.contains(n)).collect();
        (all.len() - missing.len(), all.len(), missing)
    }
}

/// `net0` is declared as `net[n]`.
fn numbered(key: &str) -> String {
    format!("{}[n]", key.trim_end_matches(|c: char| c.is_ascii_digit()))
}

fn request(e: &Value, params: &Value, name: &str, bad: &mut BTreeSet<String>) {
    let declared = &e["par"]["properties"];
    let given = params.as_object().cloned().unwrap_or_default();
    for (k, v) in &given {
        let p = [&declared[k.as_str()], &declared[numbered(k).as_str()]].into_iter().find(|p| p.is_object());
        match p {
            None if SENT.iter().any(|s| s.0 == k) => {}
            None => {
                bad.insert(format!("{name}: parameter `{k}` is not declared"));
            }
            Some(p) => parameter(p, v, &format!("{name}: parameter `{k}`"), bad),
        }
    }
    for (k, p) in declared.as_object().into_iter().flatten() {
        let in_path = e["p"].as_str().is_some_and(|t| t.contains(&format!("{{{k}}}")));
        let sent = SENT.iter().any(|s| s.0 == k) && name.ends_with("/upload");
        if !in_path && p["optional"] != 1 && !given.contains_key(k) && !sent {
            bad.insert(format!("{name}: parameter `{k}` is missing"));
        }
    }
}

fn parameter(p: &Value, v: &Value, at: &str, bad: &mut BTreeSet<String>) {
    let text = match v {
        Value::String(s) => s.clone(),
        Value::Array(_) => return,
        other => other.to_string(),
    };
    let fits = match p["type"].as_str() {
        Some("integer") => text.parse::<i64>().is_ok(),
        Some("number") => text.parse::<f64>().is_ok(),
        Some("boolean") => ["0", "1", "true", "false"].contains(&text.as_str()),
        _ => true,
    };
    if !fits {
        bad.insert(format!("{at}: `{text}` is not {}", p["type"]));
        return;
    }
    if p["enum"].as_array().is_some_and(|list| !list.iter().any(|x| *x == text.as_str())) {
        bad.insert(format!("{at}: `{text}` is none of {}", p["enum"]));
    }
    if let (Some(n), Some(min)) = (text.parse::<f64>().ok(), p["minimum"].as_f64())
        && n < min
    {
        bad.insert(format!("{at}: {n} is less than {min}"));
    }
    if p["maxLength"].as_u64().is_some_and(|max| text.chars().count() as u64 > max) {
        bad.insert(format!("{at}: longer than {}", p["maxLength"]));
    }
}

fn known(at: &str) -> bool {
    KNOWN.iter().any(|k| at == k.0 || (k.0.starts_with('.') && at.ends_with(k.0)))
}

fn answer(s: &Value, v: &Value, at: &str, bad: &mut BTreeSet<String>) {
    if known(at) {
        return;
    }
    let fits = match s["type"].as_str() {
        Some("string") => v.is_string(),
        Some("integer") => v.is_i64() || v.is_u64(),
        Some("number") => v.is_number(),
        Some("boolean") => v == 0 || v == 1,
        Some("object") => v.is_object(),
        Some("array") => v.is_array(),
        Some("null") => v.is_null(),
        _ => true,
    };
    if !fits {
        bad.insert(format!("{at}: {v} is not {}", s["type"]));
        return;
    }
    if s["enum"].as_array().is_some_and(|list| !list.contains(v)) {
        bad.insert(format!("{at}: {v} is none of {}", s["enum"]));
    }
    if let (Some(o), Some(props)) = (v.as_object(), s["properties"].as_object()) {
        for (k, p) in props {
            match o.get(k) {
                Some(x) => answer(p, x, &format!("{at}.{k}"), bad),
                None if p["optional"] != 1 && !k.contains('[') && !known(&format!("{at}.{k}")) => {
                    bad.insert(format!("{at}.{k}: missing"));
                }
                None => {}
            }
        }
    }
    for x in v.as_array().into_iter().flatten() {
        answer(&s["items"], x, &format!("{at}[]"), bad);
    }
}
