//! An answer before it is bytes: which RRsets stand in which section, under which owner.
//!
//! It borrows everything from the tables, so that making one allocates nothing for the names that matter; writing it
//! down is [`assemble`](self::assemble)'s part.

pub mod assemble;
pub mod lookup;
pub mod rotation;

use smallvec::SmallVec;

use super::{
    message::codes::{Rcode, ede, rtype},
    zone::{
        rrset::{RRset, Rdata},
        service::{HostIndex, Remark, Service, Weighted},
        static_names::Zone,
    },
};

/// What is said to a question.
#[derive(Debug)]
pub struct Answer<'t> {
    /// The zone of the question's name, and where its origin begins in the name's wire form.
    pub home: Option<(&'t Zone, usize)>,
    /// The outcome.
    pub rcode: Rcode,
    /// The AA bit: the question's name is in our zones, and not below a delegation.
    pub authoritative: bool,
    /// What a resolver may know better.
    pub outside: Outside,
    /// The answer section: the chain of CNAMEs, then what was asked for.
    pub answer: SmallVec<[Group<'t>; 2]>,
    /// The authority section.
    pub authority: Authority<'t>,
    /// Addresses of the names in the sections before; those of SRV targets of a service are left to the assembler.
    pub additional: Vec<Group<'t>>,
    /// An Extended DNS Error (RFC 8914), for clients that speak EDNS.
    pub ede: Option<Ede<'t>>,
}

/// What of a question is in none of our zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// All is said.
    Nothing,
    /// The question's name.
    Question,
    /// The target of the last CNAME.
    Target,
}

