//! Kinds by any name that kubectl knows them by: built-in ones from a table, others through discovery.
use serde_json::Value;

use super::Cluster;
use super::rest::Request;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::options::closest;

/// A kind of object that the API server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, for example `Deployment`.
    pub kind: String,
    /// Name in paths, for example `deployments`.
    pub plural: String,
    /// Short names, for example `deploy`.
    pub short: Vec<String>,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether its objects can be listed.
    pub listed: bool,
}

impl Kind {
    /// `apps/v1` or `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether `name` means this kind: kind, plural, singular, short name, or `plural.group`.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let (kind, plural) = (self.kind.to_ascii_lowercase(), self.plural.to_ascii_lowercase());
        name == kind
            || name == plural
            || self.short.contains(&name)
            || name == format!("{plural}.{}", self.group)
            || name == format!("{kind}.{}", self.group)
    }
}

/// `(group, version, kind, plural, short names, namespaced)`
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, bool);

const BUILTIN: &[Row] = &[
    ("", "v1", "Node", "nodes", "no", false),
    ("", "v1", "Namespace", "namespaces", "ns", false),
    ("", "v1", "Pod", "pods", "po", true),
    ("", "v1", "Service", "services", "svc", true),
    ("", "v1", "Secret", "secrets", "", true),
    ("", "v1", "ConfigMap", "configmaps", "cm", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", true),
    ("", "v1", "Event", "events", "ev", true),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", false),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", true),
    ("", "v1", "Endpoints", "endpoints", "ep", true),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", true),
    ("apps", "v1", "Deployment", "deployments", "deploy", true),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", true),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", true),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", true),
    ("batch", "v1", "Job", "jobs", "", true),
    ("batch", "v1", "CronJob", "cronjobs", "cj", true),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", false),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "", false),
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "", false),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", true),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", false),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", true),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", true),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", false),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", false),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", true),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", false),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd crds", false),
    ("helm.cattle.io", "v1", "HelmChart", "helmcharts", "", true),
    ("helm.cattle.io", "v1", "HelmChartConfig", "helmchartconfigs", "", true),
];

/// The kinds that need no discovery.
#[must_use]
pub fn builtin() -> Vec<Kind> {
    BUILTIN
        .iter()
        .map(|(group, version, kind, plural, short, namespaced)| Kind {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            kind: (*kind).to_owned(),
            plural: (*plural).to_owned(),
            short: short.split_whitespace().map(str::to_owned).collect(),
            namespaced: *namespaced,
            listed: true,
        })
        .collect()
}

/// Reads an `APIResourceList`.
#[must_use]
pub fn read_resources(group: &str, version: &str, list: &Value) -> Vec<Kind> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    list["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|r| r["name"].as_str().is_some_and(|n| !n.contains('/')))
        .map(|r| Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(&r["kind"]),
            plural: text(&r["name"]),
            short: r["shortNames"].as_array().into_iter().flatten().map(text).collect(),
            namespaced: r["namespaced"].as_bool().unwrap_or(false),
            listed: r["verbs"].as_array().is_some_and(|v| v.iter().any(|v| v == "list")),
        })
        .collect()
}

/// The name of a kind, plural or singular, that `name` is a misspelling of.
fn nearest(name: &str, known: &[Kind]) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let names: Vec<String> = known.iter().flat_map(|k| [k.plural.clone(), k.kind.to_ascii_lowercase()]).collect();
    closest(&name, names.iter().map(String::as_str)).map(str::to_owned)
}

impl Cluster {
    /// The kind that `name` means (`node`, `deploy`, `HelmChart`, `gitrepos.fleet.cattle.io`).
    ///
    /// # Errors
    /// `not_found` with the closest name when the API server has no such kind.
    pub async fn kind(&self, ctx: &Ctx, name: &str) -> OpResult<Kind> {
        if let Some(k) = self.known_kind(|k| k.answers_to(name)) {
            return Ok(k);
        }
        self.discover(ctx).await?;
        self.known_kind(|k| k.answers_to(name)).ok_or_else(|| {
            let e = OpError::not_found(format!("the cluster has no kind `{name}`")).on(self.name());
            e.hint(match nearest(name, &self.known_kinds()) {
                Some(k) => format!("did you mean `{k}`?"),
                None => "a kind of a chart is known once its CRD is installed: apply the chart first".to_owned(),
            })
        })
    }

    /// The kind of an object with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// `not_found` when the API server has no such kind.
    pub async fn kind_of(&self, ctx: &Ctx, object: &Value) -> OpResult<Kind> {
        let (api, kind) = (object["apiVersion"].as_str().unwrap_or("v1"), object["kind"].as_str().unwrap_or_default());
        if kind.is_empty() {
            return Err(OpError::invalid("an object has no `kind`")
                .hint("each object needs `apiVersion`, `kind` and `metadata.name`"));
        }
        let fits = |k: &Kind| k.kind == kind && k.api_version() == api;
        if let Some(k) = self.known_kind(fits) {
            return Ok(k);
        }
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        self.discover_group(ctx, group, version).await?;
        self.known_kind(fits).ok_or_else(|| {
            let of_group: Vec<Kind> = self.known_kinds().into_iter().filter(|k| k.api_version() == api).collect();
            let near = closest(kind, of_group.iter().map(|k| k.kind.as_str())).map(|k| format!("did you mean `{k}`?"));
            let hint = near.or_else(|| super::validate::unknown_kind(object)?.hint);
            OpError::not_found(format!("the cluster has no kind `{kind}` in `{api}`"))
                .on(self.name())
                .hint(hint.unwrap_or_else(|| "install the chart that brings its CRD first".to_owned()))
        })
    }

    pub(super) async fn discover(&self, ctx: &Ctx) -> OpResult<()> {
        let groups = self.read_json(ctx, "/apis").await?;
        for g in groups["groups"].as_array().into_iter().flatten() {
            let (group, version) = (&g["name"], &g["preferredVersion"]["version"]);
            if let (Some(group), Some(version)) = (group.as_str(), version.as_str()) {
                // a group whose server is down must not hide the others
                if let Err(e) = self.discover_group(ctx, group, version).await {
                    tracing::debug!("discovery of {group}: {e}");
                }
            }
        }
        Ok(())
    }

    async fn discover_group(&self, ctx: &Ctx, group: &str, version: &str) -> OpResult<()> {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let reply = self.send(ctx, &Request::get(path)).await?;
        if reply.ok() {
            self.learn_kinds(read_resources(group, version, &reply.json()));
        }
        Ok(())
    }
}
