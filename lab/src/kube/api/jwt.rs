//! Tokens of service accounts as the API server signs them (ES256), and the pages by which others verify them:
//! `/.well-known/openid-configuration` and `/openid/v1/jwks`. Grade: docs.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::Response;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls::SignatureScheme;
use serde_json::{Value, json};

use super::{Body, Call, failed, may_see, text};
use crate::guest;
use crate::kube::store::Failure;
use crate::kube::text::sha256;

/// Who issues tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Bytes of one number of a signature.
const SIZE: usize = 32;

/// An unsigned number of an ASN.1 sequence in as many bytes as a token has for it.
fn number(der: &mut &[u8]) -> Option<[u8; SIZE]> {
    let [2, len, rest @ ..] = *der else { return None };
    let (n, after) = rest.split_at_checked(usize::from(*len))?;
    *der = after;
    let n = &n[n.iter().position(|b| *b != 0).unwrap_or(n.len())..];
    let mut out = [0; SIZE];
    out.get_mut(SIZE.checked_sub(n.len())?..)?.copy_from_slice(n);
    Some(out)
}

/// A signature as tokens carry it, from its ASN.1 form.
fn flat(der: &[u8]) -> Option<Vec<u8>> {
    let [0x30, _, rest @ ..] = der else { return None };
    let mut rest = rest;
    Some([number(&mut rest)?, number(&mut rest)?].concat())
}

/// A signature in ASN.1, from the form that tokens carry.
fn der(flat: &[u8]) -> Option<Vec<u8>> {
    if flat.len() != 2 * SIZE {
        return None;
    }
    let mut body = Vec::new();
    for n in flat.chunks(SIZE) {
        let n = &n[n.iter().position(|b| *b != 0).unwrap_or(SIZE - 1)..];
        let sign = n[0] >= 0x80;
        body.extend([2, u8::try_from(n.len()).ok()? + u8::from(sign)]);
        body.extend(sign.then_some(0));
        body.extend(n);
    }
    let mut out = vec![0x30, u8::try_from(body.len()).ok()?];
    out.extend(body);
    Some(out)
}

/// The number of a key: what `kid` says.
fn number_of(key: &KeyPair) -> String {
    sha256(&B64.encode(key.subject_public_key_info()))[..43].to_owned()
}

/// A token over `claims`, signed with the key (PEM); empty when the key cannot be read.
#[must_use]
pub fn signed(pem: &str, claims: &Value) -> String {
    let make = || {
        let key = KeyPair::from_pem(pem).ok()?;
        let head = json!({"alg": "ES256", "kid": number_of(&key)}).to_string();
        let text = format!("{}.{}", B64.encode(head), B64.encode(claims.to_string()));
        let sum = flat(&key.sign(text.as_bytes()).ok()?)?;
        Some(format!("{text}.{}", B64.encode(sum)))
    };
    make().unwrap_or_default()
}

/// Claims of a token that was signed with the key (PEM).
#[must_use]
pub fn read(pem: &str, token: &str) -> Option<Value> {
    let (text, sum) = token.rsplit_once('.')?;
    let key = KeyPair::from_pem(pem).ok()?;
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.mapping;
    let (_, ways) = known.iter().find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)?;
    let sum = der(&B64.decode(sum).ok()?)?;
    ways.first()?.verify_signature(key.der_bytes(), text.as_bytes(), &sum).ok()?;
    let (_, body) = text.split_once('.')?;
    serde_json::from_slice(&B64.decode(body).ok()?).ok()
}

/// The public key as `jwks` lists it.
fn jwk(pem: &str) -> Option<Value> {
    let key = KeyPair::from_pem(pem).ok()?;
    // an uncompressed point: 4, x, y
    let point = key.der_bytes();
    let (x, y) = (point.get(1..=SIZE)?, point.get(SIZE + 1..)?);
    Some(json!({"use": "sig", "kty": "EC", "kid": number_of(&key), "alg": "ES256", "crv": "P-256",
        "x": B64.encode(x), "y": B64.encode(y)}))
}

/// The discovery pages; `None` for other paths.
#[must_use]
pub fn pages(call: &Call<'_>) -> Option<Response<Body>> {
    let path = call.req.path.as_str();
    let keys = match path {
        "/openid/v1/jwks" | "/openid/v1/jwks/" => true,
        "/.well-known/openid-configuration" | "/.well-known/openid-configuration/" => false,
        _ => return None,
    };
    if !matches!(call.req.method.as_str(), "GET" | "HEAD") {
        return Some(failed(&Failure::not_allowed()));
    }
    if !may_see(call, path) {
        let why = format!("forbidden: User \"{}\" cannot get path \"{path}\"", call.user.name);
        return Some(failed(&Failure::new(403, "Forbidden", why)));
    }
    let (pem, address) = call.lab.with(|w| {
        let pem = w.clusters.get(call.cluster).map(|c| c.token_key().to_owned()).unwrap_or_default();
        (pem, guest::ip(w, call.vmid).unwrap_or_else(|| "127.0.0.1".to_owned()))
    });
    let (kind, body) = if keys {
        ("application/jwk-set+json", json!({"keys": jwk(&pem).into_iter().collect::<Vec<_>>()}))
    } else {
        let config = json!({"issuer": ISSUER, "jwks_uri": format!("https://{address}:6443/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"]});
        ("application/json", config)
    };
    let mut r = text(200, kind, body.to_string());
    r.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
    Some(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_here_is_read_and_nothing_else() {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        for n in 0..200 {
            let token = signed(&pem, &json!({"n": n}));
            assert_eq!(read(&pem, &token), Some(json!({"n": n})), "{token}");
        }
        let token = signed(&pem, &json!({"sub": "a"}));
        let (text, sum) = token.rsplit_once('.').unwrap();
        let other = signed(&pem, &json!({"sub": "b"}));
        assert_eq!(read(&pem, &format!("{}.{sum}", other.rsplit_once('.').unwrap().0)), None);
        assert_eq!(read(&KeyPair::generate().unwrap().serialize_pem(), &token), None);
        assert_eq!((read(&pem, text), read(&pem, "a.b.c"), read(&pem, "")), (None, None, None));
    }

    #[test]
    fn the_published_key_is_the_one_that_signs() {
        let key = KeyPair::generate().unwrap();
        let shown = jwk(&key.serialize_pem()).unwrap();
        let half = |k: &str| B64.decode(shown[k].as_str().unwrap()).unwrap();
        assert_eq!([vec![4], half("x"), half("y")].concat(), key.der_bytes());
        let head = signed(&key.serialize_pem(), &json!({}));
        let head: Value = serde_json::from_slice(&B64.decode(head.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(head["kid"], shown["kid"]);
    }
}
