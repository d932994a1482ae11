//! Promise: `gpuhost check` finds misspelt names, wrong options, units and lost writes at their lines.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::play::Play;

/// Line of a recipe, and what the finding at its line says.
const LINES: &[(&str, &[&str])] = &[
    ("let pve = proxmox::conect(site().proxmox);", &["no function `proxmox::conect`", "`proxmox::connect`"]),
    ("let vms = pve.list_vm();", &["no method `list_vm`", "`list_vms`"]),
    ("pve.ensure_vm(site().nodes[0], #{ templat: 1 });", &["unknown option `templat`", "`template`"]),
    ("let a = 5.minute;", &["`minute`", "`5.minutes`"]),
    ("let b = 16.gb;", &["`gb`", "`16.gib`"]),
    ("let c = site().netwrk.cidr;", &["`netwrk`", "`network`"]),
    ("let d = ssh::connect(\"a\", #{ port: \"22\" });", &["option `port`", "whole number"]),
    ("parallel([1], |n| { a = n; });", &["copy inside `parallel`", "return the value"]),
    ("stpe(\"a\", || 1);", &["no function `stpe`", "`step`"]),
    ("d.ensure(#{ pakages: [\"x\"] });", &["unknown option `pakages`", "`packages`"]),
    ("let e = nowhere + 1;", &["unknown variable `nowhere`"]),
    ("proxmox::connect();", &["takes 1 argument, found 0"]),
    ("wait_until(\"x\", 5, || true);", &["duration such as `5.minutes`"]),
    ("let s = site(); s.nodes.parallel(|n| s.name);", &["the closure uses `s`", "parallel(list, |x| …)"]),
    ("let f = elsewhere;", &["unknown variable `elsewhere`"]),
    ("porxmox::connect(site().proxmox);", &["unknown module `porxmox`", "`proxmox`"]),
    ("let k = k3s::connect(site().hosts(\"server\"));", &[]),
    (
        "k.apply(#{ apiVersion: \"v1\", kind: \"Pod\", metadata: #{ name: \"a\" }, spec: #{ contaners: [] } });",
        &["spec.contaners", "did you mean `containers`"],
    ),
    ("confirm(1);", &["`confirm` expects a text"]),
    ("param();", &["`param` takes 1 or 2 arguments, found 0"]),
];

#[test]
fn every_line_has_its_finding() {
    let p = Play::new();
    let text: String = LINES.iter().map(|(l, _)| format!("{l}\n")).collect();
    let ran = p.check(&text).expect(2);
    let mut bad = Vec::new();
    for (n, (line, says)) in LINES.iter().enumerate() {
        let place = format!("play.rhai:{}:", n + 1);
        let mut here: Vec<String> = Vec::new();
        let mut on = false;
        for l in ran.stdout.lines() {
            on = if l.starts_with(' ') { on } else { l.contains(&place) };
            if on {
                here.push(l.to_owned());
            }
        }
        let here = here.join("\n");
        if says.is_empty() != here.is_empty() || !says.iter().all(|s| here.contains(s)) {
            bad.push(format!("{line}\n  wanted {says:?}\n  found  {here}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn imports_are_checked_too_and_do_not_blame_their_users() {
    let p = Play::new();
    let _ = p.file("lib/mine.rhai", "fn good() { porxmox::connect(site().proxmox); }\n");
    let ran = p.check("import \"lib/mine\" as mine;\nmine::good();\nmine::missing();\n").expect(2);
    assert!(ran.stdout.contains("lib/mine.rhai:1:"), "{}", ran.stdout);
    assert!(ran.stdout.contains("no function `mine::missing`"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("`mine::good`"), "{}", ran.stdout);
    let ran = p.check("import \"lib/none\" as none;\n").expect(2);
    assert!(ran.stdout.contains("play.rhai:1:") && ran.stdout.contains("cannot find the import"), "{}", ran.stdout);
}

#[test]
fn right_recipes_have_no_findings_and_findings_are_events() {
    let p = Play::new();
    let _ = p.check("let t = 5.minutes; print(`${t} ${16.gib}`);\nstep(\"a\", || parallel([1], |n| n));\n").expect(0);
    let path = p.file("play.rhai", "stpe(\"a\", || 1);\n");
    let ran = p.b.run(&["check", &path, "--site", p.site(), "--json"]).expect(2);
    let events = ran.events();
    assert_eq!((&events[0]["event"], &events[0]["line"]), (&"finding".into(), &1.into()), "{}", ran.stdout);
    assert_eq!(events.last().unwrap()["event"], "check_finished", "{}", ran.stdout);
    // `run` checks first: nothing happened.
    let end = p.json("print(\"never\");\nstpe(\"a\", || 1);\n", &[]).expect(2);
    assert!(!end.stdout.contains("never") && end.finished()["exit"] == 2, "{}", end.stdout);
}
