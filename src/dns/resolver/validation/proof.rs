//! Validation of one link by the library.

use std::sync::Arc;

use hickory_net::{DnsError, DnsHandle, NetError, dnssec::DnssecDnsHandle, xfer::FirstAnswer};
use hickory_proto::{
    dnssec::{Proof, TrustAnchors},
    op::{DnsRequestOptions, DnsResponse, Message, Query},
    rr::{Name, RData, Record, RecordType, rdata::NULL},
};

use super::{
    chain_handle::Chain,
    error::ValidationError,
    links::{Link, LinkKind, Links, is_proof},
    signatures::{ds_records, fault_of, fault_of_keys, signature},
    wildcard,
    wire::show,
};

/// NSEC3 iterations above which a proof makes its zone insecure: the limit of BIND and Knot Resolver (RFC 9276 §3.2).
const MAX_ITERATIONS: u16 = 50;
/// NSEC3 iterations above which a proof is bogus.
const MAX_INSECURE_ITERATIONS: u16 = 500;
/// Entries of the library's cache. It lives as long as the validation of one reply: its keys are digests that a hostile reply could
/// match, so it must not outlive the messages that filled it.
const CACHE: usize = 256;

/// What validation of a link found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Signatures prove it, for at most this many seconds.
    Secure(u32),
    /// Its zone is provably not signed.
    Insecure,
    /// It is neither.
    Fault(ValidationError),
}

/// Validates links with the keys of a trust anchor.
pub(super) struct Prover {
    pub(super) chain: Arc<Chain>,
    pub(super) keys: Arc<TrustAnchors>,
    /// Unix time in seconds.
    pub(super) now: u64,
}

impl Prover {
    /// Validates a link.
    pub(super) async fn prove(&self, link: &Link) -> Finding {
        let proof = match self.validated(link.query.clone(), link.message.clone()).await {
            Ok(message)
                if link.kind == LinkKind::Wildcard
                    && wildcard::is_proven(link.query.name(), &message) == Some(false) =>
            {
                (Proof::Bogus, None)
            }
            Ok(message) => proof_of(link, &message),
            result if is_insecure_proof(&result) => return Finding::Insecure,
            Err(NetError::Dns(DnsError::Nsec { response, .. }))
                if link.kind == LinkKind::Wildcard
                    && wildcard::is_proven(link.query.name(), &response) == Some(true) =>
            {
                proof_of(link, &response)
            }
            Err(_) => (Proof::Bogus, None),
        };
        match proof {
            (Proof::Secure, _) if link.depends_on_opt_out() => Finding::Insecure,
            (Proof::Secure, ttl) => Finding::Secure(ttl.unwrap_or(u32::MAX)),
            _ if self.is_insecure(&zone_side(&link.query)).await => Finding::Insecure,
            _ if self.is_delegated_with_many_iterations(link.query.name()).await => Finding::Insecure,
            _ => Finding::Fault(self.fault(link)),
        }
    }

    /// Reports whether a name is in a zone that is provably not signed: the library validates an RRset without signatures there.
    async fn is_insecure(&self, name: &Name) -> bool {
        let query = Query::query(name.clone(), RecordType::NULL);
        let mut message = Message::query().into_response();
        message.add_query(query.clone());
        message.add_answer(Record::from_rdata(name.clone(), 0, RData::NULL(NULL::new())));
        let validated = self.validated(query, message).await;
        validated
            .is_ok_and(|message| !message.answers.is_empty() && message.answers.iter().all(|r| r.proof.is_insecure()))
    }

    /// Reports whether a delegation above a name is proven unsigned with too many iterations, so that its zone is insecure (RFC 9276
    /// §3.2). The library takes it for bogus.
    async fn is_delegated_with_many_iterations(&self, name: &Name) -> bool {
        for (zone, rtype, reply) in self.chain.replies() {
            let Ok(message) = reply else { continue };
            if rtype != RecordType::DS || !zone.zone_of(name) {
                continue;
            }
            let links = Links::of(&Query::query(zone, rtype), &message, |_| true);
            for link in links.into_iter().flat_map(|links| links.links) {
                let has_many = link.kind == LinkKind::Absent && link.iterations() > MAX_ITERATIONS;
                if has_many && is_insecure_proof(&self.validated(link.query, link.message).await) {
                    return true;
                }
            }
        }
        false
    }

    async fn validated(&self, query: Query, message: Message) -> Result<DnsResponse, NetError> {
        let handle = self.chain.handle((query.clone(), message));
        let validator = DnssecDnsHandle::with_trust_anchor(handle, self.keys.clone())
            .nsec3_iteration_limits(Some(MAX_ITERATIONS), Some(MAX_INSECURE_ITERATIONS))
            .validation_cache_size(CACHE);
        validator.lookup(query, DnsRequestOptions::default()).first_answer().await
    }

