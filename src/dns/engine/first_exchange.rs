//! Answers before the first exchange with a peer: at the start of an agent, the instances of its peers are unknown, or those of
//! its former run.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::dns::{
    answer::{
        Answer,
        provenance::{Match, Step},
    },
    message::query::LookupName,
    zone::{Tables, reverse::is_reverse, static_names::Kind},
};

/// Decides which answers wait for the first exchange.
#[derive(Debug)]
pub struct FirstExchange {
    /// Tables with this node's instances only; `None` once the exchange is over.
    own: Mutex<Option<Arc<Tables>>>,
    is_over: AtomicBool,
}

impl FirstExchange {
    /// Returns an exchange that has not taken place.
    pub fn awaited(own: Arc<Tables>) -> Self {
        Self { own: Mutex::new(Some(own)), is_over: AtomicBool::new(false) }
    }

    /// Ends the wait.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        *self.own() = None;
    }

    /// Reports whether no answer waits any more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Reports whether an answer waits, since a peer may change it. An answer with this node or its own instances only does not
    /// wait, nor does one with records of a static zone, nor a name outside our zones. The apex of a zone waits: the serial may
    /// continue that of a former run.
    pub(super) fn delays(&self, name: &LookupName, qtype: u16, answer: &Answer<'_>) -> bool {
        if self.is_over() {
            return false;
        }
        let has_records = !answer.answer.is_empty();
        let is_complete = answer.steps.iter().all(|step| match step.zone {
            Some(zone) => zone.kind == Kind::Static && has_records && !matches!(step.found, Match::Apex(_)),
            // The reverse name of a peer's address is in no zone.
            None => !is_reverse(name),
        });
        !is_complete && !self.is_own(name, qtype, answer)
    }

    fn own(&self) -> MutexGuard<'_, Option<Arc<Tables>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports whether own records are all that is known. The instances that other nodes had before may be dead meanwhile.
    fn is_own(&self, name: &LookupName, qtype: u16, answer: &Answer<'_>) -> bool {
        let tables = self.own();
        let Some(own) = tables.as_ref().map(|tables| tables.lookup(name, qtype)) else { return true };
        let is_own = |(own, all): (&Step<'_>, &Step<'_>)| match (own.found.service(), all.found.service()) {
            (Some(own), Some(all)) => own.declared() == all.declared(),
            _ => matches!(own.found, Match::Node { .. } | Match::Reverse(_)),
        };
        !own.answer.is_empty()
            && own.steps.len() == answer.steps.len()
            && own.steps.iter().zip(&answer.steps).all(is_own)
    }
}
