//! Validation of upstream replies (RFC 4035 §5), by hickory-net's validator.
//!
//! ```text
//! reply ─► links (one RRset or absence each) ─► prover ─► library ─► chain handle ─► upstreams
//!                                                 └─► status and TTL, or the fault with its Extended DNS Error
//! ```
//!
//! A reply is validated once, before it enters the cache. No type of the library leaves this module.

mod anchor_keys;
mod chain_handle;
mod error;
mod links;
mod proof;
mod signatures;
mod wildcard;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    dnssec::TrustAnchors,
    op::{Message, Query},
    rr::{Name, Record, RecordType},
};
use tokio::time::timeout;
use tracing::{debug, warn};

pub(super) use self::chain_handle::Fetch;
use self::{
    chain_handle::Chain,
    error::ValidationError,
    links::Links,
    proof::{Finding, Prover},
    wire::{decode, to_lookup_name, to_name},
};
use crate::{
    clock::unix_seconds,
    dns::{
        answer::Ede,
        dnssec::trust_anchor::TrustAnchor,
        message::{
            codes::{Rcode, class, rtype},
            query::LookupName,
        },
        recursion::{
            upstream_query::Forward,
            upstream_reply::Reply,
            validation::{Coverage, Security, ValidationScope},
        },
    },
    log_limit::LogLimiter,
    metrics,
    model::name::Name as OwnName,
};

/// Maximum time of the validation of a reply, longer than that of one question to upstreams. Clients repeat a question after five
/// seconds, and then await the same validation.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Validates replies. Whether names are served here is an argument, since zones change.
pub(super) struct Validator {
    scope: Arc<ValidationScope>,
    fetch: Fetch,
    metrics: metrics::Resolver,
    /// True once the log has said that the upstreams strip DNSSEC records.
    warned_of_stripping: AtomicBool,
    /// Of faults that may concern all names: those of the clock and of trust anchors.
    warnings: LogLimiter,
}

/// Status of a reply with the records that belong to it.
struct Validated {
    security: Security,
    ttl: u32,
    links: Links,
    /// The reply without its additional section, and its records as the places in `links` count them.
    plain: Reply,
    message: Message,
}

impl Validator {
    /// Returns a validator that asks by `fetch` for the chain of trust.
    pub(super) fn new(scope: Arc<ValidationScope>, fetch: Fetch, metrics: metrics::Resolver) -> Self {
        let (warned_of_stripping, warnings) = (AtomicBool::new(false), LogLimiter::default());
        Self { scope, fetch, metrics, warned_of_stripping, warnings }
    }

    /// Reports whether the reply to a question is validated: not for clients that validate themselves. `route` is the suffix of its
    /// route for private names.
    pub(super) fn validates(&self, forward: &Forward, route: Option<&OwnName>) -> bool {
        !forward.checking_disabled()
            && forward.qclass() == class::IN
            && matches!(self.scope.coverage_of(forward.name(), forward.qtype(), route), Coverage::Anchor(_))
    }

