//! The second driver: a `helm` program on this machine, where the site file allows it.
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::body::value_differences;
use super::install::ReleaseOptions;
use super::release::Revision;
use super::values::split;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::OpScope;
use crate::kubernetes::Cluster;

/// Whether the site file grants the program.
fn granted(ctx: &Ctx) -> OpResult<()> {
    let site = ctx.site.as_ref();
    let list = site.and_then(|s| s.permissions.get("programs")).and_then(toml::Value::as_array);
    if list.into_iter().flatten().any(|p| p.as_str() == Some("helm")) {
        return Ok(());
    }
    Err(OpError::refused("this run may not start programs of this machine")
        .on("helm")
        .hint("grant it in the site file: [permissions] programs = [\"helm\"]; or leave `driver` out"))
}

/// One tree of plain and secret values.
fn together(mut plain: Value, secret: Option<Value>) -> Value {
    fn merge(a: &mut Value, b: Value) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                for (k, v) in y {
                    merge(x.entry(k).or_insert(Value::Null), v);
                }
            }
            (a, b) => *a = b,
        }
    }
    if let Some(secret) = secret {
        merge(&mut plain, secret);
    }
    plain
}

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
            Change::new(cluster.name(), format!("release {name} values.{path}"), hide(a), hide(b))
        })
        .collect();
    let version = newest.map(|r| r.version.clone());
    if version.as_deref() != Some(&o.version) && !(super::known::is_local(&o.chart) && version.is_some()) {
        changes.push(Change::new(
            cluster.name(),
            format!("release {name}"),
            version.map(Value::from),
            Some(o.version.clone().into()),
        ));
    }
    if newest.is_some_and(|r| r.status != "deployed") && changes.is_empty() {
        changes.push(Change::new(
            cluster.name(),
            format!("release {name}"),
            Some("failed".into()),
            Some("deployed".into()),
        ));
    }
    if changes.is_empty() {
        return Ok(());
    }
    s.act(format!("release {}/{name}", o.namespace), changes, run(cluster, s.ctx(), name, o, &values)).await
}

async fn run(cluster: &Cluster, ctx: &Ctx, name: &str, o: &ReleaseOptions, values: &Value) -> OpResult<()> {
    let path = ctx.state_file(&format!("helm-{name}.kubeconfig"));
    let config = cluster.reachable_kubeconfig(ctx)?;
    crate::site::write_private(&path, config.reveal().as_bytes())?;
    let spawned = tokio::process::Command::new("helm")
        .args(arguments(name, o, &path.display().to_string()))
        .current_dir(&ctx.base_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|e| {
        OpError::not_found("there is no `helm` on this machine")
            .because(e.to_string())
            .hint("install helm, or leave `driver` out")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(values.to_string().as_bytes()).await;
    }
    let out = child.wait_with_output().await;
    let _ = std::fs::remove_file(&path);
    let out = out.map_err(|e| OpError::failed("helm was lost").because(e.to_string()))?;
    if out.status.success() {
        return Ok(());
    }
    let mut e = OpError::failed(format!("Helm could not install `{name}` {}", o.version)).on(name);
    e.causes = crate::k3s::journal::last_lines(&String::from_utf8_lossy(&out.stderr), 4);
    Err(e.hint(format!("run it by hand to see more: `helm upgrade --install {name} {} --debug`", o.chart)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_arguments() {
        let v = together(json!({"a": {"b": 1}}), Some(json!({"a": {"c": "s"}})));
        assert_eq!(v, json!({"a": {"b": 1, "c": "s"}}));
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
