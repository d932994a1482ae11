//! `sudo`, `su`, `runuser`, `chroot`, and running something below another program.
use std::collections::BTreeMap;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Call, Program, later};
use crate::guest::accounts;
use crate::guest::cloudinit::quote;
use crate::guest::fs::Who;
use crate::guest::shell::{Chunk, Job, ROOT_PATH, Running, Stdin, login_env, start};

pub(super) const PROGRAMS: &[Program] = &[
    later("/usr/bin/sudo", sudo),
    later("/usr/bin/su", su),
    later("/usr/sbin/runuser", su),
    later("/usr/sbin/chroot", chroot),
];

/// A program of another root, such as the driver container's; it sees the machine's own files all the same.
fn chroot(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let [dir, name, args @ ..] = &c.args.clone()[..] else {
            let used = c.args.join(" ");
            return if c.args.is_empty() { c.fail(125, "chroot: missing operand") } else { c.unsimulated(&used) };
        };
        let refused = format!("chroot: cannot change root directory to '{dir}'");
        if !c.must_be_root(&format!("{refused}: Operation not permitted")) {
            return 125;
        }
        if c.m.files.list(&c.who, dir).is_err() {
            return c.fail(125, &format!("{refused}: No such file or directory"));
        }
        let root = dir.trim_end_matches('/');
        let places: Vec<String> = match name.contains('/') {
            true => vec![format!("{root}/{}", name.trim_start_matches('/'))],
            false => ROOT_PATH.split(':').map(|d| format!("{root}{d}/{name}")).collect(),
        };
        let Some(file) = places.into_iter().find(|p| c.m.files.exists(p)) else {
            return c.fail(127, &format!("chroot: failed to run command '{name}': No such file or directory"));
        };
        let argv = std::iter::once(file).chain(args.iter().cloned()).collect();
        let nested = super::timing::same(c, argv);
        spawn(c, nested).await.wait(c).await
    })
}

/// A command to run below a program.
pub(super) struct Nested {
    pub who: Who,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
}

/// Something nested that runs, with its output still to be handed on.
pub(super) struct Child {
    pub running: Running,
    rx: mpsc::Receiver<Chunk>,
}

/// Programs that read their standard input.
const READERS: &[&str] = &[
    "tee",
    "cat",
    "dd",
    "tar",
    "xargs",
    "grep",
    "sed",
    "awk",
    "head",
    "tail",
    "wc",
    "sort",
    "base64",
    "sha256sum",
    "md5sum",
    "read",
    "tr",
    "cut",
    "uniq",
    "gzip",
    "gunzip",
    "openssl",
    "while",
    "mapfile",
    "readarray",
    "od",
    "xxd",
    "cmp",
    "diff",
    "patch",
    "jq",
];

/// Whether a command reads its standard input. A real child inherits it and reads nothing unless it wants to;
/// here it is handed over, so it must not be taken from who comes next. `text` reads a script.
fn reads_input(argv: &[String], text: &dyn Fn(&str) -> String) -> bool {
    let name = |a: &str| a.rsplit('/').next().unwrap_or_default().to_owned();
    let Some(first) = argv.first().map(|a| name(a)) else { return false };
    if READERS.contains(&first.as_str()) || argv.iter().any(|a| a == "/dev/stdin" || a == "-" || a == "@-") {
        return true;
    }
    match first.as_str() {
        "bash" | "sh" => match shell_call(argv) {
            Some((_, ShellText::Command(text), _)) => text_reads_input(&text),
            Some((_, ShellText::Input, _)) => true,
            None => argv[1..].iter().find(|a| !a.starts_with('-')).is_some_and(|file| text_reads_input(&text(file))),
        },
        "env" | "timeout" | "nice" | "nohup" | "sudo" | "stdbuf" | "setsid" | "ionice" | "runuser" | "flock" => {
            (1..argv.len()).any(|i| {
                (READERS.contains(&name(&argv[i]).as_str()) || matches!(name(&argv[i]).as_str(), "bash" | "sh"))
                    && reads_input(&argv[i..], text)
            })
        }
        "kubectl" | "k3s" => argv.iter().any(|a| matches!(a.as_str(), "-i" | "--stdin" | "-it" | "-ti")),
        _ if argv[0].contains('/') => {
            let script = text(&argv[0]);
            script.starts_with("#!/bin/") && text_reads_input(&script)
        }
        _ => false,
    }
}

