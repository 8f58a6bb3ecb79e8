//! Stored RRsets, with RDATA in wire form and relative to the zone.
//!
//! RDATA that ends in a name of its zone is stored without the origin, and the assembler appends the origin of the queried
//! zone. Alias domains therefore share records and answer with names of their own.

use crate::model::{name::Name, zone::target_at};

use crate::dns::message::codes::rtype;

/// Records of one owner name and type, with one TTL (RFC 2181 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RRset {
    /// Record type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// Line of the first record in the zone file; 0 if generated.
    pub line: u32,
    /// Records; at least one.
    pub records: Vec<Rdata>,
}

/// Data of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdata {
    /// Wire form, without the origin that `tail` may append.
    pub octets: Box<[u8]>,
    /// End of the RDATA, after `octets`.
    pub tail: Tail,
}

/// End of an [`Rdata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// None: `octets` is complete.
    Nothing,
    /// The origin of the queried zone.
    Origin,
}

impl RRset {
    /// Returns the type that these signatures cover (RFC 4034 §3.1.1); `None` for other records.
    pub fn covers(&self) -> Option<u16> {
        self.records.first().filter(|_| self.rtype == rtype::RRSIG)?.covers()
    }
}

impl Rdata {
    /// Returns the type that a signature covers.
    pub fn covers(&self) -> Option<u16> {
        self.octets.first_chunk().map(|octets| u16::from_be_bytes(*octets))
    }

    /// Returns RDATA that does not depend on the zone.
    pub fn fixed(octets: impl Into<Box<[u8]>>) -> Self {
        Self { octets: octets.into(), tail: Tail::Nothing }
    }

    /// Returns RDATA that ends in these labels, relative to the origin.
    pub fn relative<'a>(fields: &[u8], labels: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut octets = fields.to_vec();
        for label in labels {
            octets.push(label.len() as u8);
            octets.extend_from_slice(label);
        }
        Self { octets: octets.into(), tail: Tail::Origin }
    }

    /// Returns RDATA of a name, given by its labels in wire form relative to the origin.
    pub fn below_origin(labels: impl Into<Box<[u8]>>) -> Self {
        Self { octets: labels.into(), tail: Tail::Origin }
    }

    /// Returns RDATA of a record of `zone` from a master file: uncompressed, in any letter case. An origin in another letter case than
    /// that of the zone is kept as it is written.
    pub fn of_zone(rtype: u16, rdata: &[u8], zone: &Name) -> Self {
        match target_at(rtype) {
            Some(at) if at < rdata.len() && rdata[at..].ends_with(zone.wire()) => {
                let relative = rdata.len() - zone.wire().len();
                if ends_at_label(&rdata[at..], relative - at) {
                    return Self { octets: rdata[..relative].into(), tail: Tail::Origin };
                }
                Self::fixed(rdata)
            }
            _ => Self::fixed(rdata),
        }
    }
}

/// Reports whether a label of `name` ends at offset `at`. Octets equal to the origin may be inside a label.
fn ends_at_label(name: &[u8], at: usize) -> bool {
    let mut label = 0;
    while label < at {
        label += 1 + usize::from(name[label]);
    }
    label == at
}

/// Reports whether names in RDATA of this type may be compressed: types of RFC 1035, not SRV (RFC 3597 §4).
pub fn compressible(rtype: u16) -> bool {
    matches!(rtype, rtype::NS | rtype::CNAME | rtype::PTR | rtype::MX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_zone_are_stored_without_the_origin() {
        let zone = Name::parse("b.c").unwrap();
        let cases = [
            ("in the zone", rtype::NS, &b"\x01a\x01b\x01c\0"[..], &b"\x01a"[..], Tail::Origin),
            ("apex", rtype::NS, b"\x01b\x01c\0", b"", Tail::Origin),
            ("outside the zone", rtype::NS, b"\x01a\x01d\0", b"\x01a\x01d\0", Tail::Nothing),
            ("after fixed fields", rtype::MX, b"\0\x0a\x01a\x01b\x01c\0", b"\0\x0a\x01a", Tail::Origin),
            ("letter case", rtype::NS, b"\x01A\x01b\x01c\0", b"\x01A", Tail::Origin),
            ("letter case of the origin", rtype::NS, b"\x01a\x01B\x01c\0", b"\x01a\x01B\x01c\0", Tail::Nothing),
            ("inside a label", rtype::NS, b"\x03a\x01b\x01c\0", b"\x03a\x01b\x01c\0", Tail::Nothing),
            ("type without names", rtype::A, b"\x01b\x01c", b"\x01b\x01c", Tail::Nothing),
        ];
        for (case, rtype, rdata, octets, tail) in cases {
            let got = Rdata::of_zone(rtype, rdata, &zone);
            assert_eq!((&*got.octets, got.tail), (octets, tail), "{case}");
        }
    }
}
