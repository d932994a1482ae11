//! A shell that reads its commands from a client: with a terminal it shows a prompt and echoes.
use tokio::sync::mpsc;

use super::exec::channel;
use crate::guest::fs::Who;
use crate::guest::shell::{self, Chunk};
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

/// Ends as a command does that ctrl-C has ended.
const INTERRUPTED: &str = "(exit 130)";

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

    /// Waits for ctrl-C while a command runs: it throws away what was typed before it. Else that is kept.
    async fn interrupted(&mut self) {
        loop {
            let at = self.pending.iter().rposition(|b| *b == 3).filter(|_| self.tty);
            if let Some(at) = at {
                self.pending.drain(..=at);
                return self.echo("^C\r\n").await;
            }
            match self.rx.recv().await {
                Some(bytes) => self.pending.extend(bytes),
                None => return std::future::pending().await,
            }
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

/// A shell of a container, or of the machine below it.
enum Session {
    Own(Box<Shell>),
    Machine(Box<dyn shell::Session>),
}

impl Session {
    /// The shell of a command line.
    fn of(inside: &Inside, argv: &[String]) -> Session {
        let below = argv.first().filter(|a| a.ends_with("chroot")).and(argv.get(1)).and_then(|dir| inside.machine(dir));
        match below {
            Some(m) => Session::Machine(shell::shell().session(m, Who::root())),
            None => Session::Own(Box::new(Shell::new(inside))),
        }
    }

    fn prompt(&self) -> String {
        match self {
            Session::Own(s) => s.prompt(),
            Session::Machine(_) => "# ".to_owned(),
        }
    }

    fn incomplete(&self, text: &str) -> bool {
        match self {
            Session::Own(s) => s.incomplete(text),
            Session::Machine(s) => s.incomplete(text),
        }
    }

    async fn line(&mut self, text: &str, out: mpsc::Sender<Chunk>) -> (i32, bool) {
        match self {
            Session::Own(s) => s.line(text, &out).await,
            Session::Machine(s) => s.line(text, out).await,
        }
    }
}

/// Serves a shell; its last status.
pub async fn serve(inside: &Inside, argv: &[String], rx: mpsc::Receiver<Vec<u8>>, say: &Say, tty: bool) -> i32 {
    let mut shell = Session::of(inside, argv);
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
            return status;
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
        let ran = tokio::select! { biased;
            (ran, ()) = async { tokio::join!(shell.line(&command, out), pass(chunks, say, tty)) } => Some(ran),
            () = lines.interrupted() => None,
        };
        let (code, ended) = match ran {
            Some(ran) => ran,
            // what the next line sees as the status of this one
            None => shell.line(INTERRUPTED, mpsc::channel(1).0).await,
        };
        status = code;
        if ended {
            return status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ctrl_c_that_came_with_a_line_ends_its_command() {
        let ((tx, rx), (say, mut said)) = (mpsc::channel(4), mpsc::channel(64));
        let mut lines = Lines { rx, pending: std::collections::VecDeque::new(), say: &say, tty: true };
        tx.send(b"sleep 9\r\x03ls\r".to_vec()).await.unwrap_or_default();
        assert_eq!(lines.next().await.as_deref(), Some("sleep 9"));
        lines.interrupted().await;
        assert_eq!(lines.next().await.as_deref(), Some("ls"));
        let mut shown = Vec::new();
        while let Ok((_, b)) = said.try_recv() {
            shown.extend(b);
        }
        assert_eq!(String::from_utf8_lossy(&shown), "sleep 9\r\n^C\r\nls\r\n");
    }
}
