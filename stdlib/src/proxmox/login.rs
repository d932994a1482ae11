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

/// Takes the lines that hold one of the keys that it reads out of the user's keys.
const TAKE: &str = "set -e\n\
    gone=$(cat)\n\
    home=$(getent passwd \"$1\" | cut -d: -f6)\n\
    file=$home/.ssh/authorized_keys\n\
    [ -n \"$home\" ] && [ -f \"$file\" ] || { echo \"$1 has no authorized_keys\" >&2; exit 1; }\n\
    group=$(id -gn \"$1\")\n\
    new=$file.gpuhost\n\
    rm -f \"$new\"\n\
    (umask 077; : > \"$new\")\n\
    while IFS= read -r line || [ -n \"$line\" ]; do\n\
    keep=yes\n\
    for key in $gone; do case \" $line \" in *\" $key \"*) keep=no ;; esac; done\n\
    [ $keep = no ] || printf '%s\\n' \"$line\" >> \"$new\"\n\
    done < \"$file\"\n\
    chown \"$1:$group\" \"$new\"\n\
    chmod 600 \"$new\"\n\
    mv \"$new\" \"$file\"\n";

/// The comment of keys that this program makes.
const MADE_HERE: &str = "gpuhost";

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

/// The key of a line, which may begin with options.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let at = ["ssh-", "ecdsa-", "sk-"].iter().filter_map(|kind| {
        let begins = line.starts_with(kind).then_some(0);
        begins.or_else(|| line.find(&format!(" {kind}")).map(|i| i + 1))
    });
    let mut words = line[at.min()?..].split_whitespace().skip(1);
    Some((words.next()?, words.next().unwrap_or_default()))
}

