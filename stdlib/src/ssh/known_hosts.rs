//! Which host keys are trusted: our own pins first, then the user's `known_hosts`.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, HashAlg, PublicKey};
use sha1::{Digest, Sha1};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};

use super::pattern;

/// Counts our own changes of the file: two within one tick of the file system look the same.
const EDITION: &str = "known_hosts edition";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

#[derive(Debug, Clone)]
struct Line {
    marker: Marker,
    hosts: String,
    kind: String,
    key: String,
    place: String,
}

/// The lines of all known_hosts files.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
}

/// What the files say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Trusted.
    Known,
    /// The host is not in the files.
    Unknown,
    /// The host is there with keys of other types only.
    OtherTypes(Vec<String>),
    /// The host is there with another key of this type (`file:line`).
    Changed(String),
    /// The key is revoked (`file:line`).
    Revoked(String),
    /// The host is only vouched for by a certificate authority.
    Authority(String),
}

impl KnownHosts {
    /// Reads our own pins (`<state_dir>/known_hosts`), then `files`; absent files are empty. Kept while none of
    /// the files changes.
    pub(super) fn load(ctx: &Ctx, files: &[PathBuf]) -> Arc<Self> {
        let paths: Vec<PathBuf> = std::iter::once(ctx.state_dir.join("known_hosts")).chain(files.to_vec()).collect();
        let state: Vec<_> =
            paths.iter().map(|p| std::fs::metadata(p).ok().map(|m| (m.len(), m.modified().ok()))).collect();
        let edition = super::shared(ctx, EDITION, || AtomicU64::new(0)).load(Ordering::SeqCst);
        let key = format!("known_hosts {edition} {paths:?} {state:?}");
        super::shared(ctx, &key, || {
            let mut all = KnownHosts::default();
            for path in &paths {
                if let Ok(text) = std::fs::read_to_string(path) {
                    all.add(&text, &path.display().to_string());
                }
            }
            all
        })
    }

    /// Whether a certificate authority may vouch for the host.
    #[must_use]
    pub fn has_authority(&self, host: &str, port: u16) -> bool {
        let name = name_of(host, port);
        self.lines.iter().any(|l| l.marker == Marker::Authority && matches(&l.hosts, &name))
    }

    /// `Ok` when an authority that the files trust for this host says that the key is the host's; `now` in seconds.
    ///
    /// # Errors
    /// `denied` with the reason.
    pub fn accept_certificate(&self, host: &str, port: u16, cert: &Certificate, now: u64) -> OpResult<()> {
        let shown = name_of(host, port);
        let authority = PublicKey::from(cert.signature_key().clone());
        let ca = authority.fingerprint(HashAlg::Sha256);
        let no = |why: String| {
            OpError::denied(format!("the host certificate of `{shown}` is not good"))
                .because(why)
                .hint("make a new one with `ssh-keygen -s CA -h -n NAMES HOST_KEY.pub`, or pin the host's key")
        };
        let of_host: Vec<&Line> = self.lines.iter().filter(|l| matches(&l.hosts, &shown)).collect();
        let own = PublicKey::from(cert.public_key().clone());
        for key in [&own, &authority] {
            let (_, body) = parts(key);
            if let Some(l) = of_host.iter().find(|l| l.marker == Marker::Revoked && l.key == body) {
                return Err(no(format!("its key or its authority is revoked by {}", l.place)));
            }
        }
        let (kind, body) = parts(&authority);
        if !of_host.iter().any(|l| l.marker == Marker::Authority && l.kind == kind && l.key == body) {
            return Err(no(format!("no @cert-authority line for this host has its authority {ca}")));
        }
        if cert.cert_type() != CertType::Host {
            return Err(no("it is a certificate for users".to_owned()));
        }
        let plain = host.to_ascii_lowercase();
        let names: Vec<String> = cert.valid_principals().iter().map(|p| p.to_ascii_lowercase()).collect();
        if !names.iter().any(|p| pattern::wildcard(p, &plain)) {
            let for_ = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
            return Err(no(format!("it is for {for_}")));
        }
        if let Some((name, _)) = cert.critical_options().iter().next() {
            return Err(no(format!("it has the critical option `{name}`")));
        }
        if now < cert.valid_after() || now >= cert.valid_before() {
            return Err(no("it is not valid at this time".to_owned()));
        }
        cert.validate_at(now, [&ca]).map_err(|e| no(e.to_string()))
    }

    /// Adds the lines of one file; what cannot be read is skipped, as OpenSSH does.
    pub fn add(&mut self, text: &str, file: &str) {
        for (n, raw) in text.lines().enumerate() {
            if let Some(line) = parse_line(raw, format!("{file}:{}", n + 1)) {
                self.lines.push(line);
            }
        }
    }

    /// Key types under which the host is known, in file order.
    #[must_use]
    pub fn kinds(&self, host: &str, port: u16) -> Vec<String> {
        let name = name_of(host, port);
        let mut out: Vec<String> = Vec::new();
        for l in self.lines.iter().filter(|l| l.marker == Marker::None && matches(&l.hosts, &name)) {
            if !out.contains(&l.kind) {
                out.push(l.kind.clone());
            }
        }
        out
    }

