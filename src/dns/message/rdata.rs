//! Fields of RDATA with names in them, and the letter case of these names.

/// A field of RDATA.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// So many octets.
    Fixed(usize),
    /// A domain name, which a sender may have compressed.
    Name,
    /// A character-string (RFC 1035 §3.3).
    Text,
    /// One or more character-strings, to the end.
    Texts,
    /// Octets of any number, to the end.
    Rest,
}

use Field::{Fixed, Name, Rest, Text, Texts};

/// Returns the fields of a type. Types with names that a sender may compress (RFC 3597 §4, and SRV), and types with a form that
/// every server checks; all others are octets.
pub(crate) fn fields(rtype: u16) -> &'static [Field] {
    match rtype {
        // A, AAAA
        1 => &[Fixed(4)],
        28 => &[Fixed(16)],
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2..=5 | 7..=9 | 12 | 39 => &[Name],
        // SOA
        6 => &[Name, Name, Fixed(20)],
        // MINFO, RP
        14 | 17 => &[Name, Name],
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => &[Fixed(2), Name],
        // HINFO
        13 => &[Text, Text],
        // TXT, SPF
        16 | 99 => &[Texts],
        // PX
        26 => &[Fixed(2), Name, Name],
        // SRV
        33 => &[Fixed(6), Name],
        // NAPTR
        35 => &[Fixed(4), Text, Text, Text, Name],
        // SVCB, HTTPS
        64 | 65 => &[Fixed(2), Name, Rest],
        // CAA
        257 => &[Fixed(1), Text, Rest],
        _ => &[Rest],
    }
}

/// Reports whether RDATA of this type has names.
pub(crate) fn has_names(rtype: u16) -> bool {
    fields(rtype).iter().any(|field| matches!(field, Name))
}

/// Folds the letter case of the names in RDATA, which are uncompressed. The last one may lack its end.
pub(crate) fn fold_names(rtype: u16, rdata: &mut [u8]) {
    let mut at = 0;
    for field in fields(rtype) {
        match field {
            Fixed(len) => at += len,
            Name => {
                let start = at;
                while let Some(len) = rdata.get(at).copied().filter(|len| *len > 0) {
                    at += 1 + usize::from(len);
                }
                at += 1;
                let end = at.min(rdata.len());
                // Length octets are below any letter.
                if let Some(name) = rdata.get_mut(start..end) {
                    name.make_ascii_lowercase();
                }
            }
            Text => at += 1 + usize::from(rdata.get(at).copied().unwrap_or_default()),
            Texts | Rest => break,
        }
    }
}
