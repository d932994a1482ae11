//! Promise: a served lab is described by its ready file, works for outside clients, and outlives them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use gpuhost_tests::Ran;
use gpuhost_tests::play::{Play, SMALL, all};
use gpuhost_tests::served::Served;
use serde_json::Value;

fn text(v: &Value, path: &str) -> String {
    v.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} in {v}")).to_owned()
}

/// Runs an outside program; `None`, and a line that says so, where it is missing.
fn outside(program: &str, args: &[&str]) -> Option<Ran> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(out) => Some(Ran::of(&out)),
        Err(_) => {
            println!("skipped: there is no {program}");
            None
        }
    }
}

fn ready_file(ready: &Value) {
    for key in
        ["url", "node", "token_id", "token_secret", "user", "password", "ca_file", "fingerprint", "storage", "bridge"]
    {
        assert!(ready["proxmox"][key].as_str().is_some_and(|t| !t.is_empty()), "proxmox.{key} in {ready}");
    }
    assert_eq!(ready["proxmox"]["template_vmid"], 800, "{ready}");
    assert!(text(ready, "/proxmox/url").starts_with("https://127.0.0.1:"), "{ready}");
    assert!(std::path::Path::new(&text(ready, "/kubernetes/kubeconfig")).exists());
    let hosts = ready["ssh"]["hosts"].as_object().unwrap();
    assert_eq!(hosts.keys().map(String::as_str).collect::<Vec<_>>(), ["brain", "muscle-a", "muscle-b", "shelf"]);
    for h in hosts.values() {
        assert!(h["host"] == "127.0.0.1" && h["port"].is_u64() && h["user"] == "ops", "{h}");
    }
    for path in ["/ssh/config", "/ssh/key", "/site"] {
        assert!(std::path::Path::new(&text(ready, path)).exists(), "{path}");
    }
    let kubeconfig = std::fs::read_to_string(text(ready, "/kubernetes/kubeconfig")).unwrap();
    assert!(kubeconfig.contains("\"current-context\": \"lab-"), "{kubeconfig}");
}

