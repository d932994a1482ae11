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
    #[serde(with = "queue")]
    pub queue: BTreeMap<(u64, u64), Event>,
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
    /// GPUs that are not in their plain state.
    #[serde(default)]
    pub cards: crate::card::Cards,
    /// Git repositories that clusters can reach, by URL.
    #[serde(default)]
    pub remotes: BTreeMap<String, crate::git::Remote>,
    /// Images that were pushed to registries: names or repositories; `*`: every image is there.
    #[serde(default)]
    pub pushed: std::collections::BTreeSet<String>,
    /// What else is on the network.
    #[serde(default)]
    pub lan: crate::lan::Lan,
    /// Whether Docker Hub refuses pulls without a login for now.
    #[serde(default)]
    pub pulls_limited: bool,
    /// What the lab stood in for during runs, for the honest report.
    pub not_rehearsed: std::collections::BTreeSet<String>,
    /// Keys of the simulated behaviours that were met (see [`crate::grades`]).
    #[serde(default)]
    pub met: std::collections::BTreeSet<String>,
    /// When the first scheduled etcd snapshot is due; nobody knows yet: 0.
    #[serde(default)]
    pub snapshots_ms: u64,
    /// Earliest due time, for the clock's alarm. Not saved.
    #[serde(skip)]
    pub(crate) dirty_alarm: bool,
}

impl World {
    /// Schedules `event` after `delay_ms` of lab time. `now_ms` is kept current by [`crate::Lab::with`].
    pub fn schedule(&mut self, delay_ms: u64, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now_ms + delay_ms, self.seq), event);
        self.dirty_alarm = true;
    }

    /// Drops pending events that `pick` selects.
    pub fn unschedule(&mut self, pick: impl Fn(&Event) -> bool) {
        self.queue.retain(|_, e| !pick(e));
        self.dirty_alarm = true;
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.queue.keys().next().map(|k| k.0)
    }

    /// Takes the next event that is due by now.
    pub fn pop_due(&mut self) -> Option<Event> {
        let first = self.queue.first_entry().filter(|e| e.key().0 <= self.now_ms)?;
        Some(first.remove())
    }

    /// Takes the next event if it is due and one of those that `pick` means.
    pub fn pop_due_if(&mut self, pick: impl Fn(&Event) -> bool) -> Option<Event> {
        let first = self.queue.first_entry().filter(|e| e.key().0 <= self.now_ms && pick(e.get()))?;
        Some(first.remove())
    }

    /// Whether `event` is due within `ms`.
    #[must_use]
    pub fn is_pending_within(&self, ms: u64, event: &Event) -> bool {
        self.queue.range(..=(self.now_ms + ms, u64::MAX)).any(|(_, e)| e == event)
    }

    /// Whether `event` is pending.
    #[must_use]
    pub fn is_pending(&self, event: &Event) -> bool {
        self.queue.values().any(|e| e == event)
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

/// The queue is saved as a list of `[due, sequence, event]`.
mod queue {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Event;

    pub fn serialize<S: Serializer>(queue: &BTreeMap<(u64, u64), Event>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(queue.iter().map(|((due, seq), event)| (due, seq, event)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<(u64, u64), Event>, D::Error> {
        let rows = Vec::<(u64, u64, Event)>::deserialize(from)?;
        Ok(rows.into_iter().map(|(due, seq, event)| ((due, seq), event)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pve::PveEvent;
    use crate::spec::Spec;

    fn event(name: &str) -> Event {
        Event::Pve(PveEvent::Task { upid: name.to_owned() })
    }

    #[test]
    fn events_come_by_time_then_in_the_order_they_were_made() {
        let mut w = World::new(&Spec::homelab().unwrap()).unwrap();
        for (delay, name) in [(30, "c"), (10, "a"), (10, "b"), (900, "d")] {
            w.schedule(delay, event(name));
        }
        assert_eq!(w.pop_due(), None);
        let mut w: World = serde_json::from_str(&serde_json::to_string(&w).unwrap()).unwrap();
        w.now_ms += 100;
        assert!(w.is_pending(&event("d")));
        let order: Vec<_> = std::iter::from_fn(|| w.pop_due()).collect();
        assert_eq!(order, [event("a"), event("b"), event("c")]);
        assert_eq!(w.next_due(), Some(w.now_ms + 800));
    }
}
