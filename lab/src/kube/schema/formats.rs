//! Formats of texts in the schemas of custom kinds. Grade: source (kube-openapi's strfmt).
use std::net::IpAddr;

use base64::Engine;

use crate::kube::store::meta;

/// Whether a text has the form that `format` names; a format that nobody knows fits everything.
#[must_use]
pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => meta::parse_time(text).is_some(),
        "date" => date(text),
        "duration" => duration(text),
        "email" => email(text),
        "hostname" => text.len() <= 255 && text.split('.').all(host_part),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, n)| {
            let bits = ip.parse::<IpAddr>().map(|ip| if ip.is_ipv4() { 32 } else { 128 });
            bits.is_ok_and(|most| n.parse::<u32>().is_ok_and(|n| n <= most))
        }),
        "mac" => text.split([':', '-']).count() == 6 && text.split([':', '-']).all(|p| hex(p) && p.len() == 2),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uri" => text.split_once(':').is_some_and(|(s, rest)| scheme(s) && !rest.is_empty() || text.starts_with('/')),
        "hexcolor" => text.strip_prefix('#').is_some_and(|h| hex(h) && matches!(h.len(), 3 | 6)),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn host_part(part: &str) -> bool {
    (1..=63).contains(&part.len())
        && !part.starts_with('-')
        && !part.ends_with('-')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn date(text: &str) -> bool {
    let begin = format!("{text}T00:00:00Z");
    // only a day of the calendar reads back as it was written
    text.len() == 10 && meta::parse_time(&begin).is_some_and(|ms| meta::time(ms) == begin)
}

fn email(text: &str) -> bool {
    let address = text.rsplit_once('<').map_or(text, |(_, a)| a.trim_end_matches('>'));
    address.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !name.contains(char::is_whitespace) && !host.contains(['@', ' '])
    })
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain = text.replace('-', "");
    hex(&plain) && plain.len() == 32 && version.is_none_or(|v| plain.chars().nth(12) == Some(v))
}

/// `5m30s`, `5 minutes`, `2 weeks`: numbers with units.
fn duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "nanoseconds",
        "nanosecond",
        "nanos",
        "ns",
        "microseconds",
        "microsecond",
        "micros",
        "µs",
        "us",
        "milliseconds",
        "millisecond",
        "millis",
        "ms",
        "seconds",
        "second",
        "secs",
        "sec",
        "s",
        "minutes",
        "minute",
        "mins",
        "min",
        "m",
        "hours",
        "hour",
        "hrs",
        "hr",
        "h",
        "days",
        "day",
        "d",
        "weeks",
        "week",
        "wks",
        "wk",
        "w",
    ];
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, more) = (&rest[..end], rest[end..].trim_start());
        let Some(unit) = UNITS.iter().find(|u| more.starts_with(**u)) else { return false };
        if number.parse::<f64>().is_err() {
            return false;
        }
        rest = more[unit.len()..].trim_start();
        parts += 1;
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn formats_are_told_apart() {
        for (format, good, bad) in [
            ("date-time", "2026-01-01T00:00:00Z", "x"),
            ("date", "2026-01-01", "2026-13-01"),
            ("duration", "5 minutes", "x"),
            ("email", "a@b.c", "x"),
            ("hostname", "a.b", "a_b"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("cidr", "10.0.0.0/8", "1.2.3.4"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "x"),
            ("byte", "YQ==", "%%"),
            ("uri", "https://x/y", "::"),
        ] {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
        assert!(fits("foo", "anything"));
    }
}
