//! The safety rules that concern the cluster and its data (6, 7, 10, 11, 12, 13), and what our own client does inside
//! it: commands in containers, kubeconfig files, rotations. One small deployed lab, one case after the other.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::os::unix::fs::PermissionsExt;

use gpuhost_tests::{Bench, Ran};

const CONNECT: &str = "let cluster = k3s::connect(site().hosts(\"server\"));\n\
    fn failed(what, work) { try { work.call(); } catch (err) { return err; } throw `${what}: nothing failed`; }\n";

struct Small {
    b: Bench,
}

impl Small {
    /// The small site, deployed.
    fn deployed() -> Small {
        let b = Bench::new();
        let text = std::fs::read_to_string(gpuhost_tests::root().join("tests/sites/small.toml")).unwrap();
        std::fs::write(b.path("site.toml"), text).unwrap();
        let small = Small { b };
        let _ = small.recipe("recipes/deploy.rhai", &["--yes"]).expect(0);
        small
    }

    fn recipe(&self, recipe: &str, more: &[&str]) -> Ran {
        let site = self.b.path("site.toml").display().to_string();
        let mut args = vec!["run", recipe, "--lab", "--json", "--site", &site];
        args.extend_from_slice(more);
        self.b.run(&args)
    }

    /// Runs a script against the cluster.
    fn script(&self, text: &str, more: &[&str]) -> Ran {
        let path = self.b.path("step.rhai");
        std::fs::write(&path, format!("{CONNECT}{text}")).unwrap();
        self.recipe(path.to_str().unwrap(), more)
    }

    /// Runs a script that has to end well.
    fn good(&self, name: &str, text: &str) {
        let ran = self.script(text, &["--yes"]);
        assert_eq!(ran.code, 0, "{name}: {:#}\n{}", ran.finished()["error"], ran.stderr);
        println!("{name}: ok");
    }

    /// Runs a script that nobody answers for: it is refused, and says `word` and why.
    fn refused(&self, name: &str, text: &str, word: &str) {
        let ran = self.script(text, &[]);
        let error = ran.finished()["error"].to_string();
        assert_eq!(ran.code, 4, "{name}: {error}\n{}", ran.stderr);
        assert!(error.contains(word), "{name}: no `{word}` in {error}");
        println!("{name}: refused");
    }
}

