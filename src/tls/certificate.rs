//! Server certificate, reloaded when its files change.
//!
//! The files are polled rather than watched, since renewal tools replace links and folders. While certificate and key do
//! not match, as in the middle of a renewal, the previous certificate stays in use.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::pem_error;
use crate::files::access;

/// Weakness of a certificate with `CA:TRUE`.
const AUTHORITY: &str = "the certificate is that of an authority (`CA:TRUE`): muster's commands and other TLS clients refuse it for a server";
/// Advice for a self-signed certificate.
pub const SERVER_CERTIFICATE: &str = "`openssl req -x509` needs `-addext basicConstraints=critical,CA:FALSE`";
/// Polling interval.
const PERIOD: Duration = Duration::from_secs(2);

/// Files of a certificate, with the last valid content.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    valid: ArcSwap<CertifiedKey>,
}

/// Files that are not a valid certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {}: {_1}", _0.display())]
    Read(PathBuf, io::Error),
    /// The file has no PEM block of the kind expected.
    #[error("{} has no {_1} in PEM", _0.display())]
    Absent(PathBuf, &'static str),
    /// The file is not PEM.
    #[error("{} is not PEM: {}", _0.display(), pem_error::describe(_1))]
    Pem(PathBuf, pem::Error),
    /// Certificate and key do not match, or the type of the key is not supported.
    #[error("the key in {} does not match {}: {_2}", _1.display(), _0.display())]
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// Content of both files.
type Octets = (Vec<u8>, Vec<u8>);

impl Certificate {
    /// Reads the files; returns their content for [`follow`](Self::follow).
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or a key that does not match.
    pub fn read(chain: &Path, key: &Path) -> Result<(Arc<Self>, Octets), CertificateError> {
        let octets = read(chain, key)?;
        access::warn_of_exposed_secret(key);
        if let Some(weakness) = weakness(chain) {
            warn!(certificate = %chain.display(), "{weakness}");
        }
        let valid = ArcSwap::from_pointee(parse(chain, key, &octets)?);
        Ok((Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), valid }), octets))
    }

    /// Reloads the files on changes until shutdown; `octets` is their current content.
    pub async fn follow(self: Arc<Self>, mut octets: Octets, shutdown: CancellationToken) {
        let mut logged = None;
        while shutdown.run_until_cancelled(sleep(PERIOD)).await.is_some() {
            let certificate = self.clone();
            let previous = octets.clone();
            let reload = spawn_blocking(move || {
                let now = read(&certificate.chain, &certificate.key)?;
                let changed = now != previous;
                let valid = if changed { Some(parse(&certificate.chain, &certificate.key, &now)?) } else { None };
                Ok::<_, CertificateError>((now, valid))
            });
            match reload.await {
                Ok(Ok((now, valid))) => {
                    octets = now;
                    logged = None;
                    if let Some(valid) = valid {
                        self.valid.store(Arc::new(valid));
                        info!(certificate = %self.chain.display(), "certificate renewed");
                    }
                }
                Ok(Err(error)) => {
                    let text = error.to_string();
                    if logged.as_ref() != Some(&text) {
                        warn!("{text}: keeping the previous certificate");
                        logged = Some(text);
                    }
                }
                Err(error) => warn!(%error, "cannot check the certificate for changes"),
            }
        }
    }

    /// Returns the configuration of a listener; `protocols` are ALPN protocol ids (RFC 7301), the preferred one first.
    ///
    /// # Errors
    /// None in practice: the protocol versions are those of the provider.
    pub fn config(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.valid.load_full())
    }
}

/// Reports whether a verifier refused a certificate because it is that of an authority. rustls has no variant for this error.
pub fn is_of_authority(error: &rustls::CertificateError) -> bool {
    matches!(error, rustls::CertificateError::Other(_)) && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Returns why TLS clients may refuse a server certificate that is valid otherwise; `None` without a reason, or if the file
/// cannot be read.
pub fn weakness(chain: &Path) -> Option<&'static str> {
    let octets = fs::read(chain).ok()?;
    let certificate = CertificateDer::pem_slice_iter(&octets).next()?.ok()?;
    refused_as_authority(&certificate).then_some(AUTHORITY)
}

/// Reports whether rustls refuses a certificate as that of an authority, whoever issued it.
fn refused_as_authority(certificate: &CertificateDer<'_>) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(certificate.clone().into_owned()).is_err() {
        return false;
    }
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    // The name is compared last.
    let name = ServerName::from(Ipv4Addr::LOCALHOST);
    match verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(error)) => is_of_authority(&error),
        _ => false,
    }
}

fn read(chain: &Path, key: &Path) -> Result<Octets, CertificateError> {
    let read = |path: &Path| fs::read(path).map_err(|error| CertificateError::Read(path.to_owned(), error));
    Ok((read(chain)?, read(key)?))
}

fn parse(chain: &Path, key: &Path, (certificates, private): &Octets) -> Result<CertifiedKey, CertificateError> {
    let invalid = |path: &Path, kind| {
        let path = path.to_owned();
        move |error| match error {
            pem::Error::NoItemsFound => CertificateError::Absent(path, kind),
            error => CertificateError::Pem(path, error),
        }
    };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(invalid(chain, "certificate"))?;
    if certificates.is_empty() {
        return Err(CertificateError::Absent(chain.to_owned(), "certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(private).map_err(invalid(key, "private key"))?;
    CertifiedKey::from_der(certificates, private, &ring::default_provider())
        .map_err(|error| CertificateError::Pair(chain.to_owned(), key.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    #[test]
    fn certificate_of_an_authority_is_weak() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            (IsCa::NoCa, None),
            (IsCa::ExplicitNoCa, None),
            (IsCa::Ca(BasicConstraints::Unconstrained), Some(AUTHORITY)),
        ];
        for (is_ca, expected) in cases {
            let mut params = CertificateParams::new(["host-a.example".to_owned()]).unwrap();
            params.is_ca = is_ca;
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let path = folder.path().join("cert.pem");
            fs::write(&path, made.pem()).unwrap();
            assert_eq!(weakness(&path), expected);
        }
        assert_eq!(weakness(&folder.path().join("absent.pem")), None);
    }
}
