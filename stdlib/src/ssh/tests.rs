//! The real client against a real SSH server on loopback (russh's server over the local `sh`).
#![allow(clippy::disallowed_methods, clippy::cloned_ref_to_slice_refs, clippy::collapsible_match)] // a real peer has real time
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::core::clock::Clock;
use crate::core::ctx::{Consent, Parties, Policy, Run};
use crate::core::dialer::{Dialer, Reach, Routes};
use crate::core::error::{Kind, OpResult};
use crate::core::event::{Change, Event, Recorder};
use crate::core::op::Op;
use crate::core::units::Duration as Span;

struct Free;
impl Policy for Free {
    fn check(&self, _: &Op) -> OpResult<()> {
        Ok(())
    }
    fn check_change(&self, _: &Op, _: &[Change]) -> OpResult<()> {
        Ok(())
    }
}
impl Consent for Free {
    fn confirm(&self, _: &str, _: bool) -> OpResult<bool> {
        Ok(true)
    }
    fn destroy(&self, _: &Op, _: &[Change]) -> OpResult<()> {
        Ok(())
    }
}
impl Recorder for Free {
    fn record(&self, _: u64, _: &Event) -> OpResult<()> {
        Ok(())
    }
}

/// What the server does besides running commands.
#[derive(Default)]
struct Ways {
    /// Open sessions at the same time, at most.
    limit: usize,
    open: AtomicUsize,
    logins: AtomicUsize,
    refused: AtomicUsize,
    /// Drop the connection at the next session.
    drop_next: AtomicBool,
    /// Hosts behind this one.
    inner: Mutex<HashMap<String, SocketAddr>>,
    /// The clock on which the command `vsleep` spends 20 s, as a handler of the lab does.
    clock: Option<Clock>,
}

struct Server {
    ways: Arc<Ways>,
    key: String,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let shown = key.public_key.to_openssh().unwrap_or_default();
        let same = shown.split(' ').nth(1) == self.key.split(' ').nth(1);
        if user == "root" && same {
            self.ways.logins.fetch_add(1, Ordering::SeqCst);
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.ways.drop_next.swap(false, Ordering::SeqCst) {
            session.disconnect(russh::Disconnect::ByApplication, "bye", "")?;
            return Err(russh::Error::Disconnect);
        }
        if self.ways.open.fetch_add(1, Ordering::SeqCst) >= self.ways.limit {
            self.ways.open.fetch_sub(1, Ordering::SeqCst);
            self.ways.refused.fetch_add(1, Ordering::SeqCst);
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        to: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // The bastion knows names that the client cannot resolve.
        let Some(at) = self.ways.inner.lock().unwrap().get(to).copied() else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        tokio::spawn(async move {
            let mut there = tokio::net::TcpStream::connect(at).await.unwrap();
            tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut there).await.ok();
        });
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        let Some(channel) = self.channels.remove(&id) else { return Ok(()) };
        let command = String::from_utf8_lossy(data).into_owned();
        let ways = self.ways.clone();
        let handle = session.handle();
        tokio::spawn(async move {
            if command.contains("vsleep")
                && let Some(clock) = &ways.clock
            {
                clock.sleep(Duration::from_secs(20)).await;
            }
            let (mut read, _write) = channel.split();
            let mut child = tokio::process::Command::new("sh")
                .arg("-c")
                .arg(command)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let feed = tokio::spawn(async move {
                while let Some(msg) = read.wait().await {
                    match msg {
                        ChannelMsg::Data { data } => {
                            if input.write_all(&data).await.is_err() {
                                break;
                            }
                        }
                        ChannelMsg::Eof => break,
                        _ => {}
                    }
                }
                drop(input);
                while read.wait().await.is_some() {}
            });
            let out = child.wait_with_output().await.unwrap();
            let code = out.status.code().unwrap_or(255) as u32;
            handle.data(id, out.stdout).await.ok();
            handle.extended_data(id, 1, out.stderr).await.ok();
            handle.exit_status_request(id, code).await.ok();
            handle.eof(id).await.ok();
            handle.close(id).await.ok();
            // As sshd: the slot is free a little later than the client sees it.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            ways.open.fetch_sub(1, Ordering::SeqCst);
            feed.abort();
        });
        Ok(())
    }
}

