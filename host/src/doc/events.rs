//! The page about the events of `--json` and of journals, from the types that write them.
use std::fmt::Write as _;

use gpuhost_stdlib::core::event::Event;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::run::Finished;

const INTRODUCTION: &str = "\
`run --json` prints one event per line on stdout, and nothing else there; a journal keeps most of them. Each line is an
object with `event` (the name below), `ts` (RFC 3339, the run's clock: lab time on the lab) and `lab` (whether it took place
on the lab); journals add `sum`, the hash chain. The last line is `run_finished`. Readers pass over events and keys that
they do not know: a later version may add some.
";

/// The Markdown page.
#[must_use]
pub fn page(generated: &str) -> String {
    let settings = SchemaSettings::draft2020_12();
    let mut made = settings.into_generator();
    let events = made.subschema_for::<Event>().to_value();
    let finished = made.subschema_for::<Finished>().to_value();
    let named: Map<String, Value> = made.take_definitions(true);
    let mut page = Page { out: format!("# Events of `--json`\n\n{generated}\n\n{INTRODUCTION}"), named };
    for variant in page.resolved(&events)["oneOf"].as_array().cloned().unwrap_or_default() {
        let name = variant["properties"]["event"]["const"].as_str().unwrap_or_default().to_owned();
        let body = if name == "run_finished" { page.resolved(&finished) } else { variant };
        page.object(&format!("`{name}`"), &body);
    }
    page.types();
    page.out
}

struct Page {
    out: String,
    named: Map<String, Value>,
}

/// The name at the end of a reference.
fn referred(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

impl Page {
    fn resolved(&self, schema: &Value) -> Value {
        referred(schema).and_then(|n| self.named.get(n)).unwrap_or(schema).clone()
    }

    /// A heading, the description, the keys.
    fn object(&mut self, title: &str, schema: &Value) {
        let flat = self.resolved(schema);
        let about = schema["description"].as_str().or(flat["description"].as_str()).unwrap_or_default();
        writeln!(self.out, "\n## {title}\n\n{}", about.replace('\n', " ")).ok();
        let required: Vec<&str> = flat["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let keys: Vec<(&String, &Value)> =
            flat["properties"].as_object().into_iter().flatten().filter(|(k, _)| *k != "event").collect();
        if keys.is_empty() {
            return;
        }
        let mut rows = String::new();
        for (key, schema) in keys {
            let about = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
            let absent = if required.contains(&key.as_str()) { "" } else { " (may be absent)" };
            writeln!(rows, "| `{key}` | {}{absent} | {about} |", word(schema)).ok();
        }
        self.out.push_str("\n| key | type | |\n|---|---|---|\n");
        self.out.push_str(&rows);
    }

    /// The types that keys refer to.
    fn types(&mut self) {
        let types: Vec<(String, Value)> = self.named.clone().into_iter().collect();
        for (name, schema) in types.into_iter().filter(|(n, _)| !matches!(n.as_str(), "Event" | "Finished" | "Proof")) {
            self.object(&name, &schema);
            let words = schema["oneOf"].as_array().into_iter().flatten();
            let rows: Vec<String> = words
                .filter_map(|w| Some((w["const"].as_str()?, w["description"].as_str().unwrap_or_default())))
                .map(|(word, about)| format!("| `{word}` | {about} |\n"))
                .collect();
            if !rows.is_empty() {
                write!(self.out, "\n| word | |\n|---|---|\n{}", rows.concat()).ok();
            }
        }
    }
}

/// How a key's type reads.
fn word(schema: &Value) -> String {
    if let Some(name) = referred(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    let parts = |list: &Value| {
        let all: Vec<String> = list.as_array().into_iter().flatten().map(word).collect();
        all.join(" or ")
    };
    match &schema["type"] {
        Value::Array(list) => {
            let each = list.iter().map(|t| {
                let mut one = schema.clone();
                one["type"] = t.clone();
                word(&one)
            });
            each.collect::<Vec<_>>().join(" or ")
        }
        Value::String(t) => match t.as_str() {
            "array" => format!("list of {}", word(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map to {}", word(&schema["additionalProperties"]))
            }
            "integer" => "int".to_owned(),
            "number" => "float".to_owned(),
            "string" => "text".to_owned(),
            other => other.to_owned(),
        },
        _ if schema["anyOf"].is_array() => parts(&schema["anyOf"]),
        _ => "any".to_owned(),
    }
}
