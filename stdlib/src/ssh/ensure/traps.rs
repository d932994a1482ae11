//! Every key of `ensure` with traps in all its texts: whatever is taken runs as a program, and no trap snaps.
//!
//! Both programs of every item run as nobody, with a stand-in for every tool. A trap is shell text that makes a file in
//! the working folder: when that stays empty, no shell took a word of the recipe for its own.
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rand::RngExt;
use rhai::{Array, Dynamic, Map};

use super::EnsureOptions;
use super::item::{Changed, Item};
use super::program::{self, PRELUDE, Step};
use super::questions::Questions;
use super::tests::{map, shells, through_as};
use super::wanted::Wanted;

const TRAPS: &[&str] = &[
    "$(: >N)",
    "`: >N`",
    "${x:-$(: >N)}",
    "; : >N;",
    "' ; : >N ; '",
    "\" ; : >N ; \"",
    "'$(: >N)'",
    "\"$(: >N)\"",
    "\\'; : >N ; \\'",
    "\n: >N\n",
    "\n}\n: >N\n",
    "#\n: >N\n",
    "\nEOF\n: >N\n",
    "&& : >N &&",
    "|| : >N ||",
    "| : >N |",
    ") ; : >N ; (",
    "} ; : >N ; {",
    ";; esac; : >N; case x in",
    ">N",
    "%s%n$(: >N)",
];

/// Tools that the programs call; all of them do nothing and succeed.
const TOOLS: &[&str] = &[
    "addgroup",
    "adduser",
    "apk",
    "apt-get",
    "awk",
    "base64",
    "blkid",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "dd",
    "dnf",
    "dpkg-query",
    "fallocate",
    "find",
    "getent",
    "gpasswd",
    "grep",
    "groupadd",
    "head",
    "hostname",
    "hostnamectl",
    "id",
    "install",
    "ln",
    "ls",
    "lsblk",
    "lsmod",
    "mkdir",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkswap",
    "modprobe",
    "mount",
    "mv",
    "nft",
    "readlink",
    "rm",
    "rmdir",
    "rpm",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "swapoff",
    "swapon",
    "sync",
    "sysctl",
    "systemctl",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "udevadm",
    "umount",
    "uname",
    "useradd",
    "usermod",
    "wc",
    "wipefs",
];

/// What a host may answer to a question; whatever an item makes a change of is tried.
const ANSWERS: &[&str] = &[
    "",
    "absent\n",
    "none\n",
    "blank\n",
    "other\n",
    "- -\n",
    "inactive disabled\n",
    "active enabled\n",
    "never\n",
    "u:x:0:0::/nowhere:/bin/none\nu\n",
    "file 600 nobody:nogroup 65534:65534 5\n",
    "file 600 nobody:nogroup 65534:65534 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
    "dir 700 nobody:nogroup 65534:65534\n",
    "link-other 777 nobody:nogroup 65534:65534\n",
    "mounted /dev/none ext4 rw\n/dev/none\n/dev/other\n",
    "others\n",
    "loaded\n",
    "timesyncd 0 active enabled\n",
];

/// A text with some traps in it; `lines`: also traps that need a line of their own.
fn trapped(rng: &mut impl rand::Rng, lines: bool) -> String {
    let fit: Vec<&&str> = TRAPS.iter().filter(|t| lines || !t.contains('\n')).collect();
    (0..rng.random_range(1..4)).map(|_| fit[rng.random_range(0..fit.len())].replace('N', "snapped")).collect()
}

fn one(key: &str, value: impl Into<Dynamic>) -> Dynamic {
    Dynamic::from_map([(key.into(), value.into())].into_iter().collect())
}

