//! The questions of the library about the chain of trust, within bounds.
//!
//! The library asks for DS, DNSKEY and NS records while it validates, and nests such questions as deep as a hostile zone makes it.
//! [`Chain`] counts them for one reply, and ends the validation at the bounds (CVE-2023-50387, CVE-2023-50868).

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{
    future::{self, BoxFuture},
    stream::{self, Stream},
};
use hickory_net::{DnsHandle, NetError, runtime::TokioRuntimeProvider};
use hickory_proto::{
    op::{DnsRequest, DnsResponse, Message, MessageType, Query},
    rr::{Name, RecordType},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{
    error::ValidationError,
    signatures::signature,
    wire::{decode, show, to_lookup_name},
};
use crate::dns::{
    message::codes::ede,
    recursion::{cache::Entry, upstream_query::Forward, upstream_reply::Reply},
};

/// Maximum number of distinct questions about the chain of trust of one reply. A name of ten signed zones has 20, and an unsigned name
/// one more for each label until its zone is known.
const MAX_QUESTIONS: usize = 48;
/// Maximum number of questions of the library for one reply, repeated ones included: bounds nested validations.
const MAX_LOOKUPS: usize = 512;
/// Maximum number of signatures in all messages for one reply. Each is compared with two keys at most, at about 0.1 ms.
const MAX_SIGNATURES: usize = 128;
/// Maximum number of signatures of one RRset: two during a rollover of the key, twice as many during one of the algorithm.
const MAX_SIGNATURES_OF_SET: usize = 8;
/// Maximum number of keys of a zone.
const MAX_KEYS: usize = 32;

/// Fetches the reply to a question about the chain of trust.
pub(in crate::dns::resolver) type Fetch = Arc<dyn Fn(Forward) -> BoxFuture<'static, Arc<Entry>> + Send + Sync>;

/// Outcome of a question.
type Fetched = Result<Arc<Message>, ValidationError>;

/// Questions so far, with their outcomes.
type Known = HashMap<(Name, RecordType), Arc<OnceCell<Fetched>>>;

/// Chain of trust of one reply.
pub(super) struct Chain {
    fetch: Fetch,
    /// Zones of trust anchors, whose DS records do not matter.
    anchors: Vec<Name>,
    /// What the reply shows of its zones.
    apexes: Vec<ApexHint>,
    known: Mutex<Known>,
    lookups: AtomicUsize,
    signatures: AtomicUsize,
    /// Cancelled at a bound: the validation ends.
    limit: CancellationToken,
}

/// Hint of a negative reply: between a name and an apex above it, both excluded, no zone begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApexHint {
    /// Name without the records in question.
    pub(super) below: Name,
    /// Owner of the SOA record: the apex of the zone (RFC 2308 §3).
    pub(super) apex: Name,
}

impl ApexHint {
    /// Reports whether the zone of a name begins above it.
    fn is_within(&self, name: &Name) -> bool {
        self.below != *name && name.zone_of(&self.below) && self.apex != *name && self.apex.zone_of(name)
    }
}

/// Handle that the library asks.
#[derive(Clone)]
pub(super) struct ChainHandle {
    chain: Arc<Chain>,
    /// Question under validation, and its reply.
    subject: Arc<(Query, Message)>,
}

