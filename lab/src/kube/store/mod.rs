//! The objects of a cluster: one ordered store with versions, a bounded log of changes and the
//! rules every write obeys. Pure data, no sockets; the API and the controllers write through it.
pub mod admission;
mod admitted;
mod changes;
pub mod charges;
pub mod compare;
pub mod delete;
pub mod event;
pub mod failure;
pub mod fields;
mod history;
mod incoming;
pub mod index;
pub mod labels;
mod lastapplied;
pub mod managers;
mod merge;
pub mod meta;
pub mod patch;
mod prune;
mod ranges;
pub mod selector;
pub mod ssa;
pub mod standards;
pub mod threeway;
pub mod write;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use delete::{Deleted, Propagation};
pub use failure::{Cause, Failure};
pub use labels::Labels;
pub use selector::Fields;
pub use write::WriteOptions;

use crate::kube::schema::{Kind, kinds};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Change {
    /// resourceVersion of the change.
    pub rv: u64,
    /// What happened.
    pub op: Op,
    /// Resource (`deployments.apps`).
    pub resource: Arc<str>,
    /// The object after the change (before it, when deleted).
    pub object: Arc<Value>,
    /// The object before it was modified or deleted.
    pub before: Option<Arc<Value>>,
}

/// Rings when something was written.
#[derive(Debug, Clone)]
struct Bell(tokio::sync::watch::Sender<u64>);

impl Default for Bell {
    fn default() -> Bell {
        Bell(tokio::sync::watch::channel(0).0)
    }
}

/// All objects of a cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Store {
    objects: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
    rv: u64,
    seed: u64,
    draws: u64,
    now_ms: u64,
    custom: Vec<Arc<Kind>>,
    history: history::History,
    bell: Bell,
    index: index::Index,
    writer: Writer,
    /// What the server that started last was told of Pod Security.
    pub standards: standards::Standards,
}

/// Who the control plane's own writes are by: in K3s all controllers, the scheduler and the kubelets are one program.
#[derive(Debug, Clone)]
struct Writer(Arc<str>);

impl Default for Writer {
    fn default() -> Writer {
        Writer("k3s".into())
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    objects: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
    rv: u64,
    seed: u64,
    draws: u64,
    now_ms: u64,
    #[serde(default)]
    standards: standards::Standards,
}

impl From<Store> for Saved {
    fn from(s: Store) -> Saved {
        Saved { objects: s.objects, rv: s.rv, seed: s.seed, draws: s.draws, now_ms: s.now_ms, standards: s.standards }
    }
}

impl From<Saved> for Store {
    fn from(s: Saved) -> Store {
        let mut store = Store {
            objects: s.objects,
            rv: s.rv,
            seed: s.seed,
            draws: s.draws,
            now_ms: s.now_ms,
            history: history::History::starting(s.rv),
            standards: s.standards,
            ..Store::default()
        };
        store.refresh_kinds();
        for (resource, map) in &store.objects {
            for (key, o) in map {
                store.index.note(resource, key, None, Some(o));
            }
        }
        store
    }
}

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Whether a definition has got its names.
fn established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

/// Key inside a resource: `namespace/name`, or `/name`.
fn key(ns: &str, name: &str) -> String {
    format!("{ns}/{name}")
}

/// An object with what a configuration of its kind says merged into it.
#[must_use]
pub fn merged(kind: &Kind, live: &Value, config: &Value) -> Value {
    merge::merge(crate::kube::schema::node::Node::of(kind), live, config)
}

/// Notes who made an object that is kept nowhere.
pub fn managed(kind: &Kind, obj: &mut Value, o: &WriteOptions, now_ms: u64) {
    managers::track(kind, None, obj, o, now_ms);
}

impl Store {
    /// An empty store; `seed` makes its uids and generated names reproducible.
    #[must_use]
    pub fn new(seed: u64, now_ms: u64) -> Store {
        Store { seed, now_ms, ..Store::default() }
    }

    /// Tells the store the time; every stamp it writes uses it.
    pub fn at(&mut self, now_ms: u64) -> &mut Store {
        self.now_ms = now_ms;
        self
    }

    /// Who controllers write as, unless somebody says otherwise.
    pub(super) fn writer(&self) -> Arc<str> {
        self.writer.0.clone()
    }

    /// Lets controllers write as `manager` from now on; tells who it was until now.
    pub fn write_as(&mut self, manager: impl Into<Arc<str>>) -> Arc<str> {
        std::mem::replace(&mut self.writer, Writer(manager.into())).0
    }

    /// Lab time as last told.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The last resourceVersion given out.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.rv
    }

