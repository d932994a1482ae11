//! Whose a release is, and what goes when it goes.
use std::time::Duration;

use serde_json::Value;

use super::install::{Driving, HOME, ReleaseOptions};
use super::release::Revision;
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op};
use crate::kubernetes::diff::is_ours;
use crate::kubernetes::{Cluster, EVERY};

/// Namespace and name of the release that a Fleet bundle, or its deployment's options, stand for.
#[must_use]
pub fn fleet_release(options: &Value, name: &str) -> (String, String) {
    let text = |path: &str| options.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let ns = ["/namespace", "/defaultNamespace"].iter().map(|p| text(p)).find(|t| !t.is_empty());
    let release = text("/helm/releaseName");
    (ns.unwrap_or("default").to_owned(), if release.is_empty() { name } else { release }.to_owned())
}

/// Name of the chart that is asked for; `None` where only the chart itself says it.
fn chart_name(o: &ReleaseOptions, archive: Option<&[u8]>) -> OpResult<Option<String>> {
    if let Some(bytes) = archive {
        return Ok(super::archive::read(bytes)?.metadata["name"].as_str().map(str::to_owned));
    }
    if o.chart.ends_with(".tgz") {
        return Ok(None);
    }
    Ok(o.chart.rsplit('/').next().map(str::to_owned))
}

/// Refuses a release of that name that is deployed from another chart: it would be replaced without a word.
///
/// # Errors
/// `refused` naming both charts.
pub(super) fn same_chart(name: &str, o: &ReleaseOptions, archive: Option<&[u8]>, before: &[Revision]) -> OpResult<()> {
    let Some(live) = before.iter().rfind(|r| r.status == "deployed" && !r.chart.is_empty()) else { return Ok(()) };
    match chart_name(o, archive)? {
        Some(wanted) if wanted != live.chart => {
            let text = format!("namespace `{}` has a release `{name}` of another chart", o.namespace);
            Err(OpError::refused(text)
                .on(name)
                .because(format!("it is of `{}` {}; asked for is `{wanted}` {}", live.chart, live.version, o.version))
                .hint(format!(
                    "use another release name; or, if it shall be replaced, first `cluster.remove_release(\"{name}\")`"
                )))
        }
        _ => Ok(()),
    }
}

