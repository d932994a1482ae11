use std::path::Path;

use super::*;

const DEFAULT: &str = include_str!("../../../recipes/site.toml");

fn findings(text: &str) -> Vec<String> {
    match load(Path::new("site.toml"), text) {
        Ok(_) => Vec::new(),
        Err(f) => {
            f.iter().map(|f| format!("{}: {} | {}", f.line, f.message, f.hint.as_deref().unwrap_or(""))).collect()
        }
    }
}

fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|l| l.contains(part)).unwrap() + 1
}

#[test]
fn the_default_site_loads() {
    let site = load(Path::new("recipes/site.toml"), DEFAULT).unwrap();
    assert_eq!(site.nodes.len(), 8);
    assert_eq!(site.gpu_count(), 8);
    assert_eq!(site.cluster_nodes().count(), 7);
    let n = site.node("k3s-gpu2").unwrap();
    assert_eq!(n.shape.memory, Some(crate::core::units::Size::gib(128)));
    assert!(n.mac.starts_with("BC:24:11:"));
    assert_eq!(n.scratch_device().as_deref(), Some("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_gh-scratch-212"));
    assert_eq!(site.node("k3s-gpu9").unwrap_err().hint.as_deref(), Some("did you mean `k3s-gpu1`?"));
}

#[test]
fn a_misspelt_key_points_at_its_line() {
    let text = DEFAULT.replace("gateway = ", "gatway = ");
    let f = findings(&text);
    let line = line_of(&text, "gatway");
    assert!(f.contains(&format!("{line}: unknown key `gatway` | did you mean `gateway`?")), "{f:?}");
}

#[test]
fn checksums_and_fingerprints_have_their_length() {
    let text = DEFAULT.replacen("image_sha512 = \"08", "image_sha512 = \"", 1).replacen(
        "[network]",
        "fingerprint = \"AA:BB:CC\"\n[network]",
        1,
    );
    let f = findings(&text);
    assert!(f.iter().any(|l| l.contains("is no SHA-512: that has 128 hexadecimal digits")), "{f:?}");
    assert!(f.iter().any(|l| l.contains("`AA:BB:CC` is no SHA-256 fingerprint")), "{f:?}");
}

#[test]
fn detours_lead_from_a_port_to_a_port() {
    let ways = "[connect]\n\"10.0.0.11:22\" = \"foo\"\n\"10.0.0.12:22\" = \"127.0.0.1:2212\"";
    let f = findings(&DEFAULT.replacen("\n[connect]", &format!("\n{ways}"), 1));
    assert_eq!(f.iter().filter(|l| l.contains("`foo` is not of the form `host:port`")).count(), 1, "{f:?}");
    assert!(!f.iter().any(|l| l.contains("2212")), "{f:?}");
}

/// The text without this section.
fn without(text: &str, section: &str) -> String {
    let at = text.find(section).unwrap();
    let end = text[at + 1..].find("\n[").map_or(text.len(), |e| at + 1 + e);
    format!("{}{}", &text[..at], &text[end..])
}

#[test]
fn charts_that_need_another_one_say_so() {
    let f = findings(&without(DEFAULT, "[platform.rancher]"));
    assert!(f.iter().any(|l| l.contains("Fleet comes with Rancher") && l.contains("[platform.rancher]")), "{f:?}");
    let text = without(DEFAULT, "[platform.cert_manager]");
    let (_, list) = super::load_with_warnings(Path::new("site.toml"), &text).unwrap();
    assert!(list.iter().any(|f| f.warning && f.message.contains("cert-manager Issuer")), "{list:?}");
}

#[test]
fn units_and_types_are_checked_in_place() {
    let text = DEFAULT.replacen("memory = \"16 GiB\"", "memory = 16", 1).replacen("cores = 4", "cores = \"four\"", 1);
    let f = findings(&text);
    assert!(f.iter().any(|l| l.contains("`memory`: expected a size such as `\"16 GiB\"`, found `16`")), "{f:?}");
    assert!(f.iter().any(|l| l.contains("`cores`: expected a whole number, found `\"four\"`")), "{f:?}");
}

#[test]
fn duplicates_and_addresses_outside_the_subnet() {
    let text = DEFAULT
        .replace("ip = \"10.0.0.12\"", "ip = \"10.0.0.11\"")
        .replace("vmid = 203", "vmid = 9000")
        .replace("name = \"k3s-gpu2\"", "name = \"k3s-gpu1\"")
        .replace("ip = \"10.0.0.24\"", "ip = \"10.0.1.24\"");
    let f = findings(&text);
    for part in [
        "duplicate ip `10.0.0.11`",
        "duplicate vmid `9000`",
        "duplicate name `k3s-gpu1`",
        "address `10.0.1.24` is outside 10.0.0.0/24",
    ] {
        assert!(f.iter().any(|l| l.contains(part)), "{part}: {f:?}");
    }
}

