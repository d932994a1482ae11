//! What a node has to tell of itself: its journal, traffic of its machines, its report.
use serde_json::{Value, json};

use super::params::{n, t};
use super::reply::{Out, Reply, data};
use super::router::Call;
use crate::guest::journal;
use crate::world::World;

/// Lines of a node's journal with the second they are of: what its tasks did.
fn lines(w: &World, node: &str) -> Vec<(u64, String)> {
    let mut all: Vec<(u64, String)> =
        vec![(w.pve.booted_ms / 1000, "systemd[1]: Reached target multi-user.target - Multi-User System.".to_owned())];
    let mine = w.pve.task_order.iter().filter_map(|u| w.pve.tasks.get(u).filter(|t| t.node == node).map(|t| (u, t)));
    for (upid, t) in mine {
        let who = t.token.as_ref().map_or_else(|| t.user.clone(), |k| format!("{}!{k}", t.user));
        all.push((t.start, format!("pvedaemon[1187]: <{who}> starting task {upid}")));
        if let (Some(end), Some(exit)) = (t.end, &t.exit) {
            all.push((end, format!("pvedaemon[1187]: <{who}> end task {upid} {exit}")));
        }
    }
    all.sort_by_key(|l| l.0);
    all
}

fn printed(node: &str, (second, text): &(u64, String)) -> String {
    format!("{} {node} {text}", journal::stamp(second * 1000))
}

/// `GET journal`: lines between the cursors of the first and the last one.
///
/// # Errors
/// The server's refusal.
pub fn journal(w: &World, c: &Call, node: &str) -> Reply {
    w.pve.need(c.who()?, &format!("/nodes/{node}"), "Sys.Syslog")?;
    c.params.check(&[n("since"), n("until"), n("lastentries"), t("startcursor"), t("endcursor")])?;
    let all = lines(w, node);
    let boot = super::sections::digest(&node)[..32].to_owned();
    let cursor = |i: usize| {
        format!("s={boot};i={i:x};b={boot};m={i:x};t={:x};x={i:x}", all.get(i).map_or(0, |l| l.0 * 1_000_000))
    };
    let place = |key: &str| {
        let text = c.params.get(key)?;
        usize::from_str_radix(text.split(';').find_map(|p| p.strip_prefix("i="))?, 16).ok()
    };
    let (since, until) = (c.params.int("since"), c.params.int("until"));
    let within = |s: u64| {
        let s = i64::try_from(s).unwrap_or(i64::MAX);
        since.is_none_or(|a| s >= a) && until.is_none_or(|b| s <= b)
    };
    let after = place("startcursor");
    let before = place("endcursor");
    let mut shown: Vec<usize> = (0..all.len())
        .filter(|i| within(all[*i].0) && after.is_none_or(|a| *i > a) && before.is_none_or(|b| *i < b))
        .collect();
    if let Some(last) = c.params.int("lastentries").and_then(|n| usize::try_from(n).ok()) {
        shown.drain(..shown.len().saturating_sub(last));
    }
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        let stay = after.or(before).unwrap_or_default();
        return data(json!([cursor(stay), cursor(stay)]));
    };
    let mut out = vec![cursor(*first)];
    out.extend(shown.iter().map(|i| printed(node, &all[*i])));
    out.push(cursor(*last));
    data(out)
}

/// `GET syslog`.
///
/// # Errors
/// The server's refusal.
pub fn syslog(w: &World, c: &Call, node: &str) -> Reply {
    w.pve.need(c.who()?, &format!("/nodes/{node}"), "Sys.Syslog")?;
    c.params.check(&[n("limit"), n("start"), t("since"), t("until"), t("service")])?;
    let service = c.params.get("service");
    let all: Vec<String> = lines(w, node)
        .iter()
        .filter(|l| service.as_ref().is_none_or(|s| l.1.starts_with(s.as_str())))
        .map(|l| printed(node, l))
        .collect();
    if all.is_empty() {
        return Ok(Out { total: Some(1), ..json!([{ "n": 1, "t": "no content" }]).into() });
    }
    let number = |key: &str, default: usize| c.params.int(key).and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
    let (start, limit) = (number("start", 0), number("limit", 50));
    let shown = all.iter().enumerate().skip(start).take(if limit == 0 { usize::MAX } else { limit });
    let rows: Vec<Value> = shown.map(|(i, l)| json!({ "n": i + 1, "t": l })).collect();
    Ok(Out { total: Some(all.len()), ..json!(rows).into() })
}

/// `GET netstat`: bytes of the network cards of running machines.
///
/// # Errors
/// The server's refusal.
pub fn netstat(w: &World, c: &Call, node: &str) -> Reply {
    w.pve.need(c.who()?, &format!("/nodes/{node}"), "Sys.Audit")?;
    let running = w.pve.vms.iter().filter(|(_, v)| v.node == node && v.run.is_some());
    let cards = running.flat_map(|(id, v)| {
        let nets = v.conf.keys().filter(|k| gpuhost_stdlib::wire::pve::props::numbered(k).0 == "net");
        nets.map(move |k| json!({ "vmid": id.to_string(), "dev": k, "in": "0", "out": "0" }))
    });
    data(cards.collect::<Vec<Value>>())
}

/// `GET report`: one text about the node.
///
/// # Errors
/// The server's refusal.
pub fn report(w: &World, c: &Call, node: &str) -> Reply {
    w.pve.need(c.who()?, &format!("/nodes/{node}"), "Sys.Audit")?;
    let mut out = format!(
        "\n==== general system info ====\n\n# hostname\n{node}\n\n# pveversion --verbose\npve-manager: {}\n",
        w.pve.version
    );
    out.push_str("\n==== info about storage ====\n\n# cat /etc/pve/storage.cfg\n");
    for (id, s) in &w.pve.storages {
        out.push_str(&format!("{}: {id}\n\tcontent {}\n\n", s.kind, s.content));
    }
    out.push_str("==== info about virtual guests ====\n\n# qm list\n      VMID NAME                 STATUS\n");
    for (id, v) in w.pve.vms.iter().filter(|(_, v)| v.node == node) {
        let state = if v.run.is_some() { "running" } else { "stopped" };
        out.push_str(&format!("{id:>10} {:<20} {state}\n", v.conf.get("name").map_or("", String::as_str)));
    }
    data(out)
}