fn text_reads_input(text: &str) -> bool {
    // `@-` is curl's word for standard input
    text.contains("/dev/stdin")
        || text.contains("@-")
        || text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .any(|w| READERS.contains(&w) || w == "bash" || w == "sh")
}

/// Where a shell gets its script.
enum ShellText {
    /// `-c TEXT`.
    Command(String),
    /// `-s` or nothing: standard input.
    Input,
}

/// Reads `bash [-eux] [-o pipefail] (-c TEXT [NAME ARGS] | -s [--] ARGS)`: options as a script line, text, arguments.
fn shell_call(argv: &[String]) -> Option<(String, ShellText, Vec<String>)> {
    let mut set = String::new();
    let (mut command, mut input) = (false, false);
    let mut i = 1;
    while let Some(a) = argv.get(i).filter(|a| a.starts_with('-') && a.len() > 1) {
        i += 1;
        match a.as_str() {
            "--" => break,
            "--login" | "--norc" | "--noprofile" | "--posix" => {}
            "-o" => {
                set += &format!("set -o {}\n", argv.get(i)?);
                i += 1;
            }
            a if a.starts_with("--") => return None,
            a => {
                for f in a[1..].chars() {
                    match f {
                        'c' => command = true,
                        's' => input = true,
                        'l' | 'i' => {}
                        'e' | 'u' | 'x' | 'f' | 'a' | 'v' => set += &format!("set -{f}\n"),
                        'o' => {
                            set += &format!("set -o {}\n", argv.get(i)?);
                            i += 1;
                        }
                        _ => return None,
                    }
                }
            }
        }
    }
    let rest = argv.get(i..).unwrap_or_default();
    if command {
        return Some((set, ShellText::Command(rest.first()?.clone()), rest[1..].to_vec()));
    }
    if input || rest.is_empty() {
        return Some((set, ShellText::Input, rest.to_vec()));
    }
    None
}

/// Starts a nested command; its standard input is that of the call, if it reads one.
pub(super) async fn spawn(c: &mut Call, n: Nested) -> Child {
    let _ = c.flush().await;
    let script = |path: &str| match path.strip_prefix('/') {
        Some(_) => c.m.files.text(path),
        None => c.m.files.text(&format!("{}/{path}", n.cwd.trim_end_matches('/'))),
    };
    let reads = reads_input(&n.argv, &script);
    let stdin = if reads { input(c).await } else { Stdin::Bytes(Vec::new()) };
    let mut job = Job { env: n.env, cwd: Some(n.cwd), tty: c.tty, depth: c.depth + 1, ..Job::of(n.who, "") };
    let is_shell = n.argv.first().is_some_and(|a| {
        matches!(a.as_str(), "bash" | "sh" | "/bin/bash" | "/bin/sh" | "/usr/bin/bash" | "/usr/bin/sh")
    });
    match (shell_call(&n.argv).filter(|_| is_shell), stdin) {
        (Some((set, ShellText::Command(text), mut args)), stdin) => {
            job.script = format!("{set}{text}");
            if !args.is_empty() {
                job.arg0 = Some(args.remove(0));
            }
            job.args = args;
            job.stdin = stdin;
        }
        (Some((set, ShellText::Input, args)), Stdin::Bytes(text)) => {
            job.script = format!("{set}{}", String::from_utf8_lossy(&text));
            job.args = args;
        }
        (_, stdin) => {
            job.script = n.argv.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ");
            job.stdin = stdin;
        }
    }
    let (tx, rx) = mpsc::channel(64);
    Child { running: start(&c.m, job, tx), rx }
}

impl Child {
    /// Hands its output on until it ends.
    pub async fn wait(&mut self, c: &mut Call) -> i32 {
        let (out, err) = c.outputs();
        while let Some(chunk) = self.rx.recv().await {
            let written = match chunk {
                Chunk::Out(b) => out.write_all(&b).await,
                Chunk::Err(b) => err.write_all(&b).await,
            };
            if written.is_err() {
                self.running.kill().await;
                return 141;
            }
        }
        self.running.wait().await
    }
}

/// Runs a nested command to its end.
pub(super) async fn run(c: &mut Call, n: Nested) -> i32 {
    let mut child = spawn(c, n).await;
    child.wait(c).await
}