#[test]
fn labels_and_taints_are_checked_where_they_stand() {
    let own = "gpus = 2\ntaints = [\"nvidia.com/gpu=present:NoSchedul\"]\nlabels = { \"a b\" = \"gpu\" }";
    let f = findings(&DEFAULT.replacen("gpus = 2", own, 1));
    let here = |part: &str| f.iter().filter(|l| l.contains(part)).count();
    assert_eq!(
        (here("`nvidia.com/gpu=present:NoSchedul` is not a taint"), here("`a b` is no name of a label")),
        (1, 1),
        "{f:?}"
    );
}

#[test]
fn an_address_that_nobody_has_is_a_warning() {
    let warned = |text: &str| -> Vec<String> {
        let (_, list) = super::load_with_warnings(Path::new("site.toml"), text).unwrap();
        list.iter().map(|f| f.message.clone()).collect()
    };
    assert_eq!(warned(DEFAULT), Vec::<String>::new());
    let other = DEFAULT.replacen("address = \"10.0.0.11\"", "address = \"10.0.0.9\"", 1);
    assert_eq!(warned(&other), ["no server has the address `10.0.0.9`"]);
    let held = other.replacen("address = \"10.0.0.9\"", "address = \"10.0.0.9\"\nvip = true", 1);
    assert_eq!(warned(&held), Vec::<String>::new());
}

#[test]
fn two_default_storage_classes_are_a_warning() {
    let text = DEFAULT.replacen("[\"local-storage\"]", "[]", 1);
    let (_, list) = super::load_with_warnings(Path::new("site.toml"), &text).unwrap();
    assert!(list.len() == 1 && list[0].warning && list[0].message.contains("two default storage classes"), "{list:?}");
}

#[test]
fn a_secret_in_plain_text_is_refused() {
    let text = DEFAULT.replace("token = \"state:k3s_token\"", "token = \"hunter2\"");
    let f = findings(&text);
    assert!(f[0].contains("expected a reference"), "{f:?}");
    assert!(!f[0].contains("hunter2"));
}

#[test]
fn syntax_errors_have_a_place() {
    let f = findings("[site]\nname = \n[x\n");
    assert!(f[0].starts_with("2: "), "{f:?}");
}

#[test]
fn a_node_overrides_its_role() {
    let text = DEFAULT.replace("ip = \"10.0.0.22\"", "ip = \"10.0.0.22\"\nmemory = \"64 GiB\"");
    let site = load(Path::new("site.toml"), &text).unwrap();
    assert_eq!(site.node("k3s-gpu2").unwrap().shape.memory, Some(crate::core::units::Size::gib(64)));
    assert_eq!(site.node("k3s-gpu2").unwrap().shape.gpu_count(), 2);
}

#[test]
fn values_that_k3s_and_the_operator_do_not_take_are_found() {
    let more = "[k3s]\nconfig = { \"kubelt-arg\" = [] }\nsnapshot_cron = \"every day\"\ntls_san = [\"k8s lab\"]\nregistries = { \"docker.io\" = \"mirror\" }";
    let text = DEFAULT
        .replacen("\n[k3s]", &format!("\n{more}"), 1)
        .replacen("disable = [\"local-storage\"", "disable = [\"servicelbb\", \"local-storage\"", 1)
        .replacen("driver = \"580.126.09\"", "driver = \"prebuilt\"", 1);
    let f = findings(&text);
    for (part, said) in [
        ("kubelt-arg", "K3s has no option `kubelt-arg` | did you mean `kubelet-arg`?"),
        ("every day", "`snapshot_cron` is no schedule"),
        ("k8s lab", "`k8s lab` is neither a host name nor an address"),
        ("\"mirror\"", "`mirror` is no URL of a registry"),
        ("servicelbb", "K3s has no packaged component `servicelbb` | did you mean `servicelb`?"),
        ("prebuilt", "`prebuilt` is not a driver version"),
    ] {
        let at = format!("{}: ", line_of(&text, part));
        assert!(f.iter().any(|l| l.starts_with(&at) && l.contains(said)), "{said}: {f:?}");
    }
}

