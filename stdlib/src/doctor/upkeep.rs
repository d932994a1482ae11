//! What needs care before it breaks: certificates, snapshots, volumes without a claim, repositories that are not polled.
use base64::Engine;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::volumes::{Fate, claims_of};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::k3s::server_kubeconfig;
use crate::kubernetes::{Cluster, epoch_seconds, node_row};
use crate::site::RoleKind;
use crate::ssh::Host;

/// A claim that waits longer than this does not only wait for its volume to be made.
const STUCK_SECONDS: i64 = 600;

/// Words of a provisioner that refuses the sort of volume: several nodes share none that is a folder of one.
#[must_use]
pub fn is_shared(said: &str) -> bool {
    said.contains("only supports ReadWriteOnce")
}

fn is_hopeless(said: &str) -> bool {
    is_shared(said) || said.contains("Selector is not supported")
}

/// `notAfter` of a certificate (PEM) in seconds since 1970.
#[must_use]
pub fn not_after(pem: &[u8]) -> Option<i64> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(cert.validity().not_after.timestamp())
}

/// Where a kubeconfig keeps its client certificate.
const CLIENT: &str = "/users/0/user/client-certificate-data";

/// `notAfter` of a certificate in a kubeconfig.
fn end_in(kubeconfig: &Value, place: &str) -> Option<i64> {
    let pem = base64::engine::general_purpose::STANDARD.decode(kubeconfig.pointer(place)?.as_str()?).ok()?;
    not_after(&pem)
}

/// The administrator's certificates on the site's servers: K3s renews all of a machine's at once. Servers that cannot be
/// asked are left out.
async fn of_servers(ctx: &Ctx, now: i64) -> Vec<Left> {
    let Some(site) = ctx.site.clone() else { return Vec::new() };
    let mut out = Vec::new();
    for node in site.nodes_of(RoleKind::Server) {
        let Ok(text) = server_kubeconfig(ctx, &Host::for_node(&site, node)).await else { continue };
        let Some(end) = serde_saphyr::from_str(&text).ok().and_then(|k: Value| end_in(&k, CLIENT)) else { continue };
        let (name, server) = (format!("client certificate of {}", node.name), Some(node.name.clone()));
        out.push(Left { name, server, days: (end - now).div_euclid(86_400) });
    }
    out
}

/// Certificates that end in less than so many days are a cause.
pub const ENDING_DAYS: i64 = 7;

/// How long a certificate is still valid.
#[derive(Debug, Clone)]
pub struct Left {
    /// What it is.
    pub name: String,
    /// Node of the server that shows it.
    pub server: Option<String>,
    /// Whole days; below 0 when it has ended.
    pub days: i64,
}

impl Cluster {
    /// Time of the servers: no clock of ours is compared with their stamps.
    pub(super) async fn server_seconds(&self, ctx: &Ctx) -> OpResult<Option<i64>> {
        let leases = self.list_in(ctx, "lease", "kube-node-lease").await?;
        Ok(leases.iter().filter_map(|l| epoch_seconds(l["spec"]["renewTime"].as_str()?)).max())
    }

