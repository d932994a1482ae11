//! What the types of Secrets ask of their data. Grade: source (validation of the core group).
use base64::Engine;
use serde_json::Value;

use super::validate::judged;
use crate::kube::api::gojson;
use crate::kube::store::Cause;

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Most bytes of all values together.
const LIMIT: usize = 1024 * 1024;

/// What is wrong with a key of configuration.
pub(super) fn key(k: &str) -> Vec<String> {
    let mut out = Vec::new();
    if k.len() > 253 {
        out.push("must be no more than 253 bytes".to_owned());
    }
    if k.is_empty() || !k.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        out.push(KEY.to_owned());
    } else if k == "." || k == ".." {
        out.push(format!("must not be '{k}'"));
    } else if k.starts_with("..") {
        out.push("must not start with '..'".to_owned());
    }
    out
}

/// Checks the keys of a Secret's or ConfigMap's data.
pub(super) fn keys(obj: &Value, part: &str, out: &mut Vec<Cause>) {
    for k in obj[part].as_object().into_iter().flat_map(|m| m.keys()) {
        judged(format!("{part}[{k}]"), k, key, out);
    }
}

fn size(obj: &Value, parts: &[(&str, bool)]) -> usize {
    let len = |v: &Value, coded: bool| {
        let n = v.as_str().map_or(0, str::len);
        if coded { n / 4 * 3 } else { n }
    };
    parts
        .iter()
        .map(|(p, coded)| obj[p].as_object().into_iter().flatten().map(|(_, v)| len(v, *coded)).sum::<usize>())
        .sum()
}

fn too_long(field: &str) -> Cause {
    Cause {
        reason: "FieldValueTooLong",
        field: field.to_owned(),
        message: format!("Too long: may not be more than {LIMIT} bytes"),
    }
}

/// Checks a ConfigMap.
pub(super) fn config_map(obj: &Value, out: &mut Vec<Cause>) {
    keys(obj, "data", out);
    keys(obj, "binaryData", out);
    for k in obj["data"].as_object().into_iter().flat_map(|m| m.keys()) {
        if obj["binaryData"].get(k).is_some() {
            let why = "duplicate of key present in binaryData";
            out.push(Cause::invalid(format!("data[{k}]"), &k.as_str().into(), why));
        }
    }
    if size(obj, &[("data", false), ("binaryData", true)]) > LIMIT {
        out.push(too_long(""));
    }
}

/// Checks a Secret.
pub(super) fn secret(obj: &Value, out: &mut Vec<Cause>) {
    keys(obj, "data", out);
    if size(obj, &[("data", true)]) > LIMIT {
        out.push(too_long("data"));
    }
    let has = |k: &str| obj["data"].get(k).is_some();
    let mut need = |k: &str| out.push(Cause::required(format!("data[{k}]"), ""));
    match obj["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if obj["metadata"]["annotations"][account].as_str().is_none_or(str::is_empty) {
                out.push(Cause::required(format!("metadata.annotations[{account}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => credentials(obj, ".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => credentials(obj, ".dockerconfigjson", out),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if obj["data"]["ssh-privatekey"].as_str().is_none_or(str::is_empty) => {
            need("ssh-privatekey");
        }
        "kubernetes.io/tls" => {
            for k in ["tls.crt", "tls.key"].into_iter().filter(|k| !has(k)) {
                need(k);
            }
        }
        _ => {}
    }
}

/// Credentials of a registry are JSON.
fn credentials(obj: &Value, key: &str, out: &mut Vec<Cause>) {
    let at = format!("data[{key}]");
    let Some(coded) = obj["data"][key].as_str() else {
        out.push(Cause::required(at, ""));
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(coded).unwrap_or_default();
    let why = match gojson::parse(&bytes) {
        Err(e) => e,
        Ok(p) if !p.value.is_object() && !p.value.is_null() => {
            "json: cannot unmarshal into Go value of type map[string]interface {}".to_owned()
        }
        Ok(_) => return,
    };
    out.push(Cause::invalid(at, &"<secret contents redacted>".into(), &why));
}
