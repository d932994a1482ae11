//! Values of `[k3s]` that K3s would refuse, or would skip without a word: told before anything is touched. No I/O.
use serde_json::Value;

use crate::core::options::closest;
use crate::wire::cron;
use crate::wire::k3s::{COMPONENTS, Known, known, options};

/// Something wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    /// Where, below `[k3s]`: `config.kubelt-arg`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether it may be meant.
    pub warning: bool,
}

fn slip(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Slip {
    Slip { path: path.into(), message: message.into(), hint: hint.into(), warning: false }
}

fn texts<'a>(k3s: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a str)> {
    k3s[key].as_array().into_iter().flatten().enumerate().filter_map(|(i, v)| Some((i, v.as_str()?)))
}

/// What is wrong with a key of config.yaml; `None` when this release has it.
#[must_use]
pub fn key_slip(key: &str, version: &str, server: bool) -> Option<Slip> {
    let (path, name) = (format!("config.{key}"), key.replace('_', "-"));
    match known(&name, version, server) {
        Known::Yes => None,
        Known::ServerOnly => Some(slip(
            path,
            format!("`{key}` is an option of servers, not of agents"),
            "put it into `config` of the servers",
        )),
        Known::Later(since) => {
            Some(slip(path, format!("K3s {version} does not know `{key}` yet"), format!("it comes with {since}")))
        }
        Known::No => {
            let hint = match closest(name.trim_end_matches('+'), options()) {
                Some(k) => format!("did you mean `{k}`?"),
                None => "K3s would skip it without an error: see `k3s server --help`".to_owned(),
            };
            Some(slip(path, format!("K3s has no option `{key}`"), hint))
        }
    }
}

/// Keys of config.yaml that the rest of the site file decides, and where.
const OWNED: &[(&str, &str)] = &[
    ("token", "`token` of [k3s] is a reference to it"),
    ("server", "the first server leads, the others join it"),
    ("cluster-init", "the first server leads, the others join it"),
    ("node-name", "it is the node's `name`"),
    ("node-ip", "it is the node's `ip`"),
    ("cluster-cidr", "write `cluster_cidr` in [k3s]"),
    ("service-cidr", "write `service_cidr` in [k3s]"),
    ("tls-san", "write `tls_san` in [k3s]"),
    ("disable", "write `disable` in [k3s]"),
    ("etcd-snapshot-schedule-cron", "write `snapshot_cron` in [k3s]"),
    ("etcd-snapshot-retention", "write `snapshot_keep` in [k3s]"),
];

/// What is wrong with a key of `config` that would override another part of the site file, on every server alike.
fn owned_slip(key: &str) -> Option<Slip> {
    let name = key.replace('_', "-");
    let (_, hint) = OWNED.iter().find(|(k, _)| *k == name.trim_end_matches('+'))?;
    Some(slip(format!("config.{key}"), format!("`{key}` is not for `config`"), *hint))
}

/// A name or an address that a certificate can hold; a name may begin with `*.`.
fn is_san(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() < 64
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.parse::<std::net::IpAddr>().is_ok() || text.strip_prefix("*.").unwrap_or(text).split('.').all(label)
}

fn is_mirror(url: &str) -> bool {
    let rest = ["https://", "http://"].iter().find_map(|s| url.strip_prefix(s));
    rest.is_some_and(|r| is_san(r.split(['/', ':']).next().unwrap_or_default()))
}

/// Everything that is wrong with the values of a `[k3s]` section.
#[must_use]
pub fn slips(k3s: &Value) -> Vec<Slip> {
    let version = k3s["version"].as_str().unwrap_or_default();
    let keys = k3s["config"].as_object().into_iter().flatten();
    let mut out: Vec<Slip> =
        keys.filter_map(|(key, _)| owned_slip(key).or_else(|| key_slip(key, version, true))).collect();
    let zoned = |t: &str| t.starts_with("TZ=") || t.starts_with("CRON_TZ=");
    if let Some(why) = k3s["snapshot_cron"].as_str().and_then(cron::trouble) {
        let text = format!("`snapshot_cron` is no schedule: {why}");
        out.push(slip(
            "snapshot_cron",
            text,
            "minute, hour, day, month, weekday: `\"0 */6 * * *\"` is every six hours",
        ));
    } else if k3s["snapshot_cron"].as_str().is_some_and(zoned) {
        let text = "`snapshot_cron` names a time zone, which K3s takes from the node";
        out.push(slip("snapshot_cron", text, "leave the zone out"));
    }
    for (i, san) in texts(k3s, "tls_san").filter(|(_, t)| !is_san(t)) {
        let text = format!("`{san}` is neither a host name nor an address");
        out.push(slip(format!("tls_san.{i}"), text, "for example `k8s.lab.example` or `10.0.0.10`"));
    }
    for (i, part) in texts(k3s, "disable").filter(|(_, t)| !COMPONENTS.contains(t)) {
        let text = format!("K3s has no packaged component `{part}`");
        out.push(match closest(part, COMPONENTS.iter().copied()) {
            Some(k) => slip(format!("disable.{i}"), text, format!("did you mean `{k}`?")),
            // a manifest that somebody puts beside them is switched off in the same way
            None => Slip {
                warning: true,
                ..slip(format!("disable.{i}"), text, format!("it has {}", COMPONENTS.join(", ")))
            },
        });
    }
    for (host, url) in k3s["registries"].as_object().into_iter().flatten() {
        if let Some(url) = url.as_str().filter(|u| !is_mirror(u)) {
            let text = format!("`{url}` is no URL of a registry");
            out.push(slip(format!("registries.{host}"), text, "for example `https://mirror.lab.example`"));
        }
        if host.contains("://") || host.contains(' ') {
            let text = format!("`{host}` is no registry's name");
            out.push(slip(format!("registries.{host}"), text, "a host as image names have it, such as `docker.io`"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_does_not_override_what_the_site_file_decides() {
        let k3s = json!({"version": "v1.34.9+k3s1", "config": {"token": "abc", "node_ip": "1.2.3.4", "debug": true}});
        let found: Vec<String> = slips(&k3s).into_iter().filter(|s| !s.warning).map(|s| s.path).collect();
        assert_eq!(found, ["config.token", "config.node_ip"]);
    }

    #[test]
    fn slips_are_named_with_their_place() {
        let k3s = json!({"version": "v1.34.9+k3s1", "snapshot_cron": "every day", "tls_san": ["k8s.lab", "k8s lab"],
            "disable": ["servicelb", "servicelbb", "my-manifest"], "config": {"kubelt-arg": [], "write-kubeconfig-name": "x"},
            "registries": {"docker.io": "mirror", "ghcr.io": "https://mirror.lab:5000/x"}});
        let found: Vec<(String, bool)> = slips(&k3s).into_iter().map(|s| (s.path, s.warning)).collect();
        let at = |p: &str, w: bool| (p.to_owned(), w);
        assert_eq!(
            found,
            [
                at("config.kubelt-arg", false),
                at("config.write-kubeconfig-name", false),
                at("snapshot_cron", false),
                at("tls_san.1", false),
                at("disable.1", false),
                at("disable.2", true),
                at("registries.docker.io", false)
            ]
        );
        let good =
            json!({"version": "v1.34.9+k3s1", "snapshot_cron": "@every 6h", "tls_san": ["*.lab", "10.0.0.1", "::1"]});
        assert_eq!(slips(&good), []);
    }
}
