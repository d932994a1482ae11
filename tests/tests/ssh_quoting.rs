//! Property: any text survives quoting byte for byte in dash, bash and busybox, and none of it is interpreted.
//! `GPUHOST_TEST_SEED` repeats one run.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::units::Secret;
use gpuhost_stdlib::ssh::{ConnectOptions, FileOptions, Host, RunOptions, Stdin, quote, words};
use gpuhost_tests::client;
use gpuhost_tests::sshd::Bed;

const SHELLS: &[&[&str]] = &[&["dash"], &["bash"], &["bash", "--posix"], &["busybox", "sh"], &["sh"]];

/// Pieces that mean something to a shell, to `printf`, to `echo`, to a terminal or to UTF-8.
const PIECES: &[&str] = &[
    "'",
    "''",
    "\"",
    "\\",
    "\\\\",
    "\\'",
    "$",
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "$'\\n'",
    "!",
    "!!",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "~",
    "~root",
    "#",
    " #",
    ";",
    ";;",
    "&",
    "&&",
    "|",
    "||",
    "<",
    ">",
    ">>pwned",
    "<(id)",
    "(",
    ")",
    "\n",
    "\n\n",
    "\r",
    "\t",
    " ",
    "  ",
    "\u{1}",
    "\u{7f}",
    "\u{1b}[31m",
    "-",
    "--",
    "-n",
    "-e",
    "%s",
    "%%",
    "%b",
    "\\0",
    "\\x41",
    "\\c",
    "=",
    "a=b",
    "A",
    "z",
    "0",
    "é",
    "漢",
    "🦀",
    "\u{200d}",
    "\u{feff}",
    "EOF",
    "exit 7",
    "@gpuhost x code 9",
];

struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let given = std::env::var("GPUHOST_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = given.unwrap_or(clock) | 1;
        println!("GPUHOST_TEST_SEED={seed}");
        Random(seed)
    }
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
    fn text(&mut self, most: usize) -> String {
        (0..self.below(most)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }
    /// Any bytes but zero.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| (1 + self.below(255)) as u8).collect()
    }
}

fn present(shell: &[&str]) -> bool {
    Command::new(shell[0]).args(&shell[1..]).args(["-c", "true"]).status().is_ok_and(|s| s.success())
}

fn run(shell: &[&str], script: &str, dir: &Path) -> Vec<u8> {
    let out = Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(script).current_dir(dir).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{shell:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn any_text_survives_every_shell() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for shell in SHELLS {
        if !present(shell) {
            println!("skipped: there is no {}", shell.join(" "));
            continue;
        }
        seen += 1;
        for _ in 0..12 {
            let mut texts: Vec<String> = (0..120).map(|_| random.text(12)).collect();
            texts.push(String::new());
            texts.push(random.text(2_000));
            let want: Vec<u8> = texts.iter().flat_map(|t| [t.as_bytes(), b"\0"].concat()).collect();
            let script = format!("printf '%s\\0' {}", words(&texts));
            assert!(run(shell, &script, dir.path()) == want, "{shell:?}: a text did not survive");
            // Through a second shell, and as an assignment, a here-word, a case pattern.
            let twice = format!("{} -c {}", shell.join(" "), quote(&script));
            assert!(run(shell, &twice, dir.path()) == want, "{shell:?}: a text did not survive two shells");
            let t = random.text(20);
            let uses = format!(
                "x={q}\n[ \"$x\" = {q} ] || exit 1\ncase \"$x\" in {q}) ;; *) exit 1;; esac\nprintf %s \"$x\"",
                q = quote(&t)
            );
            assert!(run(shell, &uses, dir.path()) == t.as_bytes(), "{shell:?}: {t:?}");
        }
    }
    assert!(seen >= 2, "no shells to try");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was interpreted");
}

#[test]
fn file_names_survive_every_shell() {
    let mut random = Random::seeded();
    for shell in SHELLS.iter().filter(|s| present(s)) {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..40 {
            let name: String = random.text(10).replace(['/', '\0'], "_").chars().take(60).collect();
            let path = dir.path().join(format!("{name}.{i}"));
            let content = random.text(30);
            let script = format!("printf %s {} >{}", quote(&content), quote(path.to_str().unwrap()));
            run(shell, &script, dir.path());
            assert_eq!(fs::read(&path).unwrap(), content.as_bytes(), "{shell:?} {name:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 40, "{shell:?}: something was interpreted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_user_says_arrives_at_a_real_host() {
    let Some(bed) = Bed::open() else { return };
    let mut random = Random::seeded();
    let _ = bed.key("host", "ed25519", "");
    let mine = bed.key("mine", "ed25519", "");
    bed.authorize("root", &mine);
    bed.authorize("bob", &mine);
    let server = bed.start("quoting", &["host"], "");
    let dir = tempfile::tempdir().unwrap();
    let routes = Routes::default();
    routes.set("one.test:22", server.at);
    let (ctx, _) = client::ctx(dir.path(), &bed.home(), routes, None);
    gpuhost_stdlib::ssh::known_hosts::pin(&ctx, "one.test", 22, &server.host_keys).unwrap();
    for user in ["root", "bob"] {
        let key = format!("file:{}", bed.path("mine").display());
        let o = ConnectOptions { user: Some(user.into()), key: Some(key), ..ConnectOptions::default() };
        let host = Host::connect(&ctx, "one.test", &o).unwrap();
        let there = tempfile::tempdir().unwrap();
        for i in 0..12 {
            let name: String = random.text(10).replace(['/', '\0'], "_").chars().take(60).collect();
            let folder = there.path().join(format!("{name}.{i}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("here"), i.to_string()).unwrap();
            let (plain, secret, input) = (random.text(20), random.text(20), random.bytes(3_000));
            let o = RunOptions {
                env: BTreeMap::from([("PLAIN".to_owned(), plain.clone())]),
                secrets: BTreeMap::from([("SECRET".to_owned(), Secret::new(secret.clone()))]),
                cwd: Some(folder.display().to_string()),
                stdin: Stdin(input.clone()),
                reattach: i % 2 == 0,
                ..RunOptions::default()
            };
            let script = "printf '%s\\0%s\\0' \"$PLAIN\" \"$SECRET\"; cat here -";
            let out = host.run(&ctx, script, o).await.unwrap();
            let want = [plain.as_bytes(), b"\0", secret.as_bytes(), b"\0", i.to_string().as_bytes(), &input].concat();
            assert!(out.bytes() == want, "{user} {i}: {plain:?} {secret:?} in {name:?}");
            let path = folder.join(format!("f{name}"));
            let content = random.bytes(5_000);
            let to = path.display().to_string();
            if to.ends_with('/') {
                continue;
            }
            assert!(host.write_file(&ctx, &to, &content, FileOptions::default()).await.unwrap());
            assert!(fs::read(&path).unwrap() == content);
            assert!(!host.write_file(&ctx, &to, &content, FileOptions::default()).await.unwrap());
            assert!(host.read_file(&ctx, &to).await.unwrap().unwrap() == content);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "something was interpreted");
        }
    }
    let home = fs::read_dir(bed.path("home/bob")).unwrap().flatten().map(|e| e.file_name());
    let left: Vec<_> = home.filter(|n| n != ".cache").collect();
    assert!(left.is_empty(), "something was interpreted: {left:?}");
}
