//! cert-manager: certificates for Ingresses that ask for one, their Secrets, and issuers that have lost their key. The keys
//! are real, their calendar is the lab's. Grade: docs (cert-manager's documentation of ingress-shim and CA issuers).
use serde_json::{Value, json};

use super::super::cx::{Cx, key, owner_ref, set_condition};
use super::super::text::{arr, b64, s, stamp, unb64};
use super::claims::ready_pod;
use crate::tls::{Pair, make_leaf};

const CERTIFICATES: &str = "certificates.cert-manager.io";
const ISSUERS: &str = "issuers.cert-manager.io";
const CLUSTER_ISSUERS: &str = "clusterissuers.cert-manager.io";
const INGRESSES: &str = "ingresses.networking.k8s.io";
/// How long a certificate is valid, and when it is made anew: cert-manager's defaults.
const VALID_MS: u64 = 90 * 86_400_000;
const RENEWED_MS: u64 = 60 * 86_400_000;

/// Looks at issuers, at Ingresses that name one, and at certificates.
pub fn reconcile(cx: &mut Cx) {
    if cx.c.store.kind_for(CERTIFICATES).is_none() || ready_pod(cx, "app", "cert-manager").is_none() {
        return;
    }
    issuers(cx);
    shim(cx);
    let all: Vec<Value> = cx.list(CERTIFICATES).into_iter().cloned().collect();
    for c in all {
        issue(cx, &c);
    }
}

/// Kind and name of the issuer that a certificate names.
fn issuer_of(c: &Value) -> (&str, &str) {
    let kind = s(c, "/spec/issuerRef/kind");
    (if kind.is_empty() { "Issuer" } else { kind }, s(c, "/spec/issuerRef/name"))
}

/// Kind and name of the issuer that an Ingress asks for; one that names both sorts gets nothing.
fn asked(ingress: &Value) -> Option<(&'static str, &str)> {
    let note = |n: &str| ingress["metadata"]["annotations"][n].as_str();
    match (note("cert-manager.io/issuer"), note("cert-manager.io/cluster-issuer")) {
        (Some(name), None) => Some(("Issuer", name)),
        (None, Some(name)) => Some(("ClusterIssuer", name)),
        _ => None,
    }
}

/// The key pair of a CA issuer. That of a ClusterIssuer is in the namespace of cert-manager.
fn pair(cx: &Cx, issuer: &Value) -> Result<Option<Pair>, String> {
    let name = s(issuer, "/spec/ca/secretName");
    if name.is_empty() {
        return Ok(None);
    }
    let gone = || format!("Error getting keypair for CA issuer: secrets \"{name}\" not found");
    let home = ready_pod(cx, "app", "cert-manager");
    let ns = match s(issuer, "/metadata/namespace") {
        "" => home.as_ref().map_or("", |p| s(p, "/metadata/namespace")),
        own => own,
    };
    let secret = cx.get("secrets", ns, name).ok_or_else(gone)?;
    let text = |k: &str| secret["data"][k].as_str().and_then(unb64).and_then(|b| String::from_utf8(b).ok());
    Ok(text("tls.crt").zip(text("tls.key")).map(|(cert, key)| Pair { cert, key }))
}

fn issuers(cx: &mut Cx) {
    let all: Vec<Value> = cx.list(ISSUERS).into_iter().cloned().collect();
    for i in all {
        let (ns, name) = key(&i);
        let (is, reason, text) = match pair(cx, &i) {
            Ok(_) => ("True", "KeyPairVerified", "Signing CA verified".to_owned()),
            Err(e) => ("False", "ErrGetKeyPair", e),
        };
        ready(cx, ISSUERS, &ns, &name, is, reason, &text);
    }
}

fn ready(cx: &mut Cx, resource: &str, ns: &str, name: &str, is: &str, reason: &str, text: &str) {
    let known = cx.get(resource, ns, name).is_some_and(|o| {
        arr(o, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == is && c["message"] == text)
    });
    if !known {
        let stamp = cx.stamp();
        cx.update(resource, ns, name, |o| set_condition(o, &stamp, "Ready", is, reason, text));
    }
}

/// An Ingress with the annotation of an issuer gets a Certificate for each of its TLS Secrets.
fn shim(cx: &mut Cx) {
    let all: Vec<Value> = cx.list(INGRESSES).into_iter().filter(|i| asked(i).is_some()).cloned().collect();
    for i in all {
        let Some(by) = asked(&i) else { continue };
        let ns = s(&i, "/metadata/namespace");
        for t in arr(&i, "/spec/tls") {
            let name = s(t, "/secretName");
            if cx.get(CERTIFICATES, ns, name).is_some_and(|c| c["spec"]["dnsNames"] == t["hosts"] && issuer_of(c) == by)
            {
                continue;
            }
            let made = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
                "metadata": {"name": name, "namespace": ns, "ownerReferences": owner_ref(&i)},
                "spec": {"secretName": name, "dnsNames": t["hosts"], "usages": ["digital signature", "key encipherment"],
                    "issuerRef": {"group": "cert-manager.io", "kind": by.0, "name": by.1}}});
            cx.writing("cert-manager-certificates", |cx| cx.ensure(made));
        }
    }
}

/// A certificate without its Secret is issued, if its issuer can.
fn issue(cx: &mut Cx, c: &Value) {
    let (ns, name) = key(c);
    let secret = s(c, "/spec/secretName").to_owned();
    if cx.get("secrets", &ns, &secret).is_some() && !c["status"]["notAfter"].is_null() {
        return ready(cx, CERTIFICATES, &ns, &name, "True", "Ready", "Certificate is up to date and has not expired");
    }
    let issuer = match issuer_of(c) {
        ("ClusterIssuer", name) => cx.get(CLUSTER_ISSUERS, "", name),
        (_, name) => cx.get(ISSUERS, &ns, name),
    };
    let issuer = issuer.cloned();
    let names: Vec<String> = arr(c, "/spec/dnsNames").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let made = match issuer.as_ref().map(|i| pair(cx, i)) {
        Some(Ok(Some(ca))) => make_leaf(&ca, names.first().map_or("", String::as_str), None, &names).ok(),
        // an issuer of another sort: what it signs is not looked at
        Some(Ok(None)) => Some(Pair::default()),
        _ => None,
    };
    let Some(made) = made else {
        let text = format!(
            "Issuing certificate as Secret does not exist: waiting for issuer {}",
            s(c, "/spec/issuerRef/name")
        );
        return ready(cx, CERTIFICATES, &ns, &name, "False", "DoesNotExist", &text);
    };
    let object = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": secret, "namespace": ns, "annotations": {"cert-manager.io/certificate-name": name,
            "cert-manager.io/issuer-kind": issuer_of(c).0, "cert-manager.io/issuer-name": issuer_of(c).1}},
        "data": {"tls.crt": b64(made.cert.as_bytes()), "tls.key": b64(made.key.as_bytes())}});
    cx.writing("cert-manager-certificates-issuing", |cx| cx.ensure(object));
    let now = cx.now();
    cx.update(CERTIFICATES, &ns, &name, |o| {
        o["status"]["notBefore"] = json!(stamp(now));
        o["status"]["notAfter"] = json!(stamp(now + VALID_MS));
        o["status"]["renewalTime"] = json!(stamp(now + RENEWED_MS));
        o["status"]["revision"] = json!(1);
    });
    ready(cx, CERTIFICATES, &ns, &name, "True", "Ready", "Certificate is up to date and has not expired");
}
