//! Secret references: `env:NAME`, `file:PATH`, `state:NAME`.
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Secret;

impl Ctx {
    /// Path of a generated secret or other kept file in the state directory.
    #[must_use]
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    /// The secret behind a reference. `name` is what the lab (or `--secret`) may override it by.
    ///
    /// # Errors
    /// `not_found` naming the variable or file; `denied` for a file that others may read.
    pub fn secret_ref(&self, name: &str, reference: &str) -> OpResult<Secret> {
        if let Some(given) = self.secrets.get(name) {
            self.hide(given);
            return Ok(Secret::new(given.clone()));
        }
        let text = match reference.split_once(':') {
            Some(("env", var)) => std::env::var(var).ok().filter(|v| !v.trim().is_empty()).ok_or_else(|| {
                let how = if std::env::var_os(var).is_some() { "holds no text" } else { "is not set" };
                OpError::not_found(format!("environment variable `{var}` {how}"))
                    .on(name)
                    .hint(format!("export {var}=…  (it holds the secret `{name}`)"))
            })?,
            Some(("file", path)) => read_private(&self.site_relative(path)).map_err(|e| e.on(name))?,
            Some(("state", file)) => self.state_secret(file)?,
            _ => {
                return Err(OpError::invalid(format!("`{reference}` is not a secret reference"))
                    .on(name)
                    .hint("use `env:NAME`, `file:PATH` or `state:NAME`"));
            }
        };
        self.hide(&text);
        Ok(Secret::new(text))
    }

    fn site_relative(&self, path: &str) -> PathBuf {
        let p = Path::new(path);
        if p.is_absolute() {
            return p.to_owned();
        }
        let base = self.site.as_ref().and_then(|s| s.path.parent().map(Path::to_owned));
        base.unwrap_or_else(|| self.base_dir.clone()).join(p)
    }

    /// A random secret of the state directory, made on first use.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn state_secret(&self, file: &str) -> OpResult<String> {
        let path = self.state_file(file);
        if path.exists() {
            return read_private(&path);
        }
        let bytes: [u8; 24] = rand::random();
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        write_private(&path, text.as_bytes())?;
        Ok(text)
    }
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// `not_found`, or `denied` when group or others may read it.
pub fn read_private(path: &Path) -> OpResult<String> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|e| OpError::not_found(format!("cannot read the secret file `{shown}`")).because(e.to_string()))?;
    let mode = fs::metadata(path).map(|m| m.permissions().mode() & 0o077).unwrap_or(0);
    if mode != 0 {
        return Err(OpError::denied(format!("`{shown}` may be read by others")).hint(format!("chmod 600 {shown}")));
    }
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Writes a file that only its owner may read, atomically.
///
/// # Errors
/// `failed` with the system's reason.
pub fn write_private(path: &Path, bytes: &[u8]) -> OpResult<()> {
    let shown = path.display().to_string();
    let fail = |e: std::io::Error| OpError::failed(format!("cannot write `{shown}`")).because(e.to_string());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(fail)?;
    }
    let tmp = path.with_extension(format!("tmp{}", std::process::id()));
    let mut f = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp).map_err(fail)?;
    let done = f.write_all(bytes).and_then(|()| f.sync_all()).and_then(|()| fs::rename(&tmp, path));
    if done.is_err() {
        // A full disk is not filled with halves.
        fs::remove_file(&tmp).ok();
    }
    done.map_err(fail)
}
