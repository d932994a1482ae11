//! Who is there, and since when: `who`, `w`, `users`, `last`, `uptime`.
use super::date::show;
use super::{Call, Program, now};
use crate::guest::hw::running_kernel;
use crate::guest::logins::Login;

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/uptime", uptime),
    now("/usr/bin/who", who),
    now("/usr/bin/w", w),
    now("/usr/bin/users", users),
    now("/usr/bin/last", last),
];

/// Where logins come from: every sshd of the lab listens on loopback only.
const FROM: &str = "127.0.0.1";

fn at(format: &str, ms: u64) -> String {
    show(format, ms / 1000, 0)
}

pub(super) fn uptime(c: &mut Call) -> i32 {
    let now = c.m.lab.clock().now_ms();
    let booted = c.guest(|g| g.booted_ms).unwrap_or(now);
    let secs = (now - booted.min(now)) / 1000;
    if c.has(&["-s", "--since"]) {
        c.line(&at("%F %T", booted));
        return 0;
    }
    let (d, h, m) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    if c.has(&["-p", "--pretty"]) {
        let part = |n: u64, word: &str| (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }));
        let parts: Vec<String> = [part(d, "day"), part(h, "hour"), part(m, "minute")].into_iter().flatten().collect();
        c.line(&format!("up {}", if parts.is_empty() { "0 minutes".to_owned() } else { parts.join(", ") }));
        return 0;
    }
    let up = match (d, h) {
        (0, 0) => format!("{m} min"),
        (0, _) => format!("{h:2}:{m:02}"),
        (1, _) => format!("1 day, {h:2}:{m:02}"),
        _ => format!("{d} days, {h:2}:{m:02}"),
    };
    let users = c.m.logins.present().len();
    let load = c.m.files.text("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(", ");
    let plural = if users == 1 { "" } else { "s" };
    c.line(&format!(" {} up {up}, {users:>2} user{plural},  load average: {load}", at("%T", now)));
    0
}

fn who(c: &mut Call) -> i32 {
    let row = |l: &Login| format!("{:<8} pts/{:<8} {} ({FROM})", l.user, l.terminal, at("%F %R", l.since_ms));
    let present = c.m.logins.present();
    if c.has(&["-b", "--boot"]) {
        let booted = c.guest(|g| g.booted_ms).unwrap_or_default();
        c.line(&format!("         system boot  {}", at("%F %R", booted)));
        return 0;
    }
    if c.has(&["-q", "--count"]) {
        let names: Vec<&str> = present.iter().map(|l| l.user.as_str()).collect();
        c.line(&format!("{}\n# users={}", names.join(" "), names.len()));
        return 0;
    }
    if c.has(&["-H", "--heading"]) {
        c.line("NAME     LINE         TIME             COMMENT");
    }
    // `who am i` is the one at this terminal.
    let me = c.has(&["-m"]) || c.operands(&[]).len() == 2;
    let mine = |l: &&Login| !me || (c.tty && l.user == c.env.get("LOGNAME").map_or("", String::as_str));
    let mut shown: Vec<String> = present.iter().filter(mine).map(row).collect();
    if me {
        shown = shown.pop().into_iter().collect();
    }
    for l in shown {
        c.line(&l);
    }
    0
}

fn w(c: &mut Call) -> i32 {
    if !c.has(&["-h", "--no-header"]) {
        uptime(c);
        c.line("USER     TTY      FROM             LOGIN@   IDLE   JCPU   PCPU WHAT");
    }
    let only = c.operands(&[]).first().cloned();
    for l in c.m.logins.present().iter().filter(|l| only.as_ref().is_none_or(|u| *u == l.user)) {
        let terminal = format!("pts/{}", l.terminal);
        let row =
            format!("{:<8} {terminal:<8} {FROM:<16} {:<8} 0.00s  0.00s  0.00s -bash", l.user, at("%R", l.since_ms));
        c.line(&row);
    }
    0
}

fn users(c: &mut Call) -> i32 {
    let mut names: Vec<String> = c.m.logins.present().into_iter().map(|l| l.user).collect();
    names.sort();
    if !names.is_empty() {
        c.line(&names.join(" "));
    }
    0
}

/// Logins of this boot, the latest first, and the boot itself.
fn last(c: &mut Call) -> i32 {
    let (booted, kernel) = c.guest(|g| (g.booted_ms, running_kernel(g).to_owned())).unwrap_or_default();
    let long = "%a %b %e %R";
    let mut rows: Vec<(String, String)> =
        c.m.logins
            .all()
            .iter()
            .rev()
            .map(|l| {
                let end = match l.until_ms {
                    None => "  still logged in".to_owned(),
                    Some(t) => {
                        let minutes = t.saturating_sub(l.since_ms) / 60_000;
                        format!(" - {}  ({:02}:{:02})", at("%R", t), minutes / 60, minutes % 60)
                    }
                };
                let line = format!("pts/{}", l.terminal);
                (l.user.clone(), format!("{:<8} {line:<12} {FROM:<16} {}{end}", l.user, at(long, l.since_ms)))
            })
            .collect();
    let boot = format!("reboot   system boot  {:<16.16} {}   still running", kernel, at(long, booted));
    rows.push(("reboot".to_owned(), boot));
    let names = c.operands(&["-n", "-f", "-s", "-t", "-p", "--limit", "--since", "--until"]);
    let most = c.value(&["-n", "--limit"]).and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let wanted = |user: &str| names.is_empty() || names.iter().any(|n| n == user);
    for (_, row) in rows.iter().filter(|(user, _)| wanted(user)).take(most) {
        c.line(row);
    }
    c.line(&format!("\nwtmp begins {}", at("%a %b %e %T %Y", booted)));
    0
}
