//! A file system in memory: every node by its path, with owner and mode, serialisable.
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with its bytes.
    File(Arc<Vec<u8>>),
    /// A directory.
    Dir,
    /// A symbolic link with its target.
    Link(String),
    /// A named pipe.
    Fifo,
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: u64,
}

impl Node {
    /// A file of root.
    #[must_use]
    pub fn file(bytes: impl Into<Vec<u8>>, mode: u32) -> Node {
        Node { kind: Kind::File(Arc::new(bytes.into())), mode, uid: 0, gid: 0, mtime: 0 }
    }

    /// A directory of root.
    #[must_use]
    pub fn dir(mode: u32) -> Node {
        Node { kind: Kind::Dir, mode, uid: 0, gid: 0, mtime: 0 }
    }

    /// A link of root.
    #[must_use]
    pub fn link(target: &str) -> Node {
        Node { kind: Kind::Link(target.to_owned()), mode: 0o777, uid: 0, gid: 0, mtime: 0 }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(b) => b.len() as u64,
            Kind::Link(t) => t.len() as u64,
            Kind::Dir => 4096,
            Kind::Fifo => 0,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

/// Nodes by absolute, normalised path.
pub type Nodes = BTreeMap<String, Node>;

/// A file system.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Mutex<Nodes>,
}

/// The error for a path that does not exist.
#[must_use]
pub fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "file not found")
}

/// Absolute path without `.`, `..`, doubled or trailing slashes.
#[must_use]
pub fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for p in path.split('/') {
        match p {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            p => parts.push(p),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory a path is in.
#[must_use]
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(i) => &path[..i],
    }
}

/// The last part of a path.
#[must_use]
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// `path` relative to `dir`, appended to `onto`.
#[must_use]
pub fn rebase(path: &str, dir: &str, onto: &str) -> String {
    let rest = if dir == "/" { path } else { path.strip_prefix(dir).unwrap_or(path) };
    normalise(&format!("{onto}/{rest}"))
}

/// Whether `path` is `dir` or below it.
#[must_use]
pub fn is_below(path: &str, dir: &str) -> bool {
    dir == "/" || path == dir || path.strip_prefix(dir).is_some_and(|r| r.starts_with('/'))
}

fn children<'a>(nodes: &'a Nodes, dir: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
    let prefix = if dir == "/" { "/".to_owned() } else { format!("{dir}/") };
    let p = prefix.clone();
    nodes
        .range(prefix.clone()..)
        .take_while(move |(k, _)| k.starts_with(&p))
        .filter(move |(k, _)| k.len() > prefix.len())
}

impl Tree {
    /// A tree of these nodes; the root directory is always there.
    #[must_use]
    pub fn new(mut nodes: Nodes) -> Tree {
        nodes.entry("/".to_owned()).or_insert_with(|| Node::dir(0o755));
        Tree { nodes: Mutex::new(nodes) }
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at `path` itself (links are not followed).
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Node> {
        self.lock().get(path).cloned()
    }

    /// Names and nodes directly below `dir`.
    #[must_use]
    pub fn list(&self, dir: &str) -> Vec<(String, Node)> {
        let nodes = self.lock();
        let skip = if dir == "/" { 1 } else { dir.len() + 1 };
        children(&nodes, dir)
            .filter(|(k, _)| !k[skip..].contains('/'))
            .map(|(k, n)| (k[skip..].to_owned(), n.clone()))
            .collect()
    }

    /// Puts a node at `path`; its parent must be a directory.
    ///
    /// # Errors
    /// When the parent is missing or no directory, or a directory would be replaced.
    pub fn put(&self, path: &str, node: Node) -> Result<()> {
        let mut nodes = self.lock();
        match nodes.get(parent(path)) {
            Some(p) if p.is_dir() => {}
            Some(_) => return Err(Error::new(ErrorKind::NotADirectory, "not a directory")),
            None => return Err(Error::new(ErrorKind::NotFound, "parent directory not found")),
        }
        if nodes.get(path).is_some_and(|n| n.is_dir()) != node.is_dir() && nodes.contains_key(path) {
            let dir = nodes.get(path).is_some_and(Node::is_dir);
            if dir {
                return Err(Error::new(ErrorKind::IsADirectory, "is a directory"));
            }
        }
        nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Makes a directory and its parents, owned by root.
    pub fn mkdirs(&self, path: &str, mode: u32, mtime: u64) {
        let mut nodes = self.lock();
        let mut at = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = format!("{at}/{part}");
            nodes.entry(at.clone()).or_insert_with(|| Node { mtime, ..Node::dir(mode) });
        }
    }

    /// Changes a node in place.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn update<T>(&self, path: &str, f: impl FnOnce(&mut Node) -> T) -> Result<T> {
        self.lock().get_mut(path).map(f).ok_or_else(not_found)
    }

