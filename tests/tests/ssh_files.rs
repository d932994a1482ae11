//! Files against a real `sshd`: sizes, rights, atomic replacement, folders, differences, servers without SFTP.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::ssh::{ConnectOptions, FileOptions, Host};
use gpuhost_tests::client::{self, Kept};
use gpuhost_tests::sshd::{Bed, Server};

struct Yard {
    bed: Bed,
    _server: Server,
    ctx: Ctx,
    kept: Arc<Kept>,
    here: tempfile::TempDir,
    there: tempfile::TempDir,
}

impl Yard {
    fn open(more: &str) -> Option<Yard> {
        let bed = Bed::open()?;
        let _ = bed.key("host", "ed25519", "");
        let mine = bed.key("mine", "ed25519", "");
        for user in ["root", "bob", "eve"] {
            bed.authorize(user, &mine);
        }
        let server = bed.start("files", &["host"], more);
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(there.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let routes = Routes::default();
        routes.set("one.test:22", server.at);
        let (ctx, kept) = client::ctx(here.path(), &bed.home(), routes, None);
        gpuhost_stdlib::ssh::known_hosts::pin(&ctx, "one.test", 22, &server.host_keys).unwrap();
        Some(Yard { bed, _server: server, ctx, kept, here, there })
    }

    fn host(&self, user: &str) -> Host {
        let key = format!("file:{}", self.bed.path("mine").display());
        let o = ConnectOptions { user: Some(user.into()), key: Some(key), ..ConnectOptions::default() };
        Host::connect(&self.ctx, "one.test", &o).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.there.path().join(name).display().to_string()
    }

    fn changed(&self) -> u64 {
        self.ctx.changed.load(Ordering::SeqCst)
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

async fn both_ways(y: &Yard, user: &str, name: &str, bytes: &[u8]) {
    let host = y.host(user);
    fs::write(y.here.path().join(name), bytes).unwrap();
    let (to, back) = (y.path(name), format!("{name}.back"));
    let o = FileOptions::default;
    assert!(host.copy_to(&y.ctx, name, &to, o()).await.unwrap(), "{user}");
    assert!(fs::read(&to).unwrap() == bytes, "{user}: {} bytes arrived", bytes.len());
    assert!(!host.copy_to(&y.ctx, name, &to, o()).await.unwrap());
    assert!(host.copy_from(&y.ctx, &to, &back).await.unwrap());
    assert!(fs::read(y.here.path().join(&back)).unwrap() == bytes);
    assert!(!host.copy_from(&y.ctx, &to, &back).await.unwrap());
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o644);
    let left = fs::read_dir(y.there.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|n| n.starts_with(".gpuhost")), "nothing incomplete stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_both_ways() {
    let Some(y) = Yard::open("") else { return };
    let bytes = noise(7, 100_000_000);
    // Over SFTP as root, on standard input through sudo as another.
    both_ways(&y, "root", "by-sftp", &bytes).await;
    both_ways(&y, "bob", "by-sudo", &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_sftp_is_enough() {
    let Some(y) = Yard::open("Subsystem nothing /bin/false\n") else { return };
    both_ways(&y, "root", "plain", &noise(3, 3_000_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_links_and_differences() {
    let Some(y) = Yard::open("") else { return };
    let host = y.host("root");
    let path = y.path("a b/it's $(here)\n*");
    let put = |text: &'static str, mode: Option<&str>, owner: Option<&str>| {
        let o =
            FileOptions { mode: mode.map(str::to_owned), owner: owner.map(str::to_owned), ..FileOptions::default() };
        let (host, ctx, path) = (&host, &y.ctx, &path);
        async move { host.write_file(ctx, path, text.as_bytes(), o).await.unwrap() }
    };
    assert!(put("one\ntwo\n", Some("0640"), Some("ada:bob")).await);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 4001, 4002));
    assert!(!put("one\ntwo\n", None, None).await);
    // Mode and owner stay when the content changes; a set-uid bit survives a change of owner.
    assert!(put("one\nthree\n", None, None).await);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 4001, 4002));
    assert!(put("one\nthree\n", Some("4755"), Some("bob")).await);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4755);
    assert!(!put("one\nthree\n", Some("4755"), Some("bob")).await);
    // Only now may everybody read it: the difference is shown, the ones before were not.
    assert!(put("one\nfour\n", None, None).await);
    let diffs: Vec<String> = y
        .kept
        .all()
        .into_iter()
        .filter_map(|e| match e {
            Event::Output { stream, text, .. } if stream == "diff" => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(diffs.len(), 1, "{diffs:?}");
    assert!(diffs[0].ends_with("@@ -1,2 +1,2 @@\n one\n-three\n+four"), "{diffs:?}");
    // A reader that has the old file open keeps it whole; a link stays a link.
    let open = fs::File::open(&path).unwrap();
    let link = y.path("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(host.write_file(&y.ctx, &link, b"five\n", FileOptions::default()).await.unwrap());
    assert_eq!(std::io::read_to_string(open).unwrap(), "one\nfour\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "five\n");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(host.read_file(&y.ctx, &path).await.unwrap().unwrap(), b"five\n");
    assert_eq!(host.read_file(&y.ctx, &y.path("none")).await.unwrap(), None);
    // A user without sudo writes what is the user's, as the user.
    let o = FileOptions { r#become: false, ..FileOptions::default() };
    assert!(y.host("eve").write_file(&y.ctx, &y.path("eves"), b"x", o.clone()).await.unwrap());
    assert_eq!(fs::metadata(y.path("eves")).unwrap().uid(), 4003);
    let e = y.host("eve").write_file(&y.ctx, "/etc/gpuhost-test/x", b"x", o).await.unwrap_err();
    assert!(e.message == "cannot write /etc/gpuhost-test/x" && e.causes[0].contains("denied"), "{:?}", e.causes);
    assert!(host.write_file(&y.ctx, "relative", b"x", FileOptions::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_stay() {
    let Some(y) = Yard::open("") else { return };
    let path = y.path("attributes");
    fs::write(&path, "old").unwrap();
    let set = std::process::Command::new("setfattr").args(["-n", "user.kept", "-v", "yes", &path]).output();
    if !set.is_ok_and(|o| o.status.success()) {
        println!("skipped: no `setfattr` (Debian: attr), or a file system without attributes");
        return;
    }
    assert!(y.host("root").write_file(&y.ctx, &path, b"new", FileOptions::default()).await.unwrap());
    let got = std::process::Command::new("getfattr").args(["-n", "user.kept", &path]).output().unwrap();
    assert!(String::from_utf8_lossy(&got.stdout).contains("user.kept=\"yes\""));
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_both_ways() {
    let Some(y) = Yard::open("") else { return };
    let host = y.host("bob");
    let dir = y.here.path().join("tree");
    let names = ["a", "deep/er/b", "we ird/$(x)'\"\n\\n", "-dash", ".hidden"];
    for (i, n) in names.iter().enumerate() {
        let p = dir.join(n);
        fs::create_dir_all(p.parent().unwrap()).unwrap();
        fs::write(p, noise(i as u64, 1000 * i)).unwrap();
    }
    fs::create_dir_all(dir.join("empty")).unwrap();
    let to = y.path("tree");
    assert!(host.copy_to(&y.ctx, "tree", &to, FileOptions::default()).await.unwrap());
    for (i, n) in names.iter().enumerate() {
        assert!(fs::read(format!("{to}/{n}")).unwrap() == noise(i as u64, 1000 * i), "{n}");
    }
    assert!(fs::metadata(format!("{to}/empty")).unwrap().is_dir());
    let before = y.changed();
    assert_eq!(before, names.len() as u64);
    assert!(!host.copy_to(&y.ctx, "tree", &to, FileOptions::default()).await.unwrap());
    fs::write(format!("{to}/deep/er/b"), "changed").unwrap();
    assert!(host.copy_from(&y.ctx, &to, "back").await.unwrap());
    assert_eq!(fs::read_to_string(y.here.path().join("back/deep/er/b")).unwrap(), "changed");
    assert!(fs::read(y.here.path().join("back").join(names[2])).unwrap() == noise(2, 2000));
    assert!(!host.copy_from(&y.ctx, &to, "back").await.unwrap());
    assert!(host.copy_to(&y.ctx, "tree", &to, FileOptions::default()).await.unwrap());
    assert_eq!(y.changed(), before + names.len() as u64 + 1, "one file differed");
}
