//! Field sets (`fieldsV1`).
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A set of field paths, as structured-merge-diff models it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Elements that are members themselves.
    pub members: BTreeSet<String>,
    /// Elements with something below.
    pub children: BTreeMap<String, Set>,
}

impl Set {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a subtree unless it is empty.
    pub fn put(&mut self, element: String, sub: Set) {
        if !sub.is_empty() {
            self.children.insert(element, sub);
        }
    }

    /// Both together.
    #[must_use]
    pub fn union(mut self, other: &Set) -> Set {
        self.members.extend(other.members.iter().cloned());
        for (k, c) in &other.children {
            let mine = self.children.remove(k).unwrap_or_default();
            self.children.insert(k.clone(), mine.union(c));
        }
        self
    }

    /// What is in this and not in `other` (equal paths only).
    #[must_use]
    pub fn minus(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.difference(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            let rest = other.children.get(k).map_or_else(|| c.clone(), |o| c.minus(o));
            out.put(k.clone(), rest);
        }
        out
    }

    /// What is in this and neither in `other` nor below a member of `other`.
    #[must_use]
    pub fn minus_below(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.difference(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            if other.members.contains(k) {
                continue;
            }
            let rest = other.children.get(k).map_or_else(|| c.clone(), |o| c.minus_below(o));
            out.put(k.clone(), rest);
        }
        out
    }

    /// What is in both.
    #[must_use]
    pub fn both(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.intersection(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            if let Some(o) = other.children.get(k) {
                out.put(k.clone(), c.both(o));
            }
        }
        out
    }

    /// As the text of `fieldsV1`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(false, &mut out);
        out
    }

    fn write(&self, itself: bool, out: &mut String) {
        out.push('{');
        let mut first = true;
        let mut key = |out: &mut String, k: &str| {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&Value::from(k).to_string());
            out.push(':');
        };
        if itself {
            key(out, ".");
            out.push_str("{}");
        }
        let names: BTreeSet<&String> = self.members.iter().chain(self.children.keys()).collect();
        for n in names {
            key(out, n);
            match self.children.get(n) {
                Some(c) => c.write(self.members.contains(n), out),
                None => out.push_str("{}"),
            }
        }
        out.push('}');
    }

    /// From `fieldsV1`: the object, or its text as the store keeps it.
    #[must_use]
    pub fn parse(v: &Value) -> Set {
        match v {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            _ => Set::deserialize(v).unwrap_or_default(),
        }
    }

    /// Paths as messages show them (`.spec.version`, `.spec.containers[name="c"].image`).
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        let names: BTreeSet<&String> = self.members.iter().chain(self.children.keys()).collect();
        for n in names {
            let path = format!("{prefix}{}", shown(n));
            if self.members.contains(n) {
                out.push(path.clone());
            }
            if let Some(c) = self.children.get(n) {
                c.collect(&path, out);
            }
        }
    }
}

/// A set with whether it stands for its own place, too.
struct Part(Set, bool);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Part, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field set")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let (mut set, mut itself, mut empty) = (Set::default(), false, true);
                while let Some((k, Part(sub, own))) = map.next_entry::<String, Part>()? {
                    empty = false;
                    if k == "." {
                        itself = true;
                        continue;
                    }
                    if own {
                        set.members.insert(k.clone());
                    }
                    set.put(k, sub);
                }
                Ok(Part(set, itself || empty))
            }

            fn visit_unit<E>(self) -> Result<Part, E> {
                Ok(Part(Set::default(), true))
            }
        }
        d.deserialize_any(Parts)
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Set, D::Error> {
        Part::deserialize(d).map(|p| p.0)
    }
}

fn shown(element: &str) -> String {
    if let Some(f) = element.strip_prefix("f:") {
        return format!(".{f}");
    }
    if let Some(k) = element.strip_prefix("k:")
        && let Ok(Value::Object(m)) = serde_json::from_str(k)
    {
        let parts: Vec<String> = m.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return format!("[{}]", parts.join(","));
    }
    element.strip_prefix("v:").map_or_else(|| element.to_owned(), |v| format!("[={v}]"))
}

/// Metadata nobody manages.
const UNMANAGED: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:uid",
    "f:resourceVersion",
    "f:generation",
    "f:creationTimestamp",
    "f:selfLink",
    "f:managedFields",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
];

/// Takes out what is never managed.
pub(super) fn strip(set: &mut Set) {
    set.members.remove("f:apiVersion");
    set.members.remove("f:kind");
    if let Some(m) = set.children.get_mut("f:metadata") {
        m.members.retain(|k| !UNMANAGED.contains(&k.as_str()));
        m.children.retain(|k, _| !UNMANAGED.contains(&k.as_str()));
        if m.is_empty() {
            set.children.remove("f:metadata");
        }
    }
    set.members.remove("f:metadata");
}
