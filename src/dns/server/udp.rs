//! Datagrams to the engine and back.
//!
//! A thread and a socket for each core, all of one address (SO_REUSEPORT): the kernel deals the clients out to them, and
//! none waits for another. The threads are not the runtime's: nothing that gossip, checks or HTTP do keeps an answer
//! waiting, and no answer is handed from one thread to the next.

mod batch;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    num::NonZero,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, cache::Cache};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover};
use socket2::{Protocol, Type};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::batch::{BATCH, Deferred, Exchange, Verdict, Work};
use crate::{
    dns::{
        engine::{Client, Engine, Origin, Outcome, Transport},
        resolver::Resolver,
        socket,
        zone::Tables,
    },
    metrics::{Dns, Tally, Transport as By, Writers},
};

/// Threads for one address where there are more cores: one answers some 250,000 queries a second.
const MAX_WORKERS: usize = 8;
/// Datagrams that the kernel keeps for each thread while that is busy: a burst of some ten thousand queries.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Turns at the end, for what waits in the receive buffer.
const LAST_TURNS: usize = 65_536 / BATCH;
/// Queries that wait for an answer which takes long: some ten milliseconds' worth. A client asks again after seconds.
const SLOW: usize = 256;
/// The pause after a socket error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// The longest reply that every path carries whole: 1280 octets are the least that IPv6 asks of a link (RFC 8200 §5).
const SAFE_PAYLOAD: u16 = 1232;

/// Threads for one address: one for each core that this process may use.
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS)
}

/// Binds so many sockets of one address for [`serve`]; port 0 lets the kernel choose. `payload` is the longest reply, in
/// octets.
///
/// # Errors
/// The address is taken, by whomever, or cannot be had.
pub fn bind(address: SocketAddr, workers: usize, payload: u16) -> io::Result<Vec<UdpSocket>> {
    // Alone at first: beside a socket of another program of ours, one with SO_REUSEPORT would get half of the queries.
    let alone = open(address, payload)?;
    alone.bind(&address.into())?;
    let Some(address) = alone.local_addr()?.as_socket().filter(|_| workers > 1) else {
        return Ok(vec![alone.into()]);
    };
    drop(alone);
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
    // The kernel caps it at net.core.rmem_max without an error: what it grants is better than its default.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    // No fragments, and no belief in what strangers say of the path (RFC 9715 §3.1). A longer reply may need them.
    let whole = payload <= SAFE_PAYLOAD;
    if address.is_ipv4() {
        let discovery = if whole { Ipv4PathMtuDiscovery::PROBE } else { Ipv4PathMtuDiscovery::OMIT };
        set_ip_mtu_discover(&socket, discovery)?;
    } else {
        let discovery = if whole { Ipv6PathMtuDiscovery::PROBE } else { Ipv6PathMtuDiscovery::OMIT };
        set_ipv6_mtu_discover(&socket, discovery)?;
    }
    Ok(socket)
}

/// Starts a thread that answers a socket's datagrams until `shutdown`, and then those that had arrived; and one beside it
/// for answers that take long, so that the others never wait for them. The future ends with both; dropped, it ends them.
/// What they answer is counted in `counted`.
///
/// # Errors
/// The threads cannot be started.
pub fn serve<E: Fn() -> Engine + Clone + Send + 'static>(
    socket: UdpSocket,
    tables: Arc<ArcSwap<Tables>>,
    engine: E,
    resolver: Option<Resolver>,
    counted: &Dns,
    shutdown: CancellationToken,
) -> io::Result<impl Future<Output = ()> + use<E>> {
    let stop = Arc::new(Stop { asked: AtomicBool::new(false), wake: EventFd::new()? });
    let asking = Asking(stop.clone());
    let (end, ended) = oneshot::channel::<()>();
    batch::prepare(&socket)?;
    let (later, queue) = sync_channel(SLOW);
    let slow = Slow {
        socket: Arc::new(socket.try_clone()?),
        tables: Cache::new(tables.clone()),
        engine: engine(),
        beyond: resolver.map(|resolver| Beyond { resolver, runtime: Handle::current() }),
        new_engine: engine.clone(),
        // Its thread, and the tasks that wait for upstreams.
        tally: counted.tally(By::Udp, Writers::Many),
    };
    let slow = thread::Builder::new().name("dns-udp-slow".to_owned()).spawn(move || slow.run(&queue))?;
    let (fast, tally) = (engine(), counted.tally(By::Udp, Writers::One));
    thread::Builder::new().name("dns-udp".to_owned()).spawn(move || {
        let exchange = Exchange::new(socket, later);
        Worker { exchange, tables: Cache::new(tables), engine: fast, tally, stop }.run();
        // With the worker the queue's other end is gone: it is answered to its end.
        let _ = slow.join();
        drop(end);
    })?;
    Ok(async move {
        let mut ended = ended;
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = &mut ended => return,
        }
        drop(asking);
        let _ = ended.await;
    })
}

