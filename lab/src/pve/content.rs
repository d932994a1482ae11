//! Volumes of a node's storages: `/nodes/{node}/storage…`.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::params::{b, e, f, is_url, pat, range, req, short, t, vmid, with};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::File;
use super::storage::missing;
use super::task::{self, Job, Step};
use super::{space, text, upload};
use crate::volume::{Content, Volume};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props;

/// A download.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Download {
    /// Node.
    pub node: String,
    /// Storage.
    pub storage: String,
    /// `iso`, `vztmpl`, `import`.
    pub content: String,
    /// File name.
    pub filename: String,
    /// URL.
    pub url: String,
    /// Expected checksum with its algorithm.
    pub checksum: Option<(String, String)>,
}

/// Bytes per millisecond of a download.
const RATE: u64 = 40 << 10;

/// Handles `/nodes/{node}/storage…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let [id, rest @ ..] = path else {
        return if method == "GET" { storages(w, c, node) } else { Err(c.unknown()) };
    };
    if !w.pve.storages.contains_key(*id) {
        return Err(missing(id));
    }
    if !super::storage::on_node(w, id, node) && !rest.is_empty() {
        return Err(ApiError::fail(format!("storage '{id}' is not available on node '{node}'")));
    }
    let who = c.who()?;
    let need = |w: &World, p: &str| w.pve.need(who, &format!("/storage/{id}"), p);
    match (method, rest) {
        ("GET", []) => {
            need(w, "Datastore.Audit|Datastore.AllocateSpace")?;
            data(subdirs("subdir", &["content", "status", "upload", "download-url", "rrd", "prunebackups"]))
        }
        ("GET", ["status"]) => {
            need(w, "Datastore.Audit|Datastore.AllocateSpace")?;
            data(status(w, id, node))
        }
        ("GET", ["content"]) => {
            need(w, "Datastore.Audit|Datastore.AllocateSpace")?;
            list(w, c, node, id)
        }
        ("POST", ["content"]) => allocate(w, c, node, id),
        (_, ["content", vol @ ..]) => volume(w, c, method, node, id, &vol.join("/")),
        ("POST", ["upload"]) => upload::request(w, c, node, id),
        ("POST", ["download-url"]) => download_request(w, c, node, id),
        ("GET" | "DELETE", ["prunebackups"]) => super::prune::route(w, c, method, node, id),
        ("GET", ["import-metadata"]) => import_metadata(w, c, id),
        ("GET", ["file-restore", ..]) => Err(ApiError::fail("file restore is not supported for this storage")),
        ("GET", ["rrddata"]) => {
            need(w, "Datastore.Audit|Datastore.AllocateSpace")?;
            c.params.check(crate::pve::nodes::HISTORY)?;
            let (total, used) = space::usage(w, id, node);
            data(super::nodes::history(w, &[("total", json!(total)), ("used", json!(used))]))
        }
        _ => Err(c.unknown()),
    }
}

fn volume(w: &mut World, c: &Call, method: &str, node: &str, id: &str, vol: &str) -> Reply {
    let who = c.who()?;
    let volid = full_id(id, vol);
    match method {
        "GET" => {
            w.pve.need(who, &format!("/storage/{id}"), "Datastore.Audit|Datastore.AllocateSpace")?;
            let f = seen(w, node, &volid).ok_or_else(|| no_volume(w, &volid))?;
            let size = w.volumes.get(&volid).map_or(f.used, |v| v.size);
            let mut v = json!({ "path": path_of(w, &volid), "size": size, "used": f.used, "format": f.format });
            if let Some(n) = &f.notes {
                v["notes"] = json!(n);
            }
            if f.protected {
                v["protected"] = json!(1);
            }
            data(v)
        }
        "PUT" => {
            c.params.check(&[t("notes"), b("protected")])?;
            w.pve.need(who, &format!("/storage/{id}"), "Datastore.Allocate")?;
            let gone = no_volume(w, &volid);
            let f = w.pve.files.get_mut(&volid).ok_or(gone)?;
            if c.params.get("protected").is_some() {
                if f.content != "backup" {
                    return Err(ApiError::fail("volume attribute 'protected' is only available for backups"));
                }
                f.protected = c.params.flag("protected");
            }
            if let Some(n) = c.params.get("notes") {
                f.notes = Some(n).filter(|n| !n.is_empty());
            }
            null()
        }
        "DELETE" => remove(w, c, node, id, vol),
        "POST" => copy_request(w, c, node, &volid),
        _ => Err(c.unknown()),
    }
}

