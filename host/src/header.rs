//! The first line of a journal: what was run, by which program, by whom, where.
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::args::RunArgs;
use crate::runs::machine;
use crate::sources::{self, Text};

/// SHA-256 of a text as hexadecimal digits.
#[must_use]
pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Digests of the recipe's files and of the site file, and what was agreed to on the command line.
#[must_use]
pub fn of(args: &RunArgs, files: &[String], site: Option<&Text>) -> Value {
    let digests: Map<String, Value> =
        files.iter().filter_map(|f| Some((f.clone(), json!(sha256(&sources::by_name(f)?))))).collect();
    json!({
        "files": digests,
        "site_file": site.map(|t| &t.name),
        "site_sha256": site.map(|t| sha256(&t.text)),
        "grants": { "endpoints": "site", "yes": args.yes },
        "journal": crate::record::read::VERSION,
    })
}

/// Who runs it: user, machine, process.
#[must_use]
pub fn by() -> Value {
    json!({
        "user": machine::user(), "host": machine::host(), "boot": machine::boot(), "process": machine::process(),
    })
}
