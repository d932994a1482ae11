//! What a served lab writes for outside clients: ready file, ssh configuration, kubeconfig, site file.
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use gpuhost_lab::Lab;
use gpuhost_lab::kube::k3s::membership;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde_json::{Value, json};

use super::front::Front;
use crate::sources::Text;

/// Everything that is written for one served lab.
pub struct Files<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// Its doors.
    pub front: &'a Front,
    /// The site it is served for.
    pub site: &'a Site,
    /// The site file's text.
    pub text: &'a Text,
    /// Address of the control endpoint.
    pub control: SocketAddr,
    /// Where the files go.
    pub dir: PathBuf,
    /// Private key that logs in to nodes.
    pub key: PathBuf,
    /// Host and port of the hypervisor's API in the site.
    pub api: String,
    /// More places for the ready file.
    pub ready: Option<PathBuf>,
}

fn fail(path: &Path) -> impl Fn(std::io::Error) -> OpError + '_ {
    move |e| OpError::failed(format!("cannot write `{}`", path.display())).because(e.to_string())
}

fn put(path: &Path, text: &str) -> OpResult<()> {
    crate::statedir::write_private(path, text.as_bytes()).map_err(fail(path))
}

impl Files<'_> {
    /// Writes all files anew, each at once.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self) -> OpResult<Value> {
        let (ca, secret, password) = self.lab.with(|w| {
            let password = w.pve.access.users.get("root@pam").map(|u| u.password.clone());
            (w.pve.ca.cert.clone(), w.token_secret(&self.site.proxmox.token_id), password)
        });
        let secret = secret.unwrap_or_default();
        let (name, credential) = super::credential(self.lab, self.site)?;
        put(&self.dir.join("proxmox-ca.pem"), &ca)?;
        put(&self.dir.join(name), &credential)?;
        put(&self.dir.join("ssh_config"), &self.ssh_config())?;
        put(&self.dir.join("known_hosts"), &self.known_hosts())?;
        put(&self.dir.join("kubeconfig"), &self.kubeconfig())?;
        put(&self.dir.join("site.toml"), &self.site_file()?)?;
        let ready = self.ready_json(&secret, password.as_deref().unwrap_or_default());
        let text = format!("{ready:#}\n");
        put(&self.dir.join("ready.json"), &text)?;
        if let Some(path) = &self.ready {
            put(path, &text)?;
        }
        Ok(ready)
    }

    fn ready_json(&self, secret: &str, password: &str) -> Value {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let site = self.site;
        let fingerprint = self.lab.with(|w| gpuhost_lab::tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default());
        let port = self.front.door(&self.api).map_or(0, |a| a.port());
        let hosts: serde_json::Map<String, Value> = site
            .nodes
            .iter()
            .filter_map(|n| {
                let door = self.front.door(&format!("{}:22", n.ip))?;
                let host = json!({"host": "127.0.0.1", "port": door.port(), "user": site.ssh.user});
                Some((n.name.clone(), host))
            })
            .collect();
        json!({
            "lab": true,
            "proxmox": {
                "url": format!("https://127.0.0.1:{port}"), "node": site.proxmox.pve_node,
                "token_id": site.proxmox.token_id, "token_secret": secret, "user": "root@pam", "password": password,
                "ca_file": at("proxmox-ca.pem"), "fingerprint": fingerprint, "template_vmid": site.template.vmid,
                "storage": site.proxmox.storage, "bridge": site.network.bridge,
            },
            "kubernetes": {"kubeconfig": at("kubeconfig")},
            "ssh": {"config": at("ssh_config"), "key": self.key.display().to_string(), "hosts": hosts},
            "site": at("site.toml"),
            "control": self.control.to_string(),
        })
    }

    fn ssh_config(&self) -> String {
        let mut out = String::from("# Written by `gpuhost lab serve`: the simulated machines.\n");
        for n in &self.site.nodes {
            let Some(door) = self.front.door(&format!("{}:22", n.ip)) else { continue };
            writeln!(
                out,
                "Host {} {}\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  HostKeyAlias {}\n  IdentityFile {}\n  \
                 IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes",
                n.name,
                n.ip,
                door.port(),
                self.site.ssh.user,
                n.name,
                self.key.display(),
                self.dir.join("known_hosts").display(),
            )
            .ok();
        }
        out
    }

    /// Host keys of the machines that have booted.
    fn known_hosts(&self) -> String {
        let mut out = String::new();
        for n in &self.site.nodes {
            if let Some(key) = gpuhost_lab::guest::hostkeys::public(self.lab, n.vmid) {
                let port = self.front.door(&format!("{}:22", n.ip)).map_or(22, |a| a.port());
                writeln!(out, "{},[127.0.0.1]:{port} {}", n.name, key.trim()).ok();
            }
        }
        out
    }

    /// A kubeconfig for every cluster; contexts begin with `lab-`.
    fn kubeconfig(&self) -> String {
        let clusters =
            self.lab.with(|w| w.clusters.values().filter(|c| membership::lives(w, c)).cloned().collect::<Vec<_>>());
        let name = format!("lab-{}", self.site.name);
        let (mut cs, mut us, mut cx) = (Vec::new(), Vec::new(), Vec::new());
        for (i, c) in clusters.iter().enumerate() {
            let Some(door) = c.members.keys().find_map(|v| self.server_door(*v)) else { continue };
            let admin = gpuhost_lab::tls::make_leaf(&c.client_ca, "system:admin", Some("system:masters"), &[]);
            let Ok(admin) = admin else { continue };
            let name = if i == 0 { name.clone() } else { format!("{name}-{}", i + 1) };
            cs.push(json!({"name": name, "cluster": {
                "server": format!("https://127.0.0.1:{}", door.port()),
                "certificate-authority-data": b64(&c.ca.cert),
            }}));
            us.push(json!({"name": name, "user": {
                "client-certificate-data": b64(&admin.cert),
                "client-key-data": b64(&admin.key),
            }}));
            cx.push(json!({"name": name, "context": {"cluster": name, "user": name}}));
        }
        let current = if cx.is_empty() { String::new() } else { name };
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "clusters": cs, "users": us, "contexts": cx,
            "current-context": current,
        });
        format!("{config:#}\n")
    }

    fn server_door(&self, vmid: u32) -> Option<SocketAddr> {
        let node = self.site.nodes.iter().find(|n| n.vmid == vmid)?;
        self.front.inner().get(&format!("{}:6443", node.ip))?;
        self.front.door(&format!("{}:6443", node.ip))
    }

    /// The site file with the served endpoints: same site, other ways to it.
    fn site_file(&self) -> OpResult<String> {
        let bad = |e: String| OpError::failed("the site file cannot be rewritten").because(e);
        let mut t: toml::Table = self.text.text.parse().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        if let Some(p) = t.get_mut("proxmox").and_then(toml::Value::as_table_mut) {
            let key = if p.contains_key("user") { "password" } else { "token" };
            let file = self.dir.join(super::credential_name(self.site));
            p.insert(key.to_owned(), format!("file:{}", file.display()).into());
            p.insert("ca_file".to_owned(), self.dir.join("proxmox-ca.pem").display().to_string().into());
            p.remove("fingerprint");
        }
        let connect: toml::Table =
            self.front.doors().into_iter().map(|(a, at)| (a, toml::Value::from(at.to_string()))).collect();
        t.insert("connect".to_owned(), connect.into());
        let mut lab = toml::Table::new();
        lab.insert("control".to_owned(), self.control.to_string().into());
        t.insert("lab".to_owned(), lab.into());
        let text = toml::to_string_pretty(&t).map_err(|e| bad(e.to_string()))?;
        Ok(format!("# Written by `gpuhost lab serve`: this site is a simulation. Gone when the lab is.\n{text}"))
    }
}

fn b64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}
