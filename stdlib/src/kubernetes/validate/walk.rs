//! An object beside its schema, field by field. No I/O.
use std::fmt;

use serde_json::Value;

use crate::core::options::closest;

/// A value that is not known yet (an expression of a recipe): it fits everywhere.
pub const ANYTHING: &str = "\u{0}anything";

/// What is said of a field that its kind does not have.
pub const NO_FIELD: &str = "there is no such field";

/// How it ends that a needed field is absent.
pub const MISSING: &str = "is missing";

/// Where references lead.
pub trait Schemas {
    /// A definition by its name.
    fn definition(&self, name: &str) -> Option<&Value>;
}

/// One step into an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Key(String),
    /// An item of a list.
    Item(usize),
}

impl Step {
    /// A field.
    pub fn key(name: impl Into<String>) -> Self {
        Step::Key(name.into())
    }
}

/// A mistake in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub path: Vec<Step>,
    /// What is wrong there.
    pub message: String,
    /// What it should be.
    pub hint: Option<String>,
}

impl Fault {
    /// A mistake at `path`.
    pub fn at(path: &[Step], message: impl Into<String>) -> Self {
        Fault { path: path.to_vec(), message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `spec.containers[0].image`.
#[must_use]
pub fn shown(path: &[Step]) -> String {
    let mut out = String::new();
    for s in path {
        match s {
            Step::Key(k) if out.is_empty() => out.push_str(k),
            Step::Key(k) if k.contains('.') => out.push_str(&format!("[\"{k}\"]")),
            Step::Key(k) => out.push_str(&format!(".{k}")),
            Step::Item(i) => out.push_str(&format!("[{i}]")),
        }
    }
    out
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", shown(&self.path), self.message)
        }
    }
}

/// Whether a value stands for something unknown.
#[must_use]
pub fn unknown(v: &Value) -> bool {
    v.as_object().is_some_and(|m| m.contains_key(ANYTHING))
}

/// The mistakes of `object` against the schema `root`.
#[must_use]
pub fn check(schemas: &dyn Schemas, root: &Value, object: &Value) -> Vec<Fault> {
    let mut w = Walk { schemas, root, out: Vec::new() };
    w.value(root, object, &mut Vec::new());
    w.out
}

struct Walk<'a> {
    schemas: &'a dyn Schemas,
    root: &'a Value,
    out: Vec<Fault>,
}

