//! Widely used clients do real work against the lab, unchanged. `.ci/peers` installs them.
use std::path::{Path, PathBuf};

use gpuhost_lab::spec::{Spec, StorageSpec};
use tokio::process::Command;

use crate::bed::Bed;

/// The folder that `.ci/peers` fills.
fn peers() -> Option<PathBuf> {
    let own = std::env::var_os("GPUHOST_PEERS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    own.or_else(|| Some(cache?.join("gpuhost-peers"))).filter(|p| p.is_dir())
}

/// A file below the peers' folder, or a line that says why the test skips.
fn peer(file: &str) -> Option<PathBuf> {
    let found = peers().map(|p| p.join(file)).filter(|p| p.exists());
    if found.is_none() {
        println!("skipped: no {file} below $GPUHOST_PEERS (run .ci/peers)");
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pve/clients").join(name)
}

async fn bed(release: &str) -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.pve_version = release.to_owned();
    spec.root_password = "lab-password".into();
    spec.storages.push(StorageSpec {
        id: "tank".into(),
        kind: "dir".into(),
        content: "images,rootdir".into(),
        size_gib: 500,
        shared: false,
    });
    Bed::with(spec).await
}

async fn fine(mut command: Command) -> String {
    let out = command.kill_on_drop(true).output().await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}");
    text
}

async fn proxmoxer(release: &str) {
    let Some(python) = peer("pve/bin/python") else { return };
    let bed = bed(release).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, bed.lab.with(|w| w.pve.ca.cert.clone())).unwrap();
    let mut c = Command::new(python);
    c.arg(script("with_proxmoxer.py")).arg(bed.port().to_string()).arg(&ca).arg(bed.secret()).arg("lab-password");
    fine(c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxmoxer_works_on_9() {
    proxmoxer("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxmoxer_works_on_8() {
    proxmoxer("8.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_proxmox_api_works() {
    let Some(modules) = peer("npm/node_modules/proxmox-api") else { return };
    let bed = bed("9.1").await;
    // Modules are found beside the script.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(script("client.mjs"), dir.path().join("client.mjs")).unwrap();
    std::os::unix::fs::symlink(modules.parent().unwrap(), dir.path().join("node_modules")).unwrap();
    let mut c = Command::new("node");
    c.arg(dir.path().join("client.mjs")).arg(bed.port().to_string()).arg(bed.secret()).arg("lab-password");
    c.env("NODE_NO_WARNINGS", "1");
    fine(c).await;
}

async fn play(bed: &Bed, ansible: &Path, home: &Path, (book, phase): (&str, &str)) -> String {
    let mut c = Command::new(ansible);
    let set = |k: &str, v: &str| format!("{k}={v}");
    c.args(["-i", "localhost,", "-e", &set("port", &bed.port().to_string()), "-e", "password=lab-password"]);
    c.args(["-e", &set("phase", phase), "-e", "{\"old\": false}"]);
    c.args(["-e", &set("iso", home.join("ans.iso").to_str().unwrap())]);
    c.args(["-e", &set("ansible_python_interpreter", ansible.with_file_name("python").to_str().unwrap())]);
    c.arg(script(book));
    let collections = ansible.ancestors().nth(3).unwrap().join("collections");
    c.env("ANSIBLE_COLLECTIONS_PATH", collections).env("ANSIBLE_HOME", home).env("HOME", home);
    c.env("ANSIBLE_NOCOLOR", "1").env("ANSIBLE_LOCALHOST_WARNING", "False").env("PYTHONWARNINGS", "ignore");
    c.env("ANSIBLE_DEPRECATION_WARNINGS", "False")
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_PIPELINING", "1")
        .stdin(std::process::Stdio::null());
    fine(c).await
}

/// `changed=` of the recap.
fn changed(text: &str) -> u32 {
    let recap = text.split("changed=").nth(1).unwrap();
    recap.split(' ').next().unwrap().parse().unwrap()
}

/// The modules in one process, and a few of them through the program itself; with `GPUHOST_PEERS_FULL` the whole
/// playbook, which takes minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ansible_community_proxmox_works() {
    let Some(ansible) = peer("pve/bin/ansible-playbook") else { return };
    let Some(_) = peer("collections/ansible_collections/community/proxmox") else { return };
    let bed = bed("9.1").await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("ans.iso"), vec![b'x'; 50_000]).unwrap();
    if std::env::var_os("GPUHOST_PEERS_FULL").is_none() {
        let mut c = Command::new(ansible.with_file_name("python"));
        c.args(["-W", "ignore"]).arg(script("ansible_modules.py")).arg(bed.port().to_string()).arg("lab-password");
        c.arg(home.path().join("ans.iso")).arg(ansible.ancestors().nth(3).unwrap().join("collections"));
        c.env("HOME", home.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        fine(c).await;
        let small = |phase| play(&bed, &ansible, home.path(), ("small.yml", phase));
        for (phase, changes) in [("make", 3), ("make", 0), ("drop", 2)] {
            let said = small(phase).await;
            assert_eq!(changed(&said), changes, "{phase}: {said}");
        }
        assert_eq!(bed.lab.with(|w| w.pve.vms.keys().copied().collect::<Vec<_>>()), [100]);
        return;
    }
    let all = |phase| play(&bed, &ansible, home.path(), ("playbook.yml", phase));
    let made = all("make").await;
    assert!(changed(&made) >= 10, "{made}");
    let again = all("again").await;
    assert_eq!(changed(&again), 0, "a second run changes nothing: {again}");
    for phase in ["early", "work", "late", "drop"] {
        all(phase).await;
    }
    assert_eq!(bed.lab.with(|w| w.pve.vms.keys().copied().collect::<Vec<_>>()), [100]);
}
