//! Points in time as people and file names write them (UTC), and this machine's clock.
use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::stamp;

pub use stamp::iso;

/// Milliseconds since 1970 of what [`iso`] wrote.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    u64::try_from(stamp::millis(text)?).ok()
}

/// `20261123T033000.250Z`, for file names.
#[must_use]
pub fn stamp(ms: u64) -> String {
    stamp::compact(ms)
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
