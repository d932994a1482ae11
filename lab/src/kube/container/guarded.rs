//! What a container may not write to: mounts that are read-only, and its root where it is told so.
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bashkit::{
    DirEntry, FileSystem, FileSystemExt, FsLimits, FsUsage, InMemoryFs, Metadata, Result, SearchCapable, async_trait,
};
use serde_json::Value;

use super::Inside;
use crate::kube::text::{arr, s};

/// The files of a container as its programs see them.
pub(super) struct Guarded {
    files: Arc<InMemoryFs>,
    /// Directories with whether they are read-only; the longest that fits decides.
    mounts: Vec<(PathBuf, bool)>,
}

impl Guarded {
    pub fn of(i: &Inside) -> Guarded {
        let c = super::spec(&i.pod, &i.container).cloned().unwrap_or_default();
        let mut mounts = vec![
            (PathBuf::from("/"), c["securityContext"]["readOnlyRootFilesystem"] == true),
            (PathBuf::from("/dev"), false),
        ];
        for m in arr(&c, "/volumeMounts") {
            let volume = arr(&i.pod, "/spec/volumes").iter().find(|v| v["name"] == m["name"]);
            let fixed =
                |v: &Value| ["configMap", "secret", "projected", "downwardAPI"].iter().any(|k| v[k].is_object());
            mounts.push((PathBuf::from(s(m, "/mountPath")), m["readOnly"] == true || volume.is_some_and(fixed)));
        }
        Guarded { files: i.fs.clone(), mounts }
    }

    fn may_write(&self, path: &Path) -> Result<()> {
        let fits = self.mounts.iter().filter(|(dir, _)| path.starts_with(dir));
        match fits.max_by_key(|(dir, _)| dir.components().count()) {
            Some((_, true)) => Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, "Read-only file system").into()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl FileSystemExt for Guarded {
    fn usage(&self) -> FsUsage {
        self.files.usage()
    }
    fn limits(&self) -> FsLimits {
        self.files.limits()
    }
    async fn mkfifo(&self, path: &Path, mode: u32) -> Result<()> {
        self.may_write(path)?;
        self.files.mkfifo(path, mode).await
    }
}

#[async_trait]
impl FileSystem for Guarded {
    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.files.read_file(path).await
    }
    async fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.may_write(path)?;
        self.files.write_file(path, content).await
    }
    async fn append_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.may_write(path)?;
        self.files.append_file(path, content).await
    }
    async fn mkdir(&self, path: &Path, recursive: bool) -> Result<()> {
        self.may_write(path)?;
        self.files.mkdir(path, recursive).await
    }
    async fn remove(&self, path: &Path, recursive: bool) -> Result<()> {
        self.may_write(path)?;
        self.files.remove(path, recursive).await
    }
    async fn stat(&self, path: &Path) -> Result<Metadata> {
        self.files.stat(path).await
    }
    async fn lstat(&self, path: &Path) -> Result<Metadata> {
        self.files.lstat(path).await
    }
    async fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>> {
        self.files.read_dir(path).await
    }
    async fn exists(&self, path: &Path) -> Result<bool> {
        self.files.exists(path).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_write(from)?;
        self.may_write(to)?;
        self.files.rename(from, to).await
    }
    async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.may_write(to)?;
        self.files.copy(from, to).await
    }
    async fn symlink(&self, target: &Path, link: &Path) -> Result<()> {
        self.may_write(link)?;
        self.files.symlink(target, link).await
    }
    async fn read_link(&self, path: &Path) -> Result<PathBuf> {
        self.files.read_link(path).await
    }
    async fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.may_write(path)?;
        self.files.chmod(path, mode).await
    }
    async fn set_modified_time(&self, path: &Path, time: SystemTime) -> Result<()> {
        self.may_write(path)?;
        self.files.set_modified_time(path, time).await
    }
    fn as_search_capable(&self) -> Option<&dyn SearchCapable> {
        self.files.as_search_capable()
    }
}
