//! Units in scripts: `5.minutes`, `16.gib`, their arithmetic and comparison.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;

use crate::core::units::{Duration, Secret, Size};

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

fn secs(n: i64, k: u64) -> Duration {
    Duration::secs(u64::try_from(n).unwrap_or(0).saturating_mul(k))
}

fn bytes(n: i64, k: u64) -> Size {
    Size(u64::try_from(n).unwrap_or(0).saturating_mul(k))
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// So many seconds.
    #[rhai_fn(global, get = "seconds", pure)]
    pub fn seconds(n: &mut i64) -> Duration {
        secs(*n, 1)
    }
    /// So many minutes.
    #[rhai_fn(global, get = "minutes", pure)]
    pub fn minutes(n: &mut i64) -> Duration {
        secs(*n, 60)
    }
    /// So many hours.
    #[rhai_fn(global, get = "hours", pure)]
    pub fn hours(n: &mut i64) -> Duration {
        secs(*n, 3600)
    }
    /// So many days.
    #[rhai_fn(global, get = "days", pure)]
    pub fn days(n: &mut i64) -> Duration {
        secs(*n, 86_400)
    }
    /// So many mebibytes.
    #[rhai_fn(global, get = "mib", pure)]
    pub fn mib(n: &mut i64) -> Size {
        bytes(*n, 1 << 20)
    }
    /// So many gibibytes.
    #[rhai_fn(global, get = "gib", pure)]
    pub fn gib(n: &mut i64) -> Size {
        bytes(*n, 1 << 30)
    }
    /// So many tebibytes.
    #[rhai_fn(global, get = "tib", pure)]
    pub fn tib(n: &mut i64) -> Size {
        bytes(*n, 1 << 40)
    }
    /// Whole seconds of a duration.
    #[rhai_fn(global, get = "in_seconds", pure)]
    pub fn in_seconds(d: &mut Duration) -> i64 {
        i64::try_from(d.0.as_secs()).unwrap_or(i64::MAX)
    }
    /// Bytes of a size.
    #[rhai_fn(global, get = "in_bytes", pure)]
    pub fn in_bytes(s: &mut Size) -> i64 {
        i64::try_from(s.0).unwrap_or(i64::MAX)
    }
    /// Shown form.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn show_duration(d: &mut Duration) -> String {
        d.to_string()
    }
    /// Shown form.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn show_size(s: &mut Size) -> String {
        s.to_string()
    }
    /// Always `***`.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn show_secret(s: &mut Secret) -> String {
        s.to_string()
    }
    /// Equality.
    #[rhai_fn(global, name = "==")]
    pub fn eq_secret(a: Secret, b: Secret) -> bool {
        a.reveal() == b.reveal()
    }
    /// Inequality.
    #[rhai_fn(global, name = "!=")]
    pub fn ne_secret(a: Secret, b: Secret) -> bool {
        a.reveal() != b.reveal()
    }
    /// Sum.
    #[rhai_fn(global, name = "+")]
    pub fn add_duration(a: Duration, b: Duration) -> Duration {
        Duration(a.0.saturating_add(b.0))
    }
    /// Difference; never below zero.
    #[rhai_fn(global, name = "-")]
    pub fn sub_duration(a: Duration, b: Duration) -> Duration {
        Duration(a.0.saturating_sub(b.0))
    }
    /// Multiple.
    #[rhai_fn(global, name = "*")]
    pub fn mul_duration(a: Duration, n: i64) -> Duration {
        Duration(a.0.saturating_mul(u32::try_from(n).unwrap_or(0)))
    }
    /// Multiple.
    #[rhai_fn(global, name = "*")]
    pub fn times_duration(n: i64, a: Duration) -> Duration {
        mul_duration(a, n)
    }
    /// Equality.
    #[rhai_fn(global, name = "==")]
    pub fn eq_duration(a: Duration, b: Duration) -> bool {
        a == b
    }
    /// Inequality.
    #[rhai_fn(global, name = "!=")]
    pub fn ne_duration(a: Duration, b: Duration) -> bool {
        a != b
    }
    /// Shorter.
    #[rhai_fn(global, name = "<")]
    pub fn lt_duration(a: Duration, b: Duration) -> bool {
        a < b
    }
    /// Longer.
    #[rhai_fn(global, name = ">")]
    pub fn gt_duration(a: Duration, b: Duration) -> bool {
        a > b
    }
    /// Shorter or equal.
    #[rhai_fn(global, name = "<=")]
    pub fn le_duration(a: Duration, b: Duration) -> bool {
        a <= b
    }
    /// Longer or equal.
    #[rhai_fn(global, name = ">=")]
    pub fn ge_duration(a: Duration, b: Duration) -> bool {
        a >= b
    }
    /// Sum.
    #[rhai_fn(global, name = "+")]
    pub fn add_size(a: Size, b: Size) -> Size {
        Size(a.0.saturating_add(b.0))
    }
    /// Difference; never below zero.
    #[rhai_fn(global, name = "-")]
    pub fn sub_size(a: Size, b: Size) -> Size {
        Size(a.0.saturating_sub(b.0))
    }
    /// Multiple.
    #[rhai_fn(global, name = "*")]
    pub fn mul_size(a: Size, n: i64) -> Size {
        Size(a.0.saturating_mul(u64::try_from(n).unwrap_or(0)))
    }
    /// Multiple.
    #[rhai_fn(global, name = "*")]
    pub fn times_size(n: i64, a: Size) -> Size {
        mul_size(a, n)
    }
    /// Equality.
    #[rhai_fn(global, name = "==")]
    pub fn eq_size(a: Size, b: Size) -> bool {
        a == b
    }
    /// Inequality.
    #[rhai_fn(global, name = "!=")]
    pub fn ne_size(a: Size, b: Size) -> bool {
        a != b
    }
    /// Smaller.
    #[rhai_fn(global, name = "<")]
    pub fn lt_size(a: Size, b: Size) -> bool {
        a < b
    }
    /// Larger.
    #[rhai_fn(global, name = ">")]
    pub fn gt_size(a: Size, b: Size) -> bool {
        a > b
    }
    /// Smaller or equal.
    #[rhai_fn(global, name = "<=")]
    pub fn le_size(a: Size, b: Size) -> bool {
        a <= b
    }
    /// Larger or equal.
    #[rhai_fn(global, name = ">=")]
    pub fn ge_size(a: Size, b: Size) -> bool {
        a >= b
    }
}
