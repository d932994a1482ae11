//! The script functions of `helm`.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::json;

use super::install::Driving;
use super::program::{self, RenderOptions};
use super::proof;
use super::release::{Release, Revision};
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::{OpError, OpResult};
use crate::kubernetes::hidden::hide_values;
use crate::kubernetes::{Cluster, ObjectOptions, to_script};

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

fn row(r: &Revision) -> OpResult<Dynamic> {
    to_script(&json!({
        "revision": r.number, "status": r.status, "chart": r.chart, "version": r.version,
        "app_version": r.app_version, "deployed": r.deployed, "description": r.description,
    }))
}

fn none(release: &Release) -> OpError {
    OpError::not_found(format!("there is no release `{}` in namespace `{}`", release.name, release.namespace))
        .on(&release.name)
}

#[export_module]
mod api {
    use super::*;

    /// Installs or upgrades a release of a chart and waits until it is ready.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_release("cert-manager", #{
    ///     chart: "cert-manager", repo: "https://charts.jetstack.io", version: "1.20.2", namespace: "cert-manager",
    /// });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_release(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Release> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            let (o, by) = Driving::split(&options)?;
            cluster.ensure_release(&ctx, &name, &o, &by).await
        })
    }

    /// Objects that a chart makes with these values, without a cluster: what `apply` takes.
    ///
    /// Needs a helm program, which the site file has to grant.
    ///
    /// # Example
    /// ```rhai,check
    /// for o in helm::template("web", "charts/web", #{ values: #{ replicas: 2 } }) { print(`${o.kind} ${o.metadata.name}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn template(ncc: NativeCallContext, name: &str, chart: &str, options: Map) -> RhaiResultOf<Array> {
        let (name, chart) = (name.to_owned(), chart.to_owned());
        call(&ncc, |ctx| async move {
            let o = RenderOptions::read(&options)?;
            program::template(&ctx, &name, &chart, &o).await?.iter().map(to_script).collect()
        })
    }

    /// What `helm lint` says of a chart on this machine: `#{ level, path, text }` each.
    ///
    /// Needs a helm program, which the site file has to grant.
    ///
    /// # Example
    /// ```rhai,check
    /// for line in helm::lint("charts/web", #{ values: #{ replicas: 2 } }) { require(line.level != "error", line.text); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lint(ncc: NativeCallContext, chart: &str, options: Map) -> RhaiResultOf<Array> {
        let chart = chart.to_owned();
        call(&ncc, |ctx| async move {
            let o = RenderOptions::read(&options)?;
            program::lint(&ctx, &chart, &o).await?.iter().map(to_script).collect()
        })
    }

    /// Versions of a chart in a repository, newest first, each with its app version.
    ///
    /// `#{ version, app_version, description }` each. Needs a helm program, which the site file has to grant.
    ///
    /// # Example
    /// ```rhai,check
    /// print(helm::versions("https://charts.jetstack.io", "cert-manager")[0].version);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn versions(ncc: NativeCallContext, repo: &str, chart: &str) -> RhaiResultOf<Array> {
        let (repo, chart) = (repo.to_owned(), chart.to_owned());
        call(&ncc, |ctx| async move { program::versions(&ctx, &repo, &chart).await?.iter().map(to_script).collect() })
    }

    /// The release of this name, or `()`.
    ///
    /// # Example
    /// ```rhai
    /// let rancher = cluster.find_release("rancher");
    /// ```
    #[rhai_fn(global, name = "find_release", return_raw, pure)]
    pub fn find_release(ncc: NativeCallContext, cluster: &mut Cluster, name: &str) -> RhaiResultOf<Dynamic> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            let found = cluster.release_namespaces(&ctx, &name).await?;
            match found.as_slice() {
                [] => Ok(Dynamic::UNIT),
                [ns] => Ok(Dynamic::from(Release { cluster, name, namespace: ns.clone() })),
                many => Err(OpError::conflict(format!("namespaces {} each have a release `{name}`", many.join(", ")))
                    .hint("name one: `cluster.find_release(name, #{ namespace: … })`")),
            }
        })
    }

    /// The release of this name in a namespace, or `()`.
    ///
    /// # Example
    /// ```rhai
    /// let hub = cluster.find_release("jupyterhub", #{ namespace: "jupyterhub" });
    /// ```
    #[rhai_fn(global, name = "find_release", return_raw, pure)]
    pub fn find_release_in(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            let namespace = ObjectOptions::read(&options)?.namespace;
            let found = cluster.release_revisions(&ctx, &namespace, &name).await?;
            Ok(if found.is_empty() { Dynamic::UNIT } else { Dynamic::from(Release { cluster, name, namespace }) })
        })
    }

    /// What is wrong with the releases that HelmChart objects ask for; empty when all is well.
    ///
    /// A version or values that are not the HelmChart's, an installation that fails with Helm's last words, and chart
    /// versions that are not the wanted ones.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_releases(#{ "cert-manager": "1.20.2" }) { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_releases(ncc: NativeCallContext, cluster: &mut Cluster, wanted: Map) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move {
            let found = cluster.release_problems(&ctx, &proof::versions_of(&wanted)?).await?;
            Ok(found.into_iter().map(|t| Dynamic::from(format!("{}: {}", t.release, t.text))).collect())
        })
    }

    /// Removes a release; its claims are listed first. `false` when it was absent. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_release("cert-manager");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_release(ncc: NativeCallContext, cluster: &mut Cluster, name: &str) -> RhaiResultOf<bool> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move { cluster.remove_release(&ctx, &name).await })
    }

    /// What is not ready of a release; an empty list when all of it is.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.find_release("rancher").get_trouble() { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_trouble(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<Array> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            let list = r.cluster.release_trouble(&ctx, &r.name, &r.namespace).await?;
            Ok(list.into_iter().map(Dynamic::from).collect())
        })
    }

    /// The newest revision with status, chart, versions, time and description.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher").status().version);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn status(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<Dynamic> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            let list = r.cluster.release_revisions(&ctx, &r.namespace, &r.name).await?;
            row(list.last().ok_or_else(|| none(&r))?)
        })
    }

    /// All revisions, oldest first.
    ///
    /// # Example
    /// ```rhai
    /// print(table(cluster.find_release("rancher").history()));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn history(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<Array> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            r.cluster.release_revisions(&ctx, &r.namespace, &r.name).await?.iter().map(row).collect()
        })
    }

    /// The values the newest revision was given.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher").values());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn values(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<Dynamic> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            let list = r.cluster.release_revisions(&ctx, &r.namespace, &r.name).await?;
            let newest = list.last().ok_or_else(|| none(&r))?;
            hide_values(&ctx, &newest.values);
            to_script(&if newest.values.is_null() { json!({}) } else { newest.values.clone() })
        })
    }

    /// The manifest of the newest revision, as Helm stored it.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher").manifest());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn manifest(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<String> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            let newest = r.revision(&ctx, None).await?;
            Ok(newest.body["manifest"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Where live objects differ from the manifest: `#{ what, before, after }` each.
    ///
    /// # Example
    /// ```rhai
    /// for change in cluster.find_release("rancher").check_drift() { warn(change.what); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_drift(ncc: NativeCallContext, release: &mut Release) -> RhaiResultOf<Array> {
        let r = release.clone();
        call(&ncc, |ctx| async move { crate::kubernetes::shown(&r.drift(&ctx).await?) })
    }

    /// Values that differ from the newest revision's: `#{ what, before, after }` each.
    ///
    /// # Example
    /// ```rhai
    /// for change in cluster.find_release("rancher").check_values(#{ replicas: 1 }) { print(change); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_values(ncc: NativeCallContext, release: &mut Release, values: Map) -> RhaiResultOf<Array> {
        let r = release.clone();
        call(&ncc, |ctx| async move {
            let (wanted, _) = super::super::split(&values)?;
            let newest = r.revision(&ctx, None).await?;
            hide_values(&ctx, &newest.body["config"]);
            let differ = super::super::value_differences(&newest.body["config"], &wanted);
            let row = |(what, before, after)| to_script(&json!({"what": what, "before": before, "after": after}));
            differ.into_iter().map(row).collect()
        })
    }

    /// Brings the release back to an earlier revision; gives the number of the new one.
    ///
    /// A release of the helm-controller is installed again with the old chart version and values. One that helm made
    /// gets its old manifest back, without a helm program.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.find_release("rancher").rollback(1);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn rollback(ncc: NativeCallContext, release: &mut Release, revision: i64) -> RhaiResultOf<i64> {
        let r = release.clone();
        call(&ncc, |ctx| async move { r.rollback(&ctx, revision).await })
    }

    /// Name of the release.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher").name);
    /// ```
    #[rhai_fn(global, get = "name", pure)]
    pub fn release_name(release: &mut Release) -> String {
        release.name.clone()
    }

    /// Namespace of the release.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher").namespace);
    /// ```
    #[rhai_fn(global, get = "namespace", pure)]
    pub fn release_namespace(release: &mut Release) -> String {
        release.namespace.clone()
    }

    /// Shows the release.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.find_release("rancher"));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn show(release: &mut Release) -> String {
        format!("{release:?}")
    }
}
