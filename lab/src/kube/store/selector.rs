//! Label and field selectors.
use serde_json::Value;

use super::failure::Failure;
use crate::kube::schema::Kind;

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A parsed label selector; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels(Vec<(String, Test)>);

/// Splits at commas outside parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[from..]);
    out
}

fn key_ok(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h,!i`.
    ///
    /// # Errors
    /// 400 for a text that is no selector.
    pub fn parse(text: &str) -> Result<Labels, Failure> {
        let mut out = Vec::new();
        for part in parts(text).into_iter().map(str::trim).filter(|p| !p.is_empty()) {
            out.push(Self::one(part).ok_or_else(|| {
                Failure::bad_request(format!("unable to parse requirement: found '{part}', expected: a label selector"))
            })?);
        }
        Ok(Labels(out))
    }

    fn one(part: &str) -> Option<(String, Test)> {
        let set = |list: &str| -> Option<Vec<String>> {
            let inner = list.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|v| v.trim().to_owned()).collect())
        };
        let (key, test) = if let Some((k, v)) = part.split_once("!=") {
            (k, Test::NotIn(vec![v.trim().to_owned()]))
        } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (k, Test::In(vec![v.trim().to_owned()]))
        } else if let Some((k, v)) = part.split_once(" notin ").or_else(|| part.split_once(" notin(")) {
            (k, Test::NotIn(set(&reopen(v))?))
        } else if let Some((k, v)) = part.split_once(" in ").or_else(|| part.split_once(" in(")) {
            (k, Test::In(set(&reopen(v))?))
        } else if let Some((k, v)) = part.split_once('>') {
            (k, Test::Greater(v.trim().parse().ok()?))
        } else if let Some((k, v)) = part.split_once('<') {
            (k, Test::Less(v.trim().parse().ok()?))
        } else if let Some(k) = part.strip_prefix('!') {
            (k, Test::Absent)
        } else {
            (part, Test::Exists)
        };
        let key = key.trim();
        let values_ok = match &test {
            Test::In(v) | Test::NotIn(v) => v.iter().all(|v| v.is_empty() || key_ok(v) && !v.contains('/')),
            _ => true,
        };
        (key_ok(key) && values_ok).then(|| (key.to_owned(), test))
    }

    /// From the `matchLabels`/`matchExpressions` form of a spec.
    #[must_use]
    pub fn from_spec(sel: &Value) -> Labels {
        let mut out = Vec::new();
        for (k, v) in sel["matchLabels"].as_object().into_iter().flatten() {
            out.push((k.clone(), Test::In(vec![v.as_str().unwrap_or_default().to_owned()])));
        }
        for e in sel["matchExpressions"].as_array().into_iter().flatten() {
            let key = e["key"].as_str().unwrap_or_default().to_owned();
            let values =
                e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            out.push((
                key,
                match e["operator"].as_str() {
                    Some("In") => Test::In(values),
                    Some("NotIn") => Test::NotIn(values),
                    Some("DoesNotExist") => Test::Absent,
                    _ => Test::Exists,
                },
            ));
        }
        Labels(out)
    }

    /// Whether `obj`'s labels satisfy it.
    #[must_use]
    pub fn matches(&self, obj: &Value) -> bool {
        let labels = &obj["metadata"]["labels"];
        self.0.iter().all(|(k, t)| {
            let have = labels[k.as_str()].as_str();
            match t {
                Test::In(v) => have.is_some_and(|h| v.iter().any(|v| v == h)),
                Test::NotIn(v) => have.is_none_or(|h| !v.iter().any(|v| v == h)),
                Test::Exists => have.is_some(),
                Test::Absent => have.is_none(),
                Test::Greater(n) => have.and_then(|h| h.parse::<i64>().ok()).is_some_and(|h| h > *n),
                Test::Less(n) => have.and_then(|h| h.parse::<i64>().ok()).is_some_and(|h| h < *n),
            }
        })
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn reopen(v: &str) -> String {
    if v.trim_start().starts_with('(') { v.to_owned() } else { format!("({v}") }
}

/// A parsed field selector: (path, equal?, value).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(String, bool, String)>);

/// Fields one may select by, beyond name and namespace, per resource.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("jobs.batch", &["status.successful"]),
    ("replicasets.apps", &["status.replicas"]),
];

impl Fields {
    /// Parses `metadata.name=x,status.phase!=Running`.
    ///
    /// # Errors
    /// 400 for bad syntax or a field that `kind` does not offer.
    pub fn parse(text: &str, kind: &Kind) -> Result<Fields, Failure> {
        let mut out = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, equal, value) = if let Some((k, v)) = part.split_once("!=") {
                (k, false, v)
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (k, true, v)
            } else {
                return Err(Failure::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let known = matches!(key, "metadata.name" | "metadata.namespace")
                || SELECTABLE.iter().any(|(r, f)| *r == kind.resource() && f.contains(&key));
            if !known {
                let own = SELECTABLE.iter().any(|(r, _)| *r == kind.resource());
                return Err(Failure::bad_request(if kind.custom || own {
                    format!("field label not supported: {key}")
                } else {
                    format!("\"{key}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                }));
            }
            out.push((key.to_owned(), equal, value.to_owned()));
        }
        Ok(Fields(out))
    }

    /// Whether `obj` satisfies it.
    #[must_use]
    pub fn matches(&self, obj: &Value) -> bool {
        self.0.iter().all(|(path, equal, want)| {
            let v = obj.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null);
            let have = match v {
                Value::String(s) => s.clone(),
                Value::Null if matches!(path.as_str(), "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (have == *want) == *equal
        })
    }

    /// The name it asks for, when it asks for one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find(|(p, e, _)| *e && p == "metadata.name").map(|(_, _, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let o = json!({"metadata": {"labels": {"a": "1", "b": "x"}}});
        for (s, want) in [
            ("", true),
            ("a=1", true),
            ("a==1,b=x", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (1,2)", true),
            ("b notin (x)", false),
            ("a", true),
            ("!a", false),
            ("!c", true),
            ("a>0", true),
        ] {
            assert_eq!(Labels::parse(s).unwrap().matches(&o), want, "{s}");
        }
        assert!(Labels::parse("a=b=c d").is_err());
        assert!(Labels::parse("a in 1").is_err());
    }
}
