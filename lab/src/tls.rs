//! Certificates of the lab: a CA and leaves, as Proxmox and K3s have them (never a self-signed leaf).
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};

/// A certificate with its key, as PEM.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// Private key.
    pub key: String,
}

/// From 2020 until `end_ms`, else for twenty years: the world's calendar stands still while nobody uses it, and clients
/// look at their own.
fn valid(p: &mut CertificateParams, end_ms: Option<u64>) {
    p.not_before = rcgen::date_time_ymd(2020, 1, 1);
    p.not_after = match end_ms {
        Some(ms) => rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(ms / 1000),
        None => rcgen::date_time_ymd(2046, 11, 1),
    };
}

/// A moment at which every certificate of the lab is valid.
#[derive(Debug)]
struct Always;

impl rustls::time_provider::TimeProvider for Always {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_609_459_200)))
    }
}

fn io(e: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(e.to_string())
}

/// Makes a CA named `cn`.
///
/// # Errors
/// When key generation fails.
pub fn make_ca(cn: &str) -> std::io::Result<Pair> {
    make_ca_until(cn, None)
}

/// Makes a CA named `cn` that is valid until `end_ms`.
///
/// # Errors
/// When key generation fails.
pub fn make_ca_until(cn: &str, end_ms: Option<u64>) -> std::io::Result<Pair> {
    let key = KeyPair::generate().map_err(io)?;
    let mut p = CertificateParams::new(Vec::<String>::new()).map_err(io)?;
    valid(&mut p, end_ms);
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, cn);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let cert = p.self_signed(&key).map_err(io)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// What a leaf is for.
#[derive(Debug, Clone)]
pub struct Leaf<'a> {
    /// Common name: a Kubernetes client's user.
    pub cn: &'a str,
    /// Organization: a Kubernetes client's group.
    pub org: Option<&'a str>,
    /// DNS names and addresses.
    pub names: &'a [String],
    /// Until when it is valid; `None`: for twenty years.
    pub end_ms: Option<u64>,
    /// It shows who a server is.
    pub server: bool,
    /// It shows who a client is.
    pub client: bool,
}

/// Makes a leaf under `ca` for `names` (DNS names and addresses), for servers and clients. `org` and `cn` carry a
/// Kubernetes client's group and user.
///
/// # Errors
/// When the CA cannot be read.
pub fn make_leaf(ca: &Pair, cn: &str, org: Option<&str>, names: &[String]) -> std::io::Result<Pair> {
    sign(ca, &Leaf { cn, org, names, end_ms: None, server: true, client: true })
}

/// Makes a leaf under `ca`.
///
/// # Errors
/// When the CA cannot be read.
pub fn sign(ca: &Pair, leaf: &Leaf<'_>) -> std::io::Result<Pair> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(io)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, ca_key).map_err(io)?;
    let key = KeyPair::generate().map_err(io)?;
    let mut p = CertificateParams::new(Vec::<String>::new()).map_err(io)?;
    valid(&mut p, leaf.end_ms);
    for n in leaf.names {
        p.subject_alt_names.push(match n.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(n.as_str().try_into().map_err(io)?),
        });
    }
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, leaf.cn);
    if let Some(o) = leaf.org {
        p.distinguished_name.push(DnType::OrganizationName, o);
    }
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let uses = [(leaf.server, ExtendedKeyUsagePurpose::ServerAuth), (leaf.client, ExtendedKeyUsagePurpose::ClientAuth)];
    p.extended_key_usages = uses.into_iter().filter(|(on, _)| *on).map(|(_, usage)| usage).collect();
    p.use_authority_key_identifier_extension = true;
    let cert = p.signed_by(&key, &issuer).map_err(io)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// A TLS server configuration for `leaf`; asks for client certificates of `client_ca` if given (optional). Whether such a
/// certificate is still valid is for the server to say, as Kubernetes' does: the handshake only looks who signed it.
///
/// # Errors
/// When the pair cannot be read.
pub fn server_config(
    leaf: &Pair,
    client_ca: Option<&str>,
    alpn: &[&str],
) -> std::io::Result<Arc<rustls::ServerConfig>> {
    let certs: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(leaf.cert.as_bytes()).collect::<Result<_, _>>().map_err(io)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(io)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_details(provider.clone(), Arc::new(Always))
        .with_safe_default_protocol_versions()
        .map_err(io)?;
    let mut config = match client_ca {
        None => builder.with_no_client_auth().with_single_cert(certs, key).map_err(io)?,
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for c in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(c.map_err(io)?).map_err(io)?;
            }
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(io)?;
            builder.with_client_cert_verifier(verifier).with_single_cert(certs, key).map_err(io)?
        }
    };
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// SHA-256 fingerprint of a certificate, `AA:BB:…`.
///
/// # Errors
/// When the PEM cannot be read.
pub fn fingerprint(cert_pem: &str) -> std::io::Result<String> {
    use sha2::Digest;
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(io)?;
    let sum = sha2::Sha256::digest(der.as_ref());
    Ok(sum.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":"))
}
