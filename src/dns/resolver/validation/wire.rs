//! Conversions between this server's names and replies and those of the library.

use hickory_proto::{
    op::Message,
    rr::{Name, RecordType},
    serialize::binary::BinDecodable,
};

use super::error::ValidationError;
use crate::dns::{message::query::LookupName, recursion::upstream_reply::Reply};

/// Returns a name as the library has it; `wire` is its wire form.
pub(super) fn to_name(wire: &[u8]) -> Result<Name, ValidationError> {
    Name::from_bytes(wire).map_err(|error| ValidationError::Unreadable(error.to_string()))
}

/// Returns a name of the library in this server's form.
pub(super) fn to_lookup_name(name: &Name) -> Option<LookupName> {
    let mut wire = Vec::new();
    for label in name {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    LookupName::from_wire(&wire)
}

/// Decodes a reply without additional section and compression.
pub(super) fn decode(reply: &Reply) -> Result<Message, ValidationError> {
    Message::from_vec(&reply.to_message()).map_err(|error| ValidationError::Unreadable(error.to_string()))
}

/// Formats a name and type for texts.
pub(super) fn show(name: &Name, rtype: RecordType) -> String {
    format!("{name} {rtype}")
}