    /// One object by resource (`pods`, `deployments.apps`), namespace (empty for cluster-scoped) and name.
    #[must_use]
    pub fn get(&self, resource: &str, ns: &str, name: &str) -> Option<&Value> {
        self.arc(resource, ns, name).map(AsRef::as_ref)
    }

    pub(crate) fn arc(&self, resource: &str, ns: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(&key(ns, name))
    }

    /// Objects of a resource in a namespace (empty: all), by label selector (empty: all). A
    /// selector that does not parse selects nothing.
    #[must_use]
    pub fn list(&self, resource: &str, ns: &str, label_selector: &str) -> Vec<&Value> {
        let Ok(sel) = Labels::parse(label_selector) else { return Vec::new() };
        self.all(resource, ns).filter(|o| sel.matches(o)).map(AsRef::as_ref).collect()
    }

    /// Objects of a resource whose labels satisfy a spec's `selector` object.
    #[must_use]
    pub fn select(&self, resource: &str, ns: &str, selector: &Value) -> Vec<&Value> {
        let sel = Labels::from_spec(selector);
        self.all(resource, ns).filter(|o| sel.matches(o)).map(AsRef::as_ref).collect()
    }

    /// How many objects of a resource there are.
    #[must_use]
    pub fn count(&self, resource: &str) -> usize {
        self.objects.get(resource).map_or(0, BTreeMap::len)
    }

