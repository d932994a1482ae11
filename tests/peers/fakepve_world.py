"""Runs PyPI `fakepve` as a small Proxmox host for tests/tests/proxmox_fakepve.rs.

fakepve has no guests. Here the ones of a deploy behave: a template build powers itself off, a machine's agent
answers with the address that cloud-init would give it.

Where fakepve 0.5.0 departs from the official API in what a deploy needs, the class below makes up for it:

- a drive that a config change asks for is not made: `ide2: store:cloudinit` stays that text (server.py,
  `_apply_config`), and a clone then copies it as a disk;
- `import-from` stays in the stored drive, which has no size (qemu.py, `_qm_new_drive`);
- `PUT resize` is answered by the catch-all and changes nothing (generic.py, `synthesise`).

    python fakepve_world.py PORT CERT KEY
"""

import asyncio
import sys

from fakepve import FakePve

IMAGE_SIZE = "3G"


class World(FakePve):
    async def _apply_config(self, vm, user, p):
        await super()._apply_config(vm, user, p)
        for key, value in list(vm.config.items()):
            storage, _, volume = str(value).partition(":")
            if volume == "cloudinit":
                vm.config[key] = f"{storage}:vm-{vm.vmid}-cloudinit,media=cdrom"

    def _qm_new_drive(self, vmid, key, value, default):
        stored, made = super()._qm_new_drive(vmid, key, value, default)
        if "import-from=" in stored:
            kept = [p for p in stored.split(",") if not p.startswith(("import-from=", "size="))]
            stored = ",".join(kept + [f"size={IMAGE_SIZE}"])
        return stored, made

    async def answer(self, request, match, params, user, call=None):
        data = await super().answer(request, match, params, user, call)
        if match is not None and match.template.endswith("/resize"):
            vm = self.vm(int(match.params["vmid"]))
            kept = [p for p in vm.config[params["disk"]].split(",") if not p.startswith("size=")]
            vm.config[params["disk"]] = ",".join(kept + [f"size={params['size']}"])
        return data


def behave(pve):
    for vm in list(pve.vms):
        config = vm.config
        if vm.status != "running":
            continue
        if "cidata" in config.get("ide3", "") or "seed" in config.get("ide3", ""):
            vm.status = vm.qmpstatus = "stopped"
            continue
        if vm.agent is None and "ipconfig0" in config:
            mac = config["net0"].split(",")[0].split("=")[-1].lower()
            address = [p[3:] for p in config["ipconfig0"].split(",") if p.startswith("ip=")][0]
            ip, prefix = address.split("/")
            vm.agent = {
                "interfaces": [{
                    "name": "eth0", "hardware-address": mac,
                    "ip-addresses": [{"ip-address": ip, "ip-address-type": "ipv4", "prefix": int(prefix)}],
                }],
                "files": {"/etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== root@" + vm.name},
            }


async def main(port, cert, key):
    pve = World(user="root@pam", password="secret-of-the-test", host="127.0.0.1", port=port)
    pve.time_scale = 0
    pve.storages["local"]["content"] = "iso,vztmpl,backup,import"
    pve.add_vm(150, "somebody-elses", status="running", config={"memory": "1024", "description": "not yours"})
    await pve.start(cert, key)
    print("ready", pve.port, flush=True)
    while True:
        behave(pve)
        await asyncio.sleep(0.1)


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
