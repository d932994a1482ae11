//! Labels and taints of nodes: what a kubelet would not take is found before it is written to every machine
//! (`validation.IsQualifiedName` and `IsValidLabelValue` of k8s.io/apimachinery).
use super::source::{Finding, Source};
use super::types::{Shape, Site};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Adds labels and taints that are none.
pub(super) fn check(src: &Source, site: &Site, out: &mut Vec<Finding>) {
    for (name, role) in &site.roles {
        shape(src, &format!("roles.{name}"), &role.shape, out);
    }
    for (i, node) in site.nodes.iter().enumerate() {
        // What a node has from its role was found there.
        let own = site.roles.get(&node.role).map(|r| &r.shape);
        let mut rest = node.shape.clone();
        if own.is_some_and(|o| o.labels == rest.labels) {
            rest.labels = None;
        }
        if own.is_some_and(|o| o.taints == rest.taints) {
            rest.taints = None;
        }
        shape(src, &format!("nodes.{i}"), &rest, out);
    }
}

fn shape(src: &Source, at: &str, s: &Shape, out: &mut Vec<Finding>) {
    for (key, value) in s.labels.iter().flatten() {
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
    for text in s.taints.iter().flatten().filter(|t| !taint(t)) {
        let hint = format!("write `key=value:Effect`, with one of {} as its effect", EFFECTS.join(", "));
        out.push(src.value(&format!("{at}.taints"), format!("`{text}` is not a taint"), Some(hint)));
    }
}

fn taint(text: &str) -> bool {
    let Some((left, effect)) = text.rsplit_once(':') else { return false };
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    EFFECTS.contains(&effect) && qualified(key) && word(value)
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
