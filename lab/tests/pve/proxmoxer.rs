//! The widely used Python client works against the lab unchanged.
use crate::bed::Bed;

const SCRIPT: &str = r#"
import sys, time
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException
from proxmoxer.tools import Tasks
port, ca, token, password = sys.argv[1:5]
user, rest = token.split("!")
name, value = rest.split("=")
api = ProxmoxAPI("127.0.0.1", port=int(port), user=user, token_name=name, token_value=value, verify_ssl=ca)
assert api.version.get()["release"].startswith("9"), api.version.get()
node = api.nodes.get()[0]["node"]
def wait(upid):
    end = Tasks.blocking_status(api, upid, timeout=60, polling_interval=0.05)
    assert end["exitstatus"] == "OK", end
    return end
api.pools.create(poolid="px", comment="a = b; c & d")
assert api.pools.get(poolid="px")[0]["comment"] == "a = b; c & d"
vmid = api.cluster.nextid.get()
wait(api.nodes(node).qemu.create(vmid=vmid, name="px", memory=512, cores=1, net0="virtio,bridge=vmbr0",
    scsi0="local-zfs:1,discard=on", scsihw="virtio-scsi-single", pool="px"))
vm = api.nodes(node).qemu(vmid)
assert vm.config.get()["scsi0"] == f"local-zfs:vm-{vmid}-disk-0,discard=on,size=1G", vm.config.get()
vm.config.put(description="x=y\nz", cores=2)
assert vm.config.get()["cores"] == 2 and vm.config.get()["description"] == "x=y\nz"
try:
    vm.config.put(cores=0)
    raise SystemExit("cores=0 was accepted")
except ResourceException as e:
    assert e.status_code == 400 and "minimum value of 1" in str(e.errors), (e.status_code, e.errors)
try:
    api.nodes(node).qemu(4444).config.get()
except ResourceException as e:
    assert "does not exist" in str(e), e
wait(vm.status.start.post())
assert vm.status.current.get()["status"] == "running"
wait(vm.status.stop.post())
with open(sys.argv[0], "rb") as f:
    pass
import tempfile, os
iso = os.path.join(tempfile.mkdtemp(), "px.iso")
open(iso, "wb").write(b"x" * 100000)
wait(api.nodes(node).storage("local").upload.create(content="iso", filename=open(iso, "rb")))
assert api.nodes(node).storage("local").content.get(content="iso")[0]["size"] == 100000
wait(api.nodes(node).storage("local").content("local:iso/px.iso").delete())
wait(vm.delete(purge=1))
api.pools.delete(poolid="px")
root = ProxmoxAPI("127.0.0.1", port=int(port), user="root@pam", password=password, verify_ssl=ca)
root.access.users.create(userid="eve@pve", password="secret123")
assert any(u["userid"] == "eve@pve" for u in root.access.users.get())
root.access.users("eve@pve").delete()
print("fine")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_proxmoxer_works_unchanged() {
    let Ok(python) = std::env::var("GPUHOST_PROXMOXER_PYTHON") else {
        eprintln!("skipped: GPUHOST_PROXMOXER_PYTHON names no Python that has proxmoxer");
        return;
    };
    let bed = Bed::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (ca, script) = (dir.path().join("ca.pem"), dir.path().join("client.py"));
    let (pem, password) = bed.lab.with(|w| (w.pve.ca.cert.clone(), w.pve.access.users["root@pam"].password.clone()));
    std::fs::write(&ca, pem).unwrap();
    std::fs::write(&script, SCRIPT).unwrap();
    let out = tokio::process::Command::new(python)
        .arg(&script)
        .arg(bed.port().to_string())
        .arg(&ca)
        .arg(bed.secret())
        .arg(password)
        .output()
        .await
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}");
}
