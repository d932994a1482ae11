//! The world that a snapshot begins with: the site's own hardware, and on it what the deploy recipe of this program
//! makes of this site file in the lab.
use std::collections::BTreeMap;
use std::path::Path;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use gpuhost_stdlib::ssh;
use sha2::{Digest, Sha256};

use super::hypervisor::Seen;
use super::{Camera, Notes};
use crate::args::Start;
use crate::labs::folder::Folder;
use crate::labs::start;
use crate::labs::{self, InProcess};
use crate::session::Far;

/// The public half of the site's SSH key, if its private half is a file of the state directory.
pub fn public_key(site: &Site, state_dir: &Path) -> Option<String> {
    let path = state_dir.join(site.ssh.key.strip_prefix("state:")?);
    let line = ssh::keys::public_half(&std::fs::read_to_string(path).ok()?)?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// Makes the world below `stage` and starts it.
///
/// # Errors
/// When the recipe cannot deploy the site in the lab.
pub fn make(camera: &Camera<'_>, stage: &Path, seen: &Seen) -> OpResult<(Far, InProcess)> {
    let site = camera.site;
    let folder = Folder::lock_mine(stage, site)?;
    let start = match (seen.machines(site), seen.has_template(site)) {
        (true, _) => Start::Deployed,
        (false, true) => Start::Template,
        (false, false) => Start::Empty,
    };
    let spec = seen.spec(site)?;
    let born = labs::world::born_of(&spec, site)?;
    let key = format!("{}\n{}", camera.site_text.text, serde_json::to_string(&spec).unwrap_or_default());
    let filling = start::Filling { rt: camera.rt, screen: camera.screen, site, state_dir: camera.state_dir, start };
    let folder = filling
        .fill(folder, &born, &key)
        .map_err(|e| e.hint("a snapshot needs a site file that deploys in the lab: `gpuhost run deploy --lab`"))?;
    labs::open_folder(camera.rt, folder, site)
}

/// Files of the world's own state directory.
pub fn state(dir: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|f| f.path().is_file());
    files
        .filter_map(|f| Some((f.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(f.path()).ok()?)))
        .collect()
}

/// Secrets that the site file takes from this machine (`env:`, `file:`) leave the world.
///
/// # Errors
/// When the world cannot be written.
pub fn scrub(site: &Site, dir: &Path, notes: &mut Notes) -> OpResult<()> {
    let path = dir.join("world.json");
    let fail = |e: std::io::Error| OpError::failed(format!("cannot clean `{}`", path.display())).because(e.to_string());
    let mut text = std::fs::read_to_string(&path).map_err(fail)?;
    let mut found = 0;
    for (reference, secret) in secrets(site) {
        let escaped = serde_json::to_string(&secret).unwrap_or_default();
        let inner = escaped.trim_matches('"');
        if inner.len() >= 8 && text.contains(inner) {
            let sum = Sha256::digest(reference.as_bytes());
            text = text.replace(inner, &format!("withheld-{:02x}{:02x}{:02x}{:02x}", sum[0], sum[1], sum[2], sum[3]));
            found += 1;
        }
    }
    if found > 0 {
        crate::statedir::write_private(&path, text.as_bytes()).map_err(fail)?;
        notes.assumed.push(format!("{found} secrets of this machine are withheld from the world"));
    }
    Ok(())
}

/// References of the site file to secrets of this machine, with their values.
fn secrets(site: &Site) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for table in [&site.k3s, &site.platform, &site.storage, &site.gpu] {
        walk(&toml::Value::Table(table.clone()), site, &mut out);
    }
    out
}

fn walk(v: &toml::Value, site: &Site, out: &mut Vec<(String, String)>) {
    match v {
        toml::Value::String(s) => {
            let value = if let Some(name) = s.strip_prefix("env:") {
                std::env::var(name).ok()
            } else if let Some(file) = s.strip_prefix("file:") {
                let base = site.path.parent().map(Path::to_owned).unwrap_or_default();
                std::fs::read_to_string(base.join(file)).ok().map(|t| t.trim().to_owned())
            } else {
                None
            };
            out.extend(value.map(|v| (s.clone(), v)));
        }
        toml::Value::Table(t) => t.values().for_each(|v| walk(v, site, out)),
        toml::Value::Array(a) => a.iter().for_each(|v| walk(v, site, out)),
        _ => {}
    }
}