/// Lines of `have` with keys that the site had before: the machine was made with them, or this program made them.
/// Those that the site has now are none.
fn former(have: &str, made_with: &str, now: &[String]) -> Vec<String> {
    let ours = |line: &&str| {
        let Some((key, comment)) = key_of(line) else { return false };
        let kept = now.iter().any(|l| body(l) == key);
        !kept && (comment == MADE_HERE || decoded(made_with).lines().any(|l| body(l) == key))
    };
    let lines = have.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    lines.filter(ours).map(str::to_owned).collect()
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

/// The keys that the site has now, its own first.
pub(super) fn wanted_keys(ctx: &Ctx, site: &Site) -> OpResult<Vec<String>> {
    let mut all = vec![keys::public_key(ctx, site)?];
    all.extend(site.ssh.authorized_keys.iter().cloned());
    Ok(all)
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
            let (file, have) = self.authorized_keys(ctx, user).await?;
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

    /// The user's file of keys, and what is in it.
    async fn authorized_keys(&self, ctx: &Ctx, user: &str) -> OpResult<(String, String)> {
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        let file = format!("{home}/.ssh/authorized_keys");
        let found = self.pve.find(ctx, &request::agent_file_read(&self.at, &file)).await?;
        Ok((file, found.and_then(|v| v["content"].as_str().map(str::to_owned)).unwrap_or_default()))
    }

    /// Keys that still log in although the site has them no more: fingerprints.
    ///
    /// # Errors
    /// `failed` when the agent does not answer.
    pub async fn list_former_ssh_keys(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let site = ctx.site()?;
        self.wait_agent(ctx, Duration::minutes(5).0).await?;
        let now = wanted_keys(ctx, &site)?;
        ctx.run_op(Op::read("proxmox", "list_former_ssh_keys", self.name()), |_| async {
            let (_, have) = self.authorized_keys(ctx, &site.ssh.user).await?;
            let made_with = self.read(ctx).await?.get("sshkeys").unwrap_or_default();
            Ok(former(&have, &made_with, &now).iter().map(|l| keys_shown(l)).collect())
        })
        .await
    }

    /// Takes the keys away that the site had before, once the one that it has now has logged in.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours, or does not let the site's key in: then nothing is taken away.
    pub async fn remove_former_ssh_keys(&self, ctx: &Ctx) -> OpResult<()> {
        let site = ctx.site()?;
        self.wait_agent(ctx, Duration::minutes(5).0).await?;
        let now = wanted_keys(ctx, &site)?;
        let op = Op::write("proxmox", "remove_former_ssh_keys", self.name()).args(&now);
        ctx.run_op(op, |s| async move {
            let made_with = self.own(ctx, "take SSH keys out of it").await?.get("sshkeys").unwrap_or_default();
            let user = &site.ssh.user;
            let (file, have) = self.authorized_keys(ctx, user).await?;
            let gone = former(&have, &made_with, &now);
            if gone.is_empty() {
                return Ok(());
            }
            self.proven(ctx, &have, &now[0]).await?;
            let rest: Vec<&str> = have.lines().filter(|l| !gone.iter().any(|g| g == l.trim())).collect();
            let what = format!("authorized keys of {user}");
            let (before, after) = (keys_shown(&have), keys_shown(&rest.join("\n")));
            let change = Change::new(self.name(), what, Some(before.into()), Some(after.into()));
            let keys: Vec<&str> = gone.iter().filter_map(|l| key_of(l)).map(|k| k.0).collect();
            s.act(file, vec![change], self.take_keys(&s, user, &keys)).await
        })
        .await
    }

    /// The site's key stands in the file, and logs in.
    async fn proven(&self, ctx: &Ctx, have: &str, public: &str) -> OpResult<()> {
        let unproven = |why: String| {
            OpError::denied("the site's SSH key does not log in here: the former keys stay")
                .on(self.name())
                .because(why)
                .hint(keys::PUT_IN)
        };
        if !has_key(have, public) {
            return Err(unproven(format!("{} is not among the authorized keys", keys::fingerprint(public))));
        }
        let host = self.ssh(ctx).await?;
        host.exec_raw(ctx, "true", b"").await.map(drop).map_err(|e| unproven(e.to_string()))
    }

    /// Runs one of the programs above for `user`, with keys on its input; `failed` is what is told when it does not work.
    async fn change_keys(&self, s: &OpScope, program: &str, user: &str, keys: &str, failed: OpError) -> OpResult<()> {
        let argv = ["sh", "-c", program, "sh", user].map(str::to_owned);
        let o = AgentRun { input: Some(format!("{keys}\n")), timeout: Duration::minutes(1) };
        let out = self.run_in_guest(s, &argv, &o).await?;
        if out.code == 0 {
            return Ok(());
        }
        let mut e = failed;
        e.causes = out.err.lines().chain(out.out.lines()).map(str::to_owned).take(5).collect();
        Err(e)
    }

    async fn take_keys(&self, s: &OpScope, user: &str, keys: &[&str]) -> OpResult<()> {
        let failed = OpError::failed(format!("the former keys of {user} could not be taken away"));
        self.change_keys(s, TAKE, user, &keys.join("\n"), failed).await
    }

    async fn append_key(&self, s: &OpScope, user: &str, public: &str) -> OpResult<()> {
        let failed = OpError::failed(format!("the key could not be added for {user}"))
            .hint("`ssh.user` in the site file has to be the user that cloud-init made");
        self.change_keys(s, APPEND, user, public, failed).await
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

    #[test]
    fn former_keys_are_those_the_machine_was_made_with_and_those_made_here() {
        let now = ["ssh-ed25519 NEW gpuhost".to_owned(), "ssh-rsa TEAM ada".to_owned()];
        let have = "# keys\nssh-ed25519 NEW gpuhost\nssh-ed25519 OLD gpuhost\nno-pty ssh-rsa MADE x\nssh-rsa TEAM ada\n\
            ssh-ed25519 MINE me@laptop\nrestrict,command=\"echo gpuhost\" ssh-rsa BACKUP\n";
        let made_with = "ssh-rsa%20MADE%20x%0Assh-rsa%20TEAM%20ada%0A";
        assert_eq!(former(have, made_with, &now), ["ssh-ed25519 OLD gpuhost", "no-pty ssh-rsa MADE x"]);
        assert!(former("", made_with, &now).is_empty());
        assert_eq!(key_of("ssh-rsa"), None);
    }
}
