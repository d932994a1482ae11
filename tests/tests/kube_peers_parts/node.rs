//! The `kubectl` of a lab machine says what the real one says: the same commands, one after the other, in two namespaces.
use std::process::{Command, Stdio};

use super::{Said, Served, Tool, run};

const TWO: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {x: "1", z: "2"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: nginx:1, env: [{name: A, value: "1"}, {name: B, value: "2"}]}
      - {name: side, image: busybox, command: [sleep, "100000"]}
"#;

const ONE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {x: "3"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: nginx:1, env: [{name: A, value: "9"}]}
"#;

const MAP: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ss"},"data":{"k":"1"}}"#;
const OTHER: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ss"},"data":{"k":"2"}}"#;
const TYPO: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ty"},"dta":{"k":"2"}}"#;
const ODD: &str = r#"{"apiVersion":"example.org/v1","kind":"Odd","metadata":{"name":"o"}}"#;

const SET: &str = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db"},"spec":{"serviceName":"db",
"selector":{"matchLabels":{"app":"db"}},"template":{"metadata":{"labels":{"app":"db"}},"spec":{"containers":[{"name":"c",
"image":"nginx"}]}},"volumeClaimTemplates":[{"metadata":{"name":"d"},"spec":{"accessModes":["ReadWriteOnce"],
"resources":{"requests":{"storage":"1Gi"}}}}]}}"#;

