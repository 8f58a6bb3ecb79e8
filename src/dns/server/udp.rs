//! DNS over UDP.
//!
//! Each address has a worker thread and a socket per core (SO_REUSEPORT); the kernel distributes clients to the sockets. Workers
//! are not threads of the async runtime, so that gossip, checks and HTTP never delay an answer. A slow thread per worker handles
//! deferred queries.

mod batch;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    num::NonZero,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, cache::Cache};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
use socket2::{Protocol, Type};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use self::batch::{BATCH, Deferred, Exchange, ReplyPath, SocketTap};
use super::{backends::Backends, transfers};
use crate::{
    clock::unix_now,
    dns::{
        collector::TappedQuery,
        engine::{Client, Decision, Engine, Origin, Pending, Transport},
        recursion::upstream_query::Forward,
        socket,
        tap::Kind,
        zone::Tables,
    },
    metrics::{Account, Dns, Tally, Transport as By, Writers},
};

/// Maximum number of workers per address. One worker answers some 250,000 queries per second.
const MAX_WORKERS: usize = 8;
/// Receive buffer of each worker's socket in octets: a burst of some 10,000 queries.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Maximum number of batches answered from the receive buffer at shutdown.
const LAST_BATCHES: usize = 65_536 / BATCH;
/// Length of the queue of deferred queries: some ten milliseconds of work. Clients retry after seconds.
const SLOW_QUEUE: usize = 256;
/// Maximum number of queries of a worker that wait for the resolver. It answers or replaces queries before, unless a flood
/// comes faster than it runs.
const MAX_UNANSWERED: usize = 4096;
/// Interval of checks whether the first exchange is over, while queries wait for it.
const FIRST_EXCHANGE_CHECK: Duration = Duration::from_millis(5);
/// Pause after a socket error, so that a persistent error does not cause a busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Maximum payload that no IPv6 path fragments: the minimum MTU is 1280 octets (RFC 8200 §5).
const SAFE_PAYLOAD: u16 = 1232;

/// Returns the number of workers per address: one per core that this process may use.
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS)
}

/// Binds `workers` sockets to one address for [`serve`]. With port 0, the kernel chooses a port. `payload` is the maximum reply
/// length in octets.
///
/// # Errors
/// The address is in use or not available.
pub fn bind(address: SocketAddr, workers: usize, payload: u16) -> io::Result<Vec<UdpSocket>> {
    // First without SO_REUSEPORT: a socket of another process of this user would share the queries.
    let exclusive = open(address, payload)?;
    exclusive.bind(&address.into())?;
    let Some(address) = exclusive.local_addr()?.as_socket().filter(|_| workers > 1) else {
        return Ok(vec![exclusive.into()]);
    };
    drop(exclusive);
    let shared = || {
        let socket = open(address, payload)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    (0..workers).map(|_| shared()).collect()
}

fn open(address: SocketAddr, payload: u16) -> io::Result<socket2::Socket> {
    let socket = socket::open(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel silently limits the size to net.core.rmem_max.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    forbid_fragments(&socket, address.is_ipv4(), payload)?;
    Ok(socket)
}

/// Adapts a bound socket to another maximum reply length in octets.
///
/// # Errors
/// Returns the system's error.
pub fn set_payload(socket: &UdpSocket, payload: u16) -> io::Result<()> {
    forbid_fragments(socket, socket.local_addr()?.is_ipv4(), payload)
}

/// Do not fragment, and ignore forgeable path MTU messages (RFC 9715 §3.1). A larger payload may need fragments.
fn forbid_fragments(socket: impl AsFd, is_ipv4: bool, payload: u16) -> io::Result<()> {
    let unfragmented = payload <= SAFE_PAYLOAD;
    if is_ipv4 {
        let discovery = if unfragmented { Ipv4PathMtuDiscovery::PROBE } else { Ipv4PathMtuDiscovery::OMIT };
        set_ip_mtu_discover(socket, discovery)?;
    } else {
        let discovery = if unfragmented { Ipv6PathMtuDiscovery::PROBE } else { Ipv6PathMtuDiscovery::OMIT };
        set_ipv6_mtu_discover(socket, discovery)?;
    }
    Ok(())
}

/// Starts a worker for a socket, and a slow thread for its deferred queries. At `shutdown`, the worker answers the datagrams
/// already received and stops. The future completes when both threads have ended and no query waits for an upstream; dropping
/// it stops the threads. Queries are counted
/// in `metrics`.
///
/// # Errors
/// The threads cannot be started.
pub fn serve<E: Fn() -> Engine>(
    socket: UdpSocket,
    tables: Arc<ArcSwap<Tables>>,
    engine: E,
    backends: Backends,
    metrics: &Dns,
    shutdown: CancellationToken,
) -> io::Result<impl Future<Output = ()> + use<E>> {
    let stop = Arc::new(Stop { requested: AtomicBool::new(false), wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)? });
    let stop_guard = StopGuard(stop.clone());
    let (end, ended) = oneshot::channel::<()>();
    batch::prepare(&socket)?;
    let (deferred, queue) = sync_channel(SLOW_QUEUE);
    let waiting = TaskTracker::new();
    let bound = socket.local_addr()?;
    let tap = backends.tap.clone().map(|tap| SocketTap { tap, bound });
    let slow = SlowWorker {
        socket: Arc::new(socket.try_clone()?),
        tables: Cache::new(tables.clone()),
        engine: engine(),
        backends,
        tap: tap.clone(),
        runtime: Handle::current(),
        waiting: waiting.clone(),
        // Written by the slow thread and by tasks that wait for upstreams.
        tally: metrics.tally(By::Udp, Writers::Many),
        early: Vec::new(),
    };
    let slow = thread::Builder::new().name("dns-udp-slow".to_owned()).spawn(move || slow.run(&queue))?;
    let (fast, tally) = (engine(), metrics.tally(By::Udp, Writers::One));
    thread::Builder::new().name("dns-udp".to_owned()).spawn(move || {
        let exchange = Exchange::new(socket, deferred, tap);
        Worker { exchange, tables: Cache::new(tables), engine: fast, tally, stop }.run();
        // The worker has dropped its end of the queue: the slow thread drains it and ends.
        let _ = slow.join();
        drop(end);
    })?;
    Ok(async move {
        let mut ended = ended;
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = &mut ended => return,
        }
        drop(stop_guard);
        let _ = ended.await;
        waiting.close();
        waiting.wait().await;
    })
}

