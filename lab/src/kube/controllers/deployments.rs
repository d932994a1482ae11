//! Deployments: which ReplicaSets there are, and how many pods each may have. Grade: source (pkg/controller/deployment of
//! kubernetes).
use std::cmp::Reverse;

use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref};
use super::super::text::{s, template_hash};
use super::replicasets::SETS;
use super::{adopt, pods, progress};

pub(super) const DEPLOYMENTS: &str = "deployments.apps";
const CONTROLLER: &str = "deployment-controller";
const NOTES: &str = "deployment.kubernetes.io";

pub(super) fn number(v: &Value, pointer: &str, default: i64) -> i64 {
    v.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

pub(super) fn sets_of<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    cx.c.store.owned(SETS, ns, uid)
}

/// One ReplicaSet as its Deployment counts it.
#[derive(Debug, Clone)]
struct Set {
    name: String,
    uid: String,
    wanted: i64,
    available: i64,
    replicas: i64,
    revision: i64,
    /// How many pods the Deployment wanted when it was last scaled, and how many it could have had.
    desired: Option<i64>,
    most: i64,
    born: String,
}

fn set(r: &Value) -> Set {
    let note = |n: &str| r["metadata"]["annotations"][format!("{NOTES}/{n}")].as_str().and_then(|v| v.parse().ok());
    Set {
        name: s(r, "/metadata/name").to_owned(),
        uid: s(r, "/metadata/uid").to_owned(),
        wanted: number(r, "/spec/replicas", 0),
        available: number(r, "/status/availableReplicas", 0),
        replicas: number(r, "/status/replicas", 0),
        revision: note("revision").unwrap_or(0),
        desired: note("desired-replicas"),
        most: note("max-replicas").unwrap_or(0),
        born: s(r, "/metadata/creationTimestamp").to_owned(),
    }
}

/// A count or percentage of `of`; percentages of a surge round up, of an outage down.
#[must_use]
pub fn share(v: &Value, of: i64, up: bool) -> i64 {
    match v {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        Value::String(t) => match t.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) {
            Some(p) if up => (p * of + 99) / 100,
            Some(p) => p * of / 100,
            None => t.parse().unwrap_or(0),
        },
        _ => 0,
    }
}

/// Whether pods are replaced one after the other.
fn rolls(d: &Value) -> bool {
    s(d, "/spec/strategy/type") != "Recreate"
}

/// How many pods there may be beyond the wanted ones.
fn surge(d: &Value, want: i64) -> i64 {
    if rolls(d) { share(&d["spec"]["strategy"]["rollingUpdate"]["maxSurge"], want, true) } else { 0 }
}

