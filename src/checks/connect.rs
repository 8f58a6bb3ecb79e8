//! Addresses and TCP connections of network probes, with a limit on name lookups.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, sync::Semaphore, task::spawn_blocking, time::timeout};

use super::error::ProbeError;
use crate::model::{link_local::is_link_local_or_metadata, service::Check};

/// Maximum number of concurrent name lookups. Each blocks a thread until the system's resolver gives up, which muster
/// cannot shorten; the runtime has 512 such threads for all purposes.
const LOOKUPS: usize = 64;
/// Maximum number of addresses tried per name.
const MAX_ADDRESSES: usize = 16;
/// Time for an orderly close after the exchange.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Resolves and connects to the targets of one check.
pub(super) struct Dialer {
    lookups: Arc<Semaphore>,
    link_local: bool,
}

impl Dialer {
    pub(super) fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS)), link_local: true }
    }

    /// Returns a dialer with the same limit for a check that may, or may not, connect to link-local addresses.
    pub(super) fn of(&self, check: &Check) -> Self {
        Self { lookups: Arc::clone(&self.lookups), link_local: check.origin.may_reach_link_local() }
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

    /// Returns the addresses of `host` that the check may use. A connection has to be made to one of them: the name may resolve
    /// differently the next time.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ProbeError> {
        let mut addresses = self.resolve(host, port).await?;
        if !self.link_local {
            let found = addresses.len();
            addresses.retain(|address| !is_link_local_or_metadata(address.ip()));
            if addresses.is_empty() && found > 0 {
                return Err(ProbeError::critical("link-local or metadata address refused (checks.allow_link_local)"));
            }
        }
        Ok(addresses)
    }

    /// Resolves `host`. `localhost` is the loopback address (RFC 6761 §6.3) and needs no lookup.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ProbeError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::fixtures::{Server, tcp},
        model::service::Origin,
    };

    #[tokio::test]
    async fn link_local_addresses_are_refused_once_resolved() {
        let (server, _gone) = Server::hanging().await;
        let port = server.address.port();
        let refused = "link-local or metadata address refused (checks.allow_link_local)";
        let dialer =
            Dialer::new().of(&Check { origin: Origin::Client { link_local: false, exec: false }, ..tcp("any") });
        let cases = [
            ("169.254.169.254", Err(refused)),
            ("::ffff:169.254.169.254", Err(refused)),
            ("fe80::1", Err(refused)),
            ("fe80::1%lo", Err(refused)),
            ("fd00:ec2::254", Err(refused)),
            // The system's resolver reads numbers as addresses.
            ("0xa9fea9fe", Err(refused)),
            ("0251.0376.0251.0376", Err(refused)),
            ("127.0.0.1", Ok(())),
            ("localhost", Ok(())),
        ];
        for (host, expected) in cases {
            let got = dialer.connect(host, port, Duration::from_secs(5)).await.map(drop);
            assert_eq!(got, expected.map_err(ProbeError::critical), "{host}");
        }
        // A check from a file may connect.
        let free = Dialer::new().of(&tcp("any"));
        let got = free.connect("169.254.169.254", port, Duration::from_millis(50)).await.map(drop);
        assert_ne!(got, Err(ProbeError::critical(refused)));
    }
}
