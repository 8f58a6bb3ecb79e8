//! From a name and a type to an [`Answer`]: RFC 1034 §4.3.2 over the tables.
//!
//! In two steps. [`Tables::locate`] finds what the name is: a service, an instance, static records, nothing.
//! [`Place::select`] takes what the type asks of it. The precedence of names is the order of the arms in `locate_live`:
//! services and nodes before static names, RFC 2782 forms before tag forms, instance ids before tags.

use super::{Answer, Authority, Data, Ede, Group, Members, Outside, Owner};
use crate::{
    dns::{
        message::{
            codes::{Rcode, ede, rtype},
            query::LookupName,
        },
        zone::{
            Tables,
            reverse::Pointers,
            rrset::{RRset, Rdata, Tail},
            service::{HostIndex, NamedPort, Remark, Service, Set},
            static_names::{Found, Kind, Zone},
            why_names::{self, Reasons},
        },
    },
    files::zone_file::target_at,
    model::{name::MAX_NAME, service::Protocol},
};

/// CNAMEs that are followed in one answer; a chain beyond that is a mistake, and the client can go on by itself.
const MAX_CHAIN: usize = 8;
/// Below a service or an instance: why it is answered as it is. No label that a file may define begins so.
const WHY: &[u8] = b"_why";

impl Tables {
    /// What is said to a question of this name and type.
    pub fn lookup(&self, name: &LookupName, qtype: u16) -> Answer<'_> {
        match qtype {
            rtype::AXFR | rtype::IXFR => {
                return Answer::refused(Ede { code: ede::NOT_SUPPORTED, text: "zone transfers are not served" });
            }
            rtype::MAILA | rtype::MAILB => {
                return Answer { authoritative: false, ..Answer::empty(Rcode::NotImp) };
            }
            _ => {}
        }
        let zone = self.zone_for(name, qtype);
        let home = zone.map(|zone| (zone, name.offset(name.count() - zone.labels)));
        let mut answer = Answer { home, ..Answer::empty(Rcode::NoError) };
        self.follow(name, zone, qtype, Owner::Question, &mut answer);
        self.add_addresses(&mut answer);
        answer
    }

    /// Answers `name`, which is in `zone`, and the targets of CNAMEs on the way.
    fn follow<'t>(
        &'t self,
        name: &LookupName,
        zone: Option<&'t Zone>,
        qtype: u16,
        owner: Owner<'t>,
        answer: &mut Answer<'t>,
    ) {
        if let Some(pointers) = self.pointers(name, zone)
            && let Some(domain) = self.domain()
        {
            let soa = |owner, zone: &'t Zone, ttl| Group { owner, zone, data: self.soa(zone, ttl) };
            let (own, negative) = match zone {
                Some(zone) => (None, soa(Owner::Zone, zone, zone.soa.negative_ttl())),
                // A zone of one name.
                None => (Some(self.soa(domain, domain.soa.ttl)), soa(owner, domain, domain.soa.negative_ttl())),
            };
            let place = Place::Reverse { pointers, soa: own, name_servers: self.name_servers() };
            return answer.conclude(place.select(qtype), owner, domain, negative);
        }
        let Some(zone) = zone else {
            // The end of a chain that leaves our zones is a resolver's to follow, or the client's.
            if owner == Owner::Question {
                let ede = Ede { code: ede::NOT_AUTHORITATIVE, text: "not one of this server's zones" };
                *answer = Answer { outside: Outside::Question, ..Answer::refused(ede) };
            } else {
                answer.outside = Outside::Target;
            }
            return;
        };
        match self.locate(zone, name, qtype).select(qtype) {
            Selected::Alias(cname) => {
                let seen = answer
                    .answer
                    .iter()
                    .any(|group| matches!(group.data, Data::Stored(set) if std::ptr::eq(set, cname)));
                if seen || answer.answer.len() >= MAX_CHAIN {
                    return;
                }
                answer.answer.push(Group { owner, zone, data: Data::Stored(cname) });
                let target = cname.records.first().and_then(|rdata| target(rdata, 0, zone));
                if let Some(target) = target {
                    self.follow(&target, self.zone_for(&target, qtype), qtype, Owner::Target, answer);
                }
            }
            selected => {
                let soa = Group { owner: Owner::Zone, zone, data: self.soa(zone, zone.soa.negative_ttl()) };
                answer.conclude(selected, owner, zone, soa);
            }
        }
    }

    /// The zone that answers a question.
    fn zone_for(&self, name: &LookupName, qtype: u16) -> Option<&Zone> {
        let zone = self.zone(name)?;
        // DS is the parent's to answer where it delegates the name (RFC 4035 §3.1.4.1).
        if qtype == rtype::DS
            && zone.labels == name.count()
            && let Some(parent) = self.zone_above(name)
            && let Found::Name(rrsets) = parent.names.find(name, parent.labels, 0, qtype)
            && rrsets.iter().any(|set| set.rtype == rtype::NS)
        {
            return Some(parent);
        }
        if let Some(around) = self.zone_around(zone)
            && let Live::Place(_) = self.locate_live(name, name.count() - around.labels)
        {
            return Some(around);
        }
        Some(zone)
    }

    fn apex<'t>(&'t self, zone: &'t Zone, name_servers: &'t [RRset]) -> Place<'t> {
        Place::Apex { rrsets: zone.names.apex(), name_servers, soa: self.soa(zone, zone.soa.ttl) }
    }

    fn soa<'t>(&self, zone: &'t Zone, ttl: u32) -> Data<'t> {
        Data::Soa { ttl, serial: zone.soa.serial.unwrap_or(self.serial()) }
    }

    /// What `name` is, in `zone`.
    fn locate<'t>(&'t self, zone: &'t Zone, name: &LookupName, qtype: u16) -> Place<'t> {
        let below = name.count() - zone.labels;
        let existing = match zone.kind {
            Kind::Static if below == 0 => return self.apex(zone, &[]),
            Kind::Static => self.announced_labels(name, zone),
            Kind::Discovery => match self.locate_live(name, below) {
                Live::Apex => return self.apex(zone, self.name_servers()),
                Live::Place(place) => return place,
                Live::Nothing { existing } => existing,
            },
        };
        match zone.names.find(name, zone.labels, existing, qtype) {
            Found::Name(rrsets) => Place::Records(rrsets),
            Found::Cut { owner, rrsets } if !(zone.kind == Kind::Discovery && labels(owner) <= existing) => {
                Place::Cut { owner, rrsets }
            }
            // A delegation at a live service's name: the service wins.
            Found::Cut { .. } | Found::Nothing if existing >= below => Place::Records(&[]),
            Found::Cut { .. } | Found::Nothing => Place::Nothing,
        }
    }

    /// What `name` is among services and nodes, `below` labels under the discovery zone's origin.
    fn locate_live(&self, name: &LookupName, below: usize) -> Live<'_> {
        let Some(top) = below.checked_sub(1) else { return Live::Apex };
        let nothing = |existing| Live::Nothing { existing };
        match name.label(top) {
            b"node" => match top.checked_sub(1).map(|at| (at, self.node(name.label(at)))) {
                Some((0, Some(rrsets))) => Live::Place(Place::Records(rrsets)),
                Some((_, Some(_))) => nothing(2),
                _ => nothing(1),
            },
            [b'_', form @ ..] => {
                // `_tcp.ZONE` and `_TAG.ZONE` exist as far as anybody can tell: below them stand names.
                let Some(at) = top.checked_sub(1) else { return nothing(1) };
                let [b'_', service @ ..] = name.label(at) else { return nothing(1) };
                let found = self.service(service).and_then(|service| {
                    let set = match protocol(form) {
                        Some(protocol) => service.protocol(protocol),
                        None => service.tag(form),
                    };
                    set.map(|set| Place::Set { service, set, srv_only: true })
                });
                match found {
                    Some(place) if at == 0 => Live::Place(place),
                    Some(_) => nothing(2),
                    None => nothing(1),
                }
            }
            label => match self.service(label) {
                Some(service) => self.locate_in_service(service, name, top),
                None => nothing(0),
            },
        }
    }

    /// What `name` is at or below a service, whose own label is the one at `top`.
    fn locate_in_service<'t>(&'t self, service: &'t Service, name: &LookupName, top: usize) -> Live<'t> {
        let nothing = |existing| Live::Nothing { existing };
        let Some(at) = top.checked_sub(1) else {
            return Live::Place(Place::Set { service, set: service.apex(), srv_only: false });
        };
        let label = name.label(at);
        if label == WHY {
            return if at == 0 { self.locate_why(service, name.label(top), None) } else { nothing(2) };
        }
        if let [b'_', form @ ..] = label {
            let Some(protocol) = protocol(form).filter(|protocol| service.has_ports(*protocol)) else {
                return nothing(1);
            };
            let Some(at) = at.checked_sub(1) else { return nothing(2) };
            let port = name.label(at).strip_prefix(b"_").and_then(|port| service.port(port, protocol));
            return match port {
                Some(port) if at == 0 => Live::Place(Place::Port { service, port }),
                Some(_) => nothing(3),
                None => nothing(2),
            };
        }
        let place = match (service.host(label), service.tag(label)) {
            (Some(host), _) => Place::Host { service, host },
            (None, Some(set)) => Place::Set { service, set, srv_only: false },
            (None, None) => return nothing(1),
        };
        match (at, place) {
            (0, place) => Live::Place(place),
            (_, Place::Host { host, .. }) if name.label(at - 1) == WHY => {
                if at == 1 {
                    self.locate_why(service, name.label(top), Some(host))
                } else {
                    nothing(3)
                }
            }
            _ => nothing(2),
        }
    }

    /// Why a service, or one of its instances, is answered as it is.
    fn locate_why<'t>(&'t self, service: &'t Service, name: &[u8], host: Option<HostIndex>) -> Live<'t> {
        Live::Place(Place::Why { service, reasons: self.reasons(name), host, ttl: self.negative_ttl() })
    }

    /// Fills the additional section with the addresses of name servers and of targets in static records.
    fn add_addresses<'t>(&'t self, answer: &mut Answer<'t>) {
        let mut additional = std::mem::take(&mut answer.additional);
        let referral = if let Authority::Referral(group) = &answer.authority { Some(group) } else { None };
        for group in answer.answer.iter().chain(referral) {
            let Data::Stored(set) = group.data else { continue };
            let Some(at) = target_at(set.rtype).filter(|_| set.rtype != rtype::CNAME && set.rtype != rtype::PTR) else {
                continue;
            };
            for rdata in &set.records {
                self.add_addresses_of(rdata, at, group.zone, referral.is_some(), &mut additional);
            }
        }
        answer.additional = additional;
    }

    fn add_addresses_of<'t>(
        &'t self,
        rdata: &'t Rdata,
        at: usize,
        in_zone: &'t Zone,
        referral: bool,
        additional: &mut Vec<Group<'t>>,
    ) {
        let Some(name) = target(rdata, at, in_zone) else { return };
        let Some(zone) = self.zone(&name) else { return };
        let owner = match rdata.tail {
            Tail::Origin => Owner::Below(&rdata.octets[at..]),
            Tail::Nothing => Owner::Absolute(&rdata.octets[at..]),
        };
        if additional.iter().any(|group| group.owner == owner) {
            return;
        }
        for qtype in [rtype::A, rtype::AAAA] {
            let place = match self.locate(zone, &name, qtype) {
                // Below a delegation the zone holds glue, which only a referral may show (RFC 2181 §5.4.1).
                Place::Cut { .. } if referral => {
                    let labels = name.count() - zone.labels;
                    Place::Records(zone.names.at(&name.wire()[..name.offset(labels)]).unwrap_or_default())
                }
                place => place,
            };
            if let Selected::Data(data, _) = place.select(qtype) {
                additional.push(Group { owner, zone: in_zone, data });
            }
        }
    }
}

