//! The schema of NVIDIA's ClusterPolicy as far as its documentation describes fields that recipes set; what is left out
//! is kept as it comes. Grade: docs.
use serde_json::{Map, Value, json};

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn open(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

fn words(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

/// What every operand takes: its image, its environment, its resources.
fn operand(description: &str, more: Value) -> Value {
    let mut fields = json!({
        "enabled": flag("Whether the operator deploys it."),
        "repository": text("Repository of its image."),
        "image": text("Name of its image."),
        "version": text("Tag of its image."),
        "imagePullPolicy": text("When its image is pulled."),
        "imagePullSecrets": words("Secrets for pulling its image."),
        "args": words("Arguments of its container."),
        "env": {"type": "array", "description": "Environment of its container.", "items": {"type": "object",
            "required": ["name"], "properties": {"name": text("Name of the variable."), "value": text("Its value.")}}},
        "resources": open("Requests and limits of its container."),
        "hostNetwork": flag("Whether it uses the node's network."),
    });
    if let (Some(all), Value::Object(more)) = (fields.as_object_mut(), more) {
        all.extend(more);
    }
    json!({"type": "object", "description": description, "properties": fields})
}

fn config() -> Value {
    json!({"type": "object", "description": "ConfigMap with its configurations, and the one that holds by default.",
        "properties": {"name": text("Name of the ConfigMap."), "default": text("Key of the default configuration."),
            "create": flag("Whether the ConfigMap is made."), "data": open("Its content.")}})
}

fn driver() -> Value {
    let drain = json!({"type": "object", "description": "How nodes are drained for an upgrade.", "properties": {
        "enable": flag("Whether nodes are drained."), "force": flag("Whether pods without an owner go, too."),
        "deleteEmptyDir": flag("Whether pods with emptyDir volumes go, too."), "podSelector": text("Which pods go."),
        "timeoutSeconds": {"type": "integer", "minimum": 0, "description": "How long it may take; 0: for ever."}}});
    let upgrade = json!({"type": "object", "description": "How running drivers are upgraded.", "properties": {
        "autoUpgrade": flag("Whether the operator upgrades them by itself."),
        "maxParallelUpgrades": {"type": "integer", "minimum": 0, "description": "Nodes at the same time; 0: all."},
        "maxUnavailable": {"x-kubernetes-int-or-string": true, "description": "Nodes that may be unavailable meanwhile."},
        "drain": drain, "podDeletion": open("Which GPU pods are deleted first."),
        "waitForCompletion": open("Which pods are waited for.")}});
    operand(
        "The driver container.",
        json!({
            "kernelModuleType": {"type": "string", "enum": ["auto", "open", "proprietary"], "default": "auto", "description": "Kind of the kernel modules."},
            "useOpenKernelModules": flag("DEPRECATED: open kernel modules."),
            "usePrecompiled": flag("Whether precompiled modules are used."),
            "useNvidiaDriverCRD": flag("Whether NVIDIADriver objects describe the drivers instead."),
            "rdma": open("GPUDirect RDMA."), "manager": open("The init container that prepares a node for another driver."),
            "licensingConfig": open("Licensing of vGPU."), "virtualTopology": open("Topology of vGPU."),
            "kernelModuleConfig": open("ConfigMap with module parameters."), "repoConfig": open("ConfigMap with package repositories."),
            "certConfig": open("ConfigMap with certificates."), "secretEnv": text("Secret with more environment."),
            "startupProbe": open("Startup probe."), "livenessProbe": open("Liveness probe."), "readinessProbe": open("Readiness probe."),
            "upgradePolicy": upgrade,
        }),
    )
}

/// The schema of `spec`.
pub(super) fn spec() -> Value {
    let mut fields = Map::new();
    fields.insert("operator".into(), json!({"type": "object", "description": "The operator itself.", "properties": {
        "defaultRuntime": text("Container runtime of the nodes."), "metrics": open("Its metrics."),
        "runtimeClass": {"type": "string", "default": "nvidia", "description": "Name of the RuntimeClass it makes."},
        "use_ocp_driver_toolkit": flag("OpenShift's driver toolkit."), "initContainer": open("Init container of the operands."),
        "labels": open("More labels of the operands."), "annotations": open("More annotations of the operands.")}}));
    fields.insert("daemonsets".into(), json!({"type": "object", "description": "What all operand DaemonSets share.", "properties": {
        "labels": open("More labels."), "annotations": open("More annotations."),
        "tolerations": {"type": "array", "items": open("A toleration."), "description": "Tolerations of the operands."},
        "priorityClassName": text("Priority class of the operands."), "podSecurityContext": open("Security context of the pods."),
        "updateStrategy": {"type": "string", "enum": ["RollingUpdate", "OnDelete"], "default": "RollingUpdate", "description": "How operands are updated."},
        "rollingUpdate": {"type": "object", "description": "Limits of a rolling update.", "properties": {"maxUnavailable": text("How many may be unavailable.")}}}}));
    fields.insert("driver".into(), driver());
    let install = json!({"installDir": {"type": "string", "default": "/usr/local/nvidia", "description": "Where the toolkit is installed on the node."}});
    fields.insert("toolkit".into(), operand("The NVIDIA container toolkit.", install));
    let plugin = json!({"config": config(), "mps": open("Settings of MPS.")});
    fields.insert("devicePlugin".into(), operand("The device plugin: it offers GPUs to pods.", plugin));
    fields.insert("gfd".into(), operand("GPU feature discovery: it labels nodes with their cards.", json!({})));
    let exporter = json!({"config": config(), "serviceMonitor": open("ServiceMonitor of the exporter."), "service": open("Its Service."),
        "hostPID": flag("Whether it sees the node's processes."), "enablePodLabels": flag("Whether metrics carry labels of pods."),
        "enablePodUID": flag("Whether metrics carry uids of pods."), "podLabelAllowlistRegex": words("Which labels of pods."),
        "hpcJobMapping": open("Mapping of HPC jobs."), "labels": open("More labels."), "annotations": open("More annotations.")});
    fields.insert("dcgmExporter".into(), operand("The exporter of GPU metrics.", exporter));
    fields.insert(
        "dcgm".into(),
        operand(
            "DCGM as a service of its own.",
            json!({"hostPort": {"type": "integer", "format": "int32", "description": "Its port on the node."}}),
        ),
    );
    fields.insert("nodeStatusExporter".into(), operand("The exporter of the operands' state.", json!({})));
    let manager = json!({"config": config(), "gpuClientsConfig": open("ConfigMap with the GPU clients of a node.")});
    fields.insert("migManager".into(), operand("The MIG manager: it cuts cards as labels of nodes say.", manager));
    fields.insert("mig".into(), json!({"type": "object", "description": "How MIG instances are offered.", "properties": {
        "strategy": {"type": "string", "enum": ["none", "single", "mixed"], "description": "Resource names of MIG instances."}}}));
    fields.insert("validator".into(), operand("The validator: it proves each step on a node.", json!({"driver": open("Validation of the driver."), "toolkit": open("Validation of the toolkit."), "cuda": open("Validation of CUDA."), "plugin": open("Validation of the device plugin."), "vfioPCI": open("Validation of vfio-pci."), "vgpuManager": open("Validation of the vGPU manager."), "vgpuDevices": open("Validation of vGPU devices."), "ccManager": open("Validation of confidential computing.")})));
    fields.insert(
        "cdi".into(),
        json!({"type": "object", "description": "The Container Device Interface.", "properties": {
        "enabled": {"type": "boolean", "default": true, "description": "Whether CDI is used."},
        "default": {"type": "boolean", "default": false, "description": "DEPRECATED: CDI as the default way."},
        "nriPluginEnabled": {"type": "boolean", "default": false, "description": "Whether the NRI plugin is used."}}}),
    );
    fields.insert("hostPaths".into(), json!({"type": "object", "description": "Paths on the nodes.", "properties": {
        "rootFS": text("Root of the node's file system."), "driverInstallDir": text("Where the driver container is found."),
        "kubeletRootDir": {"type": "string", "default": "/var/lib/kubelet", "description": "The kubelet's folder."}}}));
    fields.insert("sandboxWorkloads".into(), json!({"type": "object", "description": "Virtual machines and other sandboxes.", "properties": {
        "enabled": flag("Whether nodes may run them."),
        "mode": {"type": "string", "enum": ["kubevirt", "kata"], "default": "kubevirt", "description": "Which technology."},
        "defaultWorkload": {"type": "string", "enum": ["container", "vm-passthrough", "vm-vgpu"], "default": "container", "description": "What nodes run without a label."}}}));
    fields.insert("psa".into(), json!({"type": "object", "description": "Pod Security Admission.", "properties": {"enabled": flag("Whether namespaces are labelled.")}}));
    fields.insert("psp".into(), open("DEPRECATED: pod security policies."));
    for (name, what) in [
        ("gds", "GPUDirect Storage."),
        ("gdrcopy", "GDRCopy."),
        ("fabricManager", "Fabric manager."),
        ("vgpuManager", "The vGPU manager."),
        ("vgpuDeviceManager", "The vGPU device manager."),
        ("vfioManager", "The vfio manager."),
        ("sandboxDevicePlugin", "The device plugin for sandboxes."),
        ("kataSandboxDevicePlugin", "The device plugin for Kata."),
        ("kataManager", "The Kata manager."),
        ("ccManager", "Confidential computing."),
    ] {
        let mut schema = operand(what, json!({}));
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        fields.insert(name.into(), schema);
    }
    json!({"type": "object", "description": "ClusterPolicySpec defines the desired state of ClusterPolicy.",
        "required": ["daemonsets", "dcgm", "dcgmExporter", "devicePlugin", "driver", "gfd", "nodeStatusExporter", "operator", "toolkit"],
        "properties": fields})
}

/// The schema of `status`.
pub(super) fn status() -> Value {
    json!({"type": "object", "description": "ClusterPolicyStatus defines the observed state of ClusterPolicy.", "required": ["state"], "properties": {
        "state": {"type": "string", "enum": ["ignored", "ready", "notReady"], "description": "State of the operands."},
        "namespace": text("Namespace of the operator."),
        "conditions": {"type": "array", "description": "Conditions of the policy.", "items": open("A condition.")}}})
}
