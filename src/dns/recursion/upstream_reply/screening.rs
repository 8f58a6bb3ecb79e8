//! Owners and addresses in a reply, and removal of records.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::{Record, Reply, Security, Walk};
use crate::dns::message::{
    codes::{class, rtype},
    query::{HEADER, LookupName},
};

/// SvcParamKeys of address hints in SVCB and HTTPS records, with the length of an address (RFC 9460 §7.3).
const HINTS: [(u16, usize); 2] = [(4, 4), (6, 16)];

impl Reply {
    /// Reports whether a record has an owner that matches, or one that cannot be read.
    pub fn has_owner(&self, matches: impl Fn(&LookupName) -> bool) -> bool {
        let Some(mut walk) = self.walk() else { return true };
        while walk.at() < self.octets.len() {
            let Some(record) = walk.record() else { return true };
            if owner(&walk, record.owner).is_none_or(|owner| matches(&owner)) {
                return true;
            }
        }
        false
    }

    /// Returns the reply with the target of the CNAME that ends its answer, if it has no record of the type in question.
    pub(super) fn with_alias(self) -> Self {
        let alias = self.ending_alias().map(Into::into);
        Self { alias, ..self }
    }

    fn ending_alias(&self) -> Option<Vec<u8>> {
        let mut walk = self.walk()?;
        let qtype = u16::from_be_bytes(*self.octets[..walk.at()].get(..walk.at() - 2)?.last_chunk()?);
        let (mut alias, end) = (None, usize::from(self.ends[0]));
        while walk.at() < end {
            let record = walk.record()?;
            if record.rtype == qtype || qtype == rtype::ANY {
                return None;
            }
            if record.rtype == rtype::CNAME && record.class == class::IN {
                alias = walk.whole_rdata(&record);
            }
        }
        alias
    }

    /// Returns the reply without the records whose owner matches, and not marked as authentic. `None` if it is too long for a message
    /// then.
    pub fn without(&self, matches: impl Fn(&LookupName) -> bool) -> Option<Self> {
        let rest = self.retain(|walk, record, _| owner(walk, record.owner).is_some_and(|owner| !matches(&owner)))?;
        Some(rest.with_security(Security::Unvalidated))
    }

    /// Returns the reply without its additional section. `None` if it is too long for a message then.
    pub fn without_additional(&self) -> Option<Self> {
        self.retain(|_, _, section| section < 2)
    }

    /// Returns the reply with the records of the answer and the authority section whose place is true here, and none in the
    /// additional section. `None` if it is too long for a message then.
    pub fn with_places(&self, answer: &[bool], authority: &[bool]) -> Option<Self> {
        let mut places = [answer.iter(), authority.iter()];
        self.retain(|_, _, section| places.get_mut(section).and_then(|places| places.next().copied()).unwrap_or(false))
    }

    /// Returns the reply with the records that `keep` selects by the record and the number of its section. Its names are
    /// uncompressed, since compression pointers may lead into removed records. `None` if it is too long for a message then.
    fn retain(&self, mut keep: impl FnMut(&Walk<'_>, &Record, usize) -> bool) -> Option<Self> {
        let mut walk = self.walk()?;
        let mut octets = self.octets[..walk.at()].to_vec();
        let (mut ttls, mut ends, mut counts) = (Vec::new(), [octets.len(); 3], [0_u16; 3]);
        while walk.at() < self.octets.len() {
            let section = self.ends.iter().filter(|end| walk.at() >= usize::from(**end)).count();
            let record = walk.record()?;
            if !keep(&walk, &record, section) {
                continue;
            }
            octets.extend(walk.whole_name(record.owner)?);
            ttls.push(u16::try_from(octets.len() + 4).ok()?);
            octets.extend_from_slice(&self.octets[record.ttl - 4..record.ttl + 4]);
            let rdata = walk.whole_rdata(&record)?;
            octets.extend(u16::try_from(rdata.len()).ok()?.to_be_bytes());
            octets.extend(rdata);
            ends[section..].fill(octets.len());
            counts[section] += 1;
        }
        u16::try_from(octets.len()).ok()?;
        for (field, count) in octets[6..HEADER].chunks_exact_mut(2).zip(counts) {
            field.copy_from_slice(&count.to_be_bytes());
        }
        let rest =
            Self { octets: octets.into(), ttls: ttls.into(), ends: [ends[0] as u16, ends[1] as u16], ..self.clone() };
        Some(rest.with_alias())
    }

    /// Returns the first address that matches, in records of type A, AAAA, SVCB and HTTPS.
    pub fn find_address(&self, matches: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut walk = self.walk()?;
        while walk.at() < self.octets.len() {
            let record = walk.record()?;
            if record.class != class::IN {
                continue;
            }
            let found =
                addresses(record.rtype, &self.octets[record.rdata]).into_iter().find(|address| matches(*address));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Returns a walk over all records.
    fn walk(&self) -> Option<Walk<'_>> {
        let start = Walk::new(&self.octets, HEADER).after_question()?;
        Some(Walk::new(&self.octets, start))
    }
}

fn owner(walk: &Walk<'_>, at: usize) -> Option<LookupName> {
    LookupName::from_wire(&walk.whole_name(at)?)
}

/// Returns the addresses in RDATA of a type.
fn addresses(rtype: u16, rdata: &[u8]) -> SmallVec<[IpAddr; 2]> {
    match rtype {
        rtype::A | rtype::AAAA => address(rdata).into_iter().collect(),
        rtype::SVCB | rtype::HTTPS => hints(rdata).unwrap_or_default(),
        _ => SmallVec::new(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Returns the address hints of an SVCB or HTTPS record (RFC 9460 §2.2): priority, target, parameters.
fn hints(rdata: &[u8]) -> Option<SmallVec<[IpAddr; 2]>> {
    let mut rest = rdata.get(2..)?;
    while let Some(len) = Some(*rest.first()?).filter(|len| *len > 0) {
        rest = rest.get(1 + usize::from(len)..)?;
    }
    let mut rest = rest.get(1..)?;
    let mut found = SmallVec::new();
    while let [k0, k1, l0, l1, values @ ..] = rest {
        // Hints before an invalid parameter count: a client may use them.
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some((value, next)) = values.split_at_checked(len) else { break };
        if let Some((_, size)) = HINTS.iter().find(|(key, _)| *key == u16::from_be_bytes([*k0, *k1])) {
            found.extend(value.chunks_exact(*size).filter_map(address));
        }
        rest = next;
    }
    Some(found)
}
