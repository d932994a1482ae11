//! Git repositories that the lab's clusters can reach: branches with commits, files as text.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::kube::KubeEvent;
use crate::world::{Event, World};

/// Files of a commit by path in the repository.
pub type Files = BTreeMap<String, String>;

/// A repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Remote {
    /// Newest commit by branch.
    pub branches: BTreeMap<String, Commit>,
    /// Whether it does not answer.
    #[serde(default)]
    pub down: bool,
}

/// A commit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Commit {
    /// Forty hexadecimal digits.
    pub id: String,
    /// Message.
    pub message: String,
    /// All files.
    pub files: Files,
}

impl Remote {
    /// A repository with one commit.
    #[must_use]
    pub fn with(branch: &str, files: Files) -> Remote {
        let id = crate::kube::text::sha256(&format!("{files:?}"))[..40].to_owned();
        let first = Commit { id, message: "first".to_owned(), files };
        Remote { branches: BTreeMap::from([(branch.to_owned(), first)]), down: false }
    }
}

/// The repository of an address; `.git` at its end makes no difference.
#[must_use]
pub fn remote<'a>(w: &'a World, url: &str) -> Option<&'a Remote> {
    let plain = |u: &str| u.trim_end_matches('/').trim_end_matches(".git").to_owned();
    w.remotes.iter().find(|(k, _)| plain(k) == plain(url)).map(|(_, r)| r)
}

/// Replaces everything below `folder` (empty: the whole tree) of a branch by `files`; followers see it at their next poll.
///
/// # Errors
/// When there is no such repository.
pub fn commit(
    lab: &Lab,
    w: &mut World,
    url: &str,
    branch: &str,
    folder: &str,
    files: Files,
    message: &str,
) -> Result<String, String> {
    let _ = lab;
    let Some(r) = w.remotes.get_mut(url) else { return Err(format!("the lab has no repository {url}")) };
    let old = r.branches.entry(branch.to_owned()).or_default();
    let folder = folder.trim_matches('/');
    let below = |p: &str| folder.is_empty() || p.strip_prefix(folder).is_some_and(|r| r.starts_with('/'));
    let mut all: Files = old.files.iter().filter(|(p, _)| !below(p)).map(|(p, t)| (p.clone(), t.clone())).collect();
    all.extend(files);
    let text = format!("{}\n{message}\n{all:?}", old.id);
    let id = crate::kube::text::sha256(&text)[..40].to_owned();
    *old = Commit { id: id.clone(), message: message.to_owned(), files: all };
    let clusters: Vec<String> = w.clusters.keys().cloned().collect();
    for cluster in clusters {
        w.schedule(60_000, Event::Kube(KubeEvent::Poll { cluster }));
    }
    Ok(id)
}
