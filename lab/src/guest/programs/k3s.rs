//! The `k3s` binary and its uninstall scripts, as far as they are used by hand.
use futures::future::BoxFuture;

use super::{Body, Call, NOT_SIMULATED, Program, crictl, k3s_admin, k3s_check, k3s_token, kubectl};
use crate::guest::fs::Who;
use crate::guest::k3s::version_of;
use crate::guest::units;

/// These come with the binary or its installer, not with a package.
pub(super) const PROGRAMS: &[Program] = &[
    Program { path: "/usr/local/bin/k3s", package: "(k3s)", body: Body::Later(k3s) },
    Program { path: "/usr/local/bin/kubectl", package: "(k3s)", body: Body::Later(k3s) },
    Program { path: "/usr/local/bin/crictl", package: "(k3s)", body: Body::Later(k3s) },
    Program { path: "/usr/local/bin/k3s-uninstall.sh", package: "(k3s)", body: Body::Now(uninstall) },
    Program { path: "/usr/local/bin/k3s-agent-uninstall.sh", package: "(k3s)", body: Body::Now(uninstall) },
    Program { path: "/usr/local/bin/k3s-killall.sh", package: "(k3s)", body: Body::Now(killall) },
];

fn k3s(c: &mut Call) -> BoxFuture<'_, i32> {
    Box::pin(async move {
        let words = words(c);
        let looked = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["kubectl", _, ..] => kubectl::run(c, &words[1..]).await,
            ["crictl", ..] => crictl::crictl(c, &words[1..]).await,
            _ => None,
        };
        if let Some(code) = looked.or_else(|| looks(c)) {
            return code;
        }
        match c.args.first().map(String::as_str) {
            Some("etcd-snapshot") => k3s_admin::etcd_snapshot(c).await,
            Some("server") => k3s_admin::server(c).await,
            Some("token") => k3s_token::token(c).await,
            Some("certificate") => k3s_admin::certificate(c).await,
            Some("secrets-encrypt") => k3s_admin::secrets_encrypt(c),
            other => {
                let what = format!("k3s {}", other.unwrap_or_default());
                let text = super::not_simulated(&c.m, &what);
                c.fail(NOT_SIMULATED, &text)
            }
        }
    })
}

/// The words behind `k3s`: `kubectl` and `crictl` are links to it.
fn words(c: &Call) -> Vec<String> {
    let called = c.argv0.rsplit('/').next().unwrap_or_default().to_owned();
    let linked = (called == "kubectl" || called == "crictl").then_some(called);
    linked.into_iter().chain(c.args.clone()).collect()
}

/// What only looks; `None` for the commands that do something.
fn looks(c: &mut Call) -> Option<i32> {
    let path = c.path(&c.argv0.clone());
    let real = c.m.files.resolve(&path, true).unwrap_or(path);
    let version = c.m.files.read(&Who::root(), &real).ok().and_then(|b| version_of(&b));
    let Some(version) = version else {
        let text = format!("bash: line 1: {real}: cannot execute binary file: Exec format error");
        return Some(c.fail(126, &text));
    };
    let args = words(c);
    match args.first().map(String::as_str) {
        Some("--version" | "-v") => {
            let hash = &crate::kube::text::sha256(&version)[..8];
            c.line(&format!("k3s version {version} ({hash})\ngo version go1.24.9"));
        }
        Some("check-config") => return Some(k3s_check::config(c, &version)),
        Some("kubectl" | "crictl") => {
            let text = super::not_simulated(&c.m, &format!("k3s {}", args.join(" ")));
            return Some(c.fail(NOT_SIMULATED, &text));
        }
        _ => return None,
    }
    Some(0)
}

fn killall(c: &mut Call) -> i32 {
    if !c.must_be_root("k3s-killall.sh: must be root") {
        return 1;
    }
    let (lab, m) = (c.m.lab.clone(), c.m.clone());
    c.world(|w| {
        for u in ["k3s.service", "k3s-agent.service"] {
            units::stop(&lab, w, &m, u);
        }
    });
    0
}

fn uninstall(c: &mut Call) -> i32 {
    if killall(c) != 0 {
        return 1;
    }
    let (lab, m) = (c.m.lab.clone(), c.m.clone());
    let unit = if c.name.contains("agent") { "k3s-agent.service" } else { "k3s.service" };
    units::disable(&m.files, unit);
    let root = Who::root();
    let bin = "/usr/local/bin";
    for path in [
        format!("/etc/systemd/system/{unit}"),
        format!("/etc/systemd/system/{unit}.env"),
        format!("{bin}/k3s"),
        format!("{bin}/kubectl"),
        format!("{bin}/crictl"),
        format!("{bin}/ctr"),
        format!("{bin}/k3s-killall.sh"),
        format!("{bin}/{}", c.name),
        "/etc/rancher/k3s".to_owned(),
        "/run/k3s".to_owned(),
        "/run/flannel".to_owned(),
        "/var/lib/rancher/k3s".to_owned(),
        "/var/lib/kubelet".to_owned(),
    ] {
        let _ = m.files.remove(&root, &path, true);
    }
    lab.with(|w| {
        crate::kube::k3s_uninstalled(&lab, w, m.vmid);
        if let Some(g) = w.guests.get_mut(&m.vmid) {
            g.services.remove(unit);
        }
    });
    0
}
