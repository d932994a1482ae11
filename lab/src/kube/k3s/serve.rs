//! The API servers of K3s servers: their certificates and the addresses they answer at.
use super::super::api;
use super::super::cx::Cx;
use super::super::state::Cluster;
use super::{certificates, files, log, reach};
use crate::tls::{self, Leaf};
use crate::world::World;
use crate::{Lab, guest};

/// Names and addresses under which a server's certificate is valid.
pub fn names(w: &World, c: &Cluster, vmid: u32) -> Vec<String> {
    let own = w.k3s.get(&vmid).map(|p| p.start.config.clone()).unwrap_or_default();
    let ips: Vec<String> = c.members.values().map(|m| m.ip.clone()).chain(c.vips.keys().cloned()).collect();
    let nodes: Vec<String> = c.members.values().map(|m| m.node.clone()).collect();
    files::sans(c, &[&own, &c.config], &ips, &nodes)
}

/// Refuses a joiner's address that the certificate of the server in guest `holder` is not valid for.
///
/// # Errors
/// K3s' own text around Go's.
pub fn check_name(w: &World, c: &Cluster, holder: u32, url: &str, host: &str) -> Result<(), String> {
    let all = names(w, c, holder);
    if all.iter().any(|n| n == host) {
        return Ok(());
    }
    let is_ip = |n: &str| n.parse::<std::net::IpAddr>().is_ok();
    let same: Vec<&str> = all.iter().map(String::as_str).filter(|n| is_ip(n) == is_ip(host)).collect();
    Err(format!(
        "starting kubernetes: preparing server: failed to bootstrap cluster data: Get \"{url}/v1-k3s/server-bootstrap\": tls: failed to verify certificate: x509: certificate is valid for {}, not {host}",
        same.join(", ")
    ))
}

/// The API server of a guest starts to listen.
pub fn up(lab: &Lab, w: &mut World, vmid: u32, id: &str) {
    let Some(ip) = guest::ip(w, vmid) else { return };
    let Some(c) = w.clusters.get(id) else { return };
    // behind a filter that drops them nobody's packets arrive
    let addresses = if reach::shut(w, vmid) { Vec::new() } else { vec![reach::address(&ip)] };
    let issued = w.k3s.get(&vmid).map_or(w.now_ms, |p| p.certificates_ms);
    let wanted = Leaf {
        cn: "k3s",
        org: Some("k3s"),
        names: &names(w, c, vmid),
        end_ms: certificates::end_outside(issued),
        server: true,
        client: false,
    };
    let made =
        tls::sign(&c.ca, &wanted).and_then(|leaf| api::listen(lab, id, vmid, &addresses, &leaf, &c.client_ca.cert));
    if let Err(e) = made {
        log(w, vmid, "error", &format!("cannot serve the API: {e}"));
    }
}

/// The packet filter of a server's machine changed.
pub fn filtered(lab: &Lab, w: &World, vmid: u32) {
    let Some(ip) = guest::ip(w, vmid) else { return };
    let address = reach::address(&ip);
    if reach::shut(w, vmid) {
        api::withdraw(lab, vmid, &address);
    } else {
        api::announce(lab, vmid, &address);
    }
}

/// The API server of a guest is gone.
pub fn down(lab: &Lab, _w: &mut World, vmid: u32) {
    api::stop(lab, vmid);
}

/// A virtual address is held by a server.
pub fn address_up(cx: &mut Cx, address: &str, holder: u32) {
    api::announce(cx.lab, holder, &format!("{address}:6443"));
}

/// Nobody holds a virtual address any more.
pub fn address_down(lab: &Lab, address: &str) {
    for vmid in lab.kube().api.guests() {
        api::withdraw(lab, vmid, &format!("{address}:6443"));
    }
}
