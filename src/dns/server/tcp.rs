//! Messages over TCP (RFC 7766) to the engine and back.
//!
//! A connection may send several queries without waiting; what we know is answered in turn, and the answers of queries that
//! came together leave together. What an upstream has to be asked is answered when that is done, and holds nothing up (RFC
//! 7766 §6.2.1.1). Everything is bounded: connections, in all and for each client, the time that one may idle, the time that
//! a write may take, and what is read before its answer is taken.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
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
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{accept::accept, connection_quota::ConnectionQuota};
use crate::{
    dns::{
        engine::{Client, Engine, Origin, Outcome, Transport},
        resolver::Resolver,
        socket,
        zone::Tables,
    },
    metrics::Tally,
};

/// Connections at once, of all listeners, where the process may open enough files; one more is closed as soon as it is
/// accepted.
const MAX_CONNECTIONS: usize = 16_384;
/// The part of the process's files that connections may take: half are for probes, and the rest must do for commands
/// and folders. Idle clients must not keep the health of a service from being seen.
const SHARE_OF_FILES: u64 = 4;
/// How long a client may take to read its answers.
const WRITE: Duration = Duration::from_secs(5);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;
/// The longest query, as over UDP. A message that says to be longer is none, and nobody waits for it with a buffer.
pub(crate) const MAX_QUERY: usize = 4096;
/// What is read at once; a longer message takes several reads.
const READ: usize = 4096;
/// Answers are written out when they reach this, even if more queries wait.
const FLUSH: usize = 64 * 1024;
/// Queries of one connection that wait for an upstream; nothing more is read from it before one of them is done.
pub(crate) const MAX_WAITING: usize = 64;

/// How many connections this process can bear. Raise its limit of open files first.
pub fn most_connections() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(open_files / SHARE_OF_FILES).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

/// Binds a listener for [`serve`].
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket::open(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    /// What is answered.
    pub tables: Arc<ArcSwap<Tables>>,
    /// The connections of all listeners.
    pub clients: Arc<ConnectionQuota>,
    /// Who knows names that are not ours.
    pub resolver: Option<Resolver>,
    /// Where what is answered is counted.
    pub tally: Arc<Tally>,
    /// Ends accepting at once and connections at their next pause.
    pub shutdown: CancellationToken,
}

impl Shared {
    /// The reply to one message that came over a transport with messages of its own; `None` where silence is the answer.
    pub(crate) async fn respond(&self, mut engine: Engine, packet: &[u8], address: IpAddr) -> Option<Vec<u8>> {
        let now = socket::now();
        let origin = Origin { transport: Transport::Tcp, client: Some(Client { address, now }) };
        let mut reply = Vec::new();
        let mut outcome = engine.answer(&self.tables.load(), packet, origin, &mut reply);
        if matches!(outcome, Outcome::Beyond | Outcome::Relayed { refresh: true }) {
            let (resolver, forward) = self.resolver.as_ref().zip(engine.forward(&self.tables.load(), packet))?;
            if outcome == Outcome::Beyond {
                let found = resolver.resolve(forward).await;
                engine.relay(&self.tables.load(), packet, origin, found.parts(), &mut reply);
                outcome = Outcome::Relayed { refresh: false };
            } else {
                resolver.refresh(forward);
            }
        }
        if let Some(account) = engine.account(outcome, &reply) {
            self.tally.count(account);
            self.tally.took(socket::now().saturating_sub(now), 1);
        }
        matches!(outcome, Outcome::Reply(_) | Outcome::Relayed { .. }).then_some(reply)
    }
}

/// Answers connections until shutdown, then waits for those that are open to finish what they read.
pub async fn serve<E>(listener: TcpListener, shared: Shared, engine: E)
where
    E: Fn() -> Engine + Clone + Send + Sync + 'static,
{
    let (clients, shutdown) = (shared.clients.clone(), shared.shutdown.clone());
    let serve = move |stream, client: SocketAddr| {
        let (shared, engine) = (shared.clone(), engine.clone());
        async move {
            if let Err(error) = converse(stream, client.ip(), &shared, engine).await {
                debug!(%client, %error, "TCP connection ended");
            }
        }
    };
    accept(listener, &clients, &shutdown, serve).await;
}

