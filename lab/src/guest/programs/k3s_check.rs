//! What `k3s` says when it is asked whether all is well: `certificate check`, `check-config`. Grade: source (K3s).
use serde_json::json;

use super::Call;
use super::date::show;
use super::k3s_admin::say;
use crate::guest::hw;
use crate::kube::k3s::certificates::Seen;
use crate::kube::text::stamp;

/// Rows under each other in columns, `pad` blanks apart and at least `wide`; the last column is as long as it is.
pub(super) fn columns(c: &mut Call, rows: &[Vec<String>], wide: usize, pad: usize) {
    let count = rows.first().map_or(0, Vec::len);
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count() + pad).max().unwrap_or(0).max(wide);
    let widths: Vec<usize> = (0..count).map(width).collect();
    for r in rows {
        let cells = r.iter().enumerate().map(|(i, t)| match i + 1 == count {
            true => t.clone(),
            false => format!("{t:<w$}", w = widths[i]),
        });
        let line: String = cells.collect();
        c.line(&line);
    }
}

/// A time from now as people say it: `11 months`, `3 days`.
fn rough(secs: u64) -> String {
    const DAY: u64 = 86_400;
    let units = [
        (360 * DAY, "year"),
        (30 * DAY, "month"),
        (7 * DAY, "week"),
        (DAY, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let Some((n, unit)) = units.iter().find(|(n, _)| secs >= *n).map(|(n, u)| (secs / n, u)) else {
        return "now".to_owned();
    };
    format!("{n} {unit}{} ", if n == 1 { "" } else { "s" })
}

/// The answer of `k3s certificate check` in the form that was asked for.
pub(super) fn certificates(c: &mut Call, seen: &[Seen], now: u64, window: u64) -> i32 {
    match c.value(&["-o", "--output"]).as_deref().unwrap_or("text") {
        "json" => {
            let rows: Vec<_> = seen
                .iter()
                .map(|s| {
                    let left = i64::try_from(s.end).unwrap_or(0) - i64::try_from(now).unwrap_or(0);
                    json!({"Filename": s.file, "Subject": s.subject, "Issuer": s.issuer, "Usages": s.usages,
                        "ExpiryTime": stamp(s.end * 1000), "ResidualTime": left * 1_000_000_000, "Status": s.status})
                })
                .collect();
            c.line(&json!({"Certificates": rows}).to_string());
        }
        "table" => {
            let head = ["FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS"].map(str::to_owned);
            let mut rows = vec![head.to_vec(), head.iter().map(|h| "-".repeat(h.len())).collect()];
            rows.extend(seen.iter().map(|s| {
                let left = rough(s.end.abs_diff(now));
                let end = show("%b %d, %Y %H:%M UTC", s.end, 0);
                vec![s.file.clone(), s.subject.clone(), s.usages.join(","), end, left, s.status.to_owned()]
            }));
            c.line("");
            columns(c, &rows, 0, 3);
        }
        "text" => {
            for s in seen {
                let (usages, end) = (s.usages.join(","), stamp(s.end * 1000));
                let what = format!("{}: certificate {} ({usages})", s.file, s.subject);
                match s.status {
                    "EXPIRED" => say(c, "error", &format!("{what} expired at {end}")),
                    "WARNING" => say(c, "warning", &format!("{what} will expire within {window} days at {end}")),
                    _ => say(c, "info", &format!("{what} is ok, expires at {end}")),
                }
            }
        }
        other => {
            let text = format!("invalid output format {other}");
            say(c, "fatal", &text);
            return 1;
        }
    }
    0
}

const NECESSARY: &[&str] = &[
    "NAMESPACES",
    "NET_NS",
    "PID_NS",
    "IPC_NS",
    "UTS_NS",
    "CGROUPS",
    "CGROUP_PIDS",
    "CGROUP_CPUACCT",
    "CGROUP_DEVICE",
    "CGROUP_FREEZER",
    "CGROUP_SCHED",
    "CPUSETS",
    "MEMCG",
    "KEYS",
    "VETH",
    "BRIDGE",
    "BRIDGE_NETFILTER",
    "IP_NF_FILTER",
    "IP_NF_TARGET_MASQUERADE",
    "NETFILTER_XT_MATCH_ADDRTYPE",
    "NETFILTER_XT_MATCH_CONNTRACK",
    "NETFILTER_XT_MATCH_IPVS",
    "NETFILTER_XT_MATCH_COMMENT",
    "NETFILTER_XT_MATCH_MULTIPORT",
    "IP_NF_NAT",
    "NF_NAT",
    "POSIX_MQUEUE",
];

const OPTIONAL: &[&str] = &[
    "USER_NS",
    "SECCOMP",
    "BLK_CGROUP",
    "BLK_DEV_THROTTLING",
    "CGROUP_PERF",
    "CGROUP_HUGETLB",
    "NET_CLS_CGROUP",
    "CGROUP_NET_PRIO",
    "CFS_BANDWIDTH",
    "FAIR_GROUP_SCHED",
    "IP_NF_TARGET_REDIRECT",
    "IP_SET",
    "IP_VS",
    "IP_VS_NFCT",
    "IP_VS_PROTO_TCP",
    "IP_VS_PROTO_UDP",
    "IP_VS_RR",
    "EXT4_FS",
    "EXT4_FS_POSIX_ACL",
    "EXT4_FS_SECURITY",
    "VXLAN",
    "OVERLAY_FS",
];

/// Those of them that Debian's kernel has as modules.
const MODULES: &[&str] = &[
    "VETH",
    "BRIDGE",
    "BRIDGE_NETFILTER",
    "IP_NF_FILTER",
    "IP_NF_TARGET_MASQUERADE",
    "NETFILTER_XT_MATCH_ADDRTYPE",
    "NETFILTER_XT_MATCH_CONNTRACK",
    "NETFILTER_XT_MATCH_IPVS",
    "NETFILTER_XT_MATCH_COMMENT",
    "NETFILTER_XT_MATCH_MULTIPORT",
    "IP_NF_NAT",
    "NF_NAT",
    "IP_NF_TARGET_REDIRECT",
    "IP_SET",
    "IP_VS",
    "IP_VS_RR",
    "EXT4_FS",
    "VXLAN",
    "OVERLAY_FS",
    "NET_CLS_CGROUP",
];

/// `k3s check-config`: what of the machine K3s needs.
pub(super) fn config(c: &mut Call, version: &str) -> i32 {
    let Some(g) = c.guest(|g| g.clone()) else { return 1 };
    let memory = !g.cmdline.split_whitespace().any(|a| a == "cgroup_disable=memory");
    let routes = g.net.as_ref().is_none_or(|n| n.gateway.is_some());
    let kernel = hw::running_kernel(&g).to_owned();
    let mut failed = u32::from(!memory);
    let mut out = vec![
        String::new(),
        format!("Verifying binaries in {}/bin:", crate::kube::k3s::files::data_dir(version)),
        "- sha256sum: good".to_owned(),
        "- links: good".to_owned(),
        String::new(),
        "System:".to_owned(),
        format!("- swap: {}", if g.swaps.is_empty() { "disabled" } else { "should be disabled" }),
        format!("- routes: {}", if routes { "ok" } else { "no default route (fail)" }),
        String::new(),
        "Limits:".to_owned(),
        "- /proc/sys/kernel/keys/root_maxkeys: 1000000".to_owned(),
        String::new(),
        format!("info: reading kernel config from /boot/config-{kernel} ..."),
        String::new(),
        "Generally Necessary:".to_owned(),
    ];
    failed += u32::from(!routes);
    let groups = "- cgroup hierarchy: cgroups V2 mounted, cpu|cpuset|memory controllers status:";
    out.push(format!("{groups} {}", if memory { "good" } else { "bad (fail)" }));
    let row = |n: &&str| {
        let how = if MODULES.contains(n) { "enabled (as module)" } else { "enabled" };
        format!("- CONFIG_{n}: {how}")
    };
    out.extend(NECESSARY.iter().map(row));
    out.extend([String::new(), "Optional Features:".to_owned()]);
    out.extend(OPTIONAL.iter().map(row));
    out.push(String::new());
    out.push(if failed == 0 { "STATUS: pass".to_owned() } else { format!("STATUS: {failed} (fail)") });
    for line in out {
        c.line(&line);
    }
    i32::from(failed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_roughly() {
        for (secs, text) in [
            (365 * 86_400, "1 year "),
            (200 * 86_400, "6 months "),
            (3 * 86_400, "3 days "),
            (90, "1 minute "),
            (0, "now"),
        ] {
            assert_eq!(rough(secs), text);
        }
    }
}