/// Commands with what they read.
const SCRIPT: &[(&str, &str)] = &[
    ("create ns {ns}", ""),
    ("create ns {ns}", ""),
    ("-n {ns} apply -f -", TWO),
    ("-n {ns} apply -f -", TWO),
    ("-n {ns} rollout status deploy/web", ""),
    ("-n {ns} diff -f -", TWO),
    ("-n {ns} diff -f -", ONE),
    ("-n {ns} diff -f - --server-side --force-conflicts", ONE),
    ("-n {ns} diff -f -", MAP),
    ("-n {ns} diff -f -", ODD),
    ("-n {ns} diff", ""),
    ("-n {ns} apply -f - --dry-run=server", ONE),
    ("-n {ns} apply -f -", ONE),
    ("-n {ns} get cm a -o jsonpath={.data}", ""),
    (
        "-n {ns} get deploy web -o jsonpath={.spec.template.spec.containers[*].name},{.spec.template.spec.containers[0].env}",
        "",
    ),
    ("-n {ns} apply -f - --dry-run=client", TWO),
    ("-n {ns} apply -f -", TYPO),
    ("-n {ns} apply -f -", ODD),
    ("-n {ns} apply -f -", "some: kind"),
    ("-n {ns} apply -f -", "kind: ConfigMap"),
    ("-n {ns} apply -f -", ""),
    ("-n {ns} delete -f -", "some: kind"),
    ("-n {ns} apply -f /nowhere.yaml", ""),
    ("-n {ns} apply", ""),
    ("-n other apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: elsewhere}}"),
    ("-n {ns} apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: Bad_Name}}"),
    ("-n {ns} create -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: gen-}, data: {a: 1}}"),
    ("-n nowhere apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"),
    ("-n {ns} create configmap", ""),
    ("-n {ns} create configmap odd --from-literal=a", ""),
    ("-n {ns} run t", ""),
    ("-n {ns} logs none", ""),
    ("-n {ns} exec none -- ls", ""),
    ("-n {ns} scale deploy/web", ""),
    ("-n {ns} scale cm/a --replicas=2", ""),
    ("-n {ns} rollout status cm/a", ""),
    ("-n {ns} rollout restart deploy/none", ""),
    ("-n {ns} wait deploy/web --for=never", ""),
    ("-n {ns} patch deploy web -p nonsense", ""),
    ("-n {ns} patch deploy web --type=odd -p {}", ""),
    ("-n {ns} patch deploy web -p {\"spec\":{\"replicas\":-1}}", ""),
    ("-n {ns} patch deploy web -p {\"spec\":{\"replicas\":-1,\"minReadySeconds\":-1}}", ""),
    ("-n {ns} rollout status deploy/web --timeout=300s", ""),
    ("-n {ns} get cm,deploy --no-headers", ""),
    ("-n {ns} get cm -o yaml -l none=x", ""),
    ("-n {ns} get cm/a deploy/web -o jsonpath={.items[*].metadata.name}", ""),
    ("-n {ns} get deploy -o wide", ""),
    ("-n {ns} get nodes {node} -o jsonpath={.metadata.name}", ""),
    ("-n {ns} label cm none x=y", ""),
    ("-n {ns} label cm x=y", ""),
    ("-n {ns} label cm a x=y -o name", ""),
    ("-n {ns} label cm --all all=yes", ""),
    ("-n {ns} label odd a x=y", ""),
    ("-n {ns} delete", ""),
    ("-n {ns} delete cm", ""),
    ("-n {ns} delete cm -l x=none", ""),
    ("-n {ns} delete cm a --cascade=odd", ""),
    ("-n {ns} delete cm a --dry-run=client", ""),
    ("-n {ns} delete cm a --dry-run=server -o name", ""),
    ("-n {ns} get", ""),
    ("-n {ns} get cm a -o name", ""),
    ("-n {ns} get cm,deploy -o name", ""),
    ("-n {ns} get deploy/web cm/a -o name", ""),
    ("-n {ns} get cm a b", ""),
    ("-n {ns} get cm a --show-labels", ""),
    ("-n {ns} get secret", ""),
    ("-n {ns} get cm a -o yaml", ""),
    ("-n {ns} get cm a -o json", ""),
    ("-n {ns} get deploy -o yaml", ""),
    ("-n {ns} get deploy web -o json", ""),
    ("-n {ns} get cm a --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}", ""),
    // the controllers' entries stand before or after it, by the second in which they wrote
    (
        "-n {ns} get deploy web --show-managed-fields -o jsonpath={.metadata.managedFields[?(@.manager==\"kubectl-client-side-apply\")].operation}",
        "",
    ),
    ("-n {ns} expose deploy web --port=80", ""),
    ("-n {ns} expose deploy web --port=80", ""),
    ("-n {ns} expose deploy web", ""),
    ("-n {ns} get svc web -o jsonpath={.spec.selector}{.spec.ports}{.spec.type}", ""),
    ("-n {ns} expose cm a --port=80", ""),
    ("-n {ns} get cm --sort-by=.metadata.name -o custom-columns=N:.metadata.name,D:.data.y,L:.metadata.labels", ""),
    ("-n {ns} get cm --sort-by=.metadata.name --no-headers", ""),
    ("-n {ns} get cm -o custom-columns=N", ""),
    ("-n {ns} get cm none -o custom-columns=N:.metadata.name", ""),
    ("get --raw /api/v1/namespaces/{ns}/configmaps/none", ""),
    ("get --raw /healthz", ""),
    ("get --raw /nothing", ""),
    ("-n {ns} get all --no-headers", ""),
    ("-n {ns} get all", ""),
    ("-n {ns} get all -o name", ""),
    ("-n {ns} get all -l none=x", ""),
    ("-n {ns} get cm a -o yamll", ""),
    ("-n {ns} get cm none -o yamll", ""),
    ("-n {ns} get nothing -o yamll", ""),
    ("gte pods", ""),
    ("gets", ""),
    ("list", ""),
    ("c", ""),
    ("appyl -f x", ""),
    ("xyzzy", ""),
    ("-n {ns} apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {labels: {a: b}}}"),
    ("-n {ns} apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: gen-}}"),
    ("-n {ns} create -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {labels: {a: b}}}"),
    ("taint nodes {node} odd", ""),
    ("taint nodes {node} odd=x:Never", ""),
    ("create ns made --dry-run=client -o name", ""),
    ("create ns", ""),
    ("-n {ns} apply -f -", SET),
    // The server fills its claim templates in, so that the client sees a difference every time.
    ("-n {ns} apply -f -", SET),
    ("-n {ns} delete sts db", ""),
    ("-n {ns} apply --server-side -f -", MAP),
    ("-n {ns} apply --server-side --field-manager=me -f -", OTHER),
    ("-n {ns} apply --server-side --field-manager=me --force-conflicts -f -", OTHER),
    ("-n {ns} create -f -", MAP),
    ("-n {ns} replace -f -", OTHER),
    ("-n {ns} label cm a tier=gold", ""),
    ("-n {ns} label cm a tier=gold", ""),
    ("-n {ns} label cm a tier=lead", ""),
    ("-n {ns} label cm a tier=lead --overwrite", ""),
    ("-n {ns} label cm a tier-", ""),
    ("-n {ns} label cm a tier-", ""),
    ("-n {ns} label cm a", ""),
    ("-n {ns} annotate cm a note=x", ""),
    ("-n {ns} annotate cm a note=y", ""),
    ("-n {ns} annotate cm a note-", ""),
    ("-n {ns} scale deploy/web --replicas=3", ""),
    ("-n {ns} rollout status deploy web --timeout=300s", ""),
    ("-n {ns} rollout restart deploy/web", ""),
    ("-n {ns} wait deploy/web --for=condition=Available --timeout=300s", ""),
    ("-n {ns} wait deploy/web --for=jsonpath={.spec.replicas}=3", ""),
    ("-n {ns} wait cm/a --for=delete --timeout=1s", ""),
    ("-n {ns} wait pod/none --for=condition=Ready --timeout=1s", ""),
    ("-n {ns} patch deploy web -p {\"spec\":{\"replicas\":1}}", ""),
    ("-n {ns} patch deploy web -p {\"spec\":{\"replicas\":1}}", ""),
    ("-n {ns} patch cm a --type=json -p [{\"op\":\"remove\",\"path\":\"/data/x\"}]", ""),
    ("-n {ns} set image deploy/web c=nginx:2", ""),
    ("-n {ns} set image deploy/web none=nginx:2", ""),
    ("-n {ns} get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", ""),
    ("-n {ns} rollout history deploy/web", ""),
    ("-n {ns} rollout history cm/a", ""),
    ("-n {ns} rollout history deploy/none", ""),
    ("-n {ns} rollout undo deploy/web --to-revision=99", ""),
    ("-n {ns} rollout undo deploy/web", ""),
    ("-n {ns} get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", ""),
    ("-n {ns} rollout status deploy web --timeout=300s", ""),
    ("-n {ns} rollout undo cm/a", ""),
    ("-n {ns} rollout pause deploy/web", ""),
    ("-n {ns} rollout pause deploy/web", ""),
    ("-n {ns} rollout pause cm/a", ""),
    ("-n {ns} rollout undo deploy/web", ""),
    ("-n {ns} rollout resume deploy/web", ""),
    ("-n {ns} rollout resume deploy/web", ""),
    ("-n {ns} set env deploy/web A=5 NEW=x B-", ""),
    ("-n {ns} set env deploy/web --list", ""),
    ("-n {ns} set env deploy/web", ""),
    ("-n {ns} set env cm/a A=1", ""),
    ("-n {ns} set resources deploy/web --limits=cpu=200m --requests=cpu=100m,memory=16Mi", ""),
    ("-n {ns} set resources deploy/web", ""),
    ("-n {ns} set resources deploy/web -c none --limits=cpu=1", ""),
    (
        "-n {ns} get deploy web -o jsonpath={.spec.template.spec.containers[0].env}{.spec.template.spec.containers[0].resources}",
        "",
    ),
    ("-n {ns} autoscale deploy web --min=1 --max=3 --cpu=80%", ""),
    ("-n {ns} autoscale deploy web --min=1 --max=3 --cpu=80%", ""),
    ("-n {ns} get hpa web -o jsonpath={.spec}", ""),
    ("-n {ns} autoscale deploy web --max=0", ""),
    ("-n {ns} autoscale deploy web --max=1 --min=2", ""),
    ("-n {ns} autoscale deploy none --max=1", ""),
    ("-n {ns} autoscale cm a --max=2", ""),
    ("-n {ns} delete hpa web", ""),
    ("api-versions", ""),
    ("api-resources", ""),
    ("api-resources -o wide --sort-by=name", ""),
    ("api-resources --api-group=apps -o name", ""),
    ("api-resources --namespaced=false --no-headers", ""),
    ("api-resources --verbs=list,watch --categories=all", ""),
    ("cluster-info", ""),
    ("auth whoami", ""),
    ("auth whoami -o jsonpath={.status.userInfo.groups}", ""),
    ("-n {ns} auth can-i create pods", ""),
    ("auth can-i get nodes", ""),
    ("-n {ns} auth can-i get pods --as=bob", ""),
    ("auth can-i delete pods --as=bob --as-group=system:masters", ""),
    ("get nodes -L kubernetes.io/hostname,nvidia.com/gpu.count", ""),
    ("get nodes -L kubernetes.io/os --no-headers --sort-by=.metadata.name", ""),
    ("top pods -n kube-system --containers", ""),
    ("top pods -n kube-system --sum", ""),
    ("top pods -n kube-system --sort-by=age", ""),
    ("auth can-i get deployments.apps/web", ""),
    ("auth can-i create odd", ""),
    ("auth can-i get /healthz", ""),
    ("auth can-i", ""),
    ("-n {ns} auth can-i --list", ""),
    ("auth can-i --list --no-headers", ""),
    ("-n {ns} create token", ""),
    ("-n {ns} create token none", ""),
    ("-n {ns} create token default --duration=1m", ""),
    ("-n {ns} create token default -o jsonpath={.spec.expirationSeconds}", ""),
    ("-n {ns} events --for deploy/none", ""),
    ("-n {ns} events --for nothing/x", ""),
    ("-n {ns} create configmap q --from-literal=a=b", ""),
    ("-n {ns} create configmap q --from-literal=a=b", ""),
    ("-n {ns} create secret generic s --from-literal=a=b", ""),
    ("-n {ns} get secret s -o jsonpath={.data.a}", ""),
    ("-n {ns} create sa robot", ""),
    ("-n {ns} create deployment made --image=docker.io/library/nginx:1.27 --replicas=2", ""),
    (
        "-n {ns} get deploy made -o jsonpath={.spec.template.spec.containers[0].name},{.spec.replicas},{.metadata.labels}",
        "",
    ),
    ("-n {ns} create job once --image=busybox -- true", ""),
    ("-n {ns} run t --image=busybox --env=A=1 -- sleep 100000", ""),
    ("-n {ns} wait pod t --for=condition=Ready --timeout=300s", ""),
    ("-n {ns} get pod t -o jsonpath={.spec.containers[0].args}{.spec.containers[0].env}{.metadata.labels}", ""),
    ("-n {ns} exec -i t -- sh", "echo here\nls /nowhere\nexit 3\n"),
    ("-n {ns} exec -it t -- sh", "echo here\n"),
    ("-n {ns} exec -it t -- echo here", ""),
    ("-n {ns} get pod none --ignore-not-found", ""),
    ("-n {ns} get cm -o name", ""),
    ("-n {ns} get nothing", ""),
    ("-n {ns} delete pod t", ""),
    ("-n {ns} delete pod t", ""),
    ("-n {ns} delete pod t --ignore-not-found", ""),
    ("-n {ns} delete cm,secret q s", ""),
    ("-n {ns} delete cm/ss sa/robot", ""),
    ("-n {ns} delete deploy", ""),
    ("-n {ns} delete job --all", ""),
    ("-n {ns} delete -f -", TWO),
    ("-n {ns} delete -f -", TWO),
    ("-n {ns} delete -f - --ignore-not-found", TWO),
    ("taint nodes {node} odd=yes:NoSchedule", ""),
    ("taint nodes {node} odd=yes:NoSchedule", ""),
    ("taint nodes {node} odd=no:NoSchedule --overwrite", ""),
    ("taint nodes {node} odd-", ""),
    ("taint nodes {node} odd-", ""),
    ("cordon {node}", ""),
    ("cordon {node}", ""),
    ("uncordon {node}", ""),
    ("uncordon node/{node}", ""),
    ("cordon none", ""),
    ("delete ns {ns}", ""),
];

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn on_node(lab: &Served, words: &[String], input: &str) -> Said {
    let line = format!("sudo k3s kubectl {}", words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" "));
    let mut c = Command::new("ssh");
    c.args(["-F", lab.ssh_config.to_str().unwrap(), "k3s-cp2", &line]);
    run(c, input)
}

