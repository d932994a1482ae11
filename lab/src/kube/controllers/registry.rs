//! Which images the registries of the lab have: the repositories of `registry.txt` with the tags that they publish, what
//! was pushed with `gpuhost lab push`, and everything of registries that are nobody's but the user's own.
use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::images::{full, missing, repository};

/// In the list of pushed images: whatever is asked for is there.
pub const ANY: &str = "*";

/// Words that tags of many repositories have; digits and dots behind them are a version.
const WORDS: &[&str] = &[
    "latest",
    "stable",
    "alpine",
    "slim",
    "bookworm",
    "bullseye",
    "buster",
    "stretch",
    "trixie",
    "jammy",
    "noble",
    "focal",
    "bionic",
    "questing",
    "plucky",
    "debian",
    "ubuntu",
    "perl",
    "amd64",
    "arm64",
    "rc",
    "beta",
    "alpha",
    "main",
    "master",
    "nightly",
    "full",
    "ubi",
    "ubi8",
    "ubi9",
    "rootless",
    "distroless",
    "arm64v8",
    "amd64v",
    "r",
    "p",
    "linux",
    "musl",
    "build",
    "gpu",
    "cpu",
];

/// Registries that are known as a whole: what is not in the list, they do not have.
const PUBLIC: &[&str] = &[
    "docker.io",
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "k8s.gcr.io",
    "gcr.io",
    "nvcr.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
    "us-docker.pkg.dev",
];

type Version = (u32, u32);

struct Row {
    name: &'static str,
    range: Option<(Version, Version)>,
    words: Vec<&'static str>,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let lines = include_str!("registry.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(row).collect()
});

fn row(line: &'static str) -> Option<Row> {
    let mut words = line.split_whitespace();
    let (name, range) = (words.next()?, words.next()?);
    let end = |text: &str, minor: u32| {
        let mut parts = text.split('.').map(|p| p.parse::<u32>().ok());
        Some((parts.next()??, parts.next().flatten().unwrap_or(minor)))
    };
    let range = range.split_once('-').and_then(|(from, to)| Some((end(from, 0)?, end(to, u32::MAX)?)));
    Some(Row { name, range, words: words.collect() })
}

impl Row {
    fn is(&self, repository: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(publisher) => repository.len() > publisher.len() && repository.starts_with(publisher),
            None => repository == self.name,
        }
    }

    /// Whether a tag looks like one that the repository publishes.
    fn has(&self, tag: &str) -> bool {
        let word = |part: &str| {
            let bare = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            WORDS.iter().chain(&self.words).any(|w| *w == bare || *w == part)
        };
        let mut parts = tag.split(['-', '_', '+']);
        let first = parts.next().unwrap_or_default();
        let begins = match version(first) {
            Some(v) => self.range.is_none_or(|(from, to)| within(v, from, to)),
            None => word(first),
        };
        begins && parts.all(|p| version(p).is_some() || word(p) || hash(p))
    }
}

/// Major and minor of a part of a tag that is a version: `v1.2.3`, `3`, `24.04`, `2.0rc1`.
fn version(part: &str) -> Option<(u32, Option<u32>)> {
    let mut numbers = part.strip_prefix('v').unwrap_or(part).split('.');
    let number = |p: &str| {
        let digits = p.find(|c: char| !c.is_ascii_digit()).unwrap_or(p.len());
        let rest = p[digits..].trim_end_matches(|c: char| c.is_ascii_digit());
        if matches!(rest, "" | "a" | "b" | "rc" | "beta" | "alpha") { p[..digits].parse().ok() } else { None }
    };
    let major = number(numbers.next()?)?;
    let minor = numbers.next().map(|p| number(p).ok_or(())).transpose().ok()?;
    numbers.all(|p| number(p).is_some()).then_some((major, minor))
}

fn within((major, minor): (u32, Option<u32>), from: Version, to: Version) -> bool {
    match minor {
        Some(minor) => from <= (major, minor) && (major, minor) <= to,
        None => from.0 <= major && major <= to.0,
    }
}

