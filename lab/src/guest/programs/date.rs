//! `date` by the lab's clock.
use super::{Call, Program, now};
use crate::guest::journal::{DAYS, MONTHS, civil, epoch};

pub(super) const PROGRAMS: &[Program] = &[now("/usr/bin/date", date)];

fn date(c: &mut Call) -> i32 {
    let now_ms = c.m.lab.clock().now_ms();
    let (mut secs, mut nanos) = ((now_ms / 1000) as i64, now_ms % 1000 * 1_000_000);
    if let Some(f) = c.value(&["-r", "--reference"]) {
        match c.m.files.stat(&c.who, &c.path(&f), true) {
            Ok(n) => (secs, nanos) = (n.mtime as i64, 0),
            Err(_) => {
                let text = format!("date: {f}: No such file or directory");
                return c.fail(1, &text);
            }
        }
    }
    if let Some(d) = c.value(&["-d", "--date"]) {
        match parse(&d, secs) {
            Some(s) => (secs, nanos) = (s, 0),
            None => {
                let text = format!("date: invalid date '{d}'");
                return c.fail(1, &text);
            }
        }
    }
    if c.has(&["-s", "--set"]) {
        return c.unsimulated("--set");
    }
    let format = c.args.iter().find_map(|a| a.strip_prefix('+')).map(str::to_owned);
    let iso = c
        .args
        .iter()
        .find_map(|a| a.strip_prefix("-I").or_else(|| a.strip_prefix("--iso-8601")))
        .map(|p| p.trim_start_matches('=').to_owned());
    let format = format.unwrap_or_else(|| match iso.as_deref() {
        Some("seconds" | "s") => "%Y-%m-%dT%H:%M:%S+00:00".into(),
        Some("minutes") => "%Y-%m-%dT%H:%M+00:00".into(),
        Some("ns") => "%Y-%m-%dT%H:%M:%S,%N+00:00".into(),
        Some(_) => "%Y-%m-%d".into(),
        None if c.has(&["-R", "--rfc-email", "--rfc-2822"]) => "%a, %d %b %Y %H:%M:%S +0000".into(),
        None => "%a %b %e %H:%M:%S UTC %Y".into(),
    });
    let text = show(&format, secs.max(0) as u64, nanos);
    c.line(&text);
    0
}

/// A time in a `+FORMAT` of date.
pub(crate) fn show(format: &str, secs: u64, nanos: u64) -> String {
    let (y, mo, d, h, mi, s, wd, yd) = civil(secs);
    let (month, day) = (MONTHS[mo as usize - 1], DAYS[wd as usize]);
    let mut out = String::new();
    let mut it = format.chars();
    while let Some(ch) = it.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        let mut next = it.next();
        let mut digits = 9;
        if let Some(n) = next.filter(|n| n.is_ascii_digit()) {
            digits = n as usize - '0' as usize;
            next = it.next();
        }
        let plain = next == Some('-');
        if plain {
            next = it.next();
        }
        let two = |n: u32| if plain { n.to_string() } else { format!("{n:02}") };
        out += &match next {
            Some('Y') => y.to_string(),
            Some('y') => format!("{:02}", y % 100),
            Some('m') => two(mo),
            Some('d') => two(d),
            Some('e') => format!("{d:2}"),
            Some('H') => two(h),
            Some('I') => two((h + 11) % 12 + 1),
            Some('M') => two(mi),
            Some('S') => two(s),
            Some('s') => secs.to_string(),
            Some('N') => format!("{nanos:09}")[..digits.clamp(1, 9)].to_owned(),
            Some('j') => format!("{yd:03}"),
            Some('u') => (if wd == 0 { 7 } else { wd }).to_string(),
            Some('w') => wd.to_string(),
            Some('a') => day[..3].to_owned(),
            Some('A') => day.to_owned(),
            Some('b' | 'h') => month[..3].to_owned(),
            Some('B') => month.to_owned(),
            Some('F') => format!("{y}-{mo:02}-{d:02}"),
            Some('T') => format!("{h:02}:{mi:02}:{s:02}"),
            Some('R') => format!("{h:02}:{mi:02}"),
            Some('D') => format!("{mo:02}/{d:02}/{:02}", y % 100),
            Some('c') => format!("{} {} {d:2} {h:02}:{mi:02}:{s:02} {y}", &day[..3], &month[..3]),
            Some('p') => if h < 12 { "AM" } else { "PM" }.to_owned(),
            Some('z') => "+0000".to_owned(),
            Some(':') => {
                it.next();
                "+00:00".to_owned()
            }
            Some('Z') => "UTC".to_owned(),
            Some('n') => "\n".to_owned(),
            Some('t') => "\t".to_owned(),
            Some('%') => "%".to_owned(),
            Some(o) => format!("%{o}"),
            None => "%".to_owned(),
        };
    }
    out
}

