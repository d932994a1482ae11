//! Logins and host keys against real `sshd` instances: keys, agent, certificates, passwords, known_hosts, jumps.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::error::{Kind, OpResult};
use gpuhost_stdlib::ssh::{ConnectOptions, Host, RunOptions, TunnelOptions};
use gpuhost_tests::client;
use gpuhost_tests::sshd::{Bed, PASSWORD, Server};

fn plainly() -> RunOptions {
    RunOptions { r#become: false, ..RunOptions::default() }
}

async fn who(ctx: &Ctx, host: &Host) -> OpResult<String> {
    Ok(host.exec_look(ctx, "id -un", b"", &plainly()).await?.text().to_owned())
}

/// A run that calls the server `one.test` and trusts it.
fn trusting(bed: &Bed, server: &Server, answer: Option<&str>) -> (tempfile::TempDir, Ctx) {
    let dir = tempfile::tempdir().unwrap();
    let routes = Routes::default();
    for name in ["one.test", "agent.test"] {
        routes.set(format!("{name}:22"), server.at);
    }
    let (ctx, _) = client::ctx(dir.path(), &bed.home(), routes, answer);
    for name in ["one.test", "agent.test"] {
        gpuhost_stdlib::ssh::known_hosts::pin(&ctx, name, 22, &server.host_keys).unwrap();
    }
    (dir, ctx)
}

fn key(bed: &Bed, name: &str) -> Option<String> {
    Some(format!("file:{}", bed.path(name).display()))
}

fn ada(bed: &Bed, name: &str) -> ConnectOptions {
    ConnectOptions { user: Some("ada".into()), key: key(bed, name), ..ConnectOptions::default() }
}

/// Ends with the test.
struct Agent(Child);
impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn agent(bed: &Bed, keys: &[&str]) -> Agent {
    let socket = bed.path("agent.sock");
    let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut agent = Agent(child);
    // It prints its variables once it listens.
    let mut line = String::new();
    let out = agent.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    for k in keys {
        let added = Command::new("ssh-add").arg(bed.path(k)).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_login_works() {
    let Some(bed) = Bed::open() else { return };
    let _ = bed.key("host", "ed25519", "");
    let _ = bed.key("user-ca", "ed25519", "");
    let cas = format!("TrustedUserCAKeys {}.pub\n", bed.path("user-ca").display());
    let server = bed.start("login", &["host"], &cas);
    let (_dir, ctx) = trusting(&bed, &server, None);

    for kind in ["ed25519", "rsa", "ecdsa"] {
        bed.authorize("ada", &bed.key(kind, kind, ""));
        let host = Host::connect(&ctx, "one.test", &ada(&bed, kind)).unwrap();
        assert_eq!(who(&ctx, &host).await.unwrap(), "ada", "{kind}");
    }

    // A locked key: nobody to ask, the wrong passphrase, one from a file, one that is typed.
    bed.authorize("ada", &bed.key("locked", "ed25519", "a b'c"));
    let e = who(&ctx, &Host::connect(&ctx, "one.test", &ada(&bed, "locked")).unwrap()).await.unwrap_err();
    assert!(e.message.starts_with("nobody can be asked for the passphrase of the ssh key SHA256:"), "{e}");
    assert!(e.hint.unwrap().contains("passphrase: \"env:NAME\""));
    bed.write("wrong", "no\n", 0o600);
    bed.write("right", "a b'c\n", 0o600);
    let with = |name: &str| ConnectOptions { passphrase: key(&bed, name), ..ada(&bed, "locked") };
    let e = who(&ctx, &Host::connect(&ctx, "one.test", &with("wrong")).unwrap()).await.unwrap_err();
    assert!(e.message.ends_with("is wrong"), "{e}");
    assert_eq!(who(&ctx, &Host::connect(&ctx, "one.test", &with("right")).unwrap()).await.unwrap(), "ada");
    let (_dir2, typing) = trusting(&bed, &server, Some("a b'c"));
    let typed = Host::connect(&typing, "one.test", &ada(&bed, "locked")).unwrap();
    assert_eq!(who(&typing, &typed).await.unwrap(), "ada");

    // A certificate is enough: the bare key is in nobody's authorized_keys.
    let _ = bed.key("signed", "ed25519", "");
    let certified = || Host::connect(&ctx, "one.test", &ada(&bed, "signed")).unwrap();
    let e = who(&ctx, &certified()).await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.message.starts_with("one.test refuses `ada` with key SHA256:"), "{e}");
    bed.sign("user-ca", "signed", &["-n", "ada"]);
    assert_eq!(who(&ctx, &certified()).await.unwrap(), "ada");

    // A password comes last.
    bed.write("password", PASSWORD, 0o600);
    let eve = |file: &str| ConnectOptions {
        user: Some("eve".into()),
        password: key(&bed, file),
        ..ConnectOptions::default()
    };
    assert_eq!(who(&ctx, &Host::connect(&ctx, "one.test", &eve("password")).unwrap()).await.unwrap(), "eve");
    let e = who(&ctx, &Host::connect(&ctx, "one.test", &eve("wrong")).unwrap()).await.unwrap_err();
    assert!(e.message.contains("with the password (`file:"), "{e}");
    assert!(!server.log().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_signs_with_keys_and_certificates() {
    let Some(bed) = Bed::open() else { return };
    for k in ["host", "user-ca", "other", "mine", "signed"] {
        let _ = bed.key(k, "ed25519", "");
    }
    bed.sign("user-ca", "signed", &["-n", "bob"]);
    bed.authorize("ada", &fs::read_to_string(bed.path("mine.pub")).unwrap());
    let cas = format!("TrustedUserCAKeys {}.pub\n", bed.path("user-ca").display());
    let server = bed.start("agent", &["host"], &cas);
    let _agent = agent(&bed, &["other", "mine", "signed"]);
    let config = format!("Host agent.test\n  User ada\n  IdentityAgent {}\n", bed.path("agent.sock").display());
    bed.write("client/.ssh/config", &config, 0o600);
    let (_dir, ctx) = trusting(&bed, &server, None);
    let by_config = Host::connect(&ctx, "agent.test", &ConnectOptions::default()).unwrap();
    assert_eq!(who(&ctx, &by_config).await.unwrap(), "ada");
    let bob = ConnectOptions { user: Some("bob".into()), ..ConnectOptions::default() };
    assert_eq!(who(&ctx, &Host::connect(&ctx, "agent.test", &bob).unwrap()).await.unwrap(), "bob");
    let eve = ConnectOptions { user: Some("eve".into()), ..ConnectOptions::default() };
    let e = who(&ctx, &Host::connect(&ctx, "agent.test", &eve).unwrap()).await.unwrap_err();
    assert!(e.message.contains("(agent), ") && e.message.contains("certificate `signed` (agent)"), "{e}");
}

/// A run with these lines in `~/.ssh/known_hosts` and this configuration, and what a login says.
async fn meets(bed: &Bed, server: &Server, known: &str, config: &str) -> Result<String, (String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/known_hosts"), known).unwrap();
    fs::write(home.join(".ssh/config"), config).unwrap();
    meets_at(bed, server, dir.path(), &home).await
}

async fn meets_at(bed: &Bed, server: &Server, dir: &Path, home: &Path) -> Result<String, (String, String)> {
    let (ctx, _) = client::ctx(dir, home, Routes::default(), None);
    let o = ConnectOptions { port: Some(i64::from(server.at.port())), ..ada(bed, "mine") };
    let host = Host::connect(&ctx, "127.0.0.1", &o).unwrap();
    who(&ctx, &host).await.map_err(|e| (format!("{}; {}", e.message, e.causes.join("; ")), e.hint.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn known_hosts_decide_who_is_talked_to() {
    let Some(bed) = Bed::open() else { return };
    bed.authorize("ada", &bed.key("mine", "ed25519", ""));
    let (ed, rsa, other) = (bed.key("ed", "ed25519", ""), bed.key("rsa", "rsa", ""), bed.key("other", "ed25519", ""));
    let server = bed.start("known", &["ed", "rsa"], "");
    let port = server.at.port();
    let name = format!("[127.0.0.1]:{port}");
    let says = |known: String| {
        let (bed, server) = (&bed, &server);
        async move { meets(bed, server, &known, "").await }
    };
    let refused = |answer: Result<String, (String, String)>| answer.unwrap_err();

    assert_eq!(says(format!("{name} {ed}\n")).await.unwrap(), "ada");
    // Known by another type only: that one is asked for.
    assert_eq!(says(format!("{name} {rsa}\n")).await.unwrap(), "ada");
    assert_eq!(says(format!("[127.0.*]:{port},other {ed}\n")).await.unwrap(), "ada");
    let (text, hint) = refused(says(String::new()).await);
    assert!(text.starts_with(&format!("the host key of `{name}` is not known (ssh-ed25519 SHA256:")), "{text}");
    assert!(hint.contains(&format!("ssh::pin_host_key(\"{name}\", \"{}\")", server.host_keys[0])), "{hint}");
    // The same host on its usual port is somebody else.
    assert!(refused(says(format!("127.0.0.1 {ed}\n")).await).0.contains("is not known"));
    assert!(refused(says(format!("[127.0.*]:{port},!{name} {ed}\n")).await).0.contains("is not known"));
    let (text, hint) = refused(says(format!("# old\n{name} {other}\n")).await);
    assert!(
        text.starts_with(&format!("the host key of `{name}` changed")) && text.contains("known_hosts:2 has"),
        "{text}"
    );
    assert!(hint.contains(&format!("ssh-keygen -R '{name}' -f ")), "{hint}");
    let (text, _) = refused(says(format!("{name} {ed}\n@revoked * {ed}\n")).await);
    assert!(text.contains("is revoked; by ") && text.contains("known_hosts:2"), "{text}");

    // Hashed by OpenSSH itself.
    bed.write("hashed", &format!("{name} {ed}\n"), 0o600);
    let made = Command::new("ssh-keygen").args(["-H", "-f"]).arg(bed.path("hashed")).output().unwrap();
    assert!(made.status.success());
    let hashed = fs::read_to_string(bed.path("hashed")).unwrap();
    assert!(hashed.starts_with("|1|"));
    assert_eq!(says(hashed).await.unwrap(), "ada");

    // As the configuration says: other files, an alias, keys of unknown hosts.
    bed.write("elsewhere", &format!("{name} {ed}\n"), 0o600);
    let config = format!("UserKnownHostsFile {}\n", bed.path("elsewhere").display());
    assert_eq!(meets(&bed, &server, "", &config).await.unwrap(), "ada");
    assert_eq!(meets(&bed, &server, &format!("box {ed}\n"), "HostKeyAlias box\n").await.unwrap(), "ada");
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/config"), "StrictHostKeyChecking accept-new\n").unwrap();
    assert_eq!(meets_at(&bed, &server, dir.path(), &home).await.unwrap(), "ada");
    fs::remove_file(home.join(".ssh/config")).unwrap();
    assert_eq!(meets_at(&bed, &server, dir.path(), &home).await.unwrap(), "ada", "it was kept");
    let config = "StrictHostKeyChecking no\n";
    let (text, _) = refused(meets(&bed, &server, &format!("{name} {other}\n"), config).await);
    assert!(text.contains("changed"), "a changed key is never taken: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_vouch_for_hosts() {
    let Some(bed) = Bed::open() else { return };
    bed.authorize("ada", &bed.key("mine", "ed25519", ""));
    let (ca, other) = (bed.key("ca", "ed25519", ""), bed.key("other", "ed25519", ""));
    let certified = |name: &str, more: &[&str]| {
        let public = bed.key(name, "ed25519", "");
        bed.sign("ca", name, &[&["-h"], more].concat());
        let line = format!("HostCertificate {}-cert.pub\n", bed.path(name).display());
        (public, bed.start(name, &[name], &line))
    };
    let (public, good) = certified("good", &["-n", "127.0.0.1,box"]);
    let (_, late) = certified("late", &["-n", "127.0.0.1", "-V", "20200101:20210101"]);
    let (_, foreign) = certified("foreign", &["-n", "another"]);
    let trust = |key: &str| format!("@cert-authority * {key}\n");

    assert_eq!(meets(&bed, &good, &trust(&ca), "").await.unwrap(), "ada");
    let why = |answer: Result<String, (String, String)>| answer.unwrap_err().0;
    let text = why(meets(&bed, &good, &trust(&other), "").await);
    assert!(text.contains("no @cert-authority line for this host has its authority SHA256:"), "{text}");
    let text = why(meets(&bed, &good, &format!("{}@revoked * {ca}\n", trust(&ca)), "").await);
    assert!(text.contains("is revoked by"), "{text}");
    let text = why(meets(&bed, &good, &format!("{}@revoked * {public}\n", trust(&ca)), "").await);
    assert!(text.contains("is revoked by"), "{text}");
    assert!(why(meets(&bed, &late, &trust(&ca), "").await).contains("it is not valid at this time"));
    assert!(why(meets(&bed, &foreign, &trust(&ca), "").await).contains("it is for another"));
    assert_eq!(meets(&bed, &good, &trust(&ca), "HostKeyAlias box\n").await.unwrap(), "ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_leads_through_other_hosts() {
    let Some(bed) = Bed::open() else { return };
    let mine = bed.key("mine", "ed25519", "");
    for user in ["ada", "bob"] {
        bed.authorize(user, &mine);
    }
    let mut lines = String::new();
    let mut start = |name: &str, more: &str| {
        let public = bed.key(name, "ed25519", "");
        let server = bed.start(name, &[name], more);
        lines.push_str(&format!("[127.0.0.1]:{} {public}\n", server.at.port()));
        server
    };
    let (first, second) = (start("first", ""), start("second", ""));
    let (inner, shut) = (start("inner", ""), start("shut", "AllowTcpForwarding no\n"));
    let at = |s: &Server| s.at.port();
    let config = format!(
        "Host inner\n  ProxyJump bob@second\nHost second\n  Port {}\n  ProxyJump first\nHost first\n  Port {}\n\
         Host inner\n  Port {}\nHost behind\n  Port {}\n  ProxyJump shut\nHost shut\n  Port {}\n\
         Host loop1\n  ProxyJump loop2\nHost loop2\n  ProxyJump loop1\n\
         Host *\n  HostName 127.0.0.1\n  User ada\n  IdentityFile {}\n",
        at(&second),
        at(&first),
        at(&inner),
        at(&inner),
        at(&shut),
        bed.path("mine").display()
    );
    bed.write("client/.ssh/config", &config, 0o600);
    bed.write("client/.ssh/known_hosts", &lines, 0o600);
    let dir = tempfile::tempdir().unwrap();
    let (ctx, _) = client::ctx(dir.path(), &bed.home(), Routes::default(), None);
    let to = |name: &str| Host::connect(&ctx, name, &ConnectOptions::default()).unwrap();
    let (a, b) = (to("inner"), to("inner"));
    assert_eq!(who(&ctx, &a).await.unwrap(), "ada");
    assert_eq!(who(&ctx, &b).await.unwrap(), "ada");
    assert_eq!((first.logins(), second.logins(), inner.logins()), (1, 1, 1), "one connection each");
    assert!(second.log().contains("Accepted publickey for bob"), "{}", second.log());
    // A recipe's own way, with the configuration for the hop's port.
    let o = ConnectOptions { jump: Some("first".into()), ..ConnectOptions::default() };
    assert_eq!(who(&ctx, &Host::connect(&ctx, "behind", &o).unwrap()).await.unwrap(), "ada");
    let e = who(&ctx, &to("behind")).await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.hint.unwrap().starts_with("`AllowTcpForwarding yes`"), "{}", e.message);
    let e = who(&ctx, &to("loop1")).await.unwrap_err();
    assert!(e.message.contains("goes through"), "{e}");
    // What is reached through a tunnel of our own.
    let options = TunnelOptions::read(&rhai::Map::new()).unwrap();
    let tunnel = to("second").tunnel(&ctx, at(&inner), options).await.unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", tunnel.port())).await.unwrap();
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(stream), &mut line).await.unwrap();
    assert!(line.starts_with("SSH-2.0-OpenSSH"), "{line}");
}
