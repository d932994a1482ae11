//! What operators type to look at a machine: owners, sizes, sessions, packages, journal, certificates.
use crate::bed::Bed;

/// Command, expected standard output (`…` stands for anything within a line).
const EXACT: &[(&str, &str)] = &[
    ("ls -ld /etc /tmp", "drwxr-xr-x … root root 4096 … /etc\ndrwxrwxrwt … root root 4096 … /tmp\n"),
    ("ls -l /etc/hostname", "-rw-r--r-- 1 root root 3 … /etc/hostname\n"),
    ("ls -ln /etc/shadow", "-rw-r----- 1 0 42 … /etc/shadow\n"),
    ("ls -l /bin", "lrwxrwxrwx 1 root root 7 Sep  6  2025 /bin -> usr/bin\n"),
    (
        "ls -l /dev/sdb /dev/null",
        "crw-rw-rw- 1 root root 1,   3 … /dev/null\nbrw-rw---- 1 root disk 8,  16 … /dev/sdb\n",
    ),
    (
        "mkdir -p t/sub; head -c 1500 /dev/zero >t/big; touch t/.dot; ln -s big t/link; ls -laF t | tail -n +2",
        concat!(
            "drwxr-xr-x 3 debian debian 4096 … ./\n",
            "drwx------ … debian debian 4096 … ../\n",
            "-rw-r--r-- 1 debian debian    0 … .dot\n",
            "-rw-r--r-- 1 debian debian 1500 … big\n",
            "lrwxrwxrwx 1 debian debian    3 … link -> big\n",
            "drwxr-xr-x 2 debian debian 4096 … sub/\n",
        ),
    ),
    (
        "ls -lh t/big; ls t; ls -A t; ls -1r t",
        "-rw-r--r-- 1 debian debian 1.5K … t/big\nbig\nlink\nsub\n.dot\nbig\nlink\nsub\nsub\nlink\nbig\n",
    ),
    ("ls -s t; ls -lS t | head -3", "total 8\n4 big\n0 link\n4 sub\ntotal 8\ndrwxr-xr-x … sub\n-rw-r--r-- … big\n"),
    ("ls -R t", "t:\nbig\nlink\nsub\n\nt/sub:\n"),
    ("cd t; ls *; ls -d */", "big\nlink\n\nsub:\nsub/\n"),
    (
        "ls -l --time-style=long-iso /usr/lib/os-release",
        "-rw-r--r-- 1 root root … 2025-09-06 00:00 /usr/lib/os-release\n",
    ),
    ("ls /nope; echo $?", "2\n"),
    ("ls -y 2>&1; echo $?", "ls: invalid option -- 'y'\nTry 'ls --help' for more information.\n2\n"),
    ("ls /root 2>&1; echo $?", "ls: cannot open directory '/root': Permission denied\n2\n"),
    (
        "stat -c '%A %h %U:%G %s %n' /etc /etc/hostname",
        "drwxr-xr-x … root:root 4096 /etc\n-rw-r--r-- 1 root:root 3 /etc/hostname\n",
    ),
    ("stat -c '%F %t,%T' /dev/sdb; stat -f -c %T /", "block special file 8,10\next2/ext3\n"),
    (
        "stat /etc/hostname | head -4",
        concat!(
            "  File: /etc/hostname\n  Size: 3         \tBlocks: 8          IO Block: 4096   regular file\n",
            "Device: 8,1\tInode: …  Links: 1\nAccess: (0644/-rw-r--r--)  Uid: (    0/    root)   Gid: (    0/    root)\n",
        ),
    ),
    ("who; users; w -h", ""),
    ("uptime", " … up …,  0 users,  load average: 0.08, 0.03, 0.01\n"),
    ("last reboot | head -1", "reboot   system boot  6.1.0-39-cloud-a … still running\n"),
    (
        "dpkg -S /usr/bin/ls /bin/ls; dpkg -S /usr/sbin/nope 2>&1",
        "coreutils: /usr/bin/ls\ncoreutils: /usr/bin/ls\ndpkg-query: no path found matching pattern /usr/sbin/nope\n",
    ),
    ("dpkg -L hostname", "/.\n/usr\n/usr/bin\n/usr/bin/hostname\n"),
    ("dpkg -L nope 2>&1 | head -1", "dpkg-query: package 'nope' is not installed\n"),
    ("dpkg -s openssl | grep ^Status", "Status: install ok installed\n"),
    ("apt-cache policy bc | head -3", "bc:\n  Installed: (none)\n  Candidate: 1.07.1-3+b1\n"),
    (
        "bc 2>&1; echo $?; iostat 2>&1; echo $?",
        "bash: line 1: bc: command not found\n127\nbash: line 1: iostat: command not found\n127\n",
    ),
    ("openssl version", "OpenSSL 3.0.17 1 Jul 2025 (Library: OpenSSL 3.0.17 1 Jul 2025)\n"),
    (
        "openssl rand -hex 8 | wc -c; printf abc | openssl dgst -sha256",
        "17\nSHA2-256(stdin)= ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n",
    ),
    ("sudo -n ss -tlnp | grep ':22 '", "LISTEN 0      128 … 0.0.0.0:22 … 0.0.0.0:*    users:((\"sshd\",pid=…,fd=3))\n"),
    ("sudo -n ss -Hltn sport = :22 | wc -l", "1\n"),
    ("sudo -n dmesg | head -1", "[    0.000000] Linux version 6.1.0-39-cloud-amd64 …\n"),
    ("vmstat 1 2 | wc -l", "4\n"),
    ("lsblk -f -o NAME,FSUSE% /dev/sda | head -2", "NAME …\nsda\n"),
    (
        "systemctl list-units ssh.service | head -2",
        "  UNIT        LOAD   ACTIVE SUB     DESCRIPTION\n  ssh.service loaded active running OpenBSD Secure Shell server\n",
    ),
    (
        "systemctl list-unit-files ssh.service",
        "UNIT FILE   STATE   PRESET\nssh.service enabled enabled\n\n1 unit file listed.\n",
    ),
    ("systemctl list-units --failed --no-legend", ""),
];

