//! Lookup of a name and type in the tables (RFC 1034 §4.3.2).
//!
//! Each name is looked up in two steps: [`Tables::find`] matches the name, and `select` selects the RRset of the type. The
//! order of the arms in `locate_live` is the precedence of names: services and nodes before static names, RFC 2782 forms
//! before tag forms, instance ids before tags.
//!
//! The [`Answer`] keeps its [`Step`]s as provenance, so that `explain` uses the same lookup as DNS.

mod consul;
mod dns_sd;
mod hidden_static;
mod rrset_selection;

pub use self::hidden_static::Hidden;
use self::{dns_sd::BROWSE_ABOVE, rrset_selection::Selected};
use super::{
    Answer, Authority, Data, Ede, Group, Outside, Owner,
    provenance::{Absence, Form, Match, Step},
};
use crate::{
    dns::{
        message::{
            codes::{Rcode, ede, rtype},
            query::LookupName,
        },
        zone::{
            Tables,
            rrset::{RRset, Rdata, Tail},
            service::{Service, dns_sd::ServiceType},
            signing::SignedBy,
            static_names::{Found, Kind, Zone},
        },
    },
    model::{service::Protocol, zone::target_at},
};

/// Maximum number of CNAMEs followed in one answer. A longer chain is a misconfiguration; the client can continue it.
const MAX_CHAIN: usize = 8;
/// Label of the `_why` names below a service or an instance. Labels of services, ids and tags never start with an underscore.
const WHY: &[u8] = b"_why";

impl Tables {
    /// Matches a name that is in `zone`, without following CNAMEs.
    pub(super) fn find_in<'t>(&'t self, zone: &'t Zone, name: &LookupName, qtype: u16) -> Step<'t> {
        Step { zone: Some(zone), found: self.locate(Some(zone), name, qtype) }
    }

