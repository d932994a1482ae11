//! Faults of Fleet: repositories, bundles, its own controllers, and two owners of one object.
use serde_json::json;

use super::tools::{cluster, scale};
use super::{Fault, On};
use crate::Lab;
use crate::git;
use crate::kube::controllers::fleet::bundle::name_of;
use crate::kube::controllers::fleet::{HOME, WEDGED, upgrade_by_hand};
use crate::kube::cx::Cx;
use crate::kube::text::s;
use crate::world::World;

const REPOS: &str = "gitrepos.fleet.cattle.io";
const NS: &str = "fleet-local";
const BUNDLES: &str = "bundles.fleet.cattle.io";
/// A team's claim, as Git has it.
const DATASETS: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: datasets, namespace: research}\nspec:\n  storageClassName: nfs-client\n  accessModes: [ReadWriteMany]\n  resources: {requests: {storage: 50Gi}}\n";
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
                &[("fleet.yaml", "name: web\ndefaultNamespace: cattle-system\n"), ("service.yaml", o)],
            )
        },
        hands: Some(|lab, w, _| push(lab, w, "rancher", &[])),
    },
    Fault {
        name: "release-collides",
        on: On::Repo,
        what: "a commit brings a bundle that is called like the release of Rancher: Fleet upgrades that to its own objects",
        source: "seed troubleshooting guide: bundle name collided with Helm release `rancher`, Rancher down; Fleet sources, internal/helmdeployer: what is deployed under the name is upgraded",
        make: |lab, w, _| {
            let o = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: rancher-settings, namespace: cattle-system}\ndata: {ui: dark}\n";
            pushed(
                lab,
                w,
                "rancher",
                &[("fleet.yaml", "name: rancher\ndefaultNamespace: cattle-system\n"), ("settings.yaml", o)],
            )
        },
        hands: Some(|lab, w, _| pushed(lab, w, "rancher", &[])),
    },
    Fault {
        name: "fleet-release-upgraded",
        on: On::Repo,
        what: "somebody upgraded a release of Fleet's by hand with helm, to a chart that lacks some of its objects",
        source: "seed troubleshooting guide 2026-07-06: raw helm upgrade on a Fleet-managed release pruned a claim and Postgres",
        make: |lab, w, _| {
            let name = bundle_of(lab, w, "namespaces")?;
            cluster(lab, w, |cx| upgrade_by_hand(cx, "default", &name))
        },
        hands: None,
    },
    Fault {
        name: "bundledeployment-deleted",
        on: On::Repo,
        what: "somebody deleted a BundleDeployment: the agent uninstalled its release with the claims, then Fleet made it anew",
        source: "seed troubleshooting guide: deleting a BundleDeployment deleted claims, data lost; Fleet sources, internal/helmdeployer/delete.go",
        make: |lab, w, _| {
            let files = [("fleet.yaml", "defaultNamespace: research\n"), ("claim.yaml", DATASETS)];
            pushed(lab, w, "datasets", &files)?;
            let name = bundle_of(lab, w, "datasets")?;
            cluster(lab, w, |cx| {
                cx.get("bundledeployments.fleet.cattle.io", HOME, &name).ok_or("Fleet has not deployed the bundle")?;
                cx.delete("bundledeployments.fleet.cattle.io", HOME, &name);
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "bundle-deleted",
        on: On::Repo,
        what: "somebody deleted the repository's only Bundle: nothing of it is left, and nothing says so",
        source: "seed troubleshooting guide, Fleet chapter; Fleet sources: a commit that was read is not read again",
        make: |lab, w, _| {
            let name = bundle_of(lab, w, "namespaces")?;
            cluster(lab, w, |cx| {
                cx.get(BUNDLES, NS, &name).ok_or_else(|| format!("Fleet has no bundle {name}"))?;
                cx.delete(BUNDLES, NS, &name);
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "bundle-immutable",
        on: On::Repo,
        what: "a commit gives a claim another class, which no claim takes: the bundle is stuck",
        source: "seed troubleshooting guide: immutable PV field drift wedged a bundle; kube-apiserver: spec is immutable after creation",
        make: |lab, w, _| {
            let fleet = ("fleet.yaml", "defaultNamespace: research\n");
            pushed(lab, w, "datasets", &[fleet, ("claim.yaml", DATASETS)])?;
            pushed(lab, w, "datasets", &[fleet, ("claim.yaml", &DATASETS.replace("nfs-client", "nfs-fast"))])
        },
        hands: Some(|lab, w, _| {
            pushed(lab, w, "datasets", &[("fleet.yaml", "defaultNamespace: research\n"), ("claim.yaml", DATASETS)])
        }),
    },
    Fault {
        name: "bundle-invalid",
        on: On::Repo,
        what: "a commit brings an object with a value that does not exist",
        source: "seed troubleshooting guide: invalid enum in a setting; kube-apiserver: Unsupported value, supported values",
        make: |lab, w, _| {
            let o = "apiVersion: v1\nkind: Service\nmetadata: {name: metrics, namespace: default}\nspec:\n  type: NodePorts\n  selector: {app: metrics}\n  ports: [{name: http, port: 80}]\n";
            pushed(lab, w, "metrics", &[("fleet.yaml", "defaultNamespace: default\n"), ("service.yaml", o)])
        },
        hands: Some(|lab, w, _| pushed(lab, w, "metrics", &[])),
    },
    Fault {
        name: "bundle-customization-lost",
        on: On::Repo,
        what: "a commit customizes a target with a key that Fleet does not know: it is dropped without a word",
        source: "seed troubleshooting guide: targetCustomizations.patches silently dropped; Fleet documentation, fleet.yaml",
        make: |lab, w, _| {
            let fleet = "defaultNamespace: default\ntargetCustomizations:\n- name: gpu\n  clusterName: local\n  patches:\n  - op: replace\n    path: /data/text\n    value: other\n";
            let o =
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: motd, namespace: default}\ndata: {text: hello}\n";
            pushed(lab, w, "motd", &[("fleet.yaml", fleet), ("motd.yaml", o)])
        },
        hands: Some(|lab, w, _| pushed(lab, w, "motd", &[])),
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

/// What the first GitRepo follows.
struct Followed {
    /// Name of the GitRepo.
    name: String,
    url: String,
    branch: String,
    path: String,
}

fn followed(lab: &Lab, w: &mut World) -> Result<Followed, String> {
    cluster(lab, w, |cx| {
        let all = cx.list_in(REPOS, NS);
        let r = all.first().ok_or("Fleet follows no repository")?;
        let text = |pointer: &str| s(r, pointer).to_owned();
        Ok(Followed {
            name: text("/metadata/name"),
            url: text("/spec/repo"),
            branch: text("/spec/branch"),
            path: text("/spec/paths/0"),
        })
    })
}

/// Commits a folder below the followed path; without files the folder goes.
fn push(lab: &Lab, w: &mut World, folder: &str, files: &[(&str, &str)]) -> Result<(), String> {
    let Followed { url, branch, path, .. } = followed(lab, w)?;
    let at = format!("{path}/{folder}");
    let files = files.iter().map(|(n, t)| (format!("{at}/{n}"), (*t).to_owned())).collect();
    git::commit(lab, w, &url, &branch, &at, files, &format!("lab: {folder}")).map(drop)
}

/// As [`push`], and Fleet has seen it.
fn pushed(lab: &Lab, w: &mut World, folder: &str, files: &[(&str, &str)]) -> Result<(), String> {
    push(lab, w, folder, files)?;
    cluster(lab, w, |cx| {
        crate::kube::controllers::fleet::reconcile(cx);
        Ok(())
    })
}

/// The bundle of a folder below the path that the site's repository follows.
fn bundle_of(lab: &Lab, w: &mut World, folder: &str) -> Result<String, String> {
    let Followed { name, path, .. } = followed(lab, w)?;
    Ok(name_of(&name, &format!("{path}/{folder}")))
}

fn down(lab: &Lab, w: &mut World, _name: &str, is: bool) -> Result<(), String> {
    let Followed { url, .. } = followed(lab, w)?;
    let r = w.remotes.get_mut(&url).ok_or_else(|| format!("the lab has no repository {url}"))?;
    r.down = is;
    let clusters: Vec<String> = w.clusters.keys().cloned().collect();
    for cluster in clusters {
        w.schedule(60_000, crate::world::Event::Kube(crate::kube::KubeEvent::Poll { cluster }));
    }
    Ok(())
}
