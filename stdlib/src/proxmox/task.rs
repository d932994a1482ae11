//! Waiting for Proxmox tasks: live progress, last words of a failure, warnings are success.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Look, OpScope};

use super::error::{Fault, classify};
use super::request;
use super::types::Proxmox;

const EVERY: Duration = Duration::from_secs(2);
const LAST_WORDS: usize = 8;
/// Looks in a row that may go unanswered: about five minutes.
const SILENT: u64 = 40;

/// The last `NN.NN%` of a log line.
fn percent_of(line: &str) -> Option<&str> {
    let end = line.rfind('%')?;
    let start = line[..end].rfind(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(0, |i| i + 1);
    (start < end).then(|| &line[start..=end])
}

/// Hypervisor node inside a UPID.
fn node_of(upid: &str) -> &str {
    upid.split(':').nth(1).unwrap_or_default()
}

/// The lines of a task log answer.
fn lines(log: &Value) -> Vec<String> {
    let all = log.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = all.iter().filter_map(|l| l["t"].as_str()).filter(|t| *t != "no content");
    text.map(str::to_owned).collect()
}

/// What the exit status of a stopped task means.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Warnings,
    Failed(Fault),
}

fn outcome(exit: &str) -> Outcome {
    if exit == "OK" {
        Outcome::Ok
    } else if exit.starts_with("WARNINGS") {
        Outcome::Warnings
    } else {
        Outcome::Failed(classify(500, exit, &std::collections::BTreeMap::new()))
    }
}

/// A task that failed.
#[derive(Debug, Clone)]
pub struct TaskFailure {
    /// Class of the exit status.
    pub fault: Fault,
    /// The error to show.
    pub error: OpError,
}

impl From<TaskFailure> for OpError {
    fn from(t: TaskFailure) -> Self {
        t.error
    }
}

impl Proxmox {
    /// Waits for the task `upid`, showing `what` and its progress.
    ///
    /// # Errors
    /// `failed` with the last log lines; `timeout` with the last progress.
    pub async fn wait_task(&self, s: &OpScope, what: &str, upid: &str, limit: Duration) -> OpResult<()> {
        self.try_task(s, what, upid, limit).await?.map_err(OpError::from)
    }

    /// Like [`Proxmox::wait_task`], with a task that ran and failed as a value of its own.
    ///
    /// # Errors
    /// When the task cannot be watched, or takes longer than `limit`.
    pub async fn try_task(
        &self,
        s: &OpScope,
        what: &str,
        upid: &str,
        limit: Duration,
    ) -> OpResult<Result<(), TaskFailure>> {
        // Some calls answer `null` when they were done at once.
        if !upid.starts_with("UPID:") {
            return Ok(Ok(()));
        }
        let ctx = s.ctx();
        let node = node_of(upid);
        let seen = AtomicU64::new(0);
        let silent = AtomicU64::new(0);
        let exit = s
            .wait_for(what, EVERY, limit, || async {
                let status = match self.send(ctx, &request::task_status(node, upid)).await {
                    // The work goes on while the API does not answer.
                    Err(e) if e.is(&Fault::Unreachable) && silent.fetch_add(1, Ordering::Relaxed) < SILENT => {
                        return Ok(Look::Pending(format!("the hypervisor does not answer ({})", e.text)));
                    }
                    other => other?,
                };
                silent.store(0, Ordering::Relaxed);
                if status["status"] == "stopped" {
                    return Ok(Look::Ready(status["exitstatus"].as_str().unwrap_or("unknown").to_owned()));
                }
                let from = seen.load(Ordering::Relaxed);
                let log = self.send(ctx, &request::task_log(node, upid, from, 500)).await.unwrap_or_default();
                let lines = lines(&log);
                seen.fetch_add(lines.len() as u64, Ordering::Relaxed);
                let now = lines.iter().rev().find_map(|l| percent_of(l)).or(lines.last().map(String::as_str));
                Ok(Look::Pending(now.unwrap_or("running").to_owned()))
            })
            .await?;
        match outcome(&exit) {
            Outcome::Ok => Ok(Ok(())),
            Outcome::Warnings => {
                // They may stand far above: a copy of a disk says much.
                let lines = self.task_lines(ctx, upid).await.unwrap_or_default();
                for w in lines.iter().filter(|l| l.starts_with("WARN")) {
                    ctx.message("warn", format!("{}: {what}: {w}", s.op().target));
                }
                Ok(Ok(()))
            }
            Outcome::Failed(fault) => {
                let mut error = OpError::failed(format!("{what} failed")).because(exit.clone());
                let words = self.last_words(ctx, upid).await;
                // Progress lines say nothing about a failure.
                error.causes.extend(words.into_iter().filter(|l| !l.contains(&exit) && percent_of(l).is_none()));
                let log = || format!("the whole log: `pvenode task log {upid}` on {node}");
                error.hint = explain(&exit).or_else(|| Some(log()));
                Ok(Err(TaskFailure { fault, error }))
            }
        }
    }

