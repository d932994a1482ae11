//! Waiting for a K3s unit, with what its journal says.
use std::cell::{Cell, OnceCell};
use std::time::Duration;

use super::config::Part;
use super::journal::{Explained, explain, last_lines};
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::op::{Look, OpScope};
use crate::ssh::Host;

/// How often a starting unit is looked at.
const EVERY: Duration = Duration::from_secs(4);
/// A known fatal line has to be the newest known one this many times: K3s restarts and may get over it.
const CONVINCED: u32 = 4;

fn status_script(unit: &str) -> String {
    format!("systemctl is-active {unit} 2>/dev/null\njournalctl -u {unit} -n 40 --no-pager -o cat 2>/dev/null\ntrue\n")
}

/// Waits until the unit is active.
///
/// # Errors
/// `failed` or `timeout` with the journal's explanation.
pub async fn wait_unit(s: &OpScope, host: &Host, part: Part, limit: Duration) -> OpResult<()> {
    let script = status_script(part.unit());
    let fatal = Cell::new(0);
    // what the journal ended with before: each start says its own, with its own time
    let before: OnceCell<String> = OnceCell::new();
    let what = format!("start of {} on {}", part.unit(), host.name());
    let result = s
        .wait_for(&what, EVERY, limit, || async {
            let out = match host.look_raw(s.ctx(), &script).await {
                Err(e) if e.is(Kind::Unreachable) => return Ok(Look::Pending(e.message)),
                other => other?,
            };
            let (state, journal) = out.stdout.split_once('\n').unwrap_or((out.stdout.as_str(), ""));
            if state.trim() == "active" {
                return Ok(Look::Ready(()));
            }
            let known = explain(journal);
            let old = before.get_or_init(|| known.as_ref().map(|k| k.line.clone()).unwrap_or_default());
            match &known {
                Some(k) if k.fatal && k.line != *old => fatal.set(fatal.get() + 1),
                _ => fatal.set(0),
            }
            if let Some(k) = known.as_ref().filter(|_| fatal.get() >= CONVINCED || state.trim() == "failed") {
                return Err(explained(host, part, k));
            }
            if state.trim() == "failed" {
                let mut e = OpError::failed(format!("{} does not start", part.unit())).on(host.name());
                e.causes = last_lines(journal, 4);
                return Err(e.hint(format!("read all of it: `journalctl -u {}`", part.unit())));
            }
            let last = last_lines(journal, 1).pop().unwrap_or_default();
            Ok(Look::Pending(match known {
                Some(k) => format!("{}: {}", state.trim(), k.cause),
                None => format!("{} {last}", state.trim()).trim().to_owned(),
            }))
        })
        .await;
    match result {
        Err(e) if e.is(Kind::Timeout) => Err(with_journal(s, host, part, e).await),
        other => other,
    }
}

fn explained(host: &Host, part: Part, k: &Explained) -> OpError {
    OpError::failed(format!("{} cannot start: {}", part.unit(), k.cause))
        .on(host.name())
        .because(k.line.clone())
        .hint(k.hint)
}

/// Adds what the journal says to an error.
pub async fn with_journal(s: &OpScope, host: &Host, part: Part, mut e: OpError) -> OpError {
    let script = status_script(part.unit());
    let Ok(out) = host.look_raw(s.ctx(), &script).await else { return e.on(host.name()) };
    if let Some(k) = explain(&out.stdout) {
        e = e.because(k.line).because(k.cause);
        if e.hint.is_none() {
            e = e.hint(k.hint);
        }
    } else {
        e.causes.extend(last_lines(&out.stdout, 4));
        if e.hint.is_none() {
            e = e.hint(format!("on {}: `journalctl -u {} -n 100`", host.name(), part.unit()));
        }
    }
    e.on(host.name())
}
