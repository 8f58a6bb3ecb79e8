//! NSEC records that cover one name each (RFC 4470): neighbours of names in canonical order, and type bitmaps (RFC 4034 §4).
//!
//! Names are in wire form and lower case. A covering record spans a label and everything below it, so that it proves the
//! absence of each name there. Its owner and its next name do not exist.

use smallvec::SmallVec;

use crate::{
    dns::message::codes::rtype,
    model::name::{MAX_LABEL, MAX_NAME},
};

/// Octets of a bitmap with types below 256, with which RDATA ends.
const BITMAP: usize = 2 + 32;

/// A label without its length octet.
type Label = SmallVec<[u8; MAX_LABEL]>;

/// RDATA and owner of an NSEC record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nsec {
    /// Owner name.
    pub owner: Vec<u8>,
    /// RDATA: the next name, then the type bitmap.
    pub rdata: Vec<u8>,
}

/// Returns the record that proves the absence of `label`.`parent` and of all names below it; `parent` is in the zone of
/// `origin`.
pub fn covering(label: &[u8], parent: &[u8], origin: &[u8]) -> Nsec {
    let owner = match predecessor(label, MAX_NAME - parent.len()) {
        Some(before) => join(&before, parent),
        // No label precedes that of a single zero octet.
        None => parent.to_vec(),
    };
    // RFC 4470 §4: nothing but the record itself and its signature.
    Nsec { rdata: rdata(&after(label, parent, origin), &mut [rtype::RRSIG, rtype::NSEC]), owner }
}

/// Returns the record of an existing name, which proves that it has these types only.
pub fn matching(name: &[u8], origin: &[u8], mut types: Vec<u16>) -> Nsec {
    let next = if name.len() + 2 <= MAX_NAME {
        join(&[0], name)
    } else {
        // Nothing can be below the name.
        match split(name) {
            Some((label, parent)) if name != origin => after(label, parent, origin),
            _ => origin.to_vec(),
        }
    };
    types.extend([rtype::RRSIG, rtype::NSEC]);
    Nsec { owner: name.to_vec(), rdata: rdata(&next, &mut types) }
}

fn rdata(next: &[u8], types: &mut [u16]) -> Vec<u8> {
    let mut rdata = Vec::with_capacity(next.len() + BITMAP);
    rdata.extend_from_slice(next);
    bitmap(types, &mut rdata);
    rdata
}

/// Returns the first name behind all names below `label`.`parent`; the origin if there is none in the zone.
fn after(label: &[u8], parent: &[u8], origin: &[u8]) -> Vec<u8> {
    if let Some(next) = successor(label, MAX_NAME - parent.len()) {
        return join(&next, parent);
    }
    match split(parent) {
        Some((label, above)) if parent != origin => after(label, above, origin),
        _ => origin.to_vec(),
    }
}

/// Returns a label that precedes `label`, so close that no existing label is between them; at most `room` octets with its
/// length octet.
fn predecessor(label: &[u8], room: usize) -> Option<Label> {
    let (last, rest) = label.split_last()?;
    let mut before = Label::from_slice(rest);
    match *last {
        0 if rest.is_empty() => return None,
        0 => return Some(before),
        // Upper-case letters are equal to lower-case ones.
        b'[' => before.push(b'@'),
        last => before.push(last - 1),
    }
    before.resize(MAX_LABEL.min(room.saturating_sub(1)).max(before.len()), 0xff);
    Some(before)
}

/// Returns the label that follows `label`; at most `room` octets with its length octet.
fn successor(label: &[u8], room: usize) -> Option<Label> {
    let mut next = Label::from_slice(label);
    if label.len() < MAX_LABEL && label.len() + 2 <= room {
        next.push(0);
        return Some(next);
    }
    while let Some(last) = next.pop() {
        match last {
            0xff => {}
            b'@' => {
                next.push(b'[');
                return Some(next);
            }
            last => {
                next.push(last + 1);
                return Some(next);
            }
        }
    }
    None
}

fn join(label: &[u8], parent: &[u8]) -> Vec<u8> {
    [&[label.len() as u8], label, parent].concat()
}

/// Returns the first label and the name without it; `None` for the root.
pub fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    match name.split_first()? {
        (0, _) => None,
        (len, rest) => rest.split_at_checked(usize::from(*len)),
    }
}

/// Appends the type bitmap (RFC 4034 §4.1.2).
fn bitmap(types: &mut [u16], out: &mut Vec<u8>) {
    types.sort_unstable();
    let mut rest = &types[..];
    while let Some(first) = rest.first() {
        let window = first >> 8;
        let count = rest.iter().take_while(|rtype| *rtype >> 8 == window).count();
        let (these, others) = rest.split_at(count);
        let mut bits = [0_u8; 32];
        for rtype in these {
            bits[usize::from(rtype & 0xff) / 8] |= 0x80 >> (rtype & 7);
        }
        let len = these.last().map_or(0, |last| usize::from(last & 0xff) / 8 + 1);
        out.extend_from_slice(&[window as u8, len as u8]);
        out.extend_from_slice(&bits[..len]);
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(labels: &[&[u8]]) -> Vec<u8> {
        let mut wire: Vec<u8> = labels.iter().flat_map(|label| [&[label.len() as u8], *label].concat()).collect();
        wire.push(0);
        wire
    }

    /// Compares names in canonical order (RFC 4034 §6.1).
    fn reversed(name: &[u8]) -> Vec<Vec<u8>> {
        let (mut labels, mut rest) = (Vec::new(), name);
        while let Some((label, after)) = split(rest) {
            labels.push(label.to_ascii_lowercase());
            rest = after;
        }
        labels.reverse();
        labels
    }

    #[test]
    fn covering_records_span_a_label_and_what_is_below() {
        let origin = wire(&[b"example"]);
        let full = [b'a'; MAX_LABEL];
        let highest = [0xff; MAX_LABEL];
        let labels: [&[u8]; 10] = [b"web", b"a", b"*", b"[", b"a\0", b"\0", b"z", &full, &highest, b"_tcp"];
        let long = wire(&[&full, &full, &full[..50], b"example"]);
        for parent in [&origin, &wire(&[b"sub", b"example"]), &long] {
            for label in labels.iter().filter(|label| label.len() + 1 + parent.len() <= MAX_NAME) {
                let name = join(label, parent);
                let Nsec { owner, rdata } = covering(label, parent, &origin);
                let next_len = rdata.len() - 8;
                let next = &rdata[..next_len];
                assert!(owner.len() <= MAX_NAME && next.len() <= MAX_NAME, "{name:?}");
                assert!(reversed(&owner) < reversed(&name), "{owner:?} {name:?}");
                assert!(next == origin || reversed(next) > reversed(&name), "{name:?} {next:?}");
                for below in [b"\0".as_slice(), b"\xff"].map(|label| join(label, &name)) {
                    if below.len() <= MAX_NAME {
                        assert!(next == origin || reversed(next) > reversed(&below), "{below:?} {next:?}");
                    }
                }
                assert_eq!(rdata[next_len..], [0, 6, 0, 0, 0, 0, 0, 3], "{name:?}");
            }
        }
    }
}
