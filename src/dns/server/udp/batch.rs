//! Batched datagram I/O: one system call receives or sends many datagrams.
//!
//! An [`Exchange`] owns a socket and the buffers of a batch; a batch does not allocate. Replies are sent from the address that
//! was queried, also on sockets bound to a wildcard address (`IP_PKTINFO`, RFC 3542 §6.2). If the kernel or a sandbox rejects
//! recvmmsg(2) or sendmmsg(2), datagrams are received and sent one by one.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, recvmsg,
        sendmmsg, sendmsg, setsockopt, sockopt,
    },
};
use tracing::debug;

use crate::{
    clock::unix_now,
    dns::{
        collector::Tap,
        engine::Decision,
        tap::{Flow, Protocol},
    },
};

/// Datagrams per batch. Above eight, throughput increases only where system calls are expensive. The first reply of a batch waits
/// for the last one, so that a larger batch would add latency.
pub(super) const BATCH: usize = 16;
/// Maximum length of a query in octets. A longer datagram is truncated, and then malformed.
const MAX_QUERY: usize = 4096;

/// A query that the slow thread completes.
pub(super) struct Deferred {
    /// Any decision but [`Decision::Reply`] and [`Decision::Drop`].
    pub(super) decision: Decision,
    /// The query for [`Decision::Defer`], [`Decision::Await`] and [`Decision::Transfer`]; else empty.
    pub(super) query: Vec<u8>,
    pub(super) reply_path: ReplyPath,
}

/// Addresses for the reply to a deferred query.
pub(super) struct ReplyPath {
    pub(super) client: IpAddr,
    /// Time of the deferral.
    pub(super) since: Instant,
    reply: Reply,
}

/// Queue of deferred queries.
struct DeferQueue {
    sender: SyncSender<Deferred>,
    /// Queries dropped without a reply because the queue was full.
    dropped: u64,
}

/// A socket and the buffers of one batch.
pub(super) struct Exchange {
    socket: UdpSocket,
    deferred: DeferQueue,
    calls: Calls,
    queries: Box<[[u8; MAX_QUERY]; BATCH]>,
    replies: Box<[Reply; BATCH]>,
    headers: Headers,
    tap: Option<SocketTap>,
}

/// Records the messages of a socket.
#[derive(Clone)]
pub(super) struct SocketTap {
    pub(super) tap: Tap,
    /// Address of the socket.
    pub(super) bound: SocketAddr,
}

/// The tap of a batch, and the Unix time of its queries.
type Tapped<'e> = Option<(&'e SocketTap, Duration)>;

/// Message headers, reused between batches.
struct Headers {
    received: MultiHeaders<SockaddrStorage>,
    /// Replies whose source address the kernel chooses.
    sent: MultiHeaders<SockaddrStorage>,
    /// Replies sent from the queried address.
    sent_from: MultiHeaders<SockaddrStorage>,
    targets: [Option<SockaddrStorage>; BATCH],
}

/// System calls in use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// recvmmsg(2) and sendmmsg(2).
    Many,
    /// recvmsg(2) and sendmsg(2).
    One,
}

struct Reply {
    octets: Vec<u8>,
    to: SockaddrStorage,
    from: Local,
}

/// Destination address of a query, which is the source address of its reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Local {
    /// The address of the socket.
    Socket,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Makes a bound socket non-blocking, and enables destination addresses if it is bound to a wildcard address.
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        _ => {}
    }
    socket.set_nonblocking(true)
}

impl Exchange {
    /// Returns an exchange of a [prepared](prepare) socket. Deferred queries go to `deferred`, and are dropped while that is full,
    /// so that they never block the worker. Messages are recorded with `tap`.
    pub(super) fn new(socket: UdpSocket, deferred: SyncSender<Deferred>, tap: Option<SocketTap>) -> Self {
        let unset = SockaddrStorage::from(SocketAddr::from(([0; 4], 0)));
        let reply = |_| Reply { octets: Vec::with_capacity(MAX_QUERY), to: unset, from: Local::Socket };
        Self {
            socket,
            deferred: DeferQueue { sender: deferred, dropped: 0 },
            calls: Calls::Many,
            queries: Box::new([[0; MAX_QUERY]; BATCH]),
            replies: Box::new(array::from_fn(reply)),
            headers: Headers {
                received: MultiHeaders::preallocate(BATCH, Some(control())),
                sent: MultiHeaders::preallocate(BATCH, None),
                sent_from: MultiHeaders::preallocate(BATCH, Some(control())),
                targets: [None; BATCH],
            },
            tap,
        }
    }

