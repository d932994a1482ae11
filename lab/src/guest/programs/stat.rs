//! What files are: `stat`, and what `ls` shows of them as well.
use super::{Call, Program, now};
use crate::guest::accounts::{group_name, user_name};
use crate::guest::fs::Who;
use crate::guest::fs::tree::{Kind, Node, is_below};
use crate::guest::journal::civil;

pub(super) const PROGRAMS: &[Program] = &[now("/usr/bin/stat", stat)];

const DEVICE: u32 = 0o060_000;
const CHARACTER: u32 = 0o020_000;

/// Words for an error of a file.
pub(super) fn reason(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::NotFound => "No such file or directory",
        std::io::ErrorKind::PermissionDenied => "Permission denied",
        std::io::ErrorKind::NotADirectory => "Not a directory",
        std::io::ErrorKind::IsADirectory => "Is a directory",
        std::io::ErrorKind::ReadOnlyFilesystem => "Read-only file system",
        std::io::ErrorKind::AlreadyExists => "File exists",
        _ => "Input/output error",
    }
}

fn type_name(n: &Node) -> &'static str {
    match (&n.kind, n.mode & 0o170_000) {
        (Kind::Dir, _) => "directory",
        (Kind::Link(_), _) => "symbolic link",
        (Kind::Fifo, _) => "fifo",
        (_, DEVICE) => "block special file",
        (_, CHARACTER) => "character special file",
        (Kind::File(b), _) if b.is_empty() => "regular empty file",
        _ => "regular file",
    }
}

/// Type and permissions as `ls -l` writes them.
pub(super) fn letters(n: &Node) -> String {
    let first = match (&n.kind, n.mode & 0o170_000) {
        (Kind::Dir, _) => 'd',
        (Kind::Link(_), _) => 'l',
        (Kind::Fifo, _) => 'p',
        (_, DEVICE) => 'b',
        (_, CHARACTER) => 'c',
        _ => '-',
    };
    let mut s: Vec<char> =
        (0..9).rev().map(|i| if n.mode >> i & 1 == 1 { ['x', 'w', 'r'][i as usize % 3] } else { '-' }).collect();
    for (bit, at, on, off) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if n.mode & bit != 0 {
            s[at] = if s[at] == 'x' { on } else { off };
        }
    }
    std::iter::once(first).chain(s).collect()
}

fn raw_mode(n: &Node) -> u32 {
    let kind = match (&n.kind, n.mode & 0o170_000) {
        (Kind::Dir, _) => 0o040_000,
        (Kind::Link(_), _) => 0o120_000,
        (Kind::Fifo, _) => 0o010_000,
        (_, 0) => 0o100_000,
        (_, k) => k,
    };
    kind | (n.mode & 0o7777)
}

/// Number of the inode at a path.
pub(super) fn inode(path: &str) -> u32 {
    path.bytes().fold(17u32, |x, b| x.wrapping_mul(31).wrapping_add(u32::from(b))) & 0xf_ffff
}

/// Names that lead to a node: a directory's own, its `.` and the `..` of those in it.
pub(super) fn links(c: &Call, path: &str, n: &Node) -> usize {
    if !n.is_dir() {
        return 1;
    }
    2 + c.m.files.list(&Who::root(), path).unwrap_or_default().iter().filter(|(_, n)| n.is_dir()).count()
}

/// Space on the disk in units of 512 bytes.
pub(super) fn sectors(n: &Node) -> u64 {
    match &n.kind {
        Kind::File(_) if n.mode & 0o170_000 == 0 => n.size().div_ceil(4096) * 8,
        Kind::Dir => 8,
        _ => 0,
    }
}

