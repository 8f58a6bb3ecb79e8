//! NOTIFY from the primaries of secondary zones (RFC 1996).
//!
//! A message causes a question to the primaries, nothing else: its own SOA only tells whether there is something to ask for.

use std::net::IpAddr;

use thiserror::Error;

use super::error_reply::error;
use crate::{
    dns::{
        message::{
            codes::{Rcode, opcode, rtype},
            query::{HEADER, LookupName, Query, Rejected},
            record_walk::Walk,
        },
        refresh::{Hint, Notified},
        secondary::stream::serial,
    },
    model::name::Name,
};

/// Reasons why a message is refused, each with its code.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("malformed message")]
    Malformed,
    #[error("not a secondary zone of this node")]
    NoZone,
    #[error("`dns.secondary` lists neither the sender as a primary nor its key")]
    Sender,
}

impl Refusal {
    fn rcode(&self) -> Rcode {
        match self {
            Self::Malformed => Rcode::FormErr,
            Self::NoZone => Rcode::NotAuth,
            Self::Sender => Rcode::Refused,
        }
    }
}

/// Reports whether a packet is a NOTIFY message.
pub(super) fn is_notify(packet: &[u8]) -> bool {
    // QR is clear.
    packet.get(2).is_some_and(|flags| flags >> 3 == opcode::NOTIFY)
}

/// Takes a message without its signature, by the key with this name. Returns the zone that it is about, and whether it is accepted.
pub(super) fn take(
    zones: &[Notified],
    message: &[u8],
    from: Option<IpAddr>,
    key: Option<&Name>,
) -> (Option<Name>, Result<(), Refusal>) {
    let mut name = LookupName::default();
    let question = match Query::parse(message, &mut name) {
        Err(Rejected::Reply { question, .. }) if question.ends_with(&[0, rtype::SOA as u8, 0, 1]) => question,
        _ => return (None, Err(Refusal::Malformed)),
    };
    let Some(found) = zones.iter().find(|notified| notified.zone.origin.wire() == name.wire()) else {
        return (Name::from_labels(name.labels()).ok(), Err(Refusal::NoZone));
    };
    let by_key = key.is_some() && found.zone.key.as_ref() == key;
    let origin = Some(found.zone.origin.clone());
    match from {
        Some(from) if by_key || found.zone.primaries.iter().any(|primary| primary.address.ip() == from) => {
            found.notify(Hint { from, serial: soa_serial(message, question) });
            (origin, Ok(()))
        }
        _ => (origin, Err(Refusal::Sender)),
    }
}

/// Returns the serial of the SOA in the answer section, if there is one.
fn soa_serial(message: &[u8], question: &[u8]) -> Option<u32> {
    if message.get(6..8)? == [0, 0] {
        return None;
    }
    let mut walk = Walk::new(message, HEADER + question.len());
    let record = walk.record().filter(|record| record.rtype == rtype::SOA)?;
    serial(&walk.whole_rdata(&record)?)
}

/// Returns the reply to a message.
pub(super) fn reply(message: &[u8], outcome: &Result<(), Refusal>) -> Vec<u8> {
    let mut reply = error(message, outcome.as_ref().err().map_or(Rcode::NoError, Refusal::rcode));
    // AA (RFC 1996 §4.7).
    reply[2] |= 0x04;
    reply
}
