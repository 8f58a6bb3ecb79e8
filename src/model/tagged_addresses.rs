//! Tagged addresses of an instance: further addresses for clients of Consul's API, such as one behind a NAT (`wan`).
//!
//! No answer and no check depends on them: only programs that ask for a tag use them.

use std::{collections::BTreeMap, net::IpAddr};

use smol_str::SmolStr;

use super::list::List;

/// Maximum number of tagged addresses of an instance, as of an external node; Consul defines six.
pub const MAX_TAGGED_ADDRESSES: usize = 16;
/// Maximum length of a tag or an address in octets: a name in the DNS fits.
pub const MAX_TAGGED_ADDRESS: usize = 255;

/// An address that a tag names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaggedAddress {
    /// IP address or host name: any text of 1 to [`MAX_TAGGED_ADDRESS`] octets without control characters.
    pub address: SmolStr,
    /// Port; 0: none.
    pub port: u16,
}

/// Tagged addresses, sorted by tag. Empty: those of [`by_family`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedAddresses(List<(SmolStr, TaggedAddress)>);

impl TaggedAddresses {
    /// Iterates over tags and addresses, by tag.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &TaggedAddress)> {
        self.0.iter().map(|(tag, tagged)| (tag.as_str(), tagged))
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the list, to be replaced by an equal one.
    pub(super) fn list_mut(&mut self) -> &mut List<(SmolStr, TaggedAddress)> {
        &mut self.0
    }

    /// Returns what is stored of tagged addresses: none if they are those of [`by_family`].
    pub fn stored(tagged: BTreeMap<SmolStr, TaggedAddress>, addresses: &[IpAddr], port: Option<u16>) -> Self {
        if tagged == by_family(addresses, port) { Self::default() } else { tagged.into_iter().collect() }
    }

    /// Reports whether number and texts are within their bounds.
    pub(super) fn fits(&self) -> bool {
        let fits = |text: &str| (1..=MAX_TAGGED_ADDRESS).contains(&text.len()) && !text.chars().any(char::is_control);
        self.0.len() <= MAX_TAGGED_ADDRESSES && self.iter().all(|(tag, tagged)| fits(tag) && fits(&tagged.address))
    }
}

impl FromIterator<(SmolStr, TaggedAddress)> for TaggedAddresses {
    /// The last address of a tag counts.
    fn from_iter<I: IntoIterator<Item = (SmolStr, TaggedAddress)>>(all: I) -> Self {
        Self(all.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

/// Returns Consul's tagged addresses of an instance without own ones: `lan_ipv4`, `wan_ipv4` and so on, each the first address
/// of its family with the port.
pub fn by_family(addresses: &[IpAddr], port: Option<u16>) -> BTreeMap<SmolStr, TaggedAddress> {
    let mut all = BTreeMap::new();
    for address in addresses {
        let tags = if address.is_ipv4() { ["lan_ipv4", "wan_ipv4"] } else { ["lan_ipv6", "wan_ipv6"] };
        for tag in tags {
            let tagged = || TaggedAddress { address: smol_str::format_smolstr!("{address}"), port: port.unwrap_or(0) };
            all.entry(SmolStr::new_static(tag)).or_insert_with(tagged);
        }
    }
    all
}
