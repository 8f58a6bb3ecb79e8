//! One exchange with a primary: an SOA query, or a transfer.

use std::{io, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::Settings;
use crate::{
    clock::unix_now,
    dns::{
        message::{
            codes::{class, rtype},
            query::HEADER,
        },
        resolver::reachable::reachable,
        secondaries::source_for,
        secondary::stream::{Asked, Received, Stream, StreamError, soa_in},
        transfer::{
            messages::soa,
            tsig::{
                Key,
                chain::{ChainError, Verifier, sign},
            },
        },
    },
    model::{
        name::Name,
        upstream_address::{UpstreamAddress, UpstreamTransport},
        zone::StaticRecord,
    },
};

/// Datagrams with an SOA query before it is sent over TCP.
const ATTEMPTS: u32 = 2;
/// Wait for the reply to a datagram.
const REPLY: Duration = Duration::from_secs(2);
/// Time limit for a connection and a reply of one message.
const CONNECT: Duration = Duration::from_secs(5);
/// Time limit for one message of a transfer: a primary may build its reply first.
const MESSAGE: Duration = Duration::from_secs(30);
/// Time limit for a whole transfer. BIND's is two hours, for zones larger than ours may be.
const TRANSFER: Duration = Duration::from_secs(30 * 60);
/// Messages that are received ahead of their reader, 64 MiB at most. Knot ends a transfer whose receiver pauses for half a second.
const AHEAD: usize = 1024;
/// Longest datagram in octets; more is cut off.
const DATAGRAM: usize = 4096;

/// Reasons why an exchange fails.
#[derive(Debug, Error)]
pub(super) enum ExchangeError {
    /// The key is in no file.
    #[error("there is no TSIG key `{0}` in `dns.keys_dir`")]
    NoKey(Name),
    /// The network or the primary's host.
    #[error("{0}")]
    Network(io::Error),
    /// The primary closes the connection before the end of its reply.
    #[error("the primary closes the connection before the end of its reply: see its log")]
    Cut,
    /// No reply within the time limit.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    /// The reply is refused.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// The signatures of the reply are refused.
    #[error("{0}")]
    Signature(#[from] ChainError),
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Network(error),
        }
    }
}

/// A primary of a zone.
pub(super) struct Primary<'z> {
    pub(super) origin: &'z Name,
    pub(super) address: &'z UpstreamAddress,
    pub(super) key: Option<Arc<Key>>,
    pub(super) settings: &'z Settings,
}

/// A received transfer.
pub(super) struct Transferred {
    pub(super) received: Received,
    pub(super) messages: u64,
    pub(super) octets: u64,
}

/// A connection over TCP or TLS (RFC 9103).
type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// A request and what its reply needs.
struct Request {
    id: u16,
    message: Vec<u8>,
    verifier: Option<Verifier>,
}

