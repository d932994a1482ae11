//! A storage class that is of another share than the site file's.
use super::finding::Finding;
use super::scene::Scene;
use crate::core::error::OpResult;
use crate::nfs::Export;

/// Whether the class of the share is of another one: what the site file says of it is then nowhere to be found, and that
/// is one cause.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn differs(s: &mut Scene) -> OpResult<bool> {
    let Some(cluster) = s.cluster.clone() else { return Ok(false) };
    let own = s.storage_node().map(|n| n.ip);
    let server = Scene::text(&s.site.storage, "nfs_server").or(own);
    let (Some(server), Some(path), Some(class)) =
        (server, Scene::text(&s.site.storage, "nfs_path"), Scene::text(&s.site.storage, "nfs_class"))
    else {
        return Ok(false);
    };
    let Some(cause) = cluster.nfs_class_trouble(&s.ctx, &class, &Export::new(&server, &path)).await? else {
        return Ok(false);
    };
    s.add(Finding {
        id: "class-of-another-share",
        area: "storage",
        target: class,
        cause,
        evidence: "parameters of the class, which cannot change".to_owned(),
        fix: "set `nfs_path` and `nfs_server` back; or name another `nfs_class`, and copy what is needed".to_owned(),
        next: "gpuhost check recipes/deploy.rhai".to_owned(),
    });
    Ok(true)
}
