//! Records as text of a master file (RFC 1035 §5.1).

mod location;
mod service_parameters;

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, UNIX_EPOCH},
};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER, HEXUPPER};

use super::{
    codes::rtype,
    reader::Reader,
    record_types::{Kind, fields},
};

/// Returns a name in wire form as text, with its letter case and a final dot. Text of another form is cut off.
pub fn name(wire: &[u8]) -> String {
    let (mut rest, mut text) = (wire, String::new());
    while let Some((len @ 1..=63, after)) = rest.split_first() {
        let Some((label, after)) = after.split_at_checked(usize::from(*len)) else { break };
        for octet in label {
            escape(*octet, b".\\\"();@$", &mut text);
        }
        text.push('.');
        rest = after;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// Returns RDATA with uncompressed names as text. Types without a form here have that of RFC 3597 §5, which all servers read.
pub fn rdata(rtype: u16, octets: &[u8]) -> String {
    of_type(rtype, octets).unwrap_or_else(|| format!("\\# {} {}", octets.len(), HEXLOWER.encode(octets)))
}

fn of_type(rtype: u16, octets: &[u8]) -> Option<String> {
    let mut reader = Reader::new(octets);
    let mut texts = Vec::new();
    for (_, kind) in fields(rtype)? {
        texts.push(field_text(*kind, &mut reader)?);
    }
    texts.retain(|text| !text.is_empty());
    reader.rest.is_empty().then(|| texts.join(" "))
}

/// Returns the text of the next field; `None` if it is malformed.
fn field_text(kind: Kind, reader: &mut Reader<'_>) -> Option<String> {
    Some(match kind {
        Kind::U8 | Kind::Algorithm => reader.u8()?.to_string(),
        Kind::U16 => reader.u16()?.to_string(),
        Kind::U32 | Kind::Time => reader.u32()?.to_string(),
        Kind::Ipv4 => Ipv4Addr::from(<[u8; 4]>::try_from(reader.take(4)?).ok()?).to_string(),
        Kind::Ipv6 => Ipv6Addr::from(<[u8; 16]>::try_from(reader.take(16)?).ok()?).to_string(),
        Kind::Name => name(reader.take_plain_name()?),
        Kind::Text => quoted(counted(reader)?),
        Kind::Texts => {
            let mut texts = vec![quoted(counted(reader)?)];
            while !reader.rest.is_empty() {
                texts.push(quoted(counted(reader)?));
            }
            texts.join(" ")
        }
        Kind::Tag => {
            let tag = counted(reader)?;
            let is_tag = !tag.is_empty() && tag.iter().all(u8::is_ascii_alphanumeric);
            is_tag.then(|| String::from_utf8_lossy(tag).into_owned())?
        }
        Kind::Octets => quoted(rest(reader)?),
        Kind::Hex => HEXUPPER.encode(rest(reader).filter(|octets| !octets.is_empty())?),
        Kind::Base64 => BASE64.encode(rest(reader).filter(|octets| !octets.is_empty())?),
        Kind::RType => rtype::name(reader.u16()?).into_owned(),
        Kind::Date => {
            let time = UNIX_EPOCH + Duration::from_secs(reader.u32()?.into());
            humantime::format_rfc3339_seconds(time).to_string().chars().filter(char::is_ascii_digit).collect()
        }
        Kind::Salt => match counted(reader)? {
            [] => "-".to_owned(),
            salt => HEXUPPER.encode(salt),
        },
        Kind::Hash => BASE32HEX_NOPAD.encode(counted(reader).filter(|hash| !hash.is_empty())?),
        Kind::Bitmap => bitmap(reader)?,
        Kind::Params => service_parameters::text(rest(reader)?)?,
        Kind::Location => location::text(rest(reader)?)?,
    })
}

/// Takes a length octet and that many octets.
fn counted<'o>(reader: &mut Reader<'o>) -> Option<&'o [u8]> {
    let len = reader.u8()?;
    reader.take(len.into())
}

/// Takes all further octets.
fn rest<'o>(reader: &mut Reader<'o>) -> Option<&'o [u8]> {
    reader.take(reader.rest.len())
}

/// Takes the types of a bitmap.
fn bitmap(reader: &mut Reader<'_>) -> Option<String> {
    let mut types = Vec::new();
    while !reader.rest.is_empty() {
        let window = reader.u8()?;
        for (at, octet) in counted(reader)?.iter().enumerate() {
            let bits = (0..8).filter(|bit| octet & (0x80 >> bit) != 0);
            let low = bits.map(|bit| u8::try_from(at * 8 + bit).ok());
            for low in low {
                types.push(rtype::name(u16::from_be_bytes([window, low?])));
            }
        }
    }
    Some(types.join(" "))
}

