//! The nodes as the scheduler sees them while it places pods: what is left on each, and who may go there. What has been
//! worked out for one pod serves the next ones.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::super::cx::Cx;
use super::super::store::index::Requests;
use super::super::text::{arr, milli, s};
use super::pods;
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

    /// What its pods have of a resource, and how much there is of it.
    pub(super) fn share(&self, resource: &str) -> (i64, i64) {
        (self.taken.get(resource).copied().unwrap_or(0), self.has.get(resource).copied().unwrap_or(0))
    }

    /// How many pods there are.
    pub(super) fn count(&self) -> i64 {
        self.share("pods").0 / 1000
    }

    /// A pod goes there.
    fn take(&mut self, wants: &Requests) {
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
    /// How many pods of an owner there are on each node.
    spread: HashMap<String, HashMap<String, i64>>,
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
            spread: HashMap::new(),
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

    /// How many pods of an owner there are on each node.
    pub(super) fn spread_of(&mut self, cx: &Cx, ns: &str, owner: &str) -> &HashMap<String, i64> {
        if !self.spread.contains_key(owner) {
            let mut counts: HashMap<String, i64> = HashMap::new();
            for p in pods::owned(cx, ns, owner).into_iter().filter(|p| pods::is_active(p)) {
                *counts.entry(s(p, "/spec/nodeName").to_owned()).or_default() += 1;
            }
            self.spread.insert(owner.to_owned(), counts);
        }
        &self.spread[owner]
    }

    /// A pod goes to a node.
    pub(super) fn placed(&mut self, cx: &Cx, pod: &Value, i: usize, wants: &Requests) {
        self.room(cx, i).take(wants);
        let node = s(&self.nodes[i], "/metadata/name").to_owned();
        for o in arr(pod, "/metadata/ownerReferences") {
            if let Some(counts) = self.spread.get_mut(s(o, "/uid")) {
                *counts.entry(node.clone()).or_default() += 1;
            }
        }
    }
}
