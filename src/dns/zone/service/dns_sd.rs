//! Names of a service in DNS-SD (RFC 6763): types of services, and instances by the ids that people wrote.
//!
//! Most of it is derived from the records of the [`Service`] for each answer. Only ids that differ from their labels are kept.

use smol_str::SmolStr;

use super::{
    HostIndex, NamedPort, Protocols, SRV_FIELDS, Service,
    builder::{Builder, instance},
};
use crate::model::{name::MAX_LABEL, service::Protocol};

/// Type of a service: the labels between the name of an instance and the zone (RFC 6763 §4.1.2).
#[derive(Clone, Copy, Debug)]
pub enum ServiceType<'t> {
    /// `_SERVICE._PROTOCOL`: the instances with this transport, at their default ports.
    Transport(Protocol),
    /// `_PORT._PROTOCOL.SERVICE`: the instances with a named port.
    Port(&'t NamedPort),
}

impl ServiceType<'_> {
    /// Returns the transport, which is the second label.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Transport(protocol) => *protocol,
            Self::Port(port) => port.protocol(),
        }
    }

    /// Returns the port of an answered instance; `None`: its default port.
    pub fn port_of(&self, host: HostIndex) -> Option<u16> {
        match self {
            Self::Transport(_) => None,
            Self::Port(port) => port.of(host).first().map(|(_, port)| *port),
        }
    }
}

impl NamedPort {
    /// Returns the entry of an answered instance in [`srv`](Self::srv); empty if there is none.
    pub fn of(&self, host: HostIndex) -> &[(HostIndex, u16)] {
        let at = self.srv.binary_search_by_key(&host, |(host, _)| *host);
        at.map_or(&[], |at| std::slice::from_ref(&self.srv[at]))
    }
}

/// Names of the instances whose id is not their label, sorted by name without letter case.
#[derive(Debug, Default)]
pub(super) struct WrittenNames {
    by_name: Box<[(SmolStr, HostIndex)]>,
    /// Indices into `by_name`, sorted by instance.
    by_host: Box<[u32]>,
}

impl WrittenNames {
    fn of(&self, host: HostIndex) -> Option<&str> {
        let at = self.by_host.binary_search_by_key(&host, |at| self.by_name[*at as usize].1).ok()?;
        Some(&self.by_name[self.by_host[at] as usize].0)
    }

    /// Returns the instance of a name in lower case.
    fn host(&self, name: &[u8]) -> Option<HostIndex> {
        let at = self.by_name.binary_search_by(|(known, _)| folded(known).cmp(name.iter().copied())).ok()?;
        Some(self.by_name[at].1)
    }
}

fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|octet| octet.to_ascii_lowercase())
}

impl Service {
    /// Returns the label of an instance in DNS-SD: its id as written, unless that is no label or another instance has it.
    pub fn dns_sd_label(&self, host: HostIndex) -> &[u8] {
        self.written_names.as_ref().and_then(|names| names.of(host)).map_or_else(|| self.host_id(host), str::as_bytes)
    }

    /// Returns the instance with this label in DNS-SD, in lower case. The label of its id leads to it, too.
    pub fn dns_sd_host(&self, label: &[u8]) -> Option<HostIndex> {
        self.host(label).or_else(|| self.written_names.as_ref()?.host(label))
    }

    /// Returns the transport of an instance.
    pub fn host_protocol(&self, host: HostIndex) -> Protocol {
        match &self.protocols {
            Protocols::Only(protocol) => *protocol,
            Protocols::Both { udp_hosts, .. } if udp_hosts.binary_search(&host).is_ok() => Protocol::Udp,
            Protocols::Both { .. } => Protocol::Tcp,
        }
    }

    /// Reports whether all instances have this transport.
    pub fn is_only(&self, protocol: Protocol) -> bool {
        matches!(self.protocols, Protocols::Only(only) if only == protocol)
    }

    /// Reports whether a tag of the service has names.
    pub fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Returns the transports by which answered instances of the service can be browsed.
    pub fn browsable(&self) -> impl Iterator<Item = Protocol> {
        let has_instances = |protocol: &Protocol| self.protocol(*protocol).is_some_and(|set| !set.srv.is_empty());
        let has_name = self.name().len() < MAX_LABEL;
        [Protocol::Tcp, Protocol::Udp].into_iter().filter(move |protocol| has_name && has_instances(protocol))
    }

    /// Returns the length of the labels of a type in octets.
    pub fn type_len(&self, kind: ServiceType<'_>) -> usize {
        // The label of the name has a length and an underscore, that of the transport five octets.
        match kind {
            ServiceType::Transport(_) => self.name().len() + 2 + 5,
            ServiceType::Port(port) => port.name().as_str().len() + 2 + 5 + 1 + self.name().len(),
        }
    }

    /// Appends the labels of a type of this service.
    pub fn push_type(&self, kind: ServiceType<'_>, out: &mut Vec<u8>) {
        let (name, protocol) = match kind {
            ServiceType::Transport(protocol) => (self.name(), protocol),
            ServiceType::Port(port) => (port.name().as_bytes(), port.protocol()),
        };
        out.push(name.len() as u8 + 1);
        out.push(b'_');
        out.extend_from_slice(name);
        out.extend_from_slice(match protocol {
            Protocol::Tcp => b"\x04_tcp",
            Protocol::Udp => b"\x04_udp",
        });
        if let ServiceType::Port(_) = kind {
            out.push(self.name().len() as u8);
            out.extend_from_slice(self.name());
        }
    }

    /// Returns the TXT RDATA of an instance in DNS-SD: an empty string without `meta` (RFC 6763 §6.1).
    pub fn dns_sd_txt(&self, host: HostIndex) -> &[u8] {
        match self.host_txt(host) {
            [] => &[0],
            txt => txt,
        }
    }

    /// Returns the labels of the SRV target of an instance, relative to the origin.
    pub fn target(&self, host: HostIndex) -> &[u8] {
        &self.srv_parts(host)[SRV_FIELDS..]
    }
}

impl Builder<'_> {
    /// Returns the names that are unique within the service and differ from the labels of all ids.
    pub(super) fn written_names(&self) -> Option<Box<WrittenNames>> {
        let names = (0..).zip(&self.instances).filter_map(|(host, entry)| Some((instance(entry).dns_sd_name()?, host)));
        let mut by_name: Vec<(&str, HostIndex)> = names.collect();
        if by_name.is_empty() {
            return None;
        }
        by_name.sort_by(|(a, _), (b, _)| folded(a).cmp(folded(b)));
        let is_id = |name: &str| {
            let found = self
                .instances
                .binary_search_by(|entry| instance(entry).key.id.as_bytes().iter().copied().cmp(folded(name)));
            found.ok()
        };
        let unique: Vec<(SmolStr, HostIndex)> = by_name
            .chunk_by(|(a, _), (b, _)| a.eq_ignore_ascii_case(b))
            .filter_map(|same| if let [(name, host)] = same { Some((*name, *host)) } else { None })
            // The name of an instance may be its own label in another letter case.
            .filter(|(name, host)| is_id(name).is_none_or(|at| at as HostIndex == *host))
            .map(|(name, host)| (SmolStr::new(name), host))
            .collect();
        let mut by_host: Vec<u32> = (0..unique.len() as u32).collect();
        by_host.sort_unstable_by_key(|at| unique[*at as usize].1);
        Some(Box::new(WrittenNames { by_name: unique.into(), by_host: by_host.into() }))
    }
}
