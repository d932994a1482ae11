//! Whether the cluster has the releases that the site file and their HelmChart objects name. Reads only.
use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::body::{Stored, value_differences};
use super::constraint::satisfies;
use super::install::HOME;
use super::program::together;
use super::release::{Release, Revision, same_version};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::kubernetes::diff::is_ours;
use crate::kubernetes::{Cluster, is_true, parse_yaml};

/// Paths of values that a message names before it only counts.
const NAMED: usize = 3;

/// What is wrong with one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseTrouble {
    /// The release.
    pub release: String,
    /// Whether its job fails or cannot run; else it only is not what its HelmChart says.
    pub failing: bool,
    /// Objects of the release that the cluster has no more.
    pub lacking: Vec<String>,
    /// Whether gpuhost made its HelmChart: deploy then installs it again.
    pub ours: bool,
    /// What is wrong.
    pub text: String,
}

/// What a HelmChart's job says while it fails: attempts so far, last line, whether it is final.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Failing {
    attempts: i64,
    said: String,
    finally: bool,
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

/// How a revision differs from what its HelmChart asks for; `values` when they are known.
fn differences(chart: &Value, newest: Option<&Revision>, values: Option<&Value>) -> Option<String> {
    let asked = text(&chart["spec"], "version");
    let Some(r) = newest else { return Some("there is no release yet".to_owned()) };
    if r.status != "deployed" {
        let why = if r.description.is_empty() { String::new() } else { format!(": {}", r.description) };
        return Some(format!("its revision {} is {}{why}", r.number, r.status));
    }
    if !asked.is_empty() && !same_version(asked, &r.version) {
        return Some(format!("the release is {}, its HelmChart names {asked}", r.version));
    }
    let paths: Vec<String> = value_differences(&r.values, values?).into_iter().map(|d| d.0).collect();
    if paths.is_empty() {
        return None;
    }
    let more = if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
    let named: Vec<&str> = paths.iter().take(NAMED).map(String::as_str).collect();
    Some(format!("values of the release are not its HelmChart's: {}{more}", named.join(", ")))
}

/// One release: the version of the site file, what its job says, what the newest revision is.
fn trouble(
    name: &str,
    chart: &Value,
    wanted: Option<&String>,
    failing: Option<&Failing>,
    differs: Option<String>,
    lacking: Vec<String>,
) -> Option<ReleaseTrouble> {
    let asked = text(&chart["spec"], "version");
    let mut said = Vec::new();
    if let Some(w) = wanted.filter(|w| !asked.is_empty() && !same_version(asked, w)) {
        said.push(format!("its HelmChart names {asked}, the site file {w}"));
    }
    if let Some(f) = failing {
        let what = match (f.finally, f.attempts) {
            (true, _) => "Helm gave up".to_owned(),
            (false, 0) => "its job does not run".to_owned(),
            (false, n) => format!("its job fails, attempt {}", n + 1),
        };
        said.push(if f.said.is_empty() { what } else { format!("{what}: {}", f.said) });
    }
    said.extend(differs);
    if !lacking.is_empty() {
        let more = if lacking.len() > NAMED { format!(" and {} more", lacking.len() - NAMED) } else { String::new() };
        said.push(format!("somebody deleted its {}{more}", lacking[..lacking.len().min(NAMED)].join(", ")));
    }
    (!said.is_empty()).then(|| ReleaseTrouble {
        release: name.to_owned(),
        failing: failing.is_some(),
        lacking,
        ours: is_ours(chart),
        text: said.join("; "),
    })
}

