//! Faults of workloads: budgets, variables, claims that cannot go.
use serde_json::{Value, json};

use super::tools::cluster;
use super::{Fault, On};
use crate::Lab;
use crate::kube::cx::Cx;
use crate::kube::text::s;
use crate::world::World;

const NS: &str = "default";
const CLAIMS: &str = "persistentvolumeclaims";
const BUDGETS: &str = "poddisruptionbudgets.policy";
const DEPLOYMENTS: &str = "deployments.apps";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "budget-blocks-drain",
        on: On::Cluster,
        what: "a team protects its only pod with a disruption budget: a drain of its node waits for ever",
        source: "seed troubleshooting guide: kured blocked; Kubernetes documentation: Disruptions, API-initiated eviction 429",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.create(deployment("inference", json!([])));
                cx.create(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                    "metadata": {"name": "inference", "namespace": NS},
                    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "inference"}}}}));
                there(cx, BUDGETS, "inference")
            })
        },
        hands: None,
    },
    Fault {
        name: "env-twice",
        on: On::Cluster,
        what: "a team's deployment declares a variable twice: what is applied next changes one of the two or drops both",
        source: "seed troubleshooting guide, JupyterHub; kube-apiserver's warning: hides previous definition, which may be dropped when using apply",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                let twice = [("MODEL", "small"), ("BATCH", "8"), ("MODEL", "large")];
                cx.create(deployment(
                    "trainer",
                    twice.map(|(n, v)| json!({"name": n, "value": v})).into_iter().collect(),
                ));
                there(cx, DEPLOYMENTS, "trainer")
            })
        },
        hands: Some(|lab, w, _| {
            cluster(lab, w, |cx| {
                cx.update(DEPLOYMENTS, NS, "trainer", |d| {
                    if let Some(env) = d["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut() {
                        env.pop();
                    }
                });
                Ok(())
            })
        }),
    },
    Fault {
        name: "claim-terminating",
        on: On::Cluster,
        what: "a claim was deleted under a pod that uses it: it stays, and goes with its data when the pod ends",
        source: "seed troubleshooting guide: claim Terminating by finalizer; Kubernetes documentation: storage object in use protection",
        make: deleted_in_use,
        hands: Some(|lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("pods", NS, "export");
                Ok(())
            })
        }),
    },
];

fn there(cx: &Cx, resource: &str, name: &str) -> Result<(), String> {
    cx.get(resource, NS, name).map(drop).ok_or_else(|| format!("{resource} {name} was refused"))
}

fn deployment(name: &str, env: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NS},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": name, "image": "nginx:1.29", "env": env}]}}}})
}

/// A pod that writes to a claim of the default class; then the claim is deleted.
fn deleted_in_use(lab: &Lab, w: &mut World, _target: &str) -> Result<(), String> {
    cluster(lab, w, |cx| {
        let worker = |n: &&Value| {
            n["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_null()
                && n["spec"]["unschedulable"] != true
        };
        let node = cx.list("nodes").into_iter().find(worker).map(|n| s(n, "/metadata/name").to_owned());
        let node = node.ok_or("the cluster has no worker")?;
        cx.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": NS},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Gi"}}}}));
        cx.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "export", "namespace": NS},
            "spec": {"nodeName": node, "containers": [{"name": "export", "image": "busybox:1.37",
                "command": ["sleep", "infinity"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "models"}}]}}));
        there(cx, "pods", "export")
    })?;
    // its volume has been made by now
    cluster(lab, w, |cx| {
        cx.delete(CLAIMS, NS, "models");
        let held = cx.get(CLAIMS, NS, "models").is_some_and(|c| !c["metadata"]["deletionTimestamp"].is_null());
        held.then_some(()).ok_or_else(|| "nothing held the claim".to_owned())
    })
}
