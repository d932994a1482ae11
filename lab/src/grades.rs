//! What every simulated behaviour rests on. One row holds for the files whose path below `lab/src` begins with its
//! key, unless a longer key fits; a run marks the rows that it meets.
use serde::Serialize;

use crate::world::World;

/// How much is known about a behaviour, from the most to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Compared with what a real system answered.
    Recorded,
    /// Follows the source of the real program.
    Source,
    /// Follows its documentation and reports of its users.
    Docs,
    /// Likely, and compared with nothing.
    Estimate,
}

impl Grade {
    /// All of them.
    pub const ALL: [Grade; 4] = [Grade::Recorded, Grade::Source, Grade::Docs, Grade::Estimate];

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Grade::Recorded => "recorded",
            Grade::Source => "source",
            Grade::Docs => "docs",
            Grade::Estimate => "estimate",
        }
    }
}

/// One simulated behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Behaviour {
    /// Beginning of the path of its code below `lab/src`.
    pub key: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What is known about it.
    pub grade: Grade,
    /// Where that comes from.
    pub from: &'static str,
}

const fn row(key: &'static str, what: &'static str, grade: Grade, from: &'static str) -> Behaviour {
    Behaviour { key, what, grade, from }
}

use Grade::{Docs, Estimate, Recorded, Source};

const PVE: &str = "requests and answers of Proxmox VE 9.1";
const PVE_SCHEMA: &str = "official API schema and manual of Proxmox VE";
const PVE_SOURCE: &str = "qemu-server, pve-common, pve-access-control";
const REST: &str = "requests and answers of the Kubernetes API machinery 1.34";
const CONTROL: &str = "a control plane 1.36.2, side by side with the lab";
const KUBE_DOCS: &str = "documentation of Kubernetes";
const MANUAL: &str = "manual pages and outputs of Debian 12";

