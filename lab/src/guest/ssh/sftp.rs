//! SFTP over the files of a guest.
use std::collections::HashMap;
use std::sync::Arc;

use russh_sftp::protocol::{Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode, Version};
use russh_sftp::server::Handler;

use crate::guest::fs::Who;
use crate::guest::fs::tree::{Kind, Node, normalise};
use crate::guest::live::Machine;

enum Open {
    File { path: String, append: bool },
    Dir { path: String, listed: bool },
}

/// One SFTP session.
pub(super) struct Sftp {
    m: Arc<Machine>,
    who: Who,
    open: HashMap<String, Open>,
    last: u64,
}

impl Sftp {
    pub(super) fn new(m: Arc<Machine>, who: Who) -> Sftp {
        Sftp { m, who, open: HashMap::new(), last: 0 }
    }

    fn path(&self, p: &str) -> String {
        if p.starts_with('/') { normalise(p) } else { normalise(&format!("{}/{p}", self.who.home)) }
    }

    fn handle(&mut self, id: u32, open: Open) -> Handle {
        self.last += 1;
        let handle = self.last.to_string();
        self.open.insert(handle.clone(), open);
        Handle { id, handle }
    }

    fn change(&self, path: &str, a: &FileAttributes) -> Result<(), StatusCode> {
        if let Some(size) = a.size {
            let old = self.m.files.read(&self.who, path).map_err(code)?;
            let mut bytes = old.as_ref().clone();
            bytes.resize(size as usize, 0);
            self.m.files.write(&self.who, path, &bytes, false, 0o644).map_err(code)?;
        }
        if a.permissions.is_none() && a.uid.is_none() && a.mtime.is_none() {
            return Ok(());
        }
        if a.uid.is_some_and(|u| u != self.who.uid) && self.who.uid != 0 {
            return Err(StatusCode::PermissionDenied);
        }
        let set = |n: &mut Node| {
            n.mode = a.permissions.map_or(n.mode, |p| p & 0o7777);
            n.uid = a.uid.unwrap_or(n.uid);
            n.gid = a.gid.unwrap_or(n.gid);
            n.mtime = a.mtime.map_or(n.mtime, u64::from);
        };
        self.m.files.change(&self.who, path, true, set).map_err(code)
    }
}

