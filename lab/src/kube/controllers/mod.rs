//! The control loops: what changed since they last looked decides who looks again, until nothing changes.
pub mod accounts;
pub mod adopt;
pub mod autoscalers;
pub mod behaviour;
pub mod budgets;
mod certificates;
pub mod claims;
pub mod containers;
pub mod cronjobs;
pub mod daemonsets;
pub mod deployments;
pub mod effects;
pub mod endpoints;
pub mod ephemeral;
pub mod fleet;
pub mod gpu;
pub mod helm;
mod helmapply;
mod helmhooks;
mod helmjob;
mod helmlog;
mod helmpacked;
pub mod hub;
pub mod images;
mod ingresses;
pub mod jobs;
pub mod kubelet;
mod lifecycle;
pub mod localpath;
pub mod logs;
pub mod lost;
mod mirror;
pub mod misc;
pub mod needs;
mod places;
pub mod pods;
mod policy;
mod preempt;
pub mod pressure;
mod probes;
mod progress;
mod pulls;
pub mod quotas;
pub mod rancher;
pub mod registry;
pub mod release;
pub mod replicasets;
pub mod revisions;
mod rooms;
pub mod scheduler;
mod scores;
pub mod servicelb;
pub mod shell;
pub mod statefulsets;
pub mod statics;
pub mod status;
pub mod taints;
mod tally;

use std::collections::BTreeSet;

use serde_json::Value;

use super::cx::{Cx, key};
use super::store::{Change, Op, Store};
use super::text::{arr, s};

/// Something to look at again. The order of the variants is the order of work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Namespace(String),
    Definition(String),
    Chart(String, String),
    Values(String, String),
    Deployment(String, String),
    StatefulSet(String, String),
    ReplicaSet(String, String),
    Replication(String, String),
    DaemonSet(String, String),
    DaemonSets,
    Job(String, String),
    Cron(String, String),
    Service(String, String),
    Tokens(String),
    Roles,
    Claims,
    Schedule,
    Stray(String, String),
    Pod(String, String),
    Endpoints(String),
    Refused(String),
    Autoscalers(String),
    Policy,
    Repos,
    Apps,
    Addresses,
    Node(String),
}

/// Lets the controllers work until nothing changes any more. `wide`: what began it may concern any pod.
pub fn settle(cx: &mut Cx, wide: bool) {
    let mut touched = kubelet::Touched { wide, ..kubelet::Touched::default() };
    for _ in 0..300 {
        let now = cx.now();
        cx.c.store.at(now);
        let work = pending(cx, &mut touched);
        if work.is_empty() && !touched.wide {
            return;
        }
        for item in work {
            run(cx, item);
        }
        let was = std::mem::take(&mut touched);
        kubelet::retry_blocked(cx, &was);
        misc::ending_namespaces(cx, &was);
    }
    tracing::warn!("the lab's controllers did not settle");
}

fn pending(cx: &mut Cx, touched: &mut kubelet::Touched) -> BTreeSet<Work> {
    let mut work = BTreeSet::new();
    let version = cx.c.store.version();
    match cx.c.store.since(cx.c.seen) {
        Some(changes) => changes.for_each(|c| {
            touch(c, touched);
            route(c, &cx.c.store, &mut work);
        }),
        None => {
            touched.wide = true;
            touched.spaces.extend(cx.c.store.index().ending().cloned());
            everything(cx, &mut work);
        }
    }
    cx.c.seen = version;
    work
}

/// Notes whom a change may concern that waits.
fn touch(c: &Change, touched: &mut kubelet::Touched) {
    if c.op != Op::Modified || !c.object["metadata"]["deletionTimestamp"].is_null() {
        touched.spaces.insert(s(&c.object, "/metadata/namespace").to_owned());
    }
    match &*c.resource {
        "pods" => drop(touched.nodes.insert(s(&c.object, "/spec/nodeName").to_owned())),
        "nodes" => drop(touched.nodes.insert(s(&c.object, "/metadata/name").to_owned())),
        "events"
        | "leases.coordination.k8s.io"
        | "endpoints"
        | "endpointslices.discovery.k8s.io"
        | "controllerrevisions.apps"
        | "deployments.apps"
        | "replicasets.apps"
        | "daemonsets.apps"
        | "statefulsets.apps"
        | "poddisruptionbudgets.policy"
        | "resourcequotas" => {}
        _ => touched.wide = true,
    }
}