/// Major and minor number of a device.
pub(super) fn numbers(path: &str, n: &Node) -> Option<(u32, u32)> {
    let name = path.strip_prefix("/dev/")?;
    if n.mode & 0o170_000 == DEVICE {
        let disk = u32::from(name.as_bytes().get(2)?.checked_sub(b'a')?) * 16;
        return Some((8, disk + name.get(3..).and_then(|p| p.parse::<u32>().ok()).unwrap_or(0)));
    }
    if n.mode & 0o170_000 != CHARACTER {
        return None;
    }
    Some(match name {
        "null" => (1, 3),
        "zero" => (1, 5),
        "full" => (1, 7),
        "random" => (1, 8),
        "urandom" => (1, 9),
        "kmsg" => (1, 11),
        "tty" => (5, 0),
        "console" => (5, 1),
        "ptmx" => (5, 2),
        _ => (10, 0),
    })
}

/// When a node changed last: what the kernel makes up came with the boot.
pub(super) fn changed(c: &Call, path: &str, n: &Node) -> u64 {
    if n.mtime == 0 && ["/proc", "/sys", "/dev"].iter().any(|d| is_below(path, d)) {
        return c.guest(|g| g.booted_ms / 1000).unwrap_or_default();
    }
    n.mtime
}

fn stat(c: &mut Call) -> i32 {
    let printf = c.value(&["--printf"]);
    let format = c
        .value(&["-c", "--format"])
        .map(|f| f + "\n")
        .or_else(|| printf.map(|f| f.replace("\\n", "\n").replace("\\t", "\t")));
    let follow = c.has(&["-L", "--dereference"]);
    let ops = c.operands(&["-c", "--format", "--printf"]);
    if ops.is_empty() {
        return c.fail(1, "stat: missing operand\nTry 'stat --help' for more information.");
    }
    let systems = c.has(&["-f", "--file-system"]);
    let mut code = 0;
    for f in ops {
        let path = c.path(&f);
        let node = match c.m.files.stat(&c.who, &path, follow || systems) {
            Ok(n) => n,
            Err(e) => {
                let what = if systems { "cannot read file system information for" } else { "cannot statx" };
                let text = format!("stat: {what} '{f}': {}", reason(&e));
                code = c.fail(1, &text);
                continue;
            }
        };
        let text = if systems {
            system(c, format.as_deref().unwrap_or(SYSTEM), &f, &path)
        } else {
            let whole = if numbers(&path, &node).is_some() { DEVICE_NODE } else { WHOLE };
            let shown = fill(format.as_deref().unwrap_or(whole), |k| key(c, k, &f, &path, &node));
            // Alone the name stands there as it is.
            if format.is_none() { shown.replacen(&format!("'{f}'"), &f, 1) } else { shown }
        };
        c.print(&text);
    }
    code
}

const WHOLE: &str = "  File: %N\n  Size: %-10s\tBlocks: %-10b IO Block: %-6o %F\nDevice: %Hd,%Ld\tInode: %-10i  Links: %h\n\
    Access: (%04a/%10.10A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\nAccess: %x\nModify: %y\nChange: %z\n Birth: %w\n";
const DEVICE_NODE: &str = "  File: %N\n  Size: %-10s\tBlocks: %-10b IO Block: %-6o %F\nDevice: %Hd,%Ld\tInode: %-10i  \
    Links: %-5h Device type: %t,%T\n\
    Access: (%04a/%10.10A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\nAccess: %x\nModify: %y\nChange: %z\n Birth: %w\n";
const SYSTEM: &str = "  File: \"%n\"\n    ID: %-8i Namelen: %-7l Type: %T\nBlock size: %-10s Fundamental block size: %S\n\
    Blocks: Total: %-10b Free: %-10f Available: %a\nInodes: Total: %-10c Free: %d\n";

/// Replaces `%` and what follows it: flags, width, precision, and a letter (with `H` or `L` before it for devices).
fn fill(format: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|ch: char| !(ch.is_ascii_digit() || ch == '-' || ch == '.')).unwrap_or(rest.len());
        let (shape, tail) = rest.split_at(end);
        let long = tail.chars().take(if tail.starts_with(['H', 'L']) { 2 } else { 1 }).map(char::len_utf8).sum();
        let (key, tail) = tail.split_at(long);
        rest = tail;
        if key == "%" {
            out.push('%');
            continue;
        }
        let text = value(key).unwrap_or_else(|| format!("?{key}"));
        let wide: usize = shape.split('.').next().unwrap_or_default().trim_start_matches('-').parse().unwrap_or(0);
        if shape.starts_with('-') {
            out += &format!("{text:<wide$}");
        } else if shape.starts_with('0') {
            out += &"0".repeat(wide.saturating_sub(text.len()));
            out += &text;
        } else {
            out += &format!("{text:>wide$}");
        }
    }
    out + rest
}

