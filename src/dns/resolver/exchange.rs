//! Exchange of one query with one upstream.
//!
//! Each query has its own socket: the kernel draws the port and delivers only packets from the upstream's address (RFC 5452
//! §9.2). Replies whose question differs, letter case included, are ignored. Truncated replies are retried over TCP.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use super::{error::UpstreamError, reachable::reachable, secure::Secure};
use crate::{
    dns::{
        answer::Ede,
        collector::Tap,
        message::codes::{Rcode, ede},
        recursion::{
            upstream_query::{Forward, Manners, Message},
            upstream_reply::{Reply, ReplyError},
        },
        tap::{Kind, Protocol},
    },
    model::upstream_address::{UpstreamAddress, UpstreamTransport},
};

/// Receive buffer in octets: larger than the advertised payload, and small enough for thousands of queries.
const DATAGRAM: usize = 4096;
/// Wait for a reply in the right letter case after one in another.
const GRACE: Duration = Duration::from_millis(100);

/// Reply of an upstream.
pub(super) struct Exchanged {
    pub(super) reply: Reply,
    /// Features that the upstream supports, as learned.
    pub(super) manners: Manners,
}

/// Queries an upstream with the features it is known to support. Has no timeout of its own.
pub(super) async fn ask(
    upstream: &UpstreamAddress,
    secure: &Secure,
    forward: &Forward,
    known: Manners,
    mut rng: Rng,
) -> Result<Exchanged, UpstreamError> {
    let mut manners = known;
    loop {
        let outcome = once(upstream, secure, &forward.message(manners, &mut rng)).await;
        let lacks_edns = match &outcome {
            Ok(reply) => [Rcode::FormErr as u16, Rcode::NotImp as u16].contains(&reply.rcode()),
            Err(UpstreamError::HeaderOnly(code)) => *code != Rcode::Refused,
            Err(UpstreamError::Malformed) => true,
            Err(_) => false,
        };
        // Some servers lack EDNS (RFC 6891 §6.2.2), some change the letter case of names.
        if manners.edns && lacks_edns {
            manners.edns = false;
        } else if manners.case && matches!(outcome, Err(UpstreamError::OtherCase)) {
            manners.case = false;
        } else {
            let reply = match outcome {
                Err(UpstreamError::HeaderOnly(code)) => {
                    let text = UpstreamError::HeaderOnly(code).to_string();
                    Reply::bare(code, Ede { code: ede::OTHER, text: &text }, forward.question())
                }
                outcome => outcome?,
            };
            // A fallback that did not help is not remembered.
            let manners = if reply.is_answer() { manners } else { known };
            return Ok(Exchanged { reply, manners });
        }
    }
}

async fn once(upstream: &UpstreamAddress, secure: &Secure, message: &Message) -> Result<Reply, UpstreamError> {
    if upstream.transport == UpstreamTransport::Plain {
        return datagram(reachable(upstream)?, message, secure.tap()).await;
    }
    parse_stream_reply(message, &secure.ask(upstream, &message.octets).await?)
}

/// Parses a reply received over a connection; it must not be truncated.
fn parse_stream_reply(message: &Message, octets: &[u8]) -> Result<Reply, UpstreamError> {
    message.reply(octets).map_err(|error| match error {
        ReplyError::Foreign | ReplyError::Malformed => UpstreamError::Malformed,
        ReplyError::HeaderOnly(code) => UpstreamError::HeaderOnly(code),
        ReplyError::OtherCase => UpstreamError::OtherCase,
        ReplyError::Truncated => UpstreamError::Truncated,
    })
}

async fn datagram(upstream: SocketAddr, message: &Message, tap: Option<&Tap>) -> Result<Reply, UpstreamError> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(&message.octets).await?;
    let tapped = tap.map(|tap| tap.forwarded(Protocol::Udp, socket.local_addr(), upstream, &message.octets));
    let mut octets = vec![0; DATAGRAM];
    let mut folded: Option<Instant> = None;
    loop {
        let len = match folded {
            None => socket.recv(&mut octets).await?,
            // The genuine reply may still arrive, if that one was forged.
            Some(deadline) => {
                timeout_at(deadline, socket.recv(&mut octets)).await.map_err(|_| UpstreamError::OtherCase)??
            }
        };
        let parsed = message.reply(&octets[..len]);
        if let (Some(tapped), false) = (&tapped, matches!(parsed, Err(ReplyError::Foreign))) {
            tapped.response(Kind::Forwarder, &octets[..len]);
        }
        match parsed {
            Ok(reply) => return Ok(reply),
            Err(ReplyError::Foreign) => {}
            Err(ReplyError::OtherCase) => drop(folded.get_or_insert_with(|| Instant::now() + GRACE)),
            Err(ReplyError::Malformed) => return Err(UpstreamError::Malformed),
            Err(ReplyError::HeaderOnly(code)) => return Err(UpstreamError::HeaderOnly(code)),
            Err(ReplyError::Truncated) => return stream(upstream, message, tap).await,
        }
    }
}

async fn stream(upstream: SocketAddr, message: &Message, tap: Option<&Tap>) -> Result<Reply, UpstreamError> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let mut framed = (message.octets.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&message.octets);
    stream.write_all(&framed).await?;
    let tapped = tap.map(|tap| tap.forwarded(Protocol::Tcp, stream.local_addr(), upstream, &message.octets));
    let mut octets = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut octets).await?;
    if let Some(tapped) = tapped {
        tapped.response(Kind::Forwarder, &octets);
    }
    parse_stream_reply(message, &octets)
}
