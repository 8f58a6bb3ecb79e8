//! What an instance may be, wherever it comes from: a service file or another node.
//!
//! The reader of service files asks rule by rule, so that each problem has its place; what another node says is asked
//! as a whole, with [`Instance::check`]. A rule stands here once for both.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{
    name::{Label, MAX_LABEL},
    service::{
        Instance, MAX_ADDRESSES, MAX_META, MAX_META_ENTRY, MAX_PORTS, MAX_REGISTERED_ID, MAX_TAG, MAX_TAGS, MAX_TTL,
        RESERVED_SERVICE,
    },
};

/// The longest name of a port: `_` goes before it (RFC 6763 §7).
pub const MAX_PORT_NAME: usize = MAX_LABEL - 1;

/// Octets of a node's whole `meta`: every node keeps it of every other, and it has to fit a gossip value however it is
/// escaped.
pub const MAX_NODE_META: usize = 1024;

/// What an instance may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundsError {
    /// The service has the name under which nodes have theirs.
    ReservedService,
    /// There is no address.
    NoAddress,
    /// An address that no host has: unspecified, multicast, or of IPv4 in the guise of IPv6.
    Address(IpAddr),
    /// An address that is there twice.
    SameAddress(IpAddr),
    /// The port 0.
    PortZero,
    /// A port's name of more than [`MAX_PORT_NAME`] octets.
    PortName(Label),
    /// A port's name that is there twice.
    SamePort(Label),
    /// A tag that is empty or has control characters.
    Tag,
    /// A tag of more than [`MAX_TAG`] octets; holds how many.
    TagLength(usize),
    /// A tag that is there twice.
    SameTag,
    /// A key of `meta` that is empty, or not printable ASCII without `=`.
    MetaKey,
    /// A `key=value` of more than [`MAX_META_ENTRY`] octets; holds how many.
    MetaLength(usize),
    /// A node's `meta` of more than [`MAX_NODE_META`] octets; holds how many.
    NodeMeta(usize),
    /// More than [`MAX_TTL`]; holds how many seconds.
    Ttl(u32),
    /// An id of the HTTP API that is empty, has control characters or more than [`MAX_REGISTERED_ID`] octets; holds how
    /// many it has.
    RegisteredId(usize),
    /// Too many of something.
    TooMany {
        /// Of what, in the plural.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
}

impl Instance {
    /// Whether the instance is within all bounds: those that a service file is held to.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), BoundsError> {
        service(&self.key.service)?;
        addresses(&self.addresses)?;
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
        within("tags", self.tags.len(), MAX_TAGS)?;
        for (at, text) in self.tags.iter().enumerate() {
            tag(text)?;
            if self.tags[..at].contains(text) {
                return Err(BoundsError::SameTag);
            }
        }
        meta(&self.meta)?;
        if let Some(id) = &self.registered_as {
            registered_id(id)?;
        }
        match self.ttl {
            Some(ttl) if ttl > MAX_TTL => Err(BoundsError::Ttl(ttl)),
            _ => Ok(()),
        }
    }
}

/// A service may be called so.
pub fn service(name: &Label) -> Result<(), BoundsError> {
    if name.as_str() == RESERVED_SERVICE { Err(BoundsError::ReservedService) } else { Ok(()) }
}

/// An instance or a node may have these addresses.
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

/// A host can be reached at this address, and it is written as what it is.
pub fn host_address(address: &IpAddr) -> Result<(), BoundsError> {
    if address.is_unspecified() || address.is_multicast() || address.to_canonical() != *address {
        return Err(BoundsError::Address(*address));
    }
    Ok(())
}

/// A port may be called so.
pub fn port_name(name: &Label) -> Result<(), BoundsError> {
    if name.as_str().len() > MAX_PORT_NAME { Err(BoundsError::PortName(name.clone())) } else { Ok(()) }
}

/// This may be a tag.
pub fn tag(text: &str) -> Result<(), BoundsError> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(BoundsError::Tag);
    }
    if text.len() > MAX_TAG { Err(BoundsError::TagLength(text.len())) } else { Ok(()) }
}

/// This may be a key of `meta` (RFC 6763 §6.4: printable ASCII without `=`, which ends the key).
pub fn meta_key(key: &str) -> Result<(), BoundsError> {
    let printable = |b: u8| matches!(b, 0x20..=0x7e) && b != b'=';
    if key.is_empty() || !key.bytes().all(printable) { Err(BoundsError::MetaKey) } else { Ok(()) }
}

/// An entry of `meta` fits a TXT record's character-string.
pub fn meta_entry(key: &str, value: &str) -> Result<(), BoundsError> {
    let octets = key.len() + 1 + value.len();
    if octets > MAX_META_ENTRY { Err(BoundsError::MetaLength(octets)) } else { Ok(()) }
}

/// An instance may have this `meta`.
pub fn meta(entries: &BTreeMap<String, String>) -> Result<(), BoundsError> {
    within("entries of `meta`", entries.len(), MAX_META)?;
    for (key, value) in entries {
        meta_key(key)?;
        meta_entry(key, value)?;
    }
    Ok(())
}

/// A node may have this `meta`: what an instance may have, and no more than [`MAX_NODE_META`] octets of it.
pub fn node_meta(entries: &BTreeMap<String, String>) -> Result<(), BoundsError> {
    meta(entries)?;
    let octets = entries.iter().map(|(key, value)| key.len() + 1 + value.len()).sum();
    if octets > MAX_NODE_META { Err(BoundsError::NodeMeta(octets)) } else { Ok(()) }
}

/// A client of the HTTP API may give this id.
pub fn registered_id(id: &str) -> Result<(), BoundsError> {
    let fits = (1..=MAX_REGISTERED_ID).contains(&id.len()) && !id.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(BoundsError::RegisteredId(id.len())) }
}

fn within(what: &'static str, found: usize, most: usize) -> Result<(), BoundsError> {
    if found > most { Err(BoundsError::TooMany { what, found, most }) } else { Ok(()) }
}

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedService => write!(f, "the service name `{RESERVED_SERVICE}` is reserved"),
            Self::NoAddress => f.write_str("there is no address"),
            Self::Address(address) => write!(f, "`{address}` is not the IP address of a host"),
            Self::SameAddress(address) => write!(f, "the address `{address}` is there twice"),
            Self::PortZero => f.write_str("a port is from 1 to 65535"),
            Self::PortName(_) => write!(f, "a port's name has at most {MAX_PORT_NAME} octets: `_` goes before it"),
            Self::SamePort(name) => write!(f, "there is a port `{name}` already"),
            Self::Tag => f.write_str("a tag is a text without control characters"),
            Self::TagLength(octets) => write!(f, "a tag has at most {MAX_TAG} octets, this one has {octets}"),
            Self::SameTag => f.write_str("a tag is there twice"),
            Self::MetaKey => f.write_str("a key of `meta` is printable ASCII without `=`"),
            Self::MetaLength(octets) => {
                write!(f, "`key=value` has at most {MAX_META_ENTRY} octets, this one has {octets}")
            }
            Self::NodeMeta(octets) => {
                write!(f, "a node's `meta` has at most {MAX_NODE_META} octets, this one has {octets}")
            }
            Self::Ttl(seconds) => write!(f, "a TTL has at most {MAX_TTL} seconds, this one has {seconds}"),
            Self::RegisteredId(octets) => {
                write!(f, "an id has 1 to {MAX_REGISTERED_ID} octets and no control characters, this one has {octets}")
            }
            Self::TooMany { what, found, most } => write!(f, "there are at most {most} {what}, found {found}"),
        }
    }
}

impl std::error::Error for BoundsError {}
