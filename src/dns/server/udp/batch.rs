//! Many datagrams for one system call, each way.
//!
//! An [`Exchange`] owns a socket and everything that a turn needs; a turn allocates nothing. Replies leave from the
//! address that was asked, also where the socket listens on all of a host's (`IP_PKTINFO`, RFC 3542 §6.2). Where the
//! kernel or a sandbox refuses the calls for many datagrams, each gets one of its own.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::mpsc::SyncSender,
    time::Instant,
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

/// Datagrams of one turn. From eight on there was no further gain where system calls are cheap; where they are dear, there
/// is some up to here. The first reply of a turn waits for the last one: more would only cost time.
pub(super) const BATCH: usize = 16;
/// The longest query that is read. Queries are short; what is longer is cut and then malformed.
const MAX_QUERY: usize = 4096;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The reply is written: it is sent.
    Send,
    /// There is none.
    Silence,
    /// Somebody else does this, when there is time.
    Later(Work),
    /// The reply is sent, and somebody else does this besides.
    SendAndLater(Work),
}

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// To answer from the tables.
    Answer,
    /// To ask an upstream, and to answer.
    Resolve,
    /// To ask an upstream for who asks next.
    Refresh,
}

/// A datagram that somebody else has work with.
pub(super) struct Deferred {
    pub(super) work: Work,
    pub(super) query: Vec<u8>,
    pub(super) client: IpAddr,
    /// When it was put aside.
    pub(super) since: Instant,
    reply: Reply,
}

/// Where datagrams go that somebody else has work with.
struct Later {
    queue: SyncSender<Deferred>,
    /// Those that wanted an answer and for which there was no place.
    lost: u64,
}

/// A socket, and room for one turn's datagrams.
pub(super) struct Exchange {
    socket: UdpSocket,
    later: Later,
    calls: Calls,
    queries: Box<[[u8; MAX_QUERY]; BATCH]>,
    replies: Box<[Reply; BATCH]>,
    headers: Headers,
}

/// What is kept for the system calls from turn to turn.
struct Headers {
    received: MultiHeaders<SockaddrStorage>,
    /// Replies that the routing table gives an address.
    sent: MultiHeaders<SockaddrStorage>,
    /// Replies with the address that was asked.
    sent_from: MultiHeaders<SockaddrStorage>,
    targets: [Option<SockaddrStorage>; BATCH],
}

/// Which system calls there are.
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

/// The address that a query was sent to, where the socket does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Local {
    /// The socket has one address.
    Socket,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Makes a bound socket tell which address was asked, where it has several, and never block.
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        _ => {}
    }
    socket.set_nonblocking(true)
}

impl Exchange {
    /// Takes a socket that is [prepared](prepare), and where datagrams go that somebody else answers. What that does not
    /// take at once is dropped: it cannot hold up the others.
    pub(super) fn new(socket: UdpSocket, later: SyncSender<Deferred>) -> Self {
        let nobody = SockaddrStorage::from(SocketAddr::from(([0; 4], 0)));
        let reply = |_| Reply { octets: Vec::with_capacity(MAX_QUERY), to: nobody, from: Local::Socket };
        Self {
            socket,
            later: Later { queue: later, lost: 0 },
            calls: Calls::Many,
            queries: Box::new([[0; MAX_QUERY]; BATCH]),
            replies: Box::new(array::from_fn(reply)),
            headers: Headers {
                received: MultiHeaders::preallocate(BATCH, Some(control())),
                sent: MultiHeaders::preallocate(BATCH, None),
                sent_from: MultiHeaders::preallocate(BATCH, Some(control())),
                targets: [None; BATCH],
            },
        }
    }

    /// The socket, to wait for datagrams.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How many queries were lost since the last call, because nobody had time for them.
    pub(super) fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.later.lost)
    }

    /// Hands each datagram that is there, [`BATCH`] at most, to `answer`, with who sent it and where the reply goes, and does
    /// with it what that says. Returns how many datagrams there were; fewer than [`BATCH`]: no more have come yet.
    ///
    /// What the kernel does not take at once is dropped, as the network would drop it: the client asks again, and nothing
    /// queues up here.
    pub(super) fn turn(&mut self, answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Verdict) -> io::Result<usize> {
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
        mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Verdict,
    ) -> Result<(usize, usize), Errno> {
        let mut queries = self.queries.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(queries.next().map_or(&mut [], |query| query))]);
        let fd = self.socket.as_raw_fd();
        let messages = recvmmsg(fd, &mut self.headers.received, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let (mut received, mut replies) = (0, 0);
        for message in messages {
            received += 1;
            replies += usize::from(self.replies[replies].fill(&message, &mut answer, &mut self.later));
        }
        Ok((received, replies))
    }

    fn receive_one(
        &mut self,
        mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Verdict,
    ) -> Result<(usize, usize), Errno> {
        let mut slices = [IoSliceMut::new(&mut self.queries[0])];
        let mut control = control();
        let fd = self.socket.as_raw_fd();
        let message = recvmsg(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let replies = usize::from(self.replies[0].fill(&message, &mut answer, &mut self.later));
        // There may be more.
        Ok((BATCH, replies))
    }

    fn send(&mut self, count: usize) {
        let mut rest = &self.replies[..count];
        while let Some(first) = rest.first() {
            // Together goes what leaves from one address.
            let same = rest.iter().take_while(|reply| reply.from == first.from).count();
            let sent = match self.calls {
                Calls::Many => self.headers.send(self.socket.as_raw_fd(), &rest[..same]),
                Calls::One => send_one(self.socket.as_raw_fd(), first),
            };
            match sent {
                Ok(sent) => rest = &rest[sent.max(1)..],
                Err(Errno::ENOSYS) if self.calls == Calls::Many => self.calls = Calls::One,
                // What was not taken is the first of the rest.
                Err(error) => {
                    debug!(%error, client = %first.to, "reply not sent");
                    rest = &rest[1..];
                }
            }
        }
    }
}

