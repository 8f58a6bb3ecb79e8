//! Trust anchors of validation: keys that are trusted without a chain above them (RFC 4033 §2), as DS records.

use data_encoding::{BASE64, HEXUPPER_PERMISSIVE};
use ring::digest;
use thiserror::Error;

use super::key::{SHA256, SHA384, digest_of, tag};
use crate::model::name::{Name, NameError};

/// Keys of the root that are built in: tag and SHA-256 digest of the key-signing keys of 2017 and 2024, both of algorithm 8.
/// Source: <https://data.iana.org/root-anchors/root-anchors.xml>.
const ROOT: [(u16, &str); 2] = [
    (20326, "E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"),
    (38696, "683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16"),
];
/// RSA with SHA-256, the algorithm of the root.
const RSASHA256: u8 = 8;
/// Maximum number of anchors in a file: each costs a comparison per key of its zone.
const MAX_ANCHORS: usize = 64;

/// A trusted key of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    /// The zone.
    pub zone: Name,
    /// Key tag.
    pub tag: u16,
    /// Number of the algorithm.
    pub algorithm: u8,
    /// Number of the digest type: SHA-256 or SHA-384.
    pub digest_type: u8,
    /// Digest of the zone's name and the key (RFC 4034 §5.1.4).
    pub digest: Box<[u8]>,
}

/// Line of a file that is no trust anchor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {fault}")]
pub struct TrustAnchorError {
    /// The line, counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub fault: TrustAnchorFault,
}

/// Reason why a line is no trust anchor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TrustAnchorFault {
    /// Neither a DS nor a DNSKEY record.
    #[error(
        "expected a record such as `example.org. IN DS 14465 13 2 DIGEST` or `example.org. IN DNSKEY 257 3 13 KEY`"
    )]
    NoRecord,
    /// The owner is not a name.
    #[error("the owner of the record: {0}")]
    Owner(#[from] NameError),
    /// A digest of a type that is not accepted, or of a wrong length.
    #[error("the digest must be hexadecimal, of type 2 (SHA-256) or 4 (SHA-384)")]
    Digest,
    /// The key is no base64, or no key of a zone by its flags and protocol.
    #[error("the key must be base64, with flags 256 or 257 and protocol 3")]
    Key,
    /// The file has no record.
    #[error("the file has no trust anchor")]
    Empty,
    /// The file has too many records.
    #[error("the file has more than {MAX_ANCHORS} trust anchors")]
    TooMany,
    /// The file is not text.
    #[error("the file is not text")]
    NotText,
}

/// Returns the built-in trust anchors: the keys of the root.
pub fn root() -> Vec<TrustAnchor> {
    let digests =
        ROOT.iter().filter_map(|(tag, digest)| Some((*tag, HEXUPPER_PERMISSIVE.decode(digest.as_bytes()).ok()?)));
    digests
        .map(|(tag, digest)| TrustAnchor {
            zone: Name::root(),
            tag,
            algorithm: RSASHA256,
            digest_type: SHA256,
            digest: digest.into(),
        })
        .collect()
}

/// Parses a file of DS and DNSKEY records, one a line, in the form of zone files with absolute names.
///
/// # Errors
/// The first line that is no trust anchor.
pub fn parse(octets: &[u8]) -> Result<Vec<TrustAnchor>, TrustAnchorError> {
    let whole = |fault| TrustAnchorError { line: 0, fault };
    let text = std::str::from_utf8(octets).map_err(|_| whole(TrustAnchorFault::NotText))?;
    let mut anchors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split_once(';').map_or(line, |(record, _)| record);
        let words = line.split_ascii_whitespace().filter(|word| !matches!(*word, "(" | ")"));
        let anchor = parse_record(words).map_err(|fault| TrustAnchorError { line: index + 1, fault })?;
        anchors.extend(anchor);
        if anchors.len() > MAX_ANCHORS {
            return Err(whole(TrustAnchorFault::TooMany));
        }
    }
    if anchors.is_empty() { Err(whole(TrustAnchorFault::Empty)) } else { Ok(anchors) }
}

