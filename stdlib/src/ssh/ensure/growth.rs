//! File systems that end before their device does: a disk was grown under them. Grown while mounted, never shrunk.
use crate::core::error::OpResult;
use crate::core::units::Size;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Part, Phase, Probe, text};

/// A rest that is left alone: no block group of ext4 fits into it.
const REST: u64 = 128 << 20;

/// Shell text: prints `fs KIND DEVICE-BYTES BLOCKS BLOCK-BYTES` for the device `p`, as far as it can be told.
const LOOK: &str = "t=$(blkid -p -s TYPE -o value \"$p\" 2>/dev/null)\n\
    c= z=\n\
    case $t in\n\
    ext[234])\n\
    c=$(tune2fs -l \"$p\" 2>/dev/null | sed -n 's/^Block count: *//p')\n\
    z=$(tune2fs -l \"$p\" 2>/dev/null | sed -n 's/^Block size: *//p') ;;\n\
    xfs)\n\
    c=$(xfs_info \"$p\" 2>/dev/null | sed -n 's/^data .* blocks=\\([0-9]*\\).*/\\1/p')\n\
    z=$(xfs_info \"$p\" 2>/dev/null | sed -n 's/^data .*bsize=\\([0-9]*\\) .*/\\1/p') ;;\n\
    esac\n\
    printf 'fs %s %s %s %s\\n' \"${t:-none}\" \"$(blockdev --getsize64 \"$p\" 2>/dev/null)\" \"$c\" \"$z\"";

/// Shell text: grows the file system of kind `t` on `p`.
const GROW: &str = "case $t in\n\
    xfs)\n\
    m= r=$(readlink -f \"$p\")\n\
    while read -r d f x; do [ \"$d\" != \"$r\" ] || m=$f; done </proc/self/mounts\n\
    [ -n \"$m\" ] || { echo \"xfs grows only while it is mounted, and $p is not\"; return 1; }\n\
    xfs_growfs \"$m\" ;;\n\
    *) resize2fs \"$p\" ;;\n\
    esac";

/// The kind of the file system, its size and its device's; `None` when that cannot be told.
fn sizes(line: &str) -> Option<(&str, u64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["fs", kind, device, blocks, bytes] = words[..] else { return None };
    let size = blocks.parse::<u64>().ok()?.checked_mul(bytes.parse().ok()?)?;
    Some((kind, size, device.parse().ok()?))
}

fn shown(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 30);
    if tenths.is_multiple_of(10) || bytes < 1 << 30 {
        return Size::mib(bytes >> 20).to_string();
    }
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// The file system on a whole device reaches to its end.
pub(super) struct Grown {
    pub device: String,
}

impl Item for Grown {
    fn what(&self) -> String {
        format!("size of the file system on {}", self.device)
    }
    /// After what is mounted in this run: ext4 that is not mounted would have to be checked first, xfs cannot grow then.
    fn phase(&self) -> Phase {
        Phase::BelowMounts
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!("p={}; if [ -e \"$p\" ]; then {LOOK}; fi", quote(&self.device)))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let Some((kind, size, device)) = sizes(found) else { return Ok(None) };
        if device < size.saturating_add(REST) {
            return Ok(None);
        }
        let part = Part::new(self.what(), text(shown(size)), text(shown(device)));
        Ok(Some(Diff::one(part, format!("p={} t={}\n{GROW}", quote(&self.device), quote(kind)))))
    }
}

/// The partition of `/`, when it is the last one of its disk, and the file system on it reach to the disk's end.
pub(super) struct RootGrown;

