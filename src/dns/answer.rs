//! An answer before encoding: the RRsets of each section with their owner names.
//!
//! An [`Answer`] borrows from the tables, so that a lookup on the hot path does not allocate. [`assemble`]
//! encodes it.

pub mod assemble;
pub mod contents;
pub mod denial;
pub mod frame;
pub mod lookup;
pub mod provenance;
pub mod record_order;

use std::net::IpAddr;

use smallvec::SmallVec;

use self::provenance::{Browse, Match, Step};
use super::{
    message::codes::{Rcode, ede, rtype},
    zone::{
        rrset::{RRset, Rdata, Tail},
        service::{
            HostIndex, Remark, Service, Weighted,
            bindings::{Binding, Bindings},
            dns_sd::ServiceType,
        },
        signing::SignedBy,
        static_names::{Kind, Zone},
    },
};
use crate::model::nearest::Tier;

/// Octets of a record before its RDATA if the owner name is a pointer (RFC 1035 §3.2.1).
const RECORD_FIELDS: usize = 12;
/// Octets of the numbers of an SOA record (RFC 1035 §3.3.13).
const SOA_FIELDS: usize = 20;

/// Answer to a question.
#[derive(Debug)]
pub struct Answer<'t> {
    /// Zone of the question's name, and the offset of its origin in the name's wire form.
    pub question_zone: Option<(&'t Zone, usize)>,
    /// Matches of the question's name and of each CNAME target; empty if the type alone decides.
    pub steps: SmallVec<[Step<'t>; 1]>,
    /// Response code.
    pub rcode: Rcode,
    /// AA bit: the question's name is in our zones and not below a delegation.
    pub authoritative: bool,
    /// Part of the answer that only recursion can complete.
    pub outside: Outside,
    /// Answer section: the CNAME chain, then the RRset of the question's type.
    pub answer: SmallVec<[Group<'t>; 2]>,
    /// Authority section.
    pub authority: Authority<'t>,
    /// Additional section, without the addresses of a service's SRV targets.
    pub additional: Vec<Group<'t>>,
    /// True if the assembler adds the addresses of SRV targets.
    pub adds_targets: bool,
    /// Extended DNS Error (RFC 8914), for clients with EDNS.
    pub ede: Option<Ede<'t>>,
}

/// Name of an answer that is outside our zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// None: the answer is complete.
    Nothing,
    /// The question's name.
    Question,
    /// The target of the last CNAME.
    Target,
}

/// Authority section of an answer.
#[derive(Debug)]
pub enum Authority<'t> {
    /// Nothing.
    Empty,
    /// The SOA of a negative answer (RFC 2308).
    Soa(Group<'t>),
    /// The NS RRset of a delegation; the glue in the additional section is required (RFC 9471).
    Referral(Group<'t>),
}

/// An RRset under its owner name.
#[derive(Debug)]
pub struct Group<'t> {
    /// Owner name.
    pub owner: Owner<'t>,
    /// Zone of relative names.
    pub zone: &'t Zone,
    /// Signer of the zone that has the RRset; `None` if it is not signed.
    pub signer: Option<SignedBy<'t>>,
    /// Owner name, relative to its zone, of the wildcard from which the RRset is expanded.
    pub wildcard: Option<&'t [u8]>,
    /// The records.
    pub data: Data<'t>,
}

/// An owner name, in a form that the assembler can compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'t> {
    /// The question's name.
    Question,
    /// The target of the preceding CNAME.
    Target,
    /// The zone's origin.
    Zone,
    /// Labels relative to the zone's origin.
    Below(&'t [u8]),
    /// A name in wire form.
    Absolute(&'t [u8]),
}

/// Records of one type.
#[derive(Debug)]
pub enum Data<'t> {
    /// Stored in the tables.
    Stored(&'t RRset),
    /// Generated for this answer.
    Made(RRset),
    /// The zone's SOA.
    Soa {
        /// TTL in seconds: the minimum in negative answers (RFC 2308 §3).
        ttl: u32,
        /// Serial of the zone file or of the tables.
        serial: u32,
    },
    /// A records of a service, and their TTL in seconds.
    V4(&'t [Weighted<4>], u32),
    /// AAAA records of a service, and their TTL in seconds.
    V6(&'t [Weighted<16>], u32),
    /// Records of one instance: RDATA of `size` octets each, contiguous.
    Host {
        /// Record type.
        rtype: u16,
        /// Length of one RDATA in octets; never 0.
        size: usize,
        /// RDATA of all records.
        octets: &'t [u8],
        /// TTL in seconds.
        ttl: u32,
    },
    /// TXT records of a `_why` name, the summary first, and their TTL in seconds.
    Texts(&'t [Rdata], u32),
    /// SRV records of a service.
    Srv {
        /// The service.
        service: &'t Service,
        /// Instances with their ports.
        members: Members<'t>,
        /// Scheme of the targets.
        kind: Kind,
        /// TTL in seconds.
        ttl: u32,
    },
    /// PTR records of the instances of a type in DNS-SD (RFC 6763 §4.1).
    Instances {
        /// The service.
        service: &'t Service,
        /// The instances.
        members: Members<'t>,
        /// The type.
        kind: ServiceType<'t>,
        /// TTL in seconds.
        ttl: u32,
    },
    /// SVCB or HTTPS records (RFC 9460).
    Bindings {
        /// Record type.
        rtype: u16,
        /// The service.
        service: &'t Service,
        /// The records.
        records: BindingRecords<'t>,
        /// TTL in seconds.
        ttl: u32,
    },
    /// A or AAAA record of an address.
    Address {
        /// The address in wire form, followed by unused octets.
        octets: [u8; 16],
        /// Length of the address in octets.
        size: u8,
        /// TTL in seconds.
        ttl: u32,
    },
}

/// Instances of an SRV RRset.
#[derive(Clone, Copy, Debug)]
pub enum Members<'t> {
    /// Instances at their default ports.
    Hosts(&'t [HostIndex]),
    /// Instances, each with a port.
    Ports(&'t [(HostIndex, u16)]),
    /// One instance at its default port.
    One(HostIndex),
}

/// Records of an SVCB or HTTPS RRset.
#[derive(Clone, Copy, Debug)]
pub enum BindingRecords<'t> {
    /// Those of all answered instances.
    Answered(&'t Bindings),
    /// That of the instance which is the owner.
    Own(&'t Binding),
}

/// An upstream's reply, decoded to complete a CNAME chain.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// Response code; an unknown code is SERVFAIL.
    pub rcode: Rcode,
    /// True for a positive answer, NXDOMAIN and NODATA; false for failures.
    pub is_answer: bool,
    /// Answer section.
    pub answer: Vec<UpstreamRecord>,
    /// Authority section.
    pub authority: Vec<UpstreamRecord>,
    /// First Extended DNS Error: INFO-CODE and EXTRA-TEXT.
    pub ede: Option<(u16, String)>,
}

/// A record of an upstream's message.
#[derive(Debug)]
pub struct UpstreamRecord {
    /// Owner name in wire form, uncompressed.
    pub owner: Box<[u8]>,
    /// Record type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA with uncompressed names.
    pub rdata: Box<[u8]>,
}

/// An Extended DNS Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede<'t> {
    /// The INFO-CODE.
    pub code: u16,
    /// The EXTRA-TEXT, for humans.
    pub text: &'t str,
}

impl<'t> From<&'t Remark> for Ede<'t> {
    fn from(remark: &'t Remark) -> Self {
        match remark {
            Remark::NotReady(text) => Self { code: ede::NOT_READY, text },
            Remark::Stale(text) => Self { code: ede::STALE_ANSWER, text },
        }
    }
}

impl<'t> Answer<'t> {
    /// Returns an authoritative answer without records.
    pub fn empty(rcode: Rcode) -> Self {
        Self {
            question_zone: None,
            steps: SmallVec::new(),
            rcode,
            authoritative: true,
            outside: Outside::Nothing,
            answer: SmallVec::new(),
            authority: Authority::Empty,
            additional: Vec::new(),
            adds_targets: true,
            ede: None,
        }
    }

    /// Returns the CNAME target at which the chain leaves our zones, in wire form.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.answer.last()?.data {
            Data::Stored(set) if self.outside == Outside::Target => Some(&set.records.first()?.octets),
            // A CNAME that a DNAME makes.
            Data::Made(set) if self.outside == Outside::Target => Some(&set.records.first()?.octets),
            _ => None,
        }
    }

    /// Reports whether the answer depends on what nodes announce: services, nodes, and the name servers of a discovery zone.
    pub fn depends_on_nodes(&self) -> bool {
        self.steps.iter().any(|step| match step.found {
            Match::Apex(zone) => zone.kind.has_live_names(),
            Match::Browse(Browse::Types) => true,
            found => found.is_live(),
        })
    }

    /// Reports whether the answer is that of a `_why` name.
    pub fn has_reasons(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.found, Match::Why { .. }))
    }

    /// Returns the tier of the answered instances; `None` unless their service prefers near ones.
    pub fn tier(&self) -> Option<Tier> {
        let tier = match self.steps.last()?.found {
            Match::Set { set, .. } => set.tier,
            Match::Port { port, .. } => port.tier,
            Match::Bindings { bindings, .. } => bindings.tier,
            _ => None,
        };
        tier.filter(|_| !self.answer.is_empty())
    }

    /// Returns a REFUSED answer.
    pub fn refused(ede: Ede<'t>) -> Self {
        let mut answer = Self::empty(Rcode::Refused);
        answer.refuse(ede);
        answer
    }

    /// Turns an answer without records into REFUSED.
    pub fn refuse(&mut self, ede: Ede<'t>) {
        self.rcode = Rcode::Refused;
        self.authoritative = false;
        self.ede = Some(ede);
    }
}

