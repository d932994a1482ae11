//! Which settings of a running VM take effect when.
use super::props;

/// Settings that a running machine takes over at once; all others that cannot be plugged in wait for its next start.
pub const AT_ONCE: &[&str] = &[
    "name",
    "description",
    "tags",
    "onboot",
    "startup",
    "protection",
    "shares",
    "hookscript",
    "vmstatestorage",
    "cpulimit",
    "cpuunits",
];

/// Settings of cloud-init, without their numbers: they are written to its drive, and read at the next boot.
pub const CLOUD_INIT: &[&str] =
    &["cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "ipconfig", "nameserver", "searchdomain", "sshkeys"];

/// Whether a key is one of cloud-init's.
#[must_use]
pub fn is_cloud_init(key: &str) -> bool {
    CLOUD_INIT.contains(&props::numbered(key).0)
}
