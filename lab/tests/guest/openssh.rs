//! OpenSSH's own clients against a guest. Skipped with a line where they are not installed.
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::bed::Bed;

fn there(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).exists()));
    if !found {
        println!("skipped: no `{program}` on this machine");
    }
    found
}

async fn options(bed: &Bed) -> Vec<String> {
    let at = bed.wait_route("10.0.0.11").await;
    let key = bed.key_file();
    let o = |s: String| ["-o".to_owned(), s];
    [
        o("StrictHostKeyChecking=no".into()),
        o("UserKnownHostsFile=/dev/null".into()),
        o("LogLevel=ERROR".into()),
        o("IdentitiesOnly=yes".into()),
        o(format!("IdentityFile={}", key.display())),
        o(format!("Port={}", at.port())),
        o("User=debian".into()),
    ]
    .concat()
}

async fn run(program: &str, args: Vec<String>, input: &str) -> (i32, String, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let out = child.wait_with_output().await.unwrap();
    (
        out.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_runs_commands_scripts_and_terminals() {
    if !there("ssh") {
        return;
    }
    let bed = Bed::one().await;
    let mut args = options(&bed).await;
    args.push("127.0.0.1".into());
    let with = |extra: &[&str]| [args.clone(), extra.iter().map(|s| (*s).to_owned()).collect()].concat();
    assert_eq!(run("ssh", with(&["echo out; echo err >&2; exit 7"]), "").await, (7, "out\n".into(), "err\n".into()));
    assert_eq!(run("ssh", with(&["sudo", "bash", "-s"]), "hostname; id -u").await.1, "a1\n0\n");
    assert_eq!(run("ssh", args.clone(), "echo from a script\n").await.1, "from a script\n");
    let tty = [vec!["-tt".to_owned()], args.clone()].concat();
    let (code, out, _) =
        run("ssh", tty, "echo $((6*7))\rw -h\rsudo -i\rid -u\rexit\rfor i in 1 2\rdo echo n$i\rdone\rexit 3\r").await;
    assert!(out.contains("debian@a1:~$") && out.contains("42") && out.contains("root@a1:~#"), "{out}");
    assert!(out.contains("n1\r\nn2\r\n"), "{out}");
    assert!(out.contains("debian   pts/0    127.0.0.1"), "a session at a terminal is one: {out}");
    assert_eq!(code, 3, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_terminal_input_does_not_hold_a_command() {
    if !there("ssh") {
        return;
    }
    let bed = Bed::one().await;
    for (command, want) in
        [("echo hi", "hi\n"), ("exit 3", ""), ("sudo -n id -u", "0\n"), ("read -r l; echo $l", "line\n")]
    {
        let mut args = options(&bed).await;
        args.extend(["127.0.0.1".to_owned(), command.to_owned()]);
        let mut child = Command::new("ssh")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"line\n").await.unwrap();
        // The input stays open: the command has what it needs and ends.
        let limit = std::time::Duration::from_secs(90);
        let out = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("`{command}` does not end"))
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), want, "{command}");
        drop(stdin);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sftp_moves_files_both_ways() {
    if !there("sftp") {
        return;
    }
    let bed = Bed::one().await;
    let mut args = options(&bed).await;
    let local = bed.dir.path().join("up");
    let back = bed.dir.path().join("down");
    let bytes: Vec<u8> = (0..=255u8).cycle().take(200_000).collect();
    std::fs::write(&local, &bytes).unwrap();
    args.extend(["-b".to_owned(), "-".to_owned(), "127.0.0.1".to_owned()]);
    let batch = format!(
        "put {} d1\nmkdir sub\nrename d1 sub/d2\nchmod 600 sub/d2\nget sub/d2 {}\nls sub\n",
        local.display(),
        back.display()
    );
    let (code, out, err) = run("sftp", args, &batch).await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
    let ssh = bed.ssh("10.0.0.11").await;
    assert_eq!(ssh.ok("stat -c '%a %s %U' sub/d2").await, "600 200000 debian\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_reaches_another_guest() {
    let bed = Bed::with(&[(101, "a1", "10.0.0.11"), (102, "b2", "10.0.0.12")]).await;
    let jump = bed.ssh("10.0.0.11").await;
    let channel = jump.handle.channel_open_direct_tcpip("10.0.0.12", 22, "127.0.0.1", 0).await.unwrap();
    let through = crate::bed::Ssh::over(channel.into_stream(), "debian", &bed.key).await.unwrap();
    assert_eq!(through.ok("hostname").await, "b2\n");
    assert!(jump.handle.channel_open_direct_tcpip("10.0.0.99", 22, "127.0.0.1", 0).await.is_err());
    assert_eq!(bed.ssh("10.0.0.12").await.ok("hostname").await, "b2\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scp_moves_files_over_both_protocols() {
    if !there("scp") {
        return;
    }
    let bed = Bed::one().await;
    let args = options(&bed).await;
    let local = bed.dir.path().join("tree");
    std::fs::create_dir_all(local.join("sub")).unwrap();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(150_000).collect();
    std::fs::write(local.join("sub/bytes"), &bytes).unwrap();
    std::fs::write(local.join("empty"), b"").unwrap();
    // One file, the way of today's client.
    let back = bed.dir.path().join("one");
    let file = local.join("sub/bytes").display().to_string();
    for (from, to) in [(file, "127.0.0.1:one".to_owned()), ("127.0.0.1:one".to_owned(), back.display().to_string())] {
        let (code, out, err) = run("scp", [args.clone(), vec![from, to]].concat(), "").await;
        assert_eq!(code, 0, "{out}{err}");
    }
    assert_eq!(std::fs::read(&back).unwrap(), bytes);
    // A tree, the old way: a program at both ends.
    let with =
        |from: String, to: String| [vec!["-O".to_owned(), "-r".to_owned()], args.clone(), vec![from, to]].concat();
    let back = bed.dir.path().join("back");
    let there = local.display().to_string();
    for (from, to) in [(there, "127.0.0.1:up".to_owned()), ("127.0.0.1:up".to_owned(), back.display().to_string())] {
        let (code, out, err) = run("scp", with(from, to), "").await;
        assert_eq!(code, 0, "{out}{err}");
    }
    assert_eq!(std::fs::read(back.join("sub/bytes")).unwrap(), bytes);
    assert_eq!(std::fs::read(back.join("empty")).unwrap(), b"");
    let (code, _, err) = run("scp", with("127.0.0.1:nosuch".into(), back.display().to_string()), "").await;
    assert!(code != 0 && err.contains("No such file"), "{code} {err}");
}
