//! One message to one upstream, and its reply.
//!
//! A socket for each: the kernel draws its port, and hands over only what comes from the upstream's own address (RFC 5452
//! §9.2). What does not answer the question, letter for letter, is not looked at. Cut replies are fetched over TCP.

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

use super::{error::UpstreamError, secure::Secure};
use crate::{
    dns::{
        message::codes::Rcode,
        recursion::{
            forward::{Forward, Manners, Message},
            reply::{Reply, ReplyError},
        },
    },
    model::upstream_address::{UpstreamAddress, UpstreamTransport},
};

/// Longer than any reply that we ask for, and short enough for thousands at once. What is longer cannot be read.
const DATAGRAM: usize = 4096;
/// How long a reply in the right letter case may take after one in another.
const GRACE: Duration = Duration::from_millis(100);

/// What an upstream said.
pub(super) struct Said {
    pub(super) reply: Reply,
    /// What it bears, as is known now.
    pub(super) manners: Manners,
}

/// Asks an upstream of which this is known; waits for as long as the caller does.
pub(super) async fn ask(
    upstream: &UpstreamAddress,
    secure: &Secure,
    forward: &Forward,
    known: Manners,
    mut rng: Rng,
) -> Result<Said, UpstreamError> {
    let mut manners = known;
    loop {
        let said = once(upstream, secure, &forward.message(manners, &mut rng)).await;
        let knows_no_edns = match &said {
            Ok(reply) => [Rcode::FormErr as u16, Rcode::NotImp as u16].contains(&reply.rcode()),
            Err(UpstreamError::Malformed) => true,
            Err(_) => false,
        };
        // Some never heard of it (RFC 6891 §6.2.2), and some write all names alike.
        if manners.edns && knows_no_edns {
            manners.edns = false;
        } else if manners.case && matches!(said, Err(UpstreamError::OtherCase)) {
            manners.case = false;
        } else {
            let reply = said?;
            // What did not help was not the reason.
            let manners = if reply.is_answer() { manners } else { known };
            return Ok(Said { reply, manners });
        }
    }
}

async fn once(upstream: &UpstreamAddress, secure: &Secure, message: &Message) -> Result<Reply, UpstreamError> {
    if upstream.way == UpstreamTransport::Plain {
        return datagram(upstream.address, message).await;
    }
    whole(message, &secure.ask(upstream, &message.octets).await?)
}

/// Reads what came over a connection: it answers, and is not cut.
fn whole(message: &Message, octets: &[u8]) -> Result<Reply, UpstreamError> {
    message.reply(octets).map_err(|unfit| match unfit {
        ReplyError::Foreign | ReplyError::Malformed => UpstreamError::Malformed,
        ReplyError::OtherCase => UpstreamError::OtherCase,
        ReplyError::Truncated => UpstreamError::Truncated,
    })
}

async fn datagram(upstream: SocketAddr, message: &Message) -> Result<Reply, UpstreamError> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(&message.octets).await?;
    let mut octets = vec![0; DATAGRAM];
    let mut folded: Option<Instant> = None;
    loop {
        let len = match folded {
            None => socket.recv(&mut octets).await?,
            // A good one may still come, if that was a forger's.
            Some(deadline) => {
                timeout_at(deadline, socket.recv(&mut octets)).await.map_err(|_| UpstreamError::OtherCase)??
            }
        };
        match message.reply(&octets[..len]) {
            Ok(reply) => return Ok(reply),
            Err(ReplyError::Foreign) => {}
            Err(ReplyError::OtherCase) => drop(folded.get_or_insert_with(|| Instant::now() + GRACE)),
            Err(ReplyError::Malformed) => return Err(UpstreamError::Malformed),
            Err(ReplyError::Truncated) => return stream(upstream, message).await,
        }
    }
}

async fn stream(upstream: SocketAddr, message: &Message) -> Result<Reply, UpstreamError> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let mut framed = (message.octets.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&message.octets);
    stream.write_all(&framed).await?;
    let mut octets = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut octets).await?;
    whole(message, &octets)
}