    /// What the files say about `kind key` (base64) of a host.
    #[must_use]
    pub fn check(&self, host: &str, port: u16, kind: &str, key: &str) -> Verdict {
        let name = name_of(host, port);
        let of_host: Vec<&Line> = self.lines.iter().filter(|l| matches(&l.hosts, &name)).collect();
        if let Some(l) = of_host.iter().find(|l| l.marker == Marker::Revoked && l.key == key) {
            return Verdict::Revoked(l.place.clone());
        }
        let plain: Vec<&&Line> = of_host.iter().filter(|l| l.marker == Marker::None).collect();
        if plain.iter().any(|l| l.kind == kind && l.key == key) {
            return Verdict::Known;
        }
        if let Some(l) = plain.iter().find(|l| l.kind == kind) {
            return Verdict::Changed(l.place.clone());
        }
        if !plain.is_empty() {
            return Verdict::OtherTypes(self.kinds(host, port));
        }
        match of_host.iter().find(|l| l.marker == Marker::Authority) {
            Some(l) => Verdict::Authority(l.place.clone()),
            None => Verdict::Unknown,
        }
    }

    /// `Ok` when the key is trusted; else an error that says what to do.
    ///
    /// # Errors
    /// `denied` for every other verdict.
    pub fn accept(&self, host: &str, port: u16, key: &PublicKey) -> OpResult<()> {
        let (kind, body) = parts(key);
        let (kind, body) = (kind.as_str(), body.as_str());
        let print = key.fingerprint(HashAlg::Sha256);
        let shown = name_of(host, port);
        let pin = format!(
            "`vm.ssh()` pins the keys of a site's VM through the guest agent; for another host compare {print} with \
             what its console shows and call `ssh::pin_host_key(\"{shown}\", \"{kind} {body}\")`"
        );
        match self.check(host, port, kind, body) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => {
                Err(OpError::denied(format!("the host key of `{shown}` is not known ({kind} {print})")).hint(pin))
            }
            Verdict::OtherTypes(kinds) => Err(OpError::denied(format!(
                "`{shown}` shows a {kind} host key, but is known by {} only",
                kinds.join(", ")
            ))
            .because(format!("its key is {print}"))
            .hint(pin)),
            Verdict::Changed(place) => Err(OpError::denied(format!("the host key of `{shown}` changed"))
                .because(format!("it shows {kind} {print}, {place} has another"))
                .hint(format!(
                    "if the machine was made anew, `vm.ssh()` pins its new keys (or remove the old ones: `ssh-keygen \
                     -R '{shown}' -f {}`); if not, somebody may be in between",
                    place.rsplit_once(':').map_or(place.as_str(), |(file, _)| file)
                ))),
            Verdict::Revoked(place) => {
                Err(OpError::denied(format!("the host key of `{shown}` is revoked")).because(format!("by {place}")))
            }
            Verdict::Authority(place) => {
                Err(OpError::denied(format!("the host key of `{shown}` is not known ({kind} {print})"))
                    .because(format!("{place} trusts an authority, but the host shows a key without certificate"))
                    .hint(pin))
            }
        }
    }
}

