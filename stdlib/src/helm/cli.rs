//! The second driver: a `helm` program on this machine, where the site file allows it.
use serde_json::Value;

use super::body::value_differences;
use super::install::ReleaseOptions;
use super::program::{granted, helm, last_words, together};
use super::release::{Revision, same_version};
use super::values::split;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::OpScope;
use crate::kubernetes::Cluster;

/// Arguments of `helm upgrade`.
fn arguments(name: &str, o: &ReleaseOptions, kubeconfig: &str) -> Vec<String> {
    let mut out = ["upgrade", "--install", name, o.chart.as_str(), "--namespace", o.namespace.as_str()]
        .map(str::to_owned)
        .to_vec();
    out.extend(["--create-namespace", "--values", "-", "--kubeconfig", kubeconfig].map(str::to_owned));
    out.extend(["--timeout".to_owned(), format!("{}s", o.timeout.0.as_secs())]);
    if !super::known::is_local(&o.chart) {
        out.extend(["--version".to_owned(), o.version.clone()]);
    }
    if !o.repo.is_empty() {
        out.extend(["--repo".to_owned(), o.repo.clone()]);
    }
    out
}

/// Installs or upgrades by the program; nothing when chart version and values are as wanted.
///
/// # Errors
/// `denied` without the grant or for a release of a HelmChart; `not_found` without the program; Helm's own words.
pub(super) async fn ensure(
    cluster: &Cluster,
    s: &OpScope,
    name: &str,
    o: &ReleaseOptions,
    chart: Option<&Value>,
    before: &[Revision],
) -> OpResult<()> {
    if chart.is_some() {
        return Err(OpError::refused("the helm-controller owns this release")
            .on(name)
            .hint("leave `driver` out, or remove the release first"));
    }
    granted(s.ctx())?;
    let (values, changes) = changes(cluster.name(), name, o, before)?;
    if changes.is_empty() {
        return Ok(());
    }
    s.act(format!("release {}/{name}", o.namespace), changes, run(cluster, s.ctx(), name, o, &values)).await
}

/// The values that are wanted, and what differs from the newest revision.
pub(super) fn changes(
    cluster: &str,
    name: &str,
    o: &ReleaseOptions,
    before: &[Revision],
) -> OpResult<(Value, Vec<Change>)> {
    let (plain, secret) = split(&o.values)?;
    let secrets: Vec<String> =
        value_differences(&Value::Null, secret.as_ref().unwrap_or(&Value::Null)).into_iter().map(|d| d.0).collect();
    let values = together(plain, secret);
    let newest = before.last();
    let old = newest.map(|r| r.values.clone()).unwrap_or_default();
    let mut changes: Vec<Change> = value_differences(&old, &values)
        .into_iter()
        .map(|(path, a, b)| {
            let hide = |v: Option<Value>| if secrets.contains(&path) { v.map(|_| "***".into()) } else { v };
            Change::new(cluster, format!("release {name} values.{path}"), hide(a), hide(b))
        })
        .collect();
    let version = newest.map(|r| r.version.clone());
    let local = super::known::is_local(&o.chart);
    if version.as_deref().is_none_or(|v| !local && !same_version(v, &o.version)) {
        changes.push(Change::new(
            cluster,
            format!("release {name}"),
            version.map(Value::from),
            Some(o.version.clone().into()),
        ));
    }
    if newest.is_some_and(|r| r.status != "deployed") && changes.is_empty() {
        changes.push(Change::new(cluster, format!("release {name}"), Some("failed".into()), Some("deployed".into())));
    }
    Ok((values, changes))
}

async fn run(cluster: &Cluster, ctx: &Ctx, name: &str, o: &ReleaseOptions, values: &Value) -> OpResult<()> {
    let path = ctx.state_file(&format!("helm-{name}.kubeconfig"));
    let config = cluster.reachable_kubeconfig(ctx)?;
    crate::site::write_private(&path, config.reveal().as_bytes())?;
    let args = arguments(name, o, &path.display().to_string());
    let out = helm(ctx, &args, values.to_string().as_bytes(), &[]).await;
    let _ = std::fs::remove_file(&path);
    let out = out?;
    if out.status.success() {
        return Ok(());
    }
    let said = last_words(&out);
    if let Some(e) = super::missing::chart(name, o, &said, i64::MAX) {
        return Err(e);
    }
    let mut e = OpError::failed(format!("Helm could not install `{name}` {}", o.version)).on(name);
    e.causes = said;
    Err(e.hint(format!("run it by hand to see more: `helm upgrade --install {name} {} --debug`", o.chart)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_an_upgrade() {
        let mut m = rhai::Map::new();
        m.insert("chart".into(), "web".into());
        m.insert("version".into(), "1.0.0".into());
        m.insert("repo".into(), "https://charts.example".into());
        let args = arguments("shop", &ReleaseOptions::read(&m).unwrap(), "k").join(" ");
        assert!(args.starts_with("upgrade --install shop web --namespace default"), "{args}");
        assert!(
            args.contains("--version 1.0.0 --repo https://charts.example") && args.contains("--values -"),
            "{args}"
        );
    }
}
