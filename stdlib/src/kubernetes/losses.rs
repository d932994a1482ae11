//! What goes when an object goes: the question before a deletion names claims with data first.
use std::collections::BTreeSet;

use serde_json::Value;

use super::objects::describe;
use super::{Cluster, condition};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::event::Change;
use crate::helm::is_of_release;

impl Cluster {
    /// What else goes when this object goes, as changes.
    pub(super) async fn losses(&self, ctx: &Ctx, object: &Value) -> OpResult<Vec<Change>> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (name, ns) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
        match object["kind"].as_str() {
            Some("Namespace") => self.claim_losses(ctx, &name, |_| true).await,
            Some("PersistentVolumeClaim") => self.claim_losses(ctx, &ns, |c| c["metadata"]["name"] == *name).await,
            Some("StatefulSet") => {
                let uid = &object["metadata"]["uid"];
                let owned = |c: &Value| {
                    c["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.iter().any(|o| o["uid"] == *uid))
                };
                self.claim_losses(ctx, &ns, owned).await
            }
            Some("CustomResourceDefinition") => {
                let kind = format!("{}.{}", text(&object["spec"]["names"]["plural"]), text(&object["spec"]["group"]));
                let all = self.list_if_known(ctx, &kind, "").await?;
                Ok(all.iter().map(|o| self.gone(describe(o))).collect())
            }
            Some("HelmChart") => {
                let at = text(&object["spec"]["targetNamespace"]);
                let at = if at.is_empty() { ns } else { at };
                if self.release_revisions(ctx, &at, &name).await?.is_empty() {
                    return Ok(Vec::new());
                }
                self.release_losses(ctx, &at, &name).await
            }
            Some("GitRepo") => {
                let label = ("fleet.cattle.io/repo-name", name.as_str());
                let bundles = self.list_labelled(ctx, "bundles.fleet.cattle.io", &ns, label).await?;
                let kept = object["spec"]["keepResources"] == true;
                self.bundle_losses(ctx, &bundles, kept).await
            }
            Some("Bundle") => {
                // the bundle itself is named by who asks
                let mut out = self.bundle_losses(ctx, std::slice::from_ref(object), false).await?;
                out.pop();
                Ok(out)
            }
            Some("Node") => Ok(self.member_losses(object)),
            _ => Ok(Vec::new()),
        }
    }

    fn gone(&self, what: String) -> Change {
        Change::new(self.name(), what, Some("present".into()), None)
    }

    /// A server is a member of etcd for as long as its node object is there.
    fn member_losses(&self, node: &Value) -> Vec<Change> {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let member = node["metadata"]["labels"].get("node-role.kubernetes.io/etcd").is_some();
        match condition(node, "EtcdIsVoter").filter(|_| member) {
            Some((status, _)) if status == "True" => {
                vec![
                    self.gone(format!("etcd member {name} (K3s takes it out; its copy of the data stays on its disk)")),
                ]
            }
            _ => Vec::new(),
        }
    }

    /// Claims and bundles that Fleet removes; what a bundle keeps is not among it.
    async fn bundle_losses(&self, ctx: &Ctx, bundles: &[Value], kept: bool) -> OpResult<Vec<Change>> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let going = bundles.iter().filter(|b| !kept && b["spec"]["keepResources"] != true);
        let releases: BTreeSet<String> = going
            .map(|b| {
                let named = text(&b["spec"]["helm"]["releaseName"]);
                if named.is_empty() { text(&b["metadata"]["name"]) } else { named }
            })
            .collect();
        let of = |c: &Value| {
            let notes = &c["metadata"]["annotations"];
            let release = text(&notes["meta.helm.sh/release-name"]);
            releases.contains(&release) && is_of_release(c, &text(&notes["meta.helm.sh/release-namespace"]), &release)
        };
        let mut out = self.claim_losses(ctx, "", of).await?;
        for b in bundles {
            let stays = kept || b["spec"]["keepResources"] == true;
            let words = if stays { " (its objects stay)" } else { " with its objects" };
            out.push(self.gone(format!("Bundle {}{words}", text(&b["metadata"]["name"]))));
        }
        Ok(out)
    }

    /// Claims of a namespace (empty: of all) that go, with what becomes of their data.
    pub(crate) async fn claim_losses(
        &self,
        ctx: &Ctx,
        ns: &str,
        goes: impl Fn(&Value) -> bool,
    ) -> OpResult<Vec<Change>> {
        let mut out = Vec::new();
        for claim in self.list_in(ctx, "pvc", ns).await?.iter().filter(|c| goes(c)) {
            let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            let kept = match volume {
                "" => "no volume yet".to_owned(),
                v => match self.find_object(ctx, "pv", "", v).await? {
                    Some(pv) if pv["spec"]["persistentVolumeReclaimPolicy"] == "Delete" => {
                        format!("its data on {v} is deleted")
                    }
                    _ => format!("its data stays on {v}"),
                },
            };
            let size = claim["status"]["capacity"]["storage"].as_str().unwrap_or("?");
            let subject = format!("{} ({size}, {kept})", describe(claim));
            out.push(Change::new(self.name(), subject, Some("data".into()), None));
        }
        Ok(out)
    }
}
