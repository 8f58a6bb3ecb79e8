//! DNS over TCP (RFC 7766).
//!
//! Clients may pipeline queries. Local answers are sent in order, with one write per burst; answers of upstreams follow out of
//! order when they arrive (RFC 7766 §6.2.1.1). Limits apply to connections in total and per client, the idle time, the time of
//! a write, and unsent output.

use std::{
    future::poll_fn,
    io,
    net::{self, Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Protocol, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{accept::accept, backends::Backends, connection_quota::ConnectionQuota, transfers};
use crate::{
    dns::{
        collector::TappedQuery,
        engine::{Client, Decision, Engine, Origin, Pending, Transport},
        recursion::upstream_query::Forward,
        socket,
        tap::{self, Flow, Kind},
        update::message::is_update,
        zone::Tables,
    },
    metrics::Tally,
};

/// Maximum number of connections of all listeners, if the file limit allows. Further connections are closed on accept.
const MAX_CONNECTIONS: usize = 16_384;
/// Connections may use 1/4 of the process's file limit. Half is for health checks, and the rest for commands and folders, so that
/// idle clients cannot block health checks.
const FILE_LIMIT_FRACTION: u64 = 4;
/// Write timeout: the time a client may take to read its answers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after the shutdown in which a connection takes queries: those that are on their way are answered, not reset.
const LAST_QUERIES: Duration = Duration::from_millis(250);
/// Listen backlog.
const BACKLOG: i32 = 1024;
/// Maximum length of a query in octets, as over UDP. A longer length prefix closes the connection.
pub(crate) const MAX_QUERY: usize = 4096;
/// Connections that may send an update longer than [`MAX_QUERY`] at the same time. It has up to 65,535 octets, and is kept in memory
/// before its signature can be verified.
const MAX_LONG_UPDATES: usize = 64;
/// Octets per read; a longer message takes several reads.
const READ: usize = 4096;
/// Octets of output after which answers are written, even if more queries are buffered.
const FLUSH: usize = 64 * 1024;
/// Maximum number of queries of one connection that wait for an upstream. Reading pauses at the limit.
pub(crate) const MAX_WAITING: usize = 64;

/// Returns the connection limit of this process, which depends on its file limit: raise that first.
pub fn most_connections() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(open_files / FILE_LIMIT_FRACTION).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

/// Binds a non-blocking listener for [`serve`].
///
/// # Errors
/// The address is in use or not available.
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = socket::open(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not fail because of connections of the previous process.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// State shared by all connections.
#[derive(Clone)]
pub struct Shared {
    /// Tables to answer from.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Connection quota of all listeners.
    pub clients: Arc<ConnectionQuota>,
    /// Resolver, server of transfers, and tap.
    pub backends: Backends,
    /// Query counters.
    pub tally: Arc<Tally>,
    /// Stops accepting at once, and ends connections when they are idle.
    pub shutdown: CancellationToken,
}

/// The own end of a connection that was not read.
const UNKNOWN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// Permits for long updates, of all connections of the process.
static LONG_UPDATES: Semaphore = Semaphore::const_new(MAX_LONG_UPDATES);

impl Shared {
    /// Returns the transport and both ends of a connection of a client. Without a tap, the own end is not read.
    pub(crate) fn flow(&self, protocol: tap::Protocol, stream: &TcpStream, client: SocketAddr) -> Flow {
        let own = self.backends.tap.as_ref().and_then(|_| stream.local_addr().ok());
        Flow { protocol, initiator: client, responder: own.unwrap_or(UNKNOWN) }
    }

    /// Returns the reply to one message of a message-oriented transport (HTTPS, QUIC); `None` if the message gets no reply.
    pub(crate) async fn respond(&self, mut engine: Engine, packet: &[u8], flow: Flow) -> Option<Vec<u8>> {
        let (now, address) = (socket::now(), flow.initiator.ip());
        let Backends { resolver, transfers, tap } = &self.backends;
        let tapped = tap.as_ref().map(|tap| tap.query(flow));
        let origin = Origin { transport: Transport::Tcp, client: Some(Client { address, now }) };
        let mut reply = Vec::new();
        let decision = engine.answer(&self.tables.load(), packet, origin, &mut reply);
        if let Some(tapped) = &tapped {
            tapped.decided(&decision, packet, &reply);
        }
        let account = match decision {
            Decision::Reply(account) | Decision::Drop(account) => account,
            Decision::ReplyAndRefresh(account, forward) => {
                resolver.as_ref()?.refresh(address, &forward);
                account
            }
            Decision::Resolve(pending) => {
                let found = resolver.as_ref()?.resolve(address, &pending.forward).await;
                let account = pending.relay(&self.tables.load(), found.parts(), &mut reply);
                if let Some(tapped) = tapped {
                    tapped.response(Kind::Client, &reply);
                }
                account
            }
            Decision::Transfer => {
                let (transfers, kind) = (transfers.as_ref()?, transfers::kind(packet));
                if let Some(tapped) = &tapped {
                    tapped.query(kind, packet);
                }
                // The transport has one reply for each message, as UDP has.
                let mut replies = transfers.serve(packet.to_vec(), Origin { transport: Transport::Udp, ..origin });
                let reply = replies.recv().await?;
                if let Some(tapped) = tapped {
                    tapped.response(kind, &reply);
                }
                self.tally.count(transfers::account(packet, &reply));
                return Some(reply);
            }
            // The servers of connections start after the first exchange.
            Decision::Defer | Decision::Await => return None,
        };
        self.tally.count(account);
        self.tally.took(socket::now().saturating_sub(now), 1);
        account.rcode.is_some().then_some(reply)
    }
}

/// Serves connections until shutdown, then waits for open ones to answer the queries they have read.
pub async fn serve<E>(listener: TcpListener, shared: Shared, engine: E)
where
    E: Fn() -> Engine + Clone + Send + Sync + 'static,
{
    let (clients, shutdown) = (shared.clients.clone(), shared.shutdown.clone());
    let serve = move |stream, client: SocketAddr| {
        let (shared, engine) = (shared.clone(), engine.clone());
        async move {
            let flow = shared.flow(tap::Protocol::Tcp, &stream, client);
            if let Err(error) = serve_connection(stream, flow, &shared, engine).await {
                debug!(%client, %error, "TCP connection ended");
            }
        }
    };
    accept(listener, &clients, &shutdown, serve).await;
}

/// Serves one connection. An idle connection holds neither buffers nor an engine, so that thousands of them cost little memory.
pub(crate) async fn serve_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    flow: Flow,
    shared: &Shared,
    engine: impl Fn() -> Engine + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let address = flow.initiator.ip();
    let Backends { resolver, transfers, tap } = &shared.backends;
    let mut input = Vec::new();
    let mut long_update = None;
    let mut waiting = JoinSet::<Vec<u8>>::new();
    let (mut is_open, mut is_stopping) = (true, false);
    let mut deadline = Instant::now() + shared.clients.idle_timeout();
    while is_open || !waiting.is_empty() {
        let read = tokio::select! {
            Some(done) = waiting.join_next(), if !waiting.is_empty() => {
                if let Ok(reply) = done {
                    write(&mut stream, &framed(&reply)).await?;
                }
                if !is_stopping {
                    deadline = Instant::now() + shared.clients.idle_timeout();
                }
                continue;
            }
            read = read(&mut stream, &mut input), if is_open && waiting.len() < MAX_WAITING => read?,
            () = sleep_until(deadline), if waiting.is_empty() => {
                return if is_stopping { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
            }
            () = shared.shutdown.cancelled(), if !is_stopping => {
                is_stopping = true;
                deadline = deadline.min(Instant::now() + LAST_QUERIES);
                continue;
            }
        };
        // The client has closed its side, and still waits for answers.
        if read == 0 {
            is_open = false;
            continue;
        }
        loop {
            let now = socket::now();
            let origin = Origin { transport: Transport::Tcp, client: Some(Client { address, now }) };
            let tapped = tap.as_ref().map(|tap| tap.query(flow));
            let burst = answer(&input, &shared.tables.load(), engine(), origin, &shared.tally, tapped.as_ref());
            let Burst { done, answered, output, pending, refresh, next, transfer } = burst;
            let transfer = transfer.map(|range| input[range].to_vec());
            input.drain(..done);
            if done > 0 && !is_stopping {
                // An incomplete message does not extend the idle timeout.
                deadline = Instant::now() + shared.clients.idle_timeout();
            }
            if let Some(resolver) = resolver {
                refresh.iter().for_each(|forward| resolver.refresh(address, forward));
                for pending in pending {
                    let (resolved, tally) = (resolver.resolve(address, &pending.forward), shared.tally.clone());
                    let (tables, tapped) = (shared.tables.clone(), tapped.clone());
                    waiting.spawn(async move {
                        let found = resolved.await;
                        let mut reply = Vec::new();
                        tally.count(pending.relay(&tables.load(), found.parts(), &mut reply));
                        if let Some(tapped) = tapped {
                            tapped.response(Kind::Client, &reply);
                        }
                        tally.took(socket::now().saturating_sub(now), 1);
                        reply
                    });
                }
            }
            write(&mut stream, &output).await?;
            if let (Some(packet), Some(transfers)) = (transfer, transfers) {
                let kind = transfers::kind(&packet);
                if let Some(tapped) = &tapped {
                    tapped.query(kind, &packet);
                }
                let mut replies = transfers.serve(packet.clone(), origin);
                let mut is_first = true;
                while let Some(reply) = replies.recv().await {
                    if std::mem::take(&mut is_first) {
                        shared.tally.count(transfers::account(&packet, &reply));
                        if let Some(tapped) = &tapped {
                            tapped.response(kind, &reply);
                        }
                    }
                    write(&mut stream, &framed(&reply)).await?;
                }
                if !is_stopping {
                    deadline = Instant::now() + shared.clients.idle_timeout();
                }
            }
            if answered > 0 {
                shared.tally.took(socket::now().saturating_sub(now), answered);
            }
            match next {
                Next::Continue => {}
                Next::Read => {
                    long_update = None;
                    break;
                }
                Next::ReadUpdate => {
                    if long_update.is_none() {
                        long_update = LONG_UPDATES.try_acquire().ok();
                    }
                    is_open &= long_update.is_some() && transfers.is_some();
                    break;
                }
                Next::Close => {
                    is_open = false;
                    break;
                }
            }
        }
        if input.is_empty() {
            input = Vec::new();
        }
    }
    Ok(())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), output: &[u8]) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    timeout(WRITE_TIMEOUT, async {
        stream.write_all(output).await?;
        stream.flush().await
    })
    .await?
}

/// Returns a message with its length prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend((message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Reads up to [`READ`] octets. The read buffer is on the stack: a waiting connection needs no buffer, and short queries do not
/// fragment the heap.
async fn read(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        let mut octets = [0; READ];
        let mut read = ReadBuf::new(&mut octets);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
        input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// Result of answering buffered messages.
struct Burst {
    /// Length of the processed messages in octets.
    done: usize,
    /// Number of messages counted: with a reply, or dropped.
    answered: u64,
    /// Replies with length prefixes.
    output: Vec<u8>,
    /// Queries that wait for an upstream.
    pending: Vec<Pending>,
    /// Questions that refresh stale cache entries.
    refresh: Vec<Forward>,
    next: Next,
    /// Place in the input of a message for the server of transfers, which is the last processed one.
    transfer: Option<Range<usize>>,
}

/// Next step of a connection after a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Answer more buffered messages.
    Continue,
    /// Read more octets.
    Read,
    /// Read more octets of a long update.
    ReadUpdate,
    /// Close: the peer is not a DNS client.
    Close,
}

/// Answers the complete messages, up to [`FLUSH`] octets of output.
fn answer(
    input: &[u8],
    tables: &Tables,
    mut engine: Engine,
    origin: Origin,
    tally: &Tally,
    tapped: Option<&TappedQuery>,
) -> Burst {
    let (output, pending, refresh) = (Vec::new(), Vec::new(), Vec::new());
    let mut burst = Burst { done: 0, answered: 0, output, pending, refresh, next: Next::Read, transfer: None };
    let mut reply = Vec::new();
    while let Some(message) = first_message(&input[burst.done..]) {
        if burst.output.len() >= FLUSH || burst.pending.len() >= MAX_WAITING {
            burst.next = Next::Continue;
            return burst;
        }
        burst.done += 2 + message.len();
        let decision = engine.answer(tables, message, origin, &mut reply);
        if let Some(account) = decision.account() {
            tally.count(account);
            burst.answered += 1;
        }
        if let Some(tapped) = tapped {
            tapped.decided(&decision, message, &reply);
        }
        match decision {
            Decision::Reply(_) => {}
            Decision::ReplyAndRefresh(_, forward) => burst.refresh.push(*forward),
            Decision::Resolve(pending) => {
                burst.pending.push(*pending);
                continue;
            }
            Decision::Transfer => {
                burst.transfer = Some(burst.done - message.len()..burst.done);
                burst.next = Next::Continue;
                return burst;
            }
            // A peer that sends a message other than a query is not a DNS client. Its earlier queries are answered.
            Decision::Drop(_) | Decision::Defer | Decision::Await => {
                burst.next = Next::Close;
                return burst;
            }
        }
        burst.output.extend((reply.len() as u16).to_be_bytes());
        burst.output.extend_from_slice(&reply);
    }
    if let [high, low, ref message @ ..] = input[burst.done..]
        && usize::from(u16::from_be_bytes([high, low])) > MAX_QUERY
    {
        let is_long = engine.serves_updates() && (message.len() < 3 || is_update(message));
        burst.next = if is_long { Next::ReadUpdate } else { Next::Close };
    }
    burst
}

/// Returns the first message of the input without its length prefix; `None` while it is incomplete.
fn first_message(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_at_checked(2)?;
    rest.get(..usize::from(u16::from_be_bytes([length[0], length[1]])))
}
