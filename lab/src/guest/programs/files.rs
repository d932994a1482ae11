//! Programs about owners and modes that the shell library cannot know: `chown`, `install`, `tee`.
use futures::future::BoxFuture;

use super::stat::reason;
use super::{Call, Program, later, now};
use crate::guest::accounts::parse_owner;
use crate::guest::fs::Who;
use crate::guest::fs::tree::base;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/chown", chown),
    now("/usr/bin/chgrp", chown),
    later("/usr/bin/install", install_with_input),
    later("/usr/bin/tee", tee),
    now("/usr/bin/lsattr", |_| 0),
    now("/usr/bin/chattr", |_| 0),
];

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
