//! A cluster is made once in its life: what it was then is noted in the comment of the site's pool, and held against what the
//! servers and the site file say before anything is written.
use super::config::Part;
use super::node::{Found, look};
use super::options::ServerOptions;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::proxmox::Proxmox;
use crate::proxmox::birth::Birth;
use crate::site::{RoleKind, Site};
use crate::ssh::Host;

/// What tells two tokens apart and gives neither away.
fn fingerprint(password: &str) -> String {
    shortened(&crate::ssh::digest(password.trim().as_bytes()))
}

/// As much of a hash as tells two of them apart.
pub(super) fn shortened(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// What is noted of the site's cluster; `None` for a run without a site.
///
/// # Errors
/// When the hypervisor does not say.
pub(super) async fn noted(ctx: &Ctx) -> OpResult<Option<Birth>> {
    let Some(site) = ctx.site.clone() else { return Ok(None) };
    Proxmox::connect_site(ctx).await?.birth(ctx, &site).await
}

/// Whether the hypervisor says the same as the server `name` with its CA, and as the site file.
///
/// # Errors
/// `denied` naming each difference.
pub(super) fn same(birth: &Birth, name: &str, ca: &str, o: &ServerOptions) -> OpResult<()> {
    let mut e = OpError::refused("the cluster is not the one that this site was born with").on(name);
    if !ca.starts_with(&birth.ca) {
        e = e.because(format!("its CA is {}, the site's cluster was made with {}", shortened(ca), birth.ca));
    }
    let word = |on: bool| if on { "on" } else { "off" }.to_owned();
    for (what, then, now) in [
        ("cluster_cidr", birth.cluster_cidr.clone(), o.cluster_cidr.clone()),
        ("service_cidr", birth.service_cidr.clone(), o.service_cidr.clone()),
        ("cis", word(birth.cis), word(o.cis)),
    ] {
        if then != now {
            e = e.because(format!("{what}: it was made with {then}, the site file says {now}"));
        }
    }
    if e.causes.is_empty() {
        return Ok(());
    }
    Err(e.hint(
        "nothing was changed: these are fixed at the cluster's birth, which the comment of the site's pool notes \
         (`pvesh get /pools`); put the old values back, or the right server in its place",
    ))
}

/// No server has a cluster, and the hypervisor remembers one.
pub(super) fn lost(site: &str, birth: &Birth) -> OpError {
    OpError::refused("no server has a cluster, but this site had one: a second one would take its place")
        .on(site)
        .because(format!("it was made with CA {} and the token of fingerprint {}", birth.ca, birth.token))
        .hint(
            "nothing was changed: bring the servers' disks back, or restore a snapshot (`gpuhost run \
             recipes/restore.rhai`, onto new machines with `--set new_servers=true`); to begin anew, take the site down first (`gpuhost run \
             recipes/cleanup.rhai`), which takes the note away",
        )
}

/// Notes the birth of a cluster that nothing is noted of.
///
/// # Errors
/// What the hypervisor refused.
pub(super) async fn note(ctx: &Ctx, found: &Found, o: &ServerOptions) -> OpResult<()> {
    let (Some(site), Some(birth)) = (ctx.site.clone(), of(found, o)) else { return Ok(()) };
    let pve = Proxmox::connect_site(ctx).await?;
    if !pve.lacks_birth(ctx, &site).await? {
        return Ok(());
    }
    write(ctx, &pve, &site, Some(&birth)).await
}

/// The birth of the cluster of a server.
fn of(found: &Found, o: &ServerOptions) -> Option<Birth> {
    Some(Birth {
        ca: shortened(found.ca_hash()?),
        token: fingerprint(found.password()?),
        cluster_cidr: o.cluster_cidr.clone(),
        service_cidr: o.service_cidr.clone(),
        cis: o.cis,
    })
}

/// A restored cluster is the site's from now on, whatever was noted.
///
/// # Errors
/// What the hypervisor refused.
pub(super) async fn replace(ctx: &Ctx, found: &Found, o: &ServerOptions) -> OpResult<()> {
    let (Some(site), Some(birth)) = (ctx.site.clone(), of(found, o)) else { return Ok(()) };
    let pve = Proxmox::connect_site(ctx).await?;
    match pve.birth(ctx, &site).await? {
        Some(noted) if noted == birth => Ok(()),
        None if !pve.lacks_birth(ctx, &site).await? => Ok(()),
        _ => write(ctx, &pve, &site, Some(&birth)).await,
    }
}

/// The token of the cluster is another one from now on.
///
/// # Errors
/// What the hypervisor refused.
pub(super) async fn renew_token(ctx: &Ctx, password: &str) -> OpResult<()> {
    let Some(site) = ctx.site.clone() else { return Ok(()) };
    let pve = Proxmox::connect_site(ctx).await?;
    match pve.birth(ctx, &site).await? {
        Some(b) if b.token != fingerprint(password) => {
            write(ctx, &pve, &site, Some(&Birth { token: fingerprint(password), ..b })).await
        }
        _ => Ok(()),
    }
}

async fn write(ctx: &Ctx, pve: &Proxmox, site: &Site, birth: Option<&Birth>) -> OpResult<()> {
    ctx.run_op(Op::write("k3s", "note_birth", site.pool()), |s| async move {
        // Not its values: a rehearsal's cluster has others.
        let change = Change::new(site.pool(), "note of the cluster's birth", None, Some("written".into()));
        s.act(format!("pool {}", site.pool()), vec![change], pve.note_birth(&s, site, birth)).await
    })
    .await
}

/// K3s was taken off a server: the note goes when no server of the site has a cluster any more.
pub(super) async fn forget_after(s: &OpScope, host: &Host) -> OpResult<()> {
    let ctx = s.ctx();
    let Some(site) = ctx.site.clone() else { return Ok(()) };
    if host.node().is_none_or(|n| n.kind != RoleKind::Server) {
        return Ok(());
    }
    let others: Vec<Host> =
        site.nodes_of(RoleKind::Server).filter(|n| n.name != host.name()).map(|n| Host::for_node(&site, n)).collect();
    let asked = ctx.clock.join_all(others.iter().map(|h| ctx.looking(look(ctx, h, Part::Server))).collect()).await;
    // One that does not answer may have it.
    if !asked.iter().all(|f| f.as_ref().is_ok_and(|f| !f.member)) {
        return Ok(());
    }
    Proxmox::connect_site(ctx).await?.note_birth(s, &site, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_ca_and_other_choices_are_refused_and_named() {
        let map = rhai::Map::from([("version".into(), "v1.34.9+k3s1".into())]);
        let o = ServerOptions::read(&map).unwrap();
        let ca = "ab".repeat(32);
        let birth = Birth {
            ca: shortened(&ca),
            token: String::new(),
            cluster_cidr: o.cluster_cidr.clone(),
            service_cidr: o.service_cidr.clone(),
            cis: o.cis,
        };
        assert!(same(&birth, "cp1", &ca, &o).is_ok());
        let other = Birth { ca: "cd".repeat(6), cis: !o.cis, ..birth };
        let e = same(&other, "cp1", &ca, &o).unwrap_err();
        assert_eq!((e.causes.len(), e.target.as_str()), (2, "cp1"), "{e:?}");
        assert!(e.causes[0].contains("its CA is abababababab") && e.causes[1].starts_with("cis: "), "{e:?}");
    }

    #[test]
    fn a_fingerprint_says_which_token_and_not_what_it_is() {
        assert_eq!(fingerprint("a token\n"), fingerprint("a token"));
        assert_ne!(fingerprint("a token"), fingerprint("another"));
        assert_eq!(fingerprint("a token").len(), 12);
    }
}
