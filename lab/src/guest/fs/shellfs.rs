//! The files of a machine behind the shell's file system trait, as one user sees them.
use std::io::Error as IoError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bashkit::{DirEntry, FileSystem, FileSystemExt, FileType, Metadata, Result, async_trait};

use super::files::{Files, Who};
use super::tree::{Kind, Node};

/// A user's view of the files.
pub struct ShellFs {
    files: Arc<Files>,
    who: Who,
}

impl ShellFs {
    /// The view of `who`.
    #[must_use]
    pub fn new(files: Arc<Files>, who: Who) -> ShellFs {
        ShellFs { files, who }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn metadata(n: &Node) -> Metadata {
    let time = UNIX_EPOCH + Duration::from_secs(n.mtime);
    let file_type = match n.kind {
        Kind::File(_) => FileType::File,
        Kind::Dir => FileType::Directory,
        Kind::Link(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
    };
    // How the shell's `-b` finds block devices: see `shell::with_block_tests`.
    let block = n.mode & 0o170_000 == 0o060_000;
    let mode = if block { n.mode | 0o4000 } else { n.mode };
    Metadata { file_type, size: n.size(), mode, modified: time, created: time }
}

#[async_trait]
impl FileSystemExt for ShellFs {
    async fn mkfifo(&self, path: &Path, mode: u32) -> Result<()> {
        let path = text(path);
        self.files.write(&self.who, &path, b"", false, mode)?;
        Ok(self.files.change(&self.who, &path, true, |n| n.kind = Kind::Fifo)?)
    }

    fn backend_kind(&self) -> &'static str {
        "gpuhost-lab"
    }
}

#[async_trait]
impl FileSystem for ShellFs {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(self.files.read(&self.who, &text(path))?.as_ref().clone())
    }

    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        Ok(self.files.write(&self.who, &text(path), content, false, 0o644)?)
    }

    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        Ok(self.files.write(&self.who, &text(path), content, true, 0o644)?)
    }

    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        Ok(self.files.mkdir(&self.who, &text(path), recursive, 0o755)?)
    }

    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        Ok(self.files.remove(&self.who, &text(path), recursive)?)
    }

    /// The link itself: the shell's outermost layer follows links, so that `[ -L ]` and `ls -l` see them.
    async fn stat(&self, path: &Path) -> Result<Metadata> {
        Ok(metadata(&self.files.stat(&self.who, &text(path), false)?))
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let list = self.files.list(&self.who, &text(path))?;
        Ok(list.into_iter().map(|(name, n)| DirEntry { name, metadata: metadata(&n) }).collect())
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.files.stat(&self.who, &text(path), true).is_ok())
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        Ok(self.files.rename(&self.who, &text(from), &text(to))?)
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (text(from), text(to));
        let node = self.files.stat(&self.who, &from, true)?;
        let bytes = self.files.read(&self.who, &from)?;
        self.files.write(&self.who, &to, &bytes, false, node.mode & 0o777)?;
        Ok(())
    }

    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        Ok(self.files.symlink(&self.who, &text(target), &text(link))?)
    }

    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        match self.files.stat(&self.who, &text(path), false)?.kind {
            Kind::Link(target) => Ok(PathBuf::from(target)),
            _ => Err(IoError::new(std::io::ErrorKind::InvalidInput, "Invalid argument").into()),
        }
    }

    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        Ok(self.files.change(&self.who, &text(path), true, |n| n.mode = mode & 0o7777)?)
    }

    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        let secs = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(self.files.change(&self.who, &text(path), true, |n| n.mtime = secs)?)
    }
}
