//! What goes wrong in the lab, where and how often: a small language, or a seed.
//!
//! One rule a line: `OP@TARGET#N: FAULT`, for example `pve.clone@k3s-cp1#1: task-fails "no space"`.
//! `OP` is what the lab is asked to do (`pve.clone`, `pve.get_status`, `ssh.exec`, `kube.patch`), `TARGET` the
//! machine or object; both may hold `*`. Not everything happens to everything: see [`kinds`]. What a machine downloads
//! from outside is `net.fetch` on the other side's name
//! (`net.fetch@github.com: timeout`). A system's boot is `guest.boot`, and can only fail for good. `#N` is the N-th time that this op meets this target; without it every
//! time. A seed decides the same by chance, but only for the first times, so that a run can get past it.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status and nothing is done. 595 and 596 mean a silent Proxmox node.
    Http(u16),
    /// The connection is cut before anything is done.
    Reset,
    /// It is done, and the connection is cut before the answer.
    DropMid,
    /// No answer for two minutes, then the connection is cut; nothing is done.
    Timeout,
    /// It takes this many milliseconds longer.
    Slow(u64),
    /// The task that the request starts fails with this text.
    TaskFails(String),
    /// The task that the request starts does its work and ends with this warning.
    TaskWarns(String),
    /// A lock of Proxmox cannot be had in time; nothing is done.
    Lock,
    /// The disk is full: the task or the command fails for that.
    DiskFull,
    /// The guest agent does not answer.
    AgentSilent,
    /// The machine is on, and its system never comes up.
    BootNever,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Http(code) => write!(f, "http{code}"),
            Fault::Reset => f.write_str("reset"),
            Fault::DropMid => f.write_str("drop-mid"),
            Fault::Timeout => f.write_str("timeout"),
            Fault::Slow(ms) => write!(f, "slow {}s", ms / 1000),
            Fault::TaskFails(text) => write!(f, "task-fails {text:?}"),
            Fault::TaskWarns(text) => write!(f, "task-warns {text:?}"),
            Fault::Lock => f.write_str("lock"),
            Fault::DiskFull => f.write_str("disk-full"),
            Fault::AgentSilent => f.write_str("agent-silent"),
            Fault::BootNever => f.write_str("boot-never"),
        }
    }
}

/// What can happen to what, by the beginning of an op; the first row that fits counts.
const HAPPENS: [(&str, &[&str]); 8] = [
    ("pve.agent_", &["http", "reset", "drop-mid", "timeout", "slow", "agent-silent"]),
    ("pve.get_", &["http", "reset", "drop-mid", "timeout", "slow"]),
    ("pve.", &["http", "reset", "drop-mid", "timeout", "slow", "lock", "disk-full", "task-fails", "task-warns"]),
    ("ssh.login", &["reset", "timeout", "slow"]),
    ("ssh.exec", &["reset", "drop-mid", "timeout", "slow", "disk-full"]),
    ("kube.", &["http", "reset", "drop-mid", "timeout", "slow"]),
    (FETCH, &["http", "reset", "drop-mid", "timeout"]),
    (BOOT, &["boot-never"]),
];

/// The kinds of request that faults happen to, by the beginning of their ops, and what happens to them.
#[must_use]
pub fn kinds() -> &'static [(&'static str, &'static [&'static str])] {
    &HAPPENS
}

