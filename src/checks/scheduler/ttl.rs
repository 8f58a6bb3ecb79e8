//! TTL checks: reports of applications, their expiry, and the pace of their texts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Scheduler, tracked::Work};
use crate::{
    checks::runner::limited,
    model::{health::Status, maintenance::TtlReport, service::Probe},
};

impl Scheduler {
    /// Applies the report of a TTL check. A report that changes only the text is published [`REASON_HOLD`](crate::model::announcement::REASON_HOLD) after the last one.
    pub(super) fn apply_ttl_report(&mut self, report: TtlReport) {
        let (now, metrics) = (Instant::now(), self.metrics.clone());
        let TtlReport { scope, check: id, status, output } = report;
        let Some(tracked) = self.tracked(&scope) else { return };
        let Some(at) = (0..tracked.checks.len()).find(|at| tracked.check_id(*at) == id) else { return };
        let check = &tracked.definition.checks[at];
        let Probe::Ttl { ttl } = check.probe else { return };
        let known = &mut tracked.checks[at];
        let Work::Reports(before) = std::mem::replace(&mut known.work, Work::Reports(now + ttl)) else { return };
        let text: Arc<str> = limited(check, &output).into();
        let held = known.take_text(status, Arc::clone(&text), now);
        if held.is_none() {
            known.set_status(&scope, check, status, text, &metrics);
        }
        self.expiries.remove(&(before, scope.clone(), id.clone()));
        self.expiries.insert((now + ttl, scope.clone(), id.clone()));
        match held {
            Some(until) => {
                self.held_texts.insert((until, scope.clone(), id));
                // The new deadline is stored for the next start.
                self.publish(&BTreeSet::from([scope]));
            }
            None => self.publish_with_aliases(scope),
        }
    }

    /// Publishes the texts of TTL reports that are due.
    pub(super) fn release_texts(&mut self) {
        let (now, metrics) = (Instant::now(), self.metrics.clone());
        while self.held_texts.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, scope, id)) = self.held_texts.pop_first() else { return };
            let Some(tracked) = self.tracked(&scope) else { continue };
            let Some(at) = (0..tracked.checks.len()).find(|at| tracked.check_id(*at) == id) else { continue };
            let (check, known) = (&tracked.definition.checks[at], &mut tracked.checks[at]);
            let Some(text) = known.release_text(now) else { continue };
            known.set_status(&scope, check, known.status, text, &metrics);
            self.publish_with_aliases(scope);
        }
    }

    /// Makes TTL checks critical whose last report has expired.
    pub(super) fn expire(&mut self) {
        let (now, metrics) = (Instant::now(), self.metrics.clone());
        while self.expiries.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, scope, id)) = self.expiries.pop_first() else { return };
            let Some(tracked) = self.tracked(&scope) else { continue };
            let Some(at) = (0..tracked.checks.len()).find(|at| tracked.check_id(*at) == id) else { continue };
            let check = &tracked.definition.checks[at];
            let Probe::Ttl { ttl } = check.probe else { continue };
            let known = &mut tracked.checks[at];
            known.text = None;
            known.set_status(&scope, check, Status::Critical, no_report(ttl), &metrics);
            self.publish_with_aliases(scope);
        }
    }
}

/// Returns the reason of a TTL check whose last report has expired.
pub(super) fn no_report(ttl: Duration) -> Arc<str> {
    format!("no report within {ttl:?}").into()
}