    /// Returns the socket, to wait for datagrams.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Returns the number of queries dropped since the last call because the queue was full.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.deferred.dropped)
    }

    /// Receives up to [`BATCH`] datagrams, passes each with its sender and a reply buffer to `answer`, and carries out the
    /// decisions. Returns the number of datagrams; fewer than [`BATCH`] if the receive buffer is empty.
    ///
    /// Replies that the kernel does not accept at once are dropped, like packets in the network: the client retries.
    pub(super) fn run(&mut self, answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Decision) -> io::Result<usize> {
        let result = match self.calls {
            Calls::Many => self.receive_many(answer),
            Calls::One => self.receive_one(answer),
        };
        let (received, replies) = match result {
            Ok(counts) => counts,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(Errno::ENOSYS | Errno::EPERM) if self.calls == Calls::Many => {
                self.calls = Calls::One;
                return Ok(BATCH);
            }
            Err(error) => return Err(error.into()),
        };
        self.send(replies);
        Ok(received)
    }

    fn receive_many(
        &mut self,
        mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Decision,
    ) -> Result<(usize, usize), Errno> {
        let mut queries = self.queries.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(queries.next().map_or(&mut [], |query| query))]);
        let fd = self.socket.as_raw_fd();
        let messages = recvmmsg(fd, &mut self.headers.received, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let tapped = tapped(&self.tap);
        let (mut received, mut replies) = (0, 0);
        for message in messages {
            received += 1;
            replies += usize::from(self.replies[replies].fill(&message, &mut answer, &mut self.deferred, tapped));
        }
        Ok((received, replies))
    }

    fn receive_one(
        &mut self,
        mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Decision,
    ) -> Result<(usize, usize), Errno> {
        let mut slices = [IoSliceMut::new(&mut self.queries[0])];
        let mut control = control();
        let fd = self.socket.as_raw_fd();
        let message = recvmsg(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let tapped = tapped(&self.tap);
        let replies = usize::from(self.replies[0].fill(&message, &mut answer, &mut self.deferred, tapped));
        // More datagrams may be waiting.
        Ok((BATCH, replies))
    }

    fn send(&mut self, count: usize) {
        let mut rest = &self.replies[..count];
        while let Some(first) = rest.first() {
            // One call sends replies with the same source address.
            let same = rest.iter().take_while(|reply| reply.from == first.from).count();
            let sent = match self.calls {
                Calls::Many => self.headers.send(self.socket.as_raw_fd(), &rest[..same]),
                Calls::One => send_one(self.socket.as_raw_fd(), first),
            };
            match sent {
                Ok(sent) => rest = &rest[sent.max(1)..],
                Err(Errno::ENOSYS) if self.calls == Calls::Many => self.calls = Calls::One,
                // The kernel rejected the first of the rest.
                Err(error) => {
                    debug!(%error, client = %first.to, "reply not sent");
                    rest = &rest[1..];
                }
            }
        }
    }
}

