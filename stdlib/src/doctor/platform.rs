//! JupyterHub, Rancher and cert-manager: their workloads, settings that lock users out, and why notebooks do not spawn.
use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::{DEPLOY, Finding, describe, line, script};
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::core::units::Secret;
use crate::gpu::is_gpu;
use crate::kubernetes::{Cluster, ServiceRequestOptions, condition, quantity};
use crate::site::RoleKind;

fn finding(
    id: &'static str,
    area: &'static str,
    target: &str,
    cause: String,
    evidence: &str,
    fix: &str,
    next: String,
) -> Finding {
    Finding { id, area, target: target.to_owned(), cause, evidence: line(evidence), fix: fix.to_owned(), next }
}

/// Workloads that the platform cannot do without: section, its namespace unless its HelmChart names another one, deployment, replicas, id, what their absence means.
const PARTS: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("cert_manager", "cert-manager", "cert-manager", "1", "cert-manager-down", "no certificate is made or renewed"),
    (
        "cert_manager",
        "cert-manager",
        "cert-manager-webhook",
        "1",
        "cert-webhook-down",
        "no certificate can be asked for",
    ),
    ("rancher", "cattle-system", "rancher", "3", "rancher-down", "Rancher's address answers nobody"),
    ("jupyterhub", "jupyterhub", "hub", "1", "hub-down", "nobody can log in or start a notebook"),
    ("jupyterhub", "jupyterhub", "proxy", "1", "hub-proxy-down", "nobody reaches the hub"),
];

/// Looks at what the site file asks for of the platform.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    for (section, usual, name, replicas, id, what) in PARTS {
        if !s.site.platform.contains_key(*section) {
            continue;
        }
        let ns = &namespace_of(s, &cluster, &section.replace('_', "-"), usual).await?;
        let found = cluster.find_object(&s.ctx, "deployment", ns, name).await?;
        let have = found.as_ref().map_or(0, |d| d["status"]["availableReplicas"].as_i64().unwrap_or(0));
        if have > 0 {
            continue;
        }
        if found.is_none() && super::releases::is_gone(s, &format!("Deployment {name}")) {
            continue;
        }
        // Fleet has put something else in its place
        if s.found.iter().any(|f| f.id == "release-collides" && f.target == *name) {
            continue;
        }
        let area = if *section == "jupyterhub" { "hub" } else { "platform" };
        let zero = found.as_ref().is_some_and(|d| d["spec"]["replicas"] == 0);
        let (seen, next) = match &found {
            None => (format!("there is no deployment {ns}/{name}"), DEPLOY.to_owned()),
            Some(_) if zero => (
                format!("deployment {ns}/{name} is scaled to 0"),
                script("scale", &[("namespace", ns), ("name", name), ("replicas", replicas)]),
            ),
            Some(_) => (why(s, &cluster, ns, name).await?, describe("deployment", ns, name)),
        };
        // a pod that waits for its claim or its node is explained there
        if zero || found.is_none() || !s.found.iter().any(|f| matches!(f.area, "storage" | "machine" | "node")) {
            s.add(finding(id, area, name, format!("{name} does not run: {what}"), &seen, "start it", next));
        }
    }
    if s.site.platform.contains_key("rancher") {
        rancher(s, &cluster).await?;
    }
    if s.site.platform.contains_key("jupyterhub") && !s.found.iter().any(|f| f.id == "hub-down") {
        hub(s, &cluster).await?;
    }
    Ok(())
}

/// The namespace of a release, as its HelmChart names it.
async fn namespace_of(s: &Scene, cluster: &Cluster, release: &str, usual: &str) -> OpResult<String> {
    let chart = cluster.find_object(&s.ctx, "helmcharts.helm.cattle.io", "kube-system", release).await?;
    Ok(chart.as_ref().and_then(|c| c["spec"]["targetNamespace"].as_str()).unwrap_or(usual).to_owned())
}

