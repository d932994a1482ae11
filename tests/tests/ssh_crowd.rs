//! A crowd of the lab's machines through our own client: all boot, `ssh::group` runs a command and one `ensure` on all of
//! them. Few by default; `GPUHOST_GUESTS=1000 cargo test --workspace --test ssh_crowd -- --nocapture` is the bench.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a measurement reads the clock
use std::time::{Duration, Instant};

use gpuhost_lab::guest::state::{BootSpec, CloudInit, DiskSpec, NicSpec};
use gpuhost_lab::guest::{hostkeys, power_on};
use gpuhost_lab::volume::{Content, Volume};
use gpuhost_stdlib::ssh::{keys, known_hosts};
use gpuhost_tests::bed::{Bed, ok};

fn address(i: u32) -> String {
    format!("10.1.{}.{}", i / 200, 10 + i % 200)
}

/// The smallest machine that cloud-init lets the site's user into.
fn small(i: u32, user: &str, key: &str) -> BootSpec {
    let vmid = 2000 + i;
    let disk = DiskSpec {
        slot: "scsi0".into(),
        volid: format!("local-zfs:vm-{vmid}-disk-0"),
        size: 4 << 30,
        serial: String::new(),
    };
    BootSpec {
        vmid,
        name: format!("n{i}"),
        uuid: format!("00000000-0000-4000-8000-{vmid:012}"),
        pve_node: "pve1".into(),
        cores: 1,
        memory_mib: 512,
        disks: vec![disk],
        nics: vec![NicSpec {
            mac: format!("BC:24:11:00:{:02X}:{:02X}", i / 256, i % 256),
            bridge: "vmbr0".into(),
            vlan: None,
        }],
        pci: Vec::new(),
        cloud_init: Some(CloudInit {
            user: user.to_owned(),
            keys: vec![key.to_owned()],
            ip: Some(address(i)),
            prefix: 16,
            gateway: Some("10.1.0.1".into()),
            hostname: format!("n{i}"),
            instance_id: format!("i-{vmid}"),
            ..CloudInit::default()
        }),
        seed_iso: None,
        agent: true,
    }
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|k| k.parse().ok()).unwrap_or(0)
}

/// Powers machines on and waits until all of them let somebody in; the run trusts their host keys.
async fn boot(b: &Bed, count: u32) {
    let key = keys::public_key(&b.ctx, &b.site).unwrap_or_else(ok);
    b.lab.with(|w| {
        for i in 0..count {
            let s = small(i, &b.site.ssh.user, &key);
            let content = Content::CloudImage { os: "debian-12".into() };
            w.volumes.insert(s.disks[0].volid.clone(), Volume::new(s.disks[0].size, content));
            power_on(&b.lab, w, s);
        }
    });
    let waits = |i: &u32| b.ctx.dialer.routes().get(&format!("{}:22", address(*i))).is_none();
    for _ in 0..3600 {
        if !(0..count).any(|i| waits(&i)) {
            break;
        }
        b.ctx.clock.sleep(Duration::from_secs(1)).await;
    }
    let silent: Vec<u32> = (0..count).filter(waits).collect();
    assert!(silent.is_empty(), "{silent:?} never listened");
    for i in 0..count {
        let key = hostkeys::public(&b.lab, 2000 + i).unwrap();
        known_hosts::pin(&b.ctx, &address(i), 22, &[key]).unwrap_or_else(ok);
    }
}

/// One step of a recipe on all machines: what it gives, and how long it took.
async fn step(b: &Bed, count: u32, what: &str, text: &str) -> rhai::Map {
    let started = Instant::now();
    let names: Vec<String> = (0..count).map(|i| format!("\"{}\"", address(i))).collect();
    let given = b.script(&format!("let all = ssh::group([{}]);\n{text}", names.join(","))).await;
    let map = given.cast::<rhai::Map>();
    assert_eq!(map.len(), count as usize, "{what}: one answer of each");
    let took = started.elapsed();
    println!("{count} machines, {what}: {took:.1?}, {:.1?} each, {} MiB resident", took / count, resident() / 1024);
    map
}

async fn crowd(count: u32) {
    let before = resident();
    let started = Instant::now();
    let b = Bed::new().await;
    boot(&b, count).await;
    println!("{count} machines booted in {:.1?}", started.elapsed());
    let names = step(
        &b,
        count,
        "run",
        "let out = #{}; let r = all.run(\"hostname\"); for h in r.keys() { out[h] = r[h].stdout; } out",
    )
    .await;
    for i in 0..count {
        assert_eq!(names[address(i).as_str()].clone().into_string().unwrap(), format!("n{i}\n"));
    }
    let wanted = "all.ensure(#{ files: #{ \"/etc/motd\": \"one of many\\n\" }, directories: [\"/srv/data\"], \
                  sysctl: #{ \"vm.max_map_count\": 262144 }, lines: #{ \"/etc/environment\": [\"TIER=lab\"] } })";
    let first = step(&b, count, "ensure", wanted).await;
    assert!(first.values().all(|c| c.read_lock::<rhai::Array>().unwrap().len() >= 4));
    let second = step(&b, count, "ensure again", wanted).await;
    assert!(second.values().all(|c| c.read_lock::<rhai::Array>().unwrap().is_empty()), "a second time changes nothing");
    let each = resident().saturating_sub(before) / u64::from(count);
    println!("{count} machines: {each} KiB each at the end, lab and client together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_worked_on_as_a_group() {
    let count: u32 = std::env::var("GPUHOST_GUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    if count >= 100 {
        // A quarter of them first: the figures of one machine show whether all grows in line.
        crowd(count / 4).await;
    }
    crowd(count).await;
}