/// Whether a word is an age (`6m31s`).
fn is_age(word: &str) -> bool {
    word.ends_with(['s', 'm', 'h'])
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.len() < 8
        && word.chars().all(|c| c.is_ascii_digit() || "smh".contains(c))
}

/// A word without what is drawn by lot: the end of a pod's name, the address of a service; and without ages.
fn alike(word: &str) -> &str {
    match word {
        w if is_age(w) => "AGE",
        w if w.starts_with("/tmp/LIVE-") || w.starts_with("/tmp/MERGED-") => w.rsplit('/').next().unwrap_or(w),
        w if w.starts_with("10.43.") => "ADDRESS",
        w if w.starts_with("[X509SHA256=") => "CERTIFICATE",
        w if w.starts_with("https://") => w.rsplit_once(":dns").map_or("SERVER", |_| "SERVER/dns"),
        w if w.starts_with("pod/web-") => w.rsplit_once('-').map_or(w, |(name, _)| name),
        w => w,
    }
}

/// What a command said, without what differs from one namespace to the other and with time.
fn seen(said: &Said, ns: &str) -> String {
    let text = format!("{}\n{}\nexit {}", said.out, said.err, said.code).replace(ns, "NS");
    let text = text.replace("k3s-gpu3", "NODE").replace("k3s-gpu4", "NODE");
    // What is made has names, numbers and times of its own.
    const OWN: [&str; 6] =
        ["uid", "resourceVersion", "creationTimestamp", "lastTransitionTime", "lastUpdateTime", "restartedAt"];
    let own = |l: &str| OWN.iter().any(|f| l.contains(&format!("{f}:")) || l.contains(&format!("{f}\":")));
    // What its libraries log (`I1127 02:09:52 …`) depends on how fast the machine is.
    let log =
        |l: &str| l.starts_with(['I', 'W', 'E']) && l.get(1..5).is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()));
    // How far a rollout was at the first look is a matter of time, too.
    let told = |l: &&str| !l.is_empty() && !own(l) && !log(l) && !l.starts_with("Waiting for deployment");
    let lines = text.lines().filter(told);
    // When a file of a comparison was written is of no interest.
    let head = |l: &str| l.starts_with("--- /tmp/") || l.starts_with("+++ /tmp/");
    let words = |l: &str| {
        l.split_whitespace().take(if head(l) { 2 } else { usize::MAX }).map(alike).collect::<Vec<_>>().join(" ")
    };
    lines.map(words).collect::<Vec<_>>().join("\n")
}

