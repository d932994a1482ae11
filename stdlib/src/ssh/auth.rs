//! Logging in: keys with their certificates, the agent, and a password at last.
use std::sync::Arc;

use russh::MethodKind;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};

use super::conn::plain;
use super::host::Host;
use super::keys;
use super::trust::Check;
use super::way::{Agent, Offer, Way};

/// sshd hangs up after 6 refusals: offers of an agent that holds more keys end before.
const MOST_AGENT_KEYS: usize = 5;

/// One login on its way.
struct Login<'a> {
    ctx: &'a Ctx,
    host: &'a Host,
    handle: &'a mut Handle<Check>,
    /// What was refused, in words.
    tried: Vec<String>,
    /// What the server would still take, as far as it said.
    methods: Vec<MethodKind>,
}

/// Logs in by the first thing that the server takes.
pub(super) async fn log_in(ctx: &Ctx, host: &Host, way: &Way, handle: &mut Handle<Check>) -> OpResult<()> {
    let mut login = Login { ctx, host, handle, tried: Vec::new(), methods: Vec::new() };
    for offer in &way.offers {
        if login.offer(offer, way).await? {
            return Ok(());
        }
    }
    if login.agent(&way.agent).await? {
        return Ok(());
    }
    if let Some(reference) = &host.login().password
        && login.password(reference).await?
    {
        return Ok(());
    }
    Err(login.refused())
}

impl Login<'_> {
    fn broken(&self, e: &russh::Error) -> OpError {
        OpError::unreachable(format!("login at {} broke off", self.host.address())).because(plain(e))
    }

    fn taken(&mut self, answer: &AuthResult, what: String) -> bool {
        match answer {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.methods = remaining_methods.to_vec();
                self.tried.push(if *partial_success { format!("{what}, which is not enough") } else { what });
                false
            }
        }
    }

    /// One key: with its certificate, then bare.
    async fn offer(&mut self, offer: &Offer, way: &Way) -> OpResult<bool> {
        let key = match keys::load_with(self.ctx, &offer.reference, self.host.login().passphrase.as_deref()) {
            Ok(key) => key,
            // Files that the configuration names may be absent; a locked one may be in the agent.
            Err(e) if !offer.required && (e.is(Kind::NotFound) || way.agent != Agent::No) => return Ok(false),
            Err(e) => return Err(e),
        };
        let reference = &offer.reference;
        if let Some(cert) = keys::certificate(self.ctx, reference, offer.certificate.as_deref())?
            && self.certificate(&key, cert, reference).await?
        {
            return Ok(true);
        }
        let hash = self.rsa_hash(key.algorithm().is_rsa()).await?;
        let what = format!("key {} (`{reference}`)", key.fingerprint(HashAlg::Sha256));
        let offer = PrivateKeyWithHashAlg::new(key, hash);
        let answer = self.handle.authenticate_publickey(self.host.user(), offer).await;
        let answer = answer.map_err(|e| self.broken(&e))?;
        Ok(self.taken(&answer, what))
    }

    async fn certificate(&mut self, key: &Arc<PrivateKey>, cert: Certificate, reference: &str) -> OpResult<bool> {
        let what = format!("certificate `{}` (`{reference}`)", cert.key_id());
        let answer = self.handle.authenticate_openssh_cert(self.host.user(), key.clone(), cert).await;
        let answer = answer.map_err(|e| self.broken(&e))?;
        Ok(self.taken(&answer, what))
    }

    async fn rsa_hash(&self, is_rsa: bool) -> OpResult<Option<HashAlg>> {
        if !is_rsa {
            return Ok(None);
        }
        Ok(self.handle.best_supported_rsa_hash().await.map_err(|e| self.broken(&e))?.flatten())
    }

    async fn agent(&mut self, agent: &Agent) -> OpResult<bool> {
        let fail = |e: String| OpError::denied("cannot ask the ssh agent").because(e).hint("is SSH_AUTH_SOCK set?");
        let mut agent = match agent {
            Agent::No => return Ok(false),
            Agent::Running => AgentClient::connect_env().await.map_err(|e| fail(e.to_string()))?,
            Agent::At(socket) => AgentClient::connect_uds(socket)
                .await
                .map_err(|e| fail(format!("{}: {e}", socket.display())).hint("`IdentityAgent` names this socket"))?,
        };
        let identities = agent.request_identities().await.map_err(|e| fail(e.to_string()))?;
        for identity in identities.into_iter().take(MOST_AGENT_KEYS) {
            let public = identity.public_key().into_owned();
            let hash = self.rsa_hash(public.algorithm().is_rsa()).await?;
            let user = self.host.user().to_owned();
            let (what, answer) = match identity {
                AgentIdentity::PublicKey { key, .. } => (
                    format!("key {} (agent)", key.fingerprint(HashAlg::Sha256)),
                    self.handle.authenticate_publickey_with(user, key, hash, &mut agent).await,
                ),
                AgentIdentity::Certificate { certificate, .. } => (
                    format!("certificate `{}` (agent)", certificate.key_id()),
                    self.handle.authenticate_certificate_with(user, certificate, hash, &mut agent).await,
                ),
            };
            match answer {
                Ok(a) if self.taken(&a, what.clone()) => return Ok(true),
                Ok(_) => {}
                // The agent would not sign: its other keys may do.
                Err(e) => self.tried.push(format!("{what}: {e}")),
            }
        }
        Ok(false)
    }

    async fn password(&mut self, reference: &str) -> OpResult<bool> {
        let who = format!("password of {}@{}", self.host.user(), self.host.address());
        let password = keys::secret(self.ctx, &who, reference)?;
        let what = format!("the password (`{reference}`)");
        let kinds = self.methods.clone();
        if kinds.is_empty() || kinds.contains(&MethodKind::Password) {
            let answer = self.handle.authenticate_password(self.host.user(), password.reveal()).await;
            let answer = answer.map_err(|e| self.broken(&e))?;
            if self.taken(&answer, what) {
                return Ok(true);
            }
            return Ok(false);
        }
        if !kinds.contains(&MethodKind::KeyboardInteractive) {
            self.tried.push("no password: the server takes none".to_owned());
            return Ok(false);
        }
        let mut answer = self.handle.authenticate_keyboard_interactive_start(self.host.user(), None).await;
        // One round asks, the next may only inform; a server that asks again has refused.
        for _ in 0..3 {
            match answer.map_err(|e| self.broken(&e))? {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => break,
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let say = |hidden: bool| if hidden { password.reveal().to_owned() } else { String::new() };
                    let replies = prompts.iter().map(|p| say(!p.echo)).collect();
                    answer = self.handle.authenticate_keyboard_interactive_respond(replies).await;
                }
            }
        }
        self.tried.push(what);
        Ok(false)
    }

    fn refused(&self) -> OpError {
        let (user, address) = (self.host.user(), self.host.address());
        let offered = match self.tried.as_slice() {
            [] => "no key".to_owned(),
            many => many.join(", "),
        };
        let e = OpError::denied(format!("{address} refuses `{user}` with {offered}"));
        if self.handle.is_closed() {
            return e.hint("too many keys were offered: name the right one in `key`");
        }
        let line = format!("the public key has to be in ~{user}/.ssh/authorized_keys");
        match self.ctx.site.as_ref().filter(|s| s.nodes.iter().any(|n| n.ip == address)) {
            Some(site) => e.hint(format!(
                "{line}, where cloud-init puts the site's at first boot: {}",
                keys::other_key(self.ctx, site)
            )),
            None => e.hint(line),
        }
    }
}
