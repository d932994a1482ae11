//! What a site's cluster was at its birth, as a word in the comment of the site's pool: it outlives every machine, so a
//! second cluster is not made where all disks of the first one are lost.
use std::fmt;

use serde_json::json;

use super::pool::KEPT;
use super::request;
use super::types::Proxmox;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::OpScope;
use crate::site::{RoleKind, Site};

/// How the word in the comment begins.
const WORD: &str = "cluster=";

/// A cluster's birth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Birth {
    /// The beginning of the hash of its CA, as tokens have it.
    pub ca: String,
    /// Fingerprint of its token: which secret belongs to its snapshots.
    pub token: String,
    /// Pod addresses.
    pub cluster_cidr: String,
    /// Service addresses.
    pub service_cidr: String,
    /// CIS settings and secrets encryption.
    pub cis: bool,
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cis = if self.cis { "on" } else { "off" };
        let Birth { ca, token, cluster_cidr, service_cidr, .. } = self;
        write!(f, "{WORD}ca={ca};token={token};pods={cluster_cidr};services={service_cidr};cis={cis}")
    }
}

impl Birth {
    /// Reads it out of a pool's comment.
    #[must_use]
    pub fn parse(comment: &str) -> Option<Self> {
        let word = comment.split_whitespace().find_map(|w| w.strip_prefix(WORD))?;
        let part = |key: &str| {
            let of = |p: &str| p.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            word.split(';').find_map(of)
        };
        Some(Birth {
            ca: part("ca")?,
            token: part("token").unwrap_or_default(),
            cluster_cidr: part("pods").unwrap_or_default(),
            service_cidr: part("services").unwrap_or_default(),
            cis: part("cis")? == "on",
        })
    }
}

/// A pool's comment with this birth in it, or with none; everything else stays.
#[must_use]
pub fn with(comment: &str, birth: Option<&Birth>) -> String {
    let whole = comment.trim();
    let (text, kept) = whole.strip_suffix(KEPT).map_or((whole, ""), |t| (t, KEPT));
    let mut words: Vec<String> = text.split_whitespace().filter(|w| !w.starts_with(WORD)).map(str::to_owned).collect();
    words.extend(birth.map(ToString::to_string));
    format!("{}{kept}", words.join(" "))
}

impl Proxmox {
    /// The birth of the site's cluster; `None` when there is no pool, or it says nothing.
    ///
    /// # Errors
    /// `denied` when the pool is another site's.
    pub async fn birth(&self, ctx: &Ctx, site: &Site) -> OpResult<Option<Birth>> {
        Ok(self.check_pool(ctx, site).await?.and_then(|comment| Birth::parse(&comment)))
    }

    /// Whether the site has a pool to note a birth in, and none is noted.
    ///
    /// # Errors
    /// `denied` when the pool is another site's.
    pub async fn lacks_birth(&self, ctx: &Ctx, site: &Site) -> OpResult<bool> {
        Ok(self.check_pool(ctx, site).await?.is_some_and(|comment| Birth::parse(&comment).is_none()))
    }

    /// Notes a birth, or forgets it, inside an op.
    ///
    /// # Errors
    /// What the request met.
    pub async fn note_birth(&self, s: &OpScope, site: &Site, birth: Option<&Birth>) -> OpResult<()> {
        let ctx = s.ctx();
        let Some(comment) = self.check_pool(ctx, site).await? else { return Ok(()) };
        let wanted = with(&comment, birth);
        if wanted == comment {
            return Ok(());
        }
        let body = json!({ "poolid": site.pool(), "comment": wanted });
        let done = async || Ok(self.birth(ctx, site).await?.as_ref() == birth);
        self.put_through(s, "the pool's comment", &request::put("/pools", body), done).await
    }

    /// Whether a birth is noted of a site none of whose servers has a machine any more: the next cluster is a new one.
    pub(super) async fn is_birth_over(&self, ctx: &Ctx, site: &Site) -> OpResult<bool> {
        if self.birth(ctx, site).await?.is_none() {
            return Ok(false);
        }
        for n in site.nodes_of(RoleKind::Server) {
            if !self.is_free(ctx, n.vmid).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn born() -> Birth {
        Birth {
            ca: "ab".repeat(6),
            token: "0123456789ab".to_owned(),
            cluster_cidr: "10.42.0.0/16".to_owned(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cis: true,
        }
    }

    #[test]
    fn a_birth_comes_back_and_other_words_of_the_comment_stay() {
        for comment in
            ["gpuhost site homelab u-u-i-d", "gpuhost site homelab u-u-i-d kept", "my words gpuhost site x u"]
        {
            let noted = with(comment, Some(&born()));
            assert_eq!(Birth::parse(&noted), Some(born()), "{noted}");
            assert_eq!(noted.ends_with(KEPT), comment.ends_with(KEPT), "{noted}");
            let other = Birth { cis: false, ..born() };
            assert_eq!(Birth::parse(&with(&noted, Some(&other))), Some(other), "replaced, not added");
            assert_eq!(with(&noted, None), comment);
        }
        assert_eq!(Birth::parse("gpuhost site homelab u"), None);
        assert_eq!(Birth::parse("gpuhost site homelab u cluster=half"), None);
    }
}
