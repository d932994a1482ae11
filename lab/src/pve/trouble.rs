//! Faults of the Proxmox API: which address a request has, and what a fault does to it.
use std::fmt;
use std::time::Duration;

use super::reply::{ApiError, Reply};
use super::router::Call;
use super::task;
use crate::Lab;
use crate::fault::Fault;

/// The connection is cut without an answer.
#[derive(Debug, Clone, Copy)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was cut by a fault")
    }
}

impl std::error::Error for Cut {}

/// How long a request without an answer stays open.
pub const SILENCE: Duration = Duration::from_secs(120);

/// Op and target of a request: `pve.clone` on `k3s-cp1`, `pve.get_status` on `k3s-cp1`, `pve.pools` on a pool.
#[must_use]
pub fn address(lab: &Lab, c: &Call) -> (String, String) {
    let is_word = |p: &&String| !p.contains(':') && p.parse::<u64>().is_err();
    let words: Vec<&str> = c.path.iter().filter(is_word).map(String::as_str).collect();
    let last = words.last().copied().unwrap_or_default();
    let word = match (c.method.as_str(), last) {
        ("POST", "qemu") => "create",
        (_, "current") => "status",
        (_, w) => w,
    };
    let verb = match c.method.as_str() {
        _ if words.contains(&"agent") => format!("agent_{word}"),
        "POST" => word.to_owned(),
        method => format!("{}_{word}", method.to_lowercase()),
    };
    let vmid = c.path.iter().position(|p| p == "qemu").and_then(|i| c.path.get(i + 1)).and_then(|v| v.parse().ok());
    let name_of = |vmid: u32| lab.with(|w| w.pve.vms.get(&vmid).and_then(|v| v.conf.get("name").cloned()));
    let target = match (verb.as_str(), vmid) {
        ("clone" | "create", _) => c.params.get("name"),
        (_, Some(vmid)) => Some(name_of(vmid).unwrap_or_else(|| vmid.to_string())),
        _ => None,
    };
    let task = || c.path.iter().find(|p| p.starts_with("UPID:")).and_then(|u| u.split(':').nth(5)).map(str::to_owned);
    let target = target.or_else(task).or_else(|| c.params.get("poolid")).or_else(|| c.path.get(1).cloned());
    (format!("pve.{verb}"), target.unwrap_or_else(|| last.to_owned()))
}

/// What a fault does before a request is carried out.
///
/// # Errors
/// `Cut` when there is no answer.
pub async fn before(lab: &Lab, fault: &Fault) -> Result<Option<Reply>, Cut> {
    let answer = |e: ApiError| Ok(Some(Err(e)));
    match fault {
        Fault::Reset => Err(Cut),
        Fault::Timeout => {
            lab.clock().sleep(SILENCE).await;
            Err(Cut)
        }
        Fault::Slow(ms) => {
            lab.clock().sleep(Duration::from_millis(*ms)).await;
            Ok(None)
        }
        Fault::Http(code) => {
            let text = match code {
                595 => "No route to host",
                596 => "Connection timed out",
                500 => "got no worker upid - start worker failed",
                501 => "not implemented",
                503 => "Service Unavailable",
                _ => "refused by a fault",
            };
            answer(ApiError { bare: *code > 500, ..ApiError::status(*code, text) })
        }
        Fault::Lock => answer(ApiError::fail("can't lock file '/var/lock/pve-manager/fault.lck' - got timeout")),
        Fault::AgentSilent => answer(ApiError::fail("QEMU guest agent is not running")),
        Fault::DropMid | Fault::TaskFails(_) | Fault::TaskWarns(_) | Fault::DiskFull | Fault::BootNever => Ok(None),
    }
}

/// Whether a fault has anything to strike in an answer: a task that the request started, or what was done.
#[must_use]
pub fn meets(fault: &Fault, reply: &Reply) -> bool {
    let task = || reply.as_ref().is_ok_and(|o| o.data.as_str().is_some_and(|t| t.starts_with("UPID:")));
    match fault {
        Fault::TaskFails(_) | Fault::TaskWarns(_) => task(),
        Fault::DiskFull => reply.is_ok(),
        _ => true,
    }
}

/// What a fault does to an answer.
///
/// # Errors
/// `Cut` when it does not arrive.
pub fn after(lab: &Lab, fault: &Fault, reply: Reply) -> Result<Reply, Cut> {
    let text = match fault {
        Fault::DropMid => return Err(Cut),
        Fault::TaskFails(text) => text.as_str(),
        Fault::TaskWarns(text) => {
            if let Ok(upid) = reply.as_ref().map(|o| o.data.as_str().unwrap_or_default()) {
                lab.with(|w| task::warn(w, upid, text));
            }
            return Ok(reply);
        }
        Fault::DiskFull => "write failed: No space left on device",
        _ => return Ok(reply),
    };
    match reply.as_ref().map(|o| o.data.as_str().unwrap_or_default().to_owned()) {
        Ok(upid) if upid.starts_with("UPID:") => {
            lab.with(|w| task::fail_now(w, &upid, text));
            Ok(reply)
        }
        // Nothing that a task does: what cannot fail there fails here.
        Ok(_) if *fault == Fault::DiskFull => Ok(Err(ApiError::fail(text))),
        _ => Ok(reply),
    }
}