fn code(e: std::io::Error) -> StatusCode {
    match e.kind() {
        std::io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        std::io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en-US".into() }
}

fn attributes(n: &Node) -> FileAttributes {
    let kind = match n.kind {
        Kind::Dir => 0o040_000,
        Kind::Link(_) => 0o120_000,
        Kind::Fifo => 0o010_000,
        Kind::File(_) => 0o100_000,
    };
    let mut a = FileAttributes::empty();
    a.size = Some(n.size());
    a.uid = Some(n.uid);
    a.gid = Some(n.gid);
    a.permissions = Some(kind | (n.mode & 0o7777));
    a.atime = Some(n.mtime as u32);
    a.mtime = Some(n.mtime as u32);
    a
}

impl Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }

    async fn open(
        &mut self,
        id: u32,
        name: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let path = self.path(&name);
        let there = self.m.files.stat(&self.who, &path, true);
        if flags.contains(OpenFlags::CREATE) && flags.contains(OpenFlags::EXCLUDE) && there.is_ok() {
            return Err(StatusCode::Failure);
        }
        if flags.contains(OpenFlags::WRITE) {
            match (&there, flags.contains(OpenFlags::CREATE)) {
                (Err(_), false) => return Err(StatusCode::NoSuchFile),
                (Err(_), true) => {
                    let mode = attrs.permissions.map_or(0o644, |p| p & 0o7777);
                    self.m.files.write(&self.who, &path, b"", false, mode).map_err(code)?;
                }
                (Ok(_), _) if flags.contains(OpenFlags::TRUNCATE) => {
                    self.m.files.write(&self.who, &path, b"", false, 0o644).map_err(code)?;
                }
                (Ok(_), _) => self.m.files.write(&self.who, &path, b"", true, 0o644).map_err(code)?,
            }
        } else {
            self.m.files.read(&self.who, &path).map_err(code)?;
        }
        let append = flags.contains(OpenFlags::APPEND);
        Ok(self.handle(id, Open::File { path, append }))
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusCode> {
        self.open.remove(&handle);
        Ok(ok(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusCode> {
        let Some(Open::File { path, .. }) = self.open.get(&handle) else { return Err(StatusCode::Failure) };
        let bytes = self.m.files.read(&self.who, path).map_err(code)?;
        let from = (offset as usize).min(bytes.len());
        let to = (from + len as usize).min(bytes.len());
        if from == to {
            return Err(StatusCode::Eof);
        }
        Ok(Data { id, data: bytes[from..to].to_vec() })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Result<Status, StatusCode> {
        let Some(Open::File { path, append }) = self.open.get(&handle) else { return Err(StatusCode::Failure) };
        let size = self.m.files.stat(&self.who, path, true).map_err(code)?.size();
        if *append || offset == size {
            self.m.files.write(&self.who, path, &data, true, 0o644).map_err(code)?;
            return Ok(ok(id));
        }
        let mut bytes = self.m.files.read(&self.who, path).map_err(code)?.as_ref().clone();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(&data);
        self.m.files.write(&self.who, path, &bytes, false, 0o644).map_err(code)?;
        Ok(ok(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        let n = self.m.files.stat(&self.who, &self.path(&path), false).map_err(code)?;
        Ok(Attrs { id, attrs: attributes(&n) })
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        let n = self.m.files.stat(&self.who, &self.path(&path), true).map_err(code)?;
        Ok(Attrs { id, attrs: attributes(&n) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusCode> {
        let Some(Open::File { path, .. } | Open::Dir { path, .. }) = self.open.get(&handle) else {
            return Err(StatusCode::Failure);
        };
        let n = self.m.files.stat(&self.who, path, true).map_err(code)?;
        Ok(Attrs { id, attrs: attributes(&n) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusCode> {
        self.change(&self.path(&path), &attrs).map(|()| ok(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Result<Status, StatusCode> {
        let Some(Open::File { path, .. }) = self.open.get(&handle) else { return Err(StatusCode::Failure) };
        self.change(path, &attrs).map(|()| ok(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        let path = self.path(&path);
        self.m.files.list(&self.who, &path).map_err(code)?;
        Ok(self.handle(id, Open::Dir { path, listed: false }))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusCode> {
        let Some(Open::Dir { path, listed }) = self.open.get_mut(&handle) else { return Err(StatusCode::Failure) };
        if std::mem::replace(listed, true) {
            return Err(StatusCode::Eof);
        }
        let list = self.m.files.list(&self.who, path).map_err(code)?;
        let mut files =
            vec![File::new(".", attributes(&Node::dir(0o755))), File::new("..", attributes(&Node::dir(0o755)))];
        files.extend(list.iter().map(|(name, n)| File::new(name, attributes(n))));
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        let path = self.path(&path);
        if self.m.files.stat(&self.who, &path, false).is_ok_and(|n| n.is_dir()) {
            return Err(StatusCode::Failure);
        }
        self.m.files.remove(&self.who, &path, false).map(|()| ok(id)).map_err(code)
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusCode> {
        let mode = attrs.permissions.map_or(0o755, |p| p & 0o7777);
        self.m.files.mkdir(&self.who, &self.path(&path), false, mode).map(|()| ok(id)).map_err(code)
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        self.m.files.remove(&self.who, &self.path(&path), false).map(|()| ok(id)).map_err(code)
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusCode> {
        let path = self.m.files.resolve(&self.path(&path), true).map_err(code)?;
        Ok(Name { id, files: vec![File::dummy(path)] })
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusCode> {
        let (from, to) = (self.path(&from), self.path(&to));
        if self.m.files.stat(&self.who, &to, false).is_ok() {
            // SFTP version 3 does not replace; `posix-rename` would.
            return Err(StatusCode::Failure);
        }
        self.m.files.rename(&self.who, &from, &to).map(|()| ok(id)).map_err(code)
    }

    async fn readlink(&mut self, id: u32, path: String) -> Result<Name, StatusCode> {
        match self.m.files.stat(&self.who, &self.path(&path), false).map_err(code)?.kind {
            Kind::Link(t) => Ok(Name { id, files: vec![File::dummy(t)] }),
            _ => Err(StatusCode::Failure),
        }
    }

    async fn symlink(&mut self, id: u32, link: String, target: String) -> Result<Status, StatusCode> {
        // OpenSSH sends the target first, against the draft; both its client and this server do as OpenSSH.
        self.m.files.symlink(&self.who, &link, &self.path(&target)).map(|()| ok(id)).map_err(code)
    }
}
