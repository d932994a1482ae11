//! Files of a host: read, replaced at once, copied both ways.
use std::path::Path;

use rhai::Map;
use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};

use super::exec::{Again, tail};
use super::folders;
use super::host::Host;
use super::options::{FileOptions, RunOptions};
use super::quote::quote;
use super::remote_file::{Wanted, digest, look, parse};
use super::transfer::{Source, local_digest};

/// Exit code of our own for "there is no such file".
const ABSENT: i64 = 66;

impl Host {
    /// The content of a file as root; `None` when there is none.
    ///
    /// # Errors
    /// `failed` when it cannot be read.
    pub async fn read_file(&self, ctx: &Ctx, path: &str) -> OpResult<Option<Vec<u8>>> {
        let op = Op::read("ssh", "read_file", self.name()).args(&path);
        ctx.run_op(op, |s| async move { self.content(s.ctx(), path).await }).await
    }

    async fn content(&self, ctx: &Ctx, path: &str) -> OpResult<Option<Vec<u8>>> {
        let q = quote(path);
        let script = format!("[ -e {q} ] || exit {ABSENT}\ncat <{q}");
        let raw = self.exec_bytes(ctx, &script, b"", &RunOptions::default(), Again::Harmless).await?;
        match raw.code {
            0 => Ok(Some(raw.stdout)),
            ABSENT => Ok(None),
            _ => Err(OpError::failed(format!("cannot read {path}")).because(tail(&raw.stderr))),
        }
    }

    /// Makes a file have exactly this content, mode and owner; says whether it changed.
    ///
    /// # Errors
    /// `failed` when it cannot be written.
    pub async fn write_file(&self, ctx: &Ctx, path: &str, content: &[u8], options: FileOptions) -> OpResult<bool> {
        absolute(path)?;
        options.check()?;
        let digest = digest(content);
        let op = Op::write("ssh", "write_file", self.name()).args(&json!([path, digest, options.mode, options.owner]));
        ctx.run_op(op, |s| async move {
            let text = std::str::from_utf8(content).ok().filter(|t| t.len() <= 65_536);
            let wanted = Wanted { path, digest, len: content.len() as u64, options: &options, text };
            self.put(&s, &wanted, &Source::Bytes(content)).await
        })
        .await
    }

    /// Copies a local file or folder (relative to the recipe's folder); says whether something changed.
    ///
    /// # Errors
    /// `not_found` when there is no such local file; `denied` outside the granted paths.
    pub async fn copy_to(&self, ctx: &Ctx, local: &str, path: &str, options: FileOptions) -> OpResult<bool> {
        absolute(path)?;
        options.check()?;
        let full = crate::flow::files::granted(ctx, local)?;
        let absent = |e: std::io::Error| {
            OpError::not_found(format!("cannot read `{local}`"))
                .because(e.to_string())
                .hint(format!("the path is taken from {}", ctx.base_dir.display()))
        };
        if std::fs::metadata(&full).map_err(absent)?.is_dir() {
            return folders::copy_to(self, ctx, &full, path, options).await;
        }
        let (digest, len) = local_digest(&full).await.map_err(absent)?;
        let op = Op::write("ssh", "copy_to", self.name()).args(&json!([path, digest, options.mode, options.owner]));
        ctx.run_op(op, |s| async move { self.put_local(&s, &full, path, digest, len, &options).await }).await
    }

    /// One local file onto the host, inside an op.
    pub(super) async fn put_local(
        &self,
        s: &OpScope,
        full: &Path,
        path: &str,
        digest: String,
        len: u64,
        options: &FileOptions,
    ) -> OpResult<bool> {
        let text = if len <= 65_536 { std::fs::read_to_string(full).ok() } else { None };
        let wanted = Wanted { path, digest, len, options, text: text.as_deref() };
        self.put(s, &wanted, &Source::File(full)).await
    }

    /// Copies a file or folder of the host to a local path below the recipe's folder; says whether something changed.
    ///
    /// # Errors
    /// `not_found` when the host has no such file; `denied` outside the granted paths.
    pub async fn copy_from(&self, ctx: &Ctx, path: &str, local: &str) -> OpResult<bool> {
        absolute(path)?;
        let full = crate::flow::files::granted(ctx, local)?;
        let op = Op::write("ssh", "copy_from", self.name()).args(&json!([path, local]));
        ctx.run_op(op, |s| async move {
            let q = quote(path);
            let script = format!(
                "if [ -d {q} ]; then echo folder; elif [ -f {q} ]; then sha256sum <{q} && stat -L -c %s {q}; else exit {ABSENT}; fi"
            );
            let out = self.exec_look(s.ctx(), &script, b"", &RunOptions::default()).await?;
            if out.code == ABSENT {
                return Err(OpError::not_found(format!("there is no file {path}")).hint("`ls` its folder on the host"));
            }
            if out.code != 0 {
                return Err(OpError::failed(format!("cannot read {path}")).because(tail(out.stderr.as_bytes())));
            }
            if out.text() == "folder" {
                return folders::copy_from(self, &s, path, &full, local).await;
            }
            let mut words = out.stdout.split_whitespace().filter(|w| *w != "-");
            let (Some(digest), Some(Ok(len))) = (words.next(), words.next().map(str::parse)) else {
                return Err(OpError::failed(format!("cannot tell the size of {path}")).last_seen(out.text().to_owned()));
            };
            self.fetch(&s, path, &full, local, digest, len).await
        })
        .await
    }

    /// One file of the host onto this machine, inside an op.
    pub(super) async fn fetch(
        &self,
        s: &OpScope,
        path: &str,
        full: &Path,
        local: &str,
        digest: &str,
        len: u64,
    ) -> OpResult<bool> {
        let old = local_digest(full).await.ok();
        if old.as_ref().is_some_and(|(d, _)| d == digest) {
            return Ok(false);
        }
        let before = old.map(|(_, n)| json!(format!("{n} bytes")));
        let change =
            Change::new(self.name(), format!("local file {local}"), before, Some(json!(format!("{len} bytes"))));
        s.act(local, vec![change], self.download(s.ctx(), path, full, digest, len)).await?;
        Ok(true)
    }

    async fn put(&self, s: &OpScope, wanted: &Wanted<'_>, source: &Source<'_>) -> OpResult<bool> {
        let ctx = s.ctx();
        let runs = wanted.options.runs();
        let out = self.exec_look(ctx, &look(wanted.path, &wanted.digest), b"", &runs).await?;
        if out.code != 0 {
            return Err(OpError::failed(format!("cannot read {}", wanted.path)).because(tail(out.stderr.as_bytes())));
        }
        let Some(plan) = wanted.plan(self.name(), &parse(wanted.path, &out.stdout)?) else { return Ok(false) };
        if let Some(diff) = plan.diff.as_ref().filter(|d| !d.is_empty()) {
            s.output("diff", format!("{}\n{}", wanted.path, diff.trim_end()));
        }
        let change = plan.change.clone();
        s.act(wanted.path, vec![change], self.upload(ctx, wanted, &plan, source, &runs)).await?;
        Ok(true)
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
        let op = Op::run("ssh", "restart_service", self.name()).class(Class::Repeatable).args(&name);
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

fn absolute(path: &str) -> OpResult<()> {
    if !path.starts_with('/') {
        return Err(OpError::invalid(format!("`{path}` is no absolute path of the host")).hint("begin it with `/`"));
    }
    if path.contains('\0') || path.ends_with('/') {
        return Err(OpError::invalid(format!("`{}` is no path of a file", path.escape_debug())));
    }
    Ok(())
}
