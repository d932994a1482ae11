//! Schedules in cron's form as Kubernetes' parser (robfig/cron) reads them. No I/O.

use crate::core::stamp::iso;

/// A number of a schedule, or one of the names for it.
fn number(text: &str, low: u64, names: &[&str]) -> Result<u64, String> {
    if let Some(i) = names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
        return Ok(i as u64 + low);
    }
    match text.parse::<i64>() {
        Ok(n) => u64::try_from(n).map_err(|_| format!("negative number ({n}) not allowed: {text}")),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

/// One field of a schedule as the set of its values.
fn field(text: &str, low: u64, high: u64, names: &[&str]) -> Result<Vec<u64>, String> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, n)| (r, Some(n)));
        let (from, mut to) = match range.split('-').collect::<Vec<_>>()[..] {
            ["*" | "?"] => (low, high),
            [one] => number(one, low, names).map(|n| (n, n))?,
            [a, b] => (number(a, low, names)?, number(b, low, names)?),
            _ => return Err(format!("too many hyphens: {part}")),
        };
        let step = match step {
            Some(n) if n.contains('/') => return Err(format!("too many slashes: {part}")),
            Some(n) => number(n, 0, &[])?,
            None => 1,
        };
        if part.contains('/') && !range.contains('-') {
            to = high;
        }
        if from < low {
            return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
        }
        if to > high {
            return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        out.extend((from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX)));
    }
    Ok(out)
}

/// Minutes, hours, days, months, weekdays; or why it is no schedule, in the words of the parser that Kubernetes has.
///
/// # Errors
/// The parser's words.
pub fn parse(schedule: &str) -> Result<[Vec<u64>; 5], String> {
    let text = match schedule.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
        other => other,
    };
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [m, h, d, mo, w] = parts[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    let months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    let days = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    Ok([
        field(m, 0, 59, &[])?,
        field(h, 0, 23, &[])?,
        field(d, 1, 31, &[])?,
        field(mo, 1, 12, &months)?,
        field(w, 0, 6, &days)?,
    ])
}

/// The first minute after `after_ms` that the schedule names.
#[must_use]
pub fn next(schedule: &str, after_ms: u64) -> Option<u64> {
    let [minutes, hours, days, months, weekdays] = parse(schedule).ok()?;
    if [&minutes, &hours, &days, &months, &weekdays].iter().any(|f| f.is_empty()) {
        return None;
    }
    let both = days.len() < 31 && weekdays.len() < 7;
    let mut at = after_ms / 60_000 + 1;
    // In so many minutes every weekday comes on every date.
    let last = at + 28 * 366 * 1440;
    while at < last {
        let time = iso(at * 60_000);
        let n = |a: usize, b: usize| time.get(a..b).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        let weekday = (at / 1440 + 4) % 7;
        let day = if both {
            days.contains(&n(8, 10)) || weekdays.contains(&weekday)
        } else {
            days.contains(&n(8, 10)) && weekdays.contains(&weekday)
        };
        if !months.contains(&n(5, 7)) || !day {
            at = (at / 1440 + 1) * 1440;
        } else if !hours.contains(&n(11, 13)) {
            at = (at / 60 + 1) * 60;
        } else if !minutes.contains(&n(14, 16)) {
            at += 1;
        } else {
            return Some(at * 60_000);
        }
    }
    None
}

/// Why a text is no schedule.
#[must_use]
pub fn trouble(schedule: &str) -> Option<String> {
    let zoned = schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=");
    let text = if zoned { schedule.split_once(' ').map_or("", |(_, rest)| rest) } else { schedule };
    match text.strip_prefix("@every ") {
        Some(every) if seconds(every).is_some() => None,
        Some(every) => Some(format!("failed to parse duration {text}: time: invalid duration {every:?}")),
        None => parse(text).err(),
    }
}

/// Milliseconds between two moments of `@every 1h30m`; the parser makes a second of less.
#[must_use]
pub fn every(schedule: &str) -> Option<u64> {
    let seconds = seconds(schedule.strip_prefix("@every ")?)?.max(1.0);
    u64::try_from(std::time::Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
}

/// The seconds of a duration as Go writes them: `1h30m`.
fn seconds(text: &str) -> Option<f64> {
    const UNITS: &[(&str, f64)] =
        &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let (mut sum, mut parts) = (0.0, 0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (unit, factor) = UNITS.iter().find(|(u, _)| rest[end..].starts_with(u))?;
        sum += rest[..end].parse::<f64>().ok()? * factor;
        rest = &rest[end + unit.len()..];
        parts += 1;
    }
    (parts > 0).then_some(if text.starts_with('-') { -sum } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_schedule_and_why() {
        for (text, why) in [
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(trouble(text).as_deref(), Some(why));
        }
        for text in ["TZ=UTC 0 0 * * *", "@every 1h", "0-30/10,45 * ? JAN-MAR Mon"] {
            assert_eq!(trouble(text), None);
        }
    }

    #[test]
    fn the_next_moment_is_found_or_there_is_none() {
        let at = |text: &str| u64::try_from(crate::core::stamp::millis(text).unwrap()).unwrap();
        let from = at("2026-11-27T12:00:30Z");
        assert_eq!(next("0 */6 * * *", from), Some(at("2026-11-27T18:00:00Z")));
        assert_eq!(next("0 0 29 2 *", from), Some(at("2028-02-29T00:00:00Z")));
        assert_eq!(next("30 3 * * 1", from), Some(at("2026-11-30T03:30:00Z")));
        assert_eq!((next("0 0 30 2 *", from), next(", * * * *", from)), (None, None));
    }

    #[test]
    fn durations_are_counted() {
        assert_eq!((every("@every 1h30m"), every("@every 500ms")), (Some(5_400_000), Some(1000)));
        assert_eq!((every("@every -1h"), every("@every 1"), every("@every h")), (Some(1000), None, None));
        assert_eq!(every("0 * * * *"), None);
    }
}
