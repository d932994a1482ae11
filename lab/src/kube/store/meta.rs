//! Small readers and writers of object metadata, and Kubernetes time texts.
use serde_json::{Map, Value};

/// A metadata text; empty when absent.
#[must_use]
pub fn text<'a>(obj: &'a Value, field: &str) -> &'a str {
    obj["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(obj: &Value) -> &str {
    text(obj, "name")
}

/// `metadata.namespace`; empty for cluster-scoped objects.
#[must_use]
pub fn namespace(obj: &Value) -> &str {
    text(obj, "namespace")
}

/// `metadata.uid`.
#[must_use]
pub fn uid(obj: &Value) -> &str {
    text(obj, "uid")
}

/// `metadata.resourceVersion` as a number; 0 when absent.
#[must_use]
pub fn version(obj: &Value) -> u64 {
    text(obj, "resourceVersion").parse().unwrap_or(0)
}

/// A label's value.
#[must_use]
pub fn label<'a>(obj: &'a Value, key: &str) -> Option<&'a str> {
    obj["metadata"]["labels"][key].as_str()
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(obj: &'a Value, key: &str) -> Option<&'a str> {
    obj["metadata"]["annotations"][key].as_str()
}

/// Whether deletion has begun.
#[must_use]
pub fn deleting(obj: &Value) -> bool {
    !obj["metadata"]["deletionTimestamp"].is_null()
}

/// Finalizers that hold the object.
#[must_use]
pub fn finalizers(obj: &Value) -> Vec<&str> {
    obj["metadata"]["finalizers"].as_array().map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Runs `f` on the metadata, which is made an object first if it is none.
pub fn edit<T>(obj: &mut Value, f: impl FnOnce(&mut Map<String, Value>) -> T) -> T {
    let mut own = Map::new();
    if let Value::Object(m) = &mut obj["metadata"] {
        return f(m);
    }
    let out = f(&mut own);
    obj["metadata"] = Value::Object(own);
    out
}

/// `2026-11-23T03:21:21Z` of milliseconds since 1970.
#[must_use]
pub fn time(ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(ms / 1000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// `2026-11-23T03:21:21.000000Z`, the form of leases.
#[must_use]
pub fn micro_time(ms: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(ms / 1000);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:06}Z", ms % 1000 * 1000)
}

fn civil(secs: u64) -> (i64, i64, i64, u64, u64, u64) {
    let (days, rest) = (i64::try_from(secs / 86400).unwrap_or(0), secs % 86400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    let y = yoe + era * 400 + i64::from(m <= 2);
    (y, m, d, rest / 3600, rest % 3600 / 60, rest % 60)
}

/// Milliseconds since 1970 of a Kubernetes time text.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let num = |a: usize, b: usize| text.get(a..b)?.parse::<i64>().ok();
    let (y, m, d) = (num(0, 4)?, num(5, 7)?, num(8, 10)?);
    let (h, mi, s) = (num(11, 13)?, num(14, 16)?, num(17, 19)?);
    let y2 = if m <= 2 { y - 1 } else { y };
    let era = y2.div_euclid(400);
    let yoe = y2.rem_euclid(400);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    let days = era * 146_097 + doe - 719_468;
    u64::try_from((days * 86400 + h * 3600 + mi * 60 + s) * 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        for ms in [0, 951_782_400_000, 1_795_404_081_000] {
            assert_eq!(parse_time(&time(ms)), Some(ms));
        }
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00Z");
    }
}