/// Seconds since 1970 of a time as people write it.
pub(super) fn parse(text: &str, now: i64) -> Option<i64> {
    let t = text.trim();
    if let Some(s) = t.strip_prefix('@') {
        return s.split('.').next()?.parse().ok();
    }
    match t {
        "" | "now" => return Some(now),
        "today" => return Some(now),
        "yesterday" => return Some(now - 86_400),
        "tomorrow" => return Some(now + 86_400),
        _ => {}
    }
    if let Some(s) = absolute(t) {
        return Some(s);
    }
    relative(t, now)
}

fn relative(t: &str, now: i64) -> Option<i64> {
    let words: Vec<&str> = t.trim_start_matches("now").split_whitespace().collect();
    let (words, sign) = match words.split_last() {
        Some((&"ago", rest)) => (rest.to_vec(), -1),
        _ => (words, 1),
    };
    let joined = words.join(" ");
    let (number, unit) = joined.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).or_else(|| {
        let at = joined.find(|c: char| c.is_ascii_alphabetic())?;
        Some((joined[..at].to_owned(), joined[at..].to_owned()))
    })?;
    let n: i64 = number.trim().trim_start_matches('+').parse().ok()?;
    let unit = match unit.trim().trim_end_matches('s') {
        "sec" | "second" => 1,
        "min" | "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        "week" => 604_800,
        "month" => 2_592_000,
        "year" => 31_536_000,
        _ => return None,
    };
    Some(now + sign * n * unit)
}

fn absolute(t: &str) -> Option<i64> {
    // systemd and `date` itself print a weekday first and a zone last.
    let t = t
        .trim_end_matches(" UTC")
        .trim_end_matches(" GMT")
        .trim_end_matches('Z')
        .trim_end_matches("+00:00")
        .trim_end_matches("+0000");
    let t = match t.split_once(' ') {
        Some((w, rest)) if DAYS.iter().any(|d| d.starts_with(w.trim_end_matches(','))) && w.len() >= 3 => rest,
        _ => t,
    };
    let (day, clock) = t.split_once(['T', ' ']).unwrap_or((t, "00:00:00"));
    let mut d = day.split('-');
    let (y, mo, da) = (d.next()?.parse().ok()?, d.next()?.parse().ok()?, d.next()?.parse().ok()?);
    let mut p = clock.trim().split(':');
    let h = p.next().unwrap_or("0").parse().ok()?;
    let mi = p.next().unwrap_or("0").parse().ok()?;
    let s = p.next().unwrap_or("0").split('.').next()?.parse().ok()?;
    ((1..=12).contains(&mo) && (1..=31).contains(&da)).then(|| epoch(y, mo, da, h, mi, s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_shown() {
        let now = 1_795_404_061;
        assert_eq!(parse("2026-11-23 03:21:01 UTC", 0), Some(now));
        assert_eq!(parse("Mon 2026-11-23 03:21:01 UTC", 0), Some(now));
        assert_eq!(parse("2026-11-23T03:21:01Z", 0), Some(now));
        assert_eq!(parse("1 hour ago", now), Some(now - 3600));
        assert_eq!(parse("+2 days", now), Some(now + 172_800));
        assert_eq!(parse("nonsense", now), None);
        assert_eq!(show("%F %T %s %-d %3N", now as u64, 5_000_000), "2026-11-23 03:21:01 1795404061 23 005");
    }
}
