//! `journalctl` and `logger`.
use futures::future::BoxFuture;
use serde_json::json;

use super::date;
use super::{Call, Program, later, now};
use crate::guest::journal;
use crate::guest::k3s;
use crate::guest::units::{self, full, load};

pub(super) const PROGRAMS: &[Program] = &[later("/usr/bin/journalctl", journalctl), now("/usr/bin/logger", logger)];

/// One line of the journal.
struct Line {
    at_ms: u64,
    unit: String,
    tag: String,
    pid: u32,
    text: String,
}

impl Line {
    /// syslog's number for how bad it is.
    fn priority(&self) -> u8 {
        let bad = ["level=error", "level=fatal", "Failed ", "failed"].iter().any(|w| self.text.contains(w));
        let odd = self.text.contains("level=warning");
        match (bad, odd) {
            (true, _) => 3,
            (_, true) => 4,
            _ => 6,
        }
    }

    fn sender(&self) -> String {
        if self.tag == "kernel" { "kernel".to_owned() } else { format!("{}[{}]", self.tag, self.pid) }
    }

    fn show(&self, host: &str, format: &str) -> String {
        let secs = self.at_ms / 1000;
        match format {
            "cat" => self.text.clone(),
            "json" | "json-pretty" => {
                let mut v = json!({
                    "__REALTIME_TIMESTAMP": (self.at_ms * 1000).to_string(), "_HOSTNAME": host, "SYSLOG_IDENTIFIER": self.tag,
                    "_PID": self.pid.to_string(), "PRIORITY": self.priority().to_string(), "MESSAGE": self.text,
                });
                if !self.unit.is_empty() {
                    v["_SYSTEMD_UNIT"] = json!(self.unit);
                }
                if format == "json" { v.to_string() } else { serde_json::to_string_pretty(&v).unwrap_or_default() }
            }
            "short-iso" => format!("{} {host} {}: {}", date::show("%FT%T+0000", secs, 0), self.sender(), self.text),
            "short-unix" => format!("{secs}.{:06} {host} {}: {}", self.at_ms % 1000 * 1000, self.sender(), self.text),
            "short-full" => format!("{} {host} {}: {}", journal::long(self.at_ms), self.sender(), self.text),
            _ => format!("{} {host} {}: {}", journal::stamp(self.at_ms), self.sender(), self.text),
        }
    }
}

/// Journal lines, of one unit or of all, oldest first.
fn lines(c: &Call, unit: Option<&str>) -> Vec<Line> {
    let pid_of = |name: &str| c.guest(|g| g.services.get(name).map(|s| s.pid)).flatten().filter(|p| *p > 0);
    let logged = c.guest(|g| g.journal.clone()).unwrap_or_default();
    let mut all: Vec<Line> = logged
        .into_iter()
        .filter(|l| unit.is_none_or(|u| l.unit == u))
        .map(|l| {
            let of_systemd = l.text.starts_with("Start") || l.text.starts_with("Stop");
            let (tag, pid) = match l.unit.as_str() {
                "kernel" => ("kernel".to_owned(), 0),
                _ if of_systemd => ("systemd".to_owned(), 1),
                name => (name.trim_end_matches(".service").to_owned(), pid_of(name).unwrap_or(1200)),
            };
            Line { at_ms: l.at_ms, unit: l.unit, tag, pid, text: l.text }
        })
        .collect();
    if unit.is_none_or(k3s::is_unit) {
        let (name, pid) = k3s_process(c, unit);
        let told = c.world(|w| crate::kube::k3s_journal(w, c.m.vmid));
        let mut at_ms = told.iter().find_map(|l| time_within(l)).unwrap_or_else(|| c.m.lab.clock().now_ms());
        for text in told {
            // In the order in which they were written, also where a line has no time of its own.
            at_ms = time_within(&text).map_or(at_ms, |t| t.max(at_ms));
            let tag = name.trim_end_matches(".service").to_owned();
            all.push(Line { at_ms, unit: name.clone(), tag, pid, text });
        }
    }
    all.sort_by_key(|l| l.at_ms);
    all
}

/// When a line with a `time="2026-11-23T03:20:01Z"` of its own was written.
fn time_within(line: &str) -> Option<u64> {
    let time = line.split_once("time=\"")?.1.split('"').next()?;
    crate::kube::store::meta::parse_time(time)
}

