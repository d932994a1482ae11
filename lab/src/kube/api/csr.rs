//! CertificateSigningRequests: who asks is noted at creation, approval is a subresource, and the control plane's own
//! signers issue what was approved. Grade: source.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::auth::User;
use super::read;
use super::route::Target;
use super::{Answer, Call, patch, sub, write};
use crate::kube::schema::Kind;
use crate::kube::store::{Cause, Failure, Store, meta};
use crate::tls::Pair;

const RESOURCE: &str = "certificatesigningrequests.certificates.k8s.io";

/// Signers that issue what was approved.
const SIGNERS: &[&str] = &[
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
];

/// Whether a kind is that of signing requests.
#[must_use]
pub fn is(kind: &Kind) -> bool {
    kind.group == "certificates.k8s.io" && kind.kind == "CertificateSigningRequest"
}

/// Notes who asks.
pub(super) fn asked_by(user: &User, obj: &mut Value) {
    obj["spec"]["username"] = json!(user.name);
    obj["spec"]["groups"] = json!(user.groups);
    if !user.uid.is_empty() {
        obj["spec"]["uid"] = json!(user.uid);
    }
    if let Some(extra) = user.extra() {
        obj["spec"]["extra"] = extra;
    }
}

fn request_of(obj: &Value) -> Result<String, String> {
    let coded = obj["spec"]["request"].as_str().unwrap_or_default();
    let text = STANDARD.decode(coded).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    if text.contains("-----BEGIN CERTIFICATE REQUEST-----") || text.contains("-----BEGIN NEW CERTIFICATE REQUEST-----")
    {
        Ok(text)
    } else {
        Err("PEM block type must be CERTIFICATE REQUEST".to_owned())
    }
}

/// Checks a new request.
///
/// # Errors
/// 422 with every cause.
pub(super) fn check(kind: &Kind, obj: &Value) -> Result<(), Failure> {
    let spec = &obj["spec"];
    let mut causes = Vec::new();
    if let Err(why) = request_of(obj) {
        causes.push(Cause::invalid("spec.request", &spec["request"], &why));
    }
    if spec["usages"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.usages", ""));
    }
    match spec["signerName"].as_str().unwrap_or_default() {
        "" => causes.push(Cause::required("spec.signerName", "")),
        name if !name.contains('/') => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            causes.push(Cause::invalid("spec.signerName", &name.into(), why));
        }
        _ => {}
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|s| s < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.push(Cause::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, meta::name(obj), &causes)) }
}

/// GET, PUT and PATCH of `approval`.
///
/// # Errors
/// 404, 409, 422.
pub fn approval(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let mut answer = match call.req.method.as_str() {
        "GET" => return read::get(call, kind, t),
        "PUT" => write::replace_sub(call, kind, t, "approval")?,
        "PATCH" => patch::patch_sub(call, kind, t, "approval")?,
        _ => return Err(Failure::not_allowed()),
    };
    if call.req.query.text("dryRun").is_none() {
        let ca = call.lab.with(|w| w.clusters.get(call.cluster).map(|c| c.client_ca.clone())).unwrap_or_default();
        let name = t.name.as_deref().unwrap_or_default();
        read::store(call, RESOURCE, |s| {
            issue(s, name, &ca);
            Ok(())
        })?;
        answer.body = sub::target(call, kind, t)?;
    }
    Ok(answer)
}

fn has(obj: &Value, kind: &str) -> bool {
    obj["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Why the signer of clients of the API does not sign for these usages.
fn refused(signer: &str, usages: &[&str]) -> Option<String> {
    if signer != SIGNERS[0] {
        return None;
    }
    let known = |u: &&&str| matches!(**u, "digital signature" | "key encipherment" | "client auth");
    match usages.iter().find(|u| !known(u)) {
        Some(odd) => Some(format!("invalid usage for client certificate: {odd}")),
        None if usages.contains(&"client auth") => None,
        None => Some("missing required usage for client certificate: client auth".to_owned()),
    }
}

/// A certificate for a request, in PEM.
fn signed(ca: &Pair, pem: &str, usages: &[&str]) -> Option<String> {
    let mut wanted = CertificateSigningRequestParams::from_pem(pem).ok()?;
    wanted.params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    wanted.params.not_after = rcgen::date_time_ymd(2046, 11, 1);
    wanted.params.is_ca = IsCa::ExplicitNoCa;
    let (mut keys, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match *usage {
            "digital signature" => keys.push(KeyUsagePurpose::DigitalSignature),
            "key encipherment" => keys.push(KeyUsagePurpose::KeyEncipherment),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            _ => {}
        }
    }
    (wanted.params.key_usages, wanted.params.extended_key_usages) = (keys, extended);
    wanted.params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, KeyPair::from_pem(&ca.key).ok()?).ok()?;
    Some(wanted.signed_by(&issuer).ok()?.pem())
}

/// Issues the certificate of an approved request, or says why there is none.
fn issue(s: &mut Store, name: &str, ca: &Pair) {
    let Some(obj) = s.get(RESOURCE, "", name).cloned() else { return };
    let signer = obj["spec"]["signerName"].as_str().unwrap_or_default();
    let done = obj["status"]["certificate"].is_string() || has(&obj, "Failed") || has(&obj, "Denied");
    if done || !has(&obj, "Approved") || !SIGNERS.contains(&signer) {
        return;
    }
    let usages: Vec<&str> = obj["spec"]["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let unread = || "the request's key or signature cannot be read".to_owned();
    let made = match refused(signer, &usages) {
        Some(why) => Err(why),
        None => request_of(&obj).ok().and_then(|pem| signed(ca, &pem, &usages)).ok_or_else(unread),
    };
    let stamp = meta::time(s.now_ms());
    let _ = s.patch_with(RESOURCE, "", name, |o| match made {
        Ok(pem) => o["status"]["certificate"] = STANDARD.encode(pem).into(),
        Err(why) => {
            let failed = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
                "lastUpdateTime": stamp, "lastTransitionTime": stamp});
            if let Some(list) = o["status"]["conditions"].as_array_mut() {
                list.push(failed);
            }
        }
    });
}
