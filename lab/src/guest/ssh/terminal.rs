//! A login at a terminal: prompt, line editing, history, `sudo -i`.
use tokio::sync::mpsc;

use super::exec::{Start, crlf};
use crate::Client;
use crate::guest::fs::Who;
use crate::guest::journal;
use crate::guest::logins::Seat;
use crate::guest::shell::{Chunk, Session, shell};

struct Terminal {
    s: Start,
    rx: mpsc::Receiver<Vec<u8>>,
    pending: Vec<u8>,
    history: Vec<String>,
}

/// What a line of input ended with.
enum Line {
    Text(String),
    Interrupt,
    End,
}

impl Terminal {
    async fn say(&self, text: &str) -> bool {
        self.s.handle.data(self.s.id, crlf(text.as_bytes().to_vec(), true)).await.is_ok()
    }

    async fn byte(&mut self) -> Option<u8> {
        while self.pending.is_empty() {
            let mut b = self.rx.recv().await?;
            b.reverse();
            self.pending = b;
        }
        self.pending.pop()
    }

    /// Reads a line with echo, backspace, Ctrl-C, Ctrl-D, Ctrl-U and the arrow keys for history.
    async fn read(&mut self) -> Line {
        let mut text = String::new();
        let mut at = self.history.len();
        loop {
            let Some(b) = self.byte().await else { return Line::End };
            match b {
                b'\r' | b'\n' => {
                    self.say("\n").await;
                    return Line::Text(text);
                }
                3 => {
                    self.say("^C\n").await;
                    return Line::Interrupt;
                }
                4 if text.is_empty() => return Line::End,
                8 | 127 => {
                    if text.pop().is_some() {
                        self.say("\u{8} \u{8}").await;
                    }
                }
                21 => {
                    let n = text.chars().count();
                    text.clear();
                    self.say(&"\u{8} \u{8}".repeat(n)).await;
                }
                27 => {
                    let (Some(_), Some(key)) = (self.byte().await, self.byte().await) else { return Line::End };
                    at = match key {
                        b'A' => at.saturating_sub(1),
                        b'B' => (at + 1).min(self.history.len()),
                        _ => continue,
                    };
                    let n = text.chars().count();
                    text = self.history.get(at).cloned().unwrap_or_default();
                    self.say(&format!("{}{text}", "\u{8} \u{8}".repeat(n))).await;
                }
                b if b < 32 => {}
                b => {
                    let mut bytes = vec![b];
                    let more = if b >= 0xf0 {
                        3
                    } else if b >= 0xe0 {
                        2
                    } else {
                        usize::from(b >= 0xc0)
                    };
                    for _ in 0..more {
                        bytes.extend(self.byte().await);
                    }
                    let c = String::from_utf8_lossy(&bytes).into_owned();
                    self.say(&c).await;
                    text += &c;
                }
            }
        }
    }
}

fn prompt(t: &Terminal, who: &Who, shell: &dyn Session) -> String {
    let host = t.s.m.lab.with(|w| w.guests.get(&t.s.m.vmid).map(|g| g.hostname.clone())).unwrap_or_default();
    let cwd = shell.cwd();
    let cwd = cwd.strip_prefix(&who.home).map_or(cwd.clone(), |rest| format!("~{rest}"));
    format!("{}@{host}:{cwd}{} ", who.name, if who.uid == 0 { '#' } else { '$' })
}

/// Whether a line asks for a shell of root.
fn becomes_root(line: &str) -> bool {
    matches!(
        line.split_whitespace().collect::<Vec<_>>().join(" ").as_str(),
        "sudo -i" | "sudo -s" | "sudo su" | "sudo su -" | "sudo bash" | "sudo -i bash"
    )
}

/// Serves a terminal until its last shell ends.
pub(super) async fn run(s: Start, rx: mpsc::Receiver<Vec<u8>>) {
    let _seat = Seat::take(&s.m, &s.who.name);
    let mut t = Terminal { s, rx, pending: Vec::new(), history: Vec::new() };
    let mut stack: Vec<(Who, Box<dyn Session>)> =
        vec![(t.s.who.clone(), shell().session(t.s.m.clone(), t.s.who.clone()))];
    let now = t.s.m.lab.clock().now_ms();
    t.say(&format!(
        "Linux {} x86_64\n\nThis machine is simulated by the gpuhost lab.\nLab time: {}\n",
        crate::guest::hw::KERNEL,
        journal::long(now)
    ))
    .await;
    let mut status = 0;
    let mut text = String::new();
    while let Some((who, shell)) = stack.last_mut() {
        let p = if text.is_empty() { prompt(&t, who, shell.as_ref()) } else { "> ".to_owned() };
        t.say(&p).await;
        match t.read().await {
            Line::End => {
                t.say(if stack.len() > 1 { "exit\n" } else { "logout\n" }).await;
                stack.pop();
                text.clear();
                continue;
            }
            Line::Interrupt => {
                text.clear();
                continue;
            }
            Line::Text(l) => {
                if !l.trim().is_empty() {
                    t.history.push(l.clone());
                }
                text += &l;
            }
        }
        if text.trim().is_empty() {
            text.clear();
            continue;
        }
        if shell.incomplete(&text) {
            text.push('\n');
            continue;
        }
        let line = std::mem::take(&mut text);
        if becomes_root(&line) {
            let session = crate::guest::shell::shell().session(t.s.m.clone(), Who::root());
            stack.push((Who::root(), session));
            continue;
        }
        let (code, ended) = one(&mut t, shell.as_mut(), &line).await;
        status = code;
        if t.s.m.stop.is_cancelled() {
            break;
        }
        if ended {
            stack.pop();
        }
    }
    let _ = t.s.handle.exit_status_request(t.s.id, status as u32).await;
    let _ = t.s.handle.eof(t.s.id).await;
    let _ = t.s.handle.close(t.s.id).await;
}

/// Runs one line while Ctrl-C is listened for. The mark is held only while it runs, not at the prompt.
async fn one(t: &mut Terminal, shell: &mut dyn Session, line: &str) -> (i32, bool) {
    let mark = t.s.m.lab.enter(Client::Foreign);
    let (tx, mut out) = mpsc::channel(64);
    let (handle, id, stop) = (t.s.handle.clone(), t.s.id, t.s.m.stop.clone());
    let work = shell.line(line, tx);
    let show = async {
        while let Some(chunk) = out.recv().await {
            let (Chunk::Out(b) | Chunk::Err(b)) = chunk;
            if handle.data(id, crlf(b, true)).await.is_err() {
                return;
            }
        }
    };
    let interrupted = async {
        loop {
            // The last byte typed comes first: Ctrl-C throws away what was typed before it.
            if let Some(at) = t.pending.iter().position(|b| *b == 3) {
                t.pending.truncate(at);
                return;
            }
            match t.rx.recv().await {
                Some(mut b) => {
                    b.reverse();
                    b.extend(std::mem::take(&mut t.pending));
                    t.pending = b;
                }
                // The end of the input is no interrupt: the line runs to its end.
                None => return std::future::pending().await,
            }
        }
    };
    let result = tokio::select! {
        (r, ()) = async { tokio::join!(work, show) } => r,
        () = interrupted => {
            let _ = handle.data(id, b"^C\r\n".to_vec()).await;
            (130, false)
        }
        () = stop.cancelled() => (255, true),
    };
    drop(mark);
    result
}
