//! Replies of servers that have nothing but a code.

use crate::dns::message::{
    codes::Rcode,
    query::{HEADER, LookupName, Query, Rejected},
};

/// Returns a reply with a code, and the question of the request if it has one.
pub(super) fn error(request: &[u8], rcode: Rcode) -> Vec<u8> {
    let mut name = LookupName::default();
    let question = match Query::parse(request, &mut name) {
        Ok(query) => query.question,
        Err(Rejected::Reply { question, .. }) => question,
        Err(Rejected::Silence) => &[],
    };
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(request.get(..2).unwrap_or(&[0, 0]));
    let flags = request.get(2).copied().unwrap_or_default();
    // Opcode and RD of the request.
    (reply[2], reply[3]) = (0x80 | flags & 0x79, rcode as u8);
    reply[5] = u8::from(!question.is_empty());
    reply.extend_from_slice(question);
    reply
}
