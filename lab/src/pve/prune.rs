//! Pruning backups: which stay, which go.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::params::{e, f};
use super::reply::{Reply, data};
use super::router::Call;
use super::state::File;
use super::task::{self, Job, Step};
use super::{space, text};
use crate::world::World;

const KEEP: [&str; 7] =
    ["keep-all", "keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"];

/// `keep-last=3,keep-daily=7`.
///
/// # Errors
/// The server's message.
pub fn keep_format(v: &str) -> Result<(), String> {
    for part in v.split(',').filter(|p| !p.trim().is_empty()) {
        let Some((k, n)) = part.trim().split_once('=') else {
            return Err("value without key, but schema does not define a default key\n".into());
        };
        if !KEEP.contains(&k) {
            let why = "property is not defined in schema and the schema does not allow additional properties";
            return Err(format!("format error\n{k}: {why}\n"));
        }
        if n.parse::<u32>().is_err() {
            return Err(format!("format error\n{k}: type check ('integer') failed - got '{n}'\n"));
        }
    }
    Ok(())
}

/// What pruning would do with each backup: `keep`, `remove`, `protected`.
#[must_use]
pub fn marks(w: &World, storage: &str, node: &str, keep: &str, vmid: Option<u32>) -> Vec<(String, &'static str)> {
    let rules: BTreeMap<&str, u64> = keep
        .split(',')
        .filter_map(|p| p.trim().split_once('='))
        .filter_map(|(k, n)| Some((k.strip_prefix("keep-")?, n.parse().ok()?)))
        .collect();
    let prefix = format!("{storage}:");
    let mine = w.pve.files.iter().filter(|(id, f)| {
        id.starts_with(&prefix)
            && f.content == "backup"
            && (f.node.is_empty() || f.node == node)
            && vmid.is_none_or(|v| v == f.vmid)
    });
    let mut groups: BTreeMap<u32, Vec<(&String, &File)>> = BTreeMap::new();
    for (id, f) in mine {
        groups.entry(f.vmid).or_default().push((id, f));
    }
    let mut out = Vec::new();
    for mut list in groups.into_values() {
        list.sort_by_key(|(_, f)| std::cmp::Reverse(f.ctime));
        let kept = kept(&rules, &list.iter().map(|(_, f)| f.ctime).collect::<Vec<_>>());
        for (i, (id, f)) in list.into_iter().enumerate() {
            let mark = if f.protected {
                "protected"
            } else if kept[i] {
                "keep"
            } else {
                "remove"
            };
            out.push((id.clone(), mark));
        }
    }
    out
}

/// Which of the times, newest first, the rules keep.
fn kept(rules: &BTreeMap<&str, u64>, times: &[u64]) -> Vec<bool> {
    if rules.is_empty() || rules.get("all").is_some_and(|n| *n == 1) || rules.values().all(|n| *n == 0) {
        return vec![true; times.len()];
    }
    let mut out = vec![false; times.len()];
    let period = |rule: &str, s: u64| match rule {
        "hourly" => text::clock(s * 1000)[..13].to_owned(),
        "daily" => text::clock(s * 1000)[..10].to_owned(),
        "weekly" => ((s / 86_400 + 3) / 7).to_string(),
        "monthly" => text::clock(s * 1000)[..7].to_owned(),
        "yearly" => text::clock(s * 1000)[..4].to_owned(),
        _ => s.to_string(),
    };
    for rule in ["last", "hourly", "daily", "weekly", "monthly", "yearly"] {
        let Some(n) = rules.get(rule) else { continue };
        let mut seen: BTreeSet<String> =
            times.iter().zip(&out).filter(|(_, k)| **k).map(|(s, _)| period(rule, *s)).collect();
        let mut left = *n;
        for (i, s) in times.iter().enumerate() {
            if left == 0 {
                break;
            }
            if !out[i] && (rule == "last" || seen.insert(period(rule, *s))) {
                out[i] = true;
                left -= 1;
            }
        }
    }
    out
}

/// `GET` and `DELETE prunebackups`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, id: &str) -> Reply {
    let p = &c.params;
    let who = c.who()?.clone();
    let need = |privs: &str| w.pve.need(&who, &format!("/storage/{id}"), privs);
    if method == "GET" {
        need("Datastore.Audit|Datastore.AllocateSpace")?;
    }
    p.check(&[f("prune-backups", keep_format), e("type", &["qemu", "lxc"]), super::params::vmid("vmid")])?;
    if method == "DELETE" {
        need("Datastore.AllocateSpace")?;
    }
    let own = w.pve.storages.get(id).and_then(|s| s.extra.get("prune-backups").cloned());
    let keep = p.get("prune-backups").or(own).unwrap_or_else(|| "keep-all=1".into());
    let vmid = p.int("vmid").and_then(|v| u32::try_from(v).ok());
    let list = if p.get("type").is_some_and(|t| t == "lxc") { Vec::new() } else { marks(w, id, node, &keep, vmid) };
    if method == "DELETE" {
        let volids = list.into_iter().filter(|(_, m)| *m == "remove").map(|(v, _)| v).collect();
        let task_id = vmid.map_or_else(|| id.to_owned(), |v| format!("qemu/{v}@{id}"));
        return data(task::start(w, node, "prunebackups", &task_id, &who, Job::Prune { volids }));
    }
    let rows = list.into_iter().map(|(volid, mark)| {
        let f = w.pve.files.get(&volid);
        json!({ "volid": volid, "mark": mark, "type": "qemu", "ctime": f.map_or(0, |f| f.ctime), "vmid": f.map_or(0, |f| f.vmid) })
    });
    data(rows.collect::<Vec<Value>>())
}

/// Runs `prunebackups`.
///
/// # Errors
/// Never.
pub fn run(w: &mut World, upid: &str, volids: &[String]) -> Result<Step, String> {
    for volid in volids {
        space::free(w, volid);
        task::log(w, upid, format!("removed backup '{volid}'"));
    }
    Ok(Step::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_keep_the_newest_of_each_period() {
        let day = 86_400;
        let now = 1_795_342_598;
        let times: Vec<u64> = (0..6).map(|i| now - i * day / 2).collect();
        let rules = BTreeMap::from([("last", 1), ("daily", 2)]);
        assert_eq!(kept(&rules, &times), [true, true, false, true, false, false]);
        assert_eq!(kept(&BTreeMap::new(), &times), [true; 6]);
        assert!(keep_format("keep-last=3").is_ok() && keep_format("keep=3").is_err());
    }
}
