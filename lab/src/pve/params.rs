//! Parameters of a request: decoding as the server does it, and checks with all errors at once.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use gpuhost_stdlib::wire::pve::props::{self, Prop, Rule, Ty};
use serde_json::Value;

use super::reply::ApiError;

/// Decoded parameters, and whether a handler has checked them.
#[derive(Debug, Default)]
pub struct Params(pub BTreeMap<String, Value>, AtomicBool);

impl Clone for Params {
    fn clone(&self) -> Self {
        Params(self.0.clone(), AtomicBool::new(self.checked()))
    }
}

/// An uploaded file.
#[derive(Debug, Clone)]
pub struct Upload {
    /// File name as sent.
    pub filename: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// `%41` and `+`, as in forms.
#[must_use]
pub fn unescape(text: &str, plus: bool) -> String {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while i < b.len() {
        let hex = b.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (b[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(n)) => {
                out.push(n);
                i += 3;
            }
            (b'+', _) if plus => {
                out.push(b' ');
                i += 1;
            }
            (c, _) => {
                out.push(c);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Params {
    /// Reads `a=1&b=2`. As on the server each pair is split at every `=` and only the second piece is
    /// kept, `;` separates too, and a repeated key makes a list.
    pub fn add_form(&mut self, text: &str) {
        let mut own: BTreeMap<String, Value> = BTreeMap::new();
        for pair in text.split(['&', ';']).filter(|p| !p.is_empty()) {
            let mut pieces = pair.split('=');
            let key = unescape(pieces.next().unwrap_or_default(), true);
            let value = Value::String(unescape(pieces.next().unwrap_or_default(), true));
            match own.get_mut(&key) {
                None => {
                    own.insert(key, value);
                }
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        self.0.extend(own);
    }

    /// A parameter as text; numbers and booleans are printed.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        text(self.0.get(key)?)
    }

    /// A required parameter as text (empty when absent: the check has run before).
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default()
    }

    /// A whole number.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        self.get(key)?.parse().ok()
    }

    /// A boolean; absent is false.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| v == "1")
    }

    /// The entries of a text that is a list (`a,b;c d`).
    #[must_use]
    pub fn split(&self, key: &str) -> Vec<String> {
        let text = self.text(key);
        text.split([',', ';', ' ', '\0']).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    /// A list: an array, or one value.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<String> {
        match self.0.get(key) {
            Some(Value::Array(a)) => a.iter().filter_map(text).collect(),
            Some(v) => text(v).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Whether somebody has looked at all of them.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    /// Checks all parameters against `spec`; unknown ones are refused.
    ///
    /// # Errors
    /// `400` with every bad parameter.
    pub fn check(&self, spec: &[Prop]) -> Result<(), ApiError> {
        self.check_with(spec, |_| None)
    }

    /// Like [`Params::check`]; `more` judges keys that are not in `spec` (`None`: unknown).
    ///
    /// # Errors
    /// `400` with every bad parameter.
    pub fn check_with(
        &self,
        spec: &[Prop],
        more: impl Fn(&str) -> Option<fn(&str, &str) -> Result<(), String>>,
    ) -> Result<(), ApiError> {
        self.1.store(true, Ordering::Relaxed);
        let mut bad = BTreeMap::new();
        for (k, v) in &self.0 {
            let prop = spec.iter().find(|p| p.name == k);
            let verdict = match (prop, more(k)) {
                (Some(p), _) if LISTS.contains(&p.name) && matches!(p.rule, Rule::Any) => Ok(()),
                (Some(p), _) => one(k, v, p.ty).and_then(|t| p.check(&t)),
                (None, Some(f)) => {
                    let ty = props::scalar_of(k).map_or(Ty::Str, |s| s.ty);
                    one(k, v, ty).and_then(|t| f(k, &t))
                }
                (None, None) => Err(UNKNOWN.to_owned()),
            };
            if let Err(why) = verdict {
                bad.insert(k.clone(), why);
            }
        }
        for p in spec {
            match (self.0.contains_key(p.name), p.requires) {
                (false, _) if p.required => {
                    bad.insert(p.name.to_owned(), "property is missing and it is not optional".to_owned());
                }
                (true, Some(other)) if !self.0.contains_key(other) => {
                    bad.insert(other.to_owned(), format!("missing property required by '{}'", p.name));
                }
                _ => {}
            }
        }
        if bad.is_empty() { Ok(()) } else { Err(ApiError::params(bad)) }
    }
}

const UNKNOWN: &str = "property is not defined in schema and the schema does not allow additional properties";
/// Texts that are lists: an array is as good.
const TEXT_LISTS: [&str; 14] = [
    "bridge_ports",
    "content",
    "delete",
    "exclude",
    "groups",
    "idlist",
    "nodes",
    "privs",
    "roles",
    "slaves",
    "tags",
    "tokens",
    "users",
    "vms",
];
/// Parameters that may be lists.
const LISTS: [&str; 3] = ["command", "map", "exclude-path"];

fn text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::Array(list) => Some(list.iter().filter_map(text).collect::<Vec<_>>().join(",")),
        _ => None,
    }
}

fn one(key: &str, v: &Value, ty: Ty) -> Result<String, String> {
    let name = match ty {
        Ty::Bool => "boolean",
        Ty::Int => "integer",
        Ty::Num => "number",
        Ty::Str => "string",
    };
    match v {
        Value::Array(_) if !TEXT_LISTS.contains(&key) => Err(format!("type check ('{name}') failed - got ARRAY")),
        Value::Object(_) => Err(format!("type check ('{name}') failed - got HASH")),
        v => Ok(text(v).unwrap_or_default()),
    }
}

/// An optional parameter of type `ty`.
#[must_use]
pub const fn opt(name: &'static str, ty: Ty) -> Prop {
    Prop {
        name,
        ty,
        rule: Rule::Any,
        min: None,
        max: None,
        max_len: None,
        required: false,
        default_key: false,
        requires: None,
    }
}

/// An optional text.
#[must_use]
pub const fn t(name: &'static str) -> Prop {
    opt(name, Ty::Str)
}

/// An optional boolean.
#[must_use]
pub const fn b(name: &'static str) -> Prop {
    opt(name, Ty::Bool)
}

/// An optional number from zero.
#[must_use]
pub const fn n(name: &'static str) -> Prop {
    Prop { min: Some(0.0), ..opt(name, Ty::Int) }
}

/// Makes a parameter required.
#[must_use]
pub const fn req(p: Prop) -> Prop {
    Prop { required: true, ..p }
}

/// A parameter with a named format.
#[must_use]
pub const fn f(name: &'static str, check: fn(&str) -> Result<(), String>) -> Prop {
    Prop { rule: Rule::Format(check), ..opt(name, Ty::Str) }
}

/// A parameter that is one of a list.
#[must_use]
pub const fn e(name: &'static str, list: &'static [&'static str]) -> Prop {
    Prop { rule: Rule::OneOf(list), ..opt(name, Ty::Str) }
}

/// A text of at most `max` characters.
#[must_use]
pub const fn short(name: &'static str, max: usize) -> Prop {
    Prop { max_len: Some(max), ..opt(name, Ty::Str) }
}

/// A number within limits.
#[must_use]
pub const fn range(name: &'static str, min: i64, max: i64) -> Prop {
    Prop { min: Some(min as f64), max: Some(max as f64), ..opt(name, Ty::Int) }
}

/// Makes a parameter need another one.
#[must_use]
pub const fn with(p: Prop, other: &'static str) -> Prop {
    Prop { requires: Some(other), ..p }
}

/// A parameter that matches a pattern.
#[must_use]
pub const fn pat(name: &'static str, check: fn(&str) -> bool) -> Prop {
    Prop { rule: Rule::Pattern(check), ..opt(name, Ty::Str) }
}

/// A configuration id.
#[must_use]
pub const fn cid(name: &'static str) -> Prop {
    f(name, config_id)
}

/// A node name.
#[must_use]
pub const fn node(name: &'static str) -> Prop {
    f(name, node_format)
}

/// The SHA-1 of what the sender has read.
#[must_use]
pub const fn digest() -> Prop {
    short("digest", 64)
}

/// Names of settings to remove.
#[must_use]
pub const fn delete() -> Prop {
    Prop { max_len: Some(4096), ..f("delete", config_ids) }
}

fn node_format(v: &str) -> Result<(), String> {
    let b = v.as_bytes();
    let ok = !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-');
    if ok { Ok(()) } else { Err("value does not look like a valid node name\n".to_owned()) }
}

fn config_ids(v: &str) -> Result<(), String> {
    v.split([',', ';', ' ']).filter(|p| !p.is_empty()).try_for_each(config_id)
}

/// A list of VM ids.
///
/// # Errors
/// The server's message.
pub fn vmids(v: &str) -> Result<(), String> {
    v.split([',', ';', ' ']).filter(|p| !p.is_empty()).try_for_each(vmid_format)
}

/// An `http` or `https` address.
#[must_use]
pub fn is_url(v: &str) -> bool {
    v.starts_with("http://") || v.starts_with("https://")
}

/// A VM id.
#[must_use]
pub const fn vmid(name: &'static str) -> Prop {
    Prop { rule: Rule::Format(vmid_format), ..opt(name, Ty::Int) }
}

fn vmid_format(v: &str) -> Result<(), String> {
    let ok = v.parse::<u32>().is_ok_and(|n| (100..=999_999_999).contains(&n)) && !v.starts_with('0');
    if ok { Ok(()) } else { Err("value does not look like a valid VM ID\n".to_owned()) }
}

/// A pool name.
///
/// # Errors
/// The server's message.
pub fn poolid(v: &str) -> Result<(), String> {
    let part = |p: &str| {
        let c = p.as_bytes();
        !p.is_empty()
            && c[0].is_ascii_alphanumeric()
            && c.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
    };
    let ok = v.split('/').count() <= 3 && v.split('/').all(part);
    if ok { Ok(()) } else { Err(format!("pool name '{v}' contains invalid characters\n")) }
}

/// A configuration id (mapping, snapshot).
///
/// # Errors
/// The server's message.
pub fn config_id(v: &str) -> Result<(), String> {
    let c = v.as_bytes();
    let ok = c.len() > 1
        && c[0].is_ascii_alphabetic()
        && c.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c == b'-');
    if ok { Ok(()) } else { Err(format!("invalid configuration ID '{v}'\n")) }
}

/// A DNS name.
///
/// # Errors
/// The server's message.
pub fn dns_name(v: &str) -> Result<(), String> {
    props::check("name", v).map_err(|e| e.trim_start_matches("invalid format - ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_lose_what_follows_a_second_equals_sign() {
        let mut p = Params::default();
        p.add_form("vmid=500&net0=virtio,bridge=vmbr0&command=a&command=b%3Dc&x=1;y=2");
        assert_eq!(p.text("net0"), "virtio,bridge");
        assert_eq!(p.list("command"), ["a", "b=c"]);
        assert_eq!(p.text("y"), "2");
    }

    #[test]
    fn all_bad_parameters_at_once() {
        let mut p = Params::default();
        p.add_form("vmid=99&frob=1&full=yes");
        let e = p.check(&[req(vmid("vmid")), b("full"), req(t("name"))]).unwrap_err();
        assert_eq!(e.errors.keys().collect::<Vec<_>>(), ["frob", "full", "name", "vmid"]);
        assert_eq!(e.errors["vmid"], "invalid format - value does not look like a valid VM ID\n");
    }
}
