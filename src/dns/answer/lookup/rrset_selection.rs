//! Selection of the RRset of a type from a matched name.

use crate::{
    dns::{
        answer::{
            BindingRecords, Data, Ede, Members,
            provenance::{Browse, Form, Match, Step},
        },
        dnssec::zone_keys::KeySet,
        message::codes::{ede, rtype},
        zone::{
            Tables,
            reverse::Pointers,
            rrset::{RRset, Rdata},
            service::{HostIndex, Remark, Service, Set, bindings::Bindings, dns_sd::ServiceType},
            static_names::{Kind, Zone},
            why_records,
        },
    },
    model::{
        name::{MAX_LABEL, MAX_NAME},
        service::Protocol,
        zone::CopyState,
    },
};

/// Record types that may be generated. Of two RRsets of equal size, ANY has the one that is first here.
const GENERATED: [u16; 12] = [
    rtype::A,
    rtype::AAAA,
    rtype::SRV,
    rtype::TXT,
    rtype::PTR,
    rtype::NS,
    rtype::SOA,
    rtype::SVCB,
    rtype::HTTPS,
    rtype::DNSKEY,
    rtype::CDS,
    rtype::CDNSKEY,
];
/// Maximum length in octets of a named port's name below which any instance has one (RFC 1035 §2.3.4). The bound on zones keeps
/// those of services shorter.
const MAX_PORT_TYPE: usize = MAX_NAME - MAX_LABEL - 1;
/// Maximum number of types of services in an answer: no more fit a message, whose records have at least 22 octets.
const MAX_TYPES: usize = 65_535 / 22;

