//! Where a pod may run beside other pods: required affinity and anti-affinity, topology spread, ports of the host.
//! Grade: source (the plugins InterPodAffinity, PodTopologySpread and NodePorts of kube-scheduler).
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::super::cx::Cx;
use super::super::store::meta;
use super::super::text::{arr, s, selects};
use super::pods;
use super::scheduler::{Why, likes, tolerates};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// A rule with what it found: how many pods there are in each domain.
struct Rule {
    key: String,
    counts: BTreeMap<String, i64>,
}

/// A limit on how unevenly pods are spread.
struct Spread {
    rule: Rule,
    most: i64,
    least: i64,
    own: i64,
}

/// What other pods mean for one pod, worked out once for all nodes.
pub(super) struct Places {
    near: Vec<Rule>,
    /// Nobody is there yet, and the pod is one of those it wants to be near to.
    first: bool,
    far: Vec<Rule>,
    /// Domains that other pods keep it away from.
    shut: BTreeSet<(String, String)>,
    spreads: Vec<Spread>,
    ports: Vec<(u64, String)>,
    /// Ports that are taken, by node.
    taken: BTreeSet<(String, u64, String)>,
}

fn terms<'a>(pod: &'a Value, kind: &str) -> &'a [Value] {
    arr(&pod["spec"]["affinity"][kind], &format!("/{REQUIRED}"))
}

/// Whether an affinity term of a pod in `ns` means `other`.
pub(super) fn means(cx: &Cx, ns: &str, term: &Value, other: &Value) -> bool {
    let theirs = meta::namespace(other);
    let named = arr(term, "/namespaces");
    let chosen = term["namespaceSelector"].is_object()
        && cx
            .get("namespaces", "", theirs)
            .is_some_and(|n| selects(&term["namespaceSelector"], &n["metadata"]["labels"]));
    let space = if named.is_empty() && !term["namespaceSelector"].is_object() {
        theirs == ns
    } else {
        chosen || named.iter().any(|n| n == theirs)
    };
    space && term["labelSelector"].is_object() && selects(&term["labelSelector"], &other["metadata"]["labels"])
}

fn host_ports(pod: &Value) -> Vec<(u64, String)> {
    let all = arr(pod, "/spec/containers").iter().chain(arr(pod, "/spec/initContainers"));
    let ports = all.flat_map(|c| arr(c, "/ports")).filter_map(|p| {
        let n = p["hostPort"].as_u64().filter(|n| *n > 0)?;
        Some((n, if s(p, "/protocol").is_empty() { "TCP".to_owned() } else { s(p, "/protocol").to_owned() }))
    });
    ports.collect()
}

/// The domain of a node.
pub(super) fn domain<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node["metadata"]["labels"][key].as_str()
}

