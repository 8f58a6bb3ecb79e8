//! Host names that instances are registered with instead of addresses.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use smol_str::SmolStr;
use thiserror::Error;

use super::{list::List, name::Name};

/// Maximum length of a host name in octets, as text without a final dot (RFC 1123 §2.1).
pub const MAX_HOST_NAME: usize = 253;

/// A host name as written: labels of letters, digits, hyphens and underscores. The last label is no number, so that a mistyped
/// address is no host name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(SmolStr);

/// Text that is no host name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a host name has labels of letters, digits, hyphens and underscores, and at most {MAX_HOST_NAME} octets")]
pub struct HostNameError;

impl HostName {
    /// Parses a host name, with or without a final dot.
    ///
    /// # Errors
    /// The text is no host name.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
        };
        let is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()));
        if text.len() > MAX_HOST_NAME || is_number || !text.split('.').all(is_label) || Name::parse(text).is_err() {
            return Err(HostNameError);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name as written, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the absolute name.
    pub fn name(&self) -> Name {
        // `parse` has accepted it.
        Name::parse(&self.0).unwrap_or_else(|_| Name::root())
    }
}

impl From<HostName> for FollowedHost {
    fn from(name: HostName) -> Self {
        Self { name, problem: None }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Addresses of host names by the last lookup that succeeded.
pub type KnownHosts = BTreeMap<HostName, List<IpAddr>>;

/// Host name whose addresses are those of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedHost {
    /// The host name.
    pub name: HostName,
    /// Reason why the last lookup failed, in at most [`MAX_REASON`](super::announcement::MAX_REASON) octets. The addresses are
    /// those of the last lookup that succeeded; none if there was none.
    pub problem: Option<Arc<str>>,
}

impl FollowedHost {
    /// Reports whether addresses are those of a finished lookup, or need none.
    pub fn is_looked_up(host: Option<&Self>, addresses: &[IpAddr]) -> bool {
        !addresses.is_empty() || host.is_none_or(|host| host.problem.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_no_addresses() {
        let (long, label) = (format!("{}example", "a.".repeat(124)), "a".repeat(64));
        let cases = [
            ("db1.example.org", true),
            ("DB1.Example.ORG.", true),
            ("db_1.example.org", true),
            ("localhost", true),
            ("1and1.com", true),
            ("10.0.0.300", false),
            ("10.0.0.7", false),
            ("7", false),
            ("", false),
            (".", false),
            ("a..b", false),
            ("10.0.0.7:80", false),
            ("two words", false),
            ("größe.example", false),
            (&long, false),
            (&label, false),
        ];
        for (text, expected) in cases {
            assert_eq!(HostName::parse(text).is_ok(), expected, "{text:?}");
        }
    }
}
