//! A release as the cluster keeps it: revisions, values, state. Read from its Secrets, no helm binary.
use std::fmt;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::kubernetes::{Cluster, ListOptions};
use crate::wire::release::decode;

/// One revision of a release.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Revision number.
    pub number: i64,
    /// `deployed`, `failed`, `superseded`, `pending-install` …
    pub status: String,
    /// Chart name.
    pub chart: String,
    /// Chart version.
    pub version: String,
    /// App version.
    pub app_version: String,
    /// Kubernetes versions that the chart takes; empty: any.
    pub kubernetes: String,
    /// What Helm said, for example `Install complete`.
    pub description: String,
    /// The chart's notes.
    pub notes: String,
    /// When it was last deployed.
    pub deployed: String,
    /// Values given by the user.
    pub values: Value,
}

/// A release of a cluster.
#[derive(Clone)]
pub struct Release {
    /// The cluster.
    pub cluster: Cluster,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release `{}/{}`", self.namespace, self.name)
    }
}

/// Whether two chart versions are one: Helm takes `1.20.2` for a chart that calls itself `v1.20.2`.
#[must_use]
pub(super) fn same_version(a: &str, b: &str) -> bool {
    a.trim_start_matches('v') == b.trim_start_matches('v')
}

/// What a revision says whose Secret holds no release.
const UNREADABLE: &str = "its Secret cannot be decoded";

/// The number of a release Secret's revision.
pub(super) fn number_of(secret: &Value) -> Option<i64> {
    secret["metadata"]["labels"]["version"].as_str()?.parse().ok()
}

/// The release inside a release Secret; nothing when it cannot be decoded.
pub(super) fn body_of(secret: &Value) -> Option<Value> {
    decode(secret["data"]["release"].as_str().unwrap_or_default())
}

/// Reads a release Secret.
#[must_use]
pub fn read_revision(secret: &Value) -> Option<Revision> {
    let number = number_of(secret)?;
    Some(revision_of(number, secret, body_of(secret).as_ref()))
}

/// A revision, from its Secret and the release that was inside.
pub(super) fn revision_of(number: i64, secret: &Value, body: Option<&Value>) -> Revision {
    let labels = &secret["metadata"]["labels"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let release = body.unwrap_or(&Value::Null);
    let (meta, info) = (&release["chart"]["metadata"], &release["info"]);
    Revision {
        number,
        // the label is what Helm itself selects by
        status: text(&labels["status"]),
        chart: text(&meta["name"]),
        version: text(&meta["version"]),
        app_version: text(&meta["appVersion"]),
        kubernetes: text(&meta["kubeVersion"]),
        description: if body.is_none() { UNREADABLE.to_owned() } else { text(&info["description"]) },
        notes: text(&info["notes"]),
        deployed: text(&info["last_deployed"]),
        values: release["config"].clone(),
    }
}

/// What is said of a release whose newest revision cannot be decoded.
pub(super) fn unreadable(namespace: &str, name: &str, number: i64) -> OpError {
    OpError::failed(format!("revision {number} of the release cannot be read"))
        .on(format!("{namespace}/{name}"))
        .because(UNREADABLE)
        .hint(format!("look at it: `kubectl -n {namespace} get secret sh.helm.release.v1.{name}.v{number}`"))
}

impl Cluster {
    /// Revisions of a release, oldest first.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn release_revisions(&self, ctx: &Ctx, namespace: &str, name: &str) -> OpResult<Vec<Revision>> {
        let secrets = self.release_secrets(ctx, namespace, name).await?;
        let mut out: Vec<_> = secrets.iter().filter_map(read_revision).collect();
        out.sort_by_key(|r| r.number);
        // an older one is only history; the newest is what everything is compared with
        match out.last().filter(|r| r.description == UNREADABLE) {
            Some(r) => Err(unreadable(namespace, name, r.number)),
            None => Ok(out),
        }
    }

    /// The Secrets that hold the revisions of a release.
    pub(super) async fn release_secrets(&self, ctx: &Ctx, namespace: &str, name: &str) -> OpResult<Vec<Value>> {
        let labels = [("owner".to_owned(), "helm".to_owned()), ("name".to_owned(), name.to_owned())];
        let o = ListOptions { namespace: namespace.to_owned(), labels: labels.into(), fields: Default::default() };
        self.list_objects(ctx, "secret", &o).await
    }

    /// Namespaces that hold a release of this name.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn release_namespaces(&self, ctx: &Ctx, name: &str) -> OpResult<Vec<String>> {
        let labels = [("owner".to_owned(), "helm".to_owned()), ("name".to_owned(), name.to_owned())];
        let o = ListOptions { namespace: String::new(), labels: labels.into(), fields: Default::default() };
        let secrets = self.list_objects(ctx, "secret", &o).await?;
        let mut out: Vec<String> =
            secrets.iter().filter_map(|s| s["metadata"]["namespace"].as_str().map(str::to_owned)).collect();
        out.sort();
        out.dedup();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::release::encode;
    use serde_json::json;

    #[test]
    fn revisions_read_without_helm() {
        let data = encode(
            &json!({"chart":{"metadata":{"name":"c","version":"1.2"}},"info":{"description":"ok"},"config":{"a":1}}),
        )
        .unwrap();
        let s = json!({"metadata":{"labels":{"version":"3","status":"deployed"}},"data":{"release":data}});
        let r = read_revision(&s).unwrap();
        assert_eq!(
            (r.number, r.version.as_str(), r.status.as_str(), &r.values),
            (3, "1.2", "deployed", &json!({"a":1}))
        );
        assert_eq!(read_revision(&json!({"metadata":{"labels":{}}})), None);
    }
}