/// A volume as a node sees it.
fn seen<'a>(w: &'a World, node: &str, volid: &str) -> Option<&'a File> {
    w.pve.files.get(volid).filter(|f| f.node.is_empty() || f.node == node)
}

/// A copy of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// Source.
    pub from: String,
    /// Volume to make.
    pub to: String,
    /// Its node.
    pub node: String,
}

/// `POST content/{volume}`: a copy, on this or another node.
fn copy_request(w: &mut World, c: &Call, node: &str, volid: &str) -> Reply {
    c.params.check(&[req(t("target")), super::params::node("target_node")])?;
    let who = c.who()?.clone();
    if !who.is_root() {
        return Err(super::qemu::create::bare_denial());
    }
    seen(w, node, volid).ok_or_else(|| no_volume(w, volid))?;
    let target = c.params.text("target");
    let store = volid.split(':').next().unwrap_or_default();
    let to = if target.contains(':') { target } else { format!("{store}:{target}") };
    let there = c.params.get("target_node").unwrap_or_else(|| node.to_owned());
    if !w.pve.nodes.contains_key(&there) {
        return Err(ApiError::fail(format!("no such cluster node '{there}'")));
    }
    let job = Copy { from: volid.to_owned(), to, node: there };
    data(task::start(w, node, "imgcopy", "", &who, Job::Copy(job)))
}

/// Runs the copy of a volume.
///
/// # Errors
/// The message the task ends with.
pub fn copy(w: &mut World, upid: &str, j: &Copy, step: u32) -> Result<Step, String> {
    let (Some(f), Some(v)) = (w.pve.files.get(&j.from).cloned(), w.volumes.get(&j.from).cloned()) else {
        return Err(format!("volume '{}' does not exist", j.from));
    };
    if step == 0 {
        return Ok(Step::Next(super::qemu::drive::copy_ms(&v)));
    }
    let (store, name) = j.to.split_once(':').ok_or_else(|| format!("unable to parse volume ID '{}'", j.to))?;
    if w.pve.files.contains_key(&j.to) {
        return Err(format!("target volume '{}' already exists", j.to));
    }
    space::usable(w, store, &f.content)?;
    let owner = name.rsplit('/').next().and_then(|n| n.split('-').nth(1)?.parse().ok()).unwrap_or(f.vmid);
    let new = space::New {
        node: &j.node,
        storage: store,
        vmid: owner,
        name: name.to_owned(),
        format: &f.format,
        kind: &f.content,
        base: None,
        volume: v,
    };
    space::create(w, new)?;
    task::log(w, upid, format!("copied '{}' to '{}'", j.from, j.to));
    Ok(Step::Done)
}

/// `GET import-metadata`: what a VM made of an image would look like.
fn import_metadata(w: &World, c: &Call, id: &str) -> Reply {
    c.params.check(&[req(t("volume"))])?;
    w.pve.need(c.who()?, &format!("/storage/{id}"), "Datastore.Audit|Datastore.AllocateSpace")?;
    let volid = full_id(id, &c.params.text("volume"));
    let f = w.pve.files.get(&volid).ok_or_else(|| no_volume(w, &volid))?;
    if f.content != "import" || !volid.ends_with(".ova") {
        return Err(ApiError::fail(format!("{volid} is not a supported import source")));
    }
    let name = volid.rsplit('/').next().unwrap_or_default().trim_end_matches(".ova");
    let size = w.volumes.get(&volid).map_or(0, |v| v.size);
    data(json!({
        "type": "vm", "source": "esxi", "create-args": { "name": name, "cores": 1, "memory": 1024 },
        "disks": { "scsi0": { "volid": format!("{volid}/disk0.vmdk"), "size": size } }, "net": {}, "warnings": [],
    }))
}

