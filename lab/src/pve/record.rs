//! A record of every request and its answer, one JSON line each: tests hold it against the official schemas.
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::reply::Reply;
use super::router::Call;
use crate::Lab;

/// Names the folder that records go to.
pub const VARIABLE: &str = "GPUHOST_LAB_RECORD";

/// Where the record goes, if anywhere.
#[derive(Default)]
pub struct Recorder(Mutex<Option<std::fs::File>>);

impl Lab {
    /// Keeps a record of the Proxmox API's traffic in a file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn record_api(&self, file: &Path) -> std::io::Result<()> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
        *self.pve().recorder.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }
}

/// Starts a record where the environment asks for one.
///
/// # Errors
/// When the file cannot be made.
pub fn from_environment(lab: &Lab) -> std::io::Result<()> {
    let Some(dir) = std::env::var_os(VARIABLE) else { return Ok(()) };
    std::fs::create_dir_all(&dir)?;
    lab.record_api(&Path::new(&dir).join(format!("pve-{}.jsonl", std::process::id())))
}

/// Writes one line. `ours`: a gpuhost run has sent the request, at lab time `since_ms`.
pub fn note(lab: &Lab, c: &Call, ours: bool, since_ms: u64, reply: &Reply) {
    let mut file = lab.pve().recorder.0.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = file.as_mut() else { return };
    let mut line = json!({
        "release": lab.with(|w| w.pve.version.clone()), "method": c.method, "path": format!("/{}", c.path.join("/")),
        "segments": c.path, "params": c.params.0, "ours": ours,
        "took_ms": lab.clock().now_ms() - since_ms,
    });
    match reply {
        Ok(out) => {
            line["code"] = json!(200);
            line["data"] = out.data.clone();
        }
        Err(e) => {
            line["code"] = json!(e.code);
            line["message"] = json!(e.message);
        }
    }
    if let Err(e) = writeln!(file, "{line}") {
        tracing::warn!("the record of the API's traffic is not complete: {e}");
    }
}
