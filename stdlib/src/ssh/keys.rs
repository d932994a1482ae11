//! The private key that logs in to nodes: read by reference, generated once.
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Secret;
use crate::site::Site;

/// The public half of the site's key, as one line for `authorized_keys`.
///
/// # Errors
/// When the key can neither be read nor made.
pub fn public_key(ctx: &Ctx, site: &Site) -> OpResult<String> {
    public_line(&*load(ctx, &site.ssh.key)?)
}

/// The recipe that puts the site's key into machines that were made with another.
pub const PUT_IN: &str = "gpuhost run recipes/rotate-ssh-key.rhai";

/// What to do where the machines know another key than the site's.
#[must_use]
pub fn other_key(ctx: &Ctx, site: &Site) -> String {
    let copy = match site.ssh.key.strip_prefix("state:") {
        Some(name) => {
            let here = ctx.state_dir.join(name);
            format!("copy `{name}` of the state directory that made the machines to {}", here.display())
        }
        None => format!("let `ssh.key` (`{}`) be the key that made the machines", site.ssh.key),
    };
    format!("{copy}; where the key is a new one on purpose: `{PUT_IN}`")
}

/// `SHA256:…` of a line for `authorized_keys`, as `ssh-keygen -l` shows it.
#[must_use]
pub fn fingerprint(line: &str) -> String {
    match russh::keys::ssh_key::PublicKey::from_openssh(line.trim()) {
        Ok(key) => key.fingerprint(HashAlg::Sha256).to_string(),
        Err(_) => format!("a line that is no key (sha256 {:.12})", super::digest(line.as_bytes())),
    }
}

fn public_line(key: &PrivateKey) -> OpResult<String> {
    key.public_key().to_openssh().map_err(|e| OpError::invalid("the ssh key has no public half").because(e.to_string()))
}

/// The private key behind a secret reference; `state:` keys are made on first use.
///
/// # Errors
/// When it can neither be read nor made.
pub fn load(ctx: &Ctx, reference: &str) -> OpResult<Arc<PrivateKey>> {
    load_with(ctx, reference, None)
}

/// As [`load`]; a locked key is opened with the passphrase behind a reference, else with one asked for at the
/// terminal. Opened once in a run.
pub(super) fn load_with(ctx: &Ctx, reference: &str, passphrase: Option<&str>) -> OpResult<Arc<PrivateKey>> {
    let cache = format!("ssh key {reference}");
    if let Some(k) = ctx.cached::<PrivateKey>(&cache) {
        return Ok(k);
    }
    // Several hosts of one fan-out: the passphrase is asked for once.
    let gate = super::shared(ctx, &format!("ssh key gate {reference}"), || Mutex::new(()));
    let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(k) = ctx.cached::<PrivateKey>(&cache) {
        return Ok(k);
    }
    let found = match source(ctx, reference)? {
        Source::Text(text) => parse(&text, reference)?,
        Source::Made(key) => *key,
    };
    let key = Arc::new(if found.is_encrypted() { open(ctx, &found, reference, passphrase)? } else { found });
    ctx.keep(cache, key.clone());
    Ok(key)
}

fn open(ctx: &Ctx, locked: &PrivateKey, reference: &str, passphrase: Option<&str>) -> OpResult<PrivateKey> {
    let print = locked.fingerprint(HashAlg::Sha256);
    let given = match passphrase {
        Some(p) => secret(ctx, "ssh passphrase", p)?,
        None => ctx.consent.secret(&format!("passphrase of the ssh key {print} (`{reference}`)")).map_err(|e| {
            e.because(format!("`{reference}` is locked with a passphrase"))
                .hint("pass `passphrase: \"env:NAME\"`, or add the key to an ssh agent and pass `agent: true`")
        })?,
    };
    ctx.hide(given.reveal());
    locked.decrypt(given.reveal()).map_err(|e| {
        OpError::denied(format!("the passphrase of the ssh key {print} (`{reference}`) is wrong"))
            .because(e.to_string())
            .hint("try it with `ssh-keygen -y -f FILE`")
    })
}

/// A secret behind a reference, or asked for at the terminal (`ask`) once in a run.
pub(super) fn secret(ctx: &Ctx, name: &str, reference: &str) -> OpResult<Secret> {
    if reference != "ask" {
        return ctx.secret_ref(name, reference);
    }
    let key = format!("asked {name}");
    let gate = super::shared(ctx, &format!("{key} gate"), || Mutex::new(()));
    let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(s) = ctx.cached::<Secret>(&key) {
        return Ok(s.as_ref().clone());
    }
    let given = ctx.consent.secret(name)?;
    ctx.hide(given.reveal());
    ctx.keep(key, Arc::new(given.clone()));
    Ok(given)
}

/// The certificate of a key: the named file, else `KEY-cert.pub` beside a key file.
pub(super) fn certificate(ctx: &Ctx, reference: &str, named: Option<&Path>) -> OpResult<Option<Certificate>> {
    let beside = match (named, reference.split_once(':')) {
        (Some(path), _) => path.to_owned(),
        (None, Some(("file", name))) => {
            let mut path = file_path(ctx, name).into_os_string();
            path.push("-cert.pub");
            PathBuf::from(path)
        }
        _ => return Ok(None),
    };
    let text = match std::fs::read_to_string(&beside) {
        Ok(t) => t,
        Err(_) if named.is_none() => return Ok(None),
        Err(e) => {
            return Err(OpError::not_found(format!("cannot read the certificate {}", beside.display()))
                .because(e.to_string())
                .hint("correct `certificate`"));
        }
    };
    Certificate::from_openssh(text.trim()).map(Some).map_err(|e| {
        OpError::invalid(format!("{} is no certificate", beside.display()))
            .because(e.to_string())
            .hint("it is what `ssh-keygen -s CA -I NAME -n USER KEY.pub` writes")
    })
}

