//! Names of DNS-SD (RFC 6763) and of SVCB records (RFC 9460). Zones with the scheme of Consul have neither.

use super::{Live, Tables, protocol};
use crate::dns::{
    answer::provenance::{Absence, Browse, Form, Match},
    message::query::LookupName,
    zone::{
        service::{Service, dns_sd::ServiceType},
        static_names::Zone,
    },
};

/// First labels of the names at which clients begin to browse (RFC 6763 §9 and §11), below `_dns-sd._udp`.
const BROWSE: [(&[u8], Browse); 4] =
    [(b"_services", Browse::Types), (b"b", Browse::Zone), (b"db", Browse::Zone), (b"lb", Browse::Zone)];
/// Label between a subtype and its type (RFC 6763 §7.1).
const SUBTYPE: &[u8] = b"_sub";

/// Names below the origin that always exist: `_dns-sd._udp`.
pub(super) const BROWSE_ABOVE: [&[u8]; 2] = [b"dns-sd", b"udp"];

impl Tables {
    /// Matches a name below `_dns-sd._udp.ZONE`, whose first label has index `at`. `None`: it is not about browsing, or the zone
    /// file has records of the name.
    pub(super) fn locate_browse<'t>(zone: &Zone, name: &LookupName, at: usize) -> Option<Live<'t>> {
        let at = at.checked_sub(1)?;
        let (_, browse) = BROWSE.iter().find(|(label, _)| *label == name.label(at))?;
        let owner = &name.wire()[name.offset(at)..name.offset(name.count() - zone.labels)];
        if zone.names.at(owner).is_some_and(|rrsets| !rrsets.is_empty()) {
            return None;
        }
        Some(if at == 0 { Live::Found(Match::Browse(*browse)) } else { nothing(3) })
    }

    /// Matches a name below that of a type, which has `existing` labels below the origin and whose first one has index `at`.
    pub(super) fn locate_below_type<'t>(
        service: &'t Service,
        kind: ServiceType<'t>,
        name: &LookupName,
        at: usize,
        existing: usize,
    ) -> Live<'t> {
        let Some(at) = at.checked_sub(1) else { return nothing(existing) };
        let label = name.label(at);
        if let (SUBTYPE, ServiceType::Transport(protocol)) = (label, kind) {
            if !service.has_tags() {
                return nothing(existing);
            }
            let Some(at) = at.checked_sub(1) else { return nothing(existing + 1) };
            let tag = name.label(at).strip_prefix(b"_").and_then(|tag| service.tag(tag));
            return match tag {
                Some((tag, set)) if at == 0 => {
                    Live::Found(Match::Set { service, set, form: Form::Subtype(tag, protocol) })
                }
                Some(_) => nothing(existing + 2),
                None => nothing(existing + 1),
            };
        }
        match service.dns_sd_host(label).filter(|host| service.host_protocol(*host) == kind.protocol()) {
            Some(host) if at == 0 => Live::Found(Match::Advertised { service, host, kind }),
            Some(_) => nothing(existing + 1),
            None => nothing(existing),
        }
    }

    /// Matches a name below that of a named port, or that of a port's SVCB records. The service's label has index `top`.
    pub(super) fn locate_below_port<'t>(service: &'t Service, name: &LookupName, top: usize) -> Option<Live<'t>> {
        let at = top.checked_sub(1)?;
        let label = name.label(at).strip_prefix(b"_")?;
        if let Some(protocol) = protocol(label).filter(|protocol| service.has_ports(*protocol)) {
            let at = at.checked_sub(1)?;
            let port = service.port(name.label(at).strip_prefix(b"_")?, protocol)?;
            return Some(Self::locate_below_type(service, ServiceType::Port(port), name, at, 3));
        }
        let bindings = service.bindings(Some(label))?;
        Some(if at == 0 { Live::Found(Match::Bindings { service, bindings }) } else { nothing(2) })
    }
}

fn nothing<'t>(existing: usize) -> Live<'t> {
    Live::Nothing { existing, absence: Absence::Undeclared }
}
