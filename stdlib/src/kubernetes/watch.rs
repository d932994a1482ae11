//! Watches as hints: a wait looks again when something happened, and on a tick of the run's clock in any case.
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};

use super::Cluster;
use super::rest::{collection, query};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Look, OpScope};

/// How often a wait looks although nothing was reported. In the lab time jumps ahead of what sockets carry.
const TICK: Duration = Duration::from_secs(15);
const LAB_TICK: Duration = Duration::from_secs(3);

/// What is watched: a kind, and within it a namespace and a name (empty: all).
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Kind, by any name.
    pub kind: String,
    /// Namespace; empty for all.
    pub namespace: String,
    /// Name; empty for all.
    pub name: String,
}

impl Target {
    /// All objects of a kind.
    #[must_use]
    pub fn all(kind: &str, namespace: &str) -> Self {
        Target { kind: kind.to_owned(), namespace: namespace.to_owned(), name: String::new() }
    }
    /// One object.
    #[must_use]
    pub fn one(kind: &str, namespace: &str, name: &str) -> Self {
        Target { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What a request streams.
pub(super) type Lines = Pin<Box<dyn AsyncBufRead + Send>>;

/// An open watch, opened again when it ended.
pub struct Watch {
    cluster: Cluster,
    target: Target,
    lines: Option<Lines>,
}

impl Watch {
    /// A watch; nothing is sent before somebody waits for it.
    #[must_use]
    pub fn new(cluster: &Cluster, target: Target) -> Self {
        Watch { cluster: cluster.clone(), target, lines: None }
    }

    /// Returns when the API server reported something, at the latest after a tick.
    pub async fn news(&mut self, ctx: &Ctx) {
        let tick = if ctx.lab { LAB_TICK } else { TICK };
        if self.lines.is_none() {
            self.lines = self.open(ctx).await;
        }
        let Some(lines) = &mut self.lines else {
            ctx.clock.sleep(tick).await;
            return;
        };
        let read = tokio::select! { biased;
            n = fill(lines) => n,
            () = ctx.clock.sleep(tick) => return,
        };
        if read == 0 {
            // it ended (time-out, 410, lost server): the caller looks, the next wait opens it again
            self.lines = None;
            ctx.clock.sleep(LAB_TICK).await;
            return;
        }
        // one look serves everything that has arrived by now
        while let Some(n) = fill(lines).now_or_never() {
            if n == 0 {
                self.lines = None;
                return;
            }
        }
    }

    async fn open(&self, ctx: &Ctx) -> Option<Lines> {
        let t = &self.target;
        let kind = self.cluster.kind(ctx, &t.kind).await.ok()?;
        let field = if t.name.is_empty() { String::new() } else { format!("metadata.name={}", t.name) };
        let ns = if kind.namespaced && t.namespace.is_empty() && !t.name.is_empty() { "default" } else { &t.namespace };
        let q = query(&[("watch", "1"), ("fieldSelector", &field), ("timeoutSeconds", "100")]);
        let client = self.cluster.current_client(ctx).await.ok()?;
        let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let request = http::Request::get(format!("{}{q}", collection(&kind, ns)))
            .header(http::header::ACCEPT, accept)
            .body(Vec::new())
            .ok()?;
        match client.request_stream(request).await {
            Ok(lines) => Some(Box::pin(lines)),
            Err(e) => {
                tracing::debug!("watch of {}: {e}", t.kind);
                None
            }
        }
    }
}

/// Takes what is there; 0 at the end.
async fn fill(lines: &mut Lines) -> usize {
    let n = match lines.fill_buf().await {
        Ok(b) => b.len(),
        Err(_) => 0,
    };
    lines.as_mut().consume(n);
    n
}

impl Cluster {
    /// Looks until `look` is satisfied, at most for `limit`: when the watch reports something, and on every tick.
    ///
    /// # Errors
    /// `timeout` with the last seen state; whatever `look` returns.
    pub async fn wait_watching<T, F, Fut>(
        &self,
        s: &OpScope,
        what: &str,
        target: Target,
        limit: Duration,
        mut look: F,
    ) -> OpResult<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = OpResult<Look<T>>>,
    {
        let ctx = s.ctx();
        let start = ctx.clock.now_ms().await;
        let mut watch = Watch::new(self, target);
        loop {
            ctx.check_effect()?;
            let seen = match ctx.looking(look()).await? {
                Look::Ready(t) => return Ok(t),
                Look::Pending(seen) => seen,
            };
            let now = ctx.clock.now_ms().await;
            if ctx.effects.any() {
                ctx.policy.check_lease(now)?;
            }
            let waited = now.saturating_sub(start);
            if waited >= limit.as_millis() as u64 {
                let limit = crate::core::units::show_duration(limit);
                return Err(OpError::timeout(format!("{what} did not happen within {limit}")).last_seen(seen));
            }
            s.waiting(format!("{what}: {seen}"));
            watch.news(ctx).await;
        }
    }
}
