//! What people do with kubectl.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Tool, holds};

type Part = fn(&Tool<'_>);

/// All parts by name.
pub const PARTS: &[(&str, Part)] = &[
    ("looks", looks),
    ("documents", documents),
    ("rollouts", rollouts),
    ("inside containers", inside),
    ("forwarded ports", forwarded),
    ("nodes", nodes),
    ("jobs and quotas", jobs),
    ("rights", rights),
];

/// Parts that depend on the version of kubectl.
pub const VARY: &[&str] = &["server-side apply", "documents", "inside containers", "forwarded ports", "terminals"];

fn fresh(k: &Tool<'_>, ns: &str) {
    k.try_run(&format!("delete namespace {ns} --ignore-not-found --timeout=120s"));
    k.run(&format!("create namespace {ns}"));
}

fn looks(k: &Tool<'_>) {
    holds(&k.run("version"), &["Server Version: v1."]);
    holds(&k.run("cluster-info"), &["is running at"]);
    holds(&k.run("get nodes -o wide"), &["STATUS", "INTERNAL-IP", "CONTAINER-RUNTIME", "containerd://", " Ready "]);
    holds(&k.run("get pods -A"), &["NAMESPACE", "kube-system", "Running"]);
    holds(
        &k.run("get all -n kube-system"),
        &["deployment.apps/coredns", "service/kube-dns", "replicaset.apps/coredns-"],
    );
    holds(&k.run("api-resources"), &["deployments", "deploy", "apps/v1", "helmcharts", "hc"]);
    holds(&k.run("api-versions"), &["apps/v1", "helm.cattle.io/v1", "batch/v1"]);
    holds(&k.run("explain deployment.spec.strategy"), &["GROUP:", "rollingUpdate", "DESCRIPTION:"]);
    holds(&k.run("explain helmchart.spec.chart"), &["FIELD:", "chart"]);
    holds(&k.run("explain pod --recursive"), &["containers", "readinessProbe"]);
    holds(&k.run("describe node k3s-cp1"), &["Conditions:", "Allocated resources:", "kubelet is posting ready status"]);
    holds(&k.run("describe deployment coredns -n kube-system"), &["RollingUpdateStrategy:", "Pod Template:"]);
    holds(&k.run("get events -A"), &["REASON"]);
    holds(&k.run("get sc"), &["PROVISIONER", "RECLAIMPOLICY"]);
    holds(&k.run("get crd"), &["helmcharts.helm.cattle.io", "CREATED AT"]);
    k.run("get --raw /readyz?verbose");
    holds(&k.run("get nodes -o jsonpath={.items[*].metadata.name}"), &["k3s-cp1"]);
    holds(&k.run("get pods -A --field-selector spec.nodeName=k3s-cp1"), &["NAME"]);
    let top = k.try_run("top nodes");
    assert!(top.code == 0 || top.err.contains("Metrics API not available"), "{top:?}");
}

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1.27', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
";

fn documents(k: &Tool<'_>) {
    fresh(k, "docs");
    holds(&k.with("apply -n docs -f -", WEB), &["deployment.apps/web created", "configmap/settings created"]);
    holds(&k.with("apply -n docs -f -", WEB), &["deployment.apps/web unchanged", "configmap/settings unchanged"]);
    let other = WEB.replace("blue", "red");
    let diff = k.feed(&["diff", "-n", "docs", "-f", "-"], &other);
    assert_eq!(diff.code, 1, "{diff:?}");
    holds(&diff.out, &["-  colour: blue", "+  colour: red"]);
    holds(&k.with("apply -n docs --dry-run=server -f -", &other), &["configmap/settings configured (server dry run)"]);
    holds(&k.with("apply -n docs -f -", &other), &["configmap/settings configured", "deployment.apps/web unchanged"]);
    let wrong = k.feed(&["apply", "-n", "docs", "-f", "-"], &WEB.replace("replicas: 2", "replikas: 2"));
    assert_ne!(wrong.code, 0);
    holds(&wrong.err, &["strict decoding error: unknown field \"spec.replikas\""]);
    // Server-side apply: two managers, one field.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {k: one}\n";
    k.with("apply -n docs --server-side --field-manager=first -f -", map);
    let clash = k.feed(
        &["apply", "-n", "docs", "--server-side", "--field-manager=second", "-f", "-"],
        &map.replace("one", "two"),
    );
    assert_ne!(clash.code, 0);
    holds(&clash.err, &["conflict", "\"first\"", ".data.k"]);
    k.with("apply -n docs --server-side --field-manager=second --force-conflicts -f -", &map.replace("one", "two"));
    holds(
        &k.run("get cm shared -n docs -o yaml --show-managed-fields"),
        &["manager: second", "operation: Apply", "k: two"],
    );
    holds(&k.run("patch cm settings -n docs --type merge -p {\"data\":{\"size\":\"7\"}}"), &["patched"]);
    holds(
        &k.run("patch cm settings -n docs --type json -p [{\"op\":\"remove\",\"path\":\"/data/size\"}]"),
        &["patched"],
    );
    holds(&k.run("label cm settings -n docs tier=x"), &["labeled"]);
    holds(&k.run("annotate cm settings -n docs why=because"), &["annotated"]);
    holds(&k.run("get cm -n docs -l tier=x -o name"), &["configmap/settings"]);
    k.run("create secret generic key -n docs --from-literal=password=hidden");
    holds(&k.run("get secret key -n docs -o jsonpath={.data.password}"), &["aGlkZGVu"]);
    holds(&k.run("describe secret key -n docs"), &["password:  6 bytes"]);
    k.run("create configmap made -n docs --from-literal=a=b");
    holds(&k.run("replace -n docs -f - --dry-run=client --help"), &["Usage"]);
    holds(&k.run("delete cm made settings -n docs"), &["configmap \"made\" deleted", "configmap \"settings\" deleted"]);
    holds(&k.fails("get cm made -n docs"), &["Error from server (NotFound): configmaps \"made\" not found"]);
    k.run("delete namespace docs --timeout=120s");
    holds(&k.fails("get namespace docs"), &["NotFound"]);
}

fn rollouts(k: &Tool<'_>) {
    fresh(k, "roll");
    k.with("apply -n roll -f -", WEB);
    holds(&k.run("rollout status deployment/web -n roll --timeout=120s"), &["successfully rolled out"]);
    k.run("wait deployment/web -n roll --for=condition=Available --timeout=120s");
    holds(&k.run("set image deployment/web web=nginx:1.28 -n roll"), &["image updated"]);
    k.run("rollout status deployment/web -n roll --timeout=120s");
    holds(&k.run("rollout history deployment/web -n roll"), &["REVISION", "1 ", "2 "]);
    holds(&k.run("rollout undo deployment/web -n roll"), &["rolled back"]);
    k.run("rollout status deployment/web -n roll --timeout=120s");
    holds(&k.run("get deployment web -n roll -o jsonpath={.spec.template.spec.containers[0].image}"), &["nginx:1.27"]);
    holds(&k.run("rollout restart deployment/web -n roll"), &["restarted"]);
    k.run("rollout status deployment/web -n roll --timeout=120s");
    k.run("rollout pause deployment/web -n roll");
    k.run("rollout resume deployment/web -n roll");
    holds(&k.run("scale deployment/web -n roll --replicas=3"), &["scaled"]);
    k.run("rollout status deployment/web -n roll --timeout=120s");
    holds(&k.run("get deployment web -n roll"), &["3/3"]);
    k.run("autoscale deployment/web -n roll --min=2 --max=5 --cpu-percent=80");
    holds(&k.run("get hpa -n roll"), &["Deployment/web", "2", "5"]);
    holds(&k.run("expose deployment/web -n roll --port=80"), &["service/web exposed"]);
    holds(&k.run("get endpoints web -n roll"), &[":80"]);
    holds(&k.run("get endpointslices -n roll"), &["IPv4", "80"]);
    holds(&k.run("describe service web -n roll"), &["Endpoints:", "TargetPort:"]);
    k.run("delete deployment web -n roll --cascade=orphan");
    holds(&k.run("get rs -n roll"), &["web-"]);
    k.run("delete namespace roll --timeout=120s");
}

fn inside(k: &Tool<'_>) {
    fresh(k, "in");
    k.run("run box -n in --image=busybox --restart=Never -- sleep 36000");
    k.run("wait pod/box -n in --for=condition=Ready --timeout=120s");
    holds(&k.run("exec box -n in -- hostname"), &["box"]);
    assert_eq!(k.feed(&["exec", "box", "-n", "in", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "").code, 7);
    let said = k.feed(&["exec", "-i", "box", "-n", "in", "--", "cat"], "through\n");
    assert_eq!((said.code, said.out.as_str()), (0, "through\n"), "{said:?}");
    let said = k.feed(&["exec", "-i", "box", "-n", "in", "--", "sh"], "cd /tmp\necho hello > f\ncat f; pwd\n");
    holds(&said.out, &["hello", "/tmp"]);
    holds(&k.run("exec box -n in -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"), &["in"]);
    let file = k.lab.file("up.txt", "carried over\n");
    k.run(&format!("cp {} in/box:/tmp/up.txt", file.display()));
    holds(&k.run("exec box -n in -- cat /tmp/up.txt"), &["carried over"]);
    let down = file.with_file_name("down.txt");
    k.run(&format!("cp in/box:/tmp/up.txt {}", down.display()));
    assert_eq!(std::fs::read_to_string(down).unwrap(), "carried over\n");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: talker}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: c, image: busybox, command: [sh, -c, 'for i in 1 2 3 4 5; do echo line $i; sleep 2; done']}\n";
    k.with("apply -n in -f -", pod);
    k.run("wait pod/talker -n in --for=condition=PodScheduled --timeout=120s");
    k.run("wait pod/talker -n in --for=jsonpath={.status.phase}=Succeeded --timeout=120s");
    assert_eq!(k.run("logs talker -n in").lines().count(), 5);
    assert_eq!(k.run("logs talker -n in --tail=2"), "line 4\nline 5\n");
    holds(&k.run("logs talker -n in --timestamps --tail=1"), &["Z line 5"]);
    holds(&k.run("logs -f talker -n in"), &["line 1", "line 5"]);
    holds(&k.fails("logs talker -n in -c nope"), &["nope"]);
    let crash = "apiVersion: v1\nkind: Pod\nmetadata: {name: crash}\nspec:\n  containers:\n  - {name: c, image: busybox, command: [sh, -c, 'echo run; exit 1']}\n";
    k.with("apply -n in -f -", crash);
    k.run("wait pod/crash -n in --for=jsonpath={.status.containerStatuses[0].lastState.terminated.reason}=Error --timeout=300s");
    holds(&k.run("logs crash -n in --previous"), &["run"]);
    holds(&k.run("get pod crash -n in"), &["crash"]);
    k.run("delete namespace in --timeout=120s");
}

