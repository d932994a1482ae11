//! Faults of the control plane as a whole.
use super::tools::{cluster, power_off};
use super::{Fault, On};

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "quorum-lost",
    on: On::Cluster,
    what: "two of three servers lost power: etcd has no quorum",
    source: "etcd documentation: failure tolerance; K3s HA documentation",
    make: |lab, w, _| {
        let mut servers = cluster(lab, w, |cx| Ok(cx.c.members.values().map(|m| m.node.clone()).collect::<Vec<_>>()))?;
        servers.sort();
        if servers.len() < 3 {
            return Err("the cluster has fewer than three servers".to_owned());
        }
        for name in servers.iter().skip(1) {
            power_off(lab, w, name)?;
        }
        Ok(())
    },
    hands: None,
}];
