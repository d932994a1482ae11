//! Reaching a cluster that exists: kubeconfig and join data from its servers.
use serde_json::Value;

use super::config::Part;
use super::node::{Found, look};
use super::{Join, config};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::core::units::Secret;
use crate::kubernetes::Cluster;
use crate::ssh::Host;

/// Port of the API server.
pub const PORT: u16 = 6443;

/// Name of the cluster and its kubeconfig context; a lab's begins with `lab-`.
#[must_use]
pub fn context_name(ctx: &Ctx) -> String {
    let name = ctx.site.as_ref().map_or("k3s", |s| s.name.as_str());
    if ctx.lab { format!("lab-{name}") } else { name.to_owned() }
}

/// K3s' kubeconfig with another server address and name; certificates stay.
///
/// # Errors
/// `failed` when it is not a kubeconfig.
pub fn rewrite_kubeconfig(text: &str, address: &str, name: &str) -> OpResult<String> {
    let bad = |why: String| OpError::failed("the server's kubeconfig cannot be read").because(why);
    let mut k: Value = serde_saphyr::from_str(text).map_err(|e| bad(e.to_string()))?;
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    if !k["clusters"][0]["cluster"].is_object() || !k["users"][0].is_object() || !k["contexts"][0].is_object() {
        return Err(bad("it has no cluster, user or context".to_owned()));
    }
    k["clusters"][0]["cluster"]["server"] = format!("https://{host}:{PORT}").into();
    k["clusters"][0]["name"] = name.into();
    k["users"][0]["name"] = name.into();
    k["contexts"][0]["name"] = name.into();
    k["contexts"][0]["context"]["cluster"] = name.into();
    k["contexts"][0]["context"]["user"] = name.into();
    k["current-context"] = name.into();
    Ok(config::to_yaml(&k))
}

/// A kubeconfig for the programs of this machine: where the site's `[connect]` sends its API server elsewhere, it goes
/// there too, and expects the certificate of the server's own address.
pub(super) fn for_this_machine(ctx: &Ctx, text: &str) -> OpResult<String> {
    let Some(connect) = ctx.site.as_ref().map(|s| &s.connect).filter(|c| !ctx.lab && !c.is_empty()) else {
        return Ok(text.to_owned());
    };
    let (_, host, port) = current(text)?;
    match connect.get(&format!("{host}:{port}")) {
        Some(to) => forwarded(text, &host, to),
        None => Ok(text.to_owned()),
    }
}

/// `text` with `to` in the place of the server `host`.
fn forwarded(text: &str, host: &str, to: &str) -> OpResult<String> {
    let bad = |e: String| OpError::failed("the server's kubeconfig cannot be read").because(e);
    let mut k: Value = serde_saphyr::from_str(text).map_err(|e| bad(e.to_string()))?;
    k["clusters"][0]["cluster"]["server"] = format!("https://{to}").into();
    k["clusters"][0]["cluster"]["tls-server-name"] = host.into();
    Ok(config::to_yaml(&k))
}

/// The kubeconfig of one server, as K3s wrote it.
///
/// # Errors
/// `not_found` when K3s has not written it.
pub async fn server_kubeconfig(ctx: &Ctx, host: &Host) -> OpResult<String> {
    let out = host.look_raw(ctx, "cat /etc/rancher/k3s/k3s.yaml").await.map_err(|e| e.on(host.name()))?;
    if out.code != 0 || out.stdout.trim().is_empty() {
        return Err(OpError::not_found("there is no K3s server")
            .on(host.name())
            .because("/etc/rancher/k3s/k3s.yaml is absent")
            .hint("deploy first: `gpuhost run recipes/deploy.rhai`"));
    }
    Ok(out.stdout)
}

/// Addresses of a cluster's API servers, `first` before the hosts.
pub(super) fn addresses(first: &str, hosts: &[Host]) -> Vec<(String, u16)> {
    let mut out: Vec<(String, u16)> = Vec::new();
    let all = std::iter::once(first).filter(|a| !a.is_empty()).chain(hosts.iter().map(Host::address));
    for a in all {
        if !out.iter().any(|(o, _)| o == a) {
            out.push((a.to_owned(), PORT));
        }
    }
    out
}

/// What a new node needs, from a server's files.
pub(super) fn join_from(found: &Found, address: &str) -> Join {
    let mirrors = found.registries["mirrors"].as_object().into_iter().flatten();
    let registries = mirrors.filter_map(|(h, m)| Some((h.clone(), m["endpoint"][0].as_str()?.to_owned()))).collect();
    Join {
        version: found.version.clone(),
        url: format!("https://{address}:{PORT}"),
        token: Secret::new(found.token.clone()),
        registries,
        cis: found.config["protect-kernel-defaults"] == true,
        airgap: Default::default(),
    }
}

/// The address agents go to: the site's, else the server's own.
fn agent_address(ctx: &Ctx, host: &Host) -> String {
    let site = ctx.site.as_ref().and_then(|s| s.k3s.get("address")?.as_str().map(str::to_owned));
    site.filter(|a| !a.is_empty()).unwrap_or_else(|| host.address().to_owned())
}

/// Connects to the cluster of the first of `hosts` that answers.
///
/// # Errors
/// `not_found` when none is a server; `unreachable` with what each said.
pub async fn connect(ctx: &Ctx, hosts: &[Host]) -> OpResult<Cluster> {
    let names: Vec<_> = hosts.iter().map(Host::name).collect();
    let op = Op::read("k3s", "connect", names.join(","));
    ctx.run_op(op, |s| async move {
        let mut failed: Option<OpError> = None;
        for host in hosts {
            let tried = try_connect(s.ctx(), host, hosts).await;
            match tried {
                Ok(c) => return Ok(c),
                Err(e) => match &mut failed {
                    Some(first) => first.others.push(e),
                    None => failed = Some(e),
                },
            }
        }
        Err(failed.unwrap_or_else(|| OpError::invalid("no server to connect to")))
    })
    .await
}