/// Type and base64 of a key.
fn parts(key: &PublicKey) -> (String, String) {
    let line = key.to_openssh().unwrap_or_default();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

/// Host and port of `host`, `host:port`, `[host]:port`; an IPv6 address may stand alone.
pub(super) fn split_name(text: &str) -> (String, u16) {
    if let Some((host, port)) = text.strip_prefix('[').and_then(|t| t.split_once("]:"))
        && let Ok(port) = port.parse()
    {
        return (host.to_owned(), port);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => match port.parse() {
            Ok(p) => (host.to_owned(), p),
            Err(_) => (text.to_owned(), 22),
        },
        _ => (text.trim_matches(['[', ']']).to_owned(), 22),
    }
}

/// How known_hosts writes a host: port 22 is not shown.
#[must_use]
pub fn name_of(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn parse_line(raw: &str, place: String) -> Option<Line> {
    let text = raw.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let mut parts = text.split_whitespace();
    let mut first = parts.next()?;
    let marker = match first {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        m if m.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        first = parts.next()?;
    }
    let (kind, key) = (parts.next()?, parts.next()?);
    Some(Line { marker, hosts: first.to_owned(), kind: kind.to_owned(), key: key.to_owned(), place })
}

/// Whether a host field matches: one hashed name, or patterns of which a negated one wins.
fn matches(field: &str, name: &str) -> bool {
    if field.starts_with("|1|") { hashed(field, name) } else { pattern::list(field.split(','), &[name]) }
}

fn hashed(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.trim_start_matches("|1|").split('|');
    let (Some(salt), Some(sum)) = (parts.next(), parts.next()) else { return false };
    let (Ok(salt), Ok(sum)) = (STANDARD.decode(salt), STANDARD.decode(sum)) else { return false };
    hmac_sha1(&salt, name.as_bytes()) == sum
}

fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..20].copy_from_slice(&Sha1::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha1::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(text).finalize();
    Sha1::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

/// Trusts exactly `keys` (lines `type base64 …`) for a host from now on. Says whether the file changed.
///
/// # Errors
/// When a key is no key, or `<state_dir>/known_hosts` cannot be written.
pub fn pin(ctx: &Ctx, host: &str, port: u16, keys: &[String]) -> OpResult<bool> {
    let mut parsed = Vec::new();
    for k in keys {
        let key = PublicKey::from_openssh(k.trim())
            .map_err(|e| OpError::invalid(format!("`{}` is no host key", k.trim())).because(e.to_string()))?;
        let (kind, body) = self::parts(&key);
        parsed.push(format!("{kind} {body}"));
    }
    if parsed.is_empty() {
        return Err(OpError::invalid(format!("no host keys given for `{host}`")));
    }
    // Several machines are pinned at the same time by one run.
    let gate = super::shared(ctx, "known_hosts gate", || Mutex::new(()));
    let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
    super::shared(ctx, EDITION, || AtomicU64::new(0)).fetch_add(1, Ordering::SeqCst);
    let path = ctx.state_dir.join("known_hosts");
    write_pins(&path, &name_of(host, port), &parsed)
        .map_err(|e| OpError::failed(format!("cannot write {}", path.display())).because(e.to_string()))
}

fn write_pins(path: &PathBuf, name: &str, keys: &[String]) -> std::io::Result<bool> {
    let old = match std::fs::read_to_string(path) {
        Ok(t) => t,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e),
    };
    let mut lines: Vec<String> =
        old.lines().filter(|l| l.split_whitespace().next() != Some(name)).map(str::to_owned).collect();
    let mut keys: Vec<String> = keys.iter().map(|k| format!("{name} {k}")).collect();
    keys.sort();
    lines.extend(keys);
    lines.sort();
    let text = lines.join("\n") + "\n";
    if text == old {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temp = path.with_extension(format!("{}", uuid::Uuid::new_v4()));
    std::fs::write(&temp, text)?;
    std::fs::rename(&temp, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
    const ED: &str = "ssh-ed25519";

    fn with(text: &str) -> KnownHosts {
        let mut k = KnownHosts::default();
        k.add(text, "kh");
        k
    }

    #[test]
    fn plain_ports_and_changes() {
        let k = with(&format!("# c\n\nnode1,10.0.0.1 {ED} {A} comment here\n[node1]:2222 {ED} {B}\n"));
        assert_eq!(k.check("node1", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("NODE1", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("10.0.0.1", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("node1", 22, ED, B), Verdict::Changed("kh:3".into()));
        assert_eq!(k.check("node1", 2222, ED, B), Verdict::Known);
        assert_eq!(k.check("node1", 2223, ED, B), Verdict::Unknown);
        assert_eq!(k.check("node1", 22, "ssh-rsa", "x"), Verdict::OtherTypes(vec![ED.into()]));
        assert_eq!(k.check("node2", 22, ED, A), Verdict::Unknown);
    }

    #[test]
    fn wildcards_and_negation() {
        let k = with(&format!("*.lab,!bad.lab,10.0.?.* {ED} {A}\n"));
        assert_eq!(k.check("x.lab", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("bad.lab", 22, ED, A), Verdict::Unknown);
        assert_eq!(k.check("10.0.7.99", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("10.0.77.99", 22, ED, A), Verdict::Unknown);
    }

    #[test]
    fn hashed_names() {
        let salt = [7u8; 20];
        let sum = hmac_sha1(&salt, b"10.0.0.9");
        let k = with(&format!("|1|{}|{} {ED} {A}\n", STANDARD.encode(salt), STANDARD.encode(sum)));
        assert_eq!(k.check("10.0.0.9", 22, ED, A), Verdict::Known);
        assert_eq!(k.check("10.0.0.8", 22, ED, A), Verdict::Unknown);
        // RFC 2202, test case 2
        let want = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        let got: String =
            hmac_sha1(b"Jefe", b"what do ya want for nothing?").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn markers() {
        let k =
            with(&format!("@revoked * {ED} {B}\nnode1 {ED} {B}\n@cert-authority *.lab {ED} {A}\n@odd x {ED} {A}\n"));
        assert_eq!(k.check("node1", 22, ED, B), Verdict::Revoked("kh:1".into()));
        assert_eq!(k.check("a.lab", 22, ED, A), Verdict::Authority("kh:3".into()));
        assert_eq!(k.check("x", 22, ED, A), Verdict::Unknown);
    }

    #[test]
    fn pins_replace_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        assert!(write_pins(&path, "10.0.0.1", &[format!("{ED} {A}")]).unwrap());
        assert!(write_pins(&path, "10.0.0.2", &[format!("{ED} {A}")]).unwrap());
        assert!(!write_pins(&path, "10.0.0.1", &[format!("{ED} {A}")]).unwrap());
        assert!(write_pins(&path, "10.0.0.1", &[format!("{ED} {B}")]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("10.0.0.1 {ED} {B}\n10.0.0.2 {ED} {A}\n"));
    }
}