/// Answers queries that a worker has deferred.
struct SlowWorker {
    socket: Arc<UdpSocket>,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    engine: Engine,
    backends: Backends,
    tap: Option<SocketTap>,
    runtime: Handle,
    /// Queries that wait for an upstream or for the server of transfers.
    waiting: TaskTracker,
    tally: Arc<Tally>,
    /// Queries that wait for the first exchange with a peer, at most [`MAX_UNANSWERED`].
    early: Vec<Deferred>,
}

impl SlowWorker {
    fn run(mut self, queue: &Receiver<Deferred>) {
        loop {
            let received = if self.early.is_empty() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(FIRST_EXCHANGE_CHECK)
            };
            match received {
                Ok(deferred) => self.complete(deferred),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.engine.check_first_exchange() {
                std::mem::take(&mut self.early).into_iter().for_each(|deferred| self.complete(deferred));
            }
        }
    }

    fn complete(&mut self, Deferred { decision, query, reply_path }: Deferred) {
        match decision {
            Decision::Defer | Decision::Await => self.answer(query, reply_path),
            Decision::Resolve(pending) => self.resolve(*pending, reply_path),
            Decision::ReplyAndRefresh(_, forward) => self.refresh(&reply_path, &forward),
            Decision::Transfer => self.transfer(query, reply_path),
            Decision::Reply(_) | Decision::Drop(_) => {}
        }
    }

    fn answer(&mut self, query: Vec<u8>, reply_path: ReplyPath) {
        let mut reply = Vec::new();
        let decision = self.engine.answer(self.tables.load(), &query, origin(reply_path.client), &mut reply);
        if let Some(account) = decision.account() {
            count(&self.tally, account, reply_path.since);
        }
        if let Some(tapped) = self.tapped(&reply_path) {
            tapped.decided(&decision, &query, &reply);
        }
        match decision {
            Decision::Reply(_) => reply_path.send(&self.socket, reply),
            Decision::ReplyAndRefresh(_, forward) => {
                self.refresh(&reply_path, &forward);
                reply_path.send(&self.socket, reply);
            }
            Decision::Resolve(pending) => self.resolve(*pending, reply_path),
            Decision::Await if self.early.len() < MAX_UNANSWERED => {
                self.early.push(Deferred { decision, query, reply_path });
            }
            Decision::Await => self.tally.overload(1),
            Decision::Transfer => self.transfer(query, reply_path),
            Decision::Drop(_) | Decision::Defer => {}
        }
    }