/// Returns a character-string in quotes.
fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for octet in octets {
        match octet {
            b' ' => text.push(' '),
            octet => escape(*octet, b"\\\"", &mut text),
        }
    }
    text + "\""
}

fn escape(octet: u8, special: &[u8], text: &mut String) {
    match octet {
        octet if special.contains(&octet) => text.extend(['\\', char::from(octet)]),
        0x21..=0x7e => text.push(octet.into()),
        _ => drop(write!(text, "\\{octet:03}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::zone_file;

    #[test]
    fn rdata_is_shown_as_in_a_master_file() {
        let soa = [b"\x02ns\x01z\0\x04h\\.x\x01z\0".as_slice(), &[0, 0, 0, 7].repeat(5)].concat();
        let cases: [(u16, &[u8], &str); 10] = [
            (rtype::A, &[192, 0, 2, 1], "192.0.2.1"),
            (rtype::AAAA, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            (rtype::CNAME, b"\x03W.w\0", "W\\.w."),
            (rtype::NS, b"\0", "."),
            (rtype::MX, b"\0\x0a\x01m\0", "10 m."),
            (rtype::SRV, b"\0\x01\0\x02\0\x03\x01s\0", "1 2 3 s."),
            (rtype::SOA, &soa, "ns.z. h\\\\\\.x.z. 7 7 7 7 7"),
            (rtype::TXT, b"\x05a \"b\\\x01\xff", "\"a \\\"b\\\\\" \"\\255\""),
            (rtype::A, &[192, 0], "\\# 2 c000"),
            (65_400, &[0xab], "\\# 1 ab"),
        ];
        for (rtype, octets, expected) in cases {
            assert_eq!(rdata(rtype, octets), expected);
        }
    }

    /// Records of all types, as dig prints them but for quotes and letter case: the text is that of the zone file that was read.
    #[test]
    fn text_of_all_types_of_zone_files_is_their_presentation() {
        let hash = "0P9MHAVEQVM6T7VBL5LOP2U3T2RP3TOM";
        let digest = "AB".repeat(32);
        let records = [
            "HINFO \"PC\" \"Linux\"".to_owned(),
            "RP admin.a.test. info.a.test.".to_owned(),
            "AFSDB 1 db.a.test.".to_owned(),
            "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000.00m 10.00m".to_owned(),
            "LOC 0 0 0.001 S 179 59 59.999 W 42849672.95m 1.00m 90000000.00m 0.01m".to_owned(),
            "NAPTR 10 20 \"u\" \"E2U+sip\" \"!^.*$!sip:info@a.test!\" .".to_owned(),
            format!("DS 1 13 2 {digest}"),
            format!("SSHFP 4 2 {digest}"),
            "RRSIG A 13 2 3600 20261231235959 20261201000000 14465 a.test. AQID".to_owned(),
            "NSEC b.a.test. A MX RRSIG NSEC CAA TYPE65400".to_owned(),
            "DNSKEY 257 3 13 AQID".to_owned(),
            format!("NSEC3 1 1 12 AABBCCDD {hash} A RRSIG"),
            format!("NSEC3 1 0 0 - {hash}"),
            "NSEC3PARAM 1 0 12 AABBCCDD".to_owned(),
            format!("TLSA 3 1 1 {digest}"),
            format!("SMIMEA 3 1 1 {digest}"),
            format!("CDS 1 13 2 {digest}"),
            "CDNSKEY 257 3 13 AQID".to_owned(),
            "OPENPGPKEY AQID".to_owned(),
            "CSYNC 66 3 A NS AAAA".to_owned(),
            format!("ZONEMD 1 1 1 {}", "AB".repeat(48)),
            "SVCB 0 other.a.test.".to_owned(),
            "HTTPS 1 . mandatory=alpn,port alpn=\"h2,h3\" no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech=AQID \
             ipv6hint=2001:db8::1 key667=\"x \\\"y\""
                .to_owned(),
            "SVCB 1 . alpn=\"a\\\\,b,c\" dohpath=\"/dns-query{?dns}\"".to_owned(),
            "SPF \"v=spf1\" \"-all\"".to_owned(),
            "URI 10 1 \"https://a.test/\"".to_owned(),
            "CAA 128 issue \"ca.test; x=y\"".to_owned(),
        ];
        for record in records {
            let text = format!("@ SOA ns h 1 1 1 1 1\nx {record}\n");
            let file =
                zone_file::parse(Path::new("a.test.zone"), text.as_bytes(), 60).unwrap_or_else(|e| panic!("{e:?}"));
            let read = &file.records[1];
            assert_eq!(format!("{} {}", rtype::name(read.rtype), rdata(read.rtype, &read.rdata)), record);
        }
    }
}
