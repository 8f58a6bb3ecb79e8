//! dnstap target: what a collector sends is a control frame within the bounds or refused, and what the agent sends can be read.

use std::{net::SocketAddr, time::Duration};

use muster::dns::tap::{
    Exchange, Flow, Kind, Protocol,
    frame_streams::{Control, MAX_CONTENT_TYPE, MAX_CONTROL},
    protobuf::Sender,
};

/// Parses the input as frames of a collector, and sends it as a query and a response.
pub fn run(octets: &[u8]) {
    let mut rest = octets;
    while let Ok(Some((control, len))) = Control::parse(rest) {
        assert!(len <= MAX_CONTROL + 8 && control.content_types.iter().all(|known| known.len() <= MAX_CONTENT_TYPE));
        assert_eq!(control.encode(), rest[..len], "each octet has a meaning");
        for cut in 0..len {
            assert_eq!(Control::parse(&rest[..cut]), Ok(None), "incomplete at {cut}");
        }
        rest = &rest[len..];
    }
    // A refused or incomplete frame stays so.
    if rest.len() > MAX_CONTROL + 8 {
        assert!(Control::parse(rest).is_err(), "the input of a connection is bounded");
    }
    send(octets);
}

fn send(octets: &[u8]) {
    let (query, response) = octets.split_at(octets.len() / 2);
    let end = |port| SocketAddr::from(([192, 0, 2, 1], port));
    let flow = Flow { protocol: Protocol::Tls, initiator: end(1), responder: end(853) };
    let time = Duration::new(octets.len() as u64, 7);
    let exchange = Exchange::new(Kind::Client, flow, time, query, Some((time, response)));
    let sender = Sender { identity: "host-a".into(), version: "muster".into() };
    let mut out = Vec::new();
    exchange.messages().for_each(|message| sender.push(message, &mut out));
    let (mut frames, mut rest) = (0, &out[..]);
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        assert!(frame.starts_with(b"\x0a\x06host-a"), "{frame:?}");
        frames += 1;
        rest = tail;
    }
    assert_eq!((frames, rest.len()), (if query.is_empty() { 1 } else { 2 }, 0));
}
