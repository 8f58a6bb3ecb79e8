//! Where the HTTP API is: binding, tokens, the certificate, and one part for each address.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Folders, Parts,
    error::{DaemonError, Purpose},
};
use crate::{
    config::Config,
    files::tokens::{self, TokenFiles},
    http::server::{self, Listener, Server, credentials::Guard},
    metrics::Folder,
    tls::certificate::Certificate,
};

/// The permissions of others than the owner and the group.
const OTHERS: u32 = 0o007;

/// Listeners, bound.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixListener>,
}

impl Listeners {
    /// The addresses of those over TCP.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Binds what the configuration names.
pub(super) fn bind(config: &Config) -> Result<Listeners, DaemonError> {
    let tcp = |address: &SocketAddr| {
        let failed = |error| DaemonError::Listen { purpose: Purpose::Http, address: *address, error };
        let listener = server::bind(*address).map_err(failed)?;
        info!(address = %listener.local_addr().unwrap_or(*address), "listening for HTTP");
        Ok(listener)
    };
    let unix = |path: &std::path::PathBuf| {
        let listener = server::bind_unix(path).map_err(|error| DaemonError::Socket { path: path.clone(), error })?;
        info!(path = %path.display(), "listening for HTTP on a Unix socket");
        Ok(listener)
    };
    Ok(Listeners {
        tcp: config.http.listen.iter().map(tcp).collect::<Result<_, _>>()?,
        unix: config.http.socket.as_ref().map(unix).transpose()?,
    })
}

/// Follows the files with tokens, if there are any.
pub(super) async fn guard(config: &Config, folders: &Folders, parts: &mut Parts) -> Guard {
    let path = config.http.tokens_dir.clone()?;
    warn_of_readers(&path);
    let names = ["watches the files with tokens", "reads the files with tokens"];
    let tokens = folders.follow(tokens::folder(path), TokenFiles::default(), Folder::Tokens, names, parts).await;
    if tokens.borrow().is_empty() {
        warn!("no token is good for the HTTP API: nobody can use it over TCP");
    }
    Some(tokens)
}

/// Says so where everybody on the host can read the tokens.
fn warn_of_readers(folder: &Path) {
    let open = |path: &Path| fs::metadata(path).is_ok_and(|known| known.permissions().mode() & OTHERS != 0);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    if let Some(entry) = entries.map(|entry| entry.path()).find(|path| path.is_file() && open(path) && open(folder)) {
        warn!(path = %entry.display(), "every user of this host can read these tokens: chmod 640");
    }
}

/// Has them answered.
pub(super) fn start(
    config: &Config,
    listeners: Listeners,
    server: Server,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Result<(), DaemonError> {
    let mut tls = None;
    if let Some((chain, key)) = &config.http.tls {
        let failed = |error: String| DaemonError::ApiCertificate(error);
        let (certificate, octets) = Certificate::read(chain, key).map_err(|error| failed(error.to_string()))?;
        let settings = certificate.config(b"http/1.1").map_err(|error| failed(error.to_string()))?;
        tls = Some(TlsAcceptor::from(settings));
        parts.spawn("renews the API's certificate", Arc::clone(&certificate).follow(octets, shutdown.clone()));
    }
    for listener in listeners.tcp {
        let listener = Listener::Tcp(listener, tls.clone());
        parts.spawn("answers over HTTP", server::serve(listener, server.clone()));
    }
    if let Some(listener) = listeners.unix {
        parts.spawn("answers on the Unix socket", server::serve(Listener::Unix(listener), server));
    }
    Ok(())
}
