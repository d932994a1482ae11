//! The `helm` program of this machine, where the site file grants it: one way to start it, and what it is asked that
//! needs no cluster: rendering a chart, linting it, listing a repository's versions.
use std::process::{Output, Stdio};

use rhai::Map;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::values::split;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::kubernetes::parse_yaml;
use crate::options;

options! {
    /// What a chart is rendered or linted with.
    pub struct RenderOptions {
        /// Chart repository; empty for `oci://`, URLs, folders and files.
        repo: String = String::new(),
        /// Chart version; empty for folders and files.
        version: String = String::new(),
        /// Namespace of the release.
        namespace: String = "default".to_owned(),
        /// Chart values.
        values: Map = Map::new(),
        /// Kubernetes version that the chart is rendered for, for example `v1.34.9`; empty: the program's own.
        kube_version: String = String::new(),
    }
}

/// Whether the site file grants the program.
pub(super) fn granted(ctx: &Ctx) -> OpResult<()> {
    let site = ctx.site.as_ref();
    let list = site.and_then(|s| s.permissions.get("programs")).and_then(toml::Value::as_array);
    if list.into_iter().flatten().any(|p| p.as_str() == Some("helm")) {
        return Ok(());
    }
    Err(OpError::refused("this run may not start programs of this machine")
        .on("helm")
        .hint("grant it in the site file: [permissions] programs = [\"helm\"]; or leave out what needs it"))
}

