//! JSON schemas of Kubernetes' built-in types, as the generated API types publish them. No I/O.
use std::sync::OnceLock;

use k8s_openapi::api;
use serde_json::{Map, Value};

/// Kubernetes minor that the compiled-in types belong to.
pub const MINOR: u32 = 34;

macro_rules! types {
    ($g:ident: $($m:ident :: $v:ident { $($t:ident),* $(,)? })*) => {
        $($( $g.subschema_for::<api::$m::$v::$t>(); )*)*
    };
}

fn generate() -> Map<String, Value> {
    let mut g = schemars::SchemaGenerator::default();
    types!(g:
        core::v1 { Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
            PersistentVolumeClaim, PersistentVolume, Pod, PodTemplate, ReplicationController, ResourceQuota,
            Secret, ServiceAccount, Service }
        admissionregistration::v1 { MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding }
        apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
        authentication::v1 { SelfSubjectReview, TokenReview, TokenRequest }
        authorization::v1 { LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
            SubjectAccessReview }
        autoscaling::v1 { HorizontalPodAutoscaler, Scale }
        autoscaling::v2 { HorizontalPodAutoscaler }
        batch::v1 { CronJob, Job }
        certificates::v1 { CertificateSigningRequest }
        coordination::v1 { Lease }
        discovery::v1 { EndpointSlice }
        events::v1 { Event }
        flowcontrol::v1 { FlowSchema, PriorityLevelConfiguration }
        networking::v1 { IPAddress, IngressClass, Ingress, NetworkPolicy, ServiceCIDR }
        node::v1 { RuntimeClass }
        policy::v1 { PodDisruptionBudget, Eviction }
        rbac::v1 { ClusterRoleBinding, ClusterRole, RoleBinding, Role }
        resource::v1 { DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice }
        scheduling::v1 { PriorityClass }
        storage::v1 { CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
            VolumeAttributesClass }
    );
    g.subschema_for::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>();
    g.subschema_for::<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService>();
    g.take_definitions(true)
}

/// All built-in definitions by type name; references read `#/$defs/NAME`.
pub fn definitions() -> &'static Map<String, Value> {
    static DEFS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFS.get_or_init(generate)
}

/// Name of the built-in type behind an object's `apiVersion` and `kind`.
#[must_use]
pub fn type_name(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match group {
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        // a custom group may begin like one of Kubernetes' own: `apps.kruise.io`
        g if g.contains('.') && !g.ends_with(".k8s.io") => format!("{g}.{version}.{kind}"),
        g => format!("io.k8s.api.{}.{version}.{kind}", g.split('.').next().unwrap_or(g)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_definitions() {
        for (api, kind) in [
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io/v1", "APIService"),
        ] {
            assert!(definitions().contains_key(&type_name(api, kind)), "{api} {kind}");
        }
        assert!(!definitions().contains_key(&type_name("apps.kruise.io/v1", "StatefulSet")));
    }
}
