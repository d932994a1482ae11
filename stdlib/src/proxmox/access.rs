//! Roles, tokens and grants: what an administrator sets up once, as a recipe.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::options;
use crate::site::write_private;

use super::error::Fault;
use super::inventory::is_on;
use super::permissions::major;
use super::request;
use super::types::Proxmox;

options! {
    /// How an API token is made and where its secret goes.
    pub struct TokenOptions {
        /// Name of the file in the state directory that keeps the secret: Proxmox shows it only once.
        keep_as: String = "proxmox_token".to_owned(),
        /// Whether the token has only the rights that it was given itself.
        privsep: bool = true,
        /// Text that Proxmox shows with it.
        comment: Option<String> = None,
    }
}

options! {
    /// To whom a role is granted.
    pub struct GrantOptions {
        /// Role.
        role: String,
        /// User `name@realm`.
        user: Option<String> = None,
        /// Token `name@realm!id`.
        token: Option<String> = None,
    }
}

/// Names that differ between the versions: 9 has no `VM.Monitor`, 8 has no `VM.GuestAgent.…`.
fn for_version(privileges: &[String], major: u32) -> BTreeSet<String> {
    let rename = |p: &String| match (p.as_str(), major) {
        ("VM.Monitor", 9..) => "VM.GuestAgent.Unrestricted".to_owned(),
        (agent, ..=8) if agent.starts_with("VM.GuestAgent.") => "VM.Monitor".to_owned(),
        _ => p.clone(),
    };
    privileges.iter().map(rename).collect()
}

fn split(token: &str) -> OpResult<(&str, &str)> {
    let parts = token.split_once('!').filter(|(u, id)| u.contains('@') && id.len() > 1);
    parts.ok_or_else(|| {
        OpError::invalid(format!("`{token}` is not a token id")).hint("write it as `user@realm!tokenid`")
    })
}

fn join<'a>(all: impl IntoIterator<Item = &'a String>) -> String {
    all.into_iter().cloned().collect::<Vec<_>>().join(",")
}

impl Proxmox {
    /// Makes a role have at least these privileges; nothing is taken away.
    ///
    /// # Errors
    /// `denied` without Sys.Modify on /access; `invalid` for a privilege that this version does not know.
    pub async fn ensure_role(&self, ctx: &Ctx, name: &str, privileges: &[String]) -> OpResult<()> {
        ctx.run_op(Op::write("proxmox", "ensure_role", name).args(&privileges), |s| async move {
            let want = for_version(privileges, major(&self.version(ctx).await?));
            let found = self.role_privileges(ctx, name).await?;
            let have = found.clone().unwrap_or_default();
            let missing: Vec<&String> = want.difference(&have).collect();
            if found.is_some() && missing.is_empty() {
                return Ok(());
            }
            let after = join(have.union(&want));
            let change = Change::new(name, "role", found.is_some().then(|| join(&have).into()), Some(after.into()));
            s.act(format!("role {name}"), vec![change], async {
                let list = join(missing);
                let r =
                    if found.is_some() { request::extend_role(name, &list) } else { request::create_role(name, &list) };
                let done =
                    async || Ok(self.role_privileges(ctx, name).await?.is_some_and(|have| want.is_subset(&have)));
                self.put_through(&s, "the role", &r, done).await
            })
            .await
        })
        .await
    }

    async fn role_privileges(&self, ctx: &Ctx, name: &str) -> OpResult<Option<BTreeSet<String>>> {
        let found = self.find(ctx, &request::role(name)).await?;
        Ok(found
            .as_ref()
            .and_then(Value::as_object)
            .map(|m| m.iter().filter(|(_, v)| is_on(v)).map(|(k, _)| k.clone()).collect()))
    }

    /// Makes an API token exist and keeps its secret in the state directory. Gives the reference of the secret.
    ///
    /// # Errors
    /// `conflict` when the token is there and its secret is not.
    pub async fn ensure_token(&self, ctx: &Ctx, token: &str, o: &TokenOptions) -> OpResult<String> {
        let (user, id) = split(token)?;
        ctx.run_op(Op::write("proxmox", "ensure_token", token).args(&o.privsep), |s| async move {
            let path = ctx.state_file(&o.keep_as);
            let reference = format!("state:{}", o.keep_as);
            if self.find_token(ctx, user, id).await? {
                if path.exists() {
                    return Ok(reference);
                }
                if self.is_our_token(ctx, user, id).await? {
                    self.renew_token(&s, (user, id), o).await?;
                    return Ok(reference);
                }
                return Err(OpError::conflict(format!(
                    "the token is there, but `{}` does not hold its secret",
                    path.display()
                ))
                .hint(format!(
                    "remove it (`pveum user token remove {user} {id}`) and run this again, or put its secret there"
                )));
            }
            let change = Change::new(token, "token", None, Some(reference.clone().into()));
            s.act(format!("token {token}"), vec![change], self.make_token(ctx, (user, id), o)).await?;
            Ok(reference)
        })
        .await
    }

