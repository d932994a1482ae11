//! The NFS server: data disk, service, exports, and a probe from a client.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rhai::{Array, Dynamic, Map};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::options;
use crate::ssh::{Host, Output, quote};

/// A directory that a server exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    server: Arc<str>,
    path: Arc<str>,
}

impl Export {
    /// An export by its server's address and its path.
    #[must_use]
    pub fn new(server: &str, path: &str) -> Self {
        Export { server: server.into(), path: path.into() }
    }
    /// Address of the server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }
    /// Exported path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.server, self.path)
    }
}

options! {
    /// An NFS server.
    pub struct ServerOptions {
        /// Data disk by id; without it the path is a plain directory of the system disk.
        device: Option<String> = None,
        /// Where the data disk is mounted.
        path: String,
        /// Label of its file system: how the disk is found again.
        label: String = "nfs-data".to_owned(),
        /// Kind of its file system.
        fs: String = "ext4".to_owned(),
        /// Server threads.
        threads: i64 = 16,
    }
}

options! {
    /// An export.
    pub struct ExportOptions {
        /// Addresses or subnets that may mount it.
        clients: Vec<String>,
        /// Export options. Kubernetes' driver makes directories as root, hence no_root_squash for the named clients.
        options: String = "rw,sync,no_subtree_check,no_root_squash".to_owned(),
    }
}

fn map(list: impl IntoIterator<Item = (String, Dynamic)>) -> Map {
    list.into_iter().map(|(k, v)| (k.into(), v)).collect()
}

fn entry(key: &str, value: impl Into<Dynamic>) -> (String, Dynamic) {
    (key.to_owned(), value.into())
}

const CONF: &str = "/etc/nfs.conf.d/gpuhost.conf";
const DROP_IN: &str = "/etc/systemd/system/nfs-server.service.d/gpuhost.conf";

/// The state of an NFS server as a map for `host.ensure`.
fn server_state(o: &ServerOptions) -> Map {
    let conf = format!("# Written by gpuhost.\n[nfsd]\nvers3=n\nthreads={}\n", o.threads);
    // Without its disk the server would export an empty directory of the system disk.
    let drop_in = format!("[Unit]\nRequiresMountsFor={}\n", o.path);
    let mut packages: Array = vec!["nfs-kernel-server".into()];
    if o.fs == "xfs" {
        packages.push("xfsprogs".into());
    }
    let restart: Array = vec![CONF.into(), DROP_IN.into()];
    let service = map([entry("state", "running"), entry("restart_on", restart)]);
    let mut state = map([
        entry("packages", packages),
        entry("files", map([entry(CONF, conf), entry(DROP_IN, drop_in)])),
        entry("directories", map([entry(&o.path, map([entry("mode", "0755"), entry("owner", "root:root")]))])),
        entry("services", map([entry("nfs-server", service)])),
    ]);
    if let Some(device) = &o.device {
        let fs = map([entry("fs", o.fs.clone()), entry("label", o.label.clone())]);
        let mount = map([entry("fs", o.fs.clone()), entry("label", o.label.clone())]);
        state.insert("filesystems".into(), map([entry(device, fs)]).into());
        state.insert("mounts".into(), map([entry(&o.path, mount)]).into());
    }
    state
}

/// Makes `host` an NFS server.
///
/// # Errors
/// As `host.ensure`: a disk that is not blank is never formatted.
pub async fn ensure_server(ctx: &Ctx, host: &Host, o: &ServerOptions) -> OpResult<()> {
    if !o.path.starts_with('/') || o.path.len() < 2 {
        return Err(OpError::invalid(format!("option `path`: `{}` is no absolute path", o.path)));
    }
    let op = Op::write("nfs", "ensure_server", host.name()).args(&(&o.device, &o.path, &o.label));
    ctx.run_op(op, |s| async move { host.ensure(s.ctx(), &server_state(o)).await.map(|_| ()) }).await
}

/// One file per exported path, so that several exports of one host do not undo each other.
fn exports_file(path: &str) -> String {
    let slug: String =
        path.trim_matches('/').chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("/etc/exports.d/gpuhost-{slug}.exports")
}

