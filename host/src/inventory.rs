//! `gpuhost inventory`: the site's machines in the formats of other tools.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::site::{Node, Site};
use serde_json::json;

use crate::args::{Format, InventoryArgs};
use crate::exit::Exit;
use crate::screen::Screen;
use crate::sources;

/// What other tools need to log in.
struct Access {
    user: String,
    /// File of the private key; `None` when it is no file.
    key: Option<PathBuf>,
    /// Host keys that gpuhost pinned; `None` when they are a lab's.
    known_hosts: Option<PathBuf>,
}

/// Runs `gpuhost inventory`.
#[must_use]
pub fn command(args: &InventoryArgs, screen: &Arc<Screen>) -> Exit {
    match print(args, screen) {
        Ok(exit) => exit,
        Err(e) => {
            crate::errors::show_error(screen, &e, None);
            Exit::of(&e)
        }
    }
}

fn print(args: &InventoryArgs, screen: &Screen) -> OpResult<Exit> {
    let Some((site, _)) = sources::open_site(args.site.as_deref(), None, false, screen, false)? else {
        return Ok(Exit::Usage);
    };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let access = access(&site, &state_dir);
    screen.out(render(args.format, &site, &access).trim_end());
    Ok(Exit::Done)
}

fn access(site: &Site, state_dir: &Path) -> Access {
    // As the sessions of a real site: its keys live apart from those of others.
    let own = state_dir.join("sites").join(&site.uuid);
    let lab = site.lab_control.is_some();
    let beside = site.path.parent().map(Path::to_owned).unwrap_or_default();
    let key = match site.ssh.key.split_once(':') {
        Some(("state", name)) if !lab => Some(own.join(name)),
        Some(("file", path)) => match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
            (Some(rest), Some(home)) => Some(PathBuf::from(home).join(rest)),
            _ => Some(std::path::absolute(beside.join(path)).unwrap_or_else(|_| beside.join(path))),
        },
        _ => None,
    };
    let known_hosts = if lab { None } else { Some(own.join("known_hosts")) };
    Access { user: site.ssh.user.clone(), key, known_hosts }
}

/// Where connections to a node's sshd really go.
fn endpoint(site: &Site, node: &Node) -> (String, u16) {
    let routed = site.connect.get(&format!("{}:22", node.ip)).and_then(|to| to.rsplit_once(':'));
    match routed.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))) {
        Some(at) => at,
        None => (node.ip.clone(), 22),
    }
}

fn render(format: Format, site: &Site, access: &Access) -> String {
    match format {
        Format::SshConfig => ssh_config(site, access),
        Format::Ansible => ansible(site, access),
        Format::Json => json_text(site, access),
        Format::Hosts => hosts(site),
    }
}

fn ssh_config(site: &Site, access: &Access) -> String {
    let mut out = format!("# Machines of {}, by `gpuhost inventory --format ssh-config`.\n", site.name);
    for n in &site.nodes {
        let (host, port) = endpoint(site, n);
        let _ =
            writeln!(out, "Host {} {}\n    HostName {host}\n    Port {port}\n    User {}", n.name, n.ip, access.user);
        // The host is known by its own address, whatever the way to it.
        let _ = writeln!(out, "    HostKeyAlias {}", n.ip);
        if let Some(k) = &access.key {
            let _ = writeln!(out, "    IdentityFile \"{}\"\n    IdentitiesOnly yes", k.display());
        }
        if let Some(k) = &access.known_hosts {
            let _ = writeln!(out, "    UserKnownHostsFile \"{}\" ~/.ssh/known_hosts", k.display());
        }
    }
    out
}

