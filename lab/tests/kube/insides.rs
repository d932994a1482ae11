//! Containers from inside: what their commands become, what they see of the network, and how they end.
use serde_json::{Value, json};

use crate::bed::{Bed, made};
use crate::controllers::{held, until, with_nodes};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, c: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"restartPolicy": "Never", "containers": [c]}})
}

fn script(text: &str) -> Value {
    json!({"name": "c", "image": "busybox:1", "command": ["sh", "-c", text]})
}

fn state(p: &Value) -> &Value {
    &p["status"]["containerStatuses"][0]["state"]
}

/// The pod once it has ended, and its log.
async fn over(bed: &Bed, p: Value) -> (Value, String) {
    let at = format!("{PODS}/{}", p["metadata"]["name"].as_str().unwrap());
    made(bed, PODS, p).await;
    let done = |p: &Value| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let p = until(bed, &at, "over", done).await;
    (p, bed.get(&format!("{at}/log")).await.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_too_much_memory_is_killed() {
    let bed = with_nodes(1).await;
    let limits = json!({"limits": {"memory": "100Mi"}});
    let mut c = script("echo up; tail /dev/zero; echo never");
    c["resources"] = limits.clone();
    let (p, log) = over(&bed, pod("tail", c)).await;
    let end = &state(&p)["terminated"];
    assert_eq!((&end["reason"], &end["exitCode"], log.as_str()), (&json!("OOMKilled"), &json!(137), "up\n"));
    let python = json!({"name": "c", "image": "python:3.12", "resources": limits.clone(),
        "command": ["python3", "-c", "x = 'a' * 500 * 1024 * 1024"]});
    let mut tail = script("true");
    tail["command"] = json!(["tail", "/dev/zero"]);
    tail["resources"] = limits.clone();
    assert_eq!(state(&over(&bed, pod("bare", tail)).await.0)["terminated"]["reason"], "OOMKilled");
    assert_eq!(state(&over(&bed, pod("python", python)).await.0)["terminated"]["reason"], "OOMKilled");
    // the documentation's example: it is started again and again
    let c = json!({"name": "c", "image": "polinux/stress", "resources": limits.clone(), "command": ["stress"],
        "args": ["--vm", "1", "--vm-bytes", "250M", "--vm-hang", "1"]});
    let mut p = pod("again", c.clone());
    p["spec"]["restartPolicy"] = json!("Always");
    made(&bed, PODS, p).await;
    let backs_off = |p: &Value| state(p)["waiting"]["reason"] == "CrashLoopBackOff";
    let p = until(&bed, &format!("{PODS}/again"), "backing off", backs_off).await;
    assert_eq!(p["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"], "OOMKilled");
    // what fits stays
    let mut c = c;
    c["args"][3] = json!("50M");
    made(&bed, PODS, pod("fits", c)).await;
    let p = until(&bed, &format!("{PODS}/fits"), "running", |p| p["status"]["phase"] == "Running").await;
    assert!(state(&p)["running"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_expanded_and_have_to_be_there() {
    let bed = with_nodes(1).await;
    let c = json!({"name": "c", "image": "busybox:1", "command": ["echo"], "args": ["$(G) $$(G) $(NOPE) $(HOSTNAME)"],
        "env": [{"name": "G", "value": "hi"}]});
    assert_eq!(over(&bed, pod("echo", c)).await.1, "hi $(G) $(NOPE) $(HOSTNAME)\n");
    let c = json!({"name": "c", "image": "busybox:1", "command": ["/bin/nosuch"]});
    let (p, _) = over(&bed, pod("slip", c)).await;
    let end = &state(&p)["terminated"];
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("StartError"), &json!(128)));
    let why = end["message"].as_str().unwrap();
    assert!(why.ends_with("exec: \"/bin/nosuch\": stat /bin/nosuch: no such file or directory: unknown"), "{why}");
    // what the lab does not run but the image has is no slip
    let c = json!({"name": "c", "image": "busybox:1", "command": ["httpd", "-f"]});
    made(&bed, PODS, pod("httpd", c)).await;
    until(&bed, &format!("{PODS}/httpd"), "running", |p| p["status"]["phase"] == "Running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_of_a_container_are_in_its_state() {
    let bed = with_nodes(1).await;
    let (p, _) = over(&bed, pod("said", script("echo bye > /dev/termination-log"))).await;
    assert_eq!(state(&p)["terminated"]["message"], "bye\n");
    let mut c = script("echo one; echo two; exit 3");
    let (p, _) = over(&bed, pod("silent", c.clone())).await;
    assert_eq!(state(&p)["terminated"]["message"], Value::Null);
    c["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let (p, _) = over(&bed, pod("log", c)).await;
    assert_eq!(state(&p)["terminated"]["message"], "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_services_nodes_and_pods() {
    let bed = with_nodes(1).await;
    let web = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"hostname": "one", "subdomain": "own",
        "containers": [{"name": "c", "image": "nginx:1.27"}]}});
    made(&bed, PODS, web).await;
    let services = "/api/v1/namespaces/default/services";
    let ports = json!([{"port": 8080, "targetPort": 80, "nodePort": 30080}]);
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports});
    made(&bed, services, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    made(&bed, services, json!({"metadata": {"name": "own"}, "spec": spec})).await;
    let ready = |p: &Value| p["status"]["containerStatuses"][0]["ready"] == true;
    let ip = until(&bed, &format!("{PODS}/web"), "ready", ready).await["status"]["podIP"].as_str().unwrap().to_owned();
    let at = "/api/v1/namespaces/default/endpoints/own";
    until(&bed, at, "there", |e| e["subsets"][0]["addresses"][0].is_object()).await;
    let node = "10.0.0.5";
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": node}]}});
    bed.patch("merge", "/api/v1/nodes/n0/status", addresses).await;
    let code = "curl -s -o /dev/null -w '%{http_code}\\n'";
    let text = format!(
        "nslookup own | tail -3; nslookup one.own | grep Address | tail -1; {code} http://web:8080; {code} http://{node}:30080; \
         {code} http://own; {code} http://one.own.default.svc.cluster.local; {code} http://web:8080/nope; {code} http://nosuch; \
         curl -sI http://web:8080 | head -1; curl http://{node}:30081; wget -qO- http://{ip} | grep -c title; tail -1 /etc/hosts; echo $IP"
    );
    let mut c = script(&text);
    c["env"] = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let (p, log) = over(&bed, pod("client", c)).await;
    let own = p["status"]["podIP"].as_str().unwrap();
    let want = format!(
        "Name:\town.default.svc.cluster.local\nAddress: {ip}\n\nAddress: {ip}\n200\n200\n200\n200\n404\n000\nHTTP/1.1 200 OK\r\n1\n\
         {own}\tclient\n{own}\ncurl: (7) Failed to connect to {node} port 30081 after 1 ms: Could not connect to server\n"
    );
    assert_eq!(log, want);
    let log = bed.get(&format!("{PODS}/web/log")).await.text;
    assert!(
        log.lines().any(|l| l.starts_with("10.42.0.1 - - [") && l.contains("] \"GET /nope HTTP/1.1\" 404 ")),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_second_are_listed_as_they_came() {
    let bed = with_nodes(1).await;
    for name in ["first", "second"] {
        // asked for again although it is there by then
        let c = json!({"name": "c", "image": "busybox", "command": ["true"]});
        over(&bed, pod(name, c)).await;
        let at = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}");
        let all = bed.get(&at).await.body;
        let reasons: Vec<&str> =
            all["items"].as_array().unwrap().iter().map(|e| e["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["Scheduled", "Pulling", "Pulled", "Created", "Started"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_and_a_failed_one_ends_the_container() {
    let bed = with_nodes(1).await;
    let hook = |text: &str| json!({"postStart": {"exec": {"command": ["sh", "-c", text]}}});
    let mut c = script("sleep 5; cat /hello");
    c["lifecycle"] = hook("echo hi > /hello");
    assert_eq!(over(&bed, pod("good", c)).await.1, "hi\n");
    let mut c = script("sleep 60");
    c["lifecycle"] = hook("exit 1");
    let (p, _) = over(&bed, pod("bad", c)).await;
    assert_eq!(state(&p)["terminated"]["exitCode"], 137);
    let at = "/api/v1/namespaces/default/events?fieldSelector=reason=FailedPostStartHook";
    assert_eq!(bed.get(at).await.body["items"][0]["message"], "PostStartHook failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_listen_has_its_grace_period() {
    let bed = with_nodes(1).await;
    let mut slow = pod("slow", script("sleep 3600"));
    slow["spec"]["terminationGracePeriodSeconds"] = json!(20);
    let mut quick = slow.clone();
    quick["metadata"]["name"] = json!("quick");
    quick["spec"]["containers"][0] = json!({"name": "c", "image": "nginx:1"});
    for (p, least, most) in [(slow, 19_000, 30_000), (quick, 0, 10_000)] {
        let at = format!("{PODS}/{}", p["metadata"]["name"].as_str().unwrap());
        let mark = bed.lab.clock().busy_guard();
        made(&bed, PODS, p).await;
        held(&bed, &at, "running", |p| p["status"]["phase"] == "Running").await;
        let since = bed.lab.clock().now_ms();
        bed.delete(&at, json!({})).await;
        held(&bed, &at, "gone", |p| p["code"] == 404).await;
        let took = bed.lab.clock().now_ms() - since;
        assert!((least..most).contains(&took), "{at}: {took}");
        drop(mark);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_mounts_are_as_the_pod_says() {
    let bed = with_nodes(1).await;
    bed.config_map("cm", json!({"a": "1"})).await;
    let mut c = script("id; whoami; touch /x || echo no; touch /cm/x || echo no; touch /e/x && echo yes");
    c["securityContext"] = json!({"readOnlyRootFilesystem": true});
    c["volumeMounts"] = json!([{"name": "cm", "mountPath": "/cm"}, {"name": "e", "mountPath": "/e"}]);
    let mut p = pod("user", c);
    p["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000});
    p["spec"]["volumes"] = json!([{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}]);
    let log = over(&bed, p).await.1;
    let out: Vec<&str> = log.lines().filter(|l| !l.contains(": ")).collect();
    assert_eq!(out, ["uid=1000 gid=3000 groups=3000,2000", "no", "no", "yes"], "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    let mut p = pod("root", json!({"name": "c", "image": "nginx:1"}));
    p["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    made(&bed, PODS, p).await;
    let waits = |p: &Value| state(p)["waiting"]["reason"] == "CreateContainerConfigError";
    let p = until(&bed, &format!("{PODS}/root"), "refused", waits).await;
    let text = state(&p)["waiting"]["message"].as_str().unwrap();
    assert!(text.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_default("), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_talks_to_the_api_as_its_account() {
    let bed = with_nodes(1).await;
    let service = json!({"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]});
    made(&bed, "/api/v1/namespaces/default/services", json!({"metadata": {"name": "kubernetes"}, "spec": service}))
        .await;
    let text = "T=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); A=\"Authorization: Bearer $T\"\n\
        curl -sk -H \"$A\" https://kubernetes.default.svc/api/v1/namespaces/default/pods | grep message\n\
        curl -s https://kubernetes.default.svc/version || echo $?\n\
        curl -sk -H \"$A\" https://$KUBERNETES_SERVICE_HOST/version | grep -c gitVersion";
    let log = over(&bed, pod("client", script(text))).await.1;
    let who = "system:serviceaccount:default:default";
    let message = format!(
        "pods is forbidden: User \\\"{who}\\\" cannot list resource \\\"pods\\\" in API group \\\"\\\" in the namespace \\\"default\\\""
    );
    assert!(log.starts_with(&format!("  \"message\": \"{message}\",\n60\n1\n")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_probes_of_a_bare_shell() {
    let bed = with_nodes(1).await;
    let mut c = script("sleep 3600");
    c["livenessProbe"] = json!({"tcpSocket": {"port": 9999}, "periodSeconds": 5});
    made(&bed, PODS, pod("shell", c)).await;
    let p = until(&bed, &format!("{PODS}/shell"), "failed", |p| p["status"]["phase"] == "Failed").await;
    let ip = p["status"]["podIP"].as_str().unwrap();
    let at = "/api/v1/namespaces/default/events?fieldSelector=reason=Unhealthy";
    let why = format!("Liveness probe failed: dial tcp {ip}:9999: connect: connection refused");
    assert_eq!(bed.get(at).await.body["items"][0]["message"], why);
}