    /// All lines of a task's log.
    pub(super) async fn task_lines(&self, ctx: &Ctx, upid: &str) -> OpResult<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let page = lines(&self.send(ctx, &request::task_log(node_of(upid), upid, all.len() as u64, 500)).await?);
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    async fn last_words(&self, ctx: &Ctx, upid: &str) -> Vec<String> {
        let log = self.send(ctx, &request::task_log(node_of(upid), upid, 0, 2000)).await.unwrap_or_default();
        let mut all = lines(&log);
        all.drain(..all.len().saturating_sub(LAST_WORDS));
        all
    }
}

/// The next thing to do about a failed task, where it is known.
fn explain(exit: &str) -> Option<String> {
    let table = [
        (
            "PCI device mapping not found",
            "`pve.ensure_pci_mapping(..)` makes the mapping; its name is `gpu.mapping` in the site file",
        ),
        ("PCI device mapping invalid", "the card moved or is gone: compare `pve.list_pci(node)` with the mapping"),
        (
            "could not find a free device",
            "all cards of the mapping are in use: stop another VM that holds one, or lower `gpus`",
        ),
        ("already in use by VMID", "stop the VM that holds the card"),
        ("IOMMU not present", "switch the IOMMU on in the firmware and on the kernel command line"),
        ("not enough", "free some space on the storage, or choose another one in the site file"),
        ("No space left", "free some space on the storage, or choose another one in the site file"),
        ("out of space", "free some space on the storage, or choose another one in the site file"),
        (
            "checksum mismatch",
            "compare the checksum under [template] with the one that the publisher has for this very image",
        ),
        ("hostname lookup", "the hypervisor cannot resolve the name: check its DNS"),
        (
            "powerdown failed",
            "the guest does not react to a shutdown: look at its console, or pull the plug with `vm.stop()`",
        ),
        ("got timeout", "Proxmox was busy; run it again"),
    ];
    table.iter().find(|(what, _)| exit.contains(what)).map(|(_, hint)| (*hint).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_log() {
        assert_eq!(percent_of("transferred 512.0 MiB of 1.0 GiB (50.00%)"), Some("50.00%"));
        assert_eq!(percent_of("create full clone of drive scsi0"), None);
    }

    #[test]
    fn warnings_are_success_and_lock_timeouts_are_known() {
        assert_eq!(outcome("OK"), Outcome::Ok);
        assert_eq!(outcome("WARNINGS: 1"), Outcome::Warnings);
        let lock = "clone failed: can't lock file '/var/lock/pve-manager/pve-storage-local' - got timeout";
        assert_eq!(outcome(lock), Outcome::Failed(Fault::LockTimeout));
        assert_eq!(outcome("shrinking disks is not supported"), Outcome::Failed(Fault::Other));
        assert_eq!(node_of("UPID:pve1:0:0:0:qmclone:9000:root@pam:"), "pve1");
    }
}