fn full_id(storage: &str, vol: &str) -> String {
    if vol.starts_with(&format!("{storage}:")) { vol.to_owned() } else { format!("{storage}:{vol}") }
}

/// The path of a volume on its node.
#[must_use]
pub fn path_of(w: &World, volid: &str) -> String {
    let (storage, name) = volid.split_once(':').unwrap_or((volid, ""));
    let base = space::path_of(w, storage);
    match w.pve.storages.get(storage).map(|s| s.kind.as_str()) {
        Some("zfspool") => format!("/dev/zvol/{base}/{name}"),
        Some("lvmthin" | "lvm") => format!("/dev/pve/{name}"),
        _ => match name.split_once('/') {
            Some(("iso", f)) => format!("{base}/template/iso/{f}"),
            Some(("vztmpl", f)) => format!("{base}/template/cache/{f}"),
            Some(("import", f)) => format!("{base}/import/{f}"),
            Some(("snippets", f)) => format!("{base}/snippets/{f}"),
            Some(("backup", f)) => format!("{base}/dump/{f}"),
            _ => format!("{base}/images/{name}"),
        },
    }
}

fn no_volume(w: &World, volid: &str) -> ApiError {
    let path = path_of(w, volid);
    ApiError::fail(format!("volume '{volid}' does not exist ({path})"))
}

fn storages(w: &World, c: &Call, node: &str) -> Reply {
    c.params.check(&[
        t("content"),
        f("storage", super::storage::id_format),
        b("enabled"),
        super::params::node("target"),
        b("format"),
    ])?;
    let who = c.who()?;
    let p = &c.params;
    let may = |id: &str| {
        let path = format!("/storage/{id}");
        w.pve.has(who, &path, "Datastore.Audit") || w.pve.has(who, &path, "Datastore.AllocateSpace")
    };
    let rows = w.pve.storages.iter().filter(|(id, s)| {
        may(id)
            && super::storage::on_node(w, id, node)
            && p.get("target").is_none_or(|n| s.shared || super::storage::on_node(w, id, &n))
            && p.get("storage").is_none_or(|x| x == **id)
            && p.get("content").is_none_or(|list| list.split(',').any(|k| s.allows(k)))
            && (!p.flag("enabled") || !s.disabled)
    });
    let view = |id: &String| {
        let mut v = status(w, id, node);
        v["storage"] = json!(id);
        if p.flag("format") && w.pve.storages.get(id).is_some_and(super::state::Storage::is_dir) {
            v["format"] = json!([{ "raw": 1, "qcow2": 1, "vmdk": 1, "subvol": 1 }, "raw"]);
        }
        let total = v["total"].as_f64().unwrap_or(1.0).max(1.0);
        v["used_fraction"] = json!(v["used"].as_f64().unwrap_or(0.0) / total);
        v
    };
    data(rows.map(|(id, _)| view(id)).collect::<Vec<Value>>())
}

fn status(w: &World, id: &str, node: &str) -> Value {
    let Some(s) = w.pve.storages.get(id) else { return Value::Null };
    let (total, used) = space::usage(w, id, node);
    json!({
        "type": s.kind, "content": s.content, "shared": i32::from(s.shared), "enabled": i32::from(!s.disabled),
        "active": i32::from(!s.disabled), "total": total, "used": used, "avail": total - used,
    })
}

fn row(w: &World, volid: &str, f: &File) -> Value {
    let size = w.volumes.get(volid).map_or(f.used, |v| v.size);
    let mut v = json!({ "volid": volid, "content": f.content, "format": f.format, "size": size, "ctime": f.ctime });
    if f.vmid != 0 {
        v["vmid"] = json!(f.vmid);
        v["used"] = json!(f.used);
    }
    if let Some(b) = &f.base {
        v["parent"] = json!(b);
    }
    if let Some(n) = &f.notes {
        v["notes"] = json!(n);
    }
    if f.content == "backup" {
        v["subtype"] = json!("qemu");
        if f.protected {
            v["protected"] = json!(1);
        }
    }
    v
}

