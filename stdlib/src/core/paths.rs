//! Folders of a Linux system that no disk of ours may cover: its files would be hidden, and the machine would not start again.

/// Folders by their own name; what lies below them may be a mount of its own (`/var/log`).
const SYSTEM: &[&str] = &[
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var",
    "/var/lib",
];

/// Whether a disk mounted at `path` would cover files that the system runs from.
///
/// # Examples
/// `/var/lib/` is one of these folders, `/var/lib/longhorn` is none.
#[must_use]
pub fn is_systems(path: &str) -> bool {
    let trimmed = path.trim_end_matches('/');
    SYSTEM.contains(&if trimmed.is_empty() { "/" } else { trimmed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_system_are_known_by_their_own_name() {
        assert!(["/", "//", "/etc", "/var/lib/", "/usr"].into_iter().all(is_systems));
        assert!(!["/srv", "/mnt/scratch", "/var/log", "/var/lib/rancher", "/home"].into_iter().any(is_systems));
    }
}