    /// Returns the fault of a link that is neither secure nor insecure: the first that explains it, from the link upwards.
    fn fault(&self, link: &Link) -> ValidationError {
        let (name, rtype) = (link.query.name(), link.query.query_type());
        let mut replies = self.chain.replies();
        if let Some(error) = replies.iter().find_map(|(.., reply)| reply.as_ref().err().cloned()) {
            return error;
        }
        let own = match link.kind {
            LinkKind::Exact | LinkKind::Wildcard => fault_of(&link.message.answers, name, rtype, self.now),
            LinkKind::Absent => {
                link.message.authorities.iter().filter(|record| signature(record).is_none()).find_map(|record| {
                    fault_of(&link.message.authorities, &record.name, record.record_type(), self.now)
                })
            }
        };
        if link.kind != LinkKind::Exact && own.is_none() {
            if !link.has_proof() {
                return ValidationError::ProofMissing(show(name, rtype));
            }
            if link.iterations() > MAX_ITERATIONS {
                return ValidationError::Iterations(show(name, rtype));
            }
        }
        if let Some(own) = own {
            return own;
        }
        replies.sort_by_key(|(zone, ..)| std::cmp::Reverse(zone.num_labels()));
        let ds_of = |zone: &Name| {
            let found = replies.iter().find(|(name, rtype, _)| name == zone && *rtype == RecordType::DS);
            found.and_then(|(.., reply)| reply.as_deref().ok())
        };
        let above = replies.iter().find_map(|(zone, rtype, reply)| match (rtype, reply) {
            (RecordType::DNSKEY, Ok(keys)) => fault_of_keys(zone, keys, ds_of(zone), self.now),
            (RecordType::DS, Ok(ds)) if ds_records(ds, zone).next().is_some() => {
                fault_of(&ds.answers, zone, RecordType::DS, self.now)
            }
            _ => None,
        });
        above.unwrap_or_else(|| ValidationError::Bogus(show(name, rtype)))
    }
}

/// Reports whether a proof of absence is signed, with too many iterations.
fn is_insecure_proof(validated: &Result<DnsResponse, NetError>) -> bool {
    matches!(validated, Err(NetError::Dns(DnsError::Nsec { proof: Proof::Insecure, .. })))
}

/// Returns the name whose zone has the records in question: DS records are in the zone above (RFC 4035 §3.1.4.1).
fn zone_side(query: &Query) -> Name {
    match query.query_type() {
        RecordType::DS => query.name().base_name(),
        _ => query.name().clone(),
    }
}

/// Returns the proof of a link, and its TTL if the signatures end before it.
fn proof_of(link: &Link, message: &Message) -> (Proof, Option<u32>) {
    let is_data = |record: &&Record| signature(record).is_none();
    let proven: Vec<&Record> = match link.kind {
        LinkKind::Exact | LinkKind::Wildcard => message.answers.iter().filter(is_data).collect(),
        LinkKind::Absent => message.authorities.iter().filter(is_data).collect(),
    };
    let is_secure = !proven.is_empty() && proven.iter().all(|record| record.proof.is_secure());
    // The library skips the check of proofs if all of them are insecure.
    let has_proof = message.authorities.iter().any(|record| is_proof(record.record_type()) && record.proof.is_secure());
    if is_secure && (link.kind == LinkKind::Exact || has_proof) {
        let received = |record: &Record| {
            let mut all = link.message.answers.iter().chain(&link.message.authorities);
            all.find(|other| other.name == record.name && other.data == record.data).map_or(0, |record| record.ttl)
        };
        let shortened = proven.iter().filter(|record| record.ttl < received(record));
        return (Proof::Secure, shortened.map(|record| record.ttl).min());
    }
    (Proof::Bogus, None)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::FutureExt;
    use hickory_proto::rr::rdata::{A, NS, SOA};

    use super::*;
    use crate::dns::{
        recursion::{cache::Entry, upstream_query::Forward, upstream_reply::Reply},
        resolver::validation::wire::to_name,
    };

    /// Returns a reply without proofs, with an SOA and an NS record of every name above the one in question: each makes the library ask
    /// for the DS record of that name, whose reply has the same records.
    fn hostile(forward: &Forward) -> Arc<Entry> {
        let mut name = to_name(forward.name()).unwrap();
        let mut message = Message::query().into_response();
        message.add_query(Query::query(name.clone(), RecordType::from(forward.qtype())));
        while !name.is_root() {
            let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 1);
            message.add_authority(Record::from_rdata(name.clone(), 60, RData::SOA(soa)));
            message.add_authority(Record::from_rdata(name.clone(), 60, RData::NS(NS(name.clone()))));
            name = name.base_name();
        }
        let mut octets = message.to_vec().unwrap();
        octets[..2].copy_from_slice(&[0, 7]);
        Entry::new(Reply::read(&octets, 7, forward.question()).unwrap(), Duration::from_secs(1))
    }

    #[tokio::test]
    async fn work_for_hostile_zones_is_bounded() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let fetch = Arc::new(move |forward: Forward| {
            count.fetch_add(1, Ordering::Relaxed);
            let entry = hostile(&forward);
            async move { entry }.boxed()
        });
        let chain = Chain::new(fetch, Vec::new(), Vec::new());
        let name: Name = "a.b.c.d.e.f.g.h.example.".parse().unwrap();
        let query = Query::query(name.clone(), RecordType::A);
        let mut message = Message::query().into_response();
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        let links = Links::of(&query, &message, |_| true).unwrap();
        let prover = Prover { chain: chain.clone(), keys: Arc::new(TrustAnchors::empty()), now: 1 };
        let ended = tokio::select! {
            () = chain.limit() => None,
            finding = prover.prove(&links.links[0]) => Some(finding),
        };
        assert!(ended.is_none_or(|finding| matches!(finding, Finding::Fault(_))));
        let asked = asked.load(Ordering::Relaxed);
        assert!(asked <= 48, "{asked} questions");
    }
}
