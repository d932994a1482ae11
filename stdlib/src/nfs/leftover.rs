//! What a probe's volume leaves on an NFS share: its class may keep the directory, and the one above it stays in any case.
use std::time::Duration;

use serde_json::{Value, json};

use crate::core::error::{OpError, OpResult};
use crate::core::op::OpScope;
use crate::kubernetes::Cluster;

/// How long the pod that removes it may take.
const LIMIT: Duration = Duration::from_secs(180);

/// A directory of a share that only a probe has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    server: String,
    share: String,
    dir: String,
}

/// The directory of `pv` that is a probe's own: the first part of its path that names the probe. `None` for volumes that
/// are not on a share, have no directory of their own, or are kept under another name.
fn of(pv: &Value, marks: &[&str]) -> Option<Leftover> {
    let about = &pv["spec"]["csi"]["volumeAttributes"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    if pv["spec"]["csi"]["driver"] != "nfs.csi.k8s.io" || text(&about["onDelete"]).eq_ignore_ascii_case("archive") {
        return None;
    }
    let sub = text(&about["subDir"]);
    let parts: Vec<&str> = sub.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").collect();
    let name = text(&pv["metadata"]["name"]);
    let own = parts.iter().position(|p| marks.iter().chain([&name.as_str()]).any(|m| p.contains(m)))?;
    Some(Leftover { server: text(&about["server"]), share: text(&about["share"]), dir: parts[..=own].join("/") })
}

impl Cluster {
    /// What the volumes of a probe will leave behind; `marks` are words that only the probe's directories have.
    pub(super) async fn leftovers(
        &self,
        s: &OpScope,
        ns: &str,
        claim: Option<&str>,
        marks: &[&str],
    ) -> OpResult<Vec<Leftover>> {
        let ours = |pv: &&Value| {
            let of = &pv["spec"]["claimRef"];
            of["namespace"] == ns && claim.is_none_or(|c| of["name"] == c)
        };
        Ok(self.list_in(s.ctx(), "pv", "").await?.iter().filter(ours).filter_map(|pv| of(pv, marks)).collect())
    }

    /// Removes them with a pod in the throw-away namespace `ns`, which mounts the share.
    ///
    /// # Errors
    /// `failed` with what the pod said.
    pub(super) async fn sweep(&self, s: &OpScope, ns: &str, all: &[Leftover]) -> OpResult<()> {
        for (i, l) in all.iter().enumerate() {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("clean-{i}"), "namespace": ns},
                "spec": {"restartPolicy": "Never",
                    "containers": [{"name": "clean", "image": super::classes::BUSYBOX,
                        "command": ["rm", "-rf", format!("/share/{}", l.dir)],
                        "volumeMounts": [{"name": "share", "mountPath": "/share"}]}],
                    "volumes": [{"name": "share", "nfs": {"server": l.server, "path": l.share}}]}});
            let end = self.run_to_end(s, &pod, LIMIT).await?;
            if end.phase != "Succeeded" {
                let said = end.log.lines().last().unwrap_or("no log").to_owned();
                return Err(OpError::failed(format!("the probe's directory `{}` stays on the share", l.dir))
                    .on(format!("{}:{}", l.server, l.share))
                    .because(said)
                    .hint("remove it by hand"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_probes_own_directory_is_removed() {
        let pv = |sub: &str, on_delete: &str| {
            json!({"metadata": {"name": "pvc-1"}, "spec": {"csi": {"driver": "nfs.csi.k8s.io", "volumeAttributes":
                {"server": "10.0.0.31", "share": "/srv/nfs", "subDir": sub, "onDelete": on_delete}}}})
        };
        let dir = |sub: &str| of(&pv(sub, "retain"), &["gpuhost-verify-a1"]).map(|l| l.dir);
        assert_eq!(dir("gpuhost-verify-a1/probe").as_deref(), Some("gpuhost-verify-a1"));
        assert_eq!(dir("k8s/gpuhost-verify-a1-probe/x").as_deref(), Some("k8s/gpuhost-verify-a1-probe"));
        assert_eq!(dir("a/pvc-1").as_deref(), Some("a/pvc-1"), "named after the volume");
        assert_eq!(dir("shared"), None, "others use it too");
        assert_eq!(of(&pv("gpuhost-verify-a1/probe", "archive"), &["gpuhost-verify-a1"]), None);
    }
}
