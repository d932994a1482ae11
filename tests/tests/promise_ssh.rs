//! Promise: section `ssh` of the script API, through the program: on a real sshd and on the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use gpuhost_tests::Ran;
use gpuhost_tests::play::Play;
use gpuhost_tests::sshd::Bed;

/// Each line must hold on any host; the first that does not is named. `HOST` is the host, `ME` its login user.
const HOLDS: &str = r#"
let h = ssh::connect(HOST);
require(h.run("cat", #{ stdin: "in put" }).stdout == "in put", "standard input");
require(h.run("cat", #{ stdin: "in put", become: false }).stdout == "in put", "standard input of the login user");
require(h.run("cat", #{ stdin: "in put", reattach: false }).stdout == "in put", "standard input, plainly");
require(h.run("read a; read b; echo \"$b,$a\"", #{ stdin: "one\ntwo\n" }).stdout == "two,one\n", "its lines");
require(h.read("cat", #{ stdin: "in put" }).stdout == "in put", "standard input of what only looks");
require(h.script("cat\necho after", #{ stdin: "in put\n" }).stdout == "in put\nafter\n", "standard input of a script");
let out = h.run("echo out; echo err >&2; exit 3", #{ ok_codes: [3] });
require(out.stdout == "out\n" && out.stderr == "err\n" && out.code == 3, "separate streams and the exit code");
require(h.run("echo \"$X\"; pwd", #{ env: #{ X: "it's \"$HOME\" `id`" }, cwd: "/usr" }).stdout
    == "it's \"$HOME\" `id`\n/usr\n", "environment and folder");
require(h.run("id -un").stdout == "root\n" && h.run("id -un", #{ become: false }).stdout == ME + "\n", "who runs it");
require(h.script("a=1\nb=2\necho $((a + b))").stdout == "3\n", "several lines");
require(h.run("printf %s \"$T\" | sha256sum | cut -c1-64", #{ secrets: #{ T: secret("env:PROBE") } }).stdout
    == sha256("hunter2-probe") + "\n", "a secret arrives");
require(h.run("printf '\\377\\000a'").stdout_bytes.len() == 3, "bytes");
require(h.run("true").duration < 1.minutes && h.run("true").signal == (), "what an output says");
let failed = ();
try { h.run("echo why >&2; exit 7"); } catch (err) { failed = err; }
require(failed.kind == "failed" && failed.target == HOST && failed.message.contains("exit code 7"), `${failed}`);
require(failed.hint != () && failed.hint != "" && `${failed.causes}`.contains("why"), "the next thing to type");
try { h.run("sleep 600", #{ timeout: 2.seconds }); } catch (err) { failed = err; }
require(failed.kind == "timeout" && failed.message.contains("2s"), `${failed}`);
let at = DIR + "/it's a file";
require(h.write_file(at, "one\n", #{ mode: "0640" }) && !h.write_file(at, "one\n", #{ mode: "0640" }), "writes once");
require(h.read_file(at) == "one\n" && h.read_file(at + ".not") == (), "reads");
require(h.run("stat -c '%a %U' \"$F\"", #{ env: #{ F: at } }).stdout == "640 root\n", "mode and owner");
require(h.write_file(at, "two\n") && h.run("stat -c %a \"$F\"", #{ env: #{ F: at } }).stdout == "640\n", "mode is kept");
require(h.write_file(DIR + "/public", "one\n") && h.write_file(DIR + "/public", "two\n"), "its difference is kept");
write_file("local.txt", "both ways\n");
require(h.copy_to("local.txt", DIR + "/far.txt") && !h.copy_to("local.txt", DIR + "/far.txt"), "copies there once");
require(h.copy_from(DIR + "/far.txt", "back.txt") && !h.copy_from(DIR + "/far.txt", "back.txt"), "and back once");
require(read_file("back.txt") == "both ways\n", "the same bytes");
let wanted = #{ directories: [DIR + "/d"], lines: #{}, files: #{}, links: #{} };
wanted.files[DIR + "/d/f"] = "text\n";
wanted.lines[DIR + "/d/l"] = ["a line"];
wanted.links[DIR + "/d/s"] = DIR + "/d/f";
let changes = h.ensure(wanted);
require(changes.len() >= 4 && changes[0].what != "" && h.ensure(wanted).len() == 0, "ensure changes once");
require(h.ensure_files(#{}).len() == 0, "and each key alone");
let facts = h.facts();
for key in ["os", "kernel", "cpu", "memory", "disks", "mounts", "nics", "packages", "services", "modules", "sysctl",
    "swap", "pci", "users", "boot_id"] {
    require(key in facts, `facts know ${key}`);
}
require(facts.cores >= 1 && type_of(facts.memory) == "Size" && facts.memory > 1.mib, "typed facts");
let both = ssh::group([HOST, HOST]);
require(both.hosts.len() >= 1 && both.read("echo hi").values()[0].stdout == "hi\n", "groups");
"#;

/// The values that the text leaves open.
fn with(host: &str, me: &str, dir: &str) -> String {
    format!("let HOST = \"{host}\"; let ME = \"{me}\"; let DIR = \"{dir}\";\n{HOLDS}")
}

fn journals(p: &Play) -> String {
    let all = fs::read_dir(p.b.path("state/runs")).unwrap().flatten();
    all.map(|e| fs::read_to_string(e.path()).unwrap()).collect()
}

fn judge(ran: &Ran, p: &Play) {
    assert_eq!(ran.code, 0, "{}\n{:?}", ran.finished()["error"], ran.stderr);
    let all = journals(p);
    assert!(!all.contains("hunter2-probe") && !ran.stdout.contains("hunter2-probe"), "a secret leaked");
    // What a text became stands in the journal, and what a command said.
    assert!(all.contains("-one") && all.contains("+two"), "the difference of a text");
    assert!(all.contains("\"output\"") && all.contains("why"), "live output");
}

/// A port of the host is reachable here while the run lasts.
fn tunnel(p: &Play, dir: &std::path::Path) {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = far.local_addr().unwrap().port();
    // The first caller is the look whether the host leads there at all.
    let talk = std::thread::spawn(move || {
        for stream in far.incoming().take(2) {
            stream.unwrap().write_all(b"through the tunnel").ok();
        }
    });
    let used = dir.join("used");
    let recipe = p.file(
        "tunnel.rhai",
        &format!(
            "let h = ssh::connect(\"box\"); let t = h.tunnel({port}); print(`tunnel ${{t.port}}`);\n\
             wait_until(\"its use\", 10.minutes, || h.read_file(\"{}\"));\n",
            used.display()
        ),
    );
    let mut c = p.b.command(&["run", &recipe]);
    let mut child = c.current_dir(p.b.path("project")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let near = lines.find_map(|l| l.strip_prefix("tunnel ").map(str::to_owned)).expect("it ended without a tunnel");
    let mut said = String::new();
    TcpStream::connect(format!("127.0.0.1:{near}")).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "through the tunnel");
    talk.join().unwrap();
    fs::write(used, "yes").unwrap();
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn on_a_real_host() {
    let Some(bed) = Bed::open() else { return };
    let _ = bed.key("host", "ed25519", "");
    let mine = bed.key("mine", "ed25519", "");
    bed.authorize("bob", &mine);
    let server = bed.start("promise", &["host"], "");
    let p = Play::new();
    let dir = bed.path("work");
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    // Only the user's own configuration says where `box` is.
    fs::create_dir_all(p.b.path(".ssh")).unwrap();
    let known = format!("[127.0.0.1]:{} {}\n", server.at.port(), server.host_keys[0]);
    fs::write(p.b.path(".ssh/known_hosts"), known).unwrap();
    let config = format!(
        "Host box\n  HostName 127.0.0.1\n  Port {}\n  User bob\n  IdentityFile {}\n",
        server.at.port(),
        bed.path("mine").display()
    );
    fs::write(p.b.path(".ssh/config"), config).unwrap();
    let text = with("box", "bob", &dir.display().to_string());
    let recipe = p.file("play.rhai", &text);
    // A recipe about other hosts needs no site, and no hypervisor for its lock.
    let mut c = p.b.command(&["run", &recipe, "--json"]);
    c.current_dir(p.b.path("project")).env("PROBE", "hunter2-probe");
    let ran = Ran::of(&c.output().unwrap());
    judge(&ran, &p);
    assert_eq!(server.logins(), 1, "one connection serves the whole run");
    tunnel(&p, &dir);
    // Somebody whom no one vouches for.
    fs::write(p.b.path(".ssh/known_hosts"), "").unwrap();
    let recipe = p.file("play.rhai", "ssh::connect(\"box\").read(\"true\");");
    let mut c = p.b.command(&["run", &recipe, "--json"]);
    let ran = Ran::of(&c.current_dir(p.b.path("project")).output().unwrap()).expect(1);
    let error = &ran.finished()["error"];
    assert!(
        error["hint"].as_str().is_some_and(|h| h.contains("ssh::pin_host_key") || h.contains("known_hosts")),
        "{error}"
    );
}

#[test]
fn on_the_lab() {
    let p = Play::deployed();
    let recipe = p.file("play.rhai", &with("muscle-a", "ops", "/srv"));
    let mut c = p.b.command(&["run", &recipe, "--lab", "--site", p.site(), "--json"]);
    let ran = Ran::of(&c.env("PROBE", "hunter2-probe").output().unwrap());
    judge(&ran, &p);
    let text = "let h = ssh::connect(\"muscle-a\"); let before = h.facts().boot_id;\n\
                h.reboot_and_wait(10.minutes); require(h.facts().boot_id != before, \"another boot\");";
    assert_eq!(p.json(text, &[]).code, 0);
}

/// Under systemd a command is found again, whichever exchange of it loses its connection, and runs once.
#[test]
fn a_lost_connection_is_re_attached_under_systemd() {
    let p = Play::deployed();
    let recipe = "let h = ssh::connect(\"muscle-a\");\n\
                  let o = h.run(\"echo run >>/root/count; cat; sleep 30; echo end\", #{ stdin: \"in\\n\" });\n\
                  require(o.stdout == \"in\\nend\\n\", `all of its output: ${o.stdout}`);";
    let look = "print(ssh::connect(\"muscle-a\").read_file(\"/root/count\"));";
    let mut lost = 0;
    for fault in ["drop-mid", "reset"] {
        for n in 1..=6 {
            let world = p.copy();
            let rules = world.file("faults", &format!("ssh.exec@muscle-a#{n}: {fault}\n"));
            let ran = world.json(recipe, &["--faults", &rules]);
            assert_eq!(ran.code, 0, "{fault} of exchange {n}: {}", ran.finished()["error"]);
            lost += usize::from(ran.stdout.contains("\"fault\"") || ran.stdout.contains("attempt"));
            let count = world.json(look, &[]).expect(0);
            assert_eq!(count.said("print"), ["run\n"], "{fault} of exchange {n}: it ran once");
        }
    }
    println!("{lost} of 12 were seen");
}