/// `kubectl edit` on a machine, with an editor that needs no terminal: what it says and what it does.
pub fn edits(k: &Tool<'_>) {
    k.run("create configmap edited -n default --from-literal=a=one");
    let there = |editor: &str| {
        let line = format!("sudo KUBE_EDITOR={} k3s kubectl edit cm edited", quoted(editor));
        let mut c = Command::new("ssh");
        c.args(["-F", k.lab.ssh_config.to_str().unwrap(), "k3s-cp2", &line]);
        let said = run(c, "");
        (said.code, format!("{}{}", said.out, said.err))
    };
    assert_eq!(there("sed -i s/one/two/"), (0, "configmap/edited edited\n".to_owned()));
    assert_eq!(k.run("get cm edited -n default -o jsonpath={.data.a}"), "two");
    assert_eq!(there("true"), (0, "Edit cancelled, no changes made.\n".to_owned()));
    let (code, text) = there("sed -i s/name:/nme:/");
    assert!(code == 1 && text.contains("A copy of your changes has been stored"), "{code} {text}");
    let (code, text) = there("false");
    assert!(code == 1 && text.contains("there was a problem with the editor \"false\""), "{code} {text}");
    k.run("delete cm edited -n default");
}

/// Every command of the script, outside and on a node.
pub fn same_words(k: &Tool<'_>) {
    let there = Command::new("ssh").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        return println!("skipped: there is no ssh");
    }
    edits(k);
    let mut other = Vec::new();
    for (line, input) in SCRIPT {
        let words = |ns: &str, node: &str| -> Vec<String> {
            line.split(' ').map(|w| w.replace("{ns}", ns).replace("{node}", node)).collect()
        };
        let outside = words("real-one", "k3s-gpu3");
        let real = seen(&k.feed(&outside.iter().map(String::as_str).collect::<Vec<_>>(), input), "real-one");
        let ours = seen(&on_node(k.lab, &words("labs-own", "k3s-gpu4"), input), "labs-own");
        if real != ours {
            other.push(format!("kubectl {line}\n--- real\n{real}\n--- lab\n{ours}"));
        }
    }
    assert!(other.is_empty(), "{} of {} differ:\n{}", other.len(), SCRIPT.len(), other.join("\n\n"));
}
