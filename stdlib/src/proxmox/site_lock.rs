//! The site's lock on the hypervisor: a pool `gpuhost-<site>-lock-N` whose comment names the holder.
//!
//! Making a pool is a test-and-set that all operators share: of two that make generation N+1, one is refused.
//! A new holder makes N+1 and then removes N, so that the old holder's next renewal fails: that is the fence.
//! Leases are on the hypervisor's clock, the only one that everybody sees.
use std::fmt;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::site::Site;

use super::error::Fault;
use super::request;
use super::types::Proxmox;

/// Who holds the lock, as the pool's comment says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockNote {
    /// UUID of the site.
    pub site: String,
    /// `user@host`.
    pub holder: String,
    /// Process id and when it was started, comparable within one `boot`.
    pub process: String,
    /// Changes with every boot of the holder's machine.
    pub boot: String,
    /// Since when, in seconds of the hypervisor's clock.
    pub since: u64,
    /// End of the lease, in seconds of the hypervisor's clock.
    pub until: u64,
    /// Run that holds it.
    pub run: String,
}

const FORM: &str = "gpuhost-lock/1";

impl fmt::Display for LockNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |t: &str| t.split_whitespace().collect::<Vec<_>>().join("_");
        write!(
            f,
            "{FORM} site={} holder={} process={} boot={} since={} until={} run={}",
            word(&self.site),
            word(&self.holder),
            word(&self.process),
            word(&self.boot),
            self.since,
            self.until,
            word(&self.run)
        )
    }
}

impl LockNote {
    /// Reads a comment; `None` when it is no lock's.
    #[must_use]
    pub fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.split_whitespace();
        if words.next()? != FORM {
            return None;
        }
        let mut n = LockNote::default();
        for (k, v) in words.filter_map(|w| w.split_once('=')) {
            match k {
                "site" => v.clone_into(&mut n.site),
                "holder" => v.clone_into(&mut n.holder),
                "process" => v.clone_into(&mut n.process),
                "boot" => v.clone_into(&mut n.boot),
                "since" => n.since = v.parse().ok()?,
                "until" => n.until = v.parse().ok()?,
                "run" => v.clone_into(&mut n.run),
                // A later version may say more.
                _ => {}
            }
        }
        Some(n)
    }

    /// Whether both are the same hold, whatever its lease.
    #[must_use]
    pub fn is_same_hold(&self, other: &LockNote) -> bool {
        self.run == other.run && self.process == other.process && self.boot == other.boot
    }
}

/// One generation of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Generation.
    pub generation: u64,
    /// Its holder; `None` when the comment cannot be read as one.
    pub note: Option<LockNote>,
}

/// A task that runs on the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// Kind, for example `qmclone`.
    pub kind: String,
    /// VM id or other object.
    pub id: String,
    /// UPID.
    pub upid: String,
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.kind, self.id, self.upid)
    }
}

/// Name of the lock's pool of one generation.
#[must_use]
pub fn pool_of(site: &Site, generation: u64) -> String {
    format!("{}-lock-{generation}", site.pool())
}

fn generation_of(site: &Site, pool: &str) -> Option<u64> {
    pool.strip_prefix(&format!("{}-lock-", site.pool()))?.parse().ok()
}

impl Proxmox {
    /// Generations of the lock that exist, the lowest first.
    ///
    /// # Errors
    /// What the request met.
    pub async fn lock_generations(&self, ctx: &Ctx, site: &Site) -> OpResult<Vec<Lock>> {
        let all = self.send_list(ctx, &request::get("/pools")).await?;
        let mut out: Vec<Lock> = all
            .iter()
            .filter_map(|p| {
                let generation = generation_of(site, p["poolid"].as_str()?)?;
                Some(Lock { generation, note: p["comment"].as_str().and_then(LockNote::parse) })
            })
            .collect();
        out.sort_by_key(|l| l.generation);
        Ok(out)
    }

    /// Makes one generation; `false` when it exists already.
    ///
    /// # Errors
    /// `denied` with the grant that is missing; what else the request met.
    pub async fn make_lock(&self, ctx: &Ctx, site: &Site, generation: u64, note: &LockNote) -> OpResult<bool> {
        let r = request::create_pool(&pool_of(site, generation), &note.to_string());
        match self.send_once(ctx, &r).await {
            Ok(_) => Ok(true),
            Err(e) if e.is(&Fault::Exists) => Ok(false),
            Err(e) => Err(OpError::from(e).on(format!("lock of {}", site.name))),
        }
    }

    /// Writes a new note (a longer lease); `false` when that generation is gone.
    ///
    /// # Errors
    /// What the request met.
    pub async fn renew_lock(&self, ctx: &Ctx, site: &Site, generation: u64, note: &LockNote) -> OpResult<bool> {
        let body = serde_json::json!({ "poolid": pool_of(site, generation), "comment": note.to_string() });
        match self.send_once(ctx, &request::put("/pools", body)).await {
            Ok(_) => Ok(true),
            Err(e) if e.is(&Fault::NotFound) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes one generation; one that is gone is fine.
    ///
    /// # Errors
    /// What the request met.
    pub async fn drop_lock(&self, ctx: &Ctx, site: &Site, generation: u64) -> OpResult<()> {
        match self.send_once(ctx, &request::remove_pool(&pool_of(site, generation))).await {
            Ok(_) => Ok(()),
            Err(e) if e.is(&Fault::NotFound) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The hypervisor's clock, in seconds since 1970.
    ///
    /// # Errors
    /// What the request met.
    pub async fn hypervisor_time(&self, ctx: &Ctx, site: &Site) -> OpResult<u64> {
        let answer = self.send(ctx, &request::get(format!("/nodes/{}/time", site.proxmox.pve_node))).await?;
        answer["time"]
            .as_u64()
            .ok_or_else(|| OpError::failed("the hypervisor does not tell its time").on(site.proxmox.pve_node.clone()))
    }

    /// Tasks that run now, as far as the token sees them.
    ///
    /// # Errors
    /// What the request met.
    pub async fn running_tasks(&self, ctx: &Ctx) -> OpResult<Vec<RunningTask>> {
        let rows = self.send_list(ctx, &request::get("/cluster/tasks")).await?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let runs = rows.iter().filter(|t| t["endtime"].is_null() && t["status"].is_null());
        Ok(runs.map(|t| RunningTask { kind: text(&t["type"]), id: text(&t["id"]), upid: text(&t["upid"]) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_foreign_comments_are_none() {
        let n = LockNote {
            site: "u-u".to_owned(),
            holder: "alice@big laptop".to_owned(),
            process: "4711/99".to_owned(),
            boot: "7f".to_owned(),
            since: 1,
            until: 121,
            run: "ab".to_owned(),
        };
        let back = LockNote::parse(&n.to_string()).unwrap();
        assert_eq!(back.holder, "alice@big_laptop");
        assert!(back.is_same_hold(&n));
        assert_eq!(LockNote::parse(&format!("{n} more=of-it")).unwrap().until, 121);
        assert!(LockNote::parse("gpuhost site homelab 1-2").is_none());
        assert!(LockNote::parse("gpuhost-lock/2 site=x").is_none());
        assert!(!LockNote { run: "cd".to_owned(), ..n.clone() }.is_same_hold(&n));
    }
}
