//! Parts of a reply that are validated one by one: the CNAMEs of its chain, its end, the absence of its end.
//!
//! The library validates the reply to one question from one zone. A reply with a chain has records of several, so that its end would
//! be checked with the proofs of another zone. Records that belong to no link are removed from the reply: nothing proves them.

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC3},
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use super::{
    chain_handle::ApexHint,
    error::ValidationError,
    signatures::{signature, signatures_of},
    wire::to_name,
};

use crate::dns::dnssec::canonical::fold_rdata;

/// Maximum number of names in a chain. unbound and BIND follow as many CNAMEs or fewer.
const MAX_LINKS: usize = 16;

/// A part of a reply that is validated on its own.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Its question.
    pub(super) query: Query,
    /// The reply to that question.
    pub(super) message: Message,
    pub(super) kind: LinkKind,
}

/// Kind of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// An RRset at its own name.
    Exact,
    /// An RRset of a wildcard: the proofs must show that no closer name exists.
    Wildcard,
    /// No name, or no RRset of the type.
    Absent,
}

/// A reply as links.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The links that are validated.
    pub(super) links: Vec<Link>,
    /// True if a part of the chain is not validated.
    pub(super) has_unvalidated: bool,
    /// Places in the answer section that belong to the chain.
    pub(super) answer: Vec<bool>,
    /// Places in the authority section that belong to the chain.
    pub(super) authority: Vec<bool>,
}

impl Links {
    /// Splits the reply to a question. `is_validated` tells the names whose records are validated; the others pass unseen.
    ///
    /// # Errors
    /// The chain is too long, or the reply contradicts itself.
    pub(super) fn of(
        query: &Query,
        message: &Message,
        is_validated: impl Fn(&Name) -> bool,
    ) -> Result<Self, ValidationError> {
        let (answer, authority) = (vec![false; message.answers.len()], vec![false; message.authorities.len()]);
        let mut found = Self { links: Vec::new(), has_unvalidated: false, answer, authority };
        let (mut name, mut names) = (query.name().clone(), Vec::<Name>::new());
        loop {
            if names.len() == MAX_LINKS {
                return Err(ValidationError::Limit);
            }
            let is_validated = is_validated(&name);
            found.has_unvalidated |= !is_validated;
            let types = types_at(&message.answers, &name, query.query_type());
            if !types.is_empty() {
                for rtype in types {
                    found.set(message, &name, rtype, is_validated);
                }
                if message.response_code == ResponseCode::NXDomain && is_validated {
                    return Err(ValidationError::Bogus(format!("the absence of {name}")));
                }
                return Ok(found);
            }
            let Some(target) = cname(&message.answers, &name) else {
                found.absence(message, &name, query.query_type(), is_validated);
                return Ok(found);
            };
            match dname(&message.answers, &name, target) {
                Some(owner) => {
                    found.keep_answer(message, &name, RecordType::CNAME);
                    found.set(message, &owner, RecordType::DNAME, is_validated);
                }
                None => found.set(message, &name, RecordType::CNAME, is_validated),
            }
            names.push(name);
            if names.contains(target) {
                return Ok(found);
            }
            name = target.clone();
        }
    }

    /// What the absent links show of their zones.
    pub(super) fn apexes(&self) -> Vec<ApexHint> {
        let absent = self.links.iter().filter(|link| link.kind == LinkKind::Absent);
        let hint = |link: &Link| {
            let soa = link.message.authorities.iter().find(|record| record.record_type() == RecordType::SOA)?;
            Some(ApexHint { below: link.query.name().clone(), apex: soa.name.clone() })
        };
        absent.filter_map(hint).collect()
    }