impl Cluster {
    /// Only our own HelmChart objects, and only releases that came from one.
    pub(super) async fn check_owner(
        &self,
        ctx: &Ctx,
        name: &str,
        o: &ReleaseOptions,
        by: &Driving,
        live: Option<&Value>,
        before: &[Revision],
    ) -> OpResult<()> {
        // Fleet's is told by its name: who installed it is no riddle then
        self.refuse_fleet(ctx, name, &o.namespace).await?;
        match live {
            Some(chart) if chart["spec"]["targetNamespace"].as_str().is_some_and(|n| n != o.namespace) => {
                let other = chart["spec"]["targetNamespace"].as_str().unwrap_or("?");
                return Err(OpError::refused(format!("namespace `{other}` has a release `{name}` already"))
                    .on(name)
                    .hint("a HelmChart's name is its release's: use another name, or remove that release first"));
            }
            _ if by.take_over => {}
            Some(chart) if !is_ours(chart) => {
                return Err(OpError::refused(format!("a HelmChart `{name}` exists that gpuhost did not make"))
                    .on(name)
                    .hint("K3s' packaged charts are configured by a HelmChartConfig; or use another release name"));
            }
            None if !before.is_empty() && by.driver != "cli" => {
                return Err(OpError::refused(format!(
                    "namespace `{}` has a release `{name}` of another owner",
                    o.namespace
                ))
                .on(name)
                .because("it has no HelmChart object: helm installed it")
                .hint(
                    "one owner per release: remove it there, use another name, or hand it over: `#{ take_over: true }`",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses a release that a Fleet bundle deploys.
    pub(super) async fn refuse_fleet(&self, ctx: &Ctx, name: &str, namespace: &str) -> OpResult<()> {
        let elsewhere = self.list_if_known(ctx, "bundledeployments.fleet.cattle.io", "").await?;
        let fleet = elsewhere.iter().find(|b| {
            let own = b["metadata"]["name"].as_str().unwrap_or_default();
            fleet_release(&b["spec"]["options"], own) == (namespace.to_owned(), name.to_owned())
        });
        match fleet {
            Some(b) => Err(OpError::refused(format!("Fleet owns the release `{name}`"))
                .on(name)
                .because(format!("bundle deployment `{}`", b["metadata"]["name"].as_str().unwrap_or("?")))
                .hint("change it in the Git repository that Fleet follows")),
            None => Ok(()),
        }
    }

    /// What goes with a release: claims with their data first, then the release.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub(crate) async fn release_losses(&self, ctx: &Ctx, ns: &str, name: &str) -> OpResult<Vec<Change>> {
        let mut out = self.claim_losses(ctx, ns, |claim| is_of_release(claim, ns, name)).await?;
        let of = match self.release_revisions(ctx, ns, name).await?.last() {
            Some(r) => format!(" ({} {})", r.chart, r.version),
            None => String::new(),
        };
        out.push(Change::new(self.name(), format!("release {ns}/{name}{of}"), Some("present".into()), None));
        Ok(out)
    }

    /// Removes a release; its claims are listed first.
    ///
    /// # Errors
    /// `denied` when declined; `refused` for a release of another owner.
    pub async fn remove_release(&self, ctx: &Ctx, name: &str) -> OpResult<bool> {
        let Some(chart) = self.find_object(ctx, "helmchart", HOME, name).await? else { return Ok(false) };
        if !is_ours(&chart) {
            return Err(OpError::refused("the HelmChart is not gpuhost's").on(name));
        }
        let ns = chart["spec"]["targetNamespace"].as_str().unwrap_or("default").to_owned();
        let op = Op::destroy("helm", "remove_release", name);
        ctx.run_op(op, |s| async move {
            let changes = self.release_losses(s.ctx(), &ns, name).await?;
            s.act(format!("helmchart {name}"), changes, async {
                self.delete_now(s.ctx(), "helmchart", HOME, name).await?;
                s.wait_for(&format!("removal of {name}"), EVERY, Duration::from_secs(600), || async {
                    let left = self.release_revisions(s.ctx(), &ns, name).await?;
                    let chart = self.find_object(s.ctx(), "helmchart", HOME, name).await?;
                    Ok(if left.is_empty() && chart.is_none() {
                        Look::Ready(())
                    } else {
                        Look::Pending(format!("{} revisions left", left.len()))
                    })
                })
                .await?;
                match self.delete_now(s.ctx(), "secret", HOME, &format!("gpuhost-values-{name}")).await {
                    Err(e) if e.is(Kind::NotFound) => Ok(()),
                    other => other,
                }
            })
            .await?;
            Ok(true)
        })
        .await
    }
}

/// Whether an object belongs to a release and goes with it.
#[must_use]
pub fn is_of_release(object: &Value, namespace: &str, name: &str) -> bool {
    let notes = &object["metadata"]["annotations"];
    notes["meta.helm.sh/release-name"] == name
        && notes["meta.helm.sh/release-namespace"].as_str().is_none_or(|n| n == namespace)
        && notes["helm.sh/resource-policy"] != "keep"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_release_is_named_by_its_bundle_unless_it_says_otherwise() {
        assert_eq!(fleet_release(&json!({}), "b"), ("default".to_owned(), "b".to_owned()));
        let o = json!({"namespace": "x", "defaultNamespace": "y", "helm": {"releaseName": "r"}});
        assert_eq!(fleet_release(&o, "b"), ("x".to_owned(), "r".to_owned()));
    }

    #[test]
    fn a_release_of_another_chart_is_not_replaced() {
        let options = |chart: &str| {
            let mut m = rhai::Map::new();
            m.insert("chart".into(), chart.into());
            m.insert("version".into(), "1.20.2".into());
            m.insert("namespace".into(), "cattle-system".into());
            ReleaseOptions::read(&m).unwrap()
        };
        let live = |status: &str| Revision {
            number: 1,
            status: status.to_owned(),
            chart: "rancher".to_owned(),
            version: "2.13.6".to_owned(),
            app_version: String::new(),
            kubernetes: String::new(),
            description: String::new(),
            notes: String::new(),
            deployed: String::new(),
            values: Value::Null,
        };
        let e = same_chart("rancher", &options("cert-manager"), None, &[live("deployed")]).unwrap_err();
        assert!(e.message.contains("another chart") && e.causes[0].contains("`rancher` 2.13.6"), "{e:?}");
        for chart in ["rancher", "oci://r.example/charts/rancher", "https://r.example/rancher-9.tgz"] {
            assert!(same_chart("rancher", &options(chart), None, &[live("deployed")]).is_ok(), "{chart}");
        }
        // what never came up may be corrected
        assert!(same_chart("rancher", &options("cert-manager"), None, &[live("failed")]).is_ok());
    }
}
