//! Words that a field of a built-in type may have, as its published schema lists them.
use serde_json::{Value, json};

/// Field, types that have it, and its words; `""` among them is written as `-`.
const WORDS: &[(&str, &[&str], &str)] = &[
    (
        "accessModes",
        &["core.v1.PersistentVolumeClaimSpec", "core.v1.PersistentVolumeClaimStatus", "core.v1.PersistentVolumeSpec"],
        "ReadOnlyMany ReadWriteMany ReadWriteOnce ReadWriteOncePod",
    ),
    ("action", &["batch.v1.PodFailurePolicyRule"], "Count FailIndex FailJob Ignore"),
    ("addressType", &["discovery.v1.EndpointSlice"], "FQDN IPv4 IPv6"),
    ("allocationMode", &["resource.v1.DeviceSubRequest", "resource.v1.ExactDeviceRequest"], "All ExactCount"),
    ("cachingMode", &["core.v1.AzureDiskVolumeSource"], "None ReadOnly ReadWrite"),
    ("completionMode", &["batch.v1.JobSpec"], "Indexed NonIndexed"),
    ("concurrencyPolicy", &["batch.v1.CronJobSpec"], "Allow Forbid Replace"),
    ("dnsPolicy", &["core.v1.PodSpec"], "ClusterFirst ClusterFirstWithHostNet Default None"),
    ("effect", &["resource.v1.DeviceTaint", "resource.v1.DeviceToleration"], "NoExecute NoSchedule None"),
    ("effect", &["core.v1.Taint", "core.v1.Toleration"], "NoExecute NoSchedule PreferNoSchedule"),
    ("externalTrafficPolicy", &["core.v1.ServiceSpec"], "Cluster Local"),
    (
        "failurePolicy",
        &[
            "admissionregistration.v1.MutatingWebhook",
            "admissionregistration.v1.ValidatingAdmissionPolicySpec",
            "admissionregistration.v1.ValidatingWebhook",
        ],
        "Fail Ignore",
    ),
    ("fsGroupChangePolicy", &["core.v1.PodSecurityContext"], "Always OnRootMismatch"),
    ("imagePullPolicy", &["core.v1.Container", "core.v1.EphemeralContainer"], "Always IfNotPresent Never"),
    ("internalTrafficPolicy", &["core.v1.ServiceSpec"], "Cluster Local"),
    ("ipFamilies", &["core.v1.ServiceSpec"], "- IPv4 IPv6"),
    ("ipFamilyPolicy", &["core.v1.ServiceSpec"], "PreferDualStack RequireDualStack SingleStack"),
    ("kind", &["core.v1.AzureDiskVolumeSource"], "Dedicated Managed Shared"),
    (
        "matchPolicy",
        &[
            "admissionregistration.v1.MatchResources",
            "admissionregistration.v1.MutatingWebhook",
            "admissionregistration.v1.ValidatingWebhook",
        ],
        "Equivalent Exact",
    ),
    ("mountPropagation", &["core.v1.VolumeMount"], "Bidirectional HostToContainer None"),
    ("nodeAffinityPolicy", &["core.v1.TopologySpreadConstraint"], "Honor Ignore"),
    ("nodeTaintsPolicy", &["core.v1.TopologySpreadConstraint"], "Honor Ignore"),
    (
        "operations",
        &["admissionregistration.v1.NamedRuleWithOperations", "admissionregistration.v1.RuleWithOperations"],
        "* CONNECT CREATE DELETE UPDATE",
    ),
    ("operator", &["core.v1.NodeSelectorRequirement"], "DoesNotExist Exists Gt In Lt NotIn"),
    ("operator", &["core.v1.ScopedResourceSelectorRequirement"], "DoesNotExist Exists In NotIn"),
    ("operator", &["resource.v1.DeviceToleration"], "Equal Exists"),
    ("operator", &["core.v1.Toleration"], "Equal Exists Gt Lt"),
    ("operator", &["batch.v1.PodFailurePolicyOnExitCodesRequirement"], "In NotIn"),
    ("pathType", &["networking.v1.HTTPIngressPath"], "Exact ImplementationSpecific Prefix"),
    ("persistentVolumeReclaimPolicy", &["core.v1.PersistentVolumeSpec"], "Delete Recycle Retain"),
    ("phase", &["core.v1.NamespaceStatus"], "Active Terminating"),
    ("phase", &["core.v1.PersistentVolumeStatus"], "Available Bound Failed Pending Released"),
    ("phase", &["core.v1.PersistentVolumeClaimStatus"], "Bound Lost Pending"),
    ("phase", &["core.v1.PodStatus"], "Failed Pending Running Succeeded Unknown"),
    ("phase", &["core.v1.NodeStatus"], "Pending Running Terminated"),
    ("podManagementPolicy", &["apps.v1.StatefulSetSpec"], "OrderedReady Parallel"),
    ("podReplacementPolicy", &["batch.v1.JobSpec"], "Failed TerminatingOrFailed"),
    ("policyTypes", &["networking.v1.NetworkPolicySpec"], "Egress Ingress"),
    ("preemptionPolicy", &["core.v1.PodSpec", "scheduling.v1.PriorityClass"], "Never PreemptLowerPriority"),
    ("procMount", &["core.v1.SecurityContext"], "Default Unmasked"),
    (
        "protocol",
        &[
            "core.v1.ContainerPort",
            "core.v1.EndpointPort",
            "core.v1.PortStatus",
            "core.v1.ServicePort",
            "discovery.v1.EndpointPort",
            "networking.v1.IngressPortStatus",
            "networking.v1.NetworkPolicyPort",
        ],
        "SCTP TCP UDP",
    ),
    ("pullPolicy", &["core.v1.ImageVolumeSource"], "Always IfNotPresent Never"),
    ("qosClass", &["core.v1.PodStatus"], "BestEffort Burstable Guaranteed"),
    (
        "reason",
        &["apiextensions.v1.ValidationRule"],
        "FieldValueDuplicate FieldValueForbidden FieldValueInvalid FieldValueRequired",
    ),
    ("reclaimPolicy", &["storage.v1.StorageClass"], "Delete Recycle Retain"),
    ("reinvocationPolicy", &["admissionregistration.v1.MutatingWebhook"], "IfNeeded Never"),
    ("restartPolicy", &["core.v1.PodSpec"], "Always Never OnFailure"),
    ("scheme", &["core.v1.HTTPGetAction"], "HTTP HTTPS"),
    (
        "scope",
        &["admissionregistration.v1.NamedRuleWithOperations", "admissionregistration.v1.RuleWithOperations"],
        "* Cluster Namespaced",
    ),
    (
        "scopeName",
        &["core.v1.ScopedResourceSelectorRequirement"],
        "BestEffort CrossNamespacePodAffinity NotBestEffort NotTerminating PriorityClass Terminating VolumeAttributesClass",
    ),
    (
        "scopes",
        &["core.v1.ResourceQuotaSpec"],
        "BestEffort CrossNamespacePodAffinity NotBestEffort NotTerminating PriorityClass Terminating VolumeAttributesClass",
    ),
    ("sessionAffinity", &["core.v1.ServiceSpec"], "ClientIP None"),
    (
        "sideEffects",
        &["admissionregistration.v1.MutatingWebhook", "admissionregistration.v1.ValidatingWebhook"],
        "None NoneOnDryRun Some Unknown",
    ),
    ("source", &["resource.v1.DeviceAllocationConfiguration"], "FromClaim FromClass"),
    ("status", &["core.v1.ModifyVolumeStatus"], "InProgress Infeasible Pending"),
    (
        "stopSignal",
        &["core.v1.ContainerStatus", "core.v1.Lifecycle"],
        "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGRTMAX SIGRTMAX-1 SIGRTMAX-10 SIGRTMAX-11 SIGRTMAX-12 SIGRTMAX-13 SIGRTMAX-14 SIGRTMAX-2 SIGRTMAX-3 SIGRTMAX-4 SIGRTMAX-5 SIGRTMAX-6 SIGRTMAX-7 SIGRTMAX-8 SIGRTMAX-9 SIGRTMIN SIGRTMIN+1 SIGRTMIN+10 SIGRTMIN+11 SIGRTMIN+12 SIGRTMIN+13 SIGRTMIN+14 SIGRTMIN+15 SIGRTMIN+2 SIGRTMIN+3 SIGRTMIN+4 SIGRTMIN+5 SIGRTMIN+6 SIGRTMIN+7 SIGRTMIN+8 SIGRTMIN+9 SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ",
    ),
    ("supplementalGroupsPolicy", &["core.v1.PodSecurityContext"], "Merge Strict"),
    ("terminationMessagePolicy", &["core.v1.Container", "core.v1.EphemeralContainer"], "FallbackToLogsOnError File"),
    (
        "type",
        &["core.v1.HostPathVolumeSource"],
        "- BlockDevice CharDevice Directory DirectoryOrCreate File FileOrCreate Socket",
    ),
    ("type", &["core.v1.ServiceSpec"], "ClusterIP ExternalName LoadBalancer NodePort"),
    ("type", &["core.v1.AppArmorProfile", "core.v1.SeccompProfile"], "Localhost RuntimeDefault Unconfined"),
    ("type", &["apps.v1.DaemonSetUpdateStrategy", "apps.v1.StatefulSetUpdateStrategy"], "OnDelete RollingUpdate"),
    ("type", &["apps.v1.DeploymentStrategy"], "Recreate RollingUpdate"),
    ("unhealthyPodEvictionPolicy", &["policy.v1.PodDisruptionBudgetSpec"], "AlwaysAllow IfHealthyBudget"),
    (
        "usages",
        &["certificates.v1.CertificateSigningRequestSpec"],
        "any cert sign client auth code signing content commitment crl sign data encipherment decipher only digital signature email protection encipher only ipsec end system ipsec tunnel ipsec user key agreement key encipherment microsoft sgc netscape sgc ocsp signing s/mime server auth signing timestamping",
    ),
    ("validationActions", &["admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec"], "Audit Deny Warn"),
    ("volumeBindingMode", &["storage.v1.StorageClass"], "Immediate WaitForFirstConsumer"),
    ("volumeMode", &["core.v1.PersistentVolumeClaimSpec", "core.v1.PersistentVolumeSpec"], "Block Filesystem"),
    ("whenUnsatisfiable", &["core.v1.TopologySpreadConstraint"], "DoNotSchedule ScheduleAnyway"),
];

/// Writes the words of a type's fields into its schema.
pub(super) fn list(name: &str, def: &mut Value) {
    let rows = WORDS.iter().filter(|(_, types, _)| types.iter().any(|t| name.ends_with(t)));
    for (field, _, words) in rows {
        let words: Vec<&str> = words.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
        let Some(p) = def["properties"].get_mut(field) else { continue };
        let at = if p["type"] == "array" { &mut p["items"] } else { p };
        at["enum"] = json!(words);
    }
}
