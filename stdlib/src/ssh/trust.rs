//! Checks what a server shows: its key against known_hosts, its certificate against the authorities there.
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::Handler;
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};

use super::known_hosts::{self, KnownHosts, Verdict};

/// Why a server was refused: the protocol error does not carry it.
pub(super) type Refusal = Arc<Mutex<Option<OpError>>>;

/// Checks the server of one connection.
pub(super) struct Check {
    pub ctx: Ctx,
    pub known: Arc<KnownHosts>,
    pub host: String,
    pub port: u16,
    pub new_keys: bool,
    pub refusal: Refusal,
}

impl Check {
    fn key(&self, key: &PublicKey) -> OpResult<()> {
        let line = key.to_openssh().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let unknown = matches!(self.known.check(&self.host, self.port, kind, body), Verdict::Unknown);
        if !(unknown && self.new_keys) {
            return self.known.accept(&self.host, self.port, key);
        }
        known_hosts::pin(&self.ctx, &self.host, self.port, &[format!("{kind} {body}")])?;
        let print = key.fingerprint(russh::keys::HashAlg::Sha256);
        let name = known_hosts::name_of(&self.host, self.port);
        let text = format!("`{name}` was not known; its {kind} key {print} is trusted from now on (ssh configuration)");
        self.ctx.message("warn", text);
        Ok(())
    }
}

impl Handler for Check {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let checked = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.key(key),
            PublicKeyOrCertificate::Certificate(cert) => {
                let now = self.ctx.clock.last_ms() / 1000;
                self.known.accept_certificate(&self.host, self.port, cert, now)
            }
        };
        match checked {
            Ok(()) => Ok(true),
            Err(e) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                Ok(false)
            }
        }
    }
}