    /// Matches a name for a question of this type, without following CNAMEs.
    pub fn find(&self, name: &LookupName, qtype: u16) -> Step<'_> {
        let zone = self.zone_for(name, qtype);
        Step { zone, found: self.locate(zone, name, qtype) }
    }

    /// Reports whether this server is authoritative for a name: it is in our zones, and not at or below a delegation.
    pub fn is_authoritative_for(&self, name: &LookupName) -> bool {
        !matches!(self.find(name, rtype::A).found, Match::Outside | Match::Delegation { .. })
    }

    /// Returns the answer to a question of this name and type.
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
        if qtype == rtype::RRSIG && zone.is_some_and(|zone| zone.keys.is_some()) {
            let text = "signatures are sent beside the records that they cover";
            return Answer::refused(Ede { code: ede::NOT_SUPPORTED, text });
        }
        let question_zone = zone.map(|zone| (zone, name.offset(name.count() - zone.labels)));
        self.answer_from((name, Owner::Question), zone, qtype, question_zone)
    }

    /// Answers the target of a CNAME that another server has: the owner of the first records is that target.
    pub fn lookup_target(&self, target: &LookupName, qtype: u16) -> Answer<'_> {
        self.answer_from((target, Owner::Target), self.zone_for(target, qtype), qtype, None)
    }

    /// Answers from a name in `zone`, whose records have this owner.
    fn answer_from<'t>(
        &'t self,
        (name, owner): (&LookupName, Owner<'t>),
        zone: Option<&'t Zone>,
        qtype: u16,
        question_zone: Option<(&'t Zone, usize)>,
    ) -> Answer<'t> {
        let mut answer = Answer { question_zone, ..Answer::empty(Rcode::NoError) };
        self.follow(name, zone, qtype, owner, &mut answer);
        // The answer to ANY is small (RFC 8482 §4.1). A referral needs its glue.
        answer.adds_targets = qtype != rtype::ANY;
        if answer.adds_targets || matches!(answer.authority, Authority::Referral(_)) {
            self.add_addresses(&mut answer);
        }
        answer
    }

    /// Adds the records of `name`, which is in `zone`, and follows its CNAMEs.
    fn follow<'t>(
        &'t self,
        name: &LookupName,
        zone: Option<&'t Zone>,
        qtype: u16,
        owner: Owner<'t>,
        answer: &mut Answer<'t>,
    ) {
        let step = Step { zone, found: self.locate(zone, name, qtype) };
        answer.steps.push(step);
        // PTR targets are in one zone, also if a zone file has the reverse zone.
        let domain = if let Match::Reverse(_) = step.found { self.ptr_domain() } else { None };
        let (signer, wildcard) = (zone.and_then(Zone::signer), step.found.wildcard());
        let (owner_of_soa, zone) = match (zone, domain) {
            (None, None) => {
                // A CNAME target outside our zones is left to recursion or the client.
                if owner == Owner::Question {
                    let ede = Ede { code: ede::NOT_AUTHORITATIVE, text: "not one of this server's zones" };
                    answer.refuse(ede);
                    answer.outside = Outside::Question;
                } else {
                    answer.outside = Outside::Target;
                }
                return;
            }
            // A reverse name outside our zones is a zone with a single name.
            (None, Some(domain)) => (owner, domain),
            (Some(zone), _) => (Owner::Zone, zone),
        };
        match self.select(&step, qtype) {
            // Not followed: a CNAME has an NSEC record of its own (RFC 4035 §2.5).
            Selected::Alias(_) | Selected::NoData(_)
                if qtype == rtype::NSEC && wildcard.is_none() && matches!(signer, Some(SignedBy::Keys(_))) =>
            {
                let data = Data::Made(self.nsec(name, zone, &step));
                answer.answer.push(Group { owner, zone, signer, wildcard, data });
            }
            Selected::Alias(cname) => {
                let seen = answer
                    .answer
                    .iter()
                    .any(|group| matches!(group.data, Data::Stored(set) if std::ptr::eq(set, cname)));
                if seen || answer.answer.len() >= MAX_CHAIN {
                    return;
                }
                answer.answer.push(Group { owner, zone, signer, wildcard, data: Data::Stored(cname) });
                let target = cname.records.first().and_then(|rdata| zone.target(rdata, 0));
                if let Some(target) = target {
                    self.follow(&target, self.zone_for(&target, qtype), qtype, Owner::Target, answer);
                }
            }
            Selected::Redirect { owner: dname_owner, dname } => {
                let is_new = |group: &Group<'_>| !matches!(group.data, Data::Stored(set) if std::ptr::eq(set, dname));
                if answer.answer.iter().all(is_new) {
                    let owner = Owner::Below(dname_owner);
                    let group = Group { owner, zone, signer, wildcard: None, data: Data::Stored(dname) };
                    answer.answer.push(group);
                }
                let Some(cname) = redirected(name, zone, dname_owner, dname) else {
                    answer.rcode = Rcode::YxDomain;
                    return;
                };
                let target = cname.records.first().and_then(|rdata| zone.target(rdata, 0));
                // Not signed: the signature of the DNAME covers it (RFC 6672 §5.3.1).
                answer.answer.push(Group { owner, zone, signer: None, wildcard: None, data: Data::Made(cname) });
                let is_complete = matches!(qtype, rtype::CNAME | rtype::ANY) || answer.answer.len() >= MAX_CHAIN;
                if let Some(target) = target.filter(|_| !is_complete) {
                    self.follow(&target, self.zone_for(&target, qtype), qtype, Owner::Target, answer);
                }
            }
            Selected::Failure(ede) => {
                answer.rcode = Rcode::ServFail;
                answer.authoritative = !answer.answer.is_empty();
                answer.ede = Some(ede);
            }
            selected => {
                let data = self.soa(zone, zone.soa.negative_ttl());
                let soa = Group { owner: owner_of_soa, zone, signer, wildcard: None, data };
                answer.conclude(selected, owner, domain.unwrap_or(zone), soa);
            }
        }
    }

    /// Returns the zone that answers a question.
    fn zone_for(&self, name: &LookupName, qtype: u16) -> Option<&Zone> {
        let zone = self.zone(name)?;
        // The parent zone answers for DS at a delegation (RFC 4035 §3.1.4.1).
        if qtype == rtype::DS
            && zone.labels == name.count()
            && let Some(parent) = self.zone_above(name)
            && let Found::Name(rrsets) = parent.names.find(name, parent.labels, 0, qtype)
            && rrsets.iter().any(|set| set.rtype == rtype::NS)
        {
            return Some(parent);
        }
        if let Some(around) = self.zone_around(zone)
            && let below = name.count() - around.labels
            && let Live::Found(_) = match around.kind {
                Kind::Consul => self.locate_consul(around, name, below),
                Kind::Discovery | Kind::Static => self.locate_live(around, name, below),
            }
        {
            return Some(around);
        }
        Some(zone)
    }

    fn soa<'t>(&self, zone: &'t Zone, ttl: u32) -> Data<'t> {
        Data::Soa { ttl, serial: zone.soa.serial.unwrap_or(self.serial()) }
    }

    /// Matches `name`, which is in `zone`.
    fn locate<'t>(&'t self, zone: Option<&'t Zone>, name: &LookupName, qtype: u16) -> Match<'t> {
        match (self.announced_address(name, zone), zone) {
            (Some(address), _) => Match::Reverse(address),
            (None, Some(zone)) => self.locate_in(zone, name, qtype),
            (None, None) => Match::Outside,
        }
    }

    /// Matches `name` in `zone`, except as the reverse name of an announced address.
    fn locate_in<'t>(&'t self, zone: &'t Zone, name: &LookupName, qtype: u16) -> Match<'t> {
        let below = name.count() - zone.labels;
        let live = match zone.kind {
            Kind::Static if zone.unavailable().is_some() => return Match::Unavailable(zone),
            Kind::Static if below == 0 => return Match::Apex(zone),
            Kind::Static => Live::Nothing { existing: self.announced_labels(name, zone), absence: Absence::Undeclared },
            Kind::Discovery => self.locate_live(zone, name, below),
            Kind::Consul => self.locate_consul(zone, name, below),
        };
        let (existing, absence) = match live {
            Live::Found(found) => return found,
            Live::Nothing { existing, absence } => (existing, absence),
        };
        match zone.names.find(name, zone.labels, existing, qtype) {
            Found::Name([]) => Match::Empty,
            Found::Name(rrsets) => Match::Static { rrsets, wildcard: None },
            Found::Wildcard { owner, rrsets } => Match::Static { rrsets, wildcard: Some(owner) },
            Found::Cut { owner, rrsets } if !(zone.kind.has_live_names() && labels(owner) <= existing) => {
                Match::Delegation { owner, rrsets }
            }
            Found::Redirect { owner, dname }
                if !zone.kind.has_live_names() || existing == 0 || labels(owner) > existing =>
            {
                Match::Redirect { owner, dname }
            }
            // A service takes precedence over a delegation and a DNAME of the same name.
            Found::Cut { .. } | Found::Redirect { .. } | Found::Nothing if existing >= below => Match::Empty,
            Found::Cut { .. } | Found::Redirect { .. } | Found::Nothing => Match::Nothing(absence),
        }
    }

    /// Matches the label of a node: a member, else an external node.
    fn node_match(&self, label: &[u8]) -> Option<Match<'_>> {
        let external = || {
            let (node, rrsets) = self.external_node(label)?;
            Some(Match::External { node, rrsets })
        };
        self.node(label).map(|(node, rrsets)| Match::Node { node, rrsets }).or_else(external)
    }

    /// Matches `name` with services and nodes; it has `below` labels below the origin of the discovery zone.
    fn locate_live<'t>(&'t self, zone: &'t Zone, name: &LookupName, below: usize) -> Live<'t> {
        let Some(top) = below.checked_sub(1) else { return Live::Found(Match::Apex(zone)) };
        let nothing = |existing| Live::Nothing { existing, absence: Absence::Undeclared };
        match name.label(top) {
            b"node" => {
                let Some(at) = top.checked_sub(1) else { return nothing(1) };
                match self.node_match(name.label(at)) {
                    Some(found) if at == 0 => Live::Found(found),
                    Some(_) => nothing(2),
                    None => nothing(1),
                }
            }
            [b'_', form @ ..] => {
                // `_tcp.ZONE` and `_TAG.ZONE` always exist as empty non-terminals.
                let Some(at) = top.checked_sub(1) else { return nothing(1) };
                let [b'_', service @ ..] = name.label(at) else { return nothing(1) };
                let found = self.service(service).and_then(|service| {
                    let (form, set) = match protocol(form) {
                        Some(protocol) => (Form::SrvProtocol(protocol), service.protocol(protocol)?),
                        None => service.tag(form).map(|(tag, set)| (Form::SrvTag(tag), set))?,
                    };
                    Some(Match::Set { service, set, form })
                });
                let is_browse = [service, form] == BROWSE_ABOVE;
                if is_browse && let Some(found) = Self::locate_browse(zone, name, at) {
                    return found;
                }
                match found {
                    Some(found) if at == 0 => Live::Found(found),
                    Some(Match::Set { service, form: Form::SrvProtocol(protocol), .. }) => {
                        Self::locate_below_type(service, ServiceType::Transport(protocol), name, at, 2)
                    }
                    Some(_) => nothing(2),
                    None => nothing(if is_browse { 2 } else { 1 }),
                }
            }
            label => match self.service(label) {
                Some(service) => match Self::locate_in_service(service, name, top) {
                    nothing @ Live::Nothing { .. } => Self::locate_below_port(service, name, top).unwrap_or(nothing),
                    found @ Live::Found(_) => found,
                },
                None => nothing(0),
            },
        }
    }

    /// Matches `name` at or below a service; the service's label has index `top`.
    fn locate_in_service<'t>(service: &'t Service, name: &LookupName, top: usize) -> Live<'t> {
        let nothing = |existing| Live::Nothing { existing, absence: Absence::Undeclared };
        let Some(at) = top.checked_sub(1) else {
            return Live::Found(Match::Set { service, set: service.apex(), form: Form::Service });
        };
        let label = name.label(at);
        if label == WHY {
            return if at == 0 { Live::Found(Match::Why { service, host: None }) } else { nothing(2) };
        }
        if let [b'_', form @ ..] = label {
            let Some(protocol) = protocol(form).filter(|protocol| service.has_ports(*protocol)) else {
                return nothing(1);
            };
            let Some(at) = at.checked_sub(1) else { return nothing(2) };
            let port = name.label(at).strip_prefix(b"_").and_then(|port| service.port(port, protocol));
            return match port {
                Some(port) if at == 0 => Live::Found(Match::Port { service, port }),
                Some(_) => nothing(3),
                None => nothing(2),
            };
        }
        let found = match service.host(label) {
            Some(host) => Match::Instance { service, host },
            None => match service.tag(label) {
                Some((tag, set)) => Match::Set { service, set, form: Form::Tag(tag) },
                None => return nothing(1),
            },
        };
        match (at, found) {
            (0, found) => Live::Found(found),
            (1, Match::Instance { host, .. }) if name.label(0) == WHY => {
                Live::Found(Match::Why { service, host: Some(host) })
            }
            (_, Match::Instance { .. }) if name.label(at - 1) == WHY => nothing(3),
            _ => nothing(2),
        }
    }

    /// Adds the addresses of name servers and of static records' targets to the additional section.
    fn add_addresses<'t>(&'t self, answer: &mut Answer<'t>) {
        let mut additional = std::mem::take(&mut answer.additional);
        let referral = if let Authority::Referral(group) = &answer.authority { Some(group) } else { None };
        for group in answer.answer.iter().chain(referral) {
            let Data::Stored(set) = group.data else { continue };
            let Some(at) = target_at(set.rtype).filter(|_| matches!(set.rtype, rtype::NS | rtype::MX | rtype::SRV))
            else {
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
        let Some(name) = in_zone.target(rdata, at) else { return };
        let Some(zone) = self.zone(&name) else { return };
        let owner = match rdata.tail {
            Tail::Origin => Owner::Below(&rdata.octets[at..]),
            Tail::Nothing => Owner::Absolute(&rdata.octets[at..]),
        };
        if additional.iter().any(|group| group.owner == owner) {
            return;
        }
        for qtype in [rtype::A, rtype::AAAA] {
            let located = self.locate_in(zone, &name, qtype);
            // An expanded wildcard would need a proof as well.
            let is_glue = matches!(located, Match::Delegation { .. } | Match::Static { wildcard: Some(_), .. });
            let found = match located {
                // Records below a delegation are glue, which only a referral may carry (RFC 2181 §5.4.1).
                Match::Delegation { .. } if referral => {
                    let labels = name.count() - zone.labels;
                    let rrsets = zone.names.at(&name.wire()[..name.offset(labels)]).unwrap_or_default();
                    Match::Static { rrsets, wildcard: None }
                }
                found => found,
            };
            if let Selected::Data(data, _) = self.select(&Step { zone: Some(zone), found }, qtype) {
                // A referral's addresses are glue, which is not signed (RFC 4035 §2.2).
                let signer = zone.signer().filter(|_| !is_glue);
                additional.push(Group { owner, zone: in_zone, signer, wildcard: None, data });
            }
        }
    }
}

