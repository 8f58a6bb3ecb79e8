//! Answers before the first exchange with a peer and with the store: at the start of an agent, the instances of its peers are
//! unknown, or those of its former run, and its dynamic zones are those of its copy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    dns::{
        answer::{
            Answer,
            provenance::{Match, Step},
        },
        message::query::LookupName,
        zone::{Tables, reverse::is_reverse, static_names::Kind},
    },
    model::zone::Source,
};

/// Decides which answers wait for the first exchange. Each engine lets go of it once it is over.
#[derive(Debug)]
pub struct FirstExchange {
    awaited: Awaited,
    is_over: AtomicBool,
}

/// What answers wait for.
#[derive(Debug)]
pub struct Awaited {
    /// Tables with this node's instances only, while those of the peers are unknown.
    pub own: Option<Arc<Tables>>,
    /// True while this node knows dynamic zones from its copy only, which a crash may have left without the last updates.
    pub updates: bool,
}

impl FirstExchange {
    /// Returns an exchange that has not taken place.
    pub fn awaited(awaited: Awaited) -> Self {
        Self { awaited, is_over: AtomicBool::new(false) }
    }

    /// Ends the wait, once the published tables have what the exchange brought.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Reports whether answers from tables that are loaded afterwards do not wait.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Reports whether an answer waits, since the store or a peer may add to it: other nodes may have instances of any service, and
    /// any address. An answer about this node, or about one of its instances by its own name, does not wait, nor does one with records
    /// of a static zone or for the name of an address, nor a name outside our zones. The apex of a zone waits: the serial may continue
    /// that of a former run.
    pub(super) fn delays(&self, name: &LookupName, qtype: u16, answer: &Answer<'_>) -> bool {
        let of_updates = |step: &Step<'_>| step.zone.is_some_and(|zone| zone.source == Source::Updates);
        if self.awaited.updates && answer.steps.iter().any(of_updates) {
            return true;
        }
        let Some(own) = &self.awaited.own else { return false };
        let has_records = !answer.answer.is_empty();
        let is_complete = answer.steps.iter().all(|step| match step.zone {
            Some(_) if matches!(step.found, Match::Address(_)) => true,
            Some(zone) => zone.kind == Kind::Static && has_records && !matches!(step.found, Match::Apex(_)),
            // The reverse name of a peer's address is in no zone.
            None => !is_reverse(name),
        });
        !is_complete && !is_own(own, name, qtype)
    }
}

/// Reports whether the name is that of this node or of one of its instances.
fn is_own(own: &Tables, name: &LookupName, qtype: u16) -> bool {
    let own = own.lookup(name, qtype);
    let is_own =
        |step: &Step<'_>| matches!(step.found, Match::Node { .. } | Match::External { .. } | Match::Instance { .. });
    !own.answer.is_empty() && own.steps.iter().all(is_own)
}