/// The log does not reach back far enough: look at all there is.
fn everything(cx: &Cx, work: &mut BTreeSet<Work>) {
    work.extend([
        Work::DaemonSets,
        Work::Claims,
        Work::Schedule,
        Work::Policy,
        Work::Repos,
        Work::Apps,
        Work::Addresses,
    ]);
    let resources: Vec<String> = cx.c.store.resources().map(str::to_owned).collect();
    for r in resources {
        for o in cx.list(&r) {
            let (ns, name) = key(o);
            match r.as_str() {
                "namespaces" => drop(work.insert(Work::Namespace(name))),
                "deployments.apps" => drop(work.insert(Work::Deployment(ns, name))),
                "statefulsets.apps" => drop(work.insert(Work::StatefulSet(ns, name))),
                replicasets::SETS => drop(work.insert(Work::ReplicaSet(ns, name))),
                replicasets::CONTROLLERS => drop(work.insert(Work::Replication(ns, name))),
                "jobs.batch" => drop(work.insert(Work::Job(ns, name))),
                "helmcharts.helm.cattle.io" => drop(work.insert(Work::Chart(ns, name))),
                "pods" => drop(work.insert(Work::Pod(ns, name))),
                _ => {}
            }
        }
    }
}

fn route(c: &Change, store: &Store, work: &mut BTreeSet<Work>) {
    let (ns, name) = key(&c.object);
    if c.op != Op::Modified && !ns.is_empty() && store.all("resourcequotas", &ns).next().is_some() {
        work.insert(Work::Endpoints(ns.clone()));
    }
    if !c.object["metadata"]["annotations"][fleet::SET].is_null() {
        work.insert(Work::Repos);
    }
    match &*c.resource {
        "namespaces" => drop(work.insert(Work::Namespace(name))),
        "customresourcedefinitions.apiextensions.k8s.io" => drop(work.insert(Work::Definition(name))),
        "horizontalpodautoscalers.autoscaling" => drop(work.insert(Work::Autoscalers(ns))),
        "deployments.apps" => work.extend([Work::Autoscalers(ns.clone()), Work::Deployment(ns, name)]),
        "statefulsets.apps" => {
            work.insert(Work::Autoscalers(ns.clone()));
            work.insert(Work::StatefulSet(ns, name));
        }
        "daemonsets.apps" => {
            work.insert(Work::DaemonSet(ns, name));
            work.insert(Work::Addresses);
            work.insert(Work::Policy);
        }
        replicasets::SETS => {
            owners(&c.object, work);
            work.insert(Work::ReplicaSet(ns, name));
        }
        replicasets::CONTROLLERS => {
            work.insert(Work::Autoscalers(ns.clone()));
            work.insert(Work::Replication(ns, name));
        }
        "jobs.batch" => {
            owners(&c.object, work);
            work.insert(Work::Job(ns, name));
            work.insert(Work::Apps);
        }
        "cronjobs.batch" => drop(work.insert(Work::Cron(ns, name))),
        "poddisruptionbudgets.policy" => drop(work.insert(Work::Endpoints(ns))),
        "resourcequotas" => work.extend([Work::Endpoints(ns.clone()), Work::Refused(ns)]),
        "pods" => pod(c, store, work),
        "nodes" => node(c, work),
        "services" => {
            if ns == gpu::NS {
                work.insert(Work::Policy);
            }
            work.insert(Work::Service(ns, name));
        }
        // those that somebody wrote by hand
        "endpoints" if c.object["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"].is_null() => {
            work.insert(Work::Service(ns, name));
        }
        "persistentvolumeclaims" | "persistentvolumes" | "storageclasses.storage.k8s.io" => {
            work.extend([Work::Claims, Work::Schedule]);
        }
        "helmcharts.helm.cattle.io" | "helmchartconfigs.helm.cattle.io" => drop(work.insert(Work::Chart(ns, name))),
        "clusterpolicies.nvidia.com" => drop(work.insert(Work::Policy)),
        "gitrepos.fleet.cattle.io" | "bundles.fleet.cattle.io" | "bundledeployments.fleet.cattle.io" => {
            work.insert(Work::Repos);
        }
        "prometheuses.monitoring.coreos.com"
        | "alertmanagers.monitoring.coreos.com"
        | "ingresses.networking.k8s.io"
        | "ingressclasses.networking.k8s.io"
        | "certificates.cert-manager.io"
        | "issuers.cert-manager.io"
        | "clusterissuers.cert-manager.io"
        | "apiservices.apiregistration.k8s.io" => {
            work.insert(Work::Apps);
        }
        "clusterroles.rbac.authorization.k8s.io" | "validatingadmissionpolicies.admissionregistration.k8s.io" => {
            work.insert(Work::Roles);
        }
        "serviceaccounts" => drop(work.insert(Work::Tokens(ns))),
        "secrets" if s(&c.object, "/type") == accounts::TOKEN => {
            work.extend([Work::Tokens(ns.clone()), Work::Values(ns, name)]);
        }
        "secrets" if s(&c.object, "/type") == "kubernetes.io/tls" => work.extend([Work::Apps, Work::Values(ns, name)]),
        "secrets" if s(&c.object, "/type") != "helm.sh/release.v1" => drop(work.insert(Work::Values(ns, name))),
        "configmaps" if ns == gpu::NS => drop(work.insert(Work::Policy)),
        "configmaps" if s(&c.object, "/data/config.json").contains("nodePathMap") => drop(work.insert(Work::Claims)),
        _ => {}
    }
}

