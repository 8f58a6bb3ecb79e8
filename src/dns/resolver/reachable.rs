//! Addresses of upstreams on this host: a link-local one needs the index of its interface.

use std::{io, net::SocketAddr};

use nix::net::if_::if_nametoindex;

use crate::model::upstream_address::UpstreamAddress;

/// Returns the address to connect to. The index of an interface may change, so it is looked up for each query.
pub(in crate::dns) fn reachable(upstream: &UpstreamAddress) -> io::Result<SocketAddr> {
    upstream.socket_address(|name| if_nametoindex(name).ok()).ok_or_else(|| {
        let interface = upstream.interface.as_deref().unwrap_or_default();
        io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}"))
    })
}