impl Primary<'_> {
    /// Returns the SOA of the zone.
    pub(super) async fn soa(&self) -> Result<StaticRecord, ExchangeError> {
        let datagrams = if self.address.transport == UpstreamTransport::Plain { ATTEMPTS } else { 0 };
        for _ in 0..datagrams {
            match self.soa_over_udp().await {
                // A truncated or lost datagram.
                Err(ExchangeError::Timeout(_)) => {}
                outcome => return outcome,
            }
        }
        let mut request = self.request(rtype::SOA, None);
        let limit = Instant::now() + CONNECT;
        let exchange = async {
            let mut stream = self.connect(&request.message).await?;
            receive(&mut stream).await
        };
        let mut message = timeout_at(limit, exchange).await.map_err(|_| ExchangeError::Timeout(CONNECT))??;
        request.check(&mut message)?;
        request.finish()?;
        Ok(soa_in(&message, request.id, self.origin)?)
    }

    /// Asks by a datagram. A truncated reply is like none.
    async fn soa_over_udp(&self) -> Result<StaticRecord, ExchangeError> {
        let mut request = self.request(rtype::SOA, None);
        let address = reachable(self.address)?;
        let socket = UdpSocket::bind((source_for(address, &self.settings.sources), 0)).await?;
        socket.connect(address).await?;
        socket.send(&request.message).await?;
        let (limit, mut buffer) = (Instant::now() + REPLY, [0; DATAGRAM]);
        loop {
            let len =
                timeout_at(limit, socket.recv(&mut buffer)).await.map_err(|_| ExchangeError::Timeout(REPLY))??;
            let mut message = buffer[..len].to_vec();
            // Another id is a late reply, or a forged one.
            if len < HEADER || message[..2] != request.id.to_be_bytes() {
                continue;
            }
            if message[2] & 0x02 != 0 {
                return Err(ExchangeError::Timeout(REPLY));
            }
            request.check(&mut message)?;
            request.finish()?;
            return Ok(soa_in(&message, request.id, self.origin)?);
        }
    }

    /// Transfers the zone, or its changes since the version with this SOA.
    pub(super) async fn transfer(&self, since: Option<(&StaticRecord, u32)>) -> Result<Transferred, ExchangeError> {
        let (qtype, asked) = match since {
            Some((_, serial)) => (rtype::IXFR, Asked::Since(serial)),
            None => (rtype::AXFR, Asked::Whole),
        };
        let request = self.request(qtype, since.map(|(soa, _)| soa));
        let end = Instant::now() + TRANSFER;
        let connecting = timeout_at(Instant::now() + CONNECT, self.connect(&request.message));
        let mut connection = connecting.await.map_err(|_| ExchangeError::Timeout(CONNECT))??;
        let (sender, messages) = mpsc::channel(AHEAD);
        let stream = Stream::new(self.origin.clone(), request.id, asked);
        let mut reading = spawn_blocking(move || request.read(stream, messages));
        let receiving = async {
            loop {
                let limit = end.min(Instant::now() + MESSAGE);
                let message = timeout_at(limit, receive(&mut connection)).await;
                let message = message.map_err(|_| ExchangeError::Timeout(MESSAGE))??;
                if sender.send(message).await.is_err() {
                    // The reply is complete or refused.
                    return Ok::<(), ExchangeError>(());
                }
            }
        };
        let ended = tokio::select! {
            done = &mut reading => return done.map_err(io::Error::other)?.and_then(|done| done.ok_or(ExchangeError::Cut)),
            ended = receiving => ended,
        };
        drop(sender);
        // A primary may close the connection right behind the last message.
        match reading.await.map_err(io::Error::other)?? {
            Some(transferred) => Ok(transferred),
            None => Err(ended.err().unwrap_or(ExchangeError::Cut)),
        }
    }

    /// Returns a signed request; one for changes has the SOA of the copy.
    fn request(&self, qtype: u16, copy: Option<&StaticRecord>) -> Request {
        let id = fastrand::u16(..);
        let mut message = id.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, u8::from(copy.is_some()), 0, 0]);
        message.extend_from_slice(self.origin.wire());
        message.extend_from_slice(&qtype.to_be_bytes());
        message.extend_from_slice(&class::IN.to_be_bytes());
        if let Some(copy) = copy {
            soa(copy.ttl, &copy.rdata).append_to(&mut message);
        }
        let verifier = self.key.as_ref().map(|key| sign(key, &mut message, id, unix_now().as_secs()));
        Request { id, message, verifier }
    }

    /// Connects and sends a message.
    async fn connect(&self, message: &[u8]) -> Result<Connection, ExchangeError> {
        let address = reachable(self.address)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A primary may know its secondaries by their addresses.
        socket.bind((source_for(address, &self.settings.sources), 0).into())?;
        let stream = socket.connect(address).await?;
        let mut connection = match self.address.transport {
            UpstreamTransport::Plain => Either::Left(stream),
            _ => Either::Right(self.settings.tls.connect(self.address, stream).await?),
        };
        connection.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).await?;
        connection.flush().await?;
        Ok(connection)
    }
}

impl Request {
    /// Reads the messages of a transfer; `None` if they end before it does.
    fn read(
        mut self,
        mut stream: Stream,
        mut messages: mpsc::Receiver<Vec<u8>>,
    ) -> Result<Option<Transferred>, ExchangeError> {
        let (mut count, mut octets) = (0, 0);
        while let Some(mut message) = messages.blocking_recv() {
            count += 1;
            octets += message.len() as u64;
            self.check(&mut message)?;
            if let Some(received) = stream.take(&message)? {
                self.finish()?;
                return Ok(Some(Transferred { received, messages: count, octets }));
            }
        }
        Ok(None)
    }

    /// Verifies the signature of a message of the reply, and removes it.
    fn check(&mut self, message: &mut Vec<u8>) -> Result<(), ExchangeError> {
        match &mut self.verifier {
            Some(verifier) => Ok(verifier.take(message, unix_now().as_secs())?),
            None => Ok(()),
        }
    }

    /// Checks that the last message was signed.
    fn finish(&self) -> Result<(), ExchangeError> {
        Ok(self.verifier.as_ref().map_or(Ok(()), Verifier::finish)?)
    }
}

/// Receives a message with its length.
async fn receive(stream: &mut Connection) -> Result<Vec<u8>, ExchangeError> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