/// Group names of Ansible have no dashes.
fn group(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn ansible(site: &Site, access: &Access) -> String {
    let mut out = format!("# Machines of {}, by `gpuhost inventory --format ansible`.\n[all]\n", site.name);
    for n in &site.nodes {
        let (host, port) = endpoint(site, n);
        let known = access.known_hosts.iter().map(|k| format!(" -o UserKnownHostsFile={}", k.display()));
        let extra: String = known.collect();
        let _ = writeln!(
            out,
            "{} ansible_host={host} ansible_port={port} ansible_ssh_common_args='-o HostKeyAlias={}{extra}'",
            n.name, n.ip
        );
    }
    let _ = writeln!(out, "\n[all:vars]\nansible_user={}\nansible_become=true", access.user);
    if let Some(k) = &access.key {
        let _ = writeln!(out, "ansible_ssh_private_key_file='{}'", k.display());
    }
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for n in &site.nodes {
        let mut names = vec![group(&n.role), format!("kind_{}", n.kind.as_str())];
        if n.shape.gpu_count() > 0 {
            names.push("gpus".to_owned());
        }
        names.dedup();
        for g in names {
            groups.entry(g).or_default().push(&n.name);
        }
    }
    for (g, names) in groups {
        let _ = write!(out, "\n[{g}]\n{}\n", names.join("\n"));
    }
    out
}

fn json_text(site: &Site, access: &Access) -> String {
    let nodes: Vec<_> = site
        .nodes
        .iter()
        .map(|n| {
            let (host, port) = endpoint(site, n);
            json!({
                "name": n.name, "role": n.role, "kind": n.kind.as_str(), "ip": n.ip, "mac": n.mac, "vmid": n.vmid,
                "pve_node": n.pve_node, "gpus": n.shape.gpu_count(), "cores": n.shape.cores_or_default(),
                "ssh": {"host": host, "port": port, "user": access.user},
            })
        })
        .collect();
    let all = json!({
        "site": site.name, "uuid": site.uuid, "nodes": nodes,
        "ssh_key": access.key, "known_hosts": access.known_hosts,
    });
    format!("{all:#}\n")
}

fn hosts(site: &Site) -> String {
    let domain = site.network.domain.as_deref();
    let mut out = String::new();
    for n in &site.nodes {
        let long = domain.map(|d| format!("{}.{d} ", n.name)).unwrap_or_default();
        let _ = writeln!(out, "{} {long}{}", n.ip, n.name);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    /// The default site; `more` goes into its last table, `[connect]`.
    fn site(more: &str) -> Arc<Site> {
        let text = format!("{}\n{more}", crate::embed::get("recipes/site.toml").unwrap());
        let text = sources::Text { name: "/project/site.toml".to_owned(), text };
        sources::load_site(&text).unwrap().0
    }

    #[test]
    fn every_format_names_every_machine() {
        let s = site("");
        let a = access(&s, Path::new("/state"));
        for f in Format::value_variants() {
            let text = render(*f, &s, &a);
            assert!(s.nodes.iter().all(|n| text.contains(&n.name) && text.contains(&n.ip)), "{f:?}: {text}");
        }
        let key = format!("IdentityFile \"/state/sites/{}/ssh_key\"", s.uuid);
        assert!(ssh_config(&s, &a).contains(&key));
        let value: serde_json::Value = serde_json::from_str(&json_text(&s, &a)).unwrap();
        assert_eq!(value["nodes"].as_array().unwrap().len(), s.nodes.len());
        let text = ansible(&s, &a);
        assert!(text.contains("[kind_server]\n") && !text.contains("[gpu-"), "{text}");
    }

    #[test]
    fn routes_of_the_site_are_followed() {
        let ip = site("").nodes[0].ip.clone();
        let s = site(&format!("\"{ip}:22\" = \"127.0.0.1:40022\"\n"));
        let text = ssh_config(&s, &access(&s, Path::new("/state")));
        let first: Vec<&str> = text.lines().skip(2).take(4).map(str::trim).collect();
        assert_eq!(first[0], "HostName 127.0.0.1");
        assert_eq!((first[1], first[3]), ("Port 40022", format!("HostKeyAlias {ip}").as_str()));
    }
}
