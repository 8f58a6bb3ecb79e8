//! TLS sessions with other DNS servers: upstreams (RFC 7858, RFC 8484) and primaries of secondary zones (RFC 9103).

use std::{io, sync::Arc};

use tokio::{net::TcpStream, sync::OnceCell, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, ClientConfig, InvalidMessage, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::model::upstream_address::{UpstreamAddress, UpstreamTransport};

/// Advice for a server that seems not to speak TLS.
const CHECK: &str = "check that the port of its address is that of DNS over TLS (853) or HTTPS (443)";

/// Reads the certificate authorities that this host trusts; takes milliseconds.
pub type Authorities = fn() -> RootCertStore;

/// Client of servers with certificates.
pub struct TlsClient {
    authorities: Authorities,
    /// Authorities read for the first session.
    roots: OnceCell<Arc<RootCertStore>>,
}

impl TlsClient {
    /// Returns a client that trusts these authorities.
    pub fn new(authorities: Authorities) -> Self {
        Self { authorities, roots: OnceCell::new() }
    }

    /// Opens a session over a connection to a server. Has no timeout of its own.
    ///
    /// # Errors
    /// The connection breaks, or the server has no valid certificate for its name.
    pub async fn connect(&self, server: &UpstreamAddress, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let (name, protocol) = match &server.transport {
            UpstreamTransport::Https { name, .. } => (name, &b"h2"[..]),
            UpstreamTransport::Tls(name) => (name, &b"dot"[..]),
            UpstreamTransport::Plain => (&None, &b"dot"[..]),
        };
        let name = match name {
            Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
            None => ServerName::from(server.address.ip()),
        };
        let authorities = self.authorities;
        let read = async || Arc::new(spawn_blocking(authorities).await.unwrap_or_else(|_| RootCertStore::empty()));
        let roots = self.roots.get_or_init(read).await.clone();
        let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let versions = versions.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = versions.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(explained)
    }
}

/// Explains errors of the handshake with a server that does not speak TLS, which rustls only names.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            io::Error::new(error.kind(), format!("the server does not speak TLS on this port: {CHECK}"))
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), format!("the server closed the connection in the TLS handshake: {CHECK}"))
        }
        _ => error,
    }
}
