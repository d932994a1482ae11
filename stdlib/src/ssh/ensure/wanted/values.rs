//! Reading single values of the map: paths, modes, owners, contents.
use rhai::{Dynamic, Map};

use crate::core::error::{OpError, OpResult};
use crate::core::options::OptionValue;
use crate::core::units::Secret;

pub(in super::super) fn wrong(key: &str, expected: &str) -> OpError {
    OpError::invalid(format!("option `{key}`: expected {expected}"))
}

pub(in super::super) fn inside(mut e: OpError, key: &str, entry: &str) -> OpError {
    e.message = format!("option `{key}`, `{entry}`: {}", e.message);
    e
}

pub(in super::super) fn each(map: &Map, key: &str, mut f: impl FnMut(&str, &Dynamic) -> OpResult<()>) -> OpResult<()> {
    for (k, v) in map {
        let flat = v.clone().flatten();
        f(k, &flat).map_err(|e| {
            if e.message.starts_with("option `") && e.message.contains(&format!("`{k}`")) {
                e
            } else {
                inside(e, key, k)
            }
        })?;
    }
    Ok(())
}

pub(in super::super) fn as_map(v: &Dynamic) -> OpResult<Map> {
    if v.is_unit() {
        return Ok(Map::new());
    }
    Map::read(v).map_err(OpError::invalid)
}

pub(in super::super) fn strings(key: &str, v: &Dynamic) -> OpResult<Vec<String>> {
    Vec::<String>::read(v).map_err(|e| OpError::invalid(format!("option `{key}`: {e}")))
}

pub(in super::super) fn absolute(key: &str, path: &str) -> OpResult<String> {
    if !path.starts_with('/') || path.contains(['\n', '\0']) || path.split('/').any(|p| p == "..") {
        return Err(inside(OpError::invalid("is no absolute path"), key, path));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// Where a file system may be mounted: nowhere the system itself runs from.
pub(in super::super) fn mount_point(path: &str) -> OpResult<String> {
    let at = absolute("mounts", path)?;
    if crate::core::paths::is_systems(&at) {
        let e = OpError::invalid("holds files of the system, which the mount would cover");
        return Err(inside(e, "mounts", path).hint("choose a folder of its own, for example `/mnt/data`"));
    }
    Ok(at)
}

pub(in super::super) fn check_mode(mode: Option<&str>) -> OpResult<()> {
    match mode {
        Some(m) if m.len() < 3 || m.len() > 4 || !m.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            Err(OpError::invalid(format!("option `mode`: expected octal digits such as `\"0644\"`, found `{m}`")))
        }
        _ => Ok(()),
    }
}

pub(in super::super) fn bytes(v: &Dynamic) -> OpResult<Vec<u8>> {
    let v = v.clone().flatten();
    if let Ok(blob) = v.clone().into_blob() {
        return Ok(blob);
    }
    if let Some(s) = v.clone().try_cast::<Secret>() {
        return Ok(s.reveal().as_bytes().to_vec());
    }
    v.into_string().map(String::into_bytes).map_err(|t| OpError::invalid(format!("expected a text, found a {t}")))
}

/// `user`, `user:group` or `user:`: names or numbers, never an option.
pub(in super::super) fn check_owner(owner: Option<&str>) -> OpResult<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-:$@\\".contains(&b);
    match owner {
        Some(o) if o.is_empty() || o.starts_with(['-', ':']) || !o.bytes().all(plain) => {
            Err(OpError::invalid(format!("option `owner`: expected `user` or `user:group`, found `{o}`")))
        }
        _ => Ok(()),
    }
}
