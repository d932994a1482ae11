//! Builders of the API requests. No I/O: tests compare method, path and body.
use reqwest::Method;
use serde_json::{Map, Value, json};

/// One request to the Proxmox VE API, relative to `/api2/json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Path, percent-encoded where needed.
    pub path: String,
    /// Query parameters.
    pub query: Vec<(String, String)>,
    /// JSON body; DELETE must not have one.
    pub body: Option<Map<String, Value>>,
}

/// A VM on its hypervisor node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct At {
    /// Hypervisor node.
    pub node: String,
    /// VM id.
    pub vmid: u32,
}

impl At {
    /// `vmid` on `node`.
    pub fn new(node: impl Into<String>, vmid: u32) -> Self {
        At { node: node.into(), vmid }
    }
    fn path(&self, rest: &str) -> String {
        format!("/nodes/{}/qemu/{}{rest}", self.node, self.vmid)
    }
}

/// Percent-encodes everything but unreserved characters, as `sshkeys` and path segments need it.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// GET.
pub fn get(path: impl Into<String>) -> Request {
    Request { method: Method::GET, path: path.into(), query: Vec::new(), body: None }
}

fn with_body(method: Method, path: impl Into<String>, body: Value) -> Request {
    let body = match body {
        Value::Object(m) => m,
        _ => Map::new(),
    };
    Request { method, path: path.into(), query: Vec::new(), body: Some(body) }
}

/// POST with a JSON body.
pub fn post(path: impl Into<String>, body: Value) -> Request {
    with_body(Method::POST, path, body)
}

/// PUT with a JSON body.
pub fn put(path: impl Into<String>, body: Value) -> Request {
    with_body(Method::PUT, path, body)
}

/// DELETE; options go into the query.
pub fn delete(path: impl Into<String>) -> Request {
    Request { method: Method::DELETE, path: path.into(), query: Vec::new(), body: None }
}

impl Request {
    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }
    /// Adds a body parameter when there is a value.
    #[must_use]
    pub fn set(mut self, key: &str, value: Option<impl Into<Value>>) -> Self {
        if let (Some(v), Some(b)) = (value, self.body.as_mut()) {
            b.insert(key.to_owned(), v.into());
        }
        self
    }
    /// `POST /nodes/pve1/qemu`, as errors show it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
    /// The VM that it is about, when it is about one.
    #[must_use]
    pub fn vm(&self) -> Option<At> {
        let mut parts = self.path.strip_prefix("/nodes/")?.split('/');
        let (node, kind, id) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == "qemu").then(|| id.parse().ok().map(|vmid| At::new(node, vmid))).flatten()
    }
    /// What it does to its VM: `config`, `status/start`; empty for the VM itself.
    #[must_use]
    pub fn verb(&self) -> &str {
        self.path.splitn(6, '/').nth(5).unwrap_or_default()
    }
    /// Whether it only looks.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

