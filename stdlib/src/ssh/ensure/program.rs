//! The program that acts: the steps in order, then a second look at what they changed; and what it prints.
use std::fmt::Write as _;

use crate::core::error::OpResult;
use crate::ssh::quote::quote;

use super::item::{Changed, Diff, Item, Phase};
use super::questions::{NOTES, Questions, note};

/// What both programs begin with. Small systems have no `getent`.
pub(super) const PRELUDE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH\n\
    LC_ALL=C; export LC_ALL\numask 022\n\
    command -v getent >/dev/null 2>&1 || getent() { grep \"^$2:\" \"/etc/$1\"; }\n";

/// Replaces a file at once. `put PATH MODE OWNER TEXT`, `put64` with base64, `put_stdin` with standard input.
/// The new file is made beside the old one, by nobody else, and readable by nobody else until it is complete.
/// An empty owner keeps what the maker gives.
pub(super) const PUT: &str = "put_new() {\n\
    d=${1%/*}; [ -n \"$d\" ] || d=/\n\
    [ -d \"$d\" ] || mkdir -p \"$d\" || return 1\n\
    t=\"${d%/}/.gpuhost.$$\"\n\
    [ ! -e \"$t\" ] || rm -f \"$t\" || return 1\n\
    umask 077; set -C\n}\n\
    put_end() {\n\
    r=$?; set +C; umask 022\n\
    if [ $r -eq 0 ]; then\n\
    if [ -n \"$3\" ] && { [ \"$3\" != 0:0 ] || [ -g \"$d\" ]; }; then chown \"$3\" \"$t\" || r=1; fi\n\
    [ $r -ne 0 ] || chmod \"$2\" \"$t\" || r=1\n\
    [ $r -ne 0 ] || mv -f \"$t\" \"$1\" || r=1\n\
    fi\n\
    [ $r -eq 0 ] || { rm -f \"$t\"; return 1; }\n\
    [ ! -x /usr/sbin/restorecon ] || /usr/sbin/restorecon \"$1\" >/dev/null 2>&1\n\
    return 0\n}\n\
    put() { put_new \"$@\" || return 1; printf %s \"$4\" >\"$t\"; put_end \"$@\"; }\n\
    put64() { put_new \"$@\" || return 1; printf %s \"$4\" | base64 -d >\"$t\"; put_end \"$@\"; }\n\
    put_stdin() { put_new \"$@\" || return 1; cat >\"$t\"; put_end \"$@\"; }\n";

/// Exit code of a step that found the package manager busy; its last words name the holder.
pub(super) const BUSY: i64 = 75;

/// Parts the steps' own words on standard error.
const MARK: &str = "\\n@step\\n";

/// What the last step that was begun had to say.
pub(super) fn last_step(stderr: &str) -> &str {
    stderr.rsplit_once("\n@step\n").map_or(stderr, |(_, words)| words)
}

/// Exit code of the acting program when a step failed: one that no tool before the shell (sudo, timeout) has.
const STOPPED: u8 = 70;

/// One step of the acting program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub what: String,
    pub diff: Diff,
    pub phase: Phase,
    /// Item it is for; `None` for the reload.
    pub item: Option<usize>,
}

/// What has to be done, in order.
///
/// # Errors
/// When a state found must not be changed by us.
pub(super) fn plan(items: &[Box<dyn Item>], states: &[String]) -> OpResult<Vec<Step>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|i| items[*i].phase());
    let mut changed = Changed::new();
    let mut steps: Vec<Step> = Vec::new();
    // A unit file that is newer than what systemd knows was written by a run that died before its reload.
    let stale = states.iter().zip(items).any(|(s, i)| i.phase() == Phase::Services && s.contains(" reload"));
    let mut reloaded = false;
    for i in order {
        let item = &items[i];
        if item.phase() > Phase::Reload && !reloaded {
            reloaded = true;
            if stale || changed.iter().any(|p| of_systemd(p) || p == "/etc/fstab") {
                steps.push(reload());
            }
        }
        let Some(diff) = item.diff(&states[i], &changed)? else { continue };
        changed.extend(diff.path.clone());
        steps.push(Step { what: item.what(), diff, phase: item.phase(), item: Some(i) });
    }
    if !reloaded && changed.iter().any(|p| of_systemd(p)) {
        steps.push(reload());
    }
    Ok(steps)
}

fn of_systemd(path: &str) -> bool {
    path.starts_with("/etc/systemd/system/")
}

fn reload() -> Step {
    let act = "[ ! -d /run/systemd/system ] || systemctl daemon-reload".to_owned();
    Step { what: "systemd's units".to_owned(), diff: Diff::of(Vec::new(), act), phase: Phase::Reload, item: None }
}

/// The second look: at what the steps changed.
fn proof<'a>(items: &'a [Box<dyn Item>], steps: &[Step]) -> (Vec<usize>, Questions) {
    let touched: Vec<usize> = steps.iter().filter_map(|s| s.item).collect();
    let of_items: Vec<&'a dyn Item> = touched.iter().map(|i| items[*i].as_ref()).collect();
    let questions = Questions::of(of_items);
    (touched, questions)
}

