//! The nodes as the scheduler sees them while it places pods: what is left on each, and who may go there. What has been
//! worked out for one pod serves the next ones.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::super::cx::Cx;
use super::super::store::index::Requests;
use super::super::text::{milli, s};
use super::scheduler::{Why, fits_node};

/// What one node has and what its pods have taken, in thousandths.
#[derive(Debug, Default)]
pub(super) struct Room {
    has: BTreeMap<String, i64>,
    taken: Requests,
}

impl Room {
    fn of(cx: &Cx, node: &Value) -> Room {
        let all = node["status"]["allocatable"].as_object().into_iter().flatten();
        Room {
            has: all.map(|(k, v)| (k.clone(), milli(v))).collect(),
            taken: cx.c.store.index().requested().get(s(node, "/metadata/name")).cloned().unwrap_or_default(),
        }
    }

    /// Why what is wanted is not left: everything that is short, and whether it would be in an empty node, too.
    pub(super) fn lacks(&self, wants: &Requests) -> Option<Why> {
        let of = |map: &BTreeMap<String, i64>, k: &String| map.get(k).copied().unwrap_or(0);
        let short: Vec<(&String, &i64)> =
            wants.iter().filter(|(k, want)| **want > 0 && **want > of(&self.has, k) - of(&self.taken, k)).collect();
        let named = |k: &String| if k == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {k}") };
        let never = short.iter().any(|(k, want)| **want > of(&self.has, k));
        let texts: Vec<String> = short.iter().map(|(k, _)| named(k)).collect();
        (!texts.is_empty()).then_some(Why { texts, never })
    }

    /// What is left when these are gone.
    pub(super) fn without(&self, gone: &Requests) -> Room {
        let mut taken = self.taken.clone();
        gone.iter().for_each(|(k, v)| *taken.entry(k.clone()).or_default() -= v);
        Room { has: self.has.clone(), taken }
    }

    /// How full it is.
    pub(super) fn load(&self) -> i64 {
        let taken = |r: &str| self.taken.get(r).copied().unwrap_or(0);
        taken("cpu") * 1000 / self.has.get("cpu").copied().unwrap_or(0).max(1) + taken("pods") / 100
    }

    /// A pod goes there.
    pub(super) fn take(&mut self, wants: &Requests) {
        for (k, v) in wants {
            *self.taken.entry(k.clone()).or_default() += v;
        }
    }
}

/// All nodes.
pub(super) struct Hall<'a> {
    pub(super) nodes: &'a [Arc<Value>],
    rooms: Vec<Option<Room>>,
    names: HashMap<&'a str, usize>,
    /// Selector, affinity and tolerations that the verdicts are for.
    asked: [Value; 3],
    verdicts: Vec<Option<Option<Why>>>,
    /// Minor version of the cluster.
    minor: u32,
}

/// What decides where a pod may run, whatever else is there.
fn question(pod: &Value) -> [Value; 3] {
    ["nodeSelector", "affinity", "tolerations"].map(|f| pod["spec"][f].clone())
}

impl<'a> Hall<'a> {
    pub(super) fn new(nodes: &'a [Arc<Value>], minor: u32) -> Hall<'a> {
        Hall {
            nodes,
            rooms: nodes.iter().map(|_| None).collect(),
            names: nodes.iter().enumerate().map(|(i, n)| (s(n, "/metadata/name"), i)).collect(),
            asked: Default::default(),
            verdicts: vec![None; nodes.len()],
            minor,
        }
    }

    /// The place of a node.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The next verdicts are about `pod`; those of a like one before it hold.
    pub(super) fn judge_for(&mut self, pod: &Value) {
        let asked = question(pod);
        if asked != self.asked {
            self.asked = asked;
            self.verdicts.iter_mut().for_each(|v| *v = None);
        }
    }

    /// Why a pod of this spec can never run on the node.
    pub(super) fn verdict(&mut self, spec: &Value, i: usize) -> Option<Why> {
        self.verdicts[i].get_or_insert_with(|| fits_node(spec, &self.nodes[i], self.minor)).clone()
    }

    /// What is left on a node.
    pub(super) fn room(&mut self, cx: &Cx, i: usize) -> &mut Room {
        self.rooms[i].get_or_insert_with(|| Room::of(cx, &self.nodes[i]))
    }
}
