//! JSON schemas of the built-in types, marked with their list and merge keys.
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

/// Keys of lists whose items merge: (type suffix or `*`, field, list-map keys, patch merge key). The first row that fits
/// counts. Without keys the list is replaced as a whole; without a merge key, patches replace it.
const LISTS: &[(&str, &str, &[&str], &str)] = &[
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", "matchConditions", &["name"], "name"),
    ("admissionregistration.v1.MutatingWebhook", "matchConditions", &["name"], "name"),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", &["name"], "name"),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", &["name"], "name"),
    ("admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", &["type"], ""),
    ("admissionregistration.v1.ValidatingWebhook", "matchConditions", &["name"], "name"),
    ("apiextensions.v1.CustomResourceDefinitionStatus", "conditions", &["type"], ""),
    ("batch.v1.JobStatus", "conditions", &[], "type"),
    ("certificates.v1.CertificateSigningRequestStatus", "conditions", &["type"], ""),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", &["name"], "name"),
    ("core.v1.PodStatus", "hostIPs", &[], "ip"),
    ("core.v1.ResourceRequirements", "claims", &["name"], ""),
    ("core.v1.ResourceStatus", "resources", &["resourceID"], ""),
    ("core.v1.ServiceAccount", "imagePullSecrets", &[], ""),
    ("resource.v1.AllocatedDeviceStatus", "conditions", &["type"], ""),
    ("resource.v1.ResourceClaimStatus", "devices", &["driver", "device", "pool", "shareID"], ""),
    ("resource.v1.ResourceClaimStatus", "reservedFor", &["uid"], "uid"),
    ("storage.v1.CSINodeSpec", "drivers", &["name"], "name"),
    ("core.v1.Container", "ports", &["containerPort", "protocol"], "containerPort"),
    ("core.v1.EphemeralContainer", "ports", &["containerPort", "protocol"], "containerPort"),
    ("core.v1.ServiceSpec", "ports", &["port", "protocol"], "port"),
    ("core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], "topologyKey"),
    ("core.v1.PodSpec", "hostAliases", &["ip"], "ip"),
    ("core.v1.NodeStatus", "addresses", &["type"], "type"),
    ("core.v1.PodStatus", "podIPs", &["ip"], "ip"),
    ("core.v1.PodStatus", "resourceClaimStatuses", &["name"], "name"),
    ("core.v1.ServiceAccount", "secrets", &["name"], "name"),
    ("*", "ownerReferences", &["uid"], "uid"),
    ("*", "conditions", &["type"], "type"),
    ("*", "containers", &["name"], "name"),
    ("*", "initContainers", &["name"], "name"),
    ("*", "ephemeralContainers", &["name"], "name"),
    ("*", "env", &["name"], "name"),
    ("*", "volumes", &["name"], "name"),
    ("*", "volumeMounts", &["mountPath"], "mountPath"),
    ("*", "volumeDevices", &["devicePath"], "devicePath"),
    ("*", "imagePullSecrets", &["name"], "name"),
    ("*", "resourceClaims", &["name"], "name"),
    ("*", "schedulingGates", &["name"], "name"),
    ("*", "webhooks", &["name"], "name"),
];

/// Lists of scalars that merge as sets, with patches, too: (type suffix, field).
const MERGED_SETS: &[(&str, &str)] = &[("meta.v1.ObjectMeta", "finalizers"), ("core.v1.NodeSpec", "podCIDRs")];

/// Lists of scalars that merge as sets: (type suffix, field).
const SETS: &[(&str, &str)] = &[
    ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions"),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values"),
    ("batch.v1.UncountedTerminatedPods", "failed"),
    ("batch.v1.UncountedTerminatedPods", "succeeded"),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values"),
    ("discovery.v1.Endpoint", "addresses"),
    ("flowcontrol.v1.NonResourcePolicyRule", "nonResourceURLs"),
    ("flowcontrol.v1.NonResourcePolicyRule", "verbs"),
    ("flowcontrol.v1.ResourcePolicyRule", "apiGroups"),
    ("flowcontrol.v1.ResourcePolicyRule", "namespaces"),
    ("flowcontrol.v1.ResourcePolicyRule", "resources"),
    ("flowcontrol.v1.ResourcePolicyRule", "verbs"),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
];

/// Types that are replaced as a whole.
const ATOMIC_TYPES: &[&str] = &[
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.SecretKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.ObjectReference",
    "core.v1.SecretReference",
    "core.v1.ObjectFieldSelector",
    "core.v1.ResourceFieldSelector",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
    "admissionregistration.v1.MatchResources",
    "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind",
    "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable",
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.ScopeSelector",
    "core.v1.TopologySelectorTerm",
    "discovery.v1.EndpointPort",
    "networking.v1.ServiceBackendPort",
    // a field of any kind of object
    "pkg.runtime.RawExtension",
];

/// Maps that are replaced as a whole: (type suffix, field).
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("core.v1.ServiceSpec", "selector"),
    ("core.v1.PodSpec", "nodeSelector"),
    ("core.v1.ReplicationControllerSpec", "selector"),
    ("node.v1.Scheduling", "nodeSelector"),
];