/// Runs the program in the run's folder with `input` on its standard input.
///
/// # Errors
/// `not_found` without the program.
pub(super) async fn helm(ctx: &Ctx, args: &[String], input: &[u8], env: &[(&str, &str)]) -> OpResult<Output> {
    let spawned = tokio::process::Command::new("helm")
        .args(args)
        .envs(env.iter().copied())
        .current_dir(&ctx.base_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|e| {
        OpError::not_found("there is no `helm` on this machine")
            .because(e.to_string())
            .hint("install helm, or leave out what needs it")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helm that ends early does not read it: its own words say why.
        let _ = stdin.write_all(input).await;
    }
    child.wait_with_output().await.map_err(|e| OpError::failed("helm was lost").because(e.to_string()))
}

/// The last words of a helm that failed.
pub(super) fn last_words(out: &Output) -> Vec<String> {
    crate::k3s::journal::last_lines(&String::from_utf8_lossy(&out.stderr), 4)
}

/// One tree of plain and secret values.
pub(super) fn together(mut plain: Value, secret: Option<Value>) -> Value {
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

fn values_of(o: &RenderOptions) -> OpResult<Vec<u8>> {
    let (plain, secret) = split(&o.values)?;
    Ok(together(plain, secret).to_string().into_bytes())
}

fn source(o: &RenderOptions) -> Vec<String> {
    let pairs = [("--repo", &o.repo), ("--version", &o.version)];
    pairs.into_iter().filter(|(_, v)| !v.is_empty()).flat_map(|(k, v)| [k.to_owned(), v.clone()]).collect()
}

/// Objects that a chart makes with these values, without a cluster.
///
/// # Errors
/// `denied` without the grant; `not_found` without the program; Helm's own words.
pub async fn template(ctx: &Ctx, name: &str, chart: &str, o: &RenderOptions) -> OpResult<Vec<Value>> {
    let op = Op::read("helm", "template", name).args(&(chart, &o.version));
    ctx.run_op(op, |s| async move {
        granted(s.ctx())?;
        let mut args =
            ["template", name, chart, "--namespace", &o.namespace, "--values", "-"].map(str::to_owned).to_vec();
        args.extend(source(o));
        if !o.kube_version.is_empty() {
            args.extend(["--kube-version".to_owned(), o.kube_version.clone()]);
        }
        let out = helm(s.ctx(), &args, &values_of(o)?, &[]).await?;
        if !out.status.success() {
            let mut e = OpError::failed(format!("Helm could not render `{chart}`")).on(name);
            e.causes = last_words(&out);
            return Err(e.hint(format!("see more: `helm template {name} {chart} --debug`")));
        }
        parse_yaml(&String::from_utf8_lossy(&out.stdout)).map_err(|e| e.on(name))
    })
    .await
}

/// A line of `helm lint` as level, path and text.
fn finding(line: &str) -> Option<Value> {
    let (level, rest) = line.strip_prefix('[')?.split_once("] ")?;
    if !matches!(level, "INFO" | "WARNING" | "ERROR") {
        return None;
    }
    let (path, text) = rest.split_once(": ").unwrap_or(("", rest));
    Some(json!({"level": level.to_lowercase(), "path": path, "text": text}))
}

/// What is wrong with a chart on this machine: `info`, `warning` and `error` lines of `helm lint`.
///
/// # Errors
/// `denied` without the grant; `not_found` without the program or the chart.
pub async fn lint(ctx: &Ctx, chart: &str, o: &RenderOptions) -> OpResult<Vec<Value>> {
    let op = Op::read("helm", "lint", chart);
    ctx.run_op(op, |s| async move {
        granted(s.ctx())?;
        let path = crate::flow::files::granted(s.ctx(), chart)?;
        if !path.exists() {
            return Err(OpError::not_found(format!("there is no chart `{chart}`"))
                .hint("name a folder with a Chart.yaml, or a packed chart"));
        }
        let mut args = ["lint", chart, "--namespace", &o.namespace, "--values", "-"].map(str::to_owned).to_vec();
        if !o.kube_version.is_empty() {
            args.extend(["--kube-version".to_owned(), o.kube_version.clone()]);
        }
        let out = helm(s.ctx(), &args, &values_of(o)?, &[]).await?;
        let said = String::from_utf8_lossy(&out.stdout);
        let found: Vec<Value> = said.lines().filter_map(finding).collect();
        if !out.status.success() && !found.iter().any(|f| f["level"] == "error") {
            let mut e = OpError::failed(format!("Helm could not lint `{chart}`"));
            e.causes = last_words(&out);
            return Err(e);
        }
        Ok(found)
    })
    .await
}

/// Rows of `helm search`: an answer that is none is not an empty list.
fn rows_of(out: &Output) -> OpResult<Vec<Value>> {
    let bad = |why: String| {
        let mut e = OpError::failed("Helm's list of versions cannot be read").because(why);
        e.causes.extend(last_words(out));
        e.hint("does `helm search repo x -o json` print a list? Helm 3 and 4 do")
    };
    if !out.status.success() {
        return Err(bad(format!("helm search ended with {}", out.status)));
    }
    serde_json::from_slice(&out.stdout).map_err(|e| bad(e.to_string()))
}

/// Versions of a chart in a repository, newest first: version, app_version, description.
///
/// # Errors
/// `denied` without the grant; `not_found` for a chart that the repository does not have; Helm's own words.
pub async fn versions(ctx: &Ctx, repo: &str, chart: &str) -> OpResult<Vec<Value>> {
    if repo.starts_with("oci://") {
        return Err(OpError::invalid("an OCI registry lists no versions through Helm")
            .on(repo)
            .hint("look at the registry's page, or at the chart's releases"));
    }
    let op = Op::read("helm", "versions", chart).args(&repo);
    ctx.run_op(op, |s| async move {
        granted(s.ctx())?;
        // A repository list of its own: the user's is not touched.
        let dir = s.ctx().state_file("helm-repositories");
        std::fs::create_dir_all(&dir)
            .map_err(|e| OpError::failed(format!("cannot make {}", dir.display())).because(e.to_string()))?;
        let (list, cache) = (dir.join("repositories.yaml").display().to_string(), dir.display().to_string());
        let env = [("HELM_REPOSITORY_CONFIG", list.as_str()), ("HELM_REPOSITORY_CACHE", cache.as_str())];
        let alias = format!("r{}", &crate::k3s::sha256_hex(repo.as_bytes())[..12]);
        let add = ["repo", "add", &alias, repo, "--force-update"].map(str::to_owned);
        let out = helm(s.ctx(), &add, b"", &env).await?;
        if !out.status.success() {
            let mut e = OpError::unreachable("Helm cannot read the repository").on(repo);
            e.causes = last_words(&out);
            return Err(e.hint("is the address the one that ends before `/index.yaml`?"));
        }
        let full = format!("{alias}/{chart}");
        let search = ["search", "repo", &full, "--versions", "--devel", "-o", "json"].map(str::to_owned);
        let out = helm(s.ctx(), &search, b"", &env).await?;
        let rows = rows_of(&out).map_err(|e| e.on(repo))?;
        let mine = rows.iter().filter(|r| r["name"] == full.as_str());
        let list: Vec<Value> = mine
            .map(|r| json!({"version": r["version"], "app_version": r["app_version"], "description": r["description"]}))
            .collect();
        if list.is_empty() {
            let mut e = OpError::not_found(format!("the repository has no chart `{chart}`")).on(repo);
            e.causes = last_words(&out);
            return Err(e.hint(format!("`helm search repo` lists what it has after `helm repo add x {repo}`")));
        }
        Ok(list)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_lint_read() {
        let f = finding("[WARNING] templates/all.yaml: object name does not conform").unwrap();
        assert_eq!((f["level"].as_str(), f["path"].as_str()), (Some("warning"), Some("templates/all.yaml")));
        assert_eq!(finding("[INFO] Chart.yaml: icon is recommended").unwrap()["text"], "icon is recommended");
        assert!(finding("==> Linting demo").is_none() && finding("Error: 1 chart(s) linted").is_none());
    }

    #[test]
    fn an_answer_of_helm_that_is_no_list_is_an_error() {
        use std::os::unix::process::ExitStatusExt;
        let said = |code: i32, text: &str| Output {
            status: std::process::ExitStatus::from_raw(code << 8),
            stdout: text.as_bytes().to_vec(),
            stderr: b"WARNING: odd".to_vec(),
        };
        assert_eq!(rows_of(&said(0, "[]")).unwrap(), Vec::<Value>::new());
        assert!(rows_of(&said(0, "WARNING: x\n[]")).unwrap_err().message.contains("cannot be read"));
        assert!(rows_of(&said(1, "[]")).unwrap_err().causes.iter().any(|c| c.contains("WARNING: odd")));
    }

    #[test]
    fn plain_and_secret_values_come_together() {
        let v = together(json!({"a": {"b": 1}}), Some(json!({"a": {"c": "s"}})));
        assert_eq!(v, json!({"a": {"b": 1, "c": "s"}}));
    }
}
