//! A second opinion: the same client, unchanged, drives PyPI `fakepve` through the Proxmox part of a deploy.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::ctx::{Ctx, Parties, Run};
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::proxmox::{Proxmox, RemoveVm, TemplateOptions};
use gpuhost_stdlib::site;
use gpuhost_tests::bed::{SITE, Tape, start, told, with_a_foreign_share};
use gpuhost_tests::client::Free;

/// The interpreter of fakepve's own environment, when it is there.
fn python() -> Option<PathBuf> {
    let peers = std::env::var_os("GPUHOST_PEERS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        Some(cache?.join("gpuhost-peers"))
    })?;
    let python = peers.join("fakepve/bin/python");
    let works = Command::new(&python).args(["-c", "import fakepve"]).stderr(Stdio::null()).status();
    works.is_ok_and(|s| s.success()).then_some(python)
}

struct Peer(Child);
impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts it and says where it listens.
fn serve(python: &Path, dir: &Path) -> (Peer, u16, String) {
    let ca = gpuhost_lab::tls::make_ca("fakepve test").unwrap();
    let leaf = gpuhost_lab::tls::make_leaf(&ca, "fakepve", None, &["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, &leaf.cert).unwrap();
    std::fs::write(&key, &leaf.key).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = gpuhost_tests::root().join("tests/peers/fakepve_world.py");
    let mut child = Command::new(python)
        .arg(script)
        .args([port.to_string().as_str(), cert.to_str().unwrap(), key.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{line}");
    (Peer(child), port, ca.cert)
}

/// The default site with two servers and no GPUs, behind this address.
fn site_text(port: u16) -> String {
    let mut text = SITE.replace("https://10.0.0.2:8006", &format!("https://127.0.0.1:{port}"));
    text = text.replace("storage = \"local-zfs\"", "storage = \"local-lvm\"");
    let first = text.find("[[nodes]]").unwrap();
    let third = text.match_indices("[[nodes]]").nth(2).unwrap().0;
    let after = text.find("[k3s]").unwrap();
    let token = text.find("token_id = ").unwrap();
    let token_end = token + text[token..].match_indices('\n').nth(1).unwrap().0;
    let user = "user = \"root@pam\"\npassword = \"env:UNUSED\"";
    let parts = [&text[..token], user, &text[token_end..first], &text[first..third], &text[after..]];
    with_a_foreign_share(&parts.concat())
}

fn run(dir: &Path, site: site::Site, ca: String, routes: Routes) -> Ctx {
    let secrets = [("proxmox_password", "secret-of-the-test".to_owned()), ("proxmox_ca", ca)];
    let state_dir = dir.join("state");
    std::fs::create_dir_all(&state_dir).unwrap();
    let by =
        Parties { policy: Arc::new(Free(None)), consent: Arc::new(Free(None)), recorder: Arc::new(Tape::default()) };
    let way = (Clock::Real, Dialer::new(routes, Reach::Direct));
    Ctx::new(Arc::new(Run {
        site: Some(Arc::new(site)),
        base_dir: dir.to_owned(),
        secrets: secrets.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        ..Run::new(tokio::runtime::Handle::current(), way, state_dir, by)
    }))
}

async fn deploy(ctx: &Ctx, pve: &Proxmox) -> OpResult<u64> {
    let site = ctx.site()?;
    ctx.changed.store(0, Ordering::SeqCst);
    let t = pve.ensure_template(ctx, &TemplateOptions::of_site(&site)).await?;
    for node in &site.nodes {
        let vm = pve.ensure_vm(ctx, node, &start(&t)).await?;
        vm.wait_ready(ctx, Duration::from_secs(120)).await?;
        vm.host_keys(ctx).await?;
    }
    Ok(ctx.changed.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fakepve_is_deployed_to_twice_and_cleaned_up() {
    let Some(python) = python() else {
        println!("skipped: no fakepve below $GPUHOST_PEERS (`.ci/peers` installs it)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (_peer, port, ca) = serve(&python, dir.path());
    let site = site::load(Path::new("site.toml"), &site_text(port)).unwrap_or_else(|f| panic!("{f:#?}"));
    // Something that listens where a machine's SSH would.
    let ssh = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = Routes::default();
    for n in &site.nodes {
        routes.set(format!("{}:22", n.ip), ssh.local_addr().unwrap());
    }
    let ctx = run(dir.path(), site, ca, routes);
    let pve = Proxmox::connect_site(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let first = deploy(&ctx, &pve).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert!(first >= 6, "{first} changes");
    let running = pve.rows(&ctx).await.unwrap().into_iter().filter(|r| r.status == "running").count();
    assert_eq!(running, 3, "two machines and somebody else's");
    let again = deploy(&ctx, &pve).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(again, 0, "a second deploy changes nothing");
    for (m, _) in pve.owned(&ctx).await.unwrap() {
        let vm = pve.find_vm(&ctx, &i64::from(m.at.vmid).into()).await.unwrap().unwrap();
        if !vm.is_template() {
            vm.remove(&ctx, &RemoveVm { delete_data: true }).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        }
    }
    let o = TemplateOptions::of_site(&ctx.site().unwrap());
    assert!(pve.remove_template(&ctx, &o).await.unwrap_or_else(|e| panic!("{}", told(&e))));
    assert!(pve.remove_pool(&ctx).await.unwrap_or_else(|e| panic!("{}", told(&e))));
    let left: Vec<u32> = pve.rows(&ctx).await.unwrap().into_iter().map(|r| r.at.vmid).collect();
    assert_eq!(left, [150], "only the foreign machine is left");
}
