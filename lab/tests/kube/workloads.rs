//! Pods, Jobs and what else controllers and kubelets show: who wrote what, containers that live by themselves, where
//! pods go, policies.
use gpuhost_lab::kube::bare;
use gpuhost_lab::kube::controllers::kubelet;
use gpuhost_lab::kube::cx::with_cluster;
use serde_json::{Value, json};

use crate::bed::{Bed, made};
use crate::controllers::{held, until, with_nodes};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "image": "busybox:1", "command": ["sh", "-c", text]})
}

/// The entry of a writer, by subresource.
fn entry<'a>(o: &'a Value, manager: &str, sub: &str) -> Option<&'a Value> {
    let list = o["metadata"]["managedFields"].as_array()?;
    list.iter().find(|e| e["manager"] == manager && e["subresource"].as_str().unwrap_or_default() == sub)
}

async fn messages(bed: &Bed, name: &str, reason: &str) -> Vec<String> {
    let all = bed.get("/api/v1/namespaces/default/events").await.body;
    let about = |e: &&Value| e["involvedObject"]["name"] == name && e["reason"] == reason;
    all["items"].as_array().unwrap().iter().filter(about).map(|e| e["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_and_kubelets_manage_what_they_write() {
    let bed = with_nodes(1).await;
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    made(&bed, &format!("{APPS}/deployments"), json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let at = format!("{APPS}/deployments/web");
    let d = until(&bed, &at, "available", |d| d["status"]["availableReplicas"] == 1).await;
    let status = &entry(&d, "k3s", "status").unwrap()["fieldsV1"];
    assert_eq!(status["f:status"]["f:availableReplicas"], json!({}));
    assert_eq!(status["f:metadata"], Value::Null, "the status is an entry of its own");
    assert_eq!(
        entry(&d, "k3s", "").unwrap()["fieldsV1"]["f:metadata"]["f:annotations"]["f:deployment.kubernetes.io/revision"],
        json!({})
    );
    let p = bed.get(PODS).await.body["items"][0].clone();
    let own = &entry(&p, "k3s", "").unwrap()["fieldsV1"];
    assert_eq!(own["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:image"], json!({}));
    assert_eq!(own["f:metadata"]["f:generateName"], json!({}));
    // what admission adds and the binding are nobody's
    for f in ["f:tolerations", "f:priority", "f:serviceAccount", "f:volumes", "f:nodeName"] {
        assert_eq!(own["f:spec"][f], Value::Null, "{f}");
    }
    let of_kubelet = &entry(&p, "k3s", "status").unwrap()["fieldsV1"]["f:status"];
    assert_eq!(of_kubelet["f:phase"], json!({}));
    assert_eq!(of_kubelet["f:conditions"]["k:{\"type\":\"Ready\"}"]["f:lastProbeTime"], json!({}));
    let placed = &of_kubelet["f:conditions"]["k:{\"type\":\"PodScheduled\"}"];
    assert_eq!(*placed, json!({"f:observedGeneration": {}}), "the binding wrote the rest");
    assert_eq!(p["metadata"]["generation"], 1, "a binding is no new generation");
    // a later applier is told whose a field is
    let named = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web",
        "annotations": {"deployment.kubernetes.io/revision": "7"}}});
    let a = bed.patch("apply", &format!("{at}?fieldManager=me"), named).await;
    let why = "conflict with \"k3s\" using apps/v1: .metadata.annotations.deployment.kubernetes.io/revision";
    assert!(a.code == 409 && a.message().contains(why), "{}", a.text);
    // all the same in a list, a watch and YAML
    let list = bed.get(&format!("{APPS}/deployments")).await.body;
    assert_eq!(list["items"][0]["metadata"]["managedFields"], d["metadata"]["managedFields"]);
    let said = bed.get(&format!("{APPS}/deployments?watch=1&timeoutSeconds=1")).await.text;
    let seen: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(seen["object"]["metadata"]["managedFields"], d["metadata"]["managedFields"]);
}

