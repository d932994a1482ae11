//! The client's own promises: who it is, whom it trusts, and what it does when no answer comes.
//! Lost answers: six of eighteen cases by default, all of them with `GPUHOST_TESTS_FULL=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::core::ctx::Consent;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Change, Event};
use gpuhost_stdlib::core::op::Op;
use gpuhost_stdlib::proxmox::{EnsureVm, Proxmox};
use gpuhost_stdlib::site::{self, Site};
use gpuhost_tests::bed::{Bed, SITE, full, off, start, told};
use gpuhost_tests::client::Free;
use gpuhost_tests::proxy::{Decide, Mishap};

fn site_with(from: &str, to: &str) -> Site {
    assert!(SITE.contains(from), "{from}");
    site::load(Path::new("site.toml"), &SITE.replace(from, to)).unwrap_or_else(|f| panic!("{f:#?}"))
}

const TOKEN: &str = "token_id = \"gpuhost@pve!deploy\"                   # API token; see docs/real-hardware.md for its role\ntoken = \"env:GPUHOST_PROXMOX_TOKEN\"               # the token's secret";

/// The default site with root@pam instead of the token.
fn as_root() -> Site {
    site_with(TOKEN, "user = \"root@pam\"\npassword = \"env:UNUSED\"")
}

fn secrets(b: &Bed, name: &str, value: String) -> BTreeMap<String, String> {
    let ca = b.lab.with(|w| w.pve.ca.cert.clone());
    BTreeMap::from([(name.to_owned(), value), ("proxmox_ca".to_owned(), ca)])
}

