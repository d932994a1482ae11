//! Everything that one login needs, from recipe, site and SSH configuration together.
use std::path::PathBuf;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;

use super::home::HomeDir;
use super::host::{Host, file_reference};

/// One key to offer.
pub(super) struct Offer {
    /// Secret reference.
    pub reference: String,
    /// Whether it has to be there; files of the SSH configuration may be absent.
    pub required: bool,
    /// Its certificate, when that is named.
    pub certificate: Option<PathBuf>,
}

/// Whose keys an agent holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Agent {
    No,
    /// The one that `SSH_AUTH_SOCK` names.
    Running,
    /// `IdentityAgent` of the SSH configuration.
    At(PathBuf),
}

/// Everything that one login needs.
pub(super) struct Way {
    pub offers: Vec<Offer>,
    pub agent: Agent,
    /// The host to go through.
    pub jump: Option<Host>,
    /// Files with host keys, beside our own.
    pub known_hosts: Vec<PathBuf>,
    /// Name under which the host's keys are known.
    pub alias: Option<String>,
    /// Keys of unknown hosts are taken and kept, as the user's configuration says.
    pub new_keys: bool,
}

impl Way {
    /// The way to `host`.
    pub(super) fn to(ctx: &Ctx, host: &Host) -> OpResult<Way> {
        let (login, home) = (host.login(), HomeDir::of(ctx));
        let found = host.configured(ctx)?;
        let jump = host.gateway(ctx, &found)?;
        let mut offers = Vec::new();
        if let Some(reference) = &login.key {
            let certificate = login.certificate.as_ref().map(|c| super::keys::file_path(ctx, c));
            offers.push(Offer { reference: reference.clone(), required: true, certificate });
        }
        let from_config = found.identity_files.iter().enumerate().map(|(i, path)| Offer {
            reference: file_reference(path),
            required: false,
            certificate: found.certificate_files.get(i).cloned(),
        });
        offers.extend(from_config);
        let running = std::env::var_os("SSH_AUTH_SOCK").is_some() && home.is_some();
        if offers.is_empty() {
            let usual = ["id_ed25519", "id_ecdsa", "id_rsa"];
            let files = home.iter().flat_map(|h| usual.map(|u| h.join(&format!(".ssh/{u}"))));
            offers.extend(files.map(|f| Offer { reference: file_reference(&f), required: false, certificate: None }));
        }
        let agent = match found.identity_agent.as_deref() {
            _ if home.is_none() => Agent::No,
            Some("SSH_AUTH_SOCK") => Agent::Running,
            Some(none) if none.eq_ignore_ascii_case("none") && !login.agent => Agent::No,
            Some(socket) if !socket.eq_ignore_ascii_case("none") => Agent::At(PathBuf::from(socket)),
            _ if login.agent => Agent::Running,
            _ if login.key.is_none() && running && !found.identities_only => Agent::Running,
            _ => Agent::No,
        };
        let known_hosts = match (&found.known_hosts, &home) {
            (_, None) => Vec::new(),
            (Some(files), Some(h)) => files.iter().cloned().chain([h.system("ssh_known_hosts")]).collect(),
            (None, Some(h)) => {
                vec![h.join(".ssh/known_hosts"), h.join(".ssh/known_hosts2"), h.system("ssh_known_hosts")]
            }
        };
        Ok(Way { offers, agent, jump, known_hosts, alias: found.host_key_alias, new_keys: found.new_keys })
    }
}
