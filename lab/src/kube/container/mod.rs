//! Containers seen from inside: their files, their environment, a shell in them. What they keep lives as long as
//! the lab runs; data of persistent volumes goes back into the world.
pub mod env;
pub mod files;
mod guarded;
pub mod memory;
pub mod network;
pub mod programs;
pub mod shell;
pub mod voldata;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bashkit::InMemoryFs;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::controllers::gpu::{self, Given};
use super::controllers::images;
use super::cx::Cx;
use super::text::{arr, s};
use crate::Lab;
use crate::guest::live::Machine;

/// File systems and running scripts of containers, by pod uid and container name.
#[derive(Default)]
pub struct Containers(Mutex<BTreeMap<(String, String), Held>>);

struct Held {
    fs: Arc<InMemoryFs>,
    stop: CancellationToken,
    /// Standard input of its main process, while somebody may write to it.
    stdin: Option<mpsc::Sender<Vec<u8>>>,
}

/// The size of the terminal that a client has; none without one.
#[derive(Default)]
pub struct Screen(Mutex<Option<(u16, u16)>>);

impl Screen {
    /// Rows and columns.
    #[must_use]
    pub fn size(&self) -> Option<(u16, u16)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client has a terminal of this size.
    pub fn set(&self, rows: u16, columns: u16) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((rows, columns));
    }
}

impl Containers {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<(String, String), Held>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A container ends: its script stops and its files are gone.
    pub fn end(&self, uid: &str, container: &str) {
        if let Some(h) = self.with(|m| m.remove(&(uid.to_owned(), container.to_owned()))) {
            h.stop.cancel();
        }
    }

    /// The files of a container that somebody has been in.
    #[must_use]
    pub fn files(&self, uid: &str, container: &str) -> Option<Arc<InMemoryFs>> {
        self.with(|m| m.get(&(uid.to_owned(), container.to_owned())).map(|h| h.fs.clone()))
    }

    /// What the main process of a container reads comes from here on through the other end.
    pub fn open_stdin(&self, uid: &str, container: &str) -> mpsc::Receiver<Vec<u8>> {
        let (tx, rx) = mpsc::channel(64);
        self.with(|m| {
            if let Some(h) = m.get_mut(&(uid.to_owned(), container.to_owned())) {
                h.stdin = Some(tx);
            }
        });
        rx
    }

    /// Where to write what the main process reads.
    pub fn stdin(&self, uid: &str, container: &str) -> Option<mpsc::Sender<Vec<u8>>> {
        self.with(|m| m.get(&(uid.to_owned(), container.to_owned()))?.stdin.clone())
    }

    /// The main process reads to the end of what was written.
    pub fn close_stdin(&self, uid: &str, container: &str) {
        self.with(|m| m.get_mut(&(uid.to_owned(), container.to_owned())).map(|h| h.stdin.take()));
    }

    /// All containers of a pod end.
    pub fn end_pod(&self, uid: &str) {
        let held = self.with(|m| {
            let own = m.range((uid.to_owned(), String::new())..).take_while(|(k, _)| k.0 == uid);
            let keys: Vec<_> = own.map(|(k, _)| k.clone()).collect();
            keys.into_iter().filter_map(|k| m.remove(&k)).collect::<Vec<_>>()
        });
        held.iter().for_each(|h| h.stop.cancel());
    }
}

/// A container that one is in.
#[derive(Clone)]
pub struct Inside {
    /// The lab.
    pub lab: Lab,
    /// Cluster.
    pub cluster: String,
    /// The pod.
    pub pod: Value,
    /// Container name.
    pub container: String,
    /// Its image.
    pub image: String,
    /// Its files.
    pub fs: Arc<InMemoryFs>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub cwd: String,
    /// Volumes whose data is kept, with their mount paths.
    pub volumes: Vec<files::Mounted>,
    /// The cards that it sees.
    pub gpus: Option<Given>,
    /// Cancelled when the container ends.
    pub stop: CancellationToken,
    /// The terminal of who is in it.
    pub screen: Arc<Screen>,
}

impl Inside {
    /// The machine below, when its root is mounted at `dir`.
    #[must_use]
    pub fn machine(&self, dir: &str) -> Option<Arc<Machine>> {
        let c = spec(&self.pod, &self.container)?;
        let at = arr(c, "/volumeMounts")
            .iter()
            .find(|m| s(m, "/mountPath").trim_end_matches('/') == dir.trim_end_matches('/'))?;
        let volume = arr(&self.pod, "/spec/volumes").iter().find(|v| v["name"] == at["name"])?;
        let node = s(&self.pod, "/spec/nodeName");
        let vmid = self.lab.with(|w| w.clusters.get(&self.cluster)?.nodes.get(node).map(|n| n.vmid))?;
        self.lab.guests().get(vmid).filter(|_| s(volume, "/hostPath/path") == "/")
    }
}

/// The container of that name in a pod, init containers included.
#[must_use]
pub fn spec<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .iter()
        .find_map(|p| arr(pod, p).iter().find(|c| s(c, "/name") == name))
}

/// The command line of container `c` as it is written: its command, or the entrypoint of its image as far as that is
/// known, and its arguments.
#[must_use]
pub fn words(c: &Value) -> Vec<&str> {
    let all = || arr(c, "/command").iter().chain(arr(c, "/args")).filter_map(Value::as_str);
    let bare = arr(c, "/command").is_empty() && all().next().is_none_or(|w| w.contains("://") || !shell::has(w));
    let entry = bare.then(|| images::entrypoint(s(c, "/image"))).flatten();
    entry.into_iter().chain(all()).collect()
}

/// As [`words`], of a container of `pod`: references to variables are replaced.
#[must_use]
pub fn argv(cx: &Cx, pod: &Value, c: &Value) -> Vec<String> {
    let words = words(c);
    let known = if words.iter().any(|w| w.contains('$')) { env::declared(cx, pod, c) } else { BTreeMap::new() };
    words.into_iter().map(|w| env::expand(w, &known)).collect()
}

/// Goes into a container; the first time its files are laid out.
pub fn enter(cx: &mut Cx, pod: &Value, name: &str) -> Option<Inside> {
    let c = spec(pod, name)?.clone();
    let key = (s(pod, "/metadata/uid").to_owned(), name.to_owned());
    let have = cx.lab.kube().containers.with(|m| m.get(&key).map(|h| (h.fs.clone(), h.stop.clone())));
    let (fs, stop) = have.unwrap_or_else(|| {
        let (fs, stop) = (Arc::new(InMemoryFs::new()), CancellationToken::new());
        files::lay_out(cx, pod, &c, &fs);
        cx.lab.kube().containers.with(|m| m.insert(key, Held { fs: fs.clone(), stop: stop.clone(), stdin: None }));
        (fs, stop)
    });
    let volumes = files::mount(cx, pod, &c, &fs);
    let gpus = gpu::given(cx, pod, &c);
    if let Some(g) = &gpus {
        files::driver(&fs, &g.cards);
    }
    let cwd = match s(&c, "/workingDir") {
        "" => "/",
        dir => dir,
    };
    Some(Inside {
        lab: cx.lab.clone(),
        cluster: cx.c.id.clone(),
        env: env::of(cx, pod, &c),
        pod: pod.clone(),
        container: name.to_owned(),
        image: s(&c, "/image").to_owned(),
        fs,
        cwd: cwd.to_owned(),
        volumes,
        gpus,
        stop,
        screen: Arc::default(),
    })
}
