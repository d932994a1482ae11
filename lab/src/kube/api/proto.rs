//! Bodies in Kubernetes' protobuf form, as Go clients send them for built-in kinds. `proto.txt` has one type a
//! line: fields as `name=number` and a code (`s` text, `b` bytes, `i` number, `t` truth, `d` decimal, `*` repeated,
//! `{` map from text, `:` another type; the name `~` says that the fields of the other type stand here themselves).
use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::kube::store::meta;

/// What a body in this form begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Fields whose zero means something; others are not there when they are zero.
const KEPT: &[&str] = &[
    "replicas",
    "gracePeriodSeconds",
    "terminationGracePeriodSeconds",
    "ttlSecondsAfterFinished",
    "backoffLimit",
    "completions",
    "parallelism",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "revisionHistoryLimit",
    "tolerationSeconds",
    "storageClassName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "controller",
    "blockOwnerDeletion",
    "optional",
    "privileged",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "readOnlyRootFilesystem",
    "orphanDependents",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
    "value",
];

#[derive(Debug)]
struct Field {
    name: &'static str,
    repeated: bool,
    map: bool,
    code: &'static str,
}

type Types = HashMap<&'static str, HashMap<u64, Field>>;

fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| {
        let line = |l: &'static str| {
            let mut words = l.split(' ');
            let name = words.next()?;
            Some((name, words.filter_map(field).collect()))
        };
        include_str!("proto.txt").lines().filter_map(line).collect()
    })
}

fn field(word: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = word.split_once('=')?;
    let at = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, code) = rest.split_at(at);
    let f = Field {
        name,
        repeated: code.starts_with('*'),
        map: code.starts_with('{'),
        code: code.trim_start_matches(['*', '{']),
    };
    Some((number.parse().ok()?, f))
}

/// One field on the wire.
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (b, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(b & 0x7f) << shift;
            shift += 7;
            if b & 0x80 == 0 || shift > 63 {
                return Some(value);
            }
        }
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }

    fn next(&mut self) -> Option<(u64, Raw<'a>)> {
        let key = self.varint()?;
        let raw = match key & 7 {
            0 => Raw::Number(self.varint()?),
            1 => Raw::Bytes(self.take(8)?),
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Raw::Bytes(self.take(n)?)
            }
            5 => Raw::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, raw))
    }
}

fn text(b: &[u8]) -> String {
    String::from_utf8_lossy(b).into_owned()
}

/// The small types that JSON writes in a way of their own.
fn special(kind: &str, b: &[u8]) -> Option<Value> {
    let mut wire = Wire(b);
    let mut fields: HashMap<u64, Raw<'_>> = HashMap::new();
    while let Some((n, raw)) = wire.next() {
        fields.insert(n, raw);
    }
    let number = |n: u64| match fields.get(&n) {
        Some(Raw::Number(v)) => *v,
        _ => 0,
    };
    let bytes = |n: u64| match fields.get(&n) {
        Some(Raw::Bytes(b)) => *b,
        _ => &[][..],
    };
    Some(match kind {
        "Quantity" => json!(text(bytes(1))),
        "IntOrString" if number(1) == 0 => json!(number(2) as i32),
        "IntOrString" => json!(text(bytes(3))),
        "Raw" | "meta.v1.FieldsV1" => serde_json::from_slice(bytes(1)).unwrap_or(Value::Null),
        "meta.v1.Time" | "meta.v1.MicroTime" if fields.is_empty() => Value::Null,
        "meta.v1.Time" => json!(meta::time(number(1) * 1000)),
        "meta.v1.MicroTime" => json!(meta::micro_time(number(1) * 1000 + number(2) / 1_000_000)),
        _ => return None,
    })
}

fn value(code: &str, raw: &Raw<'_>) -> Option<Value> {
    Some(match (code, raw) {
        ("s", Raw::Bytes(b)) => json!(text(b)),
        ("b", Raw::Bytes(b)) => json!(base64::engine::general_purpose::STANDARD.encode(b)),
        ("i", Raw::Number(n)) => json!(*n as i64),
        ("t", Raw::Number(n)) => json!(*n != 0),
        ("d", Raw::Bytes(b)) => json!(f64::from_le_bytes((*b).try_into().ok()?)),
        (code, Raw::Bytes(b)) => {
            let kind = code.strip_prefix(':')?;
            match special(kind, b) {
                Some(v) => v,
                None => message(kind, b)?,
            }
        }
        _ => return None,
    })
}

/// Types whose `value` may be missing, unlike that of others.
const VALUED: &[&str] = &["core.v1.EnvVar", "core.v1.Toleration", "core.v1.Taint"];

