# The tasks of playbook.yml, run through the modules of community.proxmox in one process: what takes Ansible
# seconds per task takes a fraction here, and the modules are the same.
# Arguments: port, root's password, an ISO file, the folder with the collection.
import contextlib
import importlib
import io
import json
import os
import sys

import yaml

port, password, iso, collections = sys.argv[1:5]
sys.path.insert(0, collections)
from ansible.module_utils import basic  # noqa: E402

basic._ANSIBLE_PROFILE = "legacy"
API = {"api_host": "127.0.0.1", "api_port": int(port), "api_user": "root@pam", "api_password": password,
       "validate_certs": False}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "playbook.yml")) as f:
    BLOCKS = yaml.safe_load(f)[0]["tasks"]


def run(module, args):
    args = json.loads(json.dumps({**API, **args}).replace("{{ iso }}", iso))
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode()
    out = io.StringIO()
    code = importlib.import_module(f"ansible_collections.community.proxmox.plugins.modules.{module}")
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        code.main()
    text = out.getvalue()
    result = json.loads(text[text.index("{"):])
    if result.get("failed"):
        raise SystemExit(f"{module} {args}: {result.get('msg', result)}")
    return result


def phase(name):
    changed = []
    for task in next(b for b in BLOCKS if f'"{name}"' in b["when"])["block"]:
        module = next((k for k in task if k.startswith("community.proxmox.")), None)
        if module is None:
            continue
        for item in task.get("loop", [None]):
            args = {k: item if v == "{{ item }}" else v for k, v in (task[module] or {}).items()}
            result = run(module.rsplit(".", 1)[1], args)
            if result.get("changed"):
                changed.append(task.get("name", module))
            if task.get("register") == "state":
                assert result["status"] == "running", result
            if task.get("register") == "info":
                assert [v["name"] for v in result["proxmox_vms"]] == ["vm-full"], result
            if task.get("register") == "contents":
                assert len(result["proxmox_storage_content"]) == 1, result
    return changed


assert len(phase("make")) >= 10
again = phase("again")
assert again == [], f"a second run changes nothing, but: {again}"
for p in ("early", "work", "late", "drop"):
    assert phase(p), p
print("fine")