/// A value for a key of `ensure` whose every text has traps in it.
fn value(key: &str, rng: &mut impl rand::Rng) -> Dynamic {
    let mut t = || trapped(rng, true);
    let mut line = {
        let mut other = rand::rng();
        move || trapped(&mut other, false)
    };
    let of = |pairs: Vec<(&str, Dynamic)>| Dynamic::from_map(map(pairs));
    let list = |items: Vec<String>| Dynamic::from_array(items.into_iter().map(Dynamic::from).collect::<Array>());
    match key {
        "packages" => list(vec![t(), format!("x={}", line())]),
        "package_lists" => "1h".into(),
        "repositories" => of(vec![
            ("a", format!("deb {}", line()).into()),
            ("b", of(vec![("line", format!("deb [{}] x y", line()).into()), ("key", t().into())])),
            ("c", of(vec![("baseurl", line().replace(' ', "").into()), ("key", t().into())])),
        ]),
        "files" => of(vec![
            ("/nowhere/snare", t().into()),
            ("/nowhere", of(vec![("content", t().into()), ("mode", "0644".into()), ("owner", "root".into())])),
        ])
        .cast::<Map>()
        .into_iter()
        .chain([(format!("/{}", t().replace('/', "_")).into(), t().into()), (format!("/{}", line()).into(), ().into())])
        .collect::<Map>()
        .into(),
        "lines" => one(
            &format!("/{}", line()),
            vec![
                line().into(),
                of(vec![("line", line().into()), ("replaces", line().into())]),
                of(vec![("remove", line().into())]),
            ],
        ),
        "directories" => one(&format!("/{}", t()), of(vec![("mode", "0750".into()), ("owner", "root".into())])),
        "links" => one(&format!("/{}", t()), t()),
        "users" => one(
            "u",
            of(vec![
                ("shell", line().into()),
                ("home", line().into()),
                ("sudo", true.into()),
                ("authorized_keys", list(vec![format!("ssh-ed25519 AAAA {}", line())])),
            ]),
        ),
        "groups" => list(vec![line()]),
        "authorized_keys" => one("u", list(vec![format!("ssh-ed25519 AAAA {}", line())])),
        "sysctl" => one("vm.swappiness", line()),
        "modules" => list(vec![line()]),
        "swap" => of(vec![("path", format!("/{}", line()).into()), ("size", "1GiB".into())]),
        "services" => one("s", of(vec![("state", "running".into()), ("restart_on", list(vec![format!("/{}", t())]))])),
        "units" => one("u.service", t()),
        // The command is shell text by its meaning: it only runs when the timer does.
        "timers" => one("t", of(vec![("on_calendar", "*-*-* 6,18:00".into()), ("command", t().into())])),
        "mounts" => one(
            &format!("/{}", line()),
            of(vec![
                ("device", line().replace(' ', "").into()),
                ("fs", "ext4".into()),
                ("options", line().replace(' ', "").into()),
            ]),
        ),
        "filesystems" => one(&format!("/dev/disk/by-id/{}", line()), of(vec![("label", "$(:>snapped)".into())])),
        "grow_root" => true.into(),
        "hostname" | "timezone" => line().into(),
        "hosts_entries" => one("10.0.0.9", list(vec![line()])),
        "ntp" => list(vec![line().replace(' ', "")]),
        "limits" => one(&line(), of(vec![("nofile", 5.into())])),
        "firewall" => of(vec![("allow", list(vec![line()])), ("interfaces", list(vec![line()]))]),
        "commands" => one(&t(), of(vec![("command", "true".into()), ("creates", format!("/{}", line()).into())])),
        other => panic!("`{other}` is new: give it a value with traps"),
    }
}

/// The programs of an item, for every answer that it makes a change of.
fn programs(item: &dyn Item, all: &[Box<dyn Item>], at: usize) -> Vec<String> {
    let mut acts: Vec<String> = Vec::new();
    for found in ANSWERS {
        let Ok(Some(diff)) = item.diff(found, &Changed::new()) else { continue };
        let step = Step { what: item.what(), diff, phase: item.phase(), item: Some(at) };
        let text = program::act(all, &[step]);
        if !acts.contains(&text) {
            acts.push(text);
        }
    }
    acts
}

/// Runs a program as nobody among stand-ins.
fn spring(shell: &[&str], program: &str, tools: &Path, cage: &Path) {
    let path = PRELUDE.lines().next().and_then(|l| l.split_once(';')).unwrap().0;
    assert!(program.contains(path));
    let program = program.replacen(path, &format!("PATH={}", tools.display()), 1);
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let _ = through_as(shell, &program, |c| {
        c.current_dir(cage).env("HOME", cage);
        if root {
            c.uid(65534).gid(65534);
        }
    });
    let caught: Vec<_> = std::fs::read_dir(cage).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(caught.is_empty(), "{shell:?}: a trap snapped: {caught:?}\n{program}");
}

#[test]
fn no_word_of_any_key_is_taken_by_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let (tools, cage) = (dir.path().join("tools"), dir.path().join("cage"));
    let open = |p: &Path| std::fs::set_permissions(p, std::fs::Permissions::from_mode(0o777)).unwrap();
    for d in [&tools, &cage] {
        std::fs::create_dir(d).unwrap();
        open(d);
    }
    open(dir.path());
    for t in TOOLS {
        std::os::unix::fs::symlink("/bin/true", tools.join(t)).unwrap();
    }
    let shells = shells();
    let mut rng = rand::rng();
    let (mut taken, mut ran) = (Vec::new(), 0);
    for field in EnsureOptions::FIELDS {
        for _ in 0..8 {
            let wanted: Map = [(field.name.into(), value(field.name, &mut rng))].into_iter().collect();
            // What no tool takes as it is, is refused before any shell sees it.
            let Ok(w) = Wanted::read(&wanted, 22) else { continue };
            taken.push(field.name);
            let shell = &shells[rng.random_range(0..shells.len())];
            let look = Questions::of(w.items.iter().map(AsRef::as_ref)).program();
            spring(shell, &look, &tools, &cage);
            for (i, item) in w.items.iter().enumerate() {
                for act in programs(item.as_ref(), &w.items, i) {
                    spring(shell, &act, &tools, &cage);
                    ran += 1;
                }
            }
        }
    }
    taken.dedup();
    for key in ["files", "lines", "directories", "links", "users", "units", "timers", "commands", "sysctl", "services"]
    {
        assert!(taken.contains(&key), "{key} takes texts of any kind");
    }
    assert!(ran > 40, "{ran} programs ran: {taken:?}");
}
