//! TLS for commands that ask an agent behind `https://`: who may certify it.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::sources::read;
use crate::checks::system_roots;

/// Octets of a file with authorities: all that there are in the world fit.
const MAX_AUTHORITIES: usize = 4 * 1024 * 1024;

/// Opens TLS to an agent that one of the authorities in that file has certified; without a file, one that this host trusts.
///
/// # Errors
/// A file that cannot be read, or holds no certificate.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let roots = match ca_file {
        None => system_roots(),
        Some(path) => authorities(path)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// The name that the agent's certificate has to have.
///
/// # Errors
/// It is neither an address nor a host's name.
pub(super) fn name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let text = read(path, MAX_AUTHORITIES).map_err(|error| format!("cannot read --ca-file {shown}: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text.bytes) {
        let certificate = certificate.map_err(|error| format!("--ca-file {shown}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("--ca-file {shown}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("--ca-file {shown} holds no certificate in PEM"));
    }
    Ok(roots)
}
