//! systemd, packages, downloads, the k3s binary.
use gpuhost_lab::guest;

use crate::bed::Bed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_enabled_started_and_survive_a_reboot() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("printf '[Unit]\\nDescription=Once\\n[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/sh -c \"echo ran > /root/once\"\\n[Install]\\nWantedBy=multi-user.target\\n' | sudo -n tee /etc/systemd/system/once.service; sudo -n systemctl daemon-reload; sudo -n systemctl enable --now once").await;
    assert_eq!(ssh.ok("systemctl is-active once; systemctl is-enabled once.service; sudo -n cat /root/once; systemctl show -p ActiveState,UnitFileState once").await, "active\nenabled\nran\nActiveState=active\nUnitFileState=enabled\n");
    let o = ssh.exec("printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' | sudo -n tee /etc/systemd/system/bad.service; sudo -n systemctl start bad; systemctl is-failed bad", b"").await;
    assert!(o.err.contains("Job for bad.service failed"), "{}", o.err);
    assert!(o.out.ends_with("failed\n"));
    ssh.ok("sudo -n rm /root/once").await;
    let ssh = bed.reboot("10.0.0.11", "sudo -n reboot").await;
    bed.sleep(2).await;
    assert_eq!(ssh.ok("sudo -n cat /root/once").await, "ran\n");
    assert_eq!(ssh.ok("sudo -n systemctl mask once 2>/dev/null || echo is a file").await, "is a file\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_bring_programs_and_unknown_ones_are_refused() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    ssh.ok("sudo -n apt-get update").await;
    let o = ssh.exec("sudo -n apt-get install -y no-such-package", b"").await;
    assert_eq!(o.code, Some(100));
    assert!(o.err.contains("E: Unable to locate package no-such-package"), "{}", o.err);
    let before = bed.lab.clock().now_ms();
    ssh.ok("sudo -n apt-get install -y nfs-kernel-server chrony").await;
    assert!(bed.lab.clock().now_ms() - before > 3000);
    assert_eq!(ssh.ok("systemctl is-active nfs-server nfs-kernel-server chrony; dpkg-query -W -f='${Version}\\n' nfs-common; sudo -n exportfs -v").await, "active\nactive\nactive\n1:2.6.2-4+deb12u1\n");
    ssh.ok(
        "sudo -n apt-mark hold chrony; apt-mark showhold | grep -q chrony; sudo -n apt-get purge -y nfs-kernel-server",
    )
    .await;
    assert_eq!(ssh.exec("sudo -n exportfs", b"").await.code, Some(1));
    assert_eq!(ssh.exec("apt-get install -y jq", b"").await.code, Some(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_k3s_binary_is_downloaded_checked_and_runs() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let v = "v1.34.9+k3s1";
    let base = "https://github.com/k3s-io/k3s/releases/download/v1.34.9%2Bk3s1";
    ssh.ok(&format!("curl -sfL -o k3s {base}/k3s && curl -sfL {base}/sha256sum-amd64.txt | grep ' k3s$' | sha256sum -c - && sudo -n install -m 0755 k3s /usr/local/bin/k3s")).await;
    assert!(ssh.ok("k3s --version").await.starts_with(&format!("k3s version {v}")));
    let o = ssh.exec("curl -fsSL https://github.com/k3s-io/k3s/releases/download/v9.9.9%2Bk3s1/k3s", b"").await;
    assert_eq!(o.code, Some(22), "{}", o.err);
    let o = ssh.exec("curl -fsSL https://example.org/", b"").await;
    assert_eq!(o.code, Some(6), "{}", o.err);
    ssh.ok("echo junk | sudo -n tee -a /usr/local/bin/k3s > /dev/null").await;
    assert_eq!(ssh.exec("k3s --version", b"").await.code, Some(126));
    assert_eq!(ssh.exec("sudo -n systemctl start k3s", b"").await.code, Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_shows_the_cards() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    assert_eq!(ssh.exec("nvidia-smi", b"").await.code, Some(127));
    assert!(ssh.ok("lspci -nnk -d 10de:").await.contains("[10de:20f1]"));
    bed.lab.with(|w| guest::set_nvidia_driver(&bed.lab, w, 101, Some("580.126.09".into())));
    // a driver container keeps its tools below its own root
    assert_eq!(ssh.exec("nvidia-smi", b"").await.code, Some(127));
    assert_eq!(ssh.exec("/usr/sbin/chroot /run/nvidia/driver nvidia-smi", b"").await.code, Some(125), "not root");
    let smi = "sudo -n chroot /run/nvidia/driver nvidia-smi";
    assert_eq!(
        ssh.ok(&format!("{smi} --query-gpu=name,driver_version,memory.total --format=csv,noheader")).await,
        "NVIDIA A100-PCIE-40GB, 580.126.09, 40960 MiB\n"
    );
    assert!(ssh.ok("lspci -nnk -d 10de:").await.contains("driver in use: nvidia"));
    assert!(ssh.ok(&format!("{smi} -L")).await.starts_with("GPU 0: NVIDIA A100"));
    assert_eq!(ssh.exec("sudo -n chroot /run/nvidia/driver nothing", b"").await.code, Some(127));
    bed.lab.with(|w| guest::set_nvidia_driver(&bed.lab, w, 101, None));
    assert_eq!(ssh.exec(smi, b"").await.code, Some(127));
    // one that is installed in the guest has them where everybody looks
    bed.lab.with(|w| {
        let facts = &mut w.guests.get_mut(&101).unwrap().facts;
        facts.packages.insert("nvidia-driver".to_owned(), "535.247.01-1~deb12u1".to_owned());
        guest::set_nvidia_driver(&bed.lab, w, 101, None);
    });
    assert!(ssh.ok("nvidia-smi -L").await.starts_with("GPU 0: NVIDIA A100"));
}
