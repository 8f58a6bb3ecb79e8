//! Messages of the schema `dnstap.proto`: the fields that muster fills in, with the numbers of the schema.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;

use super::{Direction, Flow, Kind, Protocol, frame_streams};

/// Content type of frames with these messages.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// `Dnstap`: the content of a frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dnstap {
    /// Name of the server.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub identity: Option<Bytes>,
    /// Name and version of the program.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub version: Option<Bytes>,
    /// The message.
    #[prost(message, optional, tag = "14")]
    pub message: Option<Message>,
    /// Type of the content: [`MESSAGE`].
    #[prost(int32, required, tag = "15")]
    pub r#type: i32,
}

/// Type of a [`Dnstap`] with a [`Message`].
pub const MESSAGE: i32 = 1;

/// `Message`: a DNS message with its path and times.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// Kind and direction.
    #[prost(enumeration = "MessageType", required, tag = "1")]
    pub r#type: i32,
    /// Address family.
    #[prost(enumeration = "SocketFamily", optional, tag = "2")]
    pub socket_family: Option<i32>,
    /// Transport.
    #[prost(enumeration = "SocketProtocol", optional, tag = "3")]
    pub socket_protocol: Option<i32>,
    /// Address of the initiator, in network order.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub query_address: Option<Bytes>,
    /// Address of the responder.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub response_address: Option<Bytes>,
    /// Port of the initiator.
    #[prost(uint32, optional, tag = "6")]
    pub query_port: Option<u32>,
    /// Port of the responder.
    #[prost(uint32, optional, tag = "7")]
    pub response_port: Option<u32>,
    /// Unix time of the query in seconds.
    #[prost(uint64, optional, tag = "8")]
    pub query_time_sec: Option<u64>,
    /// Nanoseconds of that time.
    #[prost(fixed32, optional, tag = "9")]
    pub query_time_nsec: Option<u32>,
    /// The query in wire form.
    #[prost(bytes = "bytes", optional, tag = "10")]
    pub query_message: Option<Bytes>,
    /// Unix time of the response in seconds.
    #[prost(uint64, optional, tag = "12")]
    pub response_time_sec: Option<u64>,
    /// Nanoseconds of that time.
    #[prost(fixed32, optional, tag = "13")]
    pub response_time_nsec: Option<u32>,
    /// The response in wire form.
    #[prost(bytes = "bytes", optional, tag = "14")]
    pub response_message: Option<Bytes>,
}

/// `Message.Type`: the ones that muster sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names of the schema")]
pub enum MessageType {
    AuthQuery = 1,
    AuthResponse = 2,
    ClientQuery = 5,
    ClientResponse = 6,
    ForwarderQuery = 7,
    ForwarderResponse = 8,
    UpdateQuery = 13,
    UpdateResponse = 14,
}

/// `SocketFamily`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names of the schema")]
pub enum SocketFamily {
    Inet = 1,
    Inet6 = 2,
}

/// `SocketProtocol`: the ones that muster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names of the schema")]
pub enum SocketProtocol {
    Udp = 1,
    Tcp = 2,
    Dot = 3,
    Doh = 4,
    Doq = 7,
}

impl MessageType {
    fn of(kind: Kind, direction: Direction) -> Self {
        match (kind, direction) {
            (Kind::Auth, Direction::Query) => Self::AuthQuery,
            (Kind::Auth, Direction::Response) => Self::AuthResponse,
            (Kind::Client, Direction::Query) => Self::ClientQuery,
            (Kind::Client, Direction::Response) => Self::ClientResponse,
            (Kind::Forwarder, Direction::Query) => Self::ForwarderQuery,
            (Kind::Forwarder, Direction::Response) => Self::ForwarderResponse,
            (Kind::Update, Direction::Query) => Self::UpdateQuery,
            (Kind::Update, Direction::Response) => Self::UpdateResponse,
        }
    }
}

impl SocketProtocol {
    fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
            Protocol::Tls => Self::Dot,
            Protocol::Https => Self::Doh,
            Protocol::Quic => Self::Doq,
        }
    }
}

impl Message {
    /// Returns a message without octets, whose query was sent or received at this Unix time.
    pub(super) fn new(kind: Kind, direction: Direction, flow: Flow, query_time: Duration) -> Self {
        // Both ends have the same family; the responder may be unknown.
        let family = if flow.initiator.is_ipv4() { SocketFamily::Inet } else { SocketFamily::Inet6 };
        Self {
            r#type: MessageType::of(kind, direction) as i32,
            socket_family: Some(family as i32),
            socket_protocol: Some(SocketProtocol::of(flow.protocol) as i32),
            query_address: address(flow.initiator),
            response_address: address(flow.responder),
            query_port: port(flow.initiator),
            response_port: port(flow.responder),
            query_time_sec: Some(query_time.as_secs()),
            query_time_nsec: Some(query_time.subsec_nanos()),
            ..Self::default()
        }
    }
}