/// Every behaviour. What no row names is not simulated.
pub const BEHAVIOURS: &[Behaviour] = &[
    row("pve/", "Proxmox API: envelope, errors, parameters, locks, other lists", Recorded, PVE),
    row("pve/access", "Proxmox users, tokens, tickets", Recorded, PVE),
    row("pve/acl", "Proxmox permissions", Source, PVE_SOURCE),
    row("pve/agent", "Proxmox guest agent endpoints", Recorded, PVE),
    row(
        "pve/apt",
        "packages and repositories of a hypervisor node",
        Estimate,
        "a fresh installation; nothing is installed",
    ),
    row("pve/backup", "Proxmox backups and restore", Docs, PVE_SCHEMA),
    row("pve/birth", "the hypervisor before anything is deployed", Estimate, "lab specification"),
    row("pve/capabilities", "processors and machine types that Proxmox offers", Docs, PVE_SCHEMA),
    row("pve/cluster", "Proxmox cluster lists, free ids", Recorded, PVE),
    row("pve/cluster_more", "Proxmox notifications and orders for many machines", Docs, PVE_SCHEMA),
    row("pve/content", "Proxmox storage contents, downloads", Recorded, PVE),
    row("pve/disks", "disks of a hypervisor node", Estimate, "the storages of the lab specification"),
    row("pve/firewall", "Proxmox firewall settings (no packet is filtered)", Docs, PVE_SCHEMA),
    row("pve/groups", "Proxmox groups and realms", Docs, PVE_SCHEMA),
    row("pve/ha", "Proxmox high availability", Docs, PVE_SCHEMA),
    row("pve/jobs", "Proxmox backup jobs", Docs, PVE_SCHEMA),
    row("pve/logs", "journal and report of a hypervisor node", Docs, PVE_SCHEMA),
    row("pve/mapping", "Proxmox PCI resource mappings", Recorded, PVE),
    row("pve/mapping_other", "Proxmox mappings of USB devices and directories", Docs, PVE_SCHEMA),
    row("pve/metrics", "Proxmox metric servers and export", Docs, PVE_SCHEMA),
    row("pve/network", "Proxmox node networks", Docs, PVE_SCHEMA),
    row("pve/nodes", "Proxmox nodes and their PCI devices", Recorded, PVE),
    row("pve/pools", "Proxmox pools", Recorded, PVE),
    row("pve/prune", "Proxmox backup pruning", Docs, PVE_SCHEMA),
    row("pve/qemu/", "Proxmox machines: create, config, pending, lists", Recorded, PVE),
    row("pve/qemu/clone", "Proxmox full and linked clones", Recorded, PVE),
    row("pve/qemu/migrate", "Proxmox migration", Docs, PVE_SCHEMA),
    row("pve/qemu/move_disk", "Proxmox moving of disks", Docs, PVE_SCHEMA),
    row("pve/qemu/pci", "which cards a starting machine gets", Source, PVE_SOURCE),
    row("pve/qemu/perms", "privileges that options of a machine take", Source, PVE_SOURCE),
    row("pve/qemu/power", "Proxmox start, stop, shutdown", Recorded, PVE),
    row("pve/qemu/snapshot", "Proxmox snapshots", Recorded, PVE),
    row("pve/sdn", "Proxmox software-defined networks (settings only)", Docs, PVE_SCHEMA),
    row("pve/space", "room on storages; how long allocation takes", Estimate, "no storage was measured"),
    row("pve/task", "Proxmox tasks: logs, states, abort", Recorded, PVE),
    row("guest/", "the machine's own state: accounts, mounts, units, files", Docs, MANUAL),
    row("guest/agent", "what the guest agent says of a machine", Recorded, PVE),
    row("guest/apt", "packages and how long they take to install", Estimate, "Debian 12; durations are not measured"),
    row("guest/boot", "how a machine starts and how long that takes", Estimate, "durations are not measured"),
    row("guest/cloudinit", "cloud-init on the first and later boots", Docs, "documentation of cloud-init 24 and 25"),
    row("guest/k3s", "the K3s service of a machine", Source, "K3s"),
    row("guest/nfs", "NFS exports and mounts", Docs, MANUAL),
    row("guest/programs/", "programs of a machine", Docs, MANUAL),
    row("guest/programs/apt", "apt and dpkg", Docs, MANUAL),
    row("guest/programs/cards", "lspci and where nvidia-smi runs", Docs, "documentation of NVIDIA's driver"),
    row("smi", "what nvidia-smi prints", Docs, "documentation of NVIDIA's driver"),
    row("guest/programs/k3s", "the k3s program", Source, "K3s"),
    row("guest/programs/web", "downloads", Estimate, "answers of a few known servers"),
    row("guest/shell", "the shell language", Source, "bashkit, held against bash and dash"),
    row("bash", "what scripts of guests and containers read and write", Source, "bashkit, held against bash and dash"),
    row("guest/ssh", "SSH sessions, terminals, SFTP, forwarding", Docs, "RFC 4253 and 4254; used with OpenSSH"),
    row("kube/", "what happens in the cluster", Docs, KUBE_DOCS),
    row("kube/api/", "Kubernetes API: read, write, list, watch, patch, tables", Recorded, REST),
    row("kube/api/metrics", "metrics of nodes and pods", Estimate, "usage follows requests"),
    row("kube/api/kubelet", "what kubelets serve through the proxy", Estimate, "usage follows requests"),
    row("kube/api/openapi", "OpenAPI documents", Source, "k8s-openapi, generated from Kubernetes"),
    row("kube/api/published", "what published schemas require", Recorded, "kube-apiserver 1.36.2"),
    row("kube/api/words", "words that published schemas allow", Recorded, "kube-apiserver 1.36.2"),
    row("kube/api/rbac", "RBAC decisions", Docs, KUBE_DOCS),
    row("kube/api/stream", "exec, attach, logs, port-forward", Docs, "used with kubectl and the Python client"),
    row(
        "kube/answers",
        "what the platform's programs answer on their ports",
        Docs,
        "their documentation of health checks",
    ),
    row("kube/charts", "objects of the catalogue's charts", Source, "the charts' own values and templates"),
    row("kube/container", "programs in containers", Estimate, "plain images only"),
    row("kube/controllers/", "Kubernetes controllers", Docs, KUBE_DOCS),
    row("kube/controllers/deployments", "rollouts of Deployments", Recorded, CONTROL),
    row("kube/controllers/endpoints", "what stands behind Services", Recorded, CONTROL),
    row("kube/controllers/jobs", "Jobs", Recorded, CONTROL),
    row("kube/controllers/mirror", "slices of Endpoints that are written by hand", Recorded, CONTROL),
    row("kube/controllers/progress", "what is said of Deployments", Recorded, CONTROL),
    row("kube/controllers/replicasets", "ReplicaSets and ReplicationControllers", Recorded, CONTROL),
    row("kube/controllers/tally", "pods of Jobs, each counted once", Recorded, CONTROL),
    row("kube/controllers/taints", "taints that follow from how a node is", Source, "kube-controller-manager"),
    row("kube/controllers/behaviour", "what containers do; how long they take", Estimate, "durations are not measured"),
    row("kube/controllers/claims", "provisioners of volumes", Docs, "csi-driver-nfs, local-path-provisioner"),
    row("kube/controllers/fleet", "Fleet", Docs, "documentation of Fleet 0.14"),
    row("kube/controllers/gpu", "NVIDIA GPU Operator", Docs, "documentation and issues of the GPU Operator"),
    row("kube/controllers/helmpacked", "charts that come as an archive", Source, "Helm renders them itself"),
    row("kube/controllers/helm", "helm-controller and its jobs", Source, "helm-controller, klipper-helm"),
    row("kube/controllers/hub", "JupyterHub", Docs, "documentation of JupyterHub and zero-to-jupyterhub"),
    row("kube/controllers/images", "image pulls", Estimate, "no registry was measured"),
    row("kube/controllers/kubelet", "kubelet: pods, probes, restarts", Docs, KUBE_DOCS),
    row("kube/controllers/lifecycle", "hooks of containers and their end", Source, "pkg/kubelet of Kubernetes"),
    row("kube/controllers/localpath", "local-path provisioner", Source, "local-path-provisioner"),
    row("kube/controllers/lost", "nodes that do not answer", Docs, KUBE_DOCS),
    row("kube/controllers/pulls", "image pulls that fail", Source, "pkg/kubelet/images of Kubernetes"),
    row("kube/controllers/quotas", "quotas", Source, "Kubernetes"),
    row("kube/controllers/rancher", "Rancher", Estimate, "documentation of Rancher"),
    row(
        "kube/controllers/registry",
        "which images there are",
        Estimate,
        "texts of containerd's issues; tags by pattern",
    ),
    row("kube/controllers/release", "Helm releases", Recorded, "releases that helm 3 and 4 have written"),
    row("kube/controllers/scores", "which node the scheduler likes best", Source, "kube-scheduler"),
    row("kube/controllers/scheduler", "scheduler", Docs, KUBE_DOCS),
    row("kube/ingress", "host names from outside: ServiceLB and Traefik", Docs, "documentation of K3s and Traefik"),
    row("kube/k3s", "K3s: joining, etcd members, certificates, packaged parts", Source, "K3s"),
    row("kube/objectset", "marks of Rancher's controllers on what they make", Source, "wrangler"),
    row(
        "kube/controllers/ingresses",
        "addresses that Traefik writes on Ingresses",
        Source,
        "Traefik's provider for Ingresses",
    ),
    row("kube/controllers/servicelb", "K3s' load balancer for Services", Source, "K3s, klipper-lb"),
    row("kube/k3s/roles", "roles and bindings of every cluster", Recorded, "kube-apiserver 1.36.2"),
    row("kube/schema/gotime", "times as Go reads them", Recorded, REST),
    row("kube/schema", "schemas of built-in kinds", Source, "k8s-openapi, generated from Kubernetes"),
    row("kube/store", "server-side apply, patches, versions, owners", Recorded, REST),
    row(
        "kube/store/standards",
        "Pod Security by the API server's own configuration (one for all servers)",
        Source,
        "pod-security-admission",
    ),
    row("card", "graphics cards", Estimate, "no card was measured"),
    row("fault", "faults by rule or seed", Docs, "used for drills only"),
    row("git", "the Git remote", Docs, "protocol documentation of Git"),
    row(
        "incidents",
        "incidents and their symptoms",
        Docs,
        "recordings, documentation, issue threads: each names its own",
    ),
    row("lan", "what else is on the network", Estimate, "lab specification"),
    row("tls", "certificates", Source, "rustls and rcgen"),
    row("volume", "contents of disks", Estimate, "only what is written is kept"),
];

