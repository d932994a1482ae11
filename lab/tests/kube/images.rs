//! Images that registries have, and those that they do not.
use serde_json::{Value, json};

use crate::bed::{Bed, made};
use crate::controllers::{until, with_nodes};

const PODS: &str = "/api/v1/namespaces/default/pods";
const APPS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A cluster of a lab in which nobody has pushed anything.
async fn bed() -> Bed {
    let bed = with_nodes(1).await;
    bed.lab.with(|w| w.pushed.clear());
    bed
}

fn waits<'a>(reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |o| o["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

async fn pod(bed: &Bed, name: &str, image: &str) -> String {
    let body = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image}]}});
    made(bed, PODS, body).await;
    format!("{PODS}/{name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_not_have_is_not_pulled() {
    let bed = bed().await;
    let at = pod(&bed, "bad", "nginx:doesnotexist").await;
    let o = until(&bed, &at, "back-off", waits("ImagePullBackOff")).await;
    let name = "docker.io/library/nginx:doesnotexist";
    let why = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
    );
    let text = format!("Back-off pulling image \"nginx:doesnotexist\": ErrImagePull: {why}");
    assert_eq!(o["status"]["containerStatuses"][0]["state"]["waiting"]["message"], text);
    let events = bed.get("/api/v1/namespaces/default/events").await.body["items"].clone();
    let said = |m: &str| events.as_array().unwrap().iter().any(|e| e["message"] == m);
    assert!(
        said(&format!("Failed to pull image \"nginx:doesnotexist\": {why}")) && said("Error: ErrImagePull"),
        "{events}"
    );

    let at = pod(&bed, "own", "ghcr.io/me/app:v1").await;
    until(&bed, &at, "back-off", waits("ImagePullBackOff")).await;
    bed.lab.with(|w| w.pushed.insert("ghcr.io/me/app".to_owned()));
    until(&bed, &at, "running", |o| o["status"]["phase"] == "Running").await;

    let at = pod(&bed, "loud", "NGINX").await;
    until(&bed, &at, "refused", waits("InvalidImageName")).await;
    let at = pod(&bed, "good", "nginx:1.29-alpine").await;
    until(&bed, &at, "running", |o| o["status"]["phase"] == "Running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_to_a_wrong_tag_keeps_what_runs() {
    let bed = bed().await;
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "w"}}, "template":
        {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.28"}]}}});
    made(&bed, APPS, json!({"metadata": {"name": "w"}, "spec": spec})).await;
    let at = format!("{APPS}/w");
    until(&bed, &at, "available", |o| o["status"]["availableReplicas"] == 2).await;
    let image = |i: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": i}]}}}});
    bed.patch("strategic", &at, image("nginx:nope")).await;
    let o = until(&bed, &at, "stuck", |o| o["status"]["unavailableReplicas"] == 1).await;
    assert_eq!((&o["status"]["availableReplicas"], &o["status"]["updatedReplicas"]), (&json!(2), &json!(1)));
    bed.patch("strategic", &at, image("nginx:1.28")).await;
    until(&bed, &at, "whole", |o| o["status"]["updatedReplicas"] == 2 && o["status"]["replicas"] == 2).await;
}
