//! The virtual address that kube-vip holds on one of the servers.
use super::super::cx::Cx;
use super::super::state::UnitState;
use super::super::text::{arr, s};
use super::serve;
use crate::guest;

/// Addresses that kube-vip DaemonSets ask for.
fn wanted(cx: &Cx) -> Vec<String> {
    let mut out = Vec::new();
    for ds in cx.list("daemonsets.apps") {
        for c in arr(ds, "/spec/template/spec/containers") {
            if !s(c, "/image").contains("kube-vip") {
                continue;
            }
            let env = |name: &str| {
                arr(c, "/env").iter().find(|e| e["name"] == name).map(|e| s(e, "/value").to_owned()).unwrap_or_default()
            };
            let address = [env("address"), env("vip_address")].into_iter().find(|a| !a.is_empty());
            if env("cp_enable") == "true" {
                out.extend(address);
            }
        }
    }
    out
}

/// Servers whose kube-vip pod may hold the address.
fn holders(cx: &Cx) -> Vec<u32> {
    cx.c.members
        .values()
        .filter(|m| {
            let active = cx.w.k3s.get(&m.vmid).is_some_and(|p| p.unit == Some(UnitState::Active));
            active && guest::is_up(cx.w, m.vmid)
        })
        .map(|m| m.vmid)
        .collect()
}

/// Gives each wanted address a holder and takes addresses nobody wants away.
pub fn look(cx: &mut Cx) {
    let wanted = wanted(cx);
    let holders = holders(cx);
    let old = std::mem::take(&mut cx.c.vips);
    for (address, vmid) in &old {
        if !wanted.contains(address) || !holders.contains(vmid) {
            serve::address_down(cx.lab, address);
        }
    }
    for address in wanted {
        let kept = old.get(&address).copied().filter(|v| holders.contains(v));
        let Some(holder) = kept.or_else(|| holders.first().copied()) else { continue };
        if kept.is_none() {
            serve::address_up(cx, &address, holder);
        }
        cx.c.vips.insert(address, holder);
    }
}

/// A server has gone: another one takes its addresses.
pub fn move_away(cx: &mut Cx, vmid: u32) {
    if cx.c.vips.values().any(|v| *v == vmid) {
        look(cx);
    }
}
