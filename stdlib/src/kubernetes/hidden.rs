//! What of a cluster is secret: hidden on the screen and in journals once a script has read it.
use base64::Engine as _;
use serde_json::Value;

use crate::core::ctx::Ctx;

/// Keys of Secrets that hold nothing secret.
const PUBLIC: &[&str] = &["ca.crt", "tls.crt", "namespace", "username", "user", "type", "url", "name"];

/// Parts of names that hold something secret.
const WORDS: &[&str] = &["password", "passwd", "secret", "token", "apikey", "privatekey", "credential"];

/// Longer data is a file or an archive, not a password.
const LONGEST: usize = 4096;

/// Hides what the object holds, if it is a Secret.
pub fn hide_secret(ctx: &Ctx, object: &Value) {
    // Items of lists name no kind; nothing but a Secret has both.
    if !(object["data"].is_object() && object["type"].is_string()) || object["type"] == "helm.sh/release.v1" {
        return;
    }
    let fields = object["data"].as_object().into_iter().flatten();
    for (_, v) in fields.filter(|(k, _)| !PUBLIC.contains(&k.to_lowercase().as_str())) {
        let Some(coded) = v.as_str().filter(|c| c.len() <= LONGEST) else { continue };
        let plain =
            base64::engine::general_purpose::STANDARD.decode(coded).ok().and_then(|b| String::from_utf8(b).ok());
        // Short ones would hide common words everywhere.
        if let Some(text) = plain.filter(|t| t.len() >= 8) {
            ctx.hide(&text);
            ctx.hide(coded);
        }
    }
}

/// Hides the texts among Helm values whose names say that they are secret.
pub fn hide_values(ctx: &Ctx, values: &Value) {
    match values {
        Value::Object(map) => {
            for (key, v) in map {
                match v {
                    Value::String(text) if is_secret(key) && text.len() <= LONGEST => ctx.hide(text),
                    v => hide_values(ctx, v),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| hide_values(ctx, v)),
        _ => {}
    }
}

/// `existingSecret`, `secretName`, `tokenFile` and their like only point to one.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let named = WORDS.iter().any(|w| key.contains(w)) && !key.starts_with("existing");
    let points = ["name", "ref", "file", "path", "key"].iter().any(|end| key.ends_with(end));
    named && (!points || key.ends_with("apikey") || key.ends_with("privatekey"))
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn names_of_secrets_and_of_what_points_to_them() {
        for key in
            ["bootstrapPassword", "password", "cookieSecret", "apiToken", "apiKey", "sshPrivateKey", "credentials"]
        {
            assert!(is_secret(key), "{key}");
        }
        for key in ["existingSecret", "secretName", "passwordSecretRef", "tokenFile", "secretKey", "user", "image"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