impl Cluster {
    /// What is wrong with the releases of HelmChart objects, and with those of `wanted` (chart versions by release).
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn release_problems(
        &self,
        ctx: &Ctx,
        wanted: &BTreeMap<String, String>,
    ) -> OpResult<Vec<ReleaseTrouble>> {
        let version = self.read_json(ctx, "/version").await?;
        let git = version["gitVersion"].as_str().unwrap_or_default();
        let charts = self.list_if_known(ctx, "helmcharts.helm.cattle.io", HOME).await?;
        let mut out = Vec::new();
        for chart in &charts {
            let name = text(&chart["metadata"], "name");
            let ns = chart["spec"]["targetNamespace"].as_str().unwrap_or(HOME);
            let release = Release { cluster: self.clone(), name: name.to_owned(), namespace: ns.to_owned() };
            let (stored, unread) = match release.newest(ctx).await {
                Ok(stored) => (stored, None),
                Err(e) => (None, Some(e.to_string())),
            };
            let newest = stored.as_ref().map(Stored::revision);
            let differs = match unread {
                None => differences(chart, newest.as_ref(), self.chart_values(ctx, chart).await?.as_ref()),
                said => said,
            };
            let mut failing = self.failing_job(ctx, name).await?;
            if newest.is_none() && failing.is_none() && !is_ours(chart) && self.installs(ctx, name).await? {
                // K3s' own come after the servers are there; ours are waited for by who applies them
                continue;
            }
            if differs.is_none() && newest.is_some_and(|r| satisfies(&r.kubernetes, git) == Some(false)) {
                // the new K3s tried it again and Helm refused: what was installed before stands
                failing = None;
            }
            let stands = differs.is_none() && failing.is_none();
            let lacking = match stored.filter(|_| stands) {
                Some(stored) => release.lacking(ctx, &stored).await?,
                None => Vec::new(),
            };
            out.extend(trouble(name, chart, wanted.get(name), failing.as_ref(), differs, lacking));
        }
        for (name, version) in wanted.iter().filter(|w| !charts.iter().any(|c| c["metadata"]["name"] == *w.0)) {
            out.extend(self.unowned(ctx, name, version).await?);
        }
        Ok(out)
    }

    /// A release that no HelmChart asks for: a helm program may have installed it.
    async fn unowned(&self, ctx: &Ctx, name: &str, version: &str) -> OpResult<Option<ReleaseTrouble>> {
        let mut text = "it is not installed".to_owned();
        for ns in self.release_namespaces(ctx, name).await? {
            match self.release_revisions(ctx, &ns, name).await?.last() {
                Some(r) if r.status == "deployed" && same_version(&r.version, version) => return Ok(None),
                Some(r) => text = format!("the release is {} ({}), the site file names {version}", r.version, r.status),
                None => {}
            }
        }
        Ok(Some(ReleaseTrouble { release: name.to_owned(), failing: false, lacking: Vec::new(), ours: true, text }))
    }

    /// The values that one of our HelmChart objects gives; nothing where others have a say in them.
    async fn chart_values(&self, ctx: &Ctx, chart: &Value) -> OpResult<Option<Value>> {
        let spec = &chart["spec"];
        let name = text(&chart["metadata"], "name");
        let config = self.find_object(ctx, "helmchartconfigs.helm.cattle.io", HOME, name).await?;
        if !is_ours(chart) || config.is_some() || !spec["set"].is_null() {
            return Ok(None);
        }
        let Some(mut values) = yaml(text(spec, "valuesContent")) else { return Ok(None) };
        for source in spec["valuesSecrets"].as_array().into_iter().flatten() {
            let Some(secret) = self.find_object(ctx, "secret", HOME, text(source, "name")).await? else {
                return Ok(None);
            };
            for key in source["keys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let raw = base64::engine::general_purpose::STANDARD.decode(text(&secret["data"], key));
                let Some(more) = raw.ok().and_then(|b| yaml(&String::from_utf8_lossy(&b))) else { return Ok(None) };
                values = together(values, Some(more));
            }
        }
        Ok(Some(values))
    }

    /// Whether the job of a release is at its first attempt, or about to be made.
    async fn installs(&self, ctx: &Ctx, name: &str) -> OpResult<bool> {
        let job = self.find_object(ctx, "job", HOME, &format!("helm-install-{name}")).await?;
        Ok(job.is_none_or(|j| !is_true(&j, "Complete")))
    }

