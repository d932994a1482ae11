//! What hurts users of other tools most: silent agents, raw addresses, hung guests, warnings taken for failures, stolen ids.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gpuhost_lab::Lab;
use gpuhost_lab::fault::Plan;
use gpuhost_lab::pve::state::Vm;
use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::core::error::Kind;
use gpuhost_stdlib::proxmox::EnsureVm;
use gpuhost_tests::bed::{Bed, SITE, off, ok, start, told};
use serde_json::json;

fn faults(b: &Bed, rules: &str) {
    b.lab.faults().set(Some(Plan::parse(rules).unwrap()));
}

fn wait(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Pain 3: no wait without being asked, and the four reasons of silence are told from each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_agent_is_silent_is_said() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let since = b.ctx.clock.now_ms().await;
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    let took = b.ctx.clock.now_ms().await - since;
    assert!(took < 120_000, "a machine without an agent is made and started without waiting for one: {took} ms");
    let e = vm.wait_agent(&b.ctx, wait(30)).await.unwrap_err();
    assert!(e.is(Kind::Timeout) && e.last.as_ref().unwrap().contains("agent does not answer"), "{}", told(&e));
    assert!(e.hint.as_ref().unwrap().contains("qm terminal 201"), "{}", told(&e));
    // Not configured: waiting cannot help.
    let since = b.ctx.clock.now_ms().await;
    vm.stop(&b.ctx).await.unwrap_or_else(ok);
    b.ask("PUT", "/nodes/pve1/qemu/201/config", json!({ "delete": "agent" })).await;
    vm.start(&b.ctx).await.unwrap_or_else(ok);
    let e = vm.wait_agent(&b.ctx, wait(900)).await.unwrap_err();
    assert!(told(&e).contains("No QEMU guest agent configured") && e.hint.is_some(), "{}", told(&e));
    b.ask("PUT", "/nodes/pve1/qemu/201/config", json!({ "agent": "1" })).await;
    // Not allowed: told at once, with the privilege.
    b.lab.with(|w| {
        for role in w.pve.access.roles.values_mut() {
            role.retain(|p| !p.starts_with("VM.GuestAgent"));
        }
    });
    let e = vm.wait_ready(&b.ctx, wait(900)).await.unwrap_err();
    assert!(e.is(Kind::Denied) && told(&e).contains("VM.GuestAgent"), "{}", told(&e));
    assert!(b.ctx.clock.now_ms().await - since < 200_000, "nothing of it was waited for");
    // Off.
    vm.stop(&b.ctx).await.unwrap_or_else(ok);
    let e = vm.wait_agent(&b.ctx, wait(9)).await.unwrap_err();
    assert!(told(&e).contains("does not run") || e.is(Kind::Denied), "{}", told(&e));
}

/// Pain 6: a raw address with a token is refused before anything is made, and the mapping is named instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_address_with_a_token_is_explained() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    b.changed();
    let options = rhai::Engine::new().eval("#{ start: false, pci: [#{ address: \"0000:01:00.0\" }] }").unwrap();
    let o = EnsureVm { template: off(&t).template, ..EnsureVm::read(&options).unwrap() };
    let e = b.vm("k3s-cp1", &o).await.unwrap_err();
    assert!(e.is(Kind::Denied) && e.message.contains("0000:01:00.0") && e.message.contains("token"), "{}", told(&e));
    assert!(e.hint.unwrap().contains("ensure_pci_mapping"));
    assert_eq!((b.changed(), b.lab.with(|w| w.pve.vms.contains_key(&201))), (0, false));
}

/// Pain 14: a guest that does not power off does not hold up its removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_guest_is_removed_all_the_same() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    faults(&b, "pve.shutdown@k3s-cp1: task-fails \"VM quit/powerdown failed - got timeout\"\n");
    assert!(b.remove(&vm, true).await.unwrap_or_else(ok).removed);
    assert!(b.lab.with(|w| !w.pve.vms.contains_key(&201)));
}

/// Pain 15: a task that warns has done its work; what it said is shown, and nothing is done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_are_shown_and_are_no_failure() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    faults(&b, "pve.clone@k3s-cp1#1: task-warns \"something is odd\"\npve.start@k3s-cp1#1: task-warns \"and this\"\n");
    b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    for said in ["something is odd", "and this"] {
        assert!(b.messages().iter().any(|m| m.contains("k3s-cp1") && m.contains(said)), "{:?}", b.messages());
    }
    b.changed();
    b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    assert_eq!(b.changed(), 0);
    // The lab's own: firmware without a place for its settings.
    let id = json!({ "vmid": 333, "name": "bare", "memory": 512, "bios": "ovmf" });
    b.ask("POST", "/nodes/pve1/qemu", id).await;
    b.ask("POST", "/nodes/pve1/qemu/333/status/start", json!({})).await;
    let end = b.lab.with(|w| w.pve.tasks.values().find(|t| t.id == "333" && t.kind == "qmstart").unwrap().clone());
    assert_eq!(end.exit.as_deref(), Some("WARNINGS: 1"));
    assert!(end.log.iter().any(|l| l.starts_with("WARN: no efidisk configured!")), "{:?}", end.log);
}

/// Pain 4: somebody takes the declared id between the look and the clone: it stays theirs, and we stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_taken_meanwhile_stays_with_its_owner() {
    let cell: Arc<OnceLock<Lab>> = Arc::default();
    let lab = cell.clone();
    let b = Bed::between(
        SITE,
        Spec::homelab().unwrap(),
        Arc::new(move |method, path| {
            if let (Some(lab), "POST", true) = (lab.get(), method, path.ends_with("/clone")) {
                let conf = BTreeMap::from([("name".to_owned(), "theirs".to_owned())]);
                lab.with(|w| {
                    w.pve.vms.entry(201).or_insert(Vm { node: "pve1".into(), conf, ..Vm::default() }).node.len()
                });
            }
            None
        }),
    )
    .await;
    let t = b.empty_template().await;
    assert!(cell.set(b.lab.clone()).is_ok());
    let e = b.vm("k3s-cp1", &off(&t)).await.unwrap_err();
    assert!(e.stop.is_some() && told(&e).contains("201"), "{}", told(&e));
    assert_eq!(
        b.lab.with(|w| w.pve.vms[&201].conf.clone().into_iter().collect::<Vec<_>>()),
        [("name".into(), "theirs".into())]
    );
}
