//! Many machines at once: all boot, all run a command, and what that takes. `GPUHOST_GUESTS=1000` is the bench.
use std::time::Instant;

use crate::bed::{Bed, spec};

/// Resident memory of this process in MiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|k| k.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_machine_of_a_crowd_boots_and_answers() {
    let count: u32 = std::env::var("GPUHOST_GUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let before = resident();
    let start = Instant::now();
    let bed = Bed::empty().await;
    let at = |i: u32| format!("10.0.{}.{}", i / 200, 10 + i % 200);
    for i in 0..count {
        bed.power_on(spec(1000 + i, &format!("n{i}"), &at(i)));
    }
    for i in 0..count {
        bed.wait_route(&at(i)).await;
    }
    let booted = start.elapsed();
    let start = Instant::now();
    for i in 0..count {
        let ssh = bed.ssh(&at(i)).await;
        assert_eq!(ssh.ok("hostname; sudo -n sysctl -n vm.swappiness").await, format!("n{i}\n60\n"));
    }
    let answered = start.elapsed();
    println!(
        "{count} machines: booted in {booted:.1?}, logged in and answered in {answered:.1?} ({:.1?} each), {} MiB more",
        answered / count,
        resident().saturating_sub(before)
    );
}
