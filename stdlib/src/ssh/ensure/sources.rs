//! Wanted package sources and their signing keys.
use rhai::Dynamic;

use crate::core::error::{OpError, OpResult};
use crate::ssh::quote::quote;

use super::specs::RepositorySpec;

/// A file that a package source needs.
pub(super) struct SourceFile {
    pub noun: &'static str,
    pub path: String,
    pub content: Vec<u8>,
}

/// The files of the source `name`, the key first.
///
/// # Errors
/// `invalid` when it is neither a source of apt nor one of dnf.
pub(super) fn files(name: &str, spec: &RepositorySpec, key: Option<Vec<u8>>) -> OpResult<Vec<SourceFile>> {
    if !is_file_name(name) {
        return Err(OpError::invalid("is no plain name"));
    }
    match (&spec.line, &spec.baseurl) {
        (Some(line), None) => apt(name, line, key),
        (None, Some(url)) => dnf(name, url, key),
        _ => Err(OpError::invalid("give either `line` (apt) or `baseurl` (dnf)")),
    }
}

fn apt(name: &str, line: &str, key: Option<Vec<u8>>) -> OpResult<Vec<SourceFile>> {
    let line = line.trim();
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    if !matches!(kind, "deb" | "deb-src") || rest.trim().is_empty() || line.contains('\n') {
        return Err(OpError::invalid("option `line`: expected a line such as `deb https://… stable main`"));
    }
    let mut out = Vec::new();
    let mut text = line.to_owned();
    if let Some(key) = key {
        // apt tells armoured keys from binary ones by the name.
        let armoured = key.starts_with(b"-----BEGIN PGP");
        let path = format!("/etc/apt/keyrings/{name}.{}", if armoured { "asc" } else { "gpg" });
        if !line.contains("signed-by") {
            let rest = rest.trim_start();
            text = match rest.strip_prefix('[') {
                Some(options) => format!("{kind} [signed-by={path} {}", options.trim_start()),
                None => format!("{kind} [signed-by={path}] {rest}"),
            };
        }
        out.push(SourceFile { noun: "package key", path, content: key });
    }
    let path = format!("/etc/apt/sources.list.d/{name}.list");
    out.push(SourceFile { noun: "package source", path, content: format!("{text}\n").into_bytes() });
    Ok(out)
}

fn dnf(name: &str, url: &str, key: Option<Vec<u8>>) -> OpResult<Vec<SourceFile>> {
    if url.contains(char::is_whitespace) || url.is_empty() {
        return Err(OpError::invalid("option `baseurl`: expected an address such as `https://…/rpm/`"));
    }
    let mut out = Vec::new();
    let mut text = format!("[{name}]\nname={name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\n");
    if let Some(key) = key {
        let path = format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-{name}");
        text.push_str(&format!("gpgkey=file://{path}\n"));
        out.push(SourceFile { noun: "package key", path, content: key });
    }
    let path = format!("/etc/yum.repos.d/{name}.repo");
    out.push(SourceFile { noun: "package source", path, content: text.into_bytes() });
    Ok(out)
}

/// The key of a source as bytes: text, secret or blob.
///
/// # Errors
/// `invalid` for other values.
pub(super) fn key(v: Option<&Dynamic>) -> OpResult<Option<Vec<u8>>> {
    v.filter(|v| !v.is_unit()).map(super::wanted::bytes).transpose()
}

/// Makes `name` safe as a file name.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['.', '-']) && quote(name) == name && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(line: Option<&str>, baseurl: Option<&str>) -> RepositorySpec {
        RepositorySpec { line: line.map(str::to_owned), baseurl: baseurl.map(str::to_owned), key: None }
    }

    #[test]
    fn a_key_signs_its_own_source_only() {
        let key = Some(b"-----BEGIN PGP PUBLIC KEY BLOCK-----".to_vec());
        let text = |line: &str, key: Option<Vec<u8>>| {
            let f = files("x", &spec(Some(line), None), key).unwrap();
            String::from_utf8(f.last().unwrap().content.clone()).unwrap()
        };
        assert_eq!(text("deb https://a b c", key.clone()), "deb [signed-by=/etc/apt/keyrings/x.asc] https://a b c\n");
        assert_eq!(
            text("deb [arch=amd64] https://a b c", Some(vec![0x99])),
            "deb [signed-by=/etc/apt/keyrings/x.gpg arch=amd64] https://a b c\n"
        );
        assert_eq!(text("deb [signed-by=/k] https://a b c", key), "deb [signed-by=/k] https://a b c\n");
        let f = files("cuda", &spec(None, Some("https://a/rpm/")), Some(b"K".to_vec())).unwrap();
        assert_eq!(f[0].path, "/etc/pki/rpm-gpg/RPM-GPG-KEY-cuda");
        assert!(String::from_utf8_lossy(&f[1].content).contains("gpgcheck=1\ngpgkey=file:///etc/pki/"));
        assert!(files("x", &spec(Some("https://a"), None), None).is_err());
        assert!(files("x", &spec(None, None), None).is_err());
        assert!(files("../x", &spec(Some("deb a b"), None), None).is_err());
    }
}
