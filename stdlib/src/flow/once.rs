//! `once`, `forget_once`: the few things that must not happen twice.
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, NativeCallContext};

use crate::core::ctx::{RhaiResultOf, call};
use crate::proxmox::Proxmox;

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// Runs `work` if it has not been run under this key before, on whichever machine.
    ///
    /// The mark is kept on the site's hypervisor (a pool `gpuhost-<site>-once-<key>`), is made before `work` begins, and
    /// goes with the site's pool. Gives the block's value; `()` when it was done before. If it began and did not end, the
    /// next call is refused: a human looks, and then calls `forget_once`.
    ///
    /// # Example
    /// ```rhai
    /// let first = once("announce", || { print("it is up"); true });
    /// let again = once("announce", || true);
    /// require(again == (), "it does not happen twice");
    /// forget_once("announce");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn once(ncc: NativeCallContext, key: &str, work: FnPtr) -> RhaiResultOf<Dynamic> {
        let name = key.to_owned();
        let pve = call(&ncc, |ctx| async move {
            let pve = Proxmox::connect_site(&ctx).await?;
            Ok(pve.begin_once(&ctx, &name).await?.then_some(pve))
        })?;
        let Some(pve) = pve else { return Ok(Dynamic::UNIT) };
        let out = super::super::fanout::by_value(&work).call_within_context::<Dynamic>(&ncc, ())?;
        let name = key.to_owned();
        call(&ncc, |ctx| async move { pve.end_once(&ctx, &name).await })?;
        Ok(out)
    }

    /// Lets what `once` has run under this key happen again; `false` when it has not run.
    ///
    /// # Example
    /// ```rhai
    /// require(!forget_once("never-done"), "nothing to forget");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn forget_once(ncc: NativeCallContext, key: &str) -> RhaiResultOf<bool> {
        let key = key.to_owned();
        call(&ncc, |ctx| async move { Proxmox::connect_site(&ctx).await?.forget_once(&ctx, &key).await })
    }
}
