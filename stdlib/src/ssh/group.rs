//! Several hosts at the same time.
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rhai::{Array, Dynamic, Map};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::site::Node;

use super::host::Host;
use super::options::ConnectOptions;

/// Hosts that are worked on at the same time, at most.
const AT_ONCE: usize = 64;

/// Several hosts. What it is asked to do, all of them do at the same time.
#[derive(Clone)]
pub struct Group {
    hosts: Arc<Vec<Host>>,
}

impl Group {
    /// From names, addresses, nodes and hosts; each host once.
    ///
    /// # Errors
    /// `invalid` for anything else, or when there is no host at all.
    pub fn read(ctx: &Ctx, list: &Array, options: &ConnectOptions) -> OpResult<Self> {
        let mut hosts: Vec<Host> = Vec::new();
        for item in list {
            let item = item.clone().flatten();
            let host = if let Some(h) = item.clone().try_cast::<Host>() {
                h
            } else if let Some(n) = item.clone().try_cast::<Node>() {
                Host::connect(ctx, &n.name, options)?
            } else if let Ok(name) = item.clone().into_string() {
                Host::connect(ctx, &name, options)?
            } else {
                return Err(OpError::invalid(format!("`ssh::group` cannot take a {}", item.type_name()))
                    .hint("give it names, addresses, nodes or hosts: `ssh::group(site().nodes)`"));
            };
            if !hosts.iter().any(|h| h.connection_key() == host.connection_key()) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            return Err(OpError::invalid("`ssh::group` needs at least one host"));
        }
        Ok(Group { hosts: Arc::new(hosts) })
    }

    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// `work` on every host at the same time; the answers in the order of the hosts. All of them come to their end,
    /// also when one fails.
    ///
    /// # Errors
    /// The first failure, with the others beside it.
    pub async fn each<'a, T, F, Fut>(&'a self, ctx: &Ctx, work: F) -> OpResult<Vec<(&'a Host, T)>>
    where
        F: Fn(&'a Host) -> Fut,
        Fut: Future<Output = OpResult<T>>,
    {
        // Each lane takes the next host when it is done with one: a slow host holds up nobody but itself.
        let next = AtomicUsize::new(0);
        let lane = || async {
            let mut answers = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(host) = self.hosts.get(i) else { return answers };
                answers.push((i, host, work(host).await));
            }
        };
        let lanes = (0..AT_ONCE.min(self.hosts.len())).map(|_| lane()).collect();
        let mut answers: Vec<_> = ctx.clock.join_all(lanes).await.into_iter().flatten().collect();
        answers.sort_by_key(|a| a.0);
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (_, host, answer) in answers {
            match answer {
                Ok(t) => done.push((host, t)),
                Err(e) => failed.push(e.on(host.name())),
            }
        }
        if failed.is_empty() {
            return Ok(done);
        }
        let mut first = failed.remove(0);
        first.others.extend(failed);
        Err(first)
    }

    /// As [`Group::each`], as a map by host name.
    ///
    /// # Errors
    /// As [`Group::each`].
    pub async fn map<'a, F, Fut>(&'a self, ctx: &Ctx, work: F) -> OpResult<Map>
    where
        F: Fn(&'a Host) -> Fut,
        Fut: Future<Output = OpResult<Dynamic>>,
    {
        let all = self.each(ctx, work).await?;
        Ok(all.into_iter().map(|(h, t)| (h.name().into(), t)).collect())
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.hosts.iter().map(Host::name).collect();
        write!(f, "{}", names.join(", "))
    }
}
