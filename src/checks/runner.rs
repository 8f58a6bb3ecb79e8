//! Runs one check: waits for the tick, probes, applies `rise` and `fall`, and reports changes of status.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::trace;

use super::{error::ProbeError, ticks::Ticks};
use crate::model::{
    announcement::{MAX_REASON, REASON_HOLD, bounded, cut},
    health::{Health, Status, Thresholds},
    maintenance::Scope,
    service::Check,
};

/// Runs a probe: the prober, or a script in tests. Dropping the future ends all work.
pub(super) type ProbeFn =
    Arc<dyn Fn(Arc<Check>) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send>> + Send + Sync>;

/// Report of a runner to the scheduler.
#[derive(Debug)]
pub(super) struct CheckUpdate {
    /// Instance of the check, or the node.
    pub(super) scope: Scope,
    /// Number of the runner's task: the report of a replaced check is ignored.
    pub(super) task: u64,
    /// Status of the check.
    pub(super) status: Status,
    /// Reason of the status; empty if passing.
    pub(super) reason: Arc<str>,
}

/// State of a check between probes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) health: Health,
    pub(super) reason: Arc<str>,
    /// Time of the result that set `reason`; `None` for the initial reason.
    pub(super) since: Option<Instant>,
    /// True until the first result if the status is from before a restart of the agent.
    pub(super) unconfirmed: bool,
}

impl Memory {
    /// Returns the state of a check without results, with this status. The first result of an `unconfirmed` one is
    /// published in any case.
    pub(super) fn new(check: &Check, status: Status, reason: Arc<str>, unconfirmed: bool) -> Self {
        let thresholds = Thresholds { rise: check.rise, fall: check.fall, warn_after: check.warn_after };
        let health = match check.origin.first_result_decides() && !unconfirmed {
            true => Health::undecided(status, thresholds),
            false => Health::new(status, thresholds),
        };
        Self { health, reason, since: None, unconfirmed }
    }

    /// Records a result. Reports whether the change is to be published.
    fn observe(&mut self, result: Status, reason: &str, now: Instant) -> bool {
        let before = self.health.status();
        let agrees = self.health.observe(result).is_some();
        let changed = self.health.status() != before;
        let is_first = std::mem::take(&mut self.unconfirmed);
        let held = self.since.is_some_and(|since| now < since + REASON_HOLD);
        if changed || (agrees && !held && *self.reason != *reason) {
            self.reason = reason.into();
            self.since = Some(now);
            return true;
        }
        is_first
    }
}

/// Returns the output of an application or a command on one line, within its limit.
pub(super) fn limited(check: &Check, output: &str) -> String {
    cut(output, output_limit(check))
}

/// Returns the maximum octets of the output of an application or a command. What muster adds, such as the exit status, does not
/// count.
pub(super) fn output_limit(check: &Check) -> usize {
    check.output_max.and_then(|most| usize::try_from(most).ok()).map_or(MAX_REASON, |most| most.min(MAX_REASON))
}

/// A check that is probed, in a task.
pub(super) struct Runner {
    pub(super) scope: Scope,
    /// Number of the task.
    pub(super) task: u64,
    pub(super) check: Arc<Check>,
    pub(super) memory: Memory,
    pub(super) ticks: Ticks,
    pub(super) probe: ProbeFn,
    pub(super) reports: mpsc::Sender<CheckUpdate>,
}

impl Runner {
    /// Probes at every tick until `shutdown`, or until the task is aborted or the channel closed. Returns the state in which
    /// another runner continues.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> (Memory, Ticks) {
        shutdown.run_until_cancelled(self.probe_at_ticks()).await;
        (self.memory, self.ticks)
    }

    async fn probe_at_ticks(&mut self) {
        loop {
            let due = self.ticks.next().await;
            let start = Instant::now();
            let outcome = (self.probe)(Arc::clone(&self.check)).await;
            let (late_us, took_us) = ((start - due).as_micros() as u64, start.elapsed().as_micros() as u64);
            trace!(scope = ?self.scope, check = %self.check.probe, late_us, took_us, ?outcome, "probed");
            // The place comes first: a result that is remembered has been reported.
            let Ok(place) = self.reports.reserve().await else { return };
            self.ticks.ended();
            let (result, reason) = match &outcome {
                Ok(()) => (Status::Passing, ""),
                Err(ProbeError::Warning(reason)) => (Status::Warning, reason.as_str()),
                Err(ProbeError::Critical(reason)) => (Status::Critical, reason.as_str()),
                Err(ProbeError::NotRun(_)) => continue,
            };
            if self.memory.observe(result, &bounded(reason), Instant::now()) {
                let (status, reason) = (self.memory.health.status(), Arc::clone(&self.memory.reason));
                place.send(CheckUpdate { scope: self.scope.clone(), task: self.task, status, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checks::fixtures::tcp;

    #[tokio::test(start_paused = true)]
    async fn changed_reasons_are_reported_at_a_limited_rate() {
        use Status::{Critical, Passing, Warning};
        // seconds, the result, its reason, what is reported
        let script: &[(u64, Status, &str, Option<&str>)] = &[
            (0, Critical, "refused", Some("critical: refused")), // the first result replaces "no result yet"
            (1, Critical, "503", None),
            (29, Critical, "503", None),
            (30, Critical, "503", Some("critical: 503")),
            (31, Passing, "", Some("passing: ")),
            (32, Warning, "load 1", Some("warning: load 1")),
            (33, Warning, "load 2", None),
            (34, Critical, "refused", None), // below `fall`: the reason is unchanged
            (35, Critical, "reset", Some("critical: reset")),
            (66, Critical, "reset", None),
        ];
        let mut memory = Memory::new(&tcp("any"), Critical, "no result yet".into(), false);
        let start = Instant::now();
        for (second, result, reason, expected) in script {
            let changed = memory.observe(*result, reason, start + Duration::from_secs(*second));
            let reported = changed.then(|| format!("{}: {}", memory.health.status().as_str(), memory.reason));
            assert_eq!(reported.as_deref(), *expected, "at second {second}");
        }
    }
}
