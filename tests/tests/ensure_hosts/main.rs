//! `ensure` for every key on real Debian root file systems over real sshd, with dash, with busybox, and by a login
//! that has to become root. Needs root and namespaces; says so and is skipped elsewhere.
//!
//! A host that shares its kernel and has no systemd cannot do everything. What stands in for that, and records what
//! was asked of it: `swapon` `swapoff` `mkswap` `modprobe` `lsmod` `sysctl` `systemctl` `nft` `hostnamectl`.
//! All else is real: apt and dpkg (on one host dnf and rpm), users and groups, files, mounts (of a tmpfs), mkfs, blkid, host name, sudo.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
#![allow(missing_docs)]
mod bed;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bed::Host;
use gpuhost_tests::{Bench, Ran, root};

/// Three hosts and the program, with keys and known hosts in place.
struct Bed {
    hosts: Vec<Host>,
    bench: Bench,
}

impl Bed {
    fn new() -> Option<Bed> {
        if let Some(why) = bed::missing() {
            println!("skipped: {why}");
            return None;
        }
        let bench = Bench::new();
        let dir = bench.path("hosts");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(bench.path(".ssh")).unwrap();
        bed::keygen(&dir.join("key"));
        let mut hosts = vec![
            Host::start(&dir, "dashhost", "dash", 2),
            Host::start(&dir, "boxhost", "busybox", 3),
            Host::start(&dir, "sudohost", "dash", 4),
        ];
        match bed::no_dnf() {
            Some(why) => println!("skipped the host with dnf: {why} (.ci/peers installs it)"),
            None => hosts.push(Host::start(&dir, "rpmhost", "dash", 5)),
        }
        let known: String = hosts.iter().map(|h| h.known(&dir)).collect();
        fs::write(bench.path(".ssh/known_hosts"), known).unwrap();
        for name in ["every-key.rhai", "facts.rhai", "broken.rhai"] {
            fs::copy(root().join("tests/tests/ensure_hosts").join(name), bench.path(name)).unwrap();
        }
        Some(Bed { hosts, bench })
    }

