//! MIG: what cards can be cut into, and the manager that cuts them as the label of their node says.
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{GPU, NS, plugin};
use crate::card::Card;
use crate::kube::cx::Cx;
use crate::kube::text::s;
use crate::spec::PciSpec;

/// Label that says how the cards are to be cut.
const CONFIG: &str = "nvidia.com/mig.config";
const STATE: &str = "nvidia.com/mig.config.state";
/// A service that watches the cards and so holds them (NVIDIA's MIG user guide names it).
pub(crate) const HOLDER: &str = "nvidia-dcgm.service";
/// The configurations that the operator brings.
pub(super) const CONFIGS: &str = "default-mig-parted-config";

/// A kind of instance: profile, how many fill a card, memory in MiB.
type Profile = (&'static str, usize, u32);

/// Of an A100 with 40 GB (NVIDIA's MIG user guide).
const A100_40: &[Profile] = &[
    ("1g.5gb", 7, 4864),
    ("2g.10gb", 3, 9856),
    ("3g.20gb", 2, 19_968),
    ("4g.20gb", 1, 19_968),
    ("7g.40gb", 1, 40_192),
    ("1g.10gb", 4, 9856),
];
/// Of an A100 with 80 GB.
const A100_80: &[Profile] = &[
    ("1g.10gb", 7, 9728),
    ("2g.20gb", 3, 19_968),
    ("3g.40gb", 2, 40_192),
    ("4g.40gb", 1, 40_192),
    ("7g.80gb", 1, 81_152),
    ("1g.20gb", 4, 19_968),
];
/// Of cards that the lab does not have: their configurations are there all the same.
const OTHERS: &[(&str, usize)] =
    &[("1g.6gb", 4), ("2g.12gb", 2), ("4g.24gb", 1), ("1g.12gb", 7), ("1g.24gb", 4), ("2g.24gb", 3), ("3g.47gb", 2)];

fn profiles(p: &PciSpec) -> &'static [Profile] {
    if p.device.trim_start_matches("0x") == "20b5" { A100_80 } else { A100_40 }
}

/// Memory of an instance in MiB.
pub(super) fn memory(profile: &str) -> u32 {
    A100_40.iter().chain(A100_80).find(|x| x.0 == profile).map_or(0, |x| x.2)
}

/// What a card is cut into by `profile`: the name of one, or `balanced`; `None` when it cannot be.
fn layout(p: &PciSpec, profile: &str) -> Option<Vec<(&'static str, usize)>> {
    let all = profiles(p);
    if profile == "balanced" {
        return Some(vec![(all[0].0, 2), (all[1].0, 1), (all[2].0, 1)]);
    }
    all.iter().find(|x| x.0 == profile).map(|x| vec![(x.0, x.1)])
}

/// The instances of a card as it is; none where its mode is on and nothing was cut.
pub(super) fn instances(p: &PciSpec, card: &Card) -> Vec<(&'static str, usize)> {
    card.profile.as_deref().filter(|_| card.mig).and_then(|x| layout(p, x)).unwrap_or_default()
}

/// The resources of a card and how many of each, as the strategy of the policy has it.
pub(super) fn offers(strategy: &str, p: &PciSpec, card: &Card) -> Vec<(String, usize)> {
    if !card.mig || strategy == "none" {
        return vec![(GPU.to_owned(), 1)];
    }
    let name = |x: &str| if strategy == "mixed" { format!("nvidia.com/mig-{x}") } else { GPU.to_owned() };
    instances(p, card).into_iter().map(|(x, n)| (name(x), n)).collect()
}

