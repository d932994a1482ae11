//! Ops on K3s, in the cluster and on what runs in it.
use super::Start::Cluster;
use super::Then::{Asks, Continues, Converges};
use super::{Row, Then};

const fn row(op: &'static str, text: &'static str, then: Then) -> Row {
    Row::new(Cluster, op, text, then)
}

const SNAPSHOT: &str = "cluster.snapshot_etcd(site().hosts(\"server\")[0], \"nightly\");\n";
const SAVED: &str = "print(cluster.list_snapshots().len());\n";
const SERVERS: &str = "k3s::ensure_servers(site().hosts(\"server\"), site().k3s);\n";
const LOST: &str = "k3s::uninstall(ssh::connect(\"k3s-cp3\"));\n";
const ROTATE: &str = "cluster.rotate_token(#{ timeout: 10.minutes });\n";
const UPGRADE: &str = "cluster.ensure_upgrade(\"v1.34.10+k3s1\");\n";
const NODES: &str = "for n in cluster.list(\"node\") { print(`${n.metadata.name} ${n.status.nodeInfo.kubeletVersion} ${\"unschedulable\" in n.spec}`); }\n";
const SHOP: &str = "cluster.apply([\
    #{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{ name: \"a\" } },\
    #{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{ name: \"b\" } },\
    ], #{ namespace: \"default\", prune: \"shop\" });\n";
const CERTS: &str = "cluster.ensure_release(\"cert-manager\", #{ chart: \"cert-manager\", repo: \"https://charts.jetstack.io\",\
    version: \"1.20.2\", namespace: \"cert-manager\", values: #{ crds: #{ enabled: true }, replicaCount: 2 } });\n";
const REVISIONS: &str =
    "print(cluster.find_release(\"cert-manager\", #{ namespace: \"cert-manager\" }).history().len());\n";
const POD: &str = "cluster.apply(#{ apiVersion: \"v1\", kind: \"Pod\", metadata: #{ name: \"web\" },\
    spec: #{ containers: [#{ name: \"web\", image: \"registry.k8s.io/pause:3.10\" }], tolerations: [#{ operator: \"Exists\" }] } });\n\
    cluster.wait(\"pod\", \"web\", \"condition=Ready\", 5.minutes);\n";
const CLAIM: &str = "cluster.apply(#{ apiVersion: \"v1\", kind: \"PersistentVolumeClaim\",\
    metadata: #{ name: \"claim-gpuhost-verify\", namespace: \"jupyterhub\" },\
    spec: #{ storageClassName: \"nfs-client\", accessModes: [\"ReadWriteOnce\"], resources: #{ requests: #{ storage: \"1Mi\" } } } });\n";

const LEFT: &str = "let here = #{ namespace: \"default\" };\n\
    cluster.apply(#{ apiVersion: \"v1\", kind: \"PersistentVolumeClaim\", metadata: #{ name: \"data\" },\
    spec: #{ storageClassName: \"nfs-client\", accessModes: [\"ReadWriteOnce\"], resources: #{ requests: #{ storage: \"1Mi\" } } } });\n\
    let made = cluster.wait_until(\"pvc\", \"data\", 5.minutes, here, |c| c != () && c.status.phase == \"Bound\");\n\
    write_file(\"volume\", cluster.get(\"pvc\", \"data\", here).spec.volumeName);\n\
    cluster.delete(\"pvc\", \"data\", here);\n";
const BOUND: &str =
    "print(cluster.get(\"pvc\", \"data\", #{ namespace: \"default\" }).spec.volumeName == read_file(\"volume\"));\n";

