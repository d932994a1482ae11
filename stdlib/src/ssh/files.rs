//! Files of a host: read, replaced at once, copied.
use std::path::Path;

use rhai::Map;
use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::core::units::Duration;

use super::ensure::WholeFile;
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
        ctx.run_op(op, |s| async move { self.fetch(s.ctx(), path).await }).await
    }

    async fn fetch(&self, ctx: &Ctx, path: &str) -> OpResult<Option<Vec<u8>>> {
        let q = quote(path);
        let script = format!("[ -e {q} ] || exit {ABSENT}\ncat {q}");
        let raw = self.exec_bytes(ctx, &script, b"", &RunOptions::default()).await?;
        match raw.code {
            0 => Ok(Some(raw.stdout)),
            ABSENT => Ok(None),
            _ => Err(OpError::failed(format!("cannot read {path}"))
                .because(String::from_utf8_lossy(&raw.stderr).trim().to_owned())),
        }
    }

    /// Makes a file have exactly this content, mode and owner; says whether it changed.
    ///
    /// # Errors
    /// `failed` when it cannot be written.
    pub async fn write_file(&self, ctx: &Ctx, path: &str, content: &[u8], options: FileOptions) -> OpResult<bool> {
        self.put(ctx, "write_file", path, content, options).await
    }

    /// Copies a local file (relative to the recipe's folder); says whether it changed.
    ///
    /// # Errors
    /// `not_found` when there is no such local file; `denied` outside the granted paths.
    pub async fn copy_to(&self, ctx: &Ctx, local: &str, path: &str, options: FileOptions) -> OpResult<bool> {
        let full = crate::flow::files::granted(ctx, local)?;
        let content = std::fs::read(&full)
            .map_err(|e| OpError::not_found(format!("cannot read `{local}`")).because(e.to_string()))?;
        self.put(ctx, "copy_to", path, &content, options).await
    }

    /// Copies a file of the host to a local path below the recipe's folder; says whether it changed.
    ///
    /// # Errors
    /// `not_found` when the host has no such file; `denied` outside the granted paths.
    pub async fn copy_from(&self, ctx: &Ctx, path: &str, local: &str) -> OpResult<bool> {
        let full = crate::flow::files::granted(ctx, local)?;
        let op = Op::write("ssh", "copy_from", self.name()).args(&json!([path, local]));
        ctx.run_op(op, |s| async move {
            let found = self.fetch(s.ctx(), path).await?;
            let new = found.ok_or_else(|| OpError::not_found(format!("there is no file {path}")))?;
            let old = std::fs::read(&full).ok();
            if old.as_deref() == Some(new.as_slice()) {
                return Ok(false);
            }
            let change = Change::new(
                self.name(),
                format!("local file {local}"),
                old.map(|o| json!(format!("{} bytes", o.len()))),
                Some(json!(format!("{} bytes", new.len()))),
            );
            s.act(local, vec![change], async { save(&full, &new) }).await?;
            Ok(true)
        })
        .await
    }

    async fn put(
        &self,
        ctx: &Ctx,
        verb: &'static str,
        path: &str,
        content: &[u8],
        options: FileOptions,
    ) -> OpResult<bool> {
        let file = WholeFile::new(path, content, &options)?;
        let op = Op::write("ssh", verb, self.name()).args(&json!([path, file.digest(), options.mode, options.owner]));
        ctx.run_op(op, |s| async move {
            let ctx = s.ctx();
            let out = self.exec_raw(ctx, &file.look(), b"").await?;
            let Some((change, act)) = file.differs(self.name(), out.text())? else { return Ok(false) };
            let limits = RunOptions { timeout: Duration::minutes(40), ..RunOptions::default() };
            s.act(path, vec![change], async {
                let out = self.exec_with(ctx, &act, content, &limits).await?;
                if out.code == 0 {
                    return Ok(());
                }
                let mut e = OpError::failed(format!("cannot write {path}"));
                e.causes = out.last_words();
                Err(e)
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Installs packages; the same as `ensure` with that one key.
    ///
    /// # Errors
    /// As [`Host::ensure`].
    pub async fn ensure_packages(&self, ctx: &Ctx, packages: &[&str]) -> OpResult<Vec<Change>> {
        let list: rhai::Array = packages.iter().map(|p| (*p).to_owned().into()).collect();
        let wanted: Map = [("packages".into(), list.into())].into_iter().collect();
        self.ensure(ctx, &wanted).await
    }

    /// Restarts a service, whatever its state.
    ///
    /// # Errors
    /// `failed` with systemd's words.
    pub async fn restart_service(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let op =
            Op::run("ssh", "restart_service", self.name()).class(crate::core::event::Class::Repeatable).args(&name);
        ctx.run_op(op, |s| async move {
            let change = Change::new(self.name(), format!("service {name}"), None, Some(json!("restarted")));
            s.act(format!("service {name}"), vec![change], async {
                let q = quote(name);
                // The journal says why; systemctl only says that.
                let script = format!(
                    "systemctl restart {q} && exit 0\nr=$?\njournalctl -u {q} -n 3 --no-pager -o cat >&2 2>/dev/null\nexit $r"
                );
                let out = self.exec_raw(s.ctx(), &script, b"").await?;
                if out.code == 0 {
                    return Ok(());
                }
                let mut e = OpError::failed(format!("service `{name}` does not start"))
                    .hint(format!("journalctl -u {name}"));
                e.causes = out.last_words();
                Err(e)
            })
            .await
        })
        .await
    }
}

fn save(path: &Path, content: &[u8]) -> OpResult<()> {
    let fail = |e: std::io::Error| OpError::failed(format!("cannot write {}", path.display())).because(e.to_string());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fail)?;
    }
    std::fs::write(path, content).map_err(fail)
}
