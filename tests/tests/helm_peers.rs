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

/// A folder whose `helm` is this one, for PATH.
fn only(b: &Bench, helm: PathBuf) -> PathBuf {
    let bin = b.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(helm, bin.join("helm")).unwrap();
    bin
}

/// Serves the files of a folder over HTTP until the test program ends; the address.
fn shelf(dir: PathBuf) -> String {
    use std::io::{BufRead, BufReader, Write};
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", socket.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                if line.is_empty() {
                    break;
                }
                if head.is_empty() {
                    head = line;
                }
            }
            let name = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match std::fs::read(dir.join(&name)) {
                Ok(b) if !name.contains("..") => ("200 OK", b),
                _ => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    at
}

/// What a helm program is asked without a cluster.
const ASKED: &str = r#"
let objects = helm::template("shop", "demo", #{ namespace: "n", values: #{ greeting: "hi", extra: true } });
require(objects.len() == 2, `${objects}`);
let names = objects.map(|o| o.metadata.name);
require("shop" in names && "shop-extra" in names, `${names}`);
for o in objects { if o.metadata.name == "shop" { require(o.data.greeting == "hi", `${o}`); } }
let far = helm::template("shop", "demo", #{ repo: "REPO", version: "1.2.3" });
require(far.len() == 1 && far[0].data.greeting == "hello", `${far}`);
try { helm::template("shop", "demo", #{ kube_version: "v1.20.0" }); throw "rendered"; } catch (err) {
    require(err != "rendered" && err.kind == "failed" && `${err.causes}`.contains("kubeVersion"), `${err}: ${err.causes}`);
}

let found = helm::lint("demo", #{});
require(found.filter(|f| f.level == "error").len() == 0 && found.filter(|f| f.text.contains("icon")).len() == 1, `${found}`);
let broken = helm::lint("broken", #{});
require(broken.filter(|f| f.level == "error").len() > 0, `${broken}`);
try { helm::lint("nowhere", #{}); throw "linted"; } catch (err) { require(err != "linted" && err.kind == "not_found", `${err}`); }

let list = helm::versions("REPO", "demo");
require(list.len() == 2 && list[0].version == "1.3.0" && list[1].version == "1.2.3" && list[1].app_version == "9", `${list}`);
try { helm::versions("REPO", "nothing"); throw "found"; } catch (err) { require(err != "found" && err.kind == "not_found", `${err}`); }
try { helm::versions("http://127.0.0.1:9", "demo"); throw "found"; } catch (err) { require(err != "found" && err.kind == "unreachable", `${err}`); }
"#;

#[test]
fn charts_are_rendered_linted_and_listed() {
    for name in ["helm-v31", "helm-v37"] {
        let Some(helm) = peer(name) else { continue };
        let b = Bench::new();
        let bin = only(&b, helm);
        let dir = chart(&b);
        let home = dir.parent().unwrap().to_owned();
        std::fs::create_dir_all(home.join("broken/templates")).unwrap();
        std::fs::write(home.join("broken/Chart.yaml"), "apiVersion: v2\nname: broken\nversion: 0.1.0\n").unwrap();
        std::fs::write(home.join("broken/templates/x.yaml"), "{{ .Values.a.b.c }}\n").unwrap();
        let repo = b.path("repo");
        std::fs::create_dir_all(&repo).unwrap();
        let helm = |args: &[&str]| {
            let out = Command::new(bin.join("helm")).args(args).current_dir(&home).output().unwrap();
            assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        for version in ["1.2.3", "1.3.0"] {
            helm(&["package", "demo", "--version", version, "-d", repo.to_str().unwrap()]);
        }
        helm(&["repo", "index", repo.to_str().unwrap()]);
        let at = shelf(repo);
        let site = granted(&b);
        let recipe = b.path("asked.rhai");
        std::fs::write(&recipe, ASKED.replace("REPO", &at)).unwrap();
        let mut c = b.command(&["run", recipe.to_str().unwrap(), "--lab", "--json", "--yes", "--site", &site]);
        let ran = gpuhost_tests::Ran::of(&c.env("PATH", &bin).output().unwrap());
        assert_eq!(ran.code, 0, "{name}: {:#}\n{}", ran.finished()["error"], ran.stderr);
        assert_eq!(ran.finished()["changed"], 0, "{name}: questions change nothing");
        // without the grant nothing is started
        let mut c = b.command(&["run", recipe.to_str().unwrap(), "--lab", "--json", "--yes", "--site", SITE]);
        let ran = gpuhost_tests::Ran::of(&c.env("PATH", &bin).output().unwrap());
        assert_eq!(ran.code, 4, "{name}: {:#}", ran.finished()["error"]);
    }
}

/// What comes of a chart at hand where there is a helm that renders it.
const RENDERED: &str = r#"
let c = k3s::connect(site().hosts("server"));
let o = #{ chart: "demo-1.2.3.tgz", version: "1.2.3", namespace: "NAME", values: #{ extra: true, greeting: "no" }, set: #{ greeting: "hi" } };
let r = c.ensure_release("NAME", o);
require(r.status().chart == "demo" && r.status().version == "1.2.3" && r.status().app_version == "9", `${r.status()}`);
require(r.values().greeting == "hi", `${r.values()}`);
require(c.get("configmap", "NAME", #{ namespace: "NAME" }).data.greeting == "hi", "its object with its values");
require(c.find("configmap", "NAME-extra", #{ namespace: "NAME" }) != (), "what a value brings");
require(c.get("configmap", "NAME-before", #{ namespace: "NAME" }).data.kind == "install", "a hook of the installation");
require(r.manifest().contains("NAME-extra") && !r.manifest().contains("NAME-before"), r.manifest());
require(r.check_drift().len() == 0, `drift: ${r.check_drift()}`);
o.values.extra = false;
c.ensure_release("NAME", o);
require(c.find("configmap", "NAME-extra", #{ namespace: "NAME" }) == (), "an upgrade takes away what is no longer made");
require(c.get("configmap", "NAME-before", #{ namespace: "NAME" }).data.kind == "upgrade", "a hook of the upgrade");
require(r.history().len() == 2 && r.history()[0].status == "superseded", `${r.history()}`);
try { c.ensure_release("NAME-bad", #{ chart: "broken-0.1.0.tgz", version: "0.1.0", namespace: "NAME", timeout: 5.minutes }); throw "installed"; } catch (err) {
    require(err != "installed" && `${err.causes}${err.last}`.contains("nil pointer"), `${err}: ${err.causes} ${err.last}`);
}
"#;

/// And where there is none: the release is recorded, and it is said that nothing runs for it.
const RECORDED: &str = r#"
let c = k3s::connect(site().hosts("server"));
let r = c.ensure_release("plain", #{ chart: "demo-1.2.3.tgz", version: "1.2.3", namespace: "plain", values: #{ greeting: "hi" } });
require(r.status().chart == "demo" && r.values().greeting == "hi", `${r.status()}`);
require(c.find("configmap", "plain", #{ namespace: "plain" }) == () && r.manifest() == "", r.manifest());
"#;

#[test]
fn charts_at_hand_are_rendered_where_there_is_a_helm() {
    let b = Bench::new();
    let mut deployed = false;
    for name in ["helm-v31", "helm-v37"] {
        let Some(helm) = peer(name) else { continue };
        let bin = b.path(&format!("bin-{name}"));
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(helm, bin.join("helm")).unwrap();
        let start = |text: &str, helm: bool, yes: bool| {
            std::fs::write(b.path("step.rhai"), text.replace("NAME", name)).unwrap();
            let step = b.path("step.rhai").display().to_string();
            let mut args = vec!["run", step.as_str(), "--lab", "--json", "--site", SITE];
            args.extend(yes.then_some("--yes"));
            let empty = b.path("no-programs");
            let ran = gpuhost_tests::Ran::of(
                &b.command(&args).env("PATH", if helm { &bin } else { &empty }).output().unwrap(),
            );
            (ran.code, format!("{:#}\n{}", ran.finished(), ran.stderr))
        };
        if !deployed {
            archives(&b, &bin);
            let _ = b.run(&["run", "recipes/deploy.rhai", "--lab", "--json", "--yes", "--site", SITE]).expect(0);
            let (code, said) = start(RECORDED, false, true);
            assert_eq!(code, 0, "{said}");
            assert!(said.contains("the workload of chart `demo`"), "the run's remark: {said}");
            deployed = true;
        }
        let (code, said) = start(RENDERED, true, true);
        assert_eq!(code, 0, "{name}: {said}");
        let delete =
            "k3s::connect(site().hosts(\"server\")).delete(\"helmchart\", \"NAME\", #{ namespace: \"kube-system\" });";
        let (code, said) = start(delete, true, false);
        assert_eq!(code, 4, "{said}");
        let claim = said.find(&format!("PersistentVolumeClaim {name}/{name}-data"));
        let release = said.find(&format!("release {name}/{name} (demo 1.2.3)"));
        assert!(claim.is_some() && claim < release, "the question names the claim first, then the release: {said}");
    }
}

const HOOKED: &str = r#"
let c = k3s::connect(site().hosts("server"));
let at = #{ namespace: "hooked" };
c.ensure_release("hooked", #{ chart: "hooked-0.1.0.tgz", version: "0.1.0", namespace: "hooked" });
let before = c.get("job", "before", at).status;
let made = c.get("configmap", "hooked", at).metadata.creationTimestamp;
let after = c.get("job", "after", at).status;
require(before.startTime < before.completionTime && before.completionTime <= made, `${before} ${made}`);
require(made <= after.startTime && after.startTime < after.completionTime, `${made} ${after}`);
let said = "";
try {
    c.ensure_release("refused", #{ chart: "refused-0.1.0.tgz", version: "0.1.0", namespace: "hooked", timeout: 3.minutes });
} catch (err) { said = `${err} ${err.causes} ${err.last}`; }
print(`SAID ${said}`);
require(c.find("configmap", "refused", at) == (), "nothing of the chart was made");
require(type_of(c.find_release("refused", at)) == "()", "and no release");
"#;

/// Hooks of a chart are waited for, in the moments they name; one that fails keeps the release away.
#[test]
fn hooks_of_a_rehearsed_chart_are_waited_for() {
    let Some(helm) = peer("helm-v31") else { return };
    let b = Bench::new();
    let bin = only(&b, helm);
    for (name, script) in [("hooked", "sleep 20"), ("refused", "echo no; exit 3")] {
        let dir = b.path(name).join("templates");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.parent().unwrap().join("Chart.yaml"),
            format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n"),
        )
        .unwrap();
        let job = |job: &str, event: &str| {
            format!(
                "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {job}\n  annotations: {{helm.sh/hook: {event}}}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: x, image: 'busybox:1.37', command: [sh, -c, '{script}']}}]\n---\n"
            )
        };
        let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {a: b}\n";
        let text = [job("before", "pre-install"), job("after", "post-install"), own.to_owned()].concat();
        std::fs::write(dir.join("all.yaml"), text).unwrap();
        let out = Command::new(bin.join("helm")).args(["package", name]).current_dir(b.path(".")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let _ = b.run(&["lab", "reset", "--start", "deployed", "--site", SITE]).expect(0);
    std::fs::write(b.path("step.rhai"), HOOKED).unwrap();
    let step = b.path("step.rhai").display().to_string();
    let mut c = b.command(&["run", &step, "--lab", "--json", "--yes", "--site", SITE]);
    let ran = gpuhost_tests::Ran::of(&c.env("PATH", &bin).output().unwrap()).expect(0);
    let said = ran.said("print").join("\n");
    assert!(said.contains("BackoffLimitExceeded"), "{said}");
}

/// A chart with a claim and hooks, and one that cannot be rendered, packed.
fn archives(b: &Bench, bin: &Path) {
    let dir = chart(b);
    let home = dir.parent().unwrap();
    std::fs::write(
        dir.join("templates/more.yaml"),
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: {{ .Release.Name }}-data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-before\n  annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}\ndata: {kind: {{ if .Release.IsUpgrade }}upgrade{{ else }}install{{ end }}}\n",
    )
    .unwrap();
    std::fs::create_dir_all(home.join("broken/templates")).unwrap();
    std::fs::write(home.join("broken/Chart.yaml"), "apiVersion: v2\nname: broken\nversion: 0.1.0\n").unwrap();
    std::fs::write(home.join("broken/templates/x.yaml"), "{{ .Values.a.b.c }}\n").unwrap();
    for name in ["demo", "broken"] {
        let out = Command::new(bin.join("helm")).args(["package", name]).current_dir(home).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn a_helm_program_is_the_second_driver() {
    for name in ["helm-v31", "helm-v37"] {
        if let Some(helm) = peer(name) {
            second_driver(helm);
        }
    }
}

fn second_driver(helm: PathBuf) {
    let b = Bench::new();
    let bin = only(&b, helm);
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
