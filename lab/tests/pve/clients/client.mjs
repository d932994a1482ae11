// Real work through npm proxmox-api against the lab: port, token, root's password.
import proxmoxApi from "proxmox-api";
import assert from "node:assert/strict";

process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
const [port, token, password] = process.argv.slice(2);
const at = token.indexOf("=");
const api = proxmoxApi({ host: "127.0.0.1", port: Number(port), tokenID: token.slice(0, at), tokenSecret: token.slice(at + 1) });
const root = proxmoxApi({ host: "127.0.0.1", port: Number(port), username: "root@pam", password });

async function wait(upid, ok = "OK") {
  const node = upid.split(":")[1];
  for (;;) {
    const s = await root.nodes.$(node).tasks.$(upid).status.$get();
    if (s.status === "stopped") {
      assert.ok(s.exitstatus.startsWith(ok), `${upid}: ${s.exitstatus}`);
      return;
    }
    await new Promise((r) => setTimeout(r, 20));
  }
}

async function refused(text, call) {
  await assert.rejects(call, (e) => `${e.message} ${JSON.stringify(e)}`.includes(text) || assert.fail(String(e)));
}

async function work() {
  const version = await api.version.$get();
  assert.match(version.release, /^[89]\./);
  const [{ node }] = await api.nodes.$get();
  const pve = api.nodes.$(node);
  await api.pools.$post({ poolid: "np", comment: "from node" });
  const vmid = Number(await api.cluster.nextid.$get());
  await wait(await pve.qemu.$post({
    vmid, name: "np", memory: "512", cores: 1, scsihw: "virtio-scsi-single", scsi0: "local-zfs:1", net0: "virtio,bridge=vmbr0",
    pool: "np", agent: "1",
  }));
  const vm = pve.qemu.$(vmid);
  await vm.config.$put({ cores: 2, description: "a=b & c" });
  const config = await vm.config.$get();
  assert.equal(config.cores, 2);
  assert.equal(config.description, "a=b & c");
  await refused("", () => vm.config.$put({ cores: 0 }));
  await wait(await vm.status.start.$post());
  assert.equal((await vm.status.current.$get()).status, "running");
  await refused("", () => vm.agent.ping.$post());
  await wait(await vm.status.stop.$post());
  await wait(await vm.resize.$put({ disk: "scsi0", size: "+1G" }));
  await wait(await vm.snapshot.$post({ snapname: "s1" }));
  assert.deepEqual((await vm.snapshot.$get()).map((s) => s.name), ["s1", "current"]);
  await wait(await vm.snapshot.$("s1").$delete());
  await wait(await vm.template.$post());
  await wait(await vm.clone.$post({ newid: vmid + 1, name: "np2" }));
  const all = await api.cluster.resources.$get({ type: "vm" });
  assert.ok(all.some((r) => r.vmid === vmid + 1));
  await wait(await pve.qemu.$(vmid + 1).$delete({ purge: true }));
  await wait(await vm.$delete({ purge: true }));
  await api.pools.$delete({ poolid: "np" }).catch(async () => api.pools.$("np").$delete());
  const users = root.access.users;
  await users.$post({ userid: "npm@pve", password: "secret123" });
  assert.ok((await users.$get()).some((u) => u.userid === "npm@pve"));
  await users.$("npm@pve").$delete();
}

await work();
await work();
console.log("fine");
