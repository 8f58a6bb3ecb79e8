//! One message to one upstream, and its reply.
//!
//! A socket for each: the kernel draws its port, and hands over only what comes from the upstream's own address (RFC 5452
//! §9.2). What does not answer the question, letter for letter, is not looked at. Cut replies are fetched over TCP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{
    super::{
        code::Rcode,
        forward::{Forward, Message},
        reply::{Reply, Unfit},
        server::{Server, Way},
    },
    failed::Failed,
    secure::Secure,
};

/// Longer than any reply that we ask for, and short enough for thousands at once. What is longer cannot be read.
const DATAGRAM: usize = 4096;

/// What an upstream said.
pub(super) struct Said {
    pub(super) reply: Reply,
    /// It had to be asked without EDNS.
    pub(super) plain: bool,
}

/// Asks an upstream; waits for as long as the caller does.
pub(super) async fn ask(
    upstream: &Server,
    secure: &Secure,
    forward: &Forward,
    edns: bool,
    mut rng: Rng,
) -> Result<Said, Failed> {
    let said = once(upstream, secure, &forward.message(edns, &mut rng)).await;
    let knows_no_edns = match &said {
        Ok(reply) => [Rcode::FormErr as u16, Rcode::NotImp as u16].contains(&reply.rcode()),
        Err(Failed::Malformed) => true,
        Err(_) => false,
    };
    // Some never heard of it (RFC 6891 §6.2.2).
    if edns && knows_no_edns {
        let reply = once(upstream, secure, &forward.message(false, &mut rng)).await?;
        let plain = reply.is_answer();
        return Ok(Said { reply, plain });
    }
    Ok(Said { reply: said?, plain: false })
}

async fn once(upstream: &Server, secure: &Secure, message: &Message) -> Result<Reply, Failed> {
    if upstream.way == Way::Plain {
        return datagram(upstream.address, message).await;
    }
    whole(message, &secure.ask(upstream, &message.octets).await?)
}

/// Reads what came over a connection: it answers, and is not cut.
fn whole(message: &Message, octets: &[u8]) -> Result<Reply, Failed> {
    message.reply(octets).map_err(|unfit| match unfit {
        Unfit::Foreign | Unfit::Malformed => Failed::Malformed,
        Unfit::Truncated => Failed::Truncated,
    })
}

async fn datagram(upstream: SocketAddr, message: &Message) -> Result<Reply, Failed> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(&message.octets).await?;
    let mut octets = vec![0; DATAGRAM];
    loop {
        let len = socket.recv(&mut octets).await?;
        match message.reply(&octets[..len]) {
            Ok(reply) => return Ok(reply),
            Err(Unfit::Foreign) => {}
            Err(Unfit::Malformed) => return Err(Failed::Malformed),
            Err(Unfit::Truncated) => return stream(upstream, message).await,
        }
    }
}

async fn stream(upstream: SocketAddr, message: &Message) -> Result<Reply, Failed> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let mut framed = (message.octets.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&message.octets);
    stream.write_all(&framed).await?;
    let mut octets = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut octets).await?;
    whole(message, &octets)
}