/// Structs that are merged although their type is replaced as a whole elsewhere.
const GRANULAR: &[(&str, &str)] = &[("core.v1.PersistentVolumeSpec", "claimRef")];

fn generate() -> Map<String, Value> {
    let mut defs = gpuhost_stdlib::wire::schema::definitions().clone();
    mutating(&mut defs);
    for (name, def) in &mut defs {
        annotate(name, def);
    }
    defs
}

/// Policies that change objects are younger than the types that are compiled in; they are those that judge, with mutations
/// in the place of validations.
fn mutating(defs: &mut Map<String, Value>) {
    const GROUP: &str = "io.k8s.api.admissionregistration.v1.";
    let of = |name: &str| defs.get(&format!("{GROUP}{name}")).cloned().unwrap_or_default();
    let reference = |name: &str| json!({"$ref": format!("#/$defs/{GROUP}{name}")});
    let text = |about: &str| json!({"type": "string", "description": about});
    let mut made = Vec::new();
    for (kind, gone) in [
        ("AdmissionPolicy", &["validations", "auditAnnotations"][..]),
        ("AdmissionPolicyBinding", &["validationActions"]),
    ] {
        let (mut whole, mut spec) = (of(&format!("Validating{kind}")), of(&format!("Validating{kind}Spec")));
        let spec_name = format!("Mutating{kind}Spec");
        if let Some(fields) = spec["properties"].as_object_mut() {
            fields.retain(|k, _| !gone.contains(&k.as_str()));
        }
        if kind == "AdmissionPolicy" {
            let about = "How an object is changed, one after the other.";
            spec["properties"]["mutations"] =
                json!({"type": "array", "description": about, "items": reference("Mutation")});
            spec["properties"]["reinvocationPolicy"] = text("Whether it is called again when others have changed it.");
        }
        whole["properties"]["spec"] = reference(&spec_name);
        if let Some(fields) = whole["properties"].as_object_mut() {
            fields.shift_remove("status");
        }
        made.extend([(format!("Mutating{kind}"), whole), (spec_name, spec)]);
    }
    let expression = |about: &str| json!({"type": "object", "description": about, "properties": {"expression": text("A CEL expression.")}});
    let mutation = json!({"type": "object", "description": "A change of an object.", "required": ["patchType"], "properties": {
        "patchType": text("ApplyConfiguration or JSONPatch."),
        "applyConfiguration": reference("ApplyConfiguration"), "jsonPatch": reference("JSONPatch")}});
    made.push(("Mutation".to_owned(), mutation));
    made.push(("ApplyConfiguration".to_owned(), expression("A configuration that is merged into the object.")));
    made.push(("JSONPatch".to_owned(), expression("A JSON patch of the object.")));
    defs.extend(made.into_iter().map(|(name, def)| (format!("{GROUP}{name}"), def)));
}

fn annotate(name: &str, def: &mut Value) {
    if ATOMIC_TYPES.iter().any(|t| name.ends_with(t)) {
        def["x-kubernetes-map-type"] = "atomic".into();
    }
    if name.ends_with("intstr.IntOrString") {
        // Kubernetes publishes it so; kubectl's explain reads the format.
        def["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]);
        def["format"] = "int-or-string".into();
    }
    if name.ends_with("apiextensions.v1.JSONSchemaProps") {
        return;
    }
    let Some(props) = def["properties"].as_object_mut() else { return };
    for (field, p) in props {
        if ATOMIC_MAPS.iter().any(|(t, f)| name.ends_with(t) && f == field) {
            p["x-kubernetes-map-type"] = "atomic".into();
        }
        if GRANULAR.iter().any(|(t, f)| name.ends_with(t) && f == field) {
            p["x-kubernetes-map-type"] = "granular".into();
        }
        if p["type"] != "array" {
            continue;
        }
        let row = LISTS.iter().find(|(t, f, ..)| f == field && (*t == "*" || name.ends_with(t)));
        let is = |rows: &[(&str, &str)]| rows.iter().any(|(t, f)| name.ends_with(t) && f == field);
        if let Some((_, _, keys, patch)) = row {
            p["x-kubernetes-list-type"] = if keys.is_empty() { "atomic" } else { "map" }.into();
            if !keys.is_empty() {
                p["x-kubernetes-list-map-keys"] = json!(keys);
            }
            if !patch.is_empty() {
                let strategy = if *field == "volumes" { "merge,retainKeys" } else { "merge" };
                p["x-kubernetes-patch-merge-key"] = json!(patch);
                p["x-kubernetes-patch-strategy"] = strategy.into();
            }
        } else if is(MERGED_SETS) {
            p["x-kubernetes-list-type"] = "set".into();
            p["x-kubernetes-patch-strategy"] = "merge".into();
        } else if is(SETS) {
            p["x-kubernetes-list-type"] = "set".into();
        } else {
            p["x-kubernetes-list-type"] = "atomic".into();
        }
    }
}

/// All built-in definitions by type name; references read `#/$defs/NAME`.
pub fn definitions() -> &'static Map<String, Value> {
    static DEFS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFS.get_or_init(generate)
}

/// One definition.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Value> {
    definitions().get(name)
}
