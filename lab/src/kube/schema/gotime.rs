//! Times as Go reads them, and what it says of others. Grade: source (package time of Go).

/// The parts of a time in RFC 3339, as Go's layouts write them.
const PARTS: [&str; 11] = ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"];

/// Reads a time; with `micro` exactly six digits of a second have to follow the second.
///
/// # Errors
/// Go's text.
pub(super) fn read(text: &str, micro: bool) -> Result<(), String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let wrong =
        |rest: &str, part: &str| format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
    let mut rest = text;
    let mut numbers = Vec::new();
    for part in PARTS {
        let n = part.len();
        let head = rest.get(..n).ok_or_else(|| wrong(rest, part))?;
        let digits = part.starts_with(|c: char| c.is_ascii_digit());
        if if digits { !head.bytes().all(|b| b.is_ascii_digit()) } else { head != part } {
            return Err(wrong(rest, part));
        }
        numbers.extend(head.parse::<u32>().ok().filter(|_| digits));
        if let Some(what) = out_of_range(&numbers) {
            return Err(format!("parsing time {text:?}: {what} out of range"));
        }
        rest = &rest[n..];
    }
    let fraction = rest.strip_prefix('.').map_or(0, |r| 1 + r.bytes().take_while(u8::is_ascii_digit).count());
    if micro {
        if fraction < 7 {
            return Err(wrong(rest, ".000000"));
        }
        rest = &rest[7..];
    } else if fraction > 1 {
        rest = &rest[fraction..];
    }
    let tail = match (rest.as_bytes(), rest) {
        (_, "") => return Err(wrong(rest, "Z07:00")),
        ([b'Z', ..], _) => &rest[1..],
        ([b'+' | b'-', a, b, b':', c, d, ..], _) if [a, b, c, d].iter().all(|x| x.is_ascii_digit()) => &rest[6..],
        _ => return Err(wrong(rest, "Z07:00")),
    };
    if tail.is_empty() { Ok(()) } else { Err(format!("parsing time {text:?}: extra text: {tail:?}")) }
}

/// The first part that no calendar has, of year, month, day, hour, minute, second as far as they are read.
fn out_of_range(numbers: &[u32]) -> Option<&'static str> {
    let last = *numbers.last()?;
    match numbers.len() {
        2 if !(1..=12).contains(&last) => Some("month"),
        3 if !(1..=days(numbers[0], numbers[1])).contains(&last) => Some("day"),
        4 if last > 23 => Some("hour"),
        5 if last > 59 => Some("minute"),
        6 if last > 59 => Some("second"),
        _ => None,
    }
}

fn days(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_refused_in_gos_words() {
        for good in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00", "2024-02-29T23:59:59.123456789Z"] {
            assert_eq!(read(good, false), Ok(()));
        }
        assert_eq!(read("2026-01-01T00:00:00.000001Z", true), Ok(()));
        let said = |text: &str, micro: bool| read(text, micro).unwrap_err();
        assert_eq!(
            said("2026-01-01T00:00:00+00:00", true),
            "parsing time \"2026-01-01T00:00:00+00:00\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"+00:00\" as \".000000\""
        );
        assert_eq!(
            said("soon", false),
            "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""
        );
        assert_eq!(
            said("2026-01-01", false),
            "parsing time \"2026-01-01\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\""
        );
        assert_eq!(said("2026-02-30T00:00:00Z", false), "parsing time \"2026-02-30T00:00:00Z\": day out of range");
        assert_eq!(said("2026-01-01T00:00:00Zx", false), "parsing time \"2026-01-01T00:00:00Zx\": extra text: \"x\"");
    }
}