    /// Adds an RRset of the answer.
    fn set(&mut self, message: &Message, name: &Name, rtype: RecordType, is_validated: bool) {
        self.keep_answer(message, name, rtype);
        if !is_validated {
            return;
        }
        let is_of_set = |record: &&Record| belongs_to(record, name, rtype);
        let answers: Vec<Record> = message.answers.iter().filter(is_of_set).map(canonical).collect();
        let wildcard =
            signatures_of(&answers, name, rtype).find(|signature| signature.input().num_labels < name.num_labels());
        let (mut authorities, mut kind) = (Vec::new(), LinkKind::Exact);
        if let Some(wildcard) = wildcard {
            kind = LinkKind::Wildcard;
            authorities = self.proofs(message, &wildcard.input().signer_name);
        }
        self.push(name, rtype, message, (answers, authorities), kind);
    }

    /// Adds the absence of an RRset.
    fn absence(&mut self, message: &Message, name: &Name, rtype: RecordType, is_validated: bool) {
        if !is_validated {
            self.authority.fill(true);
            return;
        }
        let soa = message
            .authorities
            .iter()
            .find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name));
        let signer = message.authorities.iter().filter(|record| is_proof(record.record_type()));
        let signer = signer.flat_map(|record| signatures_of(&message.authorities, &record.name, record.record_type()));
        let signer = signer.map(|signature| &signature.input().signer_name).find(|signer| signer.zone_of(name));
        let zone = soa.map(|soa| &soa.name).or(signer);
        let mut authorities = Vec::new();
        if let Some(zone) = zone {
            self.keep_authority(message, |record| belongs_to(record, zone, RecordType::SOA));
            authorities.extend(message.authorities.iter().filter(|r| belongs_to(r, zone, RecordType::SOA)).cloned());
            authorities.extend(self.proofs(message, zone));
        }
        self.push(name, rtype, message, (Vec::new(), authorities), LinkKind::Absent);
    }

    fn push(
        &mut self,
        name: &Name,
        rtype: RecordType,
        message: &Message,
        (answers, authorities): (Vec<Record>, Vec<Record>),
        kind: LinkKind,
    ) {
        let query = Query::query(name.clone(), rtype);
        let mut part = Message::query().into_response();
        part.metadata.response_code =
            if kind == LinkKind::Absent { message.response_code } else { ResponseCode::NoError };
        part.add_query(query.clone());
        (part.answers, part.authorities) = (answers, authorities);
        self.links.push(Link { query, message: part, kind });
    }

    /// Returns the proofs that a zone has signed. Proofs with other signatures are left out: one of another zone, which need not be
    /// signed, must not count as a proof that passes.
    fn proofs(&mut self, message: &Message, zone: &Name) -> Vec<Record> {
        let records = &message.authorities;
        let is_signed = |name: &Name, rtype: RecordType| {
            signatures_of(records, name, rtype).any(|signature| signature.input().signer_name == *zone)
        };
        let is_of_zone = |record: &Record| match signature(record) {
            Some(signature) => is_proof(signature.input().type_covered) && signature.input().signer_name == *zone,
            None => is_proof(record.record_type()) && is_signed(&record.name, record.record_type()),
        };
        self.keep_authority(message, |record| is_of_zone(record));
        records.iter().filter(|record| is_of_zone(record)).cloned().collect()
    }

    fn keep_answer(&mut self, message: &Message, name: &Name, rtype: RecordType) {
        for (kept, record) in self.answer.iter_mut().zip(&message.answers) {
            *kept |= belongs_to(record, name, rtype);
        }
    }

    fn keep_authority(&mut self, message: &Message, keep: impl Fn(&Record) -> bool) {
        for (kept, record) in self.authority.iter_mut().zip(&message.authorities) {
            *kept |= keep(record);
        }
    }
}

impl Link {
    /// Reports whether a name may exist unsigned in spite of the proofs: an NSEC3 record with the opt-out flag covers it (RFC 5155
    /// §9.2). The one record that proves the absence of a type has the hash of the name itself, and covers none.
    pub(super) fn depends_on_opt_out(&self) -> bool {
        let is_of_type = self.kind == LinkKind::Absent
            && self.message.response_code == ResponseCode::NoError
            && self.query.query_type() != RecordType::DS
            && self.nsec3s().count() == 1;
        !is_of_type && self.nsec3s().any(NSEC3::opt_out)
    }

