//! Where journals, keys and lab worlds live.
use std::path::{Path, PathBuf};

use gpuhost_stdlib::core::error::{OpError, OpResult};

/// The state directory: `--state-dir`, else `GPUHOST_STATE_DIR`, else the XDG state folder.
///
/// # Errors
/// When no folder can be named or made.
pub fn resolve(flag: Option<&Path>) -> OpResult<PathBuf> {
    let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = flag
        .map(Path::to_owned)
        .or_else(|| env("GPUHOST_STATE_DIR"))
        .or_else(|| env("XDG_STATE_HOME").map(|d| d.join("gpuhost")))
        .or_else(|| env("HOME").map(|d| d.join(".local/state/gpuhost")))
        .ok_or_else(|| {
            OpError::invalid("no state directory")
                .because("neither GPUHOST_STATE_DIR nor XDG_STATE_HOME nor HOME is set")
                .hint("pass one: `--state-dir DIR`")
        })?;
    private_dir(&dir)?;
    // Somebody else's is no empty one.
    std::fs::read_dir(&dir).map_err(|e| cannot(&dir, &e))?;
    dir.canonicalize().map_err(|e| cannot(&dir, &e))
}

/// Makes a folder that only the user can read (keys and tokens live below it).
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(dir: &Path) -> OpResult<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut b = std::fs::DirBuilder::new();
    b.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut b, 0o700);
    b.create(dir).map_err(|e| cannot(dir, &e))
}

fn cannot(dir: &Path, e: &std::io::Error) -> OpError {
    OpError::failed(format!("cannot use the state directory `{}`", dir.display()))
        .because(e.to_string())
        .hint("pass another one: `--state-dir DIR`")
}

/// Replaces a file at once, readable by the user only; a reader never sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let tmp = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut o = std::fs::OpenOptions::new();
    o.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut o, 0o600);
    let mut f = o.open(&tmp)?;
    let done = f.write_all(text).and_then(|()| f.sync_data()).and_then(|()| std::fs::rename(&tmp, path));
    if done.is_err() {
        // A full disk is not filled with halves.
        std::fs::remove_file(&tmp).ok();
    }
    done
}
