//! Points in time as text (RFC 3339, UTC).
use k8s_openapi::jiff::Timestamp;

/// Milliseconds since 1970 of `2026-11-23T03:04:05.678Z`.
#[must_use]
pub fn millis(text: &str) -> Option<i64> {
    Some(text.parse::<Timestamp>().ok()?.as_millisecond())
}

/// `2026-11-23T03:30:00.120Z`.
#[must_use]
pub fn iso(ms: u64) -> String {
    shown(ms, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// `20261123T033000.250Z`, for file names: their order is the order of time, also within a second.
#[must_use]
pub fn compact(ms: u64) -> String {
    shown(ms, "%Y%m%dT%H%M%S%.3fZ")
}

fn shown(ms: u64, form: &str) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        for ms in [0, 951_782_400_123, 1_795_404_600_999_u64] {
            assert_eq!(millis(&iso(ms)), i64::try_from(ms).ok());
        }
        assert_eq!(millis("soon"), None);
        assert_eq!(compact(1_795_404_600_250), "20261123T033000.250Z");
    }
}
