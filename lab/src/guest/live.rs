//! What lives only while the lab runs: the machines that are powered on, with their files and sockets.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::fs::files::{Files, MountPoint};
use super::fs::image;
use super::fs::tree::{Kind, Node, Nodes, Tree};
use super::fs::virtuals::GuestVirtual;
use super::logins::Logins;
use super::state::{Backing, Guest, Mount};
use crate::Lab;
use crate::volume::Content;
use crate::world::World;

/// The machines that are powered on.
#[derive(Default)]
pub struct Live {
    machines: Mutex<BTreeMap<u32, Arc<Machine>>>,
}

/// One machine that is powered on and has a root file system.
pub struct Machine {
    /// The lab.
    pub lab: Lab,
    /// VM id.
    pub vmid: u32,
    /// Boot it belongs to.
    pub boot: u64,
    /// Its files.
    pub files: Arc<Files>,
    /// Cancelled when it loses power or goes down: connections break, programs end.
    pub stop: CancellationToken,
    /// Where its sshd listens.
    pub at: std::sync::OnceLock<std::net::SocketAddr>,
    /// Counts process ids.
    pub pids: AtomicI64,
    /// Every job that runs on it holds one more of this.
    pub running: Arc<()>,
    /// Who was logged in at its terminals.
    pub logins: Logins,
    base: Arc<Nodes>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Machine>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine of a guest.
    #[must_use]
    pub fn get(&self, vmid: u32) -> Option<Arc<Machine>> {
        self.lock().get(&vmid).cloned()
    }

    /// All machines.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Machine>> {
        self.lock().values().cloned().collect()
    }

    /// Adds a machine.
    pub fn insert(&self, m: Arc<Machine>) {
        if let Some(old) = self.lock().insert(m.vmid, m) {
            old.stop.cancel();
        }
    }

    /// Takes a machine away and ends what runs in it.
    pub fn remove(&self, vmid: u32) -> Option<Arc<Machine>> {
        let m = self.lock().remove(&vmid)?;
        m.stop.cancel();
        Some(m)
    }

    /// Forgets all machines (the lab stops).
    pub fn clear(&self) {
        for m in std::mem::take(&mut *self.lock()).into_values() {
            m.stop.cancel();
        }
    }
}

impl Machine {
    /// A machine over the saved root file system `root` (the bare image when `None`).
    #[must_use]
    pub fn new(lab: &Lab, g: &Guest, root: Option<&serde_json::Value>) -> Option<Arc<Machine>> {
        let base = image::nodes(&g.os)?;
        let tree = match root {
            Some(saved) => Tree::load(&base, saved),
            None => Tree::new(base.as_ref().clone()),
        };
        let vmid = g.spec.vmid;
        let virt = Arc::new(GuestVirtual::new(lab.clone(), vmid));
        let clock = lab.clock().clone();
        let files = Files::new(Arc::new(tree), virt, Arc::new(move || clock.now_ms() / 1000));
        Some(Arc::new(Machine {
            lab: lab.clone(),
            vmid,
            boot: g.boot,
            files: Arc::new(files),
            stop: CancellationToken::new(),
            at: std::sync::OnceLock::new(),
            pids: AtomicI64::new(1200),
            running: Arc::new(()),
            logins: Logins::default(),
            base,
        }))
    }

    /// Where its sshd listens.
    #[must_use]
    pub fn listening(&self) -> Option<std::net::SocketAddr> {
        self.at.get().copied()
    }

    /// The next process id.
    pub fn next_pid(&self) -> u32 {
        self.pids.fetch_add(7, Ordering::Relaxed) as u32
    }

    /// The root file system as it is kept on the volume.
    #[must_use]
    pub fn saved_root(&self) -> serde_json::Value {
        self.files.root().save(&self.base)
    }
}