impl<'t> Answer<'t> {
    /// Completes the answer with the selected records, whose relative names belong to `zone`, or with the SOA if there are
    /// none.
    fn conclude(&mut self, selected: Selected<'t>, owner: Owner<'t>, zone: &'t Zone, soa: Group<'t>) {
        match selected {
            Selected::Data(data, ede) => {
                let wildcard = self.steps.last().and_then(|step| step.found.wildcard());
                self.answer.push(Group { owner, zone, signer: soa.signer, wildcard, data });
                self.ede = ede;
            }
            // These are followed before.
            Selected::Alias(_) | Selected::Redirect { .. } | Selected::Failure(_) => {}
            Selected::NoData(ede) => {
                self.authority = Authority::Soa(soa);
                self.ede = ede;
            }
            Selected::NoName => {
                self.rcode = Rcode::NxDomain;
                self.authority = Authority::Soa(soa);
            }
            Selected::Referral { owner, ns } => {
                // The AA bit refers to the first owner name (RFC 1034 §6.2.7).
                self.authoritative = !self.answer.is_empty();
                // The NS RRset of a delegation is the child's, and not signed (RFC 4035 §2.2).
                self.authority = Authority::Referral(Group {
                    owner: Owner::Below(owner),
                    zone,
                    signer: None,
                    wildcard: None,
                    data: Data::Stored(ns),
                });
            }
        }
    }
}