impl Fault {
    /// The word that a rule calls it by.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Fault::Http(_) => "http",
            Fault::Reset => "reset",
            Fault::DropMid => "drop-mid",
            Fault::Timeout => "timeout",
            Fault::Slow(_) => "slow",
            Fault::TaskFails(_) => "task-fails",
            Fault::TaskWarns(_) => "task-warns",
            Fault::Lock => "lock",
            Fault::DiskFull => "disk-full",
            Fault::AgentSilent => "agent-silent",
            Fault::BootNever => "boot-never",
        }
    }

    /// Whether it can happen to this op.
    fn happens_to(&self, op: &str) -> bool {
        HAPPENS.iter().find(|(begins, _)| op.starts_with(begins)).is_some_and(|(_, words)| words.contains(&self.word()))
    }

    /// Reads one fault.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Fault, String> {
        let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        let none = |f: Fault| if rest.is_empty() { Ok(f) } else { Err(format!("`{word}` takes nothing after it")) };
        match word {
            "reset" => none(Fault::Reset),
            "drop-mid" => none(Fault::DropMid),
            "timeout" => none(Fault::Timeout),
            "lock" => none(Fault::Lock),
            "disk-full" => none(Fault::DiskFull),
            "agent-silent" => none(Fault::AgentSilent),
            "boot-never" => none(Fault::BootNever),
            "slow" => seconds(rest).map(|s| Fault::Slow(s * 1000)),
            "task-fails" | "task-warns" => {
                let inner = rest.strip_prefix('"').and_then(|r| r.strip_suffix('"')).map(str::to_owned);
                let made = if word == "task-fails" { Fault::TaskFails } else { Fault::TaskWarns };
                inner.map(made).ok_or_else(|| format!("write `{word} \"why\"`"))
            }
            _ => match word.strip_prefix("http").unwrap_or(word).parse::<u16>() {
                Ok(code) if (400..=599).contains(&code) => none(Fault::Http(code)),
                _ => Err(format!(
                    "no fault `{word}`; there are http500, 596, reset, drop-mid, timeout, slow 30s, lock, disk-full, \
                     agent-silent, boot-never, task-fails \"why\", task-warns \"what\""
                )),
            },
        }
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no time; write `slow 30s` or `slow 2m`");
    let number = |t: &str| t.trim().parse::<u64>().map_err(|_| bad());
    match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(t), _) => number(t),
        (_, Some(t)) => Ok(number(t)? * 60),
        _ => Err(bad()),
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Op, with `*`.
    pub op: String,
    /// Target, with `*`.
    pub target: String,
    /// Which time; every time without it.
    pub nth: Option<u64>,
    /// What goes wrong.
    pub fault: Fault,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nth = self.nth.map(|n| format!("#{n}")).unwrap_or_default();
        write!(f, "{}@{}{nth}: {}", self.op, self.target, self.fault)
    }
}

/// Whether `text` fits a pattern whose only wildcard is `*`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            let Some(rest) = text.strip_prefix(head) else { return false };
            (0..=rest.len()).filter(|i| rest.is_char_boundary(*i)).any(|i| fits(tail, &rest[i..]))
        }
    }
}

/// A machine's system begins to boot.
pub const BOOT: &str = "guest.boot";

/// A machine downloads something from outside; the target is the host's name.
pub const FETCH: &str = "net.fetch";

/// Requests that start a task.
const TASKS: [&str; 8] = ["clone", "create", "start", "stop", "shutdown", "template", "move_disk", "download-url"];

/// What goes wrong in one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// By rules.
    Rules(Vec<Rule>),
    /// By chance, reproducibly.
    Random(u64),
}

/// By chance only the first so many times of an op on a target: a run can get past it.
const FIRST: u64 = 2;
/// One in so many of them goes wrong.
const ONE_IN: u64 = 40;

impl Plan {
    /// Reads rules, one a line; `#` at the beginning of a line is a comment.
    ///
    /// # Errors
    /// The number of a line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let mut rules = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            rules.push(rule(line).map_err(|e| format!("line {}: {e}", i + 1))?);
        }
        Ok(Plan::Rules(rules))
    }

    /// What goes wrong the `n`-th time that `op` meets `target`.
    #[must_use]
    pub fn decide(&self, op: &str, target: &str, n: u64) -> Option<Fault> {
        match self {
            Plan::Rules(rules) => rules
                .iter()
                .find(|r| {
                    r.nth.is_none_or(|k| k == n) && fits(&r.op, op) && fits(&r.target, target) && r.fault.happens_to(op)
                })
                .map(|r| r.fault.clone()),
            Plan::Random(seed) => chance(*seed, op, target, n),
        }
    }
}

fn rule(line: &str) -> Result<Rule, String> {
    let form = || "write `op@target#1: fault`".to_owned();
    let (address, fault) = line.split_once(": ").ok_or_else(form)?;
    let (op, at) = address.split_once('@').ok_or_else(form)?;
    let (target, nth) = match at.split_once('#') {
        None => (at, None),
        Some((t, n)) => {
            (t, Some(n.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| format!("`#{n}` is no number"))?))
        }
    };
    if op.is_empty() || target.is_empty() {
        return Err(form());
    }
    let fault = Fault::parse(fault)?;
    possible(op, &fault)?;
    Ok(Rule { op: op.to_owned(), target: target.to_owned(), nth, fault })
}

/// Whether the fault can happen to one of the ops that the pattern stands for; the error says what can.
fn possible(op: &str, fault: &Fault) -> Result<(), String> {
    let (head, open) = op.split_once('*').map_or((op, false), |(head, _)| (head, true));
    let rows: Vec<_> = if open {
        HAPPENS.iter().filter(|(begins, _)| begins.starts_with(head) || head.starts_with(begins)).collect()
    } else {
        HAPPENS.iter().find(|(begins, _)| op.starts_with(begins)).into_iter().collect()
    };
    if rows.iter().any(|(_, words)| words.contains(&fault.word())) {
        return Ok(());
    }
    if rows.is_empty() {
        let all: Vec<&str> = HAPPENS.iter().map(|(begins, _)| *begins).collect();
        return Err(format!("nothing is called `{op}`; ops begin with {}", all.join(", ")));
    }
    let mut words: Vec<&str> = rows.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    words.sort_unstable();
    words.dedup();
    Err(format!("`{}` does not happen to `{op}`; there happen {}", fault.word(), words.join(", ")))
}

