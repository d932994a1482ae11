//! Labels and taints of nodes: what a kubelet would not take is found before it is written to every machine
//! (`validation.IsQualifiedName` and `IsValidLabelValue` of k8s.io/apimachinery).
use std::collections::BTreeMap;

use super::source::{Finding, Source};
use super::types::Site;

const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Adds labels and taints that are none.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    let servers: Vec<String> = site
        .k3s
        .get("taints")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|t| t.as_str().map(str::to_owned))
        .collect();
    find(src, "k3s", None, Some(&servers), out);
    for (name, role) in &site.roles {
        let s = &role.shape;
        find(src, &format!("roles.{name}"), s.labels.as_ref(), s.taints.as_ref(), out);
    }
    for (i, node) in site.nodes.iter().enumerate() {
        // What a node has from its role was found there.
        let of_role = site.roles.get(&node.role).map(|r| &r.shape);
        let labels = node.shape.labels.as_ref().filter(|l| of_role.is_none_or(|r| r.labels.as_ref() != Some(l)));
        let taints = node.shape.taints.as_ref().filter(|t| of_role.is_none_or(|r| r.taints.as_ref() != Some(t)));
        find(src, &format!("nodes.{i}"), labels, taints, out);
    }
}

fn find(
    src: &Source,
    at: &str,
    labels: Option<&BTreeMap<String, String>>,
    taints: Option<&Vec<String>>,
    out: &mut Vec<Finding>,
) {
    for (key, value) in labels.into_iter().flatten() {
        let text = match (qualified(key), word(value)) {
            (false, _) => format!("`{key}` is no name of a label"),
            (_, false) => format!("`{value}` is no value of a label"),
            _ => continue,
        };
        let hint =
            "letters, digits, `-`, `_` and `.`, 63 at most, with a letter or digit at both ends; a name may have \
            a domain and `/` before it"
                .to_owned();
        out.push(src.value(&format!("{at}.labels"), text, Some(hint)));
    }
    for text in taints.into_iter().flatten().filter(|t| !taint(t)) {
        let hint = format!("write `key=value:Effect`, with one of {} as its effect", TAINT_EFFECTS.join(", "));
        out.push(src.value(&format!("{at}.taints"), format!("`{text}` is not a taint"), Some(hint)));
    }
}

fn taint(text: &str) -> bool {
    split_taint(text).is_some_and(|(key, value, _)| qualified(key) && word(value))
}

/// Key, value and effect of `key=value:Effect` or `key:Effect`; nothing for an effect that Kubernetes does not have.
pub(crate) fn split_taint(text: &str) -> Option<(&str, &str, &str)> {
    let (left, effect) = text.rsplit_once(':').filter(|(_, e)| TAINT_EFFECTS.contains(e))?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    Some((key, value, effect))
}

/// `[domain/]name`
fn qualified(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(d, n)| (Some(d), n));
    let part = |p: &str| !p.is_empty() && ends(p) && p.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    !name.is_empty() && word(name) && domain.is_none_or(|d| d.len() <= 253 && d.split('.').all(part))
}

/// A name without its domain, or a value: that may be empty.
fn word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.is_empty() || text.len() <= 63 && ends(text) && text.bytes().all(inner)
}

fn ends(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_told_from_what_is_none() {
        for good in ["nvidia.com/gpu=present:NoSchedule", "a:NoExecute", "a=:PreferNoSchedule"] {
            assert!(taint(good), "{good}");
        }
        for bad in
            ["a=b", "a=b:NoSchedul", ":NoSchedule", "a b=c:NoExecute", "Bad.Domain/a=c:NoExecute", "a=-:NoExecute"]
        {
            assert!(!taint(bad), "{bad}");
        }
        assert!(qualified("tier") && qualified("example.org/tier_1.x") && !qualified("a b") && !qualified("a/b/c"));
        assert!(word("") && word("A-1") && !word("-a") && !word(&"x".repeat(64)));
    }
}
