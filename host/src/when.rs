//! Points in time as people and file names write them (UTC).
use gpuhost_stdlib::core::clock::Clock;

/// Year, month, day, hour, minute, second of milliseconds since 1970.
#[must_use]
pub fn parts(ms: u64) -> (i64, u32, u32, u32, u32, u32) {
    let secs = ms / 1000;
    let days = i64::try_from(secs / 86_400).unwrap_or(0) + 719_468;
    // Howard Hinnant's civil-from-days.
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = u32::try_from(doy - (153 * mp + 2) / 5 + 1).unwrap_or(1);
    let month = u32::try_from(if mp < 10 { mp + 3 } else { mp - 9 }).unwrap_or(1);
    let year = yoe + era * 400 + i64::from(month <= 2);
    let of_day = u32::try_from(secs % 86_400).unwrap_or(0);
    (year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// `2026-11-23T03:30:00.120Z`.
#[must_use]
pub fn iso(ms: u64) -> String {
    let (y, mo, d, h, mi, s) = parts(ms);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:03}Z", ms % 1000)
}

/// Milliseconds since 1970 of what [`iso`] wrote.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let n = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (y, mo, d) = (n(0, 4)?, n(5, 7)?, n(8, 10)?);
    // The other half of the same algorithm.
    let y = if mo <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (mo + if mo > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    let secs = days * 86_400 + n(11, 13)? * 3600 + n(14, 16)? * 60 + n(17, 19)?;
    u64::try_from(secs * 1000 + n(20, 23)?).ok()
}

/// `20261123T033000.250Z`, for file names: their order is the order of time, also within a second.
#[must_use]
pub fn stamp(ms: u64) -> String {
    let (y, mo, d, h, mi, s) = parts(ms);
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}.{:03}Z", ms % 1000)
}

/// Milliseconds since 1970 on this machine's clock.
#[must_use]
pub fn wall_ms() -> u64 {
    Clock::Real.last_ms()
}

/// `14m 20s` of milliseconds, in whole seconds above ten seconds.
#[must_use]
pub fn span(ms: u64) -> String {
    let ms = if ms >= 10_000 { ms / 1000 * 1000 } else { ms / 100 * 100 };
    gpuhost_stdlib::core::units::show_duration(std::time::Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        for ms in [0, 951_782_400_123, 1_795_404_600_999] {
            assert_eq!(parse(&iso(ms)), Some(ms));
        }
        assert_eq!(parse("soon"), None);
        assert_eq!(stamp(1_795_404_600_250), "20261123T033000.250Z");
    }
}