#[tokio::test]
async fn more_than_ten_updaters_become_one() {
    let bed = Bed::still().await;
    let at = "/api/v1/namespaces/default/configmaps/many";
    bed.config_map("many", json!({"a": "0"})).await;
    for i in 0..12 {
        let a =
            bed.patch("merge", &format!("{at}?fieldManager=m{i:02}"), json!({"data": {format!("k{i}"): "v"}})).await;
        assert_eq!(a.code, 200, "{}", a.text);
    }
    let o = bed.get(at).await.body;
    let list = o["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 10, "{list:#?}");
    let old = &entry(&o, "ancient-changes", "").unwrap()["fieldsV1"]["f:data"];
    assert_eq!(*old, json!({"f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}}), "of one second the first by name");
    // an entry that names no version is forgotten by the next write
    let bare = json!([{"op": "add", "path": "/metadata/managedFields/-", "value": {"manager": "x", "operation": "Update",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}}, {"op": "add", "path": "/data/z", "value": "z"}]);
    let o = bed.patch("json", at, bare).await.body;
    assert!(entry(&o, "x", "").is_none() && o["data"]["z"] == "z", "{o:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_live_by_themselves() {
    let bed = with_nodes(1).await;
    let list = json!([{"name": "good", "image": "nginx:1"}, script("bad", "exit 3")]);
    let p = made(&bed, PODS, pod("two", json!({"containers": list}))).await;
    let uid = p["metadata"]["uid"].as_str().unwrap();
    let at = format!("{PODS}/two");
    // the first restart is immediate, the second waits
    let p = until(&bed, &at, "backing off", |p| {
        p["status"]["containerStatuses"][1]["state"]["waiting"].is_object()
            && p["status"]["containerStatuses"][0]["ready"] == true
    })
    .await;
    let [good, bad] = [0, 1].map(|i| p["status"]["containerStatuses"][i].clone());
    assert!(good["state"]["running"].is_object() && good["restartCount"] == 0, "{good:#}");
    assert_eq!((&bad["restartCount"], &bad["state"]["waiting"]["reason"]), (&json!(1), &json!("CrashLoopBackOff")));
    let text = format!("back-off 10s restarting failed container=bad pod=two_default({uid})");
    assert_eq!(bad["state"]["waiting"]["message"], text);
    assert_eq!(bad["lastState"]["terminated"]["containerID"], bad["containerID"]);
    assert_eq!((&p["status"]["phase"], &bad["lastState"]["terminated"]["exitCode"]), (&json!("Running"), &json!(3)));
    let ready = p["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!(ready["message"], "containers with unready status: [bad]");
    let said = messages(&bed, "two", "BackOff").await;
    assert_eq!(said, [format!("Back-off restarting failed container bad in pod two_default({uid})")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_restart_and_hold_back() {
    let bed = with_nodes(1).await;
    let mut c = script("c", "touch /tmp/healthy; sleep 20; rm /tmp/healthy; sleep 600");
    c["livenessProbe"] = json!({"exec": {"command": ["cat", "/tmp/healthy"]}, "periodSeconds": 5});
    let mark = bed.lab.clock().busy_guard();
    made(&bed, PODS, pod("live", json!({"containers": [c], "terminationGracePeriodSeconds": 3}))).await;
    let p =
        held(&bed, &format!("{PODS}/live"), "restarted", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
            .await;
    let last = &p["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("Error")));
    assert_eq!(messages(&bed, "live", "Killing").await, ["Container c failed liveness probe, will be restarted"]);
    let c = json!({"name": "c", "image": "nginx:1", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}});
    made(&bed, PODS, pod("shut", json!({"containers": [c]}))).await;
    let p = held(&bed, &format!("{PODS}/shut"), "running", |p| p["status"]["phase"] == "Running").await;
    bed.lab.clock().sleep(std::time::Duration::from_secs(15)).await;
    let ip = p["status"]["podIP"].as_str().unwrap();
    let why =
        format!("Readiness probe failed: Get \"http://{ip}:8080/\": dial tcp {ip}:8080: connect: connection refused");
    assert_eq!(messages(&bed, "shut", "Unhealthy").await, [why]);
    let p = bed.get(&format!("{PODS}/shut")).await.body;
    let st = &p["status"]["containerStatuses"][0];
    assert_eq!((&st["ready"], &st["started"]), (&json!(false), &json!(true)));
    drop(mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_needs_is_named_when_it_lacks() {
    let bed = with_nodes(1).await;
    let from = |name: &str| json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": name, "key": "a"}}}]);
    let c = json!({"name": "c", "image": "busybox:1", "command": ["sleep", "inf"], "env": from("later")});
    made(&bed, PODS, pod("env", json!({"containers": [c]}))).await;
    let at = format!("{PODS}/env");
    let waits = |text: &str| {
        let text = text.to_owned();
        move |p: &Value| {
            let w = &p["status"]["containerStatuses"][0]["state"]["waiting"];
            w["reason"] == "CreateContainerConfigError" && w["message"] == text
        }
    };
    until(&bed, &at, "without its map", waits("configmap \"later\" not found")).await;
    bed.config_map("later", json!({"b": "1"})).await;
    until(&bed, &at, "without its key", waits("couldn't find key a in ConfigMap default/later")).await;
    bed.patch("merge", "/api/v1/namespaces/default/configmaps/later", json!({"data": {"a": "1"}})).await;
    until(&bed, &at, "ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    // a user that it must not be, and one that it may be
    let alone = json!({"runAsNonRoot": true});
    let c = json!({"name": "c", "image": "nginx:1", "securityContext": alone});
    let p = made(&bed, PODS, pod("root", json!({"containers": [c]}))).await;
    let uid = p["metadata"]["uid"].as_str().unwrap();
    let whose = format!("(pod: \"root_default({uid})\", container: c)");
    let text = format!("container has runAsNonRoot and image will run as root {whose}");
    until(&bed, &format!("{PODS}/root"), "refused", waits(&text)).await;
    assert_eq!(messages(&bed, "root", "Failed").await, [format!("Error: {text}")]);
    let c = json!({"name": "c", "image": "nginx:1", "securityContext": {"runAsUser": 101}});
    made(&bed, PODS, pod("user", json!({"containers": [c], "securityContext": alone}))).await;
    until(&bed, &format!("{PODS}/user"), "ready", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    // a program that its image has not
    let c = json!({"name": "c", "image": "busybox:1.36", "command": ["nosuch", "x"]});
    made(&bed, PODS, pod("prog", json!({"containers": [c], "restartPolicy": "Never"}))).await;
    let p = until(&bed, &format!("{PODS}/prog"), "not started", |p| p["status"]["phase"] == "Failed").await;
    let end = &p["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["reason"], "StartError", "{end:#}");
    assert!(
        end["message"].as_str().unwrap().ends_with("exec: \"nosuch\": executable file not found in $PATH: unknown")
    );
    // an image that is nowhere and must be there
    let c = json!({"name": "c", "image": "reg.invalid/y:1", "imagePullPolicy": "Never"});
    made(&bed, PODS, pod("there", json!({"containers": [c]}))).await;
    until(&bed, &format!("{PODS}/there"), "absent", |p| {
        p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    })
    .await;
    bed.lab.clock().sleep(std::time::Duration::from_secs(30)).await;
    let p = bed.get(&format!("{PODS}/there")).await.body;
    assert_eq!(p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ErrImageNeverPull", "{p:#}");
    // an image on a domain that nobody has
    made(&bed, PODS, pod("img", json!({"containers": [{"name": "c", "image": "reg.invalid/x:1"}]}))).await;
    let at = format!("{PODS}/img");
    let p = until(&bed, &at, "backing off", |p| {
        p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    })
    .await;
    let text = p["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        text.starts_with("Back-off pulling image \"reg.invalid/x:1\": ErrImagePull: ")
            && text.ends_with("no such host"),
        "{text}"
    );
    let said = messages(&bed, "img", "Failed").await;
    assert!(
        said.contains(&"Error: ErrImagePull".to_owned()) && said.contains(&"Error: ImagePullBackOff".to_owned()),
        "{said:?}"
    );
    // another image mends it
    let image = json!({"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    assert_eq!(bed.patch("strategic", &at, image).await.code, 200);
    until(&bed, &at, "ready", |p| p["status"]["phase"] == "Running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_run_beside_and_end_with_the_pod() {
    let bed = with_nodes(1).await;
    let mut side = script("side", "sleep inf");
    side["restartPolicy"] = json!("Always");
    let inits = json!([script("first", "true"), side]);
    made(
        &bed,
        PODS,
        pod("job", json!({"restartPolicy": "Never", "initContainers": inits, "containers": [script("c", "sleep 5")]})),
    )
    .await;
    let at = format!("{PODS}/job");
    let p = until(&bed, &at, "running", |p| p["status"]["containerStatuses"][0]["ready"] == true).await;
    let side = &p["status"]["initContainerStatuses"][1];
    assert!(side["state"]["running"].is_object() && side["ready"] == true && side["started"] == true, "{side:#}");
    let p = until(&bed, &at, "done", |p| p["status"]["phase"] == "Succeeded").await;
    assert!(p["status"]["initContainerStatuses"][1]["state"]["terminated"].is_object());
    let volume = p["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(
        p["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_apart_and_make_room() {
    let bed = with_nodes(2).await;
    let far = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "far"}}}]}});
    for i in 0..3 {
        let spec = json!({"affinity": far, "containers": [{"name": "c", "image": "nginx:1"}]});
        made(&bed, PODS, json!({"metadata": {"name": format!("far{i}"), "labels": {"app": "far"}}, "spec": spec}))
            .await;
    }
    let condition = |p: &Value| {
        let all = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == "PodScheduled").unwrap_or_default()
    };
    let p = until(&bed, &format!("{PODS}/far2"), "unplaced", |p| condition(p)["status"] == "False").await;
    assert_eq!(
        condition(&p)["message"],
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    // a more important pod takes the room of others
    made(&bed, "/apis/scheduling.k8s.io/v1/priorityclasses", json!({"metadata": {"name": "high"}, "value": 1000}))
        .await;
    let node = bed.get("/api/v1/nodes/n0").await.body;
    let cpu = node["status"]["allocatable"]["cpu"].clone();
    let asks = |cpu: &Value| json!([{"name": "c", "image": "nginx:1", "resources": {"requests": {"cpu": cpu}}}]);
    for n in ["n0", "n1"] {
        let spec = json!({"nodeSelector": {"kubernetes.io/hostname": n}, "containers": asks(&cpu)});
        made(&bed, PODS, pod(&format!("low-{n}"), spec)).await;
        until(&bed, &format!("{PODS}/low-{n}"), "running", |p| p["status"]["phase"] == "Running").await;
    }
    made(&bed, PODS, pod("high", json!({"priorityClassName": "high", "containers": asks(&cpu)}))).await;
    let p = until(&bed, &format!("{PODS}/high"), "running", |p| p["status"]["phase"] == "Running").await;
    let gone = format!("low-{}", p["spec"]["nodeName"].as_str().unwrap());
    assert_eq!(bed.get(&format!("{PODS}/{gone}")).await.code, 404);
    let said = messages(&bed, &gone, "Preempted").await;
    assert!(said[0].starts_with("Preempted by pod ") && said[0].contains(" on node n"), "{said:?}");
    // a gate holds a pod back before anything is looked at
    made(
        &bed,
        PODS,
        pod(
            "gated",
            json!({"schedulingGates": [{"name": "x.io/g"}], "containers": [{"name": "c", "image": "nginx:1"}]}),
        ),
    )
    .await;
    let p = until(&bed, &format!("{PODS}/gated"), "held", |p| condition(p)["reason"] == "SchedulingGated").await;
    assert_eq!(condition(&p)["message"], "Scheduling is blocked due to non-empty scheduling gates");
}

#[tokio::test(flavor = "multi_thread")]
async fn taints_drive_pods_off() {
    let bed = with_nodes(2).await;
    let bears = json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]);
    for (name, tolerations) in [("brief", bears), ("none", json!([]))] {
        let spec =
            json!({"nodeName": "n0", "tolerations": tolerations, "containers": [{"name": "c", "image": "nginx:1"}]});
        made(&bed, PODS, pod(name, spec)).await;
        until(&bed, &format!("{PODS}/{name}"), "running", |p| p["status"]["phase"] == "Running").await;
    }
    let mark = bed.lab.clock().busy_guard();
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}});
    assert_eq!(bed.patch("merge", "/api/v1/nodes/n0", taint).await.code, 200);
    let begun = bed.lab.clock().now_ms();
    held(&bed, &format!("{PODS}/none"), "gone", |p| p["code"] == 404).await;
    assert_eq!(messages(&bed, "none", "TaintManagerEviction").await, ["Marking for deletion Pod default/none"]);
    held(&bed, &format!("{PODS}/brief"), "gone", |p| p["code"] == 404).await;
    assert!(bed.lab.clock().now_ms() - begun >= 60_000);
    drop(mark);
}

fn job(spec: Value, text: &str, policy: &str) -> Value {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": policy, "containers": [script("c", text)]}});
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_by_their_policies() {
    let bed = with_nodes(1).await;
    let indexed = |mut spec: Value| {
        spec["completionMode"] = json!("Indexed");
        spec
    };
    let rules = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let third = "test $JOB_COMPLETION_INDEX -ne 2";
    for (name, spec) in [
        ("code", job(json!({"podFailurePolicy": rules}), "exit 42", "Never")),
        ("index", job(indexed(json!({"completions": 4, "parallelism": 4, "backoffLimitPerIndex": 0})), third, "Never")),
        (
            "lead",
            job(
                indexed(
                    json!({"completions": 3, "parallelism": 3, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}),
                ),
                "test $JOB_COMPLETION_INDEX -eq 0 || sleep 900",
                "Never",
            ),
        ),
        ("queue", job(json!({"parallelism": 2}), "sleep 5", "Never")),
        ("again", job(json!({"backoffLimit": 1}), "exit 1", "OnFailure")),
    ] {
        made(&bed, &format!("{BATCH}/jobs"), json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    for (name, kind, reason, text) in [
        ("code", "Failed", "PodFailurePolicy", "failed with exit code 42 matching FailJob rule at index 0"),
        ("index", "Failed", "FailedIndexes", "Job has failed indexes"),
        ("lead", "Complete", "SuccessPolicy", "Matched rules at index 0"),
        ("queue", "Complete", "CompletionsReached", "Reached expected number of succeeded pods"),
        ("again", "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
    ] {
        let found = |j: &Value| {
            let all = j["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["type"] == kind)
        };
        let j = until(&bed, &format!("{BATCH}/jobs/{name}"), kind, |j| found(j).is_some()).await;
        let c = found(&j).unwrap();
        assert!(c["reason"] == reason && c["message"].as_str().unwrap().ends_with(text), "{name}: {c}");
    }
    let j = bed.get(&format!("{BATCH}/jobs/index")).await.body;
    assert_eq!((&j["status"]["completedIndexes"], &j["status"]["failedIndexes"]), (&json!("0,1,3"), &json!("2")));
    let j = bed.get(&format!("{BATCH}/jobs/queue")).await.body;
    assert_eq!((j["spec"].get("completions"), &j["status"]["succeeded"]), (None, &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_that_was_held_up_catches_up() {
    let bed = with_nodes(1).await;
    let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid",
        "jobTemplate": {"spec": job(json!({}), "sleep 90", "Never")}});
    made(&bed, &format!("{BATCH}/cronjobs"), json!({"metadata": {"name": "tick"}, "spec": spec})).await;
    let jobs = format!("{BATCH}/jobs");
    let list = until(&bed, &jobs, "two", |l| l["items"].as_array().is_some_and(|a| a.len() >= 2)).await;
    let minute = |i: usize| -> u64 {
        let name = list["items"][i]["metadata"]["name"].as_str().unwrap();
        name.trim_start_matches("tick-").parse().unwrap()
    };
    assert_eq!(minute(1), minute(0) + 1, "the minute that was missed is made up for");
    let said = messages(&bed, "tick", "SawCompletedJob").await;
    assert!(said[0].ends_with(", condition: Complete"), "{said:?}");
    assert_eq!(messages(&bed, "tick", "JobAlreadyActive").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscalers_say_what_they_lack() {
    let bed = with_nodes(1).await;
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    let spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nope"}, "maxReplicas": 3, "metrics": metrics});
    let at = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    made(&bed, at, json!({"metadata": {"name": "h"}, "spec": spec})).await;
    until(&bed, &format!("{at}/h"), "told", |h| h["status"]["conditions"].is_array()).await;
    assert_eq!(messages(&bed, "h", "FailedGetScale").await, ["deployments.apps \"nope\" not found"]);
    let template =
        json!({"metadata": {"labels": {"app": "nope"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    let spec = json!({"selector": {"matchLabels": {"app": "nope"}}, "template": template});
    made(&bed, &format!("{APPS}/deployments"), json!({"metadata": {"name": "nope"}, "spec": spec})).await;
    let h =
        until(&bed, &format!("{at}/h"), "unable", |h| h["status"]["conditions"][1]["type"] == "ScalingActive").await;
    assert_eq!(h["status"]["conditions"][0]["reason"], "SucceededGetScale");
    let why = "failed to get cpu utilization: ";
    let said = messages(&bed, "h", "FailedGetResourceMetric").await;
    assert!(said[0].starts_with(why), "{said:?}");
    let said = messages(&bed, "h", "FailedComputeMetricsReplicas").await;
    let all =
        format!("invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}");
    assert!(said[0].starts_with(&all), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_wait_count_from_elsewhere_and_surge() {
    let bed = with_nodes(2).await;
    let template = |app: &str, image: &str| json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let spec = json!({"serviceName": "ss", "replicas": 2, "ordinals": {"start": 5}, "minReadySeconds": 30,
        "selector": {"matchLabels": {"app": "ss"}}, "template": template("ss", "nginx:1")});
    made(&bed, &format!("{APPS}/statefulsets"), json!({"metadata": {"name": "ss"}, "spec": spec})).await;
    let s =
        until(&bed, &format!("{APPS}/statefulsets/ss"), "available", |s| s["status"]["availableReplicas"] == 2).await;
    assert_eq!(s["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    let times = |p: &Value| {
        gpuhost_lab::kube::store::meta::parse_time(p["metadata"]["creationTimestamp"].as_str().unwrap()).unwrap()
    };
    let [first, second] = [bed.get(&format!("{PODS}/ss-5")).await.body, bed.get(&format!("{PODS}/ss-6")).await.body];
    assert!(times(&second) >= times(&first) + 30_000, "the next one waits until the one before is available");
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let spec = json!({"updateStrategy": surge, "selector": {"matchLabels": {"app": "ds"}}, "template": template("ds", "nginx:1")});
    let at = format!("{APPS}/daemonsets/ds");
    let d = made(&bed, &format!("{APPS}/daemonsets"), json!({"metadata": {"name": "ds"}, "spec": spec})).await;
    assert_eq!(d["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
    until(&bed, &at, "available", |d| d["status"]["numberAvailable"] == 2).await;
    let change = json!({"spec": {"template": template("ds", "nginx:2")}});
    let d = bed.patch("strategic", &at, change).await.body;
    assert_eq!(d["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "2");
    until(&bed, &at, "rolled", |d| {
        assert!(d["status"]["numberAvailable"].as_u64() == Some(2), "no node is without one: {}", d["status"]);
        d["status"]["updatedNumberScheduled"] == 2 && d["status"]["observedGeneration"] == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hold_their_addresses_as_objects() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n0");
    let s = made(
        &bed,
        "/api/v1/namespaces/default/services",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let at = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", s["spec"]["clusterIP"].as_str().unwrap());
    let ip = until(&bed, &at, "there", |o| o["kind"] == "IPAddress").await;
    assert_eq!(ip["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "s"}));
    bed.delete("/api/v1/namespaces/default/services/s", Value::Null).await;
    until(&bed, &at, "free", |o| o["code"] == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_name_container_and_node_and_pods_have_their_time() {
    let bed = with_nodes(1).await;
    let spec = json!({"activeDeadlineSeconds": 20, "containers": [{"name": "c", "image": "nginx:1"}]});
    made(&bed, PODS, pod("brief", spec)).await;
    let p = until(&bed, &format!("{PODS}/brief"), "over", |p| p["status"]["phase"] == "Failed").await;
    let text = "Pod was active on the node longer than the specified deadline";
    assert_eq!((&p["status"]["reason"], &p["status"]["message"]), (&json!("DeadlineExceeded"), &json!(text)));
    assert_eq!(p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    let all = bed.get("/api/v1/namespaces/default/events").await.body;
    let started = all["items"].as_array().unwrap().iter().find(|e| e["reason"] == "Started").unwrap();
    assert_eq!(started["involvedObject"]["fieldPath"], "spec.containers{c}");
    assert_eq!(started["source"], json!({"component": "kubelet", "host": "n0"}));
    assert_eq!(started["reportingInstance"], "n0");
    // what stands behind a Service has its labels
    let spec = json!({"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 80}]});
    let service = json!({"metadata": {"name": "s", "labels": {"team": "a"}}, "spec": spec});
    made(&bed, "/api/v1/namespaces/default/services", service).await;
    let at = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let l = until(&bed, at, "there", |l| l["items"][0].is_object()).await;
    let m = &l["items"][0]["metadata"];
    assert_eq!((&m["labels"]["team"], &m["generateName"]), (&json!("a"), &json!("s-")));
    assert_eq!(m["labels"]["service.kubernetes.io/headless"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_know_their_limits_services_and_tokens() {
    let bed = with_nodes(1).await;
    let service = json!({"metadata": {"name": "my-db"}, "spec": {"ports": [{"name": "sql", "port": 5432}]}});
    let service = made(&bed, "/api/v1/namespaces/default/services", service).await;
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    let of = |r: &str| json!({"resourceFieldRef": {"resource": r}});
    let mebi = json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}});
    let mut c = script(
        "c",
        "echo $CPU $MEM $MIB $ALL $MY_DB_SERVICE_HOST $MY_DB_SERVICE_PORT_SQL $MY_DB_PORT; cat /p/cpu; cut -c1-3 /p/tok",
    );
    c["resources"] = json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}});
    c["env"] = json!([{"name": "CPU", "valueFrom": of("limits.cpu")}, {"name": "MEM", "valueFrom": of("limits.memory")},
        {"name": "MIB", "valueFrom": mebi}, {"name": "ALL", "valueFrom": of("requests.cpu")}]);
    c["volumeMounts"] = json!([{"name": "p", "mountPath": "/p"}]);
    let cpu = json!({"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}});
    let sources = json!([{"downwardAPI": {"items": [cpu]}}, {"serviceAccountToken": {"path": "tok"}}]);
    let volumes = json!([{"name": "p", "projected": {"sources": sources}}]);
    made(&bed, PODS, pod("knows", json!({"restartPolicy": "Never", "containers": [c], "volumes": volumes}))).await;
    until(&bed, &format!("{PODS}/knows"), "done", |p| p["status"]["phase"] == "Succeeded").await;
    let log = bed.get(&format!("{PODS}/knows/log")).await.text;
    assert_eq!(log, format!("2 67108864 64 1 {ip} 5432 tcp://{ip}:5432\n2eyJ\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_bear_a_silent_node_for_as_long_as_they_say() {
    let bed = with_nodes(1).await;
    let bears = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]);
    for (name, tolerations) in [("brief", bears), ("usual", json!([]))] {
        let spec =
            json!({"nodeName": "n0", "tolerations": tolerations, "containers": [{"name": "c", "image": "nginx:1"}]});
        made(&bed, PODS, pod(name, spec)).await;
        until(&bed, &format!("{PODS}/{name}"), "running", |p| p["status"]["phase"] == "Running").await;
    }
    let mark = bed.lab.clock().busy_guard();
    bed.lab.with(|w| {
        with_cluster(&bed.lab, w, &bed.cluster, |cx| {
            cx.node_rt("n0").posting = false;
            cx.condition(
                ("nodes", "", "n0"),
                "Ready",
                "Unknown",
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
            );
            kubelet::node_silent(cx, "n0");
        })
    });
    let begun = bed.lab.clock().now_ms();
    for (name, seconds) in [("brief", 30), ("usual", 300)] {
        held(&bed, &format!("{PODS}/{name}"), "going", |p| p["metadata"]["deletionTimestamp"].is_string()).await;
        let passed = (bed.lab.clock().now_ms() - begun) / 1000;
        assert!((seconds - 2..seconds + 3).contains(&passed), "{name} after {passed} s");
    }
    drop(mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_comes_before_the_container_leaves_it_unknown() {
    let bed = with_nodes(1).await;
    let c = json!({"name": "c", "image": "reg.invalid/x:1"});
    made(&bed, PODS, pod("late", json!({"containers": [c], "activeDeadlineSeconds": 20}))).await;
    let p = until(&bed, &format!("{PODS}/late"), "failed", |p| p["status"]["phase"] == "Failed").await;
    let end = &p["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(p["status"]["reason"], "DeadlineExceeded");
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)), "{p:#}");
}
