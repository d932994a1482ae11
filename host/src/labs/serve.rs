//! `gpuhost lab serve`: the lab on ports of this machine, for any client, until stopped.
use std::sync::Arc;
use std::time::Duration;

use gpuhost_stdlib::core::clock::Mode;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use tokio_util::sync::CancellationToken;

use super::control::server::{Control, Hello, Pace};
use super::files::Files;
use super::folder::Folder;
use super::front::Front;
use super::join::{SERVING, Serving};
use super::{InProcess, world};
use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::screen::Screen;
use crate::session::{Far, Session};
use crate::sources::Text;

/// How fast time flows for foreign clients when nothing else is said.
const FOREIGN: f64 = 60.0;

/// What `--speed` means.
///
/// # Errors
/// `invalid` when it is neither a number nor `instant`.
pub fn pace(speed: Option<&str>) -> OpResult<Pace> {
    match speed {
        None | Some("instant") => Ok(Pace { alone: Mode::Scaled(FOREIGN), shared: Mode::Instant }),
        Some(n) => match n.parse::<f64>() {
            Ok(k) if k > 0.0 && k <= 100_000.0 => Ok(Pace { alone: Mode::Scaled(k), shared: Mode::Scaled(k) }),
            _ => Err(OpError::invalid(format!("`{n}` is no speed")).hint("--speed 60, or --speed instant")),
        },
    }
}

/// Addresses of the site that get a port of their own from the start.
fn addresses(site: &Site, api: &str) -> Vec<String> {
    let mut out = vec![api.to_owned()];
    for n in &site.nodes {
        out.push(format!("{}:22", n.ip));
        if n.kind == gpuhost_stdlib::site::RoleKind::Server {
            out.push(format!("{}:6443", n.ip));
        }
    }
    if let Some(a) = site.k3s.get("address").and_then(toml::Value::as_str) {
        let vip = format!("{a}:6443");
        if !out.contains(&vip) {
            out.push(vip);
        }
    }
    out
}

/// Serves until Ctrl-C.
///
/// # Errors
/// When the world cannot be used or a port cannot be bound.
pub fn run(
    args: &ServeArgs,
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    folder: Folder,
    site: &Arc<Site>,
    text: &Text,
) -> OpResult<Exit> {
    let pace = pace(args.speed.as_deref())?;
    let cancel = CancellationToken::new();
    crate::signals::watch(rt, cancel.clone());
    let io = |e: std::io::Error| OpError::failed("the lab cannot be served").because(e.to_string());
    let world = world::of(&folder, site)?;
    let api = world::api_addr(site)?;
    let front = Front::new(rt, &addresses(site, &api)).map_err(io)?;
    let dir = folder.dir().join("serve");
    crate::statedir::private_dir(&dir)?;
    let state = folder.state_dir()?;
    let mut here = InProcess::start(rt, folder, world, Arc::new(front.clone()))?;
    let lab = here.lab().clone();
    let hello = {
        let (uuid, state) = (site.uuid.clone(), state.clone());
        move || Hello { site: uuid.clone(), state_dir: state.clone() }
    };
    let orders = {
        let lab = lab.clone();
        move |text: &str| {
            let done =
                serde_json::from_str(text).map_err(|e| e.to_string()).and_then(|o| super::orders::carry_out(&lab, &o));
            serde_json::to_string(&done).unwrap_or_default()
        }
    };
    let control = Control::new(lab.clock().clone(), front.inner().clone(), front.news(), pace, Arc::new(hello))
        .with_orders(Arc::new(orders));
    let (at, listening) = rt.block_on(control.listen()).map_err(io)?;
    let key = ssh_key(rt, screen, site, &state)?;
    let files =
        Files { lab: &lab, front: &front, site, text, control: at, dir, key, api, ready: args.ready_file.clone() };
    announce(&here, site, &at.to_string())?;
    let ready = files.write()?;
    screen.err(&format!("[LAB] {} is served; Ctrl-C stops it and keeps its world", site.name));
    screen.out(&format!("{ready:#}"));
    lab.clock().set_mode(pace.alone);
    here.release();
    rt.block_on(keep(&here, &files, &cancel, screen));
    listening.abort();
    std::fs::remove_file(here.folder().dir().join(SERVING)).ok();
    here.close()?;
    Ok(Exit::Done)
}

fn announce(here: &InProcess, site: &Site, control: &str) -> OpResult<()> {
    let (_, token_secret) = super::credential(here.lab(), site)?;
    let ca = here.lab().with(|w| w.pve.ca.cert.clone());
    let serving = Serving { control: control.to_owned(), token_secret, ca };
    let path = here.folder().dir().join(SERVING);
    let text = serde_json::to_string(&serving).unwrap_or_default();
    crate::statedir::write_private(&path, text.as_bytes())
        .map_err(|e| OpError::failed(format!("cannot write `{}`", path.display())).because(e.to_string()))
}

/// Rewrites the files as the world changes, and saves the world now and then.
async fn keep(here: &InProcess, files: &Files<'_>, cancel: &CancellationToken, screen: &Screen) {
    let mut changes = files.front.changes();
    let mut save = tokio::time::interval(Duration::from_secs(60));
    save.tick().await;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            r = changes.changed() => {
                if r.is_err() {
                    return;
                }
                if let Err(e) = files.write() {
                    crate::errors::show_error(screen, &e, None);
                }
            }
            _ = save.tick() => {
                let world = here.lab().snapshot();
                if let Err(e) = here.folder().save(&world).and_then(|()| files.write().map(|_| ())) {
                    crate::errors::show_error(screen, &e, None);
                }
            }
        }
    }
}

/// The private key that logs in to nodes, made if it is the site's to make.
fn ssh_key(
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    site: &Arc<Site>,
    state: &std::path::Path,
) -> OpResult<std::path::PathBuf> {
    let reference = &site.ssh.key;
    if let Some(path) = reference.strip_prefix("file:") {
        let base = site.path.parent().map(std::path::Path::to_owned).unwrap_or_default();
        return Ok(base.join(path));
    }
    let mut far = Far::real(None, state)?;
    far.lab = true;
    let session = Session::bare(rt, screen, site, far, None, crate::signals::Stop::default());
    gpuhost_stdlib::ssh::keys::load(&Ctx::new(session.run), reference)?;
    Ok(state.join(reference.strip_prefix("state:").unwrap_or("ssh_key")))
}
