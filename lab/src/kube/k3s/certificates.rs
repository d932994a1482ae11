//! K3s' leaf certificates: files of every machine, valid for a year, renewed at a start shortly before they end.
//! Grade: source (K3s' control and agent packages).
use gpuhost_stdlib::core::clock::Clock;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;

use super::super::state::{Cluster, Role};
use super::{files, serve};
use crate::tls::{self, Leaf, Pair};
use crate::world::World;
use crate::{Lab, guest};

const DAY_MS: u64 = 86_400_000;
/// How long a CA of K3s' own is valid.
pub const CA_MS: u64 = 3650 * DAY_MS;
const SERVER: &str = "/var/lib/rancher/k3s/server/tls";
const AGENT: &str = "/var/lib/rancher/k3s/agent";
/// The administrator's certificate without its ending.
const ADMIN: &str = "client-admin";

/// A certificate by its file: service it belongs to, name without ending, subject, group, what it is for.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>, Use);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Client,
    Server,
    Both,
}

const OF_SERVERS: &[Row] = &[
    ("admin", ADMIN, "system:admin", Some("system:masters"), Use::Client),
    ("api-server", "client-kube-apiserver", "system:apiserver", Some("system:masters"), Use::Client),
    ("api-server", "serving-kube-apiserver", "kube-apiserver", None, Use::Server),
    ("auth-proxy", "client-auth-proxy", "system:auth-proxy", None, Use::Client),
    ("cloud-controller", "client-k3s-cloud-controller", "k3s-cloud-controller-manager", None, Use::Client),
    ("controller-manager", "client-controller", "system:kube-controller-manager", None, Use::Client),
    ("etcd", "etcd/client", "etcd-client", None, Use::Client),
    ("etcd", "etcd/server-client", "etcd-server", None, Use::Both),
    ("etcd", "etcd/peer-server-client", "etcd-peer", None, Use::Both),
    ("scheduler", "client-scheduler", "system:kube-scheduler", None, Use::Client),
    ("supervisor", "client-supervisor", "system:k3s-supervisor", Some("system:masters"), Use::Client),
];

const OF_NODES: &[Row] = &[
    ("kube-proxy", "client-kube-proxy", "system:kube-proxy", None, Use::Client),
    ("kubelet", "client-kubelet", "system:node:", Some("system:nodes"), Use::Client),
    ("kubelet", "serving-kubelet", "", None, Use::Server),
    ("k3s-controller", "client-k3s-controller", "system:k3s-controller", None, Use::Client),
];

/// Days before the end within which a start renews. Grade: docs (release notes of 1.31.9, 1.32.5, 1.33.1).
#[must_use]
pub fn window(version: &str) -> u64 {
    match gpuhost_stdlib::wire::k3s::minor_patch(version).unwrap_or((34, 0)) {
        (31, p) if p < 9 => 90,
        (32, p) if p < 5 => 90,
        (33, 0) => 90,
        (m, _) if m < 31 => 90,
        _ => 120,
    }
}

/// When certificates that were issued then end.
#[must_use]
pub fn end(issued_ms: u64) -> u64 {
    issued_ms + 365 * DAY_MS
}

/// The end of a certificate that clients outside the lab look at by their own calendar: the lab's, unless theirs is past it.
#[must_use]
pub fn end_outside(issued_ms: u64) -> Option<u64> {
    Some(end(issued_ms)).filter(|t| *t > Clock::Real.last_ms() + DAY_MS)
}

/// When the certificates of a process that starts now were issued.
#[must_use]
pub fn renewed(now_ms: u64, issued_ms: u64, version: &str) -> u64 {
    if issued_ms == 0 || end(issued_ms) < now_ms + window(version) * DAY_MS { now_ms } else { issued_ms }
}

fn path(of_server: bool, name: &str, ending: &str) -> String {
    format!("{}/{name}.{ending}", if of_server { SERVER } else { AGENT })
}

/// The certificates of a machine: service, whether they are in the server's folder, row.
fn all(server: bool) -> impl Iterator<Item = (bool, &'static Row)> {
    let own = OF_SERVERS.iter().filter(move |_| server).map(|r| (true, r));
    own.chain(OF_NODES.iter().map(|r| (false, r)))
}

/// Writes the certificates of a machine that K3s starts on, unless they are there and end when they should.
pub fn write(lab: &Lab, w: &mut World, vmid: u32, c: &Cluster, names: &[String]) {
    let Some(p) = w.k3s.get(&vmid).cloned() else { return };
    let (end, server) = (end(p.certificates_ms), p.start.role == Role::Server);
    for (of_server, (_, name, subject, group, usage)) in all(server) {
        let at = path(of_server, name, "crt");
        if guest::file_text(lab, vmid, &at).and_then(|t| not_after(&t)) == Some(end / 1000) {
            continue;
        }
        let cn = if of_server || subject.starts_with("system:k") {
            (*subject).to_owned()
        } else {
            format!("{subject}{}", p.node)
        };
        let none = Vec::new();
        let leaf = Leaf {
            cn: &cn,
            org: *group,
            names: if *usage == Use::Client { &none } else { names },
            end_ms: Some(end),
            server: *usage != Use::Client,
            client: *usage != Use::Server,
        };
        let ca = if *usage == Use::Client { &c.client_ca } else { &c.ca };
        let Ok(made) = tls::sign(ca, &leaf) else { continue };
        guest::put_file(lab, w, vmid, &at, &made.cert, 0o644);
        guest::put_file(lab, w, vmid, &path(of_server, name, "key"), &made.key, 0o600);
    }
}

