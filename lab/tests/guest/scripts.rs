//! Script checks: what scripts may rely on in a guest.
use crate::bed::Bed;

/// Command, expected exit status, expected standard output (`…` at the end: only a part of the output).
const CHECKS: &[(&str, u32, &str)] = &[
    ("true", 0, ""),
    ("exit 3", 3, ""),
    ("false", 1, ""),
    ("echo hi", 0, "hi\n"),
    ("id -un; id -u; whoami", 0, "debian\n1000\ndebian\n"),
    ("sudo -n id -u", 0, "0\n"),
    ("sudo -n id -un; id -un", 0, "root\ndebian\n"),
    ("echo $UID $EUID", 0, "1000 1000\n"),
    ("sudo -n bash -c 'echo $UID $EUID $HOME $SUDO_USER'", 0, "0 0 /root debian\n"),
    ("echo $HOME; pwd", 0, "/home/debian\n/home/debian\n"),
    (
        "echo data | sudo -n tee /etc/lab.conf >/dev/null; cat /etc/lab.conf; stat -c '%U:%G %a' /etc/lab.conf",
        0,
        "data\nroot:root 644\n",
    ),
    ("echo x > /etc/nope; echo $?", 0, "1\n"),
    ("touch /etc/nope 2>/dev/null || echo denied", 0, "denied\n"),
    ("cat /etc/shadow 2>/dev/null || echo denied", 0, "denied\n"),
    ("sudo -n cat /etc/shadow | grep -c root", 0, "1\n"),
    ("hostname; hostname -f; cat /etc/hostname", 0, "a1\na1.lab.example\na1\n"),
    (". /etc/os-release; echo $ID $VERSION_ID $VERSION_CODENAME", 0, "debian 12 bookworm\n"),
    ("cat /etc/debian_version", 0, "12.12\n"),
    ("uname -s; uname -m", 0, "Linux\nx86_64\n"),
    ("nproc; grep -c ^processor /proc/cpuinfo", 0, "4\n4\n"),
    ("cat <<'E'\na $x\nE\n", 0, "a $x\n"),
    ("x=1; cat <<E\na $x\nE\n", 0, "a 1\n"),
    ("set -euo pipefail; a=(1 2 3); echo ${#a[@]} ${a[-1]}", 0, "3 3\n"),
    ("declare -A m=([k]=v); echo ${m[k]}", 0, "v\n"),
    ("[[ abc =~ ^a(.)c$ ]] && echo ${BASH_REMATCH[1]}", 0, "b\n"),
    ("printf 'a\\nb\\n' | while read -r l; do echo \"<$l>\"; done", 0, "<a>\n<b>\n"),
    ("seq 3 | awk '{s+=$1} END {print s}'", 0, "6\n"),
    ("echo a.b | sed -E 's/(.)\\.(.)/\\2\\1/'", 0, "ba\n"),
    ("f=$(mktemp); echo a > $f; sed -i s/a/b/ $f; cat $f; rm $f", 0, "b\n"),
    ("trap 'echo bye' EXIT; echo hi", 0, "hi\nbye\n"),
    ("timeout 1 sleep 5; echo $?", 0, "124\n"),
    ("timeout 5 sleep 1; echo $?", 0, "0\n"),
    ("timeout -k 5 10 sh -c 'exit 7'; echo $?", 0, "7\n"),
    ("nosuchprogramatall", 96, ""),
    ("exportfs", 127, ""),
    ("command -v exportfs || echo none", 0, "none\n"),
    ("command -v sudo ls", 0, "/usr/bin/sudo\n/usr/bin/ls\n"),
    ("ls -d /bin/ls /usr/bin/env", 0, "/bin/ls\n/usr/bin/env\n"),
    ("/bin/echo hi; /usr/bin/env echo x", 0, "hi\nx\n"),
    ("bash -c 'echo \"$0 $1\"' zero one", 0, "zero one\n"),
    ("echo 'echo from stdin' | bash -s", 0, "from stdin\n"),
    ("echo 'echo $EUID' | sudo -n bash -s", 0, "0\n"),
    ("sudo -n sh -c 'umask 077; cat > /root/s' < /etc/hostname; sudo -n cat /root/s", 0, "a1\n"),
    ("sudo -n install -d -m 0750 -o root -g adm /etc/x/y && stat -c '%a %U %G' /etc/x/y", 0, "750 root adm\n"),
    ("echo v | sudo -n install -m 600 /dev/stdin /etc/secret && sudo -n stat -c '%a %s' /etc/secret", 0, "600 2\n"),
    (
        "sudo -n mkdir -p /opt/a; sudo -n chown debian:debian /opt/a; touch /opt/a/f && stat -c %U /opt/a/f",
        0,
        "debian\n",
    ),
    ("echo -n abc | sha256sum", 0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n"),
    ("echo aGk= | base64 -d", 0, "hi"),
    ("sleep 1 & wait; echo done", 0, "done\n"),
    ("a=$(date +%s); sleep 90; b=$(date +%s); echo $((b-a))", 0, "90\n"),
    ("date -u -d @0 +%FT%TZ", 0, "1970-01-01T00:00:00Z\n"),
    ("echo a b | xargs -n1 echo", 0, "a\nb\n"),
    ("find /etc -maxdepth 1 -name hostname", 0, "/etc/hostname\n"),
    ("test -d /etc && test ! -e /nope && [ -r /etc/hostname ]", 0, ""),
    ("[ -b /dev/sdb ] && [[ -b /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_gh-data-101 ]] && echo block", 0, "block\n"),
    ("[ -b /etc/hostname ] || [ -b /dev/null ] || [ -b /nope ] || echo none", 0, "none\n"),
    ("d=/dev/sdb; if [ -e $d ] && [ ! -b \"$d\" ]; then echo no; else test -b $d && echo yes; fi", 0, "yes\n"),
    (
        "ln -s /nope dangling; [ -L dangling ] && [ -h dangling ] && [ ! -e dangling ] && echo link; rm dangling",
        0,
        "link\n",
    ),
    ("[ -L /etc/hostname ] || [ -L /nope ] || echo none", 0, "none\n"),
    (
        "set -- a 'b c' d; for p in \"$@\"; do shift; [ \"$p\" = d ] || set -- \"$@\" \"$p\"; done; echo \"$#:$1:$2\"",
        0,
        "2:a:b c\n",
    ),
    (
        "systemctl show -p ActiveState -p UnitFileState ssh nope",
        0,
        "ActiveState=active\nUnitFileState=enabled\n\nActiveState=inactive\nUnitFileState=\n",
    ),
    ("nft list tables", 127, ""),
    (
        "systemd-run --version >/dev/null; sudo -n systemd-run -q --wait --unit=j1 sh -c 'echo hi >/tmp/j1; exit 3'; echo $?; cat /tmp/j1",
        0,
        "3\nhi\n",
    ),
    ("readlink -f /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_gh-data-101", 0, "/dev/sdb\n"),
    ("ln -s /etc/hostname l; cat l; readlink l; rm l", 0, "a1\n/etc/hostname\n"),
    ("cat /proc/sys/kernel/hostname; wc -c < /proc/sys/kernel/random/boot_id", 0, "a1\n37\n"),
    ("sudo -n sysctl -w net.ipv4.ip_forward=1; cat /proc/sys/net/ipv4/ip_forward", 0, "net.ipv4.ip_forward = 1\n1\n"),
    (
        "sudo -n sysctl net.bridge.bridge-nf-call-iptables 2>&1",
        255,
        "sysctl: cannot stat /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory\n",
    ),
    ("sudo -n modprobe br_netfilter && /usr/sbin/sysctl -n net.bridge.bridge-nf-call-iptables", 0, "1\n"),
    ("/usr/sbin/sysctl -n vm.swappiness", 0, "60\n"),
    ("sysctl -n vm.swappiness", 127, ""),
    ("getent passwd debian", 0, "debian:x:1000:1000::/home/debian:/bin/bash\n"),
    (
        "sudo -n useradd -m -s /bin/bash kay && id kay && ls -d /home/kay",
        0,
        "uid=1001(kay) gid=1001(kay) groups=1001(kay)\n/home/kay\n",
    ),
    ("sudo -n -u kay id -un", 0, "kay\n"),
    ("ip -j addr show eth0 | grep -o '\"local\":\"[^\"]*\"'", 0, "\"local\":\"10.0.0.11\"\n"),
    ("ip route | head -1", 0, "default via 10.0.0.1 dev eth0 proto static\n"),
    ("dpkg-query -W -f='${Status}' sudo", 0, "install ok installed"),
    ("dpkg -s nosuch 2>/dev/null; echo $?", 0, "1\n"),
    ("cloud-init status --wait", 0, "\nstatus: done\n"),
    ("systemctl is-active ssh; systemctl is-enabled ssh", 0, "active\nenabled\n"),
    ("systemctl is-active nope", 3, "inactive\n"),
    ("systemctl start ssh 2>&1 | head -1", 0, "Failed to start ssh: Interactive authentication required.\n"),
    ("lspci -d 10de: -nn | wc -l", 0, "1\n"),
    ("lsblk -dno NAME,SIZE,TYPE", 0, "sda 20G  disk\nsdb 100G disk\n"),
    ("swapon --show", 127, ""),
    ("sudo -n -- sh -c 'echo a; echo b >&2' 2>/dev/null", 0, "a\n"),
    ("sudo -n FOO=bar sh -c 'echo $FOO'", 0, "bar\n"),
    ("FOO=1 sudo -n -E sh -c 'echo $FOO'", 0, "1\n"),
    ("sudo -n nosuchprogramatall", 96, ""),
    ("sudo -n exportfs", 1, ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_hold() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let mut bad = Vec::new();
    for (command, code, out) in CHECKS {
        let o = ssh.exec(command, b"").await;
        if o.code != Some(*code) || o.out != *out {
            bad.push(format!("{command}\n   want {code} {out:?}\n   got  {:?} {:?} err {:?}", o.code, o.out, o.err));
        }
    }
    assert!(bad.is_empty(), "{} of {} checks fail:\n{}", bad.len(), CHECKS.len(), bad.join("\n"));
    assert!(bed.lab.with(|w| w.not_rehearsed.iter().any(|n| n.contains("nosuchprogramatall"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_reaches_scripts_and_state_stays() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let o = ssh.exec("sudo -n bash -s -- x y", b"echo $EUID $1 $2; exit 5").await;
    assert_eq!((o.code, o.out.as_str()), (Some(5), "0 x y\n"), "{}", o.err);
    let big = vec![b'x'; 300_000];
    let o = ssh.exec("cat > /tmp/big; wc -c < /tmp/big", &big).await;
    assert_eq!(o.out.trim(), "300000");
    assert_eq!(ssh.ok("stat -c %s /tmp/big").await.trim(), "300000");
    let binary: Vec<u8> = (0..=255u8).cycle().take(2000).collect();
    for command in [
        "cat > /tmp/bin; sha256sum /tmp/bin",
        "sudo -n tee /root/bin > /dev/null; sudo -n sha256sum /root/bin",
        "sudo -n sh -c 'cat > /root/b2; sha256sum /root/b2'",
    ] {
        let o = ssh.exec(command, &binary).await;
        assert_eq!(
            o.out.get(..64),
            Some(gpuhost_lab::kube::text::sha256_of(&binary).as_str()),
            "{command}: {} {}",
            o.out,
            o.err
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_op_script_is_cheap() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("true").await;
    let start = std::time::Instant::now();
    for _ in 0..100 {
        ssh.ok("true").await;
    }
    let each = start.elapsed().as_micros() / 100;
    println!("{each} us per exec of `true`");
    // Debug build, shared machine: only gross regressions fail here.
    assert!(each < 60_000);
}

/// Every program of the shell library runs and comes back: one that calls itself would take the lab down with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_of_the_shell_comes_back() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    for name in
        gpuhost_lab::guest::fs::image::SHELL_PROGRAMS.iter().filter(|n| !["yes", "watch", "bash", "sh"].contains(*n))
    {
        let o = ssh.exec(&format!("{name} --help </dev/null 2>&1 | head -c 100"), b"").await;
        assert!(!o.err.contains("command not found"), "{name}: {}{}", o.out, o.err);
    }
    assert_eq!(ssh.ok("more /etc/hostname").await, "a1\n");
    assert!(ssh.exec("vi /etc/hostname", b"").await.err.contains("not simulated"));
}

/// What operators type to look around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_look_around() {
    let bed = Bed::with(&[(101, "a1", "10.0.0.11"), (102, "b2", "10.0.0.12")]).await;
    bed.wait_route("10.0.0.12").await;
    let ssh = bed.ssh("10.0.0.11").await;
    for (command, parts) in [
        ("ps aux", &["USER         PID %CPU", "root           1", "/sbin/init"][..]),
        ("ps -ef", &["UID          PID    PPID", "systemd-journald"]),
        ("top -bn1", &["Tasks:", "MiB Mem :", "PID USER", "init"]),
        ("free -h", &["Mem:", "Gi", "Swap:             0B"]),
        ("df -h /", &["Size     Used     Avail Use% Mounted on", "/dev/sda1"]),
        ("ip neigh", &["10.0.0.12 dev eth0 lladdr "]),
        ("ip addr show dev eth0", &["2: eth0:", "inet 10.0.0.11/24"]),
        ("systemctl --failed", &["0 loaded units listed."]),
        ("journalctl --disk-usage", &["take up"]),
    ] {
        let out = ssh.ok(command).await;
        assert!(parts.iter().all(|p| out.contains(p)), "{command}: {out}");
    }
    let o = ssh.exec("systemctl daemon-reload", b"").await;
    assert_eq!((o.code, o.err.as_str()), (Some(1), "Failed to reload daemon: Interactive authentication required.\n"));
}
