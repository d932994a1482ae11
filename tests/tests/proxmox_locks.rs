//! Locks that a killed worker leaves behind are told at once; a machine just made is found by its name.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::time::Duration;

use gpuhost_lab::pve::task;
use gpuhost_stdlib::core::error::{Kind, OpError};
use gpuhost_stdlib::proxmox::{EnsureVm, RemoveVm, Request};
use gpuhost_tests::bed::{Bed, SITE, off, ok, start, told};
use serde_json::{Value, json};

/// Starts a task and gives its UPID while it runs.
async fn begin(b: &Bed, path: &str, body: Value) -> String {
    let r = Request {
        method: "POST".parse().unwrap(),
        path: path.to_owned(),
        query: Vec::new(),
        body: body.as_object().cloned(),
    };
    let upid = b.pve.send(&b.ctx, &r).await.unwrap().as_str().unwrap().to_owned();
    b.ctx.clock.sleep(Duration::from_millis(900)).await;
    upid
}

/// As `kill -9` of its worker: nothing is taken back.
fn kill(b: &Bed, upid: &str) {
    b.lab.with(|w| {
        assert!(w.pve.active.contains(upid), "{upid} runs");
        task::finish(w, upid, Some("unexpected status".into()));
    });
}

fn names_the_dead(e: &OpError, upid: &str, vmid: u32) {
    let text = told(e);
    assert!(e.is(Kind::Conflict) && e.message.contains("no task runs"), "{text}");
    assert!(e.causes.iter().any(|c| c.contains(upid) && c.contains("unexpected status")), "{text}");
    assert!(e.hint.as_ref().unwrap().contains(&format!("qm unlock {vmid}")), "{text}");
}

