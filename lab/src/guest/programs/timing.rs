//! Programs that wait on the lab's clock: `sleep`, `timeout`, `systemd-run`, `sync`.
use futures::future::BoxFuture;

use super::rights::{Nested, run, spawn};
use super::{Call, Program, later, now};
use crate::bash::TOO_LONG;
use crate::guest::shell::ROOT_PATH;

pub(super) const PROGRAMS: &[Program] = &[
    later("/usr/bin/sleep", sleep),
    later("/usr/bin/timeout", timeout),
    later("/usr/bin/systemd-run", systemd_run),
    later("/usr/bin/setsid", setsid),
    later("/usr/bin/ionice", setsid),
    later("/usr/bin/stdbuf", setsid),
    now("/usr/bin/sync", |_| 0),
];

/// `5`, `1.5s`, `2m`, `1h`, `1d` in milliseconds.
pub(crate) fn duration(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (i, 's') => (&text[..i], 1.0),
        (i, 'm') => (&text[..i], 60.0),
        (i, 'h') => (&text[..i], 3600.0),
        (i, 'd') => (&text[..i], 86_400.0),
        _ => (text, 1.0),
    };
    let n: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    Some((n * unit * 1000.0) as u64)
}

fn sleep(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut ms = 0;
        for a in c.args.clone() {
            if a == "infinity" {
                // Lends its mark out for good: time goes on for the others.
                let _lent = gpuhost_stdlib::core::clock::Clock::Virtual(c.m.lab.clock().clone()).lend();
                std::future::pending::<()>().await;
            }
            match duration(&a) {
                Some(d) => ms += d,
                None => {
                    return c.fail(
                        1,
                        &format!("sleep: invalid time interval '{a}'\nTry 'sleep --help' for more information."),
                    );
                }
            }
        }
        if c.args.is_empty() {
            return c.fail(1, "sleep: missing operand\nTry 'sleep --help' for more information.");
        }
        c.pause(ms).await;
        0
    })
}

pub(super) fn same(c: &Call, argv: Vec<String>) -> Nested {
    let own = ["UID", "EUID", "PWD", "OLDPWD", "_", "SHLVL"];
    let env = c.env.iter().filter(|(k, _)| !own.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    Nested { who: c.who.clone(), argv, env, cwd: c.cwd.clone() }
}

fn timeout(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let mut args = c.args.clone().into_iter().peekable();
        let (mut preserve, mut killed) = (false, false);
        while let Some(a) = args.peek().cloned().filter(|a| a.starts_with('-')) {
            args.next();
            match a.as_str() {
                "--preserve-status" => preserve = true,
                "-k" | "--kill-after" => {
                    args.next();
                }
                "-s" | "--signal" => {
                    killed = args.next().is_some_and(|s| matches!(s.trim_start_matches("SIG"), "KILL" | "9"))
                }
                a if a.starts_with("--signal=") || a.starts_with("-s") => {
                    killed = a.ends_with("KILL") || a.ends_with('9')
                }
                "--" => break,
                _ => {}
            }
        }
        let Some(limit) = args.next() else {
            return c.fail(125, "timeout: missing operand\nTry 'timeout --help' for more information.");
        };
        let Some(ms) = duration(&limit) else {
            return c.fail(125, &format!("timeout: invalid time interval '{limit}'"));
        };
        let argv: Vec<String> = args.collect();
        if argv.is_empty() {
            return c.fail(125, "timeout: missing operand\nTry 'timeout --help' for more information.");
        }
        let nested = same(c, argv);
        let clock = c.m.lab.clock().clone();
        // Time must not run on before the deadline is armed, even if the child waits at once.
        let hold = clock.busy_guard();
        let mut child = spawn(c, nested).await;
        if ms == 0 {
            drop(hold);
            return child.wait(c).await;
        }
        let due = clock.now_ms() + ms;
        tokio::select! { biased;
            // The clock stands still while a script computes: one that does so without end outlasts any limit.
            code = child.wait(c) => if code != TOO_LONG { return code },
            mark = clock.deadline(due) => {
                // The child gives its lent mark back before ours goes.
                child.running.kill().await;
                drop(mark);
            }
            () = async { drop(hold); std::future::pending::<()>().await } => {}
        }
        c.pause(due.saturating_sub(clock.now_ms())).await;
        if killed || preserve { if killed { 137 } else { 143 } } else { 124 }
    })
}

fn setsid(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let argv: Vec<String> =
            c.args.iter().skip_while(|a| a.starts_with('-') || a.parse::<i32>().is_ok()).cloned().collect();
        let nested = same(c, argv);
        run(c, nested).await
    })
}

fn systemd_run(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        if !c.must_be_root("Failed to start transient service unit: Interactive authentication required.") {
            return 1;
        }
        let mut args = c.args.clone().into_iter().peekable();
        let (mut wait, mut attached, mut unit, mut quiet, mut stay) = (false, false, None, false, false);
        let mut env: Vec<(String, String)> = Vec::new();
        while let Some(a) = args.peek().cloned().filter(|a| a.starts_with('-')) {
            args.next();
            match a.as_str() {
                "--wait" => wait = true,
                "--pipe" | "-P" | "--scope" | "--pty" | "-t" => attached = true,
                "--quiet" | "-q" => quiet = true,
                "--remain-after-exit" | "-r" => stay = true,
                "--unit" | "-u" => unit = args.next(),
                "--setenv" | "-E" => {
                    env.extend(args.next().and_then(|e| e.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))))
                }
                "--property"
                | "-p"
                | "--description"
                | "--uid"
                | "--gid"
                | "--working-directory"
                | "--service-type" => {
                    args.next();
                }
                "--" => break,
                a if a.starts_with("--unit=") => unit = Some(a[7..].to_owned()),
                a if a.starts_with("--setenv=") => {
                    env.extend(a[9..].split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
                }
                _ => {}
            }
        }
        let argv: Vec<String> = args.collect();
        let id = c.m.next_pid();
        let name = unit.unwrap_or_else(|| format!("run-u{id}"));
        let name = if name.ends_with(".service") { name } else { format!("{name}.service") };
        if argv.is_empty() {
            return c.fail(1, "Command line to execute required.");
        }
        let nested = Nested {
            who: crate::guest::fs::Who::root(),
            argv,
            env: env.into_iter().chain([("PATH".to_owned(), ROOT_PATH.to_owned())]).collect(),
            cwd: "/".into(),
        };
        if !quiet {
            c.complain(&format!("Running as unit: {name}"));
        }
        if attached {
            return run(c, nested).await;
        }
        let ended = crate::guest::units::transient(&c.m, &name, nested.argv, nested.env, stay);
        if !wait {
            return 0;
        }
        // The service goes on when this waiting ends with its connection.
        let lent = gpuhost_stdlib::core::clock::Clock::Virtual(c.m.lab.clock().clone()).lend();
        let ended = ended.await;
        drop(lent);
        ended.map_or(1, |(code, _mark)| code)
    })
}
