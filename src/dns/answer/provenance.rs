//! Provenance of an answer: the match of each of its names in the tables.

use std::net::IpAddr;

use crate::{
    dns::zone::{
        rrset::RRset,
        service::{HostIndex, NamedPort, Service, Set, bindings::Bindings, dns_sd::ServiceType},
        static_names::Zone,
    },
    model::{name::Label, registered_name::RegisteredName, service::Protocol},
};

/// A name of an answer: the question's name or a CNAME target.
#[derive(Clone, Copy, Debug)]
pub struct Step<'t> {
    /// Zone of the name; `None` outside our zones.
    pub zone: Option<&'t Zone>,
    /// Match of the name.
    pub found: Match<'t>,
}

/// Match of a name in the tables (RFC 1034 §4.3.2).
#[derive(Clone, Copy, Debug)]
pub enum Match<'t> {
    /// All or some instances of a service.
    Set {
        /// The service.
        service: &'t Service,
        /// The instances.
        set: &'t Set,
        /// Form of the name, which selects the instances.
        form: Form<'t>,
    },
    /// One instance.
    Instance {
        /// The service.
        service: &'t Service,
        /// Index of the instance.
        host: HostIndex,
    },
    /// A named port of a service.
    Port {
        /// The service.
        service: &'t Service,
        /// The port.
        port: &'t NamedPort,
    },
    /// An instance in DNS-SD: `INSTANCE._SERVICE._PROTOCOL` (RFC 6763 §4.1).
    Advertised {
        /// The service.
        service: &'t Service,
        /// Index of the instance.
        host: HostIndex,
        /// Type of the name.
        kind: ServiceType<'t>,
    },
    /// SVCB records of a named port (RFC 9460 §2.3).
    Bindings {
        /// The service.
        service: &'t Service,
        /// The records.
        bindings: &'t Bindings,
    },
    /// A name at which clients begin to browse.
    Browse(Browse),
    /// `_why` of a service or of one of its instances.
    Why {
        /// The service.
        service: &'t Service,
        /// The instance; `None` for the service.
        host: Option<HostIndex>,
    },
    /// A node.
    Node {
        /// Name of the node.
        node: &'t Label,
        /// Records of the node.
        rrsets: &'t [RRset],
    },
    /// An external node.
    External {
        /// Name of the node.
        node: &'t RegisteredName,
        /// Records of the node.
        rrsets: &'t [RRset],
    },
    /// The apex of a zone.
    Apex(&'t Zone),
    /// Records of a zone file.
    Static {
        /// RRsets of the owner name, with their lines.
        rrsets: &'t [RRset],
        /// Owner name of the matching wildcard, relative to the zone; `None` for an exact match.
        wildcard: Option<&'t [u8]>,
    },
    /// A name at or below a delegation in a zone file.
    Delegation {
        /// The delegated name, relative to the zone.
        owner: &'t [u8],
        /// RRsets of the delegated name, including NS.
        rrsets: &'t [RRset],
    },
    /// A name below the owner of a DNAME in a zone file.
    Redirect {
        /// Owner of the DNAME, relative to the zone.
        owner: &'t [u8],
        /// The DNAME.
        dname: &'t RRset,
    },
    /// The reverse name of an address that an instance or a node announces.
    Reverse(IpAddr),
    /// An empty non-terminal: names exist below it (RFC 8020).
    Empty,
    /// An address in the name of an alias domain with the scheme of Consul.
    Address(IpAddr),
    /// The zone is copied from a primary, and there is no valid copy.
    Unavailable(&'t Zone),
    /// The name does not exist in its zone.
    Nothing(Absence),
    /// The name is outside our zones.
    Outside,
}

/// Names below `_dns-sd._udp.ZONE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browse {
    /// `_services`: the types of the services with an answered instance (RFC 6763 §9).
    Types,
    /// `b`, `db` and `lb`: the zone itself, to be browsed (RFC 6763 §11).
    Zone,
}

/// Reason why a name does not exist in its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Nothing declares it.
    Undeclared,
    /// No node is in the datacenter that this label of the name denotes.
    Datacenter(usize),
    /// The service or node that this label of the name denotes is in other datacenters only.
    OtherDatacenter(usize),
    /// Consul has names with this label of the name, muster has none.
    NotOffered(usize),
    /// The name has no label such as `service`, which the names of an alias domain with the scheme of Consul have.
    NoKind,
}

/// Form of a name, which selects instances of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'t> {
    /// `SERVICE`: all instances.
    Service,
    /// `TAG.SERVICE`: instances with the tag.
    Tag(&'t RegisteredName),
    /// `_SERVICE._TAG`: SRV records of instances with the tag (RFC 2782).
    SrvTag(&'t RegisteredName),
    /// `_SERVICE._PROTOCOL`: SRV records of instances with the transport (RFC 2782).
    SrvProtocol(Protocol),
    /// `_SERVICE._tcp` in the scheme of Consul: SRV records of all instances.
    SrvService,
    /// `_TAG._sub._SERVICE._PROTOCOL`: PTR records of instances with the tag and the transport (RFC 6763 §7.1).
    Subtype(&'t RegisteredName, Protocol),
}

impl<'t> Match<'t> {
    /// Returns the service of the name.
    pub fn service(&self) -> Option<&'t Service> {
        match self {
            Self::Set { service, .. }
            | Self::Instance { service, .. }
            | Self::Port { service, .. }
            | Self::Advertised { service, .. }
            | Self::Bindings { service, .. }
            | Self::Why { service, .. } => Some(service),
            _ => None,
        }
    }

    /// Returns the owner name of the matching wildcard, relative to the zone.
    pub fn wildcard(&self) -> Option<&'t [u8]> {
        match self {
            Self::Static { wildcard, .. } => *wildcard,
            _ => None,
        }
    }

    /// Reports whether the name belongs to a service or a node.
    pub fn is_live(&self) -> bool {
        self.service().is_some() || matches!(self, Self::Node { .. } | Self::External { .. })
    }

    /// Returns the stored RRsets of the name.
    pub fn rrsets(&self) -> &'t [RRset] {
        match self {
            Self::Node { rrsets, .. }
            | Self::External { rrsets, .. }
            | Self::Static { rrsets, .. }
            | Self::Delegation { rrsets, .. } => rrsets,
            Self::Apex(zone) => zone.names.apex(),
            _ => &[],
        }
    }
}

impl Form<'_> {
    /// Reports whether the name has only SRV records.
    pub fn is_srv_only(self) -> bool {
        matches!(self, Self::SrvTag(_) | Self::SrvProtocol(_) | Self::SrvService)
    }
}