impl<'t> Answer<'t> {
    /// Ends the answer with what was selected, whose names belong to `zone`; negative answers carry the SOA.
    fn conclude(&mut self, selected: Selected<'t>, owner: Owner<'t>, zone: &'t Zone, soa: Group<'t>) {
        match selected {
            Selected::Data(data, ede) => {
                self.answer.push(Group { owner, zone, data });
                self.ede = ede;
            }
            Selected::Alias(cname) => self.answer.push(Group { owner, zone, data: Data::Stored(cname) }),
            Selected::NoData(ede) => {
                self.authority = Authority::Soa(soa);
                self.ede = ede;
            }
            Selected::NoName => {
                self.rcode = Rcode::NxDomain;
                self.authority = Authority::Soa(soa);
            }
            Selected::Referral { owner, ns } => {
                // The AA bit speaks of the first owner name (RFC 1034 §6.2.7).
                self.authoritative = !self.answer.is_empty();
                self.authority =
                    Authority::Referral(Group { owner: Owner::Below(owner), zone, data: Data::Stored(ns) });
            }
        }
    }
}

/// What a name is among services and nodes.
enum Live<'t> {
    Apex,
    Place(Place<'t>),
    /// Not a live name. `existing` labels below the origin exist all the same; the name itself does where that is all.
    Nothing {
        existing: usize,
    },
}

