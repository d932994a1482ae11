//! Power, boot, cloud-init, agent, reboot, saved worlds.
use gpuhost_lab::guest::state::CloudStatus;
use gpuhost_lab::volume::{Content, Volume};
use gpuhost_lab::{Lab, guest};
use gpuhost_stdlib::core::clock::Mode;

use crate::bed::{Bed, Ssh, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused_and_root_cannot_log_in() {
    let bed = Bed::one().await;
    let at = bed.wait_route("10.0.0.11").await;
    let other =
        russh::keys::PrivateKey::new(russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[9; 32]).into(), "x")
            .unwrap();
    assert!(Ssh::connect(at, "debian", &other).await.is_none());
    assert!(Ssh::connect(at, "root", &bed.key).await.is_none());
    assert!(Ssh::connect(at, "nobody", &bed.key).await.is_none());
    assert!(Ssh::connect(at, "debian", &bed.key).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn booting_takes_lab_time_and_logging_in_takes_none() {
    let bed = Bed::empty().await;
    let start = bed.lab.clock().now_ms();
    bed.power_on(spec(101, "a1", "10.0.0.11"));
    bed.wait_route("10.0.0.11").await;
    let took = bed.lab.clock().now_ms() - start;
    assert!((12_000..40_000).contains(&took), "{took}");
    bed.wait_until(|w| w.guests[&101].cloud_init == CloudStatus::Done).await;
    let now = bed.lab.clock().now_ms();
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("true").await;
    assert_eq!(bed.lab.clock().now_ms(), now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_keeps_files_and_changes_the_boot_id() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let id = ssh.ok("cat /proc/sys/kernel/random/boot_id").await;
    ssh.ok("echo kept > ~/f; sudo -n sysctl -qw vm.swappiness=1; echo vm.dirty_ratio=5 | sudo -n tee /etc/sysctl.d/9.conf > /dev/null").await;
    let again = bed.reboot("10.0.0.11", "sudo -n systemctl reboot").await;
    assert_eq!(again.ok("cat ~/f; /usr/sbin/sysctl -n vm.swappiness vm.dirty_ratio").await, "kept\n60\n5\n");
    assert_ne!(again.ok("cat /proc/sys/kernel/random/boot_id").await, id);
    assert_eq!(ssh.host_key, again.host_key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_parks_the_disk_and_a_clone_with_another_instance_id_gets_new_keys() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("echo golden | sudo -n tee /etc/golden").await;
    bed.lab.with(|w| guest::request_shutdown(&bed.lab, w, 101));
    bed.wait_until(|w| !w.guests.contains_key(&101)).await;
    bed.lab.with(|w| {
        let copy = w.volumes["local:vm-101-disk-0"].clone();
        assert!(matches!(&copy.content, Content::System { root: Some(_), .. }));
        w.volumes.insert("local:vm-102-disk-0".into(), copy);
    });
    bed.power_on(spec(102, "b2", "10.0.0.12"));
    let clone = bed.ssh("10.0.0.12").await;
    assert_eq!(clone.ok("hostname; cat /etc/golden").await, "b2\ngolden\n");
    assert_ne!(clone.host_key, ssh.host_key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_answers_once_it_is_installed_and_started() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    assert!(!bed.lab.with(|w| guest::agent_ready(w, 101)));
    let o = ssh.exec("sudo -n apt-get install -y qemu-guest-agent", b"").await;
    assert_eq!(o.code, Some(100), "no lists yet: {}", o.err);
    ssh.ok("sudo -n apt-get update -qq && sudo -n DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-guest-agent && sudo -n systemctl start qemu-guest-agent").await;
    assert!(bed.lab.with(|w| guest::agent_ready(w, 101)));
    let key = guest::agent_file_read(&bed.lab, 101, "/etc/ssh/ssh_host_ed25519_key.pub").await.unwrap();
    let key = russh::keys::PublicKey::from_openssh(&String::from_utf8(key).unwrap()).unwrap();
    assert_eq!(key.key_data(), ssh.host_key.key_data());
    let mark = bed.lab.clock().busy_guard();
    let r =
        guest::agent_exec(&bed.lab, 101, vec!["sh".into(), "-c".into(), "id -u; cat; exit 4".into()], b"in".to_vec())
            .await;
    drop(mark);
    assert_eq!((r.code, r.out.as_slice()), (4, b"0\nin".as_slice()), "{:?}", r);
    assert!(guest::agent_file_read(&bed.lab, 101, "/nope").await.unwrap_err().contains("No such file"));
    let list = bed.lab.with(|w| guest::agent_interfaces(w, 101));
    assert_eq!(list[1]["ip-addresses"][0]["ip-address"], "10.0.0.11");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_world_comes_back_with_its_guests() {
    let bed = Bed::one().await;
    bed.ssh("10.0.0.11").await.ok("echo kept > ~/f; sudo -n hostnamectl set-hostname renamed").await;
    let saved = bed.lab.snapshot();
    bed.lab.stop();
    let world = serde_json::from_value(saved).unwrap();
    let routes = std::sync::Arc::new(crate::bed::Routes::default());
    let lab = Lab::start(world, bed.dir.path(), Mode::Instant, routes.clone()).await.unwrap();
    let at = routes.0.lock().unwrap()["10.0.0.11:22"];
    let ssh = Ssh::connect(at, "debian", &bed.key).await.unwrap();
    assert_eq!(ssh.ok("cat ~/f; hostname").await, "kept\nrenamed\n");
    lab.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_with_packages_and_commands_is_applied_while_the_lock_is_held() {
    let bed = Bed::empty().await;
    let mut s = spec(101, "a1", "10.0.0.11");
    s.cloud_init = None;
    s.seed_iso = Some("local:iso/seed.iso".into());
    let user = format!(
        "#cloud-config\nhostname: seeded\nssh_authorized_keys:\n  - {}\npackage_update: true\npackages: [qemu-guest-agent, nfs-common]\nwrite_files:\n  - path: /etc/w\n    content: hello\n    permissions: '0600'\nruncmd:\n  - [systemctl, start, qemu-guest-agent]\n  - echo done > /root/ran\n",
        bed.key.public_key().to_openssh().unwrap()
    );
    let net = "version: 2\nethernets:\n  eth0:\n    addresses: [10.0.0.77/24]\n    gateway4: 10.0.0.1\n";
    let iso = crate::disks::iso(&[
        ("USER-DATA.;1", user.as_bytes()),
        ("META-DATA.;1", b"instance-id: i-1\n"),
        ("NETWORK-CONFIG.;1", net.as_bytes()),
    ]);
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(&iso);
    bed.lab
        .with(|w| w.volumes.insert("local:iso/seed.iso".into(), Volume::new(iso.len() as u64, Content::Bytes(text))));
    let held = bed.power_on_until(s, |w| w.guests[&101].dpkg_lock.is_some()).await;
    let ssh = bed.ssh("10.0.0.77").await;
    assert_eq!(ssh.ok("cloud-init status").await, "status: running\n");
    let o = ssh.exec("sudo -n apt-get install -y jq", b"").await;
    assert!(o.code == Some(100) && o.err.contains("is held by process 1412 (cloud-init)"), "{}", o.err);
    drop(held);
    // Waits for cloud-init's lock, as `DPkg::Lock::Timeout` asks.
    ssh.ok("sudo -n apt-get -o DPkg::Lock::Timeout=600 install -y jq >/dev/null || cloud-init status --wait").await;
    assert!(ssh.ok("cloud-init status --wait").await.contains("done"));
    assert_eq!(ssh.ok("sudo -n cat /etc/w /root/ran; hostname").await, "hellodone\nseeded\n");
    assert!(bed.lab.with(|w| guest::agent_ready(w, 101) && guest::has_package(w, 101, "nfs-common")));
}
