//! etcd's API: loads the certificate, follows the members, serves each address.

use std::{
    net::{self, IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;

use super::{
    Context,
    error::{DaemonError, Purpose},
    store::copy,
};
use crate::{
    config::Etcd,
    etcd::{ClientUrls, Server, Settings},
    http::server::credentials::Guard,
    model::{member::Membership, name::Label},
    store::request::Store,
    tls::certificate::Certificate,
};

/// Starts one server per listener.
pub(super) fn serve(
    context: &mut Context<'_>,
    listeners: Vec<net::TcpListener>,
    store: &Store,
    tokens: &Guard,
    members: watch::Receiver<Arc<Membership>>,
) -> Result<(), DaemonError> {
    let Some(Etcd { tls: files, .. }) = context.config.store.as_ref().and_then(|store| store.etcd.as_ref()) else {
        return Ok(());
    };
    let mut tls = None;
    if let Some((chain, key)) = files {
        let failed = |error: String| DaemonError::EtcdCertificate(error);
        let (certificate, octets) = Certificate::read(chain, key).map_err(|error| failed(error.to_string()))?;
        let settings = certificate.config(&[b"h2", b"http/1.1"]).map_err(|error| failed(error.to_string()))?;
        tls = Some(TlsAcceptor::from(settings));
        let follow = Arc::clone(&certificate).follow(octets, context.shutdown.clone());
        context.tasks.spawn("certificate reloader of etcd's API", follow);
    }
    let failed = |error| DaemonError::Serve { purpose: Purpose::Etcd, error };
    let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (urls, client_urls) = watch::channel(ClientUrls::new());
    let (own, shutdown) = (context.config.node.clone(), context.shutdown.clone());
    context.tasks.spawn("members of etcd's API", async move {
        let follow = copy(members, |members| {
            urls.send_replace(client_urls_of(members, &own, scheme, &addresses));
        });
        tokio::select! {
            () = follow => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    });
    let settings = Settings { store: store.clone(), tokens: tokens.clone(), tls, client_urls };
    let server = Server::new(settings, context.shutdown.clone());
    for listener in listeners {
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        context.tasks.spawn("etcd's API", server.clone().serve(listener));
    }
    Ok(())
}

/// URLs of the nodes. Each node answers for the whole store, and all are configured alike: the others listen on the same port,
/// unless this node listens on loopback only.
fn client_urls_of(members: &Membership, own: &Label, scheme: &str, listen: &[SocketAddr]) -> ClientUrls {
    let url = |address: IpAddr, port| format!("{scheme}://{}", SocketAddr::new(address, port));
    let port = listen.iter().find(|address| !address.ip().is_loopback()).map(SocketAddr::port);
    let urls = members.members.iter().map(|member| {
        let urls = match port {
            Some(port) => vec![url(member.address.ip(), port)],
            None if member.id.name == *own => listen.iter().map(|at| url(at.ip(), at.port())).collect(),
            None => Vec::new(),
        };
        (member.id.name.to_string(), urls)
    });
    urls.collect()
}
