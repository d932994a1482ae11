//! The script functions of `ssh`: thin calls into [`Host`].
#![allow(missing_docs, clippy::unwrap_used)] // in what the macro writes
use rhai::plugin::*;

use crate::core::ctx::RhaiResultOf;
use crate::core::error::OpResult;
use crate::core::event::Change;
use crate::site::Node;

/// An error before the op begins, with the recipe's position.
fn read<T>(ncc: &NativeCallContext, o: OpResult<T>) -> RhaiResultOf<T> {
    o.map_err(|e| e.into_rhai(ncc))
}

/// A change as scripts see it.
pub(super) fn change_map(c: &Change) -> Dynamic {
    let value = |v: &Option<serde_json::Value>| {
        v.as_ref().and_then(|v| rhai::serde::to_dynamic(v).ok()).unwrap_or(Dynamic::UNIT)
    };
    let mut m = rhai::Map::new();
    m.insert("target".into(), c.target.clone().into());
    m.insert("what".into(), c.what.clone().into());
    m.insert("before".into(), value(&c.before));
    m.insert("after".into(), value(&c.after));
    m.into()
}

fn k3s_map(node: &Node) -> rhai::Map {
    let labels = node.shape.labels.iter().flatten().map(|(k, v)| (k.as_str().into(), v.clone().into()));
    let taints = node.shape.taints.iter().flatten().map(|t| t.clone().into());
    let mut m = rhai::Map::new();
    m.insert("labels".into(), labels.collect::<rhai::Map>().into());
    m.insert("taints".into(), taints.collect::<rhai::Array>().into());
    m.insert("gpus".into(), i64::from(node.shape.gpus.unwrap_or(0)).into());
    m
}

/// Commands, files, facts and the wanted state of hosts.
#[export_module]
pub mod ssh_module {
    use rhai::{Array, Map, NativeCallContext};

    use super::{change_map, k3s_map, read};
    use crate::core::ctx::{RhaiResultOf, call};
    use crate::core::units::Duration;
    use crate::ssh::{ConnectOptions, FileOptions, Host, Output, RunOptions, known_hosts};

