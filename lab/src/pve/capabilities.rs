//! What the QEMU of a node can do: processors, their flags, machine types.
use serde_json::{Value, json};

use super::params::e;
use super::reply::{Reply, data};
use super::router::{Call, subdirs};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{self, Prop};

const ARCH: &[Prop] = &[e("arch", &["x86_64", "aarch64"])];
/// Flags that a machine's processor can be given.
const FLAGS: &[(&str, &str)] = &[
    ("nested-virt", "Controls nested virtualization, namely 'svm' for AMD CPUs and 'vmx' for Intel CPUs."),
    ("md-clear", "Required to let the guest OS know if MDS is mitigated correctly"),
    ("pcid", "Meltdown fix cost reduction on Westmere, Sandy-, and IvyBridge Intel CPUs"),
    ("spec-ctrl", "Allows improved Spectre mitigation with Intel CPUs"),
    ("ssbd", "Protection for \"Speculative Store Bypass\" for Intel models"),
    ("ibpb", "Allows improved Spectre mitigation with AMD CPUs"),
    ("virt-ssbd", "Basis for \"Speculative Store Bypass\" protection for AMD models"),
    ("pdpe1gb", "Allow guest OS to use 1GB size pages, if host HW supports it"),
    ("hv-tlbflush", "Improve performance in overcommitted Windows guests."),
    ("aes", "Activate AES instruction set for HW acceleration."),
];

/// Handles `/nodes/{node}/capabilities…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let old = w.pve.is_8();
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["qemu"])),
        ("GET", ["qemu"]) if old => data(subdirs("name", &["cpu", "machines"])),
        ("GET", ["qemu"]) => data(subdirs("name", &["cpu", "cpu-flags", "machines", "migration"])),
        ("GET", ["qemu", "cpu"]) => {
            c.params.check(if old { &[] } else { ARCH })?;
            let row = |name: &str| json!({ "name": name, "custom": 0, "vendor": vendor(name) });
            data(props::cpu_models().map(row).collect::<Vec<Value>>())
        }
        ("GET", ["qemu", "cpu-flags"]) if !old => {
            c.params.check(ARCH)?;
            let row = |(name, about): &(&str, &str)| json!({ "name": name, "description": about });
            data(FLAGS.iter().map(row).collect::<Vec<Value>>())
        }
        ("GET", ["qemu", "machines"]) => {
            c.params.check(if old { &[] } else { ARCH })?;
            data(machines(old))
        }
        ("GET", ["qemu", "migration"]) if !old => {
            w.pve.need(who, &format!("/nodes/{node}"), "Sys.Audit")?;
            data(json!({ "has-dbus-vmstate": 1 }))
        }
        _ => Err(c.unknown()),
    }
}

fn vendor(model: &str) -> &'static str {
    match model {
        "host" | "max" | "kvm32" | "kvm64" | "qemu32" | "qemu64" => "default",
        m if m.starts_with("x86-64") => "default",
        m if m.starts_with("EPYC") || m.starts_with("Opteron") || matches!(m, "athlon" | "phenom") => "AuthenticAMD",
        _ => "GenuineIntel",
    }
}

/// Newest first, each version for both chipsets.
fn machines(old: bool) -> Vec<Value> {
    let all = ["10.1", "10.0", "9.2", "9.1", "9.0", "8.2", "8.1", "8.0", "7.2", "7.1", "7.0", "6.2", "6.1", "6.0"];
    let versions = all.iter().filter(|v| !(old && v.starts_with("10.")));
    let both = versions.flat_map(|v| {
        [("i440fx", "pc-i440fx"), ("q35", "pc-q35")]
            .map(|(kind, prefix)| json!({ "id": format!("{prefix}-{v}"), "type": kind, "version": v }))
    });
    both.collect()
}