impl<'t> Members<'t> {
    /// Returns the number of instances.
    pub fn len(&self) -> usize {
        match self {
            Self::Hosts(hosts) => hosts.len(),
            Self::Ports(hosts) => hosts.len(),
            Self::One(_) => 1,
        }
    }

    /// Reports whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the instance at index `at`, and its port unless that is the default port.
    pub fn get(&self, at: usize) -> (HostIndex, Option<u16>) {
        match self {
            Self::Hosts(hosts) => (hosts[at], None),
            Self::Ports(hosts) => (hosts[at].0, Some(hosts[at].1)),
            Self::One(host) => (*host, None),
        }
    }
}

impl<'t> Data<'t> {
    /// Returns the A records of one instance.
    pub fn host_v4(service: &'t Service, host: HostIndex) -> Self {
        Self::Host { rtype: rtype::A, size: 4, octets: service.host_v4(host), ttl: service.host_ttl(host) }
    }

    /// Returns the AAAA records of one instance.
    pub fn host_v6(service: &'t Service, host: HostIndex) -> Self {
        Self::Host { rtype: rtype::AAAA, size: 16, octets: service.host_v6(host), ttl: service.host_ttl(host) }
    }

    /// Returns the TXT record of one instance.
    pub fn host_txt(service: &'t Service, host: HostIndex) -> Self {
        let octets = service.host_txt(host);
        Self::Host { rtype: rtype::TXT, size: octets.len().max(1), octets, ttl: service.host_ttl(host) }
    }

