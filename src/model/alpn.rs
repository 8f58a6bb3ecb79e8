//! Application protocols of ports, as ids of TLS's protocol negotiation (RFC 7301), for SVCB and HTTPS records (RFC 9460 §7.1).

use std::{ops::Deref, str::FromStr};

use smol_str::SmolStr;
use thiserror::Error;

use super::{list::List, name::Label};

/// Maximum number of ids of a port: servers offer two to four.
pub const MAX_ALPN_IDS: usize = 8;
/// Maximum length of an id in octets (RFC 7301 §3.1).
pub const MAX_ALPN_ID: usize = 255;
/// Key of `Meta` by which a client of the HTTP API states the ids of the port: registrations have no field for them.
pub const ALPN_META: &str = "muster-alpn";
/// Name of the port that `https` URLs of a service lead to if its default port has no ids.
pub const HTTPS_PORT: &str = "https";

/// Ids of one port: 1 to [`MAX_ALPN_IDS`], all different, in the server's order of preference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlpnIds(List<SmolStr>);

/// A port of an instance and its ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortAlpn {
    /// Name of the port; `None`: the default port.
    pub port: Option<Label>,
    /// Ids of the port.
    pub ids: AlpnIds,
}

/// Invalid [`AlpnIds`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AlpnError {
    /// No id, or more than [`MAX_ALPN_IDS`], with their number.
    #[error("a port has 1 to {MAX_ALPN_IDS} ALPN ids, found {0}")]
    Count(usize),
    /// Id that is empty, longer than [`MAX_ALPN_ID`], or has other characters.
    #[error("{0:?} is no ALPN id: 1 to {MAX_ALPN_ID} visible ASCII characters without a comma, such as `h2`")]
    Id(SmolStr),
    /// Duplicate id.
    #[error("duplicate ALPN id `{0}`")]
    SameId(SmolStr),
}

impl AlpnIds {
    /// Form of the ids in messages about `Meta`.
    pub const EXPECTED: &str = "ALPN ids, separated by commas, such as `h2,http/1.1`";

    /// Returns the ids of a port.
    ///
    /// # Errors
    /// Too few or too many ids, or an invalid or duplicate one.
    pub fn new(ids: Vec<SmolStr>) -> Result<Self, AlpnError> {
        if !(1..=MAX_ALPN_IDS).contains(&ids.len()) {
            return Err(AlpnError::Count(ids.len()));
        }
        for (at, id) in ids.iter().enumerate() {
            let is_visible = |octet: u8| octet.is_ascii_graphic() && octet != b',';
            if !(1..=MAX_ALPN_ID).contains(&id.len()) || !id.bytes().all(is_visible) {
                return Err(AlpnError::Id(id.clone()));
            }
            if ids[..at].contains(id) {
                return Err(AlpnError::SameId(id.clone()));
            }
        }
        Ok(Self(ids.into()))
    }
}

impl FromStr for AlpnIds {
    type Err = AlpnError;

    /// Parses ids that are separated by commas.
    fn from_str(text: &str) -> Result<Self, AlpnError> {
        Self::new(text.split(',').map(|id| SmolStr::new(id.trim())).collect())
    }
}

impl Deref for AlpnIds {
    type Target = [SmolStr];

    fn deref(&self) -> &[SmolStr] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_or_refused() {
        let (long, longest) = ("a".repeat(256), "a".repeat(255));
        let cases: &[(&str, Result<&[&str], AlpnError>)] = &[
            ("h2", Ok(&["h2"])),
            ("h2,http/1.1", Ok(&["h2", "http/1.1"])),
            (" h3 , h2 ", Ok(&["h3", "h2"])),
            (&longest, Ok(&[&longest])),
            (&long, Err(AlpnError::Id(long.as_str().into()))),
            ("", Err(AlpnError::Id("".into()))),
            ("h2,", Err(AlpnError::Id("".into()))),
            ("h 2", Err(AlpnError::Id("h 2".into()))),
            ("größe", Err(AlpnError::Id("größe".into()))),
            ("h2,h3,h2", Err(AlpnError::SameId("h2".into()))),
            ("a,b,c,d,e,f,g,h,i", Err(AlpnError::Count(9))),
        ];
        for (text, expected) in cases {
            let got = text.parse::<AlpnIds>();
            let ids = got.as_ref().map(|ids| ids.iter().map(SmolStr::as_str).collect::<Vec<_>>());
            assert_eq!(ids, expected.as_ref().map(|ids| ids.to_vec()), "{text:?}");
        }
        assert_eq!(AlpnIds::new(Vec::new()), Err(AlpnError::Count(0)));
    }
}