fn password(b: &Bed) -> String {
    b.lab.with(|w| w.pve.access.users["root@pam"].password.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_writes_with_csrf_and_renews_its_ticket() {
    let b = Bed::new().await;
    let ctx = b.other_run(as_root(), secrets(&b, "proxmox_password", password(&b)), Arc::new(Free(None)));
    let pve = Proxmox::connect_site(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    pve.ensure_pool(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    // Beyond half of a ticket's life, beyond all of it, and after the server forgot its key.
    for minutes in [100, 180] {
        ctx.clock.sleep(Duration::from_secs(minutes * 60)).await;
        pve.rows(&ctx).await.unwrap_or_else(|e| panic!("after {minutes} minutes: {e}"));
    }
    b.lab.with(|w| w.pve.ticket_key = "another".to_owned());
    assert!(pve.remove_pool(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e))));
    let r = pve.check_permissions(&ctx).await.unwrap();
    assert!(r.is_ok(), "root may do everything: {r}");
    let wrong =
        b.other_run(as_root(), secrets(&b, "proxmox_password", "wrong-password".to_owned()), Arc::new(Free(None)));
    let e = Proxmox::connect_site(&wrong).await.unwrap_err();
    assert_eq!(e.kind.as_str(), "denied", "{}", told(&e));
    assert!(e.hint.as_deref().is_some_and(|h| h.contains("proxmox.password")), "{}", told(&e));
}

#[test]
fn a_site_names_a_token_or_a_user() {
    for (to, says) in [
        ("user = \"root@pam\"", "a user has"),
        ("token_id = \"a@pve!b1\"", "a token has"),
        ("", "neither"),
        ("token_id = \"a@pve!b1\"\ntoken = \"env:A\"\nuser = \"root@pam\"\npassword = \"env:B\"", "both"),
    ] {
        let found = site::load(Path::new("site.toml"), &SITE.replace(TOKEN, to)).unwrap_err();
        assert!(found.iter().any(|f| f.message.contains(says)), "{to}: {found:#?}");
    }
}

/// Says what it is told to about certificates, and remembers the questions.
struct Person(Option<bool>, Mutex<Vec<String>>);
impl Consent for Person {
    fn confirm(&self, _: &str, _: bool) -> OpResult<bool> {
        Ok(true)
    }
    fn destroy(&self, _: &Op, _: &[Change]) -> OpResult<()> {
        Ok(())
    }
    fn trust(&self, question: &str) -> OpResult<bool> {
        self.1.lock().unwrap().push(question.to_owned());
        self.0.ok_or_else(|| OpError::refused("nobody can be asked"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_contact_shows_the_fingerprint_and_asks() {
    let b = Bed::new().await;
    let (leaf, token) = b.lab.with(|w| (w.pve.leaf.cert.clone(), w.token_secret("gpuhost@pve!deploy").unwrap()));
    let print = gpuhost_lab::tls::fingerprint(&leaf).unwrap();
    let without_ca = || BTreeMap::from([("proxmox_token".to_owned(), token.clone())]);
    let plain = || site_with("[site]", "[site]");
    for (answer, exit) in [(None, "refused"), (Some(false), "refused"), (Some(true), "ok")] {
        let person = Arc::new(Person(answer, Mutex::default()));
        let ctx = b.other_run(plain(), without_ca(), person.clone());
        let got = Proxmox::connect_site(&ctx).await;
        let asked = person.1.lock().unwrap().clone();
        assert!(asked.len() == 1 && asked[0].contains(&print), "{asked:?}");
        match got {
            Ok(_) => {
                assert_eq!(exit, "ok");
                // The answer holds for the run: nobody is asked twice.
                Proxmox::connect_site(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
                assert_eq!(person.1.lock().unwrap().len(), 1);
                assert!(b.messages().iter().any(|m| m.contains(&format!("fingerprint = \"{print}\""))));
            }
            Err(e) => {
                assert!(e.stop.is_some() && exit == "refused", "{}", told(&e));
                assert!(
                    e.hint.unwrap().contains(&format!("fingerprint = \"{print}\"")),
                    "the line to put into the file"
                );
            }
        }
    }
    let pinned = |f: &str| site_with("# fingerprint = \"AA:BB:…\"", &format!("fingerprint = \"{f}\" #"));
    let nobody = || Arc::new(Person(Some(true), Mutex::default()));
    let ctx = b.other_run(pinned(&print.to_lowercase()), without_ca(), nobody());
    Proxmox::connect_site(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let other = print.replace(|c: char| c.is_ascii_digit(), "0");
    let person = nobody();
    let ctx = b.other_run(pinned(&other), without_ca(), person.clone());
    let e = Proxmox::connect_site(&ctx).await.unwrap_err();
    assert!(e.stop.is_some() && e.message.contains("pins"), "{}", told(&e));
    assert!(e.causes.iter().any(|c| c.contains(&print)) && e.causes.iter().any(|c| c.contains(&other)), "{}", told(&e));
    assert!(person.1.lock().unwrap().is_empty(), "a changed certificate is never asked about");
}

/// One mishap for the first request that fits, then peace.
fn once(method: &'static str, end: &'static str, mishap: Mishap) -> (Decide, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let seen = hits.clone();
    let decide: Decide = Arc::new(move |m, p| {
        (m == method && p.ends_with(end) && seen.fetch_add(1, Ordering::SeqCst) == 0).then(|| mishap.clone())
    });
    (decide, hits)
}

/// A machine is made, grown, restarted and removed while one request has that mishap.
async fn survives(method: &'static str, end: &'static str, mishap: Mishap) {
    let (decide, hits) = once(method, end, mishap.clone());
    let b = Bed::between(SITE, Spec::homelab().unwrap(), decide).await;
    let name = format!("{method} …{end} with {mishap:?}");
    let ok = |e: OpError| -> ! { panic!("{name}: {}", told(&e)) };
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(|e| ok(e));
    let mut node = (*b.site.node("k3s-cp1").unwrap()).clone();
    node.shape.disk = Some(gpuhost_stdlib::core::units::Size::gib(120));
    node.shape.onboot = Some(false);
    b.pve.ensure_vm(&b.ctx, &node, &start(&t)).await.unwrap_or_else(|e| ok(e));
    vm.stop(&b.ctx).await.unwrap_or_else(|e| ok(e));
    b.changed();
    b.pve.ensure_vm(&b.ctx, &node, &off(&t)).await.unwrap_or_else(|e| ok(e));
    assert_eq!(b.changed(), 0, "{name}: all of it was done once");
    let machines =
        b.lab.with(|w| w.pve.vms.values().filter(|v| v.conf.get("name").is_some_and(|n| n == "k3s-cp1")).count());
    assert_eq!(machines, 1, "{name}");
    assert!(b.remove(&vm, true).await.unwrap_or_else(|e| ok(e)).removed);
    assert!(hits.load(Ordering::SeqCst) > 0, "{name} never happened");
    let left = b.lab.with(|w| w.volumes.keys().filter(|v| v.contains("-201-")).count());
    assert_eq!(left, 0, "{name}: no orphan");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_looked_at_before_anything_is_repeated() {
    let mishaps = [Mishap::AnswerLost, Mishap::Broken, Mishap::RequestLost];
    let requests = [
        ("POST", "/clone"),
        ("PUT", "/201/config"),
        ("PUT", "/resize"),
        ("POST", "/status/start"),
        ("POST", "/status/stop"),
        ("DELETE", "/qemu/201"),
    ];
    for (i, mishap) in mishaps.iter().enumerate() {
        for (k, (method, end)) in requests.iter().enumerate() {
            if full() || k % mishaps.len() == i {
                survives(method, end, mishap.clone()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_lock_is_waited_for() {
    let lock = "can't lock file '/var/lock/qemu-server/lock-201.conf' - got timeout";
    for (method, end) in
        [("POST", "/clone"), ("PUT", "/201/config"), ("POST", "/status/start"), ("DELETE", "/qemu/201")]
    {
        survives(method, end, Mishap::Refused(500, lock.to_owned())).await;
    }
    survives("POST", "/clone", Mishap::Refused(500, "VM is locked (backup)".to_owned())).await;
    survives("PUT", "/201/config", Mishap::Refused(500, "VM is locked (snapshot)".to_owned())).await;
    survives("PUT", "/201/config", Mishap::Refused(500, "checksum mismatch (file change by other user?)".to_owned()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proxmox_would_refuse_is_refused_here_with_the_key_of_the_site_file() {
    let found =
        site::load(Path::new("site.toml"), &SITE.replacen("cores =", "cpu = \"hots\"\ncores =", 1)).unwrap_err();
    assert!(found[0].message.contains("`cpu` = `hots`") && found[0].message.contains("is not defined"), "{found:#?}");
    let line = SITE.lines().position(|l| l.starts_with("cores =")).unwrap() + 1;
    assert_eq!(found[0].line, line, "it points at the key: {found:#?}");
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let asked = b.lab.with(|w| w.pve.tasks.len());
    let options = |text: &str| {
        let map: rhai::Map = rhai::Engine::new().eval(text).unwrap();
        EnsureVm { template: rhai::Dynamic::from(t.clone()), ..EnsureVm::read(&map).unwrap() }
    };
    for (text, says) in [
        ("#{ config: #{ numa: 7 } }", "numa"),
        ("#{ config: #{ hugepages: \"3\" } }", "hugepages"),
        ("#{ networks: [#{ vlan: 5000 }] }", "4094"),
        ("#{ pci: [#{ mapping: \"a b\" }] }", "configuration ID"),
    ] {
        let e = b.vm("k3s-cp1", &options(text)).await.unwrap_err();
        assert!(e.kind.as_str() == "invalid" && told(&e).contains(says), "{text}: {}", told(&e));
        assert!(e.hint.unwrap().contains("site.toml:"), "{text}");
    }
    let e = b.vm("k3s-cp1", &options("#{ pci: [#{ address: \"0000:01:00.0\" }] }")).await.unwrap_err();
    assert!(e.kind.as_str() == "denied" && e.message.contains("root@pam"), "{}", told(&e));
    assert!(e.hint.unwrap().contains("ensure_pci_mapping"));
    assert_eq!(b.lab.with(|w| w.pve.tasks.len()), asked, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_the_recipe_are_made_once() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let map: rhai::Map = rhai::Engine::new()
        .eval(
            r#"#{ start: false, tpm: true, tags: ["red"], notes: "rack 4", config: #{ numa: 1, startup: "order=2", balloon: 0 },
                  networks: [#{ ip: "10.1.0.5/24", queues: 4 }, #{ firewall: true }] }"#,
        )
        .unwrap();
    let o = EnsureVm { template: rhai::Dynamic::from(t.clone()), ..EnsureVm::read(&map).unwrap() };
    let vm = b.vm("k3s-cp1", &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    b.changed();
    b.vm("k3s-cp1", &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let last = b.tape.0.lock().unwrap().iter().rev().find(|e| matches!(e, Event::Intent { .. })).cloned();
    assert_eq!(b.changed(), 0, "{last:#?}");
    let conf = b.lab.with(|w| w.pve.vms[&201].conf.clone());
    assert!(conf["net1"].contains("queues=4") && conf["net2"].contains("firewall=1") && conf.contains_key("tpmstate0"));
    assert!(conf["description"].starts_with("rack 4") && conf["tags"].contains("red"), "{conf:#?}");
    assert_eq!(vm.verdict(&b.ctx).await.unwrap().ownership.as_str(), "own");
}
