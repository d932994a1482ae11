//! What is known of a chart before and after it is installed: its values, the Kubernetes versions it takes.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::archive::{inert_keys, read};
use super::body::Stored;
use super::constraint::satisfies;
use super::install::ReleaseOptions;
use super::release::{Release, same_version};
use super::values::split;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::kubernetes::Cluster;
use crate::wire::charts::rancher_for;

/// A chart's own description, from a local archive or from a revision of the same version.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    metadata: Value,
    values: Value,
    schema: Value,
    templates: String,
}

/// Whether a chart is a file of this machine.
pub(super) fn is_local(chart: &str) -> bool {
    chart.ends_with(".tgz") && !chart.contains("://")
}

/// The bytes of a local chart.
pub(super) fn local(ctx: &Ctx, chart: &str) -> OpResult<Option<Vec<u8>>> {
    if !is_local(chart) {
        return Ok(None);
    }
    let path = crate::flow::files::granted(ctx, chart)?;
    let bytes = std::fs::read(&path).map_err(|e| {
        OpError::not_found(format!("cannot read `{chart}`"))
            .because(e.to_string())
            .hint(format!("the path is taken from {}", ctx.base_dir.display()))
    })?;
    // an object of the API holds about a megabyte, and base64 adds a third
    if bytes.len() > 700_000 {
        return Err(OpError::invalid(format!("`{chart}` is too large for a HelmChart object: {} bytes", bytes.len()))
            .hint("serve it from a repository, or use `driver: \"cli\"`"));
    }
    Ok(Some(bytes))
}

impl Cluster {
    /// Releases whose charts exclude a Kubernetes version, as lines for people.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn charts_against(&self, ctx: &Ctx, version: &str) -> OpResult<Vec<String>> {
        let line = |(release, chart, asks): (String, String, String)| {
            let what = format!("release `{release}` {chart} is not made for {version}: it asks for `{asks}`");
            match rancher_of(&release, version) {
                Some(v) => format!("{what}; Rancher {v} takes it"),
                None => what,
            }
        };
        Ok(self.releases_against(ctx, version).await?.into_iter().map(line).collect())
    }
}

/// The Rancher minor that takes a Kubernetes, where `chart` is Rancher's and it is known.
fn rancher_of(chart: &str, kubernetes: &str) -> Option<String> {
    let minor = kubernetes.split('.').nth(1).and_then(|m| m.parse().ok());
    minor.and_then(rancher_for).filter(|_| chart.rsplit('/').next() == Some("rancher"))
}

/// What to do about a Kubernetes that a chart excludes; names the version that takes it where it is known.
pub(super) fn another(chart: &str, kubernetes: &str) -> String {
    match rancher_of(chart, kubernetes) {
        Some(v) => {
            format!("Rancher {v} takes it: write its newest release into the site file, or take another K3s minor")
        }
        None => "take a chart version made for it, or another K3s minor".to_owned(),
    }
}

impl Known {
    /// What is at hand now.
    pub(super) async fn of(r: &Release, ctx: &Ctx, o: &ReleaseOptions, archive: Option<&[u8]>) -> OpResult<Self> {
        if let Some(bytes) = archive {
            let a = read(bytes)?;
            return Ok(Known { metadata: a.metadata, values: a.values, schema: a.schema, templates: a.templates });
        }
        let stored = r.stored(ctx).await?;
        let version = |s: &Stored| s.body["chart"]["metadata"]["version"].as_str().unwrap_or_default().to_owned();
        let same = stored.into_iter().rfind(|s| same_version(&version(s), &o.version));
        Ok(same.map(|s| Known::from_body(&s.body)).unwrap_or_default())
    }

    fn from_body(body: &Value) -> Self {
        let chart = &body["chart"];
        let files = chart["templates"].as_array().into_iter().flatten().filter_map(|t| t["data"].as_str());
        let templates: String =
            files.filter_map(|d| STANDARD.decode(d).ok()).map(|b| String::from_utf8_lossy(&b).into_owned()).collect();
        Known { metadata: chart["metadata"].clone(), values: chart["values"].clone(), schema: Value::Null, templates }
    }

    /// Refuses a Kubernetes that the chart excludes; warns about values that it would ignore. Helm checks the version
    /// only when it renders: a release that `stands` as it is wanted is left alone, and that is a warning; `true` then.
    pub(super) async fn check(
        &self,
        cluster: &Cluster,
        ctx: &Ctx,
        name: &str,
        o: &ReleaseOptions,
        stands: bool,
    ) -> OpResult<bool> {
        let mut excluded = false;
        if let Some(constraint) = self.metadata["kubeVersion"].as_str() {
            let version = cluster.read_json(ctx, "/version").await?;
            let git = version["gitVersion"].as_str().unwrap_or_default();
            let excludes = format!("chart `{}` {} excludes Kubernetes {git}", o.chart, o.version);
            match satisfies(constraint, git) {
                Some(false) if stands => {
                    excluded = true;
                    ctx.message(
                        "warn",
                        format!("{excludes} (it asks for `{constraint}`): any change of `{name}` will fail"),
                    );
                }
                Some(false) => {
                    return Err(OpError::invalid(excludes)
                        .on(name)
                        .because(format!("it asks for `{constraint}`"))
                        .hint(another(&o.chart, git)));
                }
                _ => {}
            }
        }
        self.warn(ctx, name, o).map(|()| excluded)
    }

    fn warn(&self, ctx: &Ctx, name: &str, o: &ReleaseOptions) -> OpResult<()> {
        let (plain, secret) = split(&o.values)?;
        for values in std::iter::once(plain).chain(secret) {
            for (key, near) in inert_keys(&values, &self.metadata, &self.values, &self.schema, &self.templates) {
                let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                ctx.message("warn", format!("release `{name}`: the chart has no value `{key}`: it is ignored{hint}"));
            }
        }
        Ok(())
    }

    /// The same once the release's own Secret tells what the chart has.
    pub(super) async fn look_after(&self, r: &Release, ctx: &Ctx, o: &ReleaseOptions) -> OpResult<()> {
        if !self.metadata.is_null() {
            return Ok(()); // said before
        }
        match r.revision(ctx, None).await {
            Ok(newest) => Known::from_body(&newest.body).warn(ctx, &r.name, o),
            Err(_) => Ok(()),
        }
    }
}

impl Cluster {
    /// Releases whose charts exclude a Kubernetes version: `(release, chart version, constraint)`.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    async fn releases_against(&self, ctx: &Ctx, version: &str) -> OpResult<Vec<(String, String, String)>> {
        let mut out = Vec::new();
        let secrets = self.list_labelled(ctx, "secret", "", ("owner", "helm")).await?;
        for secret in secrets.iter().filter(|s| s["metadata"]["labels"]["status"] == "deployed") {
            let body = crate::wire::release::decode(secret["data"]["release"].as_str().unwrap_or_default());
            let Some(meta) = body.map(|b| b["chart"]["metadata"].clone()) else { continue };
            if let Some(c) = meta["kubeVersion"].as_str().filter(|c| satisfies(c, version) == Some(false)) {
                let text = |v: &Value| v.as_str().unwrap_or("?").to_owned();
                out.push((text(&secret["metadata"]["labels"]["name"]), text(&meta["version"]), c.to_owned()));
            }
        }
        Ok(out)
    }
}
