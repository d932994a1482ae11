//! Storage: NFS server and exports, classes, provisioners, scratch disks, claims that wait or cannot go.
use serde_json::Value;

use super::finding::{DEPLOY, Finding, describe, line, on_machine, script};
use super::nft;
use super::scene::Scene;
use super::upkeep::is_shared;
use super::volumes::Fate;
use crate::core::error::OpResult;
use crate::kubernetes::Cluster;
use crate::nfs::{Export, SCRATCH_NS, check_mount};
use crate::site::{Node, Site};

/// Holds a claim while a pod uses it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

fn finding(id: &'static str, target: &str, cause: String, evidence: &str, fix: &str, next: String) -> Finding {
    Finding {
        id,
        area: "storage",
        target: target.to_owned(),
        cause,
        evidence: line(evidence),
        fix: fix.to_owned(),
        next,
    }
}

/// The site's NFS export.
#[must_use]
pub fn export_of(site: &Site, storage: Option<&Node>) -> Option<Export> {
    let path = Scene::text(&site.storage, "nfs_path")?;
    let server = Scene::text(&site.storage, "nfs_server").or_else(|| storage.map(|n| n.ip.clone()))?;
    Some(Export::new(&server, &path))
}

fn nfs_class(site: &Site) -> String {
    Scene::text(&site.storage, "nfs_class").unwrap_or_else(|| "nfs-client".to_owned())
}

fn scratch_class(site: &Site) -> Option<String> {
    let any = site.nodes.iter().any(|n| n.shape.scratch.is_some());
    any.then(|| Scene::text(&site.storage, "scratch_class").unwrap_or_else(|| "fast-scratch".to_owned()))
}

fn name(o: &Value) -> &str {
    o["metadata"]["name"].as_str().unwrap_or_default()
}

/// Looks at the storage from the server to the claims; not at the share when the class is of another one.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene, other_share: bool) -> OpResult<()> {
    let server_ok = other_share || server(s).await;
    if server_ok && !other_share {
        mounts(s).await;
    }
    scratch_disks(s).await;
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    // without a [storage] section deploy makes no class: those that there are belong to somebody else
    if !s.site.storage.is_empty() {
        classes(s, &cluster).await?;
        provisioners(s, &cluster, server_ok).await?;
    }
    claims(s, &cluster).await?;
    strays(s, &cluster).await?;
    let clear = s.found.is_empty();
    for (at, said) in cluster.stuck_claims(&s.ctx).await? {
        let (ns, claim) = at.split_once('/').unwrap_or(("", &at));
        if is_shared(&said) {
            let cause = format!("claim {at} is to be shared by several nodes, and its class gives folders of one node");
            let fix = "make the claim anew with a class of NFS, or with ReadWriteOnce (a claim's class and modes cannot be changed)";
            let next = script("delete-object", &[("kind", "pvc"), ("namespace", ns), ("name", claim)]);
            s.add(finding("claim-access-mode", &at, cause, &said, fix, next));
        } else if clear {
            // what no broken part explains
            let cause = format!("claim {at} gets no volume");
            let next = describe("pvc", ns, claim);
            s.add(finding("claim-pending", &at, cause, &said, "look at what its provisioner says", next));
        }
    }
    Ok(())
}

/// The NFS server's service and data disk; whether clients can be expected to mount.
async fn server(s: &mut Scene) -> bool {
    let Some(node) = s.storage_node() else { return true };
    if s.down.contains(&node.name) {
        return false;
    }
    let path = Scene::text(&s.site.storage, "nfs_path").unwrap_or_default();
    let has_disk = node.shape.data.is_some();
    let said = s
        .ask(&node, &format!("systemctl is-active nfs-server; mountpoint -q {path} && echo mounted || echo bare"))
        .await;
    let state = said.lines().next().unwrap_or_default().trim().to_owned();
    if has_disk && said.contains("bare") {
        let cause = format!("the data disk of {} is not mounted at {path}", node.name);
        let fix = "deploy mounts it again; until then clients would write to the system disk";
        s.lost(
            &node.name,
            finding("nfs-disk-unmounted", &node.name, cause, &format!("{path} is no mount point"), fix, DEPLOY.into()),
        );
        return false;
    }
    if state != "active" && !state.is_empty() {
        let cause = format!("the NFS server on {} does not run", node.name);
        s.lost(
            &node.name,
            finding(
                "nfs-stopped",
                &node.name,
                cause,
                &format!("nfs-server.service is {state}"),
                "deploy starts it",
                DEPLOY.into(),
            ),
        );
        return false;
    }
    true
}