async fn try_connect(ctx: &Ctx, host: &Host, hosts: &[Host]) -> OpResult<Cluster> {
    let text = server_kubeconfig(ctx, host).await?;
    let found = look(ctx, host, Part::Server).await?;
    let cluster = make_cluster(ctx, &text, &agent_address(ctx, host), hosts)?;
    let airgap = super::options::Airgap::of_site(ctx, &found.version)?;
    cluster.set_join(Join { airgap, ..join_from(&found, &agent_address(ctx, host)) });
    cluster.read_json(ctx, "/version").await?;
    Ok(cluster)
}

/// Name of the current context, and host and port of its server.
fn current(kubeconfig: &str) -> OpResult<(String, String, u16)> {
    let bad = |why: String| {
        OpError::invalid("the kubeconfig cannot be read")
            .because(why)
            .hint("`kubectl config view --raw --minify` prints one")
    };
    let k: Value = serde_saphyr::from_str(kubeconfig).map_err(|e| bad(e.to_string()))?;
    let named = |list: &str, name: &Value| {
        let all = k[list].as_array().into_iter().flatten();
        all.into_iter().find(|e| e["name"] == *name && name.is_string()).cloned()
    };
    let context =
        named("contexts", &k["current-context"]).ok_or_else(|| bad("it has no current context".to_owned()))?;
    let cluster = named("clusters", &context["context"]["cluster"])
        .ok_or_else(|| bad("its context has no cluster".to_owned()))?;
    let server = cluster["cluster"]["server"].as_str().unwrap_or_default();
    let uri: http::Uri = server.parse().map_err(|e| bad(format!("`{server}`: {e}")))?;
    let host =
        uri.host().filter(|h| !h.is_empty()).ok_or_else(|| bad(format!("`{server}` is no address of a server")))?;
    let name = context["name"].as_str().unwrap_or_default().to_owned();
    Ok((name, host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443)))
}

/// Connects to the cluster of a kubeconfig's current context. Its nodes are not known as machines: what needs SSH to
/// a server (joining, upgrades, snapshots) takes [`connect`].
///
/// # Errors
/// `invalid` when it is no kubeconfig; `denied` for a lab's in a run on the real site; `unreachable`.
pub async fn connect_kubeconfig(ctx: &Ctx, kubeconfig: Secret) -> OpResult<Cluster> {
    let (name, host, port) = current(kubeconfig.reveal())?;
    if name.starts_with("lab-") && !ctx.lab {
        return Err(OpError::refused(format!("`{name}` is the cluster of a lab, and this run is not"))
            .on(host)
            .hint("add `--lab`, or pass the kubeconfig of the real cluster"));
    }
    let op = Op::read("k3s", "connect_kubeconfig", &host);
    ctx.run_op(op, |s| async move {
        let cluster = Cluster::new(name, kubeconfig, vec![(host, port)]);
        cluster.read_json(s.ctx(), "/version").await?;
        Ok(cluster)
    })
    .await
}

/// The handle over all servers; keeps the kubeconfig in the state directory.
pub(super) fn make_cluster(ctx: &Ctx, text: &str, address: &str, hosts: &[Host]) -> OpResult<Cluster> {
    let name = context_name(ctx);
    let kubeconfig = rewrite_kubeconfig(text, address, &name)?;
    let path = ctx.state_file("kubeconfig");
    let here = for_this_machine(ctx, &kubeconfig)?;
    let same = std::fs::read_to_string(&path).is_ok_and(|old| old == here);
    if !same {
        crate::site::write_private(&path, here.as_bytes())?;
    }
    // servers by their own addresses come first: a DNS name or VIP is one more way in
    let mut servers = addresses("", hosts);
    if !servers.iter().any(|(a, _)| a == address) {
        servers.push((address.to_owned(), PORT));
    }
    Ok(Cluster::new(name, Secret::new(kubeconfig), servers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_gets_address_and_name() {
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: QQ==\n    server: https://127.0.0.1:6443\n  name: default\ncontexts:\n- context:\n    cluster: default\n    user: default\n  name: default\ncurrent-context: default\nusers:\n- name: default\n  user:\n    client-certificate-data: Qg==\n";
        let k: Value = serde_saphyr::from_str(&rewrite_kubeconfig(text, "10.0.0.11", "lab-x").unwrap()).unwrap();
        assert_eq!(k["clusters"][0]["cluster"]["server"], "https://10.0.0.11:6443");
        assert_eq!(k["clusters"][0]["cluster"]["certificate-authority-data"], "QQ==");
        assert_eq!(
            (k["current-context"].as_str(), k["contexts"][0]["context"]["user"].as_str()),
            (Some("lab-x"), Some("lab-x"))
        );
        assert!(rewrite_kubeconfig("a: 1", "x", "y").is_err());
        let rewritten = rewrite_kubeconfig(text, "fd00::11", "lab-x").unwrap();
        assert_eq!(current(&rewritten).unwrap(), ("lab-x".to_owned(), "fd00::11".to_owned(), 6443));
        let there = forwarded(&rewritten, "fd00::11", "127.0.0.1:40000").unwrap();
        assert_eq!(current(&there).unwrap(), ("lab-x".to_owned(), "127.0.0.1".to_owned(), 40000));
        assert!(there.contains("tls-server-name: fd00::11") && there.contains("certificate-authority-data"), "{there}");
        let other = rewritten.replace("current-context: lab-x", "current-context: other");
        assert!(current(&other).unwrap_err().causes[0].contains("no current context"));
        assert!(current("").is_err() && current("a: [").is_err());
    }
}