/// The administrator's certificate on a server.
#[must_use]
pub fn admin(lab: &Lab, vmid: u32) -> Option<Pair> {
    let text = |ending| guest::file_text(lab, vmid, &path(true, ADMIN, ending));
    Some(Pair { cert: text("crt")?, key: text("key")? })
}

fn with_cert<T>(pem: &str, f: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, cert) = x509_parser::parse_x509_certificate(&pem.contents).ok()?;
    Some(f(&cert))
}

fn not_after(pem: &str) -> Option<u64> {
    with_cert(pem, |c| u64::try_from(c.validity().not_after.timestamp()).unwrap_or_default())
}

/// `k3s certificate rotate`: the files go into a backup, the next start makes new ones. Gives the services and the folder.
pub fn rotate(lab: &Lab, w: &mut World, vmid: u32) -> (Vec<&'static str>, String) {
    let server = is_server(lab, vmid);
    let parent = if server { "/var/lib/rancher/k3s/server" } else { AGENT };
    let backup = format!("{parent}/tls-{}", w.now_ms / 1000);
    let mut services = Vec::new();
    for (of_server, (service, name, ..)) in all(server) {
        if !services.contains(service) {
            services.push(*service);
        }
        for ending in ["crt", "key"] {
            let at = path(of_server, name, ending);
            if let Some(text) = guest::file_text(lab, vmid, &at) {
                guest::put_file(lab, w, vmid, &format!("{backup}/{name}.{ending}"), &text, 0o600);
                guest::remove_file(lab, vmid, &at);
            }
        }
    }
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.certificates_ms = 0;
    }
    (services, backup)
}

/// Whether a machine has what a server keeps.
#[must_use]
pub fn is_server(lab: &Lab, vmid: u32) -> bool {
    !guest::file_names(lab, vmid, "/var/lib/rancher/k3s/server").is_empty()
}

/// A certificate as `k3s certificate check` sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// File name without its folder.
    pub file: String,
    /// Common name.
    pub subject: String,
    /// Common name of the CA.
    pub issuer: String,
    /// `ClientAuth`, `ServerAuth`.
    pub usages: Vec<&'static str>,
    /// When it ends, in seconds since 1970.
    pub end: u64,
    /// `OK`, `WARNING`, `EXPIRED`.
    pub status: &'static str,
}

/// The certificates on a machine.
#[must_use]
pub fn seen(lab: &Lab, w: &World, vmid: u32) -> Vec<Seen> {
    let (server, now) = (is_server(lab, vmid), w.now_ms / 1000);
    let version = w.k3s.get(&vmid).map(|p| p.start.version.clone()).unwrap_or_default();
    let found = all(server).filter_map(|(of_server, (_, name, ..))| {
        let pem = guest::file_text(lab, vmid, &path(of_server, name, "crt"))?;
        with_cert(&pem, |c| {
            let cn = |n: &x509_parser::x509::X509Name<'_>| {
                n.iter_common_name().next().and_then(|a| a.as_str().ok()).unwrap_or_default().to_owned()
            };
            let end = u64::try_from(c.validity().not_after.timestamp()).unwrap_or_default();
            let status = match end {
                e if e <= now => "EXPIRED",
                e if e < now + window(&version) * DAY_MS / 1000 => "WARNING",
                _ => "OK",
            };
            let usage = c.extended_key_usage().ok().flatten();
            let mut usages = Vec::new();
            if usage.as_ref().is_some_and(|u| u.value.server_auth) {
                usages.push("ServerAuth");
            }
            if usage.as_ref().is_some_and(|u| u.value.client_auth) {
                usages.push("ClientAuth");
            }
            let file = format!("{}.crt", name.rsplit('/').next().unwrap_or(name));
            Seen { file, subject: cn(c.subject()), issuer: cn(c.issuer()), usages, end, status }
        })
    });
    found.collect()
}

/// K3s has run on a machine since `days` ago: that is when its certificates were issued.
///
/// # Errors
/// When no K3s runs there.
pub fn issued_before(lab: &Lab, w: &mut World, vmid: u32, days: u64) -> Result<(), String> {
    let issued = w.now_ms.saturating_sub(days * DAY_MS);
    let p = w.k3s.get_mut(&vmid).ok_or("no K3s runs on it")?;
    p.certificates_ms = issued;
    let (id, config, node) = (p.cluster.clone().unwrap_or_default(), p.start.config.clone(), p.node.clone());
    let c = w.clusters.remove(&id).ok_or("it is in no cluster")?;
    files::server(lab, w, vmid, &c, &config, &node);
    w.clusters.insert(id.clone(), c);
    serve::up(lab, w, vmid, &id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_renews_in_the_window_of_its_release() {
        let issued = DAY_MS;
        let at = |days_left: u64| issued + (365 - days_left) * DAY_MS;
        assert_eq!(renewed(at(200), issued, "v1.34.9+k3s1"), issued);
        assert_eq!(renewed(at(100), issued, "v1.34.9+k3s1"), at(100));
        assert_eq!(renewed(at(100), issued, "v1.33.0+k3s1"), issued);
        assert_eq!(renewed(at(80), issued, "v1.33.0+k3s1"), at(80));
        assert_eq!(renewed(5, 0, "v1.34.9+k3s1"), 5);
    }

    #[test]
    fn the_end_is_the_calendar_s_that_clients_live_by() {
        let now = Clock::Real.last_ms();
        assert_eq!(end_outside(now), Some(end(now)));
        assert_eq!(end_outside(now - 366 * DAY_MS), None);
    }
}