/// A mount from every node that may use the share.
async fn mounts(s: &mut Scene) {
    let Some(share) = export_of(&s.site, s.storage_node().as_ref()) else { return };
    let nodes: Vec<Node> = s.nodes().into_iter().filter(Node::in_cluster).collect();
    let hosts: Vec<_> = nodes.iter().map(|n| s.host(n)).collect();
    let probes = hosts.iter().map(|h| check_mount(&s.ctx, h, &share)).collect();
    let results = s.ctx.clock.join_all(probes).await;
    let silent = |r: &OpResult<bool>| r.as_ref().err().is_some_and(|e| e.causes.join(" ").contains("timed out"));
    if results.len() > 1 && results.iter().all(silent) {
        let f = blocked(s, &share).await;
        s.add(f);
        return;
    }
    for (node, result) in nodes.iter().zip(results) {
        let Err(e) = result else { continue };
        let said = format!("{} {}", e.message, e.causes.join("; "));
        let (id, target, cause, fix) = if said.contains("denied") {
            (
                "export-lacks-node",
                node.name.clone(),
                format!("the export does not let {} mount {share}", node.name),
                "deploy writes the list of clients again",
            )
        } else if said.contains("No such file") {
            (
                "nfs-path-missing",
                share.to_string(),
                format!("the server does not export {share}"),
                "deploy exports it again",
            )
        } else if said.contains("timed out") {
            (
                "nfs-blocked",
                node.name.clone(),
                format!("{} gets no answer from {} on TCP port 2049", node.name, share.server()),
                "look for a firewall between the two",
            )
        } else {
            (
                "nfs-mount-fails",
                node.name.clone(),
                format!("{} cannot mount {share}", node.name),
                "look at the words of mount",
            )
        };
        s.add(finding(id, &target, cause, &said, fix, DEPLOY.into()));
    }
}

/// No node gets an answer: the server's own packet filter, or one before it.
async fn blocked(s: &Scene, share: &Export) -> Finding {
    let cause = format!("nobody gets an answer from {} on TCP port 2049", share.server());
    let node = s.storage_node();
    let rules = match &node {
        Some(n) => s.ask(n, nft::LIST).await,
        None => String::new(),
    };
    let target = node.as_ref().map_or_else(|| share.server().to_owned(), |n| n.name.clone());
    let (Some(node), Some(rule)) = (&node, nft::dropping(&rules, "input", 2049)) else {
        let fix = "the server's own filter does not drop it: look at the firewall between, such as the one of the VM in Proxmox";
        let next = format!("nc -vz -w 5 {} 2049", share.server());
        return finding("nfs-blocked", &target, cause, "mount: Connection timed out from every node", fix, next);
    };
    let seen = format!("{} on {target}; mount: Connection timed out from every node", rule.shown());
    let fix = "let the port in; for good, also in the file that loads the filter (/etc/nftables.conf)";
    finding("nfs-blocked", &target, cause, &seen, fix, on_machine(s.ctx.lab, &s.site, node, &rule.open(2049)))
}

/// Scratch disks that are not mounted.
async fn scratch_disks(s: &mut Scene) {
    let Some(path) = Scene::text(&s.site.storage, "scratch_path") else { return };
    for node in s.nodes().into_iter().filter(|n| n.shape.scratch.is_some()) {
        let said = s.ask(&node, &format!("mountpoint -q {path} && echo mounted || echo bare")).await;
        if said.contains("bare") {
            let cause = format!("the scratch disk of {} is not mounted at {path}", node.name);
            s.add(finding(
                "scratch-unmounted",
                &node.name,
                cause,
                &format!("{path} is no mount point"),
                "deploy mounts it again",
                DEPLOY.into(),
            ));
        }
    }
}

