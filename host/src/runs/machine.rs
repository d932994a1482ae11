//! Which machine and which process this is, so that a holder that has died can be told from one that lives.
use std::path::Path;

use sha2::{Digest, Sha256};

/// Overrides the host name under which locks are taken, for machines that share one (containers).
pub const HOSTNAME: &str = "GPUHOST_HOSTNAME";

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

/// Name of this machine.
#[must_use]
pub fn host() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    named(HOSTNAME)
        .or_else(|| read("/proc/sys/kernel/hostname"))
        .or_else(|| named("HOSTNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Name of the user.
#[must_use]
pub fn user() -> String {
    ["USER", "LOGNAME"].iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty())).unwrap_or_else(|| {
        // Without a login: the owner of our own process.
        std::fs::metadata("/proc/self").map_or_else(
            |_| "unknown".to_owned(),
            |_m| {
                #[cfg(unix)]
                return format!("uid{}", std::os::unix::fs::MetadataExt::uid(&_m));
                #[cfg(not(unix))]
                "unknown".to_owned()
            },
        )
    })
}

/// Changes with every boot, every host name and every namespace of process ids: within one value, process
/// ids can be compared.
#[must_use]
pub fn boot() -> String {
    let parts = [
        read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        std::fs::read_link("/proc/self/ns/pid").map(|p| p.display().to_string()).unwrap_or_default(),
        host(),
    ];
    Sha256::digest(parts.join("\n")).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// When a process was started, in ticks since boot; `None` when there is no such process.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The program's name is in parentheses and may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // A zombie has ended; only its parent has not looked yet.
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// `4711/123456`: process id and when it was started; unique within one boot.
#[must_use]
pub fn process() -> String {
    let pid = std::process::id();
    format!("{pid}/{}", started(pid).unwrap_or(0))
}

/// Whether a process of this machine still runs; `None` when that cannot be known here.
#[must_use]
pub fn runs(process: &str) -> Option<bool> {
    if !Path::new("/proc/self/stat").exists() {
        return None;
    }
    let (pid, start) = process.split_once('/')?;
    Some(started(pid.parse().ok()?) == start.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_an_old_one_does_not() {
        if !Path::new("/proc/self/stat").exists() {
            return;
        }
        let me = process();
        assert_eq!(runs(&me), Some(true));
        let pid = std::process::id();
        assert_eq!(runs(&format!("{pid}/1")), Some(false), "the id is taken by a younger process");
        assert_eq!(runs("4194399/5"), Some(false));
        assert_eq!(boot(), boot());
    }
}
