//! Bounds of an instance, whether from a service file, the HTTP API or another node.
//!
//! The parser of service files applies rule by rule, so that each diagnostic has its position. Instances from other nodes
//! are checked as a whole by [`Instance::check`]. Both share the rules here.

use std::{collections::BTreeMap, net::IpAddr};

use smol_str::SmolStr;
use thiserror::Error;

use super::{
    name::{Label, MAX_LABEL},
    service::{
        Instance, MAX_ADDRESSES, MAX_META, MAX_META_ENTRY, MAX_PORTS, MAX_REGISTERED_ID, MAX_TAG, MAX_TAGS, MAX_TTL,
    },
    tagged_addresses::{MAX_TAGGED_ADDRESS, MAX_TAGGED_ADDRESSES},
};

/// Maximum length of the name of a port in octets: names in the DNS have `_` before it (RFC 6763 §7).
pub const MAX_PORT_NAME: usize = MAX_LABEL - 1;

/// Maximum size of the `meta` of a node in octets: every node stores it, and it has to fit a gossip value even when
/// escaped.
pub const MAX_NODE_META: usize = 1024;

/// Bound that an instance exceeds.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BoundsError {
    /// No address.
    #[error("there is no address")]
    NoAddress,
    /// Not a host address: unspecified, multicast or IPv4-mapped.
    #[error("`{0}` is not the IP address of a host")]
    Address(IpAddr),
    /// Duplicate address.
    #[error("duplicate address `{0}`")]
    SameAddress(IpAddr),
    /// Port 0.
    #[error("a port is from 1 to 65535")]
    PortZero,
    /// Name of a port of more than [`MAX_PORT_NAME`] octets.
    #[error("a port's name has at most {MAX_PORT_NAME} octets: `_` goes before it")]
    PortName(Label),
    /// Duplicate name of a port.
    #[error("duplicate port name `{0}`")]
    SamePort(Label),
    /// Application protocols of a port that the instance does not have, or twice for one port.
    #[error("ALPN ids are stated once for a port that the instance has")]
    Alpn,
    /// Tag that is empty or has control characters.
    #[error("a tag is a text without control characters")]
    Tag,
    /// Tag of more than [`MAX_TAG`] octets, with its length.
    #[error("a tag has at most {MAX_TAG} octets, this one has {0}")]
    TagLength(usize),
    /// Duplicate tag.
    #[error("duplicate tag")]
    SameTag,
    /// Key of `meta` that is empty, or not printable ASCII without `=`.
    #[error("a key of `meta` is printable ASCII without `=`")]
    MetaKey,
    /// `key=value` of more than [`MAX_META_ENTRY`] octets, with its length.
    #[error("`key=value` has at most {MAX_META_ENTRY} octets, this one has {0}")]
    MetaLength(usize),
    /// `meta` of a node of more than [`MAX_NODE_META`] octets, with its size.
    #[error("a node's `meta` has at most {MAX_NODE_META} octets, this one has {0}")]
    NodeMeta(usize),
    /// Name of the service in another letter case that is another name.
    #[error("the name {0:?} is not that of the service")]
    ServiceCase(SmolStr),
    /// Too many tagged addresses, or one with an empty or too long text.
    #[error(
        "there are at most {MAX_TAGGED_ADDRESSES} tagged addresses with texts of 1 to {MAX_TAGGED_ADDRESS} octets and no control \
         characters"
    )]
    Tagged,
    /// TTL above [`MAX_TTL`], in seconds.
    #[error("a TTL has at most {MAX_TTL} seconds, this one has {0}")]
    Ttl(u32),
    /// Id that is empty, has control characters or more than [`MAX_REGISTERED_ID`] octets, with its
    /// length.
    #[error("an id has 1 to {MAX_REGISTERED_ID} octets and no control characters, this one has {0}")]
    RegisteredId(usize),
    /// Too many entries in a list.
    #[error("there are at most {most} {what}, found {found}")]
    TooMany {
        /// Name of the entries, in the plural.
        what: &'static str,
        /// Number found.
        found: usize,
        /// Maximum number.
        most: usize,
    },
}

