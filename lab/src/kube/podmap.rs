//! What the lab knows of pods beside their objects, findable by name, and which of them wait for something outside.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::state::PodRt;

/// Pods by uid. Saved as that map alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, PodRt>", into = "BTreeMap<String, PodRt>")]
pub struct Pods {
    all: BTreeMap<String, PodRt>,
    names: BTreeMap<(String, String), BTreeSet<String>>,
    /// Uids of blocked pods by node; some may have gone on since.
    blocked: BTreeMap<String, BTreeSet<String>>,
    /// When all blocked pods tried again.
    tried_ms: u64,
    /// When they are going to.
    look_ms: u64,
}

impl From<BTreeMap<String, PodRt>> for Pods {
    fn from(all: BTreeMap<String, PodRt>) -> Pods {
        all.into_iter().collect()
    }
}

impl From<Pods> for BTreeMap<String, PodRt> {
    fn from(p: Pods) -> Self {
        p.all
    }
}

impl FromIterator<(String, PodRt)> for Pods {
    fn from_iter<T: IntoIterator<Item = (String, PodRt)>>(list: T) -> Pods {
        let mut out = Pods::default();
        for (uid, rt) in list {
            if rt.blocked {
                out.block(&rt.node, &uid);
            }
            out.insert(uid, rt);
        }
        out
    }
}

impl IntoIterator for Pods {
    type Item = (String, PodRt);
    type IntoIter = std::collections::btree_map::IntoIter<String, PodRt>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl Pods {
    /// A pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&PodRt> {
        self.all.get(uid)
    }

    /// A pod, to change it (its name stays).
    pub fn get_mut(&mut self, uid: &str) -> Option<&mut PodRt> {
        self.all.get_mut(uid)
    }

    /// Whether the pod is known.
    #[must_use]
    pub fn contains_key(&self, uid: &str) -> bool {
        self.all.contains_key(uid)
    }

    /// All pods.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &PodRt)> {
        self.all.iter()
    }

    /// All pods, to change them (their names stay).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut PodRt)> {
        self.all.iter_mut()
    }

    /// Adds a pod.
    pub fn insert(&mut self, uid: String, rt: PodRt) {
        self.names.entry((rt.ns.clone(), rt.name.clone())).or_default().insert(uid.clone());
        self.all.insert(uid, rt);
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) -> Option<PodRt> {
        let rt = self.all.remove(uid)?;
        let key = (rt.ns.clone(), rt.name.clone());
        if let Some(uids) = self.names.get_mut(&key) {
            uids.remove(uid);
            if uids.is_empty() {
                self.names.remove(&key);
            }
        }
        Some(rt)
    }

    /// Forgets the pods of this name but the one with uid `but`; gives them.
    pub fn remove_named(&mut self, ns: &str, name: &str, but: &str) -> Vec<(String, PodRt)> {
        let uids = self.names.get(&(ns.to_owned(), name.to_owned())).cloned().unwrap_or_default();
        uids.into_iter().filter(|u| u != but).filter_map(|u| self.remove(&u).map(|rt| (u, rt))).collect()
    }

    /// The pod waits for something outside.
    pub fn block(&mut self, node: &str, uid: &str) {
        self.blocked.entry(node.to_owned()).or_default().insert(uid.to_owned());
    }

    /// Uids of pods that wait on these nodes.
    pub fn blocked_on(&mut self, nodes: &BTreeSet<String>) -> Vec<String> {
        nodes.iter().flat_map(|n| self.waiting(n)).collect()
    }

    /// Uids of all pods that wait, which are about to try again at `now_ms`.
    pub fn all_blocked(&mut self, now_ms: u64) -> Vec<String> {
        self.tried_ms = now_ms;
        let nodes: Vec<String> = self.blocked.keys().cloned().collect();
        nodes.iter().flat_map(|n| self.waiting(n)).collect()
    }

    /// Whether pods wait, and for how long they have not tried all again.
    #[must_use]
    pub fn untried(&self, now_ms: u64) -> Option<u64> {
        (!self.blocked.is_empty()).then(|| now_ms.saturating_sub(self.tried_ms))
    }

    /// Whether somebody has to see to it that all blocked pods try again within `ms`: once per such pause.
    pub fn is_to_look(&mut self, now_ms: u64, ms: u64) -> bool {
        let fresh = self.look_ms <= now_ms;
        if fresh {
            self.look_ms = now_ms + ms;
        }
        fresh
    }

    fn waiting(&mut self, node: &str) -> Vec<String> {
        let all = &self.all;
        let Some(uids) = self.blocked.get_mut(node) else { return Vec::new() };
        uids.retain(|u| all.get(u).is_some_and(|rt| rt.blocked));
        let list = uids.iter().cloned().collect();
        if uids.is_empty() {
            self.blocked.remove(node);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::PodStage;
    use super::*;

    fn pod(name: &str, blocked: bool) -> PodRt {
        PodRt {
            ns: "a".into(),
            name: name.into(),
            node: "n".into(),
            stage: PodStage::Prepare,
            step: 0,
            blocked,
            why: String::new(),
            tries: 0,
            lives: BTreeMap::new(),
            log: BTreeMap::new(),
            gpus: BTreeMap::new(),
        }
    }

    #[test]
    fn blocked_pods_are_found_by_node_and_after_a_reload() {
        let mut pods = Pods::default();
        pods.insert("u1".into(), pod("x", true));
        pods.block("n", "u1");
        pods.insert("u2".into(), pod("y", false));
        let mut pods: Pods = serde_json::from_value(serde_json::to_value(&pods).unwrap()).unwrap();
        let node = BTreeSet::from(["n".to_owned()]);
        assert_eq!((pods.blocked_on(&node), pods.untried(5000)), (vec!["u1".to_owned()], Some(5000)));
        pods.get_mut("u1").unwrap().blocked = false;
        assert!(pods.blocked_on(&node).is_empty() && pods.untried(0).is_none());
        assert!(pods.is_to_look(10, 2000) && !pods.is_to_look(2009, 2000) && pods.is_to_look(2010, 2000));
    }

    #[test]
    fn an_older_pod_of_the_name_goes() {
        let mut pods = Pods::default();
        pods.insert("old".into(), pod("x", false));
        pods.insert("new".into(), pod("x", false));
        assert_eq!(pods.remove_named("a", "x", "new")[0].0, "old");
        assert!(pods.contains_key("new") && pods.remove_named("a", "x", "").len() == 1);
    }
}