    /// Days that the certificates of the kubeconfig, and those that the servers show, are still valid.
    ///
    /// # Errors
    /// `unreachable`; `failed` for a kubeconfig without certificates and for a cluster without node leases.
    pub async fn certificates(&self, ctx: &Ctx) -> OpResult<Vec<Left>> {
        let bad = |what: &str| OpError::failed(what.to_owned()).on(self.name());
        let k: Value = serde_saphyr::from_str(self.kubeconfig().reveal())
            .map_err(|e| bad("the kubeconfig is not YAML").because(e.to_string()))?;
        let now = self.server_seconds(ctx).await?;
        let now = now.ok_or_else(|| bad("no node has a lease: the servers' time is not known"))?;
        let parts =
            [("client certificate", CLIENT), ("cluster's CA", "/clusters/0/cluster/certificate-authority-data")];
        let mut out = Vec::new();
        for (name, place) in parts {
            if k.pointer(place).is_none_or(|d| !d.is_string()) {
                return Err(bad(&format!("the kubeconfig has no {name}")));
            }
            let end = end_in(&k, place);
            let end = end.ok_or_else(|| bad(&format!("the {name} of the kubeconfig cannot be read")))?;
            out.push(Left { name: name.to_owned(), server: None, days: (end - now).div_euclid(86_400) });
        }
        out.extend(of_servers(ctx, now).await);
        let nodes = self.list_in(ctx, "node", "").await?;
        for (host, end) in self.served_ends(ctx).await {
            let at = nodes.iter().find(|n| node_row(n)["address"] == host.as_str());
            let Some(node) = at.and_then(|n| n["metadata"]["name"].as_str()) else { continue };
            let days = (end - now).div_euclid(86_400);
            out.push(Left { name: format!("certificate of {node}"), server: Some(node.to_owned()), days });
        }
        Ok(out)
    }