async fn why(s: &Scene, cluster: &Cluster, ns: &str, app: &str) -> OpResult<String> {
    for p in cluster.list_labelled(&s.ctx, "pod", ns, ("app", app)).await? {
        if let Some(w) = cluster.explain_pod(&s.ctx, ns, p["metadata"]["name"].as_str().unwrap_or_default()).await? {
            return Ok(w);
        }
    }
    Ok(format!("deployment {ns}/{app} has no pod that is ready"))
}

fn declared(s: &Scene, section: &str, key: &str) -> String {
    s.site.platform.get(section).and_then(|t| t.get(key)).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

async fn rancher(s: &mut Scene, cluster: &Cluster) -> OpResult<()> {
    let host = declared(s, "rancher", "hostname");
    let ns = namespace_of(s, cluster, "rancher", "cattle-system").await?;
    let ingresses = cluster.list_in(&s.ctx, "ingress", &ns).await?;
    certificates(s, cluster, &ns, &ingresses).await?;
    let served: Vec<String> = ingresses
        .iter()
        .flat_map(|i| i["spec"]["rules"].as_array().cloned().unwrap_or_default())
        .filter_map(|r| r["host"].as_str().map(str::to_owned))
        .collect();
    if !host.is_empty() && !served.is_empty() && !served.contains(&host) {
        let cause = format!("no ingress serves {host}: the address answers 404");
        s.add(finding(
            "rancher-hostname",
            "platform",
            "rancher",
            cause,
            &format!("ingress hosts: {}", served.join(", ")),
            "deploy sets the host name of the site file",
            DEPLOY.into(),
        ));
    }
    Ok(())
}

/// Certificates of Rancher's Ingresses: a Secret that is missing, and what cert-manager says of it.
async fn certificates(s: &mut Scene, cluster: &Cluster, ns: &str, ingresses: &[Value]) -> OpResult<()> {
    let known = cluster.list_if_known(&s.ctx, "certificates.cert-manager.io", ns).await?;
    let issuers = cluster.list_if_known(&s.ctx, "issuers.cert-manager.io", ns).await?;
    let text = |v: &Value, p: &str| v.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
    for t in ingresses.iter().flat_map(|i| i["spec"]["tls"].as_array().into_iter().flatten()) {
        let name = text(t, "/secretName");
        if name.is_empty() || cluster.find_object(&s.ctx, "secret", ns, &name).await?.is_some() {
            continue;
        }
        let cause =
            format!("the certificate {name} of Rancher's address does not exist: browsers are shown Traefik's own");
        let certificate = known.iter().find(|c| text(c, "/spec/secretName") == name);
        let issuer = certificate.map(|c| text(c, "/spec/issuerRef/name")).unwrap_or_default();
        let broken = issuers.iter().filter(|i| text(i, "/metadata/name") == issuer);
        let said = broken.chain(certificate).find_map(|o| condition(o, "Ready").filter(|(is, _)| is == "False"));
        let seen = said.map_or_else(|| format!("secret {ns}/{name} not found"), |(_, why)| why);
        let (fix, next) = if seen.contains("tls-rancher") {
            let set = [("namespace", ns), ("app", "rancher")];
            (
                "Rancher makes its CA again when it starts; cert-manager signs the certificate then",
                script("restart-pods", &set),
            )
        } else {
            ("look at what cert-manager says of it", describe("certificates.cert-manager.io", ns, &name))
        };
        s.add(finding("certificate-missing", "platform", "rancher", cause, &seen, fix, next));
    }
    Ok(())
}

/// Values of a release: the plain ones; `None`, and a finding, when they cannot be read.
async fn values_of(s: &mut Scene, cluster: &Cluster, release: &str) -> OpResult<Option<Value>> {
    let chart = cluster.find_object(&s.ctx, "helmcharts.helm.cattle.io", "kube-system", release).await?;
    let text = chart.as_ref().and_then(|c| c["spec"]["valuesContent"].as_str()).unwrap_or_default().to_owned();
    if text.trim().is_empty() {
        return Ok(Some(Value::Null));
    }
    match serde_saphyr::from_str(&text) {
        Ok(v) => Ok(Some(v)),
        Err(e) => {
            let cause = format!("the values of HelmChart {release} are no YAML: its next job fails");
            let fix = "deploy writes them again";
            s.add(finding("values-unreadable", "hub", release, cause, &e.to_string(), fix, DEPLOY.into()));
            Ok(None)
        }
    }
}

async fn hub(s: &mut Scene, cluster: &Cluster) -> OpResult<()> {
    let Some(mut v) = values_of(s, cluster, "jupyterhub").await? else { return Ok(()) };
    let ns = namespace_of(s, cluster, "jupyterhub", "jupyterhub").await?;
    if v.is_null() {
        // not ours to give: what the release was installed with says it
        let Some(newest) = cluster.release_revisions(&s.ctx, &ns, "jupyterhub").await?.pop() else { return Ok(()) };
        v = newest.values;
    }
    let auth = v["hub"]["config"]["JupyterHub"]["authenticator_class"].as_str().unwrap_or("dummy");
    if auth.to_lowercase().contains("dummy") {
        let cause = "the hub's authenticator is the dummy: anybody logs in as anybody".to_owned();
        s.add(finding(
            "hub-open",
            "hub",
            "jupyterhub",
            cause,
            &format!("authenticator_class {auth}"),
            "deploy sets passwords again; tell your users",
            DEPLOY.into(),
        ));
    }
    if let Some(said) = token_refused(s, cluster, &ns).await {
        let cause = "the hub does not know verify's service token".to_owned();
        s.add(finding(
            "hub-token",
            "hub",
            "jupyterhub",
            cause,
            &said,
            "deploy gives the hub the token of the state directory",
            DEPLOY.into(),
        ));
    }
    spawns(s, cluster, &ns, &v).await
}

async fn token_refused(s: &Scene, cluster: &Cluster, ns: &str) -> Option<String> {
    let token: Secret = s.ctx.secret_ref("hub_token", "state:hub_token").ok()?;
    let node = s.site.nodes_of(RoleKind::Server).find(|n| !s.down.contains(&n.name))?.clone();
    let o = ServiceRequestOptions {
        path: "/hub/api/users".into(),
        method: "GET".into(),
        token: Some(token),
        body: Value::Null,
        repeatable: false,
    };
    let (status, body) = cluster.request_service(&s.ctx, &s.host(&node), &format!("{ns}/hub:8081"), &o).await.ok()?;
    matches!(status, 401 | 403).then(|| format!("{status} {body}"))
}

/// What would keep a notebook from starting: storage, image, GPUs.
async fn spawns(s: &mut Scene, cluster: &Cluster, ns: &str, v: &Value) -> OpResult<()> {
    let single = &v["singleuser"];
    if let Some(class) = single["storage"]["dynamic"]["storageClass"].as_str()
        && cluster.find_object(&s.ctx, "storageclass", "", class).await?.is_none()
        && !s.found.iter().any(|f| f.id == "class-missing" && f.target == class)
    {
        let cause = format!("users' volumes ask for the storage class {class}, which does not exist");
        s.add(finding(
            "spawn-class",
            "hub",
            "jupyterhub",
            cause,
            &format!("singleuser.storage.dynamic.storageClass: {class}"),
            "deploy sets the class of the site file",
            DEPLOY.into(),
        ));
    }
    let nodes = cluster.list_in(&s.ctx, "node", "").await?;
    let offered = gpu_resources(&nodes);
    for p in single["profileList"].as_array().into_iter().flatten() {
        let name = p["slug"].as_str().or(p["display_name"].as_str()).unwrap_or("?");
        let limits = p["kubespawner_override"]["extra_resource_limits"].as_object().into_iter().flatten();
        for (resource, asks) in limits.filter(|(r, _)| is_gpu(r)) {
            let (asks, most) = (quantity(asks), offered.get(resource).copied().unwrap_or(0));
            if offered.is_empty() || asks <= most {
                continue;
            }
            if most == 0 {
                let cause = format!("profile {name} asks for {resource}, which no node offers");
                let seen = format!("offered: {}", offered.keys().cloned().collect::<Vec<_>>().join(", "));
                let fix = "deploy sets the resource that the site file's MIG strategy and instances give";
                s.add(finding("spawn-resource", "hub", "jupyterhub", cause, &seen, fix, DEPLOY.into()));
                continue;
            }
            let cause = format!("profile {name} asks for {asks} GPUs, no node has more than {most}");
            s.add(finding(
                "spawn-gpus",
                "hub",
                "jupyterhub",
                cause,
                &format!("extra_resource_limits {resource}: {asks}"),
                "deploy sets the profiles of the recipe",
                DEPLOY.into(),
            ));
        }
    }
    metadata(s, cluster, ns, single).await?;
    image(s, cluster, ns, single).await
}

/// The most that one node has of each GPU resource.
fn gpu_resources(nodes: &[Value]) -> BTreeMap<String, i64> {
    let mut out: BTreeMap<String, i64> = BTreeMap::new();
    for (r, n) in nodes.iter().flat_map(|n| n["status"]["capacity"].as_object().into_iter().flatten()) {
        if is_gpu(r) && quantity(n) > 0 {
            let most = out.entry(r.clone()).or_default();
            *most = quantity(n).max(*most);
        }
    }
    out
}

/// The container that blocks the cloud's metadata, where the kernel has no tables for it: no notebook gets past it.
async fn metadata(s: &mut Scene, cluster: &Cluster, ns: &str, single: &Value) -> OpResult<()> {
    if single["cloudMetadata"]["blockWithIptables"] == false {
        return Ok(());
    }
    let events = cluster.list_in(&s.ctx, "event", ns).await?;
    // not one whose image cannot be pulled
    let failed = events.iter().filter(|e| e["type"] == "Warning").find(|e| {
        let text = |p: &str| e.pointer(p).and_then(Value::as_str).unwrap_or_default();
        let said = text("/message");
        let of = |t: &str| t.contains("block-cloud-metadata");
        let ended = said.contains("iptables") || text("/reason") == "BackOff" && said.contains("restarting");
        ended && (of(said) || of(text("/involvedObject/fieldPath")))
    });
    if let Some(e) = failed {
        s.add(finding(
            "spawn-iptables",
            "hub",
            "jupyterhub",
            "notebooks do not get past the container that blocks the cloud's metadata with iptables".to_owned(),
            e["message"].as_str().unwrap_or_default(),
            "singleuser.cloudMetadata.blockWithIptables: false; at home there is no such address to block. Deploy sets it",
            DEPLOY.into(),
        ));
    }
    Ok(())
}

/// The newest image that could not be pulled, if a profile still names it.
async fn image(s: &mut Scene, cluster: &Cluster, ns: &str, single: &Value) -> OpResult<()> {
    let named: Vec<&str> = single["profileList"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["kubespawner_override"]["image"].as_str())
        .collect();
    let events = cluster.list_in(&s.ctx, "event", ns).await?;
    let failed = events
        .iter()
        .filter(|e| e["type"] == "Warning")
        .filter_map(|e| e["message"].as_str())
        .find(|m| m.contains("Failed to pull image") && named.iter().any(|i| m.contains(*i)));
    if let Some(message) = failed {
        let image = named.iter().find(|i| message.contains(**i)).copied().unwrap_or_default();
        let cause = format!("the image {image} of a notebook profile cannot be pulled");
        s.add(finding(
            "spawn-image",
            "hub",
            "jupyterhub",
            cause,
            message,
            "deploy sets the images of the recipe; or name one that exists",
            DEPLOY.into(),
        ));
    }
    Ok(())
}
