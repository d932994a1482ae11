//! How deep scripts may nest. The shell library bounds functions, `source` and `sh`, but runs `eval` and scripts that
//! are called by path on its caller's stack without a bound: one that calls itself would take the lab down with it.
//! Here it ends as on a machine that is out of processes, and what called it goes on.
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bashkit::hooks::{HookAction, ToolEvent};
use bashkit::{DirEntry, FileSystem, FileSystemExt, FsLimits, FsUsage, Metadata, Result, async_trait};

/// Stack that a script gets where its thread has less than [`LEAST`] left.
const STACK: usize = 24 << 20;
/// Stack that must be left on a thread when a script begins: [`DEEP`], and what the library's own bounds allow below it.
const LEAST: usize = 12 << 20;
/// Stack in use at which no further `eval` and no further script is begun.
const DEEP: usize = 4 << 20;

/// Exit status of a shell that cannot make a process.
pub const NO_PROCESS: i32 = 254;
/// What a shell says then.
pub const NO_PROCESS_TEXT: &str = "fork: Resource temporarily unavailable";

thread_local! {
    /// Where the stack of the script that runs on this thread begins.
    static BASE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Where the stack is.
#[inline(never)]
fn here() -> usize {
    let mark = 0_u8;
    std::ptr::from_ref(&mark).addr()
}

/// Whether what runs here is nested too deep to begin another script.
fn too_deep() -> bool {
    BASE.get().is_some_and(|base| base.abs_diff(here()) > DEEP)
}

/// Runs a script's future with enough stack, and notes where that begins.
pub async fn measured<F: Future>(script: F) -> F::Output {
    let mut script = pin!(script);
    poll_fn(|cx| {
        stacker::maybe_grow(LEAST, STACK, || {
            let outer = BASE.replace(Some(here()));
            let polled = script.as_mut().poll(cx);
            BASE.set(outer);
            polled
        })
    })
    .await
}

/// Ends `eval` in `eval` where it gets too deep; in the words of bash.
pub fn before_tool(mut call: ToolEvent) -> HookAction<ToolEvent> {
    if matches!(call.name.as_str(), "eval" | "builtin" | "command") && too_deep() {
        let text = "echo 'bash: eval: maximum eval nesting level exceeded' >&2; exit 1".to_owned();
        call.args = if call.name == "eval" { vec![text] } else { vec!["eval".to_owned(), text] };
    }
    HookAction::Continue(call)
}

/// Files in which a script that is called too deep is one that cannot be started.
pub struct Bounded<F>(pub Arc<F>);

#[async_trait]
impl<F: FileSystem> FileSystemExt for Bounded<F> {
    fn usage(&self) -> FsUsage {
        self.0.usage()
    }

    fn limits(&self) -> FsLimits {
        self.0.limits()
    }

    async fn mkfifo(&self, path: &Path, mode: u32) -> Result<()> {
        self.0.mkfifo(path, mode).await
    }

    fn backend_kind(&self) -> &'static str {
        self.0.backend_kind()
    }
}

#[async_trait]
impl<F: FileSystem> FileSystem for Bounded<F> {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        if too_deep() && self.0.stat(path).await.is_ok_and(|m| m.mode & 0o111 != 0) {
            return Ok(format!("#!/bin/sh\necho 'bash: {NO_PROCESS_TEXT}' >&2\nexit {NO_PROCESS}\n").into_bytes());
        }
        self.0.read_file(path).await
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.0.write_file(path, content).await
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.0.append_file(path, content).await
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        self.0.mkdir(path, recursive).await
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        self.0.remove(path, recursive).await
    }

    async fn stat(&self, path: &Path) -> Result<Metadata> {
        self.0.stat(path).await
    }

    async fn lstat(&self, path: &Path) -> Result<Metadata> {
        self.0.lstat(path).await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.0.read_dir(path).await
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        self.0.exists(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to).await
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.copy(from, to).await
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        self.0.symlink(target, link).await
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.0.read_link(path).await
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.0.chmod(path, mode).await
    }

    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        self.0.set_modified_time(path, time).await
    }
}