    fn run(&self, recipe: &str) -> Ran {
        let key = format!("file:{}", self.bench.path("hosts/key").display());
        let at: Vec<String> = self.hosts.iter().map(|h| format!("{}:{}", h.address, h.port)).collect();
        let recipe = self.bench.path(recipe).display().to_string();
        let set_hosts = format!("hosts={}", at.join(","));
        let args = ["run", &recipe, "--json", "--set", &format!("key={key}"), "--set", &set_hosts];
        // Away from any site file: these hosts belong to no site.
        let out = self.bench.command(&args).current_dir(self.bench.path("hosts")).output().unwrap();
        Ran {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Sessions and turns of every host.
    fn counts(&self) -> Vec<(usize, usize)> {
        self.hosts.iter().map(|h| (h.sessions(), h.turns())).collect()
    }
}

#[test]
fn every_key_on_real_hosts_twice() {
    let Some(bed) = Bed::new() else { return };
    let before = bed.counts();
    let first = bed.run("every-key.rhai").expect(0);
    assert!(first.finished()["changed"].as_u64().unwrap() > 100, "{}", first.finished());
    let after = bed.counts();
    for (h, (a, b)) in bed.hosts.iter().zip(before.iter().zip(&after)) {
        assert_eq!(b.0 - a.0, 2, "{}: one round trip to compare, one to act", h.name);
        holds(h);
    }
    // The second run: nothing to change, and one command on every host.
    let second = bed.run("every-key.rhai").expect(0);
    assert_eq!(second.finished()["changed"], 0, "{}", second.stdout);
    let again = bed.counts();
    for (h, (a, b)) in bed.hosts.iter().zip(after.iter().zip(&again)) {
        assert_eq!(b.0 - a.0, 1, "{}: exactly one round trip", h.name);
        println!("{}: {} commands and {} turns for all keys, nothing to change", h.name, b.0 - a.0, b.1 - a.1);
        // Greeting, key exchange, login, channel, command: a constant, whatever the number of keys.
        assert!(b.1 - a.1 <= 14, "{}: {} turns", h.name, b.1 - a.1);
    }
    drift_is_mended(&bed);
    facts_cost_one_round_trip(&bed);
    a_failure_counts_what_was_done(&bed);
}

/// What the recipe says is so, seen from outside the program.
fn holds(h: &Host) {
    let n = h.name;
    assert_eq!(h.text("/etc/odd name's $(id)"), "it's $HOME `id` \\ \"x\"\n", "{n}");
    let m = fs::metadata(h.path("/etc/odd name's $(id)")).unwrap();
    assert_eq!((m.mode() & 0o7777, m.uid()), (0o600, 4711), "{n}");
    assert_eq!(fs::read(h.path("/etc/bytes")).unwrap(), [0, 1, 255, 10], "{n}");
    assert!(!h.path("/etc/motd").exists() && !h.path("/etc/issue").exists(), "{n}");
    assert_eq!(fs::read_link(h.path("/srv/now")).unwrap(), Path::new("/srv/data"), "{n}");
    assert_eq!(fs::metadata(h.path("/srv/data")).unwrap().mode() & 0o7777, 0o2775, "{n}");
    if n == "rpmhost" {
        assert_eq!(h.run("rpm -q gpuhost-tool nftables"), "gpuhost-tool-1.5-1.noarch\nnftables-1.5-1.noarch\n");
        let repo = h.text("/etc/yum.repos.d/local.repo");
        assert!(repo.contains("gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-local"), "{repo}");
    } else {
        assert!(h.run("dpkg-query -W gpuhost-tool").contains("1.5"), "{n}");
        let source = h.text("/etc/apt/sources.list.d/local.list");
        assert!(source.contains("signed-by=/etc/apt/keyrings/local.asc"), "{n}: {source}");
    }
    assert_eq!(h.run("id -nG ada"), "ada sudo render-farm\n", "{n}");
    assert!(h.text("/etc/sudoers.d/90-gpuhost-ada").contains("NOPASSWD"), "{n}");
    let keys = h.path("/home/ada/.ssh/authorized_keys");
    assert_eq!(fs::metadata(&keys).unwrap().mode() & 0o777, 0o600, "{n}");
    assert_eq!(fs::read_to_string(&keys).unwrap(), "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n", "{n}");
    assert_eq!(h.run("stat -c %U /home/ada/.ssh/authorized_keys"), "ada\n", "{n}");
    assert!(h.run("cat /proc/mounts").lines().any(|l| l.starts_with("tmpfs /mnt/scratch tmpfs rw,noatime")), "{n}");
    assert!(h.path("/mnt/scratch/below").is_dir(), "{n}");
    assert!(h.run("blkid /dev/disk/by-id/blank").contains("LABEL=\"data\""), "{n}");
    assert_eq!(h.run("hostname"), format!("{n}.lab\n"));
    assert!(h.text("/etc/hosts").contains("10.0.0.9 peer peer.lab"), "{n}");
    assert_eq!(fs::read_link(h.path("/etc/localtime")).unwrap(), Path::new("/usr/share/zoneinfo/Etc/UTC"), "{n}");
    assert!(h.text("/etc/systemd/timesyncd.conf.d/gpuhost.conf").contains("NTP=10.0.0.1"), "{n}");
    assert!(h.text("/etc/security/limits.d/90-gpuhost.conf").contains("* - nofile 1048576"), "{n}");
    assert!(h.text("/etc/sysctl.d/90-gpuhost.conf").contains("vm.swappiness = 1"), "{n}");
    assert!(h.text("/etc/fstab").contains("# gpuhost: swap is off: /swap.img"), "{n}");
    assert_eq!(h.text("/srv/made by command"), "once\n", "{n}");
    assert!(h.text("/etc/environment").contains("TIER=lab"), "{n}");
    // In order: the unit is known before it starts, and what depends on a file restarts once.
    let log = h.text("/var/log/stand-ins.log");
    let at = |what: &str| log.lines().position(|l| l.contains(what)).unwrap_or_else(|| panic!("{n}: {what}\n{log}"));
    assert!(at("daemon-reload") < at("start hello"), "{n}\n{log}");
    assert!(at("modprobe") < at("sysctl") && at("nft -f") > at("daemon-reload"), "{n}\n{log}");
    for (what, times) in [("restart hello", 0), ("swapoff -a", 1), ("nft -f", 1), ("start hello", 1)] {
        assert_eq!(log.matches(what).count(), times, "{n} {what}\n{log}");
    }
}

/// Something else changes the host: only that is put right, and what depends on it restarts.
fn drift_is_mended(bed: &Bed) {
    for h in &bed.hosts {
        fs::write(h.path("/etc/hello.conf"), "broken\n").unwrap();
        h.run("chmod 777 /srv/data; umount /mnt/scratch; mount -t tmpfs other /mnt/scratch; rm /srv/now");
    }
    let before = bed.counts();
    let ran = bed.run("every-key.rhai").expect(0);
    let what: Vec<String> = ran
        .events()
        .into_iter()
        .filter(|e| e["event"] == "op_finished" && e["op"] == "ssh.ensure")
        .flat_map(|e| e["changes"].as_array().cloned().unwrap_or_default())
        .map(|c| c["what"].as_str().unwrap_or_default().to_owned())
        .collect();
    for part in ["file /etc/hello.conf", "directory /srv/data", "mount /mnt/scratch", "link /srv/now", "service hello"]
    {
        assert_eq!(what.iter().filter(|w| *w == part).count(), bed.hosts.len(), "{part}: {what:?}");
    }
    for (h, a) in bed.hosts.iter().zip(before) {
        assert_eq!(h.sessions() - a.0, 2, "{}", h.name);
        assert_eq!(h.text("/var/log/stand-ins.log").matches("restart hello").count(), 1, "{}", h.name);
        assert!(h.run("cat /proc/mounts").lines().any(|l| l.starts_with("tmpfs /mnt/scratch tmpfs")), "{}", h.name);
        assert!(!h.run("cat /proc/mounts").contains("other /mnt/scratch"), "{}", h.name);
    }
    assert_eq!(bed.run("every-key.rhai").expect(0).finished()["changed"], 0);
}

/// Facts twice cost one command; after a change they are read again.
fn facts_cost_one_round_trip(bed: &Bed) {
    let before = bed.counts();
    let _ = bed.run("facts.rhai").expect(0);
    for (h, a) in bed.hosts.iter().zip(before) {
        // Facts, a look that changes nothing, look and act of a change, facts.
        assert_eq!(h.sessions() - a.0, 5, "{}", h.name);
    }
}

/// The first failing step ends it; what was done before is counted and named.
fn a_failure_counts_what_was_done(bed: &Bed) {
    let ran = bed.run("broken.rhai").expect(1);
    assert_eq!(ran.finished()["changed"], 2 * bed.hosts.len(), "{}", ran.stdout);
    let text = format!("{}{}", ran.stdout, ran.stderr);
    assert!(text.contains("2 steps done: directory /srv/before, file /srv/before/one"), "{text}");
    assert!(text.contains("1 step not tried: command after"), "{text}");
    for h in &bed.hosts {
        assert!(h.path("/srv/before").is_dir() && !h.path("/srv/after").exists(), "{}", h.name);
        // A device that holds something is never formatted.
        assert!(h.run("blkid /dev/disk/by-id/used").contains("LABEL=\"others\""), "{}", h.name);
    }
}
