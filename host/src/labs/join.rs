//! Joining a lab that another process serves.
use std::sync::Arc;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde::{Deserialize, Serialize};

use super::control::client::Shared;
use super::control::server::Hello;
use super::folder::Folder;
use crate::session::Far;
use crate::signals::Stop;

/// What a serving process leaves in its folder for those that pass `--lab`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Serving {
    /// Its control endpoint.
    pub control: String,
    /// The API token's secret.
    pub token_secret: String,
    /// The hypervisor's CA.
    pub ca: String,
}

/// File name of [`Serving`] in the lab's folder.
pub const SERVING: &str = "serving.json";

/// The control endpoint that a site file names (`[lab] control = "127.0.0.1:40000"`).
#[must_use]
pub fn control_of(text: &str) -> Option<String> {
    let t: toml::Table = text.parse().ok()?;
    t.get("lab")?.get("control")?.as_str().map(str::to_owned)
}

fn connect(addr: &str, site: &Site, routes: Option<Routes>, stop: &Stop) -> OpResult<(Shared, Hello)> {
    let stop = stop.clone();
    // A lab that goes away ends the run: nobody moves its clock any more.
    let (clock, hello) = Shared::connect(addr, routes, move || stop.at_once())?;
    if hello.site != site.uuid {
        return Err(OpError::refused(format!("the lab at {addr} serves another site"))
            .because(format!("it serves {}, this site is {}", hello.site, site.uuid))
            .hint("use the site file that `gpuhost lab serve` has written"));
    }
    Ok((clock, hello))
}

/// Joins the lab that is served on this folder.
///
/// # Errors
/// `refused` when the holder of the folder does not serve it.
pub fn folder(folder: &Folder, site: &Site, stop: &Stop) -> OpResult<Far> {
    let text = std::fs::read_to_string(folder.dir().join(SERVING)).map_err(|_| folder.busy())?;
    let serving: Serving = serde_json::from_str(&text).map_err(|_| folder.busy())?;
    let routes = Routes::default();
    let (clock, hello) = connect(&serving.control, site, Some(routes.clone()), stop)?;
    Ok(Far {
        clock: Clock::Remote(Arc::new(clock)),
        dialer: Dialer::new(routes, Reach::RoutesOnly),
        secrets: [
            (super::credential_name(site).to_owned(), serving.token_secret),
            ("proxmox_ca".to_owned(), serving.ca),
        ]
        .into(),
        lab: true,
        control: Some(serving.control),
        state_dir: hello.state_dir,
    })
}

/// Joins the lab behind the site file that it has written.
///
/// # Errors
/// `unreachable` when it is gone; `refused` when it serves another site.
pub fn address(addr: &str, site: &Site, stop: &Stop) -> OpResult<Far> {
    let (clock, hello) = connect(addr, site, None, stop)?;
    let routes = Routes::default();
    for (from, to) in &site.connect {
        if let Ok(at) = to.parse() {
            routes.set(from.clone(), at);
        }
    }
    Ok(Far {
        clock: Clock::Remote(Arc::new(clock)),
        dialer: Dialer::new(routes, Reach::RoutesOnly),
        secrets: std::collections::BTreeMap::new(),
        lab: true,
        control: Some(addr.to_owned()),
        state_dir: hello.state_dir,
    })
}
