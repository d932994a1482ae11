//! What the controllers of workloads make of them, as recorded from a real control plane 1.36.2: rollouts, counts of pods
//! that are gone, what stands behind Services, who tells what.
use serde_json::{Value, json};

use crate::bed::{Bed, made};
use crate::controllers::{held, until, with_nodes};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const CORE: &str = "/api/v1/namespaces/default";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn workload(name: &str, image: &str, replicas: i64, more: Value) -> Value {
    let mut spec =
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image)});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn told(bed: &Bed, name: &str, reason: &str) -> Vec<Value> {
    let all = bed.get(&format!("{CORE}/events")).await.body;
    let about = |e: &&Value| e["involvedObject"]["name"] == name && e["reason"] == reason;
    all["items"].as_array().unwrap().iter().filter(about).cloned().collect()
}

async fn items(bed: &Bed, path: &str) -> Vec<Value> {
    bed.get(path).await.body["items"].as_array().unwrap().clone()
}

/// Conditions as `type=status/reason`, in their order.
fn conditions(o: &Value) -> Vec<String> {
    let text = |c: &Value, f: &str| c[f].as_str().unwrap_or_default().to_owned();
    let list = o["status"]["conditions"].as_array().into_iter().flatten();
    list.map(|c| format!("{}={}/{}", text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_controllers_run_pods() {
    let bed = with_nodes(1).await;
    let at = format!("{CORE}/replicationcontrollers");
    let spec = json!({"replicas": 3, "selector": {"app": "r"}, "template": template("r", "nginx:1")});
    let rc = made(&bed, &at, json!({"metadata": {"name": "r"}, "spec": spec})).await;
    let at = format!("{at}/r");
    let rc = until(&bed, &at, "ready", |o| {
        o["metadata"]["uid"] == rc["metadata"]["uid"] && o["status"]["readyReplicas"] == 3
    })
    .await;
    let status = json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3, "observedGeneration": 1});
    assert_eq!(rc["status"], status);
    let pods = items(&bed, &format!("{CORE}/pods")).await;
    assert!(pods.iter().all(|p| p["metadata"]["generateName"] == "r-"), "{pods:?}");
    let owner = &pods[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["apiVersion"], &owner["kind"]), (&json!("v1"), &json!("ReplicationController")));
    assert_eq!(told(&bed, "r", "SuccessfulCreate").await[0]["source"]["component"], "replication-controller");
    let a = bed.patch("merge", &format!("{at}/scale"), json!({"spec": {"replicas": 1}})).await;
    assert_eq!((a.code, &a.body["status"]["selector"]), (200, &json!("app=r")));
    until(&bed, &at, "smaller", |o| o["status"]["replicas"] == 1 && o["status"]["observedGeneration"] == 2).await;
    assert_eq!(told(&bed, "r", "SuccessfulDelete").await.len(), 2);
    // a pod that loses its label is let go and replaced
    let name =
        items(&bed, &format!("{CORE}/pods")).await.into_iter().find(|p| p["metadata"]["deletionTimestamp"].is_null());
    let name = name.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    bed.patch("merge", &format!("{CORE}/pods/{name}"), json!({"metadata": {"labels": {"app": "other"}}})).await;
    let orphan =
        until(&bed, &format!("{CORE}/pods/{name}"), "let go", |p| p["metadata"]["ownerReferences"].is_null()).await;
    assert_eq!(orphan["metadata"]["labels"]["app"], "other");
    until(&bed, &at, "replaced", |o| o["status"]["readyReplicas"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_way_is_scaled_in_proportion() {
    let bed = with_nodes(1).await;
    let limits = json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}});
    made(&bed, &format!("{APPS}/deployments"), workload("web", "nginx:1", 4, limits)).await;
    let at = format!("{APPS}/deployments/web");
    until(&bed, &at, "up", |d| d["status"]["availableReplicas"] == 4).await;
    let bad = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "registry.invalid/x:1"}]}}}});
    bed.patch("strategic", &at, bad).await;
    until(&bed, &at, "half way", |d| d["status"]["updatedReplicas"] == 2 && d["status"]["replicas"] == 5).await;
    for (want, sizes) in [(8, [5, 4]), (3, [2, 2])] {
        bed.patch("merge", &format!("{at}/scale"), json!({"spec": {"replicas": want}})).await;
        until(&bed, &at, "scaled", |d| d["status"]["replicas"] == sizes.iter().sum::<i64>()).await;
        let mut sets = items(&bed, &format!("{APPS}/replicasets")).await;
        sets.sort_by_key(|r| r["metadata"]["annotations"]["deployment.kubernetes.io/revision"].to_string());
        let have: Vec<i64> = sets.iter().map(|r| r["spec"]["replicas"].as_i64().unwrap()).collect();
        assert_eq!(have, sizes, "for {want}");
        let most = (want + 1).to_string();
        assert!(
            sets.iter().all(|r| r["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == most.as_str())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deployment_says_last_stands_last() {
    let bed = with_nodes(1).await;
    made(&bed, &format!("{APPS}/deployments"), workload("web", "nginx:1", 3, json!({}))).await;
    let at = format!("{APPS}/deployments/web");
    let (up, done) = ("Available=True/MinimumReplicasAvailable", "Progressing=True/NewReplicaSetAvailable");
    let d = until(&bed, &at, "up", |d| conditions(d).contains(&done.to_owned())).await;
    assert_eq!(conditions(&d), [up, done]);
    // more pods are no new rollout: only availability is told anew
    bed.patch("merge", &format!("{at}/scale"), json!({"spec": {"replicas": 9}})).await;
    let d = until(&bed, &at, "scaled", |d| d["status"]["availableReplicas"] == 9).await;
    assert_eq!(conditions(&d), [done, up]);
    bed.patch("merge", &at, json!({"spec": {"paused": true}})).await;
    let paused = "Progressing=Unknown/DeploymentPaused";
    until(&bed, &at, "paused", |d| conditions(d) == [up, paused]).await;
    bed.patch("merge", &at, json!({"spec": {"paused": false}})).await;
    until(&bed, &at, "resumed", |d| conditions(d) == [up, done]).await;
    // no deadline, nothing about progress
    bed.patch("merge", &at, json!({"spec": {"progressDeadlineSeconds": 2_147_483_647}})).await;
    until(&bed, &at, "silent", |d| conditions(d) == [up]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_that_come_back_keep_their_history() {
    let bed = with_nodes(1).await;
    made(&bed, &format!("{APPS}/deployments"), workload("web", "nginx:1", 1, json!({}))).await;
    let at = format!("{APPS}/deployments/web");
    for (revision, tag) in [("1", "1"), ("2", "2"), ("3", "1"), ("4", "2"), ("5", "1")] {
        let image =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": format!("nginx:{tag}")}]}}}});
        bed.patch("strategic", &at, image).await;
        until(&bed, &at, "rolled out", |d| {
            d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision
                && d["status"]["updatedReplicas"] == 1
                && d["status"]["replicas"] == 1
        })
        .await;
    }
    let sets = items(&bed, &format!("{APPS}/replicasets")).await;
    let of = |r: &Value, n: &str| r["metadata"]["annotations"][format!("deployment.kubernetes.io/{n}")].clone();
    let newest = sets.iter().find(|r| of(r, "revision") == "5").unwrap();
    assert_eq!(of(newest, "revision-history"), "1,3");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_of_a_job_counts_once() {
    let bed = with_nodes(1).await;
    let run = |text: &str| {
        json!({"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "busybox:1", "command": ["sh", "-c", text]}]}})
    };
    let spec = json!({"completions": 2, "parallelism": 1, "template": run("sleep 20")});
    made(&bed, JOBS, json!({"metadata": {"name": "j"}, "spec": spec})).await;
    let at = format!("{JOBS}/j");
    until(&bed, &at, "the first runs", |j| j["status"]["ready"] == 1).await;
    let pods = items(&bed, &format!("{CORE}/pods")).await;
    assert_eq!(pods[0]["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    until(&bed, &at, "the first is done", |j| j["status"]["succeeded"] == 1).await;
    let pods = items(&bed, &format!("{CORE}/pods")).await;
    let done = pods.iter().find(|p| p["status"]["phase"] == "Succeeded").unwrap();
    assert_eq!(done["metadata"]["finalizers"], Value::Null, "it has been counted");
    let first = format!("{CORE}/pods/{}", done["metadata"]["name"].as_str().unwrap());
    bed.delete(&first, json!({})).await;
    let j = until(&bed, &at, "complete", |j| conditions(j).len() == 2).await;
    assert_eq!(conditions(&j), ["SuccessCriteriaMet=True/CompletionsReached", "Complete=True/CompletionsReached"]);
    assert_eq!((&j["status"]["succeeded"], &j["status"]["failed"]), (&json!(2), &Value::Null));
    assert_eq!(j["status"]["conditions"][0]["lastProbeTime"], j["status"]["conditions"][0]["lastTransitionTime"]);
    // one that is stopped by the deadline has failed
    let spec = json!({"activeDeadlineSeconds": 4, "template": run("sleep 600")});
    made(&bed, JOBS, json!({"metadata": {"name": "late"}, "spec": spec})).await;
    let j = until(&bed, &format!("{JOBS}/late"), "failed", |j| conditions(j).len() == 2).await;
    assert_eq!(conditions(&j), ["FailureTarget=True/DeadlineExceeded", "Failed=True/DeadlineExceeded"]);
    assert_eq!((&j["status"]["failed"], &j["status"]["terminating"]), (&json!(1), &json!(0)));
    // one that somebody deletes has failed, too, and nothing holds it when its Job is gone
    let mark = bed.lab.clock().busy_guard();
    made(&bed, JOBS, json!({"metadata": {"name": "cut"}, "spec": {"template": run("sleep 6000")}})).await;
    let at = format!("{JOBS}/cut");
    held(&bed, &at, "runs", |j| j["status"]["ready"] == 1).await;
    let mine = format!("{CORE}/pods?labelSelector=job-name%3Dcut");
    let name = items(&bed, &mine).await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    bed.delete(&format!("{CORE}/pods/{name}"), json!({})).await;
    held(&bed, &at, "counted", |j| j["status"]["failed"] == 1 && j["status"]["ready"] == 1).await;
    drop(mark);
    bed.delete(&at, json!({"propagationPolicy": "Background"})).await;
    until(&bed, &mine, "all gone", |l| l["items"].as_array().is_some_and(Vec::is_empty)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_tells_in_the_new_manner() {
    let bed = with_nodes(1).await;
    let spec = json!({"containers": [{"name": "c", "image": "nginx:1"}]});
    made(&bed, &format!("{CORE}/pods"), json!({"metadata": {"name": "here"}, "spec": spec})).await;
    until(&bed, &format!("{CORE}/pods/here"), "placed", |p| p["spec"]["nodeName"] == "n0").await;
    let e = told(&bed, "here", "Scheduled").await.remove(0);
    assert_eq!((&e["action"], &e["source"], &e["count"]), (&json!("Binding"), &json!({}), &Value::Null));
    assert_eq!((&e["firstTimestamp"], &e["lastTimestamp"]), (&Value::Null, &Value::Null));
    assert_eq!(e["reportingComponent"], "default-scheduler");
    assert!(e["reportingInstance"].as_str().unwrap().starts_with("default-scheduler-"), "{e}");
    assert_eq!(e["eventTime"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
    let spec = json!({"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "image": "nginx:1"}]});
    made(&bed, &format!("{CORE}/pods"), json!({"metadata": {"name": "nowhere"}, "spec": spec})).await;
    until(&bed, &format!("{CORE}/pods/nowhere"), "told", |p| conditions(p) == ["PodScheduled=False/Unschedulable"])
        .await;
    assert_eq!(told(&bed, "nowhere", "FailedScheduling").await[0]["action"], "Scheduling");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_show_leaving_pods_and_mirror_what_is_written_by_hand() {
    let bed = with_nodes(1).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    made(&bed, &format!("{CORE}/services"), service).await;
    let spec = json!({"containers": [{"name": "c", "image": "nginx:1"}]});
    made(&bed, &format!("{CORE}/pods"), json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec}))
        .await;
    let of = |name: &str| format!("{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{name}");
    let known = |l: &Value, ready: bool, leaves: bool| {
        let want = json!({"ready": ready, "serving": true, "terminating": leaves});
        l["items"][0]["endpoints"][0]["conditions"] == want
    };
    let l = until(&bed, &of("web"), "up", |l| known(l, true, false)).await;
    assert!(
        l["items"][0]["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"].is_string(),
        "{l}"
    );
    let mark = bed.lab.clock().busy_guard();
    bed.delete(&format!("{CORE}/pods/web"), json!({})).await;
    let l = held(&bed, &of("web"), "leaving", |l| known(l, false, true)).await;
    assert_eq!(l["items"][0]["metadata"]["annotations"], Value::Null, "who leaves is no new trigger");
    assert_eq!(bed.get(&format!("{CORE}/endpoints/web")).await.body["subsets"], Value::Null);
    drop(mark);
    until(&bed, &of("web"), "gone", |l| l["items"][0]["endpoints"].is_null() && l["items"][0]["ports"].is_null()).await;
    // by hand
    made(&bed, &format!("{CORE}/services"), json!({"metadata": {"name": "man"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    let all = json!({"metadata": {"name": "man", "labels": {"a": "b"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.1", "hostname": "h"}], "ports": [{"port": 80}]}]});
    made(&bed, &format!("{CORE}/endpoints"), all).await;
    let l = until(&bed, &of("man"), "mirrored", |l| l["items"][0].is_object()).await;
    let o = &l["items"][0];
    let labels = json!({"a": "b", "kubernetes.io/service-name": "man",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"});
    assert_eq!(o["metadata"]["labels"], labels);
    assert_eq!(o["endpoints"], json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "hostname": "h"}]));
    assert_eq!(o["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    assert_eq!(o["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    bed.delete(&format!("{CORE}/endpoints/man"), json!({})).await;
    until(&bed, &of("man"), "gone", |l| l["items"] == json!([])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_pods_have_their_place_and_budgets_say_when_nobody_is_there() {
    let bed = with_nodes(1).await;
    let more = json!({"serviceName": "s", "updateStrategy": {"type": "OnDelete"}});
    made(&bed, &format!("{APPS}/statefulsets"), workload("s", "nginx:1", 1, more)).await;
    let at = format!("{APPS}/statefulsets/s");
    let set = until(&bed, &at, "ready", |s| s["status"]["readyReplicas"] == 1).await;
    let pod = bed.get(&format!("{CORE}/pods/s-0")).await.body;
    assert_eq!((&pod["metadata"]["generateName"], &pod["spec"]["subdomain"]), (&json!("s-"), &json!("s")));
    let revisions = items(&bed, &format!("{APPS}/controllerrevisions")).await;
    assert!(revisions[0]["metadata"]["labels"]["controller.kubernetes.io/hash"].is_string(), "{revisions:?}");
    // a set that waits for its pods to be deleted stays at its revision
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    bed.patch("strategic", &at, image).await;
    let was = set["status"]["currentRevision"].clone();
    until(&bed, &at, "seen", |s| s["status"]["updateRevision"] != was).await;
    bed.delete(&format!("{CORE}/pods/s-0"), json!({})).await;
    let set =
        until(&bed, &at, "replaced", |s| s["status"]["updatedReplicas"] == 1 && s["status"]["readyReplicas"] == 1)
            .await;
    assert_eq!(set["status"]["currentRevision"], was);
    let at = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"nobody": "here"}}});
    made(&bed, at, json!({"metadata": {"name": "b"}, "spec": spec})).await;
    let b = until(&bed, &format!("{at}/b"), "looked at", |b| b["status"]["conditions"].is_array()).await;
    let c = &b["status"]["conditions"][0];
    assert_eq!(
        (&c["reason"], &c["message"], &c["observedGeneration"]),
        (&json!("InsufficientPods"), &json!(""), &json!(1))
    );
    let e = told(&bed, "b", "NoPods").await.remove(0);
    assert_eq!(
        (&e["message"], &e["source"]["component"]),
        (&json!("No matching pods found"), &json!("controllermanager"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_goes_on_with_the_revision_that_has_its_template() {
    let bed = with_nodes(1).await;
    made(&bed, &format!("{APPS}/statefulsets"), workload("s", "nginx:1", 1, json!({"serviceName": "s"}))).await;
    let at = format!("{APPS}/statefulsets/s");
    let set = until(&bed, &at, "ready", |s| s["status"]["readyReplicas"] == 1).await;
    let name = set["status"]["updateRevision"].as_str().unwrap();
    // as an older version named it
    let mut older = bed.get(&format!("{APPS}/controllerrevisions/{name}")).await.body;
    let own = older["metadata"]["ownerReferences"].clone();
    older["metadata"] = json!({"name": "s-older", "labels": older["metadata"]["labels"], "ownerReferences": own});
    older["revision"] = json!(9);
    made(&bed, &format!("{APPS}/controllerrevisions"), older).await;
    bed.patch("merge", &at, json!({"spec": {"revisionHistoryLimit": 5}})).await;
    let seen = |s: &Value| {
        s["status"]["observedGeneration"] == s["metadata"]["generation"] && s["metadata"]["generation"] == 2
    };
    let set = until(&bed, &at, "seen", seen).await;
    assert_eq!(set["status"]["updateRevision"], "s-older");
}
