//! The one state of the lab: hypervisor, volumes, guests, clusters, event queue. All data, all serialisable.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guest::GuestEvent;
use crate::guest::state::Guest;
use crate::kube::KubeEvent;
use crate::kube::state::Cluster;
use crate::pve::PveEvent;
use crate::pve::state::Pve;
use crate::volume::Volume;

/// Something that will happen at a given lab time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Hypervisor: tasks, power.
    Pve(PveEvent),
    /// Inside a guest: boot stages, services.
    Guest(GuestEvent),
    /// Kubernetes: kubelets, controllers, pods.
    Kube(KubeEvent),
}

/// Everything the lab knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct World {
    /// Format version of the saved file.
    pub version: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Lab time in milliseconds since 1970; the clock's copy is authoritative while the lab runs.
    pub now_ms: u64,
    /// Random draws so far; with the seed this is the state of the generator.
    pub draws: u64,
    /// Pending events by (due, sequence).
    pub queue: Vec<(u64, u64, Event)>,
    /// Last sequence number.
    pub seq: u64,
    /// The hypervisor.
    pub pve: Pve,
    /// Contents of every volume, by volume id (`storage:volume`).
    pub volumes: BTreeMap<String, Volume>,
    /// Guests that are powered on, by VM id.
    pub guests: BTreeMap<u32, Guest>,
    /// K3s processes by VM id of the guest they run in.
    #[serde(default)]
    pub k3s: BTreeMap<u32, crate::kube::state::Process>,
    /// Kubernetes clusters by id (the CA hash of their birth).
    pub clusters: BTreeMap<String, Cluster>,
    /// What the lab stood in for during runs, for the honest report.
    pub not_rehearsed: std::collections::BTreeSet<String>,
    /// Earliest due time, for the clock's alarm. Not saved.
    #[serde(skip)]
    pub(crate) dirty_alarm: bool,
}

impl World {
    /// Schedules `event` after `delay_ms` of lab time. `now_ms` is kept current by [`crate::Lab::with`].
    pub fn schedule(&mut self, delay_ms: u64, event: Event) {
        self.seq += 1;
        self.queue.push((self.now_ms + delay_ms, self.seq, event));
        self.dirty_alarm = true;
    }

    /// Drops pending events that `pick` selects.
    pub fn unschedule(&mut self, pick: impl Fn(&Event) -> bool) {
        self.queue.retain(|(_, _, e)| !pick(e));
        self.dirty_alarm = true;
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.queue.iter().map(|q| q.0).min()
    }

    /// Takes the next event that is due by now.
    pub(crate) fn pop_due(&mut self) -> Option<Event> {
        let i = (0..self.queue.len()).min_by_key(|&i| (self.queue[i].0, self.queue[i].1))?;
        if self.queue[i].0 > self.now_ms {
            return None;
        }
        Some(self.queue.swap_remove(i).2)
    }

    /// A reproducible random number.
    pub fn random(&mut self) -> u64 {
        self.draws += 1;
        let mut x = self.seed ^ self.draws.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 30;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
        x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A reproducible UUID (version 4 form).
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.random().to_be_bytes(), self.random().to_be_bytes());
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// `lo..hi` drawn reproducibly, for durations.
    pub fn between(&mut self, lo: u64, hi: u64) -> u64 {
        if hi <= lo { lo } else { lo + self.random() % (hi - lo) }
    }
}
