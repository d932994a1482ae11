//! Property strings (`virtio=BC:24:…,bridge=vmbr0,tag=10`): parse, validate and print as the server does,
//! with the server's own messages.
#![allow(clippy::type_complexity)] // rows of tables
mod checks;
mod formats;
mod scalar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use checks::{cpu_models, disk_size, is_unicast_mac, print_disk_size, volume_id};
pub use formats::format_of;
pub use scalar::{Scalar, check, scalar_of};

/// Type of one property.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ty {
    /// `0` or `1`; inside property strings also `yes`, `on`, `true` …
    Bool,
    /// Whole number.
    Int,
    /// Number.
    Num,
    /// Text.
    Str,
}

/// What a value must look like beyond its type.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Anything.
    Any,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Matches a pattern (`value does not match the regex pattern`).
    Pattern(fn(&str) -> bool),
    /// A named format with its own message (`invalid format - …`).
    Format(fn(&str) -> Result<(), String>),
}

/// One property of a format.
#[derive(Clone, Copy)]
pub struct Prop {
    /// Key.
    pub name: &'static str,
    /// Type.
    pub ty: Ty,
    /// Rule.
    pub rule: Rule,
    /// Smallest value.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
    /// Longest text.
    pub max_len: Option<usize>,
    /// Whether it must be there.
    pub required: bool,
    /// Whether a bare value means this key.
    pub default_key: bool,
    /// Another key that must be there too.
    pub requires: Option<&'static str>,
}

/// A format: its properties and aliases.
#[derive(Clone, Copy)]
pub struct Format {
    /// Properties.
    pub props: &'static [Prop],
    /// `(name, means, key that takes the name itself as value)`.
    pub aliases: &'static [(&'static str, &'static str, Option<&'static str>)],
    /// A check of the whole string that replaces the schema's.
    pub whole: Option<fn(&str) -> Result<(), String>>,
}

/// A parsed property string.
pub type Props = BTreeMap<String, String>;

impl Format {
    fn prop(&self, name: &str) -> Option<&'static Prop> {
        self.props.iter().find(|p| p.name == name)
    }

    /// The key that a bare value means.
    #[must_use]
    pub fn default_key(&self) -> Option<&'static str> {
        self.props.iter().find(|p| p.default_key).map(|p| p.name)
    }

    /// Splits `text` into keys and values without validating them.
    ///
    /// # Errors
    /// `duplicate key in comma-separated list property: …` and the like, with a trailing newline.
    pub fn split(&self, text: &str) -> Result<Props, String> {
        let dup = |k: &str| Err(format!("duplicate key in comma-separated list property: {k}\n"));
        let mut out = Props::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (mut key, value) = match part.split_once('=') {
                Some((k, v)) if !k.is_empty() && !v.is_empty() => (k.to_owned(), v.to_owned()),
                Some(_) => return Err("missing key in comma-separated list property\n".to_owned()),
                None => {
                    let Some(k) = self.default_key() else {
                        return Err("value without key, but schema does not define a default key\n".to_owned());
                    };
                    (k.to_owned(), part.to_owned())
                }
            };
            if out.contains_key(&key) {
                return dup(&key);
            }
            if let Some((name, means, takes)) = self.aliases.iter().find(|a| a.0 == key) {
                if let Some(t) = takes
                    && out.insert((*t).to_owned(), (*name).to_owned()).is_some()
                {
                    return dup(t);
                }
                key = (*means).to_owned();
                if out.contains_key(&key) {
                    return dup(&key);
                }
            }
            let value = match self.prop(&key) {
                Some(p) if p.ty == Ty::Bool => truth(&value).to_owned(),
                _ => value,
            };
            out.insert(key, value);
        }
        Ok(out)
    }

    /// What is wrong with the parsed properties; `path` (`scsi0.` or empty) precedes every key.
    #[must_use]
    pub fn problems(&self, props: &Props, path: &str) -> BTreeMap<String, String> {
        let mut bad = BTreeMap::new();
        for (k, v) in props {
            let Some(p) = self.prop(k) else {
                let why = "property is not defined in schema and the schema does not allow additional properties";
                bad.insert(format!("{path}{k}"), why.to_owned());
                continue;
            };
            if let Some(needs) = p.requires
                && !props.contains_key(needs)
            {
                bad.insert(format!("{path}{needs}"), format!("missing property required by '{path}{k}'"));
            }
            if let Err(why) = p.check(v) {
                bad.insert(format!("{path}{k}"), why);
            }
        }
        for p in self.props.iter().filter(|p| p.required && !props.contains_key(p.name)) {
            let why = "property is missing and it is not optional".to_owned();
            bad.entry(format!("{path}{}", p.name)).or_insert(why);
        }
        bad
    }

    /// Parses and validates `text`; `name` is the option's name in messages, or empty.
    ///
    /// # Errors
    /// The server's message, for example `format error\nnet0.tag: value must have …\n`.
    pub fn parse(&self, text: &str, name: &str) -> Result<Props, String> {
        if let Some(whole) = self.whole {
            whole(text)?;
        }
        let props = self.split(text)?;
        let path = if name.is_empty() { String::new() } else { format!("{name}.") };
        let bad = self.problems(&props, &path);
        if bad.is_empty() {
            return Ok(props);
        }
        let mut m = "format error\n".to_owned();
        for (k, why) in bad {
            m.push_str(&format!("{k}: {why}\n"));
        }
        Err(m)
    }

    /// Prints properties in the server's order: the bare default key, then required keys, then the rest, sorted.
    #[must_use]
    pub fn print(&self, props: &Props) -> String {
        let mut parts = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        let aliased = self.aliases.iter().find_map(|(_, means, takes)| takes.map(|t| (t, *means)));
        if let Some((model, mac)) = aliased
            && let Some(m) = props.get(model)
        {
            parts.push(match props.get(mac) {
                Some(v) => format!("{m}={v}"),
                None => m.clone(),
            });
            done.extend([model, mac]);
        } else if let Some(k) = self.default_key()
            && let Some(v) = props.get(k)
        {
            parts.push(v.clone());
            done.push(k);
        }
        let must = |k: &str| self.prop(k).is_some_and(|p| p.required);
        let (first, rest): (Vec<_>, Vec<_>) =
            props.iter().filter(|(k, _)| !done.contains(&k.as_str())).partition(|(k, _)| must(k));
        for (k, v) in first.into_iter().chain(rest) {
            let v = if k == "size" { disk_size(v).map_or_else(|| v.clone(), print_disk_size) } else { v.clone() };
            parts.push(format!("{k}={v}"));
        }
        parts.join(",")
    }
}