    /// Returns the largest number of iterations of the NSEC3 records.
    pub(super) fn iterations(&self) -> u16 {
        self.nsec3s().map(NSEC3::iterations).max().unwrap_or(0)
    }

    /// Reports whether there is a proof at all.
    pub(super) fn has_proof(&self) -> bool {
        self.message.authorities.iter().any(|record| is_proof(record.record_type()))
    }

    fn nsec3s(&self) -> impl Iterator<Item = &NSEC3> {
        self.message.authorities.iter().filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => Some(nsec3),
            _ => None,
        })
    }
}

/// Reports whether a record is of an RRset, or one of its signatures.
fn belongs_to(record: &Record, name: &Name, rtype: RecordType) -> bool {
    let of_type = match signature(record) {
        Some(signature) if rtype != RecordType::RRSIG => signature.input().type_covered == rtype,
        _ => record.record_type() == rtype,
    };
    of_type && record.name == *name
}

/// Reports whether records of a type prove absence.
pub(super) fn is_proof(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::NSEC | RecordType::NSEC3)
}

/// Returns a record as it is signed, as far as the library does not: it folds no letter case of names in types that it does not know
/// (RFC 4034 §6.2).
fn canonical(record: &Record) -> Record {
    let mut record = record.clone();
    if let RData::Unknown { code, rdata } = &mut record.data {
        fold_rdata((*code).into(), &mut rdata.anything);
    }
    record
}

/// Returns the types of the records at a name that answer a question.
fn types_at(answers: &[Record], name: &Name, qtype: RecordType) -> Vec<RecordType> {
    let at_name = answers.iter().filter(|record| record.name == *name).map(Record::record_type);
    let mut types: Vec<RecordType> =
        at_name.filter(|rtype| *rtype == qtype || qtype == RecordType::ANY && *rtype != RecordType::RRSIG).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// Returns the target of the CNAME at a name.
fn cname<'r>(answers: &'r [Record], name: &Name) -> Option<&'r Name> {
    answers.iter().filter(|record| record.name == *name).find_map(|record| match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    })
}

/// Returns the owner of the DNAME that makes the CNAME of a name to `target` (RFC 6672 §2.2).
fn dname(answers: &[Record], name: &Name, target: &Name) -> Option<Name> {
    let above = answers.iter().filter(|record| record.name != *name && record.name.zone_of(name));
    let makes_target = |record: &&Record| {
        let count = |name: &Name| name.iter().count();
        let prefix = name.iter().take(count(name) - count(&record.name));
        let made = |to: &Name| Name::from_labels(prefix.chain(to.iter()).map(<[u8]>::to_vec).collect::<Vec<_>>());
        dname_target(record).and_then(|to| made(&to).ok()).is_some_and(|mut made| {
            made.set_fqdn(true);
            made == *target
        })
    };
    above.into_iter().find(makes_target).map(|record| record.name.clone())
}

