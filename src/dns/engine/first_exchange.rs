//! Answers before the first exchange with a peer: at the start of an agent, the instances of its peers are unknown, or those of
//! its former run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dns::{
    answer::{
        Answer,
        provenance::{Match, Step},
    },
    message::query::LookupName,
    zone::{Tables, reverse::is_reverse, static_names::Kind},
};

/// Decides which answers wait for the first exchange. Holds tables with this node's instances only; `None` once it is over.
#[derive(Debug)]
pub struct FirstExchange(Mutex<Option<Arc<Tables>>>);

impl FirstExchange {
    /// Returns an exchange that has not taken place.
    pub fn awaited(own: Arc<Tables>) -> Self {
        Self(Mutex::new(Some(own)))
    }

    /// Ends the wait, once the published tables have what the exchange brought.
    pub fn end(&self) {
        *self.own() = None;
    }

    /// Reports whether answers from tables that are loaded afterwards do not wait.
    pub(super) fn is_over(&self) -> bool {
        self.own().is_none()
    }

    /// Reports whether an answer waits, since a peer may add to it: other nodes may have instances of any service, and any
    /// address. An answer about this node, or about one of its instances by its own name, does not wait, nor does one with records
    /// of a static zone or for the name of an address, nor a name outside our zones. The apex of a zone waits: the serial may continue that of a former run.
    pub(super) fn delays(&self, name: &LookupName, qtype: u16, answer: &Answer<'_>) -> bool {
        let has_records = !answer.answer.is_empty();
        let is_complete = answer.steps.iter().all(|step| match step.zone {
            Some(_) if matches!(step.found, Match::Address(_)) => true,
            Some(zone) => zone.kind == Kind::Static && has_records && !matches!(step.found, Match::Apex(_)),
            // The reverse name of a peer's address is in no zone.
            None => !is_reverse(name),
        });
        !is_complete && !self.is_own(name, qtype)
    }

    fn own(&self) -> MutexGuard<'_, Option<Arc<Tables>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports whether the name is that of this node or of one of its instances.
    fn is_own(&self, name: &LookupName, qtype: u16) -> bool {
        let tables = self.own();
        let Some(own) = tables.as_ref().map(|tables| tables.lookup(name, qtype)) else { return false };
        let is_own = |step: &Step<'_>| matches!(step.found, Match::Node { .. } | Match::Instance { .. });
        !own.answer.is_empty() && own.steps.iter().all(is_own)
    }
}
