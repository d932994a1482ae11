//! The site's SSH key and its machines: whether one that runs lets it in, and how it is put in through the guest agent.
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::core::units::Duration;
use crate::site::Site;
use crate::ssh::keys;

use super::agent::AgentRun;
use super::diff::{decoded, keys_shown};
use super::inventory::Machine;
use super::request;
use super::types::{Proxmox, Vm};

/// Appends the line that it reads to the user's keys, unless it stands there.
const APPEND: &str = "set -e\n\
    line=$(cat)\n\
    home=$(getent passwd \"$1\" | cut -d: -f6)\n\
    [ -n \"$home\" ] || { echo \"there is no user $1\" >&2; exit 1; }\n\
    group=$(id -gn \"$1\")\n\
    mkdir -p \"$home/.ssh\"\n\
    chmod 700 \"$home/.ssh\"\n\
    touch \"$home/.ssh/authorized_keys\"\n\
    grep -qxF -e \"$line\" \"$home/.ssh/authorized_keys\" || printf '%s\\n' \"$line\" >> \"$home/.ssh/authorized_keys\"\n\
    chmod 600 \"$home/.ssh/authorized_keys\"\n\
    chown -R \"$1:$group\" \"$home/.ssh\"\n";

/// A running machine that does not let the site's key in, as far as can be seen.
pub(super) struct Stranger {
    /// The keys that it was made with.
    had: String,
    /// What the login met.
    why: String,
}

/// The part of a key's line that is the key.
fn body(line: &str) -> &str {
    line.split_whitespace().nth(1).unwrap_or_default()
}

/// Whether a list of keys, percent-encoded or not, has this one.
fn has_key(list: &str, public: &str) -> bool {
    decoded(list).lines().any(|l| !body(l).is_empty() && body(l) == body(public))
}

/// What is known of machines that were made with another key.
pub(super) fn told(ctx: &Ctx, site: &Site, who: &str, one: bool, s: &Stranger) -> OpResult<OpError> {
    let ours = keys::fingerprint(&keys::public_key(ctx, site)?);
    let (verb, was) = if one { ("does", "was") } else { ("do", "were") };
    let message =
        format!("{who} {verb} not know the site's SSH key: nothing is changed there, or nobody could log in any more");
    Ok(OpError::denied(message)
        .because(format!("{was} made with {}", s.had))
        .because(format!("`ssh.key` (`{}`) is {ours}", site.ssh.key))
        .because(s.why.clone())
        .hint(keys::other_key(ctx, site)))
}

impl Proxmox {
    /// Says why a machine that runs would not let the site's key in; `None` when it knows the key.
    pub(super) async fn stranger(&self, ctx: &Ctx, site: &Site, m: &Machine) -> OpResult<Option<Stranger>> {
        let had = m.get("sshkeys").unwrap_or_default();
        if has_key(&had, &keys::public_key(ctx, site)?) {
            return Ok(None);
        }
        // What is off takes the key over at its next start: new data is a new instance for cloud-init.
        if self.send(ctx, &request::status(&m.at)).await?["status"] != "running" {
            return Ok(None);
        }
        let vm = self.handle(ctx, m);
        let tried = match vm.ssh(ctx).await {
            Ok(host) => host.exec_raw(ctx, "true", b"").await.map(drop),
            Err(e) => Err(e),
        };
        let had = if had.is_empty() { "no key that Proxmox knows of".to_owned() } else { keys_shown(&had) };
        Ok(tried.err().map(|e| Stranger { had, why: e.to_string() }))
    }
}

impl Vm {
    /// Lets the site's SSH key in, through the guest agent.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` when the agent does not answer, or the user is not there.
    pub async fn ensure_ssh_key(&self, ctx: &Ctx) -> OpResult<()> {
        let site = ctx.site()?;
        let public = keys::public_key(ctx, &site)?;
        self.wait_agent(ctx, Duration::minutes(5).0).await?;
        let op = Op::write("proxmox", "ensure_ssh_key", self.name()).args(&public);
        ctx.run_op(op, |s| async move {
            self.own(ctx, "put an SSH key into it").await?;
            let user = &site.ssh.user;
            let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
            let file = format!("{home}/.ssh/authorized_keys");
            let found = self.pve.find(ctx, &request::agent_file_read(&self.at, &file)).await?;
            let have = found.and_then(|v| v["content"].as_str().map(str::to_owned)).unwrap_or_default();
            if has_key(&have, &public) {
                return Ok(());
            }
            let before = Some(keys_shown(&have)).filter(|_| !have.trim().is_empty()).map(Value::from);
            let after = keys_shown(&format!("{public}\n{have}"));
            let change = Change::new(self.name(), format!("authorized keys of {user}"), before, Some(after.into()));
            s.act(file, vec![change], self.append_key(&s, user, &public)).await
        })
        .await
    }

    async fn append_key(&self, s: &OpScope, user: &str, public: &str) -> OpResult<()> {
        let argv = ["sh", "-c", APPEND, "sh", user].map(str::to_owned);
        let o = AgentRun { input: Some(format!("{public}\n")), timeout: Duration::minutes(1) };
        let out = self.run_in_guest(s, &argv, &o).await?;
        if out.code == 0 {
            return Ok(());
        }
        let mut e = OpError::failed(format!("the key could not be added for {user}"));
        e.causes = out.err.lines().chain(out.out.lines()).map(str::to_owned).take(5).collect();
        Err(e.hint("`ssh.user` in the site file has to be the user that cloud-init made"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_body() {
        let ours = "ssh-ed25519 AAAA gpuhost";
        assert!(has_key("ssh-rsa%20BBBB%20x%0Assh-ed25519%20AAAA%20other%0A", ours));
        assert!(has_key("ssh-ed25519 AAAA", ours));
        assert!(!has_key("ssh-ed25519%20CCCC%20gpuhost", ours));
        assert!(!has_key("", ""));
    }
}