/// Parses the words of a line; `None` for a line without words.
fn parse_record<'w>(mut words: impl Iterator<Item = &'w str>) -> Result<Option<TrustAnchor>, TrustAnchorFault> {
    let Some(owner) = words.next() else { return Ok(None) };
    let zone = Name::parse(owner)?;
    let is_ds = loop {
        match words.next() {
            Some(word) if word.eq_ignore_ascii_case("IN") => {}
            Some(word) if word.eq_ignore_ascii_case("DS") => break true,
            Some(word) if word.eq_ignore_ascii_case("DNSKEY") => break false,
            // A TTL.
            Some(word)
                if word.bytes().all(|byte| byte.is_ascii_alphanumeric()) && word.as_bytes()[0].is_ascii_digit() => {}
            _ => return Err(TrustAnchorFault::NoRecord),
        }
    };
    let fields = [words.next(), words.next(), words.next()];
    let [Some(first), Some(second), Some(third)] = fields else { return Err(TrustAnchorFault::NoRecord) };
    let rest: String = words.collect();
    if is_ds { parse_ds(zone, [first, second, third], &rest) } else { parse_key(zone, [first, second, third], &rest) }
        .map(Some)
}

fn parse_ds(
    zone: Name,
    [tag, algorithm, digest_type]: [&str; 3],
    digest: &str,
) -> Result<TrustAnchor, TrustAnchorFault> {
    let tag = tag.parse().map_err(|_| TrustAnchorFault::NoRecord)?;
    let algorithm = algorithm.parse().map_err(|_| TrustAnchorFault::NoRecord)?;
    let digest = HEXUPPER_PERMISSIVE.decode(digest.as_bytes()).map_err(|_| TrustAnchorFault::Digest)?;
    let digest_type = match (digest_type.parse(), digest.len()) {
        (Ok(SHA256), 32) => SHA256,
        (Ok(SHA384), 48) => SHA384,
        _ => return Err(TrustAnchorFault::Digest),
    };
    Ok(TrustAnchor { zone, tag, algorithm, digest_type, digest: digest.into() })
}

fn parse_key(zone: Name, [flags, protocol, algorithm]: [&str; 3], key: &str) -> Result<TrustAnchor, TrustAnchorFault> {
    let algorithm: u8 = algorithm.parse().map_err(|_| TrustAnchorFault::NoRecord)?;
    let flags: u16 = flags.parse().map_err(|_| TrustAnchorFault::Key)?;
    let key = BASE64.decode(key.as_bytes()).map_err(|_| TrustAnchorFault::Key)?;
    if !matches!(flags, 256 | 257) || protocol != "3" || key.is_empty() {
        return Err(TrustAnchorFault::Key);
    }
    let rdata = [&flags.to_be_bytes()[..], &[3, algorithm], &key].concat();
    let digest = digest_of(&digest::SHA256, &zone, &rdata);
    Ok(TrustAnchor { zone, tag: tag(&rdata), algorithm, digest_type: SHA256, digest: digest.as_ref().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 6605 §6.1 and its DS record.
    const KEY: &str = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
    const DIGEST: &str = "B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17";

    #[test]
    fn records_are_read_as_in_zone_files() {
        let text = format!(
            "; anchors\n\nexample.net. 3600 IN DNSKEY 257 3 13 ( {KEY} ) ; a key\n\
             Example.NET IN DS 55648 13 2 {} {}\n. DS 1 8 4 {}\n",
            &DIGEST[..32].to_lowercase(),
            &DIGEST[32..],
            "ab".repeat(48)
        );
        let anchors = parse(text.as_bytes()).unwrap();
        assert_eq!(anchors[0], anchors[1]);
        assert_eq!((anchors[0].tag, anchors[0].algorithm, anchors[0].digest_type), (55648, 13, 2));
        assert_eq!((&anchors[2].zone, anchors[2].digest_type), (&Name::root(), 4));
    }

    #[test]
    fn faults_name_their_line() {
        for (text, expected) in [
            ("", "line 0: the file has no trust anchor"),
            ("; none\n", "line 0: the file has no trust anchor"),
            ("\n. A 192.0.2.1", "line 2: expected a record"),
            (". IN DS 1 8 2", "line 1: the digest"),
            (". IN DS 1 8 1 0000000000000000000000000000000000000000", "line 1: the digest"),
            (". IN DS 1 8 2 zz", "line 1: the digest"),
            (". IN DNSKEY 385 3 8 AAAA", "line 1: the key"),
            (". IN DNSKEY 257 3 8 ?", "line 1: the key"),
            ("a..b. IN DS 1 8 2 00", "line 1: the owner"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        assert!(parse(&[0xff]).is_err());
        let many = format!(". IN DS 1 8 2 {DIGEST}\n").repeat(MAX_ANCHORS + 1);
        assert_eq!(parse(many.as_bytes()).unwrap_err().fault, TrustAnchorFault::TooMany);
    }
}
