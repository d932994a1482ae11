//! Functions that Kubernetes and the extension libraries add to CEL: optional values, quantities, sets, texts. What has no
//! form in JSON is an object with one key that no client can send.
use std::cmp::Ordering;

use serde_json::{Value, json};

use super::eval::{Out, Trouble, failed, order, overload, same, sum};
use super::{places, times};
use crate::kube::text::milli;

const OPTIONAL: &str = "\u{0}optional";
const QUANTITY: &str = "\u{0}quantity";

/// A value that is there, or none.
pub(super) fn maybe(v: Option<&Value>) -> Value {
    json!({OPTIONAL: v.into_iter().collect::<Vec<_>>()})
}

/// What is in an optional value; none when it is no optional value.
pub(super) fn optional(v: &Value) -> Option<Option<&Value>> {
    v.get(OPTIONAL)?.as_array().map(|a| a.first())
}

fn quantity(v: &Value) -> Option<&Value> {
    v.get(QUANTITY)
}

/// Whether a text is a quantity: a number with a suffix that is known.
fn is_quantity(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<i32>().is_ok());
    number.parse::<f64>().is_ok() && (exponent || suffixes.contains(&suffix))
}

fn subset(all: &[Value], some: &[Value]) -> bool {
    some.iter().all(|x| all.iter().any(|y| same(x, y)))
}

/// `f(a, b)`, or one of a library's name (`sets.contains`).
pub(super) fn function(name: &str, args: &[Value]) -> Out {
    match (name, args) {
        ("bool", [Value::Bool(b)]) => Ok((*b).into()),
        ("bool", [Value::String(s)]) => match s.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(true.into()),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(false.into()),
            _ => Err(failed("type conversion error from 'string' to 'bool'")),
        },
        ("optional.of", [v]) => Ok(maybe(Some(v))),
        ("optional.none", []) => Ok(maybe(None)),
        ("isQuantity", [Value::String(s)]) => Ok(is_quantity(s).into()),
        ("quantity", [Value::String(s)]) if is_quantity(s) => Ok(json!({QUANTITY: s})),
        ("quantity", [Value::String(_)]) => {
            Err(failed("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"))
        }
        ("sets.contains", [Value::Array(a), Value::Array(b)]) => Ok(subset(a, b).into()),
        ("sets.equivalent", [Value::Array(a), Value::Array(b)]) => Ok((subset(a, b) && subset(b, a)).into()),
        ("sets.intersects", [Value::Array(a), Value::Array(b)]) => {
            Ok(a.iter().any(|x| b.iter().any(|y| same(x, y))).into())
        }
        ("math.greatest" | "math.least", [first, rest @ ..]) => {
            let want = if name == "math.greatest" { Ordering::Greater } else { Ordering::Less };
            let list: &[Value] = if rest.is_empty() { first.as_array().ok_or_else(overload)? } else { args };
            list.iter().try_fold(list.first().cloned().ok_or_else(overload)?, |best, x| {
                Ok(if order(x, &best)? == want { x.clone() } else { best })
            })
        }
        ("optional.ofNonZeroValue", [v]) => {
            let zero = match v {
                Value::Null | Value::Bool(false) => true,
                Value::String(s) => s.is_empty(),
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::Array(a) => a.is_empty(),
                Value::Object(m) => m.is_empty(),
                Value::Bool(true) => false,
            };
            Ok(maybe((!zero).then_some(v)))
        }
        ("strings.quote", [Value::String(s)]) => Ok(format!("{s:?}").into()),
        ("jsonpatch.escapeKey", [Value::String(s)]) => Ok(s.replace('~', "~0").replace('/', "~1").into()),
        ("timestamp" | "duration", _) => times::function(name, args),
        _ => places::function(name, args),
    }
}

/// A quantity in thousandths.
pub(super) fn amount(v: &Value) -> Option<i64> {
    quantity(v).map(milli)
}

/// `a.f(b)`.
pub(super) fn method(name: &str, own: &Value, args: &[Value]) -> Out {
    if let Some(out) = times::method(name, own, args).or_else(|| places::method(name, own, args)) {
        return out;
    }
    if let Some(inner) = optional(own) {
        return match (name, args) {
            ("hasValue", []) => Ok(inner.is_some().into()),
            ("value", []) => inner.cloned().ok_or_else(|| failed("optional.none() dereference")),
            ("orValue", [other]) => Ok(inner.unwrap_or(other).clone()),
            ("or", [other]) => Ok(if inner.is_some() { own.clone() } else { other.clone() }),
            _ => Err(Trouble::Unknown),
        };
    }
    if let Some(q) = quantity(own) {
        return quantities(name, milli(q), args);
    }
    match (own, args) {
        (Value::String(s), _) => texts(name, s, args),
        (Value::Array(a), _) => lists(name, a, args),
        _ => Err(Trouble::Unknown),
    }
}

