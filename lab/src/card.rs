//! The GPUs' own state, which no configuration shows: hardware faults, MIG mode, compute mode.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::PciSpec;
use crate::world::World;

/// One card. All off: a healthy card as it comes out of a power cycle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// The last Xid that took it out of service.
    pub xid: Option<u32>,
    /// It does not initialise any more until its machine is stopped and started.
    pub stuck: bool,
    /// MIG mode as it is.
    pub mig: bool,
    /// MIG mode after the next power cycle.
    pub mig_next: bool,
    /// MIG profile whose instances fill the card (`1g.5gb`).
    pub profile: Option<String>,
    /// The hypervisor's own driver holds it.
    pub host_driver: bool,
    /// Compute mode EXCLUSIVE_PROCESS, with its one process there.
    pub exclusive: bool,
}

/// Cards that are not in their plain state, by `node/address`.
pub type Cards = BTreeMap<String, Card>;

fn key(node: &str, address: &str) -> String {
    format!("{node}/{address}")
}

impl World {
    /// The state of a card.
    #[must_use]
    pub fn card(&self, node: &str, address: &str) -> Card {
        self.cards.get(&key(node, address)).cloned().unwrap_or_default()
    }

    /// Changes the state of a card.
    pub fn change_card(&mut self, node: &str, address: &str, f: impl FnOnce(&mut Card)) {
        let mut card = self.card(node, address);
        f(&mut card);
        if card == Card::default() {
            self.cards.remove(&key(node, address));
        } else {
            self.cards.insert(key(node, address), card);
        }
    }

    /// The NVIDIA cards of a running guest with their state.
    #[must_use]
    pub fn cards_of(&self, vmid: u32) -> Vec<(PciSpec, Card)> {
        let node = self.guests.get(&vmid).map(|g| g.spec.pve_node.clone()).unwrap_or_default();
        crate::guest::gpus(self, vmid).into_iter().map(|p| (p.clone(), self.card(&node, &p.address))).collect()
    }

    /// Changes the state of all NVIDIA cards of a running guest.
    pub fn change_cards_of(&mut self, vmid: u32, f: impl Fn(&mut Card)) {
        let node = self.guests.get(&vmid).map(|g| g.spec.pve_node.clone()).unwrap_or_default();
        for (p, _) in self.cards_of(vmid) {
            self.change_card(&node, &p.address, &f);
        }
    }
}

/// A machine was stopped and is started with these cards: faults are over, a waiting MIG mode holds.
pub fn power_cycled(w: &mut World, node: &str, cards: &[PciSpec]) {
    for p in cards {
        w.change_card(node, &p.address, |c| {
            *c = Card { mig: c.mig_next, mig_next: c.mig_next, profile: c.profile.clone(), ..Card::default() };
        });
    }
}

/// A guest restarts: the driver resets its cards, but the bus stays up.
pub fn restarted(w: &mut World, node: &str, cards: &[PciSpec]) {
    for p in cards {
        w.change_card(node, &p.address, |c| {
            c.exclusive = false;
            // 79: the card has left the bus and comes back with power only
            if c.xid != Some(79) {
                c.xid = None;
            }
        });
    }
}
