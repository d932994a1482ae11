//! Where journals stand, and which one a user means.
use std::path::{Path, PathBuf};

use gpuhost_stdlib::core::error::{OpError, OpResult};

use crate::record::journal;

/// Journals, oldest first.
#[must_use]
pub fn all(state_dir: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(journal::folder(state_dir)).into_iter().flatten().flatten();
    let mut out: Vec<PathBuf> =
        list.map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "ndjson")).collect();
    out.sort();
    out
}

/// The id of a run: the last part of its file name.
#[must_use]
pub fn id(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    stem.rsplit('-').next().unwrap_or_default().to_owned()
}

/// The journal that `wanted` names: a file, an id or the beginning of one; the latest without it.
///
/// # Errors
/// `not_found` when there is none, or more than one.
pub fn pick(state_dir: &Path, wanted: Option<&str>) -> OpResult<PathBuf> {
    let list = all(state_dir);
    let none = || {
        OpError::not_found(format!("no run has a journal below `{}`", state_dir.display()))
            .hint("pass the state directory of the run: `--state-dir DIR`")
    };
    let Some(wanted) = wanted else { return list.last().cloned().ok_or_else(none) };
    if Path::new(wanted).is_file() {
        return Ok(PathBuf::from(wanted));
    }
    if list.is_empty() {
        return Err(none());
    }
    let mut fits = list.iter().filter(|p| id(p).starts_with(wanted));
    match (fits.next(), fits.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(a), Some(b)) => Err(OpError::not_found(format!("more than one run begins with `{wanted}`"))
            .hint(format!("say more of it: `{}` or `{}`", id(a), id(b)))),
        _ => Err(OpError::not_found(format!("no run `{wanted}`")).hint("`gpuhost runs` lists them")),
    }
}