/// The row that holds for a piece of code.
#[must_use]
pub fn of(path: &str) -> Option<&'static Behaviour> {
    BEHAVIOURS.iter().filter(|b| path.starts_with(b.key)).max_by_key(|b| b.key.len())
}

/// Something that the row of `key` does not cover, in the words of the closing report.
#[must_use]
pub fn missing(what: &str, key: &str) -> String {
    gpuhost_stdlib::wire::blind::missing(what, of(key).map_or("the lab's behaviours", |b| b.what))
}

impl World {
    /// Notes that the behaviour of the code at `path` was used.
    pub(crate) fn meets(&mut self, path: &str) {
        // Mostly it is a row's own key, met before.
        if self.met.contains(path) {
            return;
        }
        if let Some(b) = of(path) {
            self.met.insert(b.key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &std::path::Path, base: &std::path::Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, base, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_that_simulates_something_has_a_grade_and_every_row_a_file() {
        let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut all = Vec::new();
        files(&base, &base, &mut all);
        // The frame: it holds and starts what the others do.
        let frame = ["lib.rs", "spec.rs", "world.rs", "grades.rs", "seed/"];
        let bare: Vec<&String> =
            all.iter().filter(|f| of(f).is_none() && !frame.iter().any(|x| f.starts_with(x))).collect();
        assert!(bare.is_empty(), "no row of BEHAVIOURS names {bare:?}");
        for b in BEHAVIOURS {
            assert!(all.iter().any(|f| f.starts_with(b.key)), "no file begins with {:?}", b.key);
            assert_eq!(BEHAVIOURS.iter().filter(|o| o.key == b.key).count(), 1, "{:?} has two rows", b.key);
        }
    }

    #[test]
    fn what_the_closing_report_refers_to_has_a_row() {
        use gpuhost_stdlib::wire::blind::{CHARTS, PROGRAMS};
        for named in [CHARTS, PROGRAMS] {
            assert!(BEHAVIOURS.iter().any(|b| b.what == named), "{named}");
        }
        assert!(missing("x", "guest/programs/web").contains("`downloads`"));
    }

    #[test]
    fn the_longest_key_holds() {
        assert_eq!(of("pve/qemu/clone.rs").unwrap().key, "pve/qemu/clone");
        assert_eq!(of("pve/qemu/create.rs").unwrap().key, "pve/qemu/");
        assert_eq!(of("pve/text.rs").unwrap().key, "pve/");
        assert_eq!(of("elsewhere.rs"), None);
    }
}
