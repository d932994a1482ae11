//! Releases that the real helm 3 and 4 wrote, read and rolled back by us; what we and the lab wrote, read by real helm.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gpuhost_tests::Bench;
use serde_json::Value;

const SITE: &str = "tests/sites/small.toml";

/// A helm program that `.ci/peers` has installed.
fn peer(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    let dir = std::env::var_os("GPUHOST_PEERS").map(PathBuf::from).or_else(|| Some(home?.join("gpuhost-peers")));
    let found = dir.map(|d| d.join(name)).filter(|p| p.exists());
    if found.is_none() {
        println!("SKIPPED: no {name} (install it with .ci/peers)");
    }
    found
}

/// A served lab; stopped when dropped.
struct Served {
    child: Child,
    kubeconfig: String,
}

impl Served {
    fn start(b: &Bench) -> Served {
        let file = b.path("ready.json");
        let ready = file.display().to_string();
        let args = ["lab", "serve", "--ready-file", ready.as_str(), "--site", SITE, "--start", "deployed"];
        let child = b.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        let mut served = Served { child, kubeconfig: String::new() };
        loop {
            let said = std::fs::read_to_string(&file).ok().and_then(|t| serde_json::from_str::<Value>(&t).ok());
            let config = said
                .and_then(|r| r["kubernetes"]["kubeconfig"].as_str().or(r["kubeconfig"].as_str()).map(str::to_owned));
            if let Some(c) = config.filter(|c| Path::new(c).exists()) {
                served.kubeconfig = c;
                return served;
            }
            assert!(Instant::now() < deadline && served.child.try_wait().unwrap().is_none(), "the lab is not served");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn helm(&self, program: &Path, args: &[&str]) -> String {
        let out = Command::new(program).args(args).env("KUBECONFIG", &self.kubeconfig).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "helm {args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chart(b: &Bench) -> PathBuf {
    let dir = b.path("demo");
    std::fs::create_dir_all(dir.join("templates")).unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    put("Chart.yaml", "apiVersion: v2\nname: demo\nversion: 1.2.3\nappVersion: '9'\nkubeVersion: '>=1.30.0-0'\n");
    put("values.yaml", "greeting: hello\nextra: false\n");
    put(
        "templates/all.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  greeting: {{ .Values.greeting | quote }}\n{{- if .Values.extra }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-extra\ndata: {}\n{{- end }}\n",
    );
    dir
}

fn run(b: &Bench, text: &str) -> gpuhost_tests::Ran {
    let path = b.path("step.rhai");
    std::fs::write(&path, text).unwrap();
    b.run(&["run", path.to_str().unwrap(), "--lab", "--json", "--yes", "--site", SITE])
}

/// What we make of a release that helm has installed and upgraded.
const READ: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
let r = cluster.find_release("NAME", #{ namespace: "NAME" });
let history = r.history();
require(history.len() == 2 && history[0].status == "superseded" && history[1].status == "deployed", `${history}`);
require(r.status().chart == "demo" && r.status().version == "1.2.3" && r.status().app_version == "9", `${r.status()}`);
require(r.values().greeting == "two" && r.values().extra == true, `${r.values()}`);
require(r.manifest().contains("NAME-extra"), r.manifest());
require(r.check_drift().len() == 0, `drift: ${r.check_drift()}`);
let differ = r.check_values(#{ greeting: "three", extra: true });
require(differ.len() == 1 && differ[0].what == "greeting" && differ[0].before == "two", `${differ}`);

// somebody changes it by hand
cluster.apply(#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "NAME", namespace: "NAME" }, data: #{ greeting: "mine" } }, #{ take_over: true });
let drift = r.check_drift();
require(drift.len() == 1 && drift[0].what.contains("data.greeting"), `drift: ${drift}`);

require(r.rollback(1) == 3, "a new revision");
require(cluster.get("configmap", "NAME", #{ namespace: "NAME" }).data.greeting == "one", "the old manifest is back");
require(cluster.find("configmap", "NAME-extra", #{ namespace: "NAME" }) == (), "what it lacks is gone");
require(r.rollback(1) != 3 || r.history().len() >= 3, "history grows");
"#;

#[test]
fn real_helm_and_we_read_each_other() {
    let programs: Vec<(&str, PathBuf)> =
        [("three", "helm-v31"), ("four", "helm-v37")].into_iter().filter_map(|(n, p)| Some((n, peer(p)?))).collect();
    if programs.is_empty() {
        return;
    }
    let b = Bench::new();
    let served = Served::start(&b);
    let dir = chart(&b).display().to_string();
    for (name, helm) in &programs {
        let set = |v: &'static str| ["--set", v];
        served.helm(
            helm,
            &[&["install", name, &dir, "-n", name, "--create-namespace"], &set("greeting=one")[..]].concat(),
        );
        served.helm(helm, &[&["upgrade", name, &dir, "-n", name], &set("greeting=two,extra=true")[..]].concat());
        let ran = run(&b, &READ.replace("NAME", name));
        assert_eq!(ran.code, 0, "{name}: {:#}\n{}", ran.finished()["error"], ran.stderr);

        // real helm reads what we wrote, and goes on from there
        let history: Value =
            serde_json::from_str(&served.helm(helm, &["history", name, "-n", name, "-o", "json"])).unwrap();
        let rows = history.as_array().unwrap();
        let last = rows.last().unwrap();
        assert_eq!(
            (last["status"].as_str(), last["description"].as_str()),
            (Some("deployed"), Some("Rollback to 1")),
            "{history}"
        );
        assert_eq!(rows.iter().filter(|r| r["status"] == "deployed").count(), 1, "{history}");
        assert!(served.helm(helm, &["get", "values", name, "-n", name]).contains("greeting: one"));
        assert!(served.helm(helm, &["get", "manifest", name, "-n", name]).contains("greeting: \"one\""));
        served.helm(helm, &["rollback", name, "2", "-n", name]);
        assert!(served.helm(helm, &["status", name, "-n", name]).contains("deployed"));

        // and what the lab's helm-controller wrote
        let listed = served.helm(helm, &["list", "-A", "-o", "json"]);
        assert!(listed.contains("csi-driver-nfs"), "{listed}");
        let own = served.helm(helm, &["history", "csi-driver-nfs", "-n", "kube-system", "-o", "json"]);
        assert!(own.contains("Install complete"), "{own}");
        assert!(
            served.helm(helm, &["get", "manifest", "csi-driver-nfs", "-n", "kube-system"]).contains("csi-nfs-node")
        );
    }
}

/// The site with the grant to run helm.
fn granted(b: &Bench) -> String {
    let text = std::fs::read_to_string(gpuhost_tests::root().join(SITE)).unwrap();
    let path = b.path("site.toml");
    std::fs::write(&path, format!("{text}\n[permissions]\nprograms = [\"helm\"]\n")).unwrap();
    path.display().to_string()
}

#[test]
fn a_helm_program_is_the_second_driver() {
    let Some(helm) = peer("helm-v37") else { return };
    let b = Bench::new();
    let bin = b.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(helm, bin.join("helm")).unwrap();
    let dir = chart(&b);
    let packed =
        Command::new(bin.join("helm")).args(["package", "demo"]).current_dir(dir.parent().unwrap()).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let site = granted(&b);
    let start = |recipe: &str, site: &str| {
        let mut c = b.command(&["run", recipe, "--lab", "--json", "--yes", "--site", site]);
        let out = c.env("PATH", &bin).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    assert_eq!(start("recipes/deploy.rhai", &site).0, Some(0));
    let recipe = b.path("step.rhai");
    let text = "let c = k3s::connect(site().hosts(\"server\"));\nlet o = #{ chart: \"demo-1.2.3.tgz\", version: \"1.2.3\", namespace: \"shop\", driver: \"cli\", values: #{ greeting: \"hi\", greting: \"typo\" } };\nlet r = c.ensure_release(\"demo\", o);\nprint(`VALUES ${r.values()}`);\n";
    std::fs::write(&recipe, text).unwrap();
    let (code, out) = start(recipe.to_str().unwrap(), &site);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("no value `greting`") && out.contains("did you mean `greeting`"),
        "inert values are named: {out}"
    );
    let (code, out) = start(recipe.to_str().unwrap(), &site);
    assert!(code == Some(0) && out.contains("\"changed\":0"), "a second run changes nothing: {out}");
    // without the grant nothing is started
    let (code, out) = start(recipe.to_str().unwrap(), SITE);
    assert_eq!(code, Some(4), "{out}");
    assert!(out.contains("programs"), "the hint names the grant: {out}");
}
