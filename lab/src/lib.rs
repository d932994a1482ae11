//! The simulated GPU homelab: Proxmox API over TLS, guests over SSH with a real shell language,
//! Kubernetes API. One serialisable [`world::World`], one virtual clock, real sockets on loopback.
pub mod bash;
pub mod card;
pub mod fault;
pub mod git;
pub mod grades;
pub mod guest;
pub mod incidents;
pub mod kube;
pub mod lan;
pub mod pve;
pub mod seed;
mod smi;
pub mod spec;
pub mod tls;
pub mod volume;
pub mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::clock::{BusyGuard, Mode, VirtualClock};
use tokio_util::sync::CancellationToken;
use world::{Event, World};

/// A way to tell the outside that something listens now, or no longer.
pub trait RouteSink: Send + Sync {
    /// `addr` (`10.0.0.11:22`) is served at `at`.
    fn up(&self, addr: &str, at: SocketAddr);
    /// Nothing listens at `addr` any more.
    fn down(&self, addr: &str);
}

struct Inner {
    world: Mutex<World>,
    clock: VirtualClock,
    rt: tokio::runtime::Handle,
    routes: Arc<dyn RouteSink>,
    dir: PathBuf,
    stop: CancellationToken,
    faults: fault::Faults,
    guests: guest::Live,
    kube: kube::Live,
    pve: pve::Live,
}

/// A running lab. Cheap to clone.
#[derive(Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

/// Whether a request comes from a gpuhost run (whose busy mark covers the handler) or from somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A gpuhost run that shares our clock.
    Ours,
    /// curl, ssh, kubectl …
    Foreign,
}

impl Lab {
    /// Starts the servers over `world`. `dir` is where the lab keeps its CA and its saved world.
    ///
    /// # Errors
    /// When a port on 127.0.0.1 cannot be bound or the saved keys cannot be read.
    pub async fn start(mut world: World, dir: &Path, mode: Mode, routes: Arc<dyn RouteSink>) -> std::io::Result<Lab> {
        let clock = VirtualClock::new(world.now_ms, mode);
        world.dirty_alarm = true;
        let lab = Lab {
            inner: Arc::new(Inner {
                world: Mutex::new(world),
                clock,
                rt: tokio::runtime::Handle::current(),
                routes,
                dir: dir.to_owned(),
                stop: CancellationToken::new(),
                faults: fault::Faults::default(),
                guests: guest::Live::default(),
                kube: kube::Live::default(),
                pve: pve::Live::default(),
            }),
        };
        // Time stands still until every server listens again.
        let mark = lab.inner.clock.busy_guard();
        pve::serve(&lab).await?;
        guest::resume(&lab).await?;
        kube::resume(&lab).await?;
        lab.with(|_| ());
        tokio::spawn(drive(lab.clone()));
        let clock = lab.inner.clock.clone();
        let stop = lab.inner.stop.clone();
        tokio::spawn(async move {
            tokio::select! { () = clock.drive() => {}, () = stop.cancelled() => {} }
        });
        drop(mark);
        Ok(lab)
    }

    /// Looks at or changes the world. Short and synchronous: never block or await inside.
    pub fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let mut w = self.inner.world.lock().unwrap_or_else(PoisonError::into_inner);
        w.now_ms = self.inner.clock.now_ms();
        if w.snapshots_ms <= w.now_ms {
            kube::k3s::schedule::catch_up(self, &mut w);
        }
        let out = f(&mut w);
        if std::mem::take(&mut w.dirty_alarm) {
            self.inner.clock.set_alarm(w.next_due());
        }
        out
    }

    /// The lab's clock.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.inner.clock
    }

    /// The runtime the lab runs on.
    #[must_use]
    pub fn rt(&self) -> &tokio::runtime::Handle {
        &self.inner.rt
    }

    /// Where the lab keeps its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Cancelled when the lab stops; every server task ends then.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// What goes wrong in this lab.
    #[must_use]
    pub fn faults(&self) -> &fault::Faults {
        &self.inner.faults
    }

    /// A mark for a handler: none for our own client, whose mark covers it.
    #[must_use]
    pub fn enter(&self, client: Client) -> Option<BusyGuard> {
        (client == Client::Foreign).then(|| self.inner.clock.busy_guard())
    }

    /// Announces a listening server.
    pub fn route_up(&self, addr: &str, at: SocketAddr) {
        self.inner.routes.up(addr, at);
    }

    /// Takes an announced server back.
    pub fn route_down(&self, addr: &str) {
        self.inner.routes.down(addr);
    }

    pub(crate) fn guests(&self) -> &guest::Live {
        &self.inner.guests
    }
    pub(crate) fn kube(&self) -> &kube::Live {
        &self.inner.kube
    }
    pub(crate) fn pve(&self) -> &pve::Live {
        &self.inner.pve
    }

    /// The world as JSON, with the root file systems of running guests in it.
    pub fn snapshot(&self) -> serde_json::Value {
        self.with(|w| {
            // At one moment: what a program changes of both is in both, or in neither.
            guest::park_files(self, w);
            serde_json::to_value(&*w).unwrap_or_default()
        })
    }

    /// Stops all servers.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }
}

/// Handles events as they fall due.
async fn drive(lab: Lab) {
    loop {
        let mark = tokio::select! {
            m = lab.inner.clock.alarm() => m,
            () = lab.inner.stop.cancelled() => return,
        };
        while let Some(event) = lab.with(World::pop_due) {
            lab.with(|w| handle(&lab, w, event));
        }
        lab.with(|w| w.dirty_alarm = true);
        // What happens over and over (probes, schedules) leaves the others their turn.
        tokio::task::yield_now().await;
        drop(mark);
    }
}

fn handle(lab: &Lab, w: &mut World, event: Event) {
    match event {
        Event::Pve(e) => pve::handle(lab, w, e),
        Event::Guest(e) => guest::handle(lab, w, e),
        Event::Kube(e) => kube::handle(lab, w, e),
    }
}