/// All VMs that the token can see.
pub fn list_vms() -> Request {
    get("/cluster/resources").query("type", "vm")
}
/// Whether `vmid` is free: invisible is not absent.
pub fn is_free(vmid: u32) -> Request {
    get("/cluster/nextid").query("vmid", vmid)
}
/// Config with pending changes applied.
pub fn config(at: &At) -> Request {
    get(at.path("/config"))
}
/// Running config against wanted config.
pub fn pending(at: &At) -> Request {
    get(at.path("/pending"))
}
/// What the cloud-init drive carries against what the config says.
pub fn cloud_init(at: &At) -> Request {
    get(at.path("/cloudinit"))
}
/// What the config makes of the cloud-init drive: `user`, `network` or `meta`.
pub fn cloud_init_dump(at: &At, kind: &str) -> Request {
    get(at.path("/cloudinit/dump")).query("type", kind)
}
/// Writes the cloud-init drive anew.
pub fn regenerate(at: &At) -> Request {
    put(at.path("/cloudinit"), json!({}))
}
/// Live status.
pub fn status(at: &At) -> Request {
    get(at.path("/status/current"))
}
/// A full or linked clone; `description` carries the marker, which Proxmox writes with the clone's first drive.
pub fn clone(from: &At, newid: u32, name: &str, pool: &str, description: &str, full: bool) -> Request {
    post(
        from.path("/clone"),
        json!({ "newid": newid, "name": name, "full": i32::from(full), "pool": pool, "description": description }),
    )
}
/// Synchronous config change.
pub fn put_config(at: &At, mut set: Map<String, Value>, delete: &[String], digest: Option<&str>) -> Request {
    if !delete.is_empty() {
        set.insert("delete".to_owned(), delete.join(",").into());
    }
    put(at.path("/config"), Value::Object(set)).set("digest", digest)
}
/// Config change as a task: for whatever allocates disks.
pub fn post_config(at: &At, set: Map<String, Value>, digest: Option<&str>) -> Request {
    post(at.path("/config"), Value::Object(set)).set("digest", digest)
}
/// Makes a VM.
pub fn create(node: &str, config: Map<String, Value>) -> Request {
    post(format!("/nodes/{node}/qemu"), Value::Object(config))
}
/// Grows a disk to `mib`.
pub fn resize(at: &At, disk: &str, mib: u64) -> Request {
    put(at.path("/resize"), json!({ "disk": disk, "size": format!("{mib}M") }))
}
/// Gives a disk to another VM.
pub fn reassign(at: &At, disk: &str, to: u32, to_disk: &str) -> Request {
    post(at.path("/move_disk"), json!({ "disk": disk, "target-vmid": to, "target-disk": to_disk }))
}
/// Starts.
pub fn start(at: &At, timeout: Option<u64>) -> Request {
    post(at.path("/status/start"), json!({})).set("timeout", timeout)
}
/// Pulls the plug; overrules a shutdown that hangs.
pub fn stop(at: &At) -> Request {
    post(at.path("/status/stop"), json!({ "overrule-shutdown": 1 }))
}
/// Asks the guest to power off.
pub fn shutdown(at: &At, timeout: u64) -> Request {
    post(at.path("/status/shutdown"), json!({ "timeout": timeout }))
}
/// Reboots; applies pending changes.
pub fn reboot(at: &At, timeout: u64) -> Request {
    post(at.path("/status/reboot"), json!({ "timeout": timeout }))
}
/// Removes a VM with the volumes in its own config, and nothing else.
pub fn destroy(at: &At) -> Request {
    delete(at.path("")).query("purge", 1).query("destroy-unreferenced-disks", 0)
}
/// Presses the reset button.
pub fn reset(at: &At) -> Request {
    post(at.path("/status/reset"), json!({}))
}
/// Pauses; its memory stays.
pub fn suspend(at: &At) -> Request {
    post(at.path("/status/suspend"), json!({}))
}
/// Ends a pause.
pub fn resume(at: &At) -> Request {
    post(at.path("/status/resume"), json!({}))
}
/// Snapshots, with the present state as `current`.
pub fn list_snapshots(at: &At) -> Request {
    get(at.path("/snapshot"))
}
/// Makes a snapshot.
pub fn create_snapshot(at: &At, name: &str, description: &str, memory: bool) -> Request {
    post(at.path("/snapshot"), json!({ "snapname": name, "description": description }))
        .set("vmstate", memory.then_some(1))
}
/// Takes a VM back to a snapshot.
pub fn rollback(at: &At, name: &str) -> Request {
    post(at.path(&format!("/snapshot/{name}/rollback")), json!({}))
}
/// Removes a snapshot.
pub fn remove_snapshot(at: &At, name: &str) -> Request {
    delete(at.path(&format!("/snapshot/{name}")))
}
/// Backs a VM up.
pub fn vzdump(at: &At, storage: &str, mode: &str, compress: &str) -> Request {
    let body = json!({ "vmid": at.vmid.to_string(), "storage": storage, "mode": mode, "compress": compress });
    post(format!("/nodes/{}/vzdump", at.node), body)
}
/// Puts a backup in the place of a VM.
pub fn restore(at: &At, archive: &str) -> Request {
    post(format!("/nodes/{}/qemu", at.node), json!({ "vmid": at.vmid, "archive": archive, "force": 1 }))
}
/// What a migration to `target` would stumble over.
pub fn migrate_check(at: &At, target: &str) -> Request {
    get(at.path("/migrate")).query("target", target)
}
/// Moves a VM to another node.
pub fn migrate(at: &At, target: &str, online: bool, with_disks: bool) -> Request {
    post(at.path("/migrate"), json!({ "target": target }))
        .set("online", online.then_some(1))
        .set("with-local-disks", with_disks.then_some(1))
}
/// Moves a disk to another storage.
pub fn move_disk(at: &At, disk: &str, storage: &str, remove_source: bool) -> Request {
    post(at.path("/move_disk"), json!({ "disk": disk, "storage": storage, "delete": i32::from(remove_source) }))
}
/// Turns a VM into a template.
pub fn to_template(at: &At) -> Request {
    post(at.path("/template"), json!({}))
}
/// An agent command without arguments.
pub fn agent_get(at: &At, command: &str) -> Request {
    get(at.path(&format!("/agent/{command}")))
}
/// Whether the agent answers.
pub fn agent_ping(at: &At) -> Request {
    post(at.path("/agent/ping"), json!({}))
}
/// Starts a program in the guest.
pub fn agent_exec(at: &At, argv: &[String], input: Option<&str>) -> Request {
    post(at.path("/agent/exec"), json!({ "command": argv })).set("input-data", input)
}
/// What became of a program in the guest.
pub fn agent_exec_status(at: &At, pid: i64) -> Request {
    agent_get(at, "exec-status").query("pid", pid)
}
/// Reads a file in the guest.
pub fn agent_file_read(at: &At, file: &str) -> Request {
    agent_get(at, "file-read").query("file", file)
}
/// Writes a file in the guest.
pub fn agent_file_write(at: &At, file: &str, content: &str) -> Request {
    post(at.path("/agent/file-write"), json!({ "file": file, "content": content }))
}
/// Tasks of a node, newest first, running ones included.
pub fn list_tasks(node: &str, vmid: Option<u32>) -> Request {
    let r = get(format!("/nodes/{node}/tasks")).query("source", "all");
    match vmid {
        Some(v) => r.query("vmid", v),
        None => r,
    }
}
/// State of a task.
pub fn task_status(node: &str, upid: &str) -> Request {
    get(format!("/nodes/{node}/tasks/{}/status", percent(upid)))
}
/// Log of a task from line `start`.
pub fn task_log(node: &str, upid: &str, start: u64, limit: u64) -> Request {
    get(format!("/nodes/{node}/tasks/{}/log", percent(upid))).query("start", start).query("limit", limit)
}
/// Volumes of a storage.
pub fn storage_content(node: &str, storage: &str, content: &str) -> Request {
    get(format!("/nodes/{node}/storage/{storage}/content")).query("content", content)
}
/// Removes a volume.
pub fn remove_volume(node: &str, storage: &str, volid: &str) -> Request {
    delete(format!("/nodes/{node}/storage/{storage}/content/{}", percent(volid)))
}
/// What a downloaded file has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum<'a> {
    /// `sha256` or `sha512`, as the server calls them.
    pub algorithm: &'static str,
    /// The digest.
    pub hex: &'a str,
}

