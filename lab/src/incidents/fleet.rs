//! Faults of Fleet: repositories, bundles, its own controllers, and two owners of one object.
use serde_json::json;

use super::tools::{cluster, scale};
use super::{Fault, On};
use crate::Lab;
use crate::git;
use crate::kube::controllers::fleet::WEDGED;
use crate::kube::cx::Cx;
use crate::kube::text::s;
use crate::world::World;

const REPOS: &str = "gitrepos.fleet.cattle.io";
const NS: &str = "fleet-local";
const TS: &str = "seed troubleshooting guide, Fleet chapter";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "repo-unreachable",
        on: On::Repo,
        what: "the Git server does not answer",
        source: "issue rancher/fleet#3138: not syncing without an explanation; go-git transport errors",
        make: |lab, w, t| down(lab, w, t, true),
        hands: Some(|lab, w, t| down(lab, w, t, false)),
    },
    Fault {
        name: "repo-wrong-address",
        on: On::Repo,
        what: "the GitRepo was edited and names a repository that does not exist",
        source: "issue rancher/fleet#2972; Fleet sources: unable to list remote",
        make: |lab, w, t| spec(lab, w, t, |r| r["spec"]["repo"] = json!("https://git.lab.example/homelab/gitopps.git")),
        hands: None,
    },
    Fault {
        name: "repo-paused",
        on: On::Repo,
        what: "the GitRepo is paused",
        source: "Fleet documentation, GitRepo: paused",
        make: |lab, w, t| spec(lab, w, t, |r| r["spec"]["paused"] = json!(true)),
        hands: None,
    },
    Fault {
        name: "repo-matches-nothing",
        on: On::Repo,
        what: "the GitRepo's targets match no cluster: it looks ready and deploys nothing",
        source: "seed: clusterSelector matching nothing; issue rancher/fleet#3930",
        make: |lab, w, t| {
            spec(lab, w, t, |r| {
                r["spec"]["targets"] = json!([{"name": "gpu", "clusterSelector": {"matchLabels": {"gpu": "a100"}}}]);
            })
        },
        hands: None,
    },
    Fault {
        name: "gitjob-hangs",
        on: On::Repo,
        what: "the pod that polls Git hangs: it runs and does nothing",
        source: "seed troubleshooting guide 2026-08-06: gitjob controller wedged for 45 hours",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                let pod = cx
                    .list_in("pods", "cattle-fleet-system")
                    .into_iter()
                    .find(|p| s(p, "/metadata/labels/app") == "gitjob");
                let uid = pod.map(|p| s(p, "/metadata/uid").to_owned()).ok_or("Fleet does not run")?;
                cx.c.apps.insert(WEDGED.to_owned(), json!(uid));
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "fleet-agent-down",
        on: On::Cluster,
        what: "Fleet's agent was scaled to nothing, then a commit came",
        source: "issues rancher/fleet#280, rancher/fleet#684: WaitApplied",
        make: |lab, w, _| {
            cluster(lab, w, |cx| scale(cx, "cattle-fleet-local-system", "fleet-agent", 0))?;
            let note =
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: default}\ndata: {text: hello}\n";
            push(lab, w, "note", &[("fleet.yaml", "defaultNamespace: default\n"), ("note.yaml", note)])
        },
        hands: None,
    },
    Fault {
        name: "bundle-chart-missing",
        on: On::Repo,
        what: "a commit brings a bundle whose chart version does not exist",
        source: "seed: one bad chart URL stopped the whole GitRepo; helm's text for unknown versions",
        make: |lab, w, _| {
            let fleet = "defaultNamespace: cert-manager-test\nhelm:\n  chart: cert-manager\n  repo: https://charts.jetstack.io\n  version: 9.9.9\n";
            push(lab, w, "broken", &[("fleet.yaml", fleet)])
        },
        hands: Some(|lab, w, _| push(lab, w, "broken", &[])),
    },
    Fault {
        name: "bundle-kind-unknown",
        on: On::Repo,
        what: "a commit brings an object whose CRD is not in the cluster",
        source: "helm's text: no matches for kind, ensure CRDs are installed first; issue rancher/fleet#3341",
        make: |lab, w, _| {
            let o = "apiVersion: longhorn.io/v1beta2\nkind: RecurringJob\nmetadata: {name: nightly, namespace: default}\nspec: {cron: \"0 3 * * *\"}\n";
            push(lab, w, "longhorn", &[("fleet.yaml", "defaultNamespace: default\n"), ("job.yaml", o)])
        },
        hands: Some(|lab, w, _| push(lab, w, "longhorn", &[])),
    },
    Fault {
        name: "bundle-modified",
        on: On::Repo,
        what: "somebody changed by hand what Fleet owns",
        source: "issue rancher/fleet#2784: stuck Modified",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                let there = cx.update("resourcequotas", "research", "gpus", |o| {
                    o["spec"]["hard"]["requests.nvidia.com/gpu"] = json!("8");
                });
                there.then_some(()).ok_or_else(|| "Fleet has no quota in namespace research".to_owned())
            })
        },
        hands: None,
    },
    Fault {
        name: "two-owners",
        on: On::Repo,
        what: "a commit brings an object that a Helm release already owns",
        source: "seed: bundle name collided with Helm release `rancher`, Rancher down; helm: invalid ownership metadata",
        make: |lab, w, _| {
            let o = "apiVersion: v1\nkind: Service\nmetadata: {name: rancher, namespace: cattle-system}\nspec:\n  selector: {app: rancher}\n  ports: [{name: http, port: 80}]\n";
            push(
                lab,
                w,
                "rancher",
                &[("fleet.yaml", "name: rancher\ndefaultNamespace: cattle-system\n"), ("service.yaml", o)],
            )
        },
        hands: Some(|lab, w, _| push(lab, w, "rancher", &[])),
    },
    Fault {
        name: "fleet-controller-down",
        on: On::Cluster,
        what: "the deployment that polls Git was scaled to nothing",
        source: TS,
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "cattle-fleet-system", "gitjob", 0)),
        hands: None,
    },
];