fn list(w: &World, c: &Call, node: &str, id: &str) -> Reply {
    c.params.check(&[t("content"), vmid("vmid")])?;
    let who = c.who()?;
    let kind = c.params.get("content");
    let owner = c.params.int("vmid").and_then(|v| u32::try_from(v).ok());
    let prefix = format!("{id}:");
    let all = w.pve.datastore_admin(who, id);
    let may = w.pve.on_vms(who, "VM.Audit");
    let rows = w.pve.files.range(prefix.clone()..).take_while(|(v, _)| v.starts_with(&prefix)).filter(|(_, f)| {
        (f.node.is_empty() || f.node == node)
            && kind.as_ref().is_none_or(|k| *k == f.content)
            && owner.is_none_or(|o| o == f.vmid)
            && (f.vmid == 0 || all || may.on(f.vmid))
    });
    data(rows.map(|(v, f)| row(w, v, f)).collect::<Vec<Value>>())
}

impl super::state::Pve {
    fn datastore_admin(&self, who: &super::acl::Who, storage: &str) -> bool {
        self.has(who, &format!("/storage/{storage}"), "Datastore.Allocate")
    }
}

fn alloc_size(v: &str) -> bool {
    let digits = v.strip_suffix(['M', 'G']).unwrap_or(v);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn allocate(w: &mut World, c: &Call, node: &str, id: &str) -> Reply {
    let p = &c.params;
    w.pve.need(c.who()?, &format!("/storage/{id}"), "Datastore.AllocateSpace")?;
    p.check(&[
        req(vmid("vmid")),
        req(t("filename")),
        req(pat("size", alloc_size)),
        with(e("format", &["raw", "qcow2", "subvol", "vmdk"]), "size"),
    ])?;
    let owner = p.int("vmid").and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
    let file = p.text("filename");
    let asked = p.text("size");
    // A bare number means KiB.
    let size = asked.parse::<u64>().map(|k| k << 10).ok().or_else(|| props::disk_size(&asked));
    let size = size.ok_or_else(|| ApiError::param("size", "value does not match the regex pattern"))?;
    space::usable(w, id, "images").map_err(ApiError::fail)?;
    let dir = w.pve.storages.get(id).is_some_and(super::state::Storage::is_dir);
    if !file.starts_with(&format!("vm-{owner}-")) {
        return Err(ApiError::fail(format!("illegal name '{file}' - should be 'vm-{owner}-*'")));
    }
    let format = p.get("format").unwrap_or_else(|| file.rsplit_once('.').map_or("raw", |(_, x)| x).to_owned());
    let name = if dir { format!("{owner}/{file}") } else { file };
    let volid = format!("{id}:{name}");
    if w.pve.files.contains_key(&volid) {
        return Err(ApiError::fail(format!("disk image '{volid}' already exists")));
    }
    let new = space::New {
        node,
        storage: id,
        vmid: owner,
        name,
        format: &format,
        kind: "images",
        base: None,
        volume: Volume::blank(size),
    };
    data(space::create(w, new).map_err(ApiError::fail)?)
}

fn remove(w: &mut World, c: &Call, node: &str, id: &str, vol: &str) -> Reply {
    c.params.check(&[range("delay", 1, 30)])?;
    let who = c.who()?.clone();
    let volid = full_id(id, vol);
    let f = w.pve.files.get(&volid).cloned();
    if f.as_ref().is_some_and(|f| f.protected) {
        return Err(ApiError::fail("cannot remove protected archive"));
    }
    match &f {
        Some(f) if f.content == "backup" => {
            let own = format!("/vms/{}", f.vmid);
            if !w.pve.datastore_admin(&who, id) && !w.pve.has(&who, &own, "VM.Backup") {
                return Err(super::qemu::create::bare_denial());
            }
        }
        Some(f) if f.vmid != 0 => {
            if !w.pve.datastore_admin(&who, id) {
                w.pve.need(&who, &format!("/vms/{}", f.vmid), "VM.Config.Disk")?;
            }
            if let Some(vm) = w.pve.vms.get(&f.vmid)
                && vm.conf.iter().any(|(k, v)| props::is_drive(k) && v.split(',').next() == Some(volid.as_str()))
            {
                let text = format!("cannot remove volume '{volid}' - it is used by VM {}", f.vmid);
                return Err(ApiError::fail(text));
            }
        }
        _ => w.pve.need(&who, &format!("/storage/{id}"), "Datastore.AllocateTemplate|Datastore.Allocate")?,
    }
    data(task::start(w, node, "imgdel", id, &who, Job::ImgDel { volid }))
}

/// Runs `imgdel`.
///
/// # Errors
/// The message the task ends with.
pub fn delete(w: &mut World, upid: &str, volid: &str, step: u32) -> Result<Step, String> {
    if step == 0 {
        return Ok(Step::Next(300));
    }
    if !w.pve.files.contains_key(volid) {
        // The server unlinks without looking; only images are checked.
        let path = path_of(w, volid);
        return Err(format!("unable to unlink '{path}': No such file or directory"));
    }
    if space::users_of_base(w, volid) {
        return Err(format!("base volume '{volid}' is still in use by linked cloned"));
    }
    space::free(w, volid);
    task::log(w, upid, format!("Removed volume '{volid}'"));
    Ok(Step::Done)
}

/// Checks a file name for a content type.
///
/// # Errors
/// `wrong file extension`.
pub fn file_name(content: &str, name: &str) -> Result<(), ApiError> {
    let good = match content {
        "iso" => [".iso", ".img"].iter().any(|x| name.to_ascii_lowercase().ends_with(x)),
        "vztmpl" => [".tar.gz", ".tar.xz", ".tar.zst"].iter().any(|x| name.ends_with(x)),
        _ => [".qcow2", ".raw", ".vmdk", ".ova", ".img"].iter().any(|x| name.ends_with(x)),
    };
    if name.contains('/') || !good {
        return Err(ApiError::param("filename", "wrong file extension"));
    }
    Ok(())
}

/// Volume format of a file name.
#[must_use]
pub fn format_of(content: &str, name: &str) -> &'static str {
    match (content, name.rsplit('.').next()) {
        ("iso", _) => "iso",
        (_, Some("qcow2")) => "qcow2",
        (_, Some("vmdk")) => "vmdk",
        (_, Some("ova")) => "ova",
        ("vztmpl", _) => "tgz",
        _ => "raw",
    }
}