/// Unit and process id of K3s on this machine.
fn k3s_process(c: &Call, unit: Option<&str>) -> (String, u32) {
    let found = c.guest(|g| {
        let is_it = |n: &str| unit.map_or_else(|| k3s::is_unit(n), |u| u == n);
        g.services.iter().find(|(n, _)| is_it(n)).map(|(n, s)| (n.clone(), s.pid))
    });
    found.flatten().unwrap_or_else(|| ("k3s.service".to_owned(), 1200))
}

/// Short options one by one: `-xeu k3s` is `-x -e -u k3s`.
fn spread(args: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for a in args {
        // `--since -1h` is no option.
        if out.last().is_some_and(|o| matches!(o.as_str(), "--since" | "--until" | "-S" | "-U")) {
            out.push(a.clone());
            continue;
        }
        let Some(letters) = a.strip_prefix('-').filter(|l| l.len() > 1 && !l.starts_with('-')) else {
            out.push(a.clone());
            continue;
        };
        for (i, f) in letters.char_indices() {
            out.push(format!("-{f}"));
            let rest = &letters[i + f.len_utf8()..];
            if "unpoSUgtb".contains(f) && !rest.is_empty() {
                out.push(rest.to_owned());
                break;
            }
        }
    }
    out
}

/// What is asked for.
struct Wish {
    unit: Option<String>,
    since: u64,
    until: u64,
    kernel: bool,
    priority: u8,
    grep: Option<String>,
    tag: Option<String>,
}

impl Wish {
    fn of(c: &Call) -> Result<Wish, String> {
        let now = (c.m.lab.clock().now_ms() / 1000).cast_signed();
        let time = |options: &[&str]| match c.value(options) {
            None => Ok(None),
            Some(t) => {
                let ago = t.strip_prefix('-').and_then(super::duration).map(|ms| now - (ms / 1000).cast_signed());
                // days begin at midnight here, not at this hour as `date` has it
                let midnight = now - now.rem_euclid(86_400);
                let day = match t.as_str() {
                    "today" => Some(midnight),
                    "yesterday" => Some(midnight - 86_400),
                    "tomorrow" => Some(midnight + 86_400),
                    _ => None,
                };
                let at = ago.or(day).or_else(|| date::parse(&t, now));
                at.map(|s| Some(s.max(0).cast_unsigned() * 1000))
                    .ok_or_else(|| format!("Failed to parse timestamp: {t}"))
            }
        };
        let levels = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        let priority = match c.value(&["-p", "--priority"]) {
            None => 7,
            Some(p) => {
                let by_name = levels.iter().position(|l| *l == p);
                let level = by_name.or_else(|| p.parse().ok().filter(|n| *n < levels.len()));
                u8::try_from(level.ok_or_else(|| format!("Unknown log level {p}"))?).unwrap_or(7)
            }
        };
        Ok(Wish {
            unit: c.value(&["-u", "--unit"]).map(|u| load(&c.m.files, &u).map_or_else(|| full(&u), |u| u.name)),
            since: time(&["-S", "--since"])?.unwrap_or(0),
            until: time(&["-U", "--until"])?.unwrap_or(u64::MAX),
            kernel: c.has(&["-k", "--dmesg"]),
            priority,
            grep: c.value(&["-g", "--grep"]).map(|g| g.to_lowercase()),
            tag: c.value(&["-t", "--identifier"]),
        })
    }

    fn wants(&self, l: &Line) -> bool {
        (self.since..=self.until).contains(&l.at_ms)
            && (!self.kernel || l.tag == "kernel")
            && l.priority() <= self.priority
            && self.grep.as_ref().is_none_or(|g| l.text.to_lowercase().contains(g))
            && self.tag.as_ref().is_none_or(|t| *t == l.tag)
    }

    fn lines(&self, c: &Call) -> Vec<Line> {
        lines(c, self.unit.as_deref()).into_iter().filter(|l| self.wants(l)).collect()
    }
}

/// Lines of one unit, as `systemctl status` shows them.
pub(super) fn of_unit(c: &Call, unit: &str, most: usize) -> Vec<String> {
    let host = c.guest(|g| g.hostname.clone()).unwrap_or_default();
    let all = lines(c, Some(unit));
    all.iter().skip(all.len().saturating_sub(most)).map(|l| l.show(&host, "short")).collect()
}