impl Headers {
    /// Sends replies with the same source address; returns the number that the kernel accepted.
    fn send(&mut self, fd: i32, replies: &[Reply]) -> Result<usize, Errno> {
        let slices: [[IoSlice<'_>; 1]; BATCH] =
            array::from_fn(|at| [IoSlice::new(replies.get(at).map_or(&[], |reply| &reply.octets))]);
        let slices = &slices[..replies.len()];
        for (target, reply) in self.targets.iter_mut().zip(replies) {
            *target = Some(reply.to);
        }
        let targets = &self.targets[..replies.len()];
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = match replies[0].from {
            Local::Socket => sendmmsg(fd, &mut self.sent, slices, targets, [], flags)?.count(),
            Local::V4(info) => {
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmmsg(fd, &mut self.sent_from, slices, targets, control, flags)?.count()
            }
            Local::V6(info) => {
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmmsg(fd, &mut self.sent_from, slices, targets, control, flags)?.count()
            }
        };
        Ok(sent)
    }
}

fn send_one(fd: i32, reply: &Reply) -> Result<usize, Errno> {
    let slices = [IoSlice::new(&reply.octets)];
    let (to, flags) = (Some(&reply.to), MsgFlags::MSG_DONTWAIT);
    match &reply.from {
        Local::Socket => sendmsg(fd, &slices, &[], flags, to)?,
        Local::V4(info) => sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(info)], flags, to)?,
        Local::V6(info) => sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(info)], flags, to)?,
    };
    Ok(1)
}

impl Reply {
    /// Passes a message to `answer`; returns whether there is a reply to send.
    fn fill(
        &mut self,
        message: &RecvMsg<'_, '_, SockaddrStorage>,
        answer: &mut impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Decision,
        deferred: &mut DeferQueue,
        tapped: Tapped<'_>,
    ) -> bool {
        let Some(to) = message.address else { return false };
        let Some(client) = ip(&to) else { return false };
        let query = message.iovs().next().unwrap_or_default();
        (self.to, self.from) = (to, local(message));
        let decision = answer(query, client, &mut self.octets);
        let send = decision.has_reply();
        if let Some((SocketTap { tap, bound }, received)) = tapped {
            tap.decided(self.flow(*bound), received, &decision, query, &self.octets);
        }
        let wants_reply = match decision {
            Decision::Reply(_) | Decision::Drop(_) => return send,
            Decision::ReplyAndRefresh(..) => false,
            Decision::Defer | Decision::Await | Decision::Transfer | Decision::Resolve(_) => true,
        };
        let is_repeated = matches!(decision, Decision::Defer | Decision::Await | Decision::Transfer);
        let query = if is_repeated { query.to_vec() } else { Vec::new() };
        let reply = Self { octets: Vec::new(), to, from: self.from };
        let reply_path = ReplyPath { client, since: Instant::now(), reply };
        if deferred.sender.try_send(Deferred { decision, query, reply_path }).is_err() {
            deferred.dropped += u64::from(wants_reply);
            debug!(%client, wants_reply, "deferred query dropped: the queue is full");
        }
        send
    }

    /// Returns the addresses of a query that a socket with this address received.
    fn flow(&self, bound: SocketAddr) -> Flow {
        let responder = match self.from {
            Local::Socket => bound.ip(),
            Local::V4(info) => Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into(),
            Local::V6(info) => Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
        };
        // Without the address of the client there would be no message.
        let initiator = address(&self.to).unwrap_or(SocketAddr::new(bound.ip(), 0));
        Flow { protocol: Protocol::Udp, initiator, responder: SocketAddr::new(responder, bound.port()) }
    }
}

impl ReplyPath {
    /// Returns the addresses of the query, which a socket with this address received.
    pub(super) fn flow(&self, bound: SocketAddr) -> Flow {
        self.reply.flow(bound)
    }

    /// Sends a reply; `socket` is the socket that received the query.
    pub(super) fn send(mut self, socket: &UdpSocket, reply: Vec<u8>) {
        self.reply.octets = reply;
        if let Err(error) = send_one(socket.as_raw_fd(), &self.reply) {
            debug!(%error, client = %self.client, "reply not sent");
        }
    }
}

/// Returns a buffer for the control messages of one datagram.
fn control() -> Vec<u8> {
    cmsg_space!(libc::in6_pktinfo)
}

/// Reads the clock of a tap, if there is one.
fn tapped(tap: &Option<SocketTap>) -> Tapped<'_> {
    tap.as_ref().map(|tap| (tap, unix_now()))
}

fn address(client: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = client.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| client.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
}

fn ip(client: &SockaddrStorage) -> Option<IpAddr> {
    address(client).map(|address| address.ip())
}