    /// Why the job that installs a release does not end well; nothing for one that is complete or at its first attempt.
    async fn failing_job(&self, ctx: &Ctx, name: &str) -> OpResult<Option<Failing>> {
        let job = format!("helm-install-{name}");
        let Some(live) = self.find_object(ctx, "job", HOME, &job).await? else { return Ok(None) };
        if is_true(&live, "Complete") {
            return Ok(None);
        }
        let (said, attempts) = self.job_says(ctx, &job, live["metadata"]["uid"].as_str()).await;
        let attempts = attempts.max(live["status"]["failed"].as_i64().unwrap_or(0));
        let finally = is_true(&live, "Failed");
        let said = said.last().cloned().unwrap_or_default();
        let waits = attempts == 0 && said.contains("nodes are available");
        Ok((finally || attempts > 0 || waits).then_some(Failing { attempts, said, finally }))
    }
}

/// A document of values; nothing when it cannot be read.
fn yaml(text: &str) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(Value::Object(Default::default()));
    }
    parse_yaml(text).ok().and_then(|l: Vec<Value>| l.into_iter().next())
}

/// Release versions that a script gives.
///
/// # Errors
/// `invalid` for a version that is no text.
pub(super) fn versions_of(map: &rhai::Map) -> OpResult<BTreeMap<String, String>> {
    let version = |(k, v): (&rhai::Identifier, &rhai::Dynamic)| match v.clone().into_string() {
        Ok(v) => Ok((k.to_string(), v)),
        Err(t) => Err(OpError::invalid(format!("version of release `{k}`: expected a text, found {t}"))),
    };
    map.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision(status: &str, version: &str, values: Value) -> Revision {
        Revision {
            number: 2,
            status: status.to_owned(),
            chart: "rancher".to_owned(),
            version: version.to_owned(),
            app_version: String::new(),
            kubernetes: String::new(),
            description: String::new(),
            notes: String::new(),
            deployed: String::new(),
            values,
        }
    }

    #[test]
    fn a_release_is_compared_with_its_chart_and_the_site() {
        let chart = json!({"metadata": {"name": "rancher"}, "spec": {"version": "2.15.0"}});
        let r = revision("deployed", "2.13.6", json!({"a": 1, "b": {"c": 2}}));
        let old = differences(&chart, Some(&r), None).unwrap();
        assert_eq!(old, "the release is 2.13.6, its HelmChart names 2.15.0");
        let r = revision("deployed", "v2.15.0", json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(differences(&chart, Some(&r), Some(&json!({"a": 1, "b": {"c": 2}}))), None);
        let other = differences(&chart, Some(&r), Some(&json!({"a": 1, "b": {"c": 3}}))).unwrap();
        assert!(other.ends_with("HelmChart's: b.c"), "{other}");
        let failed = revision("failed", "2.15.0", Value::Null);
        assert_eq!(differences(&chart, Some(&failed), None).unwrap(), "its revision 2 is failed");

        let failing = Failing { attempts: 3, said: "no chart version found".to_owned(), finally: false };
        let site = "2.14.3".to_owned();
        let t = trouble("rancher", &chart, Some(&site), Some(&failing), None, Vec::new()).unwrap();
        assert!(t.failing);
        assert_eq!(
            t.text,
            "its HelmChart names 2.15.0, the site file 2.14.3; its job fails, attempt 4: no chart version found"
        );
        assert_eq!(trouble("rancher", &chart, None, None, None, Vec::new()), None);
        let lacking = ["Service rancher", "Ingress rancher", "Role a", "Role b"].map(str::to_owned).to_vec();
        let t = trouble("rancher", &chart, None, None, None, lacking).unwrap();
        assert_eq!(t.text, "somebody deleted its Service rancher, Ingress rancher, Role a and 1 more");
    }
}