impl Instance {
    /// Checks the instance against all bounds of a service file.
    ///
    /// # Errors
    /// The first bound that the instance exceeds.
    pub fn check(&self) -> Result<(), BoundsError> {
        if self.host.is_none() || !self.addresses.is_empty() {
            addresses(&self.addresses)?;
        }
        if self.port == Some(0) || self.ports.iter().any(|(_, port)| *port == 0) {
            return Err(BoundsError::PortZero);
        }
        within("ports", self.ports.len(), MAX_PORTS)?;
        for (at, (name, _)) in self.ports.iter().enumerate() {
            port_name(name)?;
            if self.ports[..at].iter().any(|(other, _)| other == name) {
                return Err(BoundsError::SamePort(name.clone()));
            }
        }
        for (at, alpn) in self.alpn.iter().enumerate() {
            let has_port = match &alpn.port {
                Some(port) => self.ports.iter().any(|(name, _)| name == port),
                None => self.port.is_some(),
            };
            if !has_port || self.alpn[..at].iter().any(|other| other.port == alpn.port) {
                return Err(BoundsError::Alpn);
            }
        }
        within("tags", self.tags.len(), MAX_TAGS)?;
        for (at, text) in self.tags.iter().enumerate() {
            tag(text)?;
            if self.tags[..at].contains(text) {
                return Err(BoundsError::SameTag);
            }
        }
        meta(self.meta.iter())?;
        if let Some(id) = &self.registered_as {
            registered_id(id)?;
        }
        if let Some(case) = &self.service_case
            && !case.eq_ignore_ascii_case(self.key.service.as_str())
        {
            return Err(BoundsError::ServiceCase(case.clone()));
        }
        if !self.tagged.fits() {
            return Err(BoundsError::Tagged);
        }
        match self.ttl {
            Some(ttl) if ttl > MAX_TTL => Err(BoundsError::Ttl(ttl)),
            _ => Ok(()),
        }
    }
}

/// Checks the addresses of an instance or a node.
pub fn addresses(addresses: &[IpAddr]) -> Result<(), BoundsError> {
    if addresses.is_empty() {
        return Err(BoundsError::NoAddress);
    }
    within("addresses", addresses.len(), MAX_ADDRESSES)?;
    for (at, address) in addresses.iter().enumerate() {
        host_address(address)?;
        if addresses[..at].contains(address) {
            return Err(BoundsError::SameAddress(*address));
        }
    }
    Ok(())
}

/// Checks that a host can have this address, and that it is not IPv4-mapped.
pub fn host_address(address: &IpAddr) -> Result<(), BoundsError> {
    if address.is_unspecified() || address.is_multicast() || address.to_canonical() != *address {
        return Err(BoundsError::Address(*address));
    }
    Ok(())
}

/// Checks the name of a port.
pub fn port_name(name: &Label) -> Result<(), BoundsError> {
    if name.as_str().len() > MAX_PORT_NAME { Err(BoundsError::PortName(name.clone())) } else { Ok(()) }
}

/// Checks a tag.
pub fn tag(text: &str) -> Result<(), BoundsError> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(BoundsError::Tag);
    }
    if text.len() > MAX_TAG { Err(BoundsError::TagLength(text.len())) } else { Ok(()) }
}

/// Checks a key of `meta` (RFC 6763 §6.4: printable ASCII without `=`, which ends the key).
pub fn meta_key(key: &str) -> Result<(), BoundsError> {
    let printable = |b: u8| matches!(b, 0x20..=0x7e) && b != b'=';
    if key.is_empty() || !key.bytes().all(printable) { Err(BoundsError::MetaKey) } else { Ok(()) }
}

/// Checks that an entry of `meta` fits a character-string of a TXT record.
pub fn meta_entry(key: &str, value: &str) -> Result<(), BoundsError> {
    let octets = key.len() + 1 + value.len();
    if octets > MAX_META_ENTRY { Err(BoundsError::MetaLength(octets)) } else { Ok(()) }
}

/// Checks the `meta` of an instance.
pub fn meta<'a>(entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Result<(), BoundsError> {
    within("entries of `meta`", entries.len(), MAX_META)?;
    for (key, value) in entries {
        meta_key(key)?;
        meta_entry(key, value)?;
    }
    Ok(())
}

/// Checks the `meta` of a node: the bounds of an instance, and at most [`MAX_NODE_META`] octets in all.
pub fn node_meta(entries: &BTreeMap<String, String>) -> Result<(), BoundsError> {
    meta(entries.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    let octets = entries.iter().map(|(key, value)| key.len() + 1 + value.len()).sum();
    if octets > MAX_NODE_META { Err(BoundsError::NodeMeta(octets)) } else { Ok(()) }
}

/// Checks an id of a service file or of a client of the HTTP API.
pub fn registered_id(id: &str) -> Result<(), BoundsError> {
    let fits = (1..=MAX_REGISTERED_ID).contains(&id.len()) && !id.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(BoundsError::RegisteredId(id.len())) }
}

fn within(what: &'static str, found: usize, most: usize) -> Result<(), BoundsError> {
    if found > most { Err(BoundsError::TooMany { what, found, most }) } else { Ok(()) }
}
