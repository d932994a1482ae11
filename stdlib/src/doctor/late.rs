//! Etcd snapshots that should have been saved, by the schedule each server was started with. No I/O apart from reading.
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::{Cluster, epoch_seconds};
use crate::wire::cron;

/// K3s' own schedule.
const CRON: &str = "0 */12 * * *";

/// A server whose snapshots are not saved as they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Its node.
    pub node: String,
    /// What is wrong.
    pub text: String,
    /// It was told to save none.
    pub off: bool,
}

/// The value of an option that K3s was started with, from its node's annotation.
fn option(node: &Value, name: &str) -> Option<String> {
    let args: Vec<String> = serde_json::from_str(node["metadata"]["annotations"]["k3s.io/node-args"].as_str()?).ok()?;
    let at = args.iter().rposition(|a| a.strip_prefix("--").unwrap_or(a).split('=').next() == Some(name))?;
    match args[at].split_once('=') {
        Some((_, v)) => Some(v.to_owned()),
        None => args.get(at + 1).filter(|v| !v.starts_with("--")).cloned().or(Some("true".to_owned())),
    }
}

/// For a schedule that names no moment.
const DAY_MS: u64 = 24 * 3_600_000;

/// No zone is farther from the servers' clock.
const ZONES_MS: u64 = 14 * 3_600_000;

/// When a snapshot is late: at the schedule's second moment after the newest one.
fn due(schedule: &str, since_ms: u64) -> u64 {
    let zoned = schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=");
    let (text, zones) = if zoned { (schedule.split_once(' ').map_or("", |(_, t)| t), ZONES_MS) } else { (schedule, 0) };
    let second = match cron::every(text) {
        Some(ms) => Some(since_ms.saturating_add(ms.saturating_mul(2))),
        None => cron::next(text, since_ms).and_then(|t| cron::next(text, t)),
    };
    second.unwrap_or(since_ms + DAY_MS).saturating_add(zones)
}

/// Servers whose schedule has come twice since their newest good snapshot, or which were told to save none.
#[must_use]
pub fn late(nodes: &[Value], files: &[Value], now: i64) -> Vec<Late> {
    let mut out = Vec::new();
    for node in nodes.iter().filter(|n| n["metadata"]["labels"]["node-role.kubernetes.io/etcd"] == "true") {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if option(node, "etcd-disable-snapshots").is_some_and(|v| v == "true") {
            let text = format!("{name} was started with etcd-disable-snapshots");
            out.push(Late { node: name, text, off: true });
            continue;
        }
        let schedule = option(node, "etcd-snapshot-schedule-cron").unwrap_or_else(|| CRON.to_owned());
        let mine = || files.iter().filter(|f| f["spec"]["nodeName"] == name.as_str());
        let time = |v: &Value| epoch_seconds(v.as_str()?);
        let good = |f: &&Value| f["status"]["readyToUse"] != false && f["status"]["error"].is_null();
        let newest = mine().filter(good).filter_map(|f| time(&f["status"]["creationTime"])).max();
        let Some(since) = newest.or_else(|| time(&node["metadata"]["creationTimestamp"])) else { continue };
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        if ms(now) < due(&schedule, ms(since)) {
            continue;
        }
        let what = if newest.is_some() { "its newest snapshot is" } else { "it has no snapshot and is" };
        let why = mine().filter(|f| !good(f)).filter_map(|f| f["status"]["error"]["message"].as_str()).next_back();
        let why = why.map_or_else(String::new, |w| format!(": {w}"));
        let text = format!("{name}: {what} {} hours old, its schedule is `{schedule}`{why}", (now - since) / 3600);
        out.push(Late { node: name, text, off: false });
    }
    out
}

