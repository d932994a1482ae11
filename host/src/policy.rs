//! What a run may do: its site's endpoints, under the site's lock, what its plan contains, no effect in doubt twice.
use std::sync::Arc;

use futures::future::BoxFuture;
use gpuhost_stdlib::core::ctx::{Consent, Ctx, Policy};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Change, Class};
use gpuhost_stdlib::core::op::{LeftOpen, Op};

use crate::consent::Answers;
use crate::lock::hold::Hold;
use crate::plan::gate::Gate;
use crate::runs::doubt::Doubts;

/// Grants the endpoints of the site: every op of the script modules talks to nothing else.
pub struct SitePolicy {
    /// The site's lock.
    pub hold: Hold,
    /// What earlier runs left in doubt.
    pub doubts: Doubts,
    /// The plan that the run keeps to.
    pub gate: Option<Gate>,
    /// Who is asked about it.
    pub answers: Arc<Answers>,
}

/// Modules whose effects stay on this machine.
const LOCAL: [&str; 1] = ["file"];

impl Policy for SitePolicy {
    fn check(&self, _op: &Op) -> OpResult<()> {
        Ok(())
    }

    fn check_change(&self, op: &Op, changes: &[Change]) -> OpResult<()> {
        if let Some(gate) = &self.gate {
            gate.pass(op, changes)?;
        }
        let Some((run, d)) = self.doubts.about(op).filter(|_| op.class == Class::Ask) else { return Ok(()) };
        let taken = d.accepted.as_ref().map(|a| format!("; it was taken as {a}")).unwrap_or_default();
        let question = format!(
            "{} on {} was about to happen at {} in run {run}{taken}, and no outcome was written: it may or may not \
             have happened. Do it (again)?",
            op.name(),
            op.target,
            d.since
        );
        let answer = self.answers.confirm(&question, false);
        match answer {
            Ok(true) => {
                self.doubts.settle(op);
                Ok(())
            }
            Ok(false) => Err(OpError::refused(format!("{} on {} stays as it is", op.name(), op.target))
                .hint(format!("look at the target; `gpuhost runs show {run}` shows what was under way"))),
            Err(e) => Err(e.because(format!("`gpuhost runs show {run}` shows what was under way"))),
        }
    }

    fn before_effect<'a>(&'a self, ctx: &'a Ctx, op: &'a Op) -> BoxFuture<'a, OpResult<()>> {
        Box::pin(async move {
            match &ctx.site {
                Some(site) if !LOCAL.contains(&op.module) => self.hold.before_effect(ctx, site).await,
                _ => Ok(()),
            }
        })
    }

    fn check_lease(&self, now_ms: u64) -> OpResult<()> {
        self.hold.check(now_ms)
    }

    fn left_open(&self, op: &Op) -> Option<LeftOpen> {
        let (run, d) = self.doubts.about(op).filter(|_| op.class != Class::Ask)?;
        self.doubts.settle(op);
        Some(LeftOpen { run, since_ms: crate::when::parse(&d.since)?, marker: d.marker, accepted: d.accepted })
    }
}
