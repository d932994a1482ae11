//! Wanted swap: none, or a file of a size.
use crate::core::error::{OpError, OpResult};
use crate::core::units::Size;
use crate::ssh::quote::quote;

use super::files::{Seen, unreadable};
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// Prints the names of what is swapped to.
const ACTIVE: &str =
    "while read -r n x; do if [ \"$n\" != Filename ]; then printf '%s\\n' \"$n\"; fi; done </proc/swaps";

/// No swap in use.
pub(super) struct SwapOff;

impl Item for SwapOff {
    fn what(&self) -> String {
        "swap".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Swap
    }
    fn probe(&self) -> Probe {
        Probe::Shell(ACTIVE.to_owned())
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let devices = found.split_whitespace().collect::<Vec<_>>().join(" ");
        let part = Part::new("swap", text(devices.clone()), text("off"));
        Ok((!devices.is_empty()).then(|| Diff::one(part, "swapoff -a")))
    }
}

/// A swap file in use (its line in fstab is an edit of its own).
pub(super) struct SwapFile {
    pub path: String,
    pub size: Size,
}

impl Item for SwapFile {
    fn what(&self) -> String {
        format!("swap {}", self.path)
    }
    fn phase(&self) -> Phase {
        Phase::Swap
    }
    fn probe(&self) -> Probe {
        let p = quote(&self.path);
        Probe::Shell(format!(
            "if [ -f {p} ]; then echo \"file $(stat -c '%a %U:%G %u:%g %s' {p})\"; elif [ -e {p} ]; then echo other; \
             else echo absent; fi\n{ACTIVE}"
        ))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let mut lines = found.lines();
        let first = lines.next().unwrap_or_default();
        if first == "other" {
            return Err(OpError::conflict(format!("{} is there, but is no file", self.path)));
        }
        let seen = Seen::read(&self.what(), first)?;
        let active = lines.any(|l| l == self.path);
        let size = seen.more.map(|s| s.parse::<u64>().map_err(|_| unreadable(&self.what(), found))).transpose()?;
        let p = quote(&self.path);
        let after = text(format!("{} in use", self.size));
        let use_it = format!("chmod 0600 {p} && swapon {p}");
        if size == Some(self.size.0) {
            let part = Part::new(self.what(), text(format!("{} not in use", self.size)), after);
            // What is there may be no swap area yet.
            let act = format!("{{ swapon {p} 2>/dev/null && return 0; }}; mkswap {p} && {use_it}");
            return Ok((!active).then(|| Diff::one(part, act)));
        }
        let before = size.map(|s| format!("{}{}", Size(s), if active { " in use" } else { "" })).and_then(text);
        let off = if active { format!("swapoff {p} && ") } else { String::new() };
        let mib = self.size.0 >> 20;
        // A file with holes cannot be swapped to; not every file system knows fallocate.
        let act = format!(
            "{off}rm -f {p} && ( umask 077; fallocate -l {} {p} 2>/dev/null || dd if=/dev/zero of={p} bs=1048576 \
             count={mib} ) && mkswap {p} && {use_it}",
            self.size.0
        );
        Ok(Some(Diff::one(Part::new(self.what(), before, after), act)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_goes_or_comes() {
        let none = Changed::new();
        assert_eq!(SwapOff.diff(" \n", &none).unwrap(), None);
        assert!(SwapOff.diff("/dev/sda2\n/swap\n", &none).unwrap().is_some());
        let f = SwapFile { path: "/swapfile".into(), size: Size::gib(1) };
        assert_eq!(f.diff("file 600 root:root 0:0 1073741824\n/swapfile\n", &none).unwrap(), None);
        let act = |found: &str| f.diff(found, &none).unwrap().unwrap().act;
        assert!(act("file 600 root:root 0:0 1073741824\n").contains("mkswap /swapfile && chmod 0600"));
        assert!(act("file 600 root:root 0:0 5\n/swapfile\n").starts_with("swapoff /swapfile && rm -f /swapfile"));
        assert!(act("absent\n").starts_with("rm -f /swapfile && ( umask 077; fallocate -l 1073741824"));
        assert!(f.diff("other\n", &none).is_err());
    }
}