/// What of a pod its owner counts by.
const COUNTED: &[&str] = &[
    "/status/phase",
    "/status/conditions",
    "/spec/nodeName",
    "/metadata/deletionTimestamp",
    "/metadata/ownerReferences",
    "/metadata/labels/controller-revision-hash",
    "/status/containerStatuses/0/restartCount",
];

fn pod(c: &Change, store: &Store, work: &mut BTreeSet<Work>) {
    let (ns, name) = key(&c.object);
    let before = c.before.as_deref();
    let moved = |p: &str| before.is_none_or(|b| b.pointer(p) != c.object.pointer(p));
    if c.op != Op::Modified || COUNTED.iter().any(|p| moved(p)) {
        owners(&c.object, work);
        // Whoever owned it until now misses it.
        if let Some(b) = before.filter(|_| moved("/metadata/ownerReferences")) {
            owners(b, work);
        }
    }
    if c.op != Op::Deleted && moved("/metadata/labels") {
        if before.is_some() {
            work.insert(Work::Endpoints(ns.clone()));
        }
        if adopt::strays(store, &c.object) {
            work.insert(Work::Stray(ns.clone(), name.clone()));
        }
    }
    if c.op == Op::Deleted {
        work.extend([Work::Schedule, Work::Claims]);
    }
    if c.op == Op::Added || s(&c.object, "/spec/nodeName").is_empty() {
        work.insert(Work::Schedule);
    }
    if c.op == Op::Deleted
        || moved("/spec/nodeName")
        || moved("/metadata/deletionTimestamp")
        || moved("/spec/ephemeralContainers")
        || before.is_some() && moved("/spec/containers")
        || !arr(&c.object, "/spec/readinessGates").is_empty() && moved("/status/conditions")
    {
        work.insert(Work::Pod(ns.clone(), name));
    }
    let leaves = "/metadata/deletionTimestamp";
    if c.op == Op::Deleted || moved("/status/conditions") || moved("/status/phase") || moved(leaves) {
        work.insert(Work::Endpoints(ns));
        work.extend(servicelb::of_pod(&c.object).map(|(ns, name)| Work::Service(ns, name)));
        if matches!(s(&c.object, "/status/phase"), "Succeeded" | "Failed") {
            work.insert(Work::Schedule);
        }
    }
}

fn node(c: &Change, work: &mut BTreeSet<Work>) {
    let before = c.before.as_deref();
    let moved = |p: &str| before.is_none_or(|b| b.pointer(p) != c.object.pointer(p));
    if c.op == Op::Modified
        && ![
            "/spec",
            "/metadata/labels",
            "/metadata/annotations",
            "/status/addresses",
            "/status/allocatable",
            "/status/conditions",
        ]
        .iter()
        .any(|p| moved(p))
    {
        return;
    }
    work.extend([Work::DaemonSets, Work::Schedule, Work::Policy]);
    work.insert(Work::Node(s(&c.object, "/metadata/name").to_owned()));
}

fn owners(obj: &Value, work: &mut BTreeSet<Work>) {
    let ns = s(obj, "/metadata/namespace").to_owned();
    for o in arr(obj, "/metadata/ownerReferences") {
        let name = s(o, "/name").to_owned();
        let ns = ns.clone();
        match s(o, "/kind") {
            "ReplicaSet" => drop(work.insert(Work::ReplicaSet(ns, name))),
            "ReplicationController" => drop(work.insert(Work::Replication(ns, name))),
            "Deployment" => drop(work.insert(Work::Deployment(ns, name))),
            "StatefulSet" => drop(work.insert(Work::StatefulSet(ns, name))),
            "DaemonSet" => drop(work.insert(Work::DaemonSet(ns, name))),
            "Job" => drop(work.insert(Work::Job(ns, name))),
            "CronJob" => drop(work.insert(Work::Cron(ns, name))),
            "HelmChart" => drop(work.insert(Work::Chart(ns, name))),
            _ => {}
        }
    }
}

