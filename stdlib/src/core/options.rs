//! Options maps: one declaration feeds parsing, "did you mean", `check`, help, completion and reference.
use std::collections::BTreeMap;

use rhai::{Array, Dynamic, FnPtr, Map};

use super::error::{OpError, OpResult};
use super::units::{Duration, Secret, Size};

/// One option as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Key in the map.
    pub name: &'static str,
    /// Its sentence.
    pub doc: &'static str,
    /// Type word, for example `Duration`.
    pub ty: &'static str,
    /// Default as written in the declaration; `None` when required.
    pub default: Option<&'static str>,
}

/// A type that an option can have.
pub trait OptionValue: Sized {
    /// Type word in docs and messages.
    const TYPE: &'static str;
    /// Whether the checker may insist on literals of this type: `int`, `string`, `bool`, `array`, `map`, or empty.
    const LITERAL: &'static str = "";
    /// Reads a script value.
    ///
    /// # Errors
    /// What was expected, in words that follow "expected".
    fn read(value: &Dynamic) -> Result<Self, String>;
}

fn expected<T>(what: &str, v: &Dynamic) -> Result<T, String> {
    let shown = if v.is_string() || v.is_int() || v.is_bool() || v.is_float() {
        format!("`{v}`")
    } else {
        format!("a {}", v.type_name().rsplit("::").next().unwrap_or("value"))
    };
    Err(format!("expected {what}, found {shown}"))
}

macro_rules! plain {
    ($t:ty, $word:literal, $lit:literal, $what:literal) => {
        impl OptionValue for $t {
            const TYPE: &'static str = $word;
            const LITERAL: &'static str = $lit;
            fn read(v: &Dynamic) -> Result<Self, String> {
                match v.clone().flatten().try_cast::<$t>() {
                    Some(x) => Ok(x),
                    None => expected($what, v),
                }
            }
        }
    };
}
plain!(i64, "int", "int", "a whole number");
plain!(bool, "bool", "bool", "true or false");
plain!(Map, "Map", "map", "a map such as `#{ key: value }`");
plain!(Array, "Array", "array", "a list such as `[a, b]`");
plain!(FnPtr, "Fn", "", "a function such as `|x| x`");

impl OptionValue for Dynamic {
    const TYPE: &'static str = "any";
    fn read(v: &Dynamic) -> Result<Self, String> {
        Ok(v.clone().flatten())
    }
}
impl OptionValue for f64 {
    const TYPE: &'static str = "number";
    fn read(v: &Dynamic) -> Result<Self, String> {
        match (v.as_float(), v.as_int()) {
            (Ok(f), _) => Ok(f),
            (_, Ok(i)) => Ok(i as f64),
            _ => expected("a number", v),
        }
    }
}
impl OptionValue for String {
    const TYPE: &'static str = "string";
    const LITERAL: &'static str = "string";
    fn read(v: &Dynamic) -> Result<Self, String> {
        match v.clone().flatten().into_string() {
            Ok(s) => Ok(s),
            Err(_) => expected("a text", v),
        }
    }
}
impl OptionValue for Duration {
    const TYPE: &'static str = "Duration";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let v = v.clone().flatten();
        if let Some(d) = v.clone().try_cast::<Duration>() {
            return Ok(d);
        }
        match v.clone().into_string() {
            Ok(s) => Duration::parse(&s),
            Err(_) => expected("a duration such as `5.minutes`", &v),
        }
    }
}
impl OptionValue for Size {
    const TYPE: &'static str = "Size";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let v = v.clone().flatten();
        if let Some(d) = v.clone().try_cast::<Size>() {
            return Ok(d);
        }
        match v.clone().into_string() {
            Ok(s) => Size::parse(&s),
            Err(_) => expected("a size such as `16.gib`", &v),
        }
    }
}
impl OptionValue for Secret {
    const TYPE: &'static str = "Secret";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let v = v.clone().flatten();
        if let Some(s) = v.clone().try_cast::<Secret>() {
            return Ok(s);
        }
        match v.clone().into_string() {
            Ok(s) => Ok(Secret::new(s)),
            Err(_) => Err("expected a secret such as `secret(\"k3s_token\")`".to_owned()),
        }
    }
}
impl<T: OptionValue> OptionValue for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const LITERAL: &'static str = T::LITERAL;
    fn read(v: &Dynamic) -> Result<Self, String> {
        if v.is_unit() { Ok(None) } else { T::read(v).map(Some) }
    }
}
impl OptionValue for Vec<String> {
    const TYPE: &'static str = "[string]";
    const LITERAL: &'static str = "array";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let list = Array::read(v)?;
        list.iter().map(String::read).collect()
    }
}
impl OptionValue for BTreeMap<String, String> {
    const TYPE: &'static str = "Map of strings";
    const LITERAL: &'static str = "map";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let map = Map::read(v)?;
        map.iter()
            .map(|(k, v)| {
                let text = if v.is_int() || v.is_bool() { v.to_string() } else { String::read(v)? };
                Ok((k.to_string(), text))
            })
            .collect()
    }
}
impl OptionValue for BTreeMap<String, Secret> {
    const TYPE: &'static str = "Map of secrets";
    const LITERAL: &'static str = "map";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let map = Map::read(v)?;
        map.iter().map(|(k, v)| Ok((k.to_string(), Secret::read(v)?))).collect()
    }
}
impl OptionValue for serde_json::Value {
    const TYPE: &'static str = "any";
    fn read(v: &Dynamic) -> Result<Self, String> {
        rhai::serde::from_dynamic(v).map_err(|e| e.to_string())
    }
}

