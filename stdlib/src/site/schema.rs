//! The keys of the site file with their docs and types: one list for validation and the reference page.
use crate::core::options::Field;

/// One section: where it stands, its keys, whether it may be left out.
pub struct Section {
    /// Path; `*` stands for any name (`roles.*`).
    pub path: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
}

const fn f(name: &'static str, ty: &'static str, default: Option<&'static str>, doc: &'static str) -> Field {
    Field { name, doc, ty, default }
}
const NONE: Option<&str> = Some("none");

/// Keys that shape a machine; valid in a role and in a node.
pub const SHAPE: &[Field] = &[
    f("cores", "int", Some("2"), "vCPUs."),
    f("memory", "Size", Some("4 GiB"), "Memory."),
    f("disk", "Size", Some("32 GiB"), "System disk."),
    f("scratch", "Size", NONE, "Scratch disk: local, fast, not backed up."),
    f("data", "Size", NONE, "Data disk: cleanup keeps it."),
    f("gpus", "int", Some("0"), "GPUs passed through."),
    f("gpu_mapping", "string", Some("gpu.mapping"), "PCI mapping the GPUs come from."),
    f(
        "mig",
        "string",
        NONE,
        "MIG configuration of its cards, for example `all-1g.5gb` or `all-disabled`; without it deploy leaves them as they are.",
    ),
    f("disk_storage", "string", Some("proxmox.storage"), "Storage of the system disk."),
    f("scratch_storage", "string", Some("proxmox.storage"), "Storage of the scratch disk."),
    f("data_storage", "string", Some("proxmox.storage"), "Storage of the data disk."),
    f("cache", "string", Some("none"), "Cache mode of the disks."),
    f("backup", "bool", Some("true"), "Whether vzdump backs the system disk up."),
    f("cpu", "string", Some("host"), "CPU type."),
    f("full_clone", "bool", Some("true"), "Full clone of the template instead of a linked one."),
    f("onboot", "bool", Some("true"), "Start with the hypervisor."),
    f("labels", "Map", NONE, "Kubernetes node labels."),
    f("taints", "[string]", NONE, "Kubernetes node taints (`key=value:Effect`)."),
    f("packages", "[string]", NONE, "Extra packages."),
    f("system", "Map", NONE, "More of the wanted host state: keys of `host.ensure`."),
    f("config", "Map", NONE, "More VM options by Proxmox's own names, for example `{ numa = 1 }`."),
];

