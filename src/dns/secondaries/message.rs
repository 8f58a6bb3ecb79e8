//! Messages to secondaries and their responses: NOTIFY (RFC 1996), and a question for the SOA.

use crate::{
    dns::{
        message::{
            codes::{class, rtype},
            query::HEADER,
        },
        secondary::stream::{serial, soa_in},
        transfer::messages::soa,
    },
    model::name::Name,
};

/// Flags of a NOTIFY message: its opcode, and AA.
const NOTIFY: u8 = 0x24;
/// QR and the opcode.
const KIND: u8 = 0xf8;

/// What a message from a secondary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Response to NOTIFY, with its code.
    Notified(u16),
    /// Response to a question.
    Answer,
}

impl Response {
    /// Returns the id and the kind of a response; `None` for other messages.
    pub(super) fn read(message: &[u8]) -> Option<(u16, Self)> {
        let [i0, i1, flags, code, ..] = message else { return None };
        let id = u16::from_be_bytes([*i0, *i1]);
        match flags & KIND {
            0xa0 => Some((id, Self::Notified(u16::from(code & 0x0f)))),
            0x80 => Some((id, Self::Answer)),
            _ => None,
        }
    }
}

/// Returns a NOTIFY message with the SOA in its answer section (RFC 1996 §3.7).
pub(super) fn notify(id: u16, origin: &Name, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut message = with_question(id, NOTIFY, 1, origin);
    soa(ttl, rdata).append_to(&mut message);
    message
}

/// Returns a question for the SOA of a zone.
pub(super) fn question(id: u16, origin: &Name) -> Vec<u8> {
    with_question(id, 0, 0, origin)
}

fn with_question(id: u16, flags: u8, answers: u8, origin: &Name) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + origin.wire().len() + 4);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[flags, 0, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend_from_slice(origin.wire());
    message.extend_from_slice(&rtype::SOA.to_be_bytes());
    message.extend_from_slice(&class::IN.to_be_bytes());
    message
}

/// Returns the serial in the answer of a secondary; `None` if it does not answer the zone.
pub(super) fn serial_in(answer: &[u8], id: u16, origin: &Name) -> Option<u32> {
    serial(&soa_in(answer, id, origin).ok()?.rdata)
}
