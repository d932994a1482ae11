//! Commands against a real `sshd`: fan-out, lost connections, `sudo`, signals, binary data, time limits, secrets.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a real peer has real time
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::error::Kind;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::core::units::{Duration as Span, Secret};
use gpuhost_stdlib::ssh::{ConnectOptions, Host, RunOptions, Stdin};
use gpuhost_tests::client::{self, Kept};
use gpuhost_tests::sshd::{Bed, PASSWORD, Server};

struct Yard {
    bed: Bed,
    server: Server,
    ctx: Ctx,
    kept: Arc<Kept>,
    _dir: tempfile::TempDir,
}

impl Yard {
    fn open(more: &str) -> Option<Yard> {
        let bed = Bed::open()?;
        let _ = bed.key("host", "ed25519", "");
        let mine = bed.key("mine", "ed25519", "");
        for user in ["root", "ada", "bob"] {
            bed.authorize(user, &mine);
        }
        let server = bed.start("commands", &["host"], more);
        let dir = tempfile::tempdir().unwrap();
        let routes = Routes::default();
        routes.set("one.test:22", server.at);
        let (ctx, kept) = client::ctx(dir.path(), &bed.home(), routes, None);
        gpuhost_stdlib::ssh::known_hosts::pin(&ctx, "one.test", 22, &server.host_keys).unwrap();
        Some(Yard { bed, server, ctx, kept, _dir: dir })
    }

    fn host(&self, user: &str, become_password: Option<&str>) -> Host {
        let file = |name: &str| format!("file:{}", self.bed.path(name).display());
        let o = ConnectOptions {
            user: Some(user.into()),
            key: Some(file("mine")),
            become_password: become_password.map(file),
            ..ConnectOptions::default()
        };
        Host::connect(&self.ctx, "one.test", &o).unwrap()
    }

    /// So many commands at the same time, all of which answer.
    async fn at_once(&self, host: &Host, n: usize) {
        let work: Vec<_> =
            (0..n).map(|i| async move { host.exec_raw(&self.ctx, &format!("echo {i}"), b"").await }).collect();
        for (i, out) in self.ctx.clock.join_all(work).await.into_iter().enumerate() {
            assert_eq!(out.unwrap().text(), i.to_string());
        }
    }
}