/// RRset of a type at a matched name.
pub(super) enum Selected<'t> {
    /// Records, with an Extended DNS Error.
    Data(Data<'t>, Option<Ede<'t>>),
    /// A CNAME to follow.
    Alias(&'t RRset),
    /// A DNAME that redirects the name.
    Redirect { owner: &'t [u8], dname: &'t RRset },
    /// The name exists without records of the type.
    NoData(Option<Ede<'t>>),
    /// The name does not exist.
    NoName,
    /// The zone cannot be answered.
    Failure(Ede<'t>),
    /// The name is at or below a delegation.
    Referral { owner: &'t [u8], ns: &'t RRset },
}

impl Tables {
    /// Returns the record types of a name in numeric order.
    pub fn types(&self, step: &Step<'_>) -> Vec<u16> {
        self.rrsets(step).iter().map(Data::rtype).collect()
    }

    /// Returns the RRsets of a name, sorted by type.
    pub fn rrsets<'t>(&'t self, step: &Step<'t>) -> Vec<Data<'t>> {
        let mut types: Vec<u16> = step.found.rrsets().iter().map(|set| set.rtype).chain(GENERATED).collect();
        types.sort_unstable();
        types.dedup();
        let data = |rtype| match self.select(step, rtype) {
            Selected::Data(data, _) => Some(data),
            _ => None,
        };
        types.into_iter().filter_map(data).collect()
    }

    /// Selects the RRset of this type; for ANY, the smallest RRset of the name (RFC 8482 §4.1), whose reply amplifies least.
    pub(super) fn select<'t>(&'t self, step: &Step<'t>, qtype: u16) -> Selected<'t> {
        match qtype {
            rtype::ANY => self.select_smallest(step),
            _ => self.select_type(step, qtype),
        }
    }

    fn select_smallest<'t>(&'t self, step: &Step<'t>) -> Selected<'t> {
        // A reverse name outside our zones has the SOA of the zone of its targets.
        let Some(zone) = step.zone.or(self.ptr_domain()) else { return Selected::NoName };
        let mut smallest: Option<(usize, Data<'t>, Option<Ede<'t>>)> = None;
        let mut without = Selected::NoData(None);
        // Signatures and proofs of nonexistence are for clients that ask for them.
        let stored = step
            .found
            .rrsets()
            .iter()
            .map(|set| set.rtype)
            .filter(|rtype| !matches!(*rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3));
        for rtype in stored.chain(GENERATED) {
            match self.select_type(step, rtype) {
                Selected::Data(data, ede) => {
                    let octets = data.octets(zone);
                    if smallest.as_ref().is_none_or(|(least, ..)| octets < *least) {
                        smallest = Some((octets, data, ede));
                    }
                }
                selected => without = selected,
            }
        }
        smallest.map_or(without, |(_, data, ede)| Selected::Data(data, ede))
    }

    fn select_type<'t>(&'t self, step: &Step<'t>, qtype: u16) -> Selected<'t> {
        match step.found {
            Match::Set { service, set, form } => select_set(step.zone, service, set, form, qtype),
            Match::Instance { service, host } => select_instance(step.zone, service, host, qtype),
            Match::Port { service, port } => {
                let of = |rtype| match rtype {
                    rtype::SRV => Some(srv(step.zone, service, Members::Ports(&port.srv), port.ttl)),
                    rtype::PTR if has_discovery(step.zone) => {
                        let (kind, members) = (ServiceType::Port(port), Members::Ports(&port.srv));
                        let octets = step.zone.map_or(0, |zone| zone.origin.wire().len()) + service.type_len(kind);
                        let fits = octets <= MAX_PORT_TYPE;
                        fits.then_some(Data::Instances { service, members, kind, ttl: port.ttl })
                    }
                    _ => None,
                };
                select_generated(qtype, of, port.remark.as_ref())
            }
            Match::Advertised { service, host, kind } => select_advertised(step.zone, service, host, kind, qtype),
            Match::Bindings { service, bindings } => {
                let of = |rtype| (rtype == rtype::SVCB).then(|| answered_bindings(rtype, service, bindings));
                select_generated(qtype, of, bindings.remark.as_ref())
            }
            Match::Browse(browse) => {
                let of = |rtype| (rtype == rtype::PTR).then(|| self.browse(browse));
                select_generated(qtype, of, None)
            }
            Match::Why { service, host } => self.select_why(service, host, qtype),
            Match::Apex(zone) => self.select_apex(zone, qtype),
            Match::Node { rrsets, .. } | Match::External { rrsets, .. } | Match::Static { rrsets, .. } => {
                select_records(rrsets, qtype)
            }
            Match::Delegation { owner, rrsets } => match rrsets.iter().find(|set| set.rtype == rtype::NS) {
                Some(ns) => Selected::Referral { owner, ns },
                None => Selected::NoName,
            },
            Match::Redirect { owner, dname } => Selected::Redirect { owner, dname },
            Match::Unavailable(zone) => Selected::Failure(unavailable(zone)),
            Match::Reverse(address) => {
                if qtype == rtype::PTR {
                    let Pointers { set, remark } = self.pointers(address);
                    if !set.records.is_empty() {
                        return Selected::Data(Data::Made(set), remark.map(Ede::from));
                    }
                }
                match (step.zone, qtype, self.ptr_domain()) {
                    // A zone with a single name.
                    (None, rtype::SOA, Some(domain)) => Selected::Data(self.soa(domain, domain.soa.ttl), None),
                    (None, rtype::NS, Some(domain)) => select_records(self.name_servers(domain), qtype),
                    _ => Selected::NoData(None),
                }
            }
            Match::Address(address) => {
                let of = |rtype| Some(Data::of_address(address, self.ttl())).filter(|data| data.rtype() == rtype);
                select_generated(qtype, of, None)
            }
            Match::Empty => Selected::NoData(None),
            Match::Nothing(_) | Match::Outside => Selected::NoName,
        }
    }

    fn select_apex<'t>(&'t self, zone: &'t Zone, qtype: u16) -> Selected<'t> {
        match select_records(zone.names.apex(), qtype) {
            Selected::NoData(_) if qtype == rtype::SOA => Selected::Data(self.soa(zone, zone.soa.ttl), None),
            Selected::NoData(_) if qtype == rtype::NS && zone.kind.has_live_names() => {
                select_records(self.name_servers(zone), qtype)
            }
            Selected::NoData(_) => match zone.keys.as_ref().and_then(|keys| keys.rrset(qtype)) {
                Some(KeySet { ttl, records, .. }) => {
                    let records = records.iter().map(|rdata| Rdata::fixed(rdata.as_slice())).collect();
                    Selected::Data(Data::Made(RRset { rtype: qtype, ttl: *ttl, line: 0, records }), None)
                }
                None => Selected::NoData(None),
            },
            selected => selected,
        }
    }

    /// Returns the PTR records of a name at which clients begin to browse.
    fn browse(&self, browse: Browse) -> Data<'static> {
        let records = match browse {
            Browse::Zone => vec![Rdata::below_origin([])],
            Browse::Types => {
                let types = self.services().flat_map(|(_, service)| {
                    service.browsable().map(|protocol| {
                        let mut labels = Vec::new();
                        service.push_type(ServiceType::Transport(protocol), &mut labels);
                        Rdata::below_origin(labels)
                    })
                });
                let mut types: Vec<Rdata> = types.take(MAX_TYPES).collect();
                // A truncated answer has the same types on every node.
                types.sort_unstable_by(|a, b| a.octets.cmp(&b.octets));
                types
            }
        };
        Data::Made(RRset { rtype: rtype::PTR, ttl: self.ttl(), line: 0, records })
    }

    fn select_why<'t>(&'t self, service: &'t Service, host: Option<HostIndex>, qtype: u16) -> Selected<'t> {
        if qtype != rtype::TXT {
            return Selected::NoData(None);
        }
        let ttl = self.negative_ttl();
        let texts = match (self.reasons(service.name()), host) {
            (None, _) => &[],
            (Some(reasons), None) => reasons.all(),
            (Some(reasons), Some(host)) => reasons.of(service.host_id(host)),
        };
        let data = match host {
            _ if !texts.is_empty() => Data::Texts(texts, ttl),
            None => Data::Made(why_records::of_service(service.declared(), ttl)),
            Some(host) => Data::Made(why_records::of_instance(service.host_id(host), service.host_weight(host), ttl)),
        };
        Selected::Data(data, None)
    }
}

/// Returns SRV records with targets in the scheme of the zone.
fn srv<'t>(zone: Option<&Zone>, service: &'t Service, members: Members<'t>, ttl: u32) -> Data<'t> {
    Data::Srv { service, members, kind: zone.map_or(Kind::Discovery, |zone| zone.kind), ttl }
}

/// Returns whether a zone has names of DNS-SD and records of RFC 9460.
fn has_discovery(zone: Option<&Zone>) -> bool {
    zone.is_none_or(|zone| zone.kind != Kind::Consul)
}

fn answered_bindings<'t>(rtype: u16, service: &'t Service, bindings: &'t Bindings) -> Data<'t> {
    Data::Bindings { rtype, service, records: BindingRecords::Answered(bindings), ttl: bindings.ttl }
}

/// Returns the PTR records of the instances of a set with this transport.
fn instances<'t>(service: &'t Service, set: &'t Set, protocol: Protocol) -> Data<'t> {
    let (kind, ttl) = (ServiceType::Transport(protocol), set.ttl);
    if service.is_only(protocol) || service.protocol(protocol).is_some_and(|all| std::ptr::eq(all, set)) {
        return Data::Instances { service, members: Members::Hosts(&set.srv), kind, ttl };
    }
    // A tag of a service with both transports.
    let with_protocol = set.srv.iter().filter(|host| service.host_protocol(**host) == protocol);
    let pointer = |host: &HostIndex| {
        let label = service.dns_sd_label(*host);
        let mut labels = vec![label.len() as u8];
        labels.extend_from_slice(label);
        service.push_type(kind, &mut labels);
        Rdata::below_origin(labels)
    };
    Data::Made(RRset { rtype: rtype::PTR, ttl, line: 0, records: with_protocol.map(pointer).collect() })
}

fn select_set<'t>(zone: Option<&Zone>, service: &'t Service, set: &'t Set, form: Form<'t>, qtype: u16) -> Selected<'t> {
    let srv_only = form.is_srv_only();
    let of = |rtype| match rtype {
        rtype::PTR if has_discovery(zone) => match form {
            Form::SrvProtocol(protocol) | Form::Subtype(_, protocol) => Some(instances(service, set, protocol)),
            _ => None,
        },
        _ if matches!(form, Form::Subtype(..)) => None,
        rtype::HTTPS if form == Form::Service && has_discovery(zone) => {
            service.bindings(None).map(|bindings| answered_bindings(rtype, service, bindings))
        }
        rtype::SRV => Some(srv(zone, service, Members::Hosts(&set.srv), set.ttl)),
        rtype::A if !srv_only => Some(Data::V4(&set.v4, set.ttl)),
        rtype::AAAA if !srv_only => Some(Data::V6(&set.v6, set.ttl)),
        _ => None,
    };
    select_generated(qtype, of, set.remark.as_ref())
}

