//! Addresses of a service: `Address` and `TaggedAddresses`.

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

/// Description of an address that cannot be a host name.
pub(super) const ADDRESS: &str = "an IP address";
/// Consul's tagged addresses that are addresses of the instance as well.
const LAN: [&str; 2] = ["lan_ipv4", "lan_ipv6"];

/// Addresses of a service.
pub(super) struct Addresses {
    /// Addresses in answers; none if there is a host name.
    pub(super) all: Vec<IpAddr>,
    /// Host name given as the address.
    pub(super) host: Option<Arc<FollowedHost>>,
    /// Addresses for clients that ask for a tag.
    pub(super) tagged: TaggedAddresses,
}

impl Addresses {
    /// Reads the addresses of a service with this port. Without one, they are those of the node.
    pub(super) fn read(fields: &Fields<'_>, port: Option<u16>, node: &Host) -> Result<Self, FieldError> {
        let host = host_name(fields)?;
        let own = if host.is_some() { None } else { address(fields, "an IP address or a host name")? };
        let mut all: Vec<IpAddr> = own.into_iter().collect();
        let mut tagged = BTreeMap::new();
        if let Some(table) = fields.object("TaggedAddresses")? {
            for (tag, value) in table.entries().filter(|(_, value)| !value.is_null()) {
                let named = Fields::new(value, &table.path(tag))?;
                if LAN.contains(&tag.as_str()) {
                    all.extend(address(&named, ADDRESS)?.filter(|address| !all.contains(address)));
                }
                if let Some(text) = named.text("Address")? {
                    let port = named.integer("Port", &u16::MAX)?.unwrap_or(0);
                    tagged.insert(SmolStr::new(tag), TaggedAddress { address: text.into(), port });
                }
            }
        }
        if host.is_some() {
            all.clear();
        } else if all.is_empty() {
            all.clone_from(&node.addresses);
        }
        if !tagged.is_empty() {
            // As in Consul, the own address completes the tags.
            for (tag, own) in by_family(own.as_slice(), port) {
                tagged.entry(tag).or_insert(own);
            }
        }
        let tagged = TaggedAddresses::stored(tagged, &all, port);
        Ok(Self { all, host, tagged })
    }
}

/// The field `Address` of a service, if it is a host name, whose addresses the agent follows.
fn host_name(fields: &Fields<'_>) -> Result<Option<Arc<FollowedHost>>, FieldError> {
    let name = fields.text("Address")?.and_then(|text| HostName::parse(text).ok());
    Ok(name.map(|name| Arc::new(FollowedHost { name, problem: None })))
}

/// The field `Address` of an object, as an address; `expected` describes it.
pub(super) fn address(fields: &Fields<'_>, expected: &'static str) -> Result<Option<IpAddr>, FieldError> {
    let Some(text) = fields.text("Address")? else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| fields.mismatch("Address", expected))?;
    bounds::host_address(&address).map_err(|_| fields.mismatch("Address", "the IP address of a host"))?;
    Ok(Some(address))
}