/// A number that depends on nothing but its inputs.
fn mix(seed: u64, parts: &[&str], n: u64) -> u64 {
    let mut h = seed ^ 0xcbf2_9ce4_8422_2325;
    for b in parts.iter().flat_map(|p| p.bytes().chain([0])).chain(n.to_be_bytes()) {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ (h >> 29)
}

fn chance(seed: u64, op: &str, target: &str, n: u64) -> Option<Fault> {
    // The lock's heartbeat follows the clock and not the recipe: chance would not be reproducible there.
    if n > FIRST || target.contains("-lock-") {
        return None;
    }
    let roll = mix(seed, &[op, target], n);
    if !roll.is_multiple_of(ONE_IN) {
        return None;
    }
    let of = |list: &[Fault]| list.get((roll / ONE_IN % list.len() as u64) as usize).cloned();
    let (family, verb) = op.split_once('.').unwrap_or((op, ""));
    match family {
        "pve" if verb.starts_with("agent") => of(&[Fault::AgentSilent, Fault::Http(596), Fault::Slow(20_000)]),
        "pve" if verb.starts_with("get") => of(&[Fault::Http(596), Fault::Reset, Fault::Slow(30_000)]),
        "pve" if TASKS.contains(&verb) => of(&[
            Fault::TaskFails("interrupted by signal".to_owned()),
            Fault::DiskFull,
            Fault::Http(596),
            Fault::DropMid,
            Fault::Lock,
        ]),
        "pve" => of(&[Fault::Http(500), Fault::Http(596), Fault::Reset, Fault::DropMid, Fault::Slow(30_000)]),
        "ssh" if verb == "login" => of(&[Fault::Reset]),
        "ssh" => of(&[Fault::Reset, Fault::DropMid, Fault::Slow(30_000)]),
        "kube" => of(&[Fault::Http(500), Fault::Http(503), Fault::Http(429), Fault::Slow(10_000)]),
        _ => None,
    }
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Op.
    pub op: String,
    /// Target.
    pub target: String,
    /// Which time.
    pub n: u64,
    /// What went wrong.
    pub fault: Fault,
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}: {}", self.op, self.target, self.n, self.fault)
    }
}

#[derive(Default)]
struct Inner {
    plan: Option<Plan>,
    counts: BTreeMap<(String, String), u64>,
    fired: Vec<Fired>,
}

/// The faults of one lab. Without a plan nothing goes wrong and nothing is counted.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

impl Faults {
    /// From here on this goes wrong; counting begins anew.
    pub fn set(&self, plan: Option<Plan>) {
        let mut i = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *i = Inner { plan, ..Inner::default() };
    }

    /// Counts `op` on `target` and says what goes wrong this time.
    #[must_use]
    pub fn strike(&self, op: &str, target: &str) -> Option<Fault> {
        let mut i = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        i.plan.as_ref()?;
        let n = i.counts.entry((op.to_owned(), target.to_owned())).or_default();
        *n += 1;
        let n = *n;
        let fault = i.plan.as_ref()?.decide(op, target, n)?;
        i.fired.push(Fired { op: op.to_owned(), target: target.to_owned(), n, fault: fault.clone() });
        Some(fault)
    }

    /// The last strike of `op` on `target` had nothing to strike: it does not count as one.
    pub fn spare(&self, op: &str, target: &str) {
        let mut i = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = i.fired.iter().rposition(|f| f.op == op && f.target == target) {
            i.fired.remove(at);
        }
    }

