//! Names of messages, with or without compression (RFC 1035 §4.1.4).

use crate::model::name::{MAX_LABEL, MAX_NAME};

/// Appends the name at an offset of a message to `wire`, uncompressed. Returns the offset behind it; `None` if it is invalid.
/// Each pointer leads before the labels that it follows, so that the number of steps is bounded.
pub(super) fn read_name(message: &[u8], start: usize, wire: &mut Vec<u8>) -> Option<usize> {
    let (mut at, mut least, mut end) = (start, start, None);
    let begin = wire.len();
    loop {
        match *message.get(at)? {
            0 => {
                wire.push(0);
                return (wire.len() - begin <= MAX_NAME).then_some(end.unwrap_or(at + 1));
            }
            len if usize::from(len) <= MAX_LABEL => {
                let label = message.get(at..=at + usize::from(len))?;
                wire.extend_from_slice(label);
                if wire.len() - begin >= MAX_NAME {
                    return None;
                }
                at += label.len();
            }
            high @ 0xc0.. => {
                let target = usize::from(u16::from_be_bytes([high & 0x3f, *message.get(at + 1)?]));
                end.get_or_insert(at + 2);
                if target >= least {
                    return None;
                }
                (at, least) = (target, target);
            }
            _ => return None,
        }
    }
}
