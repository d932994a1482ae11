//! A shell that reads its commands from a client: with a terminal it shows a prompt and echoes.
use tokio::sync::mpsc;

use super::exec::channel;
use crate::guest::shell::Chunk;
use crate::kube::container::Inside;
use crate::kube::container::shell::Shell;

type Say = mpsc::Sender<(u8, Vec<u8>)>;

/// Line ends as a terminal wants them.
fn crlf(b: Vec<u8>, tty: bool) -> Vec<u8> {
    if !tty {
        return b;
    }
    let mut out = Vec::with_capacity(b.len() + 8);
    for c in b {
        if c == b'\n' {
            out.push(b'\r');
        }
        out.push(c);
    }
    out
}

/// Passes on what a command writes; a terminal has one stream for both.
pub(super) async fn pass(mut chunks: mpsc::Receiver<Chunk>, say: &Say, tty: bool) {
    while let Some(chunk) = chunks.recv().await {
        let (error, b) = match chunk {
            Chunk::Out(b) => (false, b),
            Chunk::Err(b) => (!tty, b),
        };
        if say.send((channel(error), crlf(b, tty))).await.is_err() {
            return;
        }
    }
}

/// Lines of a client, edited where there is a terminal.
struct Lines<'a> {
    rx: mpsc::Receiver<Vec<u8>>,
    pending: std::collections::VecDeque<u8>,
    say: &'a Say,
    tty: bool,
}

impl Lines<'_> {
    async fn echo(&self, text: &str) {
        if self.tty {
            let _ = self.say.send((channel(false), text.as_bytes().to_vec())).await;
        }
    }

    /// The next line without its end; `None` when the client has no more.
    async fn next(&mut self) -> Option<String> {
        let mut line: Vec<u8> = Vec::new();
        loop {
            let Some(b) = self.pending.pop_front() else {
                match self.rx.recv().await {
                    Some(more) => self.pending.extend(more),
                    None if line.is_empty() => return None,
                    None => return Some(String::from_utf8_lossy(&line).into_owned()),
                }
                continue;
            };
            match b {
                b'\n' | b'\r' => {
                    self.echo("\r\n").await;
                    return Some(String::from_utf8_lossy(&line).into_owned());
                }
                3 if self.tty => {
                    self.echo("^C\r\n").await;
                    return Some(String::new());
                }
                4 if self.tty => {
                    if line.is_empty() {
                        return None;
                    }
                }
                8 | 127 if self.tty => {
                    if line.pop().is_some() {
                        self.echo("\u{8} \u{8}").await;
                    }
                }
                b => {
                    line.push(b);
                    if self.tty {
                        let _ = self.say.send((channel(false), vec![b])).await;
                    }
                }
            }
        }
    }
}

/// Serves a shell; its last status, and whether it ended by itself or with its input.
pub async fn serve(inside: &Inside, rx: mpsc::Receiver<Vec<u8>>, say: &Say, tty: bool) -> (i32, bool) {
    let mut shell = Shell::new(inside);
    let mut lines = Lines { rx, pending: std::collections::VecDeque::new(), say, tty };
    let (mut status, mut text) = (0, String::new());
    // Waiting for a line stops nobody's time.
    let clock = gpuhost_stdlib::core::clock::Clock::Virtual(inside.lab.clock().clone());
    loop {
        let prompt = if text.is_empty() { shell.prompt() } else { "> ".to_owned() };
        lines.echo(&prompt).await;
        let lent = clock.lend();
        let line = lines.next().await;
        drop(lent);
        let Some(line) = line else {
            lines.echo("exit\r\n").await;
            return (status, true);
        };
        text += &line;
        if text.trim().is_empty() {
            text.clear();
            continue;
        }
        if shell.incomplete(&text) {
            text.push('\n');
            continue;
        }
        let (out, chunks) = mpsc::channel(64);
        let command = std::mem::take(&mut text);
        let ran = async {
            let r = shell.line(&command, &out).await;
            drop(out);
            r
        };
        let ((code, ended), ()) = tokio::join!(ran, pass(chunks, say, tty));
        status = code;
        if ended {
            return (status, true);
        }
    }
}
