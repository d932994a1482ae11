//! The far side of `scp -O`: `scp -t` takes files, `scp -f` gives them. (Newer clients use SFTP.)
use bashkit::CommandInput;
use futures::future::BoxFuture;

use super::{Call, Program, later};
use crate::guest::fs::tree::{Kind, base};

pub(super) const PROGRAMS: &[Program] = &[later("/usr/bin/scp", scp)];

/// Reads the protocol byte by byte and in blocks.
struct Wire {
    input: CommandInput,
    held: Vec<u8>,
}

impl Wire {
    async fn more(&mut self) -> bool {
        match self.input.read_chunk().await {
            Ok(Some(b)) => {
                self.held.extend(b);
                true
            }
            _ => false,
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.held.drain(..=at).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.held.len() < n {
            if !self.more().await {
                return None;
            }
        }
        Some(self.held.drain(..n).collect())
    }

    /// The other side's answer: a zero byte, or it gave up.
    async fn agreed(&mut self) -> bool {
        self.take(1).await.is_some_and(|b| b[0] == 0)
    }
}

fn scp(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let flags: String = c.args.iter().filter(|a| a.starts_with('-') && a.len() > 1).map(|a| &a[1..]).collect();
        let paths = c.operands(&[]);
        let mut wire = Wire { input: c.input(), held: Vec::new() };
        if flags.contains('t') {
            let Some(target) = paths.first() else { return c.fail(1, "scp: ambiguous target") };
            let target = c.path(target);
            return sink(c, &mut wire, target, flags.contains('d')).await;
        }
        if flags.contains('f') {
            if !wire.agreed().await {
                return 1;
            }
            let mut code = 0;
            for p in paths {
                let path = c.path(&p);
                code = code.max(source(c, &mut wire, path, flags.contains('r')).await);
            }
            return code;
        }
        c.unsimulated("(from a guest)")
    })
}

/// Says that all is well.
async fn ok(c: &mut Call) -> bool {
    c.bytes(&[0]);
    c.flush().await.is_ok()
}

/// Tells the other side what went wrong.
async fn sorry(c: &mut Call, text: &str) -> i32 {
    c.bytes(format!("\x01scp: {text}\n").as_bytes());
    let _ = c.flush().await;
    1
}

async fn sink(c: &mut Call, wire: &mut Wire, target: String, must_be_dir: bool) -> i32 {
    let is_dir = |c: &Call, p: &str| c.m.files.stat(&c.who, p, true).is_ok_and(|n| n.is_dir());
    if must_be_dir && !is_dir(c, &target) {
        return sorry(c, &format!("{target}: No such file or directory")).await;
    }
    let mut dirs = vec![target];
    let mut code = 0;
    if !ok(c).await {
        return 1;
    }
    while let Some(line) = wire.line().await {
        let at = dirs.last().cloned().unwrap_or_default();
        let mut words = line.get(1..).unwrap_or_default().splitn(3, ' ');
        let mode = words.next().and_then(|m| u32::from_str_radix(m, 8).ok()).unwrap_or(0o644);
        let size: usize = words.next().and_then(|s| s.parse().ok()).unwrap_or(0);
        let name = words.next().unwrap_or_default();
        let path = if is_dir(c, &at) { format!("{}/{name}", at.trim_end_matches('/')) } else { at };
        match line.chars().next() {
            Some('T') => {}
            Some('E') => {
                dirs.pop();
            }
            Some('C' | 'D') if name.is_empty() || name.contains('/') || name == ".." => {
                return sorry(c, &format!("error: unexpected filename: {name}")).await;
            }
            Some('D') => {
                if !is_dir(c, &path) && c.m.files.mkdir(&c.who, &path, false, mode).is_err() {
                    return sorry(c, &format!("{path}: Permission denied")).await;
                }
                dirs.push(path);
            }
            Some('C') => {
                if !ok(c).await {
                    return 1;
                }
                let Some(bytes) = wire.take(size).await else { return 1 };
                if !wire.agreed().await {
                    return 1;
                }
                if c.m.files.write(&c.who, &path, &bytes, false, mode & 0o777).is_err() {
                    code = sorry(c, &format!("{path}: Permission denied")).await;
                    continue;
                }
            }
            _ => return sorry(c, "protocol error: unexpected <newline>").await,
        }
        if !ok(c).await {
            return 1;
        }
    }
    code
}

fn source<'a>(c: &'a mut Call, wire: &'a mut Wire, path: String, recursive: bool) -> BoxFuture<'a, i32> {
    Box::pin(async move {
        let node = match c.m.files.stat(&c.who, &path, true) {
            Ok(n) => n,
            Err(_) => return sorry(c, &format!("{path}: No such file or directory")).await,
        };
        let name = base(&path).to_owned();
        if node.is_dir() {
            if !recursive {
                return sorry(c, &format!("{path}: not a regular file")).await;
            }
            c.bytes(format!("D{:04o} 0 {name}\n", node.mode & 0o7777).as_bytes());
            if c.flush().await.is_err() || !wire.agreed().await {
                return 1;
            }
            let mut code = 0;
            for (entry, _) in c.m.files.list(&c.who, &path).unwrap_or_default() {
                code = code.max(source(c, wire, format!("{}/{entry}", path.trim_end_matches('/')), true).await);
            }
            c.bytes(b"E\n");
            return if c.flush().await.is_err() || !wire.agreed().await { 1 } else { code };
        }
        if !matches!(node.kind, Kind::File(_)) {
            return sorry(c, &format!("{path}: not a regular file")).await;
        }
        let bytes = match c.m.files.read(&c.who, &path) {
            Ok(b) => b,
            Err(_) => return sorry(c, &format!("{path}: Permission denied")).await,
        };
        c.bytes(format!("C{:04o} {} {name}\n", node.mode & 0o7777, bytes.len()).as_bytes());
        if c.flush().await.is_err() || !wire.agreed().await {
            return 1;
        }
        c.bytes(&bytes);
        c.bytes(&[0]);
        i32::from(c.flush().await.is_err() || !wire.agreed().await)
    })
}
