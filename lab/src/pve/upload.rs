//! Uploading files: ISO images, disk images to import, container templates.
use base64::Engine;
use sha2::Digest;

use super::content::{file_name, format_of, path_of};
use super::params::{e, req, short, t, with};
use super::reply::{ApiError, Reply, data};
use super::router::Call;
use super::space;
use super::task::{self, Job};
use crate::volume::{Content, Volume};
use crate::world::World;

/// `POST /nodes/{node}/storage/{storage}/upload`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, id: &str) -> Reply {
    let p = &c.params;
    let who = c.who()?.clone();
    w.pve.need(&who, &format!("/storage/{id}"), "Datastore.AllocateTemplate")?;
    p.check(&[
        req(e("content", &["iso", "vztmpl", "import"])),
        short("filename", 255),
        with(t("checksum"), "checksum-algorithm"),
        with(e("checksum-algorithm", &["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]), "checksum"),
        t("tmpfilename"),
    ])?;
    let Some(file) = &c.file else {
        return Err(ApiError { bare: true, ..ApiError::status(400, "Bad Request") });
    };
    let content = p.text("content");
    file_name(&content, &file.filename)?;
    space::usable(w, id, &content).map_err(ApiError::fail)?;
    if let (Some(want), Some("sha256")) = (p.get("checksum"), p.get("checksum-algorithm").as_deref()) {
        let got: String = sha2::Sha256::digest(&file.bytes).iter().map(|b| format!("{b:02x}")).collect();
        if got != want.to_ascii_lowercase() {
            return Err(ApiError::fail(format!("checksum mismatch: got '{got}' != expect '{want}'")));
        }
    }
    let size = file.bytes.len() as u64;
    let name = format!("{content}/{}", file.filename);
    let volid = format!("{id}:{name}");
    space::free(w, &volid);
    let text = base64::engine::general_purpose::STANDARD.encode(&file.bytes);
    let new = space::New {
        node,
        storage: id,
        vmid: 0,
        name,
        format: format_of(&content, &file.filename),
        kind: &content,
        base: None,
        volume: Volume { size, content: Content::Bytes(text) },
    };
    space::create(w, new).map_err(ApiError::fail)?;
    let upid = task::start(w, node, "imgcopy", "", &who, Job::Over);
    let target = path_of(w, &volid);
    let tmp = format!("/var/tmp/pveupload-{}", w.uuid().replace('-', ""));
    for line in [
        format!("starting file import from: {tmp}"),
        format!("target node: {node}"),
        format!("target file: {target}"),
        format!("file size is: {size}"),
        format!("command: cp -- {tmp} {target}"),
        "finished file import successfully".to_owned(),
    ] {
        task::log(w, &upid, line);
    }
    data(upid)
}
