//! The site's pool: everything that the site makes is in it.
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::site::Site;

use super::error::ApiResult;
use super::request;
use super::types::Proxmox;

/// The pool's comment: label for people, UUID for us.
fn comment(site: &Site) -> String {
    format!("gpuhost site {} {}", site.name, site.uuid)
}

/// Last word of the comment of a pool that an administrator made: the token's rights hang on it.
pub(super) const KEPT: &str = " kept";

/// Whether an administrator made a pool for good.
pub(super) fn is_kept(pool: &Value) -> bool {
    pool["comment"].as_str().is_some_and(|c| c.trim_end().ends_with(KEPT))
}

/// The line that makes the pool for good. Proxmox drops the rights on a pool together with the pool, so
/// one that carries the token's rights must outlive a cleanup.
pub(super) fn command(site: &Site, exists: bool) -> String {
    let verb = if exists { "modify" } else { "add" };
    format!("pveum pool {verb} {} --comment \"{}{KEPT}\"", site.pool(), comment(site))
}

impl Proxmox {
    pub(super) async fn read_pool(&self, ctx: &Ctx, name: &str) -> ApiResult<Option<Value>> {
        let Some(answer) = self.find(ctx, &request::pool(name)).await? else { return Ok(None) };
        // 9 answers a list of one, 8 the pool itself.
        Ok(match answer {
            Value::Array(list) => list.into_iter().find(|p| p["poolid"] == name),
            Value::Object(_) => Some(answer),
            _ => None,
        })
    }

    /// Ids of the VMs in a pool; `None` when there is no such pool.
    ///
    /// # Errors
    /// What the request met.
    pub async fn pool_members(&self, ctx: &Ctx, name: &str) -> ApiResult<Option<Vec<u32>>> {
        let Some(pool) = self.read_pool(ctx, name).await? else { return Ok(None) };
        let members = pool["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Some(members.iter().filter_map(|m| u32::try_from(m["vmid"].as_u64()?).ok()).collect()))
    }

    /// Comment of the site's pool; `None` when there is no pool, an error when it is another site's.
    pub(super) async fn check_pool(&self, ctx: &Ctx, site: &Site) -> OpResult<Option<String>> {
        let name = site.pool();
        let Some(pool) = self.read_pool(ctx, &name).await? else { return Ok(None) };
        let found = pool["comment"].as_str().unwrap_or_default();
        if found.contains(&site.uuid) {
            return Ok(Some(found.trim().to_owned()));
        }
        Err(OpError::refused(format!("pool `{name}` belongs to another site (its comment: `{found}`)"))
            .hint(format!("give this site another name, or write `{}` into the pool's comment", comment(site))))
    }

    /// Makes the site's pool exist. A pool of that name that belongs to another site is refused.
    ///
    /// # Errors
    /// `denied` when another site has it.
    pub async fn ensure_pool(&self, ctx: &Ctx) -> OpResult<()> {
        let site = ctx.site()?;
        let name = site.pool();
        ctx.run_op(Op::write("proxmox", "ensure_pool", &name), |s| async move {
            if self.check_pool(ctx, &site).await?.is_some() {
                return Ok(());
            }
            let change = Change::new(&name, "pool", None, Some(comment(&site).into()));
            let made = s
                .act(format!("pool {name}"), vec![change], async {
                    let made = async || Ok(self.check_pool(ctx, &site).await?.is_some());
                    self.put_through(&s, "the pool", &request::create_pool(&name, &comment(&site)), made).await
                })
                .await;
            match made {
                Ok(_) => Ok(()),
                // Another thread of this run, or another operator of this site, was faster.
                Err(_) if self.check_pool(ctx, &site).await?.is_some() => Ok(()),
                Err(e) => Err(e),
            }
        })
        .await
    }

    /// Removes the site's pool when it is empty; says whether it was removed.
    ///
    /// # Errors
    /// `denied` when the pool is another site's.
    pub async fn remove_pool(&self, ctx: &Ctx) -> OpResult<bool> {
        let site = ctx.site()?;
        let name = site.pool();
        ctx.run_op(Op::destroy("proxmox", "remove_pool", &name), |s| async move {
            let Some(found) = self.check_pool(ctx, &site).await? else { return Ok(false) };
            // A pool that stays must not go on telling of a cluster that was taken down.
            if self.is_birth_over(ctx, &site).await? {
                let change = Change::new(&name, "note of the cluster's birth", Some("written".into()), None);
                s.act(format!("pool {name}"), vec![change], self.note_birth(&s, &site, None)).await?;
            }
            if found.ends_with(KEPT) {
                ctx.message("info", format!("pool {name} stays: an administrator made it for the token's rights"));
                return Ok(false);
            }
            let left = self.pool_members(ctx, &name).await?.unwrap_or_default();
            if !left.is_empty() {
                let ids: Vec<String> = left.iter().map(u32::to_string).collect();
                ctx.message("info", format!("pool {name} stays: it still holds VM {}", ids.join(", ")));
                return Ok(false);
            }
            for key in self.once_keys(ctx, &site).await? {
                self.forget_once(ctx, &key).await?;
            }
            let change = Change::new(&name, "pool", Some(comment(&site).into()), None);
            self.drop_pool(&s, "the pool", &name, change).await?;
            Ok(true)
        })
        .await
    }

    /// Takes a pool away inside an op; `change` is what that means.
    pub(super) async fn drop_pool(&self, s: &OpScope, what: &str, name: &str, change: Change) -> OpResult<()> {
        s.act(format!("pool {name}"), vec![change], async {
            let gone = async || Ok(self.read_pool(s.ctx(), name).await?.is_none());
            self.put_through(s, what, &request::remove_pool(name), gone).await
        })
        .await
    }
}
