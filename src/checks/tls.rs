//! TLS of probes, with and without verification of the certificate.
//!
//! Both configurations are created on first use and then shared. Sessions are not resumed, so that a check notices a
//! certificate that has expired.

use std::sync::Arc;

use super::error::ProbeError;
use crate::{model::service::ProbeTls, tls::authorities::system_roots};
use tokio::{net::TcpStream, sync::OnceCell, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

/// Protocol that a probe offers in the handshake (RFC 7301).
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        let name: &[u8] = match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        };
        vec![name.to_vec()]
    }
}

/// Returns the name that the certificate has to have: the configured one, else `host`.
pub(super) fn server_name(tls: &ProbeTls, host: &str) -> Result<ServerName<'static>, ProbeError> {
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    ServerName::try_from(name).map_err(|_| ProbeError::critical("tls: the host cannot be the name of a certificate"))
}

/// TLS connectors of all probes.
pub(super) struct Tls {
    verified: OnceCell<TlsConnector>,
    unverified: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new() -> Self {
        Self { verified: OnceCell::new(), unverified: OnceCell::new() }
    }

    /// Returns connectors that trust `roots` instead of the system's authorities.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        Self { verified: OnceCell::new_with(Some(verified(roots).unwrap())), unverified: OnceCell::new() }
    }

    /// Performs the TLS handshake with the server `name`.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
        skip_verify: bool,
        alpn: Alpn,
    ) -> Result<TlsStream<TcpStream>, ProbeError> {
        let connector = if skip_verify {
            self.unverified.get_or_try_init(async || unverified()).await
        } else {
            self.verified
                .get_or_try_init(async || {
                    verified(spawn_blocking(system_roots).await.unwrap_or_else(|_| RootCertStore::empty()))
                })
                .await
        };
        let connector = connector.map_err(|error| failure(&error))?;
        connector.with_alpn(alpn.protocols()).connect(name, stream).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(tls) => failure(tls),
                None => ProbeError::from(error).of("tls"),
            }
        })
    }
}

fn verified(roots: RootCertStore) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(connector(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn unverified() -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(connector(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.resumption = Resumption::disabled();
    Arc::new(config).into()
}

fn failure(error: &Error) -> ProbeError {
    use CertificateError as Bad;
    let what = match error {
        Error::InvalidCertificate(certificate) => match certificate {
            Bad::ExpiredContext { time, not_after } => {
                let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 60 * 60);
                format!("certificate expired {days} days ago")
            }
            Bad::Expired => "certificate expired".to_owned(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "certificate not valid yet".to_owned(),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "certificate for another name".to_owned(),
            Bad::UnknownIssuer => "certificate from an unknown issuer".to_owned(),
            Bad::BadSignature => "certificate with a bad signature".to_owned(),
            Bad::Revoked => "certificate revoked".to_owned(),
            // Most often a self-signed certificate that is marked as an authority; webpki has no variant for it.
            Bad::Other(_) => "certificate not signed by an authority".to_owned(),
            other => format!("certificate: {other}"),
        },
        Error::InvalidMessage(_) => "response is not TLS".to_owned(),
        other => other.to_string(),
    };
    ProbeError::critical(format!("tls: {what}"))
}

/// Accepts any certificate. The handshake signature is still verified: a server without the certificate's key is broken,
/// whatever the issuer.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
