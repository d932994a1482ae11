//! Faults of upkeep: what goes wrong in weeks in which nobody looks.
use serde_json::json;

use super::tools::{k3s_config, machine, settle_start};
use super::{Fault, On};
use crate::kube::k3s::certificates;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "snapshots-off",
        on: On::Server,
        what: "the server's scheduled etcd snapshots were switched off",
        source: "K3s documentation, server flags: etcd-disable-snapshots",
        make: |lab, w, t| {
            k3s_config(lab, w, t, |c| c["etcd-disable-snapshots"] = json!(true))?;
            settle_start(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "certificates-ending",
        on: On::Server,
        what: "K3s has run on the server for a year without a restart: its certificates end in three days",
        source: "K3s documentation, certificates: valid for 365 days, renewed at a start; issue k3s-io/k3s#1621",
        make: |lab, w, t| {
            let vmid = machine(lab, w, t)?.vmid;
            certificates::issued_before(lab, w, vmid, 362)
        },
        hands: None,
    },
];
