//! The lab as the far side of a run: in this process, or served by another one.
pub mod command;
pub mod control;
pub mod files;
pub mod folder;
pub mod front;
pub mod honest;
pub mod join;
pub mod routes;
pub mod serve;
pub mod start;
pub mod view;
pub mod world;

use std::path::Path;
use std::sync::Arc;

use gpuhost_lab::Lab;
use gpuhost_lab::world::World;
use gpuhost_stdlib::core::clock::{BusyGuard, Clock, Mode};
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;

use crate::session::Far;
use crate::signals::Stop;
use folder::Folder;

/// A lab that runs in this process. Its world is saved when it is closed.
pub struct InProcess {
    lab: Lab,
    folder: Folder,
    /// Holds time while no script runs.
    mark: Option<BusyGuard>,
}

impl InProcess {
    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Starts the servers of `world`; time stands still until a script runs.
    ///
    /// # Errors
    /// When the servers cannot listen.
    pub fn start(
        rt: &tokio::runtime::Handle,
        folder: Folder,
        world: World,
        routes: Arc<dyn gpuhost_lab::RouteSink>,
    ) -> OpResult<Self> {
        let dir = folder.dir().to_owned();
        let lab = rt
            .block_on(Lab::start(world, &dir, Mode::Explicit, routes))
            .map_err(|e| OpError::failed("the lab does not start").because(e.to_string()))?;
        let mark = Some(lab.clock().busy_guard());
        lab.clock().set_mode(Mode::Instant);
        Ok(InProcess { lab, folder, mark })
    }

    /// What the lab stood in for, in its own words.
    #[must_use]
    pub fn not_rehearsed(&self) -> Vec<String> {
        self.lab.with(|w| w.not_rehearsed.iter().cloned().collect())
    }

    /// Lets time go from here on (a served lab is its own master).
    pub fn release(&mut self) {
        self.mark.take();
    }

    /// Where it is kept.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Saves the world as it is now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, rt: &tokio::runtime::Handle) -> OpResult<()> {
        self.folder.save(&rt.block_on(self.lab.snapshot()))
    }

    /// Saves the world and stops the servers; the lock is handed back.
    ///
    /// # Errors
    /// When the world cannot be written.
    pub fn close(mut self, rt: &tokio::runtime::Handle) -> OpResult<Folder> {
        let hold = self.lab.clock().busy_guard();
        self.lab.clock().set_mode(Mode::Explicit);
        let world = rt.block_on(self.lab.snapshot());
        self.lab.stop();
        self.mark.take();
        drop(hold);
        self.folder.save(&world)?;
        Ok(self.folder)
    }
}

/// Opens the lab of `site` for one run: joins the served one, else starts or continues its world here.
///
/// # Errors
/// `denied` (exit 4) when another process holds the world without serving it.
pub fn open(
    rt: &tokio::runtime::Handle,
    state_dir: &Path,
    site: &Site,
    stop: &Stop,
) -> OpResult<(Far, Option<InProcess>)> {
    match Folder::lock(state_dir, site)? {
        folder::Locked::Mine(f) => open_folder(rt, f, site).map(|(far, here)| (far, Some(here))),
        folder::Locked::Elsewhere(f) => Ok((join::folder(&f, site, stop)?, None)),
    }
}

/// Starts or continues the world of a folder that is ours.
///
/// # Errors
/// When the world cannot be read or the servers do not start.
pub fn open_folder(rt: &tokio::runtime::Handle, folder: Folder, site: &Site) -> OpResult<(Far, InProcess)> {
    let world = match folder.load()? {
        Some(w) => w,
        None => world::born(site)?,
    };
    let routes = Routes::default();
    let sink = Arc::new(routes::Feed(routes.clone()));
    let state = folder.state_dir()?;
    let here = InProcess::start(rt, folder, world, sink)?;
    let far = far(&here.lab, site, routes, state)?;
    Ok((far, here))
}

fn far(lab: &Lab, site: &Site, routes: Routes, state_dir: std::path::PathBuf) -> OpResult<Far> {
    let id = &site.proxmox.token_id;
    let (secret, ca) = lab.with(|w| (w.token_secret(id), w.pve.ca.cert.clone()));
    let secret = secret.ok_or_else(|| {
        OpError::not_found(format!("the lab's world knows no token `{id}`"))
            .hint("the world was made from another site file: start over with `gpuhost lab reset`")
    })?;
    Ok(Far {
        clock: Clock::Virtual(lab.clock().clone()),
        dialer: Dialer::new(routes, Reach::RoutesOnly),
        secrets: [("proxmox_token".to_owned(), secret), ("proxmox_ca".to_owned(), ca)].into(),
        lab: true,
        state_dir,
    })
}
