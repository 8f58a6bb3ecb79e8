//! The certificate authorities that this host trusts, for probes, upstreams and commands.

use tokio_rustls::rustls::RootCertStore;
use tracing::warn;

/// Reads the certificate authorities of the host from its files.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors = found.errors;
        warn!(
            ?errors,
            "no certificate authorities found; install ca-certificates, HTTPS checks and encrypted upstreams fail without"
        );
    }
    roots
}