struct Bed {
    ctx: Ctx,
    host: Host,
    ways: Arc<Ways>,
    host_key: String,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

const NAME: &str = "node1.test";

fn options(user: &str, key: &str) -> ConnectOptions {
    ConnectOptions { user: Some(user.to_owned()), key: Some(key.to_owned()), ..ConnectOptions::default() }
}

async fn bed(limit: usize, pinned: bool) -> Bed {
    bed_on(Clock::Real, limit, pinned).await
}

/// A run whose `NAME:22` is really `at`.
fn context(clock: Clock, at: SocketAddr, dir: &std::path::Path) -> Ctx {
    let routes = Routes::default();
    routes.set(format!("{NAME}:22"), at);
    let by = Parties { policy: Arc::new(Free), consent: Arc::new(Free), recorder: Arc::new(Free) };
    let way = (clock, Dialer::new(routes, Reach::RoutesOnly));
    let run = Run::new(tokio::runtime::Handle::current(), way, dir.to_owned(), by);
    let ctx = Ctx::new(Arc::new(run));
    use_home(&ctx, &dir.join("home"));
    ctx
}

async fn bed_on(clock: Clock, limit: usize, pinned: bool) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    let ctx = context(clock.clone(), at, dir.path());
    let key = keys::load(&ctx, "state:ssh_key").unwrap().public_key().to_openssh().unwrap();
    let private = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let host_key = private.public_key().to_openssh().unwrap();
    let ways = Arc::new(Ways { limit, clock: Some(clock), ..Ways::default() });
    let config = Arc::new(Config {
        keys: vec![private],
        auth_rejection_time: Duration::from_millis(1),
        nodelay: true,
        ..Config::default()
    });
    let shared = ways.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = Server { ways: shared.clone(), key: key.clone(), channels: HashMap::new() };
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(session) = russh::server::run_stream(config, stream, server).await {
                    session.await.ok();
                }
            });
        }
    });
    if pinned {
        known_hosts::pin(&ctx, NAME, 22, &[host_key.clone()]).unwrap();
    }
    let host = Host::connect(&ctx, NAME, &options("root", "state:ssh_key")).unwrap();
    Bed { ctx, host, ways, host_key, at, _dir: dir }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_one_connection() {
    let b = bed(10, true).await;
    let out = b.host.read(&b.ctx, "echo out; echo err >&2").await.unwrap();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str(), out.code), ("out\n", "err\n", 0));
    let e = b.host.run(&b.ctx, "echo no such thing >&2; exit 3", RunOptions::default()).await.unwrap_err();
    assert_eq!(e.message, "`echo no such thing >&2; exit 3` ended with exit code 3");
    assert_eq!((e.causes, e.op.as_str(), e.target.as_str()), (vec!["no such thing".into()], "ssh.run", NAME));
    let o = RunOptions {
        stdin: "a'b\n".into(),
        env: [("X".to_owned(), "it's".to_owned())].into(),
        cwd: Some("/tmp".into()),
        ok_codes: vec![7],
        ..RunOptions::default()
    };
    let out = b.host.run(&b.ctx, "cat; echo \"$X\"; pwd; exit 7", o).await.unwrap();
    assert_eq!(out.stdout, "a'b\nit's\n/tmp\n");
    // More input than any window, and a command that does not read it.
    let big = vec![b'x'; 5_000_000];
    let out = b.host.exec_raw(&b.ctx, "wc -c", &big).await.unwrap();
    assert_eq!(out.text().trim(), "5000000");
    assert_eq!(b.host.exec_raw(&b.ctx, "true", &big).await.unwrap().code, 0);
    // A program longer than one argument may be.
    let long = format!("x={}\necho ${{#x}}; cat", "y".repeat(200_000));
    assert_eq!(b.host.exec_raw(&b.ctx, &long, b"").await.unwrap().text(), "200000");
    assert_eq!(b.ways.logins.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_survive_a_server_with_few_sessions() {
    let b = bed(3, true).await;
    let work: Vec<_> = (0..40)
        .map(|i| {
            let b = &b;
            async move { b.host.read(&b.ctx, &format!("echo {i}")).await }
        })
        .collect();
    let all = b.ctx.clock.join_all(work).await;
    for (i, out) in all.into_iter().enumerate() {
        assert_eq!(out.unwrap().text(), i.to_string());
    }
    assert_eq!(b.ways.logins.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_slot_does_not_hold_time() {
    let time = crate::core::clock::VirtualClock::new(0, crate::core::clock::Mode::Instant);
    let b = bed_on(Clock::Virtual(time.clone()), 10, true).await;
    let mark = b.ctx.clock.busy();
    let work: Vec<_> = (0..10)
        .map(|_| {
            let b = &b;
            async move { b.host.read(&b.ctx, "true; : vsleep").await }
        })
        .collect();
    // Real time only as an emergency brake: a mark that is held while waiting would stop time for ever.
    let all = tokio::time::timeout(Duration::from_secs(60), b.ctx.clock.join_all(work)).await.unwrap();
    assert!(all.iter().all(Result::is_ok));
    // Fewer at a time than were asked for: the last ones wait for the first, who take 20 s.
    assert!((40_000..80_000).contains(&time.now_ms()), "{}", time.now_ms());
    assert_eq!(time.busy(), 1);
    drop(mark);
    // A command that never ends is ended on our clock.
    let _mark = b.ctx.clock.busy();
    let o = RunOptions { timeout: Span::secs(2), ..RunOptions::default() };
    let e = b.host.exec_with(&b.ctx, "true; : vsleep", b"", &o).await.unwrap_err();
    assert!(e.is(Kind::Timeout) && e.message.ends_with("did not end within 2s"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_anew_before_a_command() {
    let b = bed(10, true).await;
    b.host.read(&b.ctx, "true").await.unwrap();
    b.ways.drop_next.store(true, Ordering::SeqCst);
    assert_eq!(b.host.read(&b.ctx, "echo again").await.unwrap().text(), "again");
    assert_eq!(b.ways.logins.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_keys_are_never_accepted_blindly() {
    let b = bed(10, false).await;
    let e = b.host.read(&b.ctx, "true").await.unwrap_err();
    assert!(
        e.is(Kind::Denied) && e.message.starts_with("the host key of `node1.test` is not known (ssh-ed25519 SHA256:"),
        "{e}"
    );
    assert!(e.hint.unwrap().contains("ssh::pin_host_key(\"node1.test\", \"ssh-ed25519 AAAA"));
    let other = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap().public_key().to_openssh().unwrap();
    known_hosts::pin(&b.ctx, NAME, 22, &[other]).unwrap();
    let e = b.host.read(&b.ctx, "true").await.unwrap_err();
    assert_eq!(e.message, "the host key of `node1.test` changed");
    let e = b.host.wait_ssh(&b.ctx, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(e.message, "the host key of `node1.test` changed");
    known_hosts::pin(&b.ctx, NAME, 22, &[b.host_key.clone()]).unwrap();
    b.host.wait_ssh(&b.ctx, Duration::from_secs(60)).await.unwrap();
    b.host.wait_ready(&b.ctx, Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_to_log_in_are_told_apart() {
    let b = bed(10, true).await;
    let wrong_user = Host::connect(&b.ctx, NAME, &options("ada", "state:ssh_key")).unwrap();
    let e = wrong_user.read(&b.ctx, "true").await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.message.starts_with("node1.test refuses `ada` with key SHA256:"), "{e}");
    assert!(e.message.ends_with("(`state:ssh_key`)"), "{e}");
    let nobody = Host::connect(&b.ctx, "node2.test", &options("root", "state:ssh_key")).unwrap();
    let e = nobody.read(&b.ctx, "true").await.unwrap_err();
    assert_eq!((e.kind, e.message.as_str()), (Kind::Unreachable, "connection to node2.test:22 refused"));
    let no_key = Host::connect(&b.ctx, NAME, &options("root", "file:absent")).unwrap();
    let e = no_key.read(&b.ctx, "true").await.unwrap_err();
    assert!(e.message.starts_with("cannot read the ssh key "), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_wanted_state_over_the_wire() {
    let b = bed(10, true).await;
    let id = b.host.read(&b.ctx, "echo $(id -u):$(id -g)").await.unwrap().text().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/a b/c'd", dir.path().display());
    let o = || FileOptions { mode: Some("0600".into()), owner: Some(id.clone()), ..FileOptions::default() };
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(b.host.read_file(&b.ctx, &path).await.unwrap(), None);
    assert!(b.host.write_file(&b.ctx, &path, &content, o()).await.unwrap());
    assert!(!b.host.write_file(&b.ctx, &path, &content, o()).await.unwrap());
    assert_eq!(b.host.read_file(&b.ctx, &path).await.unwrap().unwrap(), content);
    let before = b.ctx.changed.load(Ordering::SeqCst);
    assert_eq!(before, 1);
    let link = format!("{}/link", dir.path().display());
    let text = format!("#{{ links: #{{ \"{link}\": \"/x\" }} }}");
    let wanted: rhai::Map = rhai::Engine::new_raw().eval(&text).unwrap();
    let changes = b.host.ensure(&b.ctx, &wanted).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].what, format!("link {link}"));
    assert!(b.host.ensure(&b.ctx, &wanted).await.unwrap().is_empty());
    let facts = b.host.facts(&b.ctx).await.unwrap();
    assert!(facts["cores"].as_int().unwrap() > 0);
    assert!(b.host.copy_from(&b.ctx, &path, "copy").await.unwrap());
    assert!(!b.host.copy_from(&b.ctx, &path, "copy").await.unwrap());
    assert!(!b.host.copy_to(&b.ctx, "copy", &path, o()).await.unwrap());
    assert!(b.host.copy_to(&b.ctx, "/etc/hostname", &path, o()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_bastion() {
    let b = bed(10, true).await;
    b.ways.inner.lock().unwrap().insert("inner.test".into(), b.at);
    let o = |to: &str| {
        let o = ConnectOptions { jump: Some(NAME.into()), ..options("root", "state:ssh_key") };
        Host::connect(&b.ctx, to, &o).unwrap()
    };
    let e = o("inner.test").read(&b.ctx, "true").await.unwrap_err();
    assert!(e.message.starts_with("the host key of `inner.test` is not known"), "{e}");
    known_hosts::pin(&b.ctx, "inner.test", 22, &[b.host_key.clone()]).unwrap();
    assert_eq!(o("inner.test").read(&b.ctx, "echo in").await.unwrap().text(), "in");
    let e = o("other.test").read(&b.ctx, "true").await.unwrap_err();
    assert_eq!(e.message, "node1.test does not reach other.test:22");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_reach_hosts() {
    let b = bed(10, true).await;
    let run = b.ctx.run().clone();
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"
        let host = ssh::connect("{NAME}", #{{ user: "root", key: "state:ssh_key" }});
        let out = host.run("echo hi; exit 4", #{{ ok_codes: [4], become: false }});
        if out.stdout != "hi\n" || out.code != 4 || `${{out}}` != "hi" {{ throw "run"; }}
        let twice = [host.ensure_links(#{{ "{d}/l": "/x" }}), host.ensure(#{{ links: #{{ "{d}/l": "/x" }} }})];
        if twice[0].len() != 1 || twice[0][0].after != "/x" || twice[1].len() != 0 {{ throw "ensure"; }}
        let kind = "";
        try {{ host.read("exit 9"); }} catch (e) {{ kind = "caught"; }}
        host.write_file("{d}/f", "text", #{{ owner: host.read("id -u").stdout.split("\n")[0] }});
        `${{host.name}} ${{host.role}} ${{kind}} ${{host.read_file("{d}/f")}} ${{host.read_file("{d}/none")}}`
        "#,
        d = dir.path().display()
    );
    let answer = tokio::task::spawn_blocking(move || {
        let mut engine = rhai::Engine::new();
        engine.set_max_expr_depths(0, 0);
        engine.set_default_tag(rhai::Dynamic::from(run));
        engine.register_static_module("ssh", def().module);
        let ok = engine.eval::<String>(&script).map_err(|e| e.to_string());
        let typo = engine.eval::<()>(&format!("ssh::connect(\"{NAME}\", #{{ user: \"root\", kee: \"x\" }})"));
        (ok, crate::core::error::OpError::from_rhai(&typo.unwrap_err()))
    })
    .await
    .unwrap();
    assert_eq!(answer.0.unwrap(), format!("{NAME}  caught text "));
    assert_eq!(answer.1.message, "unknown option `kee`");
    assert_eq!(answer.1.hint.as_deref(), Some("did you mean `key`?"));
}

/// OpenSSH's own server, if this machine has one: each connection gets an `sshd -i`.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_sshd() {
    let sshd = std::env::var("GPUHOST_TEST_SSHD").unwrap_or_else(|_| "/usr/sbin/sshd".to_owned());
    if !std::path::Path::new(&sshd).exists() {
        eprintln!("skipped: there is no {sshd} (GPUHOST_TEST_SSHD names another)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ctx = context(Clock::Real, listener.local_addr().unwrap(), dir.path());
    let host_key = keys::load(&ctx, "state:host_key").unwrap().public_key().to_openssh().unwrap();
    let public = keys::load(&ctx, "state:ssh_key").unwrap().public_key().to_openssh().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("authorized_keys"), format!("{public}\n")).unwrap();
    let config = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n",
        at("host_key"),
        at("authorized_keys")
    );
    std::fs::write(at("config"), config).unwrap();
    let config = at("config");
    let usable = std::process::Command::new(&sshd).args(["-t", "-f", &config]).output().unwrap();
    if !usable.status.success() {
        eprintln!("skipped: {sshd} cannot run here: {}", String::from_utf8_lossy(&usable.stderr).trim());
        return;
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let copy = || Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()));
            let server = tokio::process::Command::new(&sshd)
                .args(["-i", "-e", "-f", &config])
                .stdin(copy())
                .stdout(copy())
                .spawn();
            tokio::spawn(async move { server.unwrap().wait().await });
        }
    });
    known_hosts::pin(&ctx, NAME, 22, &[host_key]).unwrap();
    let me = std::process::Command::new("id").arg("-un").output().unwrap();
    let me = String::from_utf8_lossy(&me.stdout).trim().to_owned();
    let host = Host::connect(&ctx, NAME, &options(&me, "state:ssh_key")).unwrap();
    let o = RunOptions { r#become: false, ..RunOptions::default() };
    let out = host.exec_with(&ctx, "echo out; echo err >&2; exit 5", b"", &o).await.unwrap();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str(), out.code), ("out\n", "err\n", 5));
    let work: Vec<_> = (0..60)
        .map(|i| {
            let (host, ctx, o) = (&host, &ctx, &o);
            async move { host.exec_with(ctx, &format!("echo {i}"), b"", o).await }
        })
        .collect();
    for (i, out) in ctx.clock.join_all(work).await.into_iter().enumerate() {
        assert_eq!(out.unwrap().text(), i.to_string());
    }
    let big = vec![b'x'; 3_000_000];
    assert_eq!(host.exec_with(&ctx, "wc -c", &big, &o).await.unwrap().text().trim(), "3000000");
    assert_eq!(host.exec_with(&ctx, "true", &big, &o).await.unwrap().code, 0);
    let long = format!("x={}\necho ${{#x}}", "y".repeat(150_000));
    assert_eq!(host.exec_with(&ctx, &long, b"", &o).await.unwrap().text(), "150000");
    let e = Host::connect(&ctx, NAME, &options("nobody-here", "state:ssh_key")).unwrap().read(&ctx, "true").await;
    assert!(e.unwrap_err().message.contains("refuses `nobody-here`"));
    let short = RunOptions { timeout: Span::secs(1), ..o.clone() };
    let e = host.exec_with(&ctx, "sleep 30", b"", &short).await.unwrap_err();
    assert!(e.is(Kind::Timeout), "{e}");
}