impl Cluster {
    /// Servers that do not save the etcd snapshots they should; what the site file switches off is not missed.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn late_snapshots(&self, ctx: &Ctx) -> OpResult<Vec<Late>> {
        let Some(now) = self.server_seconds(ctx).await? else { return Ok(Vec::new()) };
        let files = self.list_if_known(ctx, "etcdsnapshotfiles.k3s.cattle.io", "").await?;
        let found = late(&self.list_in(ctx, "node", "").await?, &files, now);
        let config = ctx.site.as_ref().and_then(|s| s.k3s.get("config")?.as_table().cloned()).unwrap_or_default();
        let wished = ["etcd-disable-snapshots", "etcd_disable_snapshots"];
        let off = wished.iter().any(|k| config.get(*k).and_then(toml::Value::as_bool) == Some(true));
        Ok(found.into_iter().filter(|l| !(off && l.off)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(args: &[&str]) -> Value {
        let args = json!(args).to_string();
        json!({"metadata": {"name": "a", "creationTimestamp": "2026-11-20T00:00:00Z", "annotations": {"k3s.io/node-args": args},
            "labels": {"node-role.kubernetes.io/etcd": "true"}}})
    }

    fn file(time: &str) -> Value {
        json!({"spec": {"nodeName": "a"}, "status": {"creationTime": time, "readyToUse": true}})
    }

    #[test]
    fn snapshots_are_late_by_their_own_schedule() {
        let now = epoch_seconds("2026-11-23T03:00:00Z").unwrap();
        let often = server(&["server", "--etcd-snapshot-schedule-cron", "0 */6 * * *"]);
        assert_eq!(late(std::slice::from_ref(&often), &[file("2026-11-22T18:00:03Z")], now), []);
        let found = late(std::slice::from_ref(&often), &[file("2026-11-22T12:00:03Z")], now);
        assert_eq!(found[0].text, "a: its newest snapshot is 14 hours old, its schedule is `0 */6 * * *`");
        assert_eq!(late(&[server(&["server"])], &[file("2026-11-22T12:00:03Z")], now), []);
        assert!(late(&[server(&["server"])], &[], now)[0].text.contains("has no snapshot"));
        let mut bad = file("2026-11-23T00:00:00Z");
        bad["status"]["error"] = json!({"message": "no space left on device"});
        assert!(late(&[often], &[file("2026-11-21T00:00:00Z"), bad], now)[0].text.ends_with("no space left on device"));
        assert!(late(&[server(&["server", "--etcd-disable-snapshots=true"])], &[], now)[0].off);
        assert!(late(&[server(&["server", "--etcd-disable-snapshots", "true"])], &[], now)[0].off);
    }

    #[test]
    fn schedules_that_are_not_even_are_counted_from_the_newest_snapshot() {
        let late_at = |schedule: &str, newest: &str, now: &str| {
            let node = server(&["server", "--etcd-snapshot-schedule-cron", schedule]);
            !late(&[node], &[file(newest)], epoch_seconds(now).unwrap()).is_empty()
        };
        let twice = "0 9,10 * * *";
        assert!(!late_at(twice, "2026-11-22T10:00:03Z", "2026-11-23T09:30:00Z"));
        assert!(late_at(twice, "2026-11-22T10:00:03Z", "2026-11-23T10:00:00Z"));
        // a Friday's is the newest until Monday's
        assert!(!late_at("0 3 * * 1-5", "2026-11-20T03:00:03Z", "2026-11-23T02:00:00Z"));
        assert!(late_at("0 3 * * 1-5", "2026-11-20T03:00:03Z", "2026-11-24T03:00:00Z"));
        assert!(!late_at("@every 1h", "2026-11-22T10:00:03Z", "2026-11-22T12:00:00Z"));
        assert!(late_at("@every 1h", "2026-11-22T10:00:03Z", "2026-11-22T12:00:03Z"));
        assert!(!late_at("CRON_TZ=Asia/Tokyo 0 3 * * *", "2026-11-22T18:00:03Z", "2026-11-24T16:59:00Z"));
        assert!(late_at("CRON_TZ=Asia/Tokyo 0 3 * * *", "2026-11-22T18:00:03Z", "2026-11-24T17:00:00Z"));
        assert!(late_at("0 0 30 2 *", "2026-11-22T10:00:03Z", "2026-11-23T10:00:03Z"));
    }
}
