//! dnstap output: the handle that servers and the resolver record messages with, and the task that sends them to a collector.
//!
//! ```text
//! Tap ─► queue (bounded, in octets as well) ─► Sending ─► Unix socket of the collector
//! ```
//!
//! Recording copies a message into the queue and never waits. Messages that exceed the queue, or have no collector, are dropped and
//! counted. The task connects again whenever the collector is gone, and logs each change of that state once.

mod connection;

use std::{
    io, iter, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::connection::{Connection, ConnectionError};
use super::{
    engine::Decision,
    tap::{Direction, Exchange, Flow, Kind, Protocol, Selection, protobuf::Sender},
};
use crate::{clock::unix_now, metrics::Dnstap};

/// Exchanges in the queue: some 50 ms of the most that one core answers.
const QUEUE: usize = 16_384;
/// Octets in the queue, since a message over TCP has up to 64 KiB.
const QUEUE_OCTETS: usize = 16 << 20;
/// Exchanges that are encoded and written at once.
const BATCH: usize = 256;
/// Pause after the queue was empty. A busy server wakes the task a hundred times a second, not for each answer.
const GATHER: Duration = Duration::from_millis(10);
/// Pause after the first failed connection; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two connections. A collector that was started again gets messages after that time.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Time in which a write ends unless the collector does not read.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// Time limit for the messages of the queue at shutdown.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// An unknown IPv4 address.
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// An unknown IPv6 address.
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Settings of dnstap output.
pub struct Settings {
    /// Path of the collector's Unix socket.
    pub socket: PathBuf,
    /// Messages to send.
    pub selection: Selection,
    /// Names in each message.
    pub sender: Sender,
    /// Metrics.
    pub metrics: Dnstap,
}

/// Records messages. Clones share the queue.
#[derive(Clone)]
pub struct Tap(Arc<Shared>);

struct Shared {
    selection: Selection,
    queue: mpsc::Sender<Exchange>,
    state: Arc<State>,
    metrics: Dnstap,
}

/// State of the queue.
struct State {
    /// Octets in the queue.
    octets: AtomicUsize,
    /// False while there is no collector.
    is_open: AtomicBool,
}

/// A query whose response is recorded later.
#[derive(Clone)]
pub(super) struct TappedQuery {
    tap: Tap,
    flow: Flow,
    /// Unix time of the query.
    time: Duration,
}

impl Tap {
    /// Returns a query that was just sent or received.
    pub(super) fn query(&self, flow: Flow) -> TappedQuery {
        self.query_at(flow, unix_now())
    }

    /// Returns a query that was sent or received at this Unix time.
    pub(super) fn query_at(&self, flow: Flow, time: Duration) -> TappedQuery {
        TappedQuery { tap: self.clone(), flow, time }
    }

    /// Records a query that was just sent to an upstream from this address, if that is known.
    pub(super) fn forwarded(
        &self,
        protocol: Protocol,
        own: io::Result<SocketAddr>,
        upstream: SocketAddr,
        query: &[u8],
    ) -> TappedQuery {
        let unknown = SocketAddr::new(if upstream.is_ipv4() { ANY_V4 } else { ANY_V6 }, 0);
        let flow = Flow { protocol, initiator: own.unwrap_or(unknown), responder: upstream };
        let tapped = self.query(flow);
        tapped.query(Kind::Forwarder, query);
        tapped
    }

    /// Records a query of a client that was received at this Unix time, and its reply if there is one already.
    pub(super) fn decided(&self, flow: Flow, received: Duration, decision: &Decision, query: &[u8], reply: &[u8]) {
        let (kind, reply) = match decision {
            Decision::Resolve(_) => (Some(Kind::Client), None),
            Decision::Reply(account) | Decision::ReplyAndRefresh(account, _) => (Kind::of(account.source), Some(reply)),
            Decision::Drop(account) => (Kind::of(account.source), None),
            // The later decision records the query.
            Decision::Defer | Decision::Await | Decision::Transfer => return,
        };
        if let Some(kind) = kind {
            self.record(kind, flow, received, Some(query), reply);
        }
    }

    fn record(&self, kind: Kind, flow: Flow, query_time: Duration, query: Option<&[u8]>, response: Option<&[u8]>) {
        let Shared { selection, queue, state, metrics } = &*self.0;
        let query = query.filter(|_| selection.has(kind, Direction::Query));
        let response = response.filter(|_| selection.has(kind, Direction::Response));
        let messages = u64::from(query.is_some()) + u64::from(response.is_some());
        if messages == 0 {
            return;
        }
        if !state.is_open.load(Ordering::Relaxed) {
            return metrics.dropped(messages);
        }
        let len = query.map_or(0, <[u8]>::len) + response.map_or(0, <[u8]>::len);
        let before = state.octets.fetch_add(len, Ordering::Relaxed);
        // A step of the clock never puts a response before its query.
        let response = response.map(|response| (unix_now().max(query_time), response));
        let fits = before + len <= QUEUE_OCTETS
            && queue.try_send(Exchange::new(kind, flow, query_time, query.unwrap_or_default(), response)).is_ok();
        if !fits {
            state.octets.fetch_sub(len, Ordering::Relaxed);
            metrics.dropped(messages);
        }
    }
}

impl TappedQuery {
    /// Records the query.
    pub(super) fn query(&self, kind: Kind, query: &[u8]) {
        self.tap.record(kind, self.flow, self.time, Some(query), None);
    }

    /// Records the query, and its reply if there is one already.
    pub(super) fn decided(&self, decision: &Decision, query: &[u8], reply: &[u8]) {
        self.tap.decided(self.flow, self.time, decision, query, reply);
    }

    /// Records a response.
    pub(super) fn response(&self, kind: Kind, response: &[u8]) {
        self.tap.record(kind, self.flow, self.time, None, Some(response));
    }
}

/// Returns a tap, and the task that sends its messages until shutdown.
pub fn start(settings: Settings, shutdown: CancellationToken) -> (Tap, impl Future<Output = ()>) {
    let (queue, received) = mpsc::channel(QUEUE);
    // Messages wait for the first connection.
    let state = Arc::new(State { octets: AtomicUsize::new(0), is_open: AtomicBool::new(true) });
    let Settings { socket, selection, sender, metrics } = settings;
    let tap = Tap(Arc::new(Shared { selection, queue, state: state.clone(), metrics: metrics.clone() }));
    let sending = Sending {
        socket,
        sender,
        metrics,
        state,
        queue: received,
        batch: Vec::new(),
        frames: Vec::new(),
        unwritten: 0,
    };
    (tap, sending.run(shutdown))
}

/// Sends the messages of the queue.
struct Sending {
    socket: PathBuf,
    sender: Sender,
    metrics: Dnstap,
    state: Arc<State>,
    queue: mpsc::Receiver<Exchange>,
    batch: Vec<Exchange>,
    /// Encoded batch.
    frames: Vec<u8>,
    /// Messages of the encoded batch that were not written yet.
    unwritten: u64,
}

impl Sending {
    async fn run(mut self, shutdown: CancellationToken) {
        self.follow(&shutdown).await;
        let queued = iter::from_fn(|| self.queue.try_recv().ok()).map(|exchange| exchange.messages().count() as u64);
        let queued: u64 = queued.sum();
        self.metrics.dropped(self.unwritten + queued);
    }

    /// Connects, sends messages, and connects again, until shutdown.
    async fn follow(&mut self, shutdown: &CancellationToken) {
        // Reason why there is no connection, as the log has it.
        let (mut pause, mut absent) = (FIRST_PAUSE, None);
        loop {
            let connected = tokio::select! {
                connected = Connection::open(&self.socket) => connected,
                () = shutdown.cancelled() => return,
            };
            let error = match connected {
                Ok(mut connection) => {
                    self.state.is_open.store(true, Ordering::Relaxed);
                    self.metrics.connected();
                    info!(socket = %self.socket.display(), "dnstap collector connected");
                    absent = None;
                    let since = Instant::now();
                    let sent = self.send(&mut connection, shutdown).await;
                    self.metrics.disconnected();
                    let Err(lost) = sent else { return };
                    // A collector that ends each connection at once is no reason to connect more often.
                    pause = if since.elapsed() > MAX_PAUSE { FIRST_PAUSE } else { pause };
                    lost
                }
                Err(error) => error,
            };
            self.state.is_open.store(false, Ordering::Relaxed);
            let (socket, reason) = (self.socket.display(), Some(error.to_string()));
            if reason == absent {
                debug!(%socket, %error, "dnstap collector not connected");
            } else {
                warn!(%socket, %error, "dnstap collector not connected; dropping messages until it is");
            }
            absent = reason;
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    /// Sends messages until the shutdown, and what is in the queue then.
    ///
    /// # Errors
    /// The connection has ended.
    async fn send(&mut self, connection: &mut Connection, shutdown: &CancellationToken) -> Result<(), ConnectionError> {
        let late = async {
            shutdown.cancelled().await;
            sleep(LAST_MESSAGES).await;
        };
        let sending = async {
            while !shutdown.is_cancelled() {
                let received = tokio::select! {
                    received = self.queue.recv_many(&mut self.batch, BATCH) => received,
                    ended = connection.ended() => return Err(ended),
                    () = shutdown.cancelled() => break,
                };
                if received == 0 {
                    // No tap is left, and the shutdown follows.
                    shutdown.cancelled().await;
                }
                self.write(connection).await?;
                if self.queue.is_empty() {
                    sleep(GATHER).await;
                }
            }
            while let Ok(exchange) = self.queue.try_recv() {
                self.batch.push(exchange);
                if self.batch.len() >= BATCH || self.queue.is_empty() {
                    self.write(connection).await?;
                }
            }
            Ok(connection.finish().await?)
        };
        tokio::select! {
            sent = sending => sent,
            () = late => Ok(()),
        }
    }

    /// Encodes the batch and writes it.
    async fn write(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.frames.clear();
        let mut octets = 0;
        for exchange in self.batch.drain(..) {
            octets += exchange.size();
            for message in exchange.messages() {
                self.sender.push(message, &mut self.frames);
                self.unwritten += 1;
            }
        }
        self.state.octets.fetch_sub(octets, Ordering::Relaxed);
        // Without the end of the write, as at a shutdown, the messages stay unwritten.
        let written = write_all(connection, &self.frames).await;
        let messages = mem::take(&mut self.unwritten);
        match &written {
            Ok(()) => self.metrics.sent(messages),
            // How many of them arrived is unknown.
            Err(_) => self.metrics.dropped(messages),
        }
        written
    }
}

/// Writes to a collector that may not read for any time.
async fn write_all(connection: &mut Connection, frames: &[u8]) -> io::Result<()> {
    let writing = connection.write(frames);
    tokio::pin!(writing);
    if let Ok(written) = timeout(WRITE_PATIENCE, &mut writing).await {
        return written;
    }
    warn!("dnstap collector does not read; dropping messages that exceed the queue");
    let written = writing.await;
    if written.is_ok() {
        info!("dnstap collector reads again");
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Content, Value};

    fn tap(selection: Selection, metrics: &Dnstap) -> (Tap, impl Future<Output = ()> + use<>) {
        let sender = Sender { identity: "host-a".into(), version: "muster".into() };
        let settings = Settings { socket: "/nonexistent/tap".into(), selection, sender, metrics: metrics.clone() };
        start(settings, CancellationToken::new())
    }

    fn flow() -> Flow {
        let end = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Flow { protocol: Protocol::Udp, initiator: end(1), responder: end(53) }
    }

    fn dropped(metrics: &Dnstap) -> u64 {
        let [messages, _] = metrics.families();
        let Content::Counter(samples) = messages.content else { panic!("a counter") };
        let Value::Whole(dropped) = samples[1].value else { panic!("a count") };
        dropped
    }

    #[test]
    fn messages_beyond_the_queue_are_dropped_and_counted() {
        for (octets, fitting) in [(100, QUEUE), (60_000, QUEUE_OCTETS / 60_000)] {
            let metrics = Dnstap::default();
            let (tap, _sending) = tap(Selection::ALL, &metrics);
            let message = vec![7; octets];
            for _ in 0..fitting {
                tap.query(flow()).query(Kind::Auth, &message);
            }
            assert_eq!(dropped(&metrics), 0, "{octets}");
            tap.query(flow()).query(Kind::Auth, &message);
            tap.query(flow()).response(Kind::Auth, &message);
            assert_eq!(dropped(&metrics), 2, "{octets}");
        }
    }

    #[test]
    fn messages_that_are_not_selected_take_no_place() {
        let metrics = Dnstap::default();
        let (tap, _sending) = tap(Selection::one(Kind::Auth, Direction::Response), &metrics);
        for _ in 0..2 * QUEUE {
            tap.query(flow()).query(Kind::Auth, b"query");
            tap.query(flow()).response(Kind::Forwarder, b"response");
        }
        assert_eq!(dropped(&metrics), 0);
        assert_eq!(tap.0.state.octets.load(Ordering::Relaxed), 0);
        tap.query(flow()).response(Kind::Auth, b"response");
        assert_eq!(tap.0.state.octets.load(Ordering::Relaxed), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_without_a_collector_are_dropped() {
        let metrics = Dnstap::default();
        let (tap, sending) = tap(Selection::ALL, &metrics);
        tap.query(flow()).query(Kind::Auth, b"before the first connection");
        let sending = tokio::spawn(sending);
        sleep(FIRST_PAUSE / 2).await;
        assert_eq!(dropped(&metrics), 0, "messages wait for the first connection");
        tap.query(flow()).query(Kind::Auth, b"query");
        assert_eq!(dropped(&metrics), 1);
        sending.abort();
    }
}