/// Returns the target of a DNAME, which the library does not decode.
fn dname_target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::Unknown { code: RecordType::DNAME, rdata } => to_name(&rdata.anything).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::{CNAME, NULL, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A record from its owner and `A`, `SOA`, `CNAME TARGET` or `DNAME TARGET`.
    fn record(owner: &str, data: &str) -> Record {
        let data = match data.split_once(' ') {
            Some(("CNAME", target)) => RData::CNAME(CNAME(name(target))),
            Some((_, target)) => {
                let wire =
                    name(target).iter().flat_map(|label| [&[label.len() as u8], label].concat()).collect::<Vec<_>>();
                RData::Unknown { code: RecordType::DNAME, rdata: NULL::with([&wire[..], &[0]].concat()) }
            }
            None if data == "SOA" => RData::SOA(SOA::new(name(owner), name(owner), 1, 1, 1, 1, 1)),
            None => RData::A(Ipv4Addr::new(192, 0, 2, 1).into()),
        };
        Record::from_rdata(name(owner), 60, data)
    }

    fn links(
        code: ResponseCode,
        answers: &[(&str, &str)],
        authorities: &[(&str, &str)],
    ) -> Result<Links, ValidationError> {
        let mut message = Message::query().into_response();
        message.metadata.response_code = code;
        message.answers = answers.iter().map(|(owner, data)| record(owner, data)).collect();
        message.authorities = authorities.iter().map(|(owner, data)| record(owner, data)).collect();
        Links::of(&Query::query(name("www.a."), RecordType::A), &message, |name| !name.to_string().ends_with("local."))
    }

    /// Each link as its name, type and kind.
    fn shown(links: &Links) -> Vec<String> {
        let shown = |link: &Link| format!("{} {} {:?}", link.query.name(), link.query.query_type(), link.kind);
        links.links.iter().map(shown).collect()
    }

    #[test]
    fn chain_is_split_and_other_records_are_left_out() {
        let (good, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
        type Case<'c> =
            (ResponseCode, &'c [(&'c str, &'c str)], &'c [(&'c str, &'c str)], &'c [&'c str], &'c str, &'c str);
        let cases: &[Case<'_>] = &[
            (good, &[("www.a.", "A"), ("other.a.", "A")], &[("a.", "SOA")], &["www.a. A Exact"], "10", "0"),
            (good, &[("www.a.", "CNAME x.b."), ("x.b.", "A")], &[], &["www.a. CNAME Exact", "x.b. A Exact"], "11", ""),
            (none, &[("www.a.", "CNAME x.b.")], &[("b.", "SOA")], &["www.a. CNAME Exact", "x.b. A Absent"], "1", "1"),
            // An SOA record that is not above the name proves nothing about it.
            (none, &[], &[("b.", "SOA")], &["www.a. A Absent"], "", "0"),
            // The CNAME of a DNAME has no signature of its own.
            (
                good,
                &[("a.", "DNAME b."), ("www.a.", "CNAME www.b."), ("www.b.", "A")],
                &[],
                &["a. DNAME Exact", "www.b. A Exact"],
                "111",
                "",
            ),
            (
                good,
                &[("a.", "DNAME b."), ("www.a.", "CNAME www.c."), ("www.c.", "A")],
                &[],
                &["www.a. CNAME Exact", "www.c. A Exact"],
                "011",
                "",
            ),
            (good, &[("www.a.", "CNAME www.a.")], &[], &["www.a. CNAME Exact"], "1", ""),
            (none, &[("www.a.", "CNAME x.local.")], &[("z.", "SOA")], &["www.a. CNAME Exact"], "1", "1"),
        ];
        for (code, answers, authorities, expected, answer, authority) in cases {
            let links = links(*code, answers, authorities).unwrap();
            assert_eq!(shown(&links), *expected, "{answers:?}");
            let places = |kept: &[bool]| kept.iter().map(|kept| if *kept { '1' } else { '0' }).collect::<String>();
            assert_eq!(
                (places(&links.answer), places(&links.authority)),
                ((*answer).to_owned(), (*authority).to_owned())
            );
            assert_eq!(links.has_unvalidated, answers.iter().any(|(_, data)| data.ends_with("local.")), "{answers:?}");
        }
    }

    #[test]
    fn contradictions_and_long_chains_are_faults() {
        let fault = links(ResponseCode::NXDomain, &[("www.a.", "A")], &[]).unwrap_err();
        assert_eq!(fault, ValidationError::Bogus("the absence of www.a.".to_owned()));
        let names: Vec<String> = (0..=MAX_LINKS).map(|at| format!("n{at}.a.")).collect();
        let targets: Vec<String> = names.iter().map(|name| format!("CNAME {name}")).collect();
        let owners = std::iter::once("www.a.").chain(names.iter().map(String::as_str));
        let chain: Vec<(&str, &str)> = owners.zip(targets.iter().map(String::as_str)).collect();
        assert_eq!(links(ResponseCode::NoError, &chain, &[]).unwrap_err(), ValidationError::Limit);
    }
}