/// What is on standard input: all of it when it ends at once, else a live stream.
async fn input(c: &mut Call) -> Stdin {
    let source = c.input();
    let mut all = Vec::new();
    for _ in 0..64 {
        match futures::FutureExt::now_or_never(source.read_chunk()) {
            Some(Ok(Some(b))) => all.extend(b),
            Some(_) => return Stdin::Bytes(all),
            None => tokio::task::yield_now().await,
        }
    }
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        if !all.is_empty() && tx.send(all).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                chunk = source.read_chunk() => match chunk {
                    Ok(Some(b)) => if tx.send(b).await.is_err() { return },
                    _ => return,
                },
                () = tx.closed() => return,
            }
        }
    });
    Stdin::Live(rx)
}

/// What `sudo`'s rules say for a user.
fn rule(c: &Call) -> Option<bool> {
    let files = &c.m.files;
    let mut text = files.text("/etc/sudoers");
    for (name, _) in files.list(&Who::root(), "/etc/sudoers.d").unwrap_or_default() {
        if !name.contains('.') && !name.ends_with('~') {
            text += &files.text(&format!("/etc/sudoers.d/{name}"));
        }
    }
    let groups: Vec<String> = c.who.groups.iter().map(|g| accounts::group_name(files, *g)).collect();
    let mut found = None;
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', '@'])) {
        let Some((who, what)) = line.split_once([' ', '\t']) else { continue };
        let mine =
            who == c.who.name || who == "ALL" || who.strip_prefix('%').is_some_and(|g| groups.iter().any(|x| x == g));
        if mine && what.contains("ALL") {
            found = Some(what.contains("NOPASSWD:"));
        }
    }
    found
}

#[derive(Default)]
struct Sudo {
    user: String,
    group: Option<String>,
    never_ask: bool,
    keep: bool,
    login: bool,
    shell: bool,
    list: bool,
    validate: bool,
    chdir: Option<String>,
    env: BTreeMap<String, String>,
    argv: Vec<String>,
}

fn parse(args: &[String]) -> Result<Sudo, String> {
    let mut s = Sudo { user: "root".into(), ..Sudo::default() };
    let mut it = args.iter().peekable();
    while let Some(a) = it.peek().map(|a| a.as_str()) {
        if a == "--" {
            it.next();
            break;
        }
        if !a.starts_with('-') {
            match a.split_once('=') {
                Some((k, v)) if !k.is_empty() && k.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                    s.env.insert(k.to_owned(), v.to_owned());
                    it.next();
                    continue;
                }
                _ => break,
            }
        }
        it.next();
        let mut value =
            |what: &str| it.next().cloned().ok_or_else(|| format!("sudo: option requires an argument -- '{what}'"));
        match a {
            "-u" | "--user" => s.user = value("u")?,
            "-g" | "--group" => s.group = Some(value("g")?),
            "-D" | "--chdir" => s.chdir = Some(value("D")?),
            "-p" | "--prompt" | "-C" | "-h" | "-r" | "-t" | "-T" | "-U" => {
                value("p")?;
            }
            "--non-interactive" => s.never_ask = true,
            "--preserve-env" => s.keep = true,
            "--login" => s.login = true,
            "--shell" => s.shell = true,
            "--set-home" | "--stdin" | "--reset-timestamp" | "--background" => {}
            a if a.starts_with("--user=") => s.user = a[7..].to_owned(),
            a if a.starts_with("--preserve-env=") => s.keep = true,
            a if a.starts_with("-u") => s.user = a[2..].to_owned(),
            a if a.starts_with("--") => return Err(format!("sudo: unrecognized option '{a}'")),
            a => {
                for f in a[1..].chars() {
                    match f {
                        'n' => s.never_ask = true,
                        'E' => s.keep = true,
                        'i' => s.login = true,
                        's' => s.shell = true,
                        'l' => s.list = true,
                        'v' => s.validate = true,
                        'H' | 'S' | 'k' | 'K' | 'b' | 'A' | 'P' => {}
                        f => return Err(format!("sudo: invalid option -- '{f}'")),
                    }
                }
            }
        }
    }
    s.argv = it.cloned().collect();
    Ok(s)
}