fn address(end: SocketAddr) -> Option<Bytes> {
    let known = Some(end.ip()).filter(|ip| !ip.is_unspecified())?;
    Some(match known {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    })
}

fn port(end: SocketAddr) -> Option<u32> {
    Some(end.port()).filter(|port| *port > 0).map(u32::from)
}

/// Name of the server and of its program, in each frame.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Name of the server.
    pub identity: Bytes,
    /// Name and version of the program.
    pub version: Bytes,
}

impl Sender {
    /// Appends a data frame with a message.
    pub fn push(&self, message: Message, out: &mut Vec<u8>) {
        let dnstap = Dnstap {
            identity: Some(self.identity.clone()),
            version: Some(self.version.clone()),
            message: Some(message),
            r#type: MESSAGE,
        };
        frame_streams::push_data(dnstap.encoded_len(), out);
        // A vector has room for everything.
        let _ = dnstap.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::tap::Exchange;

    const QUERY: &[u8] = &[0, 7, 1, 0];
    const RESPONSE: &[u8] = &[0, 7, 0x81, 0, 9];

    fn flow(protocol: Protocol, initiator: &str, responder: &str) -> Flow {
        Flow { protocol, initiator: initiator.parse().unwrap(), responder: responder.parse().unwrap() }
    }

    /// Octets as the schema prescribes them, field by field.
    #[test]
    fn frame_has_the_fields_of_the_schema() {
        let sender = Sender { identity: "host-a".into(), version: "muster 1".into() };
        let flow = flow(Protocol::Udp, "192.0.2.1:5353", "192.0.2.53:53");
        let time = |nanos| Duration::new(300, nanos);
        let exchange = Exchange::new(Kind::Auth, flow, time(1), QUERY, Some((time(2), RESPONSE)));
        let mut out = Vec::new();
        exchange.messages().for_each(|message| sender.push(message, &mut out));
        let head: &[u8] = b"\x0a\x06host-a\x12\x08muster 1\x72";
        let path: &[u8] = &[
            0x10, 1, 0x18, 1, 0x22, 4, 192, 0, 2, 1, 0x2a, 4, 192, 0, 2, 53, 0x30, 0xe9, 0x29, 0x38, 53, 0x40, 0xac, 2,
            0x4d, 1, 0, 0, 0,
        ];
        let query = [&[0x08, 1][..], path, &[0x52, 4], QUERY].concat();
        let response = [&[0x08, 2][..], path, &[0x60, 0xac, 2, 0x6d, 2, 0, 0, 0, 0x72, 5], RESPONSE].concat();
        let frame = |message: &[u8]| {
            let content = [head, &[message.len() as u8], message, &[0x78, 1]].concat();
            [&(content.len() as u32).to_be_bytes(), &content[..]].concat()
        };
        assert_eq!(out, [frame(&query), frame(&response)].concat());
    }

    #[test]
    fn message_type_and_transport_follow_kind_and_flow() {
        let kinds = [(Kind::Auth, [1, 2]), (Kind::Client, [5, 6]), (Kind::Forwarder, [7, 8]), (Kind::Update, [13, 14])];
        let (v4, v6) = (("127.0.0.1:1", "127.0.0.1:2"), ("[::1]:1", "[::1]:2"));
        let transports = [
            (Protocol::Udp, v4, 1, 1),
            (Protocol::Tcp, v6, 2, 2),
            (Protocol::Tls, v4, 1, 3),
            (Protocol::Https, v6, 2, 4),
            (Protocol::Quic, v4, 1, 7),
        ];
        for (kind, types) in kinds {
            for (protocol, (initiator, responder), family, number) in transports {
                let flow = flow(protocol, initiator, responder);
                let exchange = Exchange::new(kind, flow, Duration::ZERO, QUERY, Some((Duration::ZERO, RESPONSE)));
                let messages: Vec<Message> = exchange.messages().collect();
                assert_eq!([messages[0].r#type, messages[1].r#type], types, "{kind:?}");
                for message in messages {
                    let found = (message.socket_family, message.socket_protocol);
                    assert_eq!(found, (Some(family), Some(number)), "{protocol:?}");
                    assert_eq!((message.query_port, message.response_port), (Some(1), Some(2)));
                }
            }
        }
    }

    #[test]
    fn exchange_has_the_messages_that_it_was_given() {
        let flow = flow(Protocol::Udp, "[::1]:9", "[::]:0");
        let response = Some((Duration::ZERO, RESPONSE));
        let cases = [(QUERY, response, vec![1, 2]), (QUERY, None, vec![1]), (&[], response, vec![2])];
        for (query, response, expected) in cases {
            let exchange = Exchange::new(Kind::Auth, flow, Duration::ZERO, query, response);
            let types: Vec<i32> = exchange.messages().map(|message| message.r#type).collect();
            assert_eq!(types, expected);
            let message = exchange.messages().next().unwrap();
            assert_eq!((message.response_address, message.response_port), (None, None), "an unknown end is left out");
        }
    }
}