/// What the authority section holds.
#[derive(Debug)]
pub enum Authority<'t> {
    /// Nothing.
    Empty,
    /// The SOA of a negative answer (RFC 2308).
    Soa(Group<'t>),
    /// The NS RRset of a delegation: then the additional section holds glue that must not be left out (RFC 9471).
    Referral(Group<'t>),
    /// What somebody else said, whole or not at all.
    Foreign(Vec<Group<'t>>),
}

/// An RRset under its owner name.
#[derive(Debug)]
pub struct Group<'t> {
    /// Whose it is.
    pub owner: Owner<'t>,
    /// The zone that relative names belong to.
    pub zone: &'t Zone,
    /// The records.
    pub data: Data<'t>,
}

/// An owner name, as the assembler can find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'t> {
    /// The name that was asked for.
    Question,
    /// The target of the CNAME before.
    Target,
    /// The zone's origin.
    Zone,
    /// These labels below the zone's origin.
    Below(&'t [u8]),
    /// This name, in wire form.
    Absolute(&'t [u8]),
}

/// Records of one type, wherever they are kept.
#[derive(Debug)]
pub enum Data<'t> {
    /// From a table.
    Stored(&'t RRset),
    /// Made for this answer.
    Made(RRset),
    /// The zone's SOA.
    Soa {
        /// Seconds: the minimum in negative answers (RFC 2308 §3).
        ttl: u32,
        /// The zone's own or the tables'.
        serial: u32,
    },
    /// A records of a service.
    V4(&'t [Weighted<4>], u32),
    /// AAAA records of a service.
    V6(&'t [Weighted<16>], u32),
    /// Records of one instance: RDATA of `size` octets each, back to back.
    Host {
        /// Their type.
        rtype: u16,
        /// Of one RDATA, in octets; never 0.
        size: usize,
        /// All RDATA.
        octets: &'t [u8],
        /// Seconds.
        ttl: u32,
    },
    /// TXT records: a summary, then the rest.
    Texts(&'t [Rdata], u32),
    /// SRV records of a service.
    Srv(&'t Service, Members<'t>, u32),
}

/// Which instances an SRV RRset names.
#[derive(Clone, Copy, Debug)]
pub enum Members<'t> {
    /// These, at their default port.
    Hosts(&'t [HostIndex]),
    /// These, each at this port.
    Ports(&'t [(HostIndex, u16)]),
    /// This one, at its default port.
    One(HostIndex),
}

/// What an upstream said, to go on with.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// Its code; one that we do not know is a failure.
    pub rcode: Rcode,
    /// Whether it says what there is, or that there is nothing.
    pub is_answer: bool,
    /// The answer section.
    pub answer: Vec<ForeignRecord>,
    /// The authority section.
    pub authority: Vec<ForeignRecord>,
    /// The first extended error.
    pub ede: Option<(u16, String)>,
}

/// A record of somebody else's message.
#[derive(Debug)]
pub struct ForeignRecord {
    /// In wire form, whole.
    pub owner: Box<[u8]>,
    /// One record.
    pub data: RRset,
}

/// An Extended DNS Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede<'t> {
    /// The INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT, for people.
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
    /// An authoritative answer without records.
    pub fn empty(rcode: Rcode) -> Self {
        Self {
            home: None,
            rcode,
            authoritative: true,
            outside: Outside::Nothing,
            answer: SmallVec::new(),
            authority: Authority::Empty,
            additional: Vec::new(),
            ede: None,
        }
    }

    /// Where the chain of CNAMEs leaves our zones, as a name in wire form.
    pub fn target(&self) -> Option<&'t [u8]> {
        match self.answer.last()?.data {
            Data::Stored(set) if self.outside == Outside::Target => Some(&set.records.first()?.octets),
            _ => None,
        }
    }

    /// Goes on with what somebody else said of the target.
    pub fn append(&mut self, said: &'t UpstreamAnswer) {
        let Some(zone) = self.answer.last().map(|group| group.zone) else { return };
        let group = |record: &'t ForeignRecord| Group {
            owner: Owner::Absolute(&record.owner),
            zone,
            data: Data::Stored(&record.data),
        };
        self.outside = Outside::Nothing;
        self.rcode = said.rcode;
        self.ede = said.ede.as_ref().map(|(code, text)| Ede { code: *code, text });
        if said.is_answer {
            self.answer.extend(said.answer.iter().map(group));
            self.authority = Authority::Foreign(said.authority.iter().map(group).collect());
        } else {
            // Half a chain with a failure is nothing that clients expect.
            self.answer.clear();
        }
    }

    /// An answer that does not come from our zones.
    pub fn refused(ede: Ede<'t>) -> Self {
        Self { authoritative: false, ede: Some(ede), ..Self::empty(Rcode::Refused) }
    }
}

impl<'t> Members<'t> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Hosts(hosts) => hosts.len(),
            Self::Ports(hosts) => hosts.len(),
            Self::One(_) => 1,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The instance at `at`, and its port where it is not the default one.
    pub fn get(&self, at: usize) -> (HostIndex, Option<u16>) {
        match self {
            Self::Hosts(hosts) => (hosts[at], None),
            Self::Ports(hosts) => (hosts[at].0, Some(hosts[at].1)),
            Self::One(host) => (*host, None),
        }
    }
}

impl<'t> Data<'t> {
    /// The A records of one instance.
    pub fn host_v4(service: &'t Service, host: HostIndex) -> Self {
        Self::Host { rtype: rtype::A, size: 4, octets: service.host_v4(host), ttl: service.host_ttl(host) }
    }

    /// The AAAA records of one instance.
    pub fn host_v6(service: &'t Service, host: HostIndex) -> Self {
        Self::Host { rtype: rtype::AAAA, size: 16, octets: service.host_v6(host), ttl: service.host_ttl(host) }
    }

    /// The TXT record of one instance.
    pub fn host_txt(service: &'t Service, host: HostIndex) -> Self {
        let octets = service.host_txt(host);
        Self::Host { rtype: rtype::TXT, size: octets.len().max(1), octets, ttl: service.host_ttl(host) }
    }

    /// The records' type.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::Stored(set) => set.rtype,
            Self::Made(set) => set.rtype,
            Self::Soa { .. } => rtype::SOA,
            Self::V4(..) => rtype::A,
            Self::V6(..) => rtype::AAAA,
            Self::Host { rtype, .. } => *rtype,
            Self::Texts(..) => rtype::TXT,
            Self::Srv(..) => rtype::SRV,
        }
    }

    /// Seconds.
    pub fn ttl(&self) -> u32 {
        match self {
            Self::Stored(set) => set.ttl,
            Self::Made(set) => set.ttl,
            Self::Soa { ttl, .. } | Self::V4(_, ttl) | Self::V6(_, ttl) => *ttl,
            Self::Host { ttl, .. } | Self::Texts(_, ttl) | Self::Srv(_, _, ttl) => *ttl,
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        match self {
            Self::Stored(set) => set.records.len(),
            Self::Made(set) => set.records.len(),
            Self::Soa { .. } => 1,
            Self::V4(addresses, _) => addresses.len(),
            Self::V6(addresses, _) => addresses.len(),
            Self::Host { octets, size, .. } => octets.len() / size,
            Self::Texts(texts, _) => texts.len(),
            Self::Srv(_, members, _) => members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The SRV priority of the record at `at`: the lowest are answered first, so that those are left where an answer is
    /// cut. Of texts the summary is the first; 0 for other types.
    pub fn priority(&self, at: usize) -> u16 {
        match self {
            Self::Srv(service, members, _) => service.host_priority(members.get(at).0),
            Self::Texts(..) => u16::from(at > 0),
            _ => 0,
        }
    }

    /// The share of the record at `at` in being answered first.
    pub fn weight(&self, at: usize) -> u16 {
        match self {
            Self::V4(addresses, _) => addresses[at].weight,
            Self::V6(addresses, _) => addresses[at].weight,
            Self::Srv(service, members, _) => service.host_weight(members.get(at).0),
            Self::Stored(_) | Self::Made(_) | Self::Soa { .. } | Self::Host { .. } | Self::Texts(..) => 1,
        }
    }
}
