//! A lab with hand-made machines, and a small SSH client.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gpuhost_lab::guest::state::{BootSpec, CloudInit, DiskSpec, NicSpec};
use gpuhost_lab::spec::{PciSpec, Spec};
use gpuhost_lab::volume::{Content, Volume};
use gpuhost_lab::world::World;
use gpuhost_lab::{Lab, RouteSink, guest};
use gpuhost_stdlib::core::clock::Mode;
use russh::ChannelMsg;
use russh::client::{self, Handle};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};

/// Where the guests listen.
#[derive(Default)]
pub struct Routes(pub Mutex<BTreeMap<String, SocketAddr>>);

impl RouteSink for Routes {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.lock().unwrap().insert(addr.to_owned(), at);
    }
    fn down(&self, addr: &str) {
        self.0.lock().unwrap().remove(addr);
    }
}

/// A lab under test.
pub struct Bed {
    pub lab: Lab,
    pub routes: Arc<Routes>,
    pub key: PrivateKey,
    pub dir: tempfile::TempDir,
}

pub const IMAGE_GIB: u64 = 20;

pub fn key() -> PrivateKey {
    let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]);
    PrivateKey::new(pair.into(), "test").unwrap()
}

fn empty_world() -> World {
    let spec: Spec = serde_json::from_value(serde_json::json!({
        "name": "t", "seed": 7, "pve_version": "9.1", "api_addr": "10.0.0.2:8006",
        "nodes": [{"name": "pve1", "cpus": 8, "memory_gib": 64, "bridges": ["vmbr0"], "iommu": true}],
        "storages": [], "token_id": "a@pve!b",
    }))
    .unwrap();
    World::new(&spec).unwrap()
}

/// The hardware of a test machine.
pub fn spec(vmid: u32, host: &str, ip: &str) -> BootSpec {
    BootSpec {
        vmid,
        name: host.into(),
        uuid: format!("00000000-0000-4000-8000-{vmid:012}"),
        pve_node: "pve1".into(),
        cores: 4,
        memory_mib: 8192,
        disks: vec![
            DiskSpec {
                slot: "scsi0".into(),
                volid: format!("local:vm-{vmid}-disk-0"),
                size: IMAGE_GIB << 30,
                serial: String::new(),
            },
            DiskSpec {
                slot: "scsi2".into(),
                volid: format!("local:vm-{vmid}-disk-2"),
                size: 100 << 30,
                serial: format!("gh-data-{vmid}"),
            },
        ],
        nics: vec![NicSpec { mac: format!("BC:24:11:00:00:{:02X}", vmid % 256), bridge: "vmbr0".into(), vlan: None }],
        pci: vec![PciSpec {
            address: "0000:01:00.0".into(),
            vendor: "0x10de".into(),
            device: "0x20f1".into(),
            class: "0x030200".into(),
            vendor_name: "NVIDIA Corporation".into(),
            device_name: "GA100 [A100 PCIe 40GB]".into(),
            subsystem_vendor: "0x10de".into(),
            subsystem_device: "0x145f".into(),
            iommu_group: 1,
        }],
        cloud_init: Some(CloudInit {
            user: "debian".into(),
            keys: vec![key().public_key().to_openssh().unwrap()],
            ip: Some(ip.into()),
            prefix: 24,
            gateway: Some("10.0.0.1".into()),
            dns: vec!["10.0.0.1".into()],
            domain: Some("lab.example".into()),
            hostname: host.into(),
            instance_id: format!("i-{vmid}"),
            ..CloudInit::default()
        }),
        seed_iso: None,
        agent: true,
    }
}

