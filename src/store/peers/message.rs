//! Messages between two nodes, as a [sealed stream](crate::store::sealed_stream) carries them.
//!
//! A message is an octet for its type, an octet for its argument, which is 0 for all types but one, the number of its request in eight octets, and the body.
//! The client numbers its requests; numbers do not repeat within a connection.

use bytes::{Buf, Bytes};

/// Octets before the body.
pub(super) const HEAD: usize = 10;

/// A message of a client or a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Number of the request; 0 for [`Kind::Alive`].
    pub(super) id: u64,
    pub(super) body: Bytes,
}

/// Type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From both sides: nothing else was sent for a while.
    Alive,
    /// From the client: a request with one reply.
    Call,
    /// From the client: a request with many replies. The server may send a window of them.
    Stream,
    /// From the client: the request was dropped.
    Cancel,
    /// From the client: as many more replies may be sent.
    Credit(u8),
    /// From the server: the stream was accepted.
    Opened,
    /// From the server: a reply of a stream.
    Item,
    /// From the server: the reply of a call.
    Reply,
    /// From the server: the end of a stream, or a call that gets no reply.
    End,
    /// From the server: the request was refused, since too many are open.
    Overloaded,
}

impl Message {
    pub(super) fn new(kind: Kind, id: u64) -> Self {
        Self { kind, id, body: Bytes::new() }
    }

    pub(super) fn with_body(kind: Kind, id: u64, body: Bytes) -> Self {
        Self { kind, id, body }
    }

    /// Returns the octets before the body.
    pub(super) fn head(&self) -> [u8; HEAD] {
        let (kind, argument) = match self.kind {
            Kind::Alive => (0, 0),
            Kind::Call => (1, 0),
            Kind::Stream => (2, 0),
            Kind::Cancel => (3, 0),
            Kind::Credit(messages) => (4, messages),
            Kind::Opened => (5, 0),
            Kind::Item => (6, 0),
            Kind::Reply => (7, 0),
            Kind::End => (8, 0),
            Kind::Overloaded => (9, 0),
        };
        let mut head = [0; HEAD];
        head[..2].copy_from_slice(&[kind, argument]);
        head[2..].copy_from_slice(&self.id.to_be_bytes());
        head
    }

    /// Reads a message; `None` if it is malformed.
    pub(super) fn decode(mut octets: Bytes) -> Option<Self> {
        let (head, _) = octets.split_first_chunk::<HEAD>()?;
        let [kind, argument, id @ ..] = *head;
        let kind = match (kind, argument) {
            (0, 0) => Kind::Alive,
            (1, 0) => Kind::Call,
            (2, 0) => Kind::Stream,
            (3, 0) => Kind::Cancel,
            (4, messages) => Kind::Credit(messages),
            (5, 0) => Kind::Opened,
            (6, 0) => Kind::Item,
            (7, 0) => Kind::Reply,
            (8, 0) => Kind::End,
            (9, 0) => Kind::Overloaded,
            _ => return None,
        };
        octets.advance(HEAD);
        Some(Self { kind, id: u64::from_be_bytes(id), body: octets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_written() {
        use Kind::*;
        for kind in [Alive, Call, Stream, Cancel, Credit(32), Opened, Item, Reply, End, Overloaded] {
            for body in [&b""[..], b"x", &[9; 300]] {
                let message = Message::with_body(kind, u64::MAX - 1, Bytes::from_static(b"").slice(..));
                let message = Message { body: Bytes::copy_from_slice(body), ..message };
                let octets = [&message.head()[..], body].concat();
                assert_eq!(Message::decode(octets.clone().into()), Some(message));
                for len in 0..HEAD {
                    assert_eq!(Message::decode(Bytes::copy_from_slice(&octets[..len])), None, "{len} octets");
                }
            }
        }
    }

    #[test]
    fn unknown_messages_are_malformed() {
        for (kind, argument) in [(0, 1), (1, 1), (2, 1), (3, 1), (5, 1), (9, 9), (10, 0), (255, 0)] {
            let octets = [&[kind, argument][..], &[0; 8]].concat();
            assert_eq!(Message::decode(octets.into()), None, "{kind} {argument}");
        }
    }
}