    /// Returns the reply with its security status, without records that nothing proves; SERVFAIL for a bogus one. `is_own` tells
    /// names of this server's zones, which upstreams have no records of; `route_of` the routes of private names.
    pub(super) async fn validate<'s>(
        &'s self,
        reply: Reply,
        forward: &Forward,
        is_own: impl Fn(&LookupName) -> bool + Send + Sync,
        route_of: impl Fn(&[u8]) -> Option<&'s OwnName> + Send + Sync,
    ) -> Reply {
        if !reply.is_answer() {
            return reply.with_security(Security::Unvalidated);
        }
        let is_validated = |name: &Name| {
            to_lookup_name(name).is_some_and(|name| {
                let coverage = || self.scope.coverage_of(name.wire(), forward.qtype(), route_of(name.wire()));
                !is_own(&name) && matches!(coverage(), Coverage::Anchor(_))
            })
        };
        let validated = timeout(MAX_TIME, self.status(&reply, forward, is_validated)).await;
        match validated.unwrap_or(Err(ValidationError::Timeout)) {
            Ok(validated) => {
                self.metrics.validated(counted(validated.security));
                relayed(&validated, forward).unwrap_or_else(|| refused(&ValidationError::Limit, forward))
            }
            Err(error) => {
                self.metrics.validated(counted(error.security()));
                self.log(&error, forward);
                refused(&error, forward)
            }
        }
    }

    async fn status(
        &self,
        reply: &Reply,
        forward: &Forward,
        is_validated: impl Fn(&Name) -> bool + Send,
    ) -> Result<Validated, ValidationError> {
        let plain = reply.without_additional().ok_or(ValidationError::Limit)?;
        let message = decode(&plain)?;
        let query = Query::query(to_name(forward.name())?, RecordType::from(forward.qtype()));
        let links = Links::of(&query, &message, is_validated)?;
        let zones: Result<Vec<Name>, _> = self.scope.anchors.iter().map(|anchor| to_name(anchor.zone.wire())).collect();
        let chain = Chain::new(self.fetch.clone(), zones?, links.apexes());
        chain.admit(&mut message.clone())?;
        let (security, ttl) = tokio::select! {
            biased;
            () = chain.limit() => return Err(ValidationError::Limit),
            status = self.status_of(&links, &chain) => status?,
        };
        Ok(Validated { security, ttl, links, plain, message })
    }

    /// Returns the status of all links together, that of the worst (RFC 4035 §4.3), and how long it lasts at most, in seconds.
    async fn status_of(&self, links: &Links, chain: &Arc<Chain>) -> Result<(Security, u32), ValidationError> {
        let now = unix_seconds();
        // Keys of the last anchor: the links of a reply mostly have the same one.
        let mut known: Option<(&OwnName, Arc<TrustAnchors>)> = None;
        let (mut security, mut ttl) = (Security::Secure, u32::MAX);
        if links.has_unvalidated {
            security = Security::Insecure;
        }
        for link in &links.links {
            // Nothing signs signatures.
            if link.query.query_type() == RecordType::RRSIG {
                security = Security::Insecure;
                continue;
            }
            let wire = to_lookup_name(link.query.name()).ok_or(ValidationError::Limit)?;
            let coverage = self.scope.coverage_of(wire.wire(), link.query.query_type().into(), None);
            let Coverage::Anchor(zone) = coverage else { continue };
            let keys = match &known {
                Some((of, keys)) if *of == zone => keys.clone(),
                _ => {
                    let anchors = self.scope.anchors.iter().filter(|anchor| anchor.zone == *zone);
                    let anchors: Vec<&TrustAnchor> = anchors.collect();
                    let keys = Arc::new(anchor_keys::keys(chain, &anchors, now).await?);
                    known = Some((zone, keys.clone()));
                    keys
                }
            };
            let prover = Prover { chain: chain.clone(), keys, now };
            match prover.prove(link).await {
                Finding::Secure(seconds) => ttl = ttl.min(seconds),
                Finding::Insecure => security = Security::Insecure,
                Finding::Fault(error) => return Err(error),
            }
        }
        Ok((security, ttl))
    }

    /// Logs a fault: once if the upstreams strip DNSSEC records, once a minute if the clock or a trust anchor may be wrong.
    fn log(&self, error: &ValidationError, forward: &Forward) {
        let name = || to_name(forward.name()).map(|name| name.to_string()).unwrap_or_default();
        let is_of_anchor = |zone: &str| self.scope.anchors.iter().any(|anchor| anchor.zone.to_string() == zone);
        let may_be_general = match error {
            ValidationError::KeyMissing(zone) => is_of_anchor(zone.trim_end_matches('.')) || zone == ".",
            error => error.may_be_clock(),
        };
        if matches!(error, ValidationError::Stripped(_)) && !self.warned_of_stripping.swap(true, Ordering::Relaxed) {
            warn!("validation fails: {error}");
        } else if may_be_general && self.warnings.is_due() {
            warn!(name = name(), "validation fails: {error}");
        } else {
            debug!(name = name(), "validation fails: {error}");
        }
    }
}

fn counted(security: Security) -> metrics::Validation {
    match security {
        Security::Secure => metrics::Validation::Secure,
        Security::Insecure | Security::Unvalidated => metrics::Validation::Insecure,
        Security::Bogus => metrics::Validation::Bogus,
        Security::Indeterminate => metrics::Validation::Indeterminate,
    }
}

/// Returns the records of a validated reply that a client takes (RFC 4035 §3.2.1). `None` if the reply is too long for a message.
fn relayed(validated: &Validated, forward: &Forward) -> Option<Reply> {
    let Validated { security, ttl, links, plain, message } = validated;
    let is_taken = |record: &Record| {
        let of_dnssec = [rtype::RRSIG, rtype::NSEC, rtype::NSEC3].contains(&u16::from(record.record_type()));
        forward.dnssec_ok() || !of_dnssec || u16::from(record.record_type()) == forward.qtype()
    };
    let places = |kept: &[bool], records: &[Record]| -> Vec<bool> {
        kept.iter().zip(records).map(|(kept, record)| *kept && is_taken(record)).collect()
    };
    let answer = places(&links.answer, &message.answers);
    let authority = places(&links.authority, &message.authorities);
    Some(plain.with_places(&answer, &authority)?.bounded(*ttl, *ttl).with_security(*security))
}

/// Returns SERVFAIL with the Extended DNS Error of a fault.
fn refused(error: &ValidationError, forward: &Forward) -> Reply {
    let text = error.to_string();
    let reply = Reply::bare(Rcode::ServFail, Ede { code: error.code(), text: &text }, forward.question());
    reply.with_security(error.security())
}
