//! The API servers of K3s servers: their certificates and the addresses they answer at.
use super::super::api;
use super::super::cx::Cx;
use super::super::state::Cluster;
use super::{files, log};
use crate::world::World;
use crate::{Lab, guest, tls};

fn names(w: &World, c: &Cluster, vmid: u32) -> Vec<String> {
    let own = w.k3s.get(&vmid).map(|p| p.start.config.clone()).unwrap_or_default();
    let ips: Vec<String> = c.members.values().map(|m| m.ip.clone()).chain(c.vips.keys().cloned()).collect();
    let nodes: Vec<String> = c.members.values().map(|m| m.node.clone()).collect();
    files::sans(c, &[&own, &c.config], &ips, &nodes)
}

/// The API server of a guest starts to listen.
pub fn up(lab: &Lab, w: &mut World, vmid: u32, id: &str) {
    let Some(ip) = guest::ip(w, vmid) else { return };
    let Some(c) = w.clusters.get(id) else { return };
    let made = tls::make_leaf(&c.ca, "kube-apiserver", None, &names(w, c, vmid))
        .and_then(|leaf| api::listen(lab, id, vmid, &[format!("{ip}:6443")], &leaf, &c.client_ca.cert));
    if let Err(e) = made {
        log(w, vmid, "error", &format!("cannot serve the API: {e}"));
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
