//! Commands over SSH: live output, live input, exit status, exit signal; and forwarding to other guests.
#![allow(clippy::disallowed_methods)] // a foreign client's input has real time
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, Sig};
use tokio::sync::{mpsc, watch};

use crate::Client;
use crate::fault::Fault;
use crate::grades::missing;
use crate::guest::fs::Who;
use crate::guest::live::Machine;
use crate::guest::shell::{Chunk, Job, Stdin, start};

/// Everything a command on a channel needs to start.
pub(super) struct Start {
    pub m: Arc<Machine>,
    pub who: Who,
    pub client: Client,
    pub handle: Handle,
    pub id: ChannelId,
    pub env: BTreeMap<String, String>,
    pub tty: bool,
}

/// How long a foreign client's silent standard input is waited for before the command starts without its end.
/// Real time: it is about a socket, not about the lab.
const SETTLE: Duration = Duration::from_millis(40);

/// All of standard input when its end comes at once, else a stream.
async fn input(mut rx: mpsc::Receiver<Vec<u8>>, client: Client) -> Stdin {
    let mut all = Vec::new();
    loop {
        let next = if client == Client::Ours {
            // Our client always sends its input and the end right after the command.
            Ok(rx.recv().await)
        } else {
            tokio::time::timeout(SETTLE, rx.recv()).await
        };
        match next {
            Ok(Some(b)) => all.extend(b),
            Ok(None) => return Stdin::Bytes(all),
            Err(_) => break,
        }
    }
    let (tx, live) = mpsc::channel(16);
    tokio::spawn(async move {
        if !all.is_empty() && tx.send(all).await.is_err() {
            return;
        }
        while let Some(b) = rx.recv().await {
            if tx.send(b).await.is_err() {
                return;
            }
        }
    });
    Stdin::Live(live)
}

/// Runs a command and closes the channel with its status.
pub(super) async fn run(
    s: Start,
    command: String,
    rx: mpsc::Receiver<Vec<u8>>,
    mut killed: watch::Receiver<Option<Sig>>,
) {
    let mark = s.m.lab.enter(s.client);
    let stdin = input(rx, s.client).await;
    let fault = s.m.lab.faults().strike("ssh.exec", &name_of(&s.m));
    if fault.as_ref().is_some_and(|f| !matches!(f, Fault::DropMid)) && !survives(&s, fault.as_ref()).await {
        return;
    }
    let (tx, mut out) = mpsc::channel(64);
    let job = Job { env: s.env.clone(), stdin, tty: s.tty, ..Job::of(s.who.clone(), &command) };
    let mut running = start(&s.m, job, tx);
    let mut signal = None;
    loop {
        tokio::select! { biased;
            Ok(()) = killed.changed() => {
                signal = killed.borrow().clone();
                running.kill().await;
                break;
            }
            chunk = out.recv() => {
                let sent = match chunk {
                    Some(Chunk::Out(b)) => s.handle.data(s.id, crlf(b, s.tty)).await,
                    Some(Chunk::Err(b)) if s.tty => s.handle.data(s.id, crlf(b, true)).await,
                    Some(Chunk::Err(b)) => s.handle.extended_data(s.id, 1, b).await,
                    None => break,
                };
                if sent.is_err() {
                    // The client is gone. sshd lets the command go on; here it ends with its reader.
                    running.kill().await;
                    break;
                }
            }
        }
    }
    if fault == Some(Fault::DropMid) {
        running.wait().await;
        cut(&s).await;
        return;
    }
    match signal {
        Some(sig) => {
            let _ = s.handle.exit_signal_request(s.id, sig, false, String::new(), "en".into()).await;
        }
        None => {
            let code = running.wait().await;
            let _ = s.handle.exit_status_request(s.id, code as u32).await;
        }
    }
    let _ = s.handle.eof(s.id).await;
    let _ = s.handle.close(s.id).await;
    drop(mark);
}

pub(super) fn name_of(m: &Machine) -> String {
    m.lab
        .with(|w| w.pve.vms.get(&m.vmid).and_then(|v| v.conf.get("name").cloned()))
        .unwrap_or_else(|| m.vmid.to_string())
}

async fn cut(s: &Start) {
    let _ = s.handle.disconnect(russh::Disconnect::ConnectionLost, String::new(), String::new()).await;
}

/// What a fault does before a command starts; whether it starts at all.
async fn survives(s: &Start, fault: Option<&Fault>) -> bool {
    match fault {
        Some(Fault::Slow(ms)) => {
            s.m.lab.clock().sleep(Duration::from_millis(*ms)).await;
            true
        }
        Some(Fault::Timeout) => {
            s.m.lab.clock().sleep(crate::pve::trouble::SILENCE).await;
            cut(s).await;
            false
        }
        Some(Fault::DiskFull) => {
            let text = b"sh: write error: No space left on device\n".to_vec();
            let _ = s.handle.extended_data(s.id, 1, text).await;
            let _ = s.handle.exit_status_request(s.id, 1).await;
            let _ = s.handle.eof(s.id).await;
            let _ = s.handle.close(s.id).await;
            false
        }
        Some(Fault::Reset) => {
            cut(s).await;
            false
        }
        _ => true,
    }
}

/// A shell without a terminal: the script comes on standard input.
pub(super) async fn run_shell(s: Start, mut rx: mpsc::Receiver<Vec<u8>>, killed: watch::Receiver<Option<Sig>>) {
    let mut script = Vec::new();
    while let Some(b) = rx.recv().await {
        script.extend(b);
    }
    let (tx, empty) = mpsc::channel(1);
    drop(tx);
    run(s, String::from_utf8_lossy(&script).into_owned(), empty, killed).await;
}

/// Line ends as a terminal wants them.
pub(super) fn crlf(b: Vec<u8>, tty: bool) -> Vec<u8> {
    if !tty || !b.contains(&b'\n') {
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

/// Where a forward to `host:port` ends: sshd or the Kubernetes API of a guest of this lab.
pub(super) fn forward_target(m: &Machine, host: &str, port: u32) -> Option<SocketAddr> {
    if port == 6443 {
        let (ip, vmid) = m.lab.with(|w| {
            let ip = crate::guest::query::name_to_ip(w, m, host)?;
            let vmid = if ip.starts_with("127.") { Some(m.vmid) } else { crate::guest::by_ip(w, &ip) };
            Some((ip, vmid))
        })?;
        return m.lab.kube().api.at(vmid, &format!("{ip}:6443"));
    }
    if port != 22 {
        m.lab.with(|w| w.not_rehearsed.insert(missing(&format!("SSH forwarding to port {port}"), "guest/ssh")));
        return None;
    }
    let vmid = m.lab.with(|w| {
        let ip = crate::guest::query::name_to_ip(w, m, host)?;
        if ip.starts_with("127.") { Some(m.vmid) } else { crate::guest::by_ip(w, &ip) }
    })?;
    m.lab.guests().get(vmid)?.listening()
}

/// Copies between a channel and another guest's sshd.
pub(super) fn forward(m: Arc<Machine>, channel: Channel<Msg>, target: SocketAddr) {
    tokio::spawn(async move {
        let Ok(mut to) = tokio::net::TcpStream::connect(target).await else { return };
        let _ = to.set_nodelay(true);
        let mut from = channel.into_stream();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
            () = m.stop.cancelled() => {}
        }
    });
}
