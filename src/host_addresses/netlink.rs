//! Netlink of the kernel's routing subsystem (rtnetlink(7)): addresses of interfaces, the route to an address, changes.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use crate::model::host_addresses::{AssignedAddress, Lifetime};

/// Receive buffer in octets: the kernel fills at most 32 KiB at a time (netlink(7)).
const BUFFER: usize = 32 << 10;
/// Alignment of messages in a buffer (NLMSG_ALIGNTO).
const ALIGNMENT: usize = 4;
/// Longest prefix of a default route: VPNs split the default route into halves, and some networks have 2000::/3 as the
/// default route of IPv6.
const MAX_DEFAULT_PREFIX: u8 = 3;
/// Multicast groups: links, IPv4 addresses and routes, IPv6 addresses and routes (RTMGRP_ in linux/rtnetlink.h). Links,
/// because the kernel does not announce the IPv4 routes that a link takes with it.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Returns the addresses of all interfaces, without those that another host has already (RFC 4862 §5.4.5).
pub(super) fn assigned() -> io::Result<Vec<AssignedAddress>> {
    let answers = request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
    let address = |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => assigned_address(&message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(address).collect())
}

fn assigned_address(message: &AddressMessage) -> Option<AssignedAddress> {
    let (mut local, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link, the plain address is that of the other end.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(other).filter(|_| !flags.contains(AddressFlags::Dadfailed))?;
    let lifetime = if flags.contains(AddressFlags::Deprecated) {
        Lifetime::Deprecated
    } else if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
        Lifetime::Tentative
    } else if address.is_ipv6() && flags.contains(AddressFlags::Secondary) {
        // The same bit is IFA_F_TEMPORARY for IPv6.
        Lifetime::Temporary
    } else {
        Lifetime::Stable
    };
    Some(AssignedAddress { address, interface: message.header.index, lifetime })
}

/// Reports whether packets to an address use a default route.
pub(super) fn is_default_route(to: IpAddr) -> io::Result<bool> {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) =
        if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    // The entry of the routing table, not its application to this destination.
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(to)));
    let answers = match request(RouteNetlinkMessage::GetRoute(message), 0) {
        Ok(answers) => answers,
        Err(error) if matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    Ok(answers.iter().any(|answer| match answer {
        RouteNetlinkMessage::NewRoute(RouteMessage { header, .. }) => {
            header.kind == RouteType::Unicast && header.destination_prefix_length <= MAX_DEFAULT_PREFIX
        }
        _ => false,
    }))
}

/// Sends a request and returns the answers, which the kernel has queued when the request is sent.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    // An answer that is missing must not block the caller.
    socket.set_non_blocking(true)?;
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut octets = vec![0; request.buffer_len()];
    request.serialize(&mut octets);
    socket.send(&octets, 0)?;
    let mut answers = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
            if answer.header.flags & NLM_F_MULTIPART == 0 {
                return Ok(answers);
            }
            rest = rest.get((answer.header.length as usize).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        }
    }
}

/// Notifications that links, addresses or routes have changed.
pub(super) struct Changes(TokioSocket);

impl Changes {
    /// Subscribes to the changes.
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        // The kernel chooses the port.
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Waits for a change. The content of the notifications does not matter.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut notification = Vec::with_capacity(BUFFER);
        match self.0.recv(&mut notification).await {
            // More changes than the socket's buffer holds.
            Err(error) if error.raw_os_error() == Some(nix::Error::ENOBUFS as i32) => Ok(()),
            received => received,
        }
    }
}