/// What answers queries whose answers take long.
struct Slow<E> {
    socket: Arc<UdpSocket>,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    engine: Engine,
    beyond: Option<Beyond>,
    new_engine: E,
    tally: Arc<Tally>,
}

/// Who knows names that are not ours.
struct Beyond {
    resolver: Resolver,
    runtime: Handle,
}

impl<E: Fn() -> Engine + Clone + Send + 'static> Slow<E> {
    fn run(mut self, queue: &Receiver<Deferred>) {
        for query in queue {
            match query.work {
                Work::Answer => self.answer(query),
                Work::Resolve => self.resolve(query),
                Work::Refresh => self.refresh(&query),
            }
        }
    }

    fn answer(&mut self, query: Deferred) {
        let mut reply = Vec::new();
        let outcome = self.engine.answer(self.tables.load(), &query.query, origin(query.client), &mut reply);
        account(&self.engine, &self.tally, outcome, &reply, query.since);
        match outcome {
            Outcome::Reply(_) | Outcome::Relayed { .. } => query.send(&self.socket, reply),
            Outcome::Beyond => self.resolve(query),
            Outcome::Silence | Outcome::Slow => {}
        }
    }

    fn resolve(&mut self, query: Deferred) {
        let forward = self.engine.forward(self.tables.load(), &query.query);
        let Some((Beyond { resolver, runtime }, forward)) = self.beyond.as_ref().zip(forward) else { return };
        let (resolver, socket, engine) = (resolver.clone(), self.socket.clone(), self.new_engine.clone());
        let (mut tables, tally) = (self.tables.clone(), self.tally.clone());
        runtime.spawn(async move {
            let found = resolver.resolve(forward).await;
            let (mut engine, mut reply) = (engine(), Vec::new());
            engine.relay(tables.load(), &query.query, origin(query.client), found.parts(), &mut reply);
            account(&engine, &tally, Outcome::Relayed { refresh: false }, &reply, query.since);
            query.send(&socket, reply);
        });
    }

    fn refresh(&mut self, query: &Deferred) {
        let forward = self.engine.forward(self.tables.load(), &query.query);
        if let Some((Beyond { resolver, .. }, forward)) = self.beyond.as_ref().zip(forward) {
            resolver.refresh(forward);
        }
    }
}

/// Counts what became of a query that was put aside.
fn account(engine: &Engine, tally: &Tally, outcome: Outcome, reply: &[u8], since: Instant) {
    if let Some(account) = engine.account(outcome, reply) {
        tally.count(account);
        tally.took(since.elapsed(), 1);
    }
}

fn origin(address: IpAddr) -> Origin {
    Origin { transport: Transport::Udp, client: Some(Client { address, now: socket::now() }) }
}

/// How a thread learns that it is to end.
struct Stop {
    asked: AtomicBool,
    /// Becomes readable with it.
    wake: EventFd,
}

/// Asks the thread to end when it goes.
struct Asking(Arc<Stop>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asked.store(true, Ordering::Relaxed);
        // It fails where the counter is full: then it is readable as well.
        let _ = self.0.wake.write(1);
    }
}

struct Worker {
    exchange: Exchange,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    engine: Engine,
    tally: Arc<Tally>,
    stop: Arc<Stop>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.asked.load(Ordering::Relaxed) {
            let outcome = match self.turn() {
                // More may be there.
                Ok(BATCH) => continue,
                Ok(_) => self.wait(),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                debug!(%error, "UDP socket");
                thread::sleep(ERROR_PAUSE);
            }
        }
        for _ in 0..LAST_TURNS {
            if !matches!(self.turn(), Ok(1..)) {
                break;
            }
        }
    }

    /// Answers what is there, up to a batch.
    fn turn(&mut self) -> io::Result<usize> {
        let (engine, tables, tally) = (&mut self.engine, self.tables.load(), &*self.tally);
        let (now, mut answered) = (socket::now(), 0);
        let turned = self.exchange.turn(|query, address, reply| {
            let origin = Origin { transport: Transport::Udp, client: Some(Client { address, now }) };
            let outcome = engine.answer_at_once(tables, query, origin, reply);
            if let Some(account) = engine.account(outcome, reply) {
                tally.count(account);
                answered += 1;
            }
            match outcome {
                Outcome::Reply(_) | Outcome::Relayed { refresh: false } => Verdict::Send,
                Outcome::Relayed { refresh: true } => Verdict::SendAndLater(Work::Refresh),
                Outcome::Silence => Verdict::Silence,
                Outcome::Slow => Verdict::Later(Work::Answer),
                Outcome::Beyond => Verdict::Later(Work::Resolve),
            }
        });
        if answered > 0 {
            // The replies left together: the clock is read once for all of them.
            tally.took(socket::now().saturating_sub(now), answered);
        }
        match self.exchange.lost() {
            0 => {}
            lost => tally.overload(lost),
        }
        turned
    }

    /// Sleeps until there are datagrams, or the end.
    fn wait(&self) -> io::Result<()> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut both = [readable(self.exchange.socket().as_fd()), readable(self.stop.wake.as_fd())];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
