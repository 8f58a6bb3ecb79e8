//! One check's life: wait for the tick, ask, remember, and report a standing that changed.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::trace;

use super::{error::ProbeError, ticks::Ticks};
use crate::model::{
    health::{Health, Status},
    service::{Check, InstanceKey},
};

/// How a check is asked: the prober, or in tests a script. The future's end ends all work.
pub(super) type Ask =
    Arc<dyn Fn(Arc<Check>) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send>> + Send + Sync>;

/// A changed reason of an unchanged standing is reported only after this long. A command that prints a new figure each
/// time would otherwise have the whole cluster gossip about it.
pub(super) const REASON_HOLD: Duration = Duration::from_secs(30);

/// What a task tells the owner.
#[derive(Debug)]
pub(super) struct CheckUpdate {
    /// Whose check it is.
    pub(super) instance: InstanceKey,
    /// The task: what another one says of a check that has since been replaced is to be ignored.
    pub(super) task: u64,
    /// The check's standing.
    pub(super) status: Status,
    /// Why; empty when passing.
    pub(super) reason: Arc<str>,
}

/// What a check knows of itself between probes.
#[derive(Debug)]
pub(super) struct Memory {
    health: Health,
    reason: Arc<str>,
    /// When a result last decided `reason`; `None` while it is the one the check began with.
    since: Option<Instant>,
}

impl Memory {
    /// A check without results that begins as `status`.
    pub(super) fn new(check: &Check, status: Status, reason: Arc<str>) -> Self {
        Self { health: Health::new(status, check.rise, check.fall), reason, since: None }
    }

    /// Takes a result in; whether there is something to report.
    fn observe(&mut self, result: Status, reason: &str, now: Instant) -> bool {
        let changed = self.health.observe(result).is_some();
        let agrees = result == self.health.status();
        let held = self.since.is_some_and(|since| now < since + REASON_HOLD);
        if changed || (agrees && !held && *self.reason != *reason) {
            self.reason = reason.into();
            self.since = Some(now);
            return true;
        }
        false
    }
}

/// Probes `check` at every tick until it is aborted or nobody listens.
pub(super) async fn watch(
    instance: InstanceKey,
    task: u64,
    check: Arc<Check>,
    mut memory: Memory,
    mut ticks: Ticks,
    ask: Ask,
    reports: mpsc::Sender<CheckUpdate>,
) {
    loop {
        let due = ticks.next().await;
        let start = Instant::now();
        let outcome = ask(Arc::clone(&check)).await;
        let (late_us, took_us) = ((start - due).as_micros() as u64, start.elapsed().as_micros() as u64);
        trace!(%instance, check = %check.probe, late_us, took_us, ?outcome, "probed");
        let (result, reason) = match &outcome {
            Ok(()) => (Status::Passing, ""),
            Err(ProbeError::Warning(reason)) => (Status::Warning, reason.as_str()),
            Err(ProbeError::Critical(reason)) => (Status::Critical, reason.as_str()),
            Err(ProbeError::NotRun(_)) => continue,
        };
        if memory.observe(result, reason, Instant::now()) {
            let (status, reason) = (memory.health.status(), Arc::clone(&memory.reason));
            if reports.send(CheckUpdate { instance: instance.clone(), task, status, reason }).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::fixtures::tcp;

    #[tokio::test(start_paused = true)]
    async fn reasons_change_with_the_standing_and_else_only_now_and_then() {
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
            (34, Critical, "refused", None), // one failure is none yet, and leaves the reason as it is
            (35, Critical, "reset", Some("critical: reset")),
            (66, Critical, "reset", None),
        ];
        let mut memory = Memory::new(&tcp("any"), Critical, "no result yet".into());
        let start = Instant::now();
        for (second, result, reason, expected) in script {
            let told = memory.observe(*result, reason, start + Duration::from_secs(*second));
            let told = told.then(|| format!("{}: {}", memory.health.status().as_str(), memory.reason));
            assert_eq!(told.as_deref(), *expected, "at second {second}");
        }
    }
}