    /// Returns the A or AAAA record of an address.
    pub fn of_address(address: IpAddr, ttl: u32) -> Self {
        let mut octets = [0; 16];
        let size = match address {
            IpAddr::V4(ip) => {
                octets[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                octets = ip.octets();
                16
            }
        };
        Self::Address { octets, size, ttl }
    }

    /// Returns the record type.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::Stored(set) => set.rtype,
            Self::Made(set) => set.rtype,
            Self::Soa { .. } => rtype::SOA,
            Self::V4(..) => rtype::A,
            Self::V6(..) => rtype::AAAA,
            Self::Host { rtype, .. } => *rtype,
            Self::Texts(..) => rtype::TXT,
            Self::Srv { .. } => rtype::SRV,
            Self::Instances { .. } => rtype::PTR,
            Self::Bindings { rtype, .. } => *rtype,
            Self::Address { size, .. } => {
                if *size == 4 {
                    rtype::A
                } else {
                    rtype::AAAA
                }
            }
        }
    }

    /// Returns the TTL in seconds.
    pub fn ttl(&self) -> u32 {
        match self {
            Self::Stored(set) => set.ttl,
            Self::Made(set) => set.ttl,
            Self::Soa { ttl, .. } | Self::V4(_, ttl) | Self::V6(_, ttl) => *ttl,
            Self::Host { ttl, .. } | Self::Address { ttl, .. } | Self::Texts(_, ttl) | Self::Srv { ttl, .. } => *ttl,
            Self::Instances { ttl, .. } | Self::Bindings { ttl, .. } => *ttl,
        }
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        match self {
            Self::Stored(set) => set.records.len(),
            Self::Made(set) => set.records.len(),
            Self::Soa { .. } | Self::Address { .. } => 1,
            Self::V4(addresses, _) => addresses.len(),
            Self::V6(addresses, _) => addresses.len(),
            Self::Host { octets, size, .. } => octets.len() / size,
            Self::Texts(texts, _) => texts.len(),
            Self::Srv { members, .. } | Self::Instances { members, .. } => members.len(),
            Self::Bindings { records: BindingRecords::Answered(bindings), .. } => bindings.answered.len(),
            Self::Bindings { records: BindingRecords::Own(_), .. } => 1,
        }
    }

    /// Reports whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the octets of all records in `zone`, with uncompressed RDATA and an owner name of two octets each.
    pub fn octets(&self, zone: &Zone) -> usize {
        let origin = zone.origin.wire().len();
        let stored = |rdata: &Rdata| rdata.octets.len() + if rdata.tail == Tail::Origin { origin } else { 0 };
        let rdata = match self {
            Self::Stored(set) => set.records.iter().map(stored).sum(),
            Self::Made(set) => set.records.iter().map(stored).sum(),
            Self::Soa { .. } => stored(&zone.soa.mname) + stored(&zone.soa.rname) + SOA_FIELDS,
            Self::V4(addresses, _) => 4 * addresses.len(),
            Self::V6(addresses, _) => 16 * addresses.len(),
            Self::Host { octets, .. } => octets.len(),
            Self::Texts(texts, _) => texts.iter().map(stored).sum(),
            Self::Srv { service, members, kind, .. } => {
                (0..members.len()).map(|at| srv_rdata(service, *kind, members.get(at).0).len() + origin).sum()
            }
            Self::Instances { service, members, kind, .. } => {
                let after = service.type_len(*kind) + origin;
                (0..members.len()).map(|at| 1 + service.dns_sd_label(members.get(at).0).len() + after).sum()
            }
            Self::Bindings { service, records, .. } => match records {
                BindingRecords::Answered(bindings) => (0..bindings.answered.len())
                    .map(|at| bindings.answered(at))
                    .map(|binding| 2 + service.target(binding.host).len() + origin + binding.params.len())
                    .sum(),
                BindingRecords::Own(binding) => 3 + binding.params.len(),
            },
            Self::Address { size, .. } => usize::from(*size),
        };
        self.len() * RECORD_FIELDS + rdata
    }

    /// Returns the SRV priority of the record at index `at`. The lowest are encoded first, so that a truncated answer keeps
    /// them. The summary of a `_why` name precedes its other texts. 0 for other types.
    pub fn priority(&self, at: usize) -> u16 {
        match self {
            Self::Srv { service, members, .. } => service.host_priority(members.get(at).0),
            Self::Texts(..) => u16::from(at > 0),
            Self::Bindings { records: BindingRecords::Answered(bindings), .. } => bindings.answered(at).priority,
            _ => 0,
        }
    }

    /// Returns the weight of the record at index `at` in the draw for the first position.
    pub fn weight(&self, at: usize) -> u16 {
        match self {
            Self::V4(addresses, _) => addresses[at].weight,
            Self::V6(addresses, _) => addresses[at].weight,
            Self::Srv { service, members, .. } => service.host_weight(members.get(at).0),
            Self::Bindings { service, records: BindingRecords::Answered(bindings), .. } => {
                service.host_weight(bindings.answered(at).host)
            }
            Self::Stored(_) | Self::Made(_) | Self::Soa { .. } | Self::Instances { .. } | Self::Bindings { .. } => 1,
            Self::Host { .. } | Self::Address { .. } | Self::Texts(..) => 1,
        }
    }
}

/// Returns the SRV RDATA of an instance for a zone of this kind, without the origin, with port 0 if it has no default port.
fn srv_rdata(service: &Service, kind: Kind, host: HostIndex) -> &[u8] {
    if kind == Kind::Consul { service.consul_srv(host) } else { service.srv_parts(host) }
}
