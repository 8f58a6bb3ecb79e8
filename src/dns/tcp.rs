//! Messages over TCP (RFC 7766) to the engine and back.
//!
//! A connection may send several queries without waiting; they are answered in turn, and the answers of queries that
//! came together leave together. Everything is bounded: connections, the time that one may idle, the time that a write
//! may take, and what is read before its answer is taken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Protocol, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    engine::{Client, Engine, Origin, Transport},
    socket,
    table::Tables,
};

/// Connections at once, of all listeners, where the process may open enough files; one more is closed as soon as it is
/// accepted.
const MAX_CONNECTIONS: usize = 4096;
/// The part of the process's files that connections may take: half are for probes, and the rest must do for commands
/// and folders. Idle clients must not keep the health of a service from being seen.
const SHARE_OF_FILES: u64 = 4;
/// How long a connection may wait for its next query, or take to bring it (RFC 7766 §6.2.3 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to read its answers.
const WRITE: Duration = Duration::from_secs(5);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;
/// The pause when no connection can be accepted, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// From one word in the log that connections are turned away, or cannot be accepted, to the next.
const TELL: Duration = Duration::from_secs(60);
/// The longest query, as over UDP. A message that says to be longer is none, and nobody waits for it with a buffer.
const MAX_QUERY: usize = 4096;
/// What is read at once; a longer message takes several reads.
const READ: usize = 4096;
/// Answers are written out when they reach this, even if more queries wait.
const FLUSH: usize = 64 * 1024;

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
    /// One permit a connection, of all listeners.
    pub connections: Arc<Semaphore>,
    /// Ends accepting at once and connections at their next pause.
    pub shutdown: CancellationToken,
}

/// Accepts connections until shutdown, then waits for those that are open to finish what they read.
pub async fn serve(listener: TcpListener, shared: Shared, engine: impl Fn() -> Engine) {
    let tasks = TaskTracker::new();
    let mut told: Option<Instant> = None;
    let mut is_news = || {
        let news = told.is_none_or(|told| told.elapsed() >= TELL);
        if news {
            told = Some(Instant::now());
        }
        news
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => match shared.connections.clone().try_acquire_owned() {
                Ok(permit) => drop(tasks.spawn(connection(stream, client, shared.clone(), engine(), permit))),
                Err(_) => {
                    debug!(%client, "TCP connection closed");
                    if is_news() {
                        warn!("as many TCP connections are open as may be: further clients are turned away");
                    }
                }
            },
            // The client went away before it was accepted: nothing is wrong here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => debug!(%error, "TCP accept"),
            Err(error) => {
                if is_news() {
                    warn!(%error, "cannot accept TCP connections; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    mut stream: TcpStream,
    client: SocketAddr,
    shared: Shared,
    mut engine: Engine,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = converse(&mut stream, client.ip(), &shared, &mut engine).await {
        debug!(%client, %error, "TCP connection ended");
    }
}

async fn converse(stream: &mut TcpStream, address: IpAddr, shared: &Shared, engine: &mut Engine) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    let (mut reply, mut output) = (Vec::new(), Vec::new());
    let mut deadline = Instant::now() + IDLE;
    loop {
        input.reserve(READ);
        let read = tokio::select! {
            read = timeout_at(deadline, stream.read_buf(&mut input)) => read??,
            () = shared.shutdown.cancelled() => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        let tables = shared.tables.load_full();
        let client = Client { address, now: socket::now() };
        let origin = Origin { transport: Transport::Tcp, client: Some(client) };
        let mut done = 0;
        while let Some(message) = first_message(&input[done..]) {
            done += 2 + message.len();
            if engine.respond(&tables, message, origin, &mut reply).is_none() {
                // What is no query over TCP is no DNS client; what it asked before is answered.
                return flush(stream, &mut output).await;
            }
            output.extend((reply.len() as u16).to_be_bytes());
            output.extend_from_slice(&reply);
            if output.len() >= FLUSH {
                flush(stream, &mut output).await?;
            }
        }
        input.drain(..done);
        if let [high, low, ..] = input[..]
            && usize::from(u16::from_be_bytes([high, low])) > MAX_QUERY
        {
            return flush(stream, &mut output).await;
        }
        if done > 0 {
            // Octets that make no message do not prolong a connection.
            deadline = Instant::now() + IDLE;
        }
        flush(stream, &mut output).await?;
        if input.is_empty() {
            // An idle connection keeps no buffers.
            (input, reply, output) = (Vec::new(), Vec::new(), Vec::new());
        }
    }
}

async fn flush(stream: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    if !output.is_empty() {
        timeout(WRITE, stream.write_all(output)).await??;
        output.clear();
    }
    Ok(())
}

/// The first message of what was read, without its length; `None` while it is not whole.
fn first_message(input: &[u8]) -> Option<&[u8]> {
    let (length, rest) = input.split_at_checked(2)?;
    rest.get(..usize::from(u16::from_be_bytes([length[0], length[1]])))
}