fn select_instance<'t>(zone: Option<&Zone>, service: &'t Service, host: HostIndex, qtype: u16) -> Selected<'t> {
    let remark = service.remark(host);
    let of = |rtype| match rtype {
        // The instance is not answered.
        _ if matches!(remark, Some(Remark::NotReady(_))) => None,
        rtype::A => Some(Data::host_v4(service, host)),
        rtype::AAAA => Some(Data::host_v6(service, host)),
        rtype::SRV => {
            let srv = srv(zone, service, Members::One(host), service.host_ttl(host));
            service.host_srv(host).map(|_| srv)
        }
        rtype::TXT => Some(Data::host_txt(service, host)),
        rtype::HTTPS if has_discovery(zone) => {
            let binding = service.bindings(None)?.of(host)?;
            let records = BindingRecords::Own(binding);
            Some(Data::Bindings { rtype, service, records, ttl: service.host_ttl(host) })
        }
        _ => None,
    };
    select_generated(qtype, of, remark)
}

fn select_advertised<'t>(
    zone: Option<&Zone>,
    service: &'t Service,
    host: HostIndex,
    kind: ServiceType<'t>,
    qtype: u16,
) -> Selected<'t> {
    let (remark, ttl) = (service.remark(host), service.host_ttl(host));
    let of = |rtype| match (rtype, kind) {
        // The instance is not answered.
        _ if matches!(remark, Some(Remark::NotReady(_))) => None,
        (rtype::SRV, ServiceType::Transport(_)) => {
            service.host_srv(host).map(|_| srv(zone, service, Members::One(host), ttl))
        }
        (rtype::SRV, ServiceType::Port(port)) => Some(srv(zone, service, Members::Ports(port.of(host)), ttl)),
        (rtype::TXT, _) => {
            let octets = service.dns_sd_txt(host);
            Some(Data::Host { rtype, size: octets.len(), octets, ttl })
        }
        _ => None,
    };
    select_generated(qtype, of, remark)
}

fn select_records(rrsets: &[RRset], qtype: u16) -> Selected<'_> {
    if let Some(set) = rrsets.iter().find(|set| set.rtype == qtype) {
        return Selected::Data(Data::Stored(set), None);
    }
    match rrsets.iter().find(|set| set.rtype == rtype::CNAME) {
        Some(cname) => Selected::Alias(cname),
        None => Selected::NoData(None),
    }
}

/// Selects from RRsets that are generated from instances.
fn select_generated<'t>(qtype: u16, of: impl Fn(u16) -> Option<Data<'t>>, remark: Option<&'t Remark>) -> Selected<'t> {
    let ede = remark.map(Ede::from);
    match of(qtype).filter(|data| !data.is_empty()) {
        Some(data) => Selected::Data(data, ede),
        None => Selected::NoData(ede),
    }
}

/// Returns why a copied zone is not answered.
fn unavailable(zone: &Zone) -> Ede<'static> {
    match zone.unavailable() {
        Some(CopyState::Expired) => {
            Ede { code: ede::INVALID_DATA, text: "the copy of the zone has expired: no primary confirms it" }
        }
        _ => Ede { code: ede::NOT_READY, text: "no primary has sent the zone yet" },
    }
}
