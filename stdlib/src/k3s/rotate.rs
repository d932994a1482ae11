//! Rotations: certificates and the cluster token, node by node, never more than one server at a time.
use rhai::Dynamic;
use serde_json::Value;

use super::config::{CONFIG, Part, to_yaml};
use super::hosts::Machines;
use super::node::{Found, checked, full_token, look, put_file};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::core::units::{Duration, Secret};
use crate::kubernetes::Cluster;
use crate::options;
use crate::ssh::Host;

options! {
    /// How to rotate.
    pub struct RotateOptions {
        /// How long one node may take to be back.
        timeout: Duration = Duration::minutes(10),
        /// The servers; default: the site's.
        servers: Dynamic = Dynamic::UNIT,
        /// The agents; default: the site's.
        agents: Dynamic = Dynamic::UNIT,
    }
}

/// What `k3s token rotate` asks of its server, asked by curl: `k3s` takes the new token on its command line only, where
/// every user of the machine can read it. Tokens travel on standard input, as curl's configuration.
const ROTATE: &str = "cat | curl -fsS --cacert /var/lib/rancher/k3s/server/tls/server-ca.crt -K - https://127.0.0.1:6443/v1-k3s/token\nr=$?\nsleep 1\nexit $r\n";

/// curl's configuration for [`ROTATE`]. Tokens are letters, digits and colons: nothing to escape.
fn rotation(old: &str, new: &str) -> String {
    format!("request = \"PUT\"\nuser = \"server:{old}\"\ndata = \"{{\\\"newToken\\\":\\\"{new}\\\"}}\"\n")
}

impl Cluster {
    /// Makes K3s issue new leaf certificates on every node, one server at a time.
    ///
    /// # Errors
    /// `denied` while a server does not vote; what keeps a node from coming back.
    pub async fn rotate_certificates(&self, ctx: &Ctx, o: &RotateOptions) -> OpResult<()> {
        let all = Machines::of(ctx, &o.servers, &o.agents)?;
        for (host, part) in pairs(&all) {
            if part == Part::Server {
                self.spare_quorum(ctx, host.name()).await?;
            }
            let op = Op::run("k3s", "rotate_certificates", host.name()).class(Class::Repeatable);
            ctx.run_op(op, |s| async move {
                let unit = part.unit();
                let change = Change::new(host.name(), "certificates", Some("as they were".into()), Some("new".into()));
                s.act(format!("{unit} on {}", host.name()), vec![change], async {
                    let script = format!(
                        "systemctl stop {unit} && k3s certificate rotate 2>&1; r=$?\nsystemctl start --no-block {unit}\nexit $r"
                    );
                    checked(s.ctx(), host, &script, b"", "the certificates cannot be rotated").await?;
                    self.wait_back(&s, host, part, "", o.timeout.0).await
                })
                .await
            })
            .await?;
        }
        // the kubeconfig carries a client certificate: it is read again
        super::connect::connect(ctx, &all.servers).await.map(drop)
    }

    /// Replaces the cluster token, then gives it to every node. An interrupted rotation is continued.
    ///
    /// # Errors
    /// `invalid` when the site's token is not one that gpuhost keeps; `denied` while a server does not vote.
    pub async fn rotate_token(&self, ctx: &Ctx, o: &RotateOptions) -> OpResult<()> {
        let all = Machines::of(ctx, &o.servers, &o.agents)?;
        let file = kept_token(ctx)?;
        let lead = &all.servers[0];
        let found = look(ctx, lead, Part::Server).await?;
        let (Some(hash), Some(old)) = (found.ca_hash(), found.password()) else {
            return Err(OpError::not_found("the server has no token file")
                .on(lead.name())
                .hint("deploy the cluster first"));
        };
        let pending = ctx.state_file(&format!("{file}.next"));
        let new = match std::fs::read_to_string(&pending) {
            Ok(t) => t.trim().to_owned(),
            Err(_) => {
                let fresh = fresh_token();
                crate::site::write_private(&pending, fresh.as_bytes())?;
                fresh
            }
        };
        ctx.hide(&new);
        if old != new {
            self.spare_quorum(ctx, lead.name()).await?;
            // snapshots taken before need the old one
            let kept = format!("{file}.before-{}", ctx.clock.now_ms().await / 1000);
            crate::site::write_private(&ctx.state_file(&kept), old.as_bytes())?;
            ctx.message("info", format!("the old token is kept as state file `{kept}`: older snapshots need it"));
            let op = Op::write("k3s", "rotate_token", lead.name()).class(Class::Adoptable);
            let stdin = rotation(old, &new);
            ctx.run_op(op, |s| async move {
                let change = Change::new(lead.name(), "cluster token", Some("***".into()), Some("*** (new)".into()));
                let work = checked(s.ctx(), lead, ROTATE, stdin.as_bytes(), "the token cannot be rotated");
                s.act("cluster token", vec![change], work).await
            })
            .await?;
        }
        let full = full_token(hash, &new);
        for (host, part) in pairs(&all) {
            self.give_token(ctx, host, part, &new, &full, o).await?;
        }
        crate::site::write_private(&ctx.state_file(&file), new.as_bytes())?;
        super::birth::renew_token(ctx, &new).await?;
        std::fs::remove_file(&pending)
            .map_err(|e| OpError::failed("the state file cannot be removed").because(e.to_string()))?;
        if let Some(join) = self.join() {
            self.set_join(super::Join { token: Secret::new(full), ..(*join).clone() });
        }
        Ok(())
    }

