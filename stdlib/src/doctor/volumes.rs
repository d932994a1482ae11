//! Volumes whose claim is gone: what has become of the claim's name, and how its data come back to it.
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Look, Op, OpScope};
use crate::kubernetes::rest::{Request, escape};
use crate::kubernetes::{Cluster, EVERY, epoch_seconds};

const LIMIT: Duration = Duration::from_secs(300);

/// What has become of the name of a claim whose volume was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nobody names it.
    Forgotten,
    /// A claim of that name was made anew, with another volume.
    Replaced,
    /// There is none, and these name it.
    Wanted(Vec<String>),
}

/// A volume whose claim is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Name.
    pub volume: String,
    /// Capacity.
    pub size: String,
    /// Namespace and name of the claim that it was made for.
    pub claim: (String, String),
    /// Days since it was released, when that is known.
    pub days: Option<i64>,
    /// What has become of the claim's name.
    pub fate: Fate,
}

impl Stray {
    /// `namespace/name` of the claim.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}/{}", self.claim.0, self.claim.1)
    }
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, was {}", self.volume, self.size, self.at())?;
        match self.days {
            Some(n) if n > 0 => write!(f, ", released {n} days ago)"),
            _ => write!(f, ")"),
        }
    }
}

fn text(v: &Value, path: &str) -> String {
    v.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn made_at(v: &Value) -> String {
    text(v, "/metadata/creationTimestamp")
}

/// On a volume whose claim was given another one back.
const SET_ASIDE: &str = "gpuhost/set-aside-for";

fn is_set_aside(v: &Value) -> bool {
    v["metadata"]["annotations"][SET_ASIDE].is_string()
}

/// Names of the claims that an object's pods mount.
pub(super) fn claims_of(o: &Value) -> BTreeSet<String> {
    let specs = ["/spec/volumes", "/spec/template/spec/volumes", "/spec/jobTemplate/spec/template/spec/volumes"];
    let volumes = specs.iter().filter_map(|p| o.pointer(p)?.as_array()).flatten();
    volumes.filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str()).map(str::to_owned).collect()
}

