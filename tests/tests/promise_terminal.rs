//! Promise: the REPL, and Ctrl-C.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gpuhost_tests::play::{Play, SMALL, all};
use gpuhost_tests::watch::{PATIENCE, Watch};
use gpuhost_tests::{Ran, program, root};

/// What the REPL says to lines on its standard input.
fn typed(p: &Play, lines: &str) -> Ran {
    let mut c = p.b.command(&["repl", "--lab", "--site", SMALL]);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    Ran::of(&child.wait_with_output().unwrap())
}

/// A REPL on a pseudo terminal of util-linux' `script`.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    seen: String,
    _watch: Watch,
}

impl Terminal {
    fn open(p: &Play) -> Option<Terminal> {
        let line = format!("{} repl --lab --site {SMALL}", program().display());
        let mut c = Command::new("script");
        c.args(["-q", "-c", &line, "/dev/null"]).current_dir(root()).env("GPUHOST_STATE_DIR", p.b.path("state"));
        c.env("HOME", p.b.path("")).env("TERM", "xterm").env("NO_COLOR", "1");
        let Ok(mut child) = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            println!("skipped: there is no `script` (Debian: bsdutils)");
            return None;
        };
        let (keys, screen) = (child.stdin.take()?, child.stdout.take()?);
        let watch = Watch::over(&child, PATIENCE);
        Some(Terminal { child, keys, screen, seen: String::new(), _watch: watch })
    }

    /// Reads until the text is on the screen; what came before it is forgotten.
    fn until(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let n = self.screen.read(&mut buffer).unwrap();
            assert!(n > 0, "`{text}` never came after {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_repl_talks() {
    let p = Play::new();
    all(&[
        ("several lines, values that stay, errors that do not end it but are in the exit code of a script", &|| {
            let ran =
                typed(&p, "let x = #{\na: 41,\n};\nfrob()\nx.a + 1\nfn twice(n) {\n  n * 2\n}\ntwice(21)\n").expect(1);
            assert!(ran.stderr.contains("no function `frob`"), "{ran:?}");
            assert_eq!(ran.stdout.lines().filter(|l| l.ends_with("42")).count(), 2, "{ran:?}");
        }),
        ("help", &|| {
            let lines = "help(\"proxmox::connect\")\nlet pve = proxmox::connect(site().proxmox);\nhelp(pve)\nhelp(pve.find_vm)\nhelp\n";
            let ran = typed(&p, lines).expect(0);
            for part in ["let pve = proxmox::connect", "list_vms", "pve.find_vm(", "gpuhost doc NAME"] {
                assert!(ran.stdout.contains(part), "{part} in\n{}\n{}", ran.stdout, ran.stderr);
            }
            assert!(!ran.stdout.contains("rhai::") && !ran.stderr.contains("error"), "{ran:?}");
        }),
        ("the site and its lab", &|| {
            let ran = typed(&p, "site().name\nproxmox::connect(site().proxmox).list_nodes().len()\n").expect(0);
            assert!(ran.stdout.contains("attic") && ran.stdout.contains("\n1"), "{ran:?}");
        }),
        ("a table of what is no map is an error, not nothing", &|| {
            let ran = typed(&p, "table(site().nodes)\n");
            assert!(ran.stderr.contains("a row of `table` is a map, this one is `Node`"), "{ran:?}");
        }),
        ("completion, history and leaving, at a terminal", &|| {
            let Some(mut t) = Terminal::open(&p) else { return };
            t.until("lab> ");
            t.press("let answer = 40 + 2;\r");
            t.until("lab> ");
            t.press("proxmox::con\t");
            t.until("proxmox::connect(");
            t.press("\x15let pve = proxmox::connect(site().proxmox);\r");
            t.until("lab> ");
            // all ways to go on are shown, not one after the other
            t.press("pve.list_\t");
            t.until("list_vms()");
            t.press("\x15pve.list_vm\t");
            t.until("pve.list_vms(");
            t.press("\x15answer\r");
            t.until("42");
            t.until("lab> ");
            t.press("\x04");
            assert!(t.child.wait().unwrap().success());
            // Another session knows the last line of this one.
            let mut t = Terminal::open(&p).unwrap();
            t.until("lab> ");
            t.press("\x1b[A\x1b[A");
            t.until("let pve = proxmox::connect(site().proxmox);");
            t.press("\x15\x04");
            assert!(t.child.wait().unwrap().success());
        }),
    ]);
}

/// Runs a text, interrupts it once it has printed `here`, and waits for its end.
fn interrupted(p: &Play, text: &str) -> Ran {
    let path = p.file("play.rhai", text);
    let mut c = p.b.command(&["run", &path, "--lab", "--json", "--site", SMALL]);
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut stdout = String::new();
    while !stdout.contains("\"here\"") {
        assert!(out.read_line(&mut stdout).unwrap() > 0, "it ended: {stdout}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    out.read_to_string(&mut stdout).unwrap();
    let mut ran = Ran::of(&child.wait_with_output().unwrap());
    ran.stdout = stdout;
    ran
}

#[test]
fn ctrl_c_stops_at_once_and_says_how_to_continue() {
    let p = Play::new();
    let texts = [
        "print(\"here\"); wait_until(\"the moon\", 90000.hours, || false);",
        "print(\"here\"); loop { }",
        "step(\"a\", || parallel([1, 2, 3], |n| { print(\"here\"); loop { sleep(1.seconds); } }));",
        "print(\"here\"); loop { try { loop { sleep(1.seconds); } } catch (e) { print(\"caught\"); } }",
        "print(\"here\"); retry(#{ times: 1000000, every: 9.hours }, || { throw \"no\" });",
    ];
    for text in texts {
        let ran = interrupted(&p, text);
        assert_eq!(ran.code, 130, "{text}: {ran:?}");
        let end = ran.finished();
        assert_eq!((&end["status"], &end["exit"]), (&"interrupted".into(), &130.into()), "{text}: {end}");
        assert!(!ran.stdout.contains("caught"), "{text}: a recipe cannot swallow it: {}", ran.stdout);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("gpuhost run") && said.contains("continues"), "{text}: {said}");
    }
    // The lab is left whole.
    let _ = p.json("print(1);", &[]).expect(0);
}
