//! The two shell programs of `ensure`: one that looks, one that acts; and what they print.
use crate::core::error::{OpError, OpResult};

use super::item::{Changed, Diff, Item, Phase};
use super::packages::LOCK_HOLDER;

const PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH\nLC_ALL=C; export LC_ALL\n";

/// Replaces a file at once: content on standard input, then path, mode, owner.
pub(super) const PUT: &str = "put() {\n\
    d=${1%/*}; [ -n \"$d\" ] || d=/\n\
    [ -d \"$d\" ] || mkdir -p \"$d\" || return 1\n\
    t=\"$d/.gpuhost.$$\"\n\
    ( umask 077; cat >\"$t\" ) && chmod \"$2\" \"$t\" && chown \"$3\" \"$t\" && mv -f \"$t\" \"$1\" && return 0\n\
    rm -f \"$t\"; return 1\n}\n";

/// What the looking program found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Status word of cloud-init, `absent` without it.
    pub cloud_init: String,
    /// Who holds the package manager.
    pub lock: String,
    /// State per item.
    pub states: Vec<String>,
}

/// The program that looks at every item.
pub(super) fn compare(items: &[Box<dyn Item>]) -> String {
    let mut out = String::from(PATH);
    out.push_str("c=absent; command -v cloud-init >/dev/null 2>&1 && c=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')\n");
    out.push_str("echo \"@cloud ${c:-unknown}\"\n");
    out.push_str(&format!("v=$( {LOCK_HOLDER} )\necho \"@lock $v\"\n"));
    for (i, item) in items.iter().enumerate() {
        out.push_str(&format!("v=$( {}\n)\nprintf '@%s %s\\n' {i} \"$v\"\n", item.look()));
    }
    out.push_str("echo @end\n");
    out
}

/// Reads what [`compare`]'s program printed.
///
/// # Errors
/// `failed` when it did not come to its end.
pub(super) fn parse_compare(stdout: &str, count: usize) -> OpResult<Found> {
    let mut found = Found { cloud_init: String::new(), lock: "free".to_owned(), states: vec![String::new(); count] };
    let mut current: Option<usize> = None;
    let mut seen = 0;
    for line in stdout.lines() {
        if line == "@end" {
            return if seen == count { Ok(found) } else { Err(broken(stdout)) };
        }
        let marker = line.strip_prefix('@').map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
        match marker {
            Some(("cloud", word)) if seen == 0 => word.clone_into(&mut found.cloud_init),
            Some(("lock", word)) if seen == 0 => word.clone_into(&mut found.lock),
            // Numbers come in order, so a state that looks like a marker is still a state.
            Some((n, rest)) if n.parse() == Ok(seen) && seen < count => {
                rest.clone_into(&mut found.states[seen]);
                current = Some(seen);
                seen += 1;
            }
            _ => {
                if let Some(i) = current {
                    found.states[i].push('\n');
                    found.states[i].push_str(line);
                }
            }
        }
    }
    Err(broken(stdout))
}

fn broken(stdout: &str) -> OpError {
    let e = OpError::failed("the program that compares the host's state did not finish");
    match stdout.lines().last() {
        Some(l) => e.last_seen(l.chars().take(120).collect::<String>()),
        None => e,
    }
}

/// One step of the acting program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub what: String,
    pub diff: Diff,
    pub phase: Phase,
}

/// What has to be done, in order.
///
/// # Errors
/// When a state found must not be changed by us.
pub(super) fn plan(items: &[Box<dyn Item>], found: &Found) -> OpResult<Vec<Step>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|i| items[*i].phase());
    let mut changed = Changed::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut reloaded = false;
    for i in order {
        let item = &items[i];
        if item.phase() > Phase::Reload && !reloaded {
            reloaded = true;
            if changed.iter().any(|p| p.starts_with("/etc/systemd/system/") || p == "/etc/fstab") {
                steps.push(reload());
            }
        }
        let Some(diff) = item.diff(&found.states[i], &changed)? else { continue };
        changed.extend(diff.path.clone());
        steps.push(Step { what: item.what(), diff, phase: item.phase() });
    }
    if !reloaded && changed.iter().any(|p| p.starts_with("/etc/systemd/system/")) {
        steps.push(reload());
    }
    Ok(steps)
}

fn reload() -> Step {
    let diff = Diff { parts: Vec::new(), act: "systemctl daemon-reload".to_owned(), path: None };
    Step { what: "systemd's units".to_owned(), diff, phase: Phase::Reload }
}

/// The program that acts; it stops at the first step that fails.
pub(super) fn act(steps: &[Step]) -> String {
    let mut out = String::from(PATH);
    out.push_str("DEBIAN_FRONTEND=noninteractive; NEEDRESTART_MODE=l; export DEBIAN_FRONTEND NEEDRESTART_MODE\n");
    out.push_str(PUT);
    for (i, step) in steps.iter().enumerate() {
        out.push_str(&format!(
            "(\n{}\n) </dev/null >&2\nr=$?; echo \"@{i} $r\"; [ $r -eq 0 ] || exit 1\n",
            step.diff.act
        ));
    }
    out
}

/// How many steps succeeded, and the exit code of the one that did not.
pub(super) fn parse_act(stdout: &str) -> (usize, Option<i64>) {
    let mut done = 0;
    for line in stdout.lines() {
        let Some((n, code)) = line.strip_prefix('@').and_then(|r| r.split_once(' ')) else { continue };
        match (n.parse::<usize>(), code.trim().parse::<i64>()) {
            (Ok(_), Ok(0)) => done += 1,
            (Ok(_), Ok(code)) => return (done, Some(code)),
            _ => {}
        }
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_may_have_several_lines() {
        let out = "@cloud done\n@lock free\n@0 a\nb\n@7 c\n@1 \n@end\n";
        let f = parse_compare(out, 2).unwrap();
        assert_eq!(f.states, vec!["a\nb\n@7 c".to_owned(), String::new()]);
        assert_eq!(f.cloud_init, "done");
        assert!(parse_compare("@cloud done\n@0 a\n", 1).is_err());
        assert!(parse_compare("@cloud done\n@end\n", 1).is_err());
    }

    #[test]
    fn acts_report_where_they_stopped() {
        assert_eq!(parse_act("@0 0\n@1 0\n"), (2, None));
        assert_eq!(parse_act("@0 0\n@1 100\n"), (1, Some(100)));
        assert_eq!(parse_act(""), (0, None));
    }
}
