//! `ensure` without a network: the programs run through the local `sh` over a temporary folder.
use rhai::{Array, Dynamic, Map};

use super::item::Phase;
use super::program;
use super::questions::Questions;
use super::wanted::Wanted;

pub(super) fn map(list: Vec<(&str, Dynamic)>) -> Map {
    list.into_iter().map(|(k, v)| (k.into(), v)).collect()
}

/// Runs a program as a host's shell gets it.
pub(super) fn through(shell: &[&str], program: &str) -> (String, String, bool) {
    through_as(shell, program, |_| ())
}

/// As [`through`], by somebody else or somewhere else.
pub(super) fn through_as(
    shell: &[&str],
    program: &str,
    prepare: impl Fn(&mut std::process::Command),
) -> (String, String, bool) {
    use std::io::Write as _;
    let mut command = std::process::Command::new(shell[0]);
    command.args(&shell[1..]).arg("-s");
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    let text = program::as_input(program);
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || {
        // A shell that ended early has read what it wanted.
        let _ = stdin.write_all(&text);
    });
    let out = child.wait_with_output().unwrap();
    feed.join().unwrap();
    (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
        out.status.success(),
    )
}

/// The shells that hosts may have as `/bin/sh`, as far as this machine has them.
pub(super) fn shells() -> Vec<Vec<&'static str>> {
    let there = |s: &[&str]| std::process::Command::new(s[0]).args(&s[1..]).args(["-c", "exit 0"]).status().is_ok();
    [vec!["sh"], vec!["dash"], vec!["busybox", "sh"], vec!["bash"]].into_iter().filter(|s| there(s)).collect()
}

fn look(shell: &[&str], w: &Wanted) -> Vec<String> {
    let questions = Questions::of(w.items.iter().map(AsRef::as_ref));
    let (out, err, _) = through(shell, &questions.program());
    questions.read(&out).unwrap_or_else(|e| panic!("{e}\n{out}\n{err}")).states
}

/// Looks, acts, looks again; returns what was done.
pub(super) fn reach_in(shell: &[&str], wanted: &Map) -> Vec<String> {
    let w = Wanted::read(wanted, 22).unwrap();
    let steps = program::plan(&w.items, &look(shell, &w)).unwrap();
    if steps.is_empty() {
        return Vec::new();
    }
    let (out, err, _) = through(shell, &program::act(&w.items, &steps));
    let acted = program::read_act(&w.items, &steps, &out).unwrap_or_else(|e| panic!("{e}\n{out}\n{err}"));
    assert_eq!(acted.done, steps.len(), "{out}\n{err}");
    assert_eq!(acted.left, Some(Vec::new()));
    assert_eq!(program::plan(&w.items, &look(shell, &w)).unwrap(), Vec::new());
    steps.into_iter().map(|s| s.what).collect()
}

fn reach(wanted: &Map) -> Vec<String> {
    reach_in(&["sh"], wanted)
}

pub(super) fn me() -> String {
    let id = |f: &str| {
        let o = std::process::Command::new("id").arg(f).output().unwrap();
        String::from_utf8_lossy(&o.stdout).trim().to_owned()
    };
    format!("{}:{}", id("-u"), id("-g"))
}

#[test]
fn files_directories_links_and_lines_in_a_real_folder() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display().to_string();
    let nasty = "it's $HOME `id` \\ \"q\"\n\ttab é\n%s %d\n";
    let file = |content: Dynamic| {
        Dynamic::from(map(vec![("content", content), ("mode", "0640".into()), ("owner", me().into())]))
    };
    let odd = format!("{root}/with space/it's");
    let blob = format!("{root}/blob");
    let lines = format!("{root}/lines");
    std::fs::write(&lines, "one\nPort 22\n").unwrap();
    let mut files = Map::new();
    files.insert(odd.as_str().into(), file(nasty.into()));
    files.insert(blob.as_str().into(), file(Dynamic::from_blob(vec![0, 1, 255, 10])));
    let mut by_path = Map::new();
    let port = map(vec![("line", "Port 2222".into()), ("replaces", "Port ".into())]);
    let wanted_lines: Array = vec!["two 'x'".into(), port.into()];
    by_path.insert(lines.as_str().into(), wanted_lines.into());
    let mut directories = Map::new();
    let spec = map(vec![("mode", "0700".into()), ("owner", me().into())]);
    directories.insert(format!("{root}/d").as_str().into(), spec.into());
    let mut links = Map::new();
    links.insert(format!("{root}/l/k").as_str().into(), "/no where".into());
    let wanted = map(vec![
        ("files", files.into()),
        ("lines", by_path.into()),
        ("directories", directories.into()),
        ("links", links.into()),
    ]);
    assert_eq!(reach(&wanted).len(), 5);
    assert_eq!(reach(&wanted), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(&odd).unwrap(), nasty);
    assert_eq!(std::fs::read(&blob).unwrap(), vec![0, 1, 255, 10]);
    assert_eq!(std::fs::read_to_string(&lines).unwrap(), "one\nPort 2222\ntwo 'x'\n");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&odd).unwrap().permissions().mode() & 0o777, 0o640);
    // A mode that drifted is mended without writing the content again.
    std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(reach(&wanted), vec![format!("file {odd}")]);
}