/// Waits for what another process is about to do.
async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let start = Instant::now();
    while !seen() {
        assert!(start.elapsed() < Duration::from_secs(90), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_and_none_fails() {
    let Some(y) = Yard::open("") else { return };
    let host = y.host("root", None);
    y.at_once(&host, 200).await;
    for i in 0..30 {
        assert_eq!(host.exec_raw(&y.ctx, &format!("echo {i}"), b"").await.unwrap().text(), i.to_string());
    }
    assert_eq!(y.server.logins(), 1, "over one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_one_session_is_enough() {
    let Some(y) = Yard::open("MaxSessions 1\n") else { return };
    y.at_once(&y.host("root", None), 40).await;
    assert_eq!(y.server.logins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_survives_its_connection_and_runs_once() {
    let Some(y) = Yard::open("") else { return };
    let d = tempfile::tempdir().unwrap();
    fs::set_permissions(d.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // As root, through `sudo` without and with a password, and as a plain user.
    y.bed.write("pw", PASSWORD, 0o600);
    for (n, (user, password, r#become)) in
        [("root", None, true), ("bob", None, true), ("ada", Some("pw"), true), ("ada", None, false)].iter().enumerate()
    {
        let at = |name: &str| d.path().join(format!("{name}{n}"));
        let script = format!(
            "echo run >>{}\necho $HOME \"$(cat)\"\nwhile [ ! -e {} ]; do sleep 0.05; done\necho end >&2\nexit 3",
            at("count").display(),
            at("go").display()
        );
        let host = y.host(user, *password);
        let o = RunOptions {
            r#become: *r#become,
            ok_codes: vec![3],
            stdin: Stdin::from("some input"),
            ..RunOptions::default()
        };
        let (ctx, h) = (y.ctx.clone(), host.clone());
        let running = tokio::spawn(async move { h.run(&ctx, &script, o).await });
        until("the start", || at("count").exists()).await;
        for _ in 0..2 {
            let before = y.server.logins();
            y.server.cut();
            until("another login", || y.server.logins() > before).await;
        }
        fs::write(at("go"), "").unwrap();
        let out = running.await.unwrap().unwrap();
        assert_eq!((out.code, out.stderr.as_str()), (3, "end\n"), "{user}");
        assert!(out.stdout.ends_with(" some input\n"), "{user}: {}", out.stdout);
        assert_eq!(fs::read_to_string(at("count")).unwrap(), "run\n", "{user}: it ran once");
        // What it left is gone, where that needs no password.
        if password.is_none() {
            let left = "ls /var/lib/gpuhost/jobs \"$HOME/.cache/gpuhost/jobs\" 2>/dev/null | grep -c '^[0-9a-f]' || :";
            let o = RunOptions { r#become: *r#become, ..RunOptions::default() };
            let start = Instant::now();
            while host.exec_with(&y.ctx, left, b"", &o).await.unwrap().text() != "0" {
                assert!(start.elapsed() < Duration::from_secs(60), "{user}: its folder stays");
            }
        }
    }
    let intents: Vec<_> = y.kept.all().into_iter().filter(|e| matches!(e, Event::Intent { .. })).collect();
    assert!(intents.iter().all(|e| matches!(e, Event::Intent { marker, .. } if marker.starts_with("unit gpuhost-"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_is_run_again_and_the_rest_is_not() {
    let Some(y) = Yard::open("") else { return };
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    let script =
        |n: &str| format!("echo run >>{}\nwhile [ ! -e {} ]; do sleep 0.05; done", at(n).display(), at("go").display());
    let host = y.host("root", None);
    let (ctx, h, s) = (y.ctx.clone(), host.clone(), script("read"));
    let reading = tokio::spawn(async move { h.read(&ctx, &s).await });
    until("the start", || at("read").exists()).await;
    y.server.cut();
    until("the second login", || y.server.logins() >= 2).await;
    let (ctx, h, s) = (y.ctx.clone(), host.clone(), script("plain"));
    let o = RunOptions { reattach: false, ..RunOptions::default() };
    let plain = tokio::spawn(async move { h.run(&ctx, &s, o).await });
    until("the start", || at("plain").exists()).await;
    y.server.cut();
    let e = plain.await.unwrap().unwrap_err();
    assert!(e.is(Kind::Unreachable) && e.hint.unwrap().starts_with("the command may have run"), "{}", e.message);
    fs::write(at("go"), "").unwrap();
    reading.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(at("plain")).unwrap(), "run\n");
    assert!(fs::read_to_string(at("read")).unwrap().lines().count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sudo_gets_its_password_and_nobody_sees_it() {
    let Some(y) = Yard::open("") else { return };
    y.bed.write("pw", PASSWORD, 0o600);
    y.bed.write("wrong", "sesame close", 0o600);
    let binary: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 256) as u8).collect();
    let spy = "id -u\ncat >/tmp/gpuhost-spy\nsha256sum </tmp/gpuhost-spy\nrm /tmp/gpuhost-spy\n\
               printf '%s\\n' \"$TOKEN\"\nfor f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null";
    let token = "line one\n  'two' \\n $(id) `id` \\\\ end";
    let sum: String = {
        use std::process::{Command, Stdio};
        let mut c = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut c.stdin.take().unwrap(), &binary).unwrap();
        String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap()
    };
    // `bob` may use sudo without one: then it is not taken for input.
    for user in ["ada", "bob"] {
        for reattach in [true, false] {
            let o = RunOptions {
                stdin: Stdin(binary.clone()),
                secrets: BTreeMap::from([("TOKEN".to_owned(), Secret::new(token))]),
                reattach,
                ..RunOptions::default()
            };
            let out = y.host(user, Some("pw")).run(&y.ctx, spy, o).await.unwrap();
            assert!(out.stdout.starts_with(&format!("0\n{sum}{token}\n")), "{user}: {}", out.stdout);
            let lines = &out.stdout[sum.len() + token.len() + 3..];
            assert!(lines.contains("sshd") && !lines.contains(PASSWORD) && !lines.contains("line one"), "{lines}");
            assert_eq!(out.stderr, "", "{user}");
        }
    }
    let o = RunOptions::default;
    let e = y.host("ada", Some("wrong")).run(&y.ctx, "id", o()).await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.message == "`ada` may not become root on one.test", "{e}");
    assert!(e.hint.unwrap().starts_with("is it the right password"));
    let e = y.host("ada", None).run(&y.ctx, "id", o()).await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.causes[0].contains("password is required"), "{:?}", e.causes);
    let journal = serde_json::to_string(&y.kept.all()).unwrap();
    assert!(!journal.contains(PASSWORD) && !journal.contains("sesame close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_signals_and_bytes_arrive() {
    let Some(y) = Yard::open("") else { return };
    let host = y.host("root", None);
    for reattach in [true, false] {
        let o = |codes: &[i64]| RunOptions { ok_codes: codes.to_vec(), reattach, ..RunOptions::default() };
        for code in [0, 1, 66, 125, 255] {
            assert_eq!(host.run(&y.ctx, &format!("exit {code}"), o(&[code])).await.unwrap().code, code);
        }
        for (signal, code, name) in [("TERM", 143, "TERM"), ("KILL", 137, "KILL"), ("HUP", 129, "HUP")] {
            let out = host.run(&y.ctx, &format!("kill -{signal} $$; sleep 60"), o(&[code])).await.unwrap();
            assert_eq!((out.code, out.signal()), (code, Some(name)), "{reattach}");
        }
        let e = host.run(&y.ctx, "echo why >&2; kill -TERM $$; sleep 60", o(&[0])).await.unwrap_err();
        assert!(e.message.ends_with("was ended by signal TERM") && e.causes == ["why"], "{e}: {:?}", e.causes);
        let random: Vec<u8> = {
            use std::io::Read as _;
            let mut b = Vec::new();
            fs::File::open("/dev/urandom").unwrap().take(10_000_000).read_to_end(&mut b).unwrap();
            b
        };
        let file = y.bed.path("random");
        fs::write(&file, &random).unwrap();
        let out = host.run(&y.ctx, &format!("cat {}", file.display()), o(&[0])).await.unwrap();
        assert!(out.bytes() == random, "{} of {} bytes", out.bytes().len(), random.len());
        // And in: binary input, and a program too long for an argument beside it.
        let long = format!("x={}\necho ${{#x}}\ncat", "y".repeat(200_000));
        let o = RunOptions { stdin: Stdin(random.clone()), ..o(&[0]) };
        let out = host.run(&y.ctx, &long, o).await.unwrap();
        assert!(out.bytes() == [b"200000\n".as_slice(), &random].concat(), "{}", out.bytes().len());
    }
    let o = RunOptions {
        env: BTreeMap::from([("X".to_owned(), "it's".to_owned())]),
        cwd: Some("/usr".into()),
        ..RunOptions::default()
    };
    assert_eq!(host.run(&y.ctx, "echo \"$X\"; pwd", o).await.unwrap().stdout, "it's\n/usr\n");
}

fn alive(pid: &str, server: &Path) -> bool {
    // Process ids of the server's own namespace: its marker tells its processes from others'.
    let all = fs::read_dir("/proc").unwrap().flatten();
    let marker = server.display().to_string();
    all.filter_map(|e| fs::read_to_string(e.path().join("environ")).ok())
        .any(|env| env.contains(&format!("GPUHOST_TEST_MARK={marker}{pid}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_the_whole_process_group() {
    let Some(y) = Yard::open("") else { return };
    let host = y.host("root", None);
    for reattach in [true, false] {
        let mark = format!("-{reattach}");
        let o = RunOptions {
            timeout: Span::secs(2),
            env: BTreeMap::from([("GPUHOST_TEST_MARK".to_owned(), format!("{}{mark}", y.bed.path("").display()))]),
            reattach,
            ..RunOptions::default()
        };
        let script = "sleep 600 & (sleep 600; true) & sh -c 'trap \"\" TERM; sleep 600; sleep 600' & sleep 600";
        let e = host.run(&y.ctx, script, o).await.unwrap_err();
        assert!(e.is(Kind::Timeout) && e.message.ends_with("did not end within 2s"), "{e}");
        let bed = y.bed.path("");
        until("their end", || !alive(&mark, &bed)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_seen_while_the_command_runs() {
    let Some(y) = Yard::open("") else { return };
    let d = tempfile::tempdir().unwrap();
    let go = d.path().join("go");
    let script =
        format!("echo early; echo warned >&2; while [ ! -e {} ]; do sleep 0.05; done; echo late", go.display());
    let (ctx, h) = (y.ctx.clone(), y.host("root", None));
    let running = tokio::spawn(async move { h.run(&ctx, &script, RunOptions::default()).await });
    let seen = |stream: &str, text: &str| {
        y.kept.all().iter().any(|e| matches!(e, Event::Output { stream: s, text: t, .. } if s == stream && t == text))
    };
    until("the output", || seen("out", "early") && seen("err", "warned")).await;
    fs::write(&go, "").unwrap();
    assert_eq!(running.await.unwrap().unwrap().stdout, "early\nlate\n");
}
