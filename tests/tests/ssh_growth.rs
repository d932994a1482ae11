//! Real file systems on a real block device that grows: `ensure` over a real sshd makes them, grows them while they are
//! mounted, and has nothing to do the second time. Needs root and loop devices; says so and is skipped elsewhere.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a real peer has real time
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::ssh::{ConnectOptions, Host};
use gpuhost_tests::client;
use gpuhost_tests::sshd::Bed;
use rhai::{Dynamic, Map};

const BY_ID: &str = "/dev/disk/by-id";
const GIB: u64 = 1 << 30;

/// A file as a disk with a name of its own below `/dev/disk/by-id`.
struct Disk {
    file: PathBuf,
    device: String,
    link: String,
}

fn said(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("no `{program}`: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    Err(format!("`{program} {}`: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
}

impl Disk {
    fn new(dir: &Path, name: &str, size: u64) -> Result<Disk, String> {
        let file = dir.join(name);
        File::create(&file).and_then(|f| f.set_len(size)).unwrap();
        let device = said("losetup", &["--find", "--show", &file.display().to_string()])?;
        let link = format!("{BY_ID}/gpuhost-{name}-{}", std::process::id());
        let disk = Disk { file, device, link };
        fs::create_dir_all(BY_ID).map_err(|e| format!("{BY_ID}: {e}"))?;
        std::os::unix::fs::symlink(&disk.device, &disk.link).map_err(|e| format!("{}: {e}", disk.link))?;
        Ok(disk)
    }

    fn grow(&self, size: u64) {
        File::options().write(true).open(&self.file).and_then(|f| f.set_len(size)).unwrap();
        said("losetup", &["--set-capacity", &self.device]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        fs::remove_file(&self.link).ok();
        // Where it is still mounted, it goes with its mount.
        said("losetup", &["--detach", &self.device]).ok();
    }
}

fn wanted(disk: &Disk, kind: &str) -> Map {
    let spec = Map::from([("fs".into(), kind.into()), ("label".into(), "grows".into())]);
    let disks = Map::from([(disk.link.as_str().into(), Dynamic::from(spec))]);
    Map::from([("filesystems".into(), disks.into())])
}

/// What `ensure` changes: the thing, its value before and after.
async fn changes(ctx: &Ctx, host: &Host, want: &Map) -> Vec<String> {
    let all = host.ensure(ctx, want).await.unwrap_or_else(|e| panic!("{e:#?}"));
    let word = |v: &Option<serde_json::Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    all.iter().map(|c| format!("{}: {} -> {}", c.what, word(&c.before), word(&c.after)).replace('"', "")).collect()
}

/// Whether root may grow a mounted ext4 here: sandboxes take that from it.
fn may_resize() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    caps.and_then(|c| u64::from_str_radix(c, 16).ok()).is_some_and(|c| c >> 24 & 1 == 1)
}

async fn grows(ctx: &Ctx, host: &Host, dir: &Path, kind: &str) {
    let disk = match Disk::new(dir, kind, GIB) {
        Ok(d) => d,
        Err(why) => return println!("skipped {kind}: no loop device: {why}"),
    };
    let want = wanted(&disk, kind);
    assert_eq!(changes(ctx, host, &want).await.len(), 1, "{kind}: made on a blank device");
    assert_eq!(changes(ctx, host, &want).await, [""; 0], "{kind}: and left alone");
    let at = dir.join(format!("at-{kind}")).display().to_string();
    let sh = async |text: String| {
        let out = host.exec_raw(ctx, &text, b"").await.unwrap_or_else(|e| panic!("{e:#?}"));
        assert_eq!(out.code, 0, "{kind}: {text}: {} {}", out.stdout, out.stderr);
        out.stdout.trim().to_owned()
    };
    let mount = format!("mount {} {at}", disk.link);
    let mounted = kind == "xfs" || may_resize();
    if mounted {
        sh(format!("mkdir {at} && {mount} && echo kept >{at}/file")).await;
    } else {
        println!("{kind} is grown while it is not mounted: this machine's root has no CAP_SYS_RESOURCE");
    }
    disk.grow(2 * GIB);
    let what = format!("size of the file system on {}", disk.link);
    assert_eq!(changes(ctx, host, &want).await, [format!("{what}: 1 GiB -> 2 GiB")], "{kind}");
    if mounted {
        assert_eq!(sh(format!("cat {at}/file")).await, "kept");
    } else {
        sh(format!("mkdir {at} && {mount}")).await;
    }
    let bytes: u64 = sh(format!("echo $(($(stat -f -c '%b * %S' {at})))")).await.parse().unwrap();
    assert!(bytes > 19 * (GIB / 10), "{kind}: {bytes} bytes");
    assert_eq!(changes(ctx, host, &want).await, [""; 0], "{kind}: grown once");
    // A rest that no block group fits into is left alone.
    disk.grow(2 * GIB + (64 << 20));
    assert_eq!(changes(ctx, host, &want).await, [""; 0], "{kind}: a small rest stays");
    sh(format!("umount {at}")).await;
    println!("{kind}: made, grown to {bytes} bytes, left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_file_system_follows_its_device_once() {
    let Some(bed) = Bed::open() else { return };
    let _ = bed.key("host", "ed25519", "");
    let mine = bed.key("mine", "ed25519", "");
    bed.authorize("root", &mine);
    let server = bed.start("growth", &["host"], "");
    let dir = tempfile::tempdir().unwrap();
    let routes = Routes::default();
    routes.set("one.test:22", server.at);
    let (ctx, _kept) = client::ctx(dir.path(), &bed.home(), routes, None);
    gpuhost_stdlib::ssh::known_hosts::pin(&ctx, "one.test", 22, &server.host_keys).unwrap();
    let key = Some(format!("file:{}", bed.path("mine").display()));
    let o = ConnectOptions { user: Some("root".into()), key, ..ConnectOptions::default() };
    let host = Host::connect(&ctx, "one.test", &o).unwrap();
    for (kind, needs) in [("ext4", &["mkfs.ext4", "resize2fs"][..]), ("xfs", &["mkfs.xfs", "xfs_growfs"])] {
        let there = |p: &&&str| ["/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(p).exists());
        match needs.iter().find(|p| !there(p)) {
            Some(p) => println!("skipped {kind}: no `{p}` on this machine (.ci/peers installs it)"),
            None => grows(&ctx, &host, dir.path(), kind).await,
        }
    }
}