    /// A host by node name or address, logged in to as the site file says.
    ///
    /// # Example
    /// ```rhai
    /// let host = ssh::connect("k3s-cp1");
    /// print(host.read("uptime"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn connect(ncc: NativeCallContext, host: &str) -> RhaiResultOf<Host> {
        connect_options(ncc, host, Map::new())
    }

    /// A host by node name or address, with user, port, key, agent or time limit of your own.
    ///
    /// # Example
    /// ```rhai
    /// let host = ssh::connect("10.0.0.9", #{ user: "root", key: "file:~/.ssh/id_ed25519" });
    /// ```
    #[rhai_fn(name = "connect", return_raw)]
    pub fn connect_options(ncc: NativeCallContext, host: &str, options: Map) -> RhaiResultOf<Host> {
        let o = read(&ncc, ConnectOptions::read(&options))?;
        let ctx = crate::core::ctx::Ctx::of(&ncc)?;
        read(&ncc, Host::connect(&ctx, host, &o))
    }

    /// Trusts one host key from now on: `key` is `type base64`, as in a `.pub` file.
    ///
    /// A port other than 22 is written as in known_hosts: `[host]:port`.
    ///
    /// # Example
    /// ```rhai
    /// ssh::pin_host_key("10.0.0.9", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn pin_host_key(ncc: NativeCallContext, host: &str, key: &str) -> RhaiResultOf<bool> {
        let ((host, port), key) = (known_hosts::split_name(host), key.to_owned());
        call(&ncc, |ctx| async move { known_hosts::pin(&ctx, &host, port, &[key]) })
    }

    /// Runs a shell command as root; a failure unless it exits with 0.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").run("systemctl restart chrony");
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn run(ncc: NativeCallContext, host: &mut Host, cmd: &str) -> RhaiResultOf<Output> {
        run_options(ncc, host, cmd, Map::new())
    }

    /// Runs a shell command with input, environment, directory, user or time limit of your own.
    ///
    /// # Example
    /// ```rhai
    /// let out = ssh::connect("k3s-cp1").run("grep -c processor /proc/cpuinfo", #{ ok_codes: [0, 1] });
    /// print(out.stdout);
    /// ```
    #[rhai_fn(global, name = "run", pure, return_raw)]
    pub fn run_options(ncc: NativeCallContext, host: &mut Host, cmd: &str, options: Map) -> RhaiResultOf<Output> {
        let o = read(&ncc, RunOptions::read(&options))?;
        let (host, cmd) = (host.clone(), cmd.to_owned());
        call(&ncc, |ctx| async move { host.run(&ctx, &cmd, o).await })
    }

    /// Runs a shell program of several lines as root, in one round trip.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").script(`
    ///     set -e
    ///     mkdir -p /srv/data
    ///     date > /srv/data/made
    /// `);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn script(ncc: NativeCallContext, host: &mut Host, text: &str) -> RhaiResultOf<Output> {
        script_options(ncc, host, text, Map::new())
    }

    /// Runs a shell program with input, environment, directory, user or time limit of your own.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").script("echo $GREETING > /tmp/hello", #{ env: #{ GREETING: "hi" } });
    /// ```
    #[rhai_fn(global, name = "script", pure, return_raw)]
    pub fn script_options(ncc: NativeCallContext, host: &mut Host, text: &str, options: Map) -> RhaiResultOf<Output> {
        let o = read(&ncc, RunOptions::read(&options))?;
        let (host, text) = (host.clone(), text.to_owned());
        call(&ncc, |ctx| async move { host.run_as(&ctx, "script", &text, o).await })
    }

    /// Runs a command that you declare to change nothing; it also runs in plans.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("uname -r").stdout);
    /// ```
    #[rhai_fn(global, name = "read", pure, return_raw)]
    pub fn read_command(ncc: NativeCallContext, host: &mut Host, cmd: &str) -> RhaiResultOf<Output> {
        let (host, cmd) = (host.clone(), cmd.to_owned());
        call(&ncc, |ctx| async move { host.read(&ctx, &cmd).await })
    }

    /// Runs a command that changes nothing, with options of your own.
    ///
    /// # Example
    /// ```rhai
    /// let out = ssh::connect("k3s-cp1").read("systemctl is-active k3s", #{ ok_codes: [0, 3, 4] });
    /// print(out.stdout);
    /// ```
    #[rhai_fn(global, name = "read", pure, return_raw)]
    pub fn read_options(ncc: NativeCallContext, host: &mut Host, cmd: &str, options: Map) -> RhaiResultOf<Output> {
        let o = read(&ncc, RunOptions::read(&options))?;
        let (host, cmd) = (host.clone(), cmd.to_owned());
        call(&ncc, |ctx| async move { host.read_with(&ctx, &cmd, &o).await })
    }

    /// The text of a file, read as root; `()` when there is none.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read_file("/etc/os-release"));
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn read_file(ncc: NativeCallContext, host: &mut Host, path: &str) -> RhaiResultOf<Dynamic> {
        let (host, path) = (host.clone(), path.to_owned());
        call(&ncc, |ctx| async move {
            let found = host.read_file(&ctx, &path).await?;
            Ok(found.map_or(Dynamic::UNIT, |b| String::from_utf8_lossy(&b).into_owned().into()))
        })
    }

    /// Makes a file have exactly this text; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").write_file("/etc/motd", "Managed by gpuhost.\n");
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn write_file(ncc: NativeCallContext, host: &mut Host, path: &str, text: &str) -> RhaiResultOf<bool> {
        write_file_options(ncc, host, path, text, Map::new())
    }

    /// Makes a file have exactly this text, mode and owner; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").write_file("/etc/app.conf", "a = 1\n", #{ mode: "0600", owner: "root:root" });
    /// ```
    #[rhai_fn(global, name = "write_file", pure, return_raw)]
    pub fn write_file_options(
        ncc: NativeCallContext,
        host: &mut Host,
        path: &str,
        text: &str,
        options: Map,
    ) -> RhaiResultOf<bool> {
        let o = read(&ncc, FileOptions::read(&options))?;
        let (host, path, text) = (host.clone(), path.to_owned(), text.to_owned());
        call(&ncc, |ctx| async move { host.write_file(&ctx, &path, text.as_bytes(), o).await })
    }

    /// Copies a local file below the project folder to the host; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { ssh::connect("k3s-cp1").copy_to("app.conf", "/etc/app.conf"); }
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn copy_to(ncc: NativeCallContext, host: &mut Host, local: &str, path: &str) -> RhaiResultOf<bool> {
        copy_to_options(ncc, host, local, path, Map::new())
    }

    /// Copies a local file to the host with mode and owner; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { ssh::connect("k3s-cp1").copy_to("tool", "/usr/local/bin/tool", #{ mode: "0755" }); }
    /// ```
    #[rhai_fn(global, name = "copy_to", pure, return_raw)]
    pub fn copy_to_options(
        ncc: NativeCallContext,
        host: &mut Host,
        local: &str,
        path: &str,
        options: Map,
    ) -> RhaiResultOf<bool> {
        let o = read(&ncc, FileOptions::read(&options))?;
        let (host, local, path) = (host.clone(), local.to_owned(), path.to_owned());
        call(&ncc, |ctx| async move { host.copy_to(&ctx, &local, &path, o).await })
    }

    /// Copies a file of the host below the project folder; says whether it changed.
    ///
    /// # Example
    /// ```rhai
    /// if param("never", false) { ssh::connect("k3s-cp1").copy_from("/var/log/syslog", "logs/cp1.log"); }
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn copy_from(ncc: NativeCallContext, host: &mut Host, path: &str, local: &str) -> RhaiResultOf<bool> {
        let (host, path, local) = (host.clone(), path.to_owned(), local.to_owned());
        call(&ncc, |ctx| async move { host.copy_from(&ctx, &path, &local).await })
    }

    /// Brings the host into the wanted state; returns the differences it found and mended.
    ///
    /// One round trip compares the whole map, at most one more acts on what differs.
    ///
    /// # Example
    /// ```rhai
    /// let changes = ssh::connect("k3s-gpu1").ensure(#{
    ///     packages: ["nfs-common", "open-iscsi"],
    ///     sysctl: #{ "vm.max_map_count": 262144 },
    ///     modules: ["br_netfilter"],
    ///     swap: "off",
    ///     files: #{ "/etc/motd": "Managed by gpuhost.\n" },
    ///     services: #{ iscsid: "running" },
    /// });
    /// for c in changes { print(`${c.what}: ${c.before} -> ${c.after}`); }
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn ensure(ncc: NativeCallContext, host: &mut Host, wanted: Map) -> RhaiResultOf<Array> {
        let host = host.clone();
        let changes = call(&ncc, |ctx| async move { host.ensure(&ctx, &wanted).await })?;
        Ok(changes.iter().map(change_map).collect())
    }

    /// System, hardware, disks, network, packages and services as a map, in one round trip.
    ///
    /// What the host does not tell is empty, and a number or size that it does not tell is `()`.
    ///
    /// | key | value |
    /// |---|---|
    /// | `os` | map: `id` (`debian`), `version` (`12`), `name` |
    /// | `kernel`, `arch`, `hostname`, `cpu` (model), `virtualization` (`kvm`), `boot_id`, `timezone` | text |
    /// | `cores` | int |
    /// | `uptime` | Duration |
    /// | `memory`, `memory_available` | Size |
    /// | `swap` | list of maps: `path`, `size`, `used` (Sizes) |
    /// | `disks` | list of maps, partitions too: `name`, `kind` (`disk`, `part`), `size` (Size), `serial`, `fs`, `label`, `mount` |
    /// | `mounts` | list of maps, devices and NFS only: `device`, `path`, `fs`, `options`, `size`, `used`, `free` (Sizes) |
    /// | `nics` | list of maps, `lo` left out: `name`, `mac`, `addresses` (list of texts) |
    /// | `packages` | map: name to version, installed ones only |
    /// | `services`, `failed`, `modules` | lists of names: running services, failed units, loaded kernel modules |
    /// | `sysctl` | map: setting to text |
    /// | `pci` | list of maps: `address`, `kind`, `id` (`10de:20f1`), `name` |
    /// | `users` | map: name to a map of `uid`, `gid` (ints), `home`, `shell` |
    /// | `time_synchronized` | bool |
    ///
    /// # Example
    /// ```rhai
    /// let f = ssh::connect("k3s-gpu1").facts();
    /// print(`${f.os.name}, ${f.cores} cores, ${f.memory}`);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn facts(ncc: NativeCallContext, host: &mut Host) -> RhaiResultOf<Map> {
        let host = host.clone();
        call(&ncc, |ctx| async move { host.facts(&ctx).await })
    }

    /// Restarts a service, whatever its state.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-gpu1").restart_service("iscsid");
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn restart_service(ncc: NativeCallContext, host: &mut Host, name: &str) -> RhaiResultOf<()> {
        let (host, name) = (host.clone(), name.to_owned());
        call(&ncc, |ctx| async move { host.restart_service(&ctx, &name).await })
    }

    /// Waits until a login works and cloud-init is done.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-cp1").wait_ready(10.minutes);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn wait_ready(ncc: NativeCallContext, host: &mut Host, limit: Duration) -> RhaiResultOf<()> {
        let host = host.clone();
        call(&ncc, |ctx| async move { host.wait_ready(&ctx, limit.0).await })
    }

    /// Reboots the host and waits until its new boot answers.
    ///
    /// # Example
    /// ```rhai
    /// ssh::connect("k3s-gpu1").reboot_and_wait(10.minutes);
    /// ```
    #[rhai_fn(global, pure, return_raw)]
    pub fn reboot_and_wait(ncc: NativeCallContext, host: &mut Host, limit: Duration) -> RhaiResultOf<()> {
        let host = host.clone();
        call(&ncc, |ctx| async move { host.reboot_and_wait(&ctx, limit.0).await })
    }

    /// Name of the host: its node's, or the address.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").name);
    /// ```
    #[rhai_fn(global, get = "name", pure)]
    pub fn name(host: &mut Host) -> String {
        host.name().to_owned()
    }

    /// Address the host is reached at.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").address);
    /// ```
    #[rhai_fn(global, get = "address", pure)]
    pub fn address(host: &mut Host) -> String {
        host.address().to_owned()
    }

    /// Role of the site's node; `()` for other hosts.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-gpu1").role);
    /// ```
    #[rhai_fn(global, get = "role", pure)]
    pub fn role(host: &mut Host) -> Dynamic {
        host.node().map_or(Dynamic::UNIT, |n| n.role.clone().into())
    }

    /// Kind of the site's node: `server`, `agent` or `storage`; `()` for other hosts.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-gpu1").kind);
    /// ```
    #[rhai_fn(global, get = "kind", pure)]
    pub fn kind(host: &mut Host) -> Dynamic {
        host.kind().map_or(Dynamic::UNIT, |k| k.to_owned().into())
    }

    /// What the site file says of the node in Kubernetes; `()` for other hosts.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-gpu1").k3s);
    /// ```
    #[rhai_fn(global, get = "k3s", pure)]
    pub fn k3s(host: &mut Host) -> Dynamic {
        host.node().map_or(Dynamic::UNIT, |n| k3s_map(&n).into())
    }

    /// Standard output.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("hostname").stdout);
    /// ```
    #[rhai_fn(global, get = "stdout", pure)]
    pub fn stdout(out: &mut Output) -> String {
        out.stdout.clone()
    }

    /// Standard error.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("true").stderr);
    /// ```
    #[rhai_fn(global, get = "stderr", pure)]
    pub fn stderr(out: &mut Output) -> String {
        out.stderr.clone()
    }

    /// Standard output as bytes, for what is no text.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("head -c 16 /dev/urandom").stdout_bytes.len());
    /// ```
    #[rhai_fn(global, get = "stdout_bytes", pure)]
    pub fn stdout_bytes(out: &mut Output) -> rhai::Blob {
        out.bytes().to_vec()
    }

    /// Name of the signal that ended the command, for example `"KILL"`; `()` when none did.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("true").signal);
    /// ```
    #[rhai_fn(global, get = "signal", pure)]
    pub fn signal(out: &mut Output) -> Dynamic {
        out.signal().map_or(Dynamic::UNIT, |s| s.to_owned().into())
    }

    /// Exit code.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("test -d /srv", #{ ok_codes: [0, 1] }).code);
    /// ```
    #[rhai_fn(global, get = "code", pure)]
    pub fn code(out: &mut Output) -> i64 {
        out.code
    }

    /// How long the command took.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("true").duration);
    /// ```
    #[rhai_fn(global, get = "duration", pure)]
    pub fn duration(out: &mut Output) -> Duration {
        out.duration
    }

    /// Standard output without its last newline.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1").read("hostname"));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn output_to_string(out: &mut Output) -> String {
        out.to_string()
    }

    /// Name and address.
    ///
    /// # Example
    /// ```rhai
    /// print(ssh::connect("k3s-cp1"));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn host_to_string(host: &mut Host) -> String {
        host.to_string()
    }
}
