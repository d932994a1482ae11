//! Certificates of the lab: a CA and leaves, as Proxmox and K3s have them (never a self-signed leaf).
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// A certificate with its key, as PEM.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pair {
    /// Certificate.
    pub cert: String,
    /// Private key.
    pub key: String,
}

/// Twenty years: the world's calendar stands still while nobody uses it, and clients look at their own.
fn valid(p: &mut CertificateParams) {
    p.not_before = rcgen::date_time_ymd(2020, 1, 1);
    p.not_after = rcgen::date_time_ymd(2046, 11, 1);
}

fn io(e: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(e.to_string())
}

/// Makes a CA named `cn`.
///
/// # Errors
/// When key generation fails.
pub fn make_ca(cn: &str) -> std::io::Result<Pair> {
    let key = KeyPair::generate().map_err(io)?;
    let mut p = CertificateParams::new(Vec::<String>::new()).map_err(io)?;
    valid(&mut p);
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, cn);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let cert = p.self_signed(&key).map_err(io)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// Makes a leaf under `ca` for `names` (DNS names and addresses). `org` and `cn` carry a Kubernetes
/// client's group and user.
///
/// # Errors
/// When the CA cannot be read.
pub fn make_leaf(ca: &Pair, cn: &str, org: Option<&str>, names: &[String]) -> std::io::Result<Pair> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(io)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, ca_key).map_err(io)?;
    let key = KeyPair::generate().map_err(io)?;
    let mut p = CertificateParams::new(Vec::<String>::new()).map_err(io)?;
    valid(&mut p);
    for n in names {
        p.subject_alt_names.push(match n.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(n.as_str().try_into().map_err(io)?),
        });
    }
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, cn);
    if let Some(o) = org {
        p.distinguished_name.push(DnType::OrganizationName, o);
    }
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    p.use_authority_key_identifier_extension = true;
    let cert = p.signed_by(&key, &issuer).map_err(io)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// A TLS server configuration for `leaf`; asks for client certificates of `client_ca` if given (optional).
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
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
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
