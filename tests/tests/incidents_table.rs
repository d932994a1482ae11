//! The fault catalogue as a table: a fault happens to a deployed lab, verify fails, the doctor names exactly that cause
//! on that target and nothing else, the command that it prints is typed, and verify is green again.
//!
//! CI runs a part that moves on with every commit; the whole:
//! `GPUHOST_INCIDENTS=all cargo test --workspace --test incidents_table -- --nocapture`
//! (or a list of names: `GPUHOST_INCIDENTS=vm-off,secure-boot`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuhost_tests::{program, root};
use serde_json::Value;

/// Fault and target; the finding, where it is not called the same.
const ROWS: &[(&str, &str)] = &[
    ("vm-off@k3s-gpu2", ""),
    ("vm-off@k3s-cp3", ""),
    ("vm-off@nfs1", ""),
    ("iommu-off@pve1", ""),
    ("group-shared@k3s-gpu1", ""),
    ("host-driver-holds-card@k3s-gpu1", ""),
    ("card-taken@k3s-gpu1", ""),
    ("mapping-missing@gpuhost-a100", ""),
    ("card-missing@k3s-gpu3", ""),
    ("kubelet-stopped@k3s-gpu4", ""),
    ("kubelet-stopped@k3s-cp2", ""),
    ("k3s-config-broken@k3s-gpu1", ""),
    ("token-wrong@k3s-gpu1", ""),
    ("token-wrong@k3s-cp2", ""),
    ("token-of-another-cluster@k3s-gpu2", ""),
    ("member-left-behind@k3s-cp3", ""),
    ("certificate-address@k3s-cp3", ""),
    ("port-6443-blocked@k3s-gpu1", ""),
    ("no-memory-cgroup@k3s-gpu2", ""),
    ("network-plugin-missing@k3s-gpu3", ""),
    ("snapshots-off@k3s-cp1", ""),
    ("certificates-ending@k3s-cp2", ""),
    ("node-password@k3s-gpu3", ""),
    ("cordoned@k3s-gpu2", ""),
    ("disk-pressure@k3s-gpu2", "node-pressure@k3s-gpu2"),
    ("version-drift@k3s-gpu1", ""),
    ("no-default-route@k3s-gpu2", ""),
    ("port-taken@k3s-cp2", ""),
    ("server-settings-differ@k3s-cp3", ""),
    ("quorum-lost", "quorum-lost@homelab"),
    ("nouveau-loaded@k3s-gpu1", ""),
    ("kernel-without-headers@k3s-gpu2", ""),
    ("driver-in-use@k3s-gpu3", ""),
    ("secure-boot@k3s-gpu4", ""),
    ("driver-mismatch@k3s-gpu1", ""),
    ("card-not-initialising@k3s-gpu2", ""),
    ("card-off-bus@k3s-gpu3", ""),
    ("card-memory-errors@k3s-gpu4", ""),
    ("compute-exclusive@k3s-gpu1", ""),
    ("mig-waits@k3s-gpu2", ""),
    ("mig-layouts-differ@k3s-gpu3", ""),
    ("mig-config-unknown@k3s-gpu4", ""),
    ("runtime-undetected@k3s-gpu3", ""),
    ("plugin-not-registered@k3s-gpu4", ""),
    ("toolkit-socket@gpu-operator", ""),
    ("toolkit-too-old@gpu-operator", ""),
    ("driver-image-missing@gpu-operator", ""),
    ("sharing-config-missing@gpu-operator", ""),
    ("gpu-taint@k3s-gpu1", ""),
    ("nfd-worker-gone@k3s-gpu2", ""),
    ("driver-in-guest@k3s-gpu3", ""),
    ("driver-label-stale@k3s-gpu4", ""),
    ("toolkit-drop-in@k3s-gpu1", ""),
    ("mig-cards-busy@k3s-gpu2", ""),
    ("operator-missing@gpu-operator", ""),
    ("driver-not-installed@gpu-operator", ""),
    ("runtime-class-missing", "runtime-class-missing@nvidia"),
    ("class-missing@nfs-client", ""),
    ("two-default-classes@fast-scratch", ""),
    ("scratch-path@fast-scratch", ""),
    ("scratch-unmounted@k3s-gpu2", ""),
    ("nfs-stopped@nfs1", ""),
    ("export-lacks-node@k3s-gpu3", ""),
    ("nfs-disk-unmounted@nfs1", ""),
    ("nfs-blocked@nfs1", ""),
    ("nfs-path-missing@nfs1", "nfs-path-missing@10.0.0.31:/srv/nfs/k8s"),
    ("claim-access-mode@fast-scratch", "claim-access-mode@default/render"),
    ("claim-pending@nfs-client", "claim-pending@default/archive"),
    ("claim-lost", "claim-lost@default/postgres"),
    ("nfs-provisioner-down", "nfs-provisioner-down@csi-nfs-controller"),
    ("scratch-provisioner-down", "scratch-provisioner-down@scratch-provisioner"),
    ("claim-names-no-class", "claim-names-no-class@default/datasets"),
    ("repo-unreachable@homelab", ""),
    ("repo-wrong-address@homelab", ""),
    ("repo-paused@homelab", ""),
    ("repo-matches-nothing@homelab", ""),
    ("gitjob-hangs@homelab", ""),
    ("fleet-agent-down", "fleet-agent-down@fleet-agent"),
    ("bundle-chart-missing@homelab", "bundle-chart-missing@homelab-recipes-gitops-broken"),
    ("bundle-kind-unknown@homelab", "bundle-kind-unknown@homelab-recipes-gitops-longhorn"),
    ("bundle-modified@homelab", "bundle-modified@homelab-recipes-gitops-namespaces"),
    ("two-owners@homelab", "two-owners@web"),
    ("release-collides@homelab", "release-collides@rancher"),
    ("fleet-release-upgraded@homelab", "fleet-release-upgraded@homelab-recipes-gitops-namespaces"),
    ("bundledeployment-deleted@homelab", "claim-replaced@research/datasets"),
    ("bundle-deleted@homelab", ""),
    ("bundle-immutable@homelab", "bundle-immutable@homelab-recipes-gitops-datasets"),
    ("bundle-invalid@homelab", "bundle-invalid@homelab-recipes-gitops-metrics"),
    ("bundle-customization-lost@homelab", "bundle-customization-lost@homelab-recipes-gitops-motd"),
    ("fleet-controller-down", "fleet-controller-down@gitjob"),
    ("hub-down", "hub-down@hub"),
    ("hub-token@jupyterhub", ""),
    ("hub-open@jupyterhub", ""),
    ("spawn-image@jupyterhub", ""),
    ("spawn-gpus@jupyterhub", ""),
    ("spawn-resource@jupyterhub", ""),
    ("spawn-iptables@jupyterhub", ""),
    ("pull-rate-limited", "pull-rate-limited@docker.io"),
    ("spawn-class@jupyterhub", ""),
    ("rancher-down", "rancher-down@rancher"),
    ("rancher-hostname@rancher", ""),
    ("certificate-missing@rancher", ""),
    ("cert-webhook-down", "cert-webhook-down@cert-manager-webhook"),
    ("budget-blocks-drain", "budget-blocks-drain@default/inference"),
    ("env-twice", "env-twice@default/trainer"),
    ("hub-proxy-down", "hub-proxy-down@proxy"),
    ("ingress-down", "ingress-down@kube-system/traefik"),
    ("dns-down", "dns-down@kube-system/coredns"),
    ("metrics-down", "metrics-down@kube-system/metrics-server"),
    ("operator-down", "operator-down@gpu-operator/gpu-operator"),
    ("claim-terminating", "claim-terminating@default/models"),
];