/// Expected classes, and exactly one default.
async fn classes(s: &mut Scene, cluster: &Cluster) -> OpResult<()> {
    let all = cluster.list_in(&s.ctx, "storageclass", "").await?;
    let nfs = nfs_class(&s.site);
    for wanted in std::iter::once(nfs.clone()).chain(scratch_class(&s.site)) {
        if !all.iter().any(|c| name(c) == wanted) {
            let cause = format!("the storage class {wanted} does not exist");
            s.add(finding(
                "class-missing",
                &wanted,
                cause,
                "claims that name it wait for ever",
                "deploy makes it",
                DEPLOY.into(),
            ));
        }
    }
    let defaults: Vec<_> = all.iter().filter(|c| c["metadata"]["annotations"][DEFAULT] == "true").map(name).collect();
    for other in defaults.iter().filter(|d| **d != nfs) {
        if defaults.len() > 1 {
            let cause = format!("{} storage classes are the default", defaults.len());
            s.add(finding(
                "two-default-classes",
                other,
                cause,
                &defaults.join(", "),
                "deploy takes the mark from all but one",
                DEPLOY.into(),
            ));
        }
    }
    Ok(())
}

async fn down(s: &Scene, cluster: &Cluster, ns: &str, deployment: &str) -> OpResult<Option<String>> {
    let Some(d) = cluster.find_object(&s.ctx, "deployment", ns, deployment).await? else {
        return Ok(Some(format!("there is no deployment {ns}/{deployment}")));
    };
    let n = |v: &Value| v.as_i64().unwrap_or(0);
    let want = d["spec"]["replicas"].as_i64().unwrap_or(1);
    let have = n(&d["status"]["availableReplicas"]);
    // its node is explained already
    let moves = want > 0 && !s.down.is_empty();
    Ok(((want == 0 || have == 0) && !moves)
        .then(|| format!("deployment {ns}/{deployment}: {have} of {want} available")))
}

/// The programs that make volumes, and the configuration of the scratch one.
async fn provisioners(s: &mut Scene, cluster: &Cluster, server_ok: bool) -> OpResult<()> {
    if let Some(seen) = down(s, cluster, "kube-system", "csi-nfs-controller").await?.filter(|_| server_ok) {
        let next = script("scale", &[("namespace", "kube-system"), ("name", "csi-nfs-controller"), ("replicas", "1")]);
        let cause = "the provisioner of NFS volumes does not run".to_owned();
        s.add(finding("nfs-provisioner-down", "csi-nfs-controller", cause, &seen, "start it", next));
    }
    let Some(class) = scratch_class(&s.site) else { return Ok(()) };
    if let Some(seen) = down(s, cluster, SCRATCH_NS, SCRATCH_NS).await? {
        let cause = "the provisioner of scratch volumes does not run".to_owned();
        s.add(finding("scratch-provisioner-down", SCRATCH_NS, cause, &seen, "deploy starts it", DEPLOY.into()));
        return Ok(());
    }
    let map = cluster.find_object(&s.ctx, "configmap", SCRATCH_NS, "local-path-config").await?;
    let config = map.as_ref().and_then(|m| m["data"]["config.json"].as_str()).unwrap_or("{}").to_owned();
    let parsed: Value = serde_json::from_str(&config).unwrap_or_default();
    let path = Scene::text(&s.site.storage, "scratch_path").unwrap_or_default();
    let entries = parsed["nodePathMap"].as_array().cloned().unwrap_or_default();
    let serves = |node: &str| {
        let e = entries
            .iter()
            .find(|e| e["node"] == node)
            .or_else(|| entries.iter().find(|e| e["node"] == "DEFAULT_PATH_FOR_NON_LISTED_NODES"));
        e.is_some_and(|e| e["paths"].as_array().is_some_and(|p| p.iter().any(|p| *p == path.as_str())))
    };
    let missing: Vec<_> =
        s.site.nodes.iter().filter(|n| n.shape.scratch.is_some() && !serves(&n.name)).map(|n| n.name.clone()).collect();
    if !missing.is_empty() {
        let cause = format!("the provisioner of {class} has no path {path} for {}", missing.join(", "));
        s.add(finding("scratch-path", &class, cause, &config, "deploy writes its configuration again", DEPLOY.into()));
    }
    Ok(())
}