impl Bed {
    /// A lab without machines.
    pub async fn empty() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let routes = Arc::new(Routes::default());
        let lab = Lab::start(empty_world(), dir.path(), Mode::Instant, routes.clone()).await.unwrap();
        Bed { lab, routes, key: key(), dir }
    }

    /// A lab with machines that have booted.
    pub async fn with(hosts: &[(u32, &str, &str)]) -> Bed {
        let bed = Bed::empty().await;
        for (vmid, host, ip) in hosts {
            bed.power_on(spec(*vmid, host, ip));
        }
        for (_, _, ip) in hosts {
            bed.wait_route(ip).await;
        }
        bed.wait_until(|w| w.guests.values().all(|g| g.cloud_init != guest::state::CloudStatus::Running)).await;
        bed
    }

    /// One machine.
    pub async fn one() -> Bed {
        Bed::with(&[(101, "a1", "10.0.0.11")]).await
    }

    /// Makes the volumes where they are missing and starts the machine.
    pub fn power_on(&self, spec: BootSpec) {
        self.lab.with(|w| {
            for (i, d) in spec.disks.iter().enumerate() {
                let content = if i == 0 { Content::CloudImage { os: "debian-12".into() } } else { Content::Blank };
                w.volumes.entry(d.volid.clone()).or_insert(Volume::new(d.size, content));
            }
            guest::power_on(&self.lab, w, spec);
        });
    }

    /// Waits on the lab's clock.
    pub async fn sleep(&self, secs: u64) {
        let mark = self.lab.clock().busy_guard();
        self.lab.clock().sleep(Duration::from_secs(secs)).await;
        drop(mark);
    }

    /// Starts a machine, waits for something and holds the clock there until the guard is dropped.
    /// The mark is taken before the machine starts: no time passes between the two.
    pub async fn power_on_until(
        &self,
        spec: BootSpec,
        f: impl Fn(&World) -> bool,
    ) -> gpuhost_stdlib::core::clock::BusyGuard {
        let mark = self.lab.clock().busy_guard();
        self.power_on(spec);
        for _ in 0..6000 {
            if self.lab.with(|w| f(w)) {
                return mark;
            }
            self.lab.clock().sleep(Duration::from_millis(200)).await;
        }
        panic!("it never came to be");
    }

    pub async fn wait_until(&self, f: impl Fn(&World) -> bool) {
        for _ in 0..600 {
            if self.lab.with(|w| f(w)) {
                return;
            }
            self.sleep(1).await;
        }
        panic!("it never came to be");
    }

    /// Lets a guest restart itself and waits until it is up again.
    pub async fn reboot(&self, ip: &str, command: &str) -> Ssh {
        let boots = |w: &World| w.guests.values().find(|g| g.net.as_ref().is_some_and(|n| n.ip == ip)).map(|g| g.boot);
        let before = self.lab.with(|w| boots(w));
        self.ssh(ip).await.exec(command, b"").await;
        self.wait_until(|w| boots(w).is_some() && boots(w) != before).await;
        self.ssh(ip).await
    }

    pub async fn wait_route(&self, ip: &str) -> SocketAddr {
        for _ in 0..600 {
            if let Some(a) = self.address(ip) {
                return a;
            }
            self.sleep(1).await;
        }
        panic!("{ip} never listened");
    }

    pub fn address(&self, ip: &str) -> Option<SocketAddr> {
        self.routes.0.lock().unwrap().get(&format!("{ip}:22")).copied()
    }

    pub async fn ssh(&self, ip: &str) -> Ssh {
        Ssh::connect(self.wait_route(ip).await, "debian", &self.key).await.expect("logs in")
    }

    /// Writes the private key for OpenSSH's client.
    pub fn key_file(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("key");
        let text = self.key.to_openssh(LineEnding::LF).unwrap();
        std::fs::write(&path, text.as_bytes()).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.lab.stop();
    }
}

pub struct Trusting(Arc<Mutex<Option<PublicKey>>>);

impl client::Handler for Trusting {
    type Error = russh::Error;
    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            *self.0.lock().unwrap() = Some(key.clone());
        }
        Ok(true)
    }
}

/// A connection.
pub struct Ssh {
    pub handle: Handle<Trusting>,
    pub host_key: PublicKey,
}

#[derive(Debug, Default)]
pub struct Out {
    pub code: Option<u32>,
    pub signal: Option<String>,
    pub out: String,
    pub err: String,
}

impl Ssh {
    pub async fn connect(at: SocketAddr, user: &str, key: &PrivateKey) -> Option<Ssh> {
        let stream = tokio::net::TcpStream::connect(at).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Ssh::over(stream, user, key).await
    }

    pub async fn over<S>(stream: S, user: &str, key: &PrivateKey) -> Option<Ssh>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(None));
        let config = client::Config { nodelay: true, ..client::Config::default() };
        let mut handle = client::connect_stream(Arc::new(config), stream, Trusting(seen.clone())).await.ok()?;
        let ok =
            handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None)).await.ok()?;
        let host_key = seen.lock().unwrap().clone()?;
        ok.success().then_some(Ssh { handle, host_key })
    }

    pub async fn exec(&self, command: &str, stdin: &[u8]) -> Out {
        let mut ch = self.handle.channel_open_session().await.unwrap();
        ch.exec(true, command).await.unwrap();
        ch.data(stdin).await.unwrap();
        ch.eof().await.unwrap();
        let mut out = Out::default();
        while let Some(m) = ch.wait().await {
            match m {
                ChannelMsg::Data { data } => out.out += &String::from_utf8_lossy(&data),
                ChannelMsg::ExtendedData { data, .. } => out.err += &String::from_utf8_lossy(&data),
                ChannelMsg::ExitStatus { exit_status } => out.code = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => out.signal = Some(format!("{signal_name:?}")),
                _ => {}
            }
        }
        out
    }

    /// Output of a command that must succeed.
    pub async fn ok(&self, command: &str) -> String {
        let o = self.exec(command, b"").await;
        assert_eq!(o.code, Some(0), "{command}\n{}\n{}", o.out, o.err);
        o.out
    }
}
