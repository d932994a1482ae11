//! Programs about owners and modes that the shell library cannot know: `chown`, `stat`, `install`.
use futures::future::BoxFuture;

use super::{Call, Program, later, now};
use crate::guest::accounts::{group_name, parse_owner, user_name};
use crate::guest::fs::Who;
use crate::guest::fs::tree::{Kind, Node, base};
use crate::guest::journal;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/chown", chown),
    now("/usr/bin/chgrp", chown),
    now("/usr/bin/stat", stat),
    later("/usr/bin/install", install_with_input),
    later("/usr/bin/tee", tee),
    now("/usr/bin/lsattr", |_| 0),
    now("/usr/bin/chattr", |_| 0),
];

fn reason(e: &std::io::Error) -> &'static str {
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

/// The shell library's own `tee` takes its input for text; files must keep their bytes.
fn tee(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let append = c.has(&["-a", "--append"]);
        let mut code = 0;
        let mut paths = Vec::new();
        for f in c.operands(&[]) {
            let path = c.path(&f);
            match c.m.files.write(&c.who, &path, b"", append, 0o644) {
                Ok(()) => paths.push(path),
                Err(e) => code = c.fail(1, &format!("tee: {f}: {}", reason(&e))),
            }
        }
        let input = c.input();
        while let Ok(Some(b)) = input.read_chunk().await {
            for p in &paths {
                let _ = c.m.files.write(&c.who, p, &b, true, 0o644);
            }
            c.bytes(&b);
            if c.flush().await.is_err() {
                return 141;
            }
        }
        code
    })
}

fn chown(c: &mut Call) -> i32 {
    let recursive = c.has(&["-R", "--recursive"])
        || c.args.iter().any(|a| a.starts_with('-') && !a.starts_with("--") && a.contains('R'));
    let follow = !c.has(&["-h", "--no-dereference"]);
    let mut ops = c.operands(&[]);
    let reference = c.value(&["--reference"]);
    let name = c.name.clone();
    if ops.len() + usize::from(reference.is_some()) < 2 {
        return c.fail(1, &format!("{name}: missing operand"));
    }
    let (uid, gid) = if let Some(r) = reference {
        match c.m.files.stat(&c.who, &c.path(&r), true) {
            Ok(n) => (Some(n.uid), Some(n.gid)),
            Err(e) => return c.fail(1, &format!("{name}: failed to get attributes of '{r}': {}", reason(&e))),
        }
    } else {
        let owner = ops.remove(0);
        let text = if name == "chgrp" { format!(":{owner}") } else { owner };
        match parse_owner(&c.m.files, &text) {
            Ok(ids) => ids,
            Err(e) => return c.fail(1, &format!("{name}: {}", if name == "chgrp" { e.replace("':", "'") } else { e })),
        }
    };
    let mut code = 0;
    for f in ops {
        let path = c.path(&f);
        let mut all = vec![path.clone()];
        if recursive {
            below(c, &path, &mut all);
        }
        for p in all {
            let may =
                c.who.uid == 0 || (uid.is_none_or(|u| u == c.who.uid) && gid.is_none_or(|g| c.who.groups.contains(&g)));
            let done = if may {
                c.m.files.change(&c.who, &p, follow, |n| {
                    n.uid = uid.unwrap_or(n.uid);
                    n.gid = gid.unwrap_or(n.gid);
                })
            } else {
                match c.m.files.stat(&c.who, &p, follow) {
                    Ok(_) => Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "")),
                    Err(e) => Err(e),
                }
            };
            if let Err(e) = done {
                let text = match e.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        format!("changing ownership of '{f}': Operation not permitted")
                    }
                    _ => format!("cannot access '{f}': {}", reason(&e)),
                };
                code = c.fail(1, &format!("{name}: {text}"));
            }
        }
    }
    code
}

fn below(c: &Call, dir: &str, all: &mut Vec<String>) {
    for (name, node) in c.m.files.list(&Who::root(), dir).unwrap_or_default() {
        let path = format!("{}/{name}", dir.trim_end_matches('/'));
        all.push(path.clone());
        if node.is_dir() {
            below(c, &path, all);
        }
    }
}

