//! Every rule of the fault language strikes, is seen as a named error or a try that is repeated, and leaves nothing that
//! a clean run does not put right.
//!
//! CI takes a part that moves on with every commit; the whole:
//! `GPUHOST_TESTS_FULL=1 cargo test --workspace --test fault_rules -- --nocapture` (a few: `GPUHOST_FAULTS=pve.start,kube`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gpuhost_lab::fault::{Plan, kinds};
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::site;
use gpuhost_tests::bed::{Bed, full, told};
use gpuhost_tests::client::Free;
use gpuhost_tests::turn;

const SMALL: &str = include_str!("../sites/small.toml");
/// One of so many rules is played for a commit.
const SHARE: usize = 3;

const HEAD: &str = "let pve = proxmox::connect(site().proxmox);\nlet template = pve.ensure_template(site().template);\n\
    fn brain() { proxmox::connect(site().proxmox).get_vm(\"brain\") }\n";
/// One server with K3s, and one more machine.
const SETUP: &str = "let vm = pve.ensure_vm(site().get_node(\"brain\"), #{ template: template });\nvm.wait_ready(15.minutes);\n\
    vm.ssh().ensure(#{ packages: [\"curl\"], swap: \"off\", modules: [\"overlay\", \"br_netfilter\"] });\n\
    let cluster = k3s::ensure_servers(site().hosts(\"server\"), site().k3s);\n\
    cluster.wait_nodes([\"brain\"], 10.minutes);\n\
    pve.ensure_vm(site().get_node(\"shelf\"), #{ template: template }).wait_ready(15.minutes);\n";

const SHELF: &str = "pve.ensure_vm(site().get_node(\"shelf\"), #{ template: template, start: false });\n";
const STOP: &str = "pve.get_vm(\"shelf\").stop();\n";
const MAP: &str = "k3s::connect(site().hosts(\"server\")).ensure_config_map(\"default/late\", #{ x: \"here\" });\n";
const UNMAP: &str = "let c = k3s::connect(site().hosts(\"server\"));\n\
    if c.find(\"configmap\", \"late\") != () { c.delete(\"configmap\", \"late\"); }\n";

/// A kind of request: its op on a target, what goes before, what makes it (the same again is the whole recovery), and
/// faults that its family has and it does not.
struct Place {
    op: &'static str,
    target: &'static str,
    before: &'static str,
    act: &'static str,
    never: &'static [&'static str],
}

const PLACES: &[Place] = &[
    Place {
        op: "pve.get_config",
        target: "brain",
        before: "",
        act: "pve.get_vm(\"brain\").ownership();\n",
        never: &[],
    },
    Place {
        op: "pve.agent_file-read",
        target: "brain",
        before: "",
        act: "brain().read_file(\"/etc/hostname\");\n",
        never: &[],
    },
    Place {
        op: "pve.clone",
        target: "shelf",
        before: "let vm = pve.find_vm(\"shelf\");\nif vm != () { pve.remove_vm(vm); }\n",
        act: SHELF,
        never: &[],
    },
    Place { op: "pve.put_config", target: "shelf", before: "", act: SHELF, never: &["task-fails", "task-warns"] },
    Place { op: "pve.start", target: "shelf", before: STOP, act: "pve.get_vm(\"shelf\").start();\n", never: &[] },
    Place { op: "pve.stop", target: "shelf", before: "pve.get_vm(\"shelf\").start();\n", act: STOP, never: &[] },
    Place {
        op: "ssh.login",
        target: "brain",
        before: "",
        act: "print(brain().ssh().read(\"uptime\").stdout);\n",
        never: &[],
    },
    Place {
        op: "ssh.exec",
        target: "brain",
        before: "brain().ssh().ensure(#{ files: #{ \"/etc/motd\": \"before\\n\" } });\n",
        act: "brain().ssh().ensure(#{ files: #{ \"/etc/motd\": \"after\\n\" } });\n",
        never: &[],
    },
    Place { op: "kube.get", target: "configmaps/default/late", before: UNMAP, act: MAP, never: &[] },
    Place { op: "kube.patch", target: "configmaps/default/late", before: UNMAP, act: MAP, never: &[] },
    Place {
        op: "net.fetch",
        target: "github.com",
        before: "",
        act: "brain().ssh().read(\"curl -fsSL \
            https://github.com/k3s-io/k3s/releases/download/v1.34.9%2Bk3s1/sha256sum-amd64.txt\").stdout;\n",
        never: &[],
    },
    Place {
        op: "guest.boot",
        target: "shelf",
        before: STOP,
        act: "let vm = pve.get_vm(\"shelf\");\nvm.start();\nvm.wait_ready(5.minutes);\n",
        never: &[],
    },
];

