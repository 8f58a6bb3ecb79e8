//! Addresses of services and nodes in requests: IP addresses, or a host name.

use std::{net::IpAddr, sync::Arc};

use super::{Host, fields::Fields};
use crate::{
    model::{
        bounds,
        followed_host::{FollowedHost, HostName},
    },
    registry::error::FieldError,
};

/// Tagged addresses that are addresses of the service as well.
const LAN: [&str; 2] = ["lan_ipv4", "lan_ipv6"];

/// Addresses of a service or a node, as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IP addresses, at least one.
    Given(Vec<IpAddr>),
    /// Those of a host name, which the agent follows.
    Of(HostName),
}

impl Addresses {
    /// Returns the addresses, and the host name that is to be looked up.
    pub fn into_parts(self) -> (Vec<IpAddr>, Option<Arc<FollowedHost>>) {
        match self {
            Self::Given(addresses) => (addresses, None),
            Self::Of(name) => (Vec::new(), Some(Arc::new(name.into()))),
        }
    }

    /// Returns the text of the field `Address`.
    pub fn first(&self) -> String {
        match self {
            Self::Given(addresses) => addresses.first().map(ToString::to_string).unwrap_or_default(),
            Self::Of(name) => name.to_string(),
        }
    }

    /// Reads the field `Address` of a service or a node; `None`: the field is empty.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Option<Self>, FieldError> {
        if let Some(name) = fields.text("Address")?.and_then(|text| HostName::parse(text).ok()) {
            return Ok(Some(Self::Of(name)));
        }
        Ok(address(fields, "an IP address or a host name")?.map(|address| Self::Given(vec![address])))
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self::Given(addresses)
    }
}

/// Returns the addresses of a service: its own, or those of the node.
pub(super) fn addresses(fields: &Fields<'_>, host: &Host) -> Result<Addresses, FieldError> {
    let mut all = match Addresses::read(fields)? {
        Some(Addresses::Given(addresses)) => addresses,
        Some(name @ Addresses::Of(_)) => return Ok(name),
        None => Vec::new(),
    };
    if let Some(tagged) = fields.object("TaggedAddresses")? {
        for key in LAN {
            let Some(named) = tagged.object(key)? else { continue };
            all.extend(address(&named, "an IP address")?.filter(|address| !all.contains(address)));
        }
    }
    Ok(if all.is_empty() { host.addresses.clone() } else { all.into() })
}

/// The field `Address` of an object, as an IP address; `expected` describes it.
fn address(fields: &Fields<'_>, expected: &'static str) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = fields.text("Address")? else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| fields.mismatch("Address", expected))?;
    bounds::host_address(&address).map_err(|_| fields.mismatch("Address", "the IP address of a host"))?;
    Ok(Some(address))
}
