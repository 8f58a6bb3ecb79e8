//! Metrics of the resolver: waiting questions, replaced ones, screened and validated replies.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

/// Share of the forwarding capacity that was full when a question replaced an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullShare {
    /// That of the client.
    Client,
    /// That of all clients.
    All,
}

const FULL_SHARES: [(FullShare, &str); 2] = [(FullShare::Client, "client"), (FullShare::All, "all")];

/// Reason that an upstream's reply was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screened {
    /// It had records of names in our zones.
    OwnZone,
    /// It had a private address for a public name (`resolver.rebind_protection`).
    Rebinding,
}

const SCREENED: [(Screened, &str); 2] = [(Screened::OwnZone, "own-zone"), (Screened::Rebinding, "rebinding")];

/// Outcome of the validation of an upstream's reply (`resolver.dnssec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// Signatures prove it.
    Secure,
    /// Its zone is not signed.
    Insecure,
    /// It was withheld.
    Bogus,
    /// The keys above it could not be fetched.
    Indeterminate,
}

const VALIDATIONS: [(Validation, &str); 4] = [
    (Validation::Secure, "secure"),
    (Validation::Insecure, "insecure"),
    (Validation::Bogus, "bogus"),
    (Validation::Indeterminate, "indeterminate"),
];

/// Counters of the resolver.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    waiting: AtomicU64,
    replaced: [AtomicU64; FULL_SHARES.len()],
    screened: [AtomicU64; SCREENED.len()],
    validations: [AtomicU64; VALIDATIONS.len()],
}

impl Resolver {
    /// Sets the number of questions that wait for an upstream.
    pub fn waiting(&self, count: usize) {
        self.0.waiting.store(count as u64, Ordering::Relaxed);
    }

    /// Counts a question that lost its place to a newer one.
    pub fn replaced(&self, full: FullShare) {
        Writers::Many.add(&self.0.replaced[full as usize], 1);
    }

    /// Counts a reply that was changed.
    pub fn screened(&self, reason: Screened) {
        Writers::Many.add(&self.0.screened[reason as usize], 1);
    }

    /// Counts a validated reply.
    pub fn validated(&self, outcome: Validation) {
        Writers::Many.add(&self.0.validations[outcome as usize], 1);
    }

    pub(super) fn families(&self) -> [Family; 4] {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            Family::gauge(
                "muster_resolver_waiting",
                "Number of questions that wait for an upstream",
                count(&self.0.waiting),
            ),
            Family::counters(
                "muster_resolver_replaced",
                "Number of waiting questions that were replaced by newer ones, by the share that was full",
                FULL_SHARES.iter().zip(&self.0.replaced).map(|((_, word), number)| ([("share", *word)], count(number))),
            ),
            Family::counters(
                "muster_resolver_screened",
                "Number of upstream replies that were changed, by reason",
                SCREENED.iter().zip(&self.0.screened).map(|((_, word), number)| ([("reason", *word)], count(number))),
            ),
            Family::counters(
                "muster_resolver_validations",
                "Number of upstream replies that were validated, by result",
                VALIDATIONS
                    .iter()
                    .zip(&self.0.validations)
                    .map(|((_, word), number)| ([("result", *word)], count(number))),
            ),
        ]
    }
}
