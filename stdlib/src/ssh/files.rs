//! Files of a host: read, replaced atomically, copied.
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;

use super::host::Host;
use super::options::{FileOptions, RunOptions};
use super::quote::quote;

/// Exit code of our own for "there is no such file".
const ABSENT: i64 = 66;

impl Host {
    /// The content of a file as root; `None` when there is none.
    ///
    /// # Errors
    /// `failed` when it cannot be read.
    pub async fn read_file(&self, ctx: &Ctx, path: &str) -> OpResult<Option<Vec<u8>>> {
        let op = Op::read("ssh", "read_file", self.name()).args(&path);
        ctx.run_op(op, |s| async move {
            let q = quote(path);
            let script = format!("[ -e {q} ] || exit {ABSENT}\ncat {q}");
            let raw = self.exec_bytes(s.ctx(), &script, b"", &RunOptions::default()).await?;
            match raw.code {
                0 => Ok(Some(raw.stdout)),
                ABSENT => Ok(None),
                _ => Err(OpError::failed(format!("cannot read {path}"))
                    .because(String::from_utf8_lossy(&raw.stderr).trim().to_owned())),
            }
        })
        .await
    }

    /// Makes a file have exactly this content, mode and owner; says whether it changed.
    ///
    /// # Errors
    /// `failed` when it cannot be written.
    pub async fn write_file(&self, ctx: &Ctx, path: &str, content: &[u8], options: FileOptions) -> OpResult<bool> {
        let _ = (ctx, path, content, options);
        Err(OpError::invalid("write_file is being built"))
    }

    /// Brings the host into the wanted state; returns what differed.
    ///
    /// # Errors
    /// `invalid` for unknown keys; `failed` naming what was done and what was not.
    pub async fn ensure(&self, ctx: &Ctx, wanted: &rhai::Map) -> OpResult<Vec<Change>> {
        let _ = (ctx, wanted);
        Err(OpError::invalid("ensure is being built"))
    }
}
