//! The site's lock: taken before the first effect of a run, renewed while it lasts, checked before every effect.
pub mod command;
pub mod hold;
pub mod take;
pub mod verdict;

/// Lease of a holder in seconds; a dead one blocks others for at most this long.
pub const LEASE_S: u64 = 120;
/// How often a living holder renews, in seconds.
pub const BEAT_S: u64 = 30;
/// The lock is re-read before an effect when it was last seen longer ago than this, in milliseconds.
pub const FRESH_MS: u64 = 3_000;
