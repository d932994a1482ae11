//! How big images are, and which exist.

/// Compressed size of an image in MiB.
#[must_use]
pub fn mib(image: &str) -> u64 {
    const SIZES: &[(&str, u64)] = &[
        ("nvcr.io/nvidia/driver", 900),
        ("vgpu-manager", 600),
        ("nvcr.io/nvidia/cuda", 2800),
        ("cuda-sample", 150),
        ("gpu-operator-validator", 170),
        ("gpu-operator", 160),
        ("k8s-device-plugin", 180),
        ("container-toolkit", 120),
        ("dcgm", 400),
        ("mig-manager", 200),
        ("node-feature-discovery", 60),
        ("rancher/rancher:", 650),
        ("rancher-agent", 120),
        ("pytorch", 4200),
        ("tensorflow", 3100),
        ("scipy-notebook", 1500),
        ("singleuser", 350),
        ("jupyterhub/k8s-hub", 120),
        ("grafana", 190),
        ("prometheus/prometheus", 110),
        ("klipper-helm", 90),
        ("nfsplugin", 70),
        ("coredns", 25),
        ("busybox", 2),
        ("alpine", 4),
        ("pause", 1),
    ];
    SIZES.iter().find(|(part, _)| image.contains(part)).map_or(60, |x| x.1)
}

/// An image's name as container runtimes complete it (`docker.io/library/nginx:latest`).
#[must_use]
pub fn full(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let hosted = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let named = match (hosted, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    let last = named.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { named } else { format!("{named}:latest") }
}

/// An image's name without tag or digest.
#[must_use]
pub fn repository(full: &str) -> &str {
    let bare = full.split('@').next().unwrap_or(full);
    match bare.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => bare,
    }
}

/// Whether an image is a web server's.
#[must_use]
pub fn web(image: &str) -> bool {
    let full = full(image);
    matches!(repository(&full).rsplit('/').next(), Some("nginx" | "httpd"))
}

/// Whether no name server knows a host: domains that are reserved for never being there (RFC 2606 and 6761).
fn nowhere(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    let top = name.rsplit('.').next().unwrap_or_default();
    let second =
        ["example.com", "example.net", "example.org"].iter().any(|d| name == *d || name.ends_with(&format!(".{d}")));
    name.contains('.') && (matches!(top, "invalid" | "test" | "example") || second)
}

/// Why an image cannot be pulled, as the container runtime says it; `None` when it can.
#[must_use]
pub fn missing(image: &str) -> Option<String> {
    if image.is_empty() {
        return Some("rpc error: code = InvalidArgument desc = invalid reference format".to_owned());
    }
    let name = full(image);
    let bad = |code: &str, what: &str| {
        Some(format!(
            "rpc error: code = {code} desc = failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {what}"
        ))
    };
    let absent = || bad("NotFound", &format!("{name}: not found"));
    if image.contains("nvcr.io/nvidia/driver:") {
        let tag = image.rsplit(':').next().unwrap_or("");
        let version = tag.split('-').next().unwrap_or("");
        let parts: Vec<&str> = version.split('.').collect();
        let number = |i: usize| parts.get(i).and_then(|p| p.parse::<u32>().ok());
        let known = (2..=3).contains(&parts.len())
            && matches!(number(0), Some(535 | 550 | 565 | 570 | 575 | 580 | 590 | 595))
            && number(1).is_some();
        return if known { None } else { absent() };
    }
    let host = name.split('/').next().unwrap_or_default();
    if nowhere(host) {
        let rest = name.strip_prefix(host).unwrap_or_default().trim_start_matches('/');
        let (repo, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        let bare = host.split(':').next().unwrap_or(host);
        let url = format!("https://{host}/v2/{repo}/manifests/{tag}");
        return bad("Unknown", &format!("failed to do request: Head {url:?}: dial tcp: lookup {bare}: no such host"));
    }
    if image.contains("invalid.") || image.ends_with(":does-not-exist") {
        return absent();
    }
    None
}

/// What Docker Hub says to somebody who has pulled too much without a login; `None` for images that are elsewhere.
#[must_use]
pub fn limited(image: &str) -> Option<String> {
    let name = full(image);
    let path = repository(&name).strip_prefix("docker.io/")?;
    Some(format!(
        "failed to pull and unpack image \"{name}\": failed to copy: httpReadSeeker: failed open: unexpected status from GET request to https://registry-1.docker.io/v2/{path}/manifests/sha256:{}: 429 Too Many Requests\ntoomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
        super::super::text::sha256(&name)
    ))
}

/// Whether the lab knows what this image does, or only that it exists.
#[must_use]
pub fn known(image: &str) -> bool {
    const PARTS: &[&str] = &[
        "nvidia",
        "rancher/",
        "registry.k8s.io/",
        "quay.io/jetstack/",
        "quay.io/jupyterhub/",
        "jupyterhub/",
        "quay.io/prometheus",
        "grafana/",
        "busybox",
        "alpine",
        "debian",
        "ubuntu",
        "kube-vip",
        "pause",
        "configurable-http-proxy",
        "quay.io/kiwigrid",
        "bash",
        "jupyter/",
        "gcr.io/k8s-staging-sig-storage",
    ];
    PARTS.iter().any(|p| image.contains(p))
}

/// Whether an image is a plain userland: a shell and the usual tools, nothing of its own.
#[must_use]
pub fn plain(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split([':', '@']).next().unwrap_or(last);
    matches!(
        name,
        "busybox" | "alpine" | "debian" | "ubuntu" | "bash" | "toybox" | "cuda" | "agnhost" | "jessie-dnsutils"
    )
}

/// What a known server writes when it starts.
#[must_use]
pub fn greeting(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split([':', '@']).next().unwrap_or(last) {
        "nginx" => "/docker-entrypoint.sh: Configuration complete; ready for start up\nnginx: start worker processes",
        "httpd" => "AH00094: Command line: 'httpd -D FOREGROUND'",
        "redis" => "Ready to accept connections tcp",
        "coredns" | "mirrored-coredns-coredns" => ".:53\nCoreDNS-1.12.3\nlinux/amd64, go1.24.6",
        _ => "",
    }
}