/// The time has come that a controller waited for.
pub fn look_again(cx: &mut Cx, resource: &str, ns: &str, name: &str) {
    match resource {
        "deployments.apps" => deployments::deployment(cx, ns, name),
        "nodes" => {
            lost::tainted(cx, name);
            pressure::look(cx, name);
        }
        lost::GONE => lost::collect(cx, name),
        "pods" if !name.is_empty() => containers::overdue(cx, ns, name),
        replicasets::SETS | replicasets::CONTROLLERS => replicasets::reconcile(cx, resource, ns, name),
        "statefulsets.apps" => statefulsets::reconcile(cx, ns, name),
        "daemonsets.apps" => daemonsets::reconcile(cx, ns, name),
        "cronjobs.batch" => cronjobs::due(cx, ns, name),
        "horizontalpodautoscalers.autoscaling" => autoscalers::due(cx, ns, name),
        "jobs.batch" => jobs::reconcile(cx, ns, name),
        "persistentvolumeclaims" => claims::reconcile(cx),
        "clusterpolicies.nvidia.com" => gpu::reconcile(cx),
        _ => {}
    }
}

/// The file whose behaviour a piece of work meets, for its grade.
fn file_of(work: &Work) -> &'static str {
    match work {
        Work::Chart(..) | Work::Values(..) => "kube/controllers/helm",
        Work::Claims => "kube/controllers/claims",
        Work::Schedule => "kube/controllers/scheduler",
        Work::Pod(..) => "kube/controllers/kubelet",
        Work::Policy => "kube/controllers/gpu",
        Work::Repos => "kube/controllers/fleet",
        _ => "kube/controllers/",
    }
}

fn run(cx: &mut Cx, work: Work) {
    cx.w.meets(file_of(&work));
    match work {
        Work::Namespace(name) => misc::namespace(cx, &name),
        Work::Definition(_) => misc::definition(cx),
        Work::Chart(ns, name) => helm::reconcile(cx, &ns, &name),
        Work::Values(ns, name) => helm::secret_changed(cx, &ns, &name),
        Work::Deployment(ns, name) => deployments::deployment(cx, &ns, &name),
        Work::StatefulSet(ns, name) => statefulsets::reconcile(cx, &ns, &name),
        Work::ReplicaSet(ns, name) => replicasets::reconcile(cx, replicasets::SETS, &ns, &name),
        Work::Replication(ns, name) => replicasets::reconcile(cx, replicasets::CONTROLLERS, &ns, &name),
        Work::DaemonSet(ns, name) => daemonsets::reconcile(cx, &ns, &name),
        Work::DaemonSets => {
            let all: Vec<(String, String)> = cx.list("daemonsets.apps").into_iter().map(key).collect();
            for (ns, name) in all {
                daemonsets::reconcile(cx, &ns, &name);
            }
        }
        Work::Job(ns, name) => jobs::reconcile(cx, &ns, &name),
        Work::Cron(ns, name) => cronjobs::reconcile(cx, &ns, &name),
        Work::Service(ns, name) => {
            endpoints::service(cx, &ns, &name);
            servicelb::reconcile(cx, &ns, &name);
            if cx.get("services", &ns, &name).is_some_and(ingresses::reached) {
                ingresses::publish(cx);
            }
        }
        Work::Claims => claims::reconcile(cx),
        Work::Schedule => scheduler::schedule(cx),
        Work::Stray(ns, name) => adopt::pod(cx, &ns, &name),
        Work::Pod(ns, name) => kubelet::look(cx, &ns, &name),
        Work::Endpoints(ns) => {
            endpoints::reconcile(cx, &ns);
            if ns == ingresses::HOME {
                ingresses::publish(cx);
            }
            budgets::reconcile(cx, &ns);
            quotas::reconcile(cx, &ns);
        }
        Work::Autoscalers(ns) => autoscalers::reconcile(cx, &ns),
        Work::Refused(ns) => replicasets::refused(cx, &ns),
        Work::Tokens(ns) => accounts::tokens(cx, &ns),
        Work::Roles => {
            accounts::roles(cx);
            accounts::policies(cx);
        }
        Work::Policy => gpu::reconcile(cx),
        Work::Repos => fleet::reconcile(cx),
        Work::Apps => {
            misc::apps(cx);
            ingresses::publish(cx);
        }
        Work::Addresses => super::k3s::vip::look(cx),
        Work::Node(name) => {
            super::k3s::membership::node(cx, &name);
            super::k3s::hosts::look(cx);
            servicelb::all(cx);
            misc::node(cx, &name);
        }
    }
}
