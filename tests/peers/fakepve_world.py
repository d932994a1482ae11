"""Runs PyPI `fakepve` as a small Proxmox host for tests/tests/proxmox_fakepve.rs.

fakepve has no guests. Here the ones of a deploy behave: a template build powers itself off, a machine's agent
answers with the address that cloud-init would give it.

    python fakepve_world.py PORT CERT KEY IMAGE_HOST
"""

import asyncio
import sys

from fakepve import FakePve


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
    pve = FakePve(user="root@pam", password="secret-of-the-test", host="127.0.0.1", port=port)
    pve.time_scale = 0
    pve.storages["local"]["content"] = "iso,vztmpl,backup,import"
    pve.add_vm(150, "somebody-elses", status="running", config={"memory": "1024", "description": "not yours"})
    await pve.start(cert, key)
    print("ready", pve.port, flush=True)
    while True:
        behave(pve)
        await asyncio.sleep(0.1)


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