/// Faults that break nothing today: verify passes, warns, and the doctor has nothing to say.
const WARNED: &[&str] = &["volume-orphaned"];

/// Rows per run in CI.
const PART: usize = 6;

fn name_of(fault: &str) -> &str {
    fault.split('@').next().unwrap_or(fault)
}

/// Runs the program on a state directory: exit code and output.
fn gpuhost(state: &Path, args: &[&str]) -> (i32, String, String) {
    let mut c = Command::new(program());
    c.args(args).current_dir(root()).env("GPUHOST_STATE_DIR", state).env("NO_COLOR", "1").env("HOME", state);
    let out = c.env_remove("GPUHOST_PROXMOX_TOKEN").stdin(Stdio::null()).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for e in std::fs::read_dir(from).unwrap().flatten() {
        let at = to.join(e.file_name());
        match e.path().is_dir() {
            true if e.file_name() != "cache" => copy(&e.path(), &at),
            true => {}
            false => drop(std::fs::copy(e.path(), at).unwrap()),
        }
    }
}

fn events(out: &str) -> Vec<Value> {
    out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// Failed proofs and findings of a run of verify.
fn verify(state: &Path) -> (i32, Vec<String>, Vec<String>) {
    let (code, out, err) = gpuhost(state, &["run", "recipes/verify.rhai", "--lab", "--json"]);
    let all = events(&out);
    let text = |e: &Value, k: &str| e[k].as_str().unwrap_or_default().to_owned();
    let failed = all.iter().filter(|e| e["event"] == "proved" && text(e, "verdict").eq_ignore_ascii_case("fail"));
    let failed = failed.map(|e| format!("{}: {}", text(e, "name"), text(e, "text"))).collect();
    let said = all.iter().filter(|e| e["event"] == "message").map(|e| text(e, "text"));
    let findings = said.filter(|t| t.contains(". Next: ") && t.contains('@')).collect();
    if code != 0 && code != 3 {
        println!("{out}\n{err}");
    }
    (code, failed, findings)
}

/// The words of a command line; single quotes keep blanks.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// Types the command that a finding ends with.
fn type_it(state: &Path, next: &str) -> Result<(), String> {
    let ran = if let Some(rest) = next.strip_prefix("gpuhost ") {
        let words = shell_words(rest);
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.extend(["--lab", "--yes"]);
        gpuhost(state, &args)
    } else {
        return Ok(());
    };
    if ran.0 == 0 { Ok(()) } else { Err(format!("`{next}` ends with {}\n{}\n{}", ran.0, ran.1, ran.2)) }
}

fn one(base: &Path, dir: &Path, fault: &str, finding: &str, hands: bool) -> Result<(), String> {
    copy(base, dir);
    let wanted = if finding.is_empty() { fault } else { finding };
    let (code, out, err) = gpuhost(dir, &["lab", "fault", fault]);
    if code != 0 {
        return Err(format!("the fault cannot be made: {out}{err}"));
    }
    let (code, failed, found) = verify(dir);
    if code != 3 || failed.is_empty() {
        return Err(format!("verify does not fail ({code}): {found:?}"));
    }
    let ids: Vec<&str> = found.iter().filter_map(|f| f.split(": ").next()).collect();
    if ids != [wanted] {
        return Err(format!("found {ids:?}\n{}\nfailed proofs: {failed:#?}", found.join("\n")));
    }
    if hands {
        let (code, out, err) = gpuhost(dir, &["lab", "fault", fault, "--by-hand"]);
        if code != 0 {
            return Err(format!("hands fail: {out}{err}"));
        }
    }
    let next = found[0].rsplit(" Next: ").next().unwrap_or_default().to_owned();
    if !hands && !next.starts_with("gpuhost ") {
        return Err(format!("nobody can type `{next}`"));
    }
    type_it(dir, &next)?;
    // what was mended takes its time to come up
    let path = dir.join("wait.rhai");
    std::fs::write(&path, "sleep(10.minutes);\n").unwrap();
    let _ = gpuhost(dir, &["run", path.to_str().unwrap(), "--site", "recipes/site.toml", "--lab"]);
    let (code, failed, found) = verify(dir);
    if code != 0 {
        return Err(format!("after `{next}` verify still fails: {failed:#?}\n{}", found.join("\n")));
    }
    Ok(())
}

/// Rows of this run: all, some by name, or the part that this commit is due.
fn chosen() -> Vec<(&'static str, &'static str)> {
    match std::env::var("GPUHOST_INCIDENTS").as_deref() {
        Ok("all") => ROWS.to_vec(),
        Ok(names) => {
            let names: Vec<&str> = names.split(',').collect();
            let unknown = names.iter().find(|n| !ROWS.iter().any(|r| name_of(r.0) == **n));
            assert!(unknown.is_none(), "no row of that name: {unknown:?}");
            ROWS.iter().filter(|r| names.contains(&name_of(r.0))).copied().collect()
        }
        Err(_) => {
            let n = gpuhost_tests::turn::turn();
            let parts = ROWS.len().div_ceil(PART);
            ROWS.iter().skip(n % parts).step_by(parts).copied().collect()
        }
    }
}

/// The catalogue as the program lists it: name, whether hands are needed.
fn catalogue(state: &Path) -> Vec<(String, bool)> {
    let (_, out, _) = gpuhost(state, &["lab", "fault", "--list", "--json"]);
    let row = |e: &Value| (e["name"].as_str().unwrap_or_default().to_owned(), e["hands"] == true);
    events(&out).iter().map(row).collect()
}

#[test]
fn every_fault_has_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let all = catalogue(dir.path());
    assert!(all.len() >= 40, "{}", all.len());
    let missing: Vec<_> =
        all.iter().filter(|(n, _)| !ROWS.iter().any(|r| name_of(r.0) == n) && !WARNED.contains(&n.as_str())).collect();
    assert!(missing.is_empty(), "faults without a row: {missing:?}");
}