/// Why the device plugin does not take cards that are cut like this (its words).
pub(super) fn invalid(strategy: &str, cards: &[(PciSpec, Card)]) -> Option<&'static str> {
    let cut: Vec<_> = cards.iter().filter(|(_, c)| c.mig).map(|(p, c)| instances(p, c)).collect();
    if strategy == "none" || cut.is_empty() {
        return None;
    }
    if cut.iter().any(Vec::is_empty) {
        return Some(
            "at least one device with migEnabled=true was not configured correctly: device 0 has an invalid MIG configuration",
        );
    }
    if strategy != "single" {
        return None;
    }
    let mut kinds: Vec<&str> = cut.iter().flatten().map(|x| x.0).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() > 1 {
        return Some("more than one MIG device type present on node");
    }
    (cut.len() < cards.len()).then_some("all devices on the node must be configured with the same migEnabled value")
}

/// The configurations as a ConfigMap.
pub(super) fn configurations() -> Value {
    let mut text = String::from(
        "version: v1\nmig-configs:\n  all-disabled:\n    - devices: all\n      mig-enabled: false\n  all-enabled:\n    - devices: all\n      mig-enabled: true\n      mig-devices: {}\n",
    );
    let mut all: Vec<(&str, usize)> = Vec::new();
    let own = A100_40.iter().chain(A100_80).map(|x| (x.0, x.1));
    for (profile, n) in own.chain(OTHERS.iter().copied()) {
        if !all.iter().any(|x| x.0 == profile) {
            all.push((profile, n));
        }
    }
    for (profile, n) in all {
        let _ = write!(
            text,
            "  all-{profile}:\n    - devices: all\n      mig-enabled: true\n      mig-devices:\n        \"{profile}\": {n}\n"
        );
    }
    text.push_str("  all-balanced:\n");
    for (filter, kinds) in [("[\"0x20B510DE\"]", A100_80), ("[\"0x20B010DE\", \"0x20F110DE\"]", A100_40)] {
        let _ = write!(
            text,
            "    - device-filter: {filter}\n      devices: all\n      mig-enabled: true\n      mig-devices:\n        \"{}\": 2\n        \"{}\": 1\n        \"{}\": 1\n",
            kinds[0].0, kinds[1].0, kinds[2].0
        );
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIGS, "namespace": NS},
        "data": {"config.yaml": text}})
}

/// A node changed: the manager acts on a label that it has not acted on yet.
pub(super) fn follow(cx: &mut Cx, node: &str) {
    let wanted = wanted(cx, node);
    if wanted.is_some() && cx.c.nodes.get(node).is_some_and(|n| n.mig != wanted) {
        apply(cx, node);
    }
}

fn wanted(cx: &Cx, node: &str) -> Option<String> {
    cx.get("nodes", "", node)?["metadata"]["labels"][CONFIG].as_str().map(str::to_owned)
}

/// The manager cuts the cards of its node as the label says: at its start, and when the label changes.
pub(super) fn apply(cx: &mut Cx, node: &str) {
    let Some(wanted) = wanted(cx, node) else { return };
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    let ready = cx.c.nodes.get(node).is_some_and(|n| n.driver.is_some() && n.toolkit);
    let cards = cx.w.cards_of(vmid);
    if !ready || cards.is_empty() {
        return;
    }
    cx.node_rt(node).mig = Some(wanted.clone());
    let profile = wanted.strip_prefix("all-").filter(|x| cards.iter().all(|(p, _)| layout(p, x).is_some()));
    let on = match (wanted.as_str(), profile) {
        ("all-disabled", _) => false,
        (_, Some(_)) => true,
        // a name that the configurations do not have, or instances that the card does not
        _ => {
            say(cx, node, &format!("Error selecting MIG config: selected mig-config not present: {wanted}"));
            return set_state(cx, node, "failed");
        }
    };
    if cards.iter().any(|(_, c)| c.mig != on) && held(cx, vmid) {
        let each = cards.iter().map(|(p, _)| format!("  GPU 0000{}: In use by another client\n", p.address));
        let (all, n) = (each.collect::<String>(), cards.len());
        say(
            cx,
            node,
            &format!(
                "The following GPUs could not be reset:\n{all}\n{n} devices are currently being used by one or more other processes (e.g., Fabric Manager, CUDA application, graphics application such as an X server, or a monitoring application such as another instance of nvidia-smi). Please first kill all processes using these devices and all compute applications running in the system.\nError applying MIG configuration with hooks: error resetting all GPUs: exit status 255"
            ),
        );
        return set_state(cx, node, "failed");
    }
    cx.w.change_cards_of(vmid, |c| c.mig_next = on);
    let applied = cards.iter().all(|(_, c)| c.mig == on);
    if applied {
        cx.w.change_cards_of(vmid, |c| c.profile = profile.map(str::to_owned));
    }
    set_state(cx, node, if applied { "success" } else { "failed" });
    plugin::discover(cx, node, vmid);
    if cx.c.nodes.get(node).is_some_and(|n| n.plugin) {
        plugin::offer(cx, node, vmid);
    }
}