#[test]
fn an_act_stops_at_the_first_failure_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display().to_string();
    std::fs::write(format!("{root}/plain"), "x").unwrap();
    let mut files = Map::new();
    for name in ["a", "plain/b", "z"] {
        let spec = map(vec![("content", "x".into()), ("owner", me().into())]);
        files.insert(format!("{root}/{name}").as_str().into(), spec.into());
    }
    let w = Wanted::read(&map(vec![("files", files.into())]), 22).unwrap();
    let mut steps = program::plan(&w.items, &look(&["sh"], &w)).unwrap();
    assert_eq!(steps.len(), 3);
    let (out, _, ok) = through(&["sh"], &program::act(&w.items, &steps));
    let acted = program::read_act(&w.items, &steps, &out).unwrap();
    assert!(!ok && acted.done == 1 && acted.code.is_some_and(|c| c != 0) && acted.left.is_none(), "{out}");
    assert!(!std::path::Path::new(&format!("{root}/z")).exists());
    let answer = super::Output {
        stdout: out,
        stderr: "mkdir: cannot create directory\n".into(),
        code: 1,
        ..super::Output::default()
    };
    let rest = steps.split_off(acted.done);
    let e = super::stopped(&steps, &rest, acted.code, &answer);
    assert!(e.message.starts_with(&format!("could not bring about file {root}/plain/b (exit code ")), "{}", e.message);
    let last = format!("1 step done: file {root}/a; 1 step not tried: file {root}/z");
    assert_eq!(e.last.as_deref(), Some(last.as_str()));
}

#[test]
fn unknown_and_wrong_keys_are_named() {
    let err = |m: Map| {
        let e = Wanted::read(&m, 22).err().unwrap();
        (e.message, e.hint.unwrap_or_default())
    };
    assert_eq!(
        err(map(vec![("pakages", Array::new().into())])),
        ("unknown option `pakages`".into(), "did you mean `packages`?".into())
    );
    let service = |v: Dynamic| map(vec![("services", map(vec![("chrony", v)]).into())]);
    let (m, h) = err(service("runing".into()));
    assert_eq!(m, "option `services`, `chrony`: expected `running` or `stopped`, found `runing`");
    assert_eq!(h, "did you mean `running`?");
    let (m, _) = err(service(map(vec![("sate", "running".into())]).into()));
    assert_eq!(m, "option `services`, `chrony`: unknown option `sate`");
    let fs = |d: &str| map(vec![("filesystems", map(vec![(d, Map::new().into())]).into())]);
    assert_eq!(err(fs("/dev/sdb")).0, "option `filesystems`, `/dev/sdb`: is no device by id");
    assert_eq!(
        err(map(vec![("swap", "on".into())])).0,
        "option `swap`: expected `\"off\"`, a size or `#{ path, size }`"
    );
    let rel = map(vec![("files", map(vec![("etc/x", "".into())]).into())]);
    assert_eq!(err(rel).0, "option `files`, `etc/x`: is no absolute path");
}

#[test]
fn what_lies_on_a_mount_comes_after_it() {
    let mount = map(vec![("/mnt/scratch", map(vec![("label", "scratch".into())]).into())]);
    let dirs: Array = vec!["/mnt/scratch/data".into(), "/srv".into()];
    let w = Wanted::read(&map(vec![("mounts", mount.into()), ("directories", dirs.into())]), 22).unwrap();
    let phase = |what: &str| w.items.iter().find(|i| i.what() == what).unwrap().phase();
    assert_eq!(phase("directory /srv"), Phase::Directories);
    assert_eq!(phase("directory /mnt/scratch/data"), Phase::BelowMounts);
    assert!(phase("mount /mnt/scratch") < Phase::BelowMounts);
    assert!(phase("lines of /etc/fstab") < phase("mount /mnt/scratch"));
}