/// What cannot go wrong on a target is refused, with the targets that make sense.
#[test]
fn faults_refuse_targets_on_which_nothing_would_happen() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = gpuhost(dir.path(), &["lab", "reset", "--start", "deployed", "--site", "recipes/site.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    for (fault, sense) in [
        ("gpu-taint@k3s-cp1", "k3s-gpu1, k3s-gpu2"),
        ("mig-waits@k3s-cp1", "k3s-gpu1, k3s-gpu2"),
        ("nfs-stopped@k3s-cp1", "nfs1"),
        ("hub-open@rancher", "jupyterhub"),
        ("scratch-path@nfs-client", "fast-scratch"),
        ("port-taken@k3s-gpu1", "k3s-cp1, k3s-cp2"),
    ] {
        let (code, out, err) = gpuhost(dir.path(), &["lab", "fault", fault]);
        let said = format!("{out}{err}");
        assert!(code != 0 && said.contains(&format!("it happens to {sense}")), "{fault}: {code} {said}");
    }
}

/// A volume that was left behind takes space and breaks nothing: verify says so, and how it is used again.
#[test]
fn volumes_that_were_left_behind_are_named_and_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = gpuhost(dir.path(), &["lab", "reset", "--start", "deployed", "--site", "recipes/site.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = gpuhost(dir.path(), &["lab", "fault", "volume-orphaned"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = gpuhost(dir.path(), &["run", "recipes/verify.rhai", "--lab"]);
    let said = format!("{out}{err}");
    assert!(code == 0 && said.contains("1 volumes whose claim is gone keep their space: pvc-"), "{code} {said}");
    assert!(said.contains("(20Gi, was default/thesis"), "{said}");
    let (code, out, err) = gpuhost(dir.path(), &["run", "scripts/list-orphans.rhai", "--lab"]);
    assert!(code == 0 && out.contains("scripts/restore-volume.rhai"), "{out}{err}");
    let volume = said.split("space: ").nth(1).and_then(|t| t.split(' ').next()).unwrap_or_default().to_owned();
    let set = format!("volume={volume}");
    let run = ["run", "scripts/restore-volume.rhai", "--set", &set, "--lab", "--yes"];
    let (code, out, err) = gpuhost(dir.path(), &run);
    assert_eq!(code, 0, "{out}{err}");
    // it is bound: a second time there is nothing to do
    let (code, out, err) = gpuhost(dir.path(), &run);
    assert!(code == 0 && out.contains("is bound to its claim already"), "{out}{err}");
    let (code, out, err) = gpuhost(dir.path(), &["run", "recipes/verify.rhai", "--lab"]);
    assert!(code == 0 && !format!("{out}{err}").contains("keep their space"), "{out}{err}");
}

#[test]
fn faults_are_named_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let (code, out, err) = gpuhost(&base, &["lab", "reset", "--start", "deployed", "--site", "recipes/site.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    let all = catalogue(&base);
    let rows = chosen();
    println!("{} of {} rows: {:?}", rows.len(), ROWS.len(), rows.iter().map(|r| r.0).collect::<Vec<_>>());
    let next = AtomicUsize::new(0);
    let bad = Mutex::new(Vec::new());
    let work = || {
        while let Some((fault, finding)) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
            let hands = all.iter().any(|(n, h)| n == name_of(fault) && *h);
            let own: PathBuf = dir.path().join(fault.replace(['@', '/'], "-"));
            let result = one(&base, &own, fault, finding, hands);
            println!("{fault}: {}", if result.is_ok() { "ok" } else { "FAILED" });
            std::fs::remove_dir_all(&own).ok();
            if let Err(e) = result {
                bad.lock().unwrap().push(format!("{fault}: {e}"));
            }
        }
    };
    std::thread::scope(|s| {
        s.spawn(work);
        s.spawn(work);
    });
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}
