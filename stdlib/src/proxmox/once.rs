//! What must not happen twice. A mark on the hypervisor, a pool `gpuhost-<site>-once-<key>`, is made before it begins:
//! making a pool is a test-and-set, so two operators never both begin. Its comment says whether it has ended.
use std::fmt;

use serde_json::json;

use super::error::Fault;
use super::request;
use super::types::Proxmox;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::Op;
use crate::site::Site;

/// What the comment of a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    site: String,
    done: bool,
    /// The hypervisor's clock when it was written, in seconds since 1970.
    at: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.done { "done" } else { "begun" };
        write!(f, "gpuhost once site={} {word}={}", self.site, self.at)
    }
}

impl Mark {
    fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix("gpuhost once ")?.split(' ');
        let site = words.next()?.strip_prefix("site=")?.to_owned();
        let (word, at) = words.next()?.split_once('=')?;
        Some(Mark { site, done: word == "done", at: at.parse().ok()? })
    }
}

/// Beginning of the names of a site's marks.
fn prefix(site: &Site) -> String {
    format!("{}-once-", site.pool())
}

fn pool_of(site: &Site, key: &str) -> OpResult<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || key.len() > 64 || !key.chars().all(fits) {
        return Err(OpError::invalid(format!("`{key}` cannot be the key of `once`"))
            .hint("1 to 64 letters, digits, `-`, `_` and `.`, for example `announce-v2`"));
    }
    Ok(format!("{}{key}", prefix(site)))
}

/// The refusal of what was begun and has not ended.
fn open(key: &str, pool: &str, mark: &Mark) -> OpError {
    OpError::refused(format!("`{key}` was begun and has not ended, so nobody knows whether it happened"))
        .because(format!("pool `{pool}` says: {mark}"))
        .hint(format!("look; if it did not happen, allow it again: `forget_once(\"{key}\")`"))
}

impl Proxmox {
    async fn mark(&self, ctx: &Ctx, site: &Site, pool: &str) -> OpResult<Option<Mark>> {
        let Some(found) = self.read_pool(ctx, pool).await? else { return Ok(None) };
        match found["comment"].as_str().and_then(Mark::parse) {
            Some(m) if m.site == site.uuid => Ok(Some(m)),
            _ => Err(OpError::refused(format!("pool `{pool}` is no mark of this site"))
                .hint("it is in the way of a mark: use another key, or remove that pool by hand")),
        }
    }

    /// Begins what must not happen twice: `false` when it is done already.
    ///
    /// # Errors
    /// `denied` when it was begun and never ended: nobody knows whether it happened.
    pub async fn begin_once(&self, ctx: &Ctx, key: &str) -> OpResult<bool> {
        let site = ctx.site()?;
        let pool = pool_of(&site, key)?;
        ctx.run_op(Op::run("proxmox", "begin_once", key).class(Class::Adoptable), |s| async move {
            match self.mark(ctx, &site, &pool).await? {
                Some(m) if m.done => return Ok(false),
                Some(m) => return Err(open(key, &pool, &m)),
                None => {}
            }
            let mark = Mark { site: site.uuid.clone(), done: false, at: self.hypervisor_time(ctx, &site).await? };
            let change = Change::new(key, "once", None, Some("begun".into()));
            let made = s
                .act(format!("pool {pool}"), vec![change], async {
                    let answer = self.send_once(ctx, &request::create_pool(&pool, &mark.to_string())).await;
                    ctx.edge();
                    match answer {
                        Ok(_) => Ok(()),
                        // Not ours to repeat: an answer that got lost may hide that it was made, here or elsewhere.
                        Err(e) if e.is(&Fault::Exists) => {
                            Err(OpError::refused(format!("`{key}` has just been begun by somebody else")))
                        }
                        Err(e) => Err(OpError::from(e)),
                    }
                })
                .await;
            made.map(|()| true)
        })
        .await
    }

    /// Ends what [`Proxmox::begin_once`] has begun: it is done.
    ///
    /// # Errors
    /// What the request met.
    pub async fn end_once(&self, ctx: &Ctx, key: &str) -> OpResult<()> {
        let site = ctx.site()?;
        let pool = pool_of(&site, key)?;
        ctx.run_op(Op::write("proxmox", "end_once", key), |s| async move {
            let mark = Mark { site: site.uuid.clone(), done: true, at: self.hypervisor_time(ctx, &site).await? };
            let change = Change::new(key, "once", Some("begun".into()), Some("done".into()));
            let body = json!({ "poolid": pool, "comment": mark.to_string() });
            s.act(format!("pool {pool}"), vec![change], async {
                let done = async || Ok(self.mark(ctx, &site, &pool).await?.is_some_and(|m| m.done));
                self.put_through(&s, "the mark", &request::put("/pools", body), done).await
            })
            .await
        })
        .await
    }

    /// Takes a mark away: what it stands for may happen again. `false` when there was none.
    ///
    /// # Errors
    /// What the request met.
    pub async fn forget_once(&self, ctx: &Ctx, key: &str) -> OpResult<bool> {
        let site = ctx.site()?;
        let pool = pool_of(&site, key)?;
        ctx.run_op(Op::write("proxmox", "forget_once", key), |s| async move {
            let Some(mark) = self.mark(ctx, &site, &pool).await? else { return Ok(false) };
            let word = if mark.done { "done" } else { "begun" };
            let change = Change::new(key, "once", Some(word.into()), None);
            self.drop_pool(&s, "the mark", &pool, change).await?;
            Ok(true)
        })
        .await
    }

    /// Keys of the site's marks.
    ///
    /// # Errors
    /// What the request met.
    pub(super) async fn once_keys(&self, ctx: &Ctx, site: &Site) -> OpResult<Vec<String>> {
        let all = self.send(ctx, &request::get("/pools")).await?;
        let ours = |p: &serde_json::Value| {
            let key = p["poolid"].as_str()?.strip_prefix(&prefix(site))?;
            let mark = Mark::parse(p["comment"].as_str()?)?;
            (mark.site == site.uuid).then(|| key.to_owned())
        };
        Ok(all.as_array().into_iter().flatten().filter_map(ours).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_other_comments_are_none() {
        for done in [true, false] {
            let m = Mark { site: "u-u".to_owned(), done, at: 1_795_339_800 };
            assert_eq!(Mark::parse(&m.to_string()), Some(m));
        }
        for other in ["", "gpuhost once", "gpuhost once site=u", "gpuhost once site=u done=soon", "a pool of mine"] {
            assert_eq!(Mark::parse(other), None, "{other:?}");
        }
    }
}