    /// What went wrong so far, by address.
    #[must_use]
    pub fn fired(&self) -> Vec<Fired> {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner).fired.clone();
        out.sort_by(|a, b| (&a.op, &a.target, a.n).cmp(&(&b.op, &b.target, b.n)));
        out
    }

    /// Rules that nothing met so far, with their numbers: mostly misspelt.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let i = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Plan::Rules(rules)) = &i.plan else { return Vec::new() };
        let met = |r: &Rule, f: &Fired| {
            f.fault == r.fault && r.nth.is_none_or(|n| n == f.n) && fits(&r.op, &f.op) && fits(&r.target, &f.target)
        };
        let idle = rules.iter().enumerate().filter(|(_, r)| !i.fired.iter().any(|f| met(r, f)));
        idle.map(|(at, r)| format!("rule {} (`{r}`)", at + 1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_reads_back_as_it_is_written() {
        let all = [
            "http500",
            "http596",
            "reset",
            "drop-mid",
            "timeout",
            "slow 30s",
            "lock",
            "disk-full",
            "agent-silent",
            "boot-never",
            "task-fails \"no space\"",
            "task-warns \"something is odd\"",
        ];
        for text in all {
            assert_eq!(Fault::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Fault::parse("596").unwrap(), Fault::Http(596));
        assert_eq!(Fault::parse("slow 2m").unwrap(), Fault::Slow(120_000));
        for bad in ["", "http200", "slow", "slow fast", "reset now", "task-fails no", "explode"] {
            assert!(Fault::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_count_per_op_and_target() {
        let f = Faults::default();
        f.set(Some(Plan::parse("# one\npve.clone@k3s-*#2: reset\n\nssh.exec@nfs1: slow 1s\n").unwrap()));
        assert_eq!(f.strike("pve.clone", "k3s-cp1"), None);
        assert_eq!(f.strike("pve.clone", "k3s-cp2"), None, "another target counts by itself");
        assert_eq!(f.strike("pve.clone", "k3s-cp1"), Some(Fault::Reset));
        assert_eq!(f.strike("pve.clone", "k3s-cp1"), None);
        assert_eq!(f.strike("ssh.exec", "nfs1"), Some(Fault::Slow(1000)));
        assert_eq!(f.strike("ssh.exec", "nfs1"), Some(Fault::Slow(1000)), "every time");
        assert_eq!(f.fired()[0].to_string(), "pve.clone@k3s-cp1#2: reset");
        assert!(f.missed().is_empty());
        f.set(Some(Plan::parse("pve.put_config@x: task-fails \"no\"\n").unwrap()));
        assert!(f.strike("pve.put_config", "x").is_some());
        f.spare("pve.put_config", "x");
        assert!(f.fired().is_empty() && f.missed().len() == 1, "what starts no task has none that fails");
        f.set(Some(Plan::parse("pve.clon@k3s-cpX#1: reset\nssh.exec@nfs1: slow 1s").unwrap()));
        assert!(f.strike("ssh.exec", "nfs1").is_some());
        assert_eq!(f.missed(), ["rule 1 (`pve.clon@k3s-cpX#1: reset`)"]);
        f.set(None);
        assert_eq!(f.strike("ssh.exec", "nfs1"), None);
        for bad in [
            "x: reset",
            "a@b",
            "a@b#0: reset",
            "a@b#x: reset",
            "@b: reset",
            "a@: reset",
            "pve.start@b: boot-never",
            "guest.boot@b: reset",
            "ssh.exec@b: http500",
            "ssh.login@b: drop-mid",
            "kube.get@b: lock",
            "net.fetch@b: disk-full",
            "pve.start@b: agent-silent",
            "pve.get_status@b: task-fails \"x\"",
            "nosuch.op@b: reset",
        ] {
            assert!(Plan::parse(bad).unwrap_err().starts_with("line 1"), "{bad}");
        }
        // A pattern strikes only what its fault can happen to.
        for (rule, met, spared) in [
            ("*@b: disk-full", "ssh.exec", "ssh.login"),
            ("pve.*@b: lock", "pve.start", "pve.get_status"),
            ("*.*@b: boot-never", "guest.boot", "pve.start"),
        ] {
            let plan = Plan::parse(rule).unwrap();
            assert!(plan.decide(met, "b", 1).is_some() && plan.decide(spared, "b", 1).is_none(), "{rule}");
        }
    }

    #[test]
    fn a_seed_decides_by_address_alone_and_lets_runs_get_past() {
        let p = Plan::Random(7);
        let mut hits = 0;
        for i in 0..2000 {
            let target = format!("t{i}");
            let one = p.decide("pve.clone", &target, 1);
            assert_eq!(one, p.decide("pve.clone", &target, 1));
            hits += u64::from(one.is_some());
            assert_eq!(p.decide("pve.clone", &target, FIRST + 1), None);
        }
        assert!((20..120).contains(&hits), "about one in {ONE_IN}: {hits} of 2000");
        assert_eq!((1..9).find_map(|n| p.decide("pve.put_pools", "gpuhost-x-lock-1", n)), None);
        assert_ne!(
            (0..500).map(|i| Plan::Random(1).decide("ssh.exec", &i.to_string(), 1)).collect::<Vec<_>>(),
            (0..500).map(|i| Plan::Random(2).decide("ssh.exec", &i.to_string(), 1)).collect::<Vec<_>>()
        );
    }
}
