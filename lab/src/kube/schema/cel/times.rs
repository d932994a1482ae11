//! Timestamps and durations of CEL. A timestamp is kept as seconds and nanoseconds since 1970, a duration as nanoseconds.
//! Grade: source (the standard definitions of CEL).
use serde_json::{Value, json};

use super::eval::{Out, Trouble, failed, overload};
use crate::kube::store::meta;

const TIME: &str = "\u{0}timestamp";
const SPAN: &str = "\u{0}duration";
const SECOND: i128 = 1_000_000_000;

/// A timestamp as nanoseconds since 1970.
pub(super) fn time(v: &Value) -> Option<i128> {
    let parts = v.get(TIME)?;
    Some(i128::from(parts[0].as_i64()?) * SECOND + i128::from(parts[1].as_i64()?))
}

/// A duration as nanoseconds.
pub(super) fn span(v: &Value) -> Option<i128> {
    v.get(SPAN)?.as_i64().map(i128::from)
}

pub(super) fn of_time(nanos: i128) -> Value {
    let (seconds, rest) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    json!({TIME: [i64::try_from(seconds).unwrap_or(i64::MAX), i64::try_from(rest).unwrap_or(0)]})
}

fn of_span(nanos: i128) -> Out {
    i64::try_from(nanos).map(|n| json!({SPAN: n})).map_err(|_| failed("integer overflow"))
}

/// `2026-01-02T03:04:05.5+01:00` as nanoseconds since 1970.
pub(super) fn read_time(text: &str) -> Option<i128> {
    let (day, rest) = (text.get(..10)?, text.get(19..)?);
    let n = |a: usize, b: usize| text.get(a..b).and_then(|t| t.parse::<u32>().ok());
    let fits = (1..=12).contains(&n(5, 7)?) && (1..=31).contains(&n(8, 10)?);
    let shaped = day.as_bytes()[4] == b'-' && day.as_bytes()[7] == b'-' && text.get(10..11)?.eq_ignore_ascii_case("t");
    if !fits || !shaped || n(11, 13)? > 23 || n(14, 16)? > 59 || n(17, 19)? > 59 {
        return None;
    }
    let zone_at = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone_at);
    let nanos = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() => format!("{digits:0<9}").get(..9)?.parse::<i128>().ok()?,
        Some(_) => return None,
        None if fraction.is_empty() => 0,
        None => return None,
    };
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let (h, m) = zone.get(1..)?.split_once(':')?;
            let minutes = h.parse::<i128>().ok()? * 60 + m.parse::<i128>().ok()?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some(i128::from(meta::parse_time(text)?) * (SECOND / 1000) + nanos - offset * 60 * SECOND)
}

/// `1h30m` as nanoseconds.
pub(super) fn read_span(text: &str) -> Option<i128> {
    const UNITS: &[(&str, f64)] =
        &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (unit, size) = UNITS.iter().find(|(u, _)| rest[end..].starts_with(u))?;
        total += rest[..end].parse::<f64>().ok()? * size;
        rest = &rest[end + unit.len()..];
    }
    let signed = if text.starts_with('-') { -total } else { total };
    (!text.is_empty() && text != "-" && text != "+").then_some(signed as i128)
}

/// The value as a timestamp or a duration where a rule compares it with one: texts of such formats are those.
pub(super) fn like(v: &Value, other: &Value) -> Option<i128> {
    match v {
        Value::String(s) if time(other).is_some() => read_time(s),
        Value::String(s) if span(other).is_some() => read_span(s),
        v => time(v).or_else(|| span(v)),
    }
}

/// `timestamp(...)` and `duration(...)`.
pub(super) fn function(name: &str, args: &[Value]) -> Out {
    match (name, args) {
        ("timestamp", [v]) if time(v).is_some() => Ok(v.clone()),
        ("timestamp", [Value::String(s)]) => read_time(s)
            .map(of_time)
            .ok_or_else(|| failed("type conversion error from 'string' to 'google.protobuf.Timestamp'")),
        ("timestamp", [Value::Number(n)]) => Ok(of_time(i128::from(n.as_i64().ok_or_else(overload)?) * SECOND)),
        ("duration", [v]) if span(v).is_some() => Ok(v.clone()),
        ("duration", [Value::String(s)]) => match read_span(s) {
            Some(n) => of_span(n),
            None => Err(failed("type conversion error from 'string' to 'google.protobuf.Duration'")),
        },
        _ => Err(Trouble::Unknown),
    }
}

