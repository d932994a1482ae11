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

/// The digest of a file by one of the algorithms that the server takes.
fn digest(algorithm: &str, bytes: &[u8]) -> String {
    let hex = |sum: &[u8]| sum.iter().map(|b| format!("{b:02x}")).collect();
    match algorithm {
        "md5" => hex(&md5::Md5::digest(bytes)),
        "sha1" => hex(&sha1::Sha1::digest(bytes)),
        "sha224" => hex(&sha2::Sha224::digest(bytes)),
        "sha384" => hex(&sha2::Sha384::digest(bytes)),
        "sha512" => hex(&sha2::Sha512::digest(bytes)),
        _ => hex(&sha2::Sha256::digest(bytes)),
    }
}

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
    if let (Some(want), Some(algorithm)) = (p.get("checksum"), p.get("checksum-algorithm")) {
        let got = digest(&algorithm, &file.bytes);
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
        volume: Volume::new(size, Content::Bytes(text)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_published_ones_of_abc() {
        for (algorithm, start) in [
            ("md5", "900150983cd24fb0"),
            ("sha1", "a9993e364706816a"),
            ("sha224", "23097d223405d822"),
            ("sha256", "ba7816bf8f01cfea"),
            ("sha384", "cb00753f45a35e8b"),
            ("sha512", "ddaf35a193617aba"),
        ] {
            assert_eq!(digest(algorithm, b"abc")[..16], *start, "{algorithm}");
        }
    }
}