fn forwarded(k: &Tool<'_>) {
    fresh(k, "fwd");
    k.run("run web -n fwd --image=nginx:1.27 --port=80");
    k.run("wait pod/web -n fwd --for=condition=Ready --timeout=120s");
    let (mut child, _watch) = k.spawn(&["port-forward", "-n", "fwd", "pod/web", ":80"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let port: u16 = line.split(':').nth(1).and_then(|p| p.split(' ').next()).and_then(|p| p.parse().ok()).unwrap_or(0);
    if port == 0 {
        child.kill().ok();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).ok();
        panic!("no port in `{line}`: {said}");
    }
    let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    s.read_to_string(&mut answer).unwrap();
    child.kill().ok();
    child.wait().ok();
    holds(&answer, &["200 OK", "Welcome to nginx!"]);
    k.run("delete namespace fwd --timeout=120s");
}

fn nodes(k: &Tool<'_>) {
    let node = k.run("get nodes -l !node-role.kubernetes.io/control-plane -o jsonpath={.items[0].metadata.name}");
    holds(&k.run(&format!("cordon {node}")), &["cordoned"]);
    holds(&k.run(&format!("get node {node}")), &["Ready,SchedulingDisabled"]);
    let drain = k.try_run(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force --timeout=180s"));
    assert_eq!(drain.code, 0, "{drain:?}");
    holds(&k.run(&format!("uncordon {node}")), &["uncordoned"]);
    holds(&k.run(&format!("taint node {node} gpu=yes:NoSchedule")), &["tainted"]);
    holds(&k.run(&format!("describe node {node}")), &["gpu=yes:NoSchedule"]);
    holds(&k.run(&format!("taint node {node} gpu=yes:NoSchedule-")), &["untainted"]);
    holds(&k.run(&format!("label node {node} rack=7")), &["labeled"]);
    holds(&k.run("get nodes -L rack"), &["RACK", "7"]);
    k.run(&format!("label node {node} rack-"));
}

fn jobs(k: &Tool<'_>) {
    fresh(k, "work");
    k.run("create job once -n work --image=busybox -- echo done");
    k.run("wait job/once -n work --for=condition=Complete --timeout=120s");
    holds(&k.run("logs job/once -n work"), &["done"]);
    holds(&k.run("get jobs -n work"), &["Complete", "1/1"]);
    k.feed(
        &["create", "cronjob", "often", "-n", "work", "--image=busybox", "--schedule=*/5 * * * *", "--", "date"],
        "",
    );
    holds(&k.run("get cronjobs -n work"), &["*/5 * * * *", "False"]);
    k.run("create job now -n work --from=cronjob/often");
    k.run("wait job/now -n work --for=condition=Complete --timeout=120s");
    k.run("create quota limits -n work --hard=pods=10,services=2");
    holds(&k.run("describe quota limits -n work"), &["pods", "10"]);
    k.run("create serviceaccount bot -n work");
    holds(&k.run("create token bot -n work"), &["eyJ"]);
    k.run("delete namespace work --timeout=120s");
}

fn rights(k: &Tool<'_>) {
    holds(&k.run("auth can-i create deployments"), &["yes"]);
    holds(&k.run("auth whoami"), &["system:masters"]);
    fresh(k, "law");
    k.run("create serviceaccount reader -n law");
    k.run("create role pods -n law --verb=get,list --resource=pods");
    k.run("create rolebinding pods -n law --role=pods --serviceaccount=law:reader");
    holds(&k.run("auth can-i list pods -n law --as=system:serviceaccount:law:reader"), &["yes"]);
    holds(&k.fails("auth can-i delete pods -n law --as=system:serviceaccount:law:reader"), &["no"]);
    let token = k.run("create token reader -n law").trim().to_owned();
    let server = k.run("config view --minify -o jsonpath={.clusters[0].cluster.server}");
    let bare = |token: &str| {
        k.try_run(&format!(
            "--kubeconfig=/dev/null --server={server} --insecure-skip-tls-verify --token={token} get pods -n law"
        ))
    };
    assert_eq!(bare(&token).code, 0, "{:?}", bare(&token));
    let denied = k.try_run(&format!(
        "--kubeconfig=/dev/null --server={server} --insecure-skip-tls-verify --token={token} get secrets -n law"
    ));
    holds(&denied.err, &["Forbidden", "cannot list resource \"secrets\""]);
    holds(&bare("wrong").err, &["Unauthorized"]);
    k.run("delete namespace law --timeout=120s");
}
