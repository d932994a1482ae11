//! `poweroff`, `reboot`, `shutdown`, `halt`.
use super::{Call, Program, now};
use crate::guest::boot::go_down;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/sbin/poweroff", |c| down(c, false)),
    now("/usr/sbin/halt", |c| down(c, false)),
    now("/usr/sbin/reboot", |c| down(c, true)),
    now("/usr/sbin/shutdown", shutdown),
    now("/usr/bin/wall", |_| 0),
];

/// Goes down, and up again with `restart`.
pub(super) fn down(c: &mut Call, restart: bool) -> i32 {
    if !c.must_be_root("Failed to set wall message, ignoring: Interactive authentication required.\nFailed to power off system via logind: Interactive authentication required.") {
        return 1;
    }
    let (lab, vmid) = (c.m.lab.clone(), c.m.vmid);
    lab.with(|w| go_down(&lab, w, vmid, restart));
    0
}

fn shutdown(c: &mut Call) -> i32 {
    if c.has(&["-c"]) {
        return 0;
    }
    let when = c.operands(&[]).first().cloned().unwrap_or_else(|| "+1".into());
    if when != "now" && when != "+0" {
        // The minute of grace is left out: nobody else is logged in.
        c.complain(&format!("Shutdown scheduled ({when}), use 'shutdown -c' to cancel."));
    }
    let restart =
        c.args.iter().any(|a| a.starts_with('-') && !a.starts_with("--") && a.contains('r')) || c.has(&["--reboot"]);
    down(c, restart)
}