/// Faults as rules write them, by their first word.
fn written(word: &str) -> &'static [&'static str] {
    match word {
        "http" => &["http500", "http503", "596"],
        "slow" => &["slow 90s"],
        "task-fails" => &["task-fails \"storage is on fire\""],
        "task-warns" => &["task-warns \"something is odd\""],
        "reset" => &["reset"],
        "drop-mid" => &["drop-mid"],
        "timeout" => &["timeout"],
        "lock" => &["lock"],
        "disk-full" => &["disk-full"],
        "agent-silent" => &["agent-silent"],
        "boot-never" => &["boot-never"],
        other => panic!("{other} is no fault"),
    }
}

/// Every rule, with the place that it is for.
fn rules() -> Vec<(&'static Place, String)> {
    let words = |op: &str| kinds().iter().find(|(begins, _)| op.starts_with(begins)).unwrap().1;
    let of = |p: &'static Place| {
        let faults = words(p.op).iter().filter(move |w| !p.never.contains(*w)).flat_map(|w| written(w));
        faults.map(move |f| (p, format!("{}@{}#1: {f}", p.op, p.target)))
    };
    PLACES.iter().flat_map(of).collect()
}

#[test]
fn every_kind_of_request_has_a_place() {
    for (begins, words) in kinds() {
        let places: Vec<&Place> = PLACES
            .iter()
            .filter(|p| kinds().iter().find(|(b, _)| p.op.starts_with(b)).is_some_and(|(b, _)| b == begins))
            .collect();
        assert!(!places.is_empty(), "{begins} has no place");
        for w in *words {
            assert!(places.iter().any(|p| !p.never.contains(w)), "{w} never happens to {begins}");
        }
    }
    println!("{} rules", rules().len());
}

/// A run of its own: nothing is connected, nothing is known.
fn another(b: &Bed) -> Ctx {
    b.other_run((*b.site).clone(), b.ctx.run().secrets.clone(), Arc::new(Free(None)))
}

/// Plays a text on a run; what changed, or the error.
async fn play(b: &Bed, text: &str) -> Result<u64, OpError> {
    let ctx = another(b);
    let (run, text) = (ctx.run().clone(), format!("{HEAD}{text}"));
    let (tell, heard) = tokio::sync::oneshot::channel();
    let work = move || {
        let mut engine = gpuhost::engine::plain();
        gpuhost::engine::attach(&mut engine, &run);
        let ended = engine.eval::<rhai::Dynamic>(&text).map(drop).map_err(|e| match e.unwrap_inner() {
            rhai::EvalAltResult::ErrorRuntime(value, _) => value.clone().try_cast::<OpError>().unwrap(),
            other => OpError::failed(format!("no error of an op: {other}")),
        });
        tell.send(ended).ok();
    };
    std::thread::Builder::new().stack_size(64 << 20).spawn(work).unwrap();
    heard.await.unwrap().map(|()| ctx.changed.load(Ordering::SeqCst))
}

fn wrong(what: &'static str) -> impl Fn(OpError) -> String {
    move |e| format!("{what}: {}", told(&e))
}

