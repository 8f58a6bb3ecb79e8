//! An RRset as it is kept: RDATA in wire form, relative to its zone.
//!
//! RDATA that ends in a name of its own zone is kept without the zone's origin; the assembler writes the origin of the
//! zone that was asked. So an alias domain answers with names of its own from the same records.

use crate::{files::zone_file::target_at, model::name::Name};

use crate::dns::message::codes::rtype;

/// Records of one owner and type; they have one TTL (RFC 2181 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RRset {
    /// The records' type.
    pub rtype: u16,
    /// Seconds.
    pub ttl: u32,
    /// At least one.
    pub records: Vec<Rdata>,
}

/// One record's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdata {
    /// The wire form, up to the origin where `tail` says that one follows.
    pub octets: Box<[u8]>,
    /// What stands behind `octets`.
    pub tail: Tail,
}

/// What ends an [`Rdata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: `octets` are all.
    Nothing,
    /// The origin of the zone that the record was found in.
    Origin,
}

impl Rdata {
    /// RDATA without a name that depends on the zone.
    pub fn fixed(octets: impl Into<Box<[u8]>>) -> Self {
        Self { octets: octets.into(), tail: Tail::Nothing }
    }

    /// RDATA whose last name is these labels below the origin.
    pub fn relative<'a>(fields: &[u8], labels: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut octets = fields.to_vec();
        for label in labels {
            octets.push(label.len() as u8);
            octets.extend_from_slice(label);
        }
        Self { octets: octets.into(), tail: Tail::Origin }
    }

    /// RDATA of a record of `zone`, taken from a master file: uncompressed, in lower case where it holds names.
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

/// Whether a label of `name` ends `at` octets into it: what looks like the origin could be the inside of a label.
fn ends_at_label(name: &[u8], at: usize) -> bool {
    let mut label = 0;
    while label < at {
        label += 1 + usize::from(name[label]);
    }
    label == at
}

/// Whether a name in RDATA of this type may be a compression pointer: those of RFC 1035, not SRV (RFC 3597 §4).
pub fn compressible(rtype: u16) -> bool {
    matches!(rtype, rtype::NS | rtype::CNAME | rtype::PTR | rtype::MX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_zone_are_kept_without_its_origin() {
        let zone = Name::parse("b.c").unwrap();
        let cases = [
            ("inside", rtype::NS, &b"\x01a\x01b\x01c\0"[..], &b"\x01a"[..], Tail::Origin),
            ("the apex", rtype::NS, b"\x01b\x01c\0", b"", Tail::Origin),
            ("outside", rtype::NS, b"\x01a\x01d\0", b"\x01a\x01d\0", Tail::Nothing),
            ("behind fields", rtype::MX, b"\0\x0a\x01a\x01b\x01c\0", b"\0\x0a\x01a", Tail::Origin),
            ("within a label", rtype::NS, b"\x03a\x01b\x01c\0", b"\x03a\x01b\x01c\0", Tail::Nothing),
            ("no name", rtype::A, b"\x01b\x01c", b"\x01b\x01c", Tail::Nothing),
        ];
        for (case, rtype, rdata, octets, tail) in cases {
            let got = Rdata::of_zone(rtype, rdata, &zone);
            assert_eq!((&*got.octets, got.tail), (octets, tail), "{case}");
        }
    }
}
