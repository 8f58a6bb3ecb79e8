//! The addresses of this host: read once, or followed while they change.
//!
//! The kernel selects the source address of a default route: a UDP socket is connected to a documentation address, which
//! sends no packet. Netlink tells whether that route is a default route, which addresses the interfaces have, and when
//! addresses, routes or links change.

mod netlink;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::netlink::Changes;
use crate::model::host_addresses::{AssignedAddress, HostAddresses, Lifetime};

/// Destinations behind default routes: documentation addresses (RFC 5737, RFC 3849, RFC 9637). The network of a laboratory may
/// have some of them, so the first one behind a default route counts.
const DESTINATIONS: [&[IpAddr]; 2] = [
    &[
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    ],
    &[
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
    ],
];
/// Port of the connected socket (discard, RFC 863).
const PORT: u16 = 9;
/// Time without a change after which the addresses are read: a reconfiguration removes addresses before it adds others.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time that changes in a row delay the reading.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Interval of readings without netlink.
const POLL: Duration = Duration::from_secs(3);

/// Reads the addresses. Without netlink only those of the routes to documentation addresses are known.
pub fn read() -> HostAddresses {
    let is_default = |to: &&IpAddr| netlink::is_default_route(**to).unwrap_or(true);
    let behind_default = |family: &[IpAddr]| family.iter().find(is_default).and_then(|to| source(*to).ok());
    let sources: Vec<IpAddr> = DESTINATIONS.into_iter().filter_map(behind_default).collect();
    match netlink::assigned() {
        Ok(assigned) => HostAddresses::new(sources, assigned),
        Err(_) => {
            let assigned = |address| AssignedAddress { address, interface: 0, lifetime: Lifetime::Stable };
            HostAddresses::new(sources.clone(), sources.into_iter().map(assigned))
        }
    }
}

/// Returns the addresses, and the task that publishes them when they have changed, until `shutdown`. A change that is undone
/// within [`QUIET`] is not published. Needs a tokio runtime.
pub fn follow(shutdown: CancellationToken) -> (watch::Receiver<HostAddresses>, impl Future<Output = ()> + Send) {
    // Subscribes before it reads, so that it misses no change.
    let changes = Changes::subscribe();
    if let Err(error) = &changes {
        warn!(%error, "cannot subscribe to address changes by netlink; reading the addresses every {POLL:?}");
    }
    let (host, addresses) = watch::channel(read());
    let publish = async move {
        loop {
            settle(&changes).await;
            let now = read();
            host.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    };
    let following = async move { shutdown.run_until_cancelled(publish).await.unwrap_or(()) };
    (addresses, following)
}

/// Waits for a change, and until changes have ended.
async fn settle(changes: &io::Result<Changes>) {
    let Ok(changes) = changes else { return sleep(POLL).await };
    let received = changes.next().await;
    let latest = Instant::now() + MAX_DELAY;
    while Instant::now() < latest && timeout(QUIET, changes.next()).await.is_ok_and(|next| next.is_ok()) {}
    if let Err(error) = received {
        warn!(%error, "cannot receive address changes by netlink");
        sleep(POLL).await;
    }
}

/// Returns the source address that the kernel selects for packets to an address.
fn source(to: IpAddr) -> io::Result<IpAddr> {
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(to, PORT))?;
    Ok(socket.local_addr()?.ip())
}
