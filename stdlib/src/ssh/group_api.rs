//! The script functions of groups and tunnels.
#![allow(missing_docs, clippy::unwrap_used)] // in what the macro writes
use rhai::plugin::*;

use crate::core::ctx::RhaiResultOf;
use crate::core::error::OpResult;

fn read<T>(ncc: &NativeCallContext, o: OpResult<T>) -> RhaiResultOf<T> {
    o.map_err(|e| e.into_rhai(ncc))
}

/// Groups of hosts, and tunnels.
#[export_module]
pub mod group_module {
    use rhai::{Array, Map, NativeCallContext};

    use super::read;
    use crate::core::ctx::{Ctx, List, RhaiResultOf, call};
    use crate::core::error::OpError;
    use crate::core::units::Duration;
    use crate::ssh::api::change_map;
    use crate::ssh::group::Group;
    use crate::ssh::tunnel::{Tunnel, TunnelOptions};
    use crate::ssh::{ConnectOptions, FileOptions, Host, RunOptions};

    /// Several hosts that do everything at the same time: names, addresses, nodes or hosts.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(site().nodes);
    /// for answer in all.read("uptime").values() { print(answer); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn group(ncc: NativeCallContext, list: Array) -> RhaiResultOf<Group> {
        group_options(ncc, list, Map::new())
    }

    /// Several hosts, logged in to with options of your own.
    ///
    /// # Example
    /// ```rhai
    /// let pair = ssh::group(["k3s-cp1", "k3s-cp2"], #{ timeout: 5.seconds });
    /// print(pair);
    /// ```
    #[rhai_fn(name = "group", return_raw)]
    pub fn group_options(ncc: NativeCallContext, list: Array, options: Map) -> RhaiResultOf<Group> {
        let o = read(&ncc, ConnectOptions::read(&options))?;
        let ctx = Ctx::of(&ncc)?;
        read(&ncc, Group::read(&ctx, &list, &o))
    }

    /// Runs a shell command on every host; the outputs by host name.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(["k3s-cp1", "k3s-cp2"]);
    /// let out = all.run("systemctl restart chrony");
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn run(ncc: NativeCallContext, hosts: &mut Group, cmd: &str) -> RhaiResultOf<Map> {
        run_options(ncc, hosts, cmd, Map::new())
    }

    /// Runs a shell command on every host with options of your own; the outputs by host name.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(["k3s-cp1", "k3s-cp2"]);
    /// let out = all.run("grep -c processor /proc/cpuinfo", #{ timeout: 1.minutes });
    /// ```
    #[rhai_fn(global, name = "run", pure, return_raw)]
    pub fn run_options(ncc: NativeCallContext, hosts: &mut Group, cmd: &str, options: Map) -> RhaiResultOf<Map> {
        let o = read(&ncc, RunOptions::read(&options))?;
        let (hosts, cmd) = (hosts.clone(), cmd.to_owned());
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx, cmd, o) = (h.clone(), ctx.clone(), cmd.clone(), o.clone());
                async move { h.run(&ctx, &cmd, o).await.map(Dynamic::from) }
            };
            hosts.map(&ctx, work).await
        })
    }

    /// Runs a command that changes nothing on every host; the outputs by host name.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::group(["k3s-cp1", "k3s-cp2"]).read("uname -r"));
    /// ```
    #[rhai_fn(global, name = "read", pure, return_raw)]
    pub fn read_command(ncc: NativeCallContext, hosts: &mut Group, cmd: &str) -> RhaiResultOf<Map> {
        read_options(ncc, hosts, cmd, Map::new())
    }

    /// Runs a command that changes nothing on every host, with options of your own.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(["k3s-cp1", "k3s-cp2"]);
    /// print(all.read("systemctl is-active k3s", #{ ok_codes: [0, 3, 4] }));
    /// ```
    #[rhai_fn(global, name = "read", pure, return_raw)]
    pub fn read_options(ncc: NativeCallContext, hosts: &mut Group, cmd: &str, options: Map) -> RhaiResultOf<Map> {
        let o = read(&ncc, RunOptions::read(&options))?;
        let (hosts, cmd) = (hosts.clone(), cmd.to_owned());
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx, cmd, o) = (h.clone(), ctx.clone(), cmd.clone(), o.clone());
                async move { h.read_with(&ctx, &cmd, &o).await.map(Dynamic::from) }
            };
            hosts.map(&ctx, work).await
        })
    }

    /// Brings every host into the wanted state; the differences by host name.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(["k3s-cp1", "k3s-cp2"]);
    /// let changes = all.ensure(#{ packages: ["nfs-common"], swap: "off" });
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn ensure(ncc: NativeCallContext, hosts: &mut Group, wanted: Map) -> RhaiResultOf<Map> {
        let hosts = hosts.clone();
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx, wanted) = (h.clone(), ctx.clone(), wanted.clone());
                async move {
                    let changes = h.ensure(&ctx, &wanted).await?;
                    Ok(Dynamic::from_array(changes.iter().map(change_map).collect()))
                }
            };
            hosts.map(&ctx, work).await
        })
    }

    /// Facts of every host, by host name.
    ///
    /// # Example
    /// ```rhai
    /// let facts = ssh::group(["k3s-cp1", "k3s-cp2"]).facts();
    /// for name in facts.keys() { print(`${name}: ${facts[name].cores} cores`); }
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn facts(ncc: NativeCallContext, hosts: &mut Group) -> RhaiResultOf<Map> {
        let hosts = hosts.clone();
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx) = (h.clone(), ctx.clone());
                async move { h.facts(&ctx).await.map(Dynamic::from_map) }
            };
            hosts.map(&ctx, work).await
        })
    }

    /// Makes a file have exactly this text on every host; the names of those where it changed.
    ///
    /// # Example
    /// ```rhai
    /// ssh::group(["k3s-cp1", "k3s-cp2"]).write_file("/etc/motd", "Managed by gpuhost.\n");
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn write_file(ncc: NativeCallContext, hosts: &mut Group, path: &str, text: &str) -> RhaiResultOf<Array> {
        write_file_options(ncc, hosts, path, text, Map::new())
    }

    /// Makes a file have this text, mode and owner everywhere; names of the hosts that changed.
    ///
    /// # Example
    /// ```rhai
    /// let all = ssh::group(["k3s-cp1", "k3s-cp2"]);
    /// all.write_file("/etc/app.key", "a secret text\n", #{ mode: "0600" });
    /// ```
    #[rhai_fn(global, name = "write_file", pure, return_raw)]
    pub fn write_file_options(
        ncc: NativeCallContext,
        hosts: &mut Group,
        path: &str,
        text: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let o = read(&ncc, FileOptions::read(&options))?;
        let (hosts, path, text) = (hosts.clone(), path.to_owned(), text.to_owned());
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx, path, text, o) = (h.clone(), ctx.clone(), path.clone(), text.clone(), o.clone());
                async move { h.write_file(&ctx, &path, text.as_bytes(), o).await }
            };
            let all = hosts.each(&ctx, work).await?;
            Ok(all.into_iter().filter(|(_, c)| *c).map(|(h, _)| h.name().to_owned().into()).collect())
        })
    }

    /// Waits until a login works on every host and cloud-init is done.
    ///
    /// # Example
    /// ```rhai
    /// ssh::group(["k3s-cp1", "k3s-cp2"]).wait_ready(10.minutes);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn wait_ready(ncc: NativeCallContext, hosts: &mut Group, limit: Duration) -> RhaiResultOf<()> {
        let hosts = hosts.clone();
        call(&ncc, |ctx| async move {
            let work = |h: &Host| {
                let (h, ctx) = (h.clone(), ctx.clone());
                async move { h.wait_ready(&ctx, limit.0).await }
            };
            hosts.each(&ctx, work).await.map(|_| ())
        })
    }

    /// The hosts, for a loop or `parallel`.
    ///
    /// # Example
    /// ```rhai
    /// for host in ssh::group(["k3s-cp1", "k3s-cp2"]).hosts { print(host.name); }
    /// ```
    #[rhai_fn(global, get = "hosts", pure)]
    pub fn hosts(hosts: &mut Group) -> List<Host> {
        hosts.hosts().iter().cloned().map(Dynamic::from).collect()
    }

    /// Makes a port of the host reachable at `127.0.0.1` of this machine while the run lasts.
    ///
    /// # Example
    /// ```rhai
    /// let t = ssh::connect("k3s-cp1").tunnel(22);
    /// print(`ssh -p ${t.port} 127.0.0.1`);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn tunnel(ncc: NativeCallContext, host: &mut Host, port: i64) -> RhaiResultOf<Tunnel> {
        tunnel_options(ncc, host, port, Map::new())
    }

    /// A tunnel to another machine behind the host, or from a port of your own.
    ///
    /// # Example
    /// ```rhai
    /// let t = ssh::connect("k3s-cp1").tunnel(22, #{ to: "k3s-cp2" });
    /// print(t);
    /// ```
    #[rhai_fn(global, name = "tunnel", pure, return_raw)]
    pub fn tunnel_options(ncc: NativeCallContext, host: &mut Host, port: i64, options: Map) -> RhaiResultOf<Tunnel> {
        let o = read(&ncc, TunnelOptions::read(&options))?;
        let port = u16::try_from(port).ok().filter(|p| *p > 0);
        let port = read(&ncc, port.ok_or_else(|| OpError::invalid("a TCP port is between 1 and 65535")))?;
        let host = host.clone();
        call(&ncc, |ctx| async move { host.tunnel(&ctx, port, o).await })
    }

    /// Port of this machine that the tunnel begins at.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").tunnel(22).port);
    /// ```
    #[rhai_fn(global, get = "port", pure)]
    pub fn port(tunnel: &mut Tunnel) -> i64 {
        i64::from(tunnel.port())
    }

    /// Names of the hosts.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::group(["k3s-cp1", "k3s-cp2"]));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn group_to_string(hosts: &mut Group) -> String {
        hosts.to_string()
    }

    /// Where the tunnel begins and leads.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").tunnel(22));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn tunnel_to_string(tunnel: &mut Tunnel) -> String {
        tunnel.to_string()
    }
}
