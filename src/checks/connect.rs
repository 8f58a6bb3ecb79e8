//! TCP connections of network probes, with a limit on name lookups.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, sync::Semaphore, task::spawn_blocking, time::timeout};

use super::error::ProbeError;

/// Maximum number of concurrent name lookups. Each blocks a thread until the system's resolver gives up, which muster
/// cannot shorten; the runtime has 512 such threads for all purposes.
const LOOKUPS: usize = 64;
/// Maximum number of addresses tried per name.
const MAX_ADDRESSES: usize = 16;
/// Time for an orderly close after the exchange.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Opens TCP connections.
pub(super) struct Dialer {
    lookups: Arc<Semaphore>,
}

impl Dialer {
    pub(super) fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// Connects to the first address of `host` that accepts. Each address gets an equal share of `patience`, so that one
    /// that drops packets leaves time for the others. If none accepts, the first error is returned.
    pub(super) async fn connect(&self, host: &str, port: u16, patience: Duration) -> Result<TcpStream, ProbeError> {
        let addresses = self.addresses(host, port).await?;
        let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut first = None;
        for address in addresses {
            let failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => ProbeError::from(error),
                Err(_) => ProbeError::timed_out(patience),
            };
            first.get_or_insert(failure);
        }
        Err(first.unwrap_or_else(not_found))
    }

    /// Resolves `host`. `localhost` is the loopback address (RFC 6761 §6.3) and needs no lookup.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ProbeError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
        }
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let host = host.to_owned();
        let look_up = move || {
            let _permit = permit; // held until the thread ends
            let found = (host.as_str(), port).to_socket_addrs();
            found.map(|addresses| addresses.take(MAX_ADDRESSES).collect::<Vec<_>>())
        };
        match spawn_blocking(look_up).await {
            Ok(Ok(addresses)) => Ok(addresses),
            // Errors with a number are the system's, such as EMFILE; the resolver's own errors have none and vary in text.
            Ok(Err(error)) if error.raw_os_error().is_some() => Err(error.into()),
            Ok(Err(_)) => Err(not_found()),
            Err(stopped) => Err(ProbeError::NotRun(stopped.to_string())),
        }
    }
}

fn not_found() -> ProbeError {
    ProbeError::critical("name not found")
}

/// Drives `connection` while `exchange` runs, then waits shortly for an orderly close.
///
/// Both run in one future: dropping it closes the connection, and no task remains.
pub(super) async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        _ = &mut connection => exchange.await,
        result = &mut exchange => {
            let _ = timeout(CLOSE_TIMEOUT, connection).await;
            result
        }
    }
}