/// Where the text of a key comes from.
enum Source {
    Text(String),
    Made(Box<PrivateKey>),
}

fn source(ctx: &Ctx, reference: &str) -> OpResult<Source> {
    let bad = || {
        OpError::invalid(format!("`{reference}` is no secret reference"))
            .hint("write `state:ssh_key`, `file:PATH` or `env:NAME`")
    };
    let (scheme, name) = reference.split_once(':').ok_or_else(bad)?;
    match scheme {
        "state" => match ctx.secrets.get(name) {
            Some(text) => Ok(Source::Text(text.clone())),
            None => ensure_file(&ctx.state_dir.join(name), reference).map(|k| Source::Made(Box::new(k))),
        },
        "file" => read_text(&file_path(ctx, name), reference).map(Source::Text),
        "env" => match std::env::var(name) {
            Ok(text) => Ok(Source::Text(text)),
            Err(_) => Err(OpError::not_found(format!("environment variable `{name}` is not set"))
                .hint(format!("set it, or change `ssh.key = \"{reference}\"` in the site file"))),
        },
        _ => Err(bad()),
    }
}

/// `file:` paths are relative to the site file.
pub(super) fn file_path(ctx: &Ctx, name: &str) -> PathBuf {
    if let Some(rest) = name.strip_prefix("~/")
        && let Some(home) = std::env::var_os("HOME")
    {
        return Path::new(&home).join(rest);
    }
    let base = ctx.site.as_ref().and_then(|s| s.path.parent().map(Path::to_path_buf));
    base.unwrap_or_else(|| ctx.base_dir.clone()).join(name)
}

fn read_text(path: &Path, reference: &str) -> OpResult<String> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        OpError::not_found(format!("cannot read the ssh key {}", path.display()))
            .because(e.to_string())
            .hint(format!("`{reference}` comes from `ssh.key` of the site file, from `key`, or from ~/.ssh/config"))
    })?;
    let mode = std::fs::metadata(path).map(|m| m.permissions().mode()).unwrap_or(0o600);
    if mode & 0o077 != 0 {
        return Err(OpError::denied(format!("the ssh key {} can be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(text)
}

fn read_file(path: &Path, reference: &str) -> OpResult<PrivateKey> {
    parse(&read_text(path, reference)?, reference)
}

/// OpenSSH's own format, open or locked; other formats only without passphrase.
/// The public half of a private key's text as one line; `None` for text that holds no open key.
#[must_use]
pub fn public_half(text: &str) -> Option<String> {
    public_line(&parse(text, "").ok()?).ok()
}

fn parse(text: &str, reference: &str) -> OpResult<PrivateKey> {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return Ok(key);
    }
    russh::keys::decode_secret_key(text, None).map_err(|e| {
        let err = OpError::invalid(format!("`{reference}` holds no usable private key")).because(e.to_string());
        if matches!(e, russh::keys::Error::KeyIsEncrypted) {
            err.hint("rewrite it in OpenSSH's format: `ssh-keygen -p -f FILE`")
        } else {
            err
        }
    })
}

/// Reads the key at `path`, or makes an ed25519 one there (0600). Two processes get the same key.
fn ensure_file(path: &Path, reference: &str) -> OpResult<PrivateKey> {
    if path.exists() {
        return read_file(path, reference);
    }
    let fail = |what: &str, e: String| {
        OpError::failed(format!("cannot make the ssh key {}", path.display())).because(format!("{what}: {e}"))
    };
    let mut key =
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(|e| fail("generate", e.to_string()))?;
    key.set_comment("gpuhost");
    let text = key.to_openssh(LineEnding::LF).map_err(|e| fail("encode", e.to_string()))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| fail("create folder", e.to_string()))?;
    let temp =
        dir.join(format!(".{}.{}", path.file_name().unwrap_or_default().to_string_lossy(), uuid::Uuid::new_v4()));
    let write = || -> std::io::Result<()> {
        let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        f.write_all(text.as_bytes())?;
        f.sync_all()
    };
    write().map_err(|e| fail("write", e.to_string()))?;
    // A link fails if somebody else was faster: then theirs is the key.
    let linked = std::fs::hard_link(&temp, path);
    std::fs::remove_file(&temp).ok();
    match linked {
        Ok(()) => {
            let mut public = path.as_os_str().to_owned();
            public.push(".pub");
            std::fs::write(public, format!("{}\n", public_line(&key)?)).ok();
            Ok(key)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => read_file(path, reference),
        Err(e) => Err(fail("write", e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh_key");
        let a = ensure_file(&path, "state:ssh_key").unwrap();
        let b = ensure_file(&path, "state:ssh_key").unwrap();
        assert_eq!(public_line(&a).unwrap(), public_line(&b).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(public_line(&a).unwrap().starts_with("ssh-ed25519 AAAA"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let e = ensure_file(&path, "state:ssh_key").unwrap_err();
        assert!(e.message.ends_with("can be read by others"), "{e}");
    }
}