fn type_name(n: &Node) -> &'static str {
    match (&n.kind, n.mode & 0o170_000) {
        (Kind::Dir, _) => "directory",
        (Kind::Link(_), _) => "symbolic link",
        (Kind::Fifo, _) => "fifo",
        (_, 0o060_000) => "block special file",
        (_, 0o020_000) => "character special file",
        (Kind::File(b), _) if b.is_empty() => "regular empty file",
        _ => "regular file",
    }
}

fn letters(n: &Node) -> String {
    let first = match (&n.kind, n.mode & 0o170_000) {
        (Kind::Dir, _) => 'd',
        (Kind::Link(_), _) => 'l',
        (Kind::Fifo, _) => 'p',
        (_, 0o060_000) => 'b',
        (_, 0o020_000) => 'c',
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

fn stat(c: &mut Call) -> i32 {
    let printf = c.value(&["--printf"]);
    let format = c
        .value(&["-c", "--format"])
        .map(|f| f + "\n")
        .or_else(|| printf.map(|f| f.replace("\\n", "\n").replace("\\t", "\t")));
    let follow = c.has(&["-L", "--dereference"]);
    if c.has(&["-f", "--file-system"]) {
        return c.unsimulated("-f");
    }
    let ops = c.operands(&["-c", "--format", "--printf"]);
    if ops.is_empty() {
        return c.fail(1, "stat: missing operand\nTry 'stat --help' for more information.");
    }
    let mut code = 0;
    for f in ops {
        let path = c.path(&f);
        let node = match c.m.files.stat(&c.who, &path, follow) {
            Ok(n) => n,
            Err(e) => {
                let text = format!("stat: cannot statx '{f}': {}", reason(&e));
                code = c.fail(1, &text);
                continue;
            }
        };
        let text = match &format {
            Some(t) => filled(c, t, &f, &path, &node),
            None => filled(
                c,
                "  File: %N\n  Size: %s\tBlocks: %b          IO Block: 4096   %F\nDevice: 8,1\tInode: %i\tLinks: 1\nAccess: (%04a/%A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\nModify: %y\n",
                &f,
                &path,
                &node,
            ),
        };
        c.print(&text);
    }
    code
}

fn filled(c: &Call, format: &str, name: &str, path: &str, n: &Node) -> String {
    let mut out = String::new();
    let mut it = format.chars().peekable();
    while let Some(ch) = it.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        let mut width = String::new();
        while let Some(d) = it.next_if(|d| d.is_ascii_digit() || *d == '-') {
            width.push(d);
        }
        let (y, mo, d, h, mi, s, ..) = journal::civil(n.mtime);
        let value = match it.next() {
            Some('a') => format!("{:o}", n.mode & 0o7777),
            Some('A') => letters(n),
            Some('f') => format!("{:x}", raw_mode(n)),
            Some('F') => type_name(n).to_owned(),
            Some('s') => n.size().to_string(),
            Some('b') => n.size().div_ceil(512).to_string(),
            Some('B') => "512".to_owned(),
            Some('u') => n.uid.to_string(),
            Some('U') => user_name(&c.m.files, n.uid),
            Some('g') => n.gid.to_string(),
            Some('G') => group_name(&c.m.files, n.gid),
            Some('n') => name.to_owned(),
            Some('N') => match &n.kind {
                Kind::Link(t) => format!("'{name}' -> '{t}'"),
                _ => format!("'{name}'"),
            },
            Some('h') => "1".to_owned(),
            Some('i') => {
                (path.bytes().fold(17u32, |x, b| x.wrapping_mul(31).wrapping_add(u32::from(b))) & 0xf_ffff).to_string()
            }
            Some('d') => "2049".to_owned(),
            Some('m') => "/".to_owned(),
            Some('X' | 'Y' | 'Z') => n.mtime.to_string(),
            Some('W') => "0".to_owned(),
            Some('x' | 'y' | 'z') => format!("{y}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}.000000000 +0000"),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => break,
        };
        let zero = width.starts_with('0');
        let wide: usize = width.trim_start_matches('-').parse().unwrap_or(0);
        let pad = wide.saturating_sub(value.len());
        if zero {
            out.push_str(&"0".repeat(pad));
        } else {
            out.push_str(&" ".repeat(pad));
        }
        out.push_str(&value);
    }
    out
}

fn install_with_input(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let reads = c.args.iter().any(|a| a == "/dev/stdin" || a == "-");
        let input = if reads { c.read_all().await } else { Vec::new() };
        install(c, &input)
    })
}