pub(super) const ROWS: &[Row] = &[
    row("doctor.restore_volume", "cluster.restore_volume(read_file(\"volume\"));\n", Converges).before(LEFT).shows(BOUND),
    row("k3s.snapshot_etcd", SNAPSHOT, Converges).always().shows(SAVED),
    row(
        "k3s.copy_snapshot",
        "cluster.copy_snapshot(site().hosts(\"server\")[0], cluster.list_snapshots()[0].name, \"backup\");\n",
        Converges,
    )
    .before(SNAPSHOT),
    row(
        "k3s.remove_snapshots",
        "cluster.remove_snapshots(site().hosts(\"server\")[0], \"nightly\", 1);\n",
        Continues,
    )
    .before("for i in 0..3 { cluster.snapshot_etcd(site().hosts(\"server\")[0], \"nightly\"); sleep(2.seconds); }\n")
    .shows(SAVED),
    row(
        "k3s.restore_etcd",
        "k3s::restore_etcd(site().hosts(\"server\"), read_file(\"snapshot\"), #{ folder: \"backup\" });\n",
        Continues,
    )
    .before(
        "let s = site().hosts(\"server\")[0];\nlet name = cluster.snapshot_etcd(s, \"nightly\");\n\
         cluster.copy_snapshot(s, name, \"backup\");\nwrite_file(\"snapshot\", name);\n",
    )
    .always(),
    row("k3s.uninstall", "k3s::uninstall(ssh::connect(\"k3s-gpu1\"));\n", Continues),
    row("k3s.ensure_agent", "cluster.ensure_agent(ssh::connect(\"k3s-gpu1\"));\n", Continues)
        .before("cluster.remove_node(ssh::connect(\"k3s-gpu1\"));\n")
        .shows(NODES),
    row("k3s.ensure_server", SERVERS, Continues).before(LOST).shows(NODES),
    row("k3s.forget_node", SERVERS, Continues).before(LOST).shows(NODES),
    row("k3s.forget_password", SERVERS, Continues).before(LOST).shows(NODES),
    row("k3s.leave_etcd", "cluster.remove_node(ssh::connect(\"k3s-cp3\"));\n", Continues).shows(NODES),
    row("k3s.rotate_token", ROTATE, Continues).always().shows(NODES),
    row("k3s.give_token", ROTATE, Continues).always().shows(NODES),
    row("k3s.note_birth", ROTATE, Converges).always(),
    row("k3s.rotate_certificates", "cluster.rotate_certificates(#{ timeout: 10.minutes });\n", Converges)
        .always()
        .shows(NODES),
    row("k3s.upgrade", UPGRADE, Continues).shows(NODES),
    row("k3s.hold_node", UPGRADE, Converges).shows(NODES),
    row("k3s.release_node", UPGRADE, Converges).shows(NODES),
    row(
        "k3s.restart_agent",
        "gpu::ensure_operator(cluster, site().hosts(\"agent\"), #{ version: site().gpu.operator, driver: site().gpu.driver });\n",
        Converges,
    )
    .fault("runtime-undetected@k3s-gpu1"),
    row(
        "k3s.write_kubeconfig",
        "cluster.write_kubeconfig(\"kubeconfig\", #{ address: \"10.0.0.11\" });\n",
        Converges,
    ),
    row("kubernetes.apply", SHOP, Converges),
    row(
        "kubernetes.prune",
        "cluster.apply(#{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{ name: \"a\" } }, #{ namespace: \"default\", prune: \"shop\" });\n",
        Continues,
    )
    .before(SHOP),
    row("kubernetes.delete", "cluster.delete(\"configmap\", \"a\");\n", Continues).before(SHOP),
    row("kubernetes.cordon", "cluster.cordon(\"k3s-gpu1\");\n", Converges).shows(NODES),
    row("kubernetes.uncordon", "cluster.uncordon(\"k3s-gpu1\");\n", Converges)
        .before("cluster.cordon(\"k3s-gpu1\");\n")
        .shows(NODES),
    row("kubernetes.drain", "cluster.drain(\"k3s-gpu1\", 10.minutes);\n", Continues).shows(NODES),
    row("kubernetes.evict", "cluster.evict(\"web\");\n", Continues).before(POD),
    row("kubernetes.ensure_label", "cluster.ensure_label(\"k3s-gpu1\", #{ \"gpuhost/pool\": \"gpu\" });\n", Converges),
    row("kubernetes.ensure_taint", "cluster.ensure_taint(\"k3s-gpu1\", \"team=a:NoSchedule\");\n", Converges)
        .shows("print(cluster.get(\"node\", \"k3s-gpu1\").spec.taints);\n"),
    row("kubernetes.exec", "cluster.exec(\"web\", [\"true\"]);\n", Asks).before(POD).always(),
    row(
        "kubernetes.request_service",
        "cluster.request_service(site().hosts(\"server\")[0], \"jupyterhub/hub:8081\", #{ method: \"POST\", path: \"/hub/api/users/ada\" });\n",
        Asks,
    )
    .effect("run")
    .always(),
    row(
        "kubernetes.request_service",
        "cluster.request_service(site().hosts(\"server\")[0], \"jupyterhub/hub:8081\", #{ method: \"DELETE\", path: \"/hub/api/users/ada\" });\n",
        Converges,
    )
    .effect("write")
    .always(),
    row("helm.ensure_release", CERTS, Continues).shows(REVISIONS),
    row("helm.remove_release", "cluster.remove_release(\"cert-manager\");\n", Continues),
    row(
        "helm.rollback",
        "cluster.find_release(\"cert-manager\", #{ namespace: \"cert-manager\" }).rollback(1);\n",
        Continues,
    )
    .before(CERTS)
    .shows(REVISIONS),
    row("gpu.ensure_mig", "gpu::ensure_mig(cluster, \"k3s-gpu1\", \"all-1g.5gb\");\n", Converges),
    row(
        "gpu.ensure_operator",
        "gpu::ensure_operator(cluster, site().hosts(\"agent\"), #{ version: site().gpu.operator, driver: site().gpu.driver, time_slicing: 4 });\n",
        Continues,
    ),
    row("gpu.run_test", "sleep(1.hours);\ngpu::run_test(cluster);\n", Converges).always(),
    row("nfs.check_storage_class", "sleep(1.hours);\ncluster.check_storage_class(\"nfs-client\");\n", Converges).always(),
    row(
        "nfs.ensure_nfs_class",
        "cluster.ensure_nfs_class(\"archive\", nfs::export_of(\"10.0.0.31\", \"/srv/nfs/k8s\"), #{ chart: site().storage.csi_driver_nfs });\n",
        Continues,
    ),
    row("nfs.ensure_scratch_class", "cluster.ensure_scratch_class(\"spare\", #{ path: \"/mnt/scratch\" });\n", Continues),
    row(
        "nfs.remove_probe_claim",
        "cluster.remove_probe_claim(\"jupyterhub\", \"claim-gpuhost-verify\");\n",
        Converges,
    )
    .before(CLAIM)
    .always(),
    row("doctor.ensure_replicas", "cluster.ensure_replicas(\"cert-manager\", \"cert-manager\", 3);\n", Converges),
    row(
        "doctor.restart_pods",
        "cluster.restart_pods(\"cert-manager\", \"cert-manager\", \"\");\n",
        Converges,
    )
    .always(),
    row("doctor.start_resync", "cluster.start_resync(site().name);\n", Asks).always(),
];
