//! Disks, mounts, NFS between guests.
use gpuhost_lab::guest;

use crate::bed::Bed;

/// A minimal ISO 9660 image of level 1 with the label CIDATA.
pub fn iso(files: &[(&str, &[u8])]) -> Vec<u8> {
    const S: usize = 2048;
    fn record(name: &[u8], extent: usize, len: usize, dir: bool) -> Vec<u8> {
        let mut r = vec![0u8; 33];
        r[2..6].copy_from_slice(&(extent as u32).to_le_bytes());
        r[10..14].copy_from_slice(&(len as u32).to_le_bytes());
        r[25] = if dir { 2 } else { 0 };
        r[32] = name.len() as u8;
        r.extend_from_slice(name);
        if r.len() % 2 == 1 {
            r.push(0);
        }
        r[0] = r.len() as u8;
        r
    }
    let mut image = vec![0u8; S * 19];
    for (n, kind) in [(16usize, 1u8), (17, 255)] {
        image[n * S] = kind;
        image[n * S + 1..n * S + 6].copy_from_slice(b"CD001");
    }
    image[16 * S + 40..16 * S + 72].copy_from_slice(format!("{:<32}", "CIDATA").as_bytes());
    let root = record(&[0], 18, S, true);
    image[16 * S + 156..16 * S + 156 + root.len()].copy_from_slice(&root);
    let mut dir = [root, record(&[1], 18, S, true)].concat();
    for (name, bytes) in files {
        dir.extend(record(name.as_bytes(), image.len() / S, bytes.len(), false));
        image.extend_from_slice(bytes);
        let pad = (S - image.len() % S) % S;
        image.extend(vec![0; pad]);
    }
    image[18 * S..18 * S + dir.len()].copy_from_slice(&dir);
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_disk_is_formatted_mounted_and_keeps_its_files() {
    let bed = Bed::one().await;
    let ssh = bed.ssh("10.0.0.11").await;
    let dev = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_gh-data-101";
    assert_eq!(ssh.ok(&format!("sudo -n wipefs -n {dev}; sudo -n blkid -p {dev}; echo $?")).await, "2\n");
    ssh.ok(&format!("sudo -n mkfs.ext4 -q -L data {dev}")).await;
    let o = ssh.exec(&format!("sudo -n mkfs.ext4 -q {dev}"), b"").await;
    assert_eq!(o.code, Some(1), "it is not blank any more");
    assert_eq!(
        ssh.ok(&format!("sudo -n blkid -o value -s TYPE {dev}; sudo -n blkid -L data")).await,
        "ext4\n/dev/sdb\n"
    );
    assert!(ssh.ok(&format!("sudo -n wipefs -n {dev}")).await.contains("ext4"));
    ssh.ok("sudo -n mkdir -p /mnt/data; echo 'LABEL=data /mnt/data ext4 defaults,nofail 0 2' | sudo -n tee -a /etc/fstab; sudo -n mount -a; mountpoint -q /mnt/data").await;
    assert_eq!(
        ssh.ok(
            "findmnt -no SOURCE,FSTYPE /mnt/data; lsblk -no MOUNTPOINT /dev/sdb; df --output=target /mnt/data | tail -1"
        )
        .await,
        "/dev/sdb ext4\n/mnt/data\n/mnt/data\n"
    );
    ssh.ok("echo kept | sudo -n tee /mnt/data/f; sudo -n chmod 600 /mnt/data/f; sudo -n chown debian /mnt/data/f")
        .await;
    assert!(bed.lab.with(|w| guest::mountpoint(w, 101, "/mnt/data")));
    ssh.ok("sudo -n umount /mnt/data; test ! -e /mnt/data/f; sudo -n mount /mnt/data; cat /mnt/data/f; stat -c %a:%U /mnt/data/f | grep 600:debian").await;
    let ssh = bed.reboot("10.0.0.11", "sudo -n reboot").await;
    assert_eq!(ssh.ok("cat /mnt/data/f; stat -c %a /mnt/data/f").await, "kept\n600\n");
    let o = ssh.exec("sudo -n mount /dev/sdb /nope", b"").await;
    assert!(o.err.contains("mount point does not exist"), "{}", o.err);
    assert!(ssh.ok("lsblk -J -o NAME,SERIAL,FSTYPE").await.contains("gh-data-101"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_mounted_by_those_the_exports_name() {
    let bed =
        Bed::with(&[(101, "server", "10.0.0.31"), (102, "client", "10.0.0.21"), (103, "other", "10.0.0.22")]).await;
    let server = bed.ssh("10.0.0.31").await;
    server.ok("sudo -n apt-get update -qq; sudo -n apt-get install -qq -y nfs-kernel-server; sudo -n mkdir -p /srv/k8s; sudo -n chmod 777 /srv/k8s").await;
    server.ok("echo '/srv/k8s 10.0.0.21(rw,sync,no_subtree_check,no_root_squash)' | sudo -n tee /etc/exports.d/a.exports; sudo -n exportfs -ra").await;
    assert!(server.ok("sudo -n exportfs -v").await.contains("10.0.0.21(sync,wdelay"));
    let client = bed.ssh("10.0.0.21").await;
    let o = client.exec("sudo -n mount -t nfs4 10.0.0.31:/srv/k8s /mnt", b"").await;
    assert_eq!(o.code, Some(32), "no mount helper without nfs-common: {}", o.err);
    client.ok("sudo -n apt-get update -qq; sudo -n apt-get install -qq -y nfs-common; sudo -n mount -t nfs4 server:/srv/k8s /mnt; echo hi | sudo -n tee /mnt/f").await;
    assert_eq!(server.ok("cat /srv/k8s/f").await, "hi\n");
    assert!(client.ok("findmnt -no FSTYPE /mnt").await.contains("nfs4"));
    let other = bed.ssh("10.0.0.22").await;
    other.ok("sudo -n apt-get update -qq; sudo -n apt-get install -qq -y nfs-common").await;
    let o = other.exec("sudo -n mount -t nfs4 10.0.0.31:/srv/k8s /mnt", b"").await;
    assert!(o.err.contains("access denied by server"), "{}", o.err);
    let o = other.exec("sudo -n mount -t nfs4 10.0.0.99:/srv/k8s /mnt", b"").await;
    assert!(o.err.contains("Connection timed out"), "{}", o.err);
    bed.lab.with(|w| {
        assert!(guest::nfs_allows(w, "10.0.0.31", "/srv/k8s/sub", "10.0.0.21").is_ok());
        assert!(guest::nfs_allows(w, "10.0.0.31", "/srv/k8s", "10.0.0.22").is_err());
        guest::power_off(&bed.lab, w, 101);
    });
    let o = client.exec("cat /mnt/f", b"").await;
    assert_ne!(o.code, Some(0));
}
