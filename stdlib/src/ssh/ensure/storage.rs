//! Wanted file systems. A file system is only made on a device named by id and proven blank.
use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::files::unreadable;
use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// Kinds that can be made.
pub(super) const KINDS: [&str; 2] = ["ext4", "xfs"];

/// A file system on a whole device.
pub(super) struct Filesystem {
    pub device: String,
    pub fs: String,
    pub label: Option<String>,
}

/// Shell text: prints `absent`, `blank`, or `used KEY=VALUE …`; `p` is the device.
/// Blank is what both blkid (exit code 2) and wipefs prove, with nothing on or in it; all else counts as used.
const PROBE: &str = "if [ ! -e \"$p\" ]; then echo absent\n\
    elif ! command -v wipefs >/dev/null 2>&1; then echo \"used UNKNOWN=no-wipefs-to-look-with\"; else\n\
    b=$(blkid -p -o export \"$p\" 2>/dev/null); r=$?\n\
    w=$(wipefs -n \"$p\" 2>/dev/null); s=$?\n\
    n=$(lsblk -n -o NAME \"$p\" 2>/dev/null | wc -l)\n\
    if [ -n \"$b\" ]; then printf 'used %s\\n' \"$(printf %s \"$b\" | tr '\\n' ' ')\"\n\
    elif [ \"$r\" -ne 2 ]; then echo \"used BLKID=$r\"\n\
    elif [ \"$s\" -ne 0 ]; then echo \"used WIPEFS=$s\"\n\
    elif [ -n \"$w\" ]; then echo 'used SIGNATURE=unknown'\n\
    elif [ \"$n\" -gt 1 ]; then echo 'used PARTITIONS=yes'\n\
    else echo blank; fi; fi";

fn value<'a>(found: &'a str, key: &str) -> Option<&'a str> {
    found.split_whitespace().filter_map(|w| w.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
}

impl Item for Filesystem {
    fn what(&self) -> String {
        format!("file system on {}", self.device)
    }
    fn phase(&self) -> Phase {
        Phase::Filesystems
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!("p={}; {PROBE}", quote(&self.device)))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let shown = match &self.label {
            Some(l) => format!("{} {l}", self.fs),
            None => self.fs.clone(),
        };
        match found.split_whitespace().next().unwrap_or_default() {
            "absent" => Err(OpError::not_found(format!("there is no device {}", self.device))
                .hint("look at /dev/disk/by-id on the host; the serial comes from the VM's disk")),
            "blank" => {
                let label = self.label.as_ref().map_or(String::new(), |l| format!("-L {} ", quote(l)));
                // Looks once more right before: what was proven blank may have been filled meanwhile.
                let act = format!(
                    "p={}\ns=$({PROBE})\n[ \"$s\" = blank ] || {{ echo \"$p is no longer blank: $s\"; return 1; }}\n\
                     mkfs.{} {label}\"$p\" || return 1\nudevadm settle >/dev/null 2>&1 || true",
                    quote(&self.device),
                    self.fs
                );
                Ok(Some(Diff::one(Part::new(self.what(), None, text(shown)), act)))
            }
            "used" => {
                let (fs, label) = (value(found, "TYPE"), value(found, "LABEL"));
                if fs == Some(self.fs.as_str()) && (self.label.is_none() || label == self.label.as_deref()) {
                    return Ok(None);
                }
                let holds = found.trim().trim_start_matches("used ").to_owned();
                Err(OpError::conflict(format!("{} is not blank, so no file system is made on it", self.device))
                    .because(format!("it holds {holds}; wanted is {shown}"))
                    .hint(format!("if nothing on it is needed, empty it yourself: wipefs -a {}", self.device)))
            }
            _ => Err(unreadable(&self.what(), found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fs() -> Filesystem {
        Filesystem { device: "/dev/disk/by-id/x".into(), fs: "ext4".into(), label: Some("data".into()) }
    }

    #[test]
    fn only_blank_devices_are_formatted() {
        let d = fs().diff("blank\n", &Changed::new()).unwrap().unwrap();
        assert!(d.act.contains("mkfs.ext4 -L data \"$p\""), "{}", d.act);
        assert_eq!(fs().diff("used DEVNAME=/dev/sdb LABEL=data UUID=1 TYPE=ext4 ", &Changed::new()).unwrap(), None);
        for used in
            ["used TYPE=ext4 LABEL=other", "used TYPE=xfs LABEL=data", "used PTTYPE=gpt", "used SIGNATURE=unknown"]
        {
            let e = fs().diff(used, &Changed::new()).unwrap_err();
            assert_eq!(e.message, "/dev/disk/by-id/x is not blank, so no file system is made on it", "{used}");
        }
        assert_eq!(fs().diff("absent", &Changed::new()).unwrap_err().message, "there is no device /dev/disk/by-id/x");
    }
}