fn journalctl(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if c.who.uid != 0 && !c.who.groups.contains(&4) {
            c.complain("Hint: You are currently not seeing messages from other users and the system.\n      Users in groups 'adm', 'systemd-journal' can see all messages.");
            c.line("-- No entries --");
            return 0;
        }
        c.args = spread(&c.args);
        if let Some(code) = upkeep(c) {
            return code;
        }
        let wish = match Wish::of(c) {
            Ok(w) => w,
            Err(e) => return c.fail(1, &e),
        };
        let follow = c.has(&["-f", "--follow"]);
        let format = c.value(&["-o", "--output"]).unwrap_or_else(|| "short".to_owned());
        let host = c.guest(|g| g.hostname.clone()).unwrap_or_default();
        let most = match c.value(&["-n", "--lines"]) {
            Some(n) => n.trim_start_matches('=').parse().unwrap_or(10),
            None if follow || c.has(&["-n", "--lines"]) => 10,
            None => usize::MAX,
        };
        let mut all = wish.lines(c);
        let mut next = all.last().map_or(0, |l| l.at_ms + 1);
        all.drain(..all.len().saturating_sub(most));
        if c.has(&["-r", "--reverse"]) {
            all.reverse();
        }
        if all.is_empty() && !follow && !c.has(&["-q", "--quiet"]) {
            c.line("-- No entries --");
            return 0;
        }
        for l in &all {
            c.line(&l.show(&host, &format));
        }
        if !follow {
            return 0;
        }
        loop {
            c.next_look(1000).await;
            let fresh = wish.lines(c);
            for l in fresh.iter().filter(|l| l.at_ms >= next) {
                c.line(&l.show(&host, &format));
            }
            next = fresh.last().map_or(next, |l| next.max(l.at_ms + 1));
            if c.flush().await.is_err() {
                return 141;
            }
        }
    })
}

/// Where archived journals lie.
const FOLDER: &str = "/var/log/journal";

/// Bytes as systemd shows them.
fn size(bytes: u64) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or(format!("{bytes}B"), |(shift, u)| format!("{:.1}{u}", bytes as f64 / (1u64 << shift) as f64))
}

/// What does not show lines.
fn upkeep(c: &mut Call) -> Option<i32> {
    if c.has(&["--disk-usage"]) {
        let bytes: usize = lines(c, None).iter().map(|l| l.text.len() + 400).sum();
        let old = c.guest(|g| g.facts.large.get(FOLDER).copied()).flatten().unwrap_or_default() >> 20;
        let files = bytes.div_ceil(8 << 20).max(1) as u64 * 8 + old;
        c.line(&format!("Archived and active journals take up {files}.0M in the file system."));
        return Some(0);
    }
    if c.has(&["--list-boots"]) {
        let (id, from) = c.guest(|g| (g.boot_id.replace('-', ""), g.booted_ms)).unwrap_or_default();
        let to = c.m.lab.clock().now_ms();
        c.line("IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY");
        c.line(&format!("  0 {id} {} {}", journal::long(from), journal::long(to)));
        return Some(0);
    }
    if let Some(text) = c.value(&["--vacuum-size"]) {
        let Some(keep) = super::kernel::bytes_of(text.trim_start_matches('=')) else {
            return Some(c.fail(1, &format!("Failed to parse vacuum size: {text}")));
        };
        if !c.must_be_root(&format!("Failed to vacuum {FOLDER}: Permission denied")) {
            return Some(1);
        }
        let freed = c.guest(|g| g.facts.large.get(FOLDER).copied()).flatten().unwrap_or_default().saturating_sub(keep);
        let vmid = c.m.vmid;
        c.world(|w| {
            if let Some(size) = w.guests.get_mut(&vmid).and_then(|g| g.facts.large.get_mut(FOLDER)) {
                *size -= freed;
            }
        });
        c.complain(&format!("Vacuuming done, freed {} of archived journals from {FOLDER}.", size(freed)));
        return Some(0);
    }
    let acts = |a: &String| a.starts_with("--vacuum") || ["--rotate", "--flush", "--sync"].contains(&a.as_str());
    c.args.iter().any(acts).then_some(0)
}

fn logger(c: &mut Call) -> i32 {
    let tag = c.value(&["-t", "--tag"]).unwrap_or_else(|| c.who.name.clone());
    let text = c.operands(&["-t", "--tag", "-p", "--priority"]).join(" ");
    let vmid = c.m.vmid;
    c.world(|w| units::log(w, vmid, &tag, &text));
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_options_may_stand_together() {
        let words = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(spread(&words("-xeu k3s -n50 --no-pager")), words("-x -e -u k3s -n 50 --no-pager"));
        assert_eq!(spread(&words("-fu k3s -")), words("-f -u k3s -"));
    }

    #[test]
    fn a_line_says_when_it_was_written() {
        let line = r#"time="2026-11-23T03:21:01Z" level=info msg="Starting""#;
        assert_eq!(time_within(line), Some(1_795_404_061_000));
        assert_eq!(time_within("Starting"), None);
    }
}
