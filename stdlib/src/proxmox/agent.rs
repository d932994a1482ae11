//! The guest agent: readiness, addresses, host keys, commands and files.
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::options;
use crate::ssh::{self, Host};

use super::error::{ApiError, ApiResult, Fault};
use super::request;
use super::types::Vm;

options! {
    /// How to run a program through the agent.
    pub struct AgentRun {
        /// Text for its standard input.
        input: Option<String> = None,
        /// How long it may take.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(5),
    }
}

/// What a program in the guest ended with.
#[derive(Debug, Clone, Default)]
pub struct AgentOutput {
    /// Exit code.
    pub code: i64,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

const EVERY: Duration = Duration::from_secs(3);
/// The agent's own limit, in characters of the request.
const FILE_LIMIT: usize = 60 * 1024;
const HOST_KEYS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// Says why the agent does not answer; an error when waiting cannot help.
fn not_yet(vm: &Vm, e: ApiError) -> OpResult<String> {
    match &e.fault {
        Fault::NotRunning => Ok("the machine does not run".to_owned()),
        Fault::NoAgent => Ok("it runs, the guest agent does not answer yet".to_owned()),
        Fault::LockTimeout => Ok("the guest agent is slow".to_owned()),
        Fault::Unreachable => Ok(format!("the hypervisor node {} does not answer", vm.pve_node())),
        Fault::Denied { .. } => {
            let mut out = OpError::from(e).last_seen("the machine runs; the token may not ask its guest agent");
            out.message = "the token may not ask the guest agent".to_owned();
            Err(out)
        }
        _ => Err(e.into()),
    }
}

/// IPv4 and IPv6 addresses of the interface with `mac`; of all real interfaces without one.
fn addresses(interfaces: &Value, mac: Option<&str>) -> Vec<String> {
    let all = interfaces["result"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = |i: &&Value| match mac {
        Some(m) => i["hardware-address"].as_str().is_some_and(|h| h.eq_ignore_ascii_case(m)),
        None => i["name"] != "lo",
    };
    let of = |i: &Value| {
        let list = i["ip-addresses"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|a| a["ip-address"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut out: Vec<String> = all.iter().filter(wanted).flat_map(of).filter(|a| !a.starts_with("fe80:")).collect();
    out.sort_by_key(|a| a.contains(':'));
    out
}

impl Vm {
    async fn interfaces(&self, ctx: &Ctx) -> ApiResult<Value> {
        self.pve.send(ctx, &request::agent_get(&self.at, "network-get-interfaces")).await
    }

    /// Waits until the guest agent answers.
    ///
    /// # Errors
    /// `timeout` with what was seen last; `denied` when the token may not ask.
    pub async fn wait_agent(&self, ctx: &Ctx, limit: Duration) -> OpResult<()> {
        ctx.run_op(Op::read("proxmox", "wait_agent", self.name()), |s| async move {
            s.wait_for("the guest agent", EVERY, limit, || async {
                match self.pve.send(ctx, &request::agent_ping(&self.at)).await {
                    Ok(_) => Ok(Look::Ready(())),
                    Err(e) => not_yet(self, e).map(Look::Pending),
                }
            })
            .await
            .map_err(|e| self.agent_hint(e))
        })
        .await
    }

    /// Whether SSH listens there; what does not answer at all is not waited for.
    async fn listens(&self, ctx: &Ctx, ip: &str) -> bool {
        ctx.clock.within(EVERY, ctx.dialer.connect(ip, 22)).await.is_some_and(|s| s.is_ok())
    }

    fn agent_hint(&self, e: OpError) -> OpError {
        if e.last.as_deref().is_some_and(|l| l.contains("agent does not answer")) {
            let id = self.vmid();
            return e.hint(format!(
                "look at the console (`qm terminal {id}`): is `qemu-guest-agent` in the template, did cloud-init finish? A \
                 system that hangs starts again with `proxmox::connect(site().proxmox).find_vm(\"{}\").reset()`",
                self.name()
            ));
        }
        e
    }

    /// Waits until the machine runs, its agent answers, its address is up and SSH listens.
    ///
    /// # Errors
    /// `timeout` with what was seen last; `denied` when the token may not ask the agent.
    pub async fn wait_ready(&self, ctx: &Ctx, limit: Duration) -> OpResult<()> {
        ctx.run_op(Op::read("proxmox", "wait_ready", self.name()), |s| async move {
            s.wait_for("the machine", EVERY, limit, || async {
                if let Err(e) = self.pve.send(ctx, &request::agent_ping(&self.at)).await {
                    let (silent, why) = (e.is(&Fault::NoAgent), not_yet(self, e)?);
                    // Booting, or up without an agent?
                    return Ok(Look::Pending(match &self.node {
                        Some(n) if silent && self.listens(ctx, &n.ip).await => {
                            format!("SSH listens at {}, but the guest agent does not answer", n.ip)
                        }
                        _ => why,
                    }));
                }
                let (mac, ip) = match &self.node {
                    Some(n) => (Some(n.mac.as_str()), Some(n.ip.as_str())),
                    None => (None, None),
                };
                let found = match self.interfaces(ctx).await {
                    Ok(v) => addresses(&v, mac),
                    Err(e) => return not_yet(self, e).map(Look::Pending),
                };
                let ip = match (ip, found.first()) {
                    (Some(ip), _) if found.iter().any(|f| f == ip) => ip.to_owned(),
                    (None, Some(first)) => first.clone(),
                    (Some(ip), Some(other)) => {
                        return Ok(Look::Pending(format!("the agent answers, the address is {other} instead of {ip}")));
                    }
                    (_, None) => return Ok(Look::Pending("the agent answers, no address yet".to_owned())),
                };
                match ctx.dialer.connect(&ip, 22).await {
                    Ok(_) => Ok(Look::Ready(())),
                    Err(_) => Ok(Look::Pending(format!("the agent answers, {ip}:22 does not listen yet"))),
                }
            })
            .await
            .map_err(|e| self.agent_hint(e))
        })
        .await
    }

    /// Addresses that the agent reports, IPv4 first.
    ///
    /// # Errors
    /// `failed` when the agent does not answer.
    pub async fn ips(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        ctx.run_op(Op::read("proxmox", "get_ips", self.name()), |_| async move {
            let mac = self.node.as_ref().map(|n| n.mac.as_str());
            Ok(addresses(&self.interfaces(ctx).await?, mac))
        })
        .await
    }

    /// A file of the guest; `None` when it is not there.
    ///
    /// # Errors
    /// `failed` when the agent does not answer.
    pub async fn read_file(&self, ctx: &Ctx, path: &str) -> OpResult<Option<String>> {
        let op = Op::read("proxmox", "read_file", self.name()).args(&path);
        ctx.run_op(op, |_| async move {
            let found = self.pve.find(ctx, &request::agent_file_read(&self.at, path)).await?;
            found
                .map(|v| match v["content"].as_str() {
                    Some(text) => Ok(text.to_owned()),
                    None => Err(OpError::failed(format!("the agent gave no content of {path}"))),
                })
                .transpose()
        })
        .await
    }

    /// Makes a file of the guest have this content; up to 60 KiB.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` when the agent does not answer.
    pub async fn write_file(&self, ctx: &Ctx, path: &str, content: &str) -> OpResult<()> {
        let op = Op::write("proxmox", "write_file", self.name()).args(&(path, content));
        ctx.run_op(op, |s| async move {
            self.own(ctx, "write a file in it").await?;
            if content.len() > FILE_LIMIT {
                return Err(OpError::invalid(format!("{} bytes are too many for the guest agent", content.len()))
                    .hint("over SSH there is no limit: `vm.ssh().write_file(path, text)`"));
            }
            let have = self.pve.find(ctx, &request::agent_file_read(&self.at, path)).await?;
            let have = have.and_then(|v| v["content"].as_str().map(str::to_owned));
            if have.as_deref() == Some(content) {
                return Ok(());
            }
            let size = |t: &str| Value::from(format!("{} bytes", t.len()));
            let change =
                Change::new(self.name(), format!("file {path}"), have.as_deref().map(size), Some(size(content)));
            s.act(format!("file {path}"), vec![change], async {
                self.pve.send(ctx, &request::agent_file_write(&self.at, path, content)).await?;
                Ok(())
            })
            .await
        })
        .await
    }

    /// Public SSH host keys, read through the hypervisor: no first-use guess.
    ///
    /// # Errors
    /// `failed` when the agent does not answer, or there is no key yet.
    pub async fn host_keys(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        ctx.run_op(Op::read("proxmox", "get_host_keys", self.name()), |_| async move {
            let mut keys = Vec::new();
            for kind in HOST_KEYS {
                let file = format!("/etc/ssh/ssh_host_{kind}_key.pub");
                if let Some(v) = self.pve.find(ctx, &request::agent_file_read(&self.at, &file)).await? {
                    let text = v["content"].as_str().unwrap_or_default().trim();
                    if !text.is_empty() {
                        keys.push(text.to_owned());
                    }
                }
            }
            if keys.is_empty() {
                return Err(OpError::not_found("the guest has no SSH host keys yet")
                    .hint("wait for it: `vm.wait_ready(5.minutes)`"));
            }
            Ok(keys)
        })
        .await
    }

    /// The machine as an SSH host, with its host keys pinned.
    ///
    /// # Errors
    /// When the keys cannot be read, or `known_hosts` cannot be written.
    pub async fn ssh(&self, ctx: &Ctx) -> OpResult<Host> {
        let keys = self.host_keys(ctx).await?;
        let (host, address) = match (&self.node, &ctx.site) {
            (Some(n), Some(site)) => (Host::for_node(site, n), n.ip.clone()),
            _ => {
                let ips = self.ips(ctx).await?;
                let ip = ips.first().cloned().ok_or_else(|| OpError::not_found("the guest reports no address"))?;
                let options = ssh::ConnectOptions::read(&rhai::Map::new())?;
                (Host::connect(ctx, &ip, &options)?.named(self.name()), ip)
            }
        };
        ssh::known_hosts::pin(ctx, &address, host.port(), &keys)?;
        Ok(host)
    }

    /// Runs a program through the agent and waits for it.
    ///
    /// # Errors
    /// `failed` when the agent does not answer; `timeout`.
    pub async fn agent_run(&self, ctx: &Ctx, argv: &[String], o: &AgentRun) -> OpResult<AgentOutput> {
        let op = Op::run("proxmox", "agent_run", self.name()).args(&argv);
        ctx.run_op(op, |s| async move {
            self.own(ctx, "run a program in it").await?;
            let change = Change::new(self.name(), "program", None, Some(argv.join(" ").into()));
            s.act(argv.join(" "), vec![change], self.run_in_guest(&s, argv, o)).await
        })
        .await
    }

    /// Runs a program through the agent, as the effect of an op.
    pub(super) async fn run_in_guest(&self, s: &OpScope, argv: &[String], o: &AgentRun) -> OpResult<AgentOutput> {
        let ctx = s.ctx();
        let r = request::agent_exec(&self.at, argv, o.input.as_deref());
        let begun = self.pve.send(ctx, &r).await?;
        let pid =
            begun["pid"].as_i64().ok_or_else(|| OpError::failed(format!("the agent named no process: `{begun}`")))?;
        s.accepted(format!("pid {pid}"))?;
        s.wait_for("the program", Duration::from_secs(1), o.timeout.0, || async {
            // The answer of a finished program can be read only once.
            let v = self.pve.send_once(ctx, &request::agent_exec_status(&self.at, pid)).await?;
            let text = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
            if !super::inventory::is_on(&v["exited"]) {
                return Ok(Look::Pending(format!("pid {pid} runs")));
            }
            Ok(Look::Ready(AgentOutput {
                code: v["exitcode"].as_i64().unwrap_or(-1),
                out: text("out-data"),
                err: text("err-data"),
            }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_go_by_mac_and_skip_link_local() {
        let v = json!({"result": [
            {"name":"lo","hardware-address":"00:00:00:00:00:00","ip-addresses":[{"ip-address":"127.0.0.1"}]},
            {"name":"cni0","hardware-address":"aa:aa:aa:aa:aa:aa","ip-addresses":[{"ip-address":"10.42.0.1"}]},
            {"name":"eth0","hardware-address":"bc:24:11:00:00:11","ip-addresses":[
                {"ip-address":"fe80::1"},{"ip-address":"fd00::5"},{"ip-address":"10.0.0.11"}]}]});
        assert_eq!(addresses(&v, Some("BC:24:11:00:00:11")), ["10.0.0.11", "fd00::5"]);
        assert_eq!(addresses(&v, None)[0], "10.42.0.1");
    }
}