/// Returns the destination address of a message, as the source address of its reply.
fn local(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Local {
    // An error means that the control messages exceed the buffer, which the enabled options cannot cause.
    let Ok(mut control) = message.cmsgs() else { return Local::Socket };
    let local = control.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            // The routing table chooses the interface.
            Some(Local::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: info.ipi_spec_dst,
                ipi_addr: info.ipi_addr,
            }))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            // A link-local address is valid only on its link.
            let link_local = info.ipi6_addr.s6_addr[0] == 0xfe && info.ipi6_addr.s6_addr[1] & 0xc0 == 0x80;
            Some(Local::V6(libc::in6_pktinfo { ipi6_ifindex: if link_local { info.ipi6_ifindex } else { 0 }, ..info }))
        }
        _ => None,
    });
    local.unwrap_or(Local::Socket)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::metrics::{Account, Source};

    const NOTHING: Account = Account { qtype: 0, source: Source::Zone, rcode: None, truncated: false, tier: None };

    #[test]
    fn replies_are_sent_from_the_queried_address_with_batched_and_single_calls() {
        for calls in [Calls::Many, Calls::One] {
            for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
                let socket = UdpSocket::bind(listen).unwrap();
                prepare(&socket).unwrap();
                let bound = socket.local_addr().unwrap();
                let mut exchange = Exchange { calls, ..Exchange::new(socket, sync_channel(1).0, None) };
                let targets: &[&str] = match listen {
                    "127.0.0.1:0" => &["127.0.0.1"],
                    "0.0.0.0:0" => &["127.0.0.1", "127.0.0.2", "127.0.0.3"],
                    _ => &["::1"],
                };
                let clients: Vec<UdpSocket> = (0..2 * BATCH)
                    .map(|at| {
                        let target: IpAddr = targets[at % targets.len()].parse().unwrap();
                        let client = UdpSocket::bind((target, 0)).unwrap();
                        client.connect((target, bound.port())).unwrap();
                        client.set_nonblocking(true).unwrap();
                        client
                    })
                    .collect();
                for (at, client) in clients.iter().enumerate() {
                    client.send(&[at as u8; 20]).unwrap();
                }
                let mut left = clients.len();
                while left > 0 {
                    exchange
                        .run(|query, client, reply| {
                            assert!(client.is_loopback());
                            left -= 1;
                            reply.clear();
                            reply.extend(query.iter().map(|octet| octet + 1));
                            if query[0] == 3 { Decision::Drop(NOTHING) } else { Decision::Reply(NOTHING) }
                        })
                        .unwrap();
                }
                for (at, client) in clients.iter().enumerate() {
                    let mut reply = [0; 100];
                    match client.recv(&mut reply) {
                        Ok(len) => assert_eq!(reply[..len], [at as u8 + 1; 20], "{listen} {at}"),
                        Err(error) => assert_eq!((at, error.kind()), (3, io::ErrorKind::WouldBlock), "{listen}"),
                    }
                }
                assert_eq!(exchange.run(|_, _, _| Decision::Drop(NOTHING)).unwrap() % BATCH, 0, "no datagram is left");
            }
        }
    }

    #[test]
    fn deferred_queries_do_not_delay_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&socket).unwrap();
        let (server, sender) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
        let (deferred, queue) = sync_channel(2);
        let mut exchange = Exchange::new(socket, deferred, None);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server).unwrap();
        for query in *b"DDDDF" {
            client.send(&[query]).unwrap();
        }
        let mut left = 5;
        while left > 0 {
            exchange
                .run(|query, _, reply| {
                    left -= 1;
                    *reply = query.to_vec();
                    if query == b"D" { Decision::Defer } else { Decision::Reply(NOTHING) }
                })
                .unwrap();
        }
        let receive = || {
            let mut reply = [0; 10];
            let len = client.recv(&mut reply).unwrap();
            reply[..len].to_vec()
        };
        assert_eq!(receive(), b"F", "answered before the deferred queries");
        let deferred: Vec<Deferred> = queue.try_iter().collect();
        assert_eq!(deferred.len(), 2, "queries are dropped while the queue is full");
        for query in deferred {
            let reply = [&query.query[..], b"one"].concat();
            query.reply_path.send(&sender, reply);
            assert_eq!(receive(), b"Done");
        }
    }
}