/// Whether a program of the machine itself holds its cards: their mode cannot be changed then.
fn held(cx: &Cx, vmid: u32) -> bool {
    let g = cx.w.guests.get(&vmid);
    g.and_then(|g| g.services.get(HOLDER)).is_some_and(|u| u.state == "active")
}

/// The manager of a node writes a line.
fn say(cx: &mut Cx, node: &str, text: &str) {
    let app = "nvidia-mig-manager";
    let mine = |p: &&Value| s(p, "/spec/nodeName") == node && s(p, "/metadata/labels/app") == app;
    let Some(uid) = cx.list_in("pods", NS).into_iter().find(mine).map(|p| s(p, "/metadata/uid").to_owned()) else {
        return;
    };
    crate::kube::controllers::logs::repeat(cx, &uid, app, text);
}

fn set_state(cx: &mut Cx, node: &str, state: &str) {
    let was = cx.get("nodes", "", node).map(|n| s(n, "/metadata/labels/nvidia.com~1mig.config.state").to_owned());
    if was.as_deref() != Some(state) {
        super::label(cx, node, &[(STATE, state)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(device: &str, profile: Option<&str>) -> (PciSpec, Card) {
        let p = PciSpec { device: device.to_owned(), ..PciSpec::default() };
        (p, Card { mig: true, profile: profile.map(str::to_owned), ..Card::default() })
    }

    #[test]
    fn a_strategy_names_the_resources_and_refuses_what_it_cannot_name() {
        let (p, c) = cut("20f1", Some("1g.5gb"));
        assert_eq!(offers("single", &p, &c), [(GPU.to_owned(), 7)]);
        assert_eq!(offers("mixed", &p, &c), [("nvidia.com/mig-1g.5gb".to_owned(), 7)]);
        assert_eq!(offers("none", &p, &c), [(GPU.to_owned(), 1)]);
        let whole = (p.clone(), Card::default());
        let other = cut("20f1", Some("3g.20gb"));
        assert!(invalid("single", &[(p.clone(), c.clone()), other.clone()]).unwrap().starts_with("more than one"));
        assert!(invalid("single", &[(p.clone(), c.clone()), whole.clone()]).unwrap().contains("same migEnabled"));
        assert_eq!(invalid("mixed", &[(p.clone(), c.clone()), other, whole.clone()]), None);
        assert!(invalid("mixed", &[cut("20f1", None)]).unwrap().contains("not configured correctly"));
        assert_eq!(invalid("single", &[whole]), None);
        assert_eq!(offers("mixed", &p, &cut("20f1", Some("balanced")).1).len(), 3);
    }

    #[test]
    fn a_card_takes_its_own_profiles_only() {
        let of = |device: &str| PciSpec { device: device.to_owned(), ..PciSpec::default() };
        assert!(layout(&of("20f1"), "3g.40gb").is_none() && layout(&of("20b5"), "3g.40gb").is_some());
        let text = configurations()["data"]["config.yaml"].as_str().unwrap().to_owned();
        assert!(text.contains("  all-1g.5gb:\n") && text.contains("  all-balanced:\n") && !text.contains("9g"));
    }
}