/// Answers what comes over a connection. While it waits a connection has neither buffers nor an engine: thousands of idle
/// ones cost next to nothing.
pub(crate) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: IpAddr,
    shared: &Shared,
    engine: impl Fn() -> Engine + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let mut input = Vec::new();
    let mut waiting = JoinSet::<Vec<u8>>::new();
    let mut is_open = true;
    let mut deadline = Instant::now() + shared.clients.patience();
    while is_open || !waiting.is_empty() {
        let read = tokio::select! {
            Some(done) = waiting.join_next(), if !waiting.is_empty() => {
                if let Ok(reply) = done {
                    write(&mut stream, &framed(&reply)).await?;
                }
                deadline = Instant::now() + shared.clients.patience();
                continue;
            }
            read = read(&mut stream, &mut input), if is_open && waiting.len() < MAX_WAITING => read?,
            () = sleep_until(deadline), if waiting.is_empty() => return Err(io::ErrorKind::TimedOut.into()),
            () = shared.shutdown.cancelled(), if waiting.is_empty() => return Ok(()),
        };
        // The client has no more questions, and waits for what it asked.
        if read == 0 {
            is_open = false;
            continue;
        }
        loop {
            let now = socket::now();
            let origin = Origin { transport: Transport::Tcp, client: Some(Client { address, now }) };
            let burst = answer(&input, &shared.tables.load(), engine(), origin, &shared.tally);
            let Burst { done, answered, output, beyond, next } = burst;
            input.drain(..done);
            if done > 0 {
                // Octets that make no message do not prolong a connection.
                deadline = Instant::now() + shared.clients.patience();
            }
            for Beyond { packet, kind } in beyond {
                let forward = engine().forward(&shared.tables.load(), &packet);
                let Some((resolver, forward)) = shared.resolver.clone().zip(forward) else { continue };
                if kind == Kind::Refresh {
                    resolver.refresh(forward);
                    continue;
                }
                let (engine, tables, tally) = (engine.clone(), shared.tables.clone(), shared.tally.clone());
                waiting.spawn(async move {
                    let found = resolver.resolve(forward).await;
                    let (mut engine, mut reply) = (engine(), Vec::new());
                    engine.relay(&tables.load(), &packet, origin, found.parts(), &mut reply);
                    if let Some(account) = engine.account(Outcome::Relayed { refresh: false }, &reply) {
                        tally.count(account);
                        tally.took(socket::now().saturating_sub(now), 1);
                    }
                    reply
                });
            }
            write(&mut stream, &output).await?;
            if answered > 0 {
                shared.tally.took(socket::now().saturating_sub(now), answered);
            }
            match next {
                Next::Again => {}
                Next::Wait => break,
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
    timeout(WRITE, async {
        stream.write_all(output).await?;
        stream.flush().await
    })
    .await?
}

/// A message with its length in front.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend((message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// Reads what is there, up to [`READ`]. By way of the stack, so that a connection which waits has no buffer, and a short
/// query leaves no hole of that size among what other connections keep.
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

/// Some of what was read, answered.
struct Burst {
    /// Octets of messages that are done with.
    done: usize,
    /// Messages that have an answer, or get none.
    answered: u64,
    /// Answers, each with its length in front.
    output: Vec<u8>,
    /// What upstreams have to be asked.
    beyond: Vec<Beyond>,
    next: Next,
}

/// A query that an upstream has to be asked.
struct Beyond {
    packet: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The client waits for it.
    Resolve,
    /// The client has its answer; the next one shall have a newer one.
    Refresh,
}

/// What comes after a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More messages that were read.
    Again,
    /// What is not there yet.
    Wait,
    /// Nothing: this is no DNS client.
    Close,
}

/// Answers the messages that are whole, until the answers are long enough to be written.
fn answer(input: &[u8], tables: &Tables, mut engine: Engine, origin: Origin, tally: &Tally) -> Burst {
    let mut burst = Burst { done: 0, answered: 0, output: Vec::new(), beyond: Vec::new(), next: Next::Wait };
    let mut reply = Vec::new();
    while let Some(message) = first_message(&input[burst.done..]) {
        if burst.output.len() >= FLUSH || burst.beyond.len() >= MAX_WAITING {
            burst.next = Next::Again;
            return burst;
        }
        burst.done += 2 + message.len();
        let outcome = engine.answer(tables, message, origin, &mut reply);
        if let Some(account) = engine.account(outcome, &reply) {
            tally.count(account);
            burst.answered += 1;
        }
        let beyond = match outcome {
            Outcome::Reply(_) | Outcome::Relayed { refresh: false } => None,
            Outcome::Relayed { refresh: true } => Some(Kind::Refresh),
            Outcome::Beyond => Some(Kind::Resolve),
            // What is no query over TCP is no DNS client; what it asked before is answered.
            Outcome::Silence | Outcome::Slow => {
                burst.next = Next::Close;
                return burst;
            }
        };
        burst.beyond.extend(beyond.map(|kind| Beyond { packet: message.to_vec(), kind }));
        if beyond == Some(Kind::Resolve) {
            continue;
        }
        burst.output.extend((reply.len() as u16).to_be_bytes());
        burst.output.extend_from_slice(&reply);
    }
    if let [high, low, ..] = input[burst.done..]
        && usize::from(u16::from_be_bytes([high, low])) > MAX_QUERY
    {
        burst.next = Next::Close;
    }
    burst
}

/// The first message of what was read, without its length; `None` while it is not whole.
fn first_message(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_at_checked(2)?;
    rest.get(..usize::from(u16::from_be_bytes([length[0], length[1]])))
}
