//! The journal of a guest, and times in the forms Linux prints them.
use super::state::{Guest, JournalLine};

/// Most lines kept per boot.
const KEEP: usize = 4000;

/// Adds a line.
pub fn add(g: &mut Guest, at_ms: u64, unit: &str, text: &str) {
    if g.journal.len() >= KEEP {
        g.journal.drain(..KEEP / 4);
    }
    g.journal.push(JournalLine { at_ms, unit: unit.to_owned(), text: text.to_owned() });
}

/// Year, month, day, hour, minute, second, weekday (0 = Sunday), day of the year of a time in UTC.
#[must_use]
pub fn civil(secs: u64) -> (i64, u32, u32, u32, u32, u32, u32, u32) {
    let days = (secs / 86_400) as i64;
    let rest = (secs % 86_400) as u32;
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    let year = yoe + era * 400 + i64::from(month <= 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    let yday = before + day + u32::from(leap && month > 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60, ((days + 4).rem_euclid(7)) as u32, yday)
}

/// `Mon Nov  3 04:05:06 2026`, the form in which helm tells times.
#[must_use]
pub fn ansic(secs: u64) -> String {
    let (y, month, d, h, m, s, weekday, _) = civil(secs);
    let month = MONTHS[month as usize - 1].get(..3).unwrap_or_default();
    let day = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][weekday as usize % 7];
    format!("{day} {month} {d:2} {h:02}:{m:02}:{s:02} {y}")
}

/// Seconds since 1970 of a time in UTC.
#[must_use]
pub fn epoch(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (i64::from(month) + 9) % 12;
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    (era * 146_097 + doe - 719_468) * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)
}

/// Month names.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Weekday names.
pub const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `Nov 23 03:20:01`.
#[must_use]
pub fn stamp(ms: u64) -> String {
    let (_, mo, d, h, mi, s, ..) = civil(ms / 1000);
    format!("{} {d:02} {h:02}:{mi:02}:{s:02}", &MONTHS[mo as usize - 1][..3])
}

/// `Mon 2026-11-23 03:20:01 UTC`.
#[must_use]
pub fn long(ms: u64) -> String {
    let (y, mo, d, h, mi, s, wd, _) = civil(ms / 1000);
    format!("{} {y}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02} UTC", &DAYS[wd as usize][..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        assert_eq!(long(1_795_404_061_000), "Mon 2026-11-23 03:21:01 UTC");
        for secs in [0u64, 951_782_400, 1_709_251_199, 1_795_404_061] {
            let (y, mo, d, h, mi, s, ..) = civil(secs);
            assert_eq!(epoch(y, mo, d, h, mi, s), secs as i64);
        }
        assert_eq!(civil(1_709_164_800).7, 60);
    }
}