/// The program that acts; it stops at the first step that fails, and looks again when none did.
pub(super) fn act(items: &[Box<dyn Item>], steps: &[Step]) -> String {
    let mut out = String::from(PRELUDE);
    out.push_str("DEBIAN_FRONTEND=noninteractive; NEEDRESTART_MODE=l; export DEBIAN_FRONTEND NEEDRESTART_MODE\n");
    out.push_str(PUT);
    let owed: Vec<String> = steps.iter().filter_map(|s| s.diff.restarts.as_deref()).map(note).collect();
    if !owed.is_empty() {
        let _ = writeln!(out, "mkdir -p {NOTES} && for n in {}; do true >\"$n\"; done", owed.join(" "));
    }
    for (i, step) in steps.iter().enumerate() {
        let paid =
            step.diff.restarts.as_deref().map_or(String::new(), |u| format!("[ $r -ne 0 ] || rm -f {}\n", note(u)));
        let _ = writeln!(
            out,
            "step() {{\n{}\n}}\nprintf '{MARK}' >&2; step </dev/null >&2\nr=$?; echo \"@{i} $r\"\n{paid}[ $r -eq 0 ] || exit {STOPPED}",
            step.diff.act
        );
    }
    out.push_str(&proof(items, steps).1.program());
    out
}

/// What the acting program did.
pub(super) struct Acted {
    /// Steps that succeeded.
    pub done: usize,
    /// Exit code of the one that did not.
    pub code: Option<i64>,
    /// What still differs: empty when all is as wanted. `None` when it did not come so far.
    pub left: Option<Vec<Step>>,
}

/// Reads what [`act`]'s program printed.
///
/// # Errors
/// When a state found afterwards must not be changed by us.
pub(super) fn read_act(items: &[Box<dyn Item>], steps: &[Step], stdout: &str) -> OpResult<Acted> {
    let mut acted = Acted { done: 0, code: None, left: None };
    for line in stdout.lines().take(steps.len()) {
        let Some((n, code)) = line.strip_prefix('@').and_then(|r| r.split_once(' ')) else { break };
        match (n.parse::<usize>(), code.trim().parse::<i64>()) {
            (Ok(n), Ok(0)) if n == acted.done => acted.done += 1,
            (Ok(_), Ok(code)) => {
                acted.code = Some(code);
                return Ok(acted);
            }
            _ => break,
        }
    }
    if acted.done < steps.len() {
        return Ok(acted);
    }
    let (touched, questions) = proof(items, steps);
    let found = questions.read(stdout)?;
    let mut left = Vec::new();
    for (i, state) in touched.iter().zip(&found.states) {
        if let Some(diff) = items[*i].diff(state, &Changed::new())? {
            let what = items[*i].what();
            left.push(Step { what, diff, phase: items[*i].phase(), item: Some(*i) });
        }
    }
    acted.left = Some(left);
    Ok(acted)
}

/// A program as the standard input of `sh -s`. It is read as one function first: what it runs must not read the
/// program as its own input. Nothing of it is seen in a list of processes.
pub(super) fn as_input(program: &str) -> Vec<u8> {
    format!("gpuhost_main() {{\n{program}\n}}\ngpuhost_main </dev/null\nexit $?\n").into_bytes()
}

/// Shell text that makes `content` the content of the file at `path`, which is a shell word.
pub(super) fn put(path: &str, content: &[u8], mode: &str, owner: &str) -> String {
    use base64::Engine as _;
    let (mode, owner) = (quote(mode), quote(owner));
    match std::str::from_utf8(content) {
        Ok(t) if !t.contains('\0') => format!("put {path} {mode} {owner} {}", quote(t)),
        _ => {
            let coded = base64::engine::general_purpose::STANDARD.encode(content);
            format!("put64 {path} {mode} {owner} {coded}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(n: usize) -> Vec<Step> {
        (0..n).map(|_| reload()).collect()
    }

    #[test]
    fn only_the_last_step_speaks() {
        assert_eq!(last_step("\n@step\nSetting up x\n\n@step\nno such user\n"), "no such user\n");
        assert_eq!(last_step("sudo: no\n"), "sudo: no\n");
        assert!(act(&[], &steps(1)).contains("printf '\\n@step\\n' >&2; step "), "{}", act(&[], &steps(1)));
    }

    #[test]
    fn acts_report_where_they_stopped() {
        let read = |n: usize, out: &str| {
            let a = read_act(&[], &steps(n), out).unwrap();
            (a.done, a.code, a.left.is_some())
        };
        assert_eq!(read(2, "@0 0\n@1 0\n\n@cloud\ndone\n\n@end\n"), (2, None, true));
        assert_eq!(read(2, "@0 0\n@1 100\n"), (1, Some(100), false));
        assert_eq!(read(1, ""), (0, None, false));
        assert!(read_act(&[], &steps(1), "@0 0\n").is_err());
    }
}
