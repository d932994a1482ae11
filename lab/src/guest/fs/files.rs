//! The files of one machine as a process sees them: root tree plus mounts plus `/proc`, with Unix permissions.
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError, RwLock};

use super::tree::{Kind, Node, Tree, base, is_below, normalise, not_found, parent, rebase};
use super::virtuals::Virtual;

/// Links followed per lookup before giving up, as Linux has it.
const MAX_LINKS: usize = 40;

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

impl Who {
    /// root.
    #[must_use]
    pub fn root() -> Who {
        Who { uid: 0, gid: 0, groups: vec![0], name: "root".into(), home: "/root".into(), shell: "/bin/bash".into() }
    }

    fn may(&self, n: &Node, bit: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let shift = if n.uid == self.uid {
            6
        } else if n.gid == self.gid || self.groups.contains(&n.gid) {
            3
        } else {
            0
        };
        (n.mode >> shift) & bit != 0
    }

    /// Whether the node may be read.
    #[must_use]
    pub fn may_read(&self, n: &Node) -> bool {
        self.may(n, 4)
    }

    /// Whether the node may be written.
    #[must_use]
    pub fn may_write(&self, n: &Node) -> bool {
        self.may(n, 2)
    }
}

/// A mounted tree.
#[derive(Clone)]
pub struct MountPoint {
    /// Where.
    pub target: String,
    /// Which tree.
    pub tree: Arc<Tree>,
    /// Directory of that tree that is shown.
    pub sub: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Tells whether what serves it is still there (NFS).
    pub alive: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// The files of one machine.
pub struct Files {
    root: Arc<Tree>,
    mounts: RwLock<Vec<MountPoint>>,
    virt: Arc<dyn Virtual>,
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
}

fn denied() -> Error {
    Error::new(ErrorKind::PermissionDenied, "Permission denied")
}

fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnlyFilesystem, "Read-only file system")
}

fn is_virtual(path: &str) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|d| is_below(path, d))
}

impl Files {
    /// Files over `root`; `now` tells the time in seconds since 1970.
    #[must_use]
    pub fn new(root: Arc<Tree>, virt: Arc<dyn Virtual>, now: Arc<dyn Fn() -> u64 + Send + Sync>) -> Files {
        Files { root, mounts: RwLock::new(Vec::new()), virt, now }
    }

    /// The root tree.
    #[must_use]
    pub fn root(&self) -> &Arc<Tree> {
        &self.root
    }

    /// Mounts a tree.
    pub fn mount(&self, m: MountPoint) {
        self.mounts.write().unwrap_or_else(PoisonError::into_inner).push(m);
    }

    /// Takes the last mount at `target` away and returns it.
    pub fn unmount(&self, target: &str) -> Option<MountPoint> {
        let mut all = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
        let i = all.iter().rposition(|m| m.target == target)?;
        Some(all.remove(i))
    }

