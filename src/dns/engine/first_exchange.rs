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

    /// Reports whether an answer waits, since a peer may add to it: other nodes may have instances of any service, and any
    /// address. An answer about this node, or about one of its instances by its own name, does not wait, nor does one with records
    /// of a static zone, nor a name outside our zones. The apex of a zone waits: the serial may continue that of a former run.
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
        !is_complete && !self.is_own(name, qtype)
    }

    fn own(&self) -> MutexGuard<'_, Option<Arc<Tables>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports whether the name is that of this node or of one of its instances.
    fn is_own(&self, name: &LookupName, qtype: u16) -> bool {
        let tables = self.own();
        let Some(own) = tables.as_ref().map(|tables| tables.lookup(name, qtype)) else { return true };
        let is_own = |step: &Step<'_>| matches!(step.found, Match::Node { .. } | Match::Instance { .. });
        !own.answer.is_empty() && own.steps.iter().all(is_own)
    }
}
