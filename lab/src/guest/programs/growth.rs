//! Sizes of file systems: `resize2fs`, `xfs_growfs`, `xfs_info`, `growpart`, `tune2fs -l`.
use super::disks::{all, device};
use super::{Call, Program, now, of};
use crate::guest::hw::Block;
use crate::volume::Volume;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/sbin/resize2fs", resize2fs),
    now("/usr/sbin/tune2fs", tune2fs),
    now("/usr/bin/growpart", growpart),
    of("xfsprogs", now("/usr/sbin/xfs_growfs", xfs_growfs)),
    of("xfsprogs", now("/usr/sbin/xfs_info", xfs_info)),
];

const BLOCK: u64 = 4096;

/// Changes the volume under a device.
fn change(c: &Call, b: &Block, act: impl FnOnce(&mut Volume)) {
    c.world(|w| {
        if let Some(v) = w.volumes.get_mut(&b.volid) {
            act(v);
        }
    });
}

/// The file system reaches to the end of its device.
fn fill(c: &Call, b: &Block) {
    let part = !b.disk.is_empty();
    change(c, b, |v| v.reach.fs = if part { v.reach.partition } else { None });
}

fn resize2fs(c: &mut Call) -> i32 {
    let Some(name) = c.operands(&["-S", "-d"]).first().cloned() else {
        return c.fail(1, "Usage: resize2fs [-d debug_flags] [-f] [-F] [-M] [-P] [-p] device [-b|-s|new_size] [-S RAID-stride] [-z undo_file]");
    };
    if c.operands(&["-S", "-d"]).len() > 1 || c.has(&["-M", "-P", "-b", "-s"]) {
        return c.unsimulated("(a size of one's own)");
    }
    c.complain("resize2fs 1.47.0 (5-Feb-2023)");
    let Some(b) = device(c, &name) else {
        return c.fail(1, &format!("open: No such file or directory while opening {name}"));
    };
    if c.who.uid != 0 {
        return c.fail(1, &format!("open: Permission denied while opening {name}"));
    }
    if !b.fstype.starts_with("ext") {
        let text = format!(
            "resize2fs: Bad magic number in super-block while trying to open {name}\nCouldn't find valid filesystem superblock."
        );
        return c.fail(1, &text);
    }
    if b.fs_size == b.size {
        c.line(&format!("The filesystem is already {} (4k) blocks long.  Nothing to do!\n", b.size / BLOCK));
        return 0;
    }
    let Some(at) = b.mounted.first() else {
        return c.fail(1, &format!("Please run 'e2fsck -f {name}' first.\n"));
    };
    c.line(&format!("Filesystem at {name} is mounted on {at}; on-line resizing required"));
    let descriptors = |bytes: u64| (bytes >> 27).div_ceil(64).max(1);
    c.line(&format!("old_desc_blocks = {}, new_desc_blocks = {}", descriptors(b.fs_size), descriptors(b.size)));
    c.line(&format!("The filesystem on {name} is now {} (4k) blocks long.\n", b.size / BLOCK));
    fill(c, &b);
    0
}

fn tune2fs(c: &mut Call) -> i32 {
    let Some(name) = c.operands(&[]).first().cloned().filter(|_| c.has(&["-l"]) && c.args.len() == 2) else {
        return c.unsimulated("(other than -l)");
    };
    c.line("tune2fs 1.47.0 (5-Feb-2023)");
    let Some(b) = device(c, &name) else {
        return c.fail(1, &format!("tune2fs: No such file or directory while trying to open {name}"));
    };
    if c.who.uid != 0 {
        return c.fail(1, &format!("tune2fs: Permission denied while trying to open {name}"));
    }
    if !b.fstype.starts_with("ext") {
        return c.fail(1, &format!("tune2fs: Bad magic number in super-block while trying to open {name}"));
    }
    let label = if b.label.is_empty() { "<none>" } else { &b.label };
    let at = b.mounted.first().map_or("<not available>", String::as_str);
    let text = format!(
        "Filesystem volume name:   {label}\nLast mounted on:          {at}\nFilesystem UUID:          {}\n\
         Filesystem magic number:  0xEF53\nFilesystem revision #:    1 (dynamic)\nFilesystem state:         clean\n\
         Filesystem OS type:       Linux\nInode count:              {}\nBlock count:              {}\n\
         Block size:               {BLOCK}\n",
        b.uuid,
        b.fs_size / 16_384,
        b.fs_size / BLOCK
    );
    c.print(&text);
    0
}