    /// All mounts.
    #[must_use]
    pub fn mounts(&self) -> Vec<MountPoint> {
        self.mounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tree that serves `path` (no links in it), the path inside, and whether it is read-only.
    fn locate(&self, path: &str) -> Result<(Arc<Tree>, String, bool)> {
        let all = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        let best = all.iter().enumerate().filter(|(_, m)| is_below(path, &m.target));
        let Some((_, m)) = best.max_by_key(|(i, m)| (m.target.len(), *i)) else {
            return Ok((self.root.clone(), path.to_owned(), false));
        };
        if !(m.alive)() {
            return Err(Error::other("Stale file handle"));
        }
        Ok((m.tree.clone(), rebase(path, &m.target, &m.sub), m.read_only))
    }

    /// The tree and path inside that serve `path`, for mounting it elsewhere.
    #[must_use]
    pub fn place(&self, path: &str) -> Option<(Arc<Tree>, String)> {
        let path = self.resolve(path, true).ok()?;
        self.locate(&path).ok().map(|(t, p, _)| (t, p))
    }

    fn node(&self, path: &str) -> Option<Node> {
        if is_virtual(path) {
            return self.virt.node(path);
        }
        let (tree, inner, _) = self.locate(path).ok()?;
        tree.get(&inner)
    }

    /// Follows the links in `path`; the last part only with `follow_last`.
    ///
    /// # Errors
    /// When links go in circles.
    pub fn resolve(&self, path: &str, follow_last: bool) -> Result<String> {
        let mut pending: Vec<String> = split(path);
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            if pending.is_empty() && !follow_last {
                break;
            }
            let here = format!("/{}", done.join("/"));
            if let Some(Node { kind: Kind::Link(target), .. }) = self.node(&here) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::other("Too many levels of symbolic links"));
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                pending.extend(split(&target));
            }
        }
        Ok(format!("/{}", done.join("/")))
    }

    fn reach(&self, who: &Who, path: &str, follow_last: bool) -> Result<String> {
        let path = self.resolve(path, follow_last)?;
        if who.uid != 0 {
            let mut dir = parent(&path);
            loop {
                match self.node(dir) {
                    Some(n) if n.is_dir() && !who.may(&n, 1) => return Err(denied()),
                    Some(n) if !n.is_dir() => return Err(Error::new(ErrorKind::NotADirectory, "not a directory")),
                    _ => {}
                }
                if dir == "/" {
                    break;
                }
                dir = parent(dir);
            }
        }
        Ok(path)
    }

    /// The node at `path`.
    ///
    /// # Errors
    /// When it does not exist or a directory on the way may not be searched.
    pub fn stat(&self, who: &Who, path: &str, follow: bool) -> Result<Node> {
        let path = self.reach(who, path, follow)?;
        self.node(&path).ok_or_else(|| self.missing(&path))
    }

    fn missing(&self, path: &str) -> Error {
        let mut dir = parent(path);
        while dir != "/" {
            match self.node(dir) {
                Some(n) if !n.is_dir() => return Error::new(ErrorKind::NotADirectory, "not a directory"),
                Some(_) => break,
                None => dir = parent(dir),
            }
        }
        not_found()
    }

    /// Contents of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, who: &Who, path: &str) -> Result<Arc<Vec<u8>>> {
        let path = self.reach(who, path, true)?;
        let node = self.node(&path).ok_or_else(|| self.missing(&path))?;
        if !who.may_read(&node) {
            return Err(denied());
        }
        match node.kind {
            Kind::File(b) => Ok(b),
            Kind::Dir => Err(Error::new(ErrorKind::IsADirectory, "is a directory")),
            _ => Ok(Arc::default()),
        }
    }

    /// Text of a file, for programs; empty when it cannot be read.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        self.read(&Who::root(), path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn writable_place(&self, path: &str) -> Result<(Arc<Tree>, String)> {
        let (tree, inner, ro) = self.locate(path)?;
        if ro { Err(read_only()) } else { Ok((tree, inner)) }
    }

    fn may_change_dir(&self, who: &Who, path: &str) -> Result<()> {
        let dir = parent(path);
        match self.node(dir) {
            Some(n) if !n.is_dir() => Err(Error::new(ErrorKind::NotADirectory, "not a directory")),
            Some(n) if !who.may_write(&n) => Err(denied()),
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, "parent directory not found")),
        }
    }

    /// Writes (or appends to) a file; a new one gets `mode`.
    ///
    /// # Errors
    /// When it may not be written or its directory is missing.
    pub fn write(&self, who: &Who, path: &str, bytes: &[u8], append: bool, mode: u32) -> Result<()> {
        let path = self.reach(who, path, true)?;
        if is_virtual(&path) {
            let node = self.virt.node(&path).ok_or_else(|| self.missing(&path))?;
            return if who.may_write(&node) { self.virt.write(&path, bytes) } else { Err(denied()) };
        }
        let (tree, inner) = self.writable_place(&path)?;
        let now = (self.now)();
        match tree.get(&inner) {
            Some(n) if n.is_dir() => Err(Error::new(ErrorKind::IsADirectory, "is a directory")),
            Some(n) if !who.may_write(&n) => Err(denied()),
            Some(_) => tree.update(&inner, |n| {
                let mut content = match &n.kind {
                    Kind::File(b) if append => b.as_ref().clone(),
                    _ => Vec::new(),
                };
                content.extend_from_slice(bytes);
                n.kind = Kind::File(Arc::new(content));
                n.mtime = now;
            }),
            None => {
                self.may_change_dir(who, &path)?;
                let node = Node { uid: who.uid, gid: who.gid, mtime: now, ..Node::file(bytes, mode) };
                tree.put(&inner, node)
            }
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// When it exists (without `parents`), or may not be made there.
    pub fn mkdir(&self, who: &Who, path: &str, parents: bool, mode: u32) -> Result<()> {
        let path = self.reach(who, path, true)?;
        match self.node(&path) {
            Some(n) if n.is_dir() && parents => return Ok(()),
            Some(_) => return Err(Error::new(ErrorKind::AlreadyExists, "File exists")),
            None => {}
        }
        if parents && parent(&path) != "/" && self.node(parent(&path)).is_none() {
            self.mkdir(who, parent(&path), true, 0o755)?;
        }
        if is_virtual(&path) {
            return Err(not_found());
        }
        self.may_change_dir(who, &path)?;
        let (tree, inner) = self.writable_place(&path)?;
        tree.put(&inner, Node { uid: who.uid, gid: who.gid, mtime: (self.now)(), ..Node::dir(mode) })
    }

    fn may_unlink(&self, who: &Who, path: &str, node: &Node) -> Result<()> {
        if is_virtual(path) {
            return Err(Error::new(ErrorKind::PermissionDenied, "Operation not permitted"));
        }
        self.may_change_dir(who, path)?;
        let sticky = self.node(parent(path)).filter(|d| d.mode & 0o1000 != 0);
        if sticky.is_some_and(|d| who.uid != 0 && who.uid != node.uid && who.uid != d.uid) {
            return Err(Error::new(ErrorKind::PermissionDenied, "Operation not permitted"));
        }
        if self.mounts().iter().any(|m| is_below(&m.target, path)) {
            return Err(Error::new(ErrorKind::ResourceBusy, "Device or resource busy"));
        }
        Ok(())
    }

    /// Removes a file, link or directory.
    ///
    /// # Errors
    /// When it does not exist or may not be removed.
    pub fn remove(&self, who: &Who, path: &str, recursive: bool) -> Result<()> {
        let path = self.reach(who, path, false)?;
        let node = self.node(&path).ok_or_else(not_found)?;
        self.may_unlink(who, &path, &node)?;
        let (tree, inner) = self.writable_place(&path)?;
        tree.remove(&inner, recursive)
    }

    /// Moves a node.
    ///
    /// # Errors
    /// When that is not allowed or crosses file systems (as `EXDEV`).
    pub fn rename(&self, who: &Who, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.reach(who, from, false)?, self.reach(who, to, false)?);
        let node = self.node(&from).ok_or_else(not_found)?;
        self.may_unlink(who, &from, &node)?;
        match self.node(&to) {
            Some(n) => self.may_unlink(who, &to, &n)?,
            None => self.may_change_dir(who, &to)?,
        }
        let ((tree, a), (other, b)) = (self.writable_place(&from)?, self.writable_place(&to)?);
        if Arc::ptr_eq(&tree, &other) {
            return tree.rename(&a, &b);
        }
        for (path, n) in tree.snapshot().into_iter().filter(|(p, _)| is_below(p, &a)) {
            other.put(&rebase(&path, &a, &b), n)?;
        }
        tree.remove(&a, true)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// When something is there already or the directory may not be written.
    pub fn symlink(&self, who: &Who, target: &str, path: &str) -> Result<()> {
        let path = self.reach(who, path, false)?;
        if self.node(&path).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "File exists"));
        }
        self.may_change_dir(who, &path)?;
        let (tree, inner) = self.writable_place(&path)?;
        tree.put(&inner, Node { uid: who.uid, gid: who.gid, mtime: (self.now)(), ..Node::link(target) })
    }

    /// Entries of a directory.
    ///
    /// # Errors
    /// When it is none or may not be read.
    pub fn list(&self, who: &Who, path: &str) -> Result<Vec<(String, Node)>> {
        let path = self.reach(who, path, true)?;
        let node = self.node(&path).ok_or_else(|| self.missing(&path))?;
        if !node.is_dir() {
            return Err(Error::new(ErrorKind::NotADirectory, "not a directory"));
        }
        if !who.may_read(&node) {
            return Err(denied());
        }
        if is_virtual(&path) {
            return Ok(self.virt.list(&path));
        }
        let (tree, inner, _) = self.locate(&path)?;
        let mut list = tree.list(&inner);
        for (_, n) in list.iter_mut().filter(|(name, _)| path == "/" && is_virtual(&format!("/{name}"))) {
            n.mode = 0o555;
        }
        Ok(list)
    }

    /// Changes a node that `who` owns.
    ///
    /// # Errors
    /// When it does not exist or belongs to somebody else.
    pub fn change(&self, who: &Who, path: &str, follow: bool, f: impl FnOnce(&mut Node)) -> Result<()> {
        let path = self.reach(who, path, follow)?;
        let node = self.node(&path).ok_or_else(not_found)?;
        if who.uid != 0 && who.uid != node.uid {
            return Err(Error::new(ErrorKind::PermissionDenied, "Operation not permitted"));
        }
        if is_virtual(&path) {
            return Ok(());
        }
        let (tree, inner) = self.writable_place(&path)?;
        tree.update(&inner, f)
    }

    /// Whether `path` exists, links followed, for root.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.stat(&Who::root(), path, true).is_ok()
    }

    /// Puts a file of root there, with its directories. For the machine itself.
    pub fn place_file(&self, path: &str, bytes: &[u8], mode: u32) {
        let root = Who::root();
        let dir = parent(path).to_owned();
        let _ = self.mkdir(&root, &dir, true, 0o755);
        if self.write(&root, path, bytes, false, mode).is_ok() {
            let _ = self.change(&root, path, true, |n| n.mode = mode);
        }
    }

    /// Name of the last part of `path` after links are followed.
    #[must_use]
    pub fn real_name(&self, path: &str) -> String {
        self.resolve(path, true).map(|p| base(&p).to_owned()).unwrap_or_default()
    }
}

/// Parts of a path, last first; `..` is kept because links may come before it.
fn split(path: &str) -> Vec<String> {
    let path = if path.contains("/../") || path.ends_with("/..") { path.to_owned() } else { normalise_keep(path) };
    path.split('/').filter(|p| !p.is_empty() && *p != ".").rev().map(str::to_owned).collect()
}

fn normalise_keep(path: &str) -> String {
    if path.starts_with("..") { path.to_owned() } else { normalise(path) }
}