/// An address, a subnet, or a host's name: what names single clients in exports(5).
fn is_client(text: &str) -> bool {
    let (host, prefix) = text.split_once('/').map_or((text, None), |(h, p)| (h, Some(p)));
    match (host.parse::<std::net::IpAddr>(), prefix) {
        (Ok(_), None) => true,
        (Ok(ip), Some(p)) => {
            let mask = ip.is_ipv4() && p.parse::<std::net::Ipv4Addr>().is_ok();
            mask || p.parse::<u8>().is_ok_and(|n| n <= if ip.is_ipv4() { 32 } else { 128 })
        }
        (Err(_), Some(_)) => false,
        (Err(_), None) => {
            let label = |l: &str| {
                let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
                ends(l.chars().next())
                    && ends(l.chars().last())
                    && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            // Four numbers would be an address, and are none.
            host.split('.').all(label) && !host.split('.').all(|l| l.bytes().all(|b| b.is_ascii_digit()))
        }
    }
}

fn check_clients(clients: &[String]) -> OpResult<()> {
    if clients.is_empty() {
        return Err(OpError::invalid("option `clients` names nobody"));
    }
    for c in clients {
        if !is_client(c) {
            return Err(OpError::invalid(format!("option `clients`: `{c}` is no address or subnet"))
                .hint("name the clients one by one (`site().node_ips()`), or their subnet (`10.0.0.0/24`)"));
        }
    }
    Ok(())
}

/// Client to options, of one path, as `exportfs -v` prints them.
fn parse_exports(text: &str, path: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut current = "";
    for word in text.split_whitespace() {
        if word.starts_with('/') {
            current = word;
        } else if current == path
            && let Some((client, options)) = word.split_once('(')
        {
            out.insert(client.to_owned(), options.trim_end_matches(')').to_owned());
        }
    }
    out
}

/// Options whose loss would matter; the rest has defaults that print differently.
const TELLING: [&str; 6] = ["rw", "ro", "root_squash", "no_root_squash", "all_squash", "no_all_squash"];

fn same_options(wanted: &str, live: &str) -> bool {
    let live: Vec<&str> = live.split(',').collect();
    wanted.split(',').filter(|o| TELLING.contains(o)).all(|o| live.contains(&o))
}

/// What `exportfs -ra` has to change for `path`.
fn live_changes(host: &str, path: &str, o: &ExportOptions, live: &BTreeMap<String, String>) -> Vec<Change> {
    let mut out = Vec::new();
    for c in &o.clients {
        let now = live.get(c);
        if !now.is_some_and(|n| same_options(&o.options, n)) {
            let before = now.map(|n| n.clone().into());
            out.push(Change::new(host, format!("export {path} to {c}"), before, Some(o.options.clone().into())));
        }
    }
    for (c, options) in live.iter().filter(|(c, _)| !o.clients.contains(c)) {
        out.push(Change::new(host, format!("export {path} to {c}"), Some(options.clone().into()), None));
    }
    out
}

/// Exports `path` of `host` to exactly the clients of `o`.
///
/// # Errors
/// `invalid` for clients that name everybody; `failed` with the words of exportfs.
pub async fn ensure_export(ctx: &Ctx, host: &Host, path: &str, o: &ExportOptions) -> OpResult<Export> {
    check_clients(&o.clients)?;
    if !path.starts_with('/') || path.contains(char::is_whitespace) {
        return Err(OpError::invalid(format!("`{path}` is no absolute path without blanks")));
    }
    let op = Op::write("nfs", "ensure_export", host.name()).args(&(path, &o.clients, &o.options));
    ctx.run_op(op, |s| async move {
        let ctx = s.ctx();
        let clients: Vec<String> = o.clients.iter().map(|c| format!("{c}({})", o.options)).collect();
        let text = format!("# Written by gpuhost.\n{path} {}\n", clients.join(" "));
        let state = map([
            entry("files", map([entry(&exports_file(path), text)])),
            entry("directories", vec![Dynamic::from(path.to_owned())]),
        ]);
        host.ensure(ctx, &state).await?;
        let live = || async {
            let out = checked(host.look_raw(ctx, "exportfs -v").await?, "cannot list the exports")?;
            OpResult::Ok(live_changes(host.name(), path, o, &parse_exports(&out.stdout, path)))
        };
        let changes = live().await?;
        if !changes.is_empty() {
            s.act(format!("export {path}"), changes, async {
                checked(host.exec_raw(ctx, "exportfs -ra", b"").await?, "cannot export")?;
                match live().await?.first() {
                    None => Ok(()),
                    Some(left) => Err(OpError::failed(format!("{} did not come about", left.what))
                        .hint("look at `exportfs -v` and at the other files in /etc/exports.d")),
                }
            })
            .await?;
        }
        Ok(Export::new(host.address(), path))
    })
    .await
}

fn checked(out: Output, what: &str) -> OpResult<Output> {
    if out.code == 0 {
        return Ok(out);
    }
    let mut e = OpError::failed(what);
    e.causes = out.last_words();
    Err(e)
}

/// Mounts `share` read-only on `from` for a moment.
///
/// # Errors
/// `denied` when the export list lacks the host, `unreachable`, `not_found` for a wrong path.
pub async fn check_mount(ctx: &Ctx, from: &Host, share: &Export) -> OpResult<bool> {
    let op = Op::read("nfs", "check_mount", from.name()).args(&share.to_string());
    ctx.run_op(op, |s| async move {
        let script = format!(
            "d=$(mktemp -d /run/gpuhost-probe.XXXXXX) || exit 1\n\
             mount -t nfs4 -o ro,soft,timeo=50,retrans=1 {} \"$d\"; r=$?\n\
             if [ $r -eq 0 ]; then ls \"$d\" >/dev/null; r=$?; umount \"$d\"; fi\n\
             rmdir \"$d\"; exit $r",
            quote(&share.to_string())
        );
        let out = from.exec_raw(s.ctx(), &script, b"").await?;
        if out.code == 0 { Ok(true) } else { Err(mount_error(from, share, &out)) }
    })
    .await
}

fn mount_error(from: &Host, share: &Export, out: &Output) -> OpError {
    let said = out.stderr.to_lowercase();
    let message = format!("{} cannot mount {share}", from.name());
    let mut e = if said.contains("access denied") || said.contains("not permitted") {
        OpError::denied(message).hint(format!("{} has to be among the export's `clients`", from.address()))
    } else if said.contains("no such file") || said.contains("does not exist") {
        OpError::not_found(message).hint("is the path exported, and the data disk mounted?")
    } else if said.contains("need a /sbin/mount") || said.contains("bad option") || said.contains("unknown filesystem")
    {
        OpError::invalid(message).hint("install the client: `host.ensure_packages([\"nfs-common\"])`")
    } else if said.contains("refused") || said.contains("timed out") || said.contains("no route") {
        OpError::unreachable(message).hint("does nfs-server run, and is TCP port 2049 open?")
    } else {
        OpError::failed(message)
    };
    e.causes = out.last_words();
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(clients: &[&str]) -> ExportOptions {
        ExportOptions {
            clients: clients.iter().map(|c| (*c).to_owned()).collect(),
            options: "rw,sync,no_subtree_check,no_root_squash".into(),
        }
    }

    const LIVE: &str = "/srv/nfs/k8s  \t10.0.0.21(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,no_root_squash,no_all_squash)\n\
        /srv/nfs/k8s\n\t\t10.0.0.22(sync,rw,root_squash)\n/other 10.0.0.23(rw,no_root_squash)\n";

    #[test]
    fn live_exports_compare_as_sets() {
        let live = parse_exports(LIVE, "/srv/nfs/k8s");
        assert_eq!(live.len(), 2);
        let what = |clients: &[&str]| -> Vec<String> {
            live_changes("nfs1", "/srv/nfs/k8s", &options(clients), &live).into_iter().map(|c| c.what).collect()
        };
        assert_eq!(what(&["10.0.0.21"]), vec!["export /srv/nfs/k8s to 10.0.0.22"]);
        assert_eq!(what(&["10.0.0.21", "10.0.0.22"]), vec!["export /srv/nfs/k8s to 10.0.0.22"]);
        assert_eq!(what(&["10.0.0.21", "10.0.0.23"]).len(), 2);
    }

    #[test]
    fn everybody_is_no_client() {
        assert!(
            check_clients(&["10.0.0.0/24".into(), "10.0.0.0/255.255.255.0".into(), "n1.lab".into(), "fd00::1".into()])
                .is_ok()
        );
        let half = ["10.0.0.0/8x", "10.0.0.0/33", "10.0.0.300", "10.0.0", "n1.lab/24", "-n1", "n1..lab"];
        for bad in ["*", "10.0.0.1(rw)", "a b", ""].into_iter().chain(half) {
            assert!(check_clients(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(check_clients(&[]).is_err());
        assert_eq!(exports_file("/srv/nfs/k8s"), "/etc/exports.d/gpuhost-srv-nfs-k8s.exports");
    }
}