/// How many of the wanted pods may be missing.
pub(super) fn outage(d: &Value, want: i64) -> i64 {
    if !rolls(d) || want == 0 {
        return 0;
    }
    match share(&d["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], want, false) {
        0 if surge(d, want) == 0 => 1,
        n => n.min(want),
    }
}

/// A Deployment while it is looked at.
struct Rollout {
    d: Value,
    ns: String,
    name: String,
    uid: String,
    /// Name of the ReplicaSet of the present template, and the hash in it.
    current: String,
    hash: String,
    want: i64,
}

impl Rollout {
    /// All ReplicaSets, the oldest first.
    fn sets(&self, cx: &Cx) -> Vec<Set> {
        let mut all: Vec<Set> = sets_of(cx, &self.ns, &self.uid).into_iter().map(set).collect();
        all.sort_by(|a, b| a.born.cmp(&b.born).then(a.name.cmp(&b.name)));
        all
    }

    fn olds(&self, cx: &Cx) -> Vec<Set> {
        self.sets(cx).into_iter().filter(|r| r.name != self.current).collect()
    }

    fn newest(&self, cx: &Cx) -> Option<Set> {
        cx.get(SETS, &self.ns, &self.current).map(set)
    }
}

/// The hash of the set that has a Deployment's template already.
fn known(cx: &Cx, d: &Value) -> Option<String> {
    let of = |t: &Value| {
        let mut t = t.clone();
        t.pointer_mut("/metadata/labels").and_then(Value::as_object_mut).map(|m| m.shift_remove("pod-template-hash"));
        t
    };
    let (want, prefix) = (of(&d["spec"]["template"]), format!("{}-", s(d, "/metadata/name")));
    let sets = cx.c.store.owned(SETS, s(d, "/metadata/namespace"), s(d, "/metadata/uid"));
    let same = sets.into_iter().find(|r| of(&r["spec"]["template"]) == want)?;
    s(same, "/metadata/name").strip_prefix(&prefix).map(str::to_owned)
}

/// Brings a Deployment's ReplicaSets and status up to date.
pub fn deployment(cx: &mut Cx, ns: &str, name: &str) {
    let Some(d) = cx.get(DEPLOYMENTS, ns, name).cloned() else { return };
    let uid = s(&d, "/metadata/uid").to_owned();
    if d["status"]["observedGeneration"].is_null() {
        adopt::orphans(cx, &d, SETS);
    }
    let hash = known(cx, &d).unwrap_or_else(|| template_hash(&d["spec"]["template"]));
    let want = number(&d, "/spec/replicas", 1);
    let current = format!("{name}-{hash}");
    let r = Rollout { d, ns: ns.to_owned(), name: name.to_owned(), uid, current, hash, want };
    if !r.d["metadata"]["deletionTimestamp"].is_null() {
        return progress::write(cx, ns, name, &r.current, false);
    }
    progress::paused(cx, &r.d);
    sync_notes(cx, &r);
    let scaled = r.sets(cx).iter().any(|x| x.wanted > 0 && x.desired.is_some_and(|n| n != want));
    if r.d["spec"]["paused"] == true || scaled {
        resize(cx, &r);
        if r.d["spec"]["paused"] == true {
            tidy(cx, &r);
        }
        return progress::write(cx, ns, name, &r.current, false);
    }
    if rolls(&r.d) {
        roll(cx, &r);
    } else {
        recreate(cx, &r);
    }
    let settled = cx.get(DEPLOYMENTS, ns, name).is_some_and(|d| progress::complete(d, &d["status"]));
    if settled {
        tidy(cx, &r);
    }
    progress::write(cx, ns, name, &r.current, true);
}

/// Scales what is there: the only ReplicaSet in use, or all of them by their sizes, so that a rollout keeps its shape.
fn resize(cx: &mut Cx, r: &Rollout) {
    let mut active: Vec<Set> = r.sets(cx).into_iter().filter(|x| x.wanted > 0).collect();
    let only = match active.len() {
        0 => r.newest(cx).or_else(|| r.olds(cx).pop()),
        1 => active.first().cloned(),
        _ => None,
    };
    if let Some(x) = only {
        return resized(cx, r, &x, r.want);
    }
    let saturated = |x: &Set| x.wanted == r.want && x.desired == Some(r.want) && x.available == r.want;
    if active.is_empty() || r.newest(cx).is_some_and(|x| saturated(&x)) {
        return active.iter().filter(|x| x.name != r.current).for_each(|x| resized(cx, r, x, 0));
    }
    if !rolls(&r.d) {
        return;
    }
    let allowed = if r.want > 0 { r.want + surge(&r.d, r.want) } else { 0 };
    let add = allowed - active.iter().map(|x| x.wanted).sum::<i64>();
    // The largest first; of equals the newest grow first and the oldest shrink first.
    active.sort_by_key(|x| Reverse(x.wanted));
    if add > 0 {
        active.reverse();
        active.sort_by_key(|x| Reverse(x.wanted));
    }
    let mut added = 0;
    let mut sizes: Vec<i64> = Vec::new();
    for x in &active {
        let part = proportion(r, x, add, added);
        sizes.push(x.wanted + part);
        added += part;
    }
    sizes[0] = (sizes[0] + add - added).max(0);
    active.iter().zip(sizes).for_each(|(x, size)| resized(cx, r, x, size));
}

/// How much of what is to be added falls to one ReplicaSet.
fn proportion(r: &Rollout, x: &Set, add: i64, added: i64) -> i64 {
    if x.wanted == 0 || add == 0 || add == added {
        return 0;
    }
    let before = if x.most > 0 { x.most } else { number(&r.d, "/status/replicas", 0) };
    let part = match (r.want, before) {
        (0, _) => -x.wanted,
        (_, 0) => 0,
        _ => (x.wanted * (r.want + surge(&r.d, r.want)) * 2 + before) / (before * 2) - x.wanted,
    };
    if add > 0 { part.min(add - added) } else { part.max(add - added) }
}

/// Old pods go before new ones come.
fn recreate(cx: &mut Cx, r: &Rollout) {
    let busy: Vec<Set> = r.olds(cx).into_iter().filter(|o| o.wanted > 0).collect();
    if !busy.is_empty() {
        return busy.iter().for_each(|o| scale(cx, r, o, 0));
    }
    let runs = |o: &Set| pods::owned(cx, &r.ns, &o.uid).into_iter().any(|p| !pods::has_ended(p));
    if r.olds(cx).iter().any(|o| o.replicas > 0 || runs(o)) {
        return;
    }
    match r.newest(cx) {
        Some(new) => scale(cx, r, &new, r.want),
        None => create_set(cx, r, r.want),
    }
}

/// A step of a rolling update: as many new pods as the surge allows, then as few old ones as must stay.
fn roll(cx: &mut Cx, r: &Rollout) {
    let busy: i64 = r.olds(cx).iter().map(|o| o.wanted).sum();
    let have = r.newest(cx);
    let (is, want) = (have.as_ref().map_or(0, |n| n.wanted), r.want);
    let room = (want + surge(&r.d, want) - busy - is).clamp(0, (want - is).max(0));
    let goal = if is > want { want } else { is + room };
    match &have {
        Some(new) if new.wanted == goal => {}
        Some(new) => return scale(cx, r, new, goal),
        None => create_set(cx, r, goal),
    }
    let Some(new) = r.newest(cx) else { return };
    let floor = want - outage(&r.d, want);
    let old = r.olds(cx);
    let total: i64 = old.iter().map(|o| o.wanted).sum::<i64>() + new.wanted;
    let mut spare = total - floor - (new.wanted - new.available);
    if spare <= 0 {
        return;
    }
    // Old pods that do not work go first, then those that work.
    for o in &old {
        let broken = (o.wanted - o.available).min(spare).max(0);
        if broken > 0 {
            scale(cx, r, o, o.wanted - broken);
            spare -= broken;
        }
    }
    let old = r.olds(cx);
    let available: i64 = old.iter().map(|o| o.available).sum::<i64>() + new.available;
    let mut spare = available - floor;
    for o in old {
        let n = o.wanted.min(spare).max(0);
        if n > 0 {
            scale(cx, r, &o, o.wanted - n);
            spare -= n;
        }
    }
}

/// As [`scale`], also noting what the Deployment wants now when the size stays.
fn resized(cx: &mut Cx, r: &Rollout, x: &Set, to: i64) {
    if x.wanted == to {
        note_sizes(cx, r, x, to);
    } else {
        scale(cx, r, x, to);
    }
}

fn note_sizes(cx: &mut Cx, r: &Rollout, x: &Set, to: i64) {
    let (want, most) = (r.want.to_string(), (r.want + surge(&r.d, r.want)).to_string());
    cx.update(SETS, &r.ns, &x.name, |o| {
        o["spec"]["replicas"] = json!(to);
        let notes = &mut o["metadata"]["annotations"];
        notes[format!("{NOTES}/desired-replicas")] = json!(want);
        notes[format!("{NOTES}/max-replicas")] = json!(most);
    });
}

fn scale(cx: &mut Cx, r: &Rollout, x: &Set, to: i64) {
    if x.wanted == to {
        return;
    }
    note_sizes(cx, r, x, to);
    let word = if to > x.wanted { "up" } else { "down" };
    let text = format!("Scaled {word} replica set {} from {} to {to}", x.name, x.wanted);
    cx.event(&r.d, true, "ScalingReplicaSet", &text, CONTROLLER);
}

/// The ReplicaSet of the present template, if it is there, has the highest revision and the Deployment's annotations.
fn sync_notes(cx: &mut Cx, r: &Rollout) {
    let Some(new) = r.newest(cx) else { return };
    let next = r.olds(cx).iter().map(|o| o.revision).max().unwrap_or(0) + 1;
    let revision = new.revision.max(next);
    let past = new.revision;
    let min = &r.d["spec"]["minReadySeconds"];
    cx.update(SETS, &r.ns, &r.current, |o| {
        let notes = &mut o["metadata"]["annotations"];
        notes_of(&r.d).for_each(|(k, v)| notes[k] = v.clone());
        if revision != past {
            notes[format!("{NOTES}/revision")] = json!(revision.to_string());
            if past > 0 {
                let key = format!("{NOTES}/revision-history");
                let before = notes[&key].as_str().map(|t| format!("{t},")).unwrap_or_default();
                notes[key] = json!(format!("{before}{past}"));
            }
        }
        if number(o, "/spec/minReadySeconds", 0) != min.as_i64().unwrap_or(0) {
            o["spec"]["minReadySeconds"] = min.clone();
        }
    });
    revised(cx, r, revision);
    progress::found(cx, &r.d, &r.current);
}

/// The Deployment has the revision of its newest ReplicaSet.
fn revised(cx: &mut Cx, r: &Rollout, revision: i64) {
    cx.update(DEPLOYMENTS, &r.ns, &r.name, |d| {
        d["metadata"]["annotations"][format!("{NOTES}/revision")] = json!(revision.to_string());
    });
}

/// Annotations of a Deployment that its newest ReplicaSet has too: those that are not about the Deployment itself.
fn notes_of(d: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let own = |k: &str| {
        let last = k.strip_prefix(NOTES).and_then(|k| k.strip_prefix('/'));
        k == "kubectl.kubernetes.io/last-applied-configuration"
            || k == "deprecated.deployment.rollback.to"
            || last.is_some_and(|l| ["revision", "revision-history", "desired-replicas", "max-replicas"].contains(&l))
    };
    d["metadata"]["annotations"].as_object().into_iter().flatten().filter(move |(k, _)| !own(k))
}

fn create_set(cx: &mut Cx, r: &Rollout, goal: i64) {
    let (d, hash, current) = (&r.d, &r.hash, &r.current);
    let mut template = d["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let mut selector = d["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = json!(hash);
    let revision = r.olds(cx).iter().map(|o| o.revision).max().unwrap_or(0) + 1;
    let mut notes = json!({});
    notes_of(d).for_each(|(k, v)| notes[k] = v.clone());
    notes[format!("{NOTES}/revision")] = json!(revision.to_string());
    notes[format!("{NOTES}/desired-replicas")] = json!(r.want.to_string());
    notes[format!("{NOTES}/max-replicas")] = json!((r.want + surge(d, r.want)).to_string());
    let mut set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": current, "namespace": r.ns, "labels": template["metadata"]["labels"],
            "ownerReferences": owner_ref(d), "annotations": notes},
        "spec": {"replicas": goal, "selector": selector, "template": template}});
    if let Some(min) = d["spec"]["minReadySeconds"].as_u64().filter(|n| *n > 0) {
        set["spec"]["minReadySeconds"] = json!(min);
    }
    let now = cx.now();
    if let Err(e) = cx.c.store.create(now, set) {
        let text = format!("Failed to create new replica set \"{current}\": {}", e.message);
        progress::note(cx, d, "False", "ReplicaSetCreateError", &text);
        return cx.event(d, false, "ReplicaSetCreateError", &text, CONTROLLER);
    }
    if goal > 0 {
        let text = format!("Scaled up replica set {current} from 0 to {goal}");
        cx.event(d, true, "ScalingReplicaSet", &text, CONTROLLER);
    }
    revised(cx, r, revision);
    progress::note(cx, d, "True", "NewReplicaSetCreated", &format!("Created new replica set \"{current}\""));
}

/// Old ReplicaSets beyond `revisionHistoryLimit` go.
fn tidy(cx: &mut Cx, r: &Rollout) {
    let Some(limit) = r.d["spec"]["revisionHistoryLimit"].as_u64() else { return };
    let alive = |x: &&Value| x["metadata"]["deletionTimestamp"].is_null() && s(x, "/metadata/name") != r.current;
    let mut old: Vec<&Value> = sets_of(cx, &r.ns, &r.uid).into_iter().filter(alive).collect();
    old.sort_by_key(|x| (set(x).revision, s(x, "/metadata/creationTimestamp")));
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    let idle = |x: &&&Value| {
        number(x, "/spec/replicas", 0) == 0
            && number(x, "/status/replicas", 0) == 0
            && x["metadata"]["generation"].as_u64() <= x["status"]["observedGeneration"].as_u64()
    };
    let gone: Vec<String> = old[..surplus].iter().filter(idle).map(|x| s(x, "/metadata/name").to_owned()).collect();
    gone.iter().for_each(|name| cx.delete(SETS, &r.ns, name));
}