/// Sums and differences; none when neither side is a time.
pub(super) fn sum(sign: &str, a: &Value, b: &Value) -> Option<Out> {
    let (x, y) = (like(a, b).or_else(|| like(a, a)), like(b, a).or_else(|| like(b, b)));
    Some(match (sign, time(a), span(a), time(b), span(b)) {
        ("+", Some(t), _, _, Some(d)) | ("+", _, Some(d), Some(t), _) => Ok(of_time(t + d)),
        ("-", Some(t), _, _, Some(d)) => Ok(of_time(t - d)),
        ("-", Some(t), _, Some(u), _) => of_span(t - u),
        ("+", _, Some(d), _, Some(e)) => of_span(d + e),
        ("-", _, Some(d), _, Some(e)) => of_span(d - e),
        _ if x.is_some() || y.is_some() => Err(overload()),
        _ => return None,
    })
}

/// What a timestamp or a duration is as a text.
pub(super) fn shown(v: &Value) -> Option<String> {
    if let Some(nanos) = span(v) {
        let text = format!("{}.{:09}", nanos.abs() / SECOND, nanos.abs() % SECOND);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return Some(format!("{}{text}s", if nanos < 0 { "-" } else { "" }));
    }
    let nanos = time(v)?;
    let whole = meta::time(u64::try_from(nanos.div_euclid(SECOND) * 1000).ok()?);
    let rest = format!("{:09}", nanos.rem_euclid(SECOND));
    let rest = rest.trim_end_matches('0');
    Some(if rest.is_empty() { whole } else { format!("{}.{rest}Z", whole.trim_end_matches('Z')) })
}

/// `t.getHours()` and the like; none for another value or function.
pub(super) fn method(name: &str, own: &Value, args: &[Value]) -> Option<Out> {
    let as_number = |n: i128| Ok(json!(i64::try_from(n).unwrap_or(i64::MAX)));
    let asked = name.starts_with("get").then(|| own.as_str()).flatten();
    if let Some(nanos) = span(own).or_else(|| asked.and_then(read_span)) {
        return Some(match (name, args) {
            ("getHours", []) => as_number(nanos / SECOND / 3600),
            ("getMinutes", []) => as_number(nanos / SECOND / 60),
            ("getSeconds", []) => as_number(nanos / SECOND),
            ("getMilliseconds", []) => as_number(nanos / 1_000_000 % 1000),
            _ => return None,
        });
    }
    let mut nanos = time(own).or_else(|| asked.and_then(read_time))?;
    match args {
        [] => {}
        [Value::String(zone)] if zone == "UTC" => {}
        [Value::String(zone)] => {
            let (h, m) = zone.trim_start_matches(['+', '-']).split_once(':')?;
            let minutes = h.parse::<i128>().ok()? * 60 + m.parse::<i128>().ok()?;
            nanos += if zone.starts_with('-') { -minutes } else { minutes } * 60 * SECOND;
        }
        _ => return None,
    }
    let seconds = nanos.div_euclid(SECOND);
    let days = seconds.div_euclid(86_400);
    let text = meta::time(u64::try_from(seconds * 1000).ok()?);
    let part = |a: usize, b: usize| text.get(a..b).and_then(|t| t.parse::<i128>().ok()).unwrap_or(0);
    Some(match name {
        "getFullYear" => as_number(part(0, 4)),
        "getMonth" => as_number(part(5, 7) - 1),
        "getDate" => as_number(part(8, 10)),
        "getDayOfMonth" => as_number(part(8, 10) - 1),
        "getDayOfWeek" => as_number((days + 4).rem_euclid(7)),
        "getDayOfYear" => {
            let start = read_time(&format!("{}-01-01T00:00:00Z", &text[..4]))?;
            as_number(days - start / SECOND / 86_400)
        }
        "getHours" => as_number(part(11, 13)),
        "getMinutes" => as_number(part(14, 16)),
        "getSeconds" => as_number(part(17, 19)),
        "getMilliseconds" => as_number(nanos.rem_euclid(SECOND) / 1_000_000),
        _ => return None,
    })
}
