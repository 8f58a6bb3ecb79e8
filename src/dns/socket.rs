//! What the sockets of both transports have in common.

use std::{
    io,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use socket2::{Domain, Protocol, Socket, Type};

/// A socket of the address's family, not bound yet, that never blocks.
pub(super) fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]:53` beside `0.0.0.0:53` are two listeners, not a conflict.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// When this process first looked at its clocks.
static START: LazyLock<(Instant, Duration)> =
    LazyLock::new(|| (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));

/// Since 1970, as it was known when this process began: steps of the clock since then do not count, so that nothing that is
/// kept for a time is kept for longer.
pub(super) fn now() -> Duration {
    START.1 + START.0.elapsed()
}