fn repo(cx: &Cx, name: &str) -> Result<serde_json::Value, String> {
    cx.get(REPOS, NS, name).cloned().ok_or_else(|| format!("Fleet follows no repository `{name}`"))
}

fn spec(lab: &Lab, w: &mut World, name: &str, f: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
    cluster(lab, w, |cx| {
        repo(cx, name)?;
        cx.update(REPOS, NS, name, f);
        Ok(())
    })
}

fn followed(lab: &Lab, w: &mut World) -> Result<(String, String, String), String> {
    cluster(lab, w, |cx| {
        let all = cx.list_in(REPOS, NS);
        let r = all.first().ok_or("Fleet follows no repository")?;
        let path = r["spec"]["paths"][0].as_str().unwrap_or_default().to_owned();
        Ok((s(r, "/spec/repo").to_owned(), s(r, "/spec/branch").to_owned(), path))
    })
}

/// Commits a folder below the followed path; without files the folder goes.
fn push(lab: &Lab, w: &mut World, folder: &str, files: &[(&str, &str)]) -> Result<(), String> {
    let (url, branch, path) = followed(lab, w)?;
    let at = format!("{path}/{folder}");
    let files = files.iter().map(|(n, t)| (format!("{at}/{n}"), (*t).to_owned())).collect();
    git::commit(lab, w, &url, &branch, &at, files, &format!("lab: {folder}")).map(drop)
}

fn down(lab: &Lab, w: &mut World, _name: &str, is: bool) -> Result<(), String> {
    let (url, ..) = followed(lab, w)?;
    let r = w.remotes.get_mut(&url).ok_or_else(|| format!("the lab has no repository {url}"))?;
    r.down = is;
    let clusters: Vec<String> = w.clusters.keys().cloned().collect();
    for cluster in clusters {
        w.schedule(60_000, crate::world::Event::Kube(crate::kube::KubeEvent::Poll { cluster }));
    }
    Ok(())
}
