//! The certificates that API servers show to whoever asks.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::Cluster;
use crate::core::ctx::Ctx;

/// How long a server may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

/// Notes the certificate and ends the handshake there: nothing is ever said to a server that was not proven.
#[derive(Debug)]
struct Look {
    seen: Mutex<Option<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
}

fn enough<T>() -> Result<T, Error> {
    Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.as_ref().to_vec());
        enough()
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        enough()
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        enough()
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `notAfter` of the certificate at `host:port`, in seconds since 1970; `None` when none is shown.
async fn end_at(ctx: &Ctx, host: &str, port: u16) -> Option<i64> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let look = Arc::new(Look { seen: Mutex::new(None), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(look.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    // a machine that is off answers nothing: dialing it ends in the same time
    let hello = async {
        let stream = ctx.dialer.connect(host, port).await.ok()?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.err()
    };
    ctx.clock.within(PATIENCE, hello).await??;
    let der = look.seen.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(cert.validity().not_after.timestamp())
}

impl Cluster {
    /// When the certificates end that the API servers show: host, seconds since 1970. Servers that show none are left out.
    pub async fn served_ends(&self, ctx: &Ctx) -> Vec<(String, i64)> {
        let mut out = Vec::new();
        for (host, port) in self.servers() {
            if let Some(end) = end_at(ctx, host, *port).await {
                out.push((host.clone(), end));
            }
        }
        out
    }
}
