//! Scripts that call themselves, and scripts that never end: they fail as on a machine that is out of processes or of
//! CPU time, and the machine goes on.
use crate::bed::Bed;

/// Script that calls itself (as `/tmp/a`, executable), how it is called, its status, words of its error.
const SELF: &[(&str, &str, u32, &str)] = &[
    ("sh /tmp/a", "sh /tmp/a", 2, "maximum nesting depth exceeded"),
    ("bash -c 'sh /tmp/a'", "sh /tmp/a", 2, "maximum nesting depth exceeded"),
    ("#!/bin/sh\n/tmp/a", "/tmp/a", 254, "fork: Resource temporarily unavailable"),
    ("#!/bin/bash\nPATH=/tmp:$PATH\nset -e\na x", "/tmp/a", 254, "fork: Resource temporarily unavailable"),
    ("#!/bin/sh\nenv /tmp/a", "/tmp/a", 254, "fork: Resource temporarily unavailable"),
    ("#!/bin/sh\nif /tmp/a; then :; else exit 7; fi", "/tmp/a", 7, "fork: Resource temporarily unavailable"),
    ("sudo -n sh /tmp/a", "sudo -n sh /tmp/a", 254, "fork: Resource temporarily unavailable"),
    ("timeout 9 /tmp/a", "sh /tmp/a", 254, "fork: Resource temporarily unavailable"),
    ("setsid sh /tmp/a | cat; exit 3", "sh /tmp/a", 3, "fork: Resource temporarily unavailable"),
    (". /tmp/a", ". /tmp/a", 1, "maximum source depth exceeded"),
    ("f() { f; }\nf", "sh /tmp/a", 1, "maximum function nesting level exceeded"),
    ("x='eval \"$x\"'\neval \"$x\"", "sh /tmp/a", 1, "maximum eval nesting level exceeded"),
    ("x='builtin eval \"$x\"'\neval \"$x\"", "sh /tmp/a", 1, "maximum eval nesting level exceeded"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_calls_itself_fails_and_the_machine_goes_on() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let mut bad = Vec::new();
    for (text, call, code, says) in SELF {
        ssh.exec("cat >/tmp/a; chmod 755 /tmp/a", format!("{text}\n").as_bytes()).await;
        let o = ssh.exec(call, b"").await;
        if o.code != Some(*code) || !o.err.contains(says) || o.err.lines().count() > 3 {
            bad.push(format!("{text:?}: {:?} {}", o.code, o.err));
        }
        assert_eq!(ssh.ok("echo on").await, "on\n", "after {text:?}");
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Nesting that scripts of operators have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_real_scripts_nest_works() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let text = "#!/bin/sh\n[ \"$1\" -le 0 ] || exec \"$0\" $(($1 - 1))\n[ \"$1\" -gt 0 ] || echo bottom\n";
    ssh.exec("cat >/tmp/a; chmod 755 /tmp/a", text.as_bytes()).await;
    assert_eq!(ssh.ok("/tmp/a 7").await, "bottom\n");
    assert_eq!(ssh.ok("sudo -n sh -c 'sudo -n timeout 5 sudo -n sh -c \"sudo -n /tmp/a 3\"'").await, "bottom\n");
    assert_eq!(ssh.ok("f() { [ $1 = 0 ] && echo $1 || f $(($1 - 1)); }; f 9").await, "0\n");
}

/// The lab's clock stands still while a script computes: one that never stops is stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_without_end_is_ended() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    assert_eq!(ssh.ok("while :; do echo x; done | head -2").await, "x\nx\n");
    let o = ssh.exec("timeout 5 sh -c 'while :; do :; done'; echo $?", b"").await;
    assert_eq!((o.code, o.out.as_str()), (Some(0), "124\n"), "{}", o.err);
    assert!(o.err.contains("CPU time limit exceeded"), "{}", o.err);
    assert_eq!(ssh.ok("echo on").await, "on\n");
}