    /// Removes a node.
    ///
    /// # Errors
    /// When it does not exist, or is a directory with content and `recursive` is off.
    pub fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        let mut nodes = self.lock();
        if !nodes.contains_key(path) {
            return Err(not_found());
        }
        let below: Vec<String> = children(&nodes, path).map(|(k, _)| k.clone()).collect();
        if !below.is_empty() && !recursive {
            return Err(Error::new(ErrorKind::DirectoryNotEmpty, "directory not empty"));
        }
        for k in below {
            nodes.remove(&k);
        }
        if path != "/" {
            nodes.remove(path);
        }
        Ok(())
    }

    /// Moves a node with everything below it.
    ///
    /// # Errors
    /// When the source or the target's directory is missing.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut nodes = self.lock();
        let node = nodes.get(from).cloned().ok_or_else(not_found)?;
        if !nodes.get(parent(to)).is_some_and(Node::is_dir) {
            return Err(Error::new(ErrorKind::NotFound, "parent directory not found"));
        }
        if from == to {
            return Ok(());
        }
        if node.is_dir() && is_below(to, from) {
            return Err(Error::new(ErrorKind::InvalidInput, "Invalid argument"));
        }
        if nodes.get(to).is_some_and(Node::is_dir) && children(&nodes, to).next().is_some() {
            return Err(Error::new(ErrorKind::DirectoryNotEmpty, "directory not empty"));
        }
        let below: Vec<String> = children(&nodes, from).map(|(k, _)| k.clone()).collect();
        for k in below {
            if let Some(n) = nodes.remove(&k) {
                nodes.insert(rebase(&k, from, to), n);
            }
        }
        nodes.remove(from);
        nodes.insert(to.to_owned(), node);
        Ok(())
    }

    /// All nodes.
    #[must_use]
    pub fn snapshot(&self) -> Nodes {
        self.lock().clone()
    }

    /// Bytes in files at and below `path`, and how many nodes there are.
    #[must_use]
    pub fn usage(&self, path: &str) -> (u64, u64) {
        let nodes = self.lock();
        children(&nodes, path).fold((0, 1), |(b, n), (_, x)| (b + x.size(), n + 1))
    }

    /// The nodes that differ from `base`, as JSON.
    #[must_use]
    pub fn save(&self, base: &Nodes) -> Value {
        let nodes = self.lock();
        let mut changed = Map::new();
        for (path, n) in nodes.iter().filter(|(p, n)| base.get(*p) != Some(*n)) {
            changed.insert(path.clone(), node_json(n));
        }
        let gone: Vec<&String> = base.keys().filter(|p| !nodes.contains_key(*p)).collect();
        json!({"nodes": changed, "gone": gone})
    }

    /// A tree from what [`Tree::save`] wrote.
    #[must_use]
    pub fn load(base: &Nodes, saved: &Value) -> Tree {
        let mut nodes = base.clone();
        for path in saved["gone"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            nodes.remove(path);
        }
        for (path, v) in saved["nodes"].as_object().into_iter().flatten() {
            nodes.insert(path.clone(), node_of(v));
        }
        Tree::new(nodes)
    }
}

fn node_json(n: &Node) -> Value {
    let mut v = json!({"m": n.mode, "u": n.uid, "g": n.gid, "t": n.mtime});
    match &n.kind {
        Kind::File(b) => match std::str::from_utf8(b) {
            Ok(text) => v["f"] = json!(text),
            Err(_) => v["b"] = json!(base64::engine::general_purpose::STANDARD.encode(b.as_slice())),
        },
        Kind::Link(t) => v["l"] = json!(t),
        Kind::Fifo => v["p"] = json!(true),
        Kind::Dir => {}
    }
    v
}

fn node_of(v: &Value) -> Node {
    let n = |k: &str| v[k].as_u64().unwrap_or_default();
    let kind = if let Some(t) = v["f"].as_str() {
        Kind::File(Arc::new(t.as_bytes().to_vec()))
    } else if let Some(b) = v["b"].as_str() {
        Kind::File(Arc::new(base64::engine::general_purpose::STANDARD.decode(b).unwrap_or_default()))
    } else if let Some(t) = v["l"].as_str() {
        Kind::Link(t.to_owned())
    } else if v["p"].as_bool() == Some(true) {
        Kind::Fifo
    } else {
        Kind::Dir
    };
    Node { kind, mode: n("m") as u32, uid: n("u") as u32, gid: n("g") as u32, mtime: n("t") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_saves_what_differs_from_its_base_and_loads_it_again() {
        let mut base = Nodes::new();
        base.insert("/".into(), Node::dir(0o755));
        base.insert("/etc".into(), Node::dir(0o755));
        base.insert("/etc/a".into(), Node::file("a", 0o644));
        base.insert("/etc/b".into(), Node::file("b", 0o644));
        let t = Tree::new(base.clone());
        t.put("/etc/c", Node::file(vec![0xff, 0], 0o600)).unwrap();
        t.remove("/etc/a", false).unwrap();
        t.rename("/etc/b", "/etc/d").unwrap();
        let saved = t.save(&base);
        assert_eq!(saved["gone"], json!(["/etc/a", "/etc/b"]));
        let again = Tree::load(&base, &saved);
        assert_eq!(again.snapshot(), t.snapshot());
        assert!(t.put("/no/x", Node::file("", 0o644)).is_err());
        assert!(t.remove("/etc", false).is_err());
    }
}