/// Returns the CNAME that a DNAME makes of `name`, which is in `zone` and below the owner of the DNAME (RFC 6672 §2.2, §3.1);
/// `None` if its target is too long.
fn redirected(name: &LookupName, zone: &Zone, owner: &[u8], dname: &RRset) -> Option<RRset> {
    let below = name.count() - zone.labels - labels(owner);
    let target = dname.records.first()?;
    let octets = [&name.wire()[..name.offset(below)], &target.octets].concat();
    let rdata = Rdata { octets: octets.into(), tail: target.tail };
    zone.target(&rdata, 0)?;
    Some(RRset { rtype: rtype::CNAME, ttl: dname.ttl, line: dname.line, records: vec![rdata] })
}

/// Match of a name with services and nodes.
enum Live<'t> {
    Found(Match<'t>),
    /// No match. `existing` is the number of labels of the closest encloser below the origin.
    Nothing {
        existing: usize,
        absence: Absence,
    },
}

/// Parses a protocol label without its underscore.
fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"tcp" => Some(Protocol::Tcp),
        b"udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Returns the number of labels in wire form.
fn labels(mut wire: &[u8]) -> usize {
    let mut count = 0;
    while let Some((len, rest)) = wire.split_first() {
        wire = &rest[usize::from(*len)..];
        count += 1;
    }
    count
}
