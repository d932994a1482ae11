//! What hurts users of other tools most: silent agents, raw addresses, hung guests, warnings taken for failures, stolen ids.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gpuhost_lab::Lab;
use gpuhost_lab::fault::Plan;
use gpuhost_lab::pve::state::Vm;
use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::core::error::Kind;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::proxmox::EnsureVm;
use gpuhost_stdlib::ssh::keys;
use gpuhost_tests::bed::{Bed, SITE, off, ok, start, told};
use gpuhost_tests::client::Free;
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

/// What the intents of the run say of a part, newest last.
fn noted(b: &Bed, what: &str) -> Vec<(String, String)> {
    let side =
        |v: Option<serde_json::Value>| v.map_or("nothing".to_owned(), |v| v.as_str().unwrap_or_default().to_owned());
    let tape = b.tape.0.lock().unwrap();
    let all =
        tape.iter().filter_map(|e| if let Event::Intent { changes, .. } = e { Some(changes.clone()) } else { None });
    all.flatten().filter(|c| c.what == what).map(|c| (side(c.before), side(c.after))).collect()
}

/// Pain 12: new cloud-init data: what changes, where it is so far, and what brings it into the guest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_cloud_init_data_is_shown_and_reaches_the_guest_when_allowed() {
    let b = Bed::new().await;
    let t = b.template().await;
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    vm.wait_ready(&b.ctx, wait(900)).await.unwrap_or_else(ok);
    let node = b.site.node("k3s-cp1").unwrap();
    let later = |dns: &str| {
        let mut site = (*b.site).clone();
        site.ssh
            .authorized_keys
            .push("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk3b5aV1nq6t9lY7xk3Tz8 ann@desk".to_owned());
        site.network.dns = vec![dns.to_owned()];
        b.other_run(site, b.ctx.run().secrets.clone(), Arc::new(Free(None)))
    };
    let on_drive = |key: &str| b.lab.with(|w| w.pve.vms[&201].ci_drive[key].clone());
    let instance = || b.lab.with(|w| w.guests[&201].instance_id.clone());
    let (born, old) = (instance(), on_drive("nameserver"));
    let run = later("9.9.9.10");
    let ensure = async |o: EnsureVm| {
        b.pve.ensure_vm(&run, &node, &o).await.unwrap_or_else(ok);
        run.changed.swap(0, Ordering::SeqCst)
    };
    let last = || b.messages().into_iter().rfind(|m| m.contains("cloud-init")).unwrap();

    // The config has it, the drive has not; what it becomes is shown, and how it gets there is said.
    assert_eq!(ensure(start(&t)).await, 2);
    let (before, after) = noted(&b, "sshkeys").pop().unwrap();
    assert!(
        before.starts_with("SHA256:") && after.contains("SHA256:") && after.contains("ann@desk"),
        "{before} {after}"
    );
    let shown = b.tape.0.lock().unwrap().iter().any(|e| {
        matches!(e, Event::Output { stream, text, .. } if stream == "diff" && text.contains("cloud-init user-data")
            && text.contains("+  - ssh-ed25519") && text.contains("+      - '9.9.9.10'"))
    });
    assert!(shown, "the difference of the texts is shown");
    let said = last();
    assert!(said.contains("old data") && said.contains(&born) && said.contains("host keys may change"), "{said}");
    assert_eq!((on_drive("nameserver"), instance()), (old.clone(), born.clone()));

    // It is not forgotten: the next run says what the drive carries, and changes nothing.
    assert_eq!(ensure(start(&t)).await, 0);
    assert!(last().contains(&format!("nameserver ({old} -> 9.9.9.10)")), "{}", last());

    // Rewritten when allowed, once; the guest takes it over when it boots, by whatever way.
    assert_eq!(ensure(EnsureVm { regenerate: true, ..start(&t) }).await, 2);
    assert_eq!(noted(&b, "cloud-init drive: nameserver"), [(old, "9.9.9.10".to_owned())]);
    assert!(last().contains("takes it over at its next boot"), "{}", last());
    assert_eq!(on_drive("nameserver"), "9.9.9.10");
    assert_eq!(ensure(EnsureVm { regenerate: true, ..start(&t) }).await, 0);
    assert_eq!(instance(), born, "nothing has booted yet");
    let keys = "/home/debian/.ssh/authorized_keys";
    assert!(!vm.read_file(&b.ctx, keys).await.unwrap_or_else(ok).unwrap().contains("ann@desk"));
    b.lab.with(|w| gpuhost_lab::guest::boot::go_down(&b.lab, w, 201, true));
    b.ctx.clock.sleep(wait(240)).await;
    vm.wait_ready(&b.ctx, wait(900)).await.unwrap_or_else(ok);
    assert!(vm.read_file(&b.ctx, keys).await.unwrap_or_else(ok).unwrap().contains("ann@desk"));
    let second = instance();
    assert_ne!(second, born);

    // A restart that is allowed brings it in at once, and is made once.
    let run = later("9.9.9.11");
    let o = EnsureVm { restart: true, ..start(&t) };
    b.pve.ensure_vm(&run, &node, &o).await.unwrap_or_else(ok);
    assert_eq!(run.changed.swap(0, Ordering::SeqCst), 2, "the key, and the drive's");
    vm.wait_ready(&b.ctx, wait(900)).await.unwrap_or_else(ok);
    assert_ne!(instance(), second);
    assert_eq!(on_drive("nameserver"), "9.9.9.11");
    let boot = b.lab.with(|w| w.guests[&201].boot);
    b.pve.ensure_vm(&run, &node, &o).await.unwrap_or_else(ok);
    assert_eq!((run.changed.load(Ordering::SeqCst), b.lab.with(|w| w.guests[&201].boot)), (0, boot));
}

