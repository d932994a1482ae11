//! What a container finds in its file system: a small root, its volumes, its account's token.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bashkit::{FileSystem, InMemoryFs};
use serde_json::{Value, json};

use super::env;
use super::voldata::{self, Data, Place};
use crate::kube::api::auth;
use crate::kube::cx::Cx;
use crate::kube::text::{arr, s, unb64};

/// A volume whose data outlives the container, and where the container has it.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Where its data is.
    pub place: Place,
    /// Mount path without a slash at its end.
    pub path: String,
    /// What was there when the container last looked.
    pub seen: Arc<Mutex<Data>>,
}

/// Where the token of a pod's service account is.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const DIRS: &[&str] =
    &["/bin", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr/bin", "/var/log"];

/// `/etc/os-release` of an image.
fn release(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains("alpine") {
        "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\nPRETTY_NAME=\"Alpine Linux v3.22\"\n"
    } else if last.contains("ubuntu") || image.contains("cuda") {
        "PRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n"
    } else if last.contains("busybox") {
        ""
    } else {
        "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n"
    }
}

/// Where a container with cards has nvidia-smi.
pub(super) const TOOL: &str = "/usr/bin/nvidia-smi";

const WELCOME: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n<h1>Welcome to nginx!</h1>\n<p>If you see this page, nginx is successfully installed and working.</p>\n</body>\n</html>\n";

/// Lays out the files of a container that starts.
pub(super) fn lay_out(cx: &mut Cx, pod: &Value, c: &Value, fs: &InMemoryFs) {
    for d in DIRS {
        fs.add_dir(d, 0o755);
    }
    let image = s(c, "/image");
    let name = env::of(cx, pod, c).get("HOSTNAME").cloned().unwrap_or_default();
    let ip = s(pod, "/status/podIP");
    let text = |path: &str, body: String| fs.add_file(path, body, 0o644);
    text("/etc/hostname", format!("{name}\n"));
    text("/etc/hosts", hosts(pod, ip, &name));
    text("/etc/resolv.conf", resolver(pod));
    text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n".to_owned());
    let release = release(image);
    if !release.is_empty() {
        text("/etc/os-release", release.to_owned());
    }
    if image.contains("nginx") && !image.contains("ingress") {
        text("/usr/share/nginx/html/index.html", WELCOME.to_owned());
        text(
            "/etc/nginx/nginx.conf",
            "events {}\nhttp { server { listen 80; root /usr/share/nginx/html; } }\n".to_owned(),
        );
    }
    account(cx, pod, fs);
}

/// `/etc/hosts` as a kubelet writes it.
fn hosts(pod: &Value, ip: &str, name: &str) -> String {
    let mut out = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n".to_owned();
    let domain = match s(pod, "/spec/subdomain") {
        "" => String::new(),
        sub => format!("{name}.{sub}.{}.svc.cluster.local\t", s(pod, "/metadata/namespace")),
    };
    out += &format!("{ip}\t{domain}{name}\n");
    let aliases = arr(pod, "/spec/hostAliases");
    if !aliases.is_empty() {
        out += "\n# Entries added by HostAliases.\n";
    }
    for a in aliases {
        let names: Vec<&str> = arr(a, "/hostnames").iter().filter_map(Value::as_str).collect();
        out += &format!("{}\t{}\n", s(a, "/ip"), names.join("\t"));
    }
    out
}

/// `/etc/resolv.conf` as the pod's policy and settings make it.
fn resolver(pod: &Value) -> String {
    let ns = s(pod, "/metadata/namespace");
    let policy = s(pod, "/spec/dnsPolicy");
    let of_cluster = match policy {
        "" | "ClusterFirst" => pod["spec"]["hostNetwork"] != true,
        other => other == "ClusterFirstWithHostNet",
    };
    let words = |at: &str| arr(pod, at).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let (mut searches, mut servers, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if of_cluster {
        searches = vec![format!("{ns}.svc.cluster.local"), "svc.cluster.local".to_owned(), "cluster.local".to_owned()];
        servers = vec!["10.43.0.10".to_owned()];
        options = vec![("ndots".to_owned(), "5".to_owned())];
    } else if policy != "None" {
        servers = vec!["10.0.0.1".to_owned()];
    }
    searches.extend(words("/spec/dnsConfig/searches"));
    servers.extend(words("/spec/dnsConfig/nameservers"));
    for o in arr(pod, "/spec/dnsConfig/options") {
        options.retain(|(k, _)| k != s(o, "/name"));
        options.push((s(o, "/name").to_owned(), s(o, "/value").to_owned()));
    }
    let mut out = String::new();
    if !searches.is_empty() {
        out += &format!("search {}\n", searches.join(" "));
    }
    servers.iter().for_each(|ip| out += &format!("nameserver {ip}\n"));
    let named = |(k, v): &(String, String)| if v.is_empty() { k.clone() } else { format!("{k}:{v}") };
    if !options.is_empty() {
        out += &format!("options {}\n", options.iter().map(named).collect::<Vec<_>>().join(" "));
    }
    out
}

/// A token of the pod's service account, for an audience of its own if one is told.
fn token(cx: &Cx, pod: &Value, audience: &str, seconds: u64) -> Option<String> {
    let ns = s(pod, "/metadata/namespace");
    let name = match s(pod, "/spec/serviceAccountName") {
        "" => "default",
        n => n,
    };
    let sa = cx.get("serviceaccounts", ns, name)?;
    let own = json!({"name": s(pod, "/metadata/name"), "uid": s(pod, "/metadata/uid")});
    let to: &[&str] = if audience.is_empty() { auth::AUDIENCES } else { &[audience] };
    let bound = (s(pod, "/metadata/uid"), Some(("pod".to_owned(), own)));
    Some(auth::make_token(cx.c.token_key(), sa, cx.now(), seconds, to, bound))
}

/// What NVIDIA's runtime puts into a container: its devices and its tool.
pub(super) fn driver(fs: &InMemoryFs, cards: &[usize]) {
    let devices = cards.iter().map(|i| format!("nvidia{i}"));
    for d in devices.chain(["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"].map(str::to_owned)) {
        fs.add_file(format!("/dev/{d}"), "", 0o666);
    }
    fs.add_file(TOOL, "", 0o755);
}

/// The token of the pod's service account.
fn account(cx: &mut Cx, pod: &Value, fs: &InMemoryFs) {
    if pod["spec"]["automountServiceAccountToken"] == false {
        return;
    }
    let ns = s(pod, "/metadata/namespace");
    let Some(token) = token(cx, pod, "", 3607) else { return };
    let dir = ACCOUNT;
    fs.add_file(format!("{dir}/token"), token, 0o644);
    fs.add_file(format!("{dir}/ca.crt"), &cx.c.ca.cert, 0o644);
    fs.add_file(format!("{dir}/namespace"), ns, 0o644);
}

/// Keys of a ConfigMap or Secret as files, with the `items` that are asked for.
fn keys(cx: &Cx, resource: &str, ns: &str, name: &str, items: &Value) -> BTreeMap<String, Vec<u8>> {
    let Some(o) = cx.get(resource, ns, name) else { return BTreeMap::new() };
    let mut out = BTreeMap::new();
    for (part, coded) in [("data", resource == "secrets"), ("binaryData", true)] {
        for (k, v) in o[part].as_object().into_iter().flatten() {
            let text = v.as_str().unwrap_or_default();
            let bytes = if coded { unb64(text).unwrap_or_default() } else { text.as_bytes().to_vec() };
            let path = match items.as_array() {
                None => Some(k.clone()),
                Some(list) => list.iter().find(|i| s(i, "/key") == k).map(|i| s(i, "/path").to_owned()),
            };
            if let Some(p) = path {
                out.insert(p, bytes);
            }
        }
    }
    out
}

/// What one source of a volume shows.
fn shown(cx: &Cx, pod: &Value, source: &Value) -> BTreeMap<String, Vec<u8>> {
    let ns = s(pod, "/metadata/namespace");
    let mut out = BTreeMap::new();
    for (field, name, resource) in
        [("configMap", "/name", "configmaps"), ("secret", "/secretName", "secrets"), ("secret", "/name", "secrets")]
    {
        if source[field].is_object() {
            out.extend(keys(cx, resource, ns, s(&source[field], name), &source[field]["items"]));
        }
    }
    for i in arr(source, "/downwardAPI/items") {
        let of = &i["resourceFieldRef"];
        let text = match super::spec(pod, s(of, "/containerName")).filter(|_| of.is_object()) {
            Some(c) => env::amount(cx, pod, c, of),
            None => env::field(pod, s(i, "/fieldRef/fieldPath")),
        };
        out.insert(s(i, "/path").to_owned(), text.into_bytes());
    }
    let asked = &source["serviceAccountToken"];
    if asked.is_object()
        && let Some(token) = token(cx, pod, s(asked, "/audience"), asked["expirationSeconds"].as_u64().unwrap_or(3600))
    {
        out.insert(s(asked, "/path").to_owned(), token.into_bytes());
    }
    for part in arr(source, "/projected/sources") {
        out.extend(shown(cx, pod, part));
    }
    out
}

/// Whether a directory of a machine is one for data: what the system has in its own is not carried about.
fn own_data(dir: &str) -> bool {
    let words: Vec<&str> = dir.split('/').filter(|w| !w.is_empty()).collect();
    matches!(words.as_slice(), ["tmp" | "mnt" | "srv" | "data" | "opt" | "home" | "var", _, ..] | ["data"])
        && !matches!(
            words.as_slice(),
            ["var", "lib" | "log" | "run" | "cache"] | ["var", "lib", "rancher" | "kubelet", ..]
        )
}

/// Where the data of a pod's volume is, when it is one that keeps data.
fn place(cx: &Cx, (ns, uid, node): (&str, &str, &str), v: &Value) -> Option<Place> {
    if let Some(claim) = v["persistentVolumeClaim"]["claimName"].as_str() {
        let claim = cx.get("persistentvolumeclaims", ns, claim)?;
        let pv = cx.get("persistentvolumes", "", s(claim, "/spec/volumeName"))?;
        return Some(voldata::of_volume(cx, pv));
    }
    if let Some(dir) = v["hostPath"]["path"].as_str().filter(|d| own_data(d)) {
        return voldata::on_node(cx, node, dir);
    }
    if v["nfs"].is_object() {
        return voldata::share(cx, s(v, "/nfs/server"), s(v, "/nfs/path"));
    }
    v["emptyDir"].is_object().then(|| Place::Cluster(format!("emptydir/{uid}/{}", s(v, "/name"))))
}

/// Puts the container's volumes in place; says which of them keep data.
pub(super) fn mount(cx: &mut Cx, pod: &Value, c: &Value, fs: &InMemoryFs) -> Vec<Mounted> {
    let (ns, uid, node) = (s(pod, "/metadata/namespace"), s(pod, "/metadata/uid"), s(pod, "/spec/nodeName"));
    let mut kept = Vec::new();
    for m in arr(c, "/volumeMounts") {
        let Some(v) = arr(pod, "/spec/volumes").iter().find(|v| v["name"] == m["name"]) else { continue };
        let path = s(m, "/mountPath").trim_end_matches('/').to_owned();
        if path == ACCOUNT {
            // That has been there since the container began.
            continue;
        }
        let told = m["subPathExpr"].as_str().map(|x| env::expand(x, &env::declared(cx, pod, c)));
        let sub = told.as_deref().unwrap_or(s(m, "/subPath"));
        if let Some(place) = place(cx, (ns, uid, node), v) {
            let place = place.below(sub);
            let seen = voldata::read(cx, &place);
            fs.add_dir(&path, 0o777);
            for (file, text) in &seen {
                if file.ends_with('/') {
                    fs.add_dir(format!("{path}/{}", file.trim_end_matches('/')), 0o755);
                } else {
                    fs.add_file(format!("{path}/{file}"), text, 0o644);
                }
            }
            kept.push(Mounted { place, path, seen: Arc::new(Mutex::new(seen)) });
            continue;
        }
        if v["hostPath"].is_object() {
            fs.add_dir(&path, 0o755);
        }
        for (file, bytes) in shown(cx, pod, v) {
            if sub.is_empty() {
                fs.add_file(format!("{path}/{file}"), bytes, 0o644);
            } else if file == sub {
                fs.add_file(&path, bytes, 0o644);
            }
        }
    }
    kept
}

/// Text files and directories below `root`, by their path below it; directories end in `/`.
pub(super) async fn below(fs: &InMemoryFs, root: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let full = format!("{root}/{dir}");
        for e in fs.read_dir(Path::new(&full)).await.unwrap_or_default() {
            let path = if dir.is_empty() { e.name.clone() } else { format!("{dir}/{}", e.name) };
            if e.metadata.file_type.is_dir() {
                out.insert(format!("{path}/"), String::new());
                dirs.push(path);
            } else if let Ok(bytes) = fs.read_file(Path::new(&format!("{root}/{path}"))).await {
                out.insert(path, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    out
}