/// The Kubernetes API through a machine, as one reaches a cluster behind a jump host.
fn forward(config: &str) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api").display().to_string();
    let ssh = Command::new("ssh")
        .args(["-F", config, "-o", "ExitOnForwardFailure=yes", "-L", &format!("{socket}:127.0.0.1:6443"), "brain"])
        .arg("echo up; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut ssh) = ssh else { return println!("skipped: there is no ssh") };
    let mut line = String::new();
    BufReader::new(ssh.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    if let Some(ran) = outside("curl", &["-sSk", "--unix-socket", &socket, "https://localhost/version"]) {
        assert!(ran.code == 0 && ran.stdout.contains("\"Status\""), "{ran:?}");
    }
    drop(ssh.stdin.take());
    assert!(ssh.wait().unwrap().success());
}

fn clients(ready: &Value) {
    let auth = format!(
        "Authorization: PVEAPIToken={}={}",
        text(ready, "/proxmox/token_id"),
        text(ready, "/proxmox/token_secret")
    );
    let url = format!("{}/api2/json/version", text(ready, "/proxmox/url"));
    if let Some(ran) = outside("curl", &["-sS", "--cacert", &text(ready, "/proxmox/ca_file"), "-H", &auth, &url]) {
        assert!(ran.code == 0 && ran.stdout.contains("\"release\""), "{ran:?}");
    }
    let config = text(ready, "/ssh/config");
    forward(&config);
    if let Some(ran) = outside("ssh", &["-F", &config, "brain", "hostname; exit 7"]) {
        assert!(ran.code == 7 && ran.stdout == "brain\n", "{ran:?}");
        for (command, parts) in [
            ("sudo k3s kubectl get nodes", &["NAME ", "STATUS ", "brain ", "Ready"][..]),
            ("sudo kubectl get po -A -o wide --no-headers", &["kube-system ", "coredns", "Running"]),
            ("sudo kubectl get node brain -o name", &["node/brain\n"]),
            ("sudo crictl ps", &["CONTAINER ", "POD ID ", "Running"]),
            ("sudo crictl images", &["IMAGE ", "coredns"]),
            ("sudo crictl ps -q --name coredns | cut -c1-3 | wc -l", &["1\n"]),
            (
                "sudo crictl inspect $(sudo crictl ps -q --name coredns)",
                &["CONTAINER_RUNNING", "\"name\": \"coredns\""],
            ),
            ("sudo crictl exec $(sudo crictl ps -q --name coredns) sh -c 'echo in $0'", &["in "]),
            ("sudo crictl pods -o json", &["\"items\"", "SANDBOX_READY"]),
            ("sudo crictl version; sudo crictl stats", &["RuntimeName:  containerd", "CPU %"]),
            ("pgrep -a k3s", &[" server"]),
            ("sudo journalctl -u k3s --since today | tail -1", &["k3s["]),
            ("sudo systemctl reload k3s 2>&1 || true", &["Job type reload is not applicable for unit k3s.service."]),
            ("sudo kubectl top pods -A --sort-by=memory --sum | tail -1", &["Mi"]),
            ("sudo kubectl describe node brain", &["Name:  ", "Node Info:", "Kubelet Version:", "Events:"]),
            ("sudo kubectl describe -n kube-system deploy coredns", &["Kind:  ", "Deployment", "Spec:", "Image:"]),
            ("sudo kubectl logs -n kube-system deploy/coredns --tail=3", &[""]),
            ("sudo kubectl exec -n kube-system deploy/coredns -- sh -c 'echo in $0'", &["in "]),
            ("sudo kubectl exec -n kube-system deploy/coredns -- sh -c 'exit 3' || echo $?", &["3\n"]),
            (
                "sudo kubectl run w --image=busybox -- sleep 99999 >/dev/null; sudo kubectl wait pod/w --for=condition=Ready --timeout=300s >/dev/null; \
                 sudo kubectl exec w -- sh -c 'echo /tmp/a >/tmp/a; chmod 755 /tmp/a; /tmp/a' || echo $?; sudo kubectl delete pod w >/dev/null",
                &["254\n"],
            ),
            (
                "echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: mine}, data: {k: v}}' | sudo kubectl -n default apply -f -",
                &["configmap/mine created\n"],
            ),
            ("sudo kubectl -n default delete cm mine", &["configmap \"mine\" deleted from default namespace\n"]),
            ("sudo kubectl wait node/brain --for=condition=Ready", &["node/brain condition met\n"]),
            ("sudo kubectl -n kube-system rollout status deploy/coredns", &["successfully rolled out"]),
            ("sudo kubectl version", &["Client Version: v1.", "Kustomize Version: v5.", "Server Version: v1."]),
            ("sudo kubectl top nodes", &["NAME ", "CPU(cores)", "brain "]),
            (
                "sudo kubectl drain muscle-a --ignore-daemonsets --delete-emptydir-data --force",
                &["node/muscle-a cordoned\n", "node/muscle-a drained\n"],
            ),
            ("sudo kubectl uncordon muscle-a", &["node/muscle-a uncordoned\n"]),
            ("sudo k3s secrets-encrypt status", &["Encryption Status: "]),
            ("echo given | sudo kubectl exec -i -n kube-system deploy/coredns -- cat", &["given\n"]),
            ("sudo k3s certificate check --output table", &["EXPIRES", "OK"]),
            ("curl -sk https://127.0.0.1:6443/readyz", &["\"reason\": \"Unauthorized\""]),
            (
                "sudo openssl x509 -in /var/lib/rancher/k3s/server/tls/server-ca.crt -noout -subject -enddate -checkend 60",
                &["subject=CN = ", "notAfter=", "Certificate will not expire"],
            ),
        ] {
            let ran = outside("ssh", &["-F", &config, "brain", command]).unwrap();
            assert!(ran.code == 0 && parts.iter().all(|p| ran.stdout.contains(p)), "{command}: {ran:?}");
        }
        let ran = outside("ssh", &["-F", &config, "brain", "kubectl get nodes"]).unwrap();
        assert!(ran.code == 1 && ran.stderr.contains("k3s.yaml: permission denied"), "{ran:?}");
        let ran = outside("ssh", &["-F", &config, "muscle-a", "frobnicate"]).unwrap();
        assert!(ran.code == 96 && ran.stderr.contains("not simulated"), "{ran:?}");
        let key = std::path::Path::new(&config).with_file_name("wrong_key").display().to_string();
        if !std::path::Path::new(&key).exists() {
            outside("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        }
        let (port, at) = (ready["ssh"]["hosts"]["brain"]["port"].to_string(), "ops@127.0.0.1");
        let mut wrong = vec!["-F", "none", "-p", &port, "-i", &key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
        wrong.extend(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", at, "true"]);
        let ran = outside("ssh", &wrong).unwrap();
        assert!(ran.code == 255 && ran.stderr.contains("Permission denied"), "only the right key logs in: {ran:?}");
    }
    let kubeconfig = format!("--kubeconfig={}", text(ready, "/kubernetes/kubeconfig"));
    if let Some(ran) = outside("kubectl", &[&kubeconfig, "get", "nodes", "-o", "wide"]) {
        assert!(ran.code == 0 && ran.stdout.matches(" Ready ").count() == 3, "{ran:?}");
        let ran = outside("kubectl", &[&kubeconfig, "get", "pods", "-A"]).unwrap();
        assert!(ran.code == 0 && ran.stdout.contains("kube-system"), "{ran:?}");
    }
}

/// A run that is somebody else's process, with a state directory of its own and no `--lab`.
fn elsewhere(p: &Play, lab: &Served, recipe: &str, more: &[&str]) -> Command {
    let site = lab.site.display().to_string();
    let mut c = p.b.command(&[&["run", recipe, "--site", &site, "--json"], more].concat());
    c.env("GPUHOST_STATE_DIR", p.b.path("elsewhere"));
    c
}

#[test]
fn a_served_lab_keeps_its_promises() {
    let p = Play::deployed();
    let lab = Served::at(&p.b, &p.b.path("state"), SMALL, &[]);
    all(&[
        ("the ready file", &|| ready_file(&lab.ready)),
        ("outside clients", &|| clients(&lab.ready)),
        ("a run of another process with its site file", &|| {
            let ran = Ran::of(&elsewhere(&p, &lab, "recipes/deploy.rhai", &[]).output().unwrap()).expect(0);
            let end = ran.finished();
            assert_eq!((&end["changed"], &end["lab"]), (&0.into(), &true.into()), "{end}");
            let ran = Ran::of(&elsewhere(&p, &lab, "recipes/verify.rhai", &[]).output().unwrap()).expect(0);
            assert_eq!(ran.finished()["lab"], true);
        }),
        ("it goes on when a client dies in the middle", &|| {
            let text = "let h = ssh::connect(\"muscle-a\");\nh.write_file(\"/etc/half\", \"done\\n\");\nprint(\"half\");\nsleep(200.hours);\n";
            let recipe = p.file("dies.rhai", text);
            let mut child = elsewhere(&p, &lab, &recipe, &[]).stdout(Stdio::piped()).spawn().unwrap();
            let seen = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map_while(Result::ok)
                .any(|l| l.contains("\"text\":\"half\""));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(seen, "it got so far");
            let recipe = p.file("looks.rhai", "print(ssh::connect(\"muscle-a\").read_file(\"/etc/half\"));");
            let ran = Ran::of(&elsewhere(&p, &lab, &recipe, &[]).output().unwrap()).expect(0);
            assert!(ran.stdout.contains("done"), "{}", ran.stdout);
            clients(&lab.ready);
        }),
        ("it is one world with `--lab` of its own state directory", &|| {
            let ran = p.json("print(ssh::connect(\"muscle-a\").read_file(\"/etc/half\"));", &[]).expect(0);
            assert!(ran.stdout.contains("done"), "{}", ran.stdout);
        }),
        ("it is not served twice, and not started over under its clients", &|| {
            let drift = ["drift", "--lab", "--site", SMALL];
            for args in [&["lab", "serve", "--site", SMALL][..], &["lab", "reset", "--site", SMALL], &drift] {
                let ran = p.b.run(args);
                assert!(ran.code == 4 && ran.stderr.contains("stop `gpuhost lab serve`"), "{args:?}: {ran:?}");
            }
        }),
        ("its status is that of now", &|| {
            let _ = p.json("proxmox::connect(site().proxmox).get_vm(\"shelf\").stop();", &["--yes"]).expect(0);
            let ran = p.b.run(&["lab", "status", "--site", SMALL]).expect(0);
            let shelf = ran.stdout.lines().find(|l| l.contains("shelf")).unwrap();
            assert!(shelf.contains("stopped"), "{}", ran.stdout);
            let _ = p.json("proxmox::connect(site().proxmox).get_vm(\"shelf\").start();", &[]).expect(0);
        }),
        ("what it has met is that of now, whatever is saved", &|| {
            let labs = std::fs::read_dir(p.b.path("state/lab")).unwrap().flatten();
            let saved = labs.map(|e| e.path().join("world.json")).find(|f| f.exists()).unwrap();
            std::fs::remove_file(saved).unwrap();
            let ran = p.b.run(&["lab", "grades", "--met", "--site", SMALL]).expect(0);
            assert!(ran.stdout.contains("Proxmox API"), "{}", ran.stdout);
        }),
    ]);
    lab.stop();
    let ran = p.b.run(&["lab", "status", "--site", SMALL]).expect(0);
    assert!(ran.stdout.contains("muscle-a") && ran.stdout.contains("at rest"), "{}", ran.stdout);
    assert!(
        p.json("print(ssh::connect(\"muscle-a\").read_file(\"/etc/half\"));", &[]).expect(0).stdout.contains("done")
    );
}