/// Pain 5: files of one's own that are not there are found before anything is made, and what to do instead is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snippet_that_is_not_there_is_found_before_anything_is_made() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    b.changed();
    let options = rhai::Engine::new().eval("#{ start: false, config: #{ cicustom: \"vendor=local:snippets/a.yml\" } }");
    let o = EnsureVm { template: off(&t).template, ..EnsureVm::read(&options.unwrap()).unwrap() };
    let e = b.vm("k3s-cp1", &o).await.unwrap_err();
    assert!(e.is(Kind::NotFound) && e.message.contains("local:snippets/a.yml"), "{}", told(&e));
    assert!(e.hint.as_ref().unwrap().contains("pvesm set local"), "{}", told(&e));
    assert_eq!((b.changed(), b.lab.with(|w| w.pve.vms.contains_key(&201))), (0, false));
}

/// A key that the machines were not made with, as that of another state directory: nothing changes until it is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_a_running_machine_refuses_is_not_written_over_the_one_it_knows() {
    let b = Bed::new().await;
    let t = b.template().await;
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(ok);
    vm.wait_ready(&b.ctx, wait(900)).await.unwrap_or_else(ok);
    let node = b.site.node("k3s-cp1").unwrap();
    let mut site = (*b.site).clone();
    site.ssh.key = "state:other_key".to_owned();
    let other = b.other_run(site.clone(), b.ctx.run().secrets.clone(), Arc::new(Free(None)));
    let print = |ctx, site| keys::fingerprint(&keys::public_key(ctx, site).unwrap_or_else(ok));
    let (old, new) = (print(&b.ctx, &b.site), print(&other, &site));
    let held = || b.lab.with(|w| w.pve.vms[&201].conf["sshkeys"].clone());
    let before = held();

    // The check before a deploy and the machine itself say whose key it is; nothing was written.
    let report = b.pve.check_site(&other).await.unwrap_or_else(ok).to_string();
    assert!(report.contains("k3s-cp1 does not know the site's SSH key") && report.contains(&new), "{report}");
    let e = b.pve.ensure_vm(&other, &node, &start(&t)).await.unwrap_err();
    assert!(e.is(Kind::Denied), "{}", told(&e));
    for word in [&old, &new, "other_key", "recipes/rotate-ssh-key.rhai", "10.0.0.11 refuses `debian`"] {
        assert!(told(&e).contains(word) || e.hint.as_ref().unwrap().contains(word), "{word}: {}", told(&e));
    }
    assert_eq!((other.changed.load(Ordering::SeqCst), held()), (0, before));

    // Let in on purpose, through the agent, once; then it is the machine's in Proxmox, too.
    let theirs = b.pve.find_vm(&other, &"k3s-cp1".into()).await.unwrap_or_else(ok).unwrap();
    for changes in [1, 0] {
        theirs.ensure_ssh_key(&other).await.unwrap_or_else(ok);
        assert_eq!(other.changed.swap(0, Ordering::SeqCst), changes);
    }
    b.pve.ensure_vm(&other, &node, &start(&t)).await.unwrap_or_else(ok);
    assert_eq!(other.changed.swap(0, Ordering::SeqCst), 1);
    let (before, after) = noted(&b, "sshkeys").pop().unwrap();
    assert!(before.starts_with(&old) && after.starts_with(&new), "{before} -> {after}");
    assert!(b.pve.check_site(&other).await.unwrap_or_else(ok).is_ok());
}
