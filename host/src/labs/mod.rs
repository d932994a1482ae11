//! The lab as the far side of a run: in this process, or served by another one.
pub mod autosave;
pub mod calibrate;
pub mod closing;
pub mod command;
pub mod control;
pub mod faults;
pub mod files;
pub mod folder;
pub mod front;
pub mod honest;
pub mod join;
mod lost;
pub mod orders;
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

/// A lab that runs in this process. Its world is saved when it is closed, and meanwhile in runs.
pub struct InProcess {
    lab: Lab,
    folder: Folder,
    /// Holds time while no script runs.
    mark: Option<BusyGuard>,
    /// Saves while a run works.
    autosave: Option<autosave::Autosave>,
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
        Ok(InProcess { lab, folder, mark, autosave: None })
    }

    /// Saves the world now and then while a run works: a killed one goes on where it was.
    pub fn save_meanwhile(&mut self, rt: &tokio::runtime::Handle) {
        self.autosave = Some(autosave::Autosave::start(rt, self.lab.clone(), self.folder.dir().to_owned()));
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

    /// Saves the world and stops the servers; the lock is handed back.
    ///
    /// # Errors
    /// When the world cannot be written.
    pub fn close(mut self) -> OpResult<Folder> {
        let hold = self.lab.clock().busy_guard();
        self.lab.clock().set_mode(Mode::Explicit);
        if let Some(a) = self.autosave.take() {
            a.stop();
        }
        let world = self.lab.snapshot();
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
        folder::Locked::Mine(f) => {
            let (far, mut here) = open_folder(rt, f, site)?;
            here.save_meanwhile(rt);
            Ok((far, Some(here)))
        }
        folder::Locked::Elsewhere(f) => Ok((join::folder(&f, site, stop)?, None)),
    }
}

/// Starts or continues the world of a folder that is ours.
///
/// # Errors
/// When the world cannot be read or the servers do not start.
pub fn open_folder(rt: &tokio::runtime::Handle, folder: Folder, site: &Site) -> OpResult<(Far, InProcess)> {
    let world = world::of(&folder, site)?;
    let routes = Routes::default();
    let sink = Arc::new(routes::Feed(routes.clone()));
    let state = folder.state_dir()?;
    let here = InProcess::start(rt, folder, world, sink)?;
    let far = far(&here.lab, site, routes, state)?;
    Ok((far, here))
}

/// Under which name a run asks for its credential: a token's secret, or a user's password.
pub fn credential_name(site: &Site) -> &'static str {
    if site.proxmox.user.is_some() { "proxmox_password" } else { "proxmox_token" }
}

/// The credential that the lab's hypervisor takes from this site, with its name.
pub(crate) fn credential(lab: &Lab, site: &Site) -> OpResult<(&'static str, String)> {
    let (id, user) = (site.proxmox.identity(), site.proxmox.user.is_some());
    let secret = lab.with(|w| match user {
        true => w.pve.access.users.get(id).map(|u| u.password.clone()),
        false => w.token_secret(id),
    });
    let hint = match user {
        true => "users of the lab's hypervisor: root@pam",
        false => "the world was made from another site file: start over with `gpuhost lab reset`",
    };
    let unknown = || OpError::not_found(format!("the lab's world knows no `{id}`")).hint(hint);
    Ok((credential_name(site), secret.ok_or_else(unknown)?))
}

fn far(lab: &Lab, site: &Site, routes: Routes, state_dir: std::path::PathBuf) -> OpResult<Far> {
    let (name, secret) = credential(lab, site)?;
    let ca = lab.with(|w| w.pve.ca.cert.clone());
    Ok(Far {
        clock: Clock::Virtual(lab.clock().clone()),
        dialer: Dialer::new(routes, Reach::RoutesOnly),
        secrets: [(name.to_owned(), secret), ("proxmox_ca".to_owned(), ca)].into(),
        lab: true,
        control: None,
        state_dir,
    })
}
