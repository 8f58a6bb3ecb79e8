//! Server certificate, reloaded when its files change.
//!
//! The files are polled rather than watched, since renewal tools replace links and folders. While certificate and key do
//! not match, as in the middle of a renewal, the previous certificate stays in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::pem_error;
use crate::files::access;

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

    /// Returns the configuration of a listener; `protocol` is the ALPN protocol id (RFC 7301).
    ///
    /// # Errors
    /// None in practice: the protocol versions are those of the provider.
    pub fn config(self: &Arc<Self>, protocol: &[u8]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.valid.load_full())
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
