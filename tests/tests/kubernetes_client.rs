//! The `kubernetes` surface on a small deployed lab: validation, sets, waits, guards, quotas, drains.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::Bench;

const SCRIPT: &str = r#"
let cluster = k3s::connect(site().hosts("server"));

/// The error that `work` ends in.
fn failed(what, work) {
    try { work.call(); } catch (err) { return err; }
    throw `${what}: nothing failed`;
}

// A misspelt field: its path, a suggestion, and nothing was sent.
let objects = [
    #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "sent" }, data: #{ a: "1" } },
    #{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "typo" }, spec: misspelt() },
];
fn misspelt() { #{ replica: 1, selector: #{}, template: #{} } } // behind a call: `check` cannot see it
let err = failed("typo", || cluster.apply(objects));
require(err.kind == "invalid" && err.message.contains("spec.replica"), `path: ${err.message}`);
require(err.hint.contains("replicas"), `suggestion: ${err.hint}`);
require(cluster.find("configmap", "sent") == (), "nothing of the list was sent");

// The same for kinds of somebody's CRD.
let chart = #{ apiVersion: "helm.cattle.io/v1", kind: "HelmChart", metadata: #{ name: "x", namespace: "kube-system" } };
chart.spec = #{ chrt: "a" };
let err = failed("crd", || cluster.apply(chart));
require(err.message.contains("spec.chrt"), `crd: ${err.message}`);

// A kind that is not there is told with the one that is meant, also where something is deleted.
let err = failed("kind", || cluster.list("podz"));
require(err.hint.contains("`pods`"), `kind: ${err.hint}`);
require(failed("kind", || cluster.delete("podz", "x")).kind == "not_found", "a misspelt deletion is not done");
let of = |api, kind| #{ apiVersion: api, kind: kind, metadata: #{ name: "x" } };
let err = failed("kind", || cluster.apply(of.call("v1", "Deployment")));
require(err.hint.contains("`apps/v1`"), `kind: ${err.hint}`);
let err = failed("kind", || cluster.apply(of.call("apps/v1", "Deploymnt")));
require(err.hint.contains("`Deployment`"), `kind: ${err.hint}`);

// Sets: what left the set goes, claims stay.
let a = #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "a" }, data: #{ x: "1" } };
let b = #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "b" }, data: #{ x: "1" } };
let claim = #{ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: #{ name: "keep" }, spec: #{
    accessModes: ["ReadWriteOnce"], resources: #{ requests: #{ storage: "1Gi" } },
} };
cluster.apply([a, b, claim], #{ prune: "demo" });
require(cluster.apply([a, b, claim], #{ prune: "demo" }).len() == 0, "a second apply changes nothing");
let gone = cluster.apply([a], #{ prune: "demo" });
require(gone.len() == 1 && gone[0].what == "ConfigMap default/b", `pruned: ${gone}`);
require(cluster.find("configmap", "b") == () && cluster.find("pvc", "keep") != (), "data stays");

// Waits react to what happens meanwhile.
let seen = parallel(["wait", "do"], |what| {
    let cluster = k3s::connect(site().hosts("server"));
    if what == "wait" {
        cluster.wait_until("configmap", "late", 2.minutes, |o| if o == () { false } else { o.data.x })
    } else {
        sleep(20.seconds);
        cluster.ensure_config_map("default/late", #{ x: "here" });
        "done"
    }
});
require(seen[0] == "here", `the closure's value: ${seen}`);
let err = failed("wait", || cluster.wait_until("configmap", "never", 10.seconds, |o| o != ()));
require(err.kind == "timeout" && err.last.contains("does not exist"), `last seen: ${err}`);

// Classes and quotas.
let class = #{ provisioner: "example.com/none", parameters: #{ a: "1" } };
cluster.ensure_storage_class("archive", class);
require(cluster.ensure_storage_class("archive", class).len() == 0, "a class is compared");
class.parameters = #{ a: "2" };
let err = failed("class", || cluster.ensure_storage_class("archive", class));
require(err.kind == "conflict" && err.message.contains("parameters"), `immutable: ${err.message}`);
cluster.ensure_quota("default/gpus", #{ "requests.nvidia.com/gpu": "2" });
require(cluster.ensure_quota("default/gpus", #{ "requests.nvidia.com/gpu": "2" }).len() == 0, "a quota is compared");

// A drain names the budget that holds it.
let node = "muscle-a";
cluster.apply(#{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "one" }, spec: #{
    replicas: 1, selector: #{ matchLabels: #{ app: "one" } },
    template: #{ metadata: #{ labels: #{ app: "one" } }, spec: #{ nodeSelector: #{ "kubernetes.io/hostname": node },
        containers: [#{ name: "c", image: "nginx:1.29" }] } },
} });
cluster.apply(#{ apiVersion: "policy/v1", kind: "PodDisruptionBudget", metadata: #{ name: "one" }, spec: #{
    minAvailable: 1, selector: #{ matchLabels: #{ app: "one" } },
} });
cluster.wait("deploy", "one", "condition=Available", 5.minutes);
let err = failed("drain", || cluster.drain(node, 30.seconds));
require(err.kind == "timeout" && err.last.contains("disruption budget"), `drain: ${err.last}`);
cluster.uncordon(node);

// So does the eviction of one pod; without a budget the pod goes.
let pod = cluster.list("pod", #{ labels: #{ app: "one" } })[0].metadata.name;
let err = failed("evict", || cluster.evict(pod, #{ timeout: 20.seconds }));
require(err.kind == "timeout" && err.last.contains("disruption budget") && err.last.contains("one"), `evict: ${err.last}`);
cluster.delete("pdb", "one");
require(cluster.evict(pod) && cluster.find("pod", pod) == () && !cluster.evict("nobody"), "evicted");
cluster.delete("deploy", "one");

// What tolerates everything comes right back to a cordoned node: the drain sees off those it found, and ends.
cluster.apply(#{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "clings" }, spec: #{
    replicas: 1, selector: #{ matchLabels: #{ app: "clings" } },
    template: #{ metadata: #{ labels: #{ app: "clings" } }, spec: #{ nodeSelector: #{ "kubernetes.io/hostname": node },
        tolerations: [#{ operator: "Exists" }], containers: [#{ name: "c", image: "nginx:1.29" }] } },
} });
cluster.wait("deploy", "clings", "condition=Available", 5.minutes);
let before = cluster.list("pod", #{ labels: #{ app: "clings" } })[0].metadata.uid;
cluster.drain(node, 5.minutes);
let after = cluster.list("pod", #{ labels: #{ app: "clings" } }).filter(|p| p.metadata.uid == before);
require(after.len() == 0, "the pod that was there has gone");
cluster.uncordon(node);
cluster.delete("deploy", "clings");

// A rollout is over when new pods serve; `Available` is true while the old ones do. One that cannot end names its pod.
let web = #{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "web" }, spec: #{
    replicas: 1, progressDeadlineSeconds: 60, selector: #{ matchLabels: #{ app: "web" } },
    template: #{ metadata: #{ labels: #{ app: "web" } }, spec: #{ containers: [#{ name: "c", image: "nginx:1.29" }] } },
} };
cluster.apply(web);
cluster.wait("deploy", "web", "rollout", 5.minutes);
web.spec.template.spec.containers[0].image = "nginx:does-not-exist";
cluster.apply(web);
cluster.wait("deploy", "web", "condition=Available", 5.minutes);
let err = failed("rollout", || cluster.wait("deploy", "web", "rollout", 15.minutes));
require(err.kind == "failed" && err.causes.join(" ").contains("does-not-exist"), `rollout: ${err.causes}`);
cluster.delete("deploy", "web");

// A chart that does not exist is told at once, with the way to those that do.
let err = failed("chart", || cluster.ensure_release("none", #{
    chart: "cert-manager", repo: "https://charts.jetstack.io", version: "9.9.9", namespace: "none",
}));
require(err.kind == "not_found" && err.hint.contains("helm::versions"), `chart: ${err.message}, ${err.hint}`);

// A mistake in a file names the file, and which of its documents.
write_file("two.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\nspec: {replica: 1}\n");
let err = failed("file", || cluster.apply_file("two.yaml"));
require(err.message.contains("two.yaml") || err.causes.join(" ").contains("two.yaml"), `file: ${err.message}, ${err.causes}`);

// A namespace takes its claims along: they are named, and gone with it.
cluster.ensure_namespace("shop");
claim.metadata = #{ name: "till", namespace: "shop" };
cluster.apply(claim);
cluster.delete("namespace", "shop");
require(cluster.find("namespace", "shop") == (), "the namespace is gone");
print("ALL DONE");
"#;

/// Options of what reads logs, drains, deletes, and asks before it applies.
const OPTIONS: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
fn failed(what, work) {
    try { work.call(); } catch (err) { return err; }
    throw `${what}: nothing failed`;
}

// Logs: all containers, their times, and line by line until one is what is waited for.
let script = |text| ["sh", "-c", text];
cluster.apply(#{ apiVersion: "v1", kind: "Pod", metadata: #{ name: "talk", labels: #{ app: "talk" } }, spec: #{
    nodeSelector: #{ "kubernetes.io/hostname": "muscle-a" }, terminationGracePeriodSeconds: 1,
    volumes: [#{ name: "v", emptyDir: #{} }],
    containers: [
        #{ name: "one", image: "busybox:1.36", command: script.call("for i in 1 2 3; do echo line $i; sleep 5; done; echo serving; sleep 3600") },
        #{ name: "two", image: "busybox:1.36", command: script.call("echo hello; sleep 3600") },
    ],
} });
cluster.apply(#{ apiVersion: "v1", kind: "Pod", metadata: #{ name: "late" }, spec: #{ containers: [
    #{ name: "one", image: "busybox:1.31", imagePullPolicy: "Never" },
] } });
cluster.wait_until("pod", "late", 1.minutes, |p| p != () && "nodeName" in p.spec);
let err = failed("early", || cluster.logs("late", #{ container: "one" }));
cluster.delete("pod", "late");
require(err.hint.contains("explain_pending"), `early: ${err} ${err.causes} ${err.hint}`);
cluster.wait("pod", "talk", "condition=Ready", 5.minutes);
let seen = cluster.logs("talk", #{ container: "one", timeout: 2.minutes }, |line| if line.contains("serving") { line });
require(seen == "serving", `followed: ${seen}`);
let err = failed("follow", || cluster.logs("talk", #{ container: "two", timeout: 20.seconds }, |line| line == "never"));
require(err.kind == "timeout" && err.last == "hello", `the last line: ${err} ${err.last}`);
let all = cluster.logs("talk", #{ all_containers: true });
require(all.contains("[one] line 1") && all.contains("[two] hello"), `all: ${all}`);
let timed = cluster.logs("talk", #{ container: "two", timestamps: true });
require(timed.contains("T") && timed.contains("Z hello"), `timestamps: ${timed}`);
let err = failed("which", || cluster.logs("talk"));
require(err.hint.contains("all_containers"), `which: ${err} ${err.hint}`);
let err = failed("previous", || cluster.logs("talk", #{ container: "two", previous: true }));
require(err.hint.contains("`previous`"), `previous: ${err} ${err.hint}`);

// A dry run says what an apply would do, and does nothing.
let map = #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "dry" }, data: #{ a: "1" } };
require(cluster.apply(map, #{ dry_run: true }).len() == 1 && cluster.find("configmap", "dry") == (), "nothing is made");
cluster.apply([map, #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "other" } }], #{ prune: "dry" });
map.data.a = "2";
let would = cluster.apply(map, #{ prune: "dry", dry_run: true });
require(would.len() == 2 && would[0].what == "ConfigMap default/dry data.a" && would[0].after == "2", `would: ${would}`);
require(would[1].what == "ConfigMap default/other", `would go: ${would}`);
require(cluster.get("configmap", "dry").data.a == "1" && cluster.find("configmap", "other") != (), "nothing is changed");
let room = #{ apiVersion: "v1", kind: "Namespace", metadata: #{ name: "later" } };
let inside = #{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ name: "x", namespace: "later" } };
require(cluster.apply([room, inside], #{ dry_run: true }).len() == 2 && cluster.find("namespace", "later") == (), "with its namespace");
map.data = #{ "bad key!": "1" };
require(failed("dry", || cluster.apply(map, #{ dry_run: true })).kind == "invalid", "the server looks, too");

// Labels that cannot be: what is wrong with each, once, and the rule.
let err = failed("label", || cluster.ensure_label("muscle-a", #{ "bad key!": "x y" }));
require(err.causes.len() == 2 && err.causes[0] != err.causes[1] && err.hint.contains("domain/name"), `label: ${err.causes} ${err.hint}`);

fn is_cordoned(cluster) { let n = cluster.get("node", "muscle-a").spec; "unschedulable" in n && n.unschedulable }

// Drains: what the options keep is refused before anything happens; labels choose.
let err = failed("drain", || cluster.drain("muscle-a", 1.minutes, #{ delete_emptydir: false }));
require(err.kind == "conflict" && err.causes.join(" ").contains("default/talk"), `emptyDir: ${err} ${err.causes}`);
let err = failed("drain", || cluster.drain("muscle-a", 1.minutes, #{ lone_pods: false }));
require(err.kind == "conflict" && !is_cordoned(cluster), `lone: ${err}`);
cluster.apply(#{ apiVersion: "policy/v1", kind: "PodDisruptionBudget", metadata: #{ name: "talk" }, spec: #{
    minAvailable: 1, selector: #{ matchLabels: #{ app: "talk" } },
} });
cluster.drain("muscle-a", 2.minutes, #{ labels: #{ app: "nobody" } });
require(cluster.find("pod", "talk") != (), "labels choose");
let err = failed("budget", || cluster.drain("muscle-a", 30.seconds, #{ labels: #{ app: "talk" } }));
require(err.last.contains("disruption budget"), `budget: ${err.last}`);
cluster.drain("muscle-a", 2.minutes, #{ labels: #{ app: "talk" }, eviction: false, grace: 1.seconds });
require(cluster.find("pod", "talk") == (), "past its budget");
cluster.uncordon("muscle-a");
cluster.delete("pdb", "talk");

// Deletions: what is owned goes first, afterwards, or stays.
let web = #{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "owner" }, spec: #{
    replicas: 1, selector: #{ matchLabels: #{ app: "owner" } },
    template: #{ metadata: #{ labels: #{ app: "owner" } }, spec: #{ containers: [#{ name: "c", image: "nginx:1.29" }] } },
} };
cluster.apply(web);
cluster.wait("deploy", "owner", "rollout", 5.minutes);
cluster.delete("deploy", "owner", #{ propagation: "orphan" });
let left = cluster.list("replicaset", #{ labels: #{ app: "owner" } });
require(left.len() == 1 && left[0].spec.replicas == 1, `orphaned: ${left.len()}`);
cluster.delete("replicaset", left[0].metadata.name, #{ propagation: "foreground", grace: 1.seconds });
require(cluster.list("pod", #{ labels: #{ app: "owner" } }).len() == 0, "its pods went first");
require(failed("word", || cluster.delete("pod", "x", #{ propagation: "later" })).hint.contains("foreground"), "the words");
print("ALL DONE");
"#;

/// Somebody else's object is not touched without being told.
const FOREIGN: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
let csi = cluster.get("deploy", "csi-nfs-controller", #{ namespace: "kube-system" });
cluster.apply(#{ apiVersion: "apps/v1", kind: "Deployment",
    metadata: #{ name: csi.metadata.name, namespace: "kube-system", labels: #{ mine: "yes" } }, spec: csi.spec });
"#;

#[test]
fn the_client_does_what_it_says() {
    let b = Bench::new();
    let site = ["--lab", "--json", "--yes", "--site", "tests/sites/small.toml"];
    let deploy = [&["run", "recipes/deploy.rhai"], &site[..]].concat();
    let _ = b.run(&deploy).expect(0);
    let path = b.path("client.rhai");
    std::fs::write(&path, SCRIPT).unwrap();
    let ran = b.run(&[&["run", path.to_str().unwrap()], &site[..]].concat());
    assert_eq!(ran.code, 0, "{:#}\n{}", ran.finished()["error"], ran.stderr);
    assert!(ran.stdout.contains("ALL DONE"), "{}", ran.stdout);
    named(&ran);
    std::fs::write(&path, OPTIONS).unwrap();
    let ran = b.run(&[&["run", path.to_str().unwrap()], &site[..]].concat());
    assert_eq!(ran.code, 0, "{:#}\n{}", ran.finished()["error"], ran.stderr);
    assert!(ran.stdout.contains("ALL DONE"), "{}", ran.stdout);
    std::fs::write(&path, FOREIGN).unwrap();
    let ran = b.run(&[&["run", path.to_str().unwrap()], &site[..]].concat()).expect(4);
    let error = ran.finished()["error"].to_string();
    assert!(error.contains("Helm release") && error.contains("take_over"), "{error}");
}

fn named(ran: &gpuhost_tests::Ran) {
    let asked = ran.events().into_iter().find(|e| {
        let target = e["target"].as_str().unwrap_or_default();
        e["event"] == "intent" && e["op"] == "kubernetes.delete" && target.contains("shop")
    });
    let text = asked.unwrap_or_default().to_string();
    assert!(text.contains("PersistentVolumeClaim shop/till"), "claims are named before a namespace goes: {text}");
}

#[test]
fn check_knows_the_fields_of_objects() {
    let b = Bench::new();
    let path = b.path("typo.rhai");
    let text = "let c = k3s::connect(site().hosts(\"server\"));\nc.apply(#{\n    apiVersion: \"v1\", kind: \"Service\",\n    metadata: #{ name: \"a\" },\n    spec: #{ port: [] },\n});\n";
    std::fs::write(&path, text).unwrap();
    let ran = b.run(&["check", path.to_str().unwrap(), "--site", "tests/sites/small.toml"]).expect(2);
    let out = format!("{}{}", ran.stdout, ran.stderr);
    for part in ["typo.rhai:5", "spec.port", "`ports`"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}