/// Whether JSON leaves the field out.
fn empty(kind: &str, name: &str, v: &Value) -> bool {
    let zero = match v {
        Value::Null => return true,
        Value::String(s) => s.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Bool(b) => !b,
        _ => false,
    };
    zero && (!KEPT.contains(&name) || name == "value" && VALUED.contains(&kind))
}

fn entry(code: &str, b: &[u8]) -> Option<(String, Value)> {
    let (mut key, mut v) = (String::new(), if code == "s" { json!("") } else { Value::Null });
    let mut wire = Wire(b);
    while let Some((n, raw)) = wire.next() {
        match (n, &raw) {
            (1, Raw::Bytes(b)) => key = text(b),
            _ => v = value(code, &raw)?,
        }
    }
    Some((key, v))
}

fn message(kind: &str, b: &[u8]) -> Option<Value> {
    let fields = types().get(kind)?;
    // A type that only wraps a list is that list.
    if fields.len() == 1 && fields.values().all(|f| f.name == "items" && f.repeated && f.code == "s") {
        let mut wire = Wire(b);
        let items = std::iter::from_fn(|| wire.next()).filter_map(|(_, raw)| value("s", &raw));
        return Some(items.collect());
    }
    let mut out = Map::new();
    let mut wire = Wire(b);
    while !wire.0.is_empty() {
        let (n, raw) = wire.next()?;
        let Some(f) = fields.get(&n) else { continue };
        if f.map {
            let Raw::Bytes(b) = raw else { return None };
            let (k, v) = entry(f.code, b)?;
            if let Some(m) = out.entry(f.name).or_insert_with(|| json!({})).as_object_mut() {
                m.insert(k, v);
            }
            continue;
        }
        let v = value(f.code, &raw)?;
        if f.repeated {
            if let Some(a) = out.entry(f.name).or_insert_with(|| json!([])).as_array_mut() {
                a.push(v);
            }
        } else if f.name == "~" {
            out.extend(v.as_object().cloned().unwrap_or_default());
        } else if !empty(kind, f.name, &v) {
            out.insert(f.name.to_owned(), v);
        }
    }
    Some(Value::Object(out))
}

/// The type of an `apiVersion` and `kind`.
fn type_of(version: &str, kind: &str) -> String {
    if kind.ends_with("Options") && !kind.starts_with("Pod") {
        return format!("meta.v1.{kind}");
    }
    match version.split_once('/') {
        None => format!("core.{version}.{kind}"),
        Some((group, v)) => format!("{}.{v}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

/// Reads a body with its envelope.
///
/// # Errors
/// When it is no such body, or its kind has no such form here.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let broken = || "unexpected EOF".to_owned();
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut wire = Wire(body);
    while !wire.0.is_empty() {
        match wire.next().ok_or_else(broken)? {
            (1, Raw::Bytes(b)) => {
                let mut of = Wire(b);
                while let Some((n, Raw::Bytes(b))) = of.next() {
                    if n == 1 { version = text(b) } else { kind = text(b) }
                }
            }
            (2, Raw::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let name = type_of(&version, &kind);
    if !types().contains_key(name.as_str()) {
        return Err(format!("no kind \"{kind}\" is registered for version \"{version}\""));
    }
    let mut out = message(&name, raw).ok_or_else(broken)?;
    out["apiVersion"] = json!(version);
    out["kind"] = json!(kind);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(number: u8, b: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(b.len()).unwrap()];
        out.extend(b);
        out
    }

    #[test]
    fn a_namespace_of_kubectl_is_read() {
        let metadata =
            [sub(1, b"docs"), sub(2, b""), sub(8, b""), sub(11, &[sub(1, b"a"), sub(2, b"b")].concat())].concat();
        let raw = [sub(1, &metadata), sub(2, b""), sub(3, &sub(1, b""))].concat();
        let head = [sub(1, b"v1"), sub(2, b"Namespace")].concat();
        let body = [MAGIC.to_vec(), sub(1, &head), sub(2, &raw)].concat();
        assert_eq!(
            read(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "docs", "labels": {"a": "b"}}, "spec": {}, "status": {}})
        );
    }

    #[test]
    fn an_empty_value_is_left_out_where_it_may_be() {
        let bytes = [sub(1, b"A"), sub(2, b"")].concat();
        assert_eq!(message("core.v1.EnvVar", &bytes).unwrap(), json!({"name": "A"}));
        assert_eq!(message("core.v1.HTTPHeader", &bytes).unwrap(), json!({"name": "A", "value": ""}));
    }

    #[test]
    fn every_type_that_is_named_is_there() {
        let known = ["Quantity", "IntOrString", "Raw"];
        for (name, fields) in types() {
            for f in fields.values().filter_map(|f| f.code.strip_prefix(':')) {
                assert!(known.contains(&f) || types().contains_key(f), "{name} refers to {f}");
            }
        }
    }
}
