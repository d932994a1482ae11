//! Memory that programs in containers ask for, and what becomes of those that ask for more than they may have. No program
//! is run byte by byte: what it would come to hold is read from its words. Grade: docs.
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use super::{Inside, shell};
use crate::guest::programs::duration;
use crate::kube::controllers::kubelet;
use crate::kube::cx::with_pods;
use crate::kube::text::{milli, s};

/// Stands in a script for what takes more memory than there is.
pub(super) const TOO_MUCH: &str = "lab-too-much-memory";

/// Programs that do nothing but put a load on a machine.
pub(super) const LOADS: &[&str] = &["stress", "stress-ng"];

/// What a load is told to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Busy cores.
    pub cores: u64,
    /// Workers that hold memory.
    pub holders: u64,
    /// Bytes that they hold together.
    pub bytes: u64,
    /// Until it ends by itself, in milliseconds.
    pub ms: Option<u64>,
}

/// A size as `head -c`, `dd` and `stress` take it.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].to_ascii_lowercase().trim_end_matches(['b', 'i']) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// The load that a command line makes, if its program is one of `LOADS`.
#[must_use]
pub fn load(words: &[&str]) -> Option<Load> {
    let (first, rest) = words.split_first()?;
    LOADS.contains(&first.rsplit('/').next().unwrap_or(first)).then_some(())?;
    let split = |w: &&str| match w.split_once('=') {
        Some((k, v)) if w.starts_with("--") => vec![k.to_owned(), v.to_owned()],
        _ => vec![(*w).to_owned()],
    };
    let words: Vec<String> = rest.iter().flat_map(split).collect();
    let value = |names: &[&str]| {
        let at = words.iter().position(|w| names.contains(&w.as_str()))?;
        words.get(at + 1).map(String::as_str)
    };
    let number = |names: &[&str]| value(names).and_then(|v| v.parse().ok()).unwrap_or(0);
    let total = value(&["-mem-total"]).and_then(size);
    let holders = if total.is_some() { 1 } else { number(&["--vm", "-m"]) };
    let each = value(&["--vm-bytes"]).and_then(size).unwrap_or(256 << 20);
    Some(Load {
        cores: number(&["--cpu", "-c", "-cpus"]),
        holders,
        bytes: total.unwrap_or(holders.saturating_mul(each)),
        ms: value(&["--timeout", "-t"]).and_then(duration),
    })
}

/// A pattern that is written below; the test asks each of them something.
fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

/// Lines that hold all they read until it ends, and nothing ends; with the size where they read only so much.
static GREEDY: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"\btail(?:\s+-\S+)*\s*(?:<\s*)?\s/dev/zero",
        r"\bcat\s+/dev/zero\s*\|\s*(?:head\s+-c\s*(\w+)\s*\|\s*)?(?:tail|sort)\b",
        r"<\s*/dev/zero\s+head\s+-c\s*(\w+)\s*\|\s*tail\b",
        r"\bhead\s+-c\s*(\w+)\s*(?:<\s*)?/dev/(?:zero|urandom)\s*\|\s*tail\b",
        r"\byes\b[^|]*\|\s*tr\s+\S+\s+\S+\s*\|\s*head\s+-c\s*(\w+)\s*\|\s*(?:grep|tail)(?:\s+\w+)?",
        r"\bdd\s[^|;&\n]*\bif=/dev/(?:zero|urandom)[^|;&\n]*\bbs=(\w+)[^|;&\n]*",
    ]
    .into_iter()
    .filter_map(pattern)
    .collect()
});

/// Python's ways to ask for much at once: a repeated text, list or array of bytes.
static REPEATED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r#"(?:byte(?:array|s)\(|(?:['"][^'"]{1,4}['"]|\[[^\]]{1,4}\])\s*\*\s*\(?)\s*([0-9][0-9_]*(?:\s*\*{1,2}\s*[0-9][0-9_]*)*)"#,
    )
});

/// A product of numbers and powers (`500 * 1024**2`).
fn product(text: &str) -> Option<u64> {
    let number = |t: &str| t.trim().replace('_', "").parse::<u64>().ok();
    text.replace("**", "^").split('*').try_fold(1u64, |all, part| {
        let one = match part.split_once('^') {
            Some((base, power)) => number(base)?.checked_pow(u32::try_from(number(power)?).ok()?)?,
            None => number(part)?,
        };
        all.checked_mul(one)
    })
}

fn python(code: &str) -> Option<u64> {
    let grows =
        [".append(", ".extend(", "+= '", "+='", "+= \"", "+=\"", "+= [", "+=["].iter().any(|w| code.contains(w));
    if grows && ["while True", "while 1", "while(True"].iter().any(|w| code.contains(w)) {
        return Some(u64::MAX);
    }
    REPEATED.as_ref()?.captures_iter(code).filter_map(|c| product(&c[1])).max()
}