    /// Gives a node the token, in the form its config.yaml has, and restarts its K3s; nothing when it has it.
    pub(super) async fn give_token(
        &self,
        ctx: &Ctx,
        host: &Host,
        part: Part,
        new: &str,
        full: &str,
        o: &RotateOptions,
    ) -> OpResult<()> {
        let found = look(ctx, host, part).await?;
        let Some(config) = with_token(&found, new, full) else { return Ok(()) };
        if part == Part::Server {
            self.spare_quorum(ctx, host.name()).await?;
        }
        let op = Op::write("k3s", "give_token", host.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move { self.restart_with(&s, host, part, &config, o.timeout.0).await }).await
    }

    async fn restart_with(
        &self,
        s: &OpScope,
        host: &Host,
        part: Part,
        config: &Value,
        limit: std::time::Duration,
    ) -> OpResult<()> {
        let unit = part.unit();
        let change = Change::new(host.name(), "config.yaml token", Some("***".into()), Some("*** (new)".into()));
        s.act(format!("{unit} on {}", host.name()), vec![change], async {
            put_file(s.ctx(), host, CONFIG, "0600", &to_yaml(config)).await?;
            let script = format!("systemctl restart --no-block {unit}");
            checked(s.ctx(), host, &script, b"", &format!("`{unit}` cannot be restarted")).await?;
            self.wait_back(s, host, part, "", limit).await
        })
        .await
    }
}

fn pairs(all: &Machines) -> Vec<(&Host, Part)> {
    let servers = all.servers.iter().map(|h| (h, Part::Server));
    servers.chain(all.agents.iter().map(|h| (h, Part::Agent))).collect()
}

/// config.yaml with the new token in the form it had; `None` when it has it already.
fn with_token(found: &Found, new: &str, full: &str) -> Option<Value> {
    let old = found.config["token"].as_str()?;
    let wanted = if old.starts_with("K10") { full } else { new };
    (old != wanted).then(|| {
        let mut c = found.config.clone();
        c["token"] = wanted.into();
        c
    })
}

/// Name of the state file that holds the site's token.
pub(super) fn kept_token(ctx: &Ctx) -> OpResult<String> {
    let site = ctx.site()?;
    let reference = site.k3s.get("token").and_then(toml::Value::as_str).unwrap_or("state:k3s_token").to_owned();
    reference.strip_prefix("state:").map(str::to_owned).ok_or_else(|| {
        OpError::invalid(format!("the site keeps its token in `{reference}`: gpuhost cannot put a new one there"))
            .hint("let the state directory keep it: `token = \"state:k3s_token\"` in the [k3s] section")
    })
}

fn fresh_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_keeps_its_form() {
        let found = |t: &str| Found { config: json!({"token": t, "x": 1}), ..Found::default() };
        assert_eq!(with_token(&found("old"), "new", "K10a::server:new").unwrap()["token"], "new");
        assert_eq!(
            with_token(&found("K10a::server:old"), "new", "K10a::server:new").unwrap()["token"],
            "K10a::server:new"
        );
        assert!(with_token(&found("new"), "new", "K10a::server:new").is_none());
        assert_eq!(fresh_token().len(), 64);
    }

    #[test]
    fn tokens_travel_on_standard_input_only() {
        let stdin = rotation("old", "new");
        assert!(
            !ROTATE.contains("token \"") && ROTATE.matches('$').count() == 2,
            "nothing is filled into the command line"
        );
        assert_eq!(stdin, "request = \"PUT\"\nuser = \"server:old\"\ndata = \"{\\\"newToken\\\":\\\"new\\\"}\"\n");
    }
}
