//! Evicting one pod: what a disruption budget keeps is not deleted, and it is said why.
use super::drain::{DrainOptions, eviction_words};
use super::watch::Target;
use super::{Cluster, describe};
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::event::Change;
use crate::core::op::{Look, Op};
use crate::options;

options! {
    /// How to evict a pod.
    pub struct EvictOptions {
        /// Namespace; `default` when left out.
        namespace: String = String::new(),
        /// How long disruption budgets and the pod's own end may take.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(5),
        /// How long the pod gets for its end; default: what the pod itself asks for.
        grace: Option<crate::core::units::Duration> = None,
    }
}

impl Cluster {
    /// Evicts a pod and waits until it is gone; `false` when there is none. What it means to whom is asked first.
    ///
    /// # Errors
    /// `denied` when declined; `timeout` in the words of the disruption budget that keeps it.
    pub async fn evict_pod(&self, ctx: &Ctx, name: &str, o: &EvictOptions) -> OpResult<bool> {
        let ns = if o.namespace.is_empty() { "default" } else { o.namespace.as_str() };
        let op = Op::destroy("kubernetes", "evict", format!("pod {ns}/{name}")).args(&(ns, name));
        let how = DrainOptions { grace: o.grace, ..DrainOptions::read(&rhai::Map::new())? };
        let how = &how;
        ctx.run_op(op, |s| async move {
            let Some(pod) = self.find_object(s.ctx(), "pod", ns, name).await? else { return Ok(false) };
            let uid = pod["metadata"]["uid"].clone();
            let words = eviction_words(&pod);
            let words = if words.is_empty() { words } else { format!(" ({words})") };
            let changes =
                vec![Change::new(self.name(), format!("{}{words}", describe(&pod)), Some("running".into()), None)];
            let marker = uid.as_str().unwrap_or_default().to_owned();
            let (what, target) = (format!("eviction of {ns}/{name}"), Target::one("pod", ns, name));
            s.act(marker, changes, async {
                self.wait_watching(&s, &what, target, o.timeout.0, || async {
                    match self.find_object(s.ctx(), "pod", ns, name).await? {
                        Some(live) if live["metadata"]["uid"] == uid => {
                            Ok(Look::Pending(self.evict(s.ctx(), &live, how).await?))
                        }
                        _ => Ok(Look::Ready(())),
                    }
                })
                .await
            })
            .await?;
            Ok(true)
        })
        .await
    }
}