/// A script with what would take more than `limit` bytes replaced by what comes of it; `None` when all of it fits.
pub(super) fn beyond(text: &str, limit: u64) -> Option<String> {
    if ["python", "python3"].iter().any(|p| text.contains(p)) && python(text).is_some_and(|n| n > limit) {
        return Some(TOO_MUCH.to_owned());
    }
    let greedy = GREEDY.iter().find_map(|r| {
        let found = r.captures(text)?;
        let asked = found.iter().nth(1).flatten().map_or(Some(u64::MAX), |m| size(m.as_str()))?;
        (asked > limit).then(|| found.get(0).map(|m| m.range()))?
    })?;
    Some(format!("{}{TOO_MUCH}{}", &text[..greedy.start], &text[greedy.end..]))
}

/// As [`beyond`], for a command line: the script that it becomes.
pub(super) fn beyond_of(argv: &[String], limit: u64) -> Option<String> {
    let (script, _) = shell::script(argv);
    if argv.contains(&script) {
        beyond(&script, limit)
    } else {
        beyond(&argv.join(" "), limit).map(|_| TOO_MUCH.to_owned())
    }
}

/// Bytes that a container may have: its own limit, or its pod's.
fn limit(pod: &Value, c: &Value) -> Option<u64> {
    let of = |o: &Value| u64::try_from(milli(&o["resources"]["limits"]["memory"]) / 1000).ok().filter(|n| *n > 0);
    of(c).or_else(|| of(&pod["spec"]))
}

/// Whether a container's command line asks for more memory than its limit lets it have.
#[must_use]
pub fn is_greedy(pod: &Value, c: &Value, words: &[String]) -> bool {
    limit(pod, c).is_some_and(|n| beyond_of(words, n).is_some())
}

/// Thousandths of a core and KiB that a load uses, as far as its limits let it.
#[must_use]
pub fn used(c: &Value, load: &Load) -> (i64, i64) {
    let capped = |asked: u64, limit: i64| {
        let asked = i64::try_from(asked).unwrap_or(i64::MAX);
        if limit > 0 { asked.min(limit) } else { asked }
    };
    let limit = |r: &str| milli(&c["resources"]["limits"][r]);
    (
        capped(load.cores.saturating_add(load.holders).saturating_mul(1000), limit("cpu")),
        capped(load.bytes / 1024 + 900, limit("memory") / 1_024_000),
    )
}

impl Inside {
    /// Bytes that this container may have; without a limit what its node has.
    pub(super) fn memory(&self) -> u64 {
        let own = super::spec(&self.pod, &self.container).and_then(|c| limit(&self.pod, c));
        own.unwrap_or_else(|| {
            let node = s(&self.pod, "/spec/nodeName");
            let have = self.lab.with(|w| {
                let node = w.clusters.get(&self.cluster)?.store.get("nodes", "", node)?;
                u64::try_from(milli(&node["status"]["allocatable"]["memory"]) / 1000).ok()
            });
            have.unwrap_or(u64::MAX)
        })
    }

    /// The container has taken more than it may: the kernel ends all of it. Never comes back.
    pub(super) async fn too_much(&self) {
        self.lab.clock().sleep(Duration::from_millis(700)).await;
        let uid = s(&self.pod, "/metadata/uid");
        self.lab.with(|w| {
            with_pods(&self.lab, w, &self.cluster, |cx| kubelet::out_of_memory(cx, uid, &self.container));
        });
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_would_hold_is_read_from_its_words() {
        for text in [
            "sleep 2; tail /dev/zero",
            "cat /dev/zero | tail",
            "head -c 200m /dev/zero | tail",
            "</dev/zero head -c 200m | tail",
            "yes | tr \\\\n x | head -c 209715200 | grep n",
            "dd if=/dev/zero of=/dev/null bs=200M count=1",
            "python3 -c \"x = 'a' * 200 * 1024 * 1024\"",
            "python3 -c 'b = bytearray(200*1024**2)'",
            "python -c 'l=[]\nwhile True: l.append(1)'",
        ] {
            let out = beyond(text, 100 << 20).unwrap_or_else(|| panic!("{text}"));
            assert!(out.contains(TOO_MUCH), "{out}");
        }
        assert_eq!(beyond("echo a; tail /dev/zero; echo b", 1).unwrap(), format!("echo a; {TOO_MUCH}; echo b"));
        for text in ["tail -f /var/log/x", "head -c 50m /dev/zero | tail", "dd if=/dev/zero of=/d/x bs=1M count=900"] {
            assert_eq!(beyond(text, 100 << 20), None, "{text}");
        }
    }

    #[test]
    fn loads_say_what_they_hold() {
        let one = load(&["stress", "--vm", "1", "--vm-bytes", "250M", "--vm-hang", "1"]).unwrap();
        assert_eq!(one, Load { cores: 0, holders: 1, bytes: 250 << 20, ms: None });
        let all = load(&["/usr/bin/stress-ng", "--cpu=2", "-m", "2", "--vm-bytes=1g", "-t", "10s"]).unwrap();
        assert_eq!(all, Load { cores: 2, holders: 2, bytes: 2 << 30, ms: Some(10_000) });
        assert_eq!(load(&["sleep", "1"]), None);
    }
}