    fn resolve(&self, pending: Pending, reply_path: ReplyPath) {
        let Some(resolver) = &self.backends.resolver else { return };
        if self.waiting.len() >= MAX_UNANSWERED {
            return self.tally.overload(1);
        }
        let (socket, tally, mut tables) = (self.socket.clone(), self.tally.clone(), self.tables.clone());
        let resolved = resolver.resolve(reply_path.client, &pending.forward);
        let tapped = self.tapped(&reply_path);
        let answer = async move {
            let found = resolved.await;
            let mut reply = Vec::new();
            count(&tally, pending.relay(tables.load(), found.parts(), &mut reply), reply_path.since);
            if let Some(tapped) = tapped {
                tapped.response(Kind::Client, &reply);
            }
            reply_path.send(&socket, reply);
        };
        self.waiting.spawn_on(answer, &self.runtime);
    }

    fn transfer(&self, query: Vec<u8>, reply_path: ReplyPath) {
        let Some(transfers) = &self.backends.transfers else { return };
        if self.waiting.len() >= MAX_UNANSWERED {
            return self.tally.overload(1);
        }
        let (socket, tally) = (self.socket.clone(), self.tally.clone());
        let _runtime = self.runtime.enter();
        let mut replies = transfers.serve(query.clone(), origin(reply_path.client));
        let (tapped, kind) = (self.tapped(&reply_path), transfers::kind(&query));
        if let Some(tapped) = &tapped {
            tapped.query(kind, &query);
        }
        let answer = async move {
            if let Some(reply) = replies.recv().await {
                count(&tally, transfers::account(&query, &reply), reply_path.since);
                if let Some(tapped) = tapped {
                    tapped.response(kind, &reply);
                }
                reply_path.send(&socket, reply);
            }
        };
        self.waiting.spawn_on(answer, &self.runtime);
    }

    fn refresh(&self, reply_path: &ReplyPath, forward: &Forward) {
        if let Some(resolver) = &self.backends.resolver {
            resolver.refresh(reply_path.client, forward);
        }
    }

    /// Returns the query at the tap, if there is one.
    fn tapped(&self, reply_path: &ReplyPath) -> Option<TappedQuery> {
        let SocketTap { tap, bound } = self.tap.as_ref()?;
        Some(tap.query_at(reply_path.flow(*bound), unix_now().saturating_sub(reply_path.since.elapsed())))
    }
}

/// Counts a query that was deferred.
fn count(tally: &Tally, account: Account, since: Instant) {
    tally.count(account);
    tally.took(since.elapsed(), 1);
}

fn origin(address: IpAddr) -> Origin {
    Origin { transport: Transport::Udp, client: Some(Client { address, now: socket::now() }) }
}

/// Stop request to a worker.
struct Stop {
    requested: AtomicBool,
    /// Becomes readable on a request.
    wake: EventFd,
}

/// Requests a stop on drop.
struct StopGuard(Arc<Stop>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.requested.store(true, Ordering::Relaxed);
        // An error means that the counter is full, and then it is readable too.
        let _ = self.0.wake.write(1);
    }
}

/// Answers the datagrams of one socket.
struct Worker {
    exchange: Exchange,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    engine: Engine,
    tally: Arc<Tally>,
    stop: Arc<Stop>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.requested.load(Ordering::Relaxed) {
            let outcome = match self.answer_batch() {
                // A full batch: more datagrams may be waiting.
                Ok(BATCH) => continue,
                Ok(_) => self.wait(),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                debug!(%error, "UDP socket error");
                thread::sleep(ERROR_PAUSE);
            }
        }
        for _ in 0..LAST_BATCHES {
            if !matches!(self.answer_batch(), Ok(1..)) {
                break;
            }
        }
    }

    /// Answers a batch of received datagrams; returns their number.
    fn answer_batch(&mut self) -> io::Result<usize> {
        self.engine.check_first_exchange();
        let (engine, tables, tally) = (&mut self.engine, self.tables.load(), &*self.tally);
        let (now, mut answered) = (socket::now(), 0);
        let received = self.exchange.run(|query, address, reply| {
            let origin = Origin { transport: Transport::Udp, client: Some(Client { address, now }) };
            let decision = engine.answer_at_once(tables, query, origin, reply);
            if let Some(account) = decision.account() {
                tally.count(account);
                answered += 1;
            }
            decision
        });
        if answered > 0 {
            // The batch was sent at once: one clock read serves all replies.
            tally.took(socket::now().saturating_sub(now), answered);
        }
        match self.exchange.take_dropped() {
            0 => {}
            dropped => tally.overload(dropped),
        }
        received
    }

    /// Blocks until the socket is readable or a stop is requested.
    fn wait(&self) -> io::Result<()> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut events = [readable(self.exchange.socket().as_fd()), readable(self.stop.wake.as_fd())];
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
