//! The Proxmox part of a deploy, again and again, while the hypervisor is slow, busy and forgetful.
//! Three deploys by default; all twenty with `GPUHOST_TESTS_FULL=1 cargo test --workspace --test proxmox_deploys`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::proxmox::TemplateOptions;
use gpuhost_tests::bed::{Bed, SITE, full, start, told};
use gpuhost_tests::proxy::{Decide, Mishap};

/// Numbers that are the same for the same seed.
struct Dice(AtomicU64);
impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let next = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let old = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(next(x))).unwrap();
        (next(old) >> 33) % sides
    }
}

/// A wire that delays, loses and breaks; and locks that time out.
fn rough(dice: Arc<Dice>) -> Decide {
    Arc::new(move |method, path| {
        let write = method != "GET" && !path.contains("/agent/");
        match dice.roll(100) {
            0..=9 => Some(Mishap::Slow(dice.roll(15))),
            10 | 11 => Some(Mishap::AnswerLost),
            12 | 13 => Some(Mishap::Broken),
            14 => Some(Mishap::RequestLost),
            15..=18 if write && path.contains("/qemu") => {
                let text = "can't lock file '/var/lock/qemu-server/lock-999.conf' - got timeout";
                Some(Mishap::Refused(500, text.to_owned()))
            }
            _ => None,
        }
    })
}

const MACHINES: [&str; 4] = ["k3s-cp1", "k3s-cp2", "k3s-cp3", "nfs1"];

async fn deploy(b: &Bed) -> OpResult<()> {
    let t = b.pve.ensure_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await?;
    let work: Vec<_> = MACHINES
        .iter()
        .map(|name| {
            let t = &t;
            async move {
                let vm = b.vm(name, &start(t)).await?;
                vm.wait_ready(&b.ctx, Duration::from_secs(1800)).await
            }
        })
        .collect();
    b.ctx.clock.join_all(work).await.into_iter().collect()
}

async fn cleanup(b: &Bed) -> OpResult<()> {
    for (m, _) in b.pve.owned(&b.ctx).await? {
        let vm = b.pve.find_vm(&b.ctx, &i64::from(m.at.vmid).into()).await?;
        let Some(vm) = vm.filter(|v| !v.is_template()) else { continue };
        b.remove(&vm, true).await?;
    }
    b.pve.remove_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await?;
    b.pve.remove_pool(&b.ctx).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploys_in_a_row_on_a_rough_wire() {
    let rounds = if full() { 20 } else { 3 };
    let dice = Arc::new(Dice(AtomicU64::new(20_261_125)));
    let b = Bed::between(SITE, Spec::homelab().unwrap(), rough(dice.clone())).await;
    let before = b.world();
    let mut good = 0;
    for round in 1..=rounds {
        // Each allocation holds the storage's lock for up to six seconds.
        b.lab.with(|w| w.pve.alloc_ms.insert("local-zfs".to_owned(), 200 + dice.roll(5800)));
        if let Err(e) = deploy(&b).await {
            println!("round {round}: {}", told(&e));
            break;
        }
        let names = b.lab.with(|w| {
            let mut all: Vec<String> = w.pve.vms.values().filter_map(|v| v.conf.get("name").cloned()).collect();
            all.sort();
            all
        });
        let ours: Vec<&String> = names.iter().filter(|n| MACHINES.contains(&n.as_str())).collect();
        assert_eq!(ours.len(), MACHINES.len(), "round {round}: each machine once: {names:?}");
        if let Err(e) = cleanup(&b).await {
            println!("round {round}, cleanup: {}", told(&e));
            break;
        }
        assert_eq!(b.world(), before, "round {round}: no duplicate and no orphan is left");
        good += 1;
    }
    println!("deploys on a rough wire: {good} of {rounds}");
    assert_eq!(good, rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_full_clones_of_one_template_while_the_storage_is_slow() {
    let holds: &[u64] = if full() { &[2_000, 6_000, 9_500] } else { &[6_000] };
    for &hold in holds {
        let b = Bed::new().await;
        let t = b.empty_template().await;
        b.lab.with(|w| w.pve.alloc_ms.insert("local-zfs".to_owned(), hold));
        let nodes: Vec<_> = b.site.nodes.iter().filter(|n| n.shape.gpu_count() == 0).cloned().collect();
        let more: Vec<_> = (0..7 - nodes.len())
            .map(|i| {
                let mut n = nodes[0].clone();
                (n.name, n.vmid) = (format!("extra{i}"), 260 + i as u32);
                n
            })
            .collect();
        let o = start(&t);
        let work: Vec<_> = nodes.iter().chain(&more).map(|n| b.pve.ensure_vm(&b.ctx, n, &o)).collect();
        assert_eq!(work.len(), 7);
        for r in b.ctx.clock.join_all(work).await {
            r.unwrap_or_else(|e| panic!("allocations of {hold} ms: {}", told(&e)));
        }
        let waited = b.tape.0.lock().unwrap().iter().any(|e| {
            matches!(e, gpuhost_stdlib::core::event::Event::Waiting { reason, .. } if reason.contains("clone queue"))
        });
        assert!(waited, "why a machine waits is shown");
    }
}