impl Chain {
    pub(super) fn new(fetch: Fetch, anchors: Vec<Name>, apexes: Vec<ApexHint>) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            anchors,
            apexes,
            known: Mutex::default(),
            lookups: AtomicUsize::new(0),
            signatures: AtomicUsize::new(0),
            limit: CancellationToken::new(),
        })
    }

    /// Returns a handle that answers the question of `subject` with its message.
    pub(super) fn handle(self: &Arc<Self>, subject: (Query, Message)) -> ChainHandle {
        ChainHandle { chain: self.clone(), subject: Arc::new(subject) }
    }

    /// Waits until a bound is reached.
    pub(super) async fn limit(&self) {
        self.limit.cancelled().await;
    }

    /// Returns the reply to a question, which is asked once. Without a question, no zone begins at a name within the zone of a known
    /// apex.
    pub(super) async fn get(&self, name: &Name, rtype: RecordType) -> Fetched {
        if rtype == RecordType::NS && self.is_below_known_apex(name) {
            return Ok(Arc::new(Message::query().into_response()));
        }
        let question = (name.to_lowercase(), rtype);
        let cell = {
            let mut known = self.known();
            if known.len() >= MAX_QUESTIONS && !known.contains_key(&question) {
                self.limit.cancel();
                return Err(ValidationError::Limit);
            }
            known.entry(question).or_default().clone()
        };
        cell.get_or_init(|| self.fetched(name, rtype)).await.clone()
    }

    /// Returns all replies so far.
    pub(super) fn replies(&self) -> Vec<(Name, RecordType, Fetched)> {
        let known = self.known();
        let replies =
            known.iter().filter_map(|((name, rtype), cell)| Some((name.clone(), *rtype, cell.get()?.clone())));
        replies.collect()
    }

    /// Removes duplicate records of a message, and counts its signatures.
    ///
    /// # Errors
    /// It has too many of them.
    pub(super) fn admit(&self, message: &mut Message) -> Result<(), ValidationError> {
        for section in [&mut message.answers, &mut message.authorities] {
            let mut seen = HashSet::new();
            section.retain(|record| seen.insert((record.name.clone(), record.data.clone())));
        }
        let (mut sets, mut keys, mut count) = (HashMap::<_, usize>::new(), 0, 0);
        for record in message.answers.iter().chain(&message.authorities) {
            keys += usize::from(record.record_type() == RecordType::DNSKEY);
            if let Some(signature) = signature(record) {
                let of_set = sets.entry((&record.name, signature.input().type_covered)).or_default();
                *of_set += 1;
                count += 1;
                if *of_set > MAX_SIGNATURES_OF_SET {
                    return Err(ValidationError::Limit);
                }
            }
        }
        let before = self.signatures.fetch_add(count, Ordering::Relaxed);
        if keys > MAX_KEYS || before + count > MAX_SIGNATURES { Err(ValidationError::Limit) } else { Ok(()) }
    }

    async fn fetched(&self, name: &Name, rtype: RecordType) -> Fetched {
        let unreadable = || ValidationError::Unreadable(show(name, rtype));
        let forward = Forward::chain(&to_lookup_name(name).ok_or_else(unreadable)?, rtype.into());
        let entry = (self.fetch)(forward).await;
        let reply = &entry.reply;
        if !reply.is_answer() {
            return Err(failure(show(name, rtype), reply));
        }
        let plain = reply.without_additional().ok_or_else(unreadable)?;
        let mut message = decode(&plain)?;
        self.admit(&mut message)?;
        Ok(Arc::new(message))
    }

    /// Reports whether a reply shows that the zone of a name begins above it. A wrong hint is harmless: the DS record of the apex is
    /// validated.
    fn is_below_known_apex(&self, name: &Name) -> bool {
        let hint = |(below, rtype, reply): (Name, RecordType, Fetched)| {
            let message = reply.ok().filter(|message| rtype == RecordType::NS && message.answers.is_empty())?;
            let soa = message.authorities.iter().find(|record| record.record_type() == RecordType::SOA)?;
            Some(ApexHint { below, apex: soa.name.clone() })
        };
        self.apexes.iter().any(|hint| hint.is_within(name))
            || self.replies().into_iter().filter_map(hint).any(|hint| hint.is_within(name))
    }

    async fn reply(&self, query: &Query) -> Result<Message, NetError> {
        if self.lookups.fetch_add(1, Ordering::Relaxed) >= MAX_LOOKUPS {
            self.limit.cancel();
        }
        if self.limit.is_cancelled() {
            // The validation is dropped.
            return future::pending().await;
        }
        // The parent of an anchor's zone must not declare the zone unsigned.
        if query.query_type() == RecordType::DS && self.anchors.contains(query.name()) {
            return Err(NetError::from("the zone of a trust anchor needs no DS record"));
        }
        let reply = self.get(query.name(), query.query_type()).await;
        reply.map(|message| (*message).clone()).map_err(|error| NetError::from(error.to_string()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code under the lock can panic half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the fault of a reply that is no answer.
fn failure(question: String, reply: &Reply) -> ValidationError {
    match reply.error() {
        Some((code, text)) if code == ede::NO_REACHABLE_AUTHORITY => ValidationError::Unreachable { question, text },
        _ => ValidationError::Refused { question, rcode: reply.rcode() },
    }
}

impl DnsHandle for ChainHandle {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let Self { chain, subject } = self.clone();
        Box::pin(stream::once(async move {
            let query = request.queries.first().cloned().ok_or_else(|| NetError::from("no question"))?;
            let mut message = if query == subject.0 { subject.1.clone() } else { chain.reply(&query).await? };
            message.metadata.message_type = MessageType::Response;
            Ok(DnsResponse::from_message(message)?)
        }))
    }
}
