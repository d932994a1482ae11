//! Preemption: less important pods go where a more important one finds no room. Grade: source (the plugin
//! DefaultPreemption of kube-scheduler).
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::store::index::Requests;
use super::super::text::s;
use super::pods;
use super::rooms::Hall;
use super::scheduler::{Why, priority, requests, tell};
use crate::kube::k3s::node::minor;

/// Pods that would go from one node.
struct Offer {
    node: usize,
    victims: Vec<Value>,
}

/// Takes less important pods from a node if that lets `pod` in; what is said of it otherwise.
pub(super) fn make_room(
    cx: &mut Cx,
    pod: &Value,
    wants: &Requests,
    hall: &mut Hall,
    failed: &[(usize, Why)],
) -> String {
    let total = hall.nodes.len();
    if pod["spec"]["preemptionPolicy"] == "Never" {
        return said(cx, "not eligible due to preemptionPolicy=Never.");
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<Offer> = None;
    for (i, why) in failed.iter().filter(|(_, w)| !w.never) {
        match offer(cx, pod, wants, hall, *i, why) {
            Ok(o) if best.as_ref().is_none_or(|b| cost(&o) < cost(b)) => best = Some(o),
            Ok(_) => {}
            Err(texts) => texts.into_iter().for_each(|t| *reasons.entry(t).or_default() += 1),
        }
    }
    if let Some(o) = best {
        let node = s(&hall.nodes[o.node], "/metadata/name").to_owned();
        evict(cx, pod, &node, &o.victims);
        return String::new();
    }
    let helpless = total - failed.iter().filter(|(_, w)| !w.never).count();
    if helpless > 0 {
        reasons.insert("Preemption is not helpful for scheduling".to_owned(), helpless);
    }
    let mut list: Vec<String> = reasons.iter().map(|(t, n)| format!("{n} {t}")).collect();
    list.sort();
    said(cx, &format!("0/{total} nodes are available: {}.", list.join(", ")))
}

/// What preemption says, after the plugin of resource claims in the minors that have it speak.
fn said(cx: &Cx, text: &str) -> String {
    let before = if matches!(minor(&cx.c.version), 34 | 35) { "no new claims to deallocate, " } else { "" };
    format!("{before}preemption: {text}")
}

fn on_node(cx: &Cx, node: &str) -> Vec<Value> {
    let here = |p: &&std::sync::Arc<Value>| {
        s(p, "/spec/nodeName") == node && !matches!(s(p, "/status/phase"), "Succeeded" | "Failed")
    };
    cx.c.store.all("pods", "").filter(here).map(|p| (**p).clone()).collect()
}

/// Whether a pod has been promised a node that less important pods are on their way out of.
pub(super) fn waits(cx: &Cx, pod: &Value) -> bool {
    let promised = s(pod, "/status/nominatedNodeName");
    let goes = |p: &Value| !p["metadata"]["deletionTimestamp"].is_null() && priority(p) < priority(pod);
    !promised.is_empty() && on_node(cx, promised).iter().any(goes)
}

/// The fewest less important pods of a node without which there is room.
fn offer(cx: &Cx, pod: &Value, wants: &Requests, hall: &mut Hall, i: usize, why: &Why) -> Result<Offer, Vec<String>> {
    let name = s(&hall.nodes[i], "/metadata/name").to_owned();
    let own = priority(pod);
    let nobody = || vec!["No preemption victims found for incoming pod".to_owned()];
    if own <= cx.c.store.index().least_priority() {
        return Err(nobody());
    }
    let mut lower: Vec<Value> = on_node(cx, &name).into_iter().filter(|p| priority(p) < own).collect();
    if lower.is_empty() {
        return Err(nobody());
    }
    let mut gone = Requests::new();
    let add = |gone: &mut Requests, p: &Value, sign: i64| {
        for (k, v) in requests(p) {
            *gone.entry(k).or_default() += sign * v;
        }
    };
    lower.iter().for_each(|p| add(&mut gone, p, 1));
    let room = hall.room(cx, i);
    let short = room.without(&gone).lacks(wants);
    // Only resources are judged anew; company and ports are left to the next look.
    if let Some(w) = short {
        return Err(w.texts);
    }
    if !why.texts.iter().all(|t| t.starts_with("Insufficient ") || t == "Too many pods") {
        return Err(why.texts.clone());
    }
    // The most important ones are kept as far as there is room for them.
    lower.sort_by_key(|p| (std::cmp::Reverse(priority(p)), s(p, "/status/startTime").to_owned()));
    let mut victims = Vec::new();
    for p in lower {
        add(&mut gone, &p, -1);
        if room.without(&gone).lacks(wants).is_some() {
            add(&mut gone, &p, 1);
            victims.push(p);
        }
    }
    Ok(Offer { node: i, victims })
}

/// The less the better: the most important victim, their sum, their number.
fn cost(o: &Offer) -> (i64, i64, usize) {
    let all = o.victims.iter().map(priority);
    (all.clone().max().unwrap_or(i64::MIN), all.sum(), o.victims.len())
}

fn evict(cx: &mut Cx, pod: &Value, node: &str, victims: &[Value]) {
    let stamp = cx.stamp();
    for v in victims.iter().filter(|v| v["metadata"]["deletionTimestamp"].is_null()) {
        let (ns, name) = key(v);
        let text = "default-scheduler: preempting to accommodate a higher priority pod";
        cx.update("pods", &ns, &name, |p| {
            pods::disrupted(p, &stamp, "PreemptionByScheduler", text);
        });
        let text = format!("Preempted by pod {} on node {node}", s(pod, "/metadata/uid"));
        tell(cx, v, Some(pod), ("Normal", "Preempted", "Preempting"), &text);
        cx.delete("pods", &ns, &name);
    }
    let (ns, name) = key(pod);
    cx.update("pods", &ns, &name, |p| p["status"]["nominatedNodeName"] = json!(node));
}