/// Runs `work` and holds it to less than a minute of lab time.
async fn soon<T>(b: &Bed, work: impl Future<Output = T>) -> T {
    let since = b.ctx.clock.now_ms().await;
    let out = work.await;
    let took = b.ctx.clock.now_ms().await - since;
    assert!(took < 60_000, "it took {took} ms of lab time");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_worker_was_killed_is_told_at_once() {
    let b = Bed::new().await;
    b.pveum(&[
        "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
        "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
    ]);
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let upid = begin(&b, "/nodes/pve1/vzdump", json!({ "vmid": "201", "storage": "local", "mode": "stop" })).await;
    // As long as its task runs the lock is waited for.
    let before = b.ctx.clock.now_ms().await;
    assert_eq!(b.lab.with(|w| w.pve.vms[&201].conf["lock"].clone()), "backup");
    vm.start(&b.ctx).await.unwrap_or_else(ok);
    assert!(b.ctx.clock.now_ms().await > before);
    vm.stop(&b.ctx).await.unwrap_or_else(ok);
    let _ = upid;
    let upid = begin(&b, "/nodes/pve1/vzdump", json!({ "vmid": "201", "storage": "local", "mode": "stop" })).await;
    kill(&b, &upid);
    assert_eq!(b.lab.with(|w| w.pve.vms[&201].conf["lock"].clone()), "backup");
    names_the_dead(&soon(&b, vm.start(&b.ctx)).await.unwrap_err(), &upid, 201);
    let e = soon(&b, b.vm("k3s-cp1", &start(&t))).await.unwrap_err();
    names_the_dead(&e, &upid, 201);
    // As root on the node: `qm unlock 201`.
    b.lab.with(|w| w.pve.vms.get_mut(&201).unwrap().conf.remove("lock"));
    b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_clone_is_told_at_once_also_when_the_token_does_not_see_it() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let body = json!({ "newid": 201, "name": "k3s-cp1", "full": 1, "pool": b.site.pool() });
    let upid = begin(&b, "/nodes/pve1/qemu/9100/clone", body).await;
    kill(&b, &upid);
    let make: EnsureVm = off(&t);
    names_the_dead(&soon(&b, b.vm("k3s-cp1", &make)).await.unwrap_err(), &upid, 201);
    // The recommended rights are on the pool, which a clone joins at its end.
    b.strip();
    let lines = b.pve.check_permissions(&b.ctx).await.unwrap_or_else(ok).commands;
    let lines: Vec<String> = lines.into_iter().filter(|l| !l.starts_with("pveum pool add ")).collect();
    b.pveum(&lines);
    names_the_dead(&soon(&b, b.vm("k3s-cp1", &make)).await.unwrap_err(), &upid, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_just_made_is_found_by_its_name() {
    let b = Bed::with(SITE).await;
    let t = b.empty_template().await;
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let find = async |n: &str| b.pve.find_vm(&b.ctx, &n.into()).await.unwrap_or_else(ok).map(|v| v.vmid());
    assert_eq!(find("k3s-cp1").await, Some(201), "the list does not show its name yet");
    assert_eq!((find("k3s-cp2").await, find("nobody").await), (None, None));
    // What stands at a declared id under another name is not it.
    b.ask("POST", "/nodes/pve1/qemu", json!({ "vmid": 202, "name": "other", "memory": 512 })).await;
    assert_eq!((find("k3s-cp2").await, find("other").await), (None, Some(202)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_goes_while_it_is_removed_is_removed() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    // As a run of which nothing is left but its task.
    b.lab.with(|w| w.pve.vms.get_mut(&201).unwrap().conf.remove("protection"));
    let r = Request {
        method: "DELETE".parse().unwrap(),
        path: "/nodes/pve1/qemu/201".into(),
        query: Vec::new(),
        body: None,
    };
    b.pve.send(&b.ctx, &r).await.unwrap();
    assert!(b.lab.with(|w| w.pve.vms.contains_key(&201)), "it takes a while");
    let removed = vm.remove(&b.ctx, &RemoveVm::read(&rhai::Map::new()).unwrap_or_else(ok)).await.unwrap_or_else(ok);
    assert!(removed.removed && !b.lab.with(|w| w.pve.vms.contains_key(&201)));
    assert_eq!(b.lab.with(|w| w.pve.tasks.values().filter(|t| t.kind == "qmdestroy").count()), 2, "both were begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_starts_while_it_is_removed_is_removed() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    // As a run that was killed right after it had begun the start.
    let path = "/nodes/pve1/qemu/201/status/start".to_owned();
    let r = Request { method: "POST".parse().unwrap(), path, query: Vec::new(), body: None };
    b.pve.send(&b.ctx, &r).await.unwrap();
    let removed = vm.remove(&b.ctx, &RemoveVm::read(&rhai::Map::new()).unwrap_or_else(ok)).await.unwrap_or_else(ok);
    assert!(removed.removed && !b.lab.with(|w| w.pve.vms.contains_key(&201)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_waits_for_its_turn_does_not_begin_after_an_interruption() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let o = off(&t);
    let names = ["k3s-cp1", "k3s-cp2", "k3s-cp3", "k3s-gpu1"];
    let (bed, o) = (&b, &o);
    let interrupt = async move {
        while bed.ctx.flight.list().len() < 2 {
            bed.ctx.clock.sleep(Duration::from_millis(200)).await;
        }
        bed.ctx.clock.sleep(Duration::from_millis(500)).await;
        assert_eq!(bed.ctx.flight.list().len(), 2, "two at once, and nothing else is under way");
        bed.ctx.cancel.cancel();
        false
    };
    let mut work: Vec<std::pin::Pin<Box<dyn Future<Output = bool> + '_>>> = vec![Box::pin(interrupt)];
    work.extend(names.map(|n| Box::pin(async move { bed.vm(n, o).await.is_ok() }) as _));
    let ended = b.ctx.clock.join_all(work).await;
    assert!(ended.iter().filter(|ok| **ok).count() <= 2, "{ended:?}");
    let made = b.lab.with(|w| w.pve.vms.values().filter(|v| names.contains(&v.conf["name"].as_str())).count());
    assert_eq!(made, 2, "what waited was not begun");
}