/// Shows a mount in the machine's files. False when what it mounts is gone.
pub fn attach(lab: &Lab, w: &World, m: &Machine, mount: &Mount) -> bool {
    let always: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(|| true);
    let (tree, sub, alive) = match &mount.backing {
        Backing::Volume(volid) => match w.volumes.get(volid).map(|v| &v.content) {
            Some(Content::Filesystem { files, .. }) => (Arc::new(tree_of(files)), "/".to_owned(), always),
            _ => return false,
        },
        Backing::Tmpfs => (Arc::new(Tree::new(Nodes::new())), "/".to_owned(), always),
        Backing::Bind(path) => match m.files.place(path) {
            Some((t, p)) => (t, p, always),
            None => return false,
        },
        Backing::Nfs { server, path } => {
            let Some(s) = lab.guests().get(*server) else { return false };
            let Some((t, p)) = s.files.place(path) else { return false };
            let alive: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || !s.stop.is_cancelled());
            (t, p, alive)
        }
    };
    let read_only = mount.options.split(',').any(|o| o == "ro");
    m.files.mount(MountPoint { target: mount.target.clone(), tree, sub, read_only, alive });
    true
}

/// Writes the files of mounted volumes back into the world.
pub fn store_mounts(w: &mut World, g: &Guest, m: &Machine) {
    let live = m.files.mounts();
    for mount in &g.mounts {
        let Backing::Volume(volid) = &mount.backing else { continue };
        if let Some(p) = live.iter().find(|p| p.target == mount.target) {
            store_tree(w, volid, &p.tree);
        }
    }
}

/// Writes a mounted tree into its volume.
pub fn store_tree(w: &mut World, volid: &str, tree: &Tree) {
    if let Some(Content::Filesystem { files, .. }) = w.volumes.get_mut(volid).map(|v| &mut v.content) {
        *files = files_of(tree);
    }
}

/// Key under which modes, owners, links and binary files of a volume are kept.
const META: &str = "";

/// A tree from the files of a volume.
#[must_use]
pub fn tree_of(files: &BTreeMap<String, String>) -> Tree {
    if let Some(saved) = files.get(META).and_then(|t| serde_json::from_str(t).ok()) {
        let tree = Tree::load(&Nodes::new(), &saved);
        // Files that somebody else put into the volume meanwhile.
        for (path, text) in files.iter().filter(|(p, _)| !p.is_empty() && !p.ends_with('/')) {
            let path = format!("/{}", path.trim_start_matches('/'));
            if tree.get(&path).is_none() {
                put(&tree, &path, text);
            }
        }
        return tree;
    }
    let tree = Tree::new(Nodes::new());
    for (path, text) in files {
        let full = format!("/{}", path.trim_matches('/'));
        if path.ends_with('/') {
            tree.mkdirs(&full, 0o755, 0);
        } else {
            put(&tree, &full, text);
        }
    }
    tree
}

fn put(tree: &Tree, path: &str, text: &str) {
    tree.mkdirs(super::fs::tree::parent(path), 0o755, 0);
    let _ = tree.put(path, Node::file(text, 0o644));
}

/// The files of a volume from a tree.
#[must_use]
pub fn files_of(tree: &Tree) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (path, node) in tree.snapshot() {
        let rel = path.trim_start_matches('/');
        match &node.kind {
            _ if rel.is_empty() => {}
            Kind::Dir => {
                files.insert(format!("{rel}/"), String::new());
            }
            Kind::File(b) => {
                files.insert(rel.to_owned(), String::from_utf8_lossy(b).into_owned());
            }
            _ => {}
        }
    }
    files.insert(META.to_owned(), tree.save(&Nodes::new()).to_string());
    files
}

/// Writes everything of a running machine that lives on disk into the world.
pub fn store(w: &mut World, m: &Machine) {
    let Some(g) = w.guests.get(&m.vmid).cloned() else { return };
    store_mounts(w, &g, m);
    let saved = m.saved_root();
    if let Some(Content::System { root, instance_id, facts, .. }) = w.volumes.get_mut(&g.system).map(|v| &mut v.content)
    {
        *root = Some(saved);
        instance_id.clone_from(&g.instance_id);
        *facts = serde_json::to_value(&g.facts).unwrap_or_default();
    }
}