/// Prints `root DISK NUMBER PARTITION START SECTORS DISK-SECTORS LAST`, then the file system's line; nothing where `/` is
/// on no partition.
const ROOT: &str = "p=; while read -r d f x; do if [ \"$f\" = / ]; then p=$d; fi; done </proc/self/mounts\n\
    [ ! -e \"$p\" ] || p=$(readlink -f \"$p\")\n\
    for b in /sys/block/*; do if [ -n \"$p\" ] && [ -e \"$b/${p##*/}/partition\" ]; then\n\
    a=$(cat \"$b/${p##*/}/start\"); l=yes\n\
    for o in \"$b\"/*/start; do if [ \"$(cat \"$o\")\" -gt \"$a\" ]; then l=no; fi; done\n\
    printf 'root /dev/%s %s %s %s %s %s %s\\n' \"${b##*/}\" \"$(cat \"$b/${p##*/}/partition\")\" \"$p\" \"$a\" \
    \"$(cat \"$b/${p##*/}/size\")\" \"$(cat \"$b/size\")\" \"$l\"\n";

/// What `/` stands on: the words of [`ROOT`]'s first line.
struct Root<'a> {
    disk: &'a str,
    number: &'a str,
    partition: &'a str,
    /// Bytes of the partition.
    long: u64,
    /// Bytes of the disk behind it.
    free: u64,
    /// Whether nothing lies behind it.
    last: bool,
}

impl<'a> Root<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["root", disk, number, partition, start, sectors, whole, last] = words[..] else { return None };
        let bytes = |t: &str| t.parse::<u64>().ok().and_then(|n| n.checked_mul(512));
        let (start, long, whole) = (bytes(start)?, bytes(sectors)?, bytes(whole)?);
        let free = whole.saturating_sub(start.saturating_add(long));
        Some(Root { disk, number, partition, long, free, last: last == "yes" })
    }
}

impl Item for RootGrown {
    fn what(&self) -> String {
        "size of the root file system".to_owned()
    }
    fn phase(&self) -> Phase {
        Phase::Filesystems
    }
    fn probe(&self) -> Probe {
        Probe::Shell(format!("{ROOT}{LOOK}\nfi; done"))
    }
    fn diff(&self, found: &str, _: &Changed) -> OpResult<Option<Diff>> {
        let mut lines = found.lines();
        let Some(root) = lines.next().and_then(Root::read) else { return Ok(None) };
        let Some((kind, size, _)) = lines.next().and_then(sizes) else { return Ok(None) };
        let partition_grows = root.last && root.free >= REST;
        let end = if partition_grows { root.long + root.free } else { root.long };
        if end < size.saturating_add(REST) {
            return Ok(None);
        }
        // growpart ends with 1 where the partition is as long as it can be.
        let grow = format!(
            "command -v growpart >/dev/null 2>&1 || {{ echo 'growpart is not there: it is in the package \
             cloud-guest-utils'; return 1; }}\ngrowpart {} {} || [ $? -eq 1 ] || return 1\n",
            quote(root.disk),
            quote(root.number)
        );
        let grow = if partition_grows { grow } else { String::new() };
        let part = Part::new(self.what(), text(shown(size)), text(shown(end)));
        Ok(Some(Diff::one(part, format!("{grow}p={} t={}\n{GROW}", quote(root.partition), quote(kind)))))
    }
}

/// Room on a disk that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Serial of the disk, or its name where it has none; empty for that of `/`.
    pub disk: String,
    /// Bytes behind the last partition.
    pub behind: u64,
    /// Bytes of the device behind the file system's end.
    pub within: u64,
}

/// Shell text that looks for what `ensure` would grow, with the program that `ensure` looks with.
#[must_use]
pub fn survey() -> String {
    format!(
        "{ROOT}{LOOK}\nfi; done\nlsblk -d -n -o NAME,SERIAL 2>/dev/null | while read -r n s; do p=/dev/$n\n\
         printf 'disk %s\\n' \"${{s:-$n}}\"\n{LOOK}\ndone\n"
    )
}

