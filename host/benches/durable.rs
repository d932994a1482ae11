//! What durability costs, and how well a deploy overlaps. `cargo bench -p gpuhost --bench durable`; `--quick`: once over.
//!
//! First an op that does nothing, through the pipeline: without a journal, with one, with one that is on the disk before it
//! goes on; beside them the bare write of the same bytes with as many `fdatasync`s. Then whole deploys on the lab: their
//! makespan against their critical path in the lab's own time, which no load of this machine changes.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a measurement reads the clock
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpuhost::plan::path::Schedule;
use gpuhost::record::journal::{self, Journal};
use gpuhost::record::read;
use gpuhost::runs::doubt::Doubts;
use gpuhost::screen::Screen;
use gpuhost::session::{Ask, Far, Session, new_id};
use gpuhost::signals::Stop;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::event::Change;
use gpuhost_stdlib::core::op::Op;

/// The longest that a deploy may take, as a multiple of its critical path.
const TARGET: f64 = 1.05;

/// Which journal a run has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Not,
    Written,
    Synced,
}

/// A run on no site, in a state directory of its own.
fn session(rt: &tokio::runtime::Handle, dir: &Path, kept: Kept) -> Session {
    let s = Session::open(Ask {
        rt: rt.clone(),
        screen: Arc::new(Screen::new(false)),
        far: Far::real(None, dir).unwrap(),
        site: None,
        base_dir: dir.to_owned(),
        params: BTreeMap::new(),
        yes: None,
        stop: Stop::default(),
        id: new_id(),
        doubts: Doubts::default(),
        gate: None,
    });
    if kept != Kept::Not {
        s.fan.add(Box::new(Journal::create(dir, 0, "bench").unwrap().of_lab(kept == Kept::Written)));
    }
    s
}

/// An op with one change that does nothing.
async fn null(ctx: &Ctx, i: usize) {
    let op = Op::write("bench", "ensure", "target");
    ctx.run_op(op, |s| async move {
        let change = Change::new("target", "value", Some(i.into()), Some((i + 1).into()));
        s.act("marker of the target", vec![change], async { Ok(()) }).await
    })
    .await
    .unwrap();
}

/// The median of some rounds: time per op.
fn per_op(rounds: usize, ops: usize, mut round: impl FnMut()) -> Duration {
    let mut all: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed() / u32::try_from(ops).unwrap()
        })
        .collect();
    all.sort();
    all[all.len() / 2]
}

fn piped(rt: &tokio::runtime::Runtime, parent: &Path, kept: Kept, rounds: usize, ops: usize) -> Duration {
    let dir = tempfile::tempdir_in(parent).unwrap();
    let s = session(rt.handle(), dir.path(), kept);
    let ctx = Ctx::new(s.run.clone());
    per_op(rounds, ops, || {
        rt.block_on(async {
            for i in 0..ops {
                null(&ctx, i).await
            }
        })
    })
}

/// The lines of one round, written as a journal writes them and by nothing else.
fn bare(rt: &tokio::runtime::Runtime, parent: &Path, rounds: usize, ops: usize) -> (Duration, usize, usize) {
    let dir = tempfile::tempdir_in(parent).unwrap();
    let s = session(rt.handle(), dir.path(), Kept::Written);
    let ctx = Ctx::new(s.run.clone());
    rt.block_on(async {
        for i in 0..ops {
            null(&ctx, i).await
        }
    });
    let written = std::fs::read_dir(journal::folder(dir.path())).unwrap().flatten().next().unwrap().path();
    let text = std::fs::read_to_string(&written).unwrap();
    let past = read::read(&written).unwrap();
    let lines: Vec<(String, bool)> = text
        .lines()
        .zip(&past.lines)
        .map(|(t, l)| (format!("{t}\n"), l.event.as_ref().is_some_and(gpuhost_stdlib::core::event::Event::is_durable)))
        .collect();
    let syncs = lines.iter().filter(|(_, durable)| *durable).count();
    let mut file = std::fs::File::create(dir.path().join("bare")).unwrap();
    let time = per_op(rounds, ops, || {
        for (line, durable) in &lines {
            file.write_all(line.as_bytes()).unwrap();
            if *durable {
                file.sync_data().unwrap();
            }
        }
    });
    (time, text.len() / ops, syncs / ops)
}

fn overhead(quick: bool) {
    let (rounds, ops) = if quick { (1, 20) } else { (7, 500) };
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let memory = Path::new("/dev/shm");
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let none = piped(&rt, &disk, Kept::Not, rounds, ops);
    println!("one op with one change, no journal: {none:.1?}");
    for (name, dir) in [("memory", memory), ("disk", &disk)] {
        if !dir.is_dir() {
            println!("{name}: there is no {}", dir.display());
            continue;
        }
        let written = piped(&rt, dir, Kept::Written, rounds, ops);
        let synced = piped(&rt, dir, Kept::Synced, rounds, ops);
        let (plain, bytes, syncs) = bare(&rt, dir, rounds, ops);
        println!(
            "journal in {name}: {written:.1?} written, {synced:.1?} synced; bare write of the same {bytes} bytes with \
             {syncs} fdatasyncs {plain:.1?}; synced / bare = {:.2}",
            synced.as_secs_f64() / plain.as_secs_f64()
        );
    }
}

/// Deploys a site on an empty lab, and reads how its ops lay in time.
fn deploy(root: &Path, site: &str) -> Schedule {
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_gpuhost"))
        .args(["run", "recipes/deploy.rhai", "--lab", "--json", "--site", site, "--state-dir"])
        .arg(dir.path())
        .current_dir(root)
        .output()
        .unwrap();
    assert!(out.status.success(), "{site}: {}", String::from_utf8_lossy(&out.stderr));
    let file = std::fs::read_dir(journal::folder(dir.path())).unwrap().flatten().next().unwrap().path();
    Schedule::of(&read::read(&file).unwrap())
}

fn main() {
    let quick = std::env::args().any(|a| a == "--quick" || a == "--test");
    overhead(quick);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sites: &[&str] =
        if quick { &["tests/sites/small.toml"] } else { &["recipes/site.toml", "tests/sites/small.toml"] };
    for site in sites {
        let s = deploy(root, site);
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let ratio = s.makespan_ms as f64 / s.critical_ms as f64;
        println!(
            "deploy of {site}: makespan {:.1} s of lab time, critical path {:.1} s, {ratio:.3} of it (target {TARGET}); \
             without queues {:.1} s; overlap {:.2}",
            seconds(s.makespan_ms),
            seconds(s.critical_ms),
            seconds(s.unlimited_ms),
            s.overlap()
        );
        for (step, target, secs) in s.path() {
            println!("  {secs:>7.1} s  {target}  ({step})");
        }
        assert!(ratio <= TARGET, "{site}: the deploy takes {ratio:.3} of its critical path");
    }
}
