//! What a run may do. The two named places of the pipeline live here.
use gpuhost_stdlib::core::ctx::Policy;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::Change;
use gpuhost_stdlib::core::op::Op;

/// Grants the endpoints of the site: every op of the script modules talks to nothing else.
/// Grants of `[permissions]` and `--allow-*` will narrow and widen this in [`Policy::check`];
/// a plan will stop what it does not contain in [`Policy::check_change`].
pub struct SiteEndpoints;

impl Policy for SiteEndpoints {
    fn check(&self, _op: &Op) -> OpResult<()> {
        Ok(())
    }
    fn check_change(&self, _op: &Op, _changes: &[Change]) -> OpResult<()> {
        Ok(())
    }
}
