//! Addresses of services and nodes in requests: IP addresses or a host name, and tagged addresses.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use smol_str::SmolStr;

use super::{Host, fields::Fields};
use crate::{
    model::{
        bounds,
        followed_host::{FollowedHost, HostName},
        tagged_addresses::{TaggedAddress, TaggedAddresses, by_family},
    },
    registry::error::FieldError,
};

/// Consul's tagged addresses that are addresses of the instance as well.
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

/// Addresses of a service.
pub(super) struct ServiceAddresses {
    /// Addresses in answers.
    pub(super) own: Addresses,
    /// Addresses for clients that ask for a tag.
    pub(super) tagged: TaggedAddresses,
}

impl ServiceAddresses {
    /// Reads the addresses of a service with this port. Without one, they are those of the node.
    pub(super) fn read(fields: &Fields<'_>, port: Option<u16>, node: &Host) -> Result<Self, FieldError> {
        let given = Addresses::read(fields)?;
        let mut all = match &given {
            Some(Addresses::Given(addresses)) => addresses.clone(),
            Some(Addresses::Of(_)) | None => Vec::new(),
        };
        let own_address = all.clone();
        let mut tagged = BTreeMap::new();
        if let Some(table) = fields.object("TaggedAddresses")? {
            for (tag, value) in table.entries().filter(|(_, value)| !value.is_null()) {
                let named = Fields::new(value, &table.path(tag))?;
                if LAN.contains(&tag.as_str()) {
                    all.extend(address(&named, "an IP address")?.filter(|address| !all.contains(address)));
                }
                if let Some(text) = named.text("Address")? {
                    let port = named.integer("Port", &u16::MAX)?.unwrap_or(0);
                    tagged.insert(SmolStr::new(tag), TaggedAddress { address: text.into(), port });
                }
            }
        }
        let own = match given {
            Some(name @ Addresses::Of(_)) => name,
            _ if all.is_empty() => node.addresses.clone(),
            _ => all.into(),
        };
        if !tagged.is_empty() {
            // As in Consul, the own address completes the tags.
            for (tag, own) in by_family(&own_address, port) {
                tagged.entry(tag).or_insert(own);
            }
        }
        let tagged = match &own {
            Addresses::Given(addresses) => TaggedAddresses::stored(tagged, addresses, port),
            Addresses::Of(_) => TaggedAddresses::stored(tagged, &[], port),
        };
        Ok(Self { own, tagged })
    }
}

/// The field `Address` of an object, as an IP address; `expected` describes it.
fn address(fields: &Fields<'_>, expected: &'static str) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = fields.text("Address")? else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| fields.mismatch("Address", expected))?;
    bounds::host_address(&address).map_err(|_| fields.mismatch("Address", "the IP address of a host"))?;
    Ok(Some(address))
}