/// What a name is.
enum Place<'t> {
    /// A zone's apex, with generated name servers where the zone has them.
    Apex { rrsets: &'t [RRset], name_servers: &'t [RRset], soa: Data<'t> },
    /// The name of several instances; RFC 2782 names have SRV records only.
    Set { service: &'t Service, set: &'t Set, srv_only: bool },
    /// One instance.
    Host { service: &'t Service, host: HostIndex },
    /// What is to be said of a service or of one of its instances, in words.
    Why { service: &'t Service, reasons: Option<&'t Reasons>, host: Option<HostIndex>, ttl: u32 },
    /// A named port.
    Port { service: &'t Service, port: &'t NamedPort },
    /// These records, perhaps none.
    Records(&'t [RRset]),
    /// A reverse name, with the SOA where it is a zone of its own.
    Reverse { pointers: Pointers<'t>, soa: Option<Data<'t>>, name_servers: &'t [RRset] },
    /// At or below a delegation.
    Cut { owner: &'t [u8], rrsets: &'t [RRset] },
    /// Nothing.
    Nothing,
}

/// What a place has of a type.
enum Selected<'t> {
    /// Records, with what is to be said of them.
    Data(Data<'t>, Option<Ede<'t>>),
    /// A CNAME to follow.
    Alias(&'t RRset),
    /// The name exists. With why it is empty, or of how long ago that is known.
    NoData(Option<Ede<'t>>),
    NoName,
    Referral {
        owner: &'t [u8],
        ns: &'t RRset,
    },
}

impl<'t> Place<'t> {
    /// What the place has of this type. ANY gets the first RRset there is (RFC 8482 §4.1).
    fn select(self, qtype: u16) -> Selected<'t> {
        match self {
            Self::Apex { rrsets, name_servers, soa } => match select_records(rrsets, qtype) {
                Selected::NoData(_) if qtype == rtype::SOA || qtype == rtype::ANY => Selected::Data(soa, None),
                Selected::NoData(_) if qtype == rtype::NS => select_records(name_servers, qtype),
                selected => selected,
            },
            Self::Set { service, set, srv_only } => {
                let of = |rtype| match rtype {
                    rtype::SRV => Some(Data::Srv(service, Members::Hosts(&set.srv), set.ttl)),
                    rtype::A if !srv_only => Some(Data::V4(&set.v4, set.ttl)),
                    rtype::AAAA if !srv_only => Some(Data::V6(&set.v6, set.ttl)),
                    _ => None,
                };
                select_made(qtype, of, set.remark.as_ref())
            }
            Self::Host { service, host } => {
                let remark = service.remark(host);
                let of = |rtype| match rtype {
                    // It is not healthy.
                    _ if matches!(remark, Some(Remark::NotReady(_))) => None,
                    rtype::A => Some(Data::host_v4(service, host)),
                    rtype::AAAA => Some(Data::host_v6(service, host)),
                    rtype::SRV => {
                        let srv = Data::Srv(service, Members::One(host), service.host_ttl(host));
                        service.host_srv(host).map(|_| srv)
                    }
                    rtype::TXT => Some(Data::host_txt(service, host)),
                    _ => None,
                };
                select_made(qtype, of, remark)
            }
            Self::Port { service, port } => {
                let of = |rtype| match rtype {
                    rtype::SRV => Some(Data::Srv(service, Members::Ports(&port.srv), port.ttl)),
                    _ => None,
                };
                select_made(qtype, of, port.remark.as_ref())
            }
            Self::Why { service, reasons, host, ttl } if matches!(qtype, rtype::TXT | rtype::ANY) => {
                let texts = match (reasons, host) {
                    (None, _) => &[],
                    (Some(reasons), None) => reasons.all(),
                    (Some(reasons), Some(host)) => reasons.of(service.host_id(host)),
                };
                let data = match host {
                    _ if !texts.is_empty() => Data::Texts(texts, ttl),
                    None => Data::Made(why_names::of_service(service.declared(), ttl)),
                    Some(host) => {
                        Data::Made(why_names::of_instance(service.host_id(host), service.host_weight(host), ttl))
                    }
                };
                Selected::Data(data, None)
            }
            Self::Why { .. } => Selected::NoData(None),
            Self::Records(rrsets) => select_records(rrsets, qtype),
            Self::Reverse { pointers: Pointers { set, remark }, .. }
                if matches!(qtype, rtype::PTR | rtype::ANY) && !set.records.is_empty() =>
            {
                Selected::Data(Data::Made(set), remark.map(Ede::from))
            }
            Self::Reverse { soa: Some(soa), .. } if qtype == rtype::SOA => Selected::Data(soa, None),
            Self::Reverse { soa: Some(_), name_servers, .. } => match select_records(name_servers, qtype) {
                Selected::Data(data, ede) if qtype == rtype::NS => Selected::Data(data, ede),
                _ => Selected::NoData(None),
            },
            Self::Reverse { .. } => Selected::NoData(None),
            Self::Cut { owner, rrsets } => match rrsets.iter().find(|set| set.rtype == rtype::NS) {
                Some(ns) => Selected::Referral { owner, ns },
                None => Selected::NoName,
            },
            Self::Nothing => Selected::NoName,
        }
    }
}

fn select_records(rrsets: &[RRset], qtype: u16) -> Selected<'_> {
    if let Some(set) = rrsets.iter().find(|set| set.rtype == qtype || qtype == rtype::ANY) {
        return Selected::Data(Data::Stored(set), None);
    }
    match rrsets.iter().find(|set| set.rtype == rtype::CNAME) {
        Some(cname) => Selected::Alias(cname),
        None => Selected::NoData(None),
    }
}

/// What is selected where records are made from instances.
fn select_made<'t>(qtype: u16, of: impl Fn(u16) -> Option<Data<'t>>, remark: Option<&'t Remark>) -> Selected<'t> {
    let there = |data: &Data<'_>| !data.is_empty();
    let data = match qtype {
        // The first RRset there is (RFC 8482 §4.1).
        rtype::ANY => [rtype::A, rtype::AAAA, rtype::SRV, rtype::TXT].into_iter().filter_map(of).find(there),
        _ => of(qtype).filter(there),
    };
    let ede = remark.map(Ede::from);
    match data {
        Some(data) => Selected::Data(data, ede),
        None => Selected::NoData(ede),
    }
}

/// The transport that a label without its underscore names.
fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"tcp" => Some(Protocol::Tcp),
        b"udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The name that RDATA holds from `at` on.
fn target(rdata: &Rdata, at: usize, zone: &Zone) -> Option<LookupName> {
    let octets = rdata.octets.get(at..)?;
    match rdata.tail {
        Tail::Nothing => LookupName::from_wire(octets),
        Tail::Origin => {
            let mut wire = smallvec::SmallVec::<[u8; MAX_NAME]>::from_slice(octets);
            wire.extend_from_slice(zone.origin.wire());
            LookupName::from_wire(&wire)
        }
    }
}

/// How many labels these octets hold.
fn labels(mut wire: &[u8]) -> usize {
    let mut count = 0;
    while let Some((len, rest)) = wire.split_first() {
        wire = &rest[usize::from(*len)..];
        count += 1;
    }
    count
}