fn install(c: &mut Call, input: &[u8]) -> i32 {
    let mut mode = 0o755;
    if let Some(m) = c.value(&["-m", "--mode"]) {
        match u32::from_str_radix(&m, 8) {
            Ok(m) => mode = m,
            Err(_) if m.contains('=') => mode = symbolic(&m),
            Err(_) => return c.fail(1, &format!("install: invalid mode '{m}'")),
        }
    }
    let (mut uid, mut gid) = (None, None);
    for (value, what) in [(c.value(&["-o", "--owner"]), "user"), (c.value(&["-g", "--group"]), "group")] {
        let Some(v) = value else { continue };
        let text = if what == "user" { v.clone() } else { format!(":{v}") };
        match parse_owner(&c.m.files, &text) {
            Ok((u, g)) => {
                uid = u.or(uid);
                gid = g.or(gid);
            }
            Err(_) => return c.fail(1, &format!("install: invalid {what} '{v}'")),
        }
    }
    let mut ops =
        c.operands(&["-m", "--mode", "-o", "--owner", "-g", "--group", "-t", "--target-directory", "-S", "--suffix"]);
    let flags: String = c
        .args
        .iter()
        .filter(|a| a.starts_with('-') && !a.starts_with("--") && !a.contains('/'))
        .map(|a| &a[1..])
        .collect();
    let set = |c: &mut Call, path: &str| -> i32 {
        let done = c.m.files.change(&c.who, path, true, |n| {
            n.mode = mode;
            n.uid = uid.unwrap_or(n.uid);
            n.gid = gid.unwrap_or(n.gid);
        });
        match done {
            Ok(()) if c.who.uid == 0 || uid.is_none_or(|u| u == c.who.uid) => 0,
            _ => c.fail(1, &format!("install: cannot change ownership of '{path}': Operation not permitted")),
        }
    };
    if c.has(&["--directory"]) || flags.contains('d') {
        for d in ops {
            let path = c.path(&d);
            if let Err(e) = c.m.files.mkdir(&c.who, &path, true, 0o755) {
                return c.fail(1, &format!("install: cannot create directory '{d}': {}", reason(&e)));
            }
            if set(c, &path) != 0 {
                return 1;
            }
        }
        return 0;
    }
    let target = c.value(&["-t", "--target-directory"]).or_else(|| if ops.len() > 1 { ops.pop() } else { None });
    let Some(target) = target else { return c.fail(1, "install: missing destination file operand") };
    let into = c.path(&target);
    let is_dir = !flags.contains('T') && c.m.files.stat(&c.who, &into, true).is_ok_and(|n| n.is_dir());
    for source in ops {
        let from = c.path(&source);
        let bytes = if source == "/dev/stdin" || source == "-" {
            input.to_vec()
        } else {
            match c.m.files.read(&c.who, &from) {
                Ok(b) => b.as_ref().clone(),
                Err(e) => return c.fail(1, &format!("install: cannot stat '{source}': {}", reason(&e))),
            }
        };
        let to = if is_dir || c.value(&["-t"]).is_some() { format!("{into}/{}", base(&from)) } else { into.clone() };
        if c.has(&["-D"]) || flags.contains('D') {
            let _ = c.m.files.mkdir(&c.who, crate::guest::fs::tree::parent(&to), true, 0o755);
        }
        // install unlinks the target first, so a new file is made even where the old one is in use.
        let _ = c.m.files.remove(&c.who, &to, false);
        if let Err(e) = c.m.files.write(&c.who, &to, &bytes, false, mode) {
            return c.fail(1, &format!("install: cannot create regular file '{target}': {}", reason(&e)));
        }
        if set(c, &to) != 0 {
            return 1;
        }
    }
    0
}

fn symbolic(text: &str) -> u32 {
    let mut mode = 0;
    for part in text.split(',') {
        let Some((who, perm)) = part.split_once('=') else { continue };
        let bits = perm.chars().fold(0, |b, p| {
            b | match p {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                _ => 0,
            }
        });
        let who = if who.is_empty() || who == "a" { "ugo" } else { who };
        for w in who.chars() {
            mode |= bits
                << match w {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
        }
    }
    mode
}