    /// Makes the token and keeps its secret.
    async fn make_token(&self, ctx: &Ctx, (user, id): (&str, &str), o: &TokenOptions) -> OpResult<()> {
        let mark = ctx.site.as_ref().map(|site| format!("gpuhost site {} {}", site.name, site.uuid));
        let comment = o.comment.clone().or(mark).unwrap_or_default();
        let answer = self.send(ctx, &request::create_token(user, id, &comment, o.privsep)).await?;
        let secret = answer["value"].as_str().filter(|v| !v.is_empty()).ok_or_else(|| {
            OpError::failed("the answer holds no secret of the new token")
                .hint(format!("remove it (`pveum user token remove {user} {id}`) and run this again"))
        })?;
        ctx.hide(secret);
        write_private(&ctx.state_file(&o.keep_as), secret.as_bytes())
    }

    /// Makes a token of this site anew whose secret nobody here has: a run died between making and keeping it, or the state
    /// directory is another one.
    async fn renew_token(&self, s: &OpScope, (user, id): (&str, &str), o: &TokenOptions) -> OpResult<()> {
        let (ctx, token, path) = (s.ctx(), format!("{user}!{id}"), s.ctx().state_file(&o.keep_as));
        let question = format!(
            "token {token} was made by this site, and `{}` does not hold its secret, which Proxmox shows only once. Make \
             it anew? Whoever works with the old secret is locked out",
            path.display()
        );
        let kept = || {
            let hint = format!(
                "put its secret into `{}`, or remove it: `pveum user token remove {user} {id}`",
                path.display()
            );
            OpError::refused(format!("token {token} stays as it is")).hint(hint)
        };
        if !ctx.consent.confirm(&question, true)? {
            return Err(kept());
        }
        let change = Change::new(&token, "secret", Some("unknown here".into()), Some("new".into()));
        s.act(format!("token {token}"), vec![change], async {
            self.send(ctx, &request::remove_token(user, id)).await?;
            self.make_token(ctx, (user, id), o).await
        })
        .await
    }

    /// Whether this site made a token that there is.
    async fn is_our_token(&self, ctx: &Ctx, user: &str, id: &str) -> OpResult<bool> {
        let site = ctx.site()?;
        let found = self.send(ctx, &request::token(user, id)).await?;
        Ok(found["comment"].as_str().unwrap_or_default().contains(&site.uuid))
    }

    async fn find_token(&self, ctx: &Ctx, user: &str, id: &str) -> OpResult<bool> {
        match self.find(ctx, &request::token(user, id)).await {
            Ok(found) => Ok(found.is_some()),
            // A token that does not exist is a parameter error.
            Err(e) if e.is(&Fault::Invalid) && e.to_string().contains("token") => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an API token that this site made; says whether it was there.
    ///
    /// # Errors
    /// `denied` (exit 4) for a token of somebody else.
    pub async fn remove_token(&self, ctx: &Ctx, token: &str) -> OpResult<bool> {
        let (user, id) = split(token)?;
        ctx.run_op(Op::destroy("proxmox", "remove_token", token), |s| async move {
            if !self.find_token(ctx, user, id).await? {
                return Ok(false);
            }
            if !self.is_our_token(ctx, user, id).await? {
                return Err(OpError::refused(format!("token {token} was not made by this site"))
                    .hint(format!("remove it yourself: `pveum user token remove {user} {id}`")));
            }
            let change = Change::new(token, "token", Some(token.into()), None);
            s.act(format!("token {token}"), vec![change], async {
                self.send(ctx, &request::remove_token(user, id)).await?;
                Ok(())
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// Makes a grant exist: a role on a path for a user or a token.
    ///
    /// # Errors
    /// `denied` without Permissions.Modify there.
    pub async fn ensure_grant(&self, ctx: &Ctx, path: &str, o: &GrantOptions) -> OpResult<()> {
        let (kind, who) = match (&o.user, &o.token) {
            (Some(u), None) => ("user", u),
            (None, Some(t)) => ("token", t),
            _ => return Err(OpError::invalid("give either `user` or `token`").on(path)),
        };
        ctx.run_op(Op::write("proxmox", "ensure_grant", path).args(&(&o.role, who)), |s| async move {
            let rows = self.send(ctx, &request::acl()).await?;
            let same = |a: &&Value| a["path"] == path && a["ugid"] == who.as_str() && a["roleid"] == o.role.as_str();
            if rows.as_array().into_iter().flatten().any(|a| same(&a) && a["type"] == kind && is_on(&a["propagate"])) {
                return Ok(());
            }
            let change = Change::new(path, "grant", None, Some(format!("{} for {who}", o.role).into()));
            s.act(format!("acl {path}"), vec![change], async {
                self.send(ctx, &request::grant(path, &o.role, &format!("{kind}s"), who)).await?;
                Ok(())
            })
            .await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_named_as_the_version_knows_them() {
        let all = ["VM.Audit".to_owned(), "VM.Monitor".to_owned()];
        assert_eq!(join(&for_version(&all, 9)), "VM.Audit,VM.GuestAgent.Unrestricted");
        let all = ["VM.GuestAgent.Audit".to_owned(), "VM.GuestAgent.Unrestricted".to_owned()];
        assert_eq!(join(&for_version(&all, 8)), "VM.Monitor");
        assert!(split("root@pam!x1").is_ok() && split("root!x1").is_err() && split("root@pam").is_err());
    }
}