impl Prop {
    /// Checks one value; numbers before rules, as the server does.
    ///
    /// # Errors
    /// The server's message without the key.
    pub fn check(&self, v: &str) -> Result<(), String> {
        let number = match self.ty {
            Ty::Bool if v != "0" && v != "1" => return Err(format!("type check ('boolean') failed - got '{v}'")),
            Ty::Int if v.parse::<i64>().is_err() => return Err(format!("type check ('integer') failed - got '{v}'")),
            Ty::Num if !checks::is_number(v) => return Err(format!("type check ('number') failed - got '{v}'")),
            Ty::Int | Ty::Num => v.parse::<f64>().ok(),
            _ => None,
        };
        if let Some(max) = self.max_len
            && v.chars().count() > max
        {
            return Err(format!("value may only be {max} characters long"));
        }
        match self.rule {
            Rule::Any => {}
            Rule::OneOf(list) if list.contains(&v) => {}
            Rule::OneOf(list) => {
                return Err(format!("value '{v}' does not have a value in the enumeration '{}'", list.join(", ")));
            }
            Rule::Pattern(f) if !f(v) => return Err("value does not match the regex pattern".to_owned()),
            Rule::Pattern(_) => {}
            Rule::Format(f) => f(v).map_err(|e| format!("invalid format - {e}"))?,
        }
        match (number, self.min, self.max) {
            (Some(n), Some(min), _) if n < min => Err(format!("value must have a minimum value of {min}")),
            (Some(n), _, Some(max)) if n > max => Err(format!("value must have a maximum value of {max}")),
            _ => Ok(()),
        }
    }
}

/// Words for true and false inside property strings; anything else stays as it is.
#[must_use]
pub fn truth(v: &str) -> &str {
    match v.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => "1",
        "0" | "off" | "no" | "false" => "0",
        _ => v,
    }
}

/// Splits a numbered key: `scsi12` is (`scsi`, 12). Keys without a number have none.
#[must_use]
pub fn numbered(key: &str) -> (&str, Option<u32>) {
    let end = key.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    (&key[..end], key[end..].parse().ok())
}

/// Parses the value of a config key (`net0`, `scsi0`, `hostpci1` …).
///
/// # Errors
/// The server's message; `unknown format` when the key has no property format.
pub fn parse(key: &str, text: &str) -> Result<Props, String> {
    format_of(key).ok_or_else(|| format!("unknown format of '{key}'\n"))?.parse(text, "")
}

/// Reads a stored value without validating it; empty when it cannot be split.
#[must_use]
pub fn read(key: &str, text: &str) -> Props {
    format_of(key).and_then(|f| f.split(text).ok()).unwrap_or_default()
}

/// Prints the properties of a config key; keys without a format print nothing.
#[must_use]
pub fn print(key: &str, props: &Props) -> String {
    format_of(key).map(|f| f.print(props)).unwrap_or_default()
}

/// Puts a property string together, in the server's order; properties without a value are left out.
/// [`check`] says whether the server takes it.
#[must_use]
pub fn compose<'a>(key: &str, parts: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let props: Props = parts.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
    print(key, &props)
}

/// `true` for keys that name a disk or CD-ROM (`ide2`, `scsi0`, `virtio1`, `sata0`, `efidisk0`, `tpmstate0`).
#[must_use]
pub fn is_drive(key: &str) -> bool {
    let (base, n) = numbered(key);
    matches!(
        (base, n),
        ("ide", Some(0..=3))
            | ("sata", Some(0..=5))
            | ("scsi", Some(0..=30))
            | ("virtio", Some(0..=15))
            | ("efidisk" | "tpmstate", Some(0))
    )
}

/// `true` when `text` asks for a new volume: `store:32` or `store:0.5`.
#[must_use]
pub fn new_disk(text: &str) -> Option<(&str, f64)> {
    let (store, size) = text.split_once(':')?;
    let ok = !store.is_empty() && !store.contains(['/', ' ']) && size.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !ok || size.starts_with('.') || size.ends_with('.') {
        return None;
    }
    Some((store, size.parse().ok()?))
}