/// What a [`survey`] found: disks with a file system that does not reach to its end.
#[must_use]
pub fn unused(found: &str) -> Vec<Unused> {
    let mut out = Vec::new();
    let mut lines = found.lines().peekable();
    while let Some(head) = lines.next() {
        let root = Root::read(head);
        let Some(disk) = root.as_ref().map(|_| "").or_else(|| head.strip_prefix("disk ")) else { continue };
        let Some((_, size, device)) = lines.next_if(|l| l.starts_with("fs ")).and_then(sizes) else { continue };
        let behind = root.map_or(0, |r| if r.last { r.free } else { 0 });
        let counted = |bytes: u64| if bytes < REST { 0 } else { bytes };
        let (behind, within) = (counted(behind), counted(device.saturating_sub(size)));
        if behind + within > 0 {
            out.push(Unused { disk: disk.trim().to_owned(), behind, within });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of_data(found: &str) -> Option<Diff> {
        Grown { device: "/dev/disk/by-id/x".into() }.diff(found, &Changed::new()).unwrap()
    }

    fn line(kind: &str, device: u64, size: u64) -> String {
        format!("fs {kind} {device} {} 4096\n", size / 4096)
    }

    #[test]
    fn a_file_system_follows_its_device_and_a_rest_does_not_count() {
        let d = of_data(&line("ext4", 4 * GIB, 2 * GIB)).unwrap();
        assert_eq!((d.parts[0].before.clone(), d.parts[0].after.clone()), (text("2 GiB"), text("4 GiB")));
        assert!(d.act.contains("t=ext4") && d.act.contains("resize2fs \"$p\""), "{}", d.act);
        assert_eq!(of_data(&line("ext4", 4 * GIB, 4 * GIB - (100 << 20))), None);
        assert!(of_data(&line("xfs", 4 * GIB, 3 * GIB)).unwrap().act.contains("xfs_growfs \"$m\""));
        for unknown in ["", "fs none 1024 \n", "fs btrfs 4294967296 \n", "fs ext4 8589934592 x 4096\n"] {
            assert_eq!(of_data(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_survey_names_the_disks_that_are_not_in_use_to_their_ends() {
        let root =
            format!("root /dev/sda 1 /dev/sda1 {} {} {} yes", (128_u64 << 20) / 512, 10 * GIB / 512, 20 * GIB / 512);
        let found = format!(
            "{root}\n{}disk drive-scsi0\nfs none 1 \ndisk data\n{}disk sdc\n{}disk sr0\nfs none  \n",
            line("ext4", 10 * GIB, 8 * GIB),
            line("xfs", 80 * GIB, 50 * GIB),
            line("ext4", 4 * GIB, 4 * GIB)
        );
        let room = |disk: &str, behind, within| Unused { disk: disk.to_owned(), behind, within };
        assert_eq!(unused(&found), [room("", 10 * GIB - (128 << 20), 2 * GIB), room("data", 0, 30 * GIB)]);
        assert!(unused("").is_empty() && unused("nonsense\nfs ext4 1 1 1\n").is_empty());
        assert!(survey().contains("blockdev --getsize64") && survey().contains("lsblk -d -n"));
    }

    #[test]
    fn the_root_partition_grows_when_nothing_lies_behind_it() {
        let sectors = |b: u64| b / 512;
        let found = |last: &str, long: u64, size: u64| {
            let (start, whole) = (sectors(128 << 20), sectors(20 * GIB));
            format!("root /dev/sda 1 /dev/sda1 {start} {} {whole} {last}\n{}", sectors(long), line("ext4", long, size))
        };
        let of = |t: String| RootGrown.diff(&t, &Changed::new()).unwrap();
        let d = of(found("yes", 10 * GIB, 10 * GIB)).unwrap();
        assert!(d.act.contains("growpart /dev/sda 1") && d.act.contains("p=/dev/sda1 t=ext4"), "{}", d.act);
        assert_eq!(of(found("no", 10 * GIB, 10 * GIB)), None);
        // The partition has been grown, and the run ended there.
        let d = of(found("yes", 20 * GIB - (129 << 20), 10 * GIB)).unwrap();
        assert!(!d.act.contains("growpart") && d.act.contains("resize2fs"), "{}", d.act);
        assert_eq!(of(found("yes", 20 * GIB - (129 << 20), 20 * GIB - (129 << 20))), None);
        assert_eq!(of(String::new()), None);
    }
}
