//! Canonical form of RDATA (RFC 4034 §6.2, RFC 6840 §5.1) and order of the records of an RRset (§6.3).

use crate::dns::message::{codes::rtype, rdata::fold_names};

/// Folds the letter case of the names in RDATA, which is uncompressed. Types with names that RFC 4034 §6.2 does not list keep it.
pub fn fold_rdata(rtype: u16, rdata: &mut [u8]) {
    if !matches!(rtype, rtype::SVCB | rtype::HTTPS) {
        fold_names(rtype, rdata);
    }
}

/// Sorts RDATA in canonical form and removes duplicates.
pub fn sort(rdatas: &mut Vec<&[u8]>) {
    // Octet by octet, a prefix first: the order of slices.
    rdatas.sort_unstable();
    rdatas.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_rdata_are_folded_and_texts_are_not() {
        let cases: [(&str, u16, &[u8], &[u8]); 9] = [
            ("NS", rtype::NS, b"\x01A\0", b"\x01a\0"),
            ("MX: number 0x4142", rtype::MX, b"AB\x01A\0", b"AB\x01a\0"),
            ("SRV", rtype::SRV, b"ABCDEF\x01A\0", b"ABCDEF\x01a\0"),
            ("TXT", rtype::TXT, b"\x01A", b"\x01A"),
            ("SOA", rtype::SOA, b"\x01A\0\x01B\0AAAABBBBCCCCDDDDEEEE", b"\x01a\0\x01b\0AAAABBBBCCCCDDDDEEEE"),
            ("HTTPS", rtype::HTTPS, b"AB\x01A\0", b"AB\x01A\0"),
            ("NS without its end", rtype::NS, b"\x01A", b"\x01a"),
            ("SOA: serial AAAA", rtype::SOA, b"\0\0AAAABBBBCCCCDDDDEEEE", b"\0\0AAAABBBBCCCCDDDDEEEE"),
            ("NAPTR", 35, b"AAAA\x01S\x01T\x01U\x01V\0", b"AAAA\x01S\x01T\x01U\x01v\0"),
        ];
        for (case, rtype, rdata, expected) in cases {
            let mut rdata = rdata.to_vec();
            fold_rdata(rtype, &mut rdata);
            assert_eq!(rdata, expected, "{case}");
        }
    }
}