/// Commands in containers and kubeconfig files by our own client.
const INSIDE: &str = r#"
cluster.apply(#{ apiVersion: "v1", kind: "Pod", metadata: #{ name: "box" }, spec: #{
    containers: [#{ name: "c", image: "busybox", command: ["sleep", "infinity"] }, #{ name: "d", image: "busybox", command: ["sleep", "infinity"] }],
} });
cluster.wait("pod", "box", "condition=Ready", 5.minutes);
let end = cluster.exec("box", ["sh", "-c", "echo out; echo bad >&2; exit 3"], #{ ok_codes: [3] });
require(end.stdout == "out\n" && end.stderr == "bad\n" && end.code == 3, `exec: ${end}`);
require(cluster.exec("box", ["cat"], #{ stdin: "through", container: "d" }).stdout == "through", "standard input");
let err = failed("code", || cluster.exec("box", ["sh", "-c", "echo why >&2; exit 9"]));
require(err.kind == "failed" && err.message.contains("exit code 9") && err.causes[0].contains("why"), `${err}`);
let err = failed("program", || cluster.exec("box", ["no-such-program"]));
require(err.kind == "failed" && `${err.causes}`.contains("not found"), `missing program: ${err.causes}`);
let err = failed("container", || cluster.exec("box", ["true"], #{ container: "nope" }));
require(err.kind == "failed" && err.message.contains("nope"), `missing container: ${err}`);
require(failed("pod", || cluster.exec("nobody", ["true"])).kind == "not_found", "a missing pod");
let err = failed("time", || cluster.exec("box", ["sleep", "600"], #{ timeout: 5.seconds }));
require(err.kind == "timeout", `time limit: ${err}`);
require(failed("port", || cluster.port_forward("box", 70000, #{})).kind == "invalid", "no port");
require(failed("pod", || cluster.port_forward("nobody", 80, #{})).kind == "not_found", "a missing pod");
let port = cluster.port_forward("box", 80, #{});
require(port > 1023 && port == cluster.port_forward("box", 80, #{}), "one port for one goal");
cluster.delete("pod", "box");

require(cluster.write_kubeconfig("kc/config", #{}), "written");
require(!cluster.write_kubeconfig("kc/config", #{}), "and left alone");
require(cluster.write_kubeconfig("kc/merged", #{ merge: true }), "merged");
require(!cluster.write_kubeconfig("kc/merged", #{ merge: true }), "and left alone");
let err = failed("address", || cluster.write_kubeconfig("kc/other", #{ address: "192.168.50.99" }));
require(err.kind == "invalid" || err.kind == "unreachable", `an address the certificate does not carry: ${err}`);
"#;

/// Rules 6 and 10: other owners, default reclaim, what goes with a namespace.
const OWNERS: &str = r#"
// Rule 6: what Fleet has set belongs to Fleet, what a release has belongs to Helm.
cluster.apply(#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "fleets", labels: #{ "objectset.rio.cattle.io/hash": "abc" },
    annotations: #{ "objectset.rio.cattle.io/id": "default-bundle", "meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "default" } }, data: #{ a: "1" } });
// Rule 10: what may hold data is retained unless somebody says otherwise.
require(cluster.get("sc", "shelf").reclaimPolicy == "Retain", "the NFS class retains");
cluster.ensure_storage_class("plain", #{ provisioner: "example.com/none" });
require(cluster.get("sc", "plain").reclaimPolicy == "Retain", "retained by default");
cluster.ensure_namespace("shop");
cluster.apply(#{ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: #{ name: "till", namespace: "shop" }, spec: #{
    accessModes: ["ReadWriteOnce"], storageClassName: "shelf", resources: #{ requests: #{ storage: "1Gi" } } } });
cluster.wait("pvc", "till", "phase=Bound", 2.minutes, #{ namespace: "shop" });
"#;

/// Somebody else's object.
const FOREIGN: &str = r#"
cluster.apply(#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "fleets" }, data: #{ a: "2" } });
"#;

/// Rule 11: a file system is made only on a device named by id that is blank.
const DISKS: &str = r#"
let host = site().hosts("storage")[0];
let err = failed("letter", || nfs::ensure_server(host, #{ device: "/dev/sda", path: "/export/other", label: "other" }));
require(err.kind == "invalid" && err.message.contains("no device by id"), `a device by its letter: ${err}`);
let used = site().data_device("shelf");
let err = failed("used", || nfs::ensure_server(host, #{ device: used, path: "/export/other", label: "other" }));
require(err.kind == "conflict" && err.message.contains("not blank"), `a disk in use: ${err}`);
"#;

/// Rancher 2.13 takes Kubernetes below 1.35.
const CHARTS: &str = r#"
// Rancher's chart makes an issuer of cert-manager.
cluster.ensure_release("cert-manager", #{ chart: "cert-manager", repo: "https://charts.jetstack.io", version: "1.20.2",
    namespace: "cert-manager", values: #{ crds: #{ enabled: true } } });
cluster.ensure_release("rancher", #{ chart: "rancher", repo: "https://releases.rancher.com/server-charts/stable", version: "2.13.6",
    namespace: "cattle-system", values: #{ hostname: "rancher.attic.lan", replicas: 1 }, wait: false });
// The kinds of a chart are checked by their definitions.
let certificate = |spec| #{ apiVersion: "cert-manager.io/v1", kind: "Certificate", metadata: #{ name: "web" }, spec: spec };
let err = failed("a misspelt field", || cluster.apply(certificate.call(#{ secretNam: "web", issuerRef: #{ name: "ca" } })));
require(err.kind == "invalid" && `${err.message}${err.causes}`.contains("spec.secretNam"), `${err}: ${err.causes}`);
require(cluster.check_charts("v1.34.9+k3s1").len() == 0, "this minor is fine");
let found = cluster.check_charts("v1.36.3+k3s1");
require(found.len() == 1 && found[0].contains("`rancher` 2.13.6") && found[0].contains("< 1.35"), `${found}`);
"#;

/// Rotations leave a cluster that deploys without a change, and the old token is kept for older snapshots.
fn a_rotation_and_the_way_back(small: &Small) {
    let state = |name: &str| {
        let labs = std::fs::read_dir(small.b.path("state/lab")).unwrap().flatten();
        let files = labs.flat_map(|l| std::fs::read_dir(l.path().join("state")).into_iter().flatten().flatten());
        files
            .map(|f| f.path())
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name)))
            .collect::<Vec<_>>()
    };
    let token = || std::fs::read_to_string(state("attic_token").into_iter().min().unwrap()).unwrap();
    let old = token();
    let saved = small
        .script(
            "let s = site().hosts(\"server\")[0];\nlet name = cluster.snapshot_etcd(s, \"old\");\n\
             cluster.copy_snapshot(s, name, \"backup\");\nprint(`SAVED ${name}`);\n",
            &["--yes"],
        )
        .expect(0);
    let snapshot = saved.said("print").into_iter().find_map(|m| m.strip_prefix("SAVED ").map(str::to_owned)).unwrap();
    let ran = small.recipe("recipes/rotate-token.rhai", &["--yes"]).expect(0);
    assert!(!ran.stdout.contains(old.trim()) && !ran.stdout.contains(token().trim()), "no token is printed");
    assert_ne!(token(), old);
    assert!(state("attic_token.before-").iter().any(|p| std::fs::read_to_string(p).unwrap().trim() == old.trim()));
    // Rule 13: a snapshot whose token is not at hand is refused before anything stops.
    let new = token();
    let restore = |name: &str, options: &str| {
        let text = format!("k3s::restore_etcd(site().hosts(\"server\"), \"{name}\", #{{{options}}});\n");
        small.script(&text, &["--yes"])
    };
    let kept = state("attic_token.before-").into_iter().min().unwrap();
    let away = small.b.path("kept");
    std::fs::rename(&kept, &away).unwrap();
    let beside = small.b.path(&format!("backup/{snapshot}.token"));
    let noted = std::fs::read_to_string(&beside).unwrap();
    std::fs::remove_file(&beside).unwrap();
    for options in ["", "folder: \"backup\""] {
        let ran = restore(&snapshot, options);
        let end = ran.finished();
        let error = end["error"].to_string();
        let said = error.contains("another token") && error.contains("before-") && error.contains(".token");
        assert!(ran.code == 4 && said && end["changed"] == 0, "{}: {error}", ran.code);
    }
    std::fs::rename(&away, &kept).unwrap();
    std::fs::write(&beside, noted).unwrap();

    // A restore that fails leaves the servers running.
    std::fs::write(small.b.path("backup/damaged"), "no snapshot").unwrap();
    let ran = restore("damaged", "folder: \"backup\"");
    let error = ran.finished()["error"].to_string();
    assert!(ran.code == 4 && error.contains("token of `damaged` is missing"), "{}: {error}", ran.code);
    std::fs::write(small.b.path("backup/damaged.token"), &new).unwrap();
    let ran = restore("damaged", "folder: \"backup\"");
    let end = ran.finished();
    assert!(ran.code == 1 && end["error"].to_string().contains("the servers run again"), "{end}");
    assert!(end["changed"].as_u64() > Some(0), "they were stopped and started: {end}");
    assert_eq!(small.recipe("recipes/deploy.rhai", &["--yes"]).expect(0).finished()["changed"], 0);

    // With the token beside the copy, or with the one that the rotation kept: nodes and site have it afterwards.
    for options in ["", "folder: \"backup\""] {
        let ran = restore(&snapshot, options).expect(0);
        assert!(!ran.stdout.contains(old.trim()) && !ran.stdout.contains(new.trim()), "no token is printed");
        assert_eq!(token().trim(), old.trim(), "the site has the snapshot's token again");
        assert_eq!(small.recipe("recipes/deploy.rhai", &["--yes"]).expect(0).finished()["changed"], 0);
        if options.is_empty() {
            let _ = small.recipe("recipes/rotate-token.rhai", &["--yes"]).expect(0);
        }
    }
}

#[test]
fn the_cluster_and_its_data_are_safe() {
    let small = Small::deployed();
    std::fs::create_dir_all(small.b.path("kc")).unwrap();
    std::fs::write(
        small.b.path("kc/merged"),
        "apiVersion: v1\nkind: Config\nclusters: [{name: mine, cluster: {server: 'https://x'}}]\nusers: []\n\
         contexts: [{name: mine, context: {cluster: mine, user: me}}]\ncurrent-context: mine\n",
    )
    .unwrap();
    small.good("our client inside", INSIDE);
    let config = small.b.path("kc/config");
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("lab-") && text.contains("certificate-authority-data") && !text.contains("insecure"),
        "{text}"
    );
    let merged = std::fs::read_to_string(small.b.path("kc/merged")).unwrap();
    assert!(merged.contains("current-context: mine") && merged.contains("lab-"), "{merged}");

    small.refused("a lab's kubeconfig at home", "cluster.write_kubeconfig(\"~/.kube/config\", #{});\n", "user's own");

    let elsewhere = "cluster.write_kubeconfig(\"/etc/kubeconfig\", #{ merge: true });\n";
    small.refused("a lab's kubeconfig outside the project", elsewhere, "user's own");

    // Rule 19: what a script reads of a Secret is not shown.
    let shown = "cluster.ensure_secret(\"vault\", #{ pin: \"correct-horse-battery\" });\n\
        let read = cluster.get(\"secret\", \"vault\");\nprint(`pin ${read.data.pin} it is`);\nprint(cluster.list(\"secret\"));\n";
    let ran = small.script(shown, &["--yes"]).expect(0);
    let coded = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";
    assert!(ran.stdout.contains("pin *** it is") && !ran.stdout.contains(coded), "{}", ran.stdout);

    small.good("rules 6 and 10", OWNERS);
    small.refused("rule 6: an object of Fleet", FOREIGN, "belongs to Fleet");
    small.good(
        "rule 6: nothing was written",
        "require(cluster.get(\"configmap\", \"fleets\").data.a == \"1\", \"as it was\");\n",
    );
    // Rule 7: data goes only when somebody says so.
    small.refused("rule 7: a claim", "cluster.delete(\"pvc\", \"till\", #{ namespace: \"shop\" });\n", "till");
    small.refused("rule 7: a namespace with a claim", "cluster.delete(\"namespace\", \"shop\");\n", "shop");
    small.refused("rule 7: a CRD", "cluster.delete(\"crd\", \"helmcharts.helm.cattle.io\");\n", "helmcharts");
    small.good("rule 7: nothing went", "cluster.get(\"pvc\", \"till\", #{ namespace: \"shop\" }); cluster.get(\"crd\", \"helmcharts.helm.cattle.io\");\n");
    small.good("rule 11", DISKS);

    a_rotation_and_the_way_back(&small);
    let _ = small.recipe("recipes/rotate-certificates.rhai", &["--yes"]).expect(0);
    assert_eq!(small.recipe("recipes/deploy.rhai", &["--yes"]).expect(0).finished()["changed"], 0);

    small.good("a chart that excludes a Kubernetes is named before an upgrade", CHARTS);

    // A release's name stands for its chart. Rule 10: what goes with a HelmChart is named.
    small.refused(
        "a release of another chart",
        "cluster.ensure_release(\"rancher\", #{ chart: \"cert-manager\", repo: \"https://charts.jetstack.io\", version: \"1.20.2\", namespace: \"cattle-system\" });\n",
        "of another chart",
    );
    small.refused(
        "rule 10: a HelmChart",
        "cluster.delete(\"helmchart\", \"rancher\", #{ namespace: \"kube-system\" });\n",
        "release cattle-system/rancher",
    );

    // Rule 12: what was fixed at birth is refused before any write, never "fixed".
    let site = small.b.path("site.toml");
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.replace("cis = false", "cis = false\ncluster_cidr = \"10.99.0.0/16\"")).unwrap();
    let ran = small.recipe("recipes/deploy.rhai", &["--yes"]);
    let error = ran.finished()["error"].to_string();
    assert!(ran.code == 4 && error.contains("cluster-cidr"), "{}: {error}\n{}", ran.code, ran.stderr);

    // A new release is an upgrade, which `deploy` is not.
    let release = text.lines().find(|l| l.starts_with("version = \"v1.")).unwrap();
    std::fs::write(&site, text.replace(release, "version = \"v1.35.7+k3s1\"")).unwrap();
    let ran = small.recipe("recipes/deploy.rhai", &["--yes"]);
    let end = ran.finished();
    let told = end["error"].to_string();
    assert!(
        ran.code == 4 && told.contains("wants v1.35.7+k3s1") && told.contains("upgrade.rhai"),
        "{told}\n{}",
        ran.stderr
    );
    assert_eq!(end["changed"], 0, "{end}");
    std::fs::write(&site, text).unwrap();

    // Rule 7: cleanup keeps the data and says so.
    let ran = small.recipe("recipes/cleanup.rhai", &["--yes"]).expect(0);
    assert!(ran.stdout.contains("kept: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("shop/till"), "the claims are named: {}", ran.stdout);
}
