//! Shells in containers, as people open them: at a terminal, attached to a pod of one's own, through a debug pod on a node.
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use gpuhost_tests::watch::{PATIENCE, Watch};

use super::{Tool, holds};

type Part = fn(&Tool<'_>);

/// All parts by name.
pub const PARTS: &[(&str, Part)] = &[("terminals", terminals), ("attached pipes", pipes)];

/// A client on a pseudo terminal of util-linux' `script`.
struct Screen {
    child: Child,
    _watch: Watch,
    seen: String,
}

impl Screen {
    fn until(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen.drain(..at + text.len()).collect();
                return before;
            }
            let n = self.child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
            assert!(n > 0, "`{text}` never came after {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// What still came, and the exit code.
    fn end(mut self) -> (i32, String) {
        let mut rest = std::mem::take(&mut self.seen);
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), rest)
    }
}

fn terminals(k: &Tool<'_>) {
    let Some(mut s) = open(k, "run one -n default --rm -it --image=busybox --restart=Never -- sh") else { return };
    s.until("# ");
    // kubectl tells its size beside what is typed: it may come after the first lines.
    s.press("until [ \"$(stty size)\" = '30 100' ]; do sleep 1; done; stty size; tty\r");
    s.until("tty\r\n");
    s.until("30 100");
    s.until("/dev/pts/0");
    s.until("# ");
    s.press("sleep 100000\r");
    s.until("sleep 100000");
    s.press("\u{3}");
    s.until("^C");
    s.until("# ");
    s.press("echo code-$?; exit 5\r");
    s.until("code-130");
    let (code, rest) = s.end();
    assert_eq!(code, 5, "{rest}");
    holds(&rest, &["pod \"one\" deleted", "terminated (Error)"]);

    // Who is attached does not hear how the process ended: kubectl says where to find it again.
    k.run("run two -n default --image=busybox -- sleep 100000");
    k.run("wait pod/two -n default --for=condition=Ready --timeout=300s");
    let mut s = open(k, "debug two -n default -it -c look --image=alpine -- sh").unwrap();
    s.until("# ");
    s.press("exit 4\r");
    let (code, rest) = s.end();
    assert_eq!(code, 0, "{rest}");
    holds(&rest, &["Session ended, the ephemeral container will not be restarted"]);
    let mut s = open(k, "debug node/k3s-gpu1 -it --image=busybox -- chroot /host").unwrap();
    s.until("# ");
    s.press("cat /etc/hostname; ls /var/lib/rancher/k3s\r");
    s.until("k3s-gpu1");
    s.until("agent");
    s.press("exit\r");
    assert_eq!(s.end().0, 0);
    k.run("delete pod two -n default");
    k.run("delete pod -n default -l app.kubernetes.io/managed-by=kubectl-debug");
}

/// The client at a terminal of 30 rows and 100 columns; none without `script`.
fn open(k: &Tool<'_>, line: &str) -> Option<Screen> {
    let line = format!("stty rows 30 cols 100; {} {line}", k.program().display());
    let mut c = k.dressed("script");
    c.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stderr(Stdio::inherit());
    match c.spawn() {
        Ok(child) => {
            let watch = Watch::over(&child, PATIENCE);
            Some(Screen { child, _watch: watch, seen: String::new() })
        }
        Err(_) => {
            println!("skipped: there is no `script` (Debian: bsdutils)");
            None
        }
    }
}

fn pipes(k: &Tool<'_>) {
    let run = |more: &[&str], input: &str| {
        let words =
            [&["run", "pipe", "-n", "default", "--rm", "-i", "--image=busybox", "--restart=Never", "-q", "--"], more];
        let said = k.feed(&words.concat(), input);
        (said.code, said.out)
    };
    assert_eq!(run(&["cat"], "abc\n").0, 0);
    let (code, out) = run(&["sh", "-c", "read x; echo got $x; exit 3"], "abc\n");
    assert!(code == 3 && out.contains("got abc"), "{code} {out}");
    let (code, out) = run(&["sh"], "echo one\nif true; then\necho two; fi; exit 6\necho never\n");
    assert!(code == 6 && out.contains("one\ntwo") && !out.contains("never"), "{code} {out}");
    // what is copied to a place that is not there is not there afterwards
    k.run("run to -n default --image=busybox -- sleep 100000");
    k.run("wait pod/to -n default --for=condition=Ready --timeout=300s");
    let file = k.lab.file("copied.txt", "x").display().to_string();
    holds(&k.fails(&format!("cp {file} default/to:/nowhere/f")), &["can't change directory to '/nowhere'"]);
    k.run(&format!("cp {file} default/to:/tmp/f"));
    assert_eq!(k.run("exec to -n default -- cat /tmp/f"), "x");
    k.run("delete pod to -n default");
}