    /// The newest etcd snapshot, the failed ones and servers that are late, in hours of the servers' clock.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn backups(&self, ctx: &Ctx) -> OpResult<Value> {
        let now = self.server_seconds(ctx).await?.unwrap_or(0);
        let all = self.list_if_known(ctx, "etcdsnapshotfiles.k3s.cattle.io", "").await?;
        let good = |f: &&Value| f["status"]["readyToUse"] != false && f["status"]["error"].is_null();
        let newest = all.iter().filter(good).filter_map(|f| epoch_seconds(f["status"]["creationTime"].as_str()?)).max();
        let failed = all.iter().filter(|f| !good(f)).count();
        let nodes = self.list_in(ctx, "node", "").await?;
        let born = nodes.iter().filter_map(|n| epoch_seconds(n["metadata"]["creationTimestamp"].as_str()?)).min();
        let hours = |t: Option<i64>| t.map(|t| (now - t) / 3600);
        let late: Vec<String> = self.late_snapshots(ctx).await?.into_iter().map(|l| l.text).collect();
        Ok(json!({"newest": newest, "hours": hours(newest), "failed": failed, "late": late,
            "cluster_hours": hours(born).unwrap_or(0)}))
    }

    /// Volumes that nobody misses: their claim is gone, and nothing names it.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn orphans(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let all = self.stray_volumes(ctx).await?.into_iter();
        Ok(all.filter(|s| s.fate == Fate::Forgotten).map(|s| s.to_string()).collect())
    }

    /// Claims whose data are on a volume that is not theirs any more: made anew, or gone while something names them.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn lost_claims(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let all = self.stray_volumes(ctx).await?;
        let words = all.iter().filter_map(|s| match &s.fate {
            Fate::Forgotten => None,
            Fate::Replaced => Some(format!("claim {} was made anew, its former data are on {}", s.at(), s.volume)),
            Fate::Wanted(by) => {
                Some(format!("claim {} is gone, {} names it, its data are on {}", s.at(), by.join(", "), s.volume))
            }
        });
        Ok(words.collect())
    }

    /// Claims that no pod and no workload names, with their class and size. A hub's claims wait for their users.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn idle_claims(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let mut named = std::collections::BTreeSet::new();
        let mut templates = Vec::new();
        for kind in ["pod", "deployment", "statefulset", "daemonset", "job", "cronjob"] {
            for o in self.list_in(ctx, kind, "").await? {
                let ns = o["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
                named.extend(claims_of(&o).into_iter().map(|c| format!("{ns}/{c}")));
                for t in o["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                    let (t, set) = (&t["metadata"]["name"], &o["metadata"]["name"]);
                    let (Some(t), Some(set)) = (t.as_str(), set.as_str()) else { continue };
                    templates.push(format!("{ns}/{t}-{set}-"));
                }
            }
        }
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let claims = self.list_in(ctx, "pvc", "").await?;
        let idle = claims.iter().filter(|c| c["status"]["phase"] == "Bound").filter_map(|c| {
            let (meta, spec) = (&c["metadata"], &c["spec"]);
            let at = format!("{}/{}", text(&meta["namespace"]), text(&meta["name"]));
            let of_user = meta["labels"]["component"] == "singleuser-storage" || at.starts_with("jupyterhub/claim-");
            let used = named.contains(&at) || templates.iter().any(|t| at.starts_with(t.as_str()));
            let size = text(&c["status"]["capacity"]["storage"]);
            (!used && !of_user).then(|| format!("{at} ({size}, {})", text(&spec["storageClassName"])))
        });
        Ok(idle.collect())
    }

    /// Claims that have waited for a volume for ten minutes, or whose provisioner refuses them, with their newest warning.
    /// One that waits for its first pod is in order.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn stuck_claims(&self, ctx: &Ctx) -> OpResult<Vec<(String, String)>> {
        let Some(now) = self.server_seconds(ctx).await? else { return Ok(Vec::new()) };
        let classes = self.list_in(ctx, "storageclass", "").await?;
        let pods = self.list_in(ctx, "pod", "").await?;
        let mut out = Vec::new();
        for c in self.list_in(ctx, "pvc", "").await? {
            let text = |path: &str| c.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let (ns, name) = (text("/metadata/namespace"), text("/metadata/name"));
            let class = classes.iter().find(|k| k["metadata"]["name"] == text("/spec/storageClassName"));
            let (Some(class), "Pending") = (class, text("/status/phase")) else { continue };
            let young = epoch_seconds(text("/metadata/creationTimestamp")).is_none_or(|t| now - t < STUCK_SECONDS);
            let named = |p: &Value| {
                let volumes = p["spec"]["volumes"].as_array().into_iter().flatten();
                p["metadata"]["namespace"] == ns
                    && volumes.clone().any(|v| v["persistentVolumeClaim"]["claimName"] == name)
            };
            let for_pod = class["volumeBindingMode"] == "WaitForFirstConsumer" && !pods.iter().any(named);
            if for_pod || !c["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let said = self.last_warning(ctx, "pvc", ns, name).await?;
            // what its provisioner does not do, waiting does not bring
            if !young || said.as_deref().is_some_and(is_hopeless) {
                out.push((format!("{ns}/{name}"), said.unwrap_or_else(|| "no event says why".to_owned())));
            }
        }
        Ok(out)
    }

    /// Says that a repository of Fleet was not polled for three of its intervals; empty when it was.
    ///
    /// # Errors
    /// `unreachable`, `not_found`.
    pub async fn polling(&self, ctx: &Ctx, repo: &str) -> OpResult<String> {
        let op = Op::read("doctor", "check_polling", repo.to_owned());
        ctx.run_op(op, |s| async move {
            let o = self.get_object(s.ctx(), "gitrepos.fleet.cattle.io", "fleet-local", repo).await?;
            let now = self.server_seconds(s.ctx()).await?;
            Ok(super::fleet::overdue(&o, now)
                .map_or_else(String::new, |n| format!("Fleet has not polled {repo} for {n} s")))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let mut wanted = rcgen::CertificateParams::new(vec!["k3s".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(2031, 2, 3);
        // the text of this serial number contains "END", as a line of any certificate may
        wanted.serial_number = Some([0x10, 0xd0, 0xc4, 1, 0x10, 0xd0, 0xc4, 1, 0x10, 0xd0, 0xc4].to_vec().into());
        let pem = wanted.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        assert_eq!(pem.matches("END").count(), 2, "{pem}");
        assert_eq!(not_after(pem.as_bytes()), epoch_seconds("2031-02-03T00:00:00Z"));
        assert_eq!(not_after(b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"), None);
    }
}
