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

/// How the status of a container names its image, and the id of that.
#[must_use]
pub fn identity(image: &str) -> (String, String) {
    let full = full(image);
    let id = format!("{}@sha256:{}", repository(&full), super::super::text::sha256(&full));
    (full, id)
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
        "busybox"
            | "alpine"
            | "debian"
            | "ubuntu"
            | "bash"
            | "toybox"
            | "cuda"
            | "agnhost"
            | "jessie-dnsutils"
            | "curl"
            | "stress"
            | "stress-ng"
    )
}

/// Whether an image is known to run as root unless it is told otherwise: the official ones begin so, but for a few.
#[must_use]
pub fn of_root(image: &str) -> bool {
    const OTHERS: &[&str] =
        &["elasticsearch", "kibana", "logstash", "solr", "zookeeper", "haproxy", "memcached", "varnish"];
    let full = full(image);
    repository(&full).strip_prefix("docker.io/library/").is_some_and(|name| !OTHERS.contains(&name))
}

/// The entrypoint of an image whose arguments alone are given, as far as it is known and matters.
#[must_use]
pub fn entrypoint(image: &str) -> Option<&'static str> {
    let full = full(image);
    let path = repository(&full).strip_prefix("docker.io/").unwrap_or_default();
    match path {
        "curlimages/curl" | "alpine/curl" => Some("curl"),
        "progrium/stress" | "vish/stress" => Some("stress"),
        "alexeiled/stress-ng" | "polinux/stress-ng" => Some("stress-ng"),
        _ => None,
    }
}

/// Programs beside those that the lab runs which small images have, so that a command which is none of them is a slip.
const OTHERS: &str = "acpid addgroup adduser apk apt apt-get apt-cache arping ash beep blkid brctl busybox chgrp chown chpasswd chpst \
    chrt chvt cpio crond crontab deallocvt delgroup deluser depmod devmem df dnsdomainname dpkg ed ether-wake expand factor \
    fallocate fdisk find flock fold free fsck fsync ftpd ftpget ftpput fuser getopt getty groups gunzip halt hexdump hostid \
    httpd hush hwclock ifconfig ifdown ifup inetd init insmod install ionice iostat ip ipcalc ipcs kill killall less link linux32 \
    linux64 ln logger login logread losetup lsmod lsof lspci lsusb lzcat makedevs man microcom mkdosfs mke2fs mkfifo mknod \
    mkpasswd mkswap mktemp modinfo modprobe more mount mountpoint mpstat nameif nanddump nbd-client nc netcat netstat nice nmeter \
    nohup nologin nproc nsenter ntpd od openssl openvt passwd patch perl pgrep pidof ping ping6 pipe_progress pivot_root pkill \
    pmap poweroff powertop printf pscan pstree pwdx raidautorun rdate readahead readlink readprofile realpath reboot reformime \
    renice reset resize resume rev rmdir rmmod route rpm rpm2cpio run-init run-parts rx script scriptreplay sendmail setarch \
    setconsole setfattr setfont setlogcons setpriv setserial setsid setuidgid shred shuf slattach softlimit split start-stop-daemon \
    stat strings su sulogin sum svc svlogd svok swapoff swapon switch_root sync sysctl syslogd tac taskset tc tcpsvd telnet telnetd \
    tftp tftpd time timeout top traceroute traceroute6 ttysize tune2fs udhcpc udhcpd udpsvd uevent umount unexpand unix2dos unlink \
    unlzma unshare unxz unzip uptime users usleep uudecode uuencode vconfig vi vlock volname w watch watchdog which who whois xxd \
    xzcat zcat zcip nginx nginx-debug httpd-foreground apachectl docker-entrypoint.sh getent ldd runuser useradd findmnt nvidia-ctk agnhost pause toybox entrypoint.sh";

/// Whether an image whose programs are known has none of this name, and the lab does not run one.
#[must_use]
pub fn lacks(image: &str, program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    let full = full(image);
    let known = repository(&full).starts_with("docker.io/library/") && (web(image) || plain(image));
    known && !super::super::container::shell::has(program) && !OTHERS.split_ascii_whitespace().any(|o| o == name)
}

/// What nginx says of a page that is not there.
#[must_use]
pub fn not_found(image: &str) -> String {
    let tag = image.split('@').next().unwrap_or(image).rsplit(':').next().unwrap_or_default();
    let version = tag.split('-').next().filter(|v| v.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("1.29.3");
    format!(
        "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/{version}</center>\r\n</body>\r\n</html>\r\n"
    )
}

/// What the image hello-world says, in short.
pub(super) const HELLO: &str =
    "\nHello from Docker!\nThis message shows that your installation appears to be working correctly.\n";

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
