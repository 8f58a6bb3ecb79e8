//! The engine: a packet in, a packet out, the same for every transport.

use fastrand::Rng;

use super::{
    assemble::{Frame, Scratch, assemble, bare},
    code::Rcode,
    question::{CLASSIC_UDP, LookupName, Query, Rejected},
    table::Tables,
};

/// The longest message over TCP (RFC 1035 §4.2.2).
pub const MAX_TCP: usize = 65_535;

/// How a packet came: it decides how long the reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A message with its length in front.
    Tcp,
}

/// Answers packets; one for each worker. Holds what is used anew for every answer.
pub struct Engine {
    udp_payload: u16,
    rng: Rng,
    name: LookupName,
    scratch: Scratch,
}

impl Engine {
    /// `udp_payload` is the longest reply over UDP in octets, at least 512; `rng` draws the order of records.
    pub fn new(udp_payload: u16, rng: Rng) -> Self {
        Self {
            udp_payload: udp_payload.max(CLASSIC_UDP),
            rng,
            name: LookupName::default(),
            scratch: Scratch::default(),
        }
    }

    /// Writes the reply to `packet` into `out`; `None` where silence is the answer, and `out` then is empty.
    pub fn respond(
        &mut self,
        tables: &Tables,
        packet: &[u8],
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        out.clear();
        let query = match Query::parse(packet, &mut self.name) {
            Ok(query) => query,
            Err(Rejected::Silence) => return None,
            Err(Rejected::Reply { header, question, rcode, edns }) => {
                let frame = Frame { header, question, edns, udp_payload: self.udp_payload, limit: CLASSIC_UDP.into() };
                bare(&frame, rcode, out);
                return Some(rcode);
            }
        };
        let limit = match (transport, query.edns) {
            (Transport::Tcp, _) => MAX_TCP,
            (Transport::Udp, Some(edns)) => edns.payload.min(self.udp_payload).into(),
            (Transport::Udp, None) => CLASSIC_UDP.into(),
        };
        let frame = Frame {
            header: query.header,
            question: query.question,
            edns: query.edns,
            udp_payload: self.udp_payload,
            limit,
        };
        let answer = tables.lookup(&self.name, query.qtype);
        assemble(&frame, &answer, &mut self.rng, &mut self.scratch, out);
        Some(answer.rcode)
    }
}