fn sudo(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let s = match parse(&c.args) {
            Ok(s) => s,
            Err(e) => return c.fail(1, &e),
        };
        if c.who.uid != 0 {
            match rule(c) {
                Some(true) => {}
                Some(false) if s.never_ask => return c.fail(1, "sudo: a password is required"),
                Some(false) => return c.fail(1, "sudo: a terminal is required to read the password; either use the -S option to read from standard input or configure an askpass helper\nsudo: a password is required"),
                None => {
                    let name = c.who.name.clone();
                    return c.fail(1, &format!("{name} is not in the sudoers file."));
                }
            }
        }
        if s.list {
            c.line("    (ALL) NOPASSWD: ALL");
            return 0;
        }
        let Some(mut who) = accounts::who(&c.m.files, s.user.trim_start_matches('#')) else {
            return c.fail(
                1,
                &format!("sudo: unknown user {}\nsudo: error initializing audit plugin sudoers_audit", s.user),
            );
        };
        if let Some(g) = &s.group {
            match accounts::group(&c.m.files, g) {
                Some(g) => who.gid = g.gid,
                None => return c.fail(1, &format!("sudo: unknown group {g}")),
            }
        }
        let mut argv = s.argv.clone();
        if s.login || s.shell {
            argv = if argv.is_empty() { vec!["bash".into()] } else { vec!["bash".into(), "-c".into(), argv.join(" ")] };
        }
        if argv.is_empty() {
            return if s.validate || c.has(&["-k", "-K"]) {
                0
            } else {
                c.fail(1, "usage: sudo [-ABbEHnPS] [-u user] [VAR=value] [-i | -s] [command [arg ...]]")
            };
        }
        if let Some(code) = missing(c, &argv[0]) {
            return code;
        }
        let cwd = s.chdir.unwrap_or_else(|| if s.login { who.home.clone() } else { c.cwd.clone() });
        let env = sudo_env(c, &who, s.keep, s.env);
        run(c, Nested { who, argv, env, cwd }).await
    })
}

/// What sudo says of a command it cannot find.
fn missing(c: &mut Call, name: &str) -> Option<i32> {
    if name.contains('/') {
        return (!c.m.files.exists(&c.path(name))).then(|| c.fail(1, &format!("sudo: {name}: command not found")));
    }
    let found = ROOT_PATH.split(':').any(|d| c.m.files.exists(&format!("{d}/{name}")));
    (!found && super::known(name)).then(|| c.fail(1, &format!("sudo: {name}: command not found")))
}

fn sudo_env(c: &Call, who: &Who, keep: bool, set: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = login_env(&c.m, who);
    env.insert("PATH".into(), ROOT_PATH.into());
    for (k, v) in &c.env {
        let always = matches!(k.as_str(), "LANG" | "LANGUAGE" | "TERM" | "DISPLAY") || k.starts_with("LC_");
        let own = matches!(
            k.as_str(),
            "PATH" | "HOME" | "USER" | "LOGNAME" | "SHELL" | "UID" | "EUID" | "PWD" | "OLDPWD" | "_" | "SHLVL"
        );
        if (keep && !own) || always {
            env.insert(k.clone(), v.clone());
        }
    }
    for (k, v) in
        [("SUDO_USER", c.who.name.clone()), ("SUDO_UID", c.who.uid.to_string()), ("SUDO_GID", c.who.gid.to_string())]
    {
        env.insert(k.into(), v);
    }
    env.extend(set);
    env
}

fn su(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let (mut user, mut command, mut login, mut rest) = (None, None, false, Vec::new());
        let mut it = c.args.clone().into_iter();
        while let Some(a) = it.next() {
            match a.as_str() {
                "-" | "-l" | "--login" => login = true,
                "-c" | "--command" => command = it.next(),
                "-u" | "--user" => user = it.next(),
                "-s" | "--shell" | "-g" | "-G" => {
                    it.next();
                }
                "-p" | "-m" | "-P" | "--preserve-environment" => {}
                "--" => rest.extend(it.by_ref()),
                a if a.starts_with("--command=") => command = Some(a[10..].to_owned()),
                _ if user.is_none() => user = Some(a),
                _ => rest.push(a),
            }
        }
        let name = user.unwrap_or_else(|| "root".into());
        let Some(who) = accounts::who(&c.m.files, &name) else {
            let program = c.name.clone();
            return c.fail(
                1,
                &format!(
                    "{program}: user {name} does not exist or the user entry does not contain all the required fields"
                ),
            );
        };
        if c.who.uid != 0 && c.who.uid != who.uid {
            return c.fail(1, "Password: su: Authentication failure");
        }
        if who.shell.ends_with("nologin") {
            return c.fail(1, "This account is currently not available.");
        }
        let argv = match command {
            Some(text) => vec!["bash".to_owned(), "-c".to_owned(), text],
            None if !rest.is_empty() => rest,
            None => vec!["bash".to_owned()],
        };
        let cwd = if login { who.home.clone() } else { c.cwd.clone() };
        let env = login_env(&c.m, &who);
        run(c, Nested { who, argv, env, cwd }).await
    })
}