/// Whether a text is as a pattern says, line by line.
fn fits(text: &str, pattern: &str) -> bool {
    let line = |t: &str, p: &str| match p.split_once('…') {
        None => t == p,
        Some((head, _)) => {
            let mut rest = match t.strip_prefix(head) {
                Some(r) => r,
                None => return false,
            };
            for part in p.split('…').skip(1) {
                match rest.find(part) {
                    Some(i) => rest = &rest[i + part.len()..],
                    None => return false,
                }
            }
            rest.is_empty() || p.ends_with('…')
        }
    };
    text.lines().count() == pattern.lines().count() && text.lines().zip(pattern.lines()).all(|(t, p)| line(t, p))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_type_shows_the_state_of_the_machine() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let mut bad = Vec::new();
    for (command, want) in EXACT {
        let o = ssh.exec(command, b"").await;
        if !fits(&o.out, want) {
            bad.push(format!("{command}\n--- want\n{want}--- got {:?}\n{}{}", o.code, o.out, o.err));
        }
    }
    assert!(bad.is_empty(), "{} of {} differ:\n{}", bad.len(), EXACT.len(), bad.join("\n"));
}

/// The journal is one: what a program logs is there in every form, at its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_asked_by_time_unit_and_form() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("sudo -n logger -t early one").await;
    bed.sleep(3600).await;
    ssh.ok("sudo -n logger -t late two").await;
    let ask = async |words: &str| ssh.ok(&format!("sudo -n journalctl --no-pager {words}")).await;
    assert!(ask("-t early").await.contains(" a1 early[1200]: one\n"));
    assert_eq!(ask("--since '10 min ago' -o cat -t late").await, "two\n");
    assert_eq!(ask("--since '10 min ago' -t early").await, "-- No entries --\n");
    assert_eq!(ask("--until '10 min ago' -o cat -t early").await, "one\n");
    let json = ask("-t late -o json").await;
    let line: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&line["MESSAGE"], &line["SYSLOG_IDENTIFIER"]), (&"two".into(), &"late".into()));
    assert!(ask("-xeu ssh -n1").await.lines().count() == 1);
    let o = ssh.exec("sudo -n timeout 5 journalctl -fn1 -o cat; echo $?", b"").await;
    assert_eq!(o.out, "two\n124\n", "{}", o.err);
    let o = ssh.exec("sudo -n journalctl --since nonsense", b"").await;
    assert_eq!((o.code, o.err.trim()), (Some(1), "Failed to parse timestamp: nonsense"));
}
