//! Socket creation and the clock of the DNS servers over UDP and TCP.

use std::{io, net::SocketAddr, sync::LazyLock, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::SteadyClock;

/// Opens an unbound, non-blocking socket of the address's family.
pub(super) fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]:53` and `0.0.0.0:53` must not conflict.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Clock of all DNS servers of the process.
static CLOCK: LazyLock<SteadyClock> = LazyLock::new(SteadyClock::start);

/// Returns the Unix time, unaffected by steps of the system clock: cache entries and cookies expire when they should.
pub(super) fn now() -> Duration {
    CLOCK.now()
}