/// Plays a rule; what was seen of it, or what is wrong.
async fn strikes(b: &Bed, p: &Place, rule: &str) -> Result<String, String> {
    play(b, p.before).await.map_err(wrong("before"))?;
    if p.op == "pve.put_config" {
        b.lab.with(|w| w.pve.vms.get_mut(&504).unwrap().conf.insert("onboot".to_owned(), "0".to_owned()));
    }
    b.tape.0.lock().unwrap().clear();
    let since = b.lab.clock().now_ms();
    b.lab.faults().set(Some(Plan::parse(rule).unwrap()));
    let ended = play(b, p.act).await;
    let fired: Vec<String> = b.lab.faults().fired().iter().map(ToString::to_string).collect();
    b.lab.faults().set(None);
    let took = (b.lab.clock().now_ms() - since) / 1000;
    if fired.len() != 1 {
        return Err(format!("struck {} times: {fired:?}", fired.len()));
    }
    let seen = match &ended {
        Err(e) if e.op.is_empty() || e.target.is_empty() || e.message.is_empty() => {
            return Err(format!("an error without a name: {}", told(e)));
        }
        Err(e) => format!("{} at {}: {}", e.kind.as_str(), e.op, e.message),
        Ok(_) => noticed(b, took, rule).ok_or_else(|| format!("nothing was seen of it in {took} s"))?,
    };
    if p.op == "guest.boot" {
        play(b, "pve.get_vm(\"shelf\").reset();\n").await.map_err(wrong("its cure"))?;
    }
    play(b, p.act).await.map_err(wrong("the clean run"))?;
    match play(b, p.act).await.map_err(wrong("the run after it"))? {
        0 => Ok(seen),
        n => Err(format!("{n} changes after a clean run")),
    }
}

/// What a client of Proxmox waits for when a request did not get through.
fn lost(reason: &str) -> bool {
    ["connection error", "Connection timed out", "Service Unavailable", "can't lock file", "no answer came"]
        .iter()
        .any(|w| reason.contains(w))
}

/// What is seen of a fault that a run got past: a try that was repeated, a warning, the time that it took.
fn noticed(b: &Bed, took: u64, rule: &str) -> Option<String> {
    let tape = b.tape.0.lock().unwrap();
    let of = |e: &Event| match e {
        Event::Retrying { reason, attempt, .. } => Some(format!("tried again after try {attempt}: {reason}")),
        Event::Waiting { reason, .. } if lost(reason) => Some(format!("waited and tried again: {reason}")),
        Event::Message { text, .. } if text.contains("something is odd") => Some(format!("said: {text}")),
        _ => None,
    };
    let told = tape.iter().find_map(of);
    // An answer that was lost is looked for: what was done is found.
    let found = || rule.ends_with("drop-mid").then(|| "found as done".to_owned());
    told.or_else(|| (took >= 90).then(|| format!("took {took} s"))).or_else(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_strikes_is_seen_and_leaves_nothing_behind() {
    let chosen = std::env::var("GPUHOST_FAULTS").unwrap_or_default();
    let due = turn::turn() % SHARE;
    let mine = |i: usize, rule: &str| {
        if chosen.is_empty() { full() || i % SHARE == due } else { chosen.split(',').any(|c| rule.starts_with(c)) }
    };
    let all: Vec<_> = rules().into_iter().enumerate().filter(|(i, (_, rule))| mine(*i, rule)).collect();
    let site = site::load(Path::new("site.toml"), SMALL).unwrap_or_else(|f| panic!("{f:#?}"));
    let b = Bed::on(SMALL, gpuhost::labs::world::spec(&site).unwrap()).await;
    play(&b, SETUP).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let mut bad = Vec::new();
    for (_, (place, rule)) in &all {
        match strikes(&b, place, rule).await {
            Ok(seen) => println!("{rule}\n    {seen}"),
            Err(e) => bad.push(format!("{rule}\n    {e}")),
        }
    }
    println!("{} of {} rules, {} of them well", all.len(), rules().len(), all.len() - bad.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
