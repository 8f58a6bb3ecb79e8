//! SVCB and HTTPS records of a service (RFC 9460), from the ports with ALPN ids. A service without such ports has none.
//!
//! Each record is in ServiceMode and leads to one instance. Its parameters are kept in wire form; the name of the instance is
//! added when the record is written.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    HostIndex, Remark,
    builder::{Builder, instance},
};
use crate::model::{
    alpn::{AlpnIds, HTTPS_PORT, PortAlpn},
    name::Label,
    nearest::Tier,
    service::Instance,
};

/// Keys of parameters (RFC 9460 §14.3.2), in the order in which a record has them (§2.2).
mod key {
    pub(super) const ALPN: u16 = 1;
    pub(super) const PORT: u16 = 3;
    pub(super) const IPV4HINT: u16 = 4;
    pub(super) const IPV6HINT: u16 = 6;
}

/// SVCB or HTTPS records of one name.
#[derive(Debug)]
pub struct Bindings {
    /// Name of the port, which is the scheme of SVCB names (RFC 9460 §2.3); `None`: the HTTPS records of the service.
    port: Option<Label>,
    /// Records of the declared instances, sorted by instance.
    all: Box<[Binding]>,
    /// Records of the answered instances, as indices into `all`.
    pub answered: Box<[u32]>,
    /// TTL in seconds.
    pub ttl: u32,
    /// Content of the Extended DNS Error.
    pub remark: Option<Remark>,
    /// Tier that is answered, as in [`Set`](super::Set).
    pub tier: Option<Tier>,
}

/// SVCB or HTTPS record of one instance, without TargetName.
#[derive(Debug)]
pub struct Binding {
    /// The instance, whose name is the TargetName.
    pub host: HostIndex,
    /// SvcPriority, never 0: records are in ServiceMode (RFC 9460 §2.4.1).
    pub priority: u16,
    /// SvcParams: ALPN ids, port and address hints. Instances with the same ones share them.
    pub params: Arc<[u8]>,
}

impl Bindings {
    /// Returns the name of the port; `None` for the HTTPS records of the service.
    pub fn port(&self) -> Option<&Label> {
        self.port.as_ref()
    }

    /// Returns the record at this index of [`answered`](Self::answered).
    pub fn answered(&self, at: usize) -> &Binding {
        &self.all[self.answered[at] as usize]
    }

    /// Returns the record of an instance, answered or not.
    pub fn of(&self, host: HostIndex) -> Option<&Binding> {
        let at = self.all.binary_search_by_key(&host, |binding| binding.host).ok()?;
        Some(&self.all[at])
    }
}

impl Builder<'_> {
    /// Returns the records of the service and of its named ports, sorted by the name of the port; those of the service are first.
    pub(super) fn bindings(&self) -> Box<[Bindings]> {
        let mut by_port: BTreeMap<Option<&Label>, Vec<Binding>> = BTreeMap::new();
        for (host, entry) in (0..).zip(&self.instances) {
            let instance = instance(entry);
            if let Some((port, ids)) = https_port(instance) {
                by_port.entry(None).or_default().push(binding(host, instance, port, ids));
            }
            for PortAlpn { port: name, ids } in &instance.alpn {
                let Some(name) = name else { continue };
                let Some(port) = instance.ports.iter().find(|(known, _)| known == name) else { continue };
                by_port.entry(Some(name)).or_default().push(binding(host, instance, port.1, ids));
            }
        }
        let bindings = |(port, all): (Option<&Label>, Vec<Binding>)| {
            let declared: Vec<HostIndex> = all.iter().map(|binding| binding.host).collect();
            let (near, tier) = self.nearest(&declared);
            let answered = self.answered(&near).filter_map(|(host, _)| declared.binary_search(&host).ok());
            Bindings {
                answered: answered.map(|at| at as u32).collect(),
                ttl: self.least_ttl(&near),
                remark: self.remark(&near),
                tier,
                port: port.cloned(),
                all: all.into(),
            }
        };
        by_port.into_iter().map(bindings).collect()
    }
}

/// Returns the port to which `https` URLs of the service lead: the default port if it has ALPN ids, else the port `https`.
fn https_port(instance: &Instance) -> Option<(u16, &AlpnIds)> {
    let ids_of = |name: Option<&str>| {
        let alpn = instance.alpn.iter().find(|alpn| alpn.port.as_ref().map(Label::as_str) == name)?;
        Some(&alpn.ids)
    };
    let default = instance.port.zip(ids_of(None));
    default.or_else(|| {
        let (_, port) = instance.ports.iter().find(|(name, _)| name.as_str() == HTTPS_PORT)?;
        Some((*port, ids_of(Some(HTTPS_PORT))?))
    })
}

fn binding(host: HostIndex, instance: &Instance, port: u16, ids: &AlpnIds) -> Binding {
    let mut params = Vec::new();
    let mut param = |key: u16, value: &[u8]| {
        if !value.is_empty() {
            params.extend(key.to_be_bytes());
            // At most 2 KB of ALPN ids, and 16 addresses.
            params.extend((value.len() as u16).to_be_bytes());
            params.extend_from_slice(value);
        }
    };
    let alpn: Vec<u8> = ids.iter().flat_map(|id| std::iter::once(id.len() as u8).chain(id.bytes())).collect();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in &instance.addresses {
        match address {
            IpAddr::V4(ip) => v4.extend(ip.octets()),
            IpAddr::V6(ip) => v6.extend(ip.octets()),
        }
    }
    param(key::ALPN, &alpn);
    param(key::PORT, &port.to_be_bytes());
    param(key::IPV4HINT, &v4);
    param(key::IPV6HINT, &v6);
    // SRV priority 0 is the first choice; SvcPriority 0 would be AliasMode.
    Binding { host, priority: instance.priority.saturating_add(1), params: params.into() }
}