/// Whether an object may go on mounting claims: pods that have ended do not.
fn lives(o: &Value) -> bool {
    !matches!(o["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) || o["kind"] != "Pod"
}

impl Cluster {
    /// Volumes whose claim is gone, and what has become of the claim's name.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn stray_volumes(&self, ctx: &Ctx) -> OpResult<Vec<Stray>> {
        let volumes = self.list_in(ctx, "pv", "").await?;
        let left: Vec<&Value> = volumes.iter().filter(|v| v["status"]["phase"] == "Released").collect();
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.list_in(ctx, "pvc", "").await?;
        let now = self.server_seconds(ctx).await?;
        let mut users = Vec::new();
        for kind in ["deployment", "statefulset", "daemonset", "job", "cronjob", "pod"] {
            for o in self.list_in(ctx, kind, "").await?.into_iter().filter(lives) {
                // a pod of a workload is named by the workload
                if kind != "pod" || o["metadata"]["ownerReferences"].is_null() {
                    users.push((kind, o));
                }
            }
        }
        let strays = left.into_iter().map(|v| {
            let claim = (text(v, "/spec/claimRef/namespace"), text(v, "/spec/claimRef/name"));
            let named = |o: &Value| text(o, "/metadata/namespace") == claim.0;
            let there = claims.iter().find(|c| named(c) && text(c, "/metadata/name") == claim.1);
            let bound = there.map(|c| text(c, "/spec/volumeName")).unwrap_or_default();
            let born = |name: &str| volumes.iter().find(|v| text(v, "/metadata/name") == name).map(made_at);
            // one that is younger than the claim's own, or that a claim was taken from, is what came in between
            let older = !is_set_aside(v) && born(&bound).is_none_or(|t| made_at(v) <= t);
            let wanted: Vec<String> = users
                .iter()
                .filter(|(_, o)| named(o) && claims_of(o).contains(&claim.1))
                .map(|(kind, o)| format!("{kind} {}", text(o, "/metadata/name")))
                .collect();
            let since = epoch_seconds(&text(v, "/status/lastPhaseTransitionTime"));
            Stray {
                volume: text(v, "/metadata/name"),
                size: text(v, "/spec/capacity/storage"),
                days: now.zip(since).map(|(n, t)| (n - t).div_euclid(86_400)),
                fate: match (there.is_some(), wanted.is_empty()) {
                    (true, _) if older => Fate::Replaced,
                    (false, false) => Fate::Wanted(wanted),
                    _ => Fate::Forgotten,
                },
                claim,
            }
        });
        Ok(strays.collect())
    }

    /// Binds a volume whose claim is gone to a claim of the old name again. A claim of that name that was made anew goes
    /// first; what was written to it stays on its own volume, which is kept for good.
    ///
    /// # Errors
    /// `not_found`; `refused` when the volume is in use, or pods mount the claim; `denied` when declined; `timeout`.
    pub async fn restore_volume(&self, ctx: &Ctx, volume: &str) -> OpResult<bool> {
        let op = Op::destroy("doctor", "restore_volume", volume.to_owned()).class(Class::Repeatable);
        ctx.run_op(op, |s| async move {
            let v = self.get_object(s.ctx(), "pv", "", volume).await?;
            let (ns, name) = (text(&v, "/spec/claimRef/namespace"), text(&v, "/spec/claimRef/name"));
            let at = format!("{ns}/{name}");
            let old = self.find_object(s.ctx(), "pvc", &ns, &name).await?;
            if v["status"]["phase"] == "Bound" {
                return match old.is_some_and(|c| c["spec"]["volumeName"] == volume) {
                    true => Ok(false),
                    false => Err(OpError::refused("the volume is bound to another claim").on(volume)),
                };
            }
            if name.is_empty() {
                return Err(OpError::refused("the volume belonged to no claim").on(volume));
            }
            if !text(&v, "/metadata/deletionTimestamp").is_empty() || v["status"]["phase"] == "Failed" {
                let why = text(&v, "/status/message");
                return Err(OpError::refused("the volume is going or could not be cleaned").on(volume).because(why));
            }
            if self.find_object(s.ctx(), "namespace", "", &ns).await?.is_none() {
                let hint = format!("make it first: `kubectl create namespace {ns}`");
                return Err(OpError::refused(format!("the namespace {ns} of its claim is gone")).on(volume).hint(hint));
            }
            let mounts = self.mounted_by(s.ctx(), &ns, &name).await?;
            if !mounts.is_empty() {
                return Err(OpError::refused(format!("claim {at} is mounted by {}", mounts.join(", ")))
                    .on(volume)
                    .hint("scale its workload to 0 first, and back afterwards"));
            }
            let made = claim(&v, old.as_ref());
            let mut changes = Vec::new();
            if let Some(c) = &old {
                let other = text(c, "/spec/volumeName");
                let what = format!("claim {at} (made anew; what was written to it is on {other})");
                changes.push(Change::new(self.name(), what, Some("present".into()), None));
            }
            changes.push(Change::new(
                self.name(),
                format!("claim {at} with the data of {volume}"),
                None,
                Some("bound".into()),
            ));
            s.act(at, changes, async {
                if let Some(other) = old.map(|c| text(&c, "/spec/volumeName")).filter(|o| !o.is_empty()) {
                    let note = json!({"metadata": {"annotations": {SET_ASIDE: volume}},
                        "spec": {"persistentVolumeReclaimPolicy": "Retain"}});
                    let path = format!("/api/v1/persistentvolumes/{}", escape(&other));
                    self.demand(s.ctx(), &other, &Request::merge(path, &note)).await?;
                }
                self.rebind(&s, volume, (&ns, &name), &made).await
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Pods that mount a claim.
    async fn mounted_by(&self, ctx: &Ctx, ns: &str, claim: &str) -> OpResult<Vec<String>> {
        let pods = self.list_in(ctx, "pod", ns).await?;
        let uses = |p: &&Value| !text(p, "/spec/nodeName").is_empty() && lives(p) && claims_of(p).contains(claim);
        Ok(pods.iter().filter(uses).map(|p| format!("pod {}", text(p, "/metadata/name"))).collect())
    }

    async fn rebind(&self, s: &OpScope, volume: &str, (ns, name): (&str, &str), made: &Value) -> OpResult<()> {
        self.delete_now(s.ctx(), "pvc", ns, name).await?;
        s.wait_for(&format!("removal of claim {ns}/{name}"), EVERY, LIMIT, || async {
            Ok(match self.find_object(s.ctx(), "pvc", ns, name).await? {
                None => Look::Ready(()),
                Some(c) => Look::Pending(format!("held by {}", c["metadata"]["finalizers"])),
            })
        })
        .await?;
        let free = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        let path = format!("/api/v1/persistentvolumes/{}", escape(volume));
        self.demand(s.ctx(), volume, &Request::merge(path, &free)).await?;
        let path = format!("/api/v1/namespaces/{}/persistentvolumeclaims", escape(ns));
        match self.demand(s.ctx(), name, &Request::post(path, made)).await {
            // its owner was faster: it may still bind to the volume, which is kept for this name
            Err(e) if e.is(Kind::Conflict) => {}
            other => drop(other?),
        }
        s.wait_for(&format!("claim {ns}/{name}"), EVERY, LIMIT, || async {
            let c = self.get_object(s.ctx(), "pvc", ns, name).await?;
            Ok(match (text(&c, "/status/phase").as_str(), c["spec"]["volumeName"] == volume) {
                ("Bound", true) => Look::Ready(()),
                (phase, _) => Look::Pending(format!("phase {phase}, volume {}", c["spec"]["volumeName"])),
            })
        })
        .await
    }
}

/// The claim that a volume is bound to again: with the labels and annotations of the one in its place.
fn claim(volume: &Value, old: Option<&Value>) -> Value {
    let spec = &volume["spec"];
    let mut out = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": spec["claimRef"]["name"], "namespace": spec["claimRef"]["namespace"]},
        "spec": {"accessModes": spec["accessModes"], "storageClassName": text(spec, "/storageClassName"),
            "volumeName": volume["metadata"]["name"], "resources": {"requests": {"storage": spec["capacity"]["storage"]}}}});
    if let Some(mode) = spec.get("volumeMode") {
        out["spec"]["volumeMode"] = mode.clone();
    }
    let Some(old) = old else { return out };
    for part in ["labels", "annotations"] {
        for (k, v) in old["metadata"][part].as_object().into_iter().flatten() {
            // what its controllers noted is of its own volume
            if !k.contains("kubernetes.io/") || k.starts_with("app.kubernetes.io/") {
                out["metadata"][part][k] = v.clone();
            }
        }
    }
    for (field, at) in [("accessModes", "/spec/accessModes"), ("resources", "/spec/resources")] {
        if let Some(v) = old.pointer(at) {
            out["spec"][field] = v.clone();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_is_of_its_volume_and_of_the_one_in_its_place() {
        let v = json!({"metadata": {"name": "pvc-1"}, "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs",
            "capacity": {"storage": "50Gi"}, "claimRef": {"namespace": "research", "name": "data", "uid": "a"}}});
        let old = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {
            "meta.helm.sh/release-name": "r", "pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "40Gi"}}}});
        let c = claim(&v, Some(&old));
        assert_eq!(
            (&c["spec"]["volumeName"], &c["spec"]["resources"]["requests"]["storage"]),
            (&json!("pvc-1"), &json!("40Gi"))
        );
        let notes = c["metadata"]["annotations"].as_object().unwrap();
        assert!(notes.contains_key("meta.helm.sh/release-name") && notes.len() == 1);
        assert_eq!(c["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
        assert_eq!(claim(&v, None)["spec"]["resources"]["requests"]["storage"], "50Gi");
    }

    #[test]
    fn a_stray_tells_its_age() {
        let mut s = Stray {
            volume: "pvc-1".into(),
            size: "50Gi".into(),
            claim: ("a".into(), "b".into()),
            days: Some(12),
            fate: Fate::Forgotten,
        };
        assert_eq!(s.to_string(), "pvc-1 (50Gi, was a/b, released 12 days ago)");
        s.days = None;
        assert_eq!(s.to_string(), "pvc-1 (50Gi, was a/b)");
    }
}