fn download_request(w: &mut World, c: &Call, node: &str, id: &str) -> Reply {
    let who = c.who()?.clone();
    let store = format!("/storage/{id}");
    let net = w.pve.has(&who, &format!("/nodes/{node}"), "Sys.AccessNetwork")
        || (w.pve.has(&who, "/", "Sys.Audit") && w.pve.has(&who, "/", "Sys.Modify"));
    if !w.pve.has(&who, &store, "Datastore.AllocateTemplate") || !net {
        return Err(super::qemu::create::bare_denial());
    }
    let p = &c.params;
    p.check(&[
        req(e("content", &["iso", "vztmpl", "import"])),
        req(short("filename", 255)),
        req(pat("url", is_url)),
        with(t("checksum"), "checksum-algorithm"),
        with(e("checksum-algorithm", &["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]), "checksum"),
        t("compression"),
        b("verify-certificates"),
    ])?;
    let (content, filename) = (p.text("content"), p.text("filename"));
    file_name(&content, &filename)?;
    space::usable(w, id, &content).map_err(ApiError::fail)?;
    let checksum = match (p.get("checksum"), p.get("checksum-algorithm")) {
        (Some(sum), Some(alg)) => Some((alg, sum)),
        _ => None,
    };
    let volid = format!("{id}:{content}/{filename}");
    if w.pve.files.contains_key(&volid) && checksum.is_none() {
        let path = path_of(w, &volid);
        return Err(ApiError::fail(format!("refusing to override existing file '{path}'")));
    }
    let job = Download {
        node: node.to_owned(),
        storage: id.to_owned(),
        content,
        filename: filename.clone(),
        url: p.text("url"),
        checksum,
    };
    data(task::start(w, node, "download", &filename, &who, Job::Download(job)))
}

/// `query-url-metadata`.
///
/// # Errors
/// The server's refusal.
pub fn url_metadata(w: &World, c: &Call, node: &str) -> Reply {
    w.pve.need(c.who()?, &format!("/nodes/{node}"), "Sys.AccessNetwork")?;
    c.params.check(&[req(pat("url", is_url)), b("verify-certificates")])?;
    let url = c.params.text("url");
    let d = w.pve.downloads.iter().find(|d| d.url == url);
    let d = d.ok_or_else(|| ApiError::fail("invalid server response: '404 Not Found'"))?;
    let name = url.rsplit('/').next().unwrap_or_default();
    data(json!({ "filename": name, "size": d.size, "mimetype": "application/octet-stream" }))
}

/// Why a URL that the lab does not have cannot be had.
fn unreachable(w: &World, url: &str) -> String {
    let host = |u: &str| u.split('/').nth(2).unwrap_or_default().to_owned();
    let at = host(url);
    let (name, port) = at.rsplit_once(':').unwrap_or((&at, if url.starts_with("https") { "443" } else { "80" }));
    if w.pve.downloads.iter().any(|d| host(&d.url) == at) {
        format!("download failed: {url} ERROR 404: Not Found.")
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        format!("download failed: Connecting to {name}:{port}... failed: Connection refused.")
    } else {
        format!("download failed: wget: unable to resolve host address '{name}'")
    }
}

/// Runs `download`.
///
/// # Errors
/// The message the task ends with.
pub fn download(w: &mut World, upid: &str, j: &Download, step: u32) -> Result<Step, String> {
    let volid = format!("{}:{}/{}", j.storage, j.content, j.filename);
    let path = path_of(w, &volid);
    let Some(d) = w.pve.downloads.iter().find(|d| d.url == j.url).cloned() else {
        task::log(w, upid, format!("downloading {} to {path}", j.url));
        let now = text::clock(w.now_ms);
        task::log(w, upid, format!("--{now}--  {}", j.url));
        return Err(unreachable(w, &j.url));
    };
    match step {
        0 => {
            task::log(w, upid, format!("downloading {} to {path}", j.url));
            Ok(Step::Next(1000))
        }
        1..=4 => {
            let done = d.size / 4 * u64::from(step - 1);
            let percent = 25 * (step - 1);
            task::log(w, upid, format!("{:>8}K ........ ........ {percent}% 40.0M", done >> 10));
            Ok(Step::Next(d.size / RATE / 4))
        }
        _ => {
            if let Some((alg, want)) = &j.checksum {
                let got = match alg.as_str() {
                    "sha256" if !d.sha256.is_empty() => d.sha256.clone(),
                    "sha512" if !d.sha512.is_empty() => d.sha512.clone(),
                    _ => format!("({alg} of the lab's file is not known)"),
                };
                if !got.eq_ignore_ascii_case(want) {
                    task::log(w, upid, "calculating checksum...");
                    return Err(format!("checksum mismatch: got '{got}' != expect '{want}'"));
                }
                task::log(w, upid, "calculating checksum...OK, checksum verified");
            }
            let content = match d.what.strip_prefix("os:") {
                Some(os) => Content::CloudImage { os: os.to_owned() },
                None => Content::Bytes(String::new()),
            };
            let new = space::New {
                node: &j.node,
                storage: &j.storage,
                vmid: 0,
                name: format!("{}/{}", j.content, j.filename),
                format: format_of(&j.content, &j.filename),
                kind: &j.content,
                base: None,
                volume: Volume::new(d.size, content),
            };
            space::free(w, &volid);
            space::create(w, new).map_err(|e| format!("download failed: {e}"))?;
            if let Some(f) = w.pve.files.get_mut(&volid) {
                f.used = d.size;
            }
            task::log(w, upid, format!("download of '{}' to '{path}' finished", j.url));
            Ok(Step::Done)
        }
    }
}