#[test]
fn the_whole_map_compiles_to_programs_that_a_shell_accepts() {
    let text = r#"
        #{
            packages: ["nfs-common", "chrony=4"],
            repositories: #{ nvidia: #{ line: "deb [signed-by=/etc/apt/keyrings/nvidia.asc] https://x y z", key: "K" } },
            users: #{ ada: #{ groups: ["sudo"], sudo: true, authorized_keys: ["ssh-ed25519 AAAA x"] } },
            groups: #{ video: 44, render: () },
            authorized_keys: #{ root: "ssh-ed25519 BBBB y" },
            sysctl: #{ "vm.swappiness": 1 }, modules: ["br_netfilter"], swap: "off",
            services: #{ chrony: "running", apt: #{ state: "stopped", enabled: false } },
            units: #{ "x.service": "[Service]\nExecStart=/bin/true\n" },
            package_lists: "1h", firewall: #{ allow: ["6443/tcp"] },
            commands: #{ one: #{ command: "touch /a", creates: "/a" }, two: #{ command: "touch /b", unless: "[ -e /b ]" } },
            timers: #{ trim: #{ on_calendar: "weekly", command: "fstrim -av" } },
            mounts: #{ "/srv/nfs": #{ label: "nfs-data" } },
            filesystems: #{ "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_gh-data-221": #{ fs: "ext4", label: "nfs-data" } },
            grow_root: true, hostname: "n1", hosts_entries: #{ "10.0.0.1": ["n1", "n1.lab"], n2: "10.0.0.2" }, timezone: "Etc/UTC",
            ntp: ["10.0.0.1"], limits: #{ "*": #{ nofile: 1048576 } },
        }"#;
    let m: Map = rhai::Engine::new_raw().eval(text).unwrap();
    let w = Wanted::read(&m, 22).unwrap();
    // Every item acts: nothing is as wanted.
    let states: Vec<String> = w.items.iter().map(|i| unwanted(&i.what())).collect();
    let steps = program::plan(&w.items, &states).unwrap();
    // All but cloud-init's own template of /etc/hosts, which is not there; and the reload.
    assert_eq!(steps.len(), w.items.len(), "{:#?}", steps.iter().map(|s| &s.what).collect::<Vec<_>>());
    assert!(steps.iter().any(|s| s.diff.act.ends_with("systemctl daemon-reload")));
    for text in [Questions::of(w.items.iter().map(AsRef::as_ref)).program(), program::act(&w.items, &steps)] {
        for shell in shells() {
            let out =
                std::process::Command::new(shell[0]).args(&shell[1..]).args(["-n", "-c", &text]).output().unwrap();
            assert!(out.status.success(), "{shell:?} {}\n{text}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

fn unwanted(what: &str) -> String {
    match what.split(' ').next().unwrap_or_default() {
        "packages" => "nfs-common absent\nchrony absent".into(),
        "package" if what == "package lists" => "never".into(),
        "file" if what.starts_with("file system") => "blank".into(),
        "size" if what.contains("root") => {
            "root /dev/sda 1 /dev/sda1 262144 20971520 83886080 yes\nfs ext4 10737418240 2621440 4096".into()
        }
        "size" => "fs ext4 8589934592 1048576 4096".into(),
        "command" if what.ends_with("two") => "no".into(),
        "service" if what.ends_with("apt") => "active enabled".into(),
        "service" => "inactive disabled".into(),
        "group" | "sysctl" | "kernel" => String::new(),
        "time" => "none".into(),
        "hostname" => "old old".into(),
        _ => "absent".into(),
    }
}

#[test]
fn what_is_wanted_of_names_is_no_option_and_no_pattern() {
    let text = r#"[
        #{ packages: ["-o=x"] }, #{ packages: ["vim-"] }, #{ packages: ["a;b"] }, #{ groups: ["-x"] },
        #{ users: #{ "a b": #{} } }, #{ users: #{ "-r": #{} } }, #{ users: #{ a: #{ groups: ["x,y z"] } } },
        #{ services: #{ "*": "stopped" } }, #{ services: #{ "--all": "stopped" } }, #{ modules: ["-r x"] },
        #{ sysctl: #{ "-w": "1" } }, #{ sysctl: #{ "a b": "1" } }, #{ timezone: "../../etc/passwd" },
        #{ hostname: "-F" }, #{ hostname: "a b" }, #{ ntp: ["a b"] }, #{ swap: 5 },
        #{ files: #{ "/a": #{ content: "", owner: "-R" } } }, #{ directories: #{ "/a": #{ mode: "a+s" } } },
        #{ authorized_keys: #{ root: ["a\nb"] } }, #{ lines: #{ "/a": ["a\nb"] } }, #{ lines: #{ "/a": [#{}] } },
        #{ limits: #{ "*": #{ "no file": 1 } } }, #{ mounts: #{ "/a": #{ device: "x y", options: "a b" } } },
        #{ firewall: "on" }, #{ firewall: #{ allow: ["1/tcp accept"] } }, #{ commands: #{ x: #{ command: "a" } } },
        #{ files: #{ "/a": "x" }, lines: #{ "/a": ["y"] } }, #{ repositories: #{ x: "http://no.deb" } },
        #{ filesystems: #{ "/dev/disk/by-id/../../sda": #{} } }, #{ links: #{ "/a/../b": "/c" } },
    ]"#;
    let list: Array = rhai::Engine::new_raw().eval(text).unwrap();
    for wanted in list {
        let shown = format!("{wanted:?}");
        let e = Wanted::read(&wanted.cast::<Map>(), 22).err().unwrap_or_else(|| panic!("{shown}"));
        assert!(e.is(crate::core::error::Kind::Invalid), "{shown}");
    }
}
