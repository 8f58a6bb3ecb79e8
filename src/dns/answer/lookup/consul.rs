//! Names in the scheme of Consul.
//!
//! The rightmost label of a kind (`service`, `node`, `addr`) decides what a name is about. The labels after it are the
//! datacenter, as `DATACENTER` or `DATACENTER.dc`; without one, names are about all datacenters. In names of RFC 2782, `service`
//! may be omitted.

use super::{Live, Tables, protocol};
use crate::{
    dns::{
        answer::provenance::{Absence, Form, Match},
        message::query::LookupName,
        zone::{
            service::{
                Service,
                consul::{ADDRESS, DATACENTER, NODE, SERVICE},
            },
            static_names::Zone,
        },
    },
    model::{
        alias_domain::{address_of_label, is_consul_kind},
        name::Label,
        service::Protocol,
    },
};

/// Maximum number of labels after that of the kind.
const MAX_SUFFIX: usize = 2;

/// A name in front of its datacenter.
struct Scope<'t> {
    /// Datacenter of the name; `None`: all.
    datacenter: Option<&'t Label>,
    /// Number of labels of the datacenter, which exist.
    suffix: usize,
}

impl Tables {
    /// Matches `name` with services and nodes; it has `below` labels below the origin of `zone`.
    pub(super) fn locate_consul<'t>(&'t self, zone: &'t Zone, name: &LookupName, below: usize) -> Live<'t> {
        if below == 0 {
            return Live::Found(Match::Apex(zone));
        }
        let begins_srv = |at: usize| name.label(at).first() == Some(&b'_');
        let mut ends = (0..=MAX_SUFFIX).filter_map(|suffix| below.checked_sub(suffix + 1));
        let Some(at) = ends.find(|at| is_consul_kind(name.label(*at)) || begins_srv(*at)) else {
            return self.locate_datacenter(name, below);
        };
        let scope = match self.scope(name, at + 1, below) {
            Ok(scope) => scope,
            Err(nothing) => return nothing,
        };
        match name.label(at) {
            SERVICE => self.locate_consul_service(name, at, &scope, scope.suffix + 1),
            NODE => self.locate_consul_node(name, at, &scope),
            ADDRESS => match at.checked_sub(1).map(|at| (at, address_of_label(name.label(at)))) {
                Some((0, Some(address))) => Live::Found(Match::Address(address)),
                Some((_, Some(_))) => nothing(scope.suffix + 2),
                _ => nothing(scope.suffix + 1),
            },
            label if label.first() == Some(&b'_') => self.locate_consul_service(name, at + 1, &scope, scope.suffix),
            _ => Live::Nothing { existing: scope.suffix, absence: Absence::NotOffered(at) },
        }
    }

    /// Matches a name of a datacenter.
    fn locate_datacenter<'t>(&'t self, name: &LookupName, below: usize) -> Live<'t> {
        let top = below - 1;
        let existing = match name.label(top) {
            DATACENTER if top > 0 && self.datacenter(name.label(top - 1)).is_some() => 2,
            DATACENTER => 1,
            label => usize::from(self.datacenter(label).is_some()),
        };
        Live::Nothing { existing, absence: Absence::NoKind }
    }

    /// Returns the scope of a name whose datacenter begins at label `from`.
    fn scope<'t>(&'t self, name: &LookupName, from: usize, below: usize) -> Result<Scope<'t>, Live<'t>> {
        let suffix = below - from;
        if suffix == 0 {
            return Ok(Scope { datacenter: None, suffix });
        }
        let is_long = suffix == 2 && name.label(from + 1) == DATACENTER;
        match self.datacenter(name.label(from)) {
            Some(datacenter) if suffix == 1 || is_long => Ok(Scope { datacenter: Some(datacenter), suffix }),
            _ if is_long || suffix == 1 => {
                let existing = usize::from(name.label(below - 1) == DATACENTER);
                Err(Live::Nothing { existing, absence: Absence::Datacenter(from) })
            }
            _ => Err(self.locate_datacenter(name, below)),
        }
    }

    /// Returns the part of a service within the scope.
    fn service_in<'t>(&'t self, label: &[u8], at: usize, scope: &Scope<'_>) -> Result<&'t Service, Absence> {
        let service = self.service(label).ok_or(Absence::Undeclared)?;
        match scope.datacenter {
            None => Ok(service),
            Some(datacenter) => service.in_datacenter(datacenter).ok_or(Absence::OtherDatacenter(at)),
        }
    }

    /// Matches a name of a service: `end` labels in front of `existing` labels.
    fn locate_consul_service<'t>(
        &'t self,
        name: &LookupName,
        end: usize,
        scope: &Scope<'_>,
        existing: usize,
    ) -> Live<'t> {
        let Some(top) = end.checked_sub(1) else { return nothing(existing) };
        let [b'_', form @ ..] = name.label(top) else {
            return match self.service_in(name.label(top), top, scope) {
                Ok(service) => match Self::locate_in_service(service, name, top) {
                    Live::Nothing { existing: within, absence } => {
                        Live::Nothing { existing: existing + within, absence }
                    }
                    found @ Live::Found(_) => found,
                },
                Err(absence) => Live::Nothing { existing, absence },
            };
        };
        // `_tcp` and `_TAG` always exist as empty non-terminals.
        let Some(at) = top.checked_sub(1) else { return nothing(existing + 1) };
        let [b'_', label @ ..] = name.label(at) else { return nothing(existing + 1) };
        match self.service_in(label, at, scope).map(|service| srv_form(service, form)) {
            Ok(Some(found)) if at == 0 => Live::Found(found),
            Ok(Some(_)) => nothing(existing + 2),
            Ok(None) => nothing(existing + 1),
            Err(absence) => Live::Nothing { existing: existing + 1, absence },
        }
    }

    /// Matches a name of a node; the label of the kind has index `kind`.
    fn locate_consul_node<'t>(&'t self, name: &LookupName, kind: usize, scope: &Scope<'_>) -> Live<'t> {
        let existing = scope.suffix + 1;
        let Some(at) = kind.checked_sub(1) else { return nothing(existing) };
        let Some(found) = self.node_match(name.label(at)) else { return nothing(existing) };
        let is_in_scope = scope.datacenter.is_none_or(|asked| self.node_datacenter(name.label(at)) == Some(asked));
        match (at, is_in_scope) {
            (_, false) => Live::Nothing { existing, absence: Absence::OtherDatacenter(at) },
            (0, true) => Live::Found(found),
            (_, true) => nothing(existing + 1),
        }
    }
}

/// Matches the form of an RFC 2782 name. As in Consul, `_tcp` selects all instances, and `_udp` those with the tag `udp`; without
/// such a tag, those with the transport.
fn srv_form<'t>(service: &'t Service, form: &[u8]) -> Option<Match<'t>> {
    let (set, form) = match (protocol(form), service.tag(form)) {
        (Some(Protocol::Tcp), _) => (service.apex(), Form::SrvService),
        (_, Some((tag, set))) => (set, Form::SrvTag(tag)),
        (Some(Protocol::Udp), None) => (service.protocol(Protocol::Udp)?, Form::SrvProtocol(Protocol::Udp)),
        (None, None) => return None,
    };
    Some(Match::Set { service, set, form })
}

fn nothing<'t>(existing: usize) -> Live<'t> {
    Live::Nothing { existing, absence: Absence::Undeclared }
}