    /// All objects of a resource in key order; `ns` empty: all namespaces.
    pub fn all<'a>(&'a self, resource: &str, ns: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let prefix = if ns.is_empty() { String::new() } else { format!("{ns}/") };
        let map = self.objects.get(resource);
        let upto = prefix.clone();
        map.into_iter()
            .flat_map(move |m| m.range(prefix.clone()..))
            .take_while(move |(k, _)| k.starts_with(&upto))
            .map(|(_, v)| v)
    }

    /// What is looked up often.
    #[must_use]
    pub fn index(&self) -> &index::Index {
        &self.index
    }

    /// Objects of a resource in a namespace that name `uid` as an owner, in key order.
    #[must_use]
    pub fn owned(&self, resource: &str, ns: &str, uid: &str) -> Vec<&Value> {
        let Some(map) = self.objects.get(resource) else { return Vec::new() };
        let mine = self.index.owned_in(resource, uid).filter_map(|key| map.get(key));
        mine.map(AsRef::as_ref).filter(|o| meta::namespace(o) == ns).collect()
    }

    /// Pods that wait for a node.
    pub fn unplaced(&self) -> impl Iterator<Item = &Value> {
        let map = self.objects.get("pods");
        self.index.unplaced().filter_map(move |k| map?.get(k)).map(AsRef::as_ref)
    }

    /// Placed pods that keep others away from where they are.
    #[must_use]
    pub fn minding(&self) -> Vec<&Arc<Value>> {
        let map = self.objects.get("pods");
        self.index.minding().filter_map(|k| map?.get(k)).collect()
    }

    /// Every resource that has or had objects.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// All kinds, built-in first.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        kinds::builtin().iter().chain(self.custom.iter())
    }

    /// The kind of an `apiVersion` and `kind`.
    #[must_use]
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds().find(|k| k.kind == kind && k.group == group && k.version == version).cloned()
    }

    /// The kind served at `/apis/GROUP/VERSION/PLURAL`.
    #[must_use]
    pub fn kind_at(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds().find(|k| k.plural == plural && k.group == group && k.version == version).cloned()
    }

    /// The kind of a resource (`deployments.apps`).
    #[must_use]
    pub fn kind_for(&self, resource: &str) -> Option<Arc<Kind>> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.kinds().find(|k| k.plural == plural && k.group == group).cloned()
    }

    /// Installs one of the CustomResourceDefinitions this lab knows (`helmcharts.helm.cattle.io`), if absent.
    pub fn install_crd(&mut self, now_ms: u64, name: &str) -> bool {
        if self.get(CRDS, "", name).is_some() {
            return false;
        }
        crate::kube::schema::crds::crd(name).is_some_and(|crd| self.create(now_ms, crd).is_ok())
    }

    /// Changes after `rv`, oldest first, or `None` when some are forgotten.
    pub(crate) fn since(&self, rv: u64) -> Option<impl Iterator<Item = &Change>> {
        self.history.recent(rv)
    }

    /// Changes of a resource after `rv`, oldest first.
    ///
    /// # Errors
    /// The oldest resourceVersion that is remembered, when that is younger.
    pub(crate) fn watched(&self, resource: &str, rv: u64) -> Result<impl Iterator<Item = &Change>, u64> {
        self.history.watched(resource, rv)
    }

    /// Objects of a resource that come after the key `after`, in key order, as they are or as they were at `rv`;
    /// `None` when that is forgotten.
    pub(crate) fn as_of<'a>(
        &'a self,
        resource: &str,
        ns: &str,
        after: &str,
        rv: Option<u64>,
    ) -> Option<impl Iterator<Item = &'a Arc<Value>> + use<'a>> {
        // What has changed since then, as it was.
        let mut then: BTreeMap<String, Option<&Arc<Value>>> = BTreeMap::new();
        if let Some(rv) = rv {
            for c in self.history.kept(resource, rv)? {
                then.entry(key(meta::namespace(&c.object), meta::name(&c.object))).or_insert(c.before.as_ref());
            }
        }
        let prefix = if ns.is_empty() { String::new() } else { format!("{ns}/") };
        let after = if after.is_empty() || after.contains('/') { after.to_owned() } else { format!("/{after}") };
        let from = if after > prefix { Bound::Excluded(after) } else { Bound::Included(prefix.clone()) };
        let gone: Vec<(String, &'a Arc<Value>)> = then
            .range((from.clone(), Bound::Unbounded))
            .filter_map(|(k, v)| v.filter(|_| k.starts_with(&prefix)).map(|v| (k.clone(), v)))
            .collect();
        let map = self.objects.get(resource);
        let mut now = map
            .into_iter()
            .flat_map(move |m| m.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(k, _)| k.starts_with(&prefix))
            .filter(move |(k, _)| !then.contains_key(*k))
            .peekable();
        let mut gone = gone.into_iter().peekable();
        Some(std::iter::from_fn(move || match (now.peek(), gone.peek()) {
            (Some((k, _)), Some((g, _))) if g < *k => gone.next().map(|x| x.1),
            (None, Some(_)) => gone.next().map(|x| x.1),
            _ => now.next().map(|x| x.1),
        }))
    }

    /// Rings (with the last resourceVersion) on every write.
    pub(crate) fn bell(&self) -> tokio::sync::watch::Receiver<u64> {
        self.bell.0.subscribe()
    }

    /// Writes `new` (or removes when `None`) under a new resourceVersion and logs it.
    pub(super) fn commit(&mut self, kind: &Kind, ns: &str, name: &str, new: Option<Value>) -> Arc<Value> {
        self.rv += 1;
        let resource = kind.resource();
        let map = self.objects.entry(resource.clone()).or_default();
        let key = key(ns, name);
        let (op, object, before) = match new {
            Some(mut v) => {
                meta::edit(&mut v, |m| m.insert("resourceVersion".into(), self.rv.to_string().into()));
                let v = Arc::new(v);
                let before = map.insert(key.clone(), v.clone());
                self.index.note(&resource, &key, before.as_deref(), Some(&v));
                (if before.is_some() { Op::Modified } else { Op::Added }, v, before)
            }
            None => {
                let before = map.remove(&key);
                self.index.note(&resource, &key, before.as_deref(), None);
                let mut old = before.as_deref().cloned().unwrap_or_default();
                meta::edit(&mut old, |m| m.insert("resourceVersion".into(), self.rv.to_string().into()));
                (Op::Deleted, Arc::new(old), before)
            }
        };
        let out = object.clone();
        let change = Change { rv: self.rv, op, resource: resource.as_str().into(), object, before };
        self.history.push(self.now_ms, change);
        if resource == CRDS {
            self.refresh_kinds();
        }
        self.bell.0.send_replace(self.rv);
        out
    }

    fn refresh_kinds(&mut self) {
        let mut fresh: Vec<Arc<Kind>> = self
            .objects
            .get(CRDS)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|crd| established(crd))
            .flat_map(|crd| kinds::of_crd(crd))
            .collect();
        // Those that were there keep their places; new ones follow.
        let place = |k: &Arc<Kind>| {
            self.custom.iter().position(|o| o.group == k.group && o.plural == k.plural && o.version == k.version)
        };
        fresh.sort_by_key(|k| place(k).unwrap_or(usize::MAX));
        self.custom = fresh;
    }

    /// A reproducible random number.
    pub(crate) fn random(&mut self) -> u64 {
        self.draws += 1;
        let mut x = self.seed ^ self.draws.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 30;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
        x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number that spreads service addresses and ports.
    pub(crate) fn draw_port(&mut self) -> u64 {
        self.random() % 60_000
    }

    /// A new uid.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.random().to_be_bytes(), self.random().to_be_bytes());
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&a);
        bytes[8..].copy_from_slice(&b);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// A suffix as generated names have it (`x7k2p`).
    pub fn suffix(&mut self, len: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..len)
            .map(|_| {
                let i = self.random() % (ALPHABET.len() as u64);
                char::from(ALPHABET[usize::try_from(i).unwrap_or(0)])
            })
            .collect()
    }
}
