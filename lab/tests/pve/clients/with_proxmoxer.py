# Real work through proxmoxer against the lab: port, CA file, token, root's password.
import os
import sys
import tempfile

from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException
from proxmoxer.tools import Tasks

port, ca, token, password = sys.argv[1:5]
user, rest = token.split("!")
name, value = rest.split("=")
api = ProxmoxAPI("127.0.0.1", port=int(port), user=user, token_name=name, token_value=value, verify_ssl=ca)
root = ProxmoxAPI("127.0.0.1", port=int(port), user="root@pam", password=password, verify_ssl=ca)
release = api.version.get()["release"]
node = api.nodes.get()[0]["node"]
pve = root.nodes(node)


def wait(upid, ok="OK"):
    end = Tasks.blocking_status(root, upid, timeout=60, polling_interval=0.02)
    assert end["exitstatus"].startswith(ok), (upid, end, Tasks.decode_log(root.nodes(node).tasks(upid).log.get()))
    return end


def refused(code, text, call):
    try:
        call()
    except ResourceException as e:
        assert e.status_code == code and text in f"{e.content} {e.errors}", (e.status_code, e.content, e.errors)
        return
    raise SystemExit(f"expected a refusal: {code} {text}")


def work(i):
    # Pools and a machine with the operator's token.
    api.pools.create(poolid="px", comment="a = b; c & d")
    assert api.pools.get(poolid="px")[0]["comment"] == "a = b; c & d"
    refused(500, "already exists", lambda: api.pools.create(poolid="px"))
    vmid = int(api.cluster.nextid.get())
    keys = "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIHc3bWxkZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9v%20op%40lab"
    wait(api.nodes(node).qemu.create(
        vmid=vmid, name="px", memory=512, cores=1, net0="virtio,bridge=vmbr0", scsi0="local-zfs:1,discard=on",
        ide2="local-zfs:cloudinit", scsihw="virtio-scsi-single", pool="px", ciuser="debian", sshkeys=keys,
        ipconfig0="ip=10.0.0.77/24,gw=10.0.0.1", agent="enabled=1", onboot=0))
    vm = api.nodes(node).qemu(vmid)
    assert vm.config.get()["scsi0"] == f"local-zfs:vm-{vmid}-disk-0,discard=on,size=1G", vm.config.get()
    refused(500, "already exists", lambda: api.nodes(node).qemu.create(vmid=vmid))
    vm.config.put(description="x=y\nz", cores=2)
    config = vm.config.get()
    assert config["cores"] == 2 and config["description"] == "x=y\nz", config
    refused(400, "minimum value of 1", lambda: vm.config.put(cores=0))
    refused(500, "checksum mismatch", lambda: vm.config.put(cores=3, digest="0" * 40))
    refused(500, "does not exist", lambda: api.nodes(node).qemu(4444).config.get())
    assert "user: debian" in vm.cloudinit.dump.get(type="user")
    assert {p["key"] for p in vm.pending.get()} >= {"cores", "scsi0", "digest"}

    # Power, twice each.
    wait(vm.status.start.post())
    wait(vm.status.start.post(), ok="VM ")
    assert vm.status.current.get()["status"] == "running"
    vm.config.put(memory=768)
    assert any(p["key"] == "memory" and p.get("pending") == "768" for p in vm.pending.get())
    vm.config.put(revert="memory")
    refused(500, "is running - destroy failed", lambda: vm.delete())
    wait(vm.status.suspend.post())
    assert vm.status.current.get()["qmpstatus"] == "paused"
    wait(vm.status.resume.post())
    wait(vm.status.stop.post())
    wait(vm.status.stop.post())
    wait(pve.qemu(vmid).status.shutdown.post(timeout=5))

    # Disks.
    wait(vm.resize.put(disk="scsi0", size="+1G"))
    wait(vm.config.post(scsi1="local-zfs:3,serial=abc"))
    vm.config.put(delete="scsi1")
    assert vm.config.get()["unused0"] == f"local-zfs:vm-{vmid}-disk-1", vm.config.get()
    vm.config.put(scsi2=f"local-zfs:vm-{vmid}-disk-1")
    assert "unused0" not in vm.config.get()
    vm.config.put(delete="scsi2")
    vm.config.put(delete="unused0")
    assert [c["volid"] for c in pve.storage("local-zfs").content.get(vmid=vmid)] == \
        [f"local-zfs:vm-{vmid}-cloudinit", f"local-zfs:vm-{vmid}-disk-0"]

    # Snapshots.
    wait(vm.snapshot.post(snapname="one", description="first"))
    wait(vm.snapshot.post(snapname="one"), ok="snapshot name")
    vm.config.put(cores=1)
    wait(vm.snapshot("one").rollback.post())
    assert vm.config.get()["cores"] == 2 and vm.config.get()["parent"] == "one"
    assert [s["name"] for s in vm.snapshot.get()] == ["one", "current"]
    assert vm.snapshot("one").config.get()["description"] == "first"
    wait(vm.snapshot("one").delete())

    # Backup, restore beside the original and over it.
    wait(pve.vzdump.post(vmid=vmid, storage="local", mode="stop", compress="zstd", **{"notes-template": "{{guestname}}"}))
    backup = [c for c in pve.storage("local").content.get(content="backup") if c["vmid"] == vmid][-1]
    assert backup["notes"] == "px" and backup["format"] == "vma.zst", backup
    wait(pve.qemu.create(vmid=vmid + 500, archive=backup["volid"], storage="local-zfs", unique=1))
    assert pve.qemu(vmid + 500).config.get()["name"] == "px"
    assert pve.qemu(vmid + 500).config.get()["net0"] != vm.config.get()["net0"]
    refused(500, "already exists", lambda: pve.qemu.create(vmid=vmid + 500, archive=backup["volid"]))
    wait(pve.qemu.create(vmid=vmid + 500, archive=backup["volid"], storage="local-zfs", force=1))
    # Protection, and a machine that runs, are found out by the task, which leaves no lock behind.
    pve.qemu(vmid + 500).config.put(protection=1)
    wait(pve.qemu.create(vmid=vmid + 500, archive=backup["volid"], force=1),
         ok=f"unable to restore VM {vmid + 500} - - protection mode enabled")
    pve.qemu(vmid + 500).config.put(protection=0)
    wait(pve.qemu(vmid + 500).status.start.post())
    wait(pve.qemu.create(vmid=vmid + 500, archive=backup["volid"], force=1), ok=f"unable to restore VM {vmid + 500} - vm is")
    assert "lock" not in pve.qemu(vmid + 500).config.get()
    wait(pve.qemu(vmid + 500).status.stop.post())
    wait(pve.qemu(vmid + 500).delete(purge=1))
    pve.storage("local").content(backup["volid"]).put(protected=1, notes="keep")
    refused(500, "protected", lambda: pve.storage("local").content(backup["volid"]).delete())
    pve.storage("local").content(backup["volid"]).put(protected=0)
    wait(pve.storage("local").content(backup["volid"]).delete())

    # Template, linked and full clones.
    wait(pve.qemu(vmid).template.post())
    refused(500, "template to a template", lambda: pve.qemu(vmid).template.post())
    wait(pve.qemu(vmid).clone.post(newid=vmid + 1, name="linked"))
    disk = pve.qemu(vmid + 1).config.get()["scsi0"]
    assert disk.startswith(f"local-zfs:base-{vmid}-disk-0/vm-{vmid + 1}-disk-0,"), disk
    wait(pve.qemu(vmid).delete(), ok="base volume")
    wait(pve.qemu(vmid).clone.post(newid=vmid + 2, name="full", full=1, storage="local-zfs", pool="px"))
    assert pve.qemu(vmid + 2).config.get()["scsi0"].startswith(f"local-zfs:vm-{vmid + 2}-disk-0,")
    rows = {r["vmid"]: r for r in root.cluster.resources.get(type="vm")}
    assert rows[vmid + 2]["pool"] == "px"
    for other in (vmid + 1, vmid + 2, vmid):
        wait(pve.qemu(other).delete(purge=1))
    api.pools.delete(poolid="px")

    # Files.
    iso = os.path.join(tempfile.mkdtemp(), "px.iso")
    with open(iso, "wb") as f:
        f.write(b"x" * 100000)
    wait(pve.storage("local").upload.create(content="iso", filename=open(iso, "rb")))
    assert [c["size"] for c in pve.storage("local").content.get(content="iso")] == [100000]
    wait(pve.storage("local").content("local:iso/px.iso").delete())

    # People.
    root.access.groups.create(groupid="staff", comment="g")
    root.access.users.create(userid="eve@pve", password="secret123", groups="staff", comment="Eve")
    assert root.access.users("eve@pve").get()["groups"] == ["staff"]
    root.access.users("eve@pve").put(comment="Eva")
    made = root.access.users("eve@pve").token("ci").post(privsep=1, comment="t")
    root.access.acl.put(path="/pool/none", roles="PVEAuditor", tokens="eve@pve!ci", users="eve@pve")
    eve = ProxmoxAPI("127.0.0.1", port=int(port), user="eve@pve", token_name="ci", token_value=made["value"], verify_ssl=ca)
    assert eve.cluster.resources.get(type="vm") == [] and "/pool/none" in eve.access.permissions.get()
    refused(403, "Permission check failed", lambda: eve.nodes(node).qemu(100).config.get())
    root.access.acl.put(path="/pool/none", roles="PVEAuditor", tokens="eve@pve!ci", users="eve@pve", delete=1)
    root.access.users("eve@pve").delete()
    root.access.groups("staff").delete()
    root.access.roles.create(roleid="Looker", privs="VM.Audit,Datastore.Audit")
    root.access.roles("Looker").put(privs="Sys.Audit", append=1)
    assert set(root.access.roles("Looker").get()) == {"VM.Audit", "Datastore.Audit", "Sys.Audit"}
    root.access.roles("Looker").delete()

    # The rest of a cluster.
    root.storage.create(storage="extra", type="dir", path="/srv/extra", content="images,iso")
    root.storage("extra").put(content="images", disable=0)
    assert any(s["storage"] == "extra" and s["active"] == 1 for s in pve.storage.get())
    root.storage("extra").delete()
    root.cluster.backup.create(id="nightly", all=1, schedule="02:00", storage="local")
    root.cluster.backup("nightly").put(schedule="03:00")
    assert [j["schedule"] for j in root.cluster.backup.get()] == ["03:00"]
    root.cluster.backup("nightly").delete()
    root.cluster.firewall.groups.create(group="web")
    root.cluster.firewall.groups("web").create(type="in", action="ACCEPT", dport="443", proto="tcp")
    refused(500, "not empty", lambda: root.cluster.firewall.groups("web").delete())
    root.cluster.firewall.groups("web")(0).delete()
    root.cluster.firewall.groups("web").delete()
    pve.network.create(iface="vmbr9", type="bridge", autostart=1)
    wait(pve.network.put())
    assert any(n["iface"] == "vmbr9" for n in pve.network.get(type="bridge"))
    pve.network("vmbr9").delete()
    wait(pve.network.put())
    refused(500, "parent 'qx' of pool", lambda: root.pools.create(poolid="qx/sub"))
    root.pools.create(poolid="qx")
    root.pools.create(poolid="qx/sub")
    refused(500, "contains pool 'qx/sub'", lambda: root.pools.delete(poolid="qx"))
    root.pools.delete(poolid="qx/sub")
    root.pools.delete(poolid="qx")
    root.cluster.sdn.zones.create(zone="zx", type="vlan", bridge="vmbr0")
    root.cluster.sdn.vnets.create(vnet="vx", zone="zx", tag=5)
    root.cluster.sdn.vnets("vx").subnets.create(subnet="10.9.0.0/24", type="subnet")
    refused(500, "Subnet is used", lambda: root.cluster.sdn.vnets("vx").delete())
    root.cluster.sdn.vnets("vx").subnets("zx-10.9.0.0-24").delete()
    root.cluster.sdn.vnets("vx").delete()
    root.cluster.sdn.zones("zx").delete()
    assert len(pve.rrddata.get(timeframe="hour")) > 10
    refused(400, "enumeration 'hour, day, week, month, year'", lambda: pve.qemu(100).rrddata.get(timeframe="eon"))
    tasks = pve.tasks.get(limit=5, typefilter="qmclone")
    assert len(tasks) >= 2 and all(t["type"] == "qmclone" and t["status"] == "OK" for t in tasks), tasks
    assert pve.tasks.get(errors=1)[0]["status"] != "OK"
    assert root.cluster.options.get()["mac_prefix"] == "BC:24:11"
    if release.startswith("8"):
        root.cluster.ha.groups.create(group="g1", nodes=node)
        root.cluster.ha.groups("g1").delete()


for i in range(2):
    work(i)
print("fine")
