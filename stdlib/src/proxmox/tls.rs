//! Whom to trust: a pinned certificate, a CA file, or the system's roots. Never "insecure".
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::core::error::{OpError, OpResult};

/// What makes the server's certificate good.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Exactly this certificate (SHA-256, `AA:BB:…`).
    Fingerprint(String),
    /// Whatever this CA signed (PEM).
    Ca(String),
    /// The system's roots.
    System,
}

/// Fingerprint of the certificate that was refused last.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<Mutex<Option<String>>>);

impl Shown {
    /// `AA:BB:…` of a certificate that was not good.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note(&self, fingerprint: String, good: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (!good).then_some(fingerprint);
    }
}

/// SHA-256 of a certificate as Proxmox prints it.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

fn plain(fingerprint: &str) -> String {
    fingerprint.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_uppercase()
}

#[derive(Debug)]
struct Verifier {
    pin: Option<String>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    /// The name in the URL: a dialled route may go somewhere else.
    name: Option<ServerName<'static>>,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn judge(
        &self,
        seen: &str,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pin) = &self.pin {
            return if plain(pin) == plain(seen) {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            };
        }
        let Some(roots) = &self.roots else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        if let Some(name) = &self.name
            && let Ok(ok) = roots.verify_server_cert(end_entity, intermediates, name, ocsp, now)
        {
            return Ok(ok);
        }
        roots.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = fingerprint(end_entity.as_ref());
        let verdict = self.judge(&seen, end_entity, intermediates, server_name, ocsp, now);
        self.shown.note(seen, verdict.is_ok());
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn roots_of(trust: &Trust) -> OpResult<Option<RootCertStore>> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::Fingerprint(_) => return Ok(None),
        Trust::Ca(pem) => {
            for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let cert = cert.map_err(|e| OpError::invalid("`proxmox.ca_file` is not PEM").because(e.to_string()))?;
                store.add(cert).map_err(|e| {
                    OpError::invalid("`proxmox.ca_file` holds no usable certificate").because(e.to_string())
                })?;
            }
            if store.is_empty() {
                return Err(OpError::invalid("`proxmox.ca_file` holds no certificate"));
            }
        }
        Trust::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    // No root at all (a container without CA files): every server fails, with its fingerprint in the error.
    Ok((!store.is_empty()).then_some(store))
}

/// The TLS configuration for a server called `host`.
///
/// # Errors
/// `invalid` when the CA cannot be read.
pub fn client_config(host: &str, trust: &Trust, shown: Shown) -> OpResult<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match roots_of(trust)? {
        None => None,
        Some(store) => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                .build()
                .map_err(|e| OpError::invalid("the trusted certificates cannot be used").because(e.to_string()))?,
        ),
    };
    let pin = match trust {
        Trust::Fingerprint(f) => Some(f.clone()),
        _ => None,
    };
    let name = ServerName::try_from(host.to_owned()).ok();
    let verifier = Verifier { pin, roots, name, shown, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| OpError::failed("TLS cannot be set up").because(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // HTTP/1 only: the error text of Proxmox is in the reason phrase.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_compare_without_regard_to_form() {
        assert_eq!(plain("aa:bb:0c"), plain("AABB0C"));
        assert_eq!(fingerprint(b"").len(), 95);
    }

    #[test]
    fn a_ca_that_is_none_is_named() {
        let e = client_config("pve", &Trust::Ca("nonsense".to_owned()), Shown::default()).unwrap_err();
        assert!(e.message.contains("ca_file"), "{}", e.message);
    }
}