fn hash(part: &str) -> bool {
    let hex = part.strip_prefix('g').unwrap_or(part);
    hex.len() >= 7 && hex.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether somebody has pushed an image: this one, or its repository.
fn is_pushed(pushed: &BTreeSet<String>, name: &str) -> bool {
    [ANY, name, repository(name)].iter().any(|p| pushed.contains(*p))
}

/// How a pushed image is noted: by its whole name, without a tag by its repository.
#[must_use]
pub fn pushed_as(image: &str) -> String {
    let name = full(image);
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if tagged { name } else { repository(&name).to_owned() }
}

/// Whether the lab knows nothing of an image that a public registry may well have.
#[must_use]
pub fn stranger(pushed: &BTreeSet<String>, image: &str) -> bool {
    let name = full(image);
    let public = PUBLIC.iter().any(|h| name.starts_with(&format!("{h}/")));
    public && !is_pushed(pushed, &name) && !ROWS.iter().any(|r| r.is(repository(&name)))
}

/// Why a kubelet cannot read an image's name.
#[must_use]
pub fn unreadable(image: &str) -> Option<String> {
    let name = full(image);
    let repo = repository(&name);
    let path = repo.split_once('/').map_or(repo, |(_, p)| p);
    let tail = &name[repo.len()..];
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let tag = tail.split('@').next().unwrap_or_default().trim_start_matches(':');
    let empty = path.is_empty() || path.split('/').any(str::is_empty) || tail == ":";
    let why = if path.chars().any(|c| c.is_ascii_uppercase()) {
        format!("invalid reference format: repository name ({path}) must be lowercase")
    } else if empty || !plain(path, "/._-") || !plain(tag, "._-") || tag.starts_with(['.', '-']) {
        "invalid reference format".to_owned()
    } else {
        return None;
    };
    Some(format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"))
}

/// Why an image cannot be pulled, as the container runtime says it; `None` when it can.
#[must_use]
pub fn refused(pushed: &BTreeSet<String>, image: &str) -> Option<String> {
    if let Some(why) = missing(image) {
        return Some(why);
    }
    let name = full(image);
    let host = name.split('/').next().unwrap_or_default();
    if !PUBLIC.contains(&host) || is_pushed(pushed, &name) {
        return None;
    }
    let repo = repository(&name);
    let tag = name[repo.len()..].trim_start_matches([':', '@']);
    let path = repo.strip_prefix(host).unwrap_or(repo).trim_start_matches('/');
    let known = ROWS.iter().find(|r| r.is(repo));
    let (code, what) = match known {
        Some(_) if name[repo.len()..].starts_with('@') => return None,
        Some(row) if row.has(tag.split('@').next().unwrap_or(tag)) => return None,
        Some(_) => ("NotFound", format!("{name}: not found")),
        None => hidden(host, path, tag, &name),
    };
    Some(format!(
        "rpc error: code = {code} desc = failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {what}"
    ))
}

/// What a registry answers for a repository that it does not have, or does not show to just anybody.
fn hidden(host: &str, path: &str, tag: &str, name: &str) -> (&'static str, String) {
    match host {
        "docker.io" => (
            "Unknown",
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".to_owned(),
        ),
        "ghcr.io" => (
            "Unknown",
            format!(
                "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://ghcr.io/token?scope=repository%3A{}%3Apull&service=ghcr.io: 403 Forbidden",
                path.replace('/', "%2F")
            ),
        ),
        "quay.io" => (
            "Unknown",
            format!("unexpected status from HEAD request to https://quay.io/v2/{path}/manifests/{tag}: 401 UNAUTHORIZED"),
        ),
        _ => ("NotFound", format!("{name}: not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(image: &str) -> String {
        refused(&BTreeSet::new(), image).unwrap_or_default()
    }

    #[test]
    fn what_repositories_publish_can_be_pulled() {
        for image in [
            "nginx",
            "nginx:1",
            "nginx:1.16.0",
            "nginx:1.29-alpine",
            "nginx:1.27-bookworm-perl",
            "nginx:stable-alpine3.21",
            "busybox:1.37",
            "python:3.12-slim",
            "python:3.13.0rc1",
            "redis:8-alpine",
            "postgres:16.4",
            "docker.io/library/ubuntu:24.04",
            "debian:bookworm-slim",
            "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04",
            "nvcr.io/nvidia/pytorch:25.10-py3",
            "nvcr.io/nvidia/driver:580.95.05-ubuntu24.04",
            "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04",
            "quay.io/jupyter/pytorch-notebook:cuda12-python-3.12",
            "quay.io/jupyter/scipy-notebook:2025-03-10",
            "registry.k8s.io/pause:3.10",
            "rancher/rancher:v2.13.6",
            "rancher/klipper-helm:v0.9.8-build20250709",
            "registry.k8s.io/sig-storage/csi-provisioner:v5.3.0",
            "rancher/mirrored-library-traefik:3.6.13",
            "vllm/vllm-openai:v0.11.0",
            "pytorch/pytorch:2.9.0-cuda13.0-cudnn9-runtime",
            "tensorflow/tensorflow:2.20.0-gpu",
            "harbor.lab.lan/team/app:whatever",
            "nginx@sha256:0123456789012345678901234567890123456789012345678901234567890123",
        ] {
            assert_eq!(answer(image), "", "{image}");
        }
    }

    #[test]
    fn what_no_registry_has_is_refused_in_its_words() {
        for image in [
            "nginx:doesnotexist",
            "nginx:nope",
            "nginx:2",
            "nginx:1.99",
            "nginx:1.29-nope",
            "python:4",
            "busybox:v99",
            "quay.io/jupyter/pytorch-notebook:does-not-exist",
        ] {
            let name = full(image);
            let want = format!(
                "rpc error: code = NotFound desc = failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
            );
            assert_eq!(answer(image), want, "{image}");
        }
        assert!(answer("nobody/nothing:v1").ends_with("insufficient_scope: authorization failed"));
        assert!(answer("ghcr.io/nobody/nothing:v1").ends_with(
            "https://ghcr.io/token?scope=repository%3Anobody%2Fnothing%3Apull&service=ghcr.io: 403 Forbidden"
        ));
        assert!(answer("quay.io/nobody/nothing:v1").ends_with("/v2/nobody/nothing/manifests/v1: 401 UNAUTHORIZED"));
    }

    #[test]
    fn what_was_pushed_is_there() {
        let own = BTreeSet::from(["ghcr.io/me/app".to_owned()]);
        assert_eq!(refused(&own, "ghcr.io/me/app:v7"), None);
        assert!(refused(&own, "ghcr.io/me/other:v7").is_some());
        assert!(!stranger(&own, "ghcr.io/me/app:v7") && stranger(&own, "me/app") && !stranger(&own, "nginx:nope"));
    }

    #[test]
    fn names_that_are_none() {
        let why = unreadable("NGINX").unwrap();
        assert!(why.ends_with("invalid reference format: repository name (library/NGINX) must be lowercase"), "{why}");
        assert!(unreadable("nginx:").is_some() && unreadable("nginx:a b").is_some());
        assert!(unreadable("Reg.lab:5000/a/b:V1").is_none() && unreadable("nginx").is_none());
    }
}
