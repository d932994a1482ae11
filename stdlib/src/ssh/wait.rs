//! Waiting for hosts: SSH, cloud-init, reboots.
use std::time::Duration;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{LeftOpen, Look, Op};

use super::conn::may_come;
use super::host::Host;
use super::options::RunOptions;

/// First boots make host keys and users: the rate at which it is worth to look again.
const EVERY: Duration = Duration::from_secs(3);

impl Host {
    /// Waits until a login works. A host key that is unknown or changed ends it at once.
    ///
    /// # Errors
    /// `timeout` with what was seen last.
    pub async fn wait_ssh(&self, ctx: &Ctx, limit: Duration) -> OpResult<()> {
        let op = Op::read("ssh", "wait_ssh", self.name());
        ctx.run_op(op, |s| async move {
            s.wait_for("ssh", EVERY, limit, || async {
                match self.connection(ctx).await {
                    Ok(_) => Ok(Look::Ready(())),
                    Err(e) if may_come(&e) => Ok(Look::Pending(seen(&e))),
                    Err(e) => Err(e),
                }
            })
            .await
        })
        .await
    }

    /// Waits until a login works and cloud-init is done.
    ///
    /// # Errors
    /// `timeout`; `failed` with cloud-init's own words when that failed.
    pub async fn wait_ready(&self, ctx: &Ctx, limit: Duration) -> OpResult<()> {
        let op = Op::read("ssh", "wait_ready", self.name());
        ctx.run_op(op, |s| async move {
            s.wait_for("the system", EVERY, limit, || async {
                match self.exec_raw(ctx, CLOUD_INIT, b"").await {
                    Ok(out) => cloud_init(out.text()),
                    Err(e) if may_come(&e) => Ok(Look::Pending(seen(&e))),
                    Err(e) => Err(e),
                }
            })
            .await
        })
        .await
    }

    /// Reboots and waits until the new boot answers.
    ///
    /// # Errors
    /// `timeout` when the old boot stays, or the new one does not answer.
    pub async fn reboot_and_wait(&self, ctx: &Ctx, limit: Duration) -> OpResult<()> {
        let op = Op::run("ssh", "reboot_and_wait", self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let old = self.boot_id(ctx).await?;
            // A boot that a run left before it saw the next one: that has come.
            let before = |left: &LeftOpen| left.marker.strip_prefix("boot ").is_some_and(|id| id != old);
            if let Some(left) = s.left_open().filter(before) {
                s.continues(&left, "the reboot");
                return Ok(());
            }
            let change = Change::new(self.name(), "boot", Some(old.clone().into()), Some("new".into()));
            s.act(format!("boot {old}"), vec![change], async {
                // Answers before it goes down; a connection that breaks off is no failure here.
                let go =
                    "(sleep 1; systemctl reboot || reboot || /sbin/reboot) >/dev/null 2>&1 </dev/null & echo going";
                match self.exec_raw(ctx, go, b"").await {
                    Ok(out) if out.code == 0 => {}
                    Ok(out) => {
                        let mut e = OpError::failed("the host refused to reboot");
                        e.causes = out.last_words();
                        return Err(e);
                    }
                    Err(e) if may_come(&e) => {}
                    Err(e) => return Err(e),
                }
                s.wait_for("the reboot", EVERY, limit, || async {
                    self.forget_connection(ctx);
                    match self.boot_id(ctx).await {
                        Ok(new) if new != old => Ok(Look::Ready(())),
                        Ok(_) => Ok(Look::Pending("still the old boot".to_owned())),
                        Err(e) if may_come(&e) => Ok(Look::Pending(seen(&e))),
                        Err(e) => Err(e),
                    }
                })
                .await
            })
            .await
        })
        .await
    }

    async fn boot_id(&self, ctx: &Ctx) -> OpResult<String> {
        let out = self.exec_look(ctx, "cat /proc/sys/kernel/random/boot_id", b"", &RunOptions::default()).await?;
        if out.code != 0 || out.text().is_empty() {
            let mut e = OpError::failed("cannot read the boot id");
            e.causes = out.last_words();
            return Err(e);
        }
        Ok(out.text().to_owned())
    }
}

/// Prints the status word, then the details when that is no success.
pub(super) const CLOUD_INIT: &str = "if command -v cloud-init >/dev/null 2>&1; then\n\
    s=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')\n\
    echo \"${s:-unknown}\"\n\
    case $s in error|degraded*) cloud-init status --long 2>/dev/null;; esac\n\
    else echo absent; fi";

pub(super) fn cloud_init(text: &str) -> OpResult<Look<()>> {
    let mut lines = text.lines().map(str::trim);
    match lines.next().unwrap_or_default() {
        "done" | "disabled" | "absent" => Ok(Look::Ready(())),
        word if word.starts_with("degraded") => Ok(Look::Ready(())),
        "error" => {
            let mut e = OpError::failed("cloud-init failed").hint("read /var/log/cloud-init-output.log on the host");
            e.causes = lines.filter(|l| !l.is_empty()).map(str::to_owned).take(8).collect();
            Err(e)
        }
        other => Ok(Look::Pending(format!("cloud-init is {other}"))),
    }
}

fn seen(e: &OpError) -> String {
    match e.causes.first() {
        Some(c) => format!("{} ({c})", e.message),
        None => e.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_init_verdicts() {
        assert!(matches!(cloud_init("done"), Ok(Look::Ready(()))));
        assert!(matches!(cloud_init("running"), Ok(Look::Pending(t)) if t == "cloud-init is running"));
        assert!(matches!(cloud_init(""), Ok(Look::Pending(_))));
        let e = cloud_init("error\nstatus: error\ndetail:\nno datasource").err().unwrap();
        assert_eq!(e.causes.last().unwrap(), "no datasource");
    }
}