/// Claims that cannot be bound, or cannot go.
async fn claims(s: &mut Scene, cluster: &Cluster) -> OpResult<()> {
    let classes: Vec<String> =
        cluster.list_in(&s.ctx, "storageclass", "").await?.iter().map(|c| name(c).to_owned()).collect();
    let namespaces = cluster.list_in(&s.ctx, "namespace", "").await?;
    let leaving: Vec<&str> =
        namespaces.iter().filter(|n| !n["metadata"]["deletionTimestamp"].is_null()).map(name).collect();
    for c in cluster.list_in(&s.ctx, "pvc", "").await? {
        let (ns, claim) = (c["metadata"]["namespace"].as_str().unwrap_or_default(), name(&c));
        let at = format!("{ns}/{claim}");
        if !c["metadata"]["deletionTimestamp"].is_null() {
            if leaving.contains(&ns) {
                // a part of something that goes as a whole: what holds it up is another cause
                continue;
            }
            let users = users_of(s, cluster, ns, claim).await?;
            let held = c["metadata"]["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
            if users.is_empty() && held.iter().all(|f| f == PROTECTION) {
                // it goes by itself
                continue;
            }
            let cause = format!("claim {at} was deleted and waits for its users");
            let evidence = format!(
                "finalizers {}; used by {}",
                c["metadata"]["finalizers"],
                if users.is_empty() { "nobody".to_owned() } else { users.join(", ") }
            );
            let fix = "copy its data to another claim before its last pod stops: with that pod the claim is gone";
            s.add(finding("claim-terminating", &at, cause, &evidence, fix, describe("pvc", ns, claim)));
            continue;
        }
        if c["status"]["phase"] != "Pending" {
            continue;
        }
        let class = c["spec"]["storageClassName"].as_str().unwrap_or_default();
        let ours = class == nfs_class(&s.site) || Some(class.to_owned()) == scratch_class(&s.site);
        if !classes.iter().any(|k| k == class) && !ours && !class.is_empty() && ns != "jupyterhub" {
            let cause = format!("claim {at} names the storage class {class}, which does not exist");
            let said = cluster.last_warning(&s.ctx, "pvc", ns, claim).await?.unwrap_or_else(|| "phase Pending".into());
            let fix = "make the claim anew with one of the classes that exist (a claim's class cannot be changed)";
            s.add(finding(
                "claim-names-no-class",
                &at,
                cause,
                &said,
                fix,
                script("delete-object", &[("kind", "pvc"), ("namespace", ns), ("name", claim)]),
            ));
        }
    }
    Ok(())
}

/// Claims whose data are on a volume that is not theirs any more.
async fn strays(s: &mut Scene, cluster: &Cluster) -> OpResult<()> {
    for v in cluster.stray_volumes(&s.ctx).await? {
        let at = v.at();
        let (id, cause, seen) = match &v.fate {
            Fate::Forgotten => continue,
            Fate::Replaced => (
                "claim-replaced",
                format!(
                    "claim {at} was deleted and made anew: it is empty, its former data are kept on another volume"
                ),
                format!("volume {v} is Released, and its claim's name belongs to a younger one"),
            ),
            Fate::Wanted(by) => (
                "claim-lost",
                format!("claim {at} was deleted, and {} needs it: its data are kept on its volume", by.join(", ")),
                format!("volume {v} is Released"),
            ),
        };
        let fix = "bind the volume to a claim of its old name (who mounts the new one is stopped first); or delete the volume when its data are not wanted";
        s.add(finding(id, &at, cause, &seen, fix, script("restore-volume", &[("volume", &v.volume)])));
    }
    Ok(())
}

async fn users_of(s: &Scene, cluster: &Cluster, ns: &str, claim: &str) -> OpResult<Vec<String>> {
    let pods = cluster.list_in(&s.ctx, "pod", ns).await?;
    let uses = |p: &&Value| {
        p["spec"]["volumes"]
            .as_array()
            .is_some_and(|v| v.iter().any(|v| v["persistentVolumeClaim"]["claimName"] == claim))
    };
    Ok(pods.iter().filter(uses).map(|p| name(p).to_owned()).collect())
}