/// Every section of the site file.
pub const SECTIONS: &[Section] = &[
    Section {
        path: "site",
        doc: "Name and identity.",
        fields: &[
            f("name", "string", None, "Label; names the pool `gpuhost-<name>`."),
            f("uuid", "string", None, "Identity: objects on the hypervisor belong to this."),
        ],
    },
    Section {
        path: "proxmox",
        doc: "How to reach the hypervisor.",
        fields: &[
            f("url", "string", None, "`https://host:8006`."),
            f("token_id", "string", NONE, "API token `user@realm!id`; or `user` and `password`."),
            f("token", "secret", NONE, "Its secret, as a reference."),
            f("user", "string", NONE, "User `name@realm` that logs in instead of a token."),
            f("password", "secret", NONE, "The user's password, as a reference."),
            f("fingerprint", "string", NONE, "SHA-256 of the server's certificate."),
            f("ca_file", "string", NONE, "CA file (PEM)."),
            f("pve_node", "string", None, "Default hypervisor node."),
            f("storage", "string", None, "Storage of VM disks."),
            f("image_storage", "string", None, "Storage of images and ISOs."),
        ],
    },
    Section {
        path: "network",
        doc: "Addresses.",
        fields: &[
            f("bridge", "string", None, "Bridge of the hypervisor."),
            f("vlan", "int", NONE, "VLAN tag."),
            f("cidr", "string", None, "Node subnet."),
            f("gateway", "string", None, "Default gateway."),
            f("dns", "[string]", None, "Name servers."),
            f("domain", "string", NONE, "Search domain."),
        ],
    },
    Section {
        path: "template",
        doc: "The VM template.",
        fields: &[
            f("name", "string", None, "Name of the template VM."),
            f("vmid", "int", None, "Its id."),
            f("pve_node", "string", Some("proxmox.pve_node"), "Hypervisor node it lives on."),
            f("existing", "bool", Some("false"), "Use the template as it is."),
            f("image_url", "string", NONE, "Cloud image."),
            f("image_sha256", "string", NONE, "Its SHA-256, which Proxmox checks (Ubuntu publishes this one)."),
            f("image_sha512", "string", NONE, "Its SHA-512, which Proxmox checks (Debian publishes this one)."),
            f("packages", "[string]", Some("[]"), "Packages built into the template."),
            f(
                "vmids",
                "Map",
                NONE,
                "Ids of its copies on other hypervisor nodes with local storage: `{ pve2 = 9001 }`.",
            ),
        ],
    },
    Section {
        path: "ssh",
        doc: "How to log in to nodes.",
        fields: &[
            f("user", "string", None, "User that cloud-init makes."),
            f("key", "secret", None, "Private key, as a reference."),
            f("authorized_keys", "[string]", Some("[]"), "More public keys that may log in."),
        ],
    },
    Section {
        path: "roles.*",
        doc: "Kind and shape of machines.",
        fields: &[f("kind", "string", None, "`server`, `agent` or `storage`.")],
    },
    Section {
        path: "nodes.*",
        doc: "One machine; shape keys override the role's.",
        fields: &[
            f("name", "string", None, "VM, host and node name."),
            f("role", "string", None, "Role."),
            f("pve_node", "string", Some("proxmox.pve_node"), "Hypervisor node."),
            f("vmid", "int", None, "VM id."),
            f("ip", "string", None, "IPv4 address."),
            f("mac", "string", Some("derived"), "MAC address."),
        ],
    },
    Section {
        path: "k3s",
        doc: "Options of `k3s::ensure_servers`.",
        fields: &[
            f("version", "string", None, "Release, for example `v1.34.9+k3s1`."),
            f("token", "secret", None, "Cluster token, as a reference."),
            f("address", "string", None, "Where kubectl and agents go: a VIP, a DNS name or a server's address."),
            f("vip", "bool", Some("false"), "`address` is a virtual IP that kube-vip holds."),
            f("cluster_cidr", "string", Some("10.42.0.0/16"), "Pod addresses."),
            f("service_cidr", "string", Some("10.43.0.0/16"), "Service addresses."),
            f("disable", "[string]", Some("[]"), "Packaged components to leave out."),
            f("cis", "bool", Some("true"), "CIS settings and secrets encryption."),
            f(
                "pod_security",
                "string",
                NONE,
                "Pod Security standard of namespaces whose labels name none: `baseline` or `restricted`.",
            ),
            f("registries", "Map", Some("#{}"), "Registry mirrors: host to endpoint."),
            f("tls_san", "[string]", Some("[]"), "More names in the API server's certificate."),
            f(
                "taints",
                "[string]",
                NONE,
                "Taints that servers get; default: the control plane's, when there are agents.",
            ),
            f("config", "Map", Some("#{}"), "More keys of K3s' config.yaml, on every server."),
            f("snapshot_cron", "string", Some("0 */6 * * *"), "When etcd snapshots are saved, in cron's form."),
            f("snapshot_keep", "int", Some("20"), "How many scheduled snapshots a server keeps."),
            f("binary", "string", NONE, "Local file with K3s' binary, for nodes without internet."),
            f("binary_sha256", "string", NONE, "SHA-256 of `binary`."),
            f("images", "[string]", Some("[]"), "Local files with container images for every node."),
        ],
    },
    Section {
        path: "storage",
        doc: "NFS and scratch storage classes.",
        fields: &[
            f("nfs_path", "string", None, "Directory the storage node exports."),
            f("nfs_server", "string", NONE, "Existing NFS server instead of a storage node."),
            f("nfs_class", "string", None, "Name of the default storage class."),
            f("csi_driver_nfs", "string", None, "Version of the csi-driver-nfs chart."),
            f("scratch_class", "string", Some("fast-scratch"), "Name of the scratch class."),
            f("scratch_path", "string", Some("/mnt/scratch"), "Where scratch disks are mounted."),
        ],
    },
    Section {
        path: "gpu",
        doc: "GPU mapping and operator.",
        fields: &[
            f("mapping", "string", None, "PCI resource mapping."),
            f("device", "string", None, "`vendor:device` of the cards."),
            f("operator", "string", None, "Version of the gpu-operator chart."),
            f("driver", "string", None, "Driver version, or `preinstalled`."),
            f(
                "mig_strategy",
                "string",
                Some("single"),
                "How MIG instances are named: `single` (each is a `nvidia.com/gpu`), `mixed` (`nvidia.com/mig-1g.5gb`), `none`.",
            ),
            f("time_slicing", "int", Some("1"), "Pods that take turns on one card."),
            f("mps", "int", Some("1"), "Pods that share one card at the same time through MPS."),
            f(
                "toolkit",
                "bool",
                Some("true"),
                "The operator brings the container toolkit; `false`: every GPU machine has its own.",
            ),
            f("dcgm", "bool", Some("true"), "The operator runs the exporter of the cards' metrics."),
            f("cdi", "bool", Some("true"), "Containers get cards by the Container Device Interface."),
        ],
    },
    Section {
        path: "platform.cert_manager",
        doc: "cert-manager.",
        fields: &[f("version", "string", None, "Chart version.")],
    },
    Section {
        path: "platform.rancher",
        doc: "Rancher.",
        fields: &[
            f("version", "string", None, "Chart version."),
            f("hostname", "string", None, "Host name of its ingress."),
            f("replicas", "int", Some("3"), "Replicas."),
        ],
    },
    Section {
        path: "platform.fleet",
        doc: "The Git repository that Fleet follows.",
        fields: &[
            f("repo", "string", None, "URL."),
            f("branch", "string", Some("main"), "Branch."),
            f("paths", "[string]", Some("[]"), "Folders."),
        ],
    },
    Section {
        path: "platform.jupyterhub",
        doc: "JupyterHub.",
        fields: &[
            f("version", "string", None, "Chart version."),
            f("hostname", "string", None, "Host name of its ingress."),
            f("admin_users", "[string]", Some("[]"), "Users with the admin role."),
        ],
    },
    Section {
        path: "platform.monitoring",
        doc: "kube-prometheus-stack.",
        fields: &[f("version", "string", None, "Chart version.")],
    },
    Section {
        path: "permissions",
        doc: "Extra grants.",
        fields: &[
            f("files", "[string]", Some("[]"), "Paths recipes may read and write."),
            f("programs", "[string]", Some("[]"), "Programs of this machine that recipes may run, for example `helm`."),
        ],
    },
    Section {
        path: "lab",
        doc: "Written by `gpuhost lab serve`: the shared clock.",
        fields: &[f("control", "string", NONE, "Address of the control endpoint.")],
    },
];

/// Sections that may be absent.
pub const OPTIONAL: &[&str] = &[
    "gpu",
    "storage",
    "connect",
    "permissions",
    "lab",
    "platform",
    "platform.cert_manager",
    "platform.rancher",
    "platform.fleet",
    "platform.jupyterhub",
    "platform.monitoring",
];