fn word(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn has(schema: &Value, key: &str) -> bool {
    schema[key] == true
}

impl<'a> Walk<'a> {
    /// Follows references; the name of the last definition helps to know quantities.
    fn resolve(&self, mut schema: &'a Value) -> (&'a Value, &'a str) {
        let mut name = "";
        for _ in 0..8 {
            let target = schema.get("$ref").or_else(|| schema["allOf"].get(0).and_then(|s| s.get("$ref")));
            let Some(n) = target.and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) else { break };
            name = n;
            let Some(def) = self.schemas.definition(n) else { break };
            schema = def;
        }
        (schema, name)
    }

    fn value(&mut self, schema: &'a Value, v: &Value, path: &mut Vec<Step>) {
        if v.is_null() || unknown(v) {
            return;
        }
        let (s, name) = self.resolve(schema);
        if name.ends_with("resource.Quantity") {
            if !v.is_string() && !v.is_number() {
                self.out.push(Fault::at(
                    path,
                    format!("expected a quantity such as \"500m\" or \"2Gi\", found {}", word(v)),
                ));
            } else if let Some(t) = v.as_str().filter(|t| !quantity(t)) {
                let fault = Fault::at(path, format!("`{t}` is not a quantity"));
                self.out.push(fault.hint("write for example \"500m\", \"2\", \"128Mi\" or \"2Gi\""));
            }
            return;
        }
        if has(s, "x-kubernetes-int-or-string") || s["format"] == "int-or-string" || name.ends_with("IntOrString") {
            if !v.is_string() && !v.is_number() {
                self.out.push(Fault::at(path, format!("expected a number or a text, found {}", word(v))));
            }
            return;
        }
        if !self.fits(s, v, path) {
            return;
        }
        if let Some(allowed) = s["enum"].as_array().filter(|a| !a.contains(v)) {
            let list: Vec<String> =
                allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
            let shown = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let mut f = Fault::at(path, format!("`{shown}` is not one of {}", list.join(", ")));
            f.hint = closest(&shown, list.iter().map(String::as_str)).map(|c| format!("did you mean `{c}`?"));
            self.out.push(f);
        }
        if let Some(min) = s["minimum"].as_f64().filter(|m| v.as_f64().is_some_and(|x| x < *m)) {
            self.out.push(Fault::at(path, format!("{v} is less than {min}")));
        }
        match v {
            Value::Object(m) => self.object(s, m, path),
            Value::Array(list) => self.list(s, list, path),
            _ => {}
        }
    }

    fn fits(&mut self, s: &Value, v: &Value, path: &[Step]) -> bool {
        let ok = |t: &str| match t {
            "object" => v.is_object(),
            "array" => v.is_array(),
            "string" => v.is_string(),
            "boolean" => v.is_boolean(),
            "integer" => v.is_i64() || v.is_u64() || v.as_f64().is_some_and(|f| f.fract() == 0.0),
            "number" => v.is_number(),
            _ => true,
        };
        let types: Vec<&str> = match &s["type"] {
            Value::String(t) => vec![t],
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        if types.iter().any(|t| ok(t)) {
            return true;
        }
        let want = match types.first().copied().unwrap_or_default() {
            "object" => "a map",
            "array" => "a list",
            "string" => "a text",
            "boolean" => "true or false",
            "integer" => "a whole number",
            _ => "a number",
        };
        let mut f = Fault::at(path, format!("expected {want}, found {}", word(v)));
        if want == "a text" && (v.is_number() || v.is_boolean()) {
            f.hint = Some(format!("put it in quotes: \"{v}\""));
        }
        self.out.push(f);
        false
    }

    fn object(&mut self, s: &'a Value, m: &serde_json::Map<String, Value>, path: &mut Vec<Step>) {
        let fields = s["properties"].as_object();
        let open =
            has(s, "x-kubernetes-preserve-unknown-fields") || (fields.is_none() && s["additionalProperties"].is_null());
        for (k, v) in m {
            path.push(Step::key(k.as_str()));
            if let Some(f) = fields.and_then(|p| p.get(k)) {
                self.value(f, v, path);
            } else if s["additionalProperties"].is_object() {
                self.value(&s["additionalProperties"], v, path);
            } else if !open && s["additionalProperties"] != true && !envelope(s, k, path.len()) {
                let fault = self.unknown_field(fields, k, path);
                self.out.push(fault);
            }
            path.pop();
        }
        for r in s["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // the server fills these in, or they are checked with the identity
            let filled = matches!(r, "apiVersion" | "kind" | "metadata" | "status");
            if !filled && m.get(r).is_none_or(Value::is_null) {
                let mut f = Fault::at(path, format!("`{r}` {MISSING}"));
                f.hint =
                    s["properties"][r]["description"].as_str().and_then(first_sentence).map(|d| format!("{r}: {d}"));
                self.out.push(f);
            }
        }
    }

    fn unknown_field(&self, fields: Option<&serde_json::Map<String, Value>>, key: &str, path: &[Step]) -> Fault {
        let names = fields.into_iter().flatten().map(|(k, _)| k.as_str());
        let fault = Fault::at(path, NO_FIELD);
        if let Some(near) = closest(key, names) {
            return fault.hint(format!("did you mean `{near}`?"));
        }
        let mut found = Vec::new();
        self.find(self.root, key, &mut Vec::new(), 5, &mut found);
        found.sort_by_key(Vec::len);
        match found.first() {
            Some(at) => fault.hint(format!("`{key}` is a field of `{}`", at.join("."))),
            None => fault,
        }
    }

    /// Places where a field of this name exists.
    fn find(&self, schema: &'a Value, key: &str, at: &mut Vec<String>, depth: usize, out: &mut Vec<Vec<String>>) {
        if depth == 0 || out.len() > 8 || at.first().is_some_and(|f| f == "status" || f == "metadata") {
            return;
        }
        let (s, _) = self.resolve(schema);
        for (k, v) in s["properties"].as_object().into_iter().flatten() {
            if k == key && !at.is_empty() {
                out.push(at.clone());
            }
            at.push(k.clone());
            let (below, _) = self.resolve(v);
            if below["type"] == "array" {
                if let Some(l) = at.last_mut() {
                    l.push_str("[]");
                }
                self.find(&below["items"], key, at, depth - 1, out);
            } else {
                self.find(v, key, at, depth - 1, out);
            }
            at.pop();
        }
    }

    fn list(&mut self, s: &'a Value, list: &[Value], path: &mut Vec<Step>) {
        for (i, v) in list.iter().enumerate() {
            path.push(Step::Item(i));
            if s["items"].is_object() {
                self.value(&s["items"], v, path);
            }
            path.pop();
        }
        // entries of these lists are told apart by their name: a second one silently replaces the first
        let named = matches!(path.last(), Some(Step::Key(k)) if matches!(k.as_str(), "env" | "containers" | "initContainers" | "volumes"));
        if !named {
            return;
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, name) in list.iter().enumerate().filter_map(|(i, v)| Some((i, v["name"].as_str()?))) {
            if !seen.insert(name) {
                path.push(Step::Item(i));
                self.out.push(Fault::at(path, format!("a second entry named `{name}`")));
                path.pop();
            }
        }
    }
}

/// Fields that every object has, at the root and in embedded resources.
fn envelope(s: &Value, key: &str, depth: usize) -> bool {
    (depth == 1 || has(s, "x-kubernetes-embedded-resource")) && matches!(key, "apiVersion" | "kind" | "metadata")
}

fn first_sentence(text: &str) -> Option<String> {
    let line = text.lines().next()?.trim();
    let end = line.find(". ").map_or(line.len(), |i| i + 1);
    (!line.is_empty()).then(|| line[..end].to_owned())
}

/// Whether a text is a Kubernetes quantity.
fn quantity(text: &str) -> bool {
    let number = text.trim_start_matches(['+', '-']);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (digits, unit) = number.split_at(end);
    let exponent =
        |u: &str| u.strip_prefix(['e', 'E']).is_some_and(|e| e.trim_start_matches(['+', '-']).parse::<u32>().is_ok());
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    digits.parse::<f64>().is_ok() && (units.contains(&unit) || exponent(unit))
}
