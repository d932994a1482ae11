//! Where the user's own SSH files are. A lab run has none: it never reads what belongs to real hosts.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::ctx::Ctx;

/// The folders of the user's and the system's SSH files.
#[derive(Debug, Clone)]
pub(super) struct HomeDir {
    dir: PathBuf,
    system: PathBuf,
}

const KEY: &str = "ssh home";

impl HomeDir {
    /// Those of the user who runs this; `None` in the lab.
    pub(super) fn of(ctx: &Ctx) -> Option<HomeDir> {
        if ctx.lab {
            return None;
        }
        if let Some(given) = ctx.cached::<HomeDir>(KEY) {
            return Some(given.as_ref().clone());
        }
        let dir = PathBuf::from(std::env::var_os("HOME")?);
        Some(HomeDir { dir, system: PathBuf::from("/etc/ssh") })
    }

    /// A home of its own, with the system's files in `etc/ssh` below it.
    pub(super) fn at(dir: impl AsRef<Path>) -> HomeDir {
        HomeDir { dir: dir.as_ref().to_owned(), system: dir.as_ref().join("etc/ssh") }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn join(&self, rest: &str) -> PathBuf {
        self.dir.join(rest)
    }

    /// A file of the system, for example `ssh_known_hosts`.
    pub(super) fn system(&self, name: &str) -> PathBuf {
        self.system.join(name)
    }
}

/// Makes this run read the SSH files of `dir` (and of `dir/etc/ssh`) instead of the user's and the system's.
pub fn use_home(ctx: &Ctx, dir: &Path) {
    ctx.keep(KEY, Arc::new(HomeDir::at(dir)));
}
