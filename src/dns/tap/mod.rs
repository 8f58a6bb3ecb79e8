//! dnstap: copies of DNS messages for a collector, in the schema of <https://dnstap.info>.
//!
//! ```text
//! server, resolver ─► Exchange ─► queue ─► protobuf ─► frame_streams ─► collector
//! ```
//!
//! An [`Exchange`] is plain data. Encoding it is the work of the task that sends it, not of the thread that answers.

pub mod frame_streams;
pub mod protobuf;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use crate::metrics::Source;

/// Role of this server in an exchange of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It answers from its zones.
    Auth,
    /// It answers a name outside its zones: from an upstream, or as a special-use name.
    Client,
    /// It asks an upstream.
    Forwarder,
    /// It takes an update of a dynamic zone.
    Update,
}

impl Kind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Auth, Self::Client, Self::Forwarder, Self::Update];

    /// Returns the kind of a query of a client whose answer has this source; `None` if it is not recorded.
    pub fn of(source: Source) -> Option<Self> {
        match source {
            Source::Zone | Source::Rejected | Source::Limited => Some(Self::Auth),
            Source::Host | Source::Cache | Source::Stale | Source::Upstream | Source::Refused => Some(Self::Client),
            // Not a query, or never read.
            Source::Dropped | Source::Overload => None,
        }
    }
}

/// Direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the initiator to the responder.
    Query,
    /// From the responder to the initiator.
    Response,
}

/// Set of kinds of messages, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection(u8);

impl Selection {
    /// All messages.
    pub const ALL: Self = Self(u8::MAX);

    /// Returns the queries or the responses of a kind.
    pub const fn one(kind: Kind, direction: Direction) -> Self {
        Self(1 << (2 * kind as u8 + direction as u8))
    }

    /// Returns the queries and the responses of a kind.
    pub const fn both(kind: Kind) -> Self {
        Self::one(kind, Direction::Query).or(Self::one(kind, Direction::Response))
    }

    /// Returns the messages of both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reports whether a message belongs to the set.
    pub const fn has(self, kind: Kind, direction: Direction) -> bool {
        self.0 & Self::one(kind, direction).0 != 0
    }
}

/// Transport of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Plain DNS over UDP.
    Udp,
    /// Plain DNS over TCP.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

/// Transport and both ends of an exchange. An unspecified address is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Transport.
    pub protocol: Protocol,
    /// Sender of the query.
    pub initiator: SocketAddr,
    /// Sender of the response.
    pub responder: SocketAddr,
}

/// A query, a response to it, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    kind: Kind,
    flow: Flow,
    /// Unix time of the query.
    query_time: Duration,
    /// Unix time of the response; `None` without a response.
    response_time: Option<Duration>,
    /// The query, then the response: one allocation for both.
    octets: Bytes,
    /// Length of the query in octets; 0 without a query.
    query_len: usize,
}

impl Exchange {
    /// Returns an exchange at these Unix times. `query` is empty for a response alone.
    pub fn new(
        kind: Kind,
        flow: Flow,
        query_time: Duration,
        query: &[u8],
        response: Option<(Duration, &[u8])>,
    ) -> Self {
        let (response_time, response) = response.unzip();
        let octets = Bytes::from([query, response.unwrap_or_default()].concat());
        Self { kind, flow, query_time, response_time, octets, query_len: query.len() }
    }

    /// Number of octets of the messages.
    pub fn size(&self) -> usize {
        self.octets.len()
    }

    /// Returns the messages in their order.
    pub fn messages(&self) -> impl Iterator<Item = protobuf::Message> + '_ {
        let query = (self.query_len > 0).then(|| protobuf::Message {
            query_message: Some(self.octets.slice(..self.query_len)),
            ..self.message(Direction::Query)
        });
        let response = self.response_time.map(|time| protobuf::Message {
            response_time_sec: Some(time.as_secs()),
            response_time_nsec: Some(time.subsec_nanos()),
            response_message: Some(self.octets.slice(self.query_len..)),
            ..self.message(Direction::Response)
        });
        query.into_iter().chain(response)
    }

    /// Returns a message without its octets.
    fn message(&self, direction: Direction) -> protobuf::Message {
        protobuf::Message::new(self.kind, direction, self.flow, self.query_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_has_the_messages_it_was_made_of() {
        let all = Kind::ALL.iter().flat_map(|kind| [(*kind, Direction::Query), (*kind, Direction::Response)]);
        let auth_and_responses = Selection::both(Kind::Auth).or(Selection::one(Kind::Update, Direction::Response));
        for (kind, direction) in all {
            let expected = kind == Kind::Auth || (kind, direction) == (Kind::Update, Direction::Response);
            assert_eq!(auth_and_responses.has(kind, direction), expected, "{kind:?} {direction:?}");
            assert!(Selection::ALL.has(kind, direction));
            assert!(!Selection::default().has(kind, direction));
        }
    }

    #[test]
    fn kind_follows_the_source_of_the_answer() {
        let cases = [
            (Source::Zone, Some(Kind::Auth)),
            (Source::Rejected, Some(Kind::Auth)),
            (Source::Limited, Some(Kind::Auth)),
            (Source::Host, Some(Kind::Client)),
            (Source::Cache, Some(Kind::Client)),
            (Source::Stale, Some(Kind::Client)),
            (Source::Upstream, Some(Kind::Client)),
            (Source::Refused, Some(Kind::Client)),
            (Source::Dropped, None),
            (Source::Overload, None),
        ];
        for (source, expected) in cases {
            assert_eq!(Kind::of(source), expected, "{source:?}");
        }
    }
}
