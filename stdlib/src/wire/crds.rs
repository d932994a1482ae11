//! Specs of custom kinds that recipes write: one field a line, read into the schemas of their definitions. No I/O.
use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

const TEXTS: [&str; 3] =
    [include_str!("crds/fleet.txt"), include_str!("crds/cert-manager.txt"), include_str!("crds/monitoring.txt")];

/// Fields of a Kubernetes label selector.
const SELECTOR: &str =
    "matchExpressions [object]\n  key! string\n  operator! string\n  values [string]\nmatchLabels map<string>\n";

/// A field as its line says it: `name! type =one|other >=0 : description`.
struct Line<'a> {
    depth: usize,
    name: &'a str,
    required: bool,
    schema: Value,
}

fn read(line: &str) -> Option<Line<'_>> {
    let text = line.trim_start();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let (head, about) = text.split_once(" : ").unwrap_or((text, ""));
    let (name, rest) = head.split_once(' ')?;
    let (ty, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let plain = name.trim_end_matches('?').trim_end_matches('!');
    let mut schema = of_type(ty);
    if name.ends_with('?') {
        schema["nullable"] = true.into();
    }
    if !about.is_empty() {
        schema["description"] = about.into();
    }
    if let Some(words) = more.strip_prefix('=') {
        let one = |w: &str| Value::from(if w == "\"\"" { "" } else { w });
        core(&mut schema)["enum"] = words.split('|').map(one).collect();
    }
    if let Some(least) = more.strip_prefix(">=").and_then(|n| n.parse::<i64>().ok()) {
        core(&mut schema)["minimum"] = least.into();
    }
    Some(Line { depth: (line.len() - text.len()) / 2, name: plain, required: name.contains('!'), schema })
}

fn of_type(ty: &str) -> Value {
    if let Some(of) = ty.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return json!({"type": "array", "items": of_type(of)});
    }
    if let Some(of) = ty.strip_prefix("map<").and_then(|t| t.strip_suffix('>')) {
        return json!({"type": "object", "additionalProperties": of_type(of)});
    }
    match ty {
        "any" => json!({"x-kubernetes-preserve-unknown-fields": true}),
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "selector" => {
            let mut schema = json!({"type": "object"});
            fields(&mut schema, &SELECTOR.lines().filter_map(read).collect::<Vec<_>>());
            schema
        }
        plain => json!({"type": plain}),
    }
}

/// What a list or a map is made of, at the bottom.
fn core(schema: &mut Value) -> &mut Value {
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            return core(&mut schema[below]);
        }
    }
    schema
}

/// Hangs lines below a schema; all of them are deeper than it.
fn fields(schema: &mut Value, lines: &[Line<'_>]) {
    let Some(first) = lines.first() else { return };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    let mut rest = lines;
    while let Some((line, more)) = rest.split_first() {
        let below = more.iter().take_while(|l| l.depth > first.depth).count();
        let mut field = line.schema.clone();
        fields(core(&mut field), &more[..below]);
        if line.required {
            required.push(Value::from(line.name));
        }
        properties.insert(line.name.to_owned(), field);
        rest = &more[below..];
    }
    schema["properties"] = properties.into();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
}

fn build() -> BTreeMap<(String, String), Value> {
    let mut out = BTreeMap::new();
    for text in TEXTS {
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        for kind in lines.chunk_by(|_, next| next.starts_with(' ')) {
            let (head, about) = kind[0].split_once(" : ").unwrap_or((kind[0], ""));
            let Some((names, api)) = head.split_once(' ') else { continue };
            let mut schema = json!({"type": "object", "description": about});
            fields(&mut schema, &kind[1..].iter().filter_map(|l| read(l)).collect::<Vec<_>>());
            for (key, ty) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
                schema["properties"][key] = json!({"type": ty});
            }
            schema["properties"]["status"] = of_type("any");
            for name in names.split(',') {
                out.insert((api.to_owned(), name.to_owned()), schema.clone());
            }
        }
    }
    out
}

/// The schema of a kind, without its status; `None` for kinds that are not known here.
#[must_use]
pub fn schema(api_version: &str, kind: &str) -> Option<&'static Value> {
    static ALL: OnceLock<BTreeMap<(String, String), Value>> = OnceLock::new();
    ALL.get_or_init(build).get(&(api_version.to_owned(), kind.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_schemas() {
        let repo = schema("fleet.cattle.io/v1alpha1", "GitRepo").unwrap();
        let spec = &repo["properties"]["spec"];
        assert_eq!((spec["type"].as_str(), &spec["required"]), (Some("object"), &json!(["repo"])));
        assert_eq!(spec["properties"]["paths"]["items"], json!({"type": "string"}));
        let target = &spec["properties"]["targets"]["items"]["properties"];
        assert_eq!(target["clusterSelector"]["properties"]["matchLabels"]["additionalProperties"]["type"], "string");
        let certificate = schema("cert-manager.io/v1", "Certificate").unwrap();
        let spec = &certificate["properties"]["spec"]["properties"];
        assert_eq!(spec["privateKey"]["properties"]["algorithm"]["enum"], json!(["RSA", "ECDSA", "Ed25519"]));
        assert_eq!(spec["usages"]["items"]["enum"][0], "signing");
        assert!(schema("cert-manager.io/v1", "ClusterIssuer").is_some());
        assert!(schema("monitoring.coreos.com/v1", "ServiceMonitor").is_some());
        assert!(schema("apps/v1", "Deployment").is_none());
    }
}