impl<'a> Checksum<'a> {
    /// The stronger one of what is known.
    #[must_use]
    pub fn of(sha256: Option<&'a str>, sha512: Option<&'a str>) -> Option<Self> {
        let one = |algorithm| move |hex| Checksum { algorithm, hex };
        sha512.map(one("sha512")).or(sha256.map(one("sha256")))
    }
}

/// Lets the hypervisor download a file.
pub fn download_url(
    node: &str,
    storage: &str,
    content: &str,
    file: &str,
    url: &str,
    sum: Option<Checksum<'_>>,
) -> Request {
    post(
        format!("/nodes/{node}/storage/{storage}/download-url"),
        json!({ "content": content, "filename": file, "url": url }),
    )
    .set("checksum", sum.map(|s| s.hex))
    .set("checksum-algorithm", sum.map(|s| s.algorithm))
}
/// One pool with its comment and members.
pub fn pool(name: &str) -> Request {
    get("/pools").query("poolid", name)
}
/// Makes a pool.
pub fn create_pool(name: &str, comment: &str) -> Request {
    post("/pools", json!({ "poolid": name, "comment": comment }))
}
/// Removes an empty pool.
pub fn remove_pool(name: &str) -> Request {
    delete("/pools").query("poolid", name)
}
/// PCI devices of a node.
pub fn list_pci(node: &str) -> Request {
    get(format!("/nodes/{node}/hardware/pci"))
}
/// One role with its privileges.
pub fn role(name: &str) -> Request {
    get(format!("/access/roles/{}", percent(name)))
}
/// Makes a role.
pub fn create_role(name: &str, privileges: &str) -> Request {
    post("/access/roles", json!({ "roleid": name, "privs": privileges }))
}
/// Adds privileges to a role; it keeps those that it has.
pub fn extend_role(name: &str, privileges: &str) -> Request {
    put(format!("/access/roles/{}", percent(name)), json!({ "privs": privileges, "append": 1 }))
}
/// One token of a user.
pub fn token(user: &str, id: &str) -> Request {
    get(format!("/access/users/{}/token/{}", percent(user), percent(id)))
}
/// Makes a token.
pub fn create_token(user: &str, id: &str, comment: &str, privsep: bool) -> Request {
    let path = format!("/access/users/{}/token/{}", percent(user), percent(id));
    post(path, json!({ "comment": comment, "privsep": i32::from(privsep) }))
}
/// Removes a token.
pub fn remove_token(user: &str, id: &str) -> Request {
    delete(format!("/access/users/{}/token/{}", percent(user), percent(id)))
}
/// Who may do what where.
pub fn acl() -> Request {
    get("/access/acl")
}
/// Grants a role on a path to a user or token (`kind` is `users` or `tokens`).
pub fn grant(path: &str, role: &str, kind: &str, who: &str) -> Request {
    put("/access/acl", json!({ "path": path, "roles": role, kind: who, "propagate": 1 }))
}
/// One PCI mapping.
pub fn mapping(id: &str) -> Request {
    get(format!("/cluster/mapping/pci/{id}"))
}
/// All PCI mappings with what is wrong with them on `node`.
pub fn check_mappings(node: &str) -> Request {
    get("/cluster/mapping/pci").query("check-node", node)
}
/// Makes a PCI mapping.
pub fn create_mapping(id: &str, description: &str, map: &[String]) -> Request {
    post("/cluster/mapping/pci", json!({ "id": id, "description": description, "map": map }))
}
/// Replaces the entries of a PCI mapping.
pub fn put_mapping(id: &str, map: &[String], digest: Option<&str>) -> Request {
    put(format!("/cluster/mapping/pci/{id}"), json!({ "map": map })).set("digest", digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_has_no_body_and_spares_what_is_not_listed() {
        let r = destroy(&At::new("pve1", 201));
        assert_eq!((r.method.as_str(), r.path.as_str()), ("DELETE", "/nodes/pve1/qemu/201"));
        assert!(r.body.is_none());
        assert!(r.query.contains(&("destroy-unreferenced-disks".to_owned(), "0".to_owned())));
    }

    #[test]
    fn a_clone_carries_pool_and_description() {
        let r = clone(&At::new("pve1", 9000), 201, "k3s-cp1", "gpuhost-homelab", "m", true).set("storage", Some("zfs"));
        assert_eq!(r.path, "/nodes/pve1/qemu/9000/clone");
        let b = Value::Object(r.body.unwrap());
        assert_eq!(
            b,
            json!({"newid":201,"name":"k3s-cp1","full":1,"pool":"gpuhost-homelab","description":"m","storage":"zfs"})
        );
    }

    #[test]
    fn config_changes_name_what_goes_and_guard_by_digest() {
        let mut m = Map::new();
        m.insert("cores".to_owned(), 4.into());
        let r = put_config(&At::new("p", 1), m, &["hostpci2".to_owned(), "ide3".to_owned()], Some("abc"));
        assert_eq!(Value::Object(r.body.unwrap()), json!({"cores":4,"delete":"hostpci2,ide3","digest":"abc"}));
    }

    #[test]
    fn requests_know_their_vm_and_verb() {
        let at = At::new("pve1", 201);
        let of = |r: Request| (r.vm(), r.verb().to_owned());
        assert_eq!(of(start(&at, None)), (Some(at.clone()), "status/start".to_owned()));
        assert_eq!(of(destroy(&at)), (Some(at), String::new()));
        assert_eq!(of(create("pve1", Map::new())).0, None);
        assert_eq!(of(get("/nodes/pve1/storage/local/content")).0, None);
    }

    #[test]
    fn ssh_keys_are_encoded_without_plus() {
        assert_eq!(percent("ssh-ed25519 A+/= a@b\n"), "ssh-ed25519%20A%2B%2F%3D%20a%40b%0A");
    }
}