fn quantities(name: &str, own: i64, args: &[Value]) -> Out {
    match (name, args) {
        ("isInteger", []) => return Ok((own % 1000 == 0).into()),
        ("asInteger", []) if own % 1000 == 0 => return Ok((own / 1000).into()),
        ("asInteger", []) => return Err(failed("cannot convert value to integer")),
        ("asApproximateFloat", []) => return Ok(json!(own as f64 / 1000.0)),
        ("sign", []) => return Ok(own.signum().into()),
        _ => {}
    }
    let [other] = args else { return Err(Trouble::Unknown) };
    let other = match quantity(other) {
        Some(q) => milli(q),
        None => other.as_i64().ok_or_else(overload)?.saturating_mul(1000),
    };
    match name {
        "isLessThan" => Ok((own < other).into()),
        "isGreaterThan" => Ok((own > other).into()),
        "compareTo" => Ok((own.cmp(&other) as i64).into()),
        "add" => Ok(json!({QUANTITY: format!("{}m", own.saturating_add(other))})),
        "sub" => Ok(json!({QUANTITY: format!("{}m", own.saturating_sub(other))})),
        _ => Err(Trouble::Unknown),
    }
}

/// The part of a text between two places, counted in characters.
fn part(s: &str, from: &Value, to: Option<&Value>) -> Out {
    let count = s.chars().count();
    let place = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= count);
    let outside = |v: &Value| failed(format!("index out of range: {v}"));
    let from_at = place(from).ok_or_else(|| outside(from))?;
    let to_at = match to {
        Some(v) => place(v).filter(|n| *n >= from_at).ok_or_else(|| outside(v))?,
        None => count,
    };
    Ok(s.chars().skip(from_at).take(to_at - from_at).collect::<String>().into())
}

fn texts(name: &str, s: &str, args: &[Value]) -> Out {
    let found = |i: Option<usize>| json!(i.map_or(-1, |i| i64::try_from(s[..i].chars().count()).unwrap_or(-1)));
    match (name, args) {
        ("replace", [Value::String(a), Value::String(b), n]) => {
            let n = n.as_i64().ok_or_else(overload)?;
            Ok(usize::try_from(n).map_or_else(|_| s.replace(a.as_str(), b), |n| s.replacen(a.as_str(), b, n)).into())
        }
        ("replace", [Value::String(a), Value::String(b)]) => Ok(s.replace(a.as_str(), b).into()),
        ("substring", [from]) => part(s, from, None),
        ("substring", [from, to]) => part(s, from, Some(to)),
        ("charAt", [i]) => part(s, i, i.as_i64().map(|n| json!(n + 1)).as_ref()),
        ("indexOf", [Value::String(x)]) => Ok(found(s.find(x.as_str()))),
        ("lastIndexOf", [Value::String(x)]) => Ok(found(s.rfind(x.as_str()))),
        ("reverse", []) => Ok(s.chars().rev().collect::<String>().into()),
        ("find", [Value::String(x)]) => {
            let r = regex::Regex::new(x).map_err(|_| Trouble::Unknown)?;
            Ok(r.find(s).map_or("", |m| m.as_str()).into())
        }
        ("findAll", [Value::String(x)]) => {
            let r = regex::Regex::new(x).map_err(|_| Trouble::Unknown)?;
            Ok(r.find_iter(s).map(|m| m.as_str()).collect::<Vec<_>>().into())
        }
        ("format", [Value::Array(list)]) => format(s, list),
        _ => Err(Trouble::Unknown),
    }
}

/// `%s` and `%d` of a text, filled in.
fn format(s: &str, list: &[Value]) -> Out {
    let (mut out, mut rest, mut next) = (String::new(), s, list.iter());
    while let Some(i) = rest.find('%') {
        out += &rest[..i];
        match rest[i + 1..].chars().next() {
            Some('%') => out.push('%'),
            Some('s' | 'd') => {
                let v = next.next().ok_or_else(|| failed("index out of range"))?;
                out += &v.as_str().map_or_else(|| crate::kube::text::shown(v), str::to_owned);
            }
            _ => return Err(Trouble::Unknown),
        }
        rest = &rest[i + 2..];
    }
    Ok((out + rest).into())
}

fn lists(name: &str, a: &[Value], args: &[Value]) -> Out {
    let place = |i: Option<usize>| json!(i.map_or(-1, |i| i64::try_from(i).unwrap_or(-1)));
    match (name, args) {
        ("indexOf", [x]) => Ok(place(a.iter().position(|y| same(x, y)))),
        ("lastIndexOf", [x]) => Ok(place(a.iter().rposition(|y| same(x, y)))),
        ("distinct", []) => {
            Ok(a.iter().enumerate().filter(|(i, x)| !a[..*i].iter().any(|y| same(x, y))).map(|x| x.1.clone()).collect())
        }
        ("flatten", []) => {
            Ok(a.iter().flat_map(|x| x.as_array().cloned().unwrap_or_else(|| vec![x.clone()])).collect())
        }
        ("reverse", []) => Ok(a.iter().rev().cloned().collect()),
        ("join", []) => a.iter().try_fold(json!(""), |all, x| sum("+", &all, x)),
        _ => Err(Trouble::Unknown),
    }
}
