//! RDATA of messages: names are decompressed, and the fields of known types are checked.

use std::borrow::Cow;

use super::wire_name::read_name;
use crate::dns::message::rdata::{
    Field::{Fixed, Name, Rest, Text, Texts},
    fields, fold_names, has_names,
};

/// Returns the RDATA at `start..end` of a message with its names uncompressed; `None` if it is not valid for its type.
pub(super) fn read(rtype: u16, message: &[u8], start: usize, end: usize) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(end.checked_sub(start)?);
    let mut at = start;
    for field in fields(rtype) {
        let rest = message.get(at..end)?;
        let len = match field {
            Fixed(len) => *len,
            Name => {
                let next = read_name(message, at, &mut wire)?;
                if next > end {
                    return None;
                }
                at = next;
                continue;
            }
            Text => 1 + usize::from(*rest.first()?),
            Texts => {
                let mut len = 0;
                while len == 0 || len < rest.len() {
                    len += 1 + usize::from(*rest.get(len)?);
                }
                len
            }
            Rest => rest.len(),
        };
        wire.extend_from_slice(rest.get(..len)?);
        at += len;
    }
    (at == end).then_some(wire)
}

/// Returns RDATA with its names in lower case, by which records compare (RFC 4343 §3).
pub(super) fn folded(rtype: u16, rdata: &[u8]) -> Cow<'_, [u8]> {
    if !has_names(rtype) {
        return Cow::Borrowed(rdata);
    }
    let mut folded = rdata.to_vec();
    fold_names(rtype, &mut folded);
    Cow::Owned(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decompressed_and_fields_checked() {
        // `web.` at offset 12.
        let head = b"............\x03weB\0";
        /// Case, type, RDATA as received, and as read.
        type Case<'c> = (&'c str, u16, &'c [u8], Option<&'c [u8]>);
        let cases: [Case<'_>; 11] = [
            ("A", 1, b"\xc0\0\x02\x01", Some(b"\xc0\0\x02\x01")),
            ("a short A", 1, b"\xc0\0\x02", None),
            ("a long A", 1, b"\xc0\0\x02\x01\x01", None),
            ("a compressed CNAME", 5, b"\x01a\xc0\x0c", Some(b"\x01a\x03weB\0")),
            ("octets behind a CNAME", 5, b"\x01a\xc0\x0c\0", None),
            ("a compressed SRV", 33, b"\0\x01\0\x02\0\x03\xc0\x0c", Some(b"\0\x01\0\x02\0\x03\x03weB\0")),
            ("a pointer to itself", 5, b"\xc0\x11", None),
            ("TXT", 16, b"\x02ab\0", Some(b"\x02ab\0")),
            ("an empty TXT", 16, b"", None),
            ("a cut TXT", 16, b"\x03ab", None),
            ("DHCID", 49, b"\0\x01\x02", Some(b"\0\x01\x02")),
        ];
        for (case, rtype, rdata, expected) in cases {
            let message = [head, rdata].concat();
            assert_eq!(read(rtype, &message, head.len(), message.len()).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn records_compare_without_the_letter_case_of_names() {
        assert_eq!(*folded(15, b"\0A\x01B\0"), *b"\0A\x01b\0");
        assert_eq!(*folded(16, b"\x01B"), *b"\x01B");
        assert_eq!(*folded(35, b"\0A\0A\x01A\x01B\x01C\x01D\0"), *b"\0A\0A\x01A\x01B\x01C\x01d\0");
    }
}
