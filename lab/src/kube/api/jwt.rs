//! Tokens of service accounts as the API server signs them (RS256), and the pages by which others verify them:
//! `/.well-known/openid-configuration` and `/openid/v1/jwks`. Grade: docs.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::Response;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls::SignatureScheme;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Body, Call, failed, may_see, text, tokenkey};
use crate::guest;
use crate::kube::store::Failure;

/// Who issues tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Bytes of a key's modulus.
const SIZE: usize = 256;

/// What comes before the modulus in the ASN.1 form of such a key.
const HEAD: usize = 9;

/// The number of a key: what `kid` says.
fn number_of(key: &KeyPair) -> String {
    B64.encode(Sha256::digest(key.subject_public_key_info()))
}

/// A token over `claims`, signed with the key of the seed; empty when there is none.
#[must_use]
pub fn signed(seed: &str, claims: &Value) -> String {
    let make = || {
        let key = tokenkey::of(seed)?;
        let head = json!({"alg": "RS256", "kid": number_of(&key)}).to_string();
        let text = format!("{}.{}", B64.encode(head), B64.encode(claims.to_string()));
        let sum = key.sign(text.as_bytes()).ok()?;
        Some(format!("{text}.{}", B64.encode(sum)))
    };
    make().unwrap_or_default()
}

/// Claims of a token that was signed with the key of the seed.
#[must_use]
pub fn read(seed: &str, token: &str) -> Option<Value> {
    let (text, sum) = token.rsplit_once('.')?;
    let (_, body) = text.split_once('.')?;
    let key = tokenkey::of(seed)?;
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.mapping;
    let (_, ways) = known.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256)?;
    ways.first()?.verify_signature(key.der_bytes(), text.as_bytes(), &B64.decode(sum).ok()?).ok()?;
    serde_json::from_slice(&B64.decode(body).ok()?).ok()
}

/// The public key as `jwks` lists it.
fn jwk(seed: &str) -> Option<Value> {
    let key = tokenkey::of(seed)?;
    let modulus = key.der_bytes().get(HEAD..HEAD + SIZE)?;
    // the exponent of every such key is 65537
    Some(
        json!({"use": "sig", "kty": "RSA", "kid": number_of(&key), "alg": "RS256", "n": B64.encode(modulus), "e": "AQAB"}),
    )
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
    if call.req.method != "GET" {
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
            "id_token_signing_alg_values_supported": ["RS256"]});
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
        let token = signed("a", &json!({"sub": "a"}));
        assert_eq!(read("a", &token), Some(json!({"sub": "a"})), "{token}");
        let (text, sum) = token.rsplit_once('.').unwrap();
        let other = signed("a", &json!({"sub": "b"}));
        assert_eq!(read("a", &format!("{}.{sum}", other.rsplit_once('.').unwrap().0)), None);
        let stranger = (0..).map(|n| n.to_string()).find(|s| jwk(s) != jwk("a")).unwrap();
        assert_eq!(read(&stranger, &token), None);
        assert_eq!((read("a", text), read("a", "a.b.c"), read("a", "")), (None, None, None));
    }

    #[test]
    fn the_published_key_is_the_one_that_signs() {
        let shown = jwk("a").unwrap();
        let key = tokenkey::of("a").unwrap();
        let n = B64.decode(shown["n"].as_str().unwrap()).unwrap();
        assert!(n.len() == SIZE && n[0] >= 0x80, "the modulus has all its bits");
        // a sequence of the modulus, after a zero for its sign, and of 65537
        assert_eq!(key.der_bytes()[HEAD - 1], 0);
        assert_eq!(key.der_bytes()[HEAD + SIZE..], [2, 3, 1, 0, 1]);
        let head = signed("a", &json!({}));
        let head: Value = serde_json::from_slice(&B64.decode(head.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!((&head["kid"], &head["alg"]), (&shown["kid"], &json!("RS256")));
    }
}
