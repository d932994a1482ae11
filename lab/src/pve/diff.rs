//! The hypervisor as comparable data: for "cleanup leaves it as it was".
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::qemu::conf;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props;

/// The hypervisor without task log, id counters, MAC addresses and times.
#[must_use]
pub fn world_diff_view(w: &World) -> Value {
    let p = &w.pve;
    let mut vms = Map::new();
    for (id, vm) in &p.vms {
        let mut c = Map::new();
        for (k, v) in conf::wanted(vm) {
            let v = if matches!(props::numbered(&k), ("net", Some(_))) {
                let mut n = props::read("net0", &v);
                n.remove("macaddr");
                props::print("net0", &n)
            } else {
                v
            };
            c.insert(k, json!(v));
        }
        let snapshots: Vec<&String> = vm.snapshots.keys().collect();
        let row = json!({ "node": vm.node, "config": c, "running": vm.run.is_some(), "snapshots": snapshots });
        vms.insert(id.to_string(), row);
    }
    let mut volumes = Map::new();
    for (id, f) in &p.files {
        let size = w.volumes.get(id).map_or(0, |v| v.size);
        volumes.insert(id.clone(), json!({ "owner": f.vmid, "content": f.content, "format": f.format, "size": size }));
    }
    // Lock pools come and go with every run.
    let lock = |id: &str| id.starts_with("gpuhost-") && id.contains("-lock-");
    let pools: BTreeMap<_, _> = p.pools.iter().filter(|(id, _)| !lock(id)).collect();
    json!({
        "vms": vms,
        "volumes": volumes,
        "pools": pools,
        "mappings": p.mappings,
        "storages": p.storages,
        "nodes": p.nodes,
        "users": p.access.users,
        "roles": p.access.roles,
        "acl": p.access.acl,
        "options": p.options,
        "tables": p.tables,
        "settings": p.settings,
        "rules": p.rules,
        "interfaces": p.interfaces,
    })
}
