//! The registry of kinds: a table of the built-in ones, and those of CustomResourceDefinitions.
use std::sync::{Arc, OnceLock};

use gpuhost_stdlib::wire::schema;
use serde_json::Value;

/// A kind that the API serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Kind of lists; empty: the kind with `List`.
    pub list: String,
    /// Plural resource name.
    pub plural: String,
    /// Singular resource name.
    pub singular: String,
    /// Short names for kubectl.
    pub short: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource.
    pub scale: bool,
    /// Where the `scale` subresource of a custom kind finds its numbers.
    pub scale_paths: Value,
    /// Version that a custom kind is stored in.
    pub stored: String,
    /// Whether a custom kind has other versions too.
    pub several: bool,
    /// What clients of a deprecated version are told.
    pub outdated: Option<String>,
    /// Fields that objects of a custom kind can be selected by.
    pub selectable: Vec<String>,
    /// Categories (`all`).
    pub categories: Vec<String>,
    /// Only `create` is offered (reviews).
    pub create_only: bool,
    /// Only `get` and `list` are offered (metrics).
    pub read_only: bool,
    /// The minor of Kubernetes that serves it first; 0: every one that there is.
    pub since: u32,
    /// Name of the type in the built-in definitions; empty for custom kinds.
    pub type_name: String,
    /// Defined by a CustomResourceDefinition.
    pub custom: bool,
    /// Schema of a custom kind's version.
    pub schema: Option<Arc<Value>>,
    /// `additionalPrinterColumns` of a custom kind.
    pub columns: Vec<Value>,
}

impl Kind {
    /// `deployments.apps`, `pods`: the key of its objects in the store.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether its objects are deleted one by one: there is no `deletecollection` of namespaces.
    #[must_use]
    pub fn goes_alone(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }

    /// Whether a deletion answers with the object even when it is gone at once.
    #[must_use]
    pub fn returned(&self) -> bool {
        match self.group.as_str() {
            "storage.k8s.io" | "resource.k8s.io" => self.plural != "csistoragecapacities",
            "" => SHOWN.contains(&self.plural.as_str()),
            _ => false,
        }
    }

    /// `apps/v1`, `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The version that objects are kept in.
    #[must_use]
    pub fn kept_version(&self) -> String {
        if self.custom && !self.stored.is_empty() {
            format!("{}/{}", self.group, self.stored)
        } else {
            self.api_version()
        }
    }

    /// `PodList`.
    #[must_use]
    pub fn list_kind(&self) -> String {
        if self.list.is_empty() { format!("{}List", self.kind) } else { self.list.clone() }
    }

    /// Whether `generation` counts changes of its spec.
    #[must_use]
    pub fn generations(&self) -> bool {
        self.custom || COUNTED.contains(&self.kind.as_str())
    }
}

