//! What needs care before it breaks: certificates, snapshots, volumes without a claim, repositories that are not polled.
use base64::Engine;
use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::kubernetes::{Cluster, epoch_seconds};

/// `notAfter` of a certificate (DER) in seconds since 1970.
#[must_use]
pub fn not_after(der: &[u8]) -> Option<i64> {
    // Certificate -> TBSCertificate -> [version] serial algorithm issuer validity{notBefore, notAfter}
    let (tbs, _) = content(der).and_then(|(c, _)| content(c))?;
    let mut rest = tbs;
    if rest.first() == Some(&0xa0) {
        rest = content(rest)?.1;
    }
    for _ in 0..3 {
        rest = content(rest)?.1;
    }
    let (validity, _) = content(rest)?;
    let (_, after) = content(validity)?;
    let text = std::str::from_utf8(content(after)?.0).ok()?;
    let text = text.trim_end_matches('Z');
    let full = match text.len() {
        // UTCTime has two digits of the year
        12 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        14 => text.to_owned(),
        _ => return None,
    };
    let part = |a: usize, b: usize| full.get(a..b).unwrap_or_default();
    epoch_seconds(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

/// Content of the first DER element, and what follows it.
fn content(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (len, from) = if first < 0x80 {
        (first, 2)
    } else {
        let n = first & 0x7f;
        let bytes = der.get(2..2 + n)?;
        (bytes.iter().fold(0usize, |l, b| (l << 8) | usize::from(*b)), 2 + n)
    };
    Some((der.get(from..from + len)?, der.get(from + len..)?))
}

fn pem_to_der(pem: &str) -> Option<Vec<u8>> {
    let body: String =
        pem.lines().skip_while(|l| !l.contains("BEGIN")).skip(1).take_while(|l| !l.contains("END")).collect();
    base64::engine::general_purpose::STANDARD.decode(body.trim()).ok()
}

impl Cluster {
    /// Time of the servers: no clock of ours is compared with their stamps.
    async fn server_seconds(&self, ctx: &Ctx) -> OpResult<Option<i64>> {
        let leases = self.list_in(ctx, "lease", "kube-node-lease").await?;
        Ok(leases.iter().filter_map(|l| epoch_seconds(l["spec"]["renewTime"].as_str()?)).max())
    }

    /// Days that the certificates of the kubeconfig are still valid.
    ///
    /// # Errors
    /// `unreachable`; `failed` for a kubeconfig without certificates.
    pub async fn certificates(&self, ctx: &Ctx) -> OpResult<Vec<(&'static str, i64)>> {
        let bad = || OpError::failed("the kubeconfig has no certificates").on(self.name());
        let k: Value = serde_saphyr::from_str(self.kubeconfig().reveal()).map_err(|_| bad())?;
        let now = self.server_seconds(ctx).await?.ok_or_else(bad)?;
        let parts = [
            ("client certificate", &k["users"][0]["user"]["client-certificate-data"]),
            ("cluster's CA", &k["clusters"][0]["cluster"]["certificate-authority-data"]),
        ];
        let mut out = Vec::new();
        for (name, data) in parts {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(data.as_str().unwrap_or_default())
                .map_err(|_| bad())?;
            let der = pem_to_der(&String::from_utf8_lossy(&bytes)).ok_or_else(bad)?;
            let end = not_after(&der).ok_or_else(bad)?;
            out.push((name, (end - now).div_euclid(86_400)));
        }
        Ok(out)
    }

    /// The newest etcd snapshot and the failed ones, in hours of the servers' clock.
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
        Ok(
            json!({"newest": newest, "hours": hours(newest), "failed": failed, "cluster_hours": hours(born).unwrap_or(0)}),
        )
    }

    /// Volumes whose claim is gone, with their class and size.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn orphans(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let all = self.list_in(ctx, "pv", "").await?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(all
            .iter()
            .filter(|v| v["status"]["phase"] == "Released")
            .map(|v| {
                let r = &v["spec"]["claimRef"];
                let (name, size) = (text(&v["metadata"]["name"]), text(&v["spec"]["capacity"]["storage"]));
                format!("{name} ({size}, was {}/{})", text(&r["namespace"]), text(&r["name"]))
            })
            .collect())
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

    fn der(tag: u8, inside: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if inside.len() < 0x80 {
            out.push(inside.len() as u8);
        } else {
            out.extend([0x82, (inside.len() >> 8) as u8, inside.len() as u8]);
        }
        out.extend_from_slice(inside);
        out
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let validity = [der(0x17, b"261101000000Z"), der(0x17, b"310203040506Z")].concat();
        let parts = [
            der(0xa0, &der(2, &[2])),
            der(2, &[1; 200]),
            der(0x30, &[]),
            der(0x30, &[]),
            der(0x30, &validity),
            der(0x30, &[]),
        ];
        let cert = der(0x30, &der(0x30, &parts.concat()));
        assert_eq!(not_after(&cert), epoch_seconds("2031-02-03T04:05:06Z"));
        assert_eq!(not_after(&[1, 2, 3]), None);
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        assert_eq!(pem_to_der(pem).unwrap(), [1, 2, 3]);
    }
}
