//! Durations, sizes and secrets as types of their own: a bare number where a unit is needed is an error.
use std::fmt;
use std::time::Duration as StdDuration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in scripts and in the site file (`5.minutes`, `"5m"`, `"90 s"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub StdDuration);

/// A number of bytes in scripts and in the site file (`16.gib`, `"16 GiB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

/// A text that prints as `***` and never enters journal, events or errors.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }
    /// The text itself; only for handing it to the other side.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `15m`, `1h 30m`, `2.5s`.
#[must_use]
pub fn show_duration(d: StdDuration) -> String {
    let ms = d.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let (h, m, s, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let mut parts = Vec::new();
    if h > 0 {
        parts.push(format!("{h}h"));
    }
    if m > 0 {
        parts.push(format!("{m}m"));
    }
    if rest > 0 && h == 0 && m == 0 {
        parts.push(format!("{}.{}s", s, format!("{rest:03}").trim_end_matches('0')));
    } else if s > 0 {
        parts.push(format!("{s}s"));
    }
    if parts.is_empty() { format!("{ms}ms") } else { parts.join(" ") }
}

fn split_unit(text: &str) -> Option<(f64, String)> {
    let t = text.trim();
    let end = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
    let n: f64 = t[..end].parse().ok()?;
    Some((n, t[end..].trim().to_ascii_lowercase()))
}

impl Duration {
    /// From whole seconds.
    #[must_use]
    pub const fn secs(s: u64) -> Self {
        Duration(StdDuration::from_secs(s))
    }
    /// From whole minutes.
    #[must_use]
    pub const fn minutes(m: u64) -> Self {
        Duration(StdDuration::from_secs(m * 60))
    }
    /// Reads `5m`, `90 s`, `1.5h`, `2 days`, `500ms`, `1h30m`.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("expected a duration such as `5m` or `90s`, found `{text}`");
        let mut total = 0.0;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let (n, _) = split_unit(rest).ok_or_else(bad)?;
            let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
            let after = rest[digits..].trim_start();
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let k = match after[..end].to_ascii_lowercase().as_str() {
                "ms" | "milliseconds" => 0.001,
                "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
                "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
                "h" | "hour" | "hours" => 3600.0,
                "d" | "day" | "days" => 86_400.0,
                _ => return Err(bad()),
            };
            total += n * k;
            rest = after[end..].trim_start();
        }
        StdDuration::try_from_secs_f64(total).map(Duration).map_err(|_| bad())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.0))
    }
}

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// From gibibytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Size(n << 30)
    }
    /// From mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Size(n << 20)
    }
    /// Whole mebibytes, rounded down.
    #[must_use]
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }
    /// Whole gibibytes, rounded up.
    #[must_use]
    pub const fn as_gib_ceil(self) -> u64 {
        self.0.div_ceil(1 << 30)
    }
    /// Reads `16 GiB`, `16g`, `512MiB`, `1T`, `1.5 TiB`.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("expected a size such as `16 GiB` (units: KiB, MiB, GiB, TiB), found `{text}`");
        let (n, unit) = split_unit(text).ok_or_else(bad)?;
        let k = match unit.as_str() {
            "b" => 1u64,
            "k" | "ki" | "kib" => 1 << 10,
            "m" | "mi" | "mib" => 1 << 20,
            "g" | "gi" | "gib" => 1 << 30,
            "t" | "ti" | "tib" => 1 << 40,
            _ => return Err(bad()),
        };
        let bytes = n * k as f64;
        if !(0.0..=9e18).contains(&bytes) {
            return Err(bad());
        }
        Ok(Size(bytes.round() as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, k) in UNITS {
            if self.0 >= k && self.0.is_multiple_of(k) {
                return write!(f, "{} {name}", self.0 / k);
            }
        }
        for (name, k) in UNITS {
            if self.0 >= k {
                return write!(f, "{:.1} {name}", self.0 as f64 / k as f64);
            }
        }
        write!(f, "0 B")
    }
}

macro_rules! text_serde {
    ($t:ty) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                <$t>::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(Duration);
text_serde!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, secs) in [("5m", 300), ("90 s", 90), ("1h30m", 5400), ("2 days", 172_800), ("15 minutes", 900)] {
            assert_eq!(Duration::parse(text).unwrap(), Duration::secs(secs), "{text}");
        }
        assert_eq!(Duration::secs(5400).to_string(), "1h 30m");
        assert_eq!(show_duration(StdDuration::from_millis(2500)), "2.5s");
        for bad in ["", "5", "m", "5 parsecs", "-1s"] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        assert_eq!(Size::parse("16 GiB").unwrap(), Size::gib(16));
        assert_eq!(Size::parse("1T").unwrap(), Size::gib(1024));
        assert_eq!(Size::gib(1024).to_string(), "1 TiB");
        assert_eq!(Size::gib(100).to_string(), "100 GiB");
        for bad in ["16", "GiB", "", "16 GB"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s} {s:?}"), "*** ***");
    }
}