fn growpart(c: &mut Call) -> i32 {
    let ops = c.operands(&["--fudge", "-u", "--update"]);
    let [disk, number] = ops.as_slice() else { return c.fail(2, "FAILED: must supply disk and partition-number") };
    let Some(d) = device(c, disk) else { return c.fail(2, &format!("FAILED: {disk}: does not exist")) };
    let name = format!("{}{number}", d.name);
    let parts = all(c);
    let Some(p) = parts.iter().find(|p| p.disk == d.name && p.name == name) else {
        return c.fail(2, &format!("FAILED: failed to get start and end for {disk}{number} in {disk}"));
    };
    if c.who.uid != 0 {
        return c.fail(2, &format!("FAILED: {disk} is not writable"));
    }
    let behind = parts.iter().any(|o| o.disk == d.name && o.start > p.start);
    let end = p.start + p.size;
    let sectors = |b: u64| b / 512;
    if behind || end >= d.size {
        c.line(&format!("NOCHANGE: partition {number} is size {}. it cannot be grown", sectors(p.size)));
        return 1;
    }
    let dry = c.has(&["-N", "--dry-run"]);
    c.line(&format!(
        "{}: partition={number} start={} old: size={} end={} new: size={} end={}",
        if dry { "CHANGE" } else { "CHANGED" },
        sectors(p.start),
        sectors(p.size),
        sectors(end),
        sectors(d.size - p.start),
        sectors(d.size)
    ));
    if !dry {
        change(c, p, |v| v.reach.partition = None);
    }
    0
}

fn geometry(b: &Block) -> String {
    let blocks = b.fs_size / BLOCK;
    format!(
        "meta-data={}               isize=512    agcount=4, agsize={} blks\n\
         data     =                       bsize={BLOCK}   blocks={blocks}, imaxpct=25\n\
         naming   =version 2              bsize={BLOCK}   ascii-ci=0, ftype=1\n",
        b.path(),
        blocks / 4
    )
}

/// The xfs that an operand means: its device, or where it is mounted.
fn xfs_of(c: &Call, name: &str) -> Option<Block> {
    let at = c.path(name);
    let mounted = all(c).into_iter().find(|b| b.mounted.contains(&at));
    mounted.or_else(|| device(c, name)).filter(|b| b.fstype == "xfs")
}

fn xfs_info(c: &mut Call) -> i32 {
    let Some(name) = c.operands(&["-t"]).first().cloned() else {
        return c.fail(1, "Usage: xfs_info [-V] [-t mtab] [mountpoint|device|file]");
    };
    let Some(b) = xfs_of(c, &name) else { return c.fail(1, &format!("xfs_info: cannot open {name}: Is a directory")) };
    c.print(&geometry(&b));
    0
}

fn xfs_growfs(c: &mut Call) -> i32 {
    let Some(name) = c.operands(&["-D", "-e", "-L", "-m", "-R", "-t"]).first().cloned() else {
        return c.fail(2, "Usage: xfs_growfs [options] mountpoint");
    };
    let Some(b) = xfs_of(c, &name).filter(|b| !b.mounted.is_empty()) else {
        return c.fail(1, &format!("xfs_growfs: {name} is not a mounted XFS filesystem"));
    };
    if c.who.uid != 0 {
        return c.fail(1, "xfs_growfs: XFS_IOC_FSGROWFSDATA xfsctl failed: Operation not permitted");
    }
    c.print(&geometry(&b));
    if b.fs_size < b.size && !c.has(&["-n"]) {
        c.line(&format!("data blocks changed from {} to {}", b.fs_size / BLOCK, b.size / BLOCK));
        fill(c, &b);
    }
    0
}