fn key(c: &Call, key: &str, name: &str, path: &str, n: &Node) -> Option<String> {
    let at = changed(c, path, n);
    let moment = || {
        let (y, mo, d, h, mi, s, ..) = civil(at);
        format!("{y}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}.000000000 +0000")
    };
    let numbers = numbers(path, n).unwrap_or_default();
    Some(match key {
        "a" => format!("{:o}", n.mode & 0o7777),
        "A" => letters(n),
        "f" => format!("{:x}", raw_mode(n)),
        "F" => type_name(n).to_owned(),
        "s" if numbers != (0, 0) => "0".to_owned(),
        "s" => n.size().to_string(),
        "b" => sectors(n).to_string(),
        "B" => "512".to_owned(),
        "o" => "4096".to_owned(),
        "u" => n.uid.to_string(),
        "U" => user_name(&c.m.files, n.uid),
        "g" => n.gid.to_string(),
        "G" => group_name(&c.m.files, n.gid),
        "n" => name.to_owned(),
        "N" => match &n.kind {
            Kind::Link(t) => format!("'{name}' -> '{t}'"),
            _ => format!("'{name}'"),
        },
        "h" => links(c, path, n).to_string(),
        "i" => inode(path).to_string(),
        "d" => "2049".to_owned(),
        "Hd" => "8".to_owned(),
        "Ld" => "1".to_owned(),
        "t" => format!("{:x}", numbers.0),
        "T" => format!("{:x}", numbers.1),
        "m" => super::system::row_of(c, path).map(|r| r.target).unwrap_or_default(),
        "X" | "Y" | "Z" => at.to_string(),
        "W" => "0".to_owned(),
        "w" => "-".to_owned(),
        "x" | "y" | "z" => moment(),
        _ => return None,
    })
}

/// `stat -f`: the file system that a path is on.
fn system(c: &Call, format: &str, name: &str, path: &str) -> String {
    let Some(r) = super::system::row_of(c, path) else { return String::new() };
    let free = r.size.saturating_sub(r.used) / 4096;
    let inodes = r.size / 16_384;
    fill(format, |k| {
        Some(match k {
            "n" => name.to_owned(),
            "i" => format!("{:x}", inode(&r.target)),
            "l" => "255".to_owned(),
            "T" if r.fstype.starts_with("ext") => "ext2/ext3".to_owned(),
            "T" if r.fstype.starts_with("nfs") => "nfs".to_owned(),
            "T" if r.fstype == "vfat" => "msdos".to_owned(),
            "T" => r.fstype.clone(),
            "s" | "S" => "4096".to_owned(),
            "b" => (r.size / 4096).to_string(),
            "f" | "a" => free.to_string(),
            "c" => inodes.to_string(),
            "d" => inodes.saturating_sub(r.inodes).to_string(),
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_filled() {
        let value = |k: &str| Some(format!("<{k}>")).filter(|_| k != "q");
        assert_eq!(fill("a %s|%-5s|%5s|%07s|%Hd,%Ld %% %q", value), "a <s>|<s>  |  <s>|0000<s>|<Hd>,<Ld> % ?q");
    }

    #[test]
    fn permissions_are_written_as_ls_writes_them() {
        assert_eq!(letters(&Node::file("", 0o4750)), "-rwsr-x---");
        assert_eq!(letters(&Node::dir(0o1777)), "drwxrwxrwt");
        assert_eq!(letters(&Node::file("", 0o2644)), "-rw-r-Sr--");
        assert_eq!(letters(&Node::link("x")), "lrwxrwxrwx");
    }
}