impl Headers {
    /// Sends replies that leave from one address; returns how many the kernel took.
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
    /// Has a message answered; says whether there is something to send.
    fn fill(
        &mut self,
        message: &RecvMsg<'_, '_, SockaddrStorage>,
        answer: &mut impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> Verdict,
        later: &mut Later,
    ) -> bool {
        let Some(to) = message.address else { return false };
        let Some(client) = ip(&to) else { return false };
        let query = message.iovs().next().unwrap_or_default();
        (self.to, self.from) = (to, local(message));
        let (send, work) = match answer(query, client, &mut self.octets) {
            Verdict::Send => (true, None),
            Verdict::Silence => (false, None),
            Verdict::Later(work) => (false, Some(work)),
            Verdict::SendAndLater(work) => (true, Some(work)),
        };
        if let Some(work) = work {
            let reply = Self { octets: Vec::new(), to, from: self.from };
            let deferred = Deferred { work, query: query.to_vec(), client, since: Instant::now(), reply };
            if later.queue.try_send(deferred).is_err() {
                later.lost += u64::from(work != Work::Refresh);
                debug!(%client, ?work, "no time for a query that takes long");
            }
        }
        send
    }
}

impl Deferred {
    /// Sends a reply by the socket that the query came by.
    pub(super) fn send(mut self, socket: &UdpSocket, reply: Vec<u8>) {
        self.reply.octets = reply;
        if let Err(error) = send_one(socket.as_raw_fd(), &self.reply) {
            debug!(%error, client = %self.client, "reply not sent");
        }
    }
}

/// Room for what the kernel says of one datagram.
fn control() -> Vec<u8> {
    cmsg_space!(libc::in6_pktinfo)
}

fn ip(client: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = client.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| client.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Where the reply to a message leaves from.
fn local(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Local {
    // An error: the kernel said more than there is room for, and nobody asked it to.
    let Ok(mut said) = message.cmsgs() else { return Local::Socket };
    let local = said.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            // The route decides on the interface, as for everything else that leaves.
            Some(Local::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: info.ipi_spec_dst,
                ipi_addr: info.ipi_addr,
            }))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            // But a link-local address means something on its link only.
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

    /// Datagrams go in and come back, whichever calls there are, and leave from where they were sent to.
    #[test]
    fn with_calls_for_many_datagrams_and_without_all_are_answered() {
        for calls in [Calls::Many, Calls::One] {
            for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
                let socket = UdpSocket::bind(listen).unwrap();
                prepare(&socket).unwrap();
                let bound = socket.local_addr().unwrap();
                let mut exchange = Exchange { calls, ..Exchange::new(socket, sync_channel(1).0) };
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
                        .turn(|query, client, reply| {
                            assert!(client.is_loopback());
                            left -= 1;
                            reply.clear();
                            reply.extend(query.iter().map(|octet| octet + 1));
                            if query[0] == 3 { Verdict::Silence } else { Verdict::Send }
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
                assert_eq!(exchange.turn(|_, _, _| Verdict::Silence).unwrap() % BATCH, 0, "nothing is left");
            }
        }
    }

    #[test]
    fn what_is_for_later_waits_in_a_queue_that_holds_nothing_up() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&socket).unwrap();
        let (server, by) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
        let (later, queue) = sync_channel(2);
        let mut exchange = Exchange::new(socket, later);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server).unwrap();
        for query in *b"LLLLS" {
            client.send(&[query]).unwrap();
        }
        let mut left = 5;
        while left > 0 {
            exchange
                .turn(|query, _, reply| {
                    left -= 1;
                    *reply = query.to_vec();
                    if query == b"L" { Verdict::Later(Work::Answer) } else { Verdict::Send }
                })
                .unwrap();
        }
        let receive = || {
            let mut reply = [0; 10];
            let len = client.recv(&mut reply).unwrap();
            reply[..len].to_vec()
        };
        assert_eq!(receive(), b"S", "it did not wait for those before it");
        let deferred: Vec<Deferred> = queue.try_iter().collect();
        assert_eq!(deferred.len(), 2, "what the queue does not hold is dropped");
        for query in deferred {
            let reply = [&query.query[..], b"ate"].concat();
            query.send(&by, reply);
            assert_eq!(receive(), b"Late");
        }
    }
}