/// Core resources that a deletion answers with.
const SHOWN: &[&str] = &[
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

/// Kinds whose strategy counts generations; claims of devices, autoscalers and many others have none.
const COUNTED: &[&str] = &[
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "DeviceClass",
    "DeviceTaintRule",
    "EndpointSlice",
    "FlowSchema",
    "Ingress",
    "IngressClass",
    "Job",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ReplicaSet",
    "ResourceSlice",
    "StatefulSet",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// group, version, kind, plural, short names, flags, categories. Flags: n
/// namespaced, s status, c scale, o create only, r read only.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const ADM: &str = "admissionregistration.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const AUTHN: &str = "authentication.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const DRA: &str = "resource.k8s.io";

const TABLE: &[Row] = &[
    ("", "v1", "Binding", "bindings", "", "no", ""),
    ("", "v1", "ComponentStatus", "componentstatuses", "cs", "r", ""),
    ("", "v1", "ConfigMap", "configmaps", "cm", "n", ""),
    ("", "v1", "Endpoints", "endpoints", "ep", "n", ""),
    ("", "v1", "Event", "events", "ev", "n", ""),
    ("", "v1", "LimitRange", "limitranges", "limits", "n", ""),
    ("", "v1", "Namespace", "namespaces", "ns", "s", ""),
    ("", "v1", "Node", "nodes", "no", "s", ""),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "ns", ""),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", "s", ""),
    ("", "v1", "Pod", "pods", "po", "ns", "all"),
    ("", "v1", "PodTemplate", "podtemplates", "", "n", ""),
    ("", "v1", "ReplicationController", "replicationcontrollers", "rc", "nsc", "all"),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", "ns", ""),
    ("", "v1", "Secret", "secrets", "", "n", ""),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", "n", ""),
    ("", "v1", "Service", "services", "svc", "ns", "all"),
    (ADM, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "", "api-extensions"),
    (ADM, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "", "api-extensions"),
    (ADM, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "s", "api-extensions"),
    (ADM, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", "", "api-extensions"),
    (ADM, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "", "", "api-extensions"),
    (ADM, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", "", "api-extensions"),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd,crds",
        "s",
        "api-extensions",
    ),
    ("apiregistration.k8s.io", "v1", "APIService", "apiservices", "", "s", "api-extensions"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", "", "n", ""),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", "ns", "all"),
    ("apps", "v1", "Deployment", "deployments", "deploy", "nsc", "all"),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", "nsc", "all"),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", "nsc", "all"),
    (AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", "", "o", ""),
    (AUTHN, "v1", "TokenReview", "tokenreviews", "", "o", ""),
    (AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "", "no", ""),
    (AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", "o", ""),
    (AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "", "o", ""),
    (AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", "", "o", ""),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "ns", "all"),
    ("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "ns", "all"),
    ("batch", "v1", "CronJob", "cronjobs", "cj", "ns", "all"),
    ("batch", "v1", "Job", "jobs", "", "ns", "all"),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", "csr", "s", ""),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", "n", ""),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", "n", ""),
    ("events.k8s.io", "v1", "Event", "events", "ev", "n", ""),
    ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", "", "s", ""),
    ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", "", "s", ""),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", "", ""),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", "ns", ""),
    ("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ip", "", ""),
    ("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "", "s", ""),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", "n", ""),
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "", "", ""),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "ns", ""),
    (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "", "", ""),
    (RBAC, "v1", "ClusterRole", "clusterroles", "", "", ""),
    (RBAC, "v1", "RoleBinding", "rolebindings", "", "n", ""),
    (RBAC, "v1", "Role", "roles", "", "n", ""),
    (DRA, "v1", "DeviceClass", "deviceclasses", "", "", ""),
    (DRA, "v1", "ResourceClaim", "resourceclaims", "", "ns", ""),
    (DRA, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", "", "n", ""),
    (DRA, "v1", "ResourceSlice", "resourceslices", "", "", ""),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", "", ""),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "", "", ""),
    ("storage.k8s.io", "v1", "CSINode", "csinodes", "", "", ""),
    ("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", "", "n", ""),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", "", ""),
    ("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "", "s", ""),
    ("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", "vac", "", ""),
];

/// Kinds that came to be served by default in the time that the lab knows: group, plural, minor.
const YOUNG: &[(&str, &str, u32)] = &[
    (ADM, "mutatingadmissionpolicies", 36),
    (ADM, "mutatingadmissionpolicybindings", 36),
    ("networking.k8s.io", "ipaddresses", 33),
    ("networking.k8s.io", "servicecidrs", 33),
    (DRA, "deviceclasses", 34),
    (DRA, "resourceclaims", 34),
    (DRA, "resourceclaimtemplates", 34),
    (DRA, "resourceslices", 34),
    ("storage.k8s.io", "volumeattributesclasses", 34),
];

/// How early a group of the API server's own comes in discovery.
pub const PRIORITIES: &[(&str, u64)] = &[
    ("apiregistration.k8s.io", 20_000),
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

/// The built-in kinds.
pub fn builtin() -> &'static [Arc<Kind>] {
    static KINDS: OnceLock<Vec<Arc<Kind>>> = OnceLock::new();
    KINDS.get_or_init(|| {
        TABLE
            .iter()
            .map(|(group, version, kind, plural, short, flags, categories)| {
                Arc::new(Kind {
                    group: (*group).to_owned(),
                    version: (*version).to_owned(),
                    kind: (*kind).to_owned(),
                    plural: (*plural).to_owned(),
                    singular: kind.to_lowercase(),
                    short: words(short),
                    namespaced: flags.contains('n'),
                    status: flags.contains('s'),
                    scale: flags.contains('c'),
                    create_only: flags.contains('o'),
                    read_only: flags.contains('r'),
                    categories: words(categories),
                    since: YOUNG.iter().find(|y| y.0 == *group && y.1 == *plural).map_or(0, |y| y.2),
                    type_name: match *group {
                        "" => schema::type_name(version, kind),
                        g => schema::type_name(&format!("{g}/{version}"), kind),
                    },
                    ..Kind::default()
                })
            })
            .collect()
    })
}

fn arr_len(v: &Value) -> usize {
    v.as_array().map_or(0, Vec::len)
}

/// The kinds that a CustomResourceDefinition defines, one per served version.
#[must_use]
pub fn of_crd(crd: &Value) -> Vec<Arc<Kind>> {
    let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
    let list = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let path = |f: &Value| f["jsonPath"].as_str().unwrap_or_default().trim_start_matches('.').to_owned();
    let kind = text(&names["kind"]);
    let storage =
        spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true).unwrap_or(&Value::Null);
    let served = spec["versions"].as_array().into_iter().flatten().filter(|v| v["served"] != false);
    served
        .map(|v| {
            let schema = v["schema"]["openAPIV3Schema"].clone();
            let singular = text(&names["singular"]);
            Arc::new(Kind {
                group: text(&spec["group"]),
                version: text(&v["name"]),
                kind: kind.clone(),
                list: text(&names["listKind"]),
                plural: text(&names["plural"]),
                singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                short: list(&crd["status"]["acceptedNames"]["shortNames"]),
                several: arr_len(&spec["versions"]) > 1,
                outdated: super::definition::outdated(spec, v),
                namespaced: spec["scope"] == "Namespaced",
                status: v["subresources"]["status"].is_object(),
                scale: v["subresources"]["scale"].is_object(),
                scale_paths: v["subresources"]["scale"].clone(),
                stored: text(&storage["name"]),
                categories: list(&names["categories"]),
                selectable: v["selectableFields"].as_array().into_iter().flatten().map(path).collect(),
                custom: true,
                schema: schema.is_object().then(|| Arc::new(schema)),
                columns: v["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
                ..Kind::default()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_kind_has_a_type() {
        for k in builtin() {
            assert!(super::super::builtin::definition(&k.type_name).is_some(), "{}", k.type_name);
        }
    }
}
