//! Containers that run a shell script: a real shell language over the files of the pod's volumes.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bashkit::{Bash, FileSystem, InMemoryFs};
use serde_json::Value;

use super::super::cx::{Cx, with_cluster};
use super::super::text::{arr, s};
use super::kubelet;
use crate::Lab;

/// A claim's volume and where the container has it.
struct Mounted {
    volume: String,
    path: String,
}

fn mounts(cx: &Cx, pod: &Value, container: &str) -> Vec<Mounted> {
    let ns = s(pod, "/metadata/namespace");
    let Some(c) = arr(pod, "/spec/containers").iter().find(|c| s(c, "/name") == container) else { return Vec::new() };
    arr(c, "/volumeMounts")
        .iter()
        .filter_map(|m| {
            let v = arr(pod, "/spec/volumes").iter().find(|v| v["name"] == m["name"])?;
            let claim = cx.get("persistentvolumeclaims", ns, v["persistentVolumeClaim"]["claimName"].as_str()?)?;
            Some(Mounted {
                volume: s(claim, "/spec/volumeName").to_owned(),
                path: s(m, "/mountPath").trim_end_matches('/').to_owned(),
            })
        })
        .collect()
}

/// Runs `script`; the pod ends with its exit code.
pub fn start(cx: &mut Cx, uid: &str, pod: &Value, container: &str, script: String) {
    let mounted = mounts(cx, pod, container);
    let fs = Arc::new(InMemoryFs::new());
    for m in &mounted {
        for (path, text) in cx.c.volumes.get(&m.volume).map(|v| v.files.clone()).unwrap_or_default() {
            fs.add_file(format!("{}/{path}", m.path), text, 0o644);
        }
    }
    let job = Job {
        lab: cx.lab.clone(),
        cluster: cx.c.id.clone(),
        uid: uid.to_owned(),
        pod: pod.clone(),
        container: container.to_owned(),
        mounted,
    };
    // Time must not run on while the script does.
    let mark = cx.lab.clock().busy_guard();
    cx.lab.rt().spawn(async move {
        job.run(fs, &script).await;
        drop(mark);
    });
}

struct Job {
    lab: Lab,
    cluster: String,
    uid: String,
    pod: Value,
    container: String,
    mounted: Vec<Mounted>,
}

impl Job {
    async fn run(self, fs: Arc<InMemoryFs>, script: &str) {
        for m in &self.mounted {
            let _ = fs.mkdir(Path::new(&m.path), true).await;
        }
        let mut bash = Bash::builder().fs(fs.clone()).env("UID", "0").env("EUID", "0").cwd("/").build();
        let (code, log) = match bash.exec(script).await {
            Ok(r) => (i64::from(r.exit_code), format!("{}{}", r.stdout, r.stderr)),
            Err(e) => (1, format!("sh: {e}\n")),
        };
        let mut data: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for m in &self.mounted {
            data.insert(m.volume.clone(), files(&fs, &m.path).await);
        }
        self.lab.clone().with(|w| {
            with_cluster(&self.lab, w, &self.cluster, |cx| {
                for (volume, files) in data {
                    cx.c.volumes.entry(volume).or_default().files = files;
                }
                if let Some(pod) =
                    cx.get("pods", s(&self.pod, "/metadata/namespace"), s(&self.pod, "/metadata/name")).cloned()
                {
                    kubelet::ended(cx, &self.uid, &pod, &self.container, code, &log);
                }
            });
        });
    }
}

/// Text files below `root`, by their path below it.
async fn files(fs: &InMemoryFs, root: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let full = format!("{root}/{dir}");
        for e in fs.read_dir(Path::new(&full)).await.unwrap_or_default() {
            let path = if dir.is_empty() { e.name.clone() } else { format!("{dir}/{}", e.name) };
            if e.metadata.file_type.is_dir() {
                dirs.push(path);
            } else if let Ok(bytes) = fs.read_file(Path::new(&format!("{root}/{path}"))).await {
                out.insert(path, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    out
}