impl OptionValue for Vec<i64> {
    const TYPE: &'static str = "[int]";
    const LITERAL: &'static str = "array";
    fn read(v: &Dynamic) -> Result<Self, String> {
        let list = Array::read(v)?;
        list.iter().map(i64::read).collect()
    }
}

/// A field's name without Rust's `r#`: `become` is a keyword here, but a fine option.
#[must_use]
pub const fn bare(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => match std::str::from_utf8(rest) {
            Ok(s) => s,
            Err(_) => name,
        },
        _ => name,
    }
}

/// The name in `known` closest to `word`, when close enough to be a misspelling.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|k| (distance(word, k), k))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edits between two words; a swap of neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut d = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in d.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in d[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (d[i - 1][j] + 1).min(d[i][j - 1] + 1).min(d[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(d[i - 2][j - 2] + 1);
            }
            d[i][j] = best;
        }
    }
    d[a.len()][b.len()]
}

/// Refuses keys that `fields` does not have.
///
/// # Errors
/// `invalid` naming the key, with the closest one as the hint.
pub fn refuse_unknown(map: &Map, fields: &[Field]) -> OpResult<()> {
    for key in map.keys() {
        if fields.iter().any(|f| f.name == key.as_str()) {
            continue;
        }
        let e = OpError::invalid(format!("unknown option `{key}`"));
        return Err(match closest(key, fields.iter().map(|f| f.name)) {
            Some(k) => e.hint(format!("did you mean `{k}`?")),
            None => {
                let known: Vec<_> = fields.iter().map(|f| f.name).collect();
                e.hint(format!("known options: {}", known.join(", ")))
            }
        });
    }
    Ok(())
}

/// Reads one option.
///
/// # Errors
/// `invalid` naming the option, what was expected and what was found.
pub fn read_field<T: OptionValue>(map: &Map, name: &str) -> OpResult<Option<T>> {
    match map.get(name) {
        None => Ok(None),
        Some(v) => T::read(v).map(Some).map_err(|e| OpError::invalid(format!("option `{name}`: {e}"))),
    }
}

/// Declares an options struct: `options! { /// doc  pub struct X { /// doc  key: Type = default, } }`.
/// A field without a default is required. Gives `X::FIELDS` and `X::read(map)`.
#[macro_export]
macro_rules! options {
    ($(#[doc = $sdoc:literal])* pub struct $name:ident { $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty $(= $default:expr)? ),* $(,)? }) => {
        $(#[doc = $sdoc])*
        #[derive(Debug, Clone)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $ty ),* }
        impl $name {
            /// The options with their docs, types and defaults.
            pub const FIELDS: &'static [$crate::core::options::Field] = &[ $(
                $crate::core::options::Field {
                    name: $crate::core::options::bare(stringify!($field)),
                    doc: concat!($($doc),+),
                    ty: <$ty as $crate::core::options::OptionValue>::TYPE,
                    default: $crate::options!(@shown $($default)?),
                } ),* ];
            /// Reads the options of a call.
            ///
            /// # Errors
            /// `invalid` naming the option at fault.
            pub fn read(map: &rhai::Map) -> $crate::core::error::OpResult<Self> {
                $crate::core::options::refuse_unknown(map, Self::FIELDS)?;
                Ok($name { $( $field: match $crate::core::options::read_field::<$ty>(map, $crate::core::options::bare(stringify!($field)))? {
                    Some(v) => v,
                    None => $crate::options!(@default $crate::core::options::bare(stringify!($field)), $ty $(, $default)?),
                } ),* })
            }
        }
    };
    (@shown) => { None };
    (@shown $default:expr) => { Some(stringify!($default)) };
    (@default $field:expr, $ty:ty) => {
        return Err($crate::core::error::OpError::invalid(format!("option `{}` is missing", $field)))
    };
    (@default $field:expr, $ty:ty, $default:expr) => { $default };
}

#[cfg(test)]
mod tests {
    use super::*;

    options! {
        /// A shape.
        pub struct Shape {
            /// Virtual processors.
            cores: i64 = 2,
            /// Memory.
            memory: Size,
            /// Tags.
            tags: Vec<String> = Vec::new(),
        }
    }

    #[test]
    fn reads_and_names_the_option_at_fault() {
        let mut m = Map::new();
        m.insert("memory".into(), Dynamic::from(Size::gib(4)));
        let s = Shape::read(&m).unwrap();
        assert_eq!((s.cores, s.memory, s.tags.len()), (2, Size::gib(4), 0));
        m.insert("core".into(), Dynamic::from(4_i64));
        let e = Shape::read(&m).unwrap_err();
        assert_eq!(e.message, "unknown option `core`");
        assert_eq!(e.hint.as_deref(), Some("did you mean `cores`?"));
        m.remove("core");
        m.insert("memory".into(), Dynamic::from(16_i64));
        assert_eq!(
            Shape::read(&m).unwrap_err().message,
            "option `memory`: expected a size such as `16.gib`, found `16`"
        );
        assert_eq!(Shape::read(&Map::new()).unwrap_err().message, "option `memory` is missing");
        assert_eq!(Shape::FIELDS[0].default, Some("2"));
        assert_eq!(Shape::FIELDS[1].doc.trim(), "Memory.");
    }
}
