//! Every op of the table of effects in doubt: the process is killed in the middle of it, after its request and before its
//! outcome, and the next run does what the table promises of the op's class.
//!
//! CI takes a part that moves on with every commit; the whole:
//! `GPUHOST_TESTS_FULL=1 cargo test --workspace --test in_doubt -- --nocapture` (a few: `GPUHOST_DOUBT=proxmox.start,ssh.run`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuhost::runs::classes::OPS;
use gpuhost_tests::bed::full;
use gpuhost_tests::doubts::bed::{Beds, Side};
use gpuhost_tests::doubts::{Row, Then, rows};
use gpuhost_tests::{Ran, likeness, turn};

/// One of so many rows is played for a commit.
const SHARE: usize = 6;

fn is_of(row: &Row, op: &gpuhost::runs::classes::Row) -> bool {
    row.op == format!("{}.{}", op.0, op.1) && (row.effect.is_empty() || row.effect == op.2)
}

#[test]
fn every_op_of_the_table_has_a_row_of_its_class() {
    let rows = rows();
    let mut bad = Vec::new();
    for op in OPS {
        let fits = |t: Then| match op.3 {
            "ask" => t == Then::Asks,
            "repeatable" => matches!(t, Then::Converges | Then::Refuses(..)),
            _ => matches!(t, Then::Continues | Then::Refuses(..)),
        };
        match rows.iter().filter(|r| is_of(r, op)).collect::<Vec<_>>()[..] {
            [] => bad.push(format!("{}.{} ({}) has no row", op.0, op.1, op.2)),
            [row] if fits(row.then) => {}
            [row] => bad.push(format!("{} is {}, its row says {:?}", row.op, op.3, row.then)),
            _ => bad.push(format!("{}.{} ({}) has several rows", op.0, op.1, op.2)),
        }
    }
    bad.extend(
        rows.iter().filter(|r| !OPS.iter().any(|o| is_of(r, o))).map(|r| format!("{} is not in the table", r.op)),
    );
    assert!(bad.is_empty(), "rows stand in tests/src/doubts:\n{}", bad.join("\n"));
}

/// What went wrong, with the end of what was said.
fn wrong(what: &str, ran: &Ran) -> String {
    let error = ran.events().iter().rfind(|e| e["event"] == "run_finished").map(|e| e["error"].to_string());
    let said: Vec<&str> = ran.stderr.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
    format!("{what}: exit code {}\n{}\n{}", ran.code, error.unwrap_or_default(), said.join("\n"))
}

fn done(what: &str, ran: Ran) -> Result<Ran, String> {
    if ran.code == 0 { Ok(ran) } else { Err(wrong(what, &ran)) }
}

/// The journal of the killed run has a beginning of the op and no outcome.
fn in_doubt(row: &Row, side: &Side<'_>) -> Result<(), String> {
    let events = side.journal();
    let ids = |name: &str| -> Vec<i64> {
        events.iter().filter(|e| e["event"] == name && e["op"] == row.op).filter_map(|e| e["id"].as_i64()).collect()
    };
    let over = ids("op_finished");
    match ids("op_started").iter().any(|id| !over.contains(id)) {
        true => Ok(()),
        false => Err("the killed run left no op without an outcome".to_owned()),
    }
}

/// Refused with exit 4 and all these words.
fn refused(ran: &Ran, words: &[&str]) -> Result<(), String> {
    let text = format!("{}{}", ran.finished()["error"], ran.stderr);
    let missing: Vec<&&str> = words.iter().filter(|w| !text.contains(**w)).collect();
    match ran.code == 4 && missing.is_empty() {
        true => Ok(()),
        false => Err(wrong(&format!("not refused as it should be, without {missing:?}"), ran)),
    }
}

fn play(beds: &Beds, row: &Row, n: usize) -> Result<(), String> {
    let whole = beds.side(row, &format!("{n}-whole"));
    let half = beds.side(row, &format!("{n}-half"));
    for side in [&whole, &half] {
        if !row.before.is_empty() {
            done("what is made ready", side.run(row.before, &["--yes"], None))?;
        }
    }
    done("the run that nobody kills", whole.run(row.text, &["--yes"], None))?;
    let killed = half.run(row.text, &["--yes"], Some(row.op));
    if killed.code != -1 {
        return Err(wrong("not killed", &killed));
    }
    in_doubt(row, &half)?;
    match row.then {
        Then::Converges | Then::Continues => drop(done("the next run", half.run(row.text, &["--yes"], None))?),
        Then::Asks => {
            let ran = half.run(row.text, &[], None);
            refused(&ran, &[row.op, "may or may not", "was about to happen at 20", "in run ", "--yes"])?;
            done("the answer", half.run(row.text, &["--yes"], None))?;
            done("the run after the answer", half.run(row.text, &[], None))?;
        }
        Then::Refuses(words, answer) => {
            refused(&half.run(row.text, &["--yes"], None), &[words])?;
            done("the answer", half.run(answer, &["--yes"], None))?;
            done("the run after the answer", half.run(row.text, &["--yes"], None))?;
        }
    }
    if row.settles {
        let again = done("a run after that", half.run(row.text, &["--yes"], None))?.finished();
        if again["changed"] != 0 {
            return Err(format!("a run after that changed {}", again["changed"]));
        }
    }
    let (a, b) = (whole.shown(), half.shown());
    if a != b {
        return Err(format!("another sight: {a:?} and {b:?}"));
    }
    let ((want, did), (found, did_too)) = (whole.end(), half.end());
    if row.then != Then::Asks && want != found {
        return Err(format!("another world:\n{}", likeness::difference(&want, &found)));
    }
    if row.then == Then::Continues && did != did_too {
        return Err(format!("the hypervisor did something else:\n{}", likeness::difference(&did, &did_too)));
    }
    Ok(())
}

#[test]
fn a_run_that_died_within_an_op_is_followed_up_as_its_class_says() {
    let asked = std::env::var("GPUHOST_DOUBT").unwrap_or_default();
    let asked: Vec<&str> = asked.split(',').filter(|w| !w.is_empty()).collect();
    let turn = turn::turn();
    let due: Vec<(usize, Row)> = rows()
        .into_iter()
        .enumerate()
        .filter(|(i, r)| match asked[..] {
            [] => full() || (i + turn).is_multiple_of(SHARE),
            _ => asked.contains(&r.op),
        })
        .collect();
    let beds = Beds::new();
    let (next, bad) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while let Some((n, row)) = due.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let start = std::time::Instant::now();
                    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&beds, row, *n)));
                    let end = end.unwrap_or_else(|_| Err("a panic".to_owned()));
                    let word = if end.is_ok() { "ok" } else { "WRONG" };
                    println!("in doubt: {} {} {word} {:.1} s", row.op, row.effect, start.elapsed().as_secs_f64());
                    if let Err(text) = end {
                        println!("{text}");
                        bad.lock().unwrap().push(format!("{}: {text}", row.op));
                    }
                }
            });
        }
    });
    let bad = bad.into_inner().unwrap();
    println!("effects in doubt: {} of {} rows of {}", due.len() - bad.len(), due.len(), rows().len());
    assert!(bad.is_empty() && !due.is_empty(), "{} of {} rows:\n{}", bad.len(), due.len(), bad.join("\n"));
}