impl Places {
    /// What there is to know for `pod`; none when it does not mind others and nobody minds it.
    pub(super) fn of(
        cx: &Cx,
        pod: &Value,
        nodes: &[Arc<Value>],
        named: &impl Fn(&str) -> Option<usize>,
    ) -> Option<Places> {
        let (near, far) = (terms(pod, "podAffinity"), terms(pod, "podAntiAffinity"));
        let spreads: Vec<&Value> = arr(pod, "/spec/topologySpreadConstraints")
            .iter()
            .filter(|c| s(c, "/whenUnsatisfiable") != "ScheduleAnyway")
            .collect();
        let ports = host_ports(pod);
        let minding = cx.c.store.minding();
        if near.is_empty() && far.is_empty() && spreads.is_empty() && ports.is_empty() && minding.is_empty() {
            return None;
        }
        let node_of = |p: &Value| named(s(p, "/spec/nodeName")).map(|i| &nodes[i]);
        let ns = meta::namespace(pod);
        let all: Vec<&Arc<Value>> = match near.is_empty() && far.is_empty() && spreads.is_empty() {
            true => Vec::new(),
            false => cx.c.store.all("pods", "").filter(|p| !s(p, "/spec/nodeName").is_empty() && !over(p)).collect(),
        };
        let count = |term: &Value| {
            let key = s(term, "/topologyKey").to_owned();
            let mut counts = BTreeMap::new();
            for p in all.iter().filter(|p| means(cx, ns, term, p)) {
                if let Some(d) = node_of(p).and_then(|n| domain(n, &key)) {
                    *counts.entry(d.to_owned()).or_insert(0) += 1;
                }
            }
            Rule { key, counts }
        };
        let near_rules: Vec<Rule> = near.iter().map(&count).collect();
        let first = near_rules.iter().all(|r| r.counts.is_empty()) && near.iter().all(|t| means(cx, ns, t, pod));
        let far_rules = far.iter().map(&count).collect();
        let keys: Vec<&str> = spreads.iter().map(|c| s(c, "/topologyKey")).collect();
        let whole = |n: &Value| keys.iter().all(|k| domain(n, k).is_some());
        let spread = |c: &&Value| {
            let counted = |n: &Value| whole(n) && includes(c, &pod["spec"], n);
            spread(c, pod, nodes, &all, &counted, &node_of)
        };
        let (mut shut, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for p in minding.iter().filter(|p| !over(p)) {
            let Some(node) = node_of(p) else { continue };
            for t in terms(p, "podAntiAffinity").iter().filter(|t| means(cx, meta::namespace(p), t, pod)) {
                if let Some(d) = domain(node, s(t, "/topologyKey")) {
                    shut.insert((s(t, "/topologyKey").to_owned(), d.to_owned()));
                }
            }
            taken.extend(host_ports(p).into_iter().map(|(n, proto)| (meta::name(node).to_owned(), n, proto)));
        }
        let spreads = spreads.iter().map(spread).collect();
        Some(Places { near: near_rules, first, far: far_rules, shut, spreads, ports, taken })
    }

    /// Why the pod cannot go to a node for the ports it wants there.
    pub(super) fn port(&self, node: &Value) -> Option<Why> {
        let name = meta::name(node);
        let clash = self.ports.iter().any(|(n, proto)| self.taken.contains(&(name.to_owned(), *n, proto.clone())));
        clash.then(|| Why::may("node(s) didn't have free ports for the requested pod ports"))
    }

    /// Why the pod cannot go to a node for the pods that are there.
    pub(super) fn company(&self, node: &Value) -> Option<Why> {
        for c in &self.spreads {
            let Some(d) = domain(node, &c.rule.key) else {
                return Some(Why::never(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let here = c.rule.counts.get(d).copied().unwrap_or(0);
            if here + c.own - c.least > c.most {
                return Some(Why::may("node(s) didn't match pod topology spread constraints"));
            }
        }
        let has = |r: &Rule| domain(node, &r.key).is_some_and(|d| r.counts.get(d).copied().unwrap_or(0) > 0);
        let keyed = |r: &Rule| domain(node, &r.key).is_some();
        // Without rules all of them hold.
        let near = self.near.iter().all(has) || self.first && self.near.iter().all(keyed);
        if !near {
            return Some(Why::never("node(s) didn't match pod affinity rules"));
        }
        if self.far.iter().any(has) {
            return Some(Why::may("node(s) didn't match pod anti-affinity rules"));
        }
        let repelled = self.shut.iter().any(|(key, d)| domain(node, key) == Some(d));
        repelled.then(|| Why::may("node(s) didn't satisfy existing pods anti-affinity rules"))
    }
}

fn over(p: &Value) -> bool {
    matches!(s(p, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a constraint counts a node: those that the pod wants unless it ignores that, those whose taints it tolerates
/// if it honours them.
fn includes(c: &Value, spec: &Value, node: &Value) -> bool {
    let drives_off = |t: &&Value| s(t, "/effect") != "PreferNoSchedule";
    let borne = || arr(node, "/spec/taints").iter().filter(drives_off).all(|t| tolerates(spec, t));
    (c["nodeAffinityPolicy"] == "Ignore" || likes(spec, node)) && (c["nodeTaintsPolicy"] != "Honor" || borne())
}

fn spread<'a>(
    c: &Value,
    pod: &Value,
    nodes: &'a [Arc<Value>],
    all: &[&Arc<Value>],
    counted: &impl Fn(&Value) -> bool,
    node_of: &impl Fn(&Value) -> Option<&'a Arc<Value>>,
) -> Spread {
    let key = s(c, "/topologyKey").to_owned();
    let ns = meta::namespace(pod);
    let keys = arr(c, "/matchLabelKeys");
    let alike = |p: &Value| {
        c["labelSelector"].is_object()
            && selects(&c["labelSelector"], &p["metadata"]["labels"])
            && keys.iter().filter_map(Value::as_str).all(|k| p["metadata"]["labels"][k] == pod["metadata"]["labels"][k])
    };
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for n in nodes.iter().filter(|n| counted(n)) {
        if let Some(d) = domain(n, &key) {
            counts.entry(d.to_owned()).or_default();
        }
    }
    for p in all.iter().filter(|p| meta::namespace(p) == ns && pods::is_active(p) && alike(p)) {
        let Some(n) = node_of(p).filter(|n| counted(n)) else { continue };
        if let Some(d) = domain(n, &key) {
            *counts.entry(d.to_owned()).or_default() += 1;
        }
    }
    let few = (counts.len() as u64) < c["minDomains"].as_u64().unwrap_or(1);
    let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
    let own = i64::from(alike(pod));
    Spread { rule: Rule { key, counts }, most: c["maxSkew"].as_i64().unwrap_or(1), least, own }
}