#[test]
fn a_chart_that_refuses_the_kubernetes_is_a_warning_before_anything_runs() {
    let at = |k3s: &str, rancher: &str| -> Vec<(bool, String)> {
        let text = DEFAULT.replacen("v1.34.9+k3s1", k3s, 1).replacen("version = \"2.13.6\"", rancher, 1);
        let (_, list) = super::load_with_warnings(Path::new("site.toml"), &text).unwrap();
        list.iter().map(|f| (f.warning, format!("{} {}", f.message, f.hint.as_deref().unwrap_or_default()))).collect()
    };
    let f = at("v1.36.3+k3s1", "version = \"2.13.6\"");
    assert!(f.len() == 1 && f[0].0 && f[0].1.contains("Rancher 2.13.6 refuses Kubernetes 1.36"), "{f:?}");
    assert!(f[0].1.contains("Rancher 2.15 takes"), "{f:?}");
    assert_eq!(at("v1.36.3+k3s1", "version = \"2.15.1\""), []);
    assert_eq!(at("v1.35.7+k3s1", "version = \"2.14.3\""), []);
}

#[test]
fn some_node_takes_what_tolerates_no_taint() {
    let closed = "gpus = 2\ntaints = [\"nvidia.com/gpu=present:NoSchedule\"]";
    let text = DEFAULT.replacen("gpus = 2", closed, 1);
    let f = findings(&text);
    assert!(f.len() == 1 && f[0].contains("no node takes a pod that tolerates no taint"), "{f:?}");
    let load = |text: &str| super::load(Path::new("site.toml"), text).map(|_| ());
    let open = text.replacen("cis = true", "cis = true\ntaints = []", 1);
    assert_eq!(load(&open), Ok(()));
    let one = text.replacen("name = \"k3s-gpu4\"", "name = \"k3s-gpu4\"\ntaints = []", 1);
    assert_eq!(load(&one), Ok(()));
    let soft = DEFAULT.replacen("gpus = 2", "gpus = 2\ntaints = [\"a=b:PreferNoSchedule\"]", 1);
    assert_eq!(load(&soft), Ok(()));
}

#[test]
fn a_scratch_disk_needs_the_section_that_mounts_it() {
    let text = without(&without(DEFAULT, "[storage]"), "[platform.jupyterhub]");
    let f = findings(&text);
    assert!(f.iter().any(|l| l.contains("k3s-gpu1 has a scratch disk, and there is no [storage]")), "{f:?}");
}

#[test]
fn values_that_cannot_be_meant_are_named() {
    for (old, new, says) in [
        ("scratch_path = \"/mnt/scratch\"", "scratch_path = \"/\"", "`/` belongs to the system"),
        ("scratch_path = \"/mnt/scratch\"", "scratch_path = \"/var/lib/\"", "`/var/lib` belongs to the system"),
        ("scratch_path = \"/mnt/scratch\"", "scratch_path = \"/etc/x\"", "`/etc/x` belongs to the system"),
        ("nfs_path = \"/srv/nfs/k8s\"", "nfs_path = \"srv/nfs\"", "`srv/nfs` is no plain absolute path"),
        ("scratch_class = \"fast-scratch\"", "scratch_class = \"nfs-client\"", "cannot be the class of the share and"),
        ("nfs_class = \"nfs-client\"", "nfs_class = \"NFS Client\"", "`NFS Client` is no name of a storage class"),
        ("10.42.0.0/16", "10.42.0.0/30", "has room for 0 nodes of 7"),
        ("10.42.0.0/16", "10.42.0.0/22", "has room for 4 nodes of 7"),
        ("https://git.lab.example/homelab/gitops.git", "not a url", "`not a url` is no address of a Git repository"),
        ("replicas = 3", "replicas = 0", "no replica at all"),
        ("hub.lab.example", "rancher.lab.example", "has the host name `rancher.lab.example`, too"),
        ("version = \"4.3.1\"", "version = \"latest\"", "`latest` is no version of a chart"),
        ("address = \"10.0.0.11\"", "address = \"10.0.0.21\"", "is the address of k3s-gpu1, which is no server"),
    ] {
        assert!(DEFAULT.contains(old), "{old}");
        let f = findings(&DEFAULT.replacen(old, new, 1));
        assert!(f.len() == 1 && f[0].contains(says), "{new}: {f:?}");
    }
    for (old, new) in [
        ("https://git.lab.example/homelab/gitops.git", "git@git.lab.example:homelab/gitops.git"),
        ("scratch_path = \"/mnt/scratch\"", "scratch_path = \"/var/lib/scratch\""),
        ("10.42.0.0/16", "10.42.0.0/21"),
        ("nfs_path = \"/srv/nfs/k8s\"", "nfs_path = \"/\"\nnfs_server = \"10.0.0.9\""),
    ] {
        assert_eq!(findings(&DEFAULT.replacen(old, new, 1)), Vec::<String>::new(), "{new}");
    }
}
