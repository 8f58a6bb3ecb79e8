//! The certificate that clients see, read anew when its files change.
//!
//! The files are looked at every few seconds rather than watched: tools that renew certificates replace links and folders.
//! A pair that does not fit together, as in the middle of a renewal, leaves the last good one in use.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
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

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(2);

/// A certificate's files, and what was in them when they last were good.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    good: ArcSwap<CertifiedKey>,
}

/// Why files are no certificate.
#[derive(Debug)]
pub enum CertificateError {
    /// This file cannot be read.
    Read(PathBuf, io::Error),
    /// This file is not what it should be.
    Pem(PathBuf, pem::Error),
    /// The two do not fit together, or the key is of a kind that is not known.
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// The octets of both files.
type Octets = (Vec<u8>, Vec<u8>);

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(chain: &Path, key: &Path) -> Result<(Arc<Self>, Octets), CertificateError> {
        let octets = read(chain, key)?;
        let good = ArcSwap::from_pointee(parse(chain, key, &octets)?);
        Ok((Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), good }), octets))
    }

    /// Follows the files until shutdown; `octets` are those that were read.
    pub async fn follow(self: Arc<Self>, mut octets: Octets, shutdown: CancellationToken) {
        let mut told = None;
        while shutdown.run_until_cancelled(sleep(PERIOD)).await.is_some() {
            let certificate = self.clone();
            let known = octets.clone();
            let looked = spawn_blocking(move || {
                let now = read(&certificate.chain, &certificate.key)?;
                let news = now != known;
                let good = if news { Some(parse(&certificate.chain, &certificate.key, &now)?) } else { None };
                Ok::<_, CertificateError>((now, good))
            });
            match looked.await {
                Ok(Ok((now, good))) => {
                    octets = now;
                    told = None;
                    if let Some(good) = good {
                        self.good.store(Arc::new(good));
                        info!(certificate = %self.chain.display(), "certificate renewed");
                    }
                }
                Ok(Err(error)) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        warn!("{text}: the certificate of before stays in use");
                        told = Some(text);
                    }
                }
                Err(error) => warn!(%error, "the certificate was not looked at"),
            }
        }
    }

    /// What a listener needs whose protocol goes by this name (RFC 7301).
    ///
    /// # Errors
    /// None that a user could cause: the versions are those of the provider.
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
        Some(self.good.load_full())
    }
}

fn read(chain: &Path, key: &Path) -> Result<Octets, CertificateError> {
    let read = |path: &Path| fs::read(path).map_err(|error| CertificateError::Read(path.to_owned(), error));
    Ok((read(chain)?, read(key)?))
}

fn parse(chain: &Path, key: &Path, (certificates, private): &Octets) -> Result<CertifiedKey, CertificateError> {
    let unfit = |path: &Path| {
        let path = path.to_owned();
        move |error| CertificateError::Pem(path, error)
    };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().map_err(unfit(chain))?;
    if certificates.is_empty() {
        return Err(CertificateError::Pem(chain.to_owned(), pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(private).map_err(unfit(key))?;
    CertifiedKey::from_der(certificates, private, &ring::default_provider())
        .map_err(|error| CertificateError::Pair(chain.to_owned(), key.to_owned(), error))
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Pem(path, pem::Error::NoItemsFound) => {
                write!(f, "{} holds nothing of the kind in PEM", path.display())
            }
            Self::Pem(path, error) => write!(f, "{} is not PEM: {error}", path.display()),
            Self::Pair(chain, key, error) => {
                write!(f, "the key in {} is not that of {}: {error}", key.display(), chain.display())
            }
        }
    }
}

impl std::error::Error for CertificateError {}
